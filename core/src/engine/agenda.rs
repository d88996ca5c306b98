//! Who of many is next: the table's rows as leaves of a tournament tree, in which every node has the least key below it.
//!
//! *Purpose*: that a call does not look at every row. *Invariants*: a node's key is the lesser of its children's.
//! *Bounds*: [`Tournament::words`] of the caller's; a change costs O(log rows), the least key O(1), a search O(log rows).

use crate::time::Instant;

/// Rows by a key of `N` words, the first of which counts most.
#[derive(Debug)]
pub(super) struct Tournament<'a, const N: usize> {
    /// The root is node 1; node n's children are 2 n and 2 n + 1.
    nodes: &'a mut [[u64; N]],
}

impl<'a, const N: usize> Tournament<'a, N> {
    /// The key of a row that takes no part.
    pub const OUT: [u64; N] = [u64::MAX; N];

    /// Words for so many rows.
    pub const fn words(rows: usize) -> usize {
        2 * rows.next_power_of_two() * N
    }

    /// No row takes part. `words` are as many as [`words`](Self::words) says.
    pub fn new(words: &'a mut [u64]) -> Self {
        words.fill(u64::MAX);
        Self { nodes: words.as_chunks_mut().0 }
    }

    pub fn get(&self, row: usize) -> [u64; N] {
        self.nodes[self.nodes.len() / 2 + row]
    }

    pub fn set(&mut self, row: usize, key: [u64; N]) {
        let mut node = self.nodes.len() / 2 + row;
        let mut least = key;
        while self.nodes[node] != least {
            self.nodes[node] = least;
            if node == 1 {
                return;
            }
            least = least.min(self.nodes[node ^ 1]);
            node /= 2;
        }
    }

    /// The least key.
    pub fn least(&self) -> [u64; N] {
        self.nodes[1]
    }

    /// The first row, at or after `from`, whose key is at most `most`.
    pub fn next(&self, from: usize, most: [u64; N]) -> Option<usize> {
        let leaves = self.nodes.len() / 2;
        if from >= leaves || self.nodes[1] > most {
            return None;
        }
        let mut node = leaves + from;
        while self.nodes[node] > most {
            // On to the subtree to the right; none is beyond the tree's right edge.
            node >>= node.trailing_ones();
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < leaves {
            node *= 2;
            node += usize::from(self.nodes[node] > most);
        }
        Some(node - leaves)
    }
}

/// Rows by the time at which there is something to do about them.
#[derive(Debug)]
pub(super) struct Agenda<'a>(Tournament<'a, 1>);

impl<'a> Agenda<'a> {
    /// Words for so many rows.
    pub const fn words(rows: usize) -> usize {
        Tournament::<1>::words(rows)
    }

    /// Nothing is to be done.
    pub fn new(words: &'a mut [u64]) -> Self {
        Self(Tournament::new(words))
    }

    pub fn get(&self, row: usize) -> Instant {
        Instant::from_micros(self.0.get(row)[0])
    }

    pub fn set(&mut self, row: usize, at: Instant) {
        self.0.set(row, [at.as_micros()]);
    }

    /// When there is something to do first.
    pub fn earliest(&self) -> Instant {
        Instant::from_micros(self.0.least()[0])
    }

    /// The first row, at or after `from`, that is due.
    pub fn next_due(&self, from: usize, now: Instant) -> Option<usize> {
        self.0.next(from, [now.as_micros()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the naive one: a vector of keys.
        #[test]
        fn agrees_with_a_vector_of_keys(
            rows in 1usize..40,
            changes in prop::collection::vec((0usize..40, prop::bool::ANY, 0u64..8, 0u64..4), 0..60),
            from in 0usize..70,
            most in (0u64..9, 0u64..4),
        ) {
            let mut words = std::vec![0; Tournament::<2>::words(rows)];
            let mut tree = Tournament::<2>::new(&mut words);
            let mut naive = std::vec![Tournament::<2>::OUT; rows];
            for (row, out, first, second) in changes {
                let key = if out { Tournament::<2>::OUT } else { [first, second] };
                tree.set(row % rows, key);
                naive[row % rows] = key;
                prop_assert_eq!(tree.least(), *naive.iter().min().unwrap());
            }
            let most = [most.0, most.1];
            let expected = naive.iter().enumerate().skip(from).find(|(_, key)| **key <= most).map(|(row, _)| row);
            prop_assert_eq!(tree.next(from, most), expected);
            prop_assert!((0..rows).all(|row| tree.get(row) == naive[row]));
        }
    }
}
