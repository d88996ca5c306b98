//! What a replay writes, and where: contents are made of the number of the write and the place, so that a byte that is
//! older, or another place's, is told from the right one.
//!
//! *Invariants*: no two extents overlap; the latest write counts. *Units*: bytes.

use bytes::Bytes;
use std::collections::BTreeMap;
use swarmdisk_core::rng::mix;

const WORD_BYTES: u64 = 8;

/// Which write each byte is of.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By the first byte: the end, and the write's number.
    extents: BTreeMap<u64, (u64, u64)>,
}

impl Written {
    /// Notes a write, over what was there.
    pub(super) fn add(&mut self, number: u64, offset: u64, bytes: u32) {
        let end = offset + u64::from(bytes);
        let touched = self.touched(offset, end);
        for (start, (old_end, old)) in touched {
            self.extents.remove(&start);
            if start < offset {
                self.extents.insert(start, (offset, old));
            }
            if end < old_end {
                self.extents.insert(end, (old_end, old));
            }
        }
        self.extents.insert(offset, (end, number));
    }

    /// Puts what was written into `bytes`, which are those at `offset`.
    pub(super) fn lay_over(&self, bytes: &mut [u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        for (start, (written_end, number)) in self.touched(offset, end) {
            let (from, to) = (start.max(offset), written_end.min(end));
            fill(&mut bytes[(from - offset) as usize..(to - offset) as usize], number, from);
        }
    }

    /// The extents that have bytes in `offset..end`.
    fn touched(&self, offset: u64, end: u64) -> Vec<(u64, (u64, u64))> {
        let before = self.extents.range(..offset).next_back().filter(|(_, (before_end, _))| *before_end > offset);
        before.into_iter().chain(self.extents.range(offset..end)).map(|(start, extent)| (*start, *extent)).collect()
    }
}

/// The contents of a write.
pub(super) fn content(number: u64, offset: u64, bytes: u32) -> Bytes {
    let mut out = vec![0; bytes as usize];
    fill(&mut out, number, offset);
    out.into()
}

fn fill(mut out: &mut [u8], number: u64, mut offset: u64) {
    while !out.is_empty() {
        let word = mix(mix(number).wrapping_add(offset / WORD_BYTES)).to_le_bytes();
        let of_word = &word[(offset % WORD_BYTES) as usize..];
        let length = of_word.len().min(out.len());
        let (now, later) = out.split_at_mut(length);
        now.copy_from_slice(&of_word[..length]);
        (out, offset) = (later, offset + length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK_BYTES: usize = 200;

    proptest! {
        #[test]
        fn it_is_what_a_disk_would_hold(writes in prop::collection::vec((0..150_u64, 1..50_u32), 0..20)) {
            let (mut disk, mut written) = (vec![9; DISK_BYTES], Written::default());
            for (number, (offset, bytes)) in (1..).zip(writes) {
                disk[offset as usize..][..bytes as usize].copy_from_slice(&content(number, offset, bytes));
                written.add(number, offset, bytes);
                for (start, end) in [(0, DISK_BYTES), (13, 77), (100, 101)] {
                    let mut found = vec![9; end - start];
                    written.lay_over(&mut found, start as u64);
                    prop_assert_eq!(&found, &disk[start..end]);
                }
            }
        }
    }

    #[test]
    fn no_two_writes_and_no_two_places_look_alike() {
        let first = content(1, 4096, 512);
        assert_ne!(first, content(2, 4096, 512));
        assert_ne!(first, content(1, 4608, 512));
        assert_eq!(first[100..], content(1, 4196, 412)[..]);
    }
}
