//! What an overlay does to its file, in the order that the [module](super) gives reasons for. All of it may block.

use super::UNIT;
use super::error::{OverlayError, io_error};
use super::live::Live;
use super::map::{Changed, Map};
use super::open::OverlayFile;
use super::ranges::{Held, Ranges};
use super::storage::{Memory, Storage};
use bytes::Bytes;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use swarmdisk_core::format::overlay::{Header, Layout, PAGE_BYTES, Unit};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub(super) struct Inner {
    storage: Box<dyn Storage>,
    /// None in memory: nothing is ever durable there.
    file: Option<(Header, PathBuf)>,
    data_start: u64,
    /// Where the map is kept for the next process.
    live: Option<Live>,
    map: RwLock<Map>,
    ranges: Arc<Ranges>,
    /// Whether anything was written that no sync has covered.
    is_unsynced: AtomicBool,
    is_broken: AtomicBool,
    /// How many flushes have begun to wait.
    arrived: AtomicU64,
    /// How many of those that began to wait are covered: whoever flushes holds it.
    covered: Arc<Mutex<u64>>,
}

/// It is this flush's turn.
pub(super) struct Turn {
    covered: OwnedMutexGuard<u64>,
}

impl Inner {
    pub(super) fn in_file(file: OverlayFile) -> Self {
        let OverlayFile { header, path, map, storage, live } = file;
        let data_start = header.layout.data_start();
        Self { live, ..Self::new(storage, Some((header, path)), data_start, map) }
    }

    pub(super) fn in_memory(image_bytes: u64, bytes_max: u64) -> Result<Self, OverlayError> {
        let layout = Layout::new(image_bytes).ok_or(OverlayError::ImageSize(image_bytes))?;
        Ok(Self::new(Box::new(Memory::new(bytes_max)), None, 0, Map::empty(layout, 0)))
    }

    fn new(storage: Box<dyn Storage>, file: Option<(Header, PathBuf)>, data_start: u64, map: Map) -> Self {
        Self {
            storage,
            file,
            data_start,
            live: None,
            map: RwLock::new(map),
            ranges: Arc::default(),
            is_unsynced: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            arrived: AtomicU64::new(0),
            covered: Arc::default(),
        }
    }

    pub(super) fn map(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn map_mut(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_quick(&self) -> bool {
        self.storage.is_quick()
    }

    pub(super) async fn hold(&self, units: Range<u64>) -> Held {
        self.ranges.hold(units).await
    }

    /// Reads data at this offset of the image; never blocks.
    pub(super) fn read_now(&self, out: &mut [u8], offset: u64) -> Option<()> {
        self.storage.read_now(out, self.data_start + offset)
    }

    pub(super) fn read(&self, out: &mut [u8], offset: u64) -> Result<(), OverlayError> {
        self.storage.read(out, self.data_start + offset).map_err(self.failed("read"))
    }

    /// Writes parts of the image, after which all of `units` are data. The caller holds them.
    pub(super) fn write(&self, parts: &[(u64, Bytes)], units: Range<u64>) -> Result<(), OverlayError> {
        self.check_sound()?;
        self.make_place(units.clone())?;
        let write = || parts.iter().try_for_each(|(offset, bytes)| self.storage.write(bytes, self.data_start + offset));
        let written = write();
        self.is_unsynced.store(true, SeqCst);
        written.map_err(self.failed("write"))?;
        self.set(units, Unit::Data)
    }

    /// Makes units zeros. The caller holds them.
    pub(super) fn zero(&self, units: Range<u64>, release: bool) -> Result<(), OverlayError> {
        self.check_sound()?;
        self.make_place(units.clone())?;
        let (offset, bytes) = (self.data_start + units.start * UNIT, (units.end - units.start) * UNIT);
        if !release {
            self.storage.reserve(offset, bytes).map_err(self.failed("write"))?;
        }
        self.set(units, Unit::Zero)?;
        if release {
            self.storage.release(offset, bytes);
            self.is_unsynced.store(true, SeqCst);
        }
        Ok(())
    }

    /// Says what units are; what they are said to be must be in the file.
    fn set(&self, units: Range<u64>, state: Unit) -> Result<(), OverlayError> {
        let mut map = self.map_mut();
        map.set(units.clone(), state);
        // One by one: units share bytes.
        self.live.as_ref().map_or(Ok(()), |live| live.keep(&map, units)).map_err(self.failed("write the live map of"))
    }

    /// A device is there that would wait for the next process.
    pub(super) fn await_next(&self) {
        if let Some(live) = &self.live {
            live.await_next();
        }
    }

    /// What is durable now is all that was answered: no other process is to take up anything.
    pub(super) fn retire(&self) -> Result<(), OverlayError> {
        self.live.as_ref().map_or(Ok(()), Live::remove)
    }

    pub(super) fn salt(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.salt)
    }

    /// Sees to it that the map's pages of these units find space when they are flushed.
    fn make_place(&self, units: Range<u64>) -> Result<(), OverlayError> {
        let Some((header, _)) = &self.file else { return Ok(()) };
        let unplaced = self.map().unplaced(units);
        let reserve = || {
            unplaced
                .iter()
                .try_for_each(|page| self.storage.reserve(header.layout.slot_offset(*page, 0), 2 * PAGE_BYTES as u64))
        };
        reserve().map_err(self.failed("write"))
    }

    /// Waits for the turn to flush; none if a flush that began meanwhile has covered all.
    pub(super) async fn flush_turn(&self) -> Option<Turn> {
        let number = self.arrived.fetch_add(1, SeqCst) + 1;
        let covered = Arc::clone(&self.covered).lock_owned().await;
        (*covered < number).then_some(Turn { covered })
    }

    /// Makes all that was written before durable.
    pub(super) fn flush(&self, mut turn: Turn) -> Result<(), OverlayError> {
        let Some((header, _)) = &self.file else { return Ok(()) };
        self.check_sound()?;
        let arrived = self.arrived.load(SeqCst);
        let was_unsynced = self.is_unsynced.swap(false, SeqCst);
        let changed = self.map_mut().take_changed();
        if was_unsynced || !changed.is_empty() {
            self.flush_changed(header, &changed).inspect_err(|_| {
                self.is_unsynced.store(true, SeqCst);
                self.map_mut().put_back(&changed);
            })?;
        }
        *turn.covered = arrived;
        Ok(())
    }

    fn flush_changed(&self, header: &Header, changed: &[Changed]) -> Result<(), OverlayError> {
        self.sync()?;
        if changed.is_empty() {
            return Ok(());
        }
        for changed in changed {
            let (offset, page) = changed.encode(header);
            self.storage.write(&page, offset).map_err(self.failed("write"))?;
        }
        self.sync()?;
        self.map_mut().are_durable(changed);
        Ok(())
    }

    fn sync(&self) -> Result<(), OverlayError> {
        self.storage.sync().map_err(|error| {
            self.is_broken.store(true, SeqCst);
            self.failed("sync")(error)
        })
    }

    fn check_sound(&self) -> Result<(), OverlayError> {
        if self.is_broken.load(SeqCst) { Err(OverlayError::Broken(self.path())) } else { Ok(()) }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> OverlayError {
        let path = self.path();
        move |source| io_error(action, &path)(source)
    }

    fn path(&self) -> PathBuf {
        self.file.as_ref().map_or_else(|| "in memory".into(), |(_, path)| path.clone())
    }
}
