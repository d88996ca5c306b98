//! The list that UNMAP brings (SBC-3, section 5.28), and the one that GET LBA STATUS gives (section 5.4).
//!
//! *Bounds*: [`RANGES_MAX`] ranges, [`SAME_BLOCKS_MAX`] blocks in all.

use super::command::Extent;
use super::sense::Sense;
use super::{BLOCK_BYTES, BLOCK_SHIFT, Facts, RANGES_MAX, SAME_BLOCKS_MAX};
use crate::disk;

const HEAD_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;

/// The ranges of a list, all within the disk.
///
/// # Errors
/// It is cut off within its head or says more than it holds, has too many ranges, or one beyond the end of the disk.
pub(in crate::iscsi) fn ranges(list: &[u8], facts: &Facts) -> Result<Vec<Extent>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let head = list.first_chunk::<HEAD_BYTES>().ok_or(Sense::PARAMETER_LENGTH)?;
    let told = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let descriptors = list[HEAD_BYTES..].get(..told).ok_or(Sense::PARAMETER_LENGTH)?;
    if descriptors.len() / DESCRIPTOR_BYTES > RANGES_MAX {
        return Err(Sense::INVALID_PARAMETER);
    }
    let mut ranges = Vec::new();
    let mut all = 0_u64;
    for descriptor in descriptors.chunks_exact(DESCRIPTOR_BYTES) {
        let lba = u64::from_be_bytes(std::array::from_fn(|index| descriptor[index]));
        let blocks = u32::from_be_bytes(std::array::from_fn(|index| descriptor[8 + index]));
        if lba.checked_add(blocks.into()).is_none_or(|end| end > facts.blocks) {
            return Err(Sense::OUT_OF_RANGE);
        }
        all += u64::from(blocks);
        ranges.push(Extent { lba, blocks });
    }
    if all > SAME_BLOCKS_MAX.into() { Err(Sense::INVALID_PARAMETER) } else { Ok(ranges) }
}

/// What GET LBA STATUS says from `lba` on, of extents of a disk that begin there: what is zeros for certain, in whole blocks,
/// counts as not allocated. In at most so many bytes.
pub(in crate::iscsi) fn status(lba: u64, extents: &[disk::Extent], facts: &Facts, allocated: u32) -> Vec<u8> {
    let most = (allocated as usize).saturating_sub(HEAD_BYTES) / DESCRIPTOR_BYTES;
    let mut ranges: Vec<(u64, u64, bool)> = Vec::new();
    let (mut at, mut end) = (lba, lba << BLOCK_SHIFT);
    for extent in extents {
        end += extent.bytes;
        let is_zero = extent.kind == disk::ExtentKind::Zero;
        // A block of which a part is data is data.
        let until = if is_zero { end >> BLOCK_SHIFT } else { end.div_ceil(BLOCK_BYTES) }.min(facts.blocks);
        if until > at {
            match ranges.last_mut() {
                Some(last) if last.2 == is_zero => last.1 += until - at,
                _ => ranges.push((at, until - at, is_zero)),
            }
            at = until;
        }
    }
    if ranges.is_empty() {
        ranges.push((lba, 1, false));
    }
    ranges.truncate(most.max(1));
    let mut data = ((4 + ranges.len() * DESCRIPTOR_BYTES) as u32).to_be_bytes().to_vec();
    data.extend([0; 4]);
    for (lba, blocks, is_zero) in ranges {
        data.extend(lba.to_be_bytes());
        data.extend(u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes());
        data.extend([u8::from(is_zero), 0, 0, 0]);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(blocks: u64) -> Facts {
        let (iqn, serial) = (String::new(), String::new());
        Facts { blocks, is_writable: true, physical_shift: 3, preferred_blocks: 128, iqn, serial, id: 0 }
    }

    fn list(ranges: &[(u64, u32)]) -> Vec<u8> {
        let bytes = (ranges.len() * DESCRIPTOR_BYTES) as u16;
        let mut list = [&(bytes + 6).to_be_bytes()[..], &bytes.to_be_bytes(), &[0; 4]].concat();
        for (lba, blocks) in ranges {
            list.extend(lba.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        list
    }

    #[test]
    fn ranges_lie_within_the_disk() {
        let facts = facts(100);
        assert_eq!(ranges(&[], &facts), Ok(vec![]));
        let found = ranges(&list(&[(0, 100), (3, 0)]), &facts);
        assert_eq!(found, Ok(vec![Extent { lba: 0, blocks: 100 }, Extent { lba: 3, blocks: 0 }]));
        assert_eq!(ranges(&list(&[(1, 100)]), &facts), Err(Sense::OUT_OF_RANGE));
        assert_eq!(ranges(&list(&[(u64::MAX, 1)]), &facts), Err(Sense::OUT_OF_RANGE));
        assert_eq!(ranges(&list(&[(0, 1)])[..20], &facts), Err(Sense::PARAMETER_LENGTH));
        assert_eq!(ranges(&[0; 7], &facts), Err(Sense::PARAMETER_LENGTH));
        let large = self::facts(u64::MAX);
        assert!(ranges(&list(&[(0, SAME_BLOCKS_MAX - 1), (u64::MAX - 1, 1)]), &large).is_ok());
        assert_eq!(ranges(&list(&[(0, SAME_BLOCKS_MAX), (7, 1)]), &large), Err(Sense::INVALID_PARAMETER));
        assert_eq!(ranges(&list(&[(0, 1); RANGES_MAX + 1]), &facts), Err(Sense::INVALID_PARAMETER));
    }

    #[test]
    fn a_block_that_is_data_in_part_is_data() {
        let extent = |bytes, kind| disk::Extent { bytes, kind };
        let extents = [extent(700, disk::ExtentKind::Data), extent(2000, disk::ExtentKind::Zero)];
        let data = status(2, &extents, &facts(100), 4096);
        let expected = [(2_u64, 2_u32, 0_u8), (4, 3, 1)];
        assert_eq!(data[..8], [0, 0, 0, 36, 0, 0, 0, 0]);
        for (descriptor, (lba, blocks, kind)) in data[8..].chunks(DESCRIPTOR_BYTES).zip(expected) {
            assert_eq!(descriptor[..8], lba.to_be_bytes());
            assert_eq!((&descriptor[8..12], descriptor[12]), (&blocks.to_be_bytes()[..], kind));
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), blocks: u64) {
            if let Ok(ranges) = ranges(&bytes, &facts(blocks)) {
                prop_assert!(ranges.iter().all(|range| range.lba + u64::from(range.blocks) <= blocks));
            }
        }
    }
}
