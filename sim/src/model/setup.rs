//! A scenario with all its files read and all its draws made: who stands where, starts when, and reads what.

use super::script::{made_up, read_trace};
use super::{ImageError, ImageModel, Purpose, Script, ScriptError, chosen, stream};
use crate::network::{HostSpec, Nanos, Tcp, TopologySpec};
use crate::scenario::{ArrivalKind, Rate, Scenario, Workload};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use swarmdisk_common::profile::{MergeError, Merged, merge};
use swarmdisk_common::trace::Trace;
use swarmdisk_core::format::profile::{ProfileEntry, encode, encoded_bytes_max};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::Role;

/// A node or a seed: an engine at a host.
#[derive(Debug, Clone)]
pub struct NodeSetup {
    /// Seed or node.
    pub role: Role,
    /// Its host in the topology; a host has a seed for each image.
    pub host: u32,
    /// The image.
    pub image: usize,
    /// The group, none for seeds.
    pub group: Option<usize>,
    /// The script of its guest.
    pub script: Option<usize>,
    /// When it starts.
    pub start: Nanos,
}

/// All of a run.
#[derive(Debug)]
pub struct Setup {
    /// What it was made from.
    pub scenario: Scenario,
    /// Seeds every choice.
    pub seed: u64,
    /// Hosts and links.
    pub topology: TopologySpec,
    /// Connections.
    pub tcp: Tcp,
    /// The images.
    pub images: Vec<ImageModel>,
    /// Guests' runs, of all workloads.
    pub scripts: Vec<Script>,
    /// The workload of each script.
    pub script_workloads: Vec<usize>,
    /// What is known of each image; empty if nothing is.
    pub profiles: Vec<Vec<ProfileEntry>>,
    /// Length of each of these as it is sent.
    pub profile_bytes: Vec<u32>,
    /// Chunks that a node remembers to have been touched: all that a guest touches, if the policy allows so many.
    pub touches: u16,
    /// Seeds first: those of the first image, then those of the next; then the nodes.
    pub nodes: Vec<NodeSetup>,
}

/// Why a scenario cannot be run: a file that it names is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A trace.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] MergeError),
}

