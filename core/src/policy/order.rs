//! Orders of prefetching.
//!
//! *Purpose*: nodes in lockstep that ask for the same chunk cannot trade; a diverse order makes each fetch something else
//! from the seed and the rest from each other. *Bounds*: O(window).

use super::{Guess, Order, Supply};
use crate::rng::Rng;
use crate::time::Instant;

/// VMTorrent's order: a random one of the window (CoNEXT 2012, section 4); the head of the window in order, since it is
/// about to be wanted.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct WindowedRandom {
    /// Every n-th pick takes the guess that is wanted soonest; 0: none does.
    pub soonest_every: u32,
}

impl Default for WindowedRandom {
    fn default() -> Self {
        Self { soonest_every: 2 }
    }
}

impl Order for WindowedRandom {
    fn pick(&mut self, _now: Instant, window: &[Guess], _supply: &dyn Supply, rng: &mut Rng) -> Option<usize> {
        if window.is_empty() {
            return None;
        }
        if self.soonest_every > 0 && rng.below(self.soonest_every) == 0 {
            return Some(0);
        }
        Some(rng.below(window.len() as u32) as usize)
    }
}

/// The soonest first. Right for a single node; in a swarm every node asks the seed for the same.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct InOrder;

impl Order for InOrder {
    fn pick(&mut self, _now: Instant, window: &[Guess], _supply: &dyn Supply, _rng: &mut Rng) -> Option<usize> {
        (!window.is_empty()).then_some(0)
    }
}
