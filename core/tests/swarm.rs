//! Swarms of real engines on a virtual network: what a swarm does as a whole.

mod net;

use net::*;
use std::collections::BTreeSet;
use swarmdisk_core::engine::Fill;
use swarmdisk_core::geometry::Geometry;

fn swarm(nodes: usize, profile: bool, gib: u64, chunks: usize, think: u64) -> (Net, u64) {
    let geometry = image(gib);
    let trace = boot(geometry, chunks, think);
    let profile = if profile { profile_of(geometry, &trace) } else { &[] };
    let mut specs = vec![NodeSpec::seed(FAST_ETHERNET)];
    for _ in 0..nodes {
        specs.push(NodeSpec { trace: trace.clone(), profile, sequential: true, ..NodeSpec::node(FAST_ETHERNET) });
    }
    (Net::new(geometry, 250, specs), working_set(geometry, &trace))
}

fn seed_bytes(net: &Net, nodes: usize) -> u64 {
    (1..=nodes).map(|node| net.stats(node).fetched_seed_bytes).sum()
}

#[test]
fn one_node_fetches_what_its_guest_reads_and_no_more() {
    let (mut net, working_set) = swarm(1, false, 1, 300, 2000);
    assert!(net.run(60_000_000));
    let fetched = net.stats(1).fetched_seed_bytes;
    assert!(fetched >= working_set);
    assert!(fetched - working_set <= net.stats(1).prefetched_bytes, "beyond the working set there is only prefetch");
}

#[test]
fn a_profile_keeps_the_guest_from_waiting() {
    let (mut cold, _) = swarm(1, false, 1, 300, 3000);
    let (mut warm, _) = swarm(1, true, 1, 300, 3000);
    assert!(cold.run(60_000_000) && warm.run(60_000_000));
    let local: u64 = boot(image(1), 300, 3000).iter().map(|(think, _)| think).sum();
    let (cold, warm) = (cold.finished_at(1).unwrap() - local, warm.finished_at(1).unwrap() - local);
    assert!(warm * 3 < cold, "stalled {warm} µs with a profile, {cold} µs without");
}

#[test]
fn four_nodes_at_once_take_little_more_than_one_copy_from_the_seed() {
    let (mut net, working_set) = swarm(4, true, 3, 1500, 3600);
    assert!(net.run(60_000_000));
    let ratio = seed_bytes(&net, 4) as f64 / working_set as f64;
    println!("4 nodes: the seed sent {ratio:.3} working sets");
    assert!(ratio < 1.3, "{ratio}");
}

#[test]
fn thirty_nodes_at_once_take_little_more_than_one_copy_from_the_seed() {
    let (mut net, working_set) = swarm(30, true, 3, 600, 3600);
    net.check = false;
    assert!(net.run(60_000_000));
    let ratio = seed_bytes(&net, 30) as f64 / working_set as f64;
    let local: u64 = boot(image(3), 600, 3600).iter().map(|(think, _)| think).sum();
    let slowest = (1..=30).map(|node| net.finished_at(node).unwrap()).max().unwrap() as f64 / local as f64;
    println!("30 nodes: the seed sent {ratio:.3} working sets; the slowest took {slowest:.3} of local time");
    assert!(ratio < 2.0, "{ratio}");
}

#[test]
fn a_swarm_outlives_its_seed_when_the_rest_is_held_elsewhere() {
    let (mut net, _) = swarm(2, true, 1, 400, 5000);
    net.give(2, 0..net.geometry.piece_count());
    net.run_until(800_000);
    net.kill(0);
    assert!(net.run(60_000_000), "the guest waits for ever");
    assert!(net.stats(1).fetched_peer_bytes > 0);
}

#[test]
fn a_liar_is_dropped_and_costs_little() {
    let geometry = image(1);
    let trace = boot(geometry, 200, 2000);
    let specs = vec![
        NodeSpec::seed(FAST_ETHERNET),
        NodeSpec { lies: true, ..NodeSpec::node(FAST_ETHERNET) },
        NodeSpec { trace, ..NodeSpec::node(FAST_ETHERNET) },
    ];
    let mut net = Net::new(geometry, 250, specs);
    net.give(1, 0..geometry.piece_count());
    assert!(net.run(60_000_000), "the guest waits for ever");
    assert!(net.stats(2).corrupt_pieces >= 1, "the liar was never asked");
    assert!(net.stats(2).corrupt_pieces < 40, "{} corrupt pieces", net.stats(2).corrupt_pieces);
}

