//! Swarms drawn from seeds: what must hold in every one holds, and they try enough.

use swarmdisk_sim::swarm::{Options, swarm};

#[test]
fn sixty_swarms_with_faults_come_to_their_end() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let outcome = swarm(0..60, threads, &Options::default(), |_| {});
    let failures: Vec<String> =
        outcome.failures.iter().map(|failure| format!("{}: {}", failure.replay, failure.violation)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let coverage = &outcome.coverage;
    assert!(coverage.nodes.median >= 30 && coverage.faults.median >= 5 && coverage.kinds.median >= 3, "{coverage}");
    assert_eq!(coverage.happened.len(), 14, "every kind of fault happens: {coverage}");
    assert!(coverage.judged.values().all(|(seeds, _)| *seeds > 0), "every checker has something to judge: {coverage}");
}
