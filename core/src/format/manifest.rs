//! The manifest: the image's measures and the hash of each leaf page. Its own hash is the image's id.
//!
//! *Invariants*: a [`Layout`] is consistent: manifest, leaf pages and payloads lie one after the other within
//! `file_bytes`, and no sum of offsets overflows.
//! *Units*: offsets in the `.swarm` file. *Bounds*: a header of at most [`HEADER_BYTES_MAX`], then 32 bytes a leaf page.

use super::leaf::leaf_bytes;
use super::superblock::SUPERBLOCK_BYTES;
use crate::geometry::{Geometry, LeafIndex};
use crate::ids::Digest;
use serde::{Deserialize, Serialize};

/// Version of the manifest that this code writes and reads.
pub const VERSION: u16 = 1;
/// Longest header: magic, four varints of 64 bits, one of 16 bits, two bytes.
pub const HEADER_BYTES_MAX: usize = 4 + 4 * 10 + 3 + 2;
const MAGIC: [u8; 4] = *b"SWMF";
const ALIGN: u64 = 4096;

/// How payloads are coded.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// As they are.
    None,
    /// Each chunk is a zstd frame of its own (RFC 8878), unless that would not be shorter.
    Zstd,
}

/// The measures of an image and of its file.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Layout {
    geometry: Geometry,
    codec: Codec,
    leaf_offset: u64,
    payload_offset: u64,
    file_bytes: u64,
}

/// A manifest's bytes, checked.
#[derive(Debug, Copy, Clone)]
pub struct ManifestView<'a> {
    layout: Layout,
    digests: &'a [u8],
}

/// Why these bytes are no manifest. Whoever made the image is at fault (or, before the hash was compared, whoever sent
/// it); nothing was changed.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// The magic is missing, or the header ends early.
    Foreign,
    /// Written by a version that this code does not know.
    Version(u16),
    /// Image or chunk size out of bounds.
    Geometry,
    /// Not one hash for each leaf page.
    Length,
    /// The areas of the file overlap or reach beyond its end.
    Layout,
    /// The output slice is too short (encoding only).
    Room,
}

#[derive(Serialize, Deserialize)]
struct Header {
    magic: [u8; 4],
    version: u16,
    image_bytes: u64,
    chunk_shift: u8,
    codec: Codec,
    leaf_offset: u64,
    payload_offset: u64,
    file_bytes: u64,
}

impl Layout {
    /// The layout of a new file with `payload_bytes` bytes of payloads.
    ///
    /// # Errors
    /// [`ManifestError::Layout`] if the file would be longer than 2^63 bytes.
    pub const fn plan(geometry: Geometry, codec: Codec, payload_bytes: u64) -> Result<Self, ManifestError> {
        let leaf_offset = leaf_area_offset(geometry);
        let payload_offset = (leaf_offset + leaf_area_bytes(geometry)).next_multiple_of(ALIGN);
        if payload_bytes > i64::MAX as u64 - payload_offset {
            return Err(ManifestError::Layout);
        }
        Ok(Self { geometry, codec, leaf_offset, payload_offset, file_bytes: payload_offset + payload_bytes })
    }

    /// Size of the image and its chunks.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How payloads are coded.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Length of the whole file.
    pub const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Length of all payloads together.
    pub const fn payload_bytes(&self) -> u64 {
        self.file_bytes - self.payload_offset
    }

    /// Where payloads begin; they end with the file.
    pub const fn payload_offset(&self) -> u64 {
        self.payload_offset
    }

    /// Where this leaf page lies. `leaf` must be of this geometry.
    pub const fn leaf_offset(&self, leaf: LeafIndex) -> u64 {
        self.leaf_offset + leaf.get() as u64 * leaf_bytes(crate::geometry::LEAF_CHUNKS) as u64
    }

    /// Length of this leaf page; only the last is short. `leaf` must be of this geometry.
    pub const fn leaf_bytes(&self, leaf: LeafIndex) -> u32 {
        leaf_bytes(self.geometry.leaf_chunk_count(leaf)) as u32
    }

    /// Writes the manifest's header; returns its length. The leaf pages' hashes follow it.
    ///
    /// # Errors
    /// [`ManifestError::Room`] if `out` is shorter than [`HEADER_BYTES_MAX`] and that is too short.
    pub fn encode_header(&self, out: &mut [u8]) -> Result<usize, ManifestError> {
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            image_bytes: self.geometry.image_bytes(),
            chunk_shift: self.geometry.chunk_shift(),
            codec: self.codec,
            leaf_offset: self.leaf_offset,
            payload_offset: self.payload_offset,
            file_bytes: self.file_bytes,
        };
        postcard::to_slice(&header, out).map(|written| written.len()).map_err(|_| ManifestError::Room)
    }

    fn from_header(header: &Header, manifest_bytes: usize) -> Result<Self, ManifestError> {
        let geometry = Geometry::new(header.image_bytes, header.chunk_shift).map_err(|_| ManifestError::Geometry)?;
        let manifest_end = (SUPERBLOCK_BYTES + manifest_bytes) as u64;
        let leaf_end = header.leaf_offset.checked_add(leaf_area_bytes(geometry)).ok_or(ManifestError::Layout)?;
        let in_order = manifest_end <= header.leaf_offset
            && leaf_end <= header.payload_offset
            && header.payload_offset <= header.file_bytes
            && header.file_bytes <= i64::MAX as u64;
        if !in_order {
            return Err(ManifestError::Layout);
        }
        Ok(Self {
            geometry,
            codec: header.codec,
            leaf_offset: header.leaf_offset,
            payload_offset: header.payload_offset,
            file_bytes: header.file_bytes,
        })
    }
}

