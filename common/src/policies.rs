//! Which policies an engine runs: chosen, described in a recording and made in one place.
//!
//! *Invariants*: all that an engine may do by itself follows from its [`Policies`] and the profile.
//! *Bounds*: windows of [`PROFILE_WINDOW`], [`LIVE`] and [`SEQUENTIAL_AHEAD`].

use swarmdisk_core::engine::Engine;
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::format::recording::{LiveSetting, OrderKind, Policies, SelectorKind};
use swarmdisk_core::policy::{ExpectedCompletion, Lesson, Live, Mixed, Profile, Sequential, WindowedRandom};

/// What foresees: a profile, live learning, sequential reads, or all of them.
pub type NodePredictor<'a> = Mixed<'a>;
/// What orders prefetches.
pub type NodeOrder = WindowedRandom;
/// What chooses peers.
pub type NodeSelector = ExpectedCompletion;
/// The engine with these.
pub type NodeEngine<'a> = Engine<'a, NodePredictor<'a>, NodeOrder, NodeSelector>;

/// Entries of the profile that are looked ahead (VMTorrent's window).
pub const PROFILE_WINDOW: u32 = 300;
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
        order: OrderKind::WindowedRandom { soonest_every: WindowedRandom::default().soonest_every },
        selector: SelectorKind::ExpectedCompletion,
    }
}

/// Makes them; `profile` is followed if `policies` say so, `lessons` are as many as they say.
pub fn make<'a>(
    policies: Policies,
    profile: &'a [ProfileEntry],
    lessons: &'a mut [Lesson],
) -> (NodePredictor<'a>, NodeOrder, NodeSelector) {
    let predictor = Mixed {
        profile: policies.profile_window.map(|window| Profile::new(profile, window as usize)),
        live: policies.live.map(|live| Live::new(lessons, live.window as usize)),
        sequential: policies.sequential_ahead.map(Sequential::new),
    };
    let OrderKind::WindowedRandom { soonest_every } = policies.order;
    let SelectorKind::ExpectedCompletion = policies.selector;
    (predictor, WindowedRandom { soonest_every }, ExpectedCompletion)
}
