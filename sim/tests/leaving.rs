//! Nodes that end, and come back or not: guests keep their own time, and what was counted is kept.

use std::path::Path;
use swarmdisk_sim::model::Setup;
use swarmdisk_sim::outcome::{self, Outcome};
use swarmdisk_sim::scenario::Scenario;

/// Three nodes with guests that think a lot, and `more`.
fn run(more: &str) -> Outcome {
    let text = format!(
        "limit = \"60s\"\n[[group]]\ncount = 3\n[[workload]]\nchunks = 60\nthink = \"100ms\"\n[policy]\nahead = 0\n{more}"
    );
    let scenario = Scenario::parse(&text, Path::new("leaving.toml")).unwrap();
    outcome::run(&Setup::new(scenario, 1).unwrap(), |_| true)
}

#[test]
fn no_guest_gains_by_the_end_of_its_node() {
    let faults: String = (1..40)
        .map(|number| format!("[[fault]]\nwhat = \"kill\"\nat = \"{}ms\"\nfor = \"0s\"\nnode = 1\n", number * 90))
        .collect();
    let node = &run(&faults).nodes[1];
    assert!(node.crashes > 30);
    assert!(node.run_micros.unwrap() >= node.local_micros, "{node:?}");
}

#[test]
fn what_nodes_counted_outlives_them() {
    let (stays, leaves) = (run(""), run("[leaving]\nkind = \"after-boot\"\n"));
    assert!(stays.nodes.iter().all(|node| node.prefetched_bytes > 500_000));
    for (stays, leaves) in stays.nodes.iter().zip(&leaves.nodes) {
        assert_eq!((stays.crashes, leaves.crashes), (0, 0), "who leaves as planned does not crash");
        let part = leaves.prefetched_bytes as f64 / stays.prefetched_bytes as f64;
        assert!((0.9..1.1).contains(&part), "{part}");
    }
}

#[test]
fn who_does_not_come_back_has_gone_for_good() {
    let outcome = run("[[fault]]\nwhat = \"crash\"\nat = \"1s\"\nnode = 2\n");
    assert_eq!((outcome.booted_count, outcome.gone_count, outcome.nodes[2].crashes), (2, 1, 1));
}
