//! A mixed swarm: a seed and nodes on Linux, a node of `swarmdisk.exe` under Wine, which fetches, verifies, serves others and
//! exports over NBD. Whole disks are compared byte for byte, in both directions.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use swarmdisk_host::status::Status;
use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::{Fixture, text, wait_until};
use swarmdisk_tests::process::Process;
use swarmdisk_tests::skip::{find_tool, need};
use swarmdisk_tests::windows::{WindowsSwarmdisk, seen};

const IMAGE_BYTES: u64 = 48 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

/// A node under Wine.
struct WindowsNode {
    process: Process,
    uri: String,
    /// Where others reach it.
    address: String,
}

/// A port of this machine that was free just now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn attach(windows: &WindowsSwarmdisk, fixture: &Fixture, reference: &str, more: &[&str]) -> WindowsNode {
    let (address, cache) = (free_address(), seen(&fixture.path("windows-cache")));
    let own = ["attach", reference, "--nbd", "127.0.0.1:0", "--cache", &cache, "--listen", &address];
    let process = windows.spawn(&[&own[..], more].concat());
    let ready = process.wait_for_line("ready ");
    let uri = ready.trim_end().strip_prefix("ready ").unwrap().to_owned();
    WindowsNode { process, uri, address }
}

/// What nodes under Wine say of themselves.
#[track_caller]
fn status(windows: &WindowsSwarmdisk, uri: &str) -> Status {
    let all: Vec<Status> = serde_json::from_str(&windows.succeed(&["status", "--json"])).unwrap();
    all.into_iter().find(|status| status.place == uri).unwrap_or_else(|| panic!("{uri} is not among them"))
}

/// The reference of an image at another place.
fn reference_at(address: &str, id: &str) -> String {
    format!("swarm://{address}/{id}")
}

#[track_caller]
fn qemu_img_finds_no_difference(uri: &str, fixture: &Fixture) {
    let Some(qemu_img) = need(find_tool("qemu-img", "qemu-utils")) else { return };
    let mut command = Command::new(qemu_img);
    command.args(["compare", "-f", "raw", "-F", "raw", uri, &text(&fixture.raw)]);
    let finished = Process::start(command).wait(DEADLINE);
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn linux_and_windows_nodes_give_each_other_whole_disks() {
    let Some(windows) = need(WindowsSwarmdisk::find()) else { return };
    let fixture = Fixture::mixed(IMAGE_BYTES, 61);
    let (seed, reference) = fixture.seed(&[]);
    let (linux, linux_uri) = fixture.attach(&reference, "linux-cache", &[]);
    assert_eq!(NbdDisk::open(&linux_uri).equal_bytes(&fixture.raw), Ok(IMAGE_BYTES));

    // From Linux to Windows: a tool of Linux reads the disk that swarmdisk.exe exports.
    let node = attach(&windows, &fixture, &reference, &[]);
    qemu_img_finds_no_difference(&node.uri, &fixture);
    assert_eq!(NbdDisk::open(&node.uri).equal_bytes(&fixture.raw), Ok(IMAGE_BYTES));
    let image = status(&windows, &node.uri).images.remove(0);
    assert_eq!(image.held_pieces, image.pieces);
    let fetched = image.fetched_bytes;
    assert!(fetched.origin + fetched.peers > IMAGE_BYTES / 10, "{fetched:?}");

    // From Windows to Linux: nobody else is left.
    drop((seed, linux));
    let alone = reference_at(&node.address, &fixture.id);
    let (taker, taker_uri) = fixture.attach(&alone, "taker-cache", &[]);
    assert_eq!(NbdDisk::open(&taker_uri).equal_bytes(&fixture.raw), Ok(IMAGE_BYTES));
    qemu_img_finds_no_difference(&taker_uri, &fixture);
    let taken = fixture.image_status(&taker).fetched_bytes;
    assert!(taken.origin == 0 && taken.peers > IMAGE_BYTES / 10, "{taken:?}");
    let sent = status(&windows, &node.uri).images.remove(0).uploaded_bytes;
    assert!(sent >= taken.peers, "{sent} of {taken:?}");

    // Killed, it leaves a whole cache: the origin's file, byte for byte.
    node.process.kill();
    let cache = fixture.path("windows-cache");
    assert!(fs::read(fixture.cached("windows-cache")).unwrap() == fs::read(&fixture.swarm).unwrap());
    windows.succeed(&["check", "--cache", &seen(&cache)]);
}

#[test]
fn what_windows_packs_and_seeds_is_what_linux_does() {
    let Some(windows) = need(WindowsSwarmdisk::find()) else { return };
    let fixture = Fixture::mixed(IMAGE_BYTES / 3, 62);
    let packed = fixture.path("windows.swarm");
    assert_eq!(windows.succeed(&["pack", &seen(&fixture.raw), &seen(&packed)]).trim(), fixture.id);
    assert!(fs::read(&packed).unwrap() == fs::read(&fixture.swarm).unwrap());

    let seed = windows.spawn(&["seed", &seen(&packed)]);
    let reference = seed.wait_for_line("swarm://").trim_end().to_owned();
    let (node, uri) = fixture.attach(&reference, "cache", &[]);
    assert_eq!(NbdDisk::open(&uri).equal_bytes(&fixture.raw), Ok(IMAGE_BYTES / 3));
    assert_eq!(fixture.image_status(&node).fetched_bytes.peers, 0);
}

#[test]
fn a_killed_windows_node_goes_on_with_what_it_has() {
    let Some(windows) = need(WindowsSwarmdisk::find()) else { return };
    let fixture = Fixture::mixed(IMAGE_BYTES, 63);
    let (_seed, reference) = fixture.seed(&[]);
    let node = attach(&windows, &fixture, &reference, &["--prefetch", "off"]);
    // Some of it: the first 16 MiB.
    let disk = NbdDisk::open(&node.uri);
    for offset in (0..16).map(|mib| mib << 20) {
        disk.read(offset, 1 << 20).unwrap();
    }
    let held = |uri: &str| status(&windows, uri).images[0].held_pieces;
    wait_until("what was read is kept", || held(&node.uri) > 256);
    let before = held(&node.uri);
    node.process.kill();

    let again = attach(&windows, &fixture, &reference, &["--prefetch", "off"]);
    assert!(held(&again.uri) >= before);
    assert_eq!(NbdDisk::open(&again.uri).equal_bytes(&fixture.raw), Ok(IMAGE_BYTES));
    let image = status(&windows, &again.uri).images.remove(0);
    let whole = fs::metadata(&fixture.swarm).unwrap().len();
    assert!(image.fetched_bytes.origin < whole, "{:?} of {whole}", image.fetched_bytes);
}
