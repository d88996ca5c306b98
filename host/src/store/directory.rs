//! The images of a cache directory, and what they take together.
//!
//! *Invariants*: an image that a process has open is left alone; of one that nobody has open, whole leaf pages go with their
//! chunks, so that what stays is a sound cache. *Units*: bytes on disk. *Bounds*: those of the directory.

use super::Store;
use crate::digest::from_hex;
use crate::file::{allocated_bytes, is_locked};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use swarmdisk_core::ids::Digest;

/// What the other images of a directory take.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Bytes on disk of those that no process has open.
    pub idle_bytes: u64,
    /// The same of those that one has.
    pub open_bytes: u64,
    /// How many of these there are.
    pub open_count: u32,
}

/// An image beside.
struct Other {
    image: Digest,
    path: PathBuf,
    bytes: u64,
    is_open: bool,
    /// When it was opened, or changed, last.
    used_at: Option<SystemTime>,
}

/// Looks at the images in `dir` but `own`.
pub fn look(dir: &Path, own: Digest) -> Beside {
    let mut beside = Beside::default();
    for other in others(dir, own) {
        if other.is_open {
            beside.open_bytes += other.bytes;
            beside.open_count += 1;
        } else {
            beside.idle_bytes += other.bytes;
        }
    }
    beside
}

/// Gives so many bytes back, of images that nobody has open, those used longest ago first; says how many went.
pub fn cut_idle(dir: &Path, own: Digest, bytes: u64) -> u64 {
    let mut idle: Vec<Other> = others(dir, own).into_iter().filter(|other| !other.is_open).collect();
    idle.sort_by_key(|other| (other.used_at, other.image));
    let mut freed = 0;
    for other in idle {
        if freed >= bytes {
            break;
        }
        freed += cut(dir, &other, bytes - freed);
    }
    freed
}

fn cut(dir: &Path, other: &Other, bytes: u64) -> u64 {
    // One that has been opened meanwhile, or is damaged, stays.
    let Ok(store) = Store::reopen_cache(dir, other.image) else { return 0 };
    let (geometry, before) = (store.geometry(), store.disk_bytes());
    let freed = || before.saturating_sub(store.disk_bytes());
    for leaf in (0..geometry.leaf_count()).filter_map(|index| geometry.leaf(index)) {
        if freed() >= bytes {
            break;
        }
        store.evict_page(leaf);
    }
    let log = File::options().write(true).open(other.path.with_extension("held"));
    if let (Some(used_at), Ok(log)) = (other.used_at, log) {
        // To have been cut is no use; if it cannot be set back, others go before it next time.
        let _ = log.set_modified(used_at);
    }
    freed()
}

fn others(dir: &Path, own: Digest) -> Vec<Other> {
    let paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter_map(|path| other(path, own)).collect()
}

/// The image whose cache lies there, by the file's name.
pub(super) fn image_of(path: &Path) -> Option<Digest> {
    let is_image = path.extension().is_some_and(|extension| extension == "swarm");
    from_hex(path.file_stem().filter(|_| is_image)?.to_str()?)
}

fn other(path: PathBuf, own: Digest) -> Option<Other> {
    let image = image_of(&path).filter(|image| *image != own)?;
    let file = File::open(&path).ok()?;
    // Without a log it is no cache.
    let log = File::open(path.with_extension("held")).ok()?;
    let bytes = allocated_bytes(&file).ok()? + allocated_bytes(&log).ok()?;
    // The lock goes with the file. Who only reads a complete one has a shared lock.
    let is_open = is_locked(&file);
    let used_at = log.metadata().and_then(|log| log.modified()).ok();
    Some(Other { image, path, bytes, is_open, used_at })
}
