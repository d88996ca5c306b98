//! Reads of chunks that are held, over iSCSI: swarmdisk with the image as it is, `tgtd` with the raw image, both on loopback,
//! with libiscsi's `iscsi-perf`; all that is read lies in the page cache.
//!
//! *Invariants*: before it is measured, swarmdisk has given the whole image, byte for byte. *Others' settings*: `tgtd` with
//! its defaults, 16 threads; `iscsi-perf` reads in order, as its random reads have random lengths. It counts whole seconds.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Bench;
use super::figure::{Figure, Side, Target};
use super::subject::Codec;
use crate::compare::session::{Failure, Session};
use crate::fixture::text;
use crate::process::Process;
use crate::skip::{find_peer, find_tool};

const BLOCK_BYTES: u64 = 512;
const IQN: &str = "iqn.2026-01.swarmdisk:tgt";

/// Reads of one kind.
struct Load {
    what: &'static str,
    bytes: u64,
    depth: u32,
}

const LOADS: [Load; 4] = [
    Load { what: "4 KiB, depth 1", bytes: 4 << 10, depth: 1 },
    Load { what: "4 KiB, depth 32", bytes: 4 << 10, depth: 32 },
    Load { what: "64 KiB, depth 32", bytes: 64 << 10, depth: 32 },
    Load { what: "1 MiB, depth 4", bytes: 1 << 20, depth: 4 },
];

/// Measures all of it.
///
/// # Errors
/// When a program is missing or fails, or a byte is wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let perf = find_tool("iscsi-perf", "libiscsi-bin")?;
    let session = Session::default();
    let theirs = start_tgt(bench, &session)?;
    let ours = start_ours(bench, &session)?;
    let mut figures: Vec<Figure> = LOADS.iter().map(figure).collect();
    // The first round brings all of them up to speed, and does not count.
    for round in 0..=bench.setup.rounds {
        (bench.told)(&format!("round {round} of {}", bench.setup.rounds));
        for (load, figure) in LOADS.iter().zip(&mut figures) {
            let (one, other) = (run(bench, &perf, &ours, load)?, run(bench, &perf, &theirs, load)?);
            if round > 0 {
                figure.ours.push(one);
                figure.others[0].values.push(other);
            }
        }
    }
    Ok(figures)
}

fn figure(load: &Load) -> Figure {
    Figure {
        what: format!("iSCSI, raw: {}", load.what),
        unit: "reads/s",
        ours: Vec::new(),
        others: vec![Side { name: "tgt", values: Vec::new() }],
        target: Target::AtLeast(1.0),
    }
}

/// Starts Debian's target on the raw image; its URI.
fn start_tgt(bench: &Bench<'_>, session: &Session) -> Result<String, Failure> {
    let (tgtd, tgtadm) = (find_peer("tgtd", "tgt")?, find_peer("tgtadm", "tgt")?);
    let port = free_port().map_err(Failure::file(Path::new("a free port")))?;
    // The control socket's number, of 15 bits, is its own, so that no other is met.
    let control = (port & 0x7fff).to_string();
    let mut daemon = Command::new(tgtd);
    daemon.args(["-f", "-C", &control, "--iscsi", &format!("portal=127.0.0.1:{port}")]).stdin(Stdio::null());
    session.keep(Process::start(daemon));
    let admin = |arguments: &[&str]| {
        let mut command = Command::new(&tgtadm);
        command.args(["-C", &control, "--lld", "iscsi"]).args(arguments);
        bench.span.succeed(command)
    };
    let target = ["--op", "new", "--mode", "target", "--tid", "1", "-T", IQN];
    let mut tried = admin(&target);
    for _ in 0..50 {
        if tried.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        tried = admin(&target);
    }
    tried?;
    let raw = text(&bench.subject.raw);
    admin(&["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", &raw])?;
    admin(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"])?;
    Ok(format!("iscsi://127.0.0.1:{port}/{IQN}/1"))
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a node that has all, and reads all of it once: that verifies each chunk, here and there.
fn start_ours(bench: &Bench<'_>, session: &Session) -> Result<String, Failure> {
    let qemu_img = find_tool("qemu-img", "qemu-utils")?;
    let packed = text(&bench.subject.packed(Codec::None).path);
    let node = Process::start(bench.swarmdisk.command(["attach", &packed, "--iscsi", "127.0.0.1:0"]));
    let ready = bench.span.line(&node, "ready ")?;
    session.keep(node);
    let uri = ready.trim_start_matches("ready ").to_owned();
    let mut compare = Command::new(qemu_img);
    compare.args(["compare", "-f", "raw", "-F", "raw", &text(&bench.subject.raw), &uri]);
    bench.span.succeed(compare)?;
    Ok(uri)
}

/// Reads a second.
fn run(bench: &Bench<'_>, perf: &Path, uri: &str, load: &Load) -> Result<f64, Failure> {
    let seconds = bench.full_or(2, 1).to_string();
    let blocks = (load.bytes / BLOCK_BYTES).to_string();
    let mut command = Command::new(perf);
    command.args(["-m", &load.depth.to_string(), "-b", &blocks, "-t", &seconds, uri]);
    let said = bench.span.succeed(command)?;
    reads_per_sec(&said).ok_or_else(|| Failure::Program { program: "iscsi-perf".into(), said: last_line(&said) })
}

fn last_line(said: &str) -> String {
    said.lines().last().unwrap_or_default().to_owned()
}

/// The last average that it says.
fn reads_per_sec(said: &str) -> Option<f64> {
    let (_, average) = said.rsplit_once("iops average ")?;
    average.split_whitespace().next()?.parse().ok().filter(|rate| *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_average_counts() {
        let said = "iops average 5 (0 MB/s)\r\niops average 1234 (4 MB/s)   \n\nfinished.\n";
        assert_eq!(reads_per_sec(said), Some(1234.0));
        assert_eq!(reads_per_sec("iops average 0 (0 MB/s)"), None);
        assert_eq!(reads_per_sec("connected"), None);
    }
}
