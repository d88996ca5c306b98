//! Payloads in, payloads and chunks out.

use super::error::StoreError;
use super::held::Change;
use super::memory::zeros;
use super::{LeafPage, Store};
use crate::digest::digest_of;
use crate::file::{read_exact_at, read_exact_at_now, write_all_at};
use bytes::Bytes;
use std::cell::RefCell;
use std::io;
use std::sync::PoisonError;
use swarmdisk_core::format::held::Kind;
use swarmdisk_core::format::leaf::LeafEntry;
use swarmdisk_core::geometry::{ChunkIndex, Piece, PieceIndex};
use swarmdisk_core::ids::Digest;

/// Where a piece's payload lies in the file, and what it must be.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) digest: Digest,
}

impl From<&LeafEntry> for Place {
    fn from(entry: &LeafEntry) -> Self {
        Self { offset: entry.offset, bytes: entry.bytes, digest: entry.digest }
    }
}

impl Place {
    /// Whether `payload` is what belongs there. An all-zero chunk's payload is empty, its hash never computed.
    pub(crate) fn fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.bytes as usize && (self.bytes == 0 || digest_of(payload) == self.digest)
    }
}

impl Store {
    /// Length of the piece's payload, on the wire and in the file; 0 for an all-zero chunk.
    ///
    /// # Errors
    /// For a chunk as [`leaf`](Self::leaf).
    pub fn payload_bytes(&self, piece: PieceIndex) -> Result<u32, StoreError> {
        self.place(piece).map(|place| place.bytes)
    }

    /// Where the piece's payload lies in the file and how long it is: for `sendfile`, once
    /// [`read_payload`](Self::read_payload) has verified it.
    ///
    /// # Errors
    /// For a chunk as [`leaf`](Self::leaf).
    pub fn payload_range(&self, piece: PieceIndex) -> Result<(u64, u32), StoreError> {
        self.place(piece).map(|place| (place.offset, place.bytes))
    }

    /// Whether `payload` is the piece's: of the right length and hash. A leaf page that is, is kept in memory from now
    /// on, so that its chunks can be verified even if it cannot be stored.
    ///
    /// # Errors
    /// For a chunk as [`leaf`](Self::leaf); for a leaf page [`StoreError::BadLeaf`].
    pub fn verify(&self, piece: PieceIndex, payload: &[u8]) -> Result<bool, StoreError> {
        let fits = self.place(piece)?.fits(payload);
        if let (true, Piece::Leaf(leaf)) = (fits, self.geometry().kind(piece)) {
            self.remember_leaf(leaf, payload)?;
        }
        Ok(fits)
    }

    /// The same for a chunk whose leaf page is in memory; none for all else. Never blocks.
    pub fn verify_in_memory(&self, piece: PieceIndex, payload: &[u8]) -> Option<bool> {
        let Piece::Chunk(chunk) = self.geometry().kind(piece) else { return None };
        let page = self.leaves.get(self.geometry().leaf_of(chunk))?;
        page.entry(chunk).map(|entry| Place::from(entry).fits(payload))
    }

