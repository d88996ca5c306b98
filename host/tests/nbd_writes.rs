//! Writes over NBD into an overlay, by clients that others wrote; what they wrote is there after the file is opened anew.
//!
//! A tool that is missing skips its test, which is printed; with `CI=true` it fails it.
#![cfg(unix)]

mod tools;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmdisk_common::trace::Trace;
use swarmdisk_core::ids::{Digest, GuestId};
use swarmdisk_host::disk::{Disk, FileDisk};
use swarmdisk_host::nbd::{NbdClient, NbdServer, ServerConfig};
use swarmdisk_host::overlay::{Overlay, OverlayFile, Survival};
use swarmdisk_host::replay::{ReplayOptions, replay_target};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tools::{have, nbdsh, run, run_well};

const IMAGE: Digest = Digest([9; 32]);
const MIB: u64 = 1 << 20;
/// Two pages of the map, and an odd end.
const IMAGE_BYTES: u64 = 65 * MIB + 1536;

/// An image and its overlay.
struct Place {
    folder: TempDir,
    image: PathBuf,
}

/// A server over them.
struct Served {
    uri: String,
    disk: Arc<Overlay<FileDisk>>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = fs::File::create(&image).unwrap();
        file.set_len(IMAGE_BYTES).unwrap();
        for mib in (0..65).step_by(4) {
            let block: Vec<u8> = (0..MIB / 8).flat_map(|at| (at * 7919 + mib).to_le_bytes()).collect();
            file.write_all_at(&block, mib * MIB).unwrap();
        }
        Self { folder, image }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    async fn serve(&self) -> Served {
        let file =
            OverlayFile::open_or_create(&self.folder.path().join("overlay"), IMAGE, IMAGE_BYTES, Survival::Flushed)
                .unwrap();
        self.serve_disk(Overlay::in_file(FileDisk::open(&self.image).unwrap(), file).unwrap()).await
    }

    async fn serve_disk(&self, disk: Overlay<FileDisk>) -> Served {
        let disk = Arc::new(disk);
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = NbdServer::bind(&listen, disk.clone(), ServerConfig::default()).await.unwrap();
        let uri = server.uri().to_string();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Served { uri, disk, stop, running }
    }
}

impl Served {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.running).await.expect("shuts down in time").unwrap();
        self.disk.flush().await.unwrap();
        Arc::into_inner(self.disk).expect("nobody else has it");
    }
}

/// Writes that overlap, are longer than a request may be, and are read in between.
const TRACE: &str = "0 W 4096 8192\n10 R 0 65536\n300 W 5000 100\n600 R 4096 4096\n900 W 1048576 41943040\n\
                     1200 R 1000000 1000000\n1300 R 40000000 3000000\n1600 W 68157952 1024\n1700 R 68157440 1536\n";

