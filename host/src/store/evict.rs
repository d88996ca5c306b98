//! Giving disk space back, and how much is taken.
//!
//! *Invariants*: a hole is punched only where nothing is held, under the lock that keeps readers and writers of payloads out.
//! *Units*: bytes of payload; file systems give back whole blocks, so that a payload that stands alone takes up to two
//! blocks more.

use super::{Store, StoreError};
use crate::file::punch_hole;
use std::ops::Range;
use std::sync::PoisonError;
use swarmdisk_core::geometry::{ChunkIndex, LeafIndex, PieceIndex};

/// What file systems give back whole.
const BLOCK_BYTES: u64 = 4096;
/// Payloads that are looked at on each side of one that goes: more do not share its blocks, unless they are tiny.
const BESIDE_MAX: usize = 64;
/// Chunks that a cache with a bound has room for, at the least, beside all leaf pages.
const CHUNKS_LEAST: u32 = 32;

/// What a cache holds.
#[derive(Debug, Default, Clone)]
pub struct Holdings {
    /// Payloads that are held, leaf pages included, in bytes.
    pub bytes: u64,
    /// The runs of chunks that have payloads, as (first, count).
    pub chunks: Vec<(PieceIndex, u32)>,
}

impl Store {
    /// The least bound of a cache of this image: all leaf pages, which never go, and a few chunks.
    pub fn least_cache_bytes(&self) -> u64 {
        let g = self.geometry();
        let leaves = (0..g.leaf_count()).filter_map(|index| g.leaf(index)).map(|leaf| u64::from(g.leaf_bytes(leaf)));
        leaves.sum::<u64>() + u64::from(CHUNKS_LEAST.min(g.chunk_count())) * u64::from(g.chunk_bytes())
    }

    /// What is held. Reads all leaf pages.
    ///
    /// # Errors
    /// As [`leaf`](Self::leaf); a page that is found damaged is passed over, and no longer held.
    pub fn holdings(&self) -> Result<Holdings, StoreError> {
        let geometry = self.geometry();
        let mut holdings = Holdings::default();
        for leaf in (0..geometry.leaf_count()).filter_map(|index| geometry.leaf(index)) {
            let page = match self.leaf(leaf) {
                Ok(page) => page,
                Err(StoreError::Missing(_) | StoreError::Rotten(_)) => continue,
                Err(error) => return Err(error),
            };
            holdings.bytes += u64::from(geometry.leaf_bytes(leaf));
            for (chunk, entry) in page.entries(geometry) {
                let piece = geometry.chunk_piece(chunk);
                if entry.is_zero() || !self.holds(piece) {
                    continue;
                }
                holdings.bytes += u64::from(entry.bytes);
                match holdings.chunks.last_mut() {
                    Some((first, count)) if first.get() + *count == piece.get() => *count += 1,
                    _ => holdings.chunks.push((piece, 1)),
                }
            }
        }
        Ok(holdings)
    }

    /// Length of a chunk's payload if its leaf page is in memory. Never blocks.
    pub(crate) fn payload_bytes_now(&self, chunk: ChunkIndex) -> Option<u32> {
        self.leaves.get(self.geometry().leaf_of(chunk))?.entry(chunk).map(|entry| entry.bytes)
    }

    /// Bytes that the file takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        crate::file::allocated_bytes(&self.file).unwrap_or(0)
    }

    /// Gives the disk space of a chunk's payload back: it is no longer held. A leaf page, an all-zero chunk and a piece
    /// that is not held are left as they are. Says how many bytes of payload went.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], or as [`leaf`](Self::leaf).
    pub fn evict(&self, chunk: ChunkIndex) -> Result<u32, StoreError> {
        let piece = self.geometry().chunk_piece(chunk);
        if self.log.is_none() {
            return Err(StoreError::ReadOnly { path: self.path.clone() });
        }
        if !self.holds(piece) {
            return Ok(0);
        }
        let page = self.leaf(self.geometry().leaf_of(chunk))?;
        let Some(entry) = page.entry(chunk).filter(|entry| !entry.is_zero()) else { return Ok(0) };
        let payload = entry.offset..entry.offset + u64::from(entry.bytes);
        // Leaf pages are not to be read under the lock.
        let (before, after) = (self.beside(chunk, &payload, false), self.beside(chunk, &payload, true));
        let _no_reader = self.eviction.write().unwrap_or_else(PoisonError::into_inner);
        if !self.holds(piece) {
            return Ok(0);
        }
        self.mark_lost(piece);
        let is_free = |beside: &Option<Vec<PieceIndex>>| {
            beside.as_ref().is_some_and(|pieces| !pieces.iter().any(|piece| self.holds(*piece)))
        };
        let blocks = blocks_of(&payload);
        let start = if is_free(&before) { blocks.start } else { payload.start };
        let end = if is_free(&after) { blocks.end } else { payload.end };
        punch_hole(&self.file, start, end - start);
        Ok(entry.bytes)
    }

    /// The chunks whose payloads share the first block of this one, or the last; none if that cannot be told.
    fn beside(&self, chunk: ChunkIndex, payload: &Range<u64>, after: bool) -> Option<Vec<PieceIndex>> {
        let geometry = self.geometry();
        let blocks = blocks_of(payload);
        if blocks.start < self.layout.payload_offset() {
            return None;
        }
        let mut found = Vec::new();
        let mut at = chunk.get();
        while found.len() < BESIDE_MAX {
            let next = if after { at.checked_add(1) } else { at.checked_sub(1) };
            let Some(other) = next.and_then(|index| geometry.chunk(index)) else { return Some(found) };
            at = other.get();
            let page = self.leaf(geometry.leaf_of(other)).ok()?;
            let entry = page.entry(other)?;
            if entry.is_zero() {
                continue;
            }
            let is_apart =
                if after { entry.offset >= blocks.end } else { entry.offset + u64::from(entry.bytes) <= blocks.start };
            if is_apart {
                return Some(found);
            }
            found.push(geometry.chunk_piece(other));
        }
        None
    }

    /// Gives the space of a leaf page and of all its chunks back: for images that nobody uses.
    pub(crate) fn evict_page(&self, leaf: LeafIndex) {
        let geometry = self.geometry();
        let Ok(page) = self.leaf(leaf) else { return };
        let ends = page.entries(geometry).filter(|(_, entry)| !entry.is_zero());
        let ends = ends.map(|(_, entry)| (entry.offset, entry.offset + u64::from(entry.bytes)));
        let payloads = ends.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)));
        let own = self.layout.leaf_offset(leaf);
        let _no_reader = self.eviction.write().unwrap_or_else(PoisonError::into_inner);
        self.mark_lost(geometry.leaf_piece(leaf));
        punch_hole(&self.file, own, geometry.leaf_bytes(leaf).into());
        if let Some((start, end)) = payloads {
            punch_hole(&self.file, start, end - start);
        }
    }
}

/// The blocks that a range lies in.
fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_BYTES * BLOCK_BYTES..range.end.next_multiple_of(BLOCK_BYTES)
}
