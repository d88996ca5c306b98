//! What may be replaced: prediction, the order of prefetching, the choice of a peer.
//!
//! *Purpose*: small traits that see neither the engine nor each other. *Invariants*: integers only; the same seed and the
//! same calls give the same answers. *Bounds*: each call costs at most O(its candidates).

mod evidence;
mod live;
mod mixed;
mod order;
mod pace;
mod profile;
mod selector;
mod sequential;

pub use live::{Lesson, Live, TELLERS_MAX};
pub use mixed::Mixed;
pub use order::{InOrder, Owners, Rarest, WindowedRandom};
pub use profile::Profile;
pub use selector::ExpectedCompletion;
pub use sequential::{STREAMS_MAX, Sequential};

use crate::bitmap::Bits;
use crate::geometry::{ChunkIndex, Geometry, PieceIndex};
use crate::ids::{GuestId, PeerId};
use crate::locality::Nearness;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::{Class, Role};

/// Most guesses in a forecast.
pub const FORECAST_MAX: usize = 512;

/// A guest's read of a chunk.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub guest: GuestId,
    /// What.
    pub chunk: ChunkIndex,
    /// Whether it was held when it was read.
    pub hit: bool,
    /// Whether no guest had read it before.
    pub first: bool,
}

/// A chunk that a guest may want.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Guess {
    /// Which.
    pub chunk: ChunkIndex,
    /// How likely, in 255ths.
    pub probability: u8,
    /// In what time; [`Duration::MAX`] if that is not known.
    pub due: Duration,
}

/// Guesses, the one wanted soonest first; none of them held or in flight.
pub type Forecast = heapless::Vec<Guess, FORECAST_MAX>;

/// What the links bring in.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Throughput {
    /// All links together, in bytes a second; 0 if not known.
    pub bytes_per_sec: u64,
    /// From a request to the first byte of its answer, at most links.
    pub rtt: Duration,
    /// Of a chunk, as it is sent.
    pub mean_bytes: u32,
}

impl Throughput {
    /// Nothing is known of it.
    pub const UNKNOWN: Self = Self { bytes_per_sec: 0, rtt: Duration::ZERO, mean_bytes: 0 };

    /// How many chunks the links bring in within `span` and a round trip. One of 100 Mbit/s is assumed if it is not known.
    pub fn chunks_within(&self, span: Duration) -> usize {
        let bytes_per_sec = if self.bytes_per_sec == 0 { 12_500_000 } else { self.bytes_per_sec };
        let mean_bytes = if self.mean_bytes == 0 { 25_000 } else { u64::from(self.mean_bytes) };
        let bytes = u128::from(bytes_per_sec) * u128::from((span + self.rtt).as_micros()) / 1_000_000;
        usize::try_from(bytes / u128::from(mean_bytes)).unwrap_or(usize::MAX)
    }
}

/// Which chunks are there, which are under way, which have been touched; and what the links bring in.
#[derive(Debug, Copy, Clone)]
pub struct ChunkView<'a> {
    geometry: Geometry,
    held: Bits<'a>,
    flight: Bits<'a>,
    touched: Bits<'a>,
    throughput: Throughput,
}

impl<'a> ChunkView<'a> {
    /// A view of bitmaps with a bit for each piece of `geometry`: held, in flight, and touched by a guest.
    pub const fn new(geometry: Geometry, held: Bits<'a>, flight: Bits<'a>, touched: Bits<'a>) -> Self {
        Self { geometry, held, flight, touched, throughput: Throughput::UNKNOWN }
    }

    /// The same with what the links bring in.
    pub const fn with(self, throughput: Throughput) -> Self {
        Self { throughput, ..self }
    }

    /// What the links bring in.
    pub const fn throughput(&self) -> Throughput {
        self.throughput
    }

    /// How the image is cut.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether the chunk is held.
    pub fn holds(&self, chunk: ChunkIndex) -> bool {
        self.held.get(chunk.get())
    }

    /// Whether a guest has touched the chunk.
    pub fn is_touched(&self, chunk: ChunkIndex) -> bool {
        self.touched.get(chunk.get())
    }

    /// Whether the chunk is neither held nor under way.
    pub fn misses(&self, chunk: ChunkIndex) -> bool {
        !self.held.get_either(&self.flight, chunk.get())
    }
}

