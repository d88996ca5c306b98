//! A disk that guests write to: kept across restarts, refused where it cannot be right, and after `kill -9` all that was
//! flushed is there.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use swarmdisk_host::overlay::OverlaySummary;
use swarmdisk_host::store::Store;
use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::{Fixture, read_report, text};
use swarmdisk_tests::images::{Numbers, flip};
use swarmdisk_tests::process::{DEADLINE, Process};
use swarmdisk_tests::skip::{find_file, find_tool, need};
use swarmdisk_tests::tiny::TinyDisk;

const MIB: u64 = 1 << 20;
const IMAGE_BYTES: u64 = 6 * MIB + 1536;
const SECTOR: u64 = 512;
/// How often the node is killed; `SWARMDISK_KILLS` says otherwise.
const KILLS: u32 = 20;

/// Writes sectors that say which write they are of, zeros and trims; logs what it is about to do, and each flush once it is
/// answered.
const WRITER: &str = r#"
import os, random, struct
size, number = int(os.environ["SIZE"]), int(os.environ["NUMBER"])
numbers = random.Random(number)
log = open(os.environ["LOG"], "w", buffering=1)
h.connect_uri(os.environ["URI"])
while True:
    number += 1
    first = numbers.randrange(size // 512)
    count = min(numbers.choice([1, 3, 8, 16, 100, 600]), size // 512 - first)
    kind = numbers.choice("wwwwwzt")
    flags = nbd.CMD_FLAG_FUA if numbers.random() < 0.1 else 0
    print(kind, number, first, count, file=log)
    if kind == "w":
        data = b"".join(struct.pack("<QQ", number, sector) * 32 for sector in range(first, first + count))
        h.pwrite(data, first * 512, flags)
    elif kind == "z":
        h.zero(count * 512, first * 512, flags)
    else:
        h.trim(count * 512, first * 512, flags)
    if flags or numbers.random() < 0.1:
        if not flags: h.flush()
        print("f", number, 0, 0, file=log)
"#;

/// The tools that the writer needs.
fn nbdsh() -> Option<PathBuf> {
    // Its module belongs to the system's Python.
    need(find_file("/usr/bin/nbdsh", "python3-libnbd"))
}

fn run_nbdsh(script: &str, variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new("/usr/bin/nbdsh");
    // The first Python on the path need not be the system's.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap());
    command.args(["-c", script]).env("PATH", path).envs(variables.iter().copied());
    Process::start(command)
}

/// What a sector may hold.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Content {
    Image,
    Zeros,
    Written(u64),
}

impl Content {
    fn is_in(self, sector: &[u8], index: u64, image: &[u8]) -> bool {
        match self {
            Self::Image => sector == image,
            Self::Zeros => sector.iter().all(|byte| *byte == 0),
            Self::Written(number) => {
                let words = [number.to_le_bytes(), index.to_le_bytes()].concat();
                sector.chunks(16).all(|chunk| chunk == words)
            }
        }
    }
}

/// What each sector may hold after what the log says: all of it since the last flush. Says how many flushes there were.
fn follow(log: &str, sectors: &mut [Vec<Content>]) -> usize {
    let mut flushes = 0;
    for line in log.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        // The last one may be cut off.
        let [kind, number, first, count] = fields[..] else { break };
        let [number, first, count]: [u64; 3] = [number, first, count].map(|field| field.parse().unwrap());
        let all = first..first + count;
        match kind {
            "w" => all.for_each(|sector| sectors[sector as usize].push(Content::Written(number))),
            "z" => all.for_each(|sector| sectors[sector as usize].push(Content::Zeros)),
            // Of a trim only whole units become zeros.
            "t" => units(all).for_each(|sector| sectors[sector as usize].push(Content::Zeros)),
            _ => {
                flushes += 1;
                sectors.iter_mut().for_each(|contents| drop(contents.drain(..contents.len() - 1)));
            }
        }
    }
    flushes
}

/// The sectors of the units that lie wholly in a range; the image's last unit is short.
fn units(sectors: Range<u64>) -> Range<u64> {
    let is_to_end = sectors.end == IMAGE_BYTES / SECTOR;
    sectors.start.next_multiple_of(8)..if is_to_end { sectors.end } else { sectors.end / 8 * 8 }
}

