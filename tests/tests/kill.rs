//! `kill -9` of a node at random moments of a boot: the next one goes on where it was, with not one byte wrong.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use swarmdisk_host::store::Store;
use swarmdisk_tests::appliance::Appliance;
use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::{Fixture, read_report, text};
use swarmdisk_tests::images::{Numbers, folder};
use swarmdisk_tests::process::{DEADLINE, Swarmdisk};
use swarmdisk_tests::skip::{find_tool, need};

const MIB: u64 = 1 << 20;
const IMAGE_BYTES: u64 = 64 * MIB;
const KILLS: u32 = 20;
/// What the seed may have sent that a killed node had not recorded: the 16 requests that a node may have waiting at one
/// peer, of a chunk each, which is the longest payload.
const IN_FLIGHT_BYTES: u64 = 16 * (64 << 10);

/// A boot as a trace: it jumps, reads on a little, thinks; much of it comes back.
fn write_boot(path: &Path, numbers: &mut Numbers) {
    let (mut micros, mut lines) = (0, String::new());
    for _ in 0..500 {
        let mut offset = numbers.below(IMAGE_BYTES - MIB) / 4096 * 4096;
        for _ in 0..=numbers.below(4) {
            let bytes = 4096 << numbers.below(6);
            lines += &format!("{micros} R {offset} {bytes}\n");
            offset += bytes;
            micros += numbers.below(100);
        }
    }
    fs::write(path, lines).unwrap();
}

/// Payload bytes that a cache holds.
fn held_bytes(dir: &Path, swarm: &Path) -> u64 {
    let original = Store::open_complete(swarm).unwrap();
    let cache = Store::open_cache(dir, original.image(), original.manifest_bytes()).unwrap();
    let pieces = cache.held_runs().into_iter().flat_map(|(first, count)| first.get()..first.get() + count);
    let pieces = pieces.filter_map(|index| cache.geometry().piece(index));
    pieces.map(|piece| u64::from(original.payload_bytes(piece).unwrap())).sum()
}

#[test]
fn a_killed_node_goes_on_where_it_was() {
    // The judge after each kill; without it, the product's own client.
    let nbdcopy = need(find_tool("nbdcopy", "libnbd-bin"));
    let seed_number = u64::from(std::process::id());
    println!("numbers from {seed_number}");
    let mut numbers = Numbers(seed_number);
    let fixture = Fixture::mixed(IMAGE_BYTES, seed_number);
    let (trace, raw) = (fixture.text("boot.trace"), text(&fixture.raw));
    write_boot(Path::new(&trace), &mut numbers);
    // Slow enough that the boot lasts over all the kills; the judges have a seed of their own.
    let (seed, reference) = fixture.seed(&["--limit-up", "100mbit"]);
    let (_quick_seed, quick) = fixture.seed(&[]);
    let (cache, copy) = (fixture.path("cache"), fixture.path("copy"));
    let (mut held, mut sent) = (Vec::new(), Vec::new());

    for kill in 0..KILLS {
        let (node, uri) = fixture.attach(&reference, "cache", &[]);
        let boot = fixture.swarmdisk.spawn(["replay", &trace, "--disk", &uri, "--verify", &raw]);
        let lives = Duration::from_millis(numbers.below(300));
        thread::sleep(lives);
        node.kill();
        let finished = boot.wait(DEADLINE);
        assert!(!finished.stderr.contains("not what the image says"), "kill {kill}: {finished:?}");

        // A copy, so that the cache itself stays as half full as it is.
        fs::create_dir_all(&copy).unwrap();
        for entry in fs::read_dir(&cache).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        held.push(held_bytes(&copy, &fixture.swarm));
        sent.push(fixture.image_status(&seed).uploaded_bytes);
        let (judge, uri) = fixture.attach(&quick, "copy", &[]);
        if let Some(nbdcopy) = &nbdcopy {
            let copied = fixture.path("copied.raw");
            let status = Command::new(nbdcopy).arg(&uri).arg(&copied).status().unwrap();
            assert!(status.success(), "kill {kill}: {status}");
            assert!(fs::read(&copied).unwrap() == fs::read(&fixture.raw).unwrap(), "kill {kill}: the copy differs");
            fs::remove_file(&copied).unwrap();
        } else {
            NbdDisk::open(&uri).assert_equal(&fixture.raw);
        }
        judge.kill();
        fs::remove_dir_all(&copy).unwrap();
    }
    println!("held after each kill: {held:?}\nsent until then: {sent:?}");
    assert!(held.is_sorted(), "what was held is held");
    let last_killed = *held.last().unwrap();
    assert!(last_killed > 0, "no boot came far enough to be of use");

    // To the end: what the last one fetches is no more than what the killed ones had not.
    let report = fixture.text("report.json");
    let (node, uri) = fixture.attach(&reference, "cache", &["--report", &report]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    node.stop();
    let (all, sent) = (held_bytes(&cache, &fixture.swarm), fixture.image_status(&seed).uploaded_bytes);
    let report = read_report(Path::new(&report));
    let twice = sent.saturating_sub(all);
    println!("{all} bytes held in the end, {sent} sent, {twice} twice: {} a kill", twice / u64::from(KILLS));
    assert!(sent >= all, "{sent} {all}");
    assert!(twice <= u64::from(KILLS) * IN_FLIGHT_BYTES, "{twice} bytes were sent twice");
    assert!(report.fetched_bytes.origin <= all - last_killed, "{report:?}");
    assert_eq!(report.corrupt_pieces, 0);
}

#[test]
fn the_appliance_outlives_a_kill() {
    let (Some(appliance), Some(qemu_img)) = (need(Appliance::get()), need(find_tool("qemu-img", "qemu-utils"))) else {
        return;
    };
    let (swarmdisk, folder) = (Swarmdisk::find(), folder());
    let (swarm, cache) = (text(&folder.path().join("disk.swarm")), text(&folder.path().join("cache")));
    let disk = text(&appliance.disk);
    swarmdisk.succeed(["pack", &disk, &swarm, "--level", "1"]);
    let (_seed, reference) = swarmdisk.seed([&swarm]);
    let attach = [reference.as_str(), "--nbd", "127.0.0.1:0", "--cache", &cache];
    let (node, uri) = swarmdisk.attach(attach);
    let compare = |uri: &str| {
        let mut command = Command::new(&qemu_img);
        command.args(["compare", "-f", "raw", "-F", "raw", uri, &disk]);
        swarmdisk_tests::process::Process::start(command)
    };
    let boot = compare(&uri);
    thread::sleep(Duration::from_millis(1500));
    node.kill();
    drop(boot);
    let (_node, uri) = swarmdisk.attach(attach);
    let compared = compare(&uri).wait(Duration::from_secs(120));
    assert!(compared.status.success(), "{compared:?}");
}
