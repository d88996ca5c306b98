//! An image: how it is cut, and how long each piece is on the wire.
//!
//! *Units*: bytes. *Bounds*: four bytes a piece.

use super::{Purpose, stream};
use crate::scenario::Image;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use swarmdisk_core::format::leaf::{LEAF_BYTES_MAX, LeafView};
use swarmdisk_core::format::manifest::ManifestView;
use swarmdisk_core::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use swarmdisk_core::geometry::{BadGeometry, Geometry, Piece};
use swarmdisk_core::ids::Digest;

/// About what a manifest has beside a hash for each leaf page.
const MANIFEST_HEADER_BYTES: u32 = 40;
const DIGEST_BYTES: u32 = 32;
/// The longest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u32 = 1 << 28;

/// An image.
#[derive(Debug, Clone)]
pub struct ImageModel {
    /// How it is cut.
    pub geometry: Geometry,
    /// Its id.
    pub digest: Digest,
    /// Length of the manifest.
    pub manifest_bytes: u32,
    /// Length of each chunk's payload; 0: all zero.
    payloads: Vec<u32>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; name a file that `swarmdisk pack` has made", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no packed image.
    #[error("{} is no complete .swarm file ({what}); name one that `swarmdisk check` finds good", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Which part of it.
        what: &'static str,
    },
    /// The size or the chunk size is out of bounds.
    #[error("no image has that size with chunks of that size; see image.size and image.chunk")]
    Geometry,
}

impl From<BadGeometry> for ImageError {
    fn from(_: BadGeometry) -> Self {
        Self::Geometry
    }
}

impl ImageModel {
    /// An image as the scenario describes it; `number` tells the images of a run apart.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn new(spec: &Image, seed: u64, number: u64) -> Result<Self, ImageError> {
        if let Some(path) = &spec.swarm {
            return Self::packed(path);
        }
        let geometry = Geometry::new(spec.size.0, spec.chunk.0.trailing_zeros() as u8)?;
        let mut draws = stream(seed, Purpose::Image, number);
        let spread = (spec.payload_max.0 - spec.payload_min.0) as u32 + 1;
        let payload = |number| {
            let (size, zero) = (spec.payload_min.0 as u32 + draws.below(spread), draws.below(1_000_000));
            // The last chunk may be short, and so its payload is.
            let most = geometry.chunk(number).map_or(0, |chunk| geometry.chunk_len(chunk));
            if zero < spec.zero.0 { 0 } else { size.min(most) }
        };
        let payloads = (0..geometry.chunk_count()).map(payload).collect();
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&draws.draw().to_le_bytes());
        let manifest_bytes = MANIFEST_HEADER_BYTES + geometry.leaf_count() * DIGEST_BYTES;
        Ok(Self { geometry, digest: Digest(digest), manifest_bytes, payloads })
    }

    /// All payloads together.
    pub fn payload_bytes(&self) -> u64 {
        self.payloads.iter().map(|bytes| u64::from(*bytes)).sum()
    }

    /// The mean payload of a chunk that has one.
    pub fn mean_bytes(&self) -> u64 {
        let count = self.payloads.iter().filter(|bytes| **bytes > 0).count() as u64;
        self.payload_bytes().checked_div(count).unwrap_or(0)
    }

    /// The sizes of a packed image.
    fn packed(path: &Path) -> Result<Self, ImageError> {
        let fail = |what| ImageError::Format { path: path.to_owned(), what };
        let unreadable = |source| ImageError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let mut read = |offset: u64, bytes: usize| -> io::Result<Vec<u8>> {
            let mut out = vec![0; bytes];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut out)?;
            Ok(out)
        };
        let block = read(0, SUPERBLOCK_BYTES).map_err(unreadable)?;
        let block = Superblock::parse(&block).map_err(|_| fail("its superblock"))?;
        if block.manifest_bytes > MANIFEST_BYTES_MAX {
            return Err(fail("its manifest"));
        }
        let manifest = read(block.manifest_offset, block.manifest_bytes as usize).map_err(unreadable)?;
        let manifest = ManifestView::parse(&manifest).map_err(|_| fail("its manifest"))?;
        let (geometry, layout) = (manifest.geometry(), manifest.layout());
        let mut payloads = Vec::with_capacity(geometry.chunk_count() as usize);
        for leaf in (0..geometry.leaf_count()).filter_map(|index| geometry.leaf(index)) {
            let bytes = (layout.leaf_bytes(leaf) as usize).min(LEAF_BYTES_MAX);
            let page = read(layout.leaf_offset(leaf), bytes).map_err(unreadable)?;
            let page = LeafView::parse(&page, &layout, leaf).map_err(|_| fail("a leaf page"))?;
            payloads.extend(page.entries().map(|(_, entry)| entry.bytes));
        }
        Ok(Self { geometry, digest: block.image, manifest_bytes: block.manifest_bytes, payloads })
    }

    /// Bytes of a piece on the wire.
    pub fn piece_bytes(&self, piece: u32) -> u32 {
        match self.payloads.get(piece as usize) {
            Some(bytes) => *bytes,
            None => self.geometry.piece(piece).map_or(0, |piece| match self.geometry.kind(piece) {
                Piece::Leaf(leaf) => self.geometry.leaf_bytes(leaf),
                Piece::Chunk(_) => 0,
            }),
        }
    }

    /// Whether a chunk is all zero.
    pub fn is_zero(&self, chunk: u32) -> bool {
        self.payloads.get(chunk as usize) == Some(&0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Share, Size};

    #[test]
    fn sizes_are_as_the_scenario_says() {
        let spec = Image { size: Size(64 << 20), zero: Share(250_000), ..Image::default() };
        let image = ImageModel::new(&spec, 1, 0).unwrap();
        let zeros = (0..1024).filter(|chunk| image.is_zero(*chunk)).count();
        assert!((180..330).contains(&zeros), "{zeros}");
        let sizes = (0..1024).map(|chunk| image.piece_bytes(chunk)).filter(|bytes| *bytes > 0);
        assert!(sizes.clone().all(|bytes| (12 << 10..=36 << 10).contains(&bytes)));
        assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() > 20 << 10);
        assert_eq!(image.piece_bytes(1024), 8 + 256 * 36);
        let other = ImageModel::new(&spec, 2, 0).unwrap();
        assert_ne!(
            (0..9).map(|c| image.piece_bytes(c)).collect::<Vec<_>>(),
            (0..9).map(|c| other.piece_bytes(c)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.swarm");
        std::fs::write(&path, vec![1; 5000]).unwrap();
        let of = |path: PathBuf| ImageModel::new(&Image { swarm: Some(path), ..Image::default() }, 1, 0).unwrap_err();
        assert!(of(path).to_string().contains("is no complete .swarm file (its superblock)"));
        assert!(of(folder.path().join("none")).to_string().starts_with("cannot read"));
    }
}