impl<'a> ManifestView<'a> {
    /// Checks a manifest. The caller has compared its hash with the image's id, or does so before it trusts it.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(ManifestError::Foreign);
        }
        let (version, _) = postcard::take_from_bytes::<u16>(&bytes[4..]).map_err(|_| ManifestError::Foreign)?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let (header, digests) = postcard::take_from_bytes::<Header>(bytes).map_err(|_| ManifestError::Foreign)?;
        let layout = Layout::from_header(&header, bytes.len())?;
        if digests.len() as u64 != u64::from(layout.geometry.leaf_count()) * 32 {
            return Err(ManifestError::Length);
        }
        Ok(Self { layout, digests })
    }

    /// The measures of the image and of its file.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Size of the image and its chunks.
    pub const fn geometry(&self) -> Geometry {
        self.layout.geometry
    }

    /// The hash of a leaf page. `leaf` must be of this geometry.
    pub fn leaf_digest(&self, leaf: LeafIndex) -> Digest {
        Digest(super::array(self.digests, leaf.get() as usize * 32))
    }

    /// Where this leaf page lies in the file. `leaf` must be of this geometry.
    pub const fn leaf_offset(&self, leaf: LeafIndex) -> u64 {
        self.layout.leaf_offset(leaf)
    }
}

/// Leaf pages begin here in a new file: after the longest manifest of this geometry, so that the place is known before
/// the manifest's own length is.
const fn leaf_area_offset(geometry: Geometry) -> u64 {
    let manifest_bytes_max = HEADER_BYTES_MAX as u64 + geometry.leaf_count() as u64 * 32;
    (SUPERBLOCK_BYTES as u64 + manifest_bytes_max).next_multiple_of(ALIGN)
}

const fn leaf_area_bytes(geometry: Geometry) -> u64 {
    geometry.leaf_count() as u64 * 8 + geometry.chunk_count() as u64 * super::leaf::ENTRY_BYTES as u64
}

impl core::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Foreign => f.write_str("not a manifest"),
            Self::Version(version) => write!(f, "manifest version {version} is not known here, only {VERSION}"),
            Self::Geometry => f.write_str("the manifest's image or chunk size is out of bounds"),
            Self::Length => f.write_str("the manifest does not have one hash for each leaf page"),
            Self::Layout => f.write_str("the manifest's offsets do not fit together"),
            Self::Room => f.write_str("no room for the manifest's header"),
        }
    }
}

impl core::error::Error for ManifestError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    pub(crate) fn encode(layout: &Layout) -> Vec<u8> {
        let mut bytes = std::vec![0; HEADER_BYTES_MAX];
        let length = layout.encode_header(&mut bytes).unwrap();
        bytes.truncate(length);
        for leaf in 0..layout.geometry().leaf_count() {
            bytes.extend([leaf as u8; 32]);
        }
        bytes
    }

    proptest! {
        #[test]
        fn round_trip(image_bytes in 1u64..1 << 34, shift in 14u8..=20, payload in 0u64..1 << 40, zstd in any::<bool>()) {
            let codec = if zstd { Codec::Zstd } else { Codec::None };
            let layout = Layout::plan(Geometry::new(image_bytes, shift).unwrap(), codec, payload).unwrap();
            let bytes = encode(&layout);
            let view = ManifestView::parse(&bytes).unwrap();
            prop_assert_eq!(view.layout(), layout);
            let last = layout.geometry().leaf(layout.geometry().leaf_count() - 1).unwrap();
            prop_assert_eq!(view.leaf_digest(last), Digest([last.get() as u8; 32]));
            prop_assert!(view.leaf_offset(last) + u64::from(layout.leaf_bytes(last)) <= layout.payload_offset());
            prop_assert!(SUPERBLOCK_BYTES as u64 + bytes.len() as u64 <= layout.leaf_offset);
        }

        #[test]
        fn any_change_of_length_is_refused(cut in 1usize..200, more in 1usize..100) {
            let layout = Layout::plan(Geometry::new(1 << 28, 14).unwrap(), Codec::Zstd, 5).unwrap();
            let mut bytes = encode(&layout);
            prop_assert!(ManifestView::parse(&bytes[..bytes.len() - cut]).is_err());
            bytes.resize(bytes.len() + more, 0);
            prop_assert!(ManifestView::parse(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200), known in any::<bool>()) {
            let mut bytes = Vec::new();
            if known {
                bytes.extend(MAGIC);
                bytes.push(1);
            }
            bytes.extend(tail);
            if let Ok(view) = ManifestView::parse(&bytes) {
                let g = view.geometry();
                let last = g.leaf(g.leaf_count() - 1).unwrap();
                let _ = (view.leaf_digest(last), view.leaf_offset(last));
            }
        }
    }

    #[test]
    fn offsets_that_overlap_or_overflow_are_refused() {
        let good = Layout::plan(Geometry::new(1 << 20, 16).unwrap(), Codec::None, 1 << 20).unwrap();
        for bad in [
            Layout { leaf_offset: 4096, ..good },
            Layout { leaf_offset: u64::MAX - 5, ..good },
            Layout { payload_offset: good.leaf_offset, ..good },
            Layout { payload_offset: good.file_bytes + 1, ..good },
            Layout { file_bytes: u64::MAX, ..good },
        ] {
            assert_eq!(ManifestView::parse(&encode(&bad)).err(), Some(ManifestError::Layout), "{bad:?}");
        }
        let mut newer = encode(&good);
        newer[4] = 2;
        assert_eq!(ManifestView::parse(&newer).err(), Some(ManifestError::Version(2)));
    }
}