/// A seed, and nodes without a profile whose guests start one after the other; those of `others` read something else.
fn staggered(nodes: usize, others: usize, pause: u64) -> Net {
    let geometry = image(3);
    let mut specs = vec![NodeSpec::seed(10 * FAST_ETHERNET)];
    let boots = [boot(geometry, 600, 3000), other_boot(geometry)];
    for number in 0..others + nodes {
        let mut trace = boots[usize::from(number < others)].clone();
        trace[0].0 = number as u64 * pause;
        specs.push(NodeSpec { trace, live: true, ..NodeSpec::node(10 * FAST_ETHERNET) });
    }
    Net::new(geometry, 250, specs)
}

/// A boot that has nothing in common with [`boot`], and hardly thinks.
fn other_boot(geometry: Geometry) -> Vec<(u64, u32)> {
    let usual: BTreeSet<u32> = boot(geometry, 600, 3000).iter().map(|(_, chunk)| *chunk).collect();
    (0..4000)
        .map(|number| number * 11 % geometry.chunk_count())
        .filter(|chunk| !usual.contains(chunk))
        .map(|chunk| (10, chunk))
        .collect()
}

#[test]
fn the_first_starter_teaches_those_that_follow() {
    let mut net = staggered(5, 0, 1_000_000);
    assert!(net.run(60_000_000));
    let misses: Vec<usize> = (1..=5).map(|node| net.demand_misses(node)).collect();
    println!("demand misses without a profile, one start after the other: {misses:?}");
    assert_eq!(misses[0], 600, "nobody is ahead of the first");
    assert!(misses[1..].iter().all(|misses| *misses * 20 < 600), "{misses:?}");
    let unused: usize = (1..=5).map(|node| net.engine(node).unused_guesses().count()).sum();
    assert_eq!(unused, 0, "all that was fetched was wanted");
}

#[test]
fn who_reads_something_else_misleads_nobody_for_long() {
    let mut net = staggered(2, 1, 1_000_000);
    assert!(net.run(60_000_000));
    let wasted: Vec<usize> = (2..=3).map(|node| net.engine(node).unused_guesses().count()).collect();
    println!("prefetched for nothing because of another guest's touches: {wasted:?} chunks");
    assert!(wasted.iter().all(|count| *count > 0 && *count <= 64), "{wasted:?}");
    assert_eq!(net.demand_misses(2), 600);
    assert!(net.demand_misses(3) * 10 < 600, "{}", net.demand_misses(3));
}

#[test]
fn fill_completes_the_image() {
    let geometry = image(1);
    let specs = vec![
        NodeSpec::seed(10 * FAST_ETHERNET),
        NodeSpec { fill: Fill::Rate(100_000_000), ..NodeSpec::node(10 * FAST_ETHERNET) },
    ];
    let mut net = Net::new(geometry, 250, specs);
    net.check = false;
    net.run_until(20_000_000);
    assert_eq!(net.kept(1), geometry.piece_count() as usize);
    assert_eq!(net.stats(1).discarded_bytes, 0);
}

#[test]
fn announcements_are_under_one_percent_of_the_traffic() {
    let (mut net, _) = swarm(50, true, 10, 1500, 3600);
    net.check = false;
    assert!(net.run(120_000_000));
    let (have, all) = net.traffic();
    println!("50 nodes, 10 GiB: announcements are {:.3} % of the traffic", have as f64 * 100.0 / all as f64);
    assert!(have * 100 < all, "{have} of {all} bytes");
}

#[test]
fn an_idle_swarm_is_nearly_silent() {
    let (mut net, _) = swarm(10, false, 1, 1, 1000);
    net.run_until(30_000_000);
    let (_, before) = net.traffic();
    net.run_until(90_000_000);
    let (_, after) = net.traffic();
    let each = (after - before) / 10 / 60;
    assert!(each < 100, "{each} bytes a second and node");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let digest = || {
        let (mut net, _) = swarm(6, true, 1, 200, 2000);
        assert!(net.run(60_000_000));
        (net.digest, net.now)
    };
    assert_eq!(digest(), digest());
}
