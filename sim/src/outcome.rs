//! What a run came to: all that reports are made of.
//!
//! *Invariants*: a function of the setup alone; two runs of one scenario and seed give the same outcome. *Units*: bytes on the
//! wire, microseconds of virtual time; ratios are plain numbers.

use crate::bounds::{distribution_bound, run_bound};
use crate::model::Setup;
use crate::network::{Nanos, Usage};
use crate::scenario::{ArrivalKind, Scenario};
use crate::world::{Quiet, World};
use bumpalo::Bump;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use swarmdisk_core::wire::Role;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// The seed of its draws.
    pub seed: u64,
    /// The hash of all that happened: 16 hexadecimal digits.
    pub digest: String,
    /// Things that happened.
    pub event_count: u64,
    /// Virtual time that passed.
    pub virtual_micros: u64,
    /// Nodes whose guests have read all.
    pub booted_count: u32,
    /// Nodes that were gone for good before that.
    pub gone_count: u32,
    /// Whether it was ended from outside before its end: then all of this is what came so far.
    pub cut_off: bool,
    /// Bytes of the working set, all images together.
    pub working_set_bytes: u64,
    /// All of the nodes together.
    pub totals: Totals,
    /// What no swarm can beat.
    pub bounds: Bounds,
    /// The nodes, in order of their numbers.
    pub nodes: Vec<NodeOutcome>,
    /// What seeds and shared links carried.
    pub links: Vec<LinkOutcome>,
    /// Traffic over time.
    pub traffic: Traffic,
    /// Mean time waited, by how far guests had come in their boot, in hundredths.
    pub stall_micros_by_progress: Vec<u64>,
    /// What was run.
    pub scenario: Scenario,
}

/// Sums over all nodes, and the distribution of their times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Chunks' bodies from seeds.
    pub origin_bytes: u64,
    /// The same from nodes.
    pub peer_bytes: u64,
    /// Of both, what crossed from rack to rack.
    pub far_bytes: u64,
    /// Of these, what came from seeds.
    pub far_origin_bytes: u64,
    /// What came into a rack from others, in working sets of the images that its nodes run: mean of the racks. 1 at best, less
    /// where a seed stands in one of them.
    pub cross_rack_working_sets_per_rack: f64,
    /// The same of the rack that it came most into.
    pub cross_rack_working_sets_worst_rack: f64,
    /// Leaf pages, manifest, profile, heads.
    pub metadata_bytes: u64,
    /// Bodies received for nothing.
    pub discarded_bytes: u64,
    /// Bodies whose hash was wrong.
    pub corrupt_pieces: u64,
    /// Frames received.
    pub frames: u64,
    /// Bytes from seeds, in working sets.
    pub origin_amplification: f64,
    /// The most that a node uploaded, against the mean.
    pub upload_max_over_mean: f64,
    /// Run times from the node's start to its last answer.
    pub run_micros: Spread,
    /// These against the same guest on a local disk.
    pub run_over_local: Ratios,
    /// The same against the lower bound.
    pub run_over_bound: Ratios,
    /// Time waited for the network.
    pub stall_micros: Spread,
}

/// A distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Least.
    pub min: u64,
    /// Median.
    pub p50: u64,
    /// 95th percentile.
    pub p95: u64,
    /// Greatest.
    pub max: u64,
}

/// A distribution of ratios.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Least.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Greatest.
    pub max: f64,
}

