//! The tools that people have, on a disk whose bytes come from a swarm: each begins with a cold cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use swarmdisk_tests::fixture::{Fixture, text};
use swarmdisk_tests::process::{Finished, Process};
use swarmdisk_tests::skip::{find_tool, need};

const MIB: u64 = 1 << 20;
const IMAGE_BYTES: u64 = 24 * MIB;
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs a tool to its end.
#[track_caller]
fn run(tool: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(tool);
    command.args(arguments);
    Process::start(command).wait(DEADLINE)
}

#[track_caller]
fn succeed(tool: &Path, arguments: &[&str]) -> String {
    let finished = run(tool, arguments);
    assert!(finished.status.success(), "{arguments:?}: {finished:?}");
    finished.stdout
}

/// A seed, and a node that has nothing yet.
struct Cold {
    fixture: Fixture,
    uri: String,
    _seed: Process,
    _node: Process,
}

fn cold(seed: u64) -> Cold {
    let fixture = Fixture::mixed(IMAGE_BYTES, seed);
    let (seed, reference) = fixture.seed(&[]);
    let (node, uri) = fixture.attach(&reference, "cache", &[]);
    Cold { fixture, uri, _seed: seed, _node: node }
}

/// Tools, or none of them.
fn tools<const N: usize>(wanted: [(&str, &str); N]) -> Option<[PathBuf; N]> {
    let found: Option<Vec<PathBuf>> = wanted.iter().map(|(tool, package)| need(find_tool(tool, package))).collect();
    found?.try_into().ok()
}

#[test]
fn nbdinfo_tells_what_it_is_and_where_the_holes_are() {
    let Some([nbdinfo]) = tools([("nbdinfo", "libnbd-bin")]) else { return };
    let cold = cold(1);
    let told: Value = serde_json::from_str(&succeed(&nbdinfo, &["--json", &cold.uri])).unwrap();
    let export = &told["exports"][0];
    assert_eq!((&export["export-size"], &export["is_read_only"]), (&IMAGE_BYTES.into(), &true.into()), "{told}");
    let map: Value = serde_json::from_str(&succeed(&nbdinfo, &["--map", "--json", &cold.uri])).unwrap();
    let image = fs::read(&cold.fixture.raw).unwrap();
    let mut next = 0;
    let mut holes = 0;
    for extent in map.as_array().unwrap() {
        let [offset, length, kind] = ["offset", "length", "type"].map(|name| extent[name].as_u64().unwrap());
        assert_eq!(offset, next, "{map}");
        next += length;
        let bytes = &image[offset as usize..next as usize];
        let is_hole = kind == 3;
        assert!(is_hole || kind == 0, "{extent}");
        assert!(bytes.chunks(64 << 10).all(|chunk| chunk.iter().all(|&byte| byte == 0) == is_hole), "{extent}");
        holes += u64::from(is_hole);
    }
    assert_eq!(next, IMAGE_BYTES);
    assert!(holes > 10, "{map}");
}

#[test]
fn nbdcopy_copies_every_byte() {
    let Some([nbdcopy]) = tools([("nbdcopy", "libnbd-bin")]) else { return };
    let cold = cold(2);
    let copy = cold.fixture.path("copy.raw");
    succeed(&nbdcopy, &[&cold.uri, &text(&copy)]);
    assert!(fs::read(&copy).unwrap() == fs::read(&cold.fixture.raw).unwrap(), "the copy differs");
}

#[test]
fn qemu_reads_every_byte_and_cannot_write() {
    let Some([qemu_img, qemu_io]) = tools([("qemu-img", "qemu-utils"), ("qemu-io", "qemu-utils")]) else { return };
    let cold = cold(3);
    let raw = text(&cold.fixture.raw);
    let info: Value = serde_json::from_str(&succeed(&qemu_img, &["info", "--output=json", &cold.uri])).unwrap();
    assert_eq!(info["virtual-size"], IMAGE_BYTES);
    // Odd places first, while nothing is there.
    let image = fs::read(&cold.fixture.raw).unwrap();
    for (offset, bytes) in [(512, 512), (65_024, 1024), (5 * MIB + 512, 3 * MIB + 512), (IMAGE_BYTES - 512, 512)] {
        let part = cold.fixture.path("part");
        fs::write(&part, &image[offset as usize..(offset + bytes) as usize]).unwrap();
        let read = format!("read -v {offset} {bytes}");
        let there = succeed(&qemu_io, &["-r", "-f", "raw", "-c", &read, &cold.uri]);
        let here = succeed(&qemu_io, &["-r", "-f", "raw", "-c", &read, &raw]);
        assert!(dump(&there) == dump(&here) && dump(&here).len() as u64 == bytes / 16, "{read}");
    }
    succeed(&qemu_img, &["compare", "-f", "raw", "-F", "raw", &cold.uri, &raw]);
    let refused = run(&qemu_io, &["-f", "raw", "-c", "write 0 512", &cold.uri]);
    let said = refused.stdout.clone() + &refused.stderr;
    assert!(!refused.status.success() || said.contains("failed"), "{refused:?}");
    assert!(["Permission denied", "not permitted", "ead-only"].iter().any(|word| said.contains(word)), "{said}");
    succeed(&qemu_img, &["compare", "-f", "raw", "-F", "raw", &cold.uri, &raw]);
}

/// The lines of a hex dump.
fn dump(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.len() > 10 && line.as_bytes()[8] == b':').collect()
}

#[test]
fn fio_reads_with_many_jobs() {
    let Some([fio]) = tools([("fio", "fio")]) else { return };
    let cold = cold(4);
    let uri = format!("--uri={}", cold.uri);
    let arguments = [
        "--name=jobs",
        "--ioengine=nbd",
        &uri,
        "--rw=randread",
        "--bsrange=512-256k",
        "--numjobs=4",
        "--iodepth=16",
        "--size=6M",
        "--offset_increment=6M",
        "--group_reporting",
        "--output-format=json",
    ];
    let told = succeed(&fio, &arguments);
    let told: Value = serde_json::from_str(&told[told.find('{').unwrap()..]).unwrap();
    let job = &told["jobs"][0];
    assert_eq!((&job["error"], &job["read"]["io_bytes"]), (&0.into(), &IMAGE_BYTES.into()), "{job}");
    println!("fio: {} reads, {} KiB/s", job["read"]["total_ios"], job["read"]["bw"]);
}
