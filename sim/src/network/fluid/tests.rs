//! The shares against the textbook's algorithm, and the times of simple transfers against arithmetic.

use super::*;
use crate::network::{HostSpec, TopologySpec};
use proptest::prelude::*;

const MB: u64 = 1_000_000;

fn topology(rates: &[(u64, u64)], racks: u32, rack_rate: Option<u64>) -> Topology {
    let hosts = rates.iter().enumerate();
    Topology::new(TopologySpec {
        hosts: hosts.map(|(at, (up, down))| HostSpec { up: *up, down: *down, rack: at as u32 % racks }).collect(),
        rack_zones: vec![0; racks as usize],
        rack_rate,
        zone_rate: None,
        rack_latency: 100_000,
        zone_latency: 200_000,
        world_latency: 300_000,
    })
}

fn no_windows() -> Tcp {
    Tcp { slow_start: false, window_bytes_max: u64::MAX >> 32, ..Tcp::default() }
}

/// Runs until nothing happens any more; gives (time, tag) of each arrival.
fn run(network: &mut Fluid, mut now: Nanos) -> Vec<(Nanos, u32)> {
    let mut arrived = Vec::new();
    loop {
        let next = network.next(now);
        if next == NEVER {
            return arrived;
        }
        now = next;
        if let Some(Occurrence::Arrived { tag }) = network.advance(now) {
            arrived.push((now, tag));
        }
    }
}

/// Progressive filling: all flows grow alike; those on a link that is full stop.
fn textbook(rates: &[u64], paths: &[Vec<u32>]) -> Vec<f64> {
    let mut left: Vec<f64> = rates.iter().map(|rate| *rate as f64).collect();
    let mut result = vec![f64::NAN; paths.len()];
    while result.iter().any(|rate| rate.is_nan()) {
        let growing = |link: usize| {
            paths.iter().zip(&result).filter(|(path, rate)| rate.is_nan() && path.contains(&(link as u32))).count()
        };
        let level = |link: &usize| left[*link] / growing(*link) as f64;
        let full = (0..left.len()).filter(|link| growing(*link) > 0).min_by(|a, b| level(a).total_cmp(&level(b)));
        let full = full.expect("every flow has links");
        let rate = level(&full);
        for (path, result) in paths.iter().zip(&mut result) {
            if result.is_nan() && path.contains(&(full as u32)) {
                *result = rate;
                path.iter().for_each(|link| left[*link as usize] -= rate);
            }
        }
    }
    result
}