/// What no swarm can beat, as `bounds` computes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// To bring the working set to all nodes that start at once; 0 if they do not.
    pub distribution_micros: u64,
    /// To run a guest behind its own link: the median of the nodes'.
    pub run_micros: u64,
    /// To run all of them from one server, the nodes' own links unlimited.
    pub one_server_micros: u64,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOutcome {
    /// Its group's name.
    pub group: String,
    /// When its process started.
    pub start_micros: u64,
    /// From then until it could serve its guest; 0 if it never could.
    pub ready_micros: u64,
    /// From its start to the guest's last answer; none if it did not come to that.
    pub run_micros: Option<u64>,
    /// What the same guest takes on a local disk.
    pub local_micros: u64,
    /// What no swarm can beat.
    pub bound_micros: u64,
    /// Time waited for the network.
    pub stall_micros: u64,
    /// Groups of reads that waited.
    pub demand_misses: u64,
    /// Groups of reads.
    pub reads: u64,
    /// Chunks' bodies from seeds.
    pub origin_bytes: u64,
    /// The same from nodes.
    pub peer_bytes: u64,
    /// Leaf pages, manifest, profile, heads.
    pub metadata_bytes: u64,
    /// Chunks' bodies sent.
    pub uploaded_bytes: u64,
    /// Fetched before the guest asked.
    pub prefetched_bytes: u64,
    /// Of these, what it never read.
    pub prefetch_unused_bytes: u64,
    /// Times that its process ended unasked.
    pub crashes: u32,
}

/// A link that many share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkOutcome {
    /// Which.
    pub name: String,
    /// Its rate, in bytes a second of payload.
    pub rate: u64,
    /// What it carried.
    pub carried_bytes: u64,
    /// Mean use over the run, from 0 to 1.
    pub use_share: f64,
}

/// Bodies over time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Length of a step.
    pub step_micros: u64,
    /// From seeds, in each step.
    pub origin_bytes: Vec<u64>,
    /// From nodes.
    pub peer_bytes: Vec<u64>,
    /// Nodes that were booting at the end of each step.
    pub booting: Vec<u32>,
}

