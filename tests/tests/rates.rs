//! `--limit-up` and `--limit-down` hold, measured at the guest over some seconds with bytes that do not compress.

use std::time::Instant;

use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::Fixture;

const IMAGE_BYTES: usize = 20 << 20;
/// 50 Mbit/s: the image takes 3.4 s.
const RATE: &str = "50mbit";
const RATE_BYTES: f64 = 50e6 / 8.0;

/// Reads the whole image; its rate must be the limit's, 5 % more at most. What is below is told, and bounded loosely:
/// a busy machine must not decide.
#[track_caller]
fn measure(what: &str, fixture: &Fixture, uri: &str) {
    let disk = NbdDisk::open(uri);
    let began = Instant::now();
    disk.assert_equal(&fixture.raw);
    let seconds = began.elapsed().as_secs_f64();
    let share = IMAGE_BYTES as f64 / seconds / RATE_BYTES;
    println!("{what} {RATE}: {:.1} % of it over {seconds:.1} s", share * 100.0);
    assert!(share <= 1.05, "{what}: {:.1} % of the limit", share * 100.0);
    assert!(share >= 0.8, "{what}: {:.1} % of the limit", share * 100.0);
}

#[test]
fn a_seed_keeps_its_limit_up() {
    let fixture = Fixture::random(IMAGE_BYTES, 1);
    let (_seed, reference) = fixture.seed(&["--limit-up", RATE]);
    let (_node, uri) = fixture.attach(&reference, "cache", &[]);
    measure("a seed's --limit-up", &fixture, &uri);
}

#[test]
fn a_node_keeps_its_limit_down() {
    let fixture = Fixture::random(IMAGE_BYTES, 2);
    let (_seed, reference) = fixture.seed(&[]);
    let (_node, uri) = fixture.attach(&reference, "cache", &["--limit-down", RATE]);
    measure("a node's --limit-down", &fixture, &uri);
}

#[test]
fn a_node_keeps_its_limit_up() {
    let fixture = Fixture::random(IMAGE_BYTES, 3);
    let (seed, reference) = fixture.seed(&[]);
    let (_first, uri) = fixture.attach(&reference, "first", &["--limit-up", RATE]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    let listens = fixture.image_status(&seed).peers[0].address.clone();
    seed.kill();
    let (_second, uri) = fixture.attach(&format!("swarm://{listens}/{}", fixture.id), "second", &[]);
    measure("a node's --limit-up", &fixture, &uri);
}