#[test]
fn what_was_flushed_outlives_kills() {
    let Some(_) = nbdsh() else { return };
    let seed_number = u64::from(std::process::id());
    println!("numbers from {seed_number}");
    let mut numbers = Numbers(seed_number);
    let fixture = Fixture::mixed(IMAGE_BYTES, seed_number);
    let (_seed, reference) = fixture.seed(&[]);
    let image = fs::read(&fixture.raw).unwrap();
    let mut sectors = vec![vec![Content::Image]; (IMAGE_BYTES / SECTOR) as usize];
    let (overlay, log) = (fixture.text("overlay"), fixture.text("log"));
    let kills =
        std::env::var("SWARMDISK_KILLS").map_or(KILLS, |count| count.parse().expect("SWARMDISK_KILLS is a number"));
    let (mut flushes, mut requests, mut unflushed) = (0, 0, [0; 2]);
    let size = IMAGE_BYTES.to_string();
    for kill in 0..=kills {
        let (node, uri) = fixture.attach(&reference, "cache", &["--overlay", &overlay]);
        let disk = NbdDisk::open(&uri);
        assert!(!disk.is_read_only());
        let found = disk.read(0, IMAGE_BYTES as u32).unwrap();
        for (index, (found, contents)) in (0..).zip(found.chunks(SECTOR as usize).zip(&mut sectors)) {
            let image = &image[(index * SECTOR) as usize..][..SECTOR as usize];
            let held = contents.iter().rev().find(|content| content.is_in(found, index, image)).copied();
            let held = held.unwrap_or_else(|| panic!("kill {kill}: sector {index} is none of {contents:?}"));
            if contents.len() > 1 {
                unflushed[usize::from(held != contents[0])] += 1;
            }
            *contents = vec![held];
        }
        if kill == kills {
            assert!(node.stop().status.success());
            break;
        }
        let variables =
            [("URI", uri.as_str()), ("LOG", &log), ("SIZE", &size), ("NUMBER", &format!("{}000000", kill + 1))];
        let writer = run_nbdsh(WRITER, &variables);
        thread::sleep(Duration::from_millis(200 + numbers.below(400)));
        node.kill();
        writer.wait(DEADLINE);
        let lines = fs::read_to_string(&log).unwrap_or_default();
        requests += lines.lines().count();
        flushes += follow(&lines, &mut sectors);
        let _ = fs::remove_file(&log);
    }
    let [old, new] = unflushed;
    println!(
        "{kills} kills, {requests} requests, {flushes} flushes; sectors not flushed at a kill: {old} old, {new} new"
    );
    assert!(flushes > 0, "no writer came to flush");
}

#[test]
fn what_was_written_is_there_after_a_restart_and_not_in_the_image() {
    let (Some(qemu_io), Some(qemu_img)) =
        (need(find_tool("qemu-io", "qemu-utils")), need(find_tool("qemu-img", "qemu-utils")))
    else {
        return;
    };
    let fixture = Fixture::mixed(IMAGE_BYTES, 5);
    let (_seed, reference) = fixture.seed(&[]);
    let run = |tool: &PathBuf, arguments: &[&str]| {
        let mut command = Command::new(tool);
        command.args(arguments);
        let finished = Process::start(command).wait(DEADLINE);
        assert!(finished.status.success() && !finished.stdout.contains("failed"), "{arguments:?}: {finished:?}");
    };
    let (overlay, report, raw) = (fixture.text("overlay"), fixture.text("report"), text(&fixture.raw));
    let trace = fixture.text("trace");
    let (node, uri) =
        fixture.attach(&reference, "cache", &["--overlay", &overlay, "--report", &report, "--record", &trace]);
    let expected = fixture.text("expected.raw");
    fs::copy(&raw, &expected).unwrap();
    for disk in [&uri, &expected] {
        run(&qemu_io, &["-f", "raw", "-c", "write -P 7 4097 70000", "-c", "write -z 1M 1M", disk]);
    }
    assert!(node.stop().status.success());
    let report = read_report(report.as_ref());
    assert!(report.guest_writes >= 2 && report.guest_write_bytes >= 70_000 + MIB, "{report:?}");
    assert!(fs::read_to_string(&trace).unwrap().contains(" W "), "the trace has no writes");
    // Without a network: what is needed of the image is in the cache, or is not needed.
    let (node, uri) = fixture.attach(&reference, "cache", &["--overlay", &overlay]);
    run(&qemu_img, &["compare", "-f", "raw", "-F", "raw", &uri, &expected]);
    drop(node);
    let (_node, uri) = fixture.attach(&reference, "cache", &["--overlay", "memory:1M"]);
    run(&qemu_img, &["compare", "-f", "raw", "-F", "raw", &uri, &raw]);
    run(&qemu_io, &["-f", "raw", "-c", "write -P 7 0 64k", "-c", "read -P 7 0 64k", &uri]);
}

