//! Whose chunk is whose: rendezvous hashing of chunks over a node and the nodes that it is linked with.
//!
//! *Invariants*: two nodes that know the same nodes agree on who owns a chunk. What is found out is the nearest node that
//! weighs more: the chunk is this node's own among all that are nearer than that one. So one answer says for a machine, a
//! rack, a zone and the whole swarm whether it is this node that brings the chunk there. *Bounds*: O(links) a chunk;
//! the answer lasts until a link comes or goes.
//!
//! *Source* of the hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (IEEE/ACM ToN 1998).

use crate::geometry::ChunkIndex;
use crate::ids::NodeId;
use crate::locality::Nearness;
use crate::rng::mix;

/// The nearest of the others that weighs more for a chunk than `own`, and how many do.
pub(super) fn outweighed(
    own: NodeId,
    others: impl IntoIterator<Item = (NodeId, Nearness)>,
    chunk: ChunkIndex,
) -> (Option<Nearness>, u16) {
    let weight_own = weight(own, chunk);
    let heavier = others.into_iter().filter(|(other, _)| weight(*other, chunk) > weight_own);
    heavier.fold((None, 0), |(nearest, count), (_, nearness)| (nearest.max(Some(nearness)), count + 1))
}

/// What a node weighs for a chunk; the heaviest owns it. Alike wherever it is computed.
fn weight(node: NodeId, chunk: ChunkIndex) -> u64 {
    let [a, b, c, d, e, f, g, h, rest @ ..] = node.0;
    let name = mix(mix(u64::from_le_bytes([a, b, c, d, e, f, g, h])).wrapping_add(u64::from_le_bytes(rest)));
    mix(name.wrapping_add(chunk.get().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn nodes_that_know_the_same_nodes_agree_and_share_evenly() {
        let geometry = Geometry::new(4000 << 16, 16).unwrap();
        let names: std::vec::Vec<NodeId> = (0..8).map(|index| NodeId([index; 16])).collect();
        let mut owned = [0; 8];
        for chunk in (0..4000).map(|number| geometry.chunk(number).unwrap()) {
            let all = || names.iter().map(|name| (*name, Nearness::Far));
            let owners = |name: &&NodeId| outweighed(**name, all(), chunk).1 == 0;
            let owners: std::vec::Vec<&NodeId> = names.iter().filter(owners).collect();
            assert_eq!(owners.len(), 1);
            owned[usize::from(owners[0].0[0])] += 1;
        }
        assert!(owned.iter().all(|count| (400..600).contains(count)), "{owned:?}");
    }

    #[test]
    fn each_rack_has_an_owner_and_one_of_these_owns_it_for_all() {
        let geometry = Geometry::new(500 << 16, 16).unwrap();
        let rack = |name: NodeId| name.0[0] / 4;
        let names: std::vec::Vec<NodeId> = (0..12).map(|index| NodeId([index; 16])).collect();
        let nearness = |a: NodeId, b: NodeId| if rack(a) == rack(b) { Nearness::Rack } else { Nearness::Far };
        for chunk in (0..500).map(|number| geometry.chunk(number).unwrap()) {
            let others = |own: NodeId| names.iter().map(move |name| (*name, nearness(own, *name)));
            let found: std::vec::Vec<_> = names.iter().map(|own| outweighed(*own, others(*own), chunk).0).collect();
            for rack in found.chunks(4) {
                let brings = rack.iter().filter(|found| **found < Some(Nearness::Rack)).count();
                assert_eq!(brings, 1, "one of each rack is outweighed by nobody there");
            }
            assert_eq!(found.iter().filter(|found| found.is_none()).count(), 1);
        }
    }
}
