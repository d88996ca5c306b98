//! One image's file: complete, or a cache that fills up.
//!
//! *Purpose*: payloads go in verified and come out verified; chunks come out decompressed.
//! *Invariants*:
//! 1. a payload is written before its held record, so a kill at any moment costs what was in flight, no more;
//! 2. no byte leaves the store that was not verified in this process, so neither rot nor a power cut passes on;
//! 3. a chunk is held only if its leaf page is;
//! 4. when all is held, the file is byte for byte the one that was packed.
//!
//! *Units*: bytes of payload, that is on the wire and in the file. *Bounds*: memory for the bitmaps, 512 leaf pages and
//! the budget of decompressed chunks.
//!
//! [`Store::holds`] and what is about the image as a whole never block; all else reads or writes files: call it on
//! blocking threads. Any number of threads may use one store.

pub(crate) mod directory;
mod error;
mod evict;
mod held;
mod leaves;
mod memory;
mod open;
mod others;
mod payload;
mod takeover;

pub use crate::file::allocated_bytes;
pub use error::StoreError;
pub use evict::Holdings;
pub use leaves::LeafPage;
pub use memory::is_zeros;
pub(crate) use open::write_head;

use held::{AtomicMap, Change, HeldLog as Log};
use leaves::LeafCache;
use memory::ChunkCache;
use others::Others;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use swarmdisk_core::format::held::Kind;
use swarmdisk_core::format::manifest::{Layout, ManifestView};
use swarmdisk_core::geometry::{ChunkIndex, Geometry, LeafIndex, Piece, PieceIndex};
use swarmdisk_core::ids::Digest;

/// One image's file. See the [module](self).
pub struct Store {
    file: File,
    path: PathBuf,
    image: Digest,
    layout: Layout,
    manifest: Vec<u8>,
    held: AtomicMap,
    verified: AtomicMap,
    log: Option<Mutex<Log>>,
    /// Held shared while a payload is read or put, exclusively while one is taken away.
    eviction: RwLock<()>,
    leaves: LeafCache,
    memory: ChunkCache,
    /// Of a cache: the other images in its directory.
    others: Option<Others>,
    taken_bytes: AtomicU64,
}

impl Store {
    /// Size of the image and of its chunks.
    pub fn geometry(&self) -> Geometry {
        self.layout.geometry()
    }

    /// The image's id.
    pub fn image(&self) -> Digest {
        self.image
    }

    /// The measures of the image and of its file.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The manifest, whose hash is the image's id.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every piece is held.
    pub fn is_complete(&self) -> bool {
        self.held.count() == self.geometry().piece_count()
    }

    /// How many pieces are held.
    pub fn held_count(&self) -> u32 {
        self.held.count()
    }

    /// The runs of pieces that are held, as (first, count), in order.
    pub fn held_runs(&self) -> Vec<(PieceIndex, u32)> {
        self.held.runs()
    }

    /// Whether the piece is held. Lock-free.
    pub fn holds(&self, piece: PieceIndex) -> bool {
        self.held.get(piece)
    }

    /// What is held no longer when this piece is lost: with a leaf page also the chunks that it describes.
    pub fn lost_with(&self, piece: PieceIndex) -> Vec<(PieceIndex, u32)> {
        let geometry = self.geometry();
        let mut lost = vec![(piece, 1)];
        if let Piece::Leaf(leaf) = geometry.kind(piece) {
            let first = geometry.piece(leaf.first_chunk());
            lost.extend(first.map(|first| (first, geometry.leaf_chunk_count(leaf))));
        }
        lost
    }

    /// Whether the chunk is all zeros; nothing if its leaf page is neither held nor in memory.
    ///
    /// # Errors
    /// As [`leaf`](Self::leaf), but for [`StoreError::Missing`].
    pub fn chunk_is_zero(&self, chunk: ChunkIndex) -> Result<Option<bool>, StoreError> {
        match self.leaf(self.geometry().leaf_of(chunk)) {
            Ok(page) => Ok(page.entry(chunk).map(|entry| entry.is_zero())),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Marks a piece as lost (found bad elsewhere), and all that is [lost with it](Self::lost_with). A record that
    /// cannot be written is no error: the next process finds out again.
    pub fn mark_lost(&self, piece: PieceIndex) {
        let lost = self.lost_with(piece);
        let records: Vec<Change> = lost.iter().map(|(first, count)| (*first, *count, Kind::Lost)).collect();
        let mut log = self.log.as_ref().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner));
        for (first, count) in lost {
            self.held.assign(first, count, false);
            self.verified.assign(first, count, false);
        }
        if let Piece::Leaf(leaf) = self.geometry().kind(piece) {
            self.leaves.forget(leaf);
        }
        if let Some(log) = &mut log {
            let _ = log.append(&records, &self.held);
        }
    }

    /// Waits until all that is held would survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sync(&self) -> Result<(), StoreError> {
        let Some(log) = &self.log else { return Ok(()) };
        self.file.sync_data().map_err(StoreError::io("write", &self.path))?;
        log.lock().unwrap_or_else(PoisonError::into_inner).sync()
    }

    fn manifest_view(&self) -> ManifestView<'_> {
        ManifestView::parse(&self.manifest).expect("it was parsed when the store was opened")
    }

    /// The leaf page: from memory, or from the file, verified against the manifest.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the page is not held, [`StoreError::Rotten`] if it is damaged (it is lost then),
    /// [`StoreError::BadLeaf`], [`StoreError::Io`].
    pub fn leaf(&self, leaf: LeafIndex) -> Result<Arc<LeafPage>, StoreError> {
        if let Some(page) = self.leaves.get(leaf) {
            return Ok(page);
        }
        let bytes = self.read_payload(self.geometry().leaf_piece(leaf))?;
        self.remember_leaf(leaf, &bytes)
    }

    fn remember_leaf(&self, leaf: LeafIndex, bytes: &[u8]) -> Result<Arc<LeafPage>, StoreError> {
        let page = Arc::new(LeafPage::parse(bytes, &self.layout, leaf)?);
        self.leaves.put(&page);
        Ok(page)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).field("held", &self.held.count()).finish_non_exhaustive()
    }
}
