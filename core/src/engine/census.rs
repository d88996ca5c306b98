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

    /// One node more or less may hold these pieces.
    pub(super) fn forget_run(&self, first: u32, count: u32) {
        if count as usize >= KEPT {
            return self.forget();
        }
        for piece in first..first.saturating_add(count) {
            let row = &self.rows[piece as usize % KEPT];
            if row.get() >> 16 == u64::from(piece) {
                row.set(NOTHING);
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
    fn a_count_is_kept_until_it_may_be_another() {
        let geometry = Geometry::new(4000 << 16, 16).unwrap();
        let [chunk, other] = [5, 5 + KEPT as u32].map(|number| geometry.chunk(number).unwrap());
        let census = Census::new();
        let kept = || unreachable!("it is kept");
        assert_eq!(census.of(chunk, || 3), 3);
        census.forget_run(6, 9);
        census.forget_run(other.get(), 1);
        assert_eq!(census.of(chunk, kept), 3, "others' counts have changed");
        census.forget_run(4, 2);
        assert_eq!(census.of(chunk, || 4), 4);
        census.forget_run(0, KEPT as u32);
        assert_eq!(census.of(chunk, || 5), 5, "a long run");
        census.forget();
        assert_eq!(census.of(chunk, || 6), 6);
        assert_eq!(census.of(other, || 7), 7, "of another chunk");
        assert_eq!(census.of(chunk, || 8), 8, "whose row has been taken");
    }
}
