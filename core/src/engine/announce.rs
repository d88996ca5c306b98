//! The log of changes of what is held, from which each peer is told in batches.
//!
//! *Invariants*: changes are numbered from 0; the last `len` of them are kept. *Bounds*: as many as `Limits::changes`;
//! a peer that is further behind is sent the whole map again.

/// A piece that came or went; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Change {
    piece: u32,
    held: bool,
}

impl Change {
    /// An unused row.
    pub const EMPTY: Self = Self { piece: 0, held: false };
}

/// The log.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    rows: &'a mut [Change],
    next: u64,
}

impl<'a> Changes<'a> {
    pub(super) fn new(rows: &'a mut [Change]) -> Self {
        Self { rows, next: 0 }
    }

    /// Number of the next change.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn push(&mut self, piece: u32, held: bool) {
        let index = (self.next % self.rows.len() as u64) as usize;
        self.rows[index] = Change { piece, held };
        self.next += 1;
    }

    /// Whether all changes from `number` on are still here.
    pub(super) fn reaches(&self, number: u64) -> bool {
        self.next - number <= self.rows.len() as u64
    }

    /// Change `number` (reached, and below `next`): the piece, and whether it came.
    pub(super) fn get(&self, number: u64) -> (u32, bool) {
        let row = self.rows[(number % self.rows.len() as u64) as usize];
        (row.piece, row.held)
    }
}