impl Setup {
    /// Reads all that the scenario names.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(scenario: Scenario, seed: u64) -> Result<Self, SetupError> {
        let numbered = scenario.images.iter().zip(0..);
        let images: Vec<ImageModel> =
            numbered.map(|(image, number)| ImageModel::new(image, seed, number)).collect::<Result<_, _>>()?;
        let (topology, tcp) = (topology(&scenario), tcp(&scenario));
        let mut setup = Self {
            scenario,
            seed,
            topology,
            tcp,
            images,
            scripts: Vec::new(),
            script_workloads: Vec::new(),
            profiles: Vec::new(),
            profile_bytes: Vec::new(),
            touches: 0,
            nodes: Vec::new(),
        };
        let traces = setup.read_traces()?;
        setup.place_seeds();
        setup.place_nodes(&traces)?;
        setup.make_profiles(&traces)?;
        let most = setup.scripts.iter().map(|script| script.chunks().len()).max().unwrap_or(0);
        setup.touches = setup.scenario.policy.touches.min(u16::try_from(most).unwrap_or(u16::MAX));
        Ok(setup)
    }

    /// Seeds of all images together; they come first among the nodes.
    pub fn seed_count(&self) -> usize {
        self.images.len() * self.scenario.seeds.count as usize
    }

    /// The seeds of an image, by number.
    pub fn seeds_of(&self, image: usize) -> std::ops::Range<usize> {
        let count = self.scenario.seeds.count as usize;
        image * count..(image + 1) * count
    }

    /// Where a node says that it stands. Where all nodes stand in one rack nothing is to be said.
    pub fn locality(&self, node: usize) -> Locality {
        let racks: u32 = self.scenario.groups.iter().map(|group| group.racks).sum();
        if racks < 2 || !self.scenario.policy.locality {
            return Locality::NONE;
        }
        let rack = self.rack(node);
        let zone = self.topology.rack_zones[rack as usize].to_string();
        Locality::new(Some(&zone), Some(&rack.to_string()), None)
    }

    /// The rack of a node; racks are numbered across all zones.
    pub fn rack(&self, node: usize) -> u32 {
        self.topology.hosts[self.nodes[node].host as usize].rack
    }

    /// The chunks that any guest of an image touches and that have bytes.
    pub fn working_set(&self, image: usize) -> BTreeSet<u32> {
        let mut scripts: Vec<usize> =
            self.nodes.iter().filter(|node| node.image == image).filter_map(|node| node.script).collect();
        scripts.sort_unstable();
        scripts.dedup();
        let chunks = scripts.iter().flat_map(|script| self.scripts[*script].chunks());
        chunks.filter(|chunk| !self.images[image].is_zero(*chunk)).collect()
    }

    /// Bytes of these chunks on the wire.
    pub fn wire_bytes(&self, image: usize, chunks: &BTreeSet<u32>) -> u64 {
        chunks.iter().map(|chunk| u64::from(self.images[image].piece_bytes(*chunk))).sum()
    }

    /// Each workload's traces, with a name for errors; a made-up one is made for each image when it is needed.
    fn read_traces(&self) -> Result<Vec<Vec<(PathBuf, Trace)>>, ScriptError> {
        let all = self.scenario.workloads.iter();
        all.map(|workload| workload.traces.iter().map(|path| Ok((path.clone(), read_trace(path)?))).collect()).collect()
    }

    fn place_seeds(&mut self) {
        for image in 0..self.images.len() {
            for host in 0..self.scenario.seeds.count {
                self.nodes.push(NodeSetup { role: Role::Seed, host, image, group: None, script: None, start: 0 });
            }
        }
    }

    fn place_nodes(&mut self, traces: &[Vec<(PathBuf, Trace)>]) -> Result<(), SetupError> {
        let starts = starts(&self.scenario, self.seed);
        // Scripts by workload, trace and image.
        let mut known: Vec<((usize, usize, usize), usize)> = Vec::new();
        let mut number = 0u32;
        for group in 0..self.scenario.groups.len() {
            let spec = self.scenario.groups[group].clone();
            let image = spec.image.as_ref().and_then(|name| self.scenario.images.iter().position(|i| i.name == *name));
            let image = image.unwrap_or(0);
            for _ in 0..spec.count {
                let mut draws = stream(self.seed, Purpose::Workload, number.into());
                let named = spec.workload.as_ref();
                let named = named.and_then(|name| self.scenario.workloads.iter().position(|w| w.name == *name));
                let workload = named.unwrap_or_else(|| by_weight(&self.scenario.workloads, draws.below(u32::MAX)));
                let trace = draws.below(traces[workload].len() as u32) as usize;
                let key = (workload, trace, image);
                let script = match known.iter().find(|(other, _)| *other == key) {
                    Some((_, script)) => *script,
                    None => {
                        self.scripts.push(self.script(workload, traces[workload].get(trace), image)?);
                        self.script_workloads.push(workload);
                        known.push((key, self.scripts.len() - 1));
                        self.scripts.len() - 1
                    }
                };
                let host = self.scenario.seeds.count + number;
                let start = starts[number as usize].saturating_add(spec.delay.0);
                let (group, script) = (Some(group), Some(script));
                self.nodes.push(NodeSetup { role: Role::Node, host, image, group, script, start });
                number += 1;
            }
        }
        Ok(())
    }

    fn script(&self, workload: usize, trace: Option<&(PathBuf, Trace)>, image: usize) -> Result<Script, ScriptError> {
        let (spec, model) = (&self.scenario.workloads[workload], &self.images[image]);
        match trace {
            Some((path, trace)) => Script::new(trace, path, model, spec.speed),
            None => Script::new(&self.boot(workload, image), Path::new(&spec.name), model, spec.speed),
        }
    }

    fn boot(&self, workload: usize, image: usize) -> Trace {
        made_up(&self.scenario.workloads[workload], &self.images[image], self.seed ^ workload as u64)
    }

    /// A profile of each image: of the traces that it is to be made of, else of what its guests run.
    fn make_profiles(&mut self, traces: &[Vec<(PathBuf, Trace)>]) -> Result<(), SetupError> {
        let named: Vec<(PathBuf, Trace)> = {
            let paths = self.scenario.profile.traces.iter();
            paths.map(|path| Ok::<_, ScriptError>((path.clone(), read_trace(path)?))).collect::<Result<_, _>>()?
        };
        for (number, image) in self.images.iter().enumerate() {
            let mut runs: Vec<(String, Trace)> = Vec::new();
            let played = traces.iter().enumerate().flat_map(|(workload, traces)| match traces.is_empty() {
                true => vec![(PathBuf::from(&self.scenario.workloads[workload].name), self.boot(workload, number))],
                false => traces.clone(),
            });
            let used: Vec<_> = if named.is_empty() { played.collect() } else { named.clone() };
            runs.extend(used.into_iter().map(|(path, trace)| (path.display().to_string(), trace)));
            let mut merged = Merged { groups: vec![1], entries: Vec::new() };
            if self.scenario.profile.offered {
                let is_zero = |chunk: swarmdisk_core::geometry::ChunkIndex| {
                    let missing = self.scenario.profile.missing.0;
                    let left_out = chosen(self.seed, Purpose::Cache, chunk.get().into(), missing);
                    Ok::<_, MergeError>(image.is_zero(chunk.get()) || left_out)
                };
                merged = merge(image.geometry, &runs, is_zero)?;
            }
            let Merged { groups, entries } = merged;
            let mut bytes = vec![0; encoded_bytes_max(groups.len(), entries.len())];
            let length = encode(image.digest, &groups, &entries, &mut bytes).unwrap_or(0);
            self.profile_bytes.push(if entries.is_empty() { 0 } else { length as u32 });
            self.profiles.push(entries);
        }
        Ok(())
    }
}

