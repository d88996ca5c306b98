//! Reads within a guest in QEMU, with fio past the guest's page cache: a ublk device against `rublk add loop`, each on a file of
//! one ext4 on a virtio disk, all of it in the page cache; and vhost-user against QEMU's NBD client, both of one node outside.
//!
//! *Invariants*: before it is measured, both devices have given the same bytes. *What is not real*: the guest's processors,
//! which QEMU emulates: all that runs in the guest takes some ten times as long. *Others' settings*: rublk with as
//! many queues as ours, its file read through the page cache as ours is; QEMU's NBD client as its default is.

use std::fs::{self, File};
use std::io::{Read, copy};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Bench;
use super::figure::{Figure, Side, Target};
use super::subject::{Codec, pack};
use crate::compare::session::{Failure, Session};
use crate::fixture::text;
use crate::guest_kernel::{GuestKernel, Threads, scripts};
use crate::process::Process;
use crate::qemu::Machine;
use crate::skip::{Missing, find_tool};

/// Part of the image that the guest has as files.
const PART_BYTES: u64 = 64 << 20;
const MEMORY_MIB: u32 = 1536;
const LOADS: [&str; 4] =
    ["4 KiB random, depth 1", "4 KiB random, depth 32", "64 KiB random, depth 32", "1 MiB sequential, depth 4"];

/// A ublk device against rublk's.
///
/// # Errors
/// When a program is missing or fails, or a byte is wrong.
pub fn ublk(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let (kernel, fio, rublk) = (GuestKernel::find()?, find_tool("fio", "fio")?, find_rublk()?);
    let part = bench.subject.path("part.raw");
    let cut = || copy(&mut File::open(&bench.subject.raw)?.take(PART_BYTES), &mut File::create(&part)?);
    cut().map_err(Failure::file(&part))?;
    // Beside the other of this name, which is of the whole image.
    let folder = bench.subject.path("part");
    fs::create_dir_all(&folder).map_err(Failure::file(&folder))?;
    let packed = pack(&bench.swarmdisk, &part, &folder.join("none.swarm"), Codec::None, &bench.span)?;
    fs::rename(&part, folder.join("part.raw")).map_err(Failure::file(&part))?;
    // A file system that tells what is in the page cache, as the guest's own of memory does not.
    let disk = bench.subject.path("guest.ext4");
    let mut make = Command::new(find_tool("mke2fs", "e2fsprogs")?);
    make.args(["-q", "-t", "ext4", "-d", &text(&folder), &text(&disk)]);
    make.arg(format!("{}M", 3 * (packed.bytes >> 20)));
    bench.span.succeed(make)?;
    let files = [bench.swarmdisk.program().to_owned(), rublk, fio, scripts().join("rates.sh")];
    let mut command = command(bench, &kernel, &files, "ours_and_loop");
    command.arg("-drive").arg(format!("if=virtio,format=raw,file={}", text(&disk)));
    measure(bench, command, "ublk in a guest, raw", "rublk", 0.9)
}

/// vhost-user against NBD.
///
/// # Errors
/// When a program is missing or fails, or a byte is wrong.
pub fn vhost_user(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let (kernel, fio) = (GuestKernel::find()?, find_tool("fio", "fio")?);
    let session = Session::default();
    let (nbd, vhost) = (bench.subject.path("guest-nbd.sock"), bench.subject.path("guest-vhost.sock"));
    let packed = text(&bench.subject.packed(Codec::None).path);
    for (option, socket) in [("--nbd", format!("unix:{}", text(&nbd))), ("--vhost-user", text(&vhost))] {
        let node = Process::start(bench.swarmdisk.command(["attach", &packed, option, &socket]));
        bench.span.line(&node, "ready ")?;
        session.keep(node);
    }
    let mut command = command(bench, &kernel, &[fio, scripts().join("rates.sh")], "disks");
    command.arg("-drive").arg(format!("if=none,id=nbd,format=raw,readonly=on,file=nbd+unix:///?socket={}", text(&nbd)));
    command.args(["-device", "virtio-blk-pci,drive=nbd,serial=nbd,num-queues=2"]);
    for [name, value] in Machine::vhost_user_arguments(&text(&vhost), MEMORY_MIB) {
        command.args([name, value]);
    }
    measure(bench, command, "vhost-user in a guest, raw", "NBD", 1.0)
}

fn find_rublk() -> Result<PathBuf, Missing> {
    let base = std::env::var_os("SWARMDISK_CACHE").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("swarmdisk")));
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache/swarmdisk")));
    let found = base.into_iter().flat_map(fs::read_dir).flatten().flatten();
    let mut found = found.filter(|entry| entry.file_name().to_string_lossy().starts_with("rublk-"));
    let program = found.next().map(|entry| entry.path().join("bin/rublk")).filter(|program| program.is_file());
    program.ok_or_else(|| Missing { what: "no rublk".into(), remedy: "run tests/setup/rublk.sh".into() })
}

fn command(bench: &Bench<'_>, kernel: &GuestKernel, files: &[PathBuf], kind: &str) -> Command {
    let (rounds, seconds) = (bench.setup.rounds, bench.full_or(2, 1));
    let variables = format!("KIND={kind} ROUNDS={rounds} SECONDS_A_RUN={seconds}");
    let threads = bench.full_or(Threads::Each, Threads::One);
    let mut command = kernel.command(&bench.subject.path("initramfs"), files, &variables, threads);
    command.args(["-m", &MEMORY_MIB.to_string()]);
    command
}

/// Boots the guest, and takes what its script says.
fn measure(
    bench: &Bench<'_>,
    command: Command,
    what: &str,
    other: &'static str,
    least: f64,
) -> Result<Vec<Figure>, Failure> {
    let console = bench.span.succeed(command)?;
    let fault = console.lines().find(|line| line.starts_with("FAIL "));
    if let Some(fault) = fault.or((!console.contains("UBLK-DONE")).then_some("it did not come to its end")) {
        return Err(Failure::Program { program: "the guest".into(), said: fault.trim().to_owned() });
    }
    let figures = (0..).zip(LOADS).map(|(load, name)| Figure {
        what: format!("{what}: {name}"),
        unit: "reads/s",
        ours: rates(&console, "ours", load),
        others: vec![Side { name: other, values: rates(&console, "other", load) }],
        target: Target::AtLeast(least),
    });
    let figures: Vec<Figure> = figures.collect();
    let is_whole = |values: &[f64]| values.len() == bench.setup.rounds;
    if figures.iter().all(|figure| is_whole(&figure.ours) && is_whole(&figure.others[0].values)) {
        return Ok(figures);
    }
    Err(Failure::Program { program: "fio in the guest".into(), said: "it gave no rates".into() })
}

/// What the console says of one load, by rounds; the first brings both up to speed, and does not count.
fn rates(console: &str, name: &str, load: u32) -> Vec<f64> {
    let load = load.to_string();
    let rate = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["RATE", round, of, at, rate] if round != "0" && of == name && at == load => rate.parse().ok(),
        _ => None,
    };
    console.lines().filter_map(rate).filter(|rate| *rate > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_a_console() {
        let console = "RATE 0 ours 1 7\r\nRATE 1 ours 1 8.5\r\n[ 1.0] note\nRATE 1 other 1 9\nRATE 2 ours 1 \n";
        assert_eq!(rates(console, "ours", 1), [8.5]);
        assert_eq!(rates(console, "other", 1), [9.0]);
        assert!(rates(console, "ours", 0).is_empty());
    }
}
