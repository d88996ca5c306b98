//! What has been worked out of a chunk, kept for the chunks asked about last: each look for work asks it of the whole window.
//!
//! *Invariants*: what is kept is what would be worked out now; whoever knows that it may be another says so. *Bounds*:
//! [`KEPT`] chunks; a Have costs one row.

use crate::geometry::ChunkIndex;
use core::cell::Cell;

/// Answers that are kept: more than a window has guesses.
const KEPT: usize = 1024;
const NOTHING: u64 = u64::MAX;

/// Answers, by the chunk's last bits.
#[derive(Debug)]
pub(super) struct Kept {
    /// The chunk, and in the last 16 bits the answer; [`NOTHING`].
    rows: [Cell<u64>; KEPT],
}

impl Kept {
    pub(super) const fn new() -> Self {
        Self { rows: [const { Cell::new(NOTHING) }; KEPT] }
    }

    /// All answers may be others.
    pub(super) fn forget(&self) {
        self.rows.iter().for_each(|row| row.set(NOTHING));
    }

    /// Where answers are counts: `changed` of these are one more, or one less; which of them is not known.
    pub(super) fn count(&self, first: u32, count: u32, changed: u32, more: bool) {
        if count as usize >= KEPT {
            return self.forget();
        }
        for chunk in first..first.saturating_add(count) {
            let row = &self.rows[chunk as usize % KEPT];
            match row.get() {
                kept if kept >> 16 != u64::from(chunk) => {}
                kept if changed == count => row.set(if more { kept + 1 } else { kept - 1 }),
                _ => row.set(NOTHING),
            }
        }
    }

    /// What is kept of the chunk, or is found out now.
    pub(super) fn of(&self, chunk: ChunkIndex, find_out: impl FnOnce() -> u16) -> u16 {
        let row = &self.rows[chunk.get() as usize % KEPT];
        if row.get() >> 16 != u64::from(chunk.get()) {
            row.set(u64::from(chunk.get()) << 16 | u64::from(find_out()));
        }
        row.get() as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn an_answer_is_kept_follows_the_news_or_is_found_out_anew() {
        let geometry = Geometry::new(4000 << 16, 16).unwrap();
        let [chunk, other] = [5, 5 + KEPT as u32].map(|number| geometry.chunk(number).unwrap());
        let answers = Kept::new();
        let kept = || unreachable!("it is kept");
        assert_eq!(answers.of(chunk, || 3), 3);
        answers.count(6, 9, 9, true);
        answers.count(other.get(), 1, 1, true);
        assert_eq!(answers.of(chunk, kept), 3, "others' counts have changed");
        answers.count(4, 2, 2, true);
        assert_eq!(answers.of(chunk, kept), 4, "one more");
        answers.count(5, 1, 1, false);
        assert_eq!(answers.of(chunk, kept), 3, "one less");
        answers.count(4, 2, 1, true);
        assert_eq!(answers.of(chunk, || 4), 4, "one of two is news");
        answers.count(0, KEPT as u32, 1, true);
        assert_eq!(answers.of(chunk, || 5), 5, "a long run");
        answers.forget();
        assert_eq!(answers.of(chunk, || 6), 6);
        assert_eq!(answers.of(other, || 7), 7, "of another chunk");
        assert_eq!(answers.of(chunk, || 8), 8, "whose row has been taken");
    }
}
