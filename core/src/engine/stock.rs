//! The links as an order of prefetching sees them: who has what, and whose turn it is to ask a seed.
//!
//! *Invariants*: two nodes that know the same nodes agree on who owns a chunk. *Bounds*: O(links) a call.

use super::peers::Peers;
use crate::geometry::ChunkIndex;
use crate::ids::NodeId;
use crate::policy::Supply;
use crate::rng::mix;
use crate::wire::Class;

/// What linked nodes hold, seen by the node named `own`.
pub(super) struct Stock<'a, 'b> {
    pub(super) peers: &'b Peers<'a>,
    pub(super) own: NodeId,
    /// Whether nodes may be asked for one more chunk that no guest waits for.
    pub(super) has_room: bool,
}

impl Stock<'_, '_> {
    fn node_holders(&self, chunk: ChunkIndex, word: usize) -> u64 {
        self.peers.holders.of_piece(chunk.get(), word) & self.peers.open_nodes(word)
    }

    /// Whether a linked node, seeds not counted, holds the chunk.
    pub(super) fn is_held(&self, chunk: ChunkIndex) -> bool {
        (0..self.peers.row_words()).any(|word| self.node_holders(chunk, word) != 0)
    }
}

impl Supply for Stock<'_, '_> {
    fn holders(&self, chunk: ChunkIndex) -> u16 {
        (0..self.peers.row_words()).map(|word| self.node_holders(chunk, word).count_ones() as u16).sum()
    }

    fn has_room(&self) -> bool {
        self.has_room
    }

    fn seed_has_room(&self) -> bool {
        (0..self.peers.row_words())
            .any(|word| self.peers.askable(Class::Prefetch, word, true) & self.peers.seeds(word) != 0)
    }

    fn owns(&self, chunk: ChunkIndex) -> bool {
        let own = weight(self.own, chunk);
        (0..self.peers.row_words()).all(|word| {
            let mut nodes = self.peers.open_nodes(word);
            while nodes != 0 {
                let index = word * 64 + nodes.trailing_zeros() as usize;
                nodes &= nodes - 1;
                if weight(self.peers.at(index).node, chunk) > own {
                    return false;
                }
            }
            true
        })
    }
}

/// What a node weighs for a chunk; the heaviest owns it. Alike wherever it is computed.
fn weight(node: NodeId, chunk: ChunkIndex) -> u64 {
    let [a, b, c, d, e, f, g, h, rest @ ..] = node.0;
    let name = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ u64::from_le_bytes(rest);
    mix(mix(name).wrapping_add(chunk.get().into()))
}
