//! Reads of chunks that are held, over NBD: swarmdisk with the image as it is and compressed, `qemu-nbd` and `nbdkit file`
//! with the raw image, all at Unix sockets, with fio's NBD client; all that is read lies in the page cache.
//!
//! *Cold*: all of the image is read, of which decompressed chunks in memory hold a sixteenth. *Hot*: a part is read that
//! fits there. *Invariants*: before it is measured, swarmdisk has given the whole image, byte for byte.
//! *Others' settings*: `qemu-nbd --cache=writeback`, which is its default, for 8 clients; nbdkit's default of 16 threads.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Bench;
use super::figure::{Figure, Side, Target};
use super::subject::Codec;
use crate::compare::session::{Failure, Session};
use crate::disk::NbdDisk;
use crate::fixture::text;
use crate::process::Process;
use crate::skip::{find_peer, find_tool};

/// What is read when all is to stay in memory: half of what swarmdisk keeps by default.
const HOT_BYTES: u64 = 16 << 20;
const KNOWN: [&str; 2] = ["qemu-nbd", "nbdkit"];

/// Reads of one kind.
struct Load {
    what: &'static str,
    /// fio's word for it.
    order: &'static str,
    bytes: u32,
    depth: u32,
}

const LOADS: [Load; 4] = [
    Load { what: "4 KiB random, depth 1", order: "randread", bytes: 4 << 10, depth: 1 },
    Load { what: "4 KiB random, depth 32", order: "randread", bytes: 4 << 10, depth: 32 },
    Load { what: "64 KiB random, depth 32", order: "randread", bytes: 64 << 10, depth: 32 },
    Load { what: "1 MiB sequential, depth 4", order: "read", bytes: 1 << 20, depth: 4 },
];

/// Who serves what, and what its figures should be.
struct Case {
    what: &'static str,
    codec: Codec,
    is_hot: bool,
    random: f64,
    sequential: f64,
}

const CASES: [Case; 3] = [
    Case { what: "raw", codec: Codec::None, is_hot: false, random: 1.0, sequential: 1.0 },
    Case { what: "zstd, chunk in memory", codec: Codec::Zstd, is_hot: true, random: 0.7, sequential: 0.7 },
    Case { what: "zstd, to be decompressed", codec: Codec::Zstd, is_hot: false, random: 0.25, sequential: 0.5 },
];

/// Measures all of it.
///
/// # Errors
/// When a program is missing or fails, or a byte is wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let fio = find_tool("fio", "fio")?;
    let session = Session::default();
    let others = start_others(bench, &session)?;
    let none = start_ours(bench, &session, Codec::None)?;
    let zstd = start_ours(bench, &session, Codec::Zstd)?;
    let mut figures: Vec<Figure> = CASES.iter().flat_map(|case| LOADS.iter().map(|load| figure(case, load))).collect();
    // The first round brings all of them up to speed, and does not count.
    for round in 0..=bench.setup.rounds {
        (bench.told)(&format!("round {round} of {}", bench.setup.rounds));
        let mut next = figures.iter_mut();
        for case in &CASES {
            let bytes = if case.is_hot { HOT_BYTES } else { bench.subject.image_bytes };
            let ours = if case.codec == Codec::None { &none } else { &zstd };
            for load in &LOADS {
                let one = run(bench, &fio, ours, load, bytes)?;
                let rest = others.iter().map(|other| run(bench, &fio, other, load, bytes));
                let rest: Vec<f64> = rest.collect::<Result<_, _>>()?;
                let Some(figure) = next.next().filter(|_| round > 0) else { continue };
                figure.ours.push(one);
                figure.others.iter_mut().zip(rest).for_each(|(side, value)| side.values.push(value));
            }
        }
    }
    Ok(figures)
}

