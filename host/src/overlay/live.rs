//! The map as it is now, in a file beside the overlay: what a killed process had answered and not flushed.
//!
//! *Purpose*: a ublk device outlives its node, and its guest does not write again what was answered. Those bytes are in the
//! overlay's file, as the system has them; this says which. *Invariants*: it is of one overlay and one device (`salt`), and of
//! one boot of the system: after a power cut it counts for nothing, as the bytes may be gone. Each change is in it before its
//! request is answered. It is gone when the overlay was flushed at the end. *Units*: a header of 4096 bytes, then the map's pages
//! in order, each [`PAGE_BYTES`] of which the first [`STATE_BYTES`] count. *Bounds*: as much as one slot of all the map's pages.

use super::error::{OverlayError, io_error};
use super::map::Map;
use crate::file::{make_sparse, next_data, read_exact_at, write_all_at};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use swarmdisk_core::format::overlay::{HEADER_BYTES, Header, PAGE_BYTES, STATE_BYTES};

const MAGIC: &[u8; 8] = b"SWARMLIV";
const BOOT_BYTES: usize = 36;
/// Magic, salt, the image's id, the boot's.
const SALT_AT: usize = 8;
const IMAGE_AT: usize = 16;
const BOOT_AT: usize = 48;
const USED_BYTES: usize = BOOT_AT + BOOT_BYTES;

/// Whether an overlay's writes are to be taken up by the next process, and whether this is it.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Survival {
    /// What was not flushed may be lost with the process.
    Flushed,
    /// What was answered outlives the process.
    Answered,
    /// The same, and what a killed process had answered is there.
    Recovered,
}

/// The file, open.
#[derive(Debug)]
pub(super) struct Live {
    file: File,
    path: PathBuf,
    pub(super) salt: u64,
    /// Whether a device is there that would wait.
    is_awaited: AtomicBool,
}

impl Live {
    /// Opens or makes what `survival` asks for beside the overlay at `path`, and brings `map` up to it.
    pub(super) fn open(
        path: &Path,
        header: &Header,
        map: &mut Map,
        survival: Survival,
    ) -> Result<Option<Self>, OverlayError> {
        let own = path_of(path);
        let found = Self::find(&own, header)?;
        match (survival, found) {
            (Survival::Recovered, Some(live)) => {
                live.load(map)?;
                Ok(Some(live))
            }
            (Survival::Recovered, None) => Err(OverlayError::NotLive(own)),
            (_, Some(_)) => Err(OverlayError::Waits { overlay: path.to_owned(), live: own }),
            (Survival::Answered, None) => Self::create(own, header, map).map(Some),
            (Survival::Flushed, None) => {
                // One of an earlier boot.
                remove(&own)?;
                Ok(None)
            }
        }
    }

    /// One of this boot and this image.
    fn find(path: &Path, header: &Header) -> Result<Option<Self>, OverlayError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open the live map of", path)(error)),
        };
        let mut head = [0; USED_BYTES];
        let is_whole = read_exact_at(&file, &mut head, 0).is_ok();
        let salt = head[SALT_AT..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        let is_ours = is_whole && boot().is_some_and(|boot| head == encode(header, salt, &boot));
        Ok(is_ours.then(|| Self { file, path: path.to_owned(), salt, is_awaited: AtomicBool::new(true) }))
    }

    fn create(path: PathBuf, header: &Header, map: &Map) -> Result<Self, OverlayError> {
        let failed = io_error("make the live map of", &path);
        let make = || {
            let boot = boot().ok_or(io::ErrorKind::Unsupported)?;
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
            make_sparse(&file);
            file.set_len(HEADER_BYTES as u64 + u64::from(header.layout.page_count()) * PAGE_BYTES as u64)?;
            for (page, states) in map.pages() {
                write_all_at(&file, states, place(page))?;
            }
            let salt = RandomState::new().hash_one(std::process::id());
            // Last: it says that all is there.
            write_all_at(&file, &encode(header, salt, &boot), 0)?;
            Ok((file, salt))
        };
        let (file, salt) = make().map_err(failed)?;
        Ok(Self { file, path, salt, is_awaited: AtomicBool::new(false) })
    }

    fn load(&self, map: &mut Map) -> Result<(), OverlayError> {
        let failed = |error| io_error("read the live map of", &self.path)(error);
        let mut page = 0;
        while page < map.page_count() {
            // Most of a large overlay's map was never written.
            let data = next_data(&self.file, place(page)).unwrap_or(u64::MAX);
            if data >= place(map.page_count()) {
                break;
            }
            page = page.max(((data - place(0)) / PAGE_BYTES as u64) as u32);
            let mut states = [0; STATE_BYTES];
            read_exact_at(&self.file, &mut states, place(page)).map_err(failed)?;
            map.take_up(page, &states).map_err(|()| failed(io::ErrorKind::InvalidData.into()))?;
            page += 1;
        }
        Ok(())
    }

    /// Says what these units are now.
    pub(super) fn keep(&self, map: &Map, units: Range<u64>) -> io::Result<()> {
        map.bytes_of(units).try_for_each(|(page, at, states)| write_all_at(&self.file, states, place(page) + at as u64))
    }

    /// There is a device now.
    pub(super) fn await_next(&self) {
        self.is_awaited.store(true, Relaxed);
    }

    /// All of it was flushed, and its device is gone.
    pub(super) fn remove(&self) -> Result<(), OverlayError> {
        remove(&self.path)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.is_awaited.load(Relaxed) {
            // One that stays is said at the next attempt.
            let _ = self.remove();
        }
    }
}

/// Where the live map of an overlay is.
fn path_of(overlay: &Path) -> PathBuf {
    let mut path = overlay.as_os_str().to_owned();
    path.push(".live");
    path.into()
}

fn remove(path: &Path) -> Result<(), OverlayError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove the live map of", path)(error)),
        _ => Ok(()),
    }
}

fn place(page: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(page) * PAGE_BYTES as u64
}

fn encode(header: &Header, salt: u64, boot: &[u8; BOOT_BYTES]) -> [u8; USED_BYTES] {
    let mut head = [0; USED_BYTES];
    head[..SALT_AT].copy_from_slice(MAGIC);
    head[SALT_AT..IMAGE_AT].copy_from_slice(&salt.to_le_bytes());
    head[IMAGE_AT..BOOT_AT].copy_from_slice(&header.image.0);
    head[BOOT_AT..].copy_from_slice(boot);
    head
}

/// Which boot of the system this is.
fn boot() -> Option<[u8; BOOT_BYTES]> {
    fs::read("/proc/sys/kernel/random/boot_id").ok()?.first_chunk().copied()
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
