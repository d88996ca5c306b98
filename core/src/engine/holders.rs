//! Which peers hold which piece: for each piece a bit for each peer, so that whom to ask for a piece is seen at one glance.
//!
//! *Invariants*: the bits of a row that is not in use are clear. *Bounds*: as many bits a piece as there are links, rounded
//! up to a power of two or to whole words; nothing at all without maps. A look-up costs O(links / 64), a note O(pieces).

use super::config::Limits;
use crate::geometry::Geometry;

/// The bits.
#[derive(Debug)]
pub(super) struct Holders<'a> {
    words: &'a mut [u64],
    /// Bits a piece.
    stride: usize,
    pieces: u32,
}

impl<'a> Holders<'a> {
    /// Words for an image and so many links.
    pub const fn words(geometry: Geometry, limits: Limits) -> usize {
        if limits.maps { (geometry.piece_count() as usize * stride(limits.peers)).div_ceil(64) } else { 0 }
    }

    /// Nobody is known to hold anything. `words` are as many as [`words`](Self::words) says.
    pub fn new(words: &'a mut [u64], geometry: Geometry, limits: Limits) -> Self {
        words.fill(0);
        let pieces = if limits.maps { geometry.piece_count() } else { 0 };
        Self { words, stride: stride(limits.peers), pieces }
    }

    pub fn get(&self, peer_index: usize, piece: u32) -> bool {
        let bit = piece as usize * self.stride + peer_index;
        piece < self.pieces && self.words[bit / 64] >> (bit % 64) & 1 == 1
    }

    /// The holders among peers `64 n .. 64 n + 64`, the first as the lowest bit.
    pub fn of_piece(&self, piece: u32, n: usize) -> u64 {
        let bit = piece as usize * self.stride + 64 * n;
        if piece >= self.pieces || 64 * n >= self.stride {
            return 0;
        }
        let bits = self.words[bit / 64] >> (bit % 64);
        if self.stride < 64 { bits & ((1 << self.stride) - 1) } else { bits }
    }

    /// Notes that a peer holds, or does not hold, a run that lies within the image; says of how many pieces that was news.
    pub fn assign(&mut self, peer_index: usize, first: u32, count: u32, held: bool) -> u32 {
        let mut changed = 0;
        for piece in first..(first + count).min(self.pieces) {
            let bit = piece as usize * self.stride + peer_index;
            let word = &mut self.words[bit / 64];
            let new = *word & !(1 << (bit % 64)) | u64::from(held) << (bit % 64);
            changed += u32::from(*word != new);
            *word = new;
        }
        changed
    }

    /// How many pieces all peers hold together.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

const fn stride(peers: u16) -> usize {
    if peers <= 64 { (peers as usize).next_power_of_two() } else { (peers as usize).next_multiple_of(64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the naive one: a table of booleans.
        #[test]
        fn agrees_with_a_table_of_booleans(
            peers in prop::sample::select(&[1u16, 3, 8, 50, 64, 65, 150][..]),
            notes in prop::collection::vec((any::<u16>(), 0u32..300, 0u32..100, any::<bool>()), 0..30),
        ) {
            let geometry = Geometry::new(300 << 16, 16).unwrap();
            let limits = Limits { peers, ..Limits::NODE };
            let mut words = std::vec![u64::MAX; Holders::words(geometry, limits)];
            let mut holders = Holders::new(&mut words, geometry, limits);
            let pieces = geometry.piece_count();
            let mut naive = std::vec![std::vec![false; usize::from(peers)]; pieces as usize];
            for (peer, first, count, held) in notes {
                let (peer, count) = (usize::from(peer % peers), count.min(pieces - first));
                let rows = &mut naive[first as usize..(first + count) as usize];
                let news = rows.iter_mut().filter_map(|row| (row[peer] != held).then(|| row[peer] = held)).count();
                prop_assert_eq!(holders.assign(peer, first, count, held), news as u32);
            }
            for (piece, row) in (0..).zip(&naive) {
                for (peer, held) in row.iter().enumerate() {
                    prop_assert_eq!(holders.get(peer, piece), *held);
                    prop_assert_eq!(holders.of_piece(piece, peer / 64) >> (peer % 64) & 1 == 1, *held);
                }
            }
            prop_assert_eq!(holders.count() as usize, naive.iter().flatten().filter(|held| **held).count());
        }
    }
}