#[test]
fn overlays_that_cannot_be_used() {
    let (fixture, other) = (Fixture::mixed(MIB, 6), Fixture::mixed(MIB, 7));
    let (overlay, swarm) = (fixture.text("overlay"), text(&fixture.swarm));
    let refused = |file: &str, overlay: &str, status: i32, says: &str| {
        let before = fs::read(overlay).ok();
        let arguments = ["attach", file, "--nbd", "127.0.0.1:0", "--overlay", overlay];
        let finished = fixture.swarmdisk.spawn(arguments).wait(DEADLINE);
        assert_eq!(finished.status.code(), Some(status), "{finished:?}");
        assert!(finished.stderr.lines().count() == 1 && finished.stderr.contains(says), "{says}: {finished:?}");
        assert!(fs::read(overlay).ok() == before, "{overlay} was changed");
    };
    let (node, _) = fixture.attach(&swarm, "cache", &["--overlay", &overlay]);
    refused(&swarm, &overlay, 1, "is in use by another process");
    node.stop();
    refused(&text(&other.swarm), &overlay, 1, "belongs to image");
    let summary = OverlaySummary::read(overlay.as_ref()).unwrap();
    assert_eq!((summary.image_bytes, summary.data_bytes, summary.zero_bytes), (MIB, 0, 0));
    flip(overlay.as_ref(), 30);
    refused(&swarm, &overlay, 1, "its header is damaged");
    refused(&swarm, &text(&fixture.raw), 1, "it is no overlay");
    refused(&swarm, &text(fixture.path(".").as_ref()), 1, "is no regular file");
    refused(&swarm, &fixture.text("nowhere/overlay"), 1, "cannot make the overlay");
    refused(&swarm, "memory:lots", 2, "`lots` is no size");
    refused(&swarm, "memory:1", 2, "takes 4K or more");
}

/// How many chunks of two images of one geometry have different payloads.
fn different_chunks(one: &Path, other: &Path) -> u32 {
    let [one, other] = [one, other].map(|path| Store::open_complete(path).unwrap());
    assert_eq!(one.geometry(), other.geometry());
    let chunks = (0..one.geometry().chunk_count()).filter_map(|index| one.geometry().chunk(index));
    let payload = |store: &Store, chunk| store.read_payload(store.geometry().chunk_piece(chunk)).unwrap();
    chunks.filter(|chunk| payload(&one, *chunk) != payload(&other, *chunk)).count() as u32
}

