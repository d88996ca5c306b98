//! How many nodes hold a chunk, kept for the chunks asked about last: each look for work asks it of the whole window.
//!
//! *Invariants*: what is kept is what the holders' bits say. *Bounds*: [`KEPT`] chunks; a Have costs one row.

use crate::geometry::ChunkIndex;
use core::cell::Cell;

/// Answers that are kept: more than a window has guesses.
const KEPT: usize = 1024;
const NOTHING: u64 = u64::MAX;

/// Counts of holders, by the chunk's last bits.
#[derive(Debug)]
pub(super) struct Census {
    /// The chunk, and in the last 16 bits how many nodes hold it; [`NOTHING`].
    rows: [Cell<u64>; KEPT],
}

impl Census {
    pub(super) const fn new() -> Self {
        Self { rows: [const { Cell::new(NOTHING) }; KEPT] }
    }

    /// The nodes are others.
    pub(super) fn forget(&self) {
        self.rows.iter().for_each(|row| row.set(NOTHING));
    }

    /// A node holds these pieces that it did not hold, or the other way round; `changed` of them, it is not known which.
    pub(super) fn note(&self, first: u32, count: u32, changed: u32, held: bool) {
        if count as usize >= KEPT {
            return self.forget();
        }
        for piece in first..first.saturating_add(count) {
            let row = &self.rows[piece as usize % KEPT];
            match row.get() {
                kept if kept >> 16 != u64::from(piece) => {}
                kept if changed == count => row.set(if held { kept + 1 } else { kept - 1 }),
                _ => row.set(NOTHING),
            }
        }
    }

    /// What is kept of the chunk, or is counted now.
    pub(super) fn of(&self, chunk: ChunkIndex, count: impl FnOnce() -> u16) -> u16 {
        let row = &self.rows[chunk.get() as usize % KEPT];
        if row.get() >> 16 != u64::from(chunk.get()) {
            row.set(u64::from(chunk.get()) << 16 | u64::from(count()));
        }
        row.get() as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn a_count_follows_the_news_or_is_counted_anew() {
        let geometry = Geometry::new(4000 << 16, 16).unwrap();
        let [chunk, other] = [5, 5 + KEPT as u32].map(|number| geometry.chunk(number).unwrap());
        let census = Census::new();
        let kept = || unreachable!("it is kept");
        assert_eq!(census.of(chunk, || 3), 3);
        census.note(6, 9, 9, true);
        census.note(other.get(), 1, 1, true);
        assert_eq!(census.of(chunk, kept), 3, "others' counts have changed");
        census.note(4, 2, 2, true);
        assert_eq!(census.of(chunk, kept), 4, "one more");
        census.note(5, 1, 1, false);
        assert_eq!(census.of(chunk, kept), 3, "one less");
        census.note(4, 2, 1, true);
        assert_eq!(census.of(chunk, || 4), 4, "one of two is news");
        census.note(0, KEPT as u32, 1, true);
        assert_eq!(census.of(chunk, || 5), 5, "a long run");
        census.forget();
        assert_eq!(census.of(chunk, || 6), 6);
        assert_eq!(census.of(other, || 7), 7, "of another chunk");
        assert_eq!(census.of(chunk, || 8), 8, "whose row has been taken");
    }
}