fn by_weight(workloads: &[Workload], draw: u32) -> usize {
    let sum: u64 = workloads.iter().map(|workload| u64::from(workload.weight)).sum();
    let mut at = (u64::from(draw) * sum) >> 32;
    for (index, workload) in workloads.iter().enumerate() {
        if at < workload.weight.into() {
            return index;
        }
        at -= u64::from(workload.weight);
    }
    workloads.len() - 1
}

fn topology(scenario: &Scenario) -> TopologySpec {
    let payload = |rate: Rate| scenario.network.payload_share.of(rate.0);
    let network = &scenario.network;
    let mut rack_zones = Vec::new();
    let mut hosts = Vec::new();
    for group in &scenario.groups {
        let first = rack_zones.len() as u32;
        rack_zones.extend((0..group.racks).map(|_| group.zone));
        // Each rack's nodes stand together.
        let rack = |number: u32| first + (u64::from(number) * u64::from(group.racks) / u64::from(group.count)) as u32;
        hosts.extend((0..group.count).map(|number| HostSpec {
            up: payload(group.up),
            down: payload(group.down),
            rack: rack(number),
        }));
    }
    let mut seed_rack = 0;
    if scenario.seeds.apart {
        seed_rack = rack_zones.len() as u32;
        rack_zones.push(scenario.groups.iter().map(|group| group.zone + 1).max().unwrap_or(0));
    }
    let seeds = &scenario.seeds;
    let seed = HostSpec { up: payload(seeds.up), down: payload(seeds.down), rack: seed_rack };
    TopologySpec {
        hosts: (0..seeds.count).map(|_| seed).chain(hosts).collect(),
        rack_zones,
        rack_rate: network.rack_uplink.map(payload),
        zone_rate: network.zone_uplink.map(payload),
        rack_latency: network.rack_rtt.0 / 2,
        zone_latency: network.zone_rtt.0 / 2,
        world_latency: network.world_rtt.0 / 2,
    }
}

fn tcp(scenario: &Scenario) -> Tcp {
    let network = &scenario.network;
    Tcp {
        window_bytes_max: network.window.0.max(1),
        slow_start: network.slow_start,
        loss_ppm: network.loss.0,
        socket_bytes: network.socket.0.min(u64::from(u32::MAX)) as u32,
    }
}

