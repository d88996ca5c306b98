//! Power cuts, on a disk that keeps any version of each sector of 512 bytes that was written since the last sync.
//!
//! The overlay's own code runs over it. A seed draws writes, zeros, trims, flushes, writes in the middle of a flush, kills
//! (the process is gone, the disk is not) and power cuts at any access, several in a life. After each, every sector must
//! hold a version that it had since the last flush that was answered.

use super::open::OverlayFile;
use super::storage::Storage;
use super::tests::{GUEST, IMAGE};
use super::*;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::{Mutex, Weak};
use std::task::{Context, Waker};
use swarmdisk_core::format::overlay::{HEADER_BYTES, Header, Layout, PAGE_UNITS};

const SECTOR: u64 = 512;
type Sector = [u8; SECTOR as usize];
/// What is looked at: units on both sides of the border of two pages of the map, up to the image's odd end.
const WINDOW: Range<u64> = (PAGE_UNITS as u64 - 6) * UNIT..PAGE_UNITS as u64 * UNIT + 5 * UNIT + 3 * SECTOR;
const SEEDS: u64 = 600;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A range of the window, by bytes, sectors or units.
    fn range(&mut self) -> Range<u64> {
        let grain = [7, SECTOR, UNIT][self.below(3) as usize];
        let start = (WINDOW.start + self.below(WINDOW.end - WINDOW.start)) / grain * grain;
        let bytes = (1 + self.below(4 * UNIT / grain)) * grain;
        start.max(WINDOW.start)..(start + bytes).min(WINDOW.end)
    }
}

/// All versions of a sector since the last sync, the durable one first.
#[derive(Default)]
struct Platters {
    sectors: BTreeMap<u64, Vec<Sector>>,
    /// Accesses until the power fails.
    accesses_left: u64,
    /// Writes until one finds no space, once.
    full_in: u64,
    was_full: bool,
    opened: u32,
    during_sync: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone, Default)]
struct FailingDisk(Arc<Mutex<Platters>>);

impl FailingDisk {
    fn access(&self) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.accesses_left = platters.accesses_left.saturating_sub(1);
        if platters.accesses_left == 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        let mut platters = self.0.lock().unwrap();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR) as usize;
            let take = (SECTOR as usize - within).min(bytes.len() - done);
            let versions = platters.sectors.entry(at / SECTOR).or_insert_with(|| vec![[0; SECTOR as usize]]);
            let mut sector = versions[versions.len() - 1];
            sector[within..within + take].copy_from_slice(&bytes[done..done + take]);
            versions.push(sector);
            done += take;
        }
    }

    /// What is there when the power is back: of each sector some version.
    fn cut_power(&self, random: &mut Random) {
        let mut platters = self.0.lock().unwrap();
        // All lost, all kept, or any mixture.
        let bias = random.below(4);
        for versions in platters.sectors.values_mut() {
            let kept = match bias {
                0 => 0,
                1 => versions.len() - 1,
                _ => random.below(versions.len() as u64) as usize,
            };
            *versions = vec![versions[kept]];
        }
    }
}