fn figure(case: &Case, load: &Load) -> Figure {
    let is_sequential = load.order == "read";
    Figure {
        what: format!("NBD, {}: {}", case.what, load.what),
        unit: "reads/s",
        ours: Vec::new(),
        others: KNOWN.map(|name| Side { name, values: Vec::new() }).to_vec(),
        target: Target::AtLeast(if is_sequential { case.sequential } else { case.random }),
    }
}

/// In the order of [`KNOWN`]; their sockets.
fn start_others(bench: &Bench<'_>, session: &Session) -> Result<[PathBuf; 2], Failure> {
    let sockets = KNOWN.map(|name| bench.subject.path(&format!("{name}.sock")));
    let raw = &bench.subject.raw;
    let mut qemu = Command::new(find_tool("qemu-nbd", "qemu-utils")?);
    qemu.args(["--read-only", "--format=raw", "--cache=writeback", "--persistent", "--shared=8", "--socket"]);
    qemu.arg(&sockets[0]).arg(raw);
    let mut nbdkit = Command::new(find_peer("nbdkit", "nbdkit")?);
    nbdkit.args(["--foreground", "--readonly", "--unix"]).arg(&sockets[1]).arg("file").arg(raw);
    for (mut command, socket) in [qemu, nbdkit].into_iter().zip(&sockets) {
        command.stdin(Stdio::null());
        let mut process = Process::start(command);
        bench.span.file(&mut process, socket)?;
        session.keep(process);
    }
    Ok(sockets)
}

/// Starts a node that has all, and reads all of it once: that verifies each chunk, here and there.
fn start_ours(bench: &Bench<'_>, session: &Session, codec: Codec) -> Result<PathBuf, Failure> {
    let name = if codec == Codec::None { "none.sock" } else { "zstd.sock" };
    let socket = bench.subject.path(name);
    let packed = text(&bench.subject.packed(codec).path);
    let nbd = format!("unix:{}", text(&socket));
    let node = Process::start(bench.swarmdisk.command(["attach", &packed, "--nbd", &nbd]));
    bench.span.line(&node, "ready ")?;
    session.keep(node);
    check_bytes(&uri(&socket), &bench.subject.raw)?;
    Ok(socket)
}

/// Reads a whole disk and compares it with its image.
///
/// # Errors
/// When they differ, or the disk cannot be read.
pub fn check_bytes(uri: &str, image: &Path) -> Result<(), Failure> {
    let disk = NbdDisk::open(uri);
    match disk.equal_bytes(image) {
        Ok(equal) if equal == disk.bytes() => Ok(()),
        Ok(_) => Err(Failure::Mismatches(1)),
        Err(said) => Err(Failure::Program { program: uri.to_owned(), said }),
    }
}

fn uri(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", text(socket))
}

/// Reads a second.
fn run(bench: &Bench<'_>, fio: &Path, socket: &Path, load: &Load, bytes: u64) -> Result<f64, Failure> {
    let runtime = Duration::from_millis(bench.full_or(1000, 100));
    let mut command = Command::new(fio);
    command.args(["--name=reads", "--ioengine=nbd", "--output-format=json", "--time_based", "--randrepeat=0"]);
    command.args(["--norandommap", &format!("--uri={}", uri(socket)), &format!("--rw={}", load.order)]);
    command.args([format!("--bs={}", load.bytes), format!("--iodepth={}", load.depth), format!("--size={bytes}")]);
    command.arg(format!("--runtime={}ms", runtime.as_millis()));
    let said = bench.span.succeed(command)?;
    let rate = reads_per_sec(&said);
    rate.ok_or_else(|| Failure::Program { program: "fio".into(), said: format!("no rate in {said:?}") })
}

/// What fio says; there may be notes before its JSON.
fn reads_per_sec(said: &str) -> Option<f64> {
    let said: serde_json::Value = serde_json::from_str(&said[said.find('{')?..]).ok()?;
    said["jobs"][0]["read"]["iops"].as_f64().filter(|rate| *rate > 0.0)
}
