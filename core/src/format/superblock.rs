//! The first 4096 bytes of a `.swarm` file: what it is, and where its manifest lies.
//!
//! *Invariants*: derived from the manifest alone, so a cache can write it anew; the rest of the block is zero.
//! *Bounds*: 4096 bytes, CRC32 over all but its own four.

use super::{array, u32_at, u64_at};
use crate::ids::Digest;

/// Size of the superblock, and offset of the manifest.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Version of the `.swarm` format that this code writes and reads.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"SWARMDSK";
const CRC_AT: usize = SUPERBLOCK_BYTES - 4;

/// The contents of a superblock.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The image's id: the hash of the manifest.
    pub image: Digest,
    /// Where the manifest begins; at least [`SUPERBLOCK_BYTES`].
    pub manifest_offset: u64,
    /// Length of the manifest.
    pub manifest_bytes: u32,
    /// Length of the whole file.
    pub file_bytes: u64,
}

/// Why these bytes are no superblock. The file is at fault; nothing was changed.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum SuperblockError {
    /// Fewer than 4096 bytes.
    Short,
    /// The magic is missing: not a `.swarm` file.
    Foreign,
    /// The checksum is wrong: the block was damaged.
    Damaged,
    /// Written by a version that this code does not know.
    Version(u32),
    /// The manifest would lie outside the file.
    Range,
}

impl Superblock {
    /// The block's bytes.
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut out = [0; SUPERBLOCK_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..48].copy_from_slice(&self.image.0);
        out[48..56].copy_from_slice(&self.manifest_offset.to_le_bytes());
        out[56..60].copy_from_slice(&self.manifest_bytes.to_le_bytes());
        out[64..72].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a block; bytes beyond the first 4096 are ignored.
    ///
    /// # Errors
    /// See [`SuperblockError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        if bytes.len() >= 8 && bytes[..8] != MAGIC {
            return Err(SuperblockError::Foreign);
        }
        let block = bytes.get(..SUPERBLOCK_BYTES).ok_or(SuperblockError::Short)?;
        if crc32fast::hash(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
            return Err(SuperblockError::Damaged);
        }
        let version = u32_at(block, 8);
        if version != VERSION {
            return Err(SuperblockError::Version(version));
        }
        let this = Self {
            image: Digest(array(block, 16)),
            manifest_offset: u64_at(block, 48),
            manifest_bytes: u32_at(block, 56),
            file_bytes: u64_at(block, 64),
        };
        let end = this.manifest_offset.checked_add(u64::from(this.manifest_bytes)).ok_or(SuperblockError::Range)?;
        if this.manifest_offset < SUPERBLOCK_BYTES as u64 || end > this.file_bytes {
            return Err(SuperblockError::Range);
        }
        Ok(this)
    }
}

impl core::fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => f.write_str("shorter than a superblock"),
            Self::Foreign => f.write_str("not a .swarm file"),
            Self::Damaged => f.write_str("the superblock is damaged (its checksum is wrong)"),
            Self::Version(version) => write!(f, "format version {version} is not known here, only {VERSION}"),
            Self::Range => f.write_str("the superblock places the manifest outside the file"),
        }
    }
}

impl core::error::Error for SuperblockError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn sample() -> Superblock {
        Superblock { image: Digest([7; 32]), manifest_offset: 4096, manifest_bytes: 100, file_bytes: 1 << 40 }
    }

    #[test]
    fn round_trip_and_every_flipped_bit_is_found() {
        let block = sample().encode();
        assert_eq!(Superblock::parse(&block), Ok(sample()));
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_manifest_outside_the_file_is_refused() {
        let outside = Superblock { manifest_offset: u64::MAX, ..sample() };
        assert_eq!(Superblock::parse(&outside.encode()), Err(SuperblockError::Range));
        let inside_itself = Superblock { manifest_offset: 10, ..sample() };
        assert_eq!(Superblock::parse(&inside_itself.encode()), Err(SuperblockError::Range));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000), magic in any::<bool>()) {
            let mut bytes: Vec<u8> = bytes;
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&MAGIC);
            }
            let _ = Superblock::parse(&bytes);
        }
    }
}