impl Storage for FailingDisk {
    fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let platters = self.0.lock().unwrap();
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR) as usize;
            let take = (SECTOR as usize - within).min(out.len() - done);
            match platters.sectors.get(&(at / SECTOR)).and_then(|versions| versions.last()) {
                Some(sector) => out[done..done + take].copy_from_slice(&sector[within..within + take]),
                None => out[done..done + take].fill(0),
            }
            done += take;
        }
        Ok(())
    }

    fn read_now(&self, out: &mut [u8], offset: u64) -> Option<()> {
        self.read(out, offset).ok()
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_full = {
            let mut platters = self.0.lock().unwrap();
            platters.full_in = platters.full_in.saturating_sub(1);
            platters.full_in == 0
        };
        if is_full {
            let mut platters = self.0.lock().unwrap();
            (platters.full_in, platters.was_full) = (u64::MAX, true);
            drop(platters);
            let end = (offset + bytes.len() as u64 / 2) / SECTOR * SECTOR;
            self.put(offset, &bytes[..end.saturating_sub(offset) as usize]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        // The power may fail while it is being written.
        self.put(offset, bytes);
        self.access()
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        self.access()
    }

    fn release(&self, offset: u64, bytes: u64) {
        if self.access().is_ok() {
            self.put(offset, &vec![0; bytes as usize]);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.access()?;
        let meanwhile = {
            let mut platters = self.0.lock().unwrap();
            platters.sectors.values_mut().for_each(|versions| drop(versions.drain(..versions.len() - 1)));
            platters.during_sync.take()
        };
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> u64 {
        offset
    }

    fn is_quick(&self) -> bool {
        true
    }
}

/// An image of noise.
struct Noise;

impl Disk for Noise {
    fn image_bytes(&self) -> u64 {
        WINDOW.end
    }

    fn preferred_bytes(&self) -> u32 {
        4096
    }

    async fn read(&self, _: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        Ok(vec![(offset..offset + u64::from(bytes)).map(|at| (at % 253) as u8 + 1).collect()])
    }

    async fn extents(&self, _: GuestId, _: u64, bytes: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
        Ok(vec![Extent { bytes, kind: ExtentKind::Data }])
    }
}

/// Nothing here ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// What each sector of the window may hold: all versions since the last flush.
struct Model(Vec<Vec<Sector>>);

impl Model {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.chunks(SECTOR as usize).map(|sector| vec![*sector.first_chunk().unwrap()]).collect())
    }

    fn write(&mut self, range: Range<u64>, byte: impl Fn(u64) -> u8) {
        for (index, versions) in (0..).zip(&mut self.0) {
            let start = WINDOW.start + index * SECTOR;
            let part = range.start.max(start)..range.end.min(start + SECTOR);
            if part.is_empty() {
                continue;
            }
            let mut sector = versions[versions.len() - 1];
            part.for_each(|at| sector[(at - start) as usize] = byte(at));
            versions.push(sector);
        }
    }

    /// A flush that began when there were so many versions was answered.
    fn flushed(&mut self, counts: &[usize]) {
        self.0.iter_mut().zip(counts).for_each(|(versions, count)| drop(versions.drain(..count - 1)));
    }

    fn counts(&self) -> Vec<usize> {
        self.0.iter().map(Vec::len).collect()
    }

    fn check(&self, bytes: &[u8], seed: u64) {
        for (index, (sector, versions)) in bytes.chunks(SECTOR as usize).zip(&self.0).enumerate() {
            assert!(
                versions.iter().any(|version| version == sector),
                "seed {seed}: sector {index} is none of its versions"
            );
        }
    }

    /// A write failed: what is there now is what later ones change.
    fn settle(&mut self, bytes: &[u8], seed: u64) {
        self.check(bytes, seed);
        let sectors = bytes.chunks(SECTOR as usize).map(|sector| *sector.first_chunk().unwrap());
        self.0.iter_mut().zip(sectors).for_each(|(versions, sector)| versions.push(sector));
    }

    fn check_newest(&self, bytes: &[u8], seed: u64) {
        for (index, (sector, versions)) in bytes.chunks(SECTOR as usize).zip(&self.0).enumerate() {
            assert!(versions[versions.len() - 1] == sector, "seed {seed}: sector {index} is not what was written");
        }
    }
}

fn open(disk: &FailingDisk) -> Arc<Overlay<Noise>> {
    let header = Header { image: IMAGE, layout: Layout::new(WINDOW.end).unwrap() };
    let attempt = {
        let mut platters = disk.0.lock().unwrap();
        platters.opened += 1000;
        platters.opened
    };
    let file = OverlayFile::of_storage(Box::new(disk.clone()), header, Path::new("simulated"), attempt).unwrap();
    Arc::new(Overlay::in_file(Noise, file).unwrap())
}

fn window(overlay: &Overlay<Noise>) -> Vec<u8> {
    now(overlay.read(GUEST, WINDOW.start, (WINDOW.end - WINDOW.start) as u32)).unwrap().concat()
}

/// One step; false once the power has failed.
fn step(random: &mut Random, overlay: &Arc<Overlay<Noise>>, disk: &FailingDisk, model: &Arc<Mutex<Model>>) -> bool {
    let (range, fill) = (random.range(), random.next());
    let bytes = range.end.saturating_sub(range.start);
    let byte = move |at: u64| (at.wrapping_mul(fill) >> 7) as u8;
    let result = match random.below(12) {
        0..=4 => {
            model.lock().unwrap().write(range.clone(), byte);
            now(overlay.write(GUEST, range.start, range.clone().map(byte).collect()))
        }
        5 | 6 => {
            model.lock().unwrap().write(range.clone(), |_| 0);
            now(overlay.write_zeroes(GUEST, range.start, bytes, fill % 2 == 0))
        }
        7 => {
            let covered = overlay.units_covered(range.start..range.end.max(range.start));
            let end = (covered.end * UNIT).min(WINDOW.end);
            model.lock().unwrap().write(covered.start * UNIT..end, |_| 0);
            now(overlay.trim(GUEST, range.start, bytes))
        }
        kind => {
            if kind > 9 {
                let (overlay, model): (Weak<_>, _) = (Arc::downgrade(overlay), Arc::clone(model));
                disk.0.lock().unwrap().during_sync = Some(Box::new(move || {
                    let Some(overlay) = overlay.upgrade() else { return };
                    model.lock().unwrap().write(range.clone(), byte);
                    // If the power fails here, the flush sees it too.
                    let _ = now(overlay.write(GUEST, range.start, range.clone().map(byte).collect()));
                }));
            }
            let counts = model.lock().unwrap().counts();
            let flushed = now(overlay.flush());
            if flushed.is_ok() {
                model.lock().unwrap().flushed(&counts);
            }
            flushed
        }
    };
    !matches!(result, Err(DiskError::Failed(_)))
}

fn life(seed: u64) {
    let mut random = Random(seed);
    let disk = FailingDisk::default();
    let header = Header { image: IMAGE, layout: Layout::new(WINDOW.end).unwrap() };
    disk.put(0, &header.encode());
    assert_eq!(header.encode().len(), HEADER_BYTES);
    disk.cut_power(&mut Random(1));
    let mut model = {
        disk.0.lock().unwrap().accesses_left = u64::MAX;
        Model::of(&window(&open(&disk)))
    };
    for _ in 0..4 {
        {
            let mut platters = disk.0.lock().unwrap();
            platters.accesses_left = u64::MAX;
            platters.full_in = if random.below(3) == 0 { 1 + random.below(20) } else { u64::MAX };
        }
        let overlay = open(&disk);
        disk.0.lock().unwrap().accesses_left = 1 + random.below(60);
        let shared = Arc::new(Mutex::new(model));
        for _ in 0..random.below(40) {
            if !step(&mut random, &overlay, &disk, &shared) || disk.0.lock().unwrap().accesses_left == 0 {
                break;
            }
            let was_full = std::mem::take(&mut disk.0.lock().unwrap().was_full);
            let found = window(&overlay);
            let mut model = shared.lock().unwrap();
            if was_full { model.settle(&found, seed) } else { model.check_newest(&found, seed) }
        }
        disk.0.lock().unwrap().during_sync = None;
        drop(overlay);
        model = Arc::into_inner(shared).unwrap().into_inner().unwrap();
        // Else the process alone was killed.
        if random.below(4) > 0 {
            disk.cut_power(&mut random);
        }
        disk.0.lock().unwrap().accesses_left = u64::MAX;
        let found = window(&open(&disk));
        model.check(&found, seed);
        model = Model::of(&found);
    }
}

#[test]
fn what_was_flushed_outlives_power_cuts_and_the_rest_is_old_or_new() {
    (0..SEEDS).for_each(life);
}
