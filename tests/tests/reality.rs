//! The simulator against reality: the same swarm in network namespaces and on the virtual clock.
//!
//! Only bytes are judged: how long a boot takes here depends on what else the machine does (`--example reality` judges
//! that too).

use swarmdisk_tests::netlab::Netlab;
use swarmdisk_tests::reality::{Setup, Subject};
use swarmdisk_tests::simulated::{Comparison, Simulated};
use swarmdisk_tests::skip::need;

#[test]
fn the_simulator_tells_what_a_real_swarm_fetches() {
    let setup = Setup::default();
    // Before the image, which takes longer.
    let Some(_) = need(Netlab::new(1, setup.link_mbit)) else { return };
    let subject = Subject::make();
    let Some(real) = need(subject.boot(&setup)) else { return };
    let simulated = Simulated::run(&subject, &setup, 1);
    let comparison = Comparison::new(&real, &simulated);
    println!("amplification {:.3} for real; {comparison:?}", real.amplification());
    for node in &real.nodes {
        assert!(node.fetched_bytes() >= real.working_set_bytes, "a guest cannot read what was not fetched");
        assert!(node.link_down_bytes > node.fetched_bytes() + node.metadata_bytes, "all of it came by the node's link");
    }
    assert!(real.seed_sent_bytes >= real.working_set_bytes, "nobody else had it");
    let missed = comparison.misses(false);
    assert!(missed.is_empty(), "{missed}");
}
