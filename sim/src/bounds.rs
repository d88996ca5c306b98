//! What no swarm can beat, for the results to be measured against.
//!
//! *Purpose*: for W bytes of working set on the wire, N nodes, s what the seeds send together, u and d what a node sends and
//! receives: bringing W to all takes at least max(W/s, W/d, N·W / (s + N·u)); a guest that needs A(t) bytes by its own time t
//! runs at least T₀ + max over t of \[A(t)/d − t\]⁺, T₀ its time from a local disk. *Source*: the fluid limit of
//! Kumar and Ross, "Peer-assisted file distribution: the minimum distribution time" (HotWeb 2006); the second is elementary.
//! *Units*: nanoseconds, bytes, bytes a second of payload.

use crate::model::{ImageModel, Script, Setup};
use crate::network::Nanos;
use std::collections::BTreeSet;
use swarmdisk_core::wire::Role;

const NANO: u128 = 1_000_000_000;

/// The least time in which a guest can run this script behind a link of `down` bytes a second that has nothing yet, given
/// how long it thinks before each group and how long its reads take on a local disk.
pub fn run_bound(script: &Script, image: &ImageModel, think: impl Fn(usize) -> Nanos, read: Nanos, down: u64) -> Nanos {
    let mut seen = BTreeSet::new();
    let (mut needed_bytes, mut local, mut late) = (0u64, 0u64, 0u64);
    for (number, group) in script.groups.iter().enumerate() {
        local = u64::saturating_add(local, think(number));
        let fresh = group.chunks.iter().filter(|chunk| seen.insert(**chunk));
        needed_bytes += fresh.map(|chunk| u64::from(image.piece_bytes(*chunk))).sum::<u64>();
        late = late.max(time_for(needed_bytes, down).saturating_sub(local));
        local = local.saturating_add(read);
    }
    local.saturating_add(late)
}

/// The least time in which all nodes of an image can get its working set, if all begin at once.
pub fn distribution_bound(setup: &Setup, image: usize, working_set_bytes: u64) -> Nanos {
    let host = |number: usize| setup.topology.hosts[setup.nodes[number].host as usize];
    let seed_up: u64 = setup.seeds_of(image).map(|seed| host(seed).up).sum();
    let mut nodes = setup.nodes.iter().enumerate();
    let mut slowest = u64::MAX;
    let (mut node_count, mut node_up) = (0u64, 0u64);
    for (number, _) in nodes.by_ref().filter(|(_, node)| node.role == Role::Node && node.image == image) {
        slowest = slowest.min(host(number).down);
        node_up += host(number).up;
        node_count += 1;
    }
    let together = time_for(working_set_bytes.saturating_mul(node_count), seed_up.saturating_add(node_up));
    time_for(working_set_bytes, seed_up).max(time_for(working_set_bytes, slowest)).max(together)
}

fn time_for(bytes: u64, rate: u64) -> Nanos {
    u64::try_from(u128::from(bytes) * NANO / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ImageModel, Script};
    use crate::scenario::{Factor, Group, Image, Rate, Scenario, Seeds, Share, Size};
    use std::path::Path;
    use swarmdisk_common::trace::Trace;

    #[test]
    fn a_run_waits_for_what_its_link_has_not_brought() {
        let spec =
            Image { size: Size(1 << 26), payload_min: Size(10_000), payload_max: Size(10_000), ..Image::default() };
        let image = ImageModel::new(&spec, 1, 0).unwrap();
        // Two chunks at once, then after 30 ms two more, one of them known.
        let trace = Trace::parse(&b"0 R 0 131072\n30000 R 65536 131072\n"[..]).unwrap();
        let script = Script::new(&trace, Path::new("t"), &image, Factor::ONE).unwrap();
        let bound = |down| run_bound(&script, &image, |group| script.groups[group].think, 1_000_000, down);
        // 1 MB/s: 20 KB by time 0 are 20 ms late; 30 KB by 31 ms are there in time after that.
        assert_eq!(bound(1_000_000), 32_000_000 + 20_000_000);
        // 0.5 MB/s: 20 KB 40 ms late, 30 KB by 31 ms 29 ms late.
        assert_eq!(bound(500_000), 32_000_000 + 40_000_000);
        assert_eq!(bound(u64::MAX), 32_000_000);
    }

    #[test]
    fn distribution_is_bound_by_the_narrowest() {
        let of = |count, seed_up, up, down| {
            let groups = vec![Group { count, up: Rate(up), down: Rate(down), ..Group::default() }];
            let seeds = Seeds { up: Rate(seed_up), ..Seeds::default() };
            let mut scenario = Scenario { groups, seeds, ..Scenario::default() };
            scenario.network.payload_share = Share::ALL;
            distribution_bound(&Setup::new(scenario, 1).unwrap(), 0, 1_000_000)
        };
        assert_eq!(of(10, 1_000_000, 1_000_000, 500_000), 2_000_000_000);
        assert_eq!(of(10, 500_000, 10_000_000, 10_000_000), 2_000_000_000);
        // 10 MB over 1 + 10 × 0.1 MB/s.
        assert_eq!(of(10, 1_000_000, 100_000, 10_000_000), 5_000_000_000);
    }
}
