//! Bitmaps over storage that the caller owns.
//!
//! *Purpose*: one bit for each piece: held, in flight, had by a peer.
//! *Invariants*: bits at and above the length are never set. *Bounds*: as many bits as pieces.

/// Reading access to `len` bits in 64-bit words, lowest bit first.
#[derive(Debug, Copy, Clone)]
pub struct Bits<'a> {
    words: &'a [u64],
    len: u32,
}

impl<'a> Bits<'a> {
    /// The first `len` bits of `words`.
    pub const fn new(words: &'a [u64], len: u32) -> Self {
        Self { words, len }
    }

    /// Number of bits.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no bit at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bit at `index`; false beyond the end.
    pub fn get(&self, index: u32) -> bool {
        index < self.len && self.words[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    /// Whether the bit at `index` is set here or in `other`, of the same length.
    pub(crate) fn get_either(&self, other: &Self, index: u32) -> bool {
        let word = (index / 64) as usize;
        index < self.len && (self.words[word] | other.words[word]) >> (index % 64) & 1 == 1
    }

    /// How many bits are set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The first bit at or after `from` that has the value `set`.
    pub fn next(&self, from: u32, set: bool) -> Option<u32> {
        let mut index = from;
        while index < self.len {
            let word = self.words[(index / 64) as usize];
            let rest = (if set { word } else { !word }) >> (index % 64);
            if rest != 0 {
                let found = index + rest.trailing_zeros();
                return (found < self.len).then_some(found);
            }
            index = (index / 64 + 1) * 64;
        }
        None
    }

    /// The runs of set bits at or after `from`, as (first, count), in order.
    pub fn runs(self, from: u32) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        let mut at = from;
        core::iter::from_fn(move || {
            let first = self.next(at, true)?;
            at = self.next(first, false).unwrap_or(self.len);
            Some((first, at - first))
        })
    }
}

/// Sets or clears one bit; says whether that changed it. `index` must be within `words`.
pub fn assign(words: &mut [u64], index: u32, value: bool) -> bool {
    let word = &mut words[(index / 64) as usize];
    let bit = 1u64 << (index % 64);
    let was = *word & bit != 0;
    if value {
        *word |= bit
    } else {
        *word &= !bit
    }
    was != value
}

/// Sets or clears `count` bits from `first` on. The run must be within `words`.
pub fn assign_run(words: &mut [u64], first: u32, count: u32, value: bool) {
    let end = first + count;
    let mut index = first;
    while index < end {
        let in_word = index % 64;
        let take = (64 - in_word).min(end - index);
        let mask = (u64::MAX >> (64 - take)) << in_word;
        let word = &mut words[(index / 64) as usize];
        if value {
            *word |= mask
        } else {
            *word &= !mask
        }
        index += take;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        /// Against the naive one: a vector of booleans.
        #[test]
        fn agrees_with_a_vector_of_booleans(
            len in 1u32..300,
            runs in prop::collection::vec((0u32..300, 1u32..150, any::<bool>()), 0..20),
            from in 0u32..320,
        ) {
            let mut words = [0u64; 5];
            let mut naive = std::vec![false; len as usize];
            for (first, count, value) in runs {
                let first = first.min(len - 1);
                let count = count.min(len - first);
                assign_run(&mut words, first, count, value);
                naive[first as usize..(first + count) as usize].fill(value);
            }
            let bits = Bits::new(&words, len);
            prop_assert_eq!((0..len).map(|i| bits.get(i)).collect::<Vec<_>>(), naive.clone());
            prop_assert_eq!(bits.count() as usize, naive.iter().filter(|bit| **bit).count());
            for set in [true, false] {
                let expected = (from..len).find(|i| naive[*i as usize] == set);
                prop_assert_eq!(bits.next(from, set), expected);
            }
            let from_runs: Vec<u32> = bits.runs(0).flat_map(|(first, count)| first..first + count).collect();
            let expected: Vec<u32> = (0..len).filter(|i| naive[*i as usize]).collect();
            prop_assert_eq!(from_runs, expected);
        }
    }
}
