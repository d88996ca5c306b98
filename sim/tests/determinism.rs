//! The same scenario and seed give the same digest of all events: on every machine, optimised or not, whatever runs beside.
//!
//! The digests are committed. A change that is meant to alter what engines or the network do alters them too: look at what
//! changed, then run this test with `SWARMDISK_BLESS=1` and commit `digests.txt` with the change.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread;
use swarmdisk_sim::model::Setup;
use swarmdisk_sim::outcome::{self, Outcome};
use swarmdisk_sim::scenario::load_with;

/// A scenario, what is set in it to make it short, and a seed.
type Run = (&'static str, &'static [(&'static str, &'static str)], u64);

const RUNS: &[Run] = &[
    ("vmtorrent", &[], 1),
    ("vmtorrent", &[], 2),
    ("vmtorrent", &[("arrivals.kind", "staggered"), ("leaving.kind", "after-boot"), ("policy.order", "owners")], 1),
    ("vmtorrent", &[("group.0.count", "4"), ("network.model", "packet")], 1),
    ("rack", &[("group.0.count", "10")], 1),
    ("branch-office", &[], 1),
    ("two-versions", &[("group.0.count", "6"), ("group.1.count", "6")], 1),
    ("origin-outage", &[("group.0.count", "8"), ("leaving.kind", "churn"), ("leaving.percent-per-minute", "200")], 1),
];

fn run(number: usize) -> (String, Outcome) {
    let (name, sets, seed) = RUNS[number];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"));
    let assignments: Vec<_> = sets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let setup = Setup::new(load_with(&path, &assignments).unwrap(), seed).unwrap();
    let sets = sets.iter().fold(String::new(), |mut text, (key, value)| {
        write!(text, " {key}={value}").unwrap();
        text
    });
    (format!("{name}{sets} seed={seed}"), outcome::run(&setup, |_| true))
}

#[test]
fn digests_are_the_committed_ones() {
    let results: Vec<(String, Outcome)> = thread::scope(|scope| {
        // All at once: what runs beside a run must not matter.
        let runs: Vec<_> = (0..RUNS.len()).map(|number| scope.spawn(move || run(number))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/digests.txt");
    if std::env::var_os("SWARMDISK_BLESS").is_some() {
        let text: String = results.iter().map(|(run, outcome)| format!("{} {run}\n", outcome.digest)).collect();
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    let committed: BTreeMap<&str, &str> =
        committed.lines().filter_map(|line| line.split_once(' ')).map(|(digest, run)| (run, digest)).collect();
    for (run, outcome) in &results {
        assert_eq!(committed.get(run.as_str()), Some(&outcome.digest.as_str()), "{run}");
        assert!(outcome.booted_count > 0, "{run} did nothing");
    }
    assert_eq!(committed.len(), RUNS.len());
}

#[test]
fn other_seeds_and_scenarios_give_other_digests() {
    let digests: Vec<String> = [0, 1, 2].map(|number| run(number).1.digest).into();
    assert!(digests[0] != digests[1] && digests[0] != digests[2], "{digests:?}");
}

#[test]
fn a_run_is_the_same_again_to_the_last_figure() {
    assert_eq!(run(4), run(4));
}
