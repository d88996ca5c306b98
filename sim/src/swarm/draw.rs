//! A scenario drawn from a seed: hosts, links, images, guests, policies, and what goes wrong.
//!
//! *Invariants*: equal seeds draw equal scenarios; whatever goes wrong ends, but nodes that lie or that never come back: no
//! seed does either, so that there is always somebody who has everything. *Bounds*: 80 nodes, 300 chunks a boot, 12 faults; as
//! much to carry as the slowest link carries in `CARRY_SECS`.

use super::Options;
use crate::model::{Purpose, stream};
use crate::scenario::{
    ArrivalKind, Arrivals, Factor, Fault, FaultKind, Fill, Group, Host, Image, Leaving, LeavingKind, Network, Order,
    Policy, Prefetch, Profile, Rate, Redirect, Scenario, Seeds, Selector, Share, Size, Span, Workload,
};
use swarmdisk_core::rng::Rng;

/// A boot's chunks take no longer than this over the slowest link.
const CARRY_SECS: u64 = 20;
/// Pieces of the image times nodes: bounds the engines' memory.
const PIECES_IN_ALL_MAX: u64 = 1 << 20;
const MBIT: u64 = 125_000;
/// Long enough for any boot, if there is no mistake.
const LIMIT_SECS: u64 = 3600;

/// What is drawn from a seed.
pub fn draw(seed: u64, options: &Options) -> Scenario {
    let mut draws = Draws(stream(seed, Purpose::Scenario, 0));
    let nodes = draws.nodes().min(options.nodes_max.max(3));
    // Now and then nothing goes wrong, and all nodes are alike.
    let is_healthy = draws.percent(15);
    let groups = draws.groups(nodes, is_healthy);
    let network = draws.network();
    let seeds = draws.seeds(nodes);
    let image = draws.image(nodes);
    let slowest = groups.iter().map(|group| group.up.0.min(group.down.0)).min().unwrap_or(MBIT).min(seeds.up.0);
    let chunks_max = (slowest * CARRY_SECS / image.payload_max.0).min(if nodes > 50 { 100 } else { 300 });
    let workloads = draws.workloads(chunks_max as u32);
    let arrivals = draws.arrivals(nodes);
    let policy = draws.policy(&image, nodes);
    let mut scenario = Scenario {
        name: format!("swarm-{seed}"),
        about: "drawn from a seed".into(),
        seed,
        limit: Span::secs(LIMIT_SECS),
        network,
        images: vec![image],
        groups,
        seeds,
        workloads,
        profile: draws.profile(),
        arrivals,
        leaving: Leaving {
            kind: if draws.percent(8) { LeavingKind::AfterBoot } else { LeavingKind::Never },
            ..Leaving::default()
        },
        host: draws.host(&policy),
        policy,
        faults: Vec::new(),
    };
    if is_healthy {
        scenario.workloads.truncate(1);
        scenario.arrivals.kind = ArrivalKind::AtOnce;
        scenario.leaving.kind = LeavingKind::Never;
        scenario.host.capacity = None;
    } else {
        scenario.faults = draws.faults(&scenario);
    }
    scenario
}

/// About how long the boots take: faults later than that hit nobody.
fn busy_nanos(scenario: &Scenario) -> u64 {
    let (image, arrivals) = (&scenario.images[0], &scenario.arrivals);
    let boot = |workload: &Workload| {
        let slowest = scenario.groups.iter().map(|group| group.down.0).min().unwrap_or(MBIT);
        u64::from(workload.chunks) * (workload.think.0 + 1_000_000 + image.payload_max.0 * 1_000_000_000 / slowest)
    };
    let arrive = match arrivals.kind {
        ArrivalKind::AtOnce => arrivals.within.0,
        ArrivalKind::Waves => arrivals.every.0 * u64::from(scenario.node_count() / arrivals.size.max(1)),
        ArrivalKind::Staggered | ArrivalKind::Poisson => arrivals.every.0 * u64::from(scenario.node_count()),
    };
    arrive + scenario.workloads.iter().map(boot).max().unwrap_or(0)
}

struct Draws(Rng);

