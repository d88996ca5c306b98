//! Choice of the peer to ask.
//!
//! *Purpose*: the piece shall come soon, and seeds shall be spared. *Units*: microseconds. *Bounds*: O(candidates).

use super::{Candidate, Outcome, Selector, Want};
use crate::ids::PeerId;
use crate::locality::Nearness;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::{Class, Role};

/// Asks the peer that is expected to deliver first: round trip, and the queue before it at the rate seen so far. Seeds
/// count as slower unless a guest waits, so that the origin sends what nobody else has; now and then another peer is
/// tried, so that one that has become fast is found.
///
/// Near ones go before far ones among those that are comparable: each level that a peer is farther than the nearest that can
/// be asked makes it count as slower by half, or by as much again where no guest waits. So a far node is asked if the near one
/// would take clearly longer, whatever that says of where it stands.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct ExpectedCompletion;

/// A peer of which no rate is known is taken for a 100 Mbit/s link.
const RATE_UNKNOWN: u64 = 12_500_000;
/// Bulk from a seed counts as this many times slower than it is.
const SEED_BULK_FACTOR: u64 = 8;
/// The same for what a guest waits for.
const SEED_DEMAND_FACTOR: u64 = 2;
/// One choice in so many, bulk only, is random.
const EXPLORE_ONE_IN: u32 = 16;

impl Selector for ExpectedCompletion {
    fn choose(&mut self, _now: Instant, want: Want, candidates: &[Candidate], rng: &mut Rng) -> Option<usize> {
        let nodes = candidates.iter().filter(|candidate| candidate.role == Role::Node).count() as u32;
        if want.class != Class::Demand && nodes > 1 && rng.below(EXPLORE_ONE_IN) == 0 {
            let pick = rng.below(nodes) as usize;
            let mut of_nodes = candidates.iter().enumerate().filter(|(_, candidate)| candidate.role == Role::Node);
            return of_nodes.nth(pick).map(|(index, _)| index);
        }
        let nearest = candidates.iter().map(|candidate| candidate.nearness).max()?;
        let costs =
            candidates.iter().enumerate().map(|(index, candidate)| (cost_micros(&want, candidate, nearest), index));
        costs.min().map(|(_, index)| index)
    }

    fn observe(&mut self, _now: Instant, _peer: PeerId, _outcome: Outcome) {}

    fn forget(&mut self, _peer: PeerId) {}
}

fn cost_micros(want: &Want, candidate: &Candidate, nearest: Nearness) -> u64 {
    let rate = if candidate.bytes_per_sec == 0 { RATE_UNKNOWN } else { candidate.bytes_per_sec };
    let queued_bytes = (u64::from(candidate.in_flight) + 1).saturating_mul(u64::from(want.bytes));
    let expected = candidate.rtt.as_micros().saturating_add(queued_bytes.saturating_mul(1_000_000) / rate);
    let factor = match (candidate.role, want.class) {
        (Role::Node, _) => 1,
        (Role::Seed, Class::Demand) => SEED_DEMAND_FACTOR,
        (Role::Seed, _) => SEED_BULK_FACTOR,
    };
    let levels = candidate.nearness.levels_beyond(nearest);
    let (times, of) =
        if want.class == Class::Demand { (3u64.pow(levels), 2u64.pow(levels)) } else { (2u64.pow(levels), 1) };
    (expected.saturating_mul(times) / of).saturating_mul(factor << candidate.failures.min(8))
}
