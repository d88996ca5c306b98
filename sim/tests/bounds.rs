//! No run beats what no swarm can beat, whatever the number of nodes; the ratios are printed.

use std::path::Path;
use swarmdisk_sim::model::Setup;
use swarmdisk_sim::outcome::{self, Outcome};
use swarmdisk_sim::scenario::{Factor, Scenario, Share, Span, load_with};

/// A swarm whose hosts cost nothing, at `speed`, with `count` nodes that start together.
fn ideal(count: u32, speed: u64, rate: &str) -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/vmtorrent.toml");
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let sets = [
        set("group.0.count", &count.to_string()),
        set("group.0.up", rate),
        set("group.0.down", rate),
        set("seeds.up", rate),
        set("seeds.links", "2000"),
        set("policy.order", "owners"),
    ];
    let mut scenario: Scenario = load_with(&path, &sets).unwrap();
    scenario.arrivals.within = Span(0);
    scenario.network.slow_start = false;
    let host = &mut scenario.host;
    (host.start, host.read, host.load, host.verify, host.store) = (Span(0), Span(0), Span(0), Span(0), Span(0));
    scenario.workloads[0].speed = Factor(speed * 1_000_000);
    scenario.workloads[0].jitter = Share(0);
    outcome::run(&Setup::new(scenario, 1).unwrap(), |_| true)
}

fn check(count: u32, speed: u64, rate: &str) {
    let outcome = ideal(count, speed, rate);
    assert_eq!(outcome.booted_count, count);
    let (run, bounds) = (outcome.totals.run_micros, outcome.bounds);
    let over_bound = outcome.totals.run_over_bound;
    println!(
        "{count:>5} nodes, {rate}, think time / {speed}: {:.3} to {:.3} x the run's bound; the last {:.3} x the distribution's",
        over_bound.min,
        over_bound.max,
        run.max as f64 / bounds.distribution_micros as f64
    );
    assert!(over_bound.min >= 1.0, "a guest ran faster than its link and its own pace allow");
    assert!(run.max >= bounds.distribution_micros, "the swarm distributed faster than its links allow");
}

#[test]
fn small_swarms_keep_within_the_bounds() {
    for (count, speed, rate) in [
        (1, 10, "100mbit"),
        (2, 10, "100mbit"),
        (2, 40, "100mbit"),
        (8, 40, "100mbit"),
        (30, 20, "100mbit"),
        (30, 10, "25mbit"),
        (100, 10, "1gbit"),
    ] {
        check(count, speed, rate);
    }
}

#[test]
fn a_thousand_nodes_keep_within_the_bounds() {
    check(1000, 10, "10gbit");
}
