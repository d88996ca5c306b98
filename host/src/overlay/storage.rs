//! What an overlay's bytes lie on: a sparse file, or memory; in tests a disk that loses power.
//!
//! *Invariants*: what was never written reads as zeros. What [`Storage::sync`] has covered outlives a power cut; all else
//! may, sector of 512 bytes by sector, be there or not. *Units*: bytes. *Bounds*: memory as much as it is told.

use super::UNIT;
use crate::file::{next_data, punch_hole, read_exact_at, read_exact_at_now, write_all_at};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that can be read and written anywhere. All of it may block, but where it is said not to.
pub(super) trait Storage: Send + Sync + 'static {
    /// Fills `out` from `offset` on.
    fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()>;
    /// The same if it needs no disk; never blocks.
    fn read_now(&self, out: &mut [u8], offset: u64) -> Option<()>;
    /// Writes all of `bytes` at `offset`.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Sees to it that later writes to the range find space, where that can be seen to. Changes no byte.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives the space of a range back, whose bytes no longer matter. Best effort.
    fn release(&self, offset: u64, bytes: u64);
    /// Makes all that was written before durable.
    fn sync(&self) -> io::Result<()>;
    /// The first byte at or after `offset` that may be other than zero; `u64::MAX` if there is none.
    fn next_data(&self, offset: u64) -> u64;
    /// Whether nothing here blocks for long, so that a thread for it would cost more.
    fn is_quick(&self) -> bool {
        false
    }
}

impl Storage for File {
    fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(self, out, offset)
    }

    fn read_now(&self, out: &mut [u8], offset: u64) -> Option<()> {
        read_exact_at_now(self, out, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_all_at(self, bytes, offset)
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if bytes > 0 {
            use rustix::fs::{FallocateFlags, fallocate};
            use rustix::io::Errno;
            return match fallocate(self, FallocateFlags::KEEP_SIZE, offset, bytes) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                done => Ok(done?),
            };
        }
        let _ = (offset, bytes);
        Ok(())
    }

    fn release(&self, offset: u64, bytes: u64) {
        punch_hole(self, offset, bytes);
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn next_data(&self, offset: u64) -> u64 {
        next_data(self, offset).unwrap_or(offset)
    }
}

/// Units in memory, at most so many.
#[derive(Debug)]
pub(super) struct Memory {
    units: Mutex<BTreeMap<u64, Box<[u8; UNIT as usize]>>>,
    units_max: usize,
}

impl Memory {
    pub(super) fn new(bytes_max: u64) -> Self {
        let units_max = usize::try_from(bytes_max / UNIT).unwrap_or(usize::MAX);
        Self { units: Mutex::default(), units_max }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Box<[u8; UNIT as usize]>>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of `offset..offset + bytes` by units: which, from where in it, where in the range, how many bytes.
    fn parts(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (at, start) = (offset + done as u64, done);
            let within = (at % UNIT) as usize;
            let take = (UNIT as usize - within).min(bytes - done);
            done += take;
            (take > 0).then_some((at / UNIT, within, start, take))
        })
    }

    /// Room for all of the range, or none is taken.
    fn take_room(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut units = self.lock();
        let wanted = offset / UNIT..(offset + bytes).div_ceil(UNIT);
        let count = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
        let there = units.range(wanted.clone()).count();
        if count - there > self.units_max.saturating_sub(units.len()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        for unit in wanted {
            units.entry(unit).or_insert_with(|| Box::new([0; UNIT as usize]));
        }
        Ok(())
    }
}

impl Storage for Memory {
    fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let units = self.lock();
        for (unit, within, start, take) in Self::parts(offset, out.len()) {
            match units.get(&unit) {
                Some(there) => out[start..start + take].copy_from_slice(&there[within..within + take]),
                None => out[start..start + take].fill(0),
            }
        }
        Ok(())
    }

    fn read_now(&self, out: &mut [u8], offset: u64) -> Option<()> {
        self.read(out, offset).ok()
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.take_room(offset, bytes.len() as u64)?;
        let mut units = self.lock();
        for (unit, within, start, take) in Self::parts(offset, bytes.len()) {
            let there = units.entry(unit).or_insert_with(|| Box::new([0; UNIT as usize]));
            there[within..within + take].copy_from_slice(&bytes[start..start + take]);
        }
        Ok(())
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.take_room(offset, bytes)
    }

    fn release(&self, offset: u64, bytes: u64) {
        let mut units = self.lock();
        let (mut gone, end) = (units.split_off(&offset.div_ceil(UNIT)), (offset + bytes).div_ceil(UNIT));
        units.append(&mut gone.split_off(&end));
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> u64 {
        offset
    }

    fn is_quick(&self) -> bool {
        true
    }
}