impl Draws {
    /// From `least` to `most`, evenly.
    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + ((u128::from(self.0.draw()) * u128::from(most.max(least) - least + 1)) >> 64) as u64
    }

    /// From `least` to `most`, as likely to be half of something as twice it.
    fn spread(&mut self, least: u64, most: u64) -> u64 {
        let doublings = u64::from((most / least.max(1)).max(1).ilog2());
        let floor = least << self.between(0, doublings);
        self.between(floor, floor * 2).clamp(least, most)
    }

    fn percent(&mut self, share: u64) -> bool {
        self.between(0, 99) < share
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.between(0, of.len() as u64 - 1) as usize]
    }

    fn nodes(&mut self) -> u32 {
        let (least, most) = self.pick(&[(3, 8), (9, 29), (30, 45), (30, 45), (32, 50), (46, 80)]);
        self.between(least, most) as u32
    }

    fn rate(&mut self) -> Rate {
        Rate(self.pick(&[10, 25, 50, 100, 100, 250, 1000, 1000, 2500, 10_000]) * MBIT)
    }

    fn groups(&mut self, nodes: u32, are_alike: bool) -> Vec<Group> {
        let count = if are_alike { 1 } else { self.pick(&[1, 1, 1, 2, 3]).min(nodes) };
        let mut left = nodes;
        let mut groups = Vec::new();
        for number in 0..count {
            let most = u64::from(left - (count - number - 1));
            let size = if number + 1 == count { most } else { self.between(1, most) } as u32;
            left -= size;
            let down = self.rate();
            let up = if self.percent(25) { Rate((down.0 / self.between(2, 8)).max(5 * MBIT)) } else { down };
            groups.push(Group {
                name: format!("group-{number}"),
                count: size,
                racks: self.between(1, u64::from(size.min(5))) as u32,
                zone: if self.percent(30) { number } else { 0 },
                up,
                down,
                held: if !are_alike && self.percent(15) {
                    Share(self.between(100_000, 900_000) as u32)
                } else {
                    Share(0)
                },
                delay: if number > 0 && self.percent(30) { Span::millis(self.between(1, 3000)) } else { Span(0) },
                ..Group::default()
            });
        }
        groups
    }

    fn network(&mut self) -> Network {
        let default = Network::default();
        Network {
            rack_rtt: Span::micros(self.spread(50, 2000)),
            zone_rtt: Span::micros(self.spread(200, 10_000)),
            world_rtt: Span::millis(self.spread(2, 150)),
            rack_uplink: self.percent(15).then(|| Rate(self.between(100, 10_000) * MBIT)),
            loss: if self.percent(20) { Share(self.spread(50, 10_000) as u32) } else { Share(0) },
            slow_start: self.percent(70),
            window: Size(self.pick(&[256 << 10, 1 << 20, 4 << 20])),
            socket: Size(self.pick(&[16 << 10, 64 << 10, 256 << 10])),
            ..default
        }
    }

    fn seeds(&mut self, nodes: u32) -> Seeds {
        let up = Rate(self.rate().0.max(25 * MBIT));
        Seeds {
            count: self.pick(&[1, 1, 2, 3]),
            up,
            down: up,
            apart: self.percent(25),
            // Of a node that lost its power the row lives on for a while; so there is room for more.
            links: (nodes * 4 + 16) as u16,
            unsent: Size(self.pick(&[128 << 10, 1 << 20, 4 << 20])),
            ..Seeds::default()
        }
    }

    fn image(&mut self, nodes: u32) -> Image {
        let chunk = self.pick(&[16u64, 32, 64, 64, 64, 128, 256, 1024]) << 10;
        let size_max = (PIECES_IN_ALL_MAX / u64::from(nodes) * chunk).clamp(64 << 20, 4 << 30);
        let payload_max = self.between(chunk / 4, chunk);
        Image {
            size: Size(self.spread(64 << 20, size_max) + self.pick(&[0, 512, chunk - 1])),
            chunk: Size(chunk),
            payload_min: Size(self.between(chunk / 16, payload_max)),
            payload_max: Size(payload_max),
            zero: if self.percent(40) { Share(self.between(10_000, 600_000) as u32) } else { Share(0) },
            ..Image::default()
        }
    }

    fn workloads(&mut self, chunks_max: u32) -> Vec<Workload> {
        let one = |draws: &mut Self, number: u64| Workload {
            name: format!("boot-{number}"),
            chunks: draws.spread(20, u64::from(chunks_max.max(20))) as u32,
            // Below 200 microseconds reads are in flight together.
            think: Span::micros(draws.pick(&[60, 150, 500, 1500, 4000, 10_000])),
            jitter: if draws.percent(50) { Share(draws.between(1, 500_000) as u32) } else { Share(0) },
            skip: if draws.percent(30) { Share(draws.between(1, 300_000) as u32) } else { Share(0) },
            ..Workload::default()
        };
        let count = self.pick(&[1, 1, 1, 2]);
        (0..count).map(|number| one(self, number)).collect()
    }

    fn profile(&mut self) -> Profile {
        Profile {
            offered: self.percent(70),
            missing: if self.percent(40) { Share(self.between(1, 700_000) as u32) } else { Share(0) },
            ..Profile::default()
        }
    }

    fn arrivals(&mut self, nodes: u32) -> Arrivals {
        Arrivals {
            kind: self.pick(&[
                ArrivalKind::AtOnce,
                ArrivalKind::AtOnce,
                ArrivalKind::Staggered,
                ArrivalKind::Poisson,
                ArrivalKind::Waves,
            ]),
            within: Span::millis(self.spread(1, 1000)),
            every: Span::millis(self.spread(1, 4000 / u64::from(nodes) + 1)),
            size: self.between(1, 16) as u32,
        }
    }

    fn host(&mut self, policy: &Policy) -> Host {
        let micros = |draws: &mut Self| Span::micros(draws.spread(10, 3000));
        let may_be_small = policy.fill == Fill::Off && policy.fill_rate.is_none();
        Host {
            start: Span::millis(self.between(1, 50)),
            read: Span::micros(self.between(10, 200)),
            load: micros(self),
            verify: micros(self),
            store: micros(self),
            capacity: (may_be_small && self.percent(20)).then(|| self.spread(8, 5000) as u32),
        }
    }

    fn policy(&mut self, image: &Image, nodes: u32) -> Policy {
        let links_max = if self.percent(25) { self.between(4, 20) as u16 } else { 50 };
        // Everybody fetches all of it: it has to be short.
        let fills = nodes <= 12 && image.size.0 / image.chunk.0 <= 1100 && self.percent(60);
        let small = |draws: &mut Self, normal: u16, least: u64, most: u64| {
            if draws.percent(30) { draws.between(least, most) as u16 } else { normal }
        };
        Policy {
            locality: true,
            prefetch: self.pick(&[
                Prefetch::Auto,
                Prefetch::Auto,
                Prefetch::Live,
                Prefetch::Profile,
                Prefetch::Sequential,
                Prefetch::Off,
            ]),
            order: self.pick(&[Order::WindowedRandom, Order::WindowedRandom, Order::Owners, Order::InOrder]),
            selector: if self.percent(75) { Selector::ExpectedCompletion } else { Selector::Random },
            window: self.spread(4, 500) as u32,
            soonest_every: self.between(0, 4) as u32,
            ahead: self.spread(1, 32) as u32,
            touches: small(self, 8192, 0, 60),
            fill: if fills && self.percent(50) { Fill::Auto } else { Fill::Off },
            fill_after: Policy::default().fill_after,
            fill_rate: (fills && self.percent(30)).then(|| Rate(self.between(100, 1000) * MBIT)),
            links: self.pick(&[8, 30, 30, 30, 50]).min(links_max),
            links_max,
            requests_per_peer: small(self, 16, 1, 6),
            transfers: small(self, 128, 4, 24),
            prefetches: small(self, 32, 1, 64),
            prefetches_per_peer: small(self, 4, 1, 8),
            prefetches_per_seed: small(self, 8, 1, 16),
            queue: small(self, 8, 1, 24),
            batch: Span::millis(if self.percent(50) { 50 } else { self.spread(2, 400) }),
            hedge: Span::millis(if self.percent(50) { 150 } else { self.spread(20, 1000) }),
            timeout: Span::millis(if self.percent(50) { 10_000 } else { self.spread(1000, 20_000) }),
            patience: Span::millis(if self.percent(50) { 450 } else { self.spread(20, 2000) }),
            unsent: Size(self.pick(&[64 << 10, 512 << 10, 4 << 20])),
            redirect: Redirect::On,
        }
    }

    fn faults(&mut self, scenario: &Scenario) -> Vec<Fault> {
        use FaultKind::{
            ClockStep, Corrupt, Crash, Disconnect, DiskFull, Jitter, Kill, Liar, Partition, Pause, Rename, SeedKill,
            SeedOutage, Slow,
        };
        let all = [
            SeedOutage, Crash, Crash, Kill, Partition, Slow, Liar, Corrupt, Disconnect, Disconnect, Rename, ClockStep,
            DiskFull, Pause, SeedKill, Jitter,
        ];
        let busy = busy_nanos(scenario).clamp(200_000_000, 30_000_000_000);
        let count = self.between(4, 12);
        let mut faults: Vec<Fault> = (0..count)
            .map(|_| {
                let what = self.pick(&all);
                let at = Span(self.between(0, busy) / 1000 * 1000);
                self.fault(what, at, scenario)
            })
            .collect();
        // Some at one time.
        if self.percent(30) {
            let at = faults[0].at;
            faults.iter_mut().skip(1).take(2).for_each(|fault| fault.at = at);
        }
        faults.sort_by_key(|fault| fault.at);
        faults
    }

    fn fault(&mut self, what: FaultKind, at: Span, scenario: &Scenario) -> Fault {
        let targets = if what == FaultKind::SeedKill { scenario.seeds.count } else { scenario.node_count() };
        // Now and then longer than links may be silent.
        let lasts = if self.percent(6) { self.between(8000, 40_000) } else { self.spread(20, 8000) };
        let for_good = match what {
            FaultKind::Crash | FaultKind::Kill => self.percent(15),
            FaultKind::Liar => self.percent(50),
            _ => false,
        };
        let at_once = matches!(what, FaultKind::Disconnect | FaultKind::Rename | FaultKind::ClockStep);
        Fault {
            what,
            at,
            span: (!for_good && !at_once).then(|| Span::millis(lasts)),
            node: Some(self.between(0, u64::from(targets) - 1) as u32),
            share: match what {
                FaultKind::Corrupt => Share(self.spread(1000, 300_000) as u32),
                FaultKind::Jitter => Share(self.spread(10_000, 500_000) as u32),
                _ => Share(self.between(50_000, 950_000) as u32),
            },
            factor: Factor(self.between(2, 50) * 1_000_000),
            by: match what {
                FaultKind::ClockStep => Span::millis(self.spread(10, 100_000)),
                _ => Span::millis(self.spread(1, 1000)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn median(mut of: Vec<usize>) -> usize {
        of.sort_unstable();
        of[of.len() / 2]
    }

    #[test]
    fn all_that_is_drawn_is_a_scenario_and_can_be_written() {
        for seed in 0..300 {
            let scenario = draw(seed, &Options::default());
            assert_eq!(scenario.check(), Ok(()), "{seed}");
            let text = toml::to_string(&scenario).unwrap();
            assert_eq!(Scenario::parse(&text, Path::new("drawn")).unwrap(), scenario, "{seed}");
            assert_eq!(draw(seed, &Options::default()), scenario);
        }
    }

    #[test]
    fn most_seeds_draw_many_nodes_and_many_faults() {
        let scenarios: Vec<Scenario> = (0..500).map(|seed| draw(seed, &Options::default())).collect();
        assert!(median(scenarios.iter().map(|s| s.node_count() as usize).collect()) >= 30);
        assert!(median(scenarios.iter().map(|s| s.faults.len()).collect()) >= 5);
        let kinds = |s: &Scenario| s.faults.iter().map(|fault| fault.what).collect::<BTreeSet<_>>().len();
        assert!(median(scenarios.iter().map(kinds).collect()) >= 3);
        let all: BTreeSet<_> = scenarios.iter().flat_map(|s| s.faults.iter().map(|fault| fault.what)).collect();
        assert_eq!(all.len(), 14, "{all:?}");
    }
}