/// Runs a setup to its end; `progress` as for [`World::run`].
pub fn run(setup: &Setup, mut progress: impl FnMut(&World<'_>) -> bool) -> Outcome {
    let bump = Bump::new();
    let mut world = World::new(setup, &bump, Quiet);
    let mut cut_off = false;
    world.run(|world| {
        cut_off = !progress(world);
        !cut_off
    });
    Outcome { cut_off, ..Outcome::new(&world) }
}

impl Outcome {
    /// What a run has come to.
    pub fn new(world: &World<'_>) -> Self {
        let setup = world.setup();
        let (totals, bounds, nodes) = nodes(world);
        let booted = nodes.iter().filter(|node| node.run_micros.is_some()).count();
        Self {
            name: setup.scenario.name.clone(),
            about: setup.scenario.about.clone(),
            seed: setup.seed,
            digest: format!("{:016x}", world.digest()),
            event_count: world.event_count(),
            virtual_micros: world.now() / 1000,
            booted_count: booted as u32,
            gone_count: (nodes.len() - booted - world.booting()) as u32,
            cut_off: false,
            working_set_bytes: working_sets(setup).iter().sum(),
            links: links(world),
            traffic: traffic(world, &nodes),
            stall_micros_by_progress: stall_by_progress(world),
            totals,
            bounds,
            nodes,
            scenario: setup.scenario.clone(),
        }
    }
}

/// Bytes of each image's working set on the wire.
fn working_sets(setup: &Setup) -> Vec<u64> {
    (0..setup.images.len()).map(|image| setup.wire_bytes(image, &setup.working_set(image))).collect()
}

fn nodes(world: &World<'_>) -> (Totals, Bounds, Vec<NodeOutcome>) {
    let setup = world.setup();
    let sets = working_sets(setup);
    let at_once = setup.scenario.arrivals.kind == ArrivalKind::AtOnce;
    let distribution: Vec<Nanos> =
        sets.iter().enumerate().map(|(image, w)| distribution_bound(setup, image, *w)).collect();
    let mut bounds = Bounds::default();
    let mut totals = Totals::default();
    let mut outcomes = Vec::new();
    for (number, spec) in setup.nodes.iter().enumerate().filter(|(_, spec)| spec.role == Role::Node) {
        let node = node(world, number);
        if at_once {
            bounds.distribution_micros = bounds.distribution_micros.max(distribution[spec.image] / 1000);
        }
        add(&mut totals, world, number);
        outcomes.push(node);
    }
    let all: u64 = sets.iter().sum();
    bounds.run_micros = Spread::of(outcomes.iter().map(|node| node.bound_micros).collect()).p50;
    bounds.one_server_micros = one_server(setup, &sets) / 1000;
    let run: Vec<&NodeOutcome> = outcomes.iter().filter(|node| node.run_micros.is_some()).collect();
    let micros = |node: &&NodeOutcome| node.run_micros.unwrap_or_default();
    let over = |bound: fn(&NodeOutcome) -> u64| {
        run.iter().map(|node| micros(node) as f64 / bound(node).max(1) as f64).collect::<Vec<_>>()
    };
    totals.run_micros = Spread::of(run.iter().map(micros).collect());
    totals.stall_micros = Spread::of(outcomes.iter().map(|node| node.stall_micros).collect());
    totals.run_over_local = Ratios::of(over(|node| node.local_micros));
    totals.run_over_bound = Ratios::of(over(|node| node.bound_micros));
    (totals.cross_rack_working_sets_per_rack, totals.cross_rack_working_sets_worst_rack) = cross_rack(world, &sets);
    totals.origin_amplification = totals.origin_bytes as f64 / all.max(1) as f64;
    let uploads = outcomes.iter().map(|node| node.uploaded_bytes);
    let mean = uploads.clone().sum::<u64>() as f64 / outcomes.len().max(1) as f64;
    totals.upload_max_over_mean = uploads.max().unwrap_or_default() as f64 / mean.max(1.0);
    (totals, bounds, outcomes)
}

/// What came into racks from others, in working sets of what their nodes run: mean and most.
fn cross_rack(world: &World<'_>, sets: &[u64]) -> (f64, f64) {
    let setup = world.setup();
    // Of each rack the images that its nodes run, and what they received from elsewhere.
    let mut racks: BTreeMap<u32, (BTreeSet<usize>, u64)> = BTreeMap::new();
    for (number, spec) in setup.nodes.iter().enumerate().filter(|(_, spec)| spec.role == Role::Node) {
        let (images, bytes) = racks.entry(setup.rack(number)).or_default();
        images.insert(spec.image);
        *bytes += world.tally(number).far_bytes;
    }
    let ratio = |(images, bytes): &(BTreeSet<usize>, u64)| {
        let set: u64 = images.iter().map(|image| sets[*image]).sum();
        *bytes as f64 / set.max(1) as f64
    };
    let ratios: Vec<f64> = racks.values().map(ratio).collect();
    (ratios.iter().sum::<f64>() / ratios.len().max(1) as f64, ratios.iter().copied().fold(0.0, f64::max))
}

/// The time in which the seeds alone could send every node its working set.
fn one_server(setup: &Setup, sets: &[u64]) -> Nanos {
    let each = sets.iter().enumerate().map(|(image, set)| {
        let nodes = setup.nodes.iter().filter(|node| node.role == Role::Node && node.image == image).count() as u64;
        let up = setup.seeds_of(image).map(|seed| setup.topology.hosts[setup.nodes[seed].host as usize].up);
        (u128::from(set * nodes) * 1_000_000_000 / u128::from(up.sum::<u64>().max(1))) as u64
    });
    each.max().unwrap_or_default()
}

fn node(world: &World<'_>, number: usize) -> NodeOutcome {
    let setup = world.setup();
    let (spec, tally) = (&setup.nodes[number], world.tally(number));
    let image = &setup.images[spec.image];
    let read = setup.scenario.host.read.0;
    let (mut local, mut bound) = (0, 0);
    if let Some(number_of_script) = spec.script {
        let script = &setup.scripts[number_of_script];
        let think = |group| world.think_time(number, number_of_script, group);
        let down = setup.topology.hosts[spec.host as usize].down;
        local = (0..script.groups.len()).fold(0u64, |sum, group| sum.saturating_add(think(group)).saturating_add(read));
        let has_nothing = spec.group.is_none_or(|group| setup.scenario.groups[group].held.0 == 0);
        bound = if has_nothing { run_bound(script, image, think, read, down) } else { local };
    }
    let counts = world.counts(number);
    NodeOutcome {
        group: spec.group.map_or_else(String::new, |group| setup.scenario.groups[group].name.clone()),
        start_micros: spec.start / 1000,
        ready_micros: tally.ready.map_or(0, |ready| ready - spec.start) / 1000,
        run_micros: tally.end.map(|end| (end - spec.start) / 1000),
        local_micros: local / 1000,
        bound_micros: bound / 1000,
        stall_micros: tally.stall / 1000,
        demand_misses: tally.demand_misses,
        reads: tally.reads,
        origin_bytes: tally.origin_bytes,
        peer_bytes: tally.peer_bytes,
        metadata_bytes: tally.metadata_bytes,
        uploaded_bytes: tally.uploaded_bytes,
        prefetched_bytes: counts.prefetched_bytes,
        prefetch_unused_bytes: counts.prefetch_unused_bytes,
        crashes: tally.crashes,
    }
}

fn add(totals: &mut Totals, world: &World<'_>, number: usize) {
    let tally = world.tally(number);
    totals.origin_bytes += tally.origin_bytes;
    totals.peer_bytes += tally.peer_bytes;
    totals.far_bytes += tally.far_bytes;
    totals.far_origin_bytes += tally.far_origin_bytes;
    totals.metadata_bytes += tally.metadata_bytes;
    totals.frames += tally.frames;
    let counts = world.counts(number);
    totals.discarded_bytes += counts.discarded_bytes;
    totals.corrupt_pieces += counts.corrupt_pieces;
}

fn links(world: &World<'_>) -> Vec<LinkOutcome> {
    let (setup, network) = (world.setup(), world.network());
    let topology = network.topology();
    let of = |name: String, link: u32| {
        let (rate, carried_bytes) = (topology.rates()[link as usize], network.carried(link));
        let most = rate as f64 * world.now() as f64 / 1e9;
        LinkOutcome { name, rate, carried_bytes, use_share: carried_bytes as f64 / most.max(1.0) }
    };
    let seeds =
        (0..setup.scenario.seeds.count).map(|seed| of(format!("seed {seed} up"), topology.host_link(seed, Usage::Up)));
    let shared = topology.shared_links().map(|(name, link)| of(name, link));
    seeds.chain(shared).collect()
}

fn traffic(world: &World<'_>, nodes: &[NodeOutcome]) -> Traffic {
    let timeline = world.timeline();
    let step_micros = timeline.step() / 1000;
    let booting = |step: usize| {
        let at = (step as u64 + 1) * step_micros;
        let is_booting = |node: &&NodeOutcome| {
            node.start_micros < at && node.run_micros.is_none_or(|run| node.start_micros + run > at)
        };
        nodes.iter().filter(is_booting).count() as u32
    };
    Traffic {
        step_micros,
        origin_bytes: timeline.origin_bytes().to_vec(),
        peer_bytes: timeline.peer_bytes().to_vec(),
        booting: (0..timeline.origin_bytes().len()).map(booting).collect(),
    }
}

fn stall_by_progress(world: &World<'_>) -> Vec<u64> {
    let first = world.setup().seed_count();
    let nodes = world.setup().nodes.len() - first;
    let mut sums = vec![0; crate::world::STALL_BINS];
    for number in first..first + nodes {
        for (sum, stall) in sums.iter_mut().zip(&world.tally(number).stall_bins) {
            *sum += stall;
        }
    }
    sums.into_iter().map(|sum| sum / 1000 / nodes.max(1) as u64).collect()
}

impl Spread {
    /// Of these values; all 0 if there are none.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at =
            |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied();
        let at = |percent| at(percent).unwrap_or_default();
        Self { min: at(0), p50: at(50), p95: at(95), max: at(100) }
    }
}

impl Ratios {
    /// Of these values; all 0 if there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at =
            |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied();
        let at = |percent| at(percent).unwrap_or_default();
        Self { min: at(0), p50: at(50), p95: at(95), max: at(100) }
    }
}
