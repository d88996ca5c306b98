//! What an engine is made of: limits, the storage they need, settings, counters.
//!
//! *Purpose*: the caller decides on all sizes and owns all memory; [`Footprint::of`] is `const`, so that firmware can
//! assert its RAM when it is compiled, and a simulator can carve a thousand engines from one arena.

use super::announce::Change;
use super::cache::Cache;
use super::contacts::Contact;
use super::demands::Demand;
use super::peer::PeerRow;
use super::peers::Peers;
use super::touchlog::Touch;
use super::transfers::{Transfer, Transfers};
use super::uploads::{Served, Upload};
use crate::geometry::Geometry;
use crate::ids::{Address, Digest, NodeId};
use crate::locality::Locality;
use crate::time::Duration;
use crate::wire::Role;
use serde::{Deserialize, Serialize};

/// How many of each thing an engine can keep.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Links at a time.
    pub peers: u16,
    /// Fetches at a time; as many body buffers at the host.
    pub transfers: u16,
    /// Requests that one peer may have waiting here; told to it in `Hello`.
    pub requests_per_peer: u16,
    /// Different chunks that guests may wait for at a time.
    pub demands: u16,
    /// Addresses of other nodes.
    pub contacts: u16,
    /// Changes of what is held that are remembered one by one; a peer further behind is sent the whole map again.
    pub changes: u16,
    /// Pieces of which it is remembered who was served, to redirect others there.
    pub served: u16,
    /// First touches of guests that are remembered, to be told to others; 0: nobody is told.
    pub touches: u16,
    /// Whether to keep which pieces each peer holds, a bit each: who fetches needs it, a seed does not.
    pub maps: bool,
    /// Whether the cache may have a bound: then it is kept in mind how lately each chunk was used.
    pub bounded: bool,
}

impl Limits {
    /// For a node on a server: 50 links, 128 fetches.
    pub const NODE: Self = Self {
        peers: 50,
        transfers: 128,
        requests_per_peer: 16,
        demands: 1024,
        contacts: 256,
        changes: 1024,
        served: 256,
        touches: 8192,
        maps: true,
        bounded: false,
    };
    /// For a seed: 1,000 links, no fetches.
    pub const SEED: Self = Self {
        peers: 1000,
        transfers: 4,
        requests_per_peer: 16,
        demands: 4,
        contacts: 2048,
        changes: 64,
        served: 16384,
        touches: 0,
        maps: false,
        bounded: false,
    };
}

/// How much storage an engine needs, in elements.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// 64-bit words of bitmaps and of tournament trees.
    pub words: usize,
    /// Links.
    pub peers: usize,
    /// Fetches.
    pub transfers: usize,
    /// Requests of others.
    pub uploads: usize,
    /// Chunks that guests wait for.
    pub demands: usize,
    /// Addresses.
    pub contacts: usize,
    /// Remembered changes.
    pub changes: usize,
    /// Remembered services.
    pub served: usize,
    /// Remembered touches.
    pub touches: usize,
}

/// Bitmaps with a bit for each piece: held, in flight, guessed, touched.
pub(crate) const OWN_BITMAPS: usize = 4;

impl Footprint {
    /// What an engine for an image of this geometry with these limits needs.
    pub const fn of(geometry: Geometry, limits: Limits) -> Self {
        Self {
            words: geometry.bitmap_words() * OWN_BITMAPS
                + Cache::words(geometry, limits)
                + Peers::words(geometry, limits)
                + Transfers::words(limits.transfers as usize),
            peers: limits.peers as usize,
            transfers: limits.transfers as usize,
            uploads: limits.peers as usize * limits.requests_per_peer as usize,
            demands: limits.demands as usize,
            contacts: limits.contacts as usize,
            changes: limits.changes as usize,
            served: limits.served as usize,
            touches: limits.touches as usize,
        }
    }

    /// The same in bytes.
    pub const fn bytes(self) -> usize {
        self.words * 8
            + self.peers * size_of::<PeerRow>()
            + self.transfers * size_of::<Transfer>()
            + self.uploads * size_of::<Upload>()
            + self.demands * size_of::<Demand>()
            + self.contacts * size_of::<Contact>()
            + self.changes * size_of::<Change>()
            + self.served * size_of::<Served>()
            + self.touches * size_of::<Touch>()
    }
}

/// An engine's memory. Each slice at least as long as [`Footprint`] says; the contents do not matter.
#[derive(Debug)]
pub struct Storage<'a> {
    /// Bitmaps and tournament trees.
    pub words: &'a mut [u64],
    /// Links.
    pub peers: &'a mut [PeerRow],
    /// Fetches.
    pub transfers: &'a mut [Transfer],
    /// Requests of others.
    pub uploads: &'a mut [Upload],
    /// Chunks that guests wait for.
    pub demands: &'a mut [Demand],
    /// Addresses.
    pub contacts: &'a mut [Contact],
    /// Remembered changes.
    pub changes: &'a mut [Change],
    /// Remembered services.
    pub served: &'a mut [Served],
    /// Remembered touches.
    pub touches: &'a mut [Touch],
}

impl Storage<'_> {
    pub(crate) fn fits(&self, need: Footprint) -> bool {
        self.words.len() >= need.words
            && self.peers.len() >= need.peers
            && self.transfers.len() >= need.transfers
            && self.uploads.len() >= need.uploads
            && self.demands.len() >= need.demands
            && self.contacts.len() >= need.contacts
            && self.changes.len() >= need.changes
            && self.served.len() >= need.served
            && self.touches.len() >= need.touches
    }
}

/// A blob that this node can give to others.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Its hash.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u32,
}

