//! The policies that a scenario can name, each behind the core's traits.

use crate::scenario::{self, Policy, Prefetch};
use swarmdisk_core::engine::Engine;
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::ids::PeerId;
use swarmdisk_core::policy::{
    Candidate, ExpectedCompletion, Guess, InOrder, Lesson, Live, Mixed, Order, Outcome, Owners, Profile, Rarest,
    Selector, Sequential, Supply, Want, WindowedRandom,
};
use swarmdisk_core::rng::Rng;
use swarmdisk_core::time::Instant;

/// The engine with any of them.
pub type SimEngine<'a> = Engine<'a, Mixed<'a>, AnyOrder, AnySelector>;

/// An order of prefetching.
#[derive(Debug, Copy, Clone)]
pub enum AnyOrder {
    /// At random in a window.
    WindowedRandom(WindowedRandom),
    /// The soonest first.
    InOrder(InOrder),
    /// The rarest first.
    Rarest(Rarest),
    /// Each chunk from a seed by its owner alone.
    Owners(Owners),
}

impl Order for AnyOrder {
    fn pick(&mut self, now: Instant, window: &[Guess], supply: &dyn Supply, rng: &mut Rng) -> Option<usize> {
        match self {
            Self::WindowedRandom(order) => order.pick(now, window, supply, rng),
            Self::InOrder(order) => order.pick(now, window, supply, rng),
            Self::Rarest(order) => order.pick(now, window, supply, rng),
            Self::Owners(order) => order.pick(now, window, supply, rng),
        }
    }

    fn next_pick(&self) -> Instant {
        match self {
            Self::WindowedRandom(order) => order.next_pick(),
            Self::InOrder(order) => order.next_pick(),
            Self::Rarest(order) => order.next_pick(),
            Self::Owners(order) => order.next_pick(),
        }
    }
}

/// A choice of peers.
#[derive(Debug, Copy, Clone)]
pub enum AnySelector {
    /// Who is expected to deliver first.
    ExpectedCompletion(ExpectedCompletion),
    /// Anybody: what others are compared with.
    Random,
}

impl Selector for AnySelector {
    fn choose(&mut self, now: Instant, want: Want, candidates: &[Candidate], rng: &mut Rng) -> Option<usize> {
        match self {
            Self::ExpectedCompletion(selector) => selector.choose(now, want, candidates, rng),
            Self::Random if candidates.is_empty() => None,
            Self::Random => Some(rng.below(candidates.len() as u32) as usize),
        }
    }

    fn observe(&mut self, now: Instant, peer: PeerId, outcome: Outcome) {
        if let Self::ExpectedCompletion(selector) = self {
            selector.observe(now, peer, outcome);
        }
    }

    fn forget(&mut self, peer: PeerId) {
        if let Self::ExpectedCompletion(selector) = self {
            selector.forget(peer);
        }
    }
}

/// Whether nodes with this policy learn from what others' guests touch.
pub fn learns(policy: &Policy) -> bool {
    matches!(policy.prefetch, Prefetch::Live | Prefetch::Auto)
}

/// A node's policies; it learns if there are `lessons` to keep in mind.
pub fn make<'a>(
    policy: &Policy,
    profile: &'a [ProfileEntry],
    lessons: &'a mut [Lesson],
) -> (Mixed<'a>, AnyOrder, AnySelector) {
    let by_profile = matches!(policy.prefetch, Prefetch::Profile | Prefetch::Auto) && !profile.is_empty();
    let by_sequence = matches!(policy.prefetch, Prefetch::Sequential | Prefetch::Live | Prefetch::Auto);
    let predictor = Mixed {
        profile: by_profile.then(|| Profile::new(profile, policy.window as usize)),
        live: (!lessons.is_empty()).then(|| Live::new(lessons, live_window(policy))),
        sequential: by_sequence.then(|| Sequential::new(policy.ahead)),
    };
    let order = match policy.order {
        scenario::Order::WindowedRandom => {
            AnyOrder::WindowedRandom(WindowedRandom { soonest_every: policy.soonest_every })
        }
        scenario::Order::InOrder => AnyOrder::InOrder(InOrder),
        scenario::Order::Rarest => AnyOrder::Rarest(Rarest),
        scenario::Order::Owners => AnyOrder::Owners(Owners::default()),
    };
    let selector = match policy.selector {
        scenario::Selector::ExpectedCompletion => AnySelector::ExpectedCompletion(ExpectedCompletion),
        scenario::Selector::Random => AnySelector::Random,
    };
    (predictor, order, selector)
}

/// What live learning looks ahead: as the profile does, or what hosts have.
fn live_window(policy: &Policy) -> usize {
    if policy.window == 0 { swarmdisk_common::policies::LIVE.window as usize } else { policy.window as usize }
}
