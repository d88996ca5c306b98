//! An image and its overlay, packed as a new image.
//!
//! *Invariants*: a chunk whose bytes are what they were keeps its payload, byte for byte, so that whoever holds both images
//! can tell that they share it; the others are coded as the image's are. The overlay is locked meanwhile, and not changed.

use super::open::OverlayFile;
use super::{UNIT, units_touched};
use crate::pack::{PackError, PackOptions, PackReport, Source, pack_source};
use crate::store::Store;
use bytes::Bytes;
use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use swarmdisk_core::format::leaf::LeafEntry;
use swarmdisk_core::format::overlay::Unit;
use swarmdisk_core::geometry::ChunkIndex;

/// How far ahead data is looked for at a time, in chunks.
const LOOK_CHUNKS: u32 = 64;

/// What to commit, and to where.
#[derive(Debug, Clone)]
pub struct CommitOptions<'a> {
    /// The packed image.
    pub image: &'a Path,
    /// Its overlay.
    pub overlay: &'a Path,
    /// The `.swarm` file to make; one that is there already is replaced when all is done.
    pub out: &'a Path,
    /// zstd's level for what has changed, 1 to 22: a packed image does not say its own.
    pub level: i32,
    /// Set it, and it ends soon with [`PackError::Cancelled`].
    pub cancel: &'a AtomicBool,
}

/// Packs image and overlay as a new image. `progress` is told bytes of the image done, and its size.
///
/// # Errors
/// See [`PackError`]; nothing is left then.
pub fn commit(options: &CommitOptions<'_>, progress: &dyn Fn(u64, u64)) -> Result<PackReport, PackError> {
    let began = Instant::now();
    let CommitOptions { image, overlay, out, level, cancel } = *options;
    if let (Ok(overlay), Ok(out)) = (overlay.canonicalize(), out.canonicalize())
        && overlay == out
    {
        return Err(PackError::SameFile { path: out });
    }
    let image_store = Store::open_complete(image).map_err(source_error)?;
    // One that is not there would be made, and then committed.
    let overlay = OverlayFile::open(overlay).map_err(source_error)?;
    overlay.check_image(image_store.image()).map_err(source_error)?;
    let geometry = image_store.geometry();
    let mut pack = PackOptions::new(image, out, cancel);
    (pack.chunk_shift, pack.codec, pack.level) = (geometry.chunk_shift(), image_store.layout().codec(), level);
    let both = Both { store: image_store, overlay };
    pack_source(&both, geometry.image_bytes(), &pack, began, progress)
}

fn source_error(error: impl Error + Send + Sync + 'static) -> PackError {
    PackError::Source(Box::new(error))
}

struct Both {
    store: Store,
    overlay: OverlayFile,
}

impl Both {
    /// Where a chunk lies in the image.
    fn range(&self, chunk: ChunkIndex) -> Range<u64> {
        let geometry = self.store.geometry();
        let offset = geometry.chunk_offset(chunk);
        offset..offset + u64::from(geometry.chunk_len(chunk))
    }

    fn entry(&self, chunk: ChunkIndex) -> Result<LeafEntry, PackError> {
        let leaf = self.store.leaf(self.store.geometry().leaf_of(chunk)).map_err(source_error)?;
        leaf.entry(chunk).copied().ok_or_else(|| source_error(std::io::Error::other("a leaf page lacks a chunk")))
    }

    /// Whether the chunk is all zeros for certain.
    fn is_zero(&self, chunk: ChunkIndex) -> Result<bool, PackError> {
        let is_zero_below = self.entry(chunk)?.is_zero();
        let mut states = self.overlay.runs(units_touched(self.range(chunk)));
        Ok(states.all(|(state, _)| state == Unit::Zero || state == Unit::Base && is_zero_below))
    }

    /// The chunk as it is now.
    fn content(&self, chunk: ChunkIndex) -> Result<Vec<u8>, PackError> {
        let range = self.range(chunk);
        let mut content = vec![0; (range.end - range.start) as usize];
        if self.overlay.runs(units_touched(range.clone())).any(|(state, _)| state == Unit::Base) {
            content.copy_from_slice(&self.store.read_chunk(chunk).map_err(source_error)?);
        }
        let mut at = range.start;
        for (state, count) in self.overlay.runs(units_touched(range.clone())) {
            let end = (at + count * UNIT).min(range.end);
            let part = &mut content[(at - range.start) as usize..(end - range.start) as usize];
            match state {
                Unit::Base => {}
                Unit::Data => self.overlay.read_data(part, at).map_err(source_error)?,
                Unit::Zero => part.fill(0),
            }
            at = end;
        }
        Ok(content)
    }
}

impl Source for Both {
    fn next_data(&self, offset: u64) -> Result<u64, PackError> {
        let geometry = self.store.geometry();
        let first = (offset >> geometry.chunk_shift()) as u32;
        let end = first.saturating_add(LOOK_CHUNKS).min(geometry.chunk_count());
        for chunk in (first..end).filter_map(|index| geometry.chunk(index)) {
            if !self.is_zero(chunk)? {
                return Ok(offset.max(geometry.chunk_offset(chunk)));
            }
        }
        Ok((u64::from(end) << geometry.chunk_shift()).min(geometry.image_bytes()))
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), PackError> {
        // Whole chunks alone are asked for.
        let chunk = self.store.geometry().chunk((offset >> self.store.geometry().chunk_shift()) as u32);
        let content = chunk.map(|chunk| self.content(chunk)).transpose()?;
        out.copy_from_slice(&content.ok_or_else(|| source_error(std::io::Error::other("beyond the image")))?);
        Ok(())
    }

    fn packed(&self, chunk: ChunkIndex) -> Result<Option<(LeafEntry, Bytes)>, PackError> {
        let is_touched = self.overlay.runs(units_touched(self.range(chunk))).any(|(state, _)| state != Unit::Base);
        // What was written may be what was there.
        if is_touched && self.content(chunk)? != *self.store.read_chunk(chunk).map_err(source_error)? {
            return Ok(None);
        }
        let payload = self.store.read_payload(self.store.geometry().chunk_piece(chunk)).map_err(source_error)?;
        Ok(Some((self.entry(chunk)?, payload)))
    }
}
