//! Which policies a node runs, in one place.

use swarmdisk_core::engine::Engine;
use swarmdisk_core::geometry::ChunkIndex;
use swarmdisk_core::ids::PeerId;
use swarmdisk_core::policy::{
    Access, Candidate, ChunkView, Forecast, Guess, Order, Outcome, Predictor, Selector, Supply, Want,
};
use swarmdisk_core::rng::Rng;
use swarmdisk_core::time::Instant;

/// What foresees.
pub type NodePredictor = Nothing;
/// What orders prefetches.
pub type NodeOrder = Nothing;
/// What chooses peers.
pub type NodeSelector = Nothing;
/// The engine with these.
pub type NodeEngine<'a> = Engine<'a, NodePredictor, NodeOrder, NodeSelector>;

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
pub(crate) fn make(_prefetch: Prefetch, _profile: Option<&[u8]>) -> (NodePredictor, NodeOrder, NodeSelector) {
    (Nothing, Nothing, Nothing)
}

/// Foresees nothing, takes the first.
#[derive(Debug, Default, Copy, Clone)]
pub struct Nothing;

impl Predictor for Nothing {
    fn observe(&mut self, _now: Instant, _access: Access) {}
    fn forecast(&mut self, _now: Instant, _view: &ChunkView<'_>, _out: &mut Forecast) {}
    fn settle(&mut self, _chunk: ChunkIndex, _used: bool) {}
}

impl Order for Nothing {
    fn pick(&mut self, _now: Instant, window: &[Guess], _supply: &dyn Supply, _rng: &mut Rng) -> Option<usize> {
        (!window.is_empty()).then_some(0)
    }
}

impl Selector for Nothing {
    fn choose(&mut self, _now: Instant, _want: Want, candidates: &[Candidate], _rng: &mut Rng) -> Option<usize> {
        (!candidates.is_empty()).then_some(0)
    }
    fn observe(&mut self, _now: Instant, _peer: PeerId, _outcome: Outcome) {}
    fn forget(&mut self, _peer: PeerId) {}
}
