//! Taking chunks over from other images of the same cache.
//!
//! *Invariants*: what is taken is verified like what comes from the network, then written: payloads lie at any offset, and
//! have to be read to be verified, so that file systems that share blocks could not spare that. A taken chunk is this image's
//! own; the other image may go.

use super::{Store, StoreError};
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;
use swarmdisk_core::geometry::{ChunkIndex, LeafIndex, Piece, PieceIndex};

impl Store {
    /// Whether other images lie beside this one that hold something.
    pub fn has_others(&self) -> bool {
        self.others.as_ref().is_some_and(|others| others.any())
    }

    /// The runs of chunks of a held leaf page that are not held, and that other images hold.
    pub fn found_in_others(&self, leaf: LeafIndex) -> Vec<(PieceIndex, u32)> {
        let (Some(others), Ok(page)) = (&self.others, self.leaf(leaf)) else { return Vec::new() };
        let geometry = self.geometry();
        let runs = others.matches(&page, geometry, |chunk| self.holds(geometry.chunk_piece(chunk)));
        runs.into_iter().map(|(first, count)| (geometry.chunk_piece(first), count)).collect()
    }

    /// The same of all leaf pages that are held.
    pub fn all_found_in_others(&self) -> Vec<(PieceIndex, u32)> {
        let geometry = self.geometry();
        if !self.has_others() || self.is_complete() {
            return Vec::new();
        }
        let leaves = (0..geometry.leaf_count()).filter_map(|index| geometry.leaf(index));
        leaves
            .filter(|leaf| self.holds(geometry.leaf_piece(*leaf)))
            .flat_map(|leaf| self.found_in_others(leaf))
            .collect()
    }

    /// The payload of a chunk that is not held, from another image, verified; nothing if none has it.
    pub fn payload_of_others(&self, chunk: ChunkIndex) -> Option<Bytes> {
        let page = self.leaf(self.geometry().leaf_of(chunk)).ok()?;
        let payload = self.others.as_ref()?.payload(page.entry(chunk)?)?;
        self.taken_bytes.fetch_add(payload.len() as u64, Relaxed);
        Some(payload)
    }

    /// Keeps a payload that came from [another image](Self::payload_of_others), unless the chunk is held by now.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn keep_taken(&self, chunk: ChunkIndex, payload: &[u8]) -> Result<(), StoreError> {
        let piece = self.geometry().chunk_piece(chunk);
        if self.holds(piece) { Ok(()) } else { self.put(piece, payload).map(drop) }
    }

    /// Bytes of payload read from other images in this process.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Relaxed)
    }

    /// The piece's payload, from here or else from another image.
    ///
    /// # Errors
    /// As [`read_payload`](Self::read_payload).
    pub fn read_payload_anywhere(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        match (self.read_payload(piece), self.geometry().kind(piece)) {
            (Err(StoreError::Missing(gone)), Piece::Chunk(chunk)) if gone == piece => {
                self.payload_of_others(chunk).ok_or(StoreError::Missing(gone))
            }
            (read, _) => read,
        }
    }
}
