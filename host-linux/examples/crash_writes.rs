//! Writes to a block device from several threads until a file appears, and reads back what it wrote, while somebody kills the
//! device's server: `crash_writes DEVICE ENOUGH MODEL`.
//!
//! Each thread has a part of the device, and knows what is in it: every request that was answered has done what it says. It
//! fails at the first byte that is another, and at the first request that fails. In the end MODEL holds what the device must.

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

const SECTOR: usize = 512;
const THREADS: usize = 4;
/// A thread looks at all of its part each so many requests.
const REQUESTS_A_LOOK: u64 = 50;
const PIECE: usize = 64 << 10;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, enough, model] = &arguments[..] else {
        eprintln!("usage: crash_writes DEVICE ENOUGH MODEL");
        return ExitCode::from(2);
    };
    match run(device.as_ref(), enough.as_ref(), model.as_ref()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("crash_writes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(device: &Path, enough: &Path, model: &Path) -> Outcome<String> {
    let open = || File::options().read(true).write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(device);
    let bytes = std::io::Seek::seek(&mut open()?, std::io::SeekFrom::End(0))? as usize;
    let part = bytes / SECTOR / THREADS * SECTOR;
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let (device, start) = (open()?, number * part);
        let end = if number + 1 == THREADS { bytes } else { start + part };
        let enough = enough.to_owned();
        threads.push(thread::spawn(move || Writer::new(device, start, end - start, number as u64)?.run(&enough)));
    }
    let (mut all, mut requests, mut flushes) = (Vec::with_capacity(bytes), 0, 0);
    for thread in threads {
        let writer = thread.join().map_err(|_| "a thread panicked")??;
        requests += writer.requests;
        flushes += writer.flushes;
        all.extend(writer.model);
    }
    fs::write(model, all)?;
    Ok(format!("{requests} requests, {flushes} flushes"))
}

struct Writer {
    device: File,
    start: usize,
    /// What is in its part.
    model: Vec<u8>,
    random: u64,
    requests: u64,
    flushes: u64,
}

impl Writer {
    fn new(device: File, start: usize, bytes: usize, seed: u64) -> Outcome<Self> {
        let mut model = Vec::with_capacity(bytes);
        while model.len() < bytes {
            let piece = PIECE.min(bytes - model.len());
            model.extend(read(&device, start + model.len(), piece)?);
        }
        Ok(Self { device, start, model, random: seed ^ u64::from(std::process::id()) << 8, requests: 0, flushes: 0 })
    }

    fn run(mut self, enough: &Path) -> Outcome<Self> {
        while !enough.exists() {
            self.requests += 1;
            self.change()?;
            if self.below(10) == 0 {
                self.device.sync_data()?;
                self.flushes += 1;
            }
            if self.requests.is_multiple_of(REQUESTS_A_LOOK) {
                self.look()?;
            }
        }
        self.look()?;
        Ok(self)
    }

    /// Writes, makes zeros or trims a range that is drawn, and knows it.
    fn change(&mut self) -> Outcome<()> {
        let first = self.below(self.model.len() / SECTOR) * SECTOR;
        let sectors = [1, 3, 8, 16, 100][self.below(5)];
        let bytes = (sectors * SECTOR).min(self.model.len() - first);
        let (place, kind) = ((self.start + first) as u64, self.below(7));
        let flags = match kind {
            0 => FallocateFlags::ZERO_RANGE,
            1 => FallocateFlags::PUNCH_HOLE,
            _ => {
                let (number, from) = (self.requests, self.start + first);
                let mut buffer = Aligned::new(bytes);
                for (index, sector) in buffer.get().chunks_mut(SECTOR).enumerate() {
                    let words = [number.to_le_bytes(), ((from / SECTOR + index) as u64).to_le_bytes()].concat();
                    sector.chunks_mut(16).for_each(|chunk| chunk.copy_from_slice(&words));
                }
                self.device.write_all_at(buffer.get(), place)?;
                self.model[first..first + bytes].copy_from_slice(buffer.get());
                return Ok(());
            }
        };
        fallocate(&self.device, flags | FallocateFlags::KEEP_SIZE, place, bytes as u64)?;
        self.model[first..first + bytes].fill(0);
        Ok(())
    }

    fn look(&self) -> Outcome<()> {
        for first in (0..self.model.len()).step_by(PIECE) {
            let expected = &self.model[first..(first + PIECE).min(self.model.len())];
            let found = read(&self.device, self.start + first, expected.len())?;
            if let Some(at) = found.iter().zip(expected).position(|(found, expected)| found != expected) {
                let sector = (self.start + first + at) / SECTOR;
                return Err(format!("sector {sector} is not what was written, after {} requests", self.requests).into());
            }
        }
        Ok(())
    }

    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }
}

fn read(device: &File, offset: usize, bytes: usize) -> Outcome<Vec<u8>> {
    let mut buffer = Aligned::new(bytes);
    device.read_exact_at(buffer.get(), offset as u64)?;
    Ok(buffer.get().to_vec())
}

/// Bytes where the device can reach them past the page cache.
struct Aligned {
    all: Vec<u8>,
    from: usize,
    bytes: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Self {
        let all = vec![0; bytes + SECTOR];
        let from = all.as_ptr().align_offset(SECTOR);
        Self { all, from, bytes }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.all[self.from..self.from + self.bytes]
    }
}
