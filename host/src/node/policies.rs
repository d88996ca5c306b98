//! Which policies a node runs, in one place.
//!
//! *Invariants*: all that a node may do by itself follows from [`Prefetch`] and the profile.
//! *Bounds*: windows of [`PROFILE_WINDOW`] and [`SEQUENTIAL_AHEAD`].

use swarmdisk_core::engine::Engine;
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::policy::{ExpectedCompletion, Mixed, Profile, Sequential, WindowedRandom};

/// What foresees: a profile, sequential reads, or both.
pub type NodePredictor<'a> = Mixed<'a>;
/// What orders prefetches.
pub type NodeOrder = WindowedRandom;
/// What chooses peers.
pub type NodeSelector = ExpectedCompletion;
/// The engine with these.
pub type NodeEngine<'a> = Engine<'a, NodePredictor<'a>, NodeOrder, NodeSelector>;

/// Entries of the profile that are looked ahead (VMTorrent's window).
const PROFILE_WINDOW: usize = 300;
/// Chunks that a sequential reader is fetched ahead.
const SEQUENTIAL_AHEAD: u32 = 16;

/// What guesses are made from.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing: only what guests wait for is fetched.
    Off,
    /// Sequential reads go on.
    Sequential,
    /// A profile of earlier runs.
    Profile,
    /// What other nodes' guests touch.
    Live,
    /// All of them.
    #[default]
    Auto,
}

/// Makes a node's policies.
pub(crate) fn make(prefetch: Prefetch, profile: &[ProfileEntry]) -> (NodePredictor<'_>, NodeOrder, NodeSelector) {
    let by_profile = matches!(prefetch, Prefetch::Profile | Prefetch::Auto) && !profile.is_empty();
    let by_sequence = matches!(prefetch, Prefetch::Sequential | Prefetch::Auto);
    let predictor = Mixed {
        profile: by_profile.then(|| Profile::new(profile, PROFILE_WINDOW)),
        sequential: by_sequence.then(|| Sequential::new(SEQUENTIAL_AHEAD)),
    };
    (predictor, WindowedRandom::default(), ExpectedCompletion)
}
