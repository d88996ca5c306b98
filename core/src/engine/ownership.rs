//! Whose chunk is whose: rendezvous hashing of chunks over a node and the nodes that it is linked with.
//!
//! *Invariants*: two nodes that know the same nodes agree on who owns a chunk. *Bounds*: what was worked out is kept for the
//! [`KEPT`] chunks asked about last, until a link comes or goes; so the window's chunks cost O(links) once each.
//!
//! *Source* of the hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (IEEE/ACM ToN 1998).

use crate::geometry::ChunkIndex;
use crate::ids::NodeId;
use crate::rng::mix;
use core::cell::Cell;

/// Answers that are kept: more than a window has guesses.
const KEPT: usize = 1024;
const NOTHING: u64 = u64::MAX;

/// Answers to whether a chunk is this node's own, by the chunk's last bits.
#[derive(Debug)]
pub(super) struct Ownership {
    /// Twice the chunk, and one if it is the own; [`NOTHING`].
    rows: [Cell<u64>; KEPT],
}

impl Ownership {
    pub(super) const fn new() -> Self {
        Self { rows: [const { Cell::new(NOTHING) }; KEPT] }
    }

    /// The nodes are others.
    pub(super) fn forget(&self) {
        self.rows.iter().for_each(|row| row.set(NOTHING));
    }

    /// What is kept of the chunk, or is found out now.
    pub(super) fn of(&self, chunk: ChunkIndex, find_out: impl FnOnce() -> bool) -> bool {
        let row = &self.rows[chunk.get() as usize % KEPT];
        if row.get() / 2 != u64::from(chunk.get()) {
            row.set(u64::from(chunk.get()) * 2 + u64::from(find_out()));
        }
        row.get() % 2 == 1
    }
}

/// Whether `own` weighs at least as much for a chunk as each of the others.
pub(super) fn is_heaviest(own: NodeId, others: impl IntoIterator<Item = NodeId>, chunk: ChunkIndex) -> bool {
    let weight_own = weight(own, chunk);
    others.into_iter().all(|other| weight(other, chunk) <= weight_own)
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
            let owners = |name: &&NodeId| is_heaviest(**name, names.iter().copied(), chunk);
            let owners: std::vec::Vec<&NodeId> = names.iter().filter(owners).collect();
            assert_eq!(owners.len(), 1);
            owned[usize::from(owners[0].0[0])] += 1;
        }
        assert!(owned.iter().all(|count| (400..600).contains(count)), "{owned:?}");
    }

    #[test]
    fn an_answer_is_kept_until_nodes_come_or_go() {
        let geometry = Geometry::new(4000 << 16, 16).unwrap();
        let [chunk, other] = [5, 5 + KEPT as u32].map(|number| geometry.chunk(number).unwrap());
        let ownership = Ownership::new();
        assert!(ownership.of(chunk, || true));
        assert!(ownership.of(chunk, || unreachable!("it is kept")));
        ownership.forget();
        assert!(!ownership.of(chunk, || false));
        assert!(!ownership.of(chunk, || unreachable!("it is kept")));
        assert!(ownership.of(other, || true), "of another chunk");
        assert!(ownership.of(chunk, || true), "whose row has been taken");
    }
}