/// Tells what guests will want.
pub trait Predictor {
    /// A guest has read a chunk.
    fn observe(&mut self, now: Instant, access: Access);
    /// Fills `out` (empty at the call) with chunks that `view` misses.
    fn forecast(&mut self, now: Instant, view: &ChunkView<'_>, out: &mut Forecast);
    /// A guess that was fetched has been used by a guest, or was lost without.
    fn settle(&mut self, chunk: ChunkIndex, used: bool);

    /// Whether a guess of this chunk, made earlier, still stands. One that does not is taken back.
    fn believes(&self, _chunk: ChunkIndex) -> bool {
        true
    }

    /// Another number whenever `believes` may say something else.
    fn beliefs(&self) -> u32 {
        0
    }

    /// A guest of the node at the other end of a link touched a chunk for the first time, so long `ago`; says whether there
    /// may be more to guess now. From a peer, told in order, true or not.
    fn learn(&mut self, _now: Instant, _peer: PeerId, _chunk: ChunkIndex, _ago: Duration) -> bool {
        false
    }
    /// The link is gone.
    fn forget(&mut self, _peer: PeerId) {}
}

/// Who has how much of what is to be fetched.
pub trait Supply {
    /// From how many linked nodes, seeds not counted, this node may fetch the chunk: those that hold it, the nearest alone; 0 as
    /// long as a node nearer than these is to bring it (from another rack, say).
    fn holders(&self, chunk: ChunkIndex) -> u16;
    /// Whether one of these can be asked for it now; those that have said that they are busy may be among them.
    fn can_ask(&self, chunk: ChunkIndex) -> bool {
        self.holders(chunk) > 0
    }
    /// Whether this node, of itself and the nodes that it is linked with, is the one that shall fetch the chunk from a seed.
    fn owns(&self, chunk: ChunkIndex) -> bool;
    /// How many of the nodes that it is linked with come before this one in the row that all draw alike for the chunk; its
    /// owner is the first.
    fn rank(&self, _chunk: ChunkIndex) -> u16 {
        0
    }
    /// Whether some nodes are nearer than others, so that this one may have to bring something.
    fn is_divided(&self) -> bool {
        false
    }
    /// Whether nearer nodes wait for this one to fetch the chunk from `holders`.
    fn brings(&self, _chunk: ChunkIndex) -> bool {
        false
    }
    /// Whether nodes can be asked for one more chunk that no guest waits for.
    fn has_room(&self) -> bool;
    /// The same of a seed.
    fn seed_has_room(&self) -> bool;
}

/// Tells which guess is fetched next.
pub trait Order {
    /// The index into `window` (a forecast, soonest first) of the guess to fetch, or none: then it is not asked again before
    /// [`next_pick`](Self::next_pick) unless the window or the supply has changed.
    fn pick(&mut self, now: Instant, window: &[Guess], supply: &dyn Supply, rng: &mut Rng) -> Option<usize>;

    /// When it picks what it has not picked so far, even if nothing happens until then.
    fn next_pick(&self) -> Instant {
        Instant::NEVER
    }
}

/// A peer that can be asked.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub peer: PeerId,
    /// Seed or node.
    pub role: Role,
    /// How near it says that it is.
    pub nearness: Nearness,
    /// Round trip.
    pub rtt: Duration,
    /// What it has sent us lately, in bytes a second; 0 if not known.
    pub bytes_per_sec: u64,
    /// Pieces asked of it and not yet here.
    pub in_flight: u16,
    /// Fetches from it that failed lately.
    pub failures: u8,
}

/// What is to be fetched.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which piece.
    pub piece: PieceIndex,
    /// How much it matters.
    pub class: Class,
    /// About how long it is, in bytes.
    pub bytes: u32,
}

/// What became of a fetch.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It came.
    Delivered {
        /// Bytes of the body.
        bytes: u32,
        /// From request to last byte.
        elapsed: Duration,
    },
    /// It did not come in time.
    Late,
    /// It was refused, or the link broke.
    Refused,
    /// It was wrong.
    Corrupt,
}

/// Tells whom to ask.
pub trait Selector {
    /// The index into `candidates` of the peer to ask, or none to wait.
    fn choose(&mut self, now: Instant, want: Want, candidates: &[Candidate], rng: &mut Rng) -> Option<usize>;
    /// How a choice turned out.
    fn observe(&mut self, now: Instant, peer: PeerId, outcome: Outcome);
    /// The peer is gone.
    fn forget(&mut self, peer: PeerId);
}
