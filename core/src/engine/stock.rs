//! The links as an order of prefetching sees them: who has what, and whose turn it is to ask a seed.
//!
//! *Bounds*: O(links / 64) a call, mostly.

use super::peers::Peers;
use crate::geometry::ChunkIndex;
use crate::ids::NodeId;
use crate::policy::Supply;
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
        self.peers.owns(self.own, chunk)
    }
}
