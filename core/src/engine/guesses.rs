//! How much is guessed, and what becomes of guesses that are no longer believed.
//!
//! *Invariants*: whatever a predictor says, what is fetched in vain is bounded: while no guess is used, by
//! [`UNUSED_BYTES`]; then by [`UNUSED_PER_USED`] chunks for each that was. *Bounds*: O(transfers) when beliefs have changed.

use super::Engine;
use super::transfers::WAITING;
use crate::geometry::Piece;
use crate::policy::{Order, Predictor, Selector};
use crate::wire::Class;

/// Guesses fetched or under way before one of them has been used, in bytes.
const UNUSED_BYTES: u64 = 8 << 20;
/// The same in chunks for each guess that has been used, if that is more.
const UNUSED_PER_USED: u32 = 4;

impl<P: Predictor, O: Order, S: Selector> Engine<'_, P, O, S> {
    /// Whether more may be guessed before what has been guessed is used.
    pub(super) fn may_guess(&self) -> bool {
        let base = (UNUSED_BYTES / u64::from(self.mean_bytes.max(1))) as u32;
        let unused = self.guessed_count + self.transfers.count(Class::Prefetch) as u32;
        unused < base.max(self.used_count.saturating_mul(UNUSED_PER_USED))
    }

    /// Takes back requests for what the predictor no longer believes in.
    pub(super) fn take_back_guesses(&mut self) {
        let beliefs = self.predictor.beliefs();
        if self.beliefs == beliefs {
            return;
        }
        self.beliefs = beliefs;
        self.window.note_surprise();
        let mut from = 0;
        while let Some(index) = self.transfers.next(from, WAITING) {
            from = index + 1;
            let row = self.transfers.at(index);
            let piece = self.geometry.piece(row.piece_number()).map(|piece| self.geometry.kind(piece));
            if row.class == Class::Prefetch
                && let Some(Piece::Chunk(chunk)) = piece
                && !self.predictor.believes(chunk)
            {
                self.cancel(index);
            }
        }
    }
}