/// Whether to fetch what nobody has asked for, once there is nothing better to do.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fill {
    /// Never.
    #[default]
    Off,
    /// Once guests have touched 30 % of what is in the image, or have been reading for [`Tuning::fill_after`]; then while
    /// nothing else is fetched, and with at most half of what the network gives.
    Auto,
    /// At most this many bytes a second, from the start.
    Rate(u64),
}

/// Who this node is and how it shall behave. Recordings hold it: a change raises their version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Sizes of all tables.
    pub limits: Limits,
    /// This node's name.
    pub node: NodeId,
    /// The image: the hash of its manifest.
    pub image: Digest,
    /// What it does in the swarm.
    pub role: Role,
    /// Where it can be dialled; ip `::` if others shall take the address they see.
    pub listen: Address,
    /// Where it stands.
    pub locality: Locality,
    /// Size of the manifest in bytes.
    pub manifest_bytes: u32,
    /// Payloads of the image's chunks together, in bytes; 0: not known.
    pub payload_bytes: u64,
    /// A profile that it offers.
    pub profile: Option<Offered>,
    /// A node: whether seeds that learn are told what its guests touch. A seed: whether it learns.
    pub teach: bool,
    /// Whether a chunk may turn out to be there once its leaf page is: it is not asked for before then.
    pub leaves_first: bool,
    /// Background fill.
    pub fill: Fill,
    /// Seeds every random choice.
    pub seed: u64,
    /// Bytes handed over by `Transmit` and not yet reported by `PeerWritable`, in all, above which no further body is
    /// handed over: small when the uplink is limited, so that a demand can overtake.
    pub unsent_bytes_max: u32,
    /// Numbers that rarely need a change.
    pub tuning: Tuning,
}

/// Numbers that rarely need a change; [`Tuning::DEFAULT`] gives the reasons.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Prefetches in flight at a time.
    pub prefetches: u16,
    /// Prefetches asked of one node at a time: few, so that the first holder of a chunk does not become a hub.
    pub prefetches_per_peer: u16,
    /// Prefetches asked of one seed at a time.
    pub prefetches_per_seed: u16,
    /// Fills in flight at a time.
    pub fills: u16,
    /// How long after the first read of a guest `Fill::Auto` begins, however little has been read.
    pub fill_after: Duration,
    /// Requests waiting at a node above which prefetches are answered Busy.
    pub queue: u16,
    /// How long changes of what is held are gathered before they are announced.
    pub batch: Duration,
    /// The least age at which a demand is asked of a second peer.
    pub hedge: Duration,
    /// Age at which a fetch is given up.
    pub timeout: Duration,
    /// How long a seed is left alone after it has redirected a prefetch; a demand waits a third of that.
    pub patience: Duration,
    /// Silence after which a ping is sent.
    pub ping: Duration,
    /// Silence after which a link is given up.
    pub silence: Duration,
    /// Links that a node tries to have.
    pub links: u16,
}

impl Tuning {
    /// Of 100 simulated nodes on 100 Mbit/s links: 32 in flight (16 are too few), 4 a peer and 4 a seed (with more the seed
    /// sends out of order), a second peer for a demand after 300 ms (at 150 ms more was fetched twice), 30 links. Batches of
    /// 8 ms among few (they grow with the links): what eight nodes teach each other shall be in time. A guest that has run for
    /// 10 min has booted, even through a slow link, and is likely to stay.
    pub const DEFAULT: Self = Self {
        prefetches: 32,
        prefetches_per_peer: 4,
        prefetches_per_seed: 4,
        fills: 4,
        fill_after: Duration::from_secs(600),
        queue: 8,
        batch: Duration::from_millis(8),
        hedge: Duration::from_millis(300),
        timeout: Duration::from_secs(10),
        patience: Duration::from_millis(450),
        ping: Duration::from_secs(10),
        silence: Duration::from_secs(30),
        links: 30,
    };
}

/// Why an engine could not be made: the caller's fault; nothing was touched.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum SetupError {
    /// A slice of the storage is too short; this is what is needed.
    StorageTooSmall(Footprint),
    /// A limit is 0 that must not be, or beyond what an id can name.
    Limits,
}

/// Counters since the engine was made.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of bodies received from seeds, duplicates and rejects included.
    pub fetched_seed_bytes: u64,
    /// Bytes of bodies received from nodes.
    pub fetched_peer_bytes: u64,
    /// Bytes of bodies sent.
    pub uploaded_bytes: u64,
    /// Bytes of chunks that were asked for before any guest wanted them, fills and leaf pages not counted.
    pub prefetched_bytes: u64,
    /// Bytes of bodies that were of no use: duplicates, and late answers to what had been cancelled.
    pub discarded_bytes: u64,
    /// Bodies whose hash was wrong.
    pub corrupt_pieces: u64,
    /// Demands asked of a second peer.
    pub hedges: u64,
    /// Fetches given up because they took too long.
    pub timeouts: u64,
    /// Busy answers received.
    pub busy_received: u64,
    /// Busy answers sent.
    pub busy_sent: u64,
    /// Redirects received.
    pub redirects_received: u64,
    /// Redirects sent.
    pub redirects_sent: u64,
    /// Events about rows that were gone.
    pub stale_events: u64,
    /// Wanted chunks that were not recorded because the table was full.
    pub demands_refused: u64,
}

impl core::fmt::Display for SetupError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::StorageTooSmall(need) => {
                write!(f, "the engine's storage is too small: {} bytes are needed", need.bytes())
            }
            Self::Limits => f.write_str("an engine needs at least one peer, transfer, demand, contact and change"),
        }
    }
}

impl core::error::Error for SetupError {}