#[test]
fn an_overlay_becomes_an_image_that_shares_what_did_not_change() {
    let Some(qemu_io) = need(find_tool("qemu-io", "qemu-utils")) else { return };
    let fixture = Fixture::mixed(IMAGE_BYTES, 8);
    let (swarm, raw) = (text(&fixture.swarm), text(&fixture.raw));
    let (overlay, out, expected) = (fixture.text("overlay"), fixture.text("out.swarm"), fixture.text("expected.raw"));
    let commit = ["overlay", "commit", &out, "--overlay", &overlay, &swarm];
    let (node, _) = fixture.attach(&swarm, "cache", &["--overlay", &overlay]);
    let refused = fixture.swarmdisk.run(commit);
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("in use by another process"), "{refused:?}");
    node.stop();
    // Nothing was written: it is the same image, to the last byte.
    assert_eq!(fixture.swarmdisk.succeed(commit).trim(), fixture.id);
    assert!(fs::read(&out).unwrap() == fs::read(&fixture.swarm).unwrap(), "it is another file");

    let (node, uri) = fixture.attach(&swarm, "cache", &["--overlay", &overlay]);
    fs::copy(&raw, &expected).unwrap();
    // Two chunks and a part of the one before; one that becomes zeros; the odd end.
    let changes = ["write -P 9 300k 100k", "write -z 1M 64k", "write -P 8 6291968 1024"];
    let commands: Vec<&str> = changes.iter().flat_map(|change| ["-c", change]).collect();
    for disk in [&uri, &expected] {
        let mut command = Command::new(&qemu_io);
        command.args(["-f", "raw"]).args(&commands).arg(disk);
        let finished = Process::start(command).wait(DEADLINE);
        assert!(finished.status.success() && !finished.stdout.contains("failed"), "{finished:?}");
    }
    node.stop();
    let told = fixture.swarmdisk.succeed([&commit[..], &["--json"]].concat());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["image_bytes"], &told["chunk_bytes"]), (&IMAGE_BYTES.into(), &65536.into()));
    let (_node, uri) = fixture.attach(&out, "other", &[]);
    NbdDisk::open(&uri).assert_equal(expected.as_ref());
    assert!(different_chunks(&fixture.swarm, out.as_ref()) <= 5);
    let info = fixture.swarmdisk.succeed(["overlay", "info", &overlay, "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!((&info["image"], &info["image_bytes"]), (&fixture.id.as_str().into(), &IMAGE_BYTES.into()));
    assert_eq!((&info["data_bytes"], &info["zero_bytes"]), (&(26 * 4096).into(), &65536.into()), "{info}");
    assert!(info["space_bytes"].as_u64().unwrap() >= 26 * 4096);
}

#[test]
fn commits_that_cannot_be_made() {
    let (fixture, other) = (Fixture::mixed(MIB, 9), Fixture::mixed(MIB, 10));
    let (overlay, swarm, out) = (fixture.text("overlay"), text(&fixture.swarm), fixture.text("out.swarm"));
    let (node, _) = fixture.attach(&swarm, "cache", &["--overlay", &overlay]);
    node.stop();
    let (missing, nowhere, foreign) = (fixture.text("missing"), fixture.text("no/out"), text(&other.swarm));
    for (out, overlay, image, says) in [
        (&out, &missing, &swarm, "cannot open the overlay"),
        (&out, &swarm, &swarm, "it is no overlay"),
        (&out, &overlay, &foreign, "belongs to image"),
        (&out, &overlay, &text(&fixture.raw), "not a .swarm file"),
        (&swarm, &overlay, &swarm, "is the image itself"),
        (&overlay, &overlay, &swarm, "choose another name"),
        (&nowhere, &overlay, &swarm, "choose another name for the output"),
    ] {
        let before = [overlay, image].map(|path| fs::read(path).ok());
        let finished = fixture.swarmdisk.run(["overlay", "commit", out, "--overlay", overlay, image]);
        assert_eq!(finished.status.code(), Some(1), "{says}: {finished:?}");
        assert!(finished.stderr.lines().count() == 1 && finished.stderr.contains(says), "{says}: {finished:?}");
        assert!([overlay, image].map(|path| fs::read(path).ok()) == before, "{says}: something was changed");
    }
    assert!(!fixture.path("out.swarm").exists() && !fixture.path("missing").exists());
    let refused = fixture.swarmdisk.run(["overlay", "info", &missing]);
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("cannot open the overlay"), "{refused:?}");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let fixture = Fixture::mixed(IMAGE_BYTES, 11);
    let (Some(_), Some(tiny)) = (nbdsh(), need(TinyDisk::mount(fixture.path("tiny"), MIB))) else { return };
    let (overlay, swarm) = (text(&tiny.path().join("overlay")), text(&fixture.swarm));
    let script = r#"
import os
h.connect_uri(os.environ["URI"])
model = bytearray(h.pread(h.get_size(), 0))
def write(byte, at, size=65536):
    h.pwrite(byte * size, at); model[at:at + size] = byte * size
at = 0
try:
    while True: write(b"a", at); at += 65536
except nbd.Error as error: assert error.errno == "ENOSPC", error
assert 65536 <= at < 1 << 20, at
try: h.pwrite(b"b" * 65536, 4 << 20); raise AssertionError("no error")
except nbd.Error as error: assert error.errno == "ENOSPC", error
# In place, and durable, all the same.
write(b"c", 4096, 8192); h.flush()
assert h.pread(len(model), 0) == model
h.trim(65536, 0); model[:65536] = bytes(65536)
write(b"d", 4 << 20, 32768); h.flush()
open(os.environ["MODEL"], "wb").write(model)
h.shutdown()
"#;
    let (node, uri) = fixture.attach(&swarm, "cache", &["--overlay", &overlay]);
    let model = fixture.text("model");
    let finished = run_nbdsh(script, &[("URI", &uri), ("MODEL", &model)]).wait(DEADLINE);
    assert!(finished.status.success(), "{finished:?}");
    node.kill();
    let (_node, uri) = fixture.attach(&swarm, "cache", &["--overlay", &overlay]);
    NbdDisk::open(&uri).assert_equal(model.as_ref());
}