/// When each node starts, its group's delay not counted.
fn starts(scenario: &Scenario, seed: u64) -> Vec<Nanos> {
    let arrivals = &scenario.arrivals;
    let mut draws = stream(seed, Purpose::Arrival, 0);
    let mut at: Nanos = 0;
    let start = |number: u32| match arrivals.kind {
        ArrivalKind::AtOnce => ((u128::from(draws.draw()) * u128::from(arrivals.within.0)) >> 64) as Nanos,
        ArrivalKind::Staggered => arrivals.every.0.saturating_mul(number.into()),
        ArrivalKind::Waves => arrivals.every.0.saturating_mul((number / arrivals.size).into()),
        ArrivalKind::Poisson => {
            at = at.saturating_add(exponential(arrivals.every.0, draws.draw()));
            at
        }
    };
    (0..scenario.node_count()).map(start).collect()
}

/// An exponential draw with this mean. `libm` computes the same on every machine.
pub(crate) fn exponential(mean: u64, draw: u64) -> u64 {
    let uniform = ((draw >> 11) + 1) as f64 / (1u64 << 53) as f64;
    (-libm::log(uniform) * mean as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Arrivals, Group, Seeds, Span};

    fn scenario() -> Scenario {
        let groups =
            vec![Group { count: 5, racks: 2, ..Group::default() }, Group { count: 2, zone: 1, ..Group::default() }];
        Scenario { groups, ..Scenario::default() }
    }

    #[test]
    fn everybody_has_a_place() {
        let setup = Setup::new(scenario(), 1).unwrap();
        assert_eq!(setup.nodes.len(), 8);
        assert_eq!(setup.topology.hosts.iter().map(|host| host.rack).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(setup.topology.rack_zones, [0, 0, 1]);
        let apart = Scenario { seeds: Seeds { apart: true, count: 2, ..Seeds::default() }, ..scenario() };
        let setup = Setup::new(apart, 1).unwrap();
        assert_eq!((setup.topology.hosts[1].rack, setup.topology.rack_zones[3]), (3, 2));
        assert_eq!((setup.nodes[2].host, setup.seeds_of(0)), (2, 0..2));
    }

    #[test]
    fn nodes_start_when_they_are_told() {
        let of = |kind| {
            let arrivals = Arrivals { kind, every: Span(100), size: 3, within: Span(50) };
            starts(&Scenario { arrivals, ..scenario() }, 1)
        };
        assert_eq!(of(ArrivalKind::Staggered), [0, 100, 200, 300, 400, 500, 600]);
        assert_eq!(of(ArrivalKind::Waves), [0, 0, 0, 100, 100, 100, 200]);
        assert!(of(ArrivalKind::AtOnce).iter().all(|start| *start < 50));
        let poisson = of(ArrivalKind::Poisson);
        assert!(poisson.is_sorted() && poisson[6] > 100, "{poisson:?}");
    }

    #[test]
    fn exponential_draws_have_their_mean() {
        let mut draws = stream(1, Purpose::Arrival, 9);
        let sum: u64 = (0..10_000).map(|_| exponential(1000, draws.draw())).sum();
        assert!((9_700_000..10_300_000).contains(&sum), "{sum}");
    }

    #[test]
    fn the_profile_leaves_out_what_it_is_told_to() {
        let mut scenario = scenario();
        let whole = Setup::new(scenario.clone(), 1).unwrap();
        assert_eq!(whole.profiles[0].len(), whole.working_set(0).len());
        scenario.profile.missing = crate::scenario::Share(100_000);
        let part = Setup::new(scenario.clone(), 1).unwrap().profiles[0].len();
        assert!((1300..1400).contains(&part), "{part}");
        scenario.profile.offered = false;
        assert_eq!(Setup::new(scenario, 1).unwrap().profile_bytes, [0]);
    }

    #[test]
    fn workloads_are_drawn_by_weight() {
        let workload = |weight| Workload { weight, ..Workload::default() };
        let all = [workload(1), workload(0), workload(3)];
        let count = |which| (0..1000u32).filter(|at| by_weight(&all, at * (u32::MAX / 1000)) == which).count();
        assert_eq!(count(1), 0);
        assert!((240..=260).contains(&count(0)));
    }
}
