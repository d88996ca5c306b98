//! Which policies an engine runs: chosen, described in a recording and made in one place.
//!
//! *Invariants*: all that an engine may do by itself follows from its [`Policies`] and the profile.
//! *Bounds*: windows of [`PROFILE_WINDOW`], [`LIVE`] and [`SEQUENTIAL_AHEAD`].

use std::fmt;
use swarmdisk_core::engine::Engine;
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::format::recording::{LiveSetting, OrderKind, Policies, SelectorKind};
use swarmdisk_core::geometry::ChunkIndex;
use swarmdisk_core::ids::PeerId;
use swarmdisk_core::policy::{
    Access, ChunkView, ExpectedCompletion, Forecast, Lesson, Live, Mixed, Owners, Predictor, Profile, Sequential,
};
use swarmdisk_core::time::{Duration, Instant};

/// What foresees: a profile, live learning, sequential reads, or all of them; and who takes notes of what is told.
pub struct NodePredictor<'a> {
    mixed: Mixed<'a>,
    pupil: Option<Pupil>,
}

/// What other nodes tell of their guests.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Told {
    /// A chunk was touched for the first time.
    Touched {
        /// By the guest of whom.
        peer: PeerId,
        /// When, in microseconds of this node's clock; before its origin, maybe.
        at_micros: i64,
        /// Which.
        chunk: ChunkIndex,
    },
    /// The link is gone.
    Left {
        /// Which.
        peer: PeerId,
    },
}

/// Takes notes of what is told. It must not wait.
pub type Pupil = Box<dyn FnMut(Told) + Send>;

/// What orders prefetches.
pub type NodeOrder = Owners;
/// What chooses peers.
pub type NodeSelector = ExpectedCompletion;
/// The engine with these.
pub type NodeEngine<'a> = Engine<'a, NodePredictor<'a>, NodeOrder, NodeSelector>;

/// Entries of the profile that are looked ahead: those that are due soon.
pub const PROFILE_WINDOW: u32 = 0;
/// What live learning keeps in mind, half a GiB of chunks of 64 KiB, and how far ahead it looks.
pub const LIVE: LiveSetting = LiveSetting { lessons: 8192, window: 300 };
/// Chunks that a sequential reader is fetched ahead.
pub const SEQUENTIAL_AHEAD: u32 = 16;

/// What guesses are made from.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing: only what guests wait for is fetched.
    Off,
    /// Sequential reads go on.
    Sequential,
    /// A profile of earlier runs.
    Profile,
    /// What other nodes' guests touch, and sequential reads where that is not known.
    Live,
    /// All of them.
    #[default]
    Auto,
}

/// The policies for guesses from `prefetch`, with or without a profile.
pub fn policies(prefetch: Prefetch, has_profile: bool) -> Policies {
    let by_profile = matches!(prefetch, Prefetch::Profile | Prefetch::Auto) && has_profile;
    let by_sequence = matches!(prefetch, Prefetch::Sequential | Prefetch::Live | Prefetch::Auto);
    Policies {
        profile_window: by_profile.then_some(PROFILE_WINDOW),
        live: matches!(prefetch, Prefetch::Live | Prefetch::Auto).then_some(LIVE),
        sequential_ahead: by_sequence.then_some(SEQUENTIAL_AHEAD),
        order: OrderKind::Owners,
        selector: SelectorKind::ExpectedCompletion,
    }
}

/// Makes them; `profile` is followed if `policies` say so, `lessons` are as many as they say.
pub fn make<'a>(
    policies: Policies,
    profile: &'a [ProfileEntry],
    lessons: &'a mut [Lesson],
    pupil: Option<Pupil>,
) -> (NodePredictor<'a>, NodeOrder, NodeSelector) {
    let predictor = Mixed {
        profile: policies.profile_window.map(|window| Profile::new(profile, window as usize)),
        live: policies.live.map(|live| Live::new(lessons, live.window as usize)),
        sequential: policies.sequential_ahead.map(Sequential::new),
    };
    let OrderKind::Owners = policies.order;
    let SelectorKind::ExpectedCompletion = policies.selector;
    (NodePredictor { mixed: predictor, pupil }, Owners::default(), ExpectedCompletion)
}

impl Predictor for NodePredictor<'_> {
    fn observe(&mut self, now: Instant, access: Access) {
        self.mixed.observe(now, access);
    }

    fn forecast(&mut self, now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        self.mixed.forecast(now, view, out);
    }

    fn settle(&mut self, chunk: ChunkIndex, used: bool) {
        self.mixed.settle(chunk, used);
    }

    fn believes(&self, chunk: ChunkIndex) -> bool {
        self.mixed.believes(chunk)
    }

    fn beliefs(&self) -> u32 {
        self.mixed.beliefs()
    }

    fn learn(&mut self, now: Instant, peer: PeerId, chunk: ChunkIndex, ago: Duration) -> bool {
        if let Some(pupil) = &mut self.pupil {
            let micros = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
            let at_micros = micros(now.as_micros()).saturating_sub(micros(ago.as_micros()));
            pupil(Told::Touched { peer, at_micros, chunk });
        }
        self.mixed.learn(now, peer, chunk, ago)
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(pupil) = &mut self.pupil {
            pupil(Told::Left { peer });
        }
        self.mixed.forget(peer);
    }
}

impl fmt::Debug for NodePredictor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let takes_notes = self.pupil.is_some();
        f.debug_struct("NodePredictor").field("mixed", &self.mixed).field("takes_notes", &takes_notes).finish()
    }
}
