//! The cache of a node: kept within a bound, shared between versions of an image, on a disk that is full.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::{Fixture, read_report, text, wait_until};
use swarmdisk_tests::process::Process;
use swarmdisk_tests::skip::{find_tool, need};
use swarmdisk_tests::tiny::TinyDisk;

const MIB: u64 = 1 << 20;

#[test]
fn a_committed_overlay_costs_a_node_only_what_was_written() {
    let Some(qemu_io) = need(find_tool("qemu-io", "qemu-utils")) else { return };
    let fixture = Fixture::mixed(24 * MIB, 20);
    let swarm = text(&fixture.swarm);
    let (overlay, next) = (fixture.text("overlay"), fixture.text("next.swarm"));
    let (node, uri) = fixture.attach(&swarm, "unused", &["--overlay", &overlay]);
    let mut command = Command::new(qemu_io);
    command.args(["-f", "raw", "-c", "write -P 9 5M 100k", "-c", "write -P 8 17M 4k", &uri]);
    let written = Process::start(command).wait(Duration::from_secs(60));
    assert!(written.status.success(), "{written:?}");
    node.stop();
    fixture.swarmdisk.succeed(["overlay", "commit", &next, "--overlay", &overlay, &swarm]);

    let (_seed, reference) = fixture.seed(&[]);
    let (node, uri) = fixture.attach(&reference, "cache", &[]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    node.stop();
    let (seed, reference) = fixture.swarmdisk.seed([&next]);
    let report = fixture.text("report.json");
    let (node, uri) = fixture.attach(&reference, "cache", &["--report", &report]);
    let (checker, expected) = fixture.attach(&next, "unused", &[]);
    let disk = NbdDisk::open(&expected);
    let parts = (0..disk.bytes() / MIB).map(|part| disk.read(part * MIB, MIB as u32).unwrap());
    fs::write(fixture.path("next.raw"), parts.collect::<Vec<_>>().concat()).unwrap();
    NbdDisk::open(&uri).assert_equal(&fixture.path("next.raw"));
    checker.stop();
    let (here, there) = (fixture.image_status(&node), fixture.image_status(&seed));
    node.stop();
    let report = read_report(Path::new(&report));
    // Three chunks were written to, and what they hold compresses well.
    assert!(report.fetched_bytes.origin <= 3 << 16, "{report:?}");
    assert!(report.other_images_bytes > 20 * report.fetched_bytes.origin, "{report:?}");
    assert_eq!(here.other_images_bytes, report.other_images_bytes);
    // Beside these chunks two leaf pages.
    assert!(there.uploaded_bytes <= (3 << 16) + 2 * 9224, "{there:?}");
}

#[test]
fn a_bound_is_kept_told_and_refused_if_it_is_too_small() {
    let fixture = Fixture::random(16 << 20, 21);
    let (_seed, reference) = fixture.seed(&[]);
    let report = fixture.text("report.json");
    let (node, uri) = fixture.attach(&reference, "cache", &["--cache-size", "5M", "--report", &report]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    let status = fixture.image_status(&node);
    let cache = status.cache.unwrap();
    assert!(cache.held_bytes <= 5 << 20 && cache.held_bytes > 4 << 20, "{cache:?}");
    assert_eq!((cache.bound_bytes, cache.limit_bytes), (5 << 20, 5 << 20));
    assert!(status.disk_bytes <= (5 << 20) + 3 * 4096, "{status:?}");
    let told = fixture.swarmdisk.succeed(["status"]);
    assert!(told.contains("chunks evicted"), "{told}");
    node.stop();
    assert!(read_report(Path::new(&report)).evictions >= 170);

    let refused = |target: &str, more: &[&str], says: &str| {
        let cache = fixture.text("cache");
        let arguments = [&["attach", target, "--nbd", "127.0.0.1:0", "--cache", &cache][..], more].concat();
        let finished = fixture.swarmdisk.run(arguments);
        assert_eq!(finished.status.code(), Some(2), "{finished:?}");
        assert!(finished.stderr.lines().count() == 1 && finished.stderr.contains(says), "{finished:?}");
    };
    refused(&reference, &["--cache-size", "1M"], "it takes 2058K at the least");
    refused(&reference, &["--cache-size", "much"], "`much` is no size");
    refused(&text(&fixture.swarm), &["--cache-size", "5M"], "is no cache");
}

#[test]
fn a_full_disk_is_survived() {
    let fixture = Fixture::random(8 << 20, 22);
    let Some(_tiny) = need(TinyDisk::mount(fixture.path("tiny"), 3 << 20)) else { return };
    let (_seed, reference) = fixture.seed(&[]);
    let (mut node, uri) = fixture.attach(&reference, "tiny", &[]);
    for _ in 0..2 {
        NbdDisk::open(&uri).assert_equal(&fixture.raw);
    }
    assert!(fixture.image_status(&node).store_fails);
    assert!(node.is_running() && node.stderr().lines().count() == 1, "said once is enough: {}", node.stderr());
    node.stop();

    // With a bound above what there is something goes, and what comes is kept again.
    let (node, uri) = fixture.attach(&reference, "tiny", &["--cache-size", "20M"]);
    let held = || fixture.image_status(&node).cache.unwrap();
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    wait_until("something went", || held().evictions > 0);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    assert!(held().evictions > 10, "{:?}", held());
    assert!(node.stderr().lines().count() <= 2, "{}", node.stderr());
}