    /// Writes a payload that [`verify`](Self::verify) has approved; the piece is held then. For a leaf page the answer
    /// is the runs of all-zero chunks that it reveals, which are held from now on too. A piece that is held already
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] and [`StoreError::Io`]: the piece is not held. [`StoreError::Missing`] if the chunk's
    /// leaf page is not held, [`StoreError::ReadOnly`] in a complete file.
    pub fn put(&self, piece: PieceIndex, payload: &[u8]) -> Result<Vec<(PieceIndex, u32)>, StoreError> {
        let geometry = self.geometry();
        let Some(log) = &self.log else { return Err(StoreError::ReadOnly { path: self.path.clone() }) };
        if self.holds(piece) {
            return Ok(Vec::new());
        }
        let zero_runs = match geometry.kind(piece) {
            Piece::Leaf(leaf) => {
                let page = self.remember_leaf(leaf, payload)?;
                page.zero_runs().iter().map(|(first, count)| (geometry.chunk_piece(*first), *count)).collect()
            }
            Piece::Chunk(chunk) => {
                let leaf_piece = geometry.leaf_piece(geometry.leaf_of(chunk));
                if !self.holds(leaf_piece) {
                    return Err(StoreError::Missing(leaf_piece));
                }
                Vec::new()
            }
        };
        let place = self.place(piece)?;
        debug_assert!(place.fits(payload), "only verified payloads are put");
        let _no_eviction = self.eviction.read().unwrap_or_else(PoisonError::into_inner);
        write_all_at(&self.file, payload, place.offset).map_err(StoreError::io("write", &self.path))?;
        let held = std::iter::once((piece, 1)).chain(zero_runs.iter().copied());
        let changes: Vec<Change> = held.map(|(first, count)| (first, count, Kind::Held)).collect();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.append(&changes, &self.held)?;
        for (first, count, _) in changes {
            self.verified.assign(first, count, true);
            self.held.assign(first, count, true);
        }
        Ok(zero_runs)
    }

    /// The piece's payload, verified if it was not yet in this process. Empty for an all-zero chunk.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the piece is not held, [`StoreError::Rotten`] if it is damaged: it (or the leaf page
    /// named there) is held no longer. [`StoreError::Io`] if the disk failed: nothing has changed.
    pub fn read_payload(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        if !self.holds(piece) {
            return Err(StoreError::Missing(piece));
        }
        let place = self.place(piece)?;
        let payload = {
            let _no_eviction = self.eviction.read().unwrap_or_else(PoisonError::into_inner);
            if !self.holds(piece) {
                return Err(StoreError::Missing(piece));
            }
            let was_verified = self.verified.get(piece);
            let payload = self.read_place(&place)?;
            let is_good = payload.as_ref().is_some_and(|payload| was_verified || place.fits(payload));
            if is_good {
                self.verified.assign(piece, 1, true);
            }
            payload.filter(|_| is_good)
        };
        payload.map(Bytes::from).ok_or_else(|| {
            self.mark_lost(piece);
            StoreError::Rotten(piece)
        })
    }

    /// The chunk's bytes, decompressed: from memory, or from the file. All-zero chunks share one buffer.
    ///
    /// # Errors
    /// As [`read_payload`](Self::read_payload), and [`StoreError::Undecodable`].
    pub fn read_chunk(&self, chunk: ChunkIndex) -> Result<Bytes, StoreError> {
        if let Some(data) = self.memory.get(chunk) {
            return Ok(data);
        }
        let entry = self.entry(chunk)?;
        if entry.is_zero() {
            return Ok(zeros(self.geometry().chunk_len(chunk)));
        }
        let piece = self.geometry().chunk_piece(chunk);
        let payload = self.read_payload(piece)?;
        let decoded = self.decode_entry(chunk, &entry, payload.clone());
        if decoded.is_err() && !Place::from(&entry).fits(&payload) {
            // It was verified before, and has rotted since.
            self.mark_lost(piece);
            return Err(StoreError::Rotten(piece));
        }
        decoded
    }

    /// The chunk's bytes if they need no reading: they are in memory, or known to be all zeros. Never blocks.
    pub fn chunk_in_memory(&self, chunk: ChunkIndex) -> Option<Bytes> {
        if let Some(data) = self.memory.get(chunk) {
            return Some(data);
        }
        let page = self.leaves.get(self.geometry().leaf_of(chunk))?;
        page.entry(chunk)?.is_zero().then(|| zeros(self.geometry().chunk_len(chunk)))
    }

    /// The chunk's bytes if no disk is needed for them: its payload and its leaf page are in memory. Damage is found by
    /// [`read_chunk`](Self::read_chunk). Takes as long as to decompress the chunk.
    pub fn read_chunk_now(&self, chunk: ChunkIndex) -> Option<Bytes> {
        let page = self.leaves.get(self.geometry().leaf_of(chunk))?;
        let entry = page.entry(chunk)?;
        let (piece, place) = (self.geometry().chunk_piece(chunk), Place::from(entry));
        let payload = {
            let _no_eviction = self.eviction.try_read().ok()?;
            if !self.holds(piece) {
                return None;
            }
            let mut payload = vec![0; place.bytes as usize];
            read_exact_at_now(&self.file, &mut payload, place.offset)?;
            if !self.verified.get(piece) {
                place.fits(&payload).then(|| self.verified.assign(piece, 1, true))?;
            }
            payload
        };
        self.decode_entry(chunk, entry, payload.into()).ok()
    }

    /// The chunk's bytes, from a payload that [`verify`](Self::verify) has approved. They are kept in memory, within the
    /// budget, for [`read_chunk`](Self::read_chunk).
    ///
    /// # Errors
    /// [`StoreError::Undecodable`] if they are not exactly as many as the chunk has, or as [`leaf`](Self::leaf).
    pub fn decode(&self, chunk: ChunkIndex, payload: &[u8]) -> Result<Bytes, StoreError> {
        let entry = self.entry(chunk)?;
        if entry.is_zero() {
            return Ok(zeros(self.geometry().chunk_len(chunk)));
        }
        if let Some(data) = self.memory.get(chunk) {
            return Ok(data);
        }
        self.decode_entry(chunk, &entry, Bytes::copy_from_slice(payload))
    }

    fn decode_entry(&self, chunk: ChunkIndex, entry: &LeafEntry, payload: Bytes) -> Result<Bytes, StoreError> {
        let chunk_len = self.geometry().chunk_len(chunk) as usize;
        let data = if entry.stored { Some(payload) } else { decompress(&payload, chunk_len).map(Bytes::from) };
        let data = data.filter(|data| data.len() == chunk_len).ok_or(StoreError::Undecodable(chunk))?;
        self.memory.put(chunk, &data);
        Ok(data)
    }

    fn entry(&self, chunk: ChunkIndex) -> Result<LeafEntry, StoreError> {
        let page: std::sync::Arc<LeafPage> = self.leaf(self.geometry().leaf_of(chunk))?;
        Ok(*page.entry(chunk).expect("a chunk's leaf page describes it"))
    }

    /// Where the piece's payload lies and what it must be.
    pub(crate) fn place(&self, piece: PieceIndex) -> Result<Place, StoreError> {
        match self.geometry().kind(piece) {
            Piece::Leaf(leaf) => Ok(Place {
                offset: self.layout.leaf_offset(leaf),
                bytes: self.layout.leaf_bytes(leaf),
                digest: self.manifest_view().leaf_digest(leaf),
            }),
            Piece::Chunk(chunk) => Ok((&self.entry(chunk)?).into()),
        }
    }

    /// The bytes at a place, unverified; nothing if the file ends before.
    pub(crate) fn read_place(&self, place: &Place) -> Result<Option<Vec<u8>>, StoreError> {
        let mut payload = vec![0; place.bytes as usize];
        match read_exact_at(&self.file, &mut payload, place.offset) {
            Ok(()) => Ok(Some(payload)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(StoreError::io("read", &self.path)(error)),
        }
    }
}

/// Decompresses a zstd frame to at most `bytes_max` bytes; nothing if it is none or longer.
fn decompress(payload: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    type Decompressor = zstd::bulk::Decompressor<'static>;
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().ok()?),
        };
        let mut data = Vec::with_capacity(bytes_max);
        decompressor.decompress_to_buffer(payload, &mut data).ok()?;
        Some(data)
    })
}
