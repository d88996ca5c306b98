//! What once failed: scenarios that were drawn from a seed and made smaller, one for each mistake.

use std::fs;
use std::path::Path;
use swarmdisk_sim::scenario;
use swarmdisk_sim::swarm::{Options, run_scenario};

#[test]
fn what_once_failed_does_so_no_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let scenario = scenario::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let verdict = run_scenario(&scenario, scenario.seed, &Options::default()).unwrap();
        assert_eq!(verdict.result, Ok(()), "{}", path.display());
    }
}
