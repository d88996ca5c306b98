//! What others' fills cost a guest's demand misses, for real: a seed, a node whose guest reads chunk by chunk and prefetches
//! nothing, and nodes that fill their caches from the same seed, each in a network namespace behind a link of a given rate.
//!
//! *What is real*: every process and the kernel's TCP. *What is not*: the links (see [`Netlab`]), which have no delay but
//! that of their queues, and the image. *Units*: microseconds from a read until its answer. *Needs*: as [`Netlab`].

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddrV4;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::NbdDisk;
use crate::fixture::{Fixture, text};
use crate::images::Numbers;
use crate::netlab::Netlab;
use crate::process::Process;
use crate::skip::Missing;

const PORT: u16 = 7000;
const CHUNK_BYTES: usize = 64 << 10;
/// Of each chunk so much does not compress, in bytes: then its payload is about as long as a server image's.
const DENSE_BYTES: usize = 24 << 10;
/// Reads before those that are measured: they fetch most leaf pages.
const WARM_UP: u32 = 40;
/// The guest thinks so long between two reads.
const THINK: Duration = Duration::from_micros(3500);
/// How long fills run before the guest reads.
const FILLS_FIRST: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Debug, Copy, Clone)]
pub struct Case {
    /// Rate of each link both ways, in Mbit/s of Ethernet frames.
    pub link_mbit: u32,
    /// Nodes that fill.
    pub fetchers: usize,
    /// Misses that are measured.
    pub misses: u32,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What each miss took, in order of length.
    misses: Vec<u64>,
    /// What the seed's link carried while they were measured, in Mbit/s.
    pub seed_mbit: f64,
}

impl Measured {
    /// The mean miss.
    pub fn mean(&self) -> u64 {
        self.misses.iter().sum::<u64>() / self.misses.len().max(1) as u64
    }

    /// The miss that so many percent do not exceed.
    pub fn percentile(&self, percent: usize) -> u64 {
        self.misses
            .get((self.misses.len() * percent / 100).min(self.misses.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    }
}

/// An image of this size, of which each chunk compresses like a server's.
///
/// # Panics
/// When it cannot be written or packed.
#[track_caller]
pub fn image(bytes: u64) -> Fixture {
    Fixture::of(|path| {
        let mut file = BufWriter::new(File::create(path).unwrap());
        let mut numbers = Numbers(1);
        for _ in 0..bytes / CHUNK_BYTES as u64 {
            let mut chunk = numbers.bytes(DENSE_BYTES);
            chunk.resize(CHUNK_BYTES, 0);
            file.write_all(&chunk).unwrap();
        }
        file.flush().unwrap();
    })
}

/// Runs it.
///
/// # Errors
/// When there can be no such network here.
///
/// # Panics
/// When anything fails.
#[track_caller]
pub fn measure(fixture: &Fixture, case: &Case) -> Result<Measured, Missing> {
    let lab = Netlab::new(case.fetchers + 2, case.link_mbit)?;
    let work = tempfile::tempdir_in(fixture.path("")).unwrap();
    let listen = SocketAddrV4::new(lab.address(0), PORT).to_string();
    let command = fixture.swarmdisk.command(["seed", &text(&fixture.swarm), "--listen", &listen, "--open"]);
    let seed = Process::start(lab.command(0, &command));
    let reference = seed.wait_for_line("swarm://");
    let fetchers: Vec<Process> =
        (2..case.fetchers + 2).map(|node| attach(fixture, &lab, node, &reference, work.path(), "100gbit").0).collect();
    thread::sleep(FILLS_FIRST);
    let (guest, uri) = attach(fixture, &lab, 1, &reference, work.path(), "off");
    let disk = NbdDisk::open(&uri);
    let chunks = disk.bytes() / CHUNK_BYTES as u64;
    let mut numbers = Numbers(2);
    let mut read = || {
        thread::sleep(THINK);
        let offset = numbers.below(chunks) * CHUNK_BYTES as u64;
        let began = Instant::now();
        disk.read(offset, 4096).expect("the seed has it");
        began.elapsed().as_micros() as u64
    };
    (0..WARM_UP).for_each(|_| _ = read());
    let (began, before) = (Instant::now(), lab.carried(0).up_bytes);
    let mut misses: Vec<u64> = (0..case.misses).map(|_| read()).collect();
    let seed_mbit = (lab.carried(0).up_bytes - before) as f64 * 8.0 / began.elapsed().as_micros() as f64;
    misses.sort_unstable();
    [guest].into_iter().chain(fetchers).chain([seed]).for_each(|process| drop(process.kill()));
    Ok(Measured { misses, seed_mbit })
}

fn attach(fixture: &Fixture, lab: &Netlab, node: usize, reference: &str, work: &Path, fill: &str) -> (Process, String) {
    let [socket, cache] = ["nbd", "cache"].map(|what| text(&work.join(format!("{what}-{node}"))));
    let (nbd, listen) = (format!("unix:{socket}"), SocketAddrV4::new(lab.address(node), PORT).to_string());
    let words = ["attach", reference, "--nbd", &nbd, "--cache", &cache, "--listen", &listen, "--open"];
    let command = fixture.swarmdisk.command(words.into_iter().chain(["--prefetch", "off", "--fill", fill]));
    let process = Process::start(lab.command(node, &command));
    let ready = process.wait_for_line("ready ");
    (process, ready.strip_prefix("ready ").expect("a ready line").to_owned())
}
