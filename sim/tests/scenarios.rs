//! The ready scenarios are what they say: each can be set up, and the short ones run to their end.

use std::fs;
use std::path::{Path, PathBuf};
use swarmdisk_sim::model::Setup;
use swarmdisk_sim::outcome::{self, Outcome};
use swarmdisk_sim::scenario::{Scenario, load};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn ready() -> Vec<(String, Scenario)> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = files.map(|path| load(&path).unwrap()).map(|s| (s.name.clone(), s)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn run(name: &str) -> Outcome {
    let (_, scenario) = ready().into_iter().find(|(other, _)| other == name).unwrap();
    outcome::run(&Setup::new(scenario, 1).unwrap(), |_| true)
}

#[test]
fn all_can_be_set_up_and_say_what_they_are_about() {
    let all = ready();
    assert!(all.len() >= 8, "{}", all.len());
    for (name, scenario) in all {
        assert!(!scenario.about.is_empty(), "{name}");
        let setup = Setup::new(scenario, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        let pieces = match setup.images[0].geometry.chunk_bytes() {
            _ if name == "desktop" => 3683,
            _ if name == "windows-like" => 10856,
            // Smaller pieces are more, and hold less that is not read.
            0x4000 => 5270,
            _ => 1568,
        };
        assert_eq!(setup.working_set(0).len(), pieces, "{name} boots what it says");
    }
}

#[test]
fn a_rack_at_ten_gigabit_boots_as_from_local_disks() {
    let outcome = run("rack");
    assert_eq!(outcome.booted_count, 40);
    assert!(outcome.totals.run_over_local.max < 1.1, "{:?}", outcome.totals.run_over_local);
}

#[test]
fn a_branch_office_fetches_little_more_than_once_over_its_uplink() {
    let outcome = run("branch-office");
    assert_eq!(outcome.booted_count, 12);
    assert!(outcome.totals.origin_amplification < 1.2, "{}", outcome.totals.origin_amplification);
}

#[test]
fn a_new_version_fetches_only_the_difference() {
    let outcome = run("two-versions");
    let fetched = |group: &str| {
        let nodes = outcome.nodes.iter().filter(|node| node.group == group);
        nodes.map(|node| node.origin_bytes + node.peer_bytes).sum::<u64>()
    };
    let share = fetched("new version") as f64 / fetched("old version") as f64;
    assert!((0.05..0.15).contains(&share), "{share}");
}

#[test]
fn guests_wait_out_an_outage_of_the_origin_and_boot() {
    let outcome = run("origin-outage");
    assert_eq!(outcome.booted_count, 24);
    assert!(outcome.totals.stall_micros.p50 > 10_000_000, "the outage was felt: {:?}", outcome.totals.stall_micros);
    // A boot, the outage, and the pause before the origin is dialled again: it doubles while that fails.
    assert!(outcome.totals.run_micros.max < 45_000_000, "and ended: {:?}", outcome.totals.run_micros);
}
