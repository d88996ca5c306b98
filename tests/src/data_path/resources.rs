//! What a node takes: memory while it works on a large image with many peers, and anything at all while it is idle.
//!
//! *The large image*: 100 GiB of zeros, in which a chunk of data lies every 25 MiB, so that nearly every leaf page has some.
//! *Units*: MiB, milliseconds of processor time a minute, threads woken a second.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use swarmdisk_core::engine::{Footprint, Limits};
use swarmdisk_core::geometry::{CHUNK_SHIFT_DEFAULT, Geometry};

use super::Bench;
use super::figure::Figure;
use super::nbd::check_bytes;
use super::process_costs::{Resident, context_switches, cpu_seconds, resident};
use super::subject::{CHUNK_BYTES, Codec, Packed, pack};
use super::torrents::status;
use crate::compare::session::{Failure, Session};
use crate::disk::NbdDisk;
use crate::fixture::text;
use crate::images::Numbers;
use crate::process::Process;

const LARGE_BYTES: u64 = 100 << 30;
const LARGE_BYTES_QUICK: u64 = 1 << 30;
/// A chunk of data every so many bytes.
const STRIDE_BYTES: u64 = 25 << 20;
/// A seed, and nodes that fetch the same image.
const PEERS: usize = 8;
/// Guests' reads in flight.
const READERS: usize = 8;
const MIB: f64 = 1048576.0;
const RESIDENT_MIB_MAX: f64 = 64.0;
const ENGINE_MIB_MAX: f64 = 16.0;
/// A ping each 10 s, its answer, the other's ping and the answer to that, two threads woken for each; and as much again
/// for timers of the runtime.
const SWITCHES_PER_SEC_MAX: f64 = 1.6;
/// A hundredth of a percent of a processor.
const CPU_MILLIS_PER_MINUTE_MAX: f64 = 6.0;

/// Memory of a node with all features on, and of its engine.
///
/// # Errors
/// When an image cannot be made, a node fails, or a byte is wrong.
pub fn memory(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let (raw, packed) = large_image(bench)?;
    let session = Session::default();
    let seed = Process::start(bench.swarmdisk.command(["seed", &text(&packed.path), "--listen", "127.0.0.1:0"]));
    let reference = bench.span.line(&seed, "swarm://")?;
    session.keep(seed);
    for peer in 1..PEERS {
        let node = start(bench, &reference, &format!("peer-{peer}"), &["--fill", "20MB"])?;
        session.keep(node);
    }
    let paths = ["traced", "engine", "large.overlay"].map(|name| text(&bench.subject.path(name)));
    let all = ["--fill", "200MB", "--prefetch", "auto", "--record", &paths[0], "--record-engine", &paths[1]];
    let node = start(bench, &reference, "large", &[&all[..], &["--overlay", &paths[2]]].concat())?;
    let pid = node.pid();
    bench.span.wait_for(|| Ok(status(bench, pid).filter(|all| all.images[0].peers.len() >= PEERS)))?;
    let socket = bench.subject.path("large.sock");
    let most = while_read(bench, &socket, &raw, pid)?;
    drop(node);
    session.end();
    let all = Resident { anonymous: most.anonymous, file: most.file };
    let mib = |bytes: u64| bytes as f64 / MIB;
    let what = format!("{} GiB image, {PEERS} peers, all features: greatest", bench.full_or(100, 1));
    let geometry = Geometry::new(LARGE_BYTES, CHUNK_SHIFT_DEFAULT).expect("there are such images");
    let engine = Footprint::of(geometry, Limits::NODE).bytes() as u64;
    let bounded = |what, value, most| Figure::bounded(what, "MiB", vec![value], "bound", most);
    Ok(vec![
        bounded(format!("{what} RssAnon"), mib(all.anonymous), RESIDENT_MIB_MAX),
        bounded(format!("{what} RssAnon + RssFile"), mib(all.anonymous + all.file), RESIDENT_MIB_MAX),
        bounded("100 GiB image, 50 peers: engine and tables".into(), mib(engine), ENGINE_MIB_MAX),
    ])
}

fn large_image(bench: &Bench<'_>) -> Result<(PathBuf, Packed), Failure> {
    let raw = bench.subject.path("large.raw");
    let write = || {
        let file = File::create(&raw)?;
        file.set_len(bench.full_or(LARGE_BYTES, LARGE_BYTES_QUICK))?;
        let mut numbers = Numbers(2);
        for offset in data_offsets(bench) {
            // Half of it compresses.
            let mut chunk = numbers.bytes(CHUNK_BYTES as usize / 2);
            chunk.resize(CHUNK_BYTES as usize, 1);
            file.write_all_at(&chunk, offset)?;
        }
        Ok(())
    };
    write().map_err(Failure::file(&raw))?;
    let packed = pack(&bench.swarmdisk, &raw, &bench.subject.path("large.swarm"), Codec::Zstd, &bench.span)?;
    Ok((raw, packed))
}