fn active_rates(network: &Fluid) -> (Vec<u64>, Vec<Vec<u32>>) {
    let active = network.pipes.iter().filter(|pipe| pipe.is_active);
    active.map(|pipe| (pipe.rate, pipe.path.links().to_vec())).unzip()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Flows come and go one by one; after each change all rates are as if computed from scratch, or a little less.
    #[test]
    fn shares_are_max_min_fair(
        rates in prop::collection::vec((1u64..100, 1u64..100), 2..12),
        racks in 1u32..4,
        rack_rate in prop::option::of(10u64..200),
        steps in prop::collection::vec((0usize..12, 0usize..12, any::<bool>()), 1..40),
    ) {
        let rates: Vec<(u64, u64)> = rates.iter().map(|(up, down)| (up * MB, down * MB)).collect();
        let topology = topology(&rates, racks, rack_rate.map(|rate| rate * MB));
        for slack in [u64::MAX, Fluid::SLACK] {
            let mut network = Fluid::with_slack(topology.clone(), no_windows(), slack);
            let mut open = Vec::new();
            for (from, to, adds) in &steps {
                let (from, to) = (from % rates.len(), to % rates.len());
                if *adds && from != to {
                    let pipe = network.open(from as u32, to as u32);
                    network.send(0, pipe, u32::MAX, 0);
                    open.push(pipe);
                } else if !open.is_empty() {
                    network.close(0, open.swap_remove(from % open.len()), &mut Vec::new());
                }
                network.relax(0);
                let (found, paths) = active_rates(&network);
                let expected = textbook(topology.rates(), &paths);
                for (link, rate) in topology.rates().iter().enumerate() {
                    let on_link = found.iter().zip(&paths).filter(|(_, path)| path.contains(&(link as u32)));
                    let sum: u64 = on_link.map(|(rate, _)| rate).sum();
                    prop_assert!(sum <= *rate + 16, "link {link} is overdrawn: {sum} of {rate}");
                }
                if slack == u64::MAX {
                    for (found, expected) in found.iter().zip(&expected) {
                        prop_assert!((*found as f64 - expected).abs() <= 16.0, "{found} instead of {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn one_transfer_takes_its_time() {
    let mut network = Fluid::new(topology(&[(10 * MB, 10 * MB), (5 * MB, 5 * MB)], 1, None), no_windows());
    let pipe = network.open(0, 1);
    assert!(network.send(0, pipe, 1_000_000, 7));
    // 0.2 s at 5 MB/s, and 0.1 ms on the way.
    assert_eq!(run(&mut network, 0), [(200_100_000, 7)]);
    assert_eq!(network.carried(0), 1_000_000);
}

#[test]
fn two_transfers_share_and_the_rest_goes_on_alone() {
    let mut network = Fluid::new(topology(&[(10 * MB, 10 * MB); 3], 1, None), no_windows());
    let (first, second) = (network.open(0, 1), network.open(0, 2));
    network.send(0, first, 1_000_000, 1);
    network.send(0, second, 2_000_000, 2);
    // Both at 5 MB/s for 0.2 s; then 1 MB at 10 MB/s.
    assert_eq!(run(&mut network, 0), [(200_100_000, 1), (300_100_000, 2)]);
}

#[test]
fn sockets_take_what_fits() {
    let tcp = Tcp { socket_bytes: 100_000, ..no_windows() };
    let mut network = Fluid::new(topology(&[(10 * MB, 10 * MB); 2], 1, None), tcp);
    let pipe = network.open(0, 1);
    let taken: Vec<bool> = (0..4).map(|tag| network.send(0, pipe, 60_000, tag)).collect();
    assert_eq!(taken, [true, true, false, false]);
    let mut occurrences = Vec::new();
    let mut now = 0;
    while network.next(now) != NEVER {
        now = network.next(now);
        occurrences.extend(network.advance(now));
    }
    let takes = occurrences.iter().filter(|what| matches!(what, Occurrence::Taken { .. })).count();
    assert_eq!(takes, 2);
    assert_eq!(occurrences.len(), 6);
}

#[test]
fn small_frames_slip_in_and_are_paid_for() {
    let mut network = Fluid::new(topology(&[(MB, MB); 2], 1, None), no_windows());
    let pipe = network.open(0, 1);
    network.send(0, pipe, 934, 1);
    assert_eq!(run(&mut network, 0), [(2_000_000 + 100_000, 1)]);
    network.send(3_000_000, pipe, 1_000_000, 2);
    // The 1,000 bytes on the wire before it take a millisecond of the link.
    assert_eq!(run(&mut network, 3_000_000), [(3_000_000 + 1_001_000_000 + 100_000, 2)]);
}

#[test]
fn slow_start_shows_on_long_ways() {
    let mut spec = topology(&[(100 * MB, 100 * MB); 2], 1, None);
    let far = TopologySpec { rack_latency: 20_000_000, ..spec_of(&spec) };
    spec = Topology::new(far);
    let time = |slow_start| {
        let tcp = Tcp { slow_start, ..Tcp::default() };
        let mut network = Fluid::new(spec.clone(), tcp);
        let pipe = network.open(0, 1);
        network.send(0, pipe, 1_000_000, 1);
        run(&mut network, 0)[0].0
    };
    // Windows of 14 KB, doubled each 40 ms, have let through 1 MB in the seventh round trip.
    let (slow, fast) = (time(true), time(false));
    assert!(fast < 35_000_000, "{fast}");
    assert!((240_000_000..300_000_000).contains(&slow), "{slow}");
}

fn spec_of(topology: &Topology) -> TopologySpec {
    topology.spec().clone()
}

#[test]
fn what_has_not_left_is_dropped_with_the_pipe() {
    let mut network = Fluid::new(topology(&[(MB, MB); 2], 1, None), no_windows());
    let pipe = network.open(0, 1);
    network.send(0, pipe, 100_000, 1);
    network.send(0, pipe, 100_000, 2);
    let mut dropped = Vec::new();
    network.close(50_000_000, pipe, &mut dropped);
    assert_eq!(dropped, [1, 2]);
    assert_eq!(run(&mut network, 50_000_000), []);
    // The number is used again, for a pipe of its own.
    let again = network.open(1, 0);
    assert_eq!(again, pipe);
    network.send(60_000_000, again, 100_000, 3);
    assert_eq!(run(&mut network, 60_000_000), [(160_100_000, 3)]);
}

#[test]
fn a_window_grows_when_its_link_becomes_faster() {
    let mut network = Fluid::new(topology(&[(100 * MB, 100 * MB); 2], 1, None), Tcp::default());
    network.set_host_rates(0, 0, MB, MB);
    let pipe = network.open(0, 1);
    network.send(0, pipe, 100_000_000, 1);
    assert!(network.next(0) > 10_000_000);
    network.set_host_rates(10_000_000, 0, 100 * MB, 100 * MB);
    let arrived = run(&mut network, 10_000_000);
    // The first window is 72 MB/s.
    assert!(matches!(arrived[..], [(at, 1)] if at < 1_020_000_000), "{arrived:?}");
}
