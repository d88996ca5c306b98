//! The list that UNMAP brings (SBC-3, section 5.28).
//!
//! *Bounds*: [`RANGES_MAX`] ranges, [`SAME_BLOCKS_MAX`] blocks in all.

use super::command::Extent;
use super::sense::Sense;
use super::{Facts, RANGES_MAX, SAME_BLOCKS_MAX};

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
