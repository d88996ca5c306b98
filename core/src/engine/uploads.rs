//! The table of what others have asked of this node, and whom it served with what.
//!
//! *Invariants*: a peer has at most one row for a piece. *Bounds*: `Limits::requests_per_peer` rows a peer, each peer's
//! rows together in the table, so that none can take another's; calls about one peer are O(its rows).

use crate::geometry::PieceIndex;
use crate::ids::{Address, NodeId, PeerId, UploadId};
use crate::locality::Nearness;
use crate::rng::mix;
use crate::time::Instant;
use crate::wire::Class;

/// What is to be done with a request.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The row is not used.
    Free,
    /// To be served when it is its turn and the piece is held.
    Queued,
    /// The host makes sure that the piece is there.
    Loading,
    /// The piece is there, this many bytes of it.
    Loaded(u32),
    /// Not now: in so many milliseconds.
    Busy(u16),
    /// Not at all.
    Refuse,
    /// Ask that node.
    Redirect(NodeId, Address),
}

/// A request of another node; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Upload {
    pub(super) answer: Answer,
    generation: u16,
    pub(super) piece: u32,
    pub(super) class: Class,
    /// When the other side expects to want it.
    pub(super) due: Instant,
    /// Requests are numbered: first come, first served within a class.
    pub(super) number: u64,
}

impl Upload {
    /// An unused row.
    pub const EMPTY: Self =
        Self { answer: Answer::Free, generation: 0, piece: 0, class: Class::Fill, due: Instant::ZERO, number: 0 };
}

/// All requests.
#[derive(Debug)]
pub(super) struct Uploads<'a> {
    rows: &'a mut [Upload],
    per_peer: usize,
    next_number: u64,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(rows: &'a mut [Upload], per_peer: u16) -> Self {
        rows.fill(Upload::EMPTY);
        Self { rows, per_peer: usize::from(per_peer), next_number: 0 }
    }

    pub(super) fn at(&self, index: usize) -> &Upload {
        &self.rows[index]
    }

    pub(super) fn at_mut(&mut self, index: usize) -> &mut Upload {
        &mut self.rows[index]
    }

    pub(super) fn id(&self, index: usize) -> UploadId {
        UploadId::new(index as u16, self.rows[index].generation)
    }

    /// The row in the peers' table to which this row belongs.
    pub(super) fn peer_index(&self, index: usize) -> usize {
        index / self.per_peer
    }

    pub(super) fn find(&self, upload: UploadId) -> Option<usize> {
        let row = self.rows.get(upload.index())?;
        (row.generation == upload.generation() && row.answer != Answer::Free).then_some(upload.index())
    }

    /// The rows in use of a peer.
    pub(super) fn of_peer(&self, peer_index: usize) -> impl Iterator<Item = (usize, &Upload)> {
        let first = peer_index * self.per_peer;
        let rows = self.rows[first..first + self.per_peer].iter().enumerate();
        rows.filter(|(_, row)| row.answer != Answer::Free).map(move |(index, row)| (first + index, row))
    }

    /// A row in use of a peer.
    pub(super) fn first_of_peer(&self, peer_index: usize) -> Option<usize> {
        self.of_peer(peer_index).next().map(|(index, _)| index)
    }

    /// All rows of a peer, in use or not.
    pub(super) fn rows_of_peer(&self, peer_index: usize) -> core::ops::Range<usize> {
        peer_index * self.per_peer..(peer_index + 1) * self.per_peer
    }

    /// Adds a request; none if the peer's rows are used up.
    pub(super) fn add(
        &mut self,
        peer_index: usize,
        piece: u32,
        class: Class,
        due: Instant,
        answer: Answer,
    ) -> Option<usize> {
        let first = peer_index * self.per_peer;
        let free = self.rows[first..first + self.per_peer].iter().position(|row| row.answer == Answer::Free)?;
        let index = first + free;
        let generation = self.rows[index].generation.wrapping_add(1);
        self.rows[index] = Upload { answer, generation, piece, class, due, number: self.next_number };
        self.next_number += 1;
        Some(index)
    }

    pub(super) fn free(&mut self, index: usize) {
        self.rows[index].answer = Answer::Free;
    }
}

/// Whom a piece was given to of late, or will be by those; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Served {
    piece: u32,
    /// When the piece was last sent from here.
    at: Instant,
    /// Nodes, and to how many others each has been named.
    nodes: [(PeerId, u8); TREE_NODES],
    count: u8,
}