fn data_offsets(bench: &Bench<'_>) -> impl Iterator<Item = u64> + use<> {
    (0..bench.full_or(LARGE_BYTES, LARGE_BYTES_QUICK)).step_by(STRIDE_BYTES as usize)
}

fn start(bench: &Bench<'_>, reference: &str, name: &str, more: &[&str]) -> Result<Process, Failure> {
    let [socket, cache] = [format!("{name}.sock"), format!("{name}.cache")].map(|name| bench.subject.path(&name));
    let (nbd, cache) = (format!("unix:{}", text(&socket)), text(&cache));
    let own = ["attach", reference, "--nbd", &nbd, "--cache", &cache];
    let mut command = bench.swarmdisk.command([&own[..], more].concat());
    command.env("XDG_RUNTIME_DIR", bench.subject.path(""));
    let node = Process::start(command);
    bench.span.line(&node, "ready ")?;
    Ok(node)
}

/// The most that a node has in memory while guests read where there is data, and some zeros beside it; every byte is
/// compared.
fn while_read(bench: &Bench<'_>, socket: &Path, raw: &Path, pid: u32) -> Result<Resident, Failure> {
    let disk = NbdDisk::open(&format!("nbd+unix:///?socket={}", text(socket)));
    let image = File::open(raw).map_err(Failure::file(raw))?;
    let offsets: Vec<u64> = data_offsets(bench).collect();
    let (until, wrong) = (Instant::now() + Duration::from_secs(bench.full_or(20, 1)), AtomicBool::new(false));
    let mut most = Resident::default();
    thread::scope(|scope| {
        for reader in 0..READERS {
            let (disk, image, offsets, wrong) = (&disk, &image, &offsets, &wrong);
            scope.spawn(move || {
                let mut numbers = Numbers(reader as u64);
                while Instant::now() < until {
                    let offset = offsets[numbers.below(offsets.len() as u64) as usize];
                    let mut expected = vec![0; 2 * CHUNK_BYTES as usize];
                    let is_right = image.read_exact_at(&mut expected, offset).is_ok()
                        && disk.read(offset, expected.len() as u32).is_ok_and(|found| found == expected);
                    wrong.fetch_or(!is_right, Ordering::Relaxed);
                }
            });
        }
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
            let now = resident(pid)?;
            most.anonymous = most.anonymous.max(now.anonymous);
            most.file = most.file.max(now.file);
        }
        Ok::<_, Failure>(())
    })?;
    if wrong.into_inner() { Err(Failure::Mismatches(1)) } else { Ok(most) }
}

/// What a node does while nobody wants anything of it: it has all of the image, a link to a seed, and a guest.
///
/// # Errors
/// When a node fails, or a byte is wrong.
pub fn idle(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let packed = text(&bench.subject.packed(Codec::Zstd).path);
    let seed = Process::start(bench.swarmdisk.command(["seed", &packed, "--listen", "127.0.0.1:0"]));
    let reference = bench.span.line(&seed, "swarm://")?;
    let node = start(bench, &reference, "idle", &[])?;
    let uri = format!("nbd+unix:///?socket={}", text(&bench.subject.path("idle.sock")));
    check_bytes(&uri, &bench.subject.raw)?;
    let _guest = NbdDisk::open(&uri);
    // What it had to do is done, and its threads have gone (tokio keeps idle ones for 10 s).
    thread::sleep(Duration::from_secs(bench.full_or(15, 0)));
    let (mut switches, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..bench.full_or(2, 1) {
        let span = Duration::from_secs(bench.full_or(30, 1));
        let before = (context_switches(node.pid())?, cpu_seconds(node.pid())?);
        thread::sleep(span);
        let after = (context_switches(node.pid())?, cpu_seconds(node.pid())?);
        switches.push(after.0.since(&before.0) as f64 / span.as_secs_f64());
        cpu.push((after.1 - before.1) * 1e3 * 60.0 / span.as_secs_f64());
    }
    let what = |what| format!("idle node with a guest and a link: {what}");
    Ok(vec![
        Figure::bounded(what("context switches"), "1/s", switches, "keep-alives", SWITCHES_PER_SEC_MAX),
        Figure::bounded(what("processor time"), "ms/min", cpu, "bound", CPU_MILLIS_PER_MINUTE_MAX),
    ])
}
