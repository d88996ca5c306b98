//! The links as an order of prefetching sees them: who has what, and whose turn it is to ask a seed.
//!
//! *Bounds*: O(links / 64) a call, mostly.

use super::peers::Peers;
use crate::geometry::ChunkIndex;
use crate::ids::NodeId;
use crate::locality::Nearness;
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

    /// How near the nearest linked node is that holds the chunk, and how many there are as near; none holds it: none.
    pub(super) fn nearest(&self, chunk: ChunkIndex) -> Option<(Nearness, u16)> {
        let near = |nearness: &Nearness| *nearness == Nearness::Far || self.peers.near_count(*nearness) > 0;
        let levels = Nearness::ALL.into_iter().filter(near);
        let counted = levels.map(|nearness| {
            let held = |word| (self.node_holders(chunk, word) & self.peers.near(nearness, word)).count_ones() as u16;
            (nearness, (0..self.peers.row_words()).map(held).sum())
        });
        counted.into_iter().find(|(_, count)| *count > 0)
    }

    /// Whether no node that is nearer than that is to bring the chunk from there.
    fn may_bring(&self, chunk: ChunkIndex, from: Nearness) -> bool {
        !self.peers.any_nearer(from) || self.peers.outweighed(self.own, chunk) <= Some(from)
    }
}

impl Supply for Stock<'_, '_> {
    fn holders(&self, chunk: ChunkIndex) -> u16 {
        let nearest = self.nearest(chunk).filter(|(nearness, _)| self.may_bring(chunk, *nearness));
        nearest.map_or(0, |(_, count)| count)
    }

    fn has_room(&self) -> bool {
        self.has_room
    }

    fn seed_has_room(&self) -> bool {
        (0..self.peers.row_words())
            .any(|word| self.peers.askable(Class::Prefetch, word, true) & self.peers.seeds(word) != 0)
    }

    fn owns(&self, chunk: ChunkIndex) -> bool {
        self.peers.outweighed(self.own, chunk).is_none()
    }

    fn brings(&self, chunk: ChunkIndex) -> bool {
        let is_brought = |from| self.peers.any_nearer(from) && self.may_bring(chunk, from);
        self.peers.any_nearer(Nearness::Far) && self.nearest(chunk).is_some_and(|(from, _)| is_brought(from))
    }
}
