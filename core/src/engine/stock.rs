//! The links as an order of prefetching sees them: who has what, and whose turn it is to ask a seed.
//!
//! *Bounds*: O(1) a call for what is kept, else O(links).

use super::peers::Peers;
use crate::geometry::ChunkIndex;
use crate::ids::NodeId;
use crate::locality::Nearness;
use crate::policy::Supply;
use crate::wire::Class;

/// What linked nodes hold, seen by the node named `own`.
pub(super) struct Stock<'a, 'b> {
    peers: &'b Peers<'a>,
    own: NodeId,
    /// Whether nodes may be asked for one more chunk that no guest waits for.
    pub(super) has_room: bool,
    /// Whether seeds are not to be asked now for what no guest waits for.
    pub(super) spares_seeds: bool,
    /// Whether some nodes are nearer than others.
    is_divided: bool,
}

impl<'a, 'b> Stock<'a, 'b> {
    pub(super) fn new(peers: &'b Peers<'a>, own: NodeId, has_room: bool, spares_seeds: bool) -> Self {
        Self { peers, own, has_room, spares_seeds, is_divided: peers.any_nearer(Nearness::Far) }
    }

    /// How near the nearest linked node is that holds the chunk, and how many there are as near; none holds it: none.
    pub(super) fn nearest(&self, chunk: ChunkIndex) -> Option<(Nearness, u16)> {
        let all = Some(self.peers.node_holders(chunk)).filter(|count| *count > 0)?;
        if !self.is_divided {
            return Some((Nearness::Far, all));
        }
        let levels = Nearness::ALL.into_iter().filter(|nearness| self.peers.near_count(*nearness) > 0);
        let mut counted = levels.map(|nearness| {
            let held = |word| (self.holders_near(chunk, nearness, word)).count_ones() as u16;
            (nearness, (0..self.peers.row_words()).map(held).sum())
        });
        counted.find(|(_, count)| *count > 0)
    }

    /// The holders that are so near or nearer, a bit each, in this word.
    fn holders_near(&self, chunk: ChunkIndex, nearness: Nearness, word: usize) -> u64 {
        self.peers.holders.of_piece(chunk.get(), word) & self.peers.near(nearness, word)
    }

    /// The nearest holders, unless a node that is nearer is to bring the chunk from there.
    fn nearest_open(&self, chunk: ChunkIndex) -> Option<(Nearness, u16)> {
        self.nearest(chunk).filter(|(nearness, _)| self.may_bring(chunk, *nearness))
    }

    /// Whether no node that is nearer than that is to bring the chunk from there.
    fn may_bring(&self, chunk: ChunkIndex, from: Nearness) -> bool {
        !self.is_divided || !self.peers.any_nearer(from) || self.peers.outweighed(self.own, chunk).0 <= Some(from)
    }
}

impl Supply for Stock<'_, '_> {
    fn holders(&self, chunk: ChunkIndex) -> u16 {
        self.nearest_open(chunk).map_or(0, |(_, count)| count)
    }

    fn can_ask(&self, chunk: ChunkIndex) -> bool {
        self.nearest_open(chunk).is_some_and(|(nearness, _)| {
            let askable = |word| self.peers.askable(Class::Prefetch, word, false);
            (0..self.peers.row_words()).any(|word| self.holders_near(chunk, nearness, word) & askable(word) != 0)
        })
    }

    fn has_room(&self) -> bool {
        self.has_room
    }

    fn seed_has_room(&self) -> bool {
        !self.spares_seeds
            && (0..self.peers.row_words())
                .any(|word| self.peers.askable(Class::Prefetch, word, true) & self.peers.seeds(word) != 0)
    }

    fn owns(&self, chunk: ChunkIndex) -> bool {
        self.peers.outweighed(self.own, chunk).1 == 0
    }

    fn rank(&self, chunk: ChunkIndex) -> u16 {
        self.peers.outweighed(self.own, chunk).1
    }

    fn is_divided(&self) -> bool {
        self.is_divided
    }

    fn brings(&self, chunk: ChunkIndex) -> bool {
        let is_brought = |from| self.peers.any_nearer(from) && self.may_bring(chunk, from);
        self.is_divided && self.nearest(chunk).is_some_and(|(from, _)| is_brought(from))
    }
}
