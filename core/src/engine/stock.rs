//! The links as an order of prefetching sees them: who has what, and whose turn it is to ask a seed.
//!
//! *Bounds*: O(1) a call for what is kept, else O(links).

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

impl Supply for Stock<'_, '_> {
    fn holders(&self, chunk: ChunkIndex) -> u16 {
        self.peers.node_holders(chunk)
    }

    fn can_ask(&self, chunk: ChunkIndex) -> bool {
        self.peers.node_holders(chunk) > 0
            && (0..self.peers.row_words()).any(|word| {
                self.peers.holders.of_piece(chunk.get(), word) & self.peers.askable(Class::Prefetch, word, false) != 0
            })
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
