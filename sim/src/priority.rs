//! What others' bulk fetches cost a guest that only has demand misses: one uploader, one such guest, some bulk fetchers.
//!
//! *Purpose*: the measure of priority at the uploader, for a test that bounds it and an example that prints it.
//! *How*: the guest's node prefetches nothing; the bulk fetchers began before it, and it may ask them as well. Where a node
//! uploads, the seeds go away.
//! *Units*: nanoseconds from a guest's read until it has all that it waited for. *Bounds*: `LIMIT` of virtual time.

use crate::model::{Setup, SetupError, SimEngine};
use crate::network::Nanos;
use crate::scenario::{
    Factor, Fault, FaultKind, Group, Network, Policy, Prefetch, Rate, Scenario, Seeds, Share, Span, Workload,
};
use crate::world::{Observation, Watch, World};
use bumpalo::Bump;

/// Misses that are measured.
const MISSES: u32 = 400;
/// The guest starts then: the bulk fetches are under way.
const GUEST_STARTS: Span = Span::secs(3);
/// Its misses count from then on; before that the seeds have gone, if they do.
const MEASURED_FROM: Span = Span::secs(4);
/// Chunks of the whole image, which a node that holds all has read.
const ALL_CHUNKS: u32 = 49_152;
/// Chunks that a node which prefetches foresees: it never comes to an end.
const FORESEEN: u32 = 30_000;
/// Mean payload of a chunk, as images have it that say nothing else.
const PAYLOAD_BYTES: u64 = 24 << 10;
/// When a run that has not come to its end is ended.
const LIMIT: Span = Span::secs(600);

/// Who sends.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Uploader {
    /// A seed.
    Seed,
    /// A node that holds all.
    Node,
}

/// What others fetch.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Bulk {
    /// All of the image, as fast as they can.
    Fill,
    /// What guests are about to read that read as much as their links bring.
    Prefetch,
}

/// What is measured.
#[derive(Debug, Copy, Clone, PartialEq)]
pub struct Case {
    /// Who sends.
    pub uploader: Uploader,
    /// What others fetch.
    pub bulk: Bulk,
    /// How many do.
    pub fetchers: u32,
    /// Rate of every link.
    pub rate: Rate,
    /// Round trip.
    pub rtt: Span,
    /// Mean think time of the guest between two misses.
    pub think: Span,
    /// Seeds every choice.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// What each miss took, in order of length.
    misses: Vec<Nanos>,
    /// What the bulk fetchers received while the guest was measured, in bytes a second of all together.
    pub bulk_bytes_per_sec: u64,
}

impl Measured {
    /// The mean miss.
    pub fn mean(&self) -> Nanos {
        self.misses.iter().sum::<Nanos>() / self.misses.len().max(1) as u64
    }

    /// The miss that so many percent do not exceed.
    pub fn percentile(&self, percent: usize) -> Nanos {
        let last = self.misses.len().saturating_sub(1);
        self.misses.get((self.misses.len() * percent / 100).min(last)).copied().unwrap_or_default()
    }
}

/// Runs it.
///
/// # Errors
/// None that a case of these can bring about.
pub fn measure(case: &Case) -> Result<Measured, SetupError> {
    let setup = Setup::new(scenario(case), case.seed)?;
    let bump = Bump::new();
    let guest = setup.nodes.iter().position(|node| node.group == Some(guest_group(case))).unwrap_or(0);
    let mut world = World::new(&setup, &bump, Misses { guest, ..Misses::default() });
    let bulk = |world: &World<'_, Misses>| {
        let nodes = (guest + 1)..setup.nodes.len();
        nodes.map(|node| world.tally(node).origin_bytes + world.tally(node).peer_bytes).sum::<u64>()
    };
    while world.step(MEASURED_FROM.0) {}
    let (began, before) = (world.now(), bulk(&world));
    while world.tally(guest).end.is_none() && world.step(LIMIT.0) {}
    let passed = (world.now() - began).max(1);
    let bulk_bytes_per_sec = (u128::from(bulk(&world) - before) * 1_000_000_000 / u128::from(passed)) as u64;
    let mut misses = std::mem::take(&mut world.watch_mut().took);
    misses.sort_unstable();
    Ok(Measured { misses, bulk_bytes_per_sec })
}

/// Notes what a guest's misses take.
#[derive(Debug, Default)]
struct Misses {
    guest: usize,
    since: Option<(Nanos, u32)>,
    took: Vec<Nanos>,
}

impl Watch for Misses {
    const ENABLED: bool = false;

    fn observe(&mut self, now: Nanos, node: usize, what: Observation) {
        match what {
            Observation::Wanted { chunk } if node == self.guest => self.since = Some((now, chunk)),
            Observation::Got { chunk, .. } if node == self.guest => {
                let Some((since, _)) = self.since.take_if(|(_, wanted)| *wanted == chunk) else { return };
                if since >= MEASURED_FROM.0 {
                    self.took.push(now - since);
                }
            }
            _ => {}
        }
    }

    fn polled(&mut self, _now: Nanos, _node: usize, _engine: &SimEngine<'_>, _action_count: u32) {}
}

fn guest_group(case: &Case) -> usize {
    usize::from(case.uploader == Uploader::Node)
}

fn scenario(case: &Case) -> Scenario {
    let is_node = case.uploader == Uploader::Node;
    let at = Group { up: case.rate, down: case.rate, ..Group::default() };
    let off = Policy { prefetch: Prefetch::Off, ..Policy::default() };
    let named = |name: &str| Some(name.to_owned());
    let holder =
        Group { count: 1, held: Share(1_000_000), workload: named("all"), policy: Some(off.clone()), ..at.clone() };
    let guest =
        Group { count: 1, delay: GUEST_STARTS, workload: named("misses"), policy: Some(off.clone()), ..at.clone() };
    let policy = match case.bulk {
        Bulk::Fill => Policy { fill_rate: Some(Rate(u64::MAX / 1_000_000)), ..off },
        Bulk::Prefetch => Policy { prefetch: Prefetch::Profile, window: FORESEEN, ..off },
    };
    let bulk = Group { count: case.fetchers, workload: named("ahead"), policy: Some(policy), ..at };
    let groups = [is_node.then_some(holder), Some(guest), (case.fetchers > 0).then_some(bulk)];
    let ahead = match case.bulk {
        Bulk::Fill => Span::secs(1000),
        Bulk::Prefetch => Span(PAYLOAD_BYTES * 1_000_000_000 / case.rate.0.max(1)),
    };
    let workload = |name: &str, chunks, think| Workload { name: name.into(), chunks, think, ..Workload::default() };
    let gone = Fault {
        what: FaultKind::SeedKill,
        at: Span(MEASURED_FROM.0 - 200_000_000),
        span: None,
        node: None,
        share: Share(0),
        factor: Factor::ONE,
        by: Span(0),
    };
    Scenario {
        limit: LIMIT,
        network: Network { rack_rtt: case.rtt, zone_rtt: case.rtt, ..Network::default() },
        seeds: Seeds { up: case.rate, down: case.rate, ..Seeds::default() },
        workloads: vec![
            // The first misses are those for leaf pages, and are not counted.
            workload("misses", MISSES + MISSES / 2, case.think),
            workload("ahead", FORESEEN, ahead),
            workload("all", ALL_CHUNKS, Span::secs(1000)),
        ],
        groups: groups.into_iter().flatten().collect(),
        faults: if is_node { vec![gone] } else { Vec::new() },
        ..Scenario::default()
    }
}
