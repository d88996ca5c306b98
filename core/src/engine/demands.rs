//! The table of pieces that guests wait for, oldest first.
//!
//! *Invariants*: a piece has at most one row; a row has at least one waiter; no row's piece is held.
//! *Bounds*: as many rows as `Limits::demands`; the rows in use come first, so that a call is O(rows in use).

use crate::geometry::PieceIndex;
use crate::time::Instant;
use core::ops::Range;

/// A piece that guests wait for; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Demand {
    piece: Option<PieceIndex>,
    waiters: u16,
    since: Instant,
}

impl Demand {
    /// An unused row.
    pub const EMPTY: Self = Self { piece: None, waiters: 0, since: Instant::ZERO };
}

/// All pieces that guests wait for.
#[derive(Debug)]
pub(super) struct Demands<'a> {
    rows: &'a mut [Demand],
    len: usize,
}

impl<'a> Demands<'a> {
    pub(super) fn new(rows: &'a mut [Demand]) -> Self {
        Self { rows, len: 0 }
    }

    /// The demand at `index`, oldest first: the piece, and since when it is waited for.
    pub(super) fn at(&self, index: usize) -> Option<(PieceIndex, Instant)> {
        let row = self.rows[..self.len].get(index)?;
        Some((row.piece?, row.since))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a piece of these is waited for.
    pub(super) fn any_within(&self, pieces: &Range<u32>) -> bool {
        let mut waited = self.rows[..self.len].iter().filter_map(|row| row.piece);
        waited.any(|piece| pieces.contains(&piece.get()))
    }

    /// One more waits. False: the table is full.
    pub(super) fn add(&mut self, now: Instant, piece: PieceIndex) -> bool {
        if let Some(index) = self.position(piece) {
            self.rows[index].waiters = self.rows[index].waiters.saturating_add(1);
            return true;
        }
        if self.len == self.rows.len() {
            return false;
        }
        self.rows[self.len] = Demand { piece: Some(piece), waiters: 1, since: now };
        self.len += 1;
        true
    }

    /// One waits no longer. True: nobody does now.
    pub(super) fn release(&mut self, piece: PieceIndex) -> bool {
        let Some(index) = self.position(piece) else { return false };
        self.rows[index].waiters -= 1;
        let last = self.rows[index].waiters == 0;
        if last {
            self.remove(piece);
        }
        last
    }

    /// Nobody waits any longer: the piece is there. True: somebody did.
    pub(super) fn remove(&mut self, piece: PieceIndex) -> bool {
        let Some(index) = self.position(piece) else { return false };
        self.rows.copy_within(index + 1..self.len, index);
        self.len -= 1;
        true
    }

    fn position(&self, piece: PieceIndex) -> Option<usize> {
        self.rows[..self.len].iter().position(|row| row.piece == Some(piece))
    }
}
