//! The table of fetches: each is a piece asked of a peer, and a slot for its body at the host.
//!
//! *Invariants*: a piece has at most two fetches (the second is a hedge); its bit in the flight map is set exactly while
//! it has one. *Bounds*: as many rows as `Limits::transfers`; every call is O(rows).

use crate::geometry::PieceIndex;
use crate::ids::{PeerId, SlotId};
use crate::time::Instant;
use crate::wire::Class;

/// How far a fetch has come. The names say what happened last, or what is to be done next.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Free,
    /// The request is to be sent; or sent again, to raise its class.
    ToAsk,
    Asked,
    /// The request is to be taken back.
    ToCancel,
    /// The body is on its way into the host's buffer.
    Landing,
    /// The body is there; it is verified as soon as its leaf page is held.
    Landed,
    Verifying,
    /// Verified.
    Genuine,
    /// Verified, and given to the guests that waited.
    Delivered,
    Storing,
    /// The host is to forget the buffer.
    ToAbandon,
}

/// A fetch; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Transfer {
    pub(super) step: Step,
    generation: u16,
    piece: u32,
    pub(super) peer: PeerId,
    pub(super) class: Class,
    /// Whether no guest had asked for it when it was started.
    pub(super) guessed: bool,
    /// Whether the request has been sent at least once.
    pub(super) asked: bool,
    /// Whether the peer is not to redirect.
    pub(super) insist: bool,
    /// Whether another row asks a second peer for the same piece.
    pub(super) hedged: bool,
    /// Length of the body, once it begins to come.
    pub(super) bytes: u32,
    /// How many pieces had been asked of the peer before.
    pub(super) queued: u16,
    /// When it was started; once it has landed, when that was.
    pub(super) started: Instant,
    /// When a guest began to wait for it.
    pub(super) urgent_since: Instant,
}

impl Transfer {
    /// An unused row.
    pub const EMPTY: Self = Self {
        step: Step::Free,
        generation: 0,
        piece: 0,
        peer: PeerId::new(0, 0),
        class: Class::Fill,
        guessed: false,
        asked: false,
        insist: false,
        hedged: false,
        bytes: 0,
        queued: 0,
        started: Instant::ZERO,
        urgent_since: Instant::NEVER,
    };

    pub(super) fn piece_number(&self) -> u32 {
        self.piece
    }

    /// Whether the peer may still be asked, or has been asked and has not begun to answer.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.step, Step::ToAsk | Step::Asked)
    }

    /// Whether the piece may still come of it.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.step, Step::Free | Step::ToCancel | Step::ToAbandon)
    }
}

/// All fetches.
#[derive(Debug)]
pub(super) struct Transfers<'a> {
    rows: &'a mut [Transfer],
}

impl<'a> Transfers<'a> {
    pub(super) fn new(rows: &'a mut [Transfer]) -> Self {
        rows.fill(Transfer::EMPTY);
        Self { rows }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn at(&self, index: usize) -> &Transfer {
        &self.rows[index]
    }

    pub(super) fn at_mut(&mut self, index: usize) -> &mut Transfer {
        &mut self.rows[index]
    }

    pub(super) fn id(&self, index: usize) -> SlotId {
        SlotId::new(index as u16, self.rows[index].generation)
    }

    pub(super) fn find(&self, slot: SlotId, step: Step) -> Option<usize> {
        let row = self.rows.get(slot.index())?;
        (row.generation == slot.generation() && row.step == step).then_some(slot.index())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Transfer)> + Clone {
        self.rows.iter().enumerate().filter(|(_, row)| row.step != Step::Free)
    }

    pub(super) fn has_room(&self) -> bool {
        self.rows.iter().any(|row| row.step == Step::Free)
    }

    /// Rows in use whose piece may still come, of a class.
    pub(super) fn count(&self, class: Class) -> usize {
        self.iter().filter(|(_, row)| row.is_live() && row.class == class).count()
    }

    /// Takes a free row; the caller fills it in.
    pub(super) fn take(&mut self, piece: PieceIndex) -> Option<usize> {
        let index = self.rows.iter().position(|row| row.step == Step::Free)?;
        let generation = self.rows[index].generation.wrapping_add(1);
        self.rows[index] = Transfer { generation, piece: piece.get(), step: Step::ToAsk, ..Transfer::EMPTY };
        Some(index)
    }

    /// The live fetch of a piece; of two, the one that is further.
    pub(super) fn of_piece(&self, piece: PieceIndex) -> Option<usize> {
        let rows = self.iter().filter(|(_, row)| row.piece == piece.get() && row.is_live());
        rows.max_by_key(|(_, row)| !row.is_waiting()).map(|(index, _)| index)
    }

    /// The fetch of a piece that waits for this peer's answer.
    pub(super) fn waiting(&self, peer: PeerId, piece: u32) -> Option<usize> {
        self.iter().find(|(_, row)| row.peer == peer && row.piece == piece && row.is_waiting()).map(|(index, _)| index)
    }

    /// The row, not yet asked, of `piece`, for the same peer and in the same way as `like`.
    pub(super) fn to_ask(&self, like: &Transfer, piece: u32) -> Option<usize> {
        let alike = |row: &Transfer| {
            (row.peer, row.class, row.insist, row.asked) == (like.peer, like.class, like.insist, like.asked)
        };
        self.rows.iter().position(|row| row.step == Step::ToAsk && row.piece == piece && alike(row))
    }

    /// The fetch of a piece that was started last.
    pub(super) fn last_of(&self, piece: PieceIndex) -> Option<usize> {
        let rows = self.iter().filter(|(_, row)| row.piece == piece.get() && row.is_live());
        rows.max_by_key(|(_, row)| row.started).map(|(index, _)| index)
    }

    /// Whether another row than `index` has brought the same piece, verified.
    pub(super) fn genuine_sibling(&self, index: usize) -> bool {
        let piece = self.rows[index].piece;
        let done = |row: &Transfer| matches!(row.step, Step::Genuine | Step::Delivered | Step::Storing);
        self.iter().any(|(other, row)| other != index && row.piece == piece && done(row))
    }

    /// The fetch of a piece that is about to be taken back from this peer.
    pub(super) fn cancelling(&self, peer: PeerId, piece: u32) -> Option<usize> {
        let cancelling = |row: &Transfer| row.step == Step::ToCancel && row.peer == peer && row.piece == piece;
        self.rows.iter().position(cancelling)
    }

    /// The other row than `index` that still may bring the same piece.
    pub(super) fn sibling(&self, index: usize) -> Option<usize> {
        let piece = self.rows[index].piece;
        self.rows.iter().enumerate().position(|(other, row)| other != index && row.piece == piece && row.is_live())
    }
}
