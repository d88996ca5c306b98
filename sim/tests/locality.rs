//! What crosses from rack to rack: about one working set a rack where nodes say where they stand, several where they do not.

use std::path::Path;
use swarmdisk_sim::model::Setup;
use swarmdisk_sim::outcome::{self, Outcome};
use swarmdisk_sim::scenario::Scenario;

/// Four racks of eight nodes that boot at once, the seed in a place of its own, with `more`.
fn run(more: &str) -> Outcome {
    let text = format!(
        "limit = \"60s\"\n[[group]]\ncount = 32\nracks = 4\n[seeds]\napart = true\n[network]\nzone-rtt = \"2ms\"\nworld-rtt = \"4ms\"\n\
         rack-uplink = \"400mbit\"\n[[workload]]\nchunks = 400\n{more}"
    );
    let scenario = Scenario::parse(&text, Path::new("locality.toml")).unwrap();
    let outcome = outcome::run(&Setup::new(scenario, 1).unwrap(), |_| true);
    assert_eq!(outcome.booted_count, 32);
    outcome
}

#[test]
fn a_working_set_comes_into_each_rack_once() {
    let (with, without) = (run(""), run("[policy]\nlocality = false\n"));
    let sets = |outcome: &Outcome| outcome.totals.cross_rack_working_sets_per_rack;
    assert!((0.99..1.3).contains(&sets(&with)), "{}", sets(&with));
    assert!(with.totals.cross_rack_working_sets_worst_rack < 1.5);
    assert!(sets(&without) > 3.0, "{}", sets(&without));
    assert!(with.totals.origin_amplification < 1.1, "{}", with.totals.origin_amplification);
    let slowest = |outcome: &Outcome| outcome.totals.run_micros.max;
    assert!(slowest(&with) < slowest(&without), "{} {}", slowest(&with), slowest(&without));
}

#[test]
fn a_rack_whose_nodes_come_and_go_is_not_cut_off() {
    let kills: String = (0..8)
        .map(|node| {
            format!(
                "[[fault]]\nwhat = \"kill\"\nat = \"{}ms\"\nfor = \"200ms\"\nnode = {}\n",
                200 + node * 50,
                node * 4
            )
        })
        .collect();
    let outcome = run(&kills);
    assert!(outcome.totals.run_micros.max < 10_000_000, "{}", outcome.totals.run_micros.max);
}

#[test]
fn nodes_of_one_rack_say_nothing() {
    let digest = |locality| {
        let text = format!("[[workload]]\nchunks = 100\n[policy]\nlocality = {locality}\n");
        let scenario = Scenario::parse(&text, Path::new("rack.toml")).unwrap();
        outcome::run(&Setup::new(scenario, 1).unwrap(), |_| true).digest
    };
    assert_eq!(digest(true), digest(false));
}