async fn replay_writes(uri: &str, place: &Place) {
    let options = ReplayOptions { writes: true, verify: Some(place.image.clone()), ..Default::default() };
    let report = replay_target(&Trace::parse(TRACE.as_bytes()).unwrap(), uri, &options).await.unwrap();
    assert_eq!((report.reads, report.writes, report.mismatches), (5, 4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_writes_to_our_server() {
    let place = Place::new();
    let served = place.serve().await;
    replay_writes(&served.uri, &place).await;
    let client = NbdClient::connect(&served.uri.parse().unwrap()).await.unwrap();
    assert_eq!(client.read_at(5000, 100).await.unwrap().concat().len(), 100);
    let beyond = client.write_at(IMAGE_BYTES - 1, vec![0; 2].into()).await.unwrap_err().to_string();
    assert_eq!(beyond, format!("the NBD server could not write 2 bytes at {}: it is beyond the end", IMAGE_BYTES - 1));
    client.disconnect().await;
    served.stop().await;
    // It was flushed: who opens the file anew has it, and the image does not.
    let served = place.serve().await;
    let read = served.disk.read(GuestId(0), 1 << 20, 4096).await.unwrap().concat();
    let image = fs::read(&place.image).unwrap();
    assert!(read != image[1 << 20..][..4096]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_writes_to_qemu_nbd() {
    if !have("our_client_writes_to_qemu_nbd", "qemu-nbd", "qemu-utils") {
        return;
    }
    let place = Place::new();
    let (copy, socket) = (place.file("copy"), place.file("socket"));
    fs::copy(&place.image, &copy).unwrap();
    let mut command = Command::new("qemu-nbd");
    command.args(["-t", "-f", "raw", "-x", "", "-k", &socket, &copy]).stdin(Stdio::null()).kill_on_drop(true);
    let mut server = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !fs::exists(&socket).unwrap() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    replay_writes(&format!("nbd+unix:///?socket={socket}"), &place).await;
    server.kill().await.unwrap();
    let (copy, image) = (fs::read(&copy).unwrap(), fs::read(&place.image).unwrap());
    assert!(copy[..4096] == image[..4096] && copy[4096..12288] != image[4096..12288]);
    assert!(copy[41 << 20..68_157_952] == image[41 << 20..68_157_952]);
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_io_writes_zeroes_and_discards() {
    if !have("qemu_io_writes_zeroes_and_discards", "qemu-io", "qemu-utils") {
        return;
    }
    let place = Place::new();
    let expected = place.file("expected");
    fs::copy(&place.image, &expected).unwrap();
    let changes = [
        "write -P 0x11 0 64k",
        "write -P 0x22 1M 4k",
        "write -P 0x33 5000 3000",
        "write -f -P 0x44 33M 1M",
        "write -z 512 7k",
        "write -z -u 2M 3M",
        "write -P 0x55 63M 2M",
        "discard 8M 1M",
        "write -z 8M 1M",
        "writev -P 0x66 12345 100 4000 9000",
        "write -P 0x77 68157952 1024",
        "flush",
    ];
    let with = |uri: &str| {
        let commands = changes.iter().flat_map(|change| ["-c".to_owned(), change.to_string()]);
        ["-f", "raw", "-d", "unmap"]
            .iter()
            .map(|word| word.to_string())
            .chain(commands)
            .chain([uri.to_owned()])
            .collect()
    };
    let served = place.serve().await;
    for target in [&served.uri, &expected] {
        let arguments: Vec<String> = with(target);
        let out = run_well("qemu-io", &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(!out.contains("failed"), "{out}");
    }
    let compare = async |uri: &str| run_well("qemu-img", &["compare", "-f", "raw", "-F", "raw", uri, &expected]).await;
    compare(&served.uri).await;
    served.stop().await;
    let again = place.serve().await;
    compare(&again.uri).await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdcopy_fills_the_disk() {
    if !have("nbdcopy_fills_the_disk", "nbdcopy", "libnbd-bin") {
        return;
    }
    let place = Place::new();
    let other = place.file("other");
    let file = fs::File::create(&other).unwrap();
    file.set_len(IMAGE_BYTES).unwrap();
    for mib in (0..65).step_by(3) {
        file.write_all_at(&vec![mib as u8 + 1; 700_000], mib * MIB + 77).unwrap();
    }
    let served = place.serve().await;
    for more in ["--connections=1", "--connections=4"] {
        run_well("nbdcopy", &[more, "--flush", &other, &served.uri]).await;
    }
    served.stop().await;
    let again = place.serve().await;
    let copy = place.file("copy");
    run_well("nbdcopy", &[&again.uri, &copy]).await;
    assert!(fs::read(&copy).unwrap() == fs::read(&other).unwrap(), "the copy differs");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fio_finds_what_it_wrote() {
    if !have("fio_finds_what_it_wrote", "fio", "fio") {
        return;
    }
    if !run("fio", &["--enghelp"]).await.out.lines().any(|line| line.trim() == "nbd") {
        eprintln!("SKIPPED fio_finds_what_it_wrote: install a fio with its nbd engine");
        return;
    }
    let place = Place::new();
    let served = place.serve().await;
    let uri = format!("--uri={}", served.uri);
    let (state, size) = (format!("--aux-path={}", place.folder.path().display()), "--size=24m");
    let common =
        ["--name=v", "--ioengine=nbd", &uri, "--rw=randwrite", "--bsrange=512-128k", "--iodepth=32", size, &state];
    let verify = ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--fsync=50", "--serialize_overlap=1"];
    run_well("fio", &[&common[..], &verify].concat()).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn libnbd_writes_at_the_edges() {
    if !have("libnbd_writes_at_the_edges", "nbdsh", "python3-libnbd") {
        return;
    }
    let place = Place::new();
    let served = place.serve().await;
    let script = r#"
import os
uri = os.environ["URI"]
model = bytearray(open(os.environ["IMAGE"], "rb").read())
size = len(model)
def fails(call, number):
    try: call()
    except nbd.Error as error:
        assert error.errno == number, (error, number)
        return
    raise AssertionError("no error")
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
assert not h.is_read_only() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_flush() and h.can_multi_conn()
assert not h.can_fast_zero()
def write(data, offset, flags=0):
    h.pwrite(data, offset, flags); model[offset:offset + len(data)] = data
write(b"x", 0); write(b"yz", size - 2); write(b"w" * 5000, 4095, nbd.CMD_FLAG_FUA); write(b"q" * (32 << 20), 3)
h.zero(10000, 4097); model[4097:14097] = bytes(10000)
h.zero(8192, 40960, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA); model[40960:49152] = bytes(8192)
h.trim(8192, 65536, nbd.CMD_FLAG_FUA); model[65536:73728] = bytes(8192)
h.trim(100, 1)
h.zero(size - (40 << 20), 40 << 20); model[40 << 20:] = bytes(size - (40 << 20))
fails(lambda: h.pwrite(b"ab", size - 1), "ENOSPC")
fails(lambda: h.zero(2, size - 1), "ENOSPC")
fails(lambda: h.trim(2, size - 1), "EINVAL")
fails(lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO), "EINVAL")
fails(lambda: h.pwrite(b"ab", 0, nbd.CMD_FLAG_DF), "EINVAL")
assert h.pread(9, 0, nbd.CMD_FLAG_FUA) == model[:9]
h.flush(nbd.CMD_FLAG_FUA)
def check(n):
    for at in range(0, size, 16 << 20):
        count = min(16 << 20, size - at)
        assert n.pread(count, at) == model[at:at + count], at
check(h)
zeros = []
h.block_status(size - (40 << 20), 40 << 20, lambda *a: zeros.append(a[2]))
assert zeros == [[size - (40 << 20), 3]], zeros
# What one connection was answered, another's flush covers, and both see.
g = nbd.NBD(); g.connect_uri(uri)
g.pwrite(b"two", 500); model[500:503] = b"two"
h.flush()
check(h); check(g)
g.shutdown(); h.shutdown()
"#;
    let image = place.image.to_str().unwrap();
    nbdsh("libnbd_writes_at_the_edges", script, &[("URI", &served.uri), ("IMAGE", image)]).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_says_so_and_goes_on() {
    if !have("a_full_disk_says_so_and_goes_on", "nbdsh", "python3-libnbd") {
        return;
    }
    let place = Place::new();
    let served = place.serve_disk(Overlay::in_memory(FileDisk::open(&place.image).unwrap(), 4 * MIB).unwrap()).await;
    let script = r#"
h.connect_uri(__import__("os").environ["URI"])
h.pwrite(b"a" * (4 << 20), 0)
try: h.pwrite(b"b" * 4096, 8 << 20); raise AssertionError("no error")
except nbd.Error as error: assert error.errno == "ENOSPC", error
h.pwrite(b"c" * 4096, 4096)
h.trim(8192, 0)
h.pwrite(b"b" * 4096, 8 << 20)
assert h.pread(12288, 0) == bytes(8192) + b"a" * 4096 and h.pread(4096, 8 << 20) == b"b" * 4096
h.shutdown()
"#;
    nbdsh("a_full_disk_says_so_and_goes_on", script, &[("URI", &served.uri)]).await;
    served.stop().await;
}
