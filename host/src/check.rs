//! Scrubbing: every byte of a `.swarm` file or of a cache against the hashes that the image's id vouches for.
//!
//! *Invariants*: a check changes nothing, but for a cache with `repair`, whose damaged pieces are marked lost so that they
//! are fetched again. *Bounds*: memory for one leaf page and one payload a thread.

use crate::digest::from_hex;
use crate::store::{LeafPage, Store, StoreError};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use swarmdisk_core::geometry::{LeafIndex, Piece, PieceIndex};
use swarmdisk_core::ids::Digest;

/// Faults described in a report; more are only counted.
pub const FAULTS_MAX: usize = 10;

/// What a check found.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// The file.
    pub path: PathBuf,
    /// The image's id.
    pub image: Digest,
    /// Pieces that are held and right.
    pub good_count: u32,
    /// Pieces that are held and wrong; with a leaf page all the chunks that it describes.
    pub bad_count: u32,
    /// Pieces that are not held; none in a complete file.
    pub missing_count: u32,
    /// Whether the bad pieces were marked lost.
    pub is_repaired: bool,
    /// The first faults, in the order of the image.
    pub faults: Vec<Fault>,
}

/// A damaged piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is.
    pub piece: PieceIndex,
    /// Whether it is a chunk or a leaf page.
    pub kind: Piece,
    /// Where its payload begins in the file.
    pub offset: u64,
    /// Length of its payload.
    pub bytes: u32,
}

/// Checks a complete `.swarm` file. `progress` is told bytes of the image looked at, and its size; from any thread. Ends
/// early when `cancel` is set: pieces not looked at count as missing.
///
/// # Errors
/// As [`Store::open_complete`], and [`StoreError::Io`] if the disk fails.
pub fn check_file(
    path: &Path,
    cancel: &AtomicBool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<CheckReport, StoreError> {
    check_store(&Store::open_complete(path)?, false, cancel, progress)
}

/// Checks all caches in `dir`, one after the other; see [`check_file`]. One that is in use or unreadable gives an error of
/// its own beside the others' reports. With `repair`, damaged pieces are marked lost.
///
/// # Errors
/// [`StoreError::Io`] if `dir` cannot be listed.
pub fn check_cache(
    dir: &Path,
    repair: bool,
    cancel: &AtomicBool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Result<CheckReport, StoreError>>, StoreError> {
    let mut images = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let path = entry.map_err(StoreError::io("list", dir))?.path();
        let is_image = path.extension().is_some_and(|extension| extension == "swarm");
        images.extend(path.file_stem().filter(|_| is_image).and_then(|stem| from_hex(stem.to_str()?)));
    }
    images.sort_unstable();
    let check = |image| check_store(&Store::reopen_cache(dir, image)?, repair, cancel, progress);
    Ok(images.into_iter().map(check).collect())
}

impl CheckReport {
    /// Whether nothing is damaged. A cache may still miss pieces.
    pub fn is_good(&self) -> bool {
        self.bad_count == 0
    }
}

impl std::fmt::Display for CheckReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, good_count, bad_count, missing_count, .. } = self;
        let path = path.display();
        let Some(first) = self.faults.first() else {
            return write!(f, "{path}: {good_count} pieces are good, {missing_count} are not there");
        };
        let advice = match (self.is_repaired, missing_count) {
            (true, _) => "they will be fetched again",
            (false, 0) => "copy the file again, or for a cache run check --repair",
            (false, _) => "run check --repair, and they will be fetched again",
        };
        let piece_count = good_count + bad_count + missing_count;
        write!(f, "{path}: {bad_count} of {piece_count} pieces are damaged, the first is {first}; {advice}")
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Piece::Chunk(chunk) => write!(f, "chunk {}", chunk.get())?,
            Piece::Leaf(leaf) => write!(f, "leaf page {}", leaf.get())?,
        }
        write!(f, ", {} bytes at offset {} of the file", self.bytes, self.offset)
    }
}

fn check_store(
    store: &Store,
    repair: bool,
    cancel: &AtomicBool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<CheckReport, StoreError> {
    let geometry = store.geometry();
    let scrub = Scrub {
        store,
        repair,
        good_count: AtomicU32::new(0),
        bad_count: AtomicU32::new(0),
        faults: Mutex::new(Vec::new()),
    };
    let (next_leaf, done_bytes) = (AtomicU32::new(0), AtomicU64::new(0));
    let work = || {
        while let Some(leaf) = geometry.leaf(next_leaf.fetch_add(1, Relaxed)).filter(|_| !cancel.load(Relaxed)) {
            scrub.leaf(leaf)?;
            let bytes = u64::from(geometry.leaf_chunk_count(leaf)) << geometry.chunk_shift();
            let done = done_bytes.fetch_add(bytes, Relaxed) + bytes;
            progress(done.min(geometry.image_bytes()), geometry.image_bytes());
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<Result<(), StoreError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.into_iter().collect::<Result<(), _>>()?;
    let (good_count, bad_count) = (scrub.good_count.into_inner(), scrub.bad_count.into_inner());
    let mut faults = scrub.faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    faults.sort_by_key(|fault| fault.piece);
    faults.truncate(FAULTS_MAX);
    Ok(CheckReport {
        path: store.path().to_owned(),
        image: store.image(),
        good_count,
        bad_count,
        missing_count: geometry.piece_count() - good_count - bad_count,
        is_repaired: repair && bad_count > 0,
        faults,
    })
}

struct Scrub<'a> {
    store: &'a Store,
    repair: bool,
    good_count: AtomicU32,
    bad_count: AtomicU32,
    faults: Mutex<Vec<Fault>>,
}

impl Scrub<'_> {
    /// Checks a leaf page and its chunks. Does not go by what the store has in memory, and leaves no trace there.
    fn leaf(&self, leaf: LeafIndex) -> Result<(), StoreError> {
        let geometry = self.store.geometry();
        let leaf_piece = geometry.leaf_piece(leaf);
        if !self.store.holds(leaf_piece) {
            return Ok(());
        }
        let place = self.store.place(leaf_piece)?;
        let bytes = self.store.read_place(&place)?.filter(|bytes| place.fits(bytes));
        let chunks = (leaf.first_chunk()..).take(geometry.leaf_chunk_count(leaf) as usize);
        let held = chunks
            .filter_map(|index| geometry.chunk(index))
            .filter(|chunk| self.store.holds(geometry.chunk_piece(*chunk)));
        let Some(bytes) = bytes else {
            self.bad_count.fetch_add(held.count() as u32, Relaxed);
            self.fault(leaf_piece, place.offset, place.bytes);
            return Ok(());
        };
        self.good_count.fetch_add(1, Relaxed);
        let page = LeafPage::parse(&bytes, self.store.layout(), leaf)?;
        for chunk in held {
            let Some(place) = page.entry(chunk).map(Into::into) else { continue };
            if self.store.read_place(&place)?.is_some_and(|payload| place.fits(&payload)) {
                self.good_count.fetch_add(1, Relaxed);
            } else {
                self.fault(geometry.chunk_piece(chunk), place.offset, place.bytes);
            }
        }
        Ok(())
    }

    fn fault(&self, piece: PieceIndex, offset: u64, bytes: u32) {
        self.bad_count.fetch_add(1, Relaxed);
        if self.repair {
            self.store.mark_lost(piece);
        }
        let fault = Fault { piece, kind: self.store.geometry().kind(piece), offset, bytes };
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(fault);
        if faults.len() > 4 * FAULTS_MAX {
            faults.sort_by_key(|fault| fault.piece);
            faults.truncate(FAULTS_MAX);
        }
    }
}
