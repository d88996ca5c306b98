//! The table of what others have asked of this node, and whom it served with what.
//!
//! *Invariants*: a peer has at most one row for a piece. *Bounds*: `Limits::requests_per_peer` rows a peer, each peer's
//! rows together in the table, so that none can take another's; calls about one peer are O(its rows).

use crate::geometry::PieceIndex;
use crate::ids::{Address, NodeId, PeerId, UploadId};
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
    /// Requests are numbered: first come, first served within a class.
    pub(super) number: u64,
}

impl Upload {
    /// An unused row.
    pub const EMPTY: Self = Self { answer: Answer::Free, generation: 0, piece: 0, class: Class::Fill, number: 0 };
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
    pub(super) fn of_peer(&self, peer_index: usize) -> impl Iterator<Item = (usize, &Upload)> + Clone {
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
    pub(super) fn add(&mut self, peer_index: usize, piece: u32, class: Class, answer: Answer) -> Option<usize> {
        let first = peer_index * self.per_peer;
        let free = self.rows[first..first + self.per_peer].iter().position(|row| row.answer == Answer::Free)?;
        let index = first + free;
        let generation = self.rows[index].generation.wrapping_add(1);
        self.rows[index] = Upload { answer, generation, piece, class, number: self.next_number };
        self.next_number += 1;
        Some(index)
    }

    pub(super) fn free(&mut self, index: usize) {
        self.rows[index].answer = Answer::Free;
    }
}

/// Whom a seed has served with a piece; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Served {
    entry: Option<(u32, PeerId, Instant)>,
}

impl Served {
    /// An unused row.
    pub const EMPTY: Self = Self { entry: None };
}

/// What a seed remembers of whom it served: the last of the pieces that fall on the same row.
#[derive(Debug)]
pub(super) struct ServedTo<'a> {
    rows: &'a mut [Served],
}

impl<'a> ServedTo<'a> {
    pub(super) fn new(rows: &'a mut [Served]) -> Self {
        rows.fill(Served::EMPTY);
        Self { rows }
    }

    pub(super) fn note(&mut self, now: Instant, piece: PieceIndex, peer: PeerId) {
        if let Some(index) = self.index(piece) {
            self.rows[index].entry = Some((piece.get(), peer, now));
        }
    }

    /// Who was served with the piece last, and when.
    pub(super) fn last(&self, piece: PieceIndex) -> Option<(PeerId, Instant)> {
        let (number, peer, at) = self.rows[self.index(piece)?].entry?;
        (number == piece.get()).then_some((peer, at))
    }

    fn index(&self, piece: PieceIndex) -> Option<usize> {
        (!self.rows.is_empty()).then(|| piece.get() as usize % self.rows.len())
    }
}
