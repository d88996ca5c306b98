//! Redirects: that node has the piece or will soon; seeds, or all others, are not asked for it meanwhile.
//!
//! *Invariants*: a piece has at most one hint. *Bounds*: the latest 128; a look-up is O(128).

use crate::geometry::PieceIndex;
use crate::ids::NodeId;
use crate::time::Instant;

const HINTS_MAX: usize = 128;
/// No node has this name.
const NOBODY: NodeId = NodeId([0; 16]);
/// No piece has this number.
const NO_PIECE: u32 = u32::MAX;

/// A redirect: that node has the piece or will soon; seeds are not asked before `until`, nor are nodes if a node said so.
#[derive(Debug, Copy, Clone)]
pub(super) struct Hint {
    pub piece: u32,
    pub node: NodeId,
    pub until: Instant,
    pub by_node: bool,
}

/// The latest redirects.
#[derive(Debug)]
pub(super) struct Hints {
    rows: [Hint; HINTS_MAX],
    /// The rows' pieces, so that one is found soon.
    pieces: [u32; HINTS_MAX],
    /// The row to use next: the oldest, once all have been used.
    next: usize,
    /// No hint expires between the last call of `next_expiry` and then.
    expiry: Instant,
}

impl Hints {
    pub fn new() -> Self {
        let none = Hint { piece: NO_PIECE, node: NodeId([0; 16]), until: Instant::ZERO, by_node: false };
        Self { rows: [none; HINTS_MAX], pieces: [NO_PIECE; HINTS_MAX], next: 0, expiry: Instant::NEVER }
    }

    pub fn add(&mut self, hint: Hint) {
        let index = self.position(hint.piece).unwrap_or_else(|| {
            let oldest = self.next;
            self.next = (self.next + 1) % HINTS_MAX;
            oldest
        });
        self.rows[index] = hint;
        self.pieces[index] = hint.piece;
        self.expiry = Instant::ZERO;
    }

    pub fn find(&self, piece: PieceIndex) -> Option<&Hint> {
        self.position(piece.get()).map(|index| &self.rows[index])
    }

    /// The node that was named has not got it: seeds may be asked again at `again`.
    pub fn refuted(&mut self, piece: PieceIndex, again: Instant) {
        if let Some(index) = self.position(piece.get()) {
            self.rows[index].node = NOBODY;
            self.rows[index].until = self.rows[index].until.min(again);
            self.expiry = Instant::ZERO;
        }
    }

    pub fn next_expiry(&mut self, now: Instant) -> Instant {
        if self.expiry <= now {
            let expiries = self.rows.iter().map(|hint| hint.until).filter(|until| *until > now);
            self.expiry = expiries.min().unwrap_or(Instant::NEVER);
        }
        self.expiry
    }

    fn position(&self, piece: u32) -> Option<usize> {
        // Whole blocks at a time: most look-ups find nothing.
        const BLOCK: usize = 32;
        let blocks = self.pieces.chunks_exact(BLOCK);
        let (number, block) =
            blocks.enumerate().find(|(_, block)| block.iter().fold(false, |any, it| any | (*it == piece)))?;
        block.iter().position(|it| *it == piece).map(|at| number * BLOCK + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Against the naive one: a queue that is searched from end to end.
        #[test]
        fn agrees_with_a_queue(
            calls in prop::collection::vec((0u32..200, 0u64..50, prop::bool::weighted(0.2), any::<bool>()), 0..600),
        ) {
            let geometry = Geometry::new(200 << 16, 16).unwrap();
            let mut hints = Hints::new();
            let mut naive: VecDeque<(u32, Instant)> = VecDeque::new();
            let mut now = 0;
            for (number, ahead, expires, asks) in calls {
                now += ahead / 10;
                let (time, until) = (Instant::from_micros(now), Instant::from_micros(now + ahead));
                let piece = geometry.piece(number).unwrap();
                let known = naive.iter_mut().find(|(known, _)| *known == number);
                match known {
                    Some(old) if expires => old.1 = old.1.min(time),
                    None if expires => {}
                    Some(old) => old.1 = until,
                    None => naive.push_back((number, until)),
                }
                if expires {
                    hints.refuted(piece, time);
                } else {
                    hints.add(Hint { piece: number, node: NodeId([0; 16]), until, by_node: false });
                }
                if naive.len() > HINTS_MAX {
                    naive.pop_front();
                }
                let expected = naive.iter().find(|(known, _)| *known == number).map(|(_, until)| *until);
                prop_assert_eq!(hints.find(piece).map(|hint| hint.until), expected);
                if asks {
                    let next = naive.iter().map(|(_, until)| *until).filter(|until| *until > time).min();
                    prop_assert_eq!(hints.next_expiry(time), next.unwrap_or(Instant::NEVER));
                }
            }
        }
    }
}
