//! Payloads in, payloads and chunks out.

use super::error::StoreError;
use super::held::{Change, HeldLog};
use super::memory::zeros;
use super::{LeafPage, Store};
use crate::buffers::{BUFFER_BYTES, filled};
use crate::digest::digest_of;
use crate::file::{read_exact_at, read_now, write_all_at};
use bytes::Bytes;
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use swarmdisk_core::format::held::Kind;
use swarmdisk_core::format::leaf::LeafEntry;
use swarmdisk_core::geometry::{ChunkIndex, Piece, PieceIndex};
use swarmdisk_core::ids::Digest;

/// Whether chunks that are stored as they are need not be kept in memory: the system does, and says so.
const CACHED_BY_SYSTEM: bool = cfg!(target_os = "linux");

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

    /// Where the piece's payload lies in the file, if it is held, and how long it is: for who examines the file itself.
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

    /// The same if nothing has to be read for it: for a leaf page, and for a chunk whose leaf page is in memory.
    pub fn verify_now(&self, piece: PieceIndex, payload: &[u8]) -> Option<Result<bool, StoreError>> {
        match self.geometry().kind(piece) {
            Piece::Leaf(_) => Some(self.verify(piece, payload)),
            Piece::Chunk(_) => self.place_in_memory(piece).map(|place| Ok(place.fits(payload))),
        }
    }

    /// Writes a payload that [`verify`](Self::verify) has approved; the piece is held then. For a leaf page the answer
    /// is the runs of all-zero chunks that it reveals, which are held from now on too. A piece that is held already
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] and [`StoreError::Io`]: the piece is not held. [`StoreError::Missing`] if the chunk's
    /// leaf page is not held, [`StoreError::ReadOnly`] in a complete file.
    pub fn put(&self, piece: PieceIndex, payload: &[u8]) -> Result<Vec<(PieceIndex, u32)>, StoreError> {
        let log = self.log.as_ref().ok_or_else(|| StoreError::ReadOnly { path: self.path.clone() })?;
        let place = self.place(piece);
        let _no_eviction = self.eviction.read().unwrap_or_else(PoisonError::into_inner);
        let zero_runs = self.write(piece, payload, place)?;
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_held(&mut log, &changes_of(piece, zero_runs.as_deref()))?;
        Ok(zero_runs.unwrap_or_default())
    }

    /// The same of several, whose records are written together; an answer for each, in order. A chunk whose leaf page is
    /// among them is missing that.
    pub fn put_all(&self, all: &[(PieceIndex, &[u8])]) -> Vec<Result<Vec<(PieceIndex, u32)>, StoreError>> {
        let Some(log) = &self.log else {
            return all.iter().map(|_| Err(StoreError::ReadOnly { path: self.path.clone() })).collect();
        };
        // Leaf pages are not to be read under the lock, which reading takes, too.
        let places: Vec<_> = all.iter().map(|(piece, _)| self.place(*piece)).collect();
        let _no_eviction = self.eviction.read().unwrap_or_else(PoisonError::into_inner);
        let write = |((piece, payload), place): (&(PieceIndex, &[u8]), _)| self.write(*piece, payload, place);
        let written: Vec<_> = all.iter().zip(places).map(write).collect();
        let changes_of = |(piece, _): &(PieceIndex, &[u8]), written: &Written| match written {
            Ok(zero_runs) => changes_of(*piece, zero_runs.as_deref()),
            Err(_) => Vec::new(),
        };
        let changes: Vec<Vec<Change>> =
            all.iter().zip(&written).map(|(put, written)| changes_of(put, written)).collect();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let is_noted = self.note_held(&mut log, &changes.concat()).is_ok();
        // With little room left, some may fit all the same.
        let mut noted =
            changes.into_iter().map(|changes| if is_noted { Ok(()) } else { self.note_held(&mut log, &changes) });
        let outcome = |written: Written| {
            let noted = noted.next().unwrap_or(Ok(()));
            let zero_runs = written?;
            noted.map(|()| zero_runs.unwrap_or_default())
        };
        written.into_iter().map(outcome).collect()
    }

    /// Writes a payload without a record; for a leaf page the runs of zeros. Nothing if it is held already.
    fn write(&self, piece: PieceIndex, payload: &[u8], place: Result<Place, StoreError>) -> Written {
        let geometry = self.geometry();
        if self.holds(piece) {
            return Ok(None);
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
        let place = place?;
        debug_assert!(place.fits(payload), "only verified payloads are put");
        write_all_at(&self.file, payload, place.offset).map_err(StoreError::io("write", &self.path))?;
        Ok(Some(zero_runs))
    }

    fn note_held(&self, log: &mut HeldLog, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        log.append(changes, &self.held)?;
        for (first, count, _) in changes {
            self.verified.assign(*first, *count, true);
            self.held.assign(*first, *count, true);
        }
        Ok(())
    }

    /// The piece's payload, verified if it was not yet in this process. Empty for an all-zero chunk.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the piece is not held, [`StoreError::Rotten`] if it is damaged: it (or the leaf page
    /// named there) is held no longer. [`StoreError::Io`] if the disk failed: nothing has changed.
    pub fn read_payload(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        self.read_verified(piece, |place| Ok(self.read_place(place)?.map(Bytes::from)))
    }

    /// The same of a payload that is not kept: in a buffer that is used again.
    fn read_payload_shortly(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        self.read_verified(piece, |place| match self.read_file_now(place.offset, place.bytes as usize) {
            Some(payload) => Ok(Some(payload)),
            None => Ok(self.read_place(place)?.map(Bytes::from)),
        })
    }

    fn read_verified(
        &self,
        piece: PieceIndex,
        read: impl FnOnce(&Place) -> Result<Option<Bytes>, StoreError>,
    ) -> Result<Bytes, StoreError> {
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
            let payload = read(&place)?;
            let is_good = payload.as_ref().is_some_and(|payload| was_verified || place.fits(payload));
            if is_good {
                self.verified.assign(piece, 1, true);
            }
            payload.filter(|_| is_good)
        };
        payload.ok_or_else(|| {
            self.mark_lost(piece);
            StoreError::Rotten(piece)
        })
    }

    /// The same if no disk is needed for it: it and its leaf page are in memory; and if it was verified in this process, or
    /// is at most `hash_bytes_max` long. None also if it is damaged: `read_payload` tells.
    pub fn read_payload_now(&self, piece: PieceIndex, hash_bytes_max: usize) -> Option<Bytes> {
        let place = self.place_in_memory(piece)?;
        let _no_eviction = self.eviction.try_read().ok()?;
        self.holds(piece).then_some(())?;
        let was_verified = self.verified.get(piece);
        (was_verified || place.bytes as usize <= hash_bytes_max).then_some(())?;
        let mut payload = Vec::with_capacity(place.bytes as usize);
        read_now(&self.file, &mut payload, place.bytes as usize, place.offset)?;
        if !was_verified {
            place.fits(&payload).then(|| self.verified.assign(piece, 1, true))?;
        }
        Some(payload.into())
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
        let payload = self.read_payload_shortly(piece)?;
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

    /// `offset..offset + bytes` of the image, which must lie within it, if that costs no more than a copy: each chunk is in
    /// memory, or all zeros, or it is stored as it is, was verified in this process, and the system has it in memory. Never
    /// blocks. Consecutive chunks that are stored so are one part.
    pub fn bytes_ready(&self, offset: u64, bytes: u32) -> Option<Vec<Bytes>> {
        let geometry = self.geometry();
        let end = offset + u64::from(bytes);
        let chunks =
            (offset >> geometry.chunk_shift()) as u32..=(end.saturating_sub(1) >> geometry.chunk_shift()) as u32;
        let _no_eviction = self.eviction.try_read().ok()?;
        let mut ready = Ready { store: self, parts: Vec::new(), run: 0..0 };
        for chunk in chunks.filter_map(|index| geometry.chunk(index)) {
            let (start, length) = (geometry.chunk_offset(chunk), u64::from(geometry.chunk_len(chunk)));
            let within = offset.saturating_sub(start)..(end - start).min(length);
            if let Some(data) = self.chunk_in_memory(chunk) {
                ready.push(data.slice(within.start as usize..within.end as usize))?;
                continue;
            }
            let page = self.leaves.get(geometry.leaf_of(chunk))?;
            let (piece, entry) = (geometry.chunk_piece(chunk), page.entry(chunk)?);
            let is_as_it_was = entry.stored && self.holds(piece) && self.verified.get(piece);
            is_as_it_was.then_some(())?;
            ready.extend(entry.offset + within.start..entry.offset + within.end)?;
        }
        ready.finish()
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
            let payload = self.read_file_now(place.offset, place.bytes as usize)?;
            if !self.verified.get(piece) {
                place.fits(&payload).then(|| self.verified.assign(piece, 1, true))?;
            }
            payload
        };
        self.decode_entry(chunk, entry, payload).ok()
    }

    /// The chunk's bytes, from a payload that [`verify`](Self::verify) has approved. They are kept in memory, within the
    /// budget, for [`read_chunk`](Self::read_chunk).
    ///
    /// # Errors
    /// [`StoreError::Undecodable`] if they are not exactly as many as the chunk has, or as [`leaf`](Self::leaf).
    pub fn decode(&self, chunk: ChunkIndex, payload: Bytes) -> Result<Bytes, StoreError> {
        let entry = self.entry(chunk)?;
        if entry.is_zero() {
            return Ok(zeros(self.geometry().chunk_len(chunk)));
        }
        if let Some(data) = self.memory.get(chunk) {
            return Ok(data);
        }
        self.decode_entry(chunk, &entry, payload)
    }

    fn decode_entry(&self, chunk: ChunkIndex, entry: &LeafEntry, payload: Bytes) -> Result<Bytes, StoreError> {
        let chunk_len = self.geometry().chunk_len(chunk) as usize;
        let data = if entry.stored { Some(payload) } else { decompress(&payload, chunk_len).map(Bytes::from) };
        let data = data.filter(|data| data.len() == chunk_len).ok_or(StoreError::Undecodable(chunk))?;
        // What is not held, as on a full disk, is nowhere else.
        let is_with_system = entry.stored && CACHED_BY_SYSTEM && self.holds(self.geometry().chunk_piece(chunk));
        if !is_with_system {
            self.memory.put(chunk, &data);
        }
        Ok(data)
    }

    /// Bytes of the file, if no disk is needed for them.
    fn read_file_now(&self, offset: u64, bytes: usize) -> Option<Bytes> {
        filled(bytes, |memory| read_now(&self.file, memory, bytes, offset))
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

    /// The same if nothing has to be read for it.
    fn place_in_memory(&self, piece: PieceIndex) -> Option<Place> {
        match self.geometry().kind(piece) {
            Piece::Leaf(_) => self.place(piece).ok(),
            Piece::Chunk(chunk) => {
                let page = self.leaves.get(self.geometry().leaf_of(chunk))?;
                page.entry(chunk).map(Place::from)
            }
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

/// A leaf page's runs of zeros; nothing if the piece was held already.
type Written = Result<Option<Vec<(PieceIndex, u32)>>, StoreError>;

/// What is held with a piece that was written.
fn changes_of(piece: PieceIndex, zero_runs: Option<&[(PieceIndex, u32)]>) -> Vec<Change> {
    let Some(zero_runs) = zero_runs else { return Vec::new() };
    let held = std::iter::once((piece, 1)).chain(zero_runs.iter().copied());
    held.map(|(first, count)| (first, count, Kind::Held)).collect()
}

/// Bytes that are gathered for a read.
struct Ready<'a> {
    store: &'a Store,
    parts: Vec<Bytes>,
    /// Of the file, to be read.
    run: Range<u64>,
}

impl Ready<'_> {
    fn push(&mut self, data: Bytes) -> Option<()> {
        self.read_run()?;
        self.parts.push(data);
        Some(())
    }

    fn extend(&mut self, more: Range<u64>) -> Option<()> {
        if self.run.end != more.start {
            self.read_run()?;
            self.run.start = more.start;
        }
        self.run.end = more.end;
        Some(())
    }

    fn read_run(&mut self) -> Option<()> {
        let run = std::mem::take(&mut self.run);
        for start in run.clone().step_by(BUFFER_BYTES) {
            let bytes = (run.end - start).min(BUFFER_BYTES as u64) as usize;
            self.parts.push(self.store.read_file_now(start, bytes)?);
        }
        Some(())
    }

    fn finish(mut self) -> Option<Vec<Bytes>> {
        self.read_run()?;
        Some(self.parts)
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