/// Rows that a piece may be remembered in.
const WAYS: usize = 4;
/// Nodes that are remembered for a piece.
const TREE_NODES: usize = 8;
/// To so many others a node is named as one that has a piece.
const FAN_OUT: u8 = 2;

impl Served {
    /// An unused row.
    pub const EMPTY: Self =
        Self { piece: u32::MAX, at: Instant::ZERO, nodes: [(PeerId::new(0, 0), 0); TREE_NODES], count: 0 };

    fn nodes_mut(&mut self) -> &mut [(PeerId, u8)] {
        &mut self.nodes[..usize::from(self.count)]
    }

    /// Appends a node. When there is no room, the first that has been named often enough gives way, or else nobody.
    fn push(&mut self, peer: PeerId) {
        if self.nodes_mut().iter().any(|(known, _)| *known == peer) {
            return;
        }
        if usize::from(self.count) == TREE_NODES {
            let Some(done) = self.nodes.iter().position(|(_, named)| *named >= FAN_OUT) else { return };
            self.nodes.copy_within(done + 1.., done);
            self.count -= 1;
        }
        self.nodes[usize::from(self.count)] = (peer, 0);
        self.count += 1;
    }
}

/// To whom the pieces were given: each was sent from here to one node or few, who pass it on to those that asked later, and
/// so on. Of the pieces that fall on the same row the last is remembered.
#[derive(Debug)]
pub(super) struct ServedTo<'a> {
    rows: &'a mut [Served],
}

impl<'a> ServedTo<'a> {
    pub(super) fn new(rows: &'a mut [Served]) -> Self {
        rows.fill(Served::EMPTY);
        Self { rows }
    }

    /// Notes that the piece will be sent to this peer from here.
    pub(super) fn note(&mut self, now: Instant, piece: PieceIndex, peer: PeerId) {
        let place = self.place(piece);
        let oldest = self.rows[place.clone()].iter_mut().min_by_key(|row| (row.piece != piece.get(), row.at));
        if let Some(row) = oldest {
            if row.piece != piece.get() {
                *row = Served { piece: piece.get(), ..Served::EMPTY };
            }
            row.at = now;
            row.push(peer);
        }
    }

    /// When the piece was last sent from here.
    pub(super) fn last(&self, piece: PieceIndex) -> Option<Instant> {
        self.rows[self.place(piece)].iter().find(|row| row.piece == piece.get()).map(|row| row.at)
    }

    /// To whom the piece was given, or who was told of these.
    pub(super) fn nodes(&self, piece: PieceIndex) -> heapless::Vec<PeerId, TREE_NODES> {
        let row = self.rows[self.place(piece)].iter().find(|row| row.piece == piece.get());
        row.into_iter().flat_map(|row| row.nodes[..usize::from(row.count)].iter().map(|(peer, _)| *peer)).collect()
    }

    /// Whom to name to `asker`: the first who has not been named often enough, but rather a nearer one, though named somewhat
    /// more often. `fits` tells how near it is to the asker, none: it is not to be named.
    pub(super) fn name(
        &mut self,
        piece: PieceIndex,
        asker: PeerId,
        fits: impl Fn(PeerId) -> Option<Nearness>,
    ) -> Option<PeerId> {
        let place = self.place(piece);
        let row = self.rows[place].iter_mut().find(|row| row.piece == piece.get())?;
        let others = row.nodes_mut().iter_mut().filter(|(peer, _)| *peer != asker);
        let fit = others.filter_map(|node| fits(node.0).map(|nearness| (node, nearness)));
        let often = |named: u8, nearness: Nearness| {
            u32::from(named.max(FAN_OUT - 1)) + u32::from(FAN_OUT) * nearness.levels_beyond(Nearness::Host)
        };
        let ((peer, named), _) = fit.min_by_key(|((_, named), nearness)| often(*named, *nearness))?;
        *named = named.saturating_add(1);
        let peer = *peer;
        row.push(asker);
        Some(peer)
    }

    /// The rows that may be the piece's: the least lately sent gives way to another.
    fn place(&self, piece: PieceIndex) -> core::ops::Range<usize> {
        let ways = WAYS.min(self.rows.len());
        let places = (self.rows.len() / ways.max(1)).max(1) as u64;
        // Neighbours shall not share a place with the leaf page of them all.
        let first = (mix(u64::from(piece.get())) % places) as usize * ways;
        first..first + ways
    }
}
