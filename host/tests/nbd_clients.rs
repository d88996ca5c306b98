//! The NBD server against clients, and the NBD client against servers, that others wrote.
//!
//! A tool that is missing skips its test, which is printed; with `CI=true` it fails it.
#![cfg(unix)]

mod tools;

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use swarmdisk_common::trace::Trace;
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::disk::{Disk, FileDisk};
use swarmdisk_host::nbd::server::ServerError;
use swarmdisk_host::nbd::{NbdClient, NbdListen, NbdServer, NbdUri, ServerConfig};
use swarmdisk_host::replay::{ReplayOptions, replay_target};
use swarmdisk_host::socket_file::SocketFileError;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tools::{have, nbdsh, run, run_well};

const IMAGE_BYTES: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

/// A sparse image with data in its first 8 MiB and in every eighth MiB after.
fn write_image(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(IMAGE_BYTES).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for mib in (0..8).chain((8..64).step_by(8)) {
        let mut block = Vec::with_capacity(MIB as usize);
        while block.len() < MIB as usize {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            block.extend((state >> 7).to_le_bytes());
        }
        file.write_all_at(&block, mib * MIB).unwrap();
    }
}

/// Our server over an image, on TCP or on a Unix socket.
struct Served {
    folder: TempDir,
    image: PathBuf,
    uri: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Served {
    async fn tcp() -> Self {
        let listen = |_: &Path| "127.0.0.1:0".parse().unwrap();
        Self::start(listen).await
    }

    async fn unix() -> Self {
        Self::start(|folder| NbdListen::Unix(folder.join("the socket"))).await
    }

    async fn start(listen: impl Fn(&Path) -> NbdListen) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        write_image(&image);
        let disk = Arc::new(FileDisk::open(&image).unwrap());
        let config = ServerConfig { description: "a test image".into(), ..Default::default() };
        let server = NbdServer::bind(&listen(folder.path()), disk, config).await.unwrap();
        let uri = server.uri().to_string();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { folder, image, uri, stop, running }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn image(&self) -> &str {
        self.image.to_str().unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.running).await.expect("shuts down in time").unwrap();
    }
}

/// Once over TCP, once over a Unix socket.
async fn on_both<F: Future<Output = ()>>(test: impl Fn(Arc<Served>) -> F) {
    for served in [Served::tcp().await, Served::unix().await] {
        let served = Arc::new(served);
        test(Arc::clone(&served)).await;
        Arc::into_inner(served).unwrap().stop().await;
    }
}

fn same(left: &str, right: &str) -> bool {
    std::fs::read(left).unwrap() == std::fs::read(right).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_tells_what_is_served() {
    if !have("nbdinfo_tells_what_is_served", "nbdinfo", "libnbd-bin") {
        return;
    }
    on_both(async |served: Arc<Served>| {
        let json: serde_json::Value =
            serde_json::from_str(&run_well("nbdinfo", &["--json", &served.uri]).await).unwrap();
        let export = &json["exports"][0];
        assert_eq!(json["protocol"], "newstyle-fixed");
        assert_eq!(json["structured"], true);
        assert_eq!(export["export-size"], IMAGE_BYTES);
        assert_eq!(
            (&export["is_read_only"], &export["can_multi_conn"], &export["can_df"]),
            (&true.into(), &true.into(), &true.into())
        );
        assert_eq!((&export["block_size_minimum"], &export["block_size_maximum"]), (&1.into(), &(32 * MIB).into()));
        assert_eq!(export["contexts"][0], "base:allocation");
        let list = run_well("nbdinfo", &["--list", &served.uri]).await;
        assert!(list.contains("export=\"\"") && list.contains("a test image"), "{list}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_sees_the_holes() {
    if !have("nbdinfo_sees_the_holes", "nbdinfo", "libnbd-bin") {
        return;
    }
    let served = Served::tcp().await;
    let map = run_well("nbdinfo", &["--map", "--json", &served.uri]).await;
    let extents: Vec<serde_json::Value> = serde_json::from_str(&map).unwrap();
    let sum: u64 = extents.iter().map(|extent| extent["length"].as_u64().unwrap()).sum();
    assert_eq!(sum, IMAGE_BYTES);
    // 0..9 MiB are data, then a hole up to 16 MiB: if the folder's file system has holes at all.
    let first = FileDisk::open(&served.image).unwrap().extents(GuestId(0), 0, IMAGE_BYTES, 1).await.unwrap()[0];
    assert_eq!(extents[0]["length"].as_u64().unwrap(), first.bytes);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_guests() {
    if !have("names_are_guests", "nbdinfo", "libnbd-bin") {
        return;
    }
    let served = Served::tcp().await;
    assert_eq!(
        run_well("nbdinfo", &["--size", &format!("{}/guest-7", served.uri)]).await.trim(),
        IMAGE_BYTES.to_string()
    );
    let refused = run("nbdinfo", &["--size", &format!("{}/other", served.uri)]).await;
    assert!(!refused.success, "{}", refused.all);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdcopy_copies_every_byte() {
    if !have("nbdcopy_copies_every_byte", "nbdcopy", "libnbd-bin") {
        return;
    }
    on_both(async |served: Arc<Served>| {
        for (name, more) in
            [("one", ["--connections=1", "--requests=64"]), ("four", ["--connections=4", "--requests=16"])]
        {
            let copy = served.file(name);
            run_well("nbdcopy", &[more[0], more[1], &served.uri, &copy]).await;
            assert!(same(&copy, served.image()));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_img_finds_no_difference() {
    if !have("qemu_img_finds_no_difference", "qemu-img", "qemu-utils") {
        return;
    }
    on_both(async |served: Arc<Served>| {
        run_well("qemu-img", &["compare", "-f", "raw", "-F", "raw", &served.uri, served.image()]).await;
        let copy = served.file("converted");
        run_well("qemu-img", &["convert", "-f", "raw", "-O", "raw", &served.uri, &copy]).await;
        assert!(same(&copy, served.image()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_io_reads_but_does_not_write() {
    if !have("qemu_io_reads_but_does_not_write", "qemu-io", "qemu-utils") {
        return;
    }
    on_both(async |served: Arc<Served>| {
        let read = ["-r", "-f", "raw", "-c", "read -P 0 9M 7M", "-c", "read 1 4097", "-c", "read 32M 32M", &served.uri];
        let out = run_well("qemu-io", &read).await;
        assert!(!out.contains("failed"), "{out}");
        let write = run("qemu-io", &["-f", "raw", "-c", "write 0 4096", &served.uri]).await;
        assert!(!write.success, "{}", write.all);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fio_reads_at_random() {
    if !have("fio_reads_at_random", "fio", "fio") {
        return;
    }
    let engines = run("fio", &["--enghelp"]).await.out;
    if !engines.lines().any(|line| line.trim() == "nbd") {
        eprintln!("SKIPPED fio_reads_at_random: install a fio with its nbd engine");
        return;
    }
    let served = Served::unix().await;
    let uri = format!("--uri={}", served.uri);
    let fio = [
        "--name=r",
        "--ioengine=nbd",
        &uri,
        "--rw=randread",
        "--bs=4k",
        "--iodepth=64",
        "--size=32m",
        "--output-format=json",
    ];
    let out = run_well("fio", &fio).await;
    let json: serde_json::Value = serde_json::from_str(&out[out.find('{').unwrap()..]).unwrap();
    assert_eq!((&json["jobs"][0]["error"], &json["jobs"][0]["read"]["io_bytes"]), (&0.into(), &(32 * MIB).into()));
    served.stop().await;
}

/// Edge cases that well-behaved tools leave out, through libnbd with its own checks switched off.
#[tokio::test(flavor = "multi_thread")]
async fn libnbd_meets_the_edges() {
    if !have("libnbd_meets_the_edges", "nbdsh", "python3-libnbd") {
        return;
    }
    let served = Served::tcp().await;
    let script = r#"
import errno, os
uri = os.environ["URI"]
image = open(os.environ["IMAGE"], "rb").read()
def fails(call, number=None):
    try: call()
    except nbd.Error as error:
        assert number is None or error.errno == number, (error, number)
        return
    raise AssertionError("no error")
h.set_strict_mode(0)
h.set_opt_mode(True)
h.connect_uri(uri)
names = []
h.opt_list(lambda name, description: names.append((name, description)))
assert names == [("", "a test image")], names
contexts = []
h.add_meta_context("base:")
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
h.clear_meta_contexts()
h.add_meta_context("x-other:thing"); h.add_meta_context("base:allocation")
h.set_export_name("nothing"); fails(h.opt_info)
h.set_export_name("guest-2"); h.set_full_info(True); h.opt_info()
assert h.get_canonical_export_name() == "guest-2" and h.get_export_description() == "a test image"
h.opt_go()
assert h.can_meta_context("base:allocation") and not h.can_meta_context("x-other:thing")
assert h.is_read_only() and h.can_df() and h.can_multi_conn() and not h.can_trim()
assert h.pread(3, 5) == image[5:8]
assert h.pread(70000, (9 << 20) - 100, nbd.CMD_FLAG_DF) == image[(9 << 20) - 100:][:70000]
assert h.pread(1, len(image) - 1) == image[-1:]
fails(lambda: h.pread(2, len(image) - 1), "EINVAL")
fails(lambda: h.pread(33 << 20, 0), "EINVAL")
fails(lambda: h.pwrite(b"x" * 100000, 0), "EPERM")
fails(lambda: h.trim(512, 0), "EPERM")
fails(lambda: h.zero(512, 0), "EPERM")
fails(lambda: h.cache(512, 0), "EINVAL")
h.flush()
seen = []
h.block_status(len(image), 0, lambda *a: seen.append(a[2]))
assert sum(seen[0][0::2]) == len(image), seen
seen.clear()
h.block_status(4096, 1, lambda *a: seen.append(a[2]), nbd.CMD_FLAG_REQ_ONE)
assert seen == [[4096, 0]], seen
fails(lambda: h.block_status(2, len(image) - 1, lambda *a: 0), "EINVAL")
assert h.pread(512, 0) == image[:512]
h.shutdown()
g = nbd.NBD(); g.set_request_structured_replies(False); g.connect_uri(uri)
assert not g.get_structured_replies_negotiated() and not g.can_df()
assert g.pread(1 << 20, 8 << 20) == image[8 << 20:9 << 20]
g.set_strict_mode(0); fails(lambda: g.pread(2, len(image) - 1), "EINVAL")
assert g.pread(1, 0) == image[:1]
g.shutdown()
for flags in (0, nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE, nbd.HANDSHAKE_FLAG_NO_ZEROES):
    o = nbd.NBD(); o.set_handshake_flags(flags); o.connect_uri(uri)
    assert o.get_size() == len(image) and o.pread(9, 9) == image[9:18]
    o.shutdown()
"#;
    nbdsh("libnbd_meets_the_edges", script, &[("URI", &served.uri), ("IMAGE", served.image())]).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_the_dead_are_replaced_and_of_the_living_not() {
    let folder = tempfile::tempdir().unwrap();
    let (image, path) = (folder.path().join("image"), folder.path().join("socket"));
    write_image(&image);
    let listen = NbdListen::Unix(path.clone());
    let bind = async || {
        let disk = Arc::new(FileDisk::open(&image).unwrap());
        NbdServer::bind(&listen, disk, ServerConfig::default()).await
    };
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = bind().await.unwrap();
    assert!(matches!(bind().await, Err(ServerError::Socket(SocketFileError::InUse { .. }))));
    server.run(async {}).await;
    assert!(!path.exists());
    std::fs::write(&path, "no socket").unwrap();
    assert!(matches!(bind().await, Err(ServerError::Socket(SocketFileError::NoSocket { .. }))));
    assert!(path.exists());
}

#[tokio::test]
async fn beyond_loopback_only_if_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    write_image(&image);
    let bind = async |open| {
        let disk = Arc::new(FileDisk::open(&image).unwrap());
        NbdServer::bind(&"0.0.0.0:0".parse().unwrap(), disk, ServerConfig { open, ..Default::default() }).await
    };
    assert!(matches!(bind(false).await, Err(ServerError::NotLoopback(_))));
    assert!(bind(true).await.unwrap().uri().to_string().starts_with("nbd://127.0.0.1:"));
}

/// Reads all that may go wrong at edges, compares, and replays a trace with comparison.
async fn client_reads(uri: &str, image: &Path) {
    let expected = std::fs::read(image).unwrap();
    let parsed: NbdUri = uri.parse().unwrap();
    let mut connected = Err("no attempt".to_string());
    for _ in 0..100 {
        connected = NbdClient::connect(&parsed).await.map_err(|error| error.to_string());
        if connected.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = Arc::new(connected.unwrap());
    assert_eq!(client.export().image_bytes, IMAGE_BYTES);
    for (offset, bytes) in [(0, 1), (511, 513), (9 * MIB - 3, 70_000), (IMAGE_BYTES - 1, 1), (MIB, 40 << 20)] {
        let read = client.read_at(offset, bytes).await.unwrap().concat();
        assert!(read == expected[offset as usize..][..bytes as usize], "{bytes} at {offset}");
    }
    assert!(client.read_at(IMAGE_BYTES - 1, 2).await.is_err());
    let mut reads = tokio::task::JoinSet::new();
    for index in 0..256_u64 {
        let client = Arc::clone(&client);
        reads.spawn(async move { (index, client.read_at(index * 250_007, 10_000).await.unwrap().concat()) });
    }
    while let Some(read) = reads.join_next().await {
        let (index, read) = read.unwrap();
        assert!(read == expected[(index * 250_007) as usize..][..10_000]);
    }
    Arc::into_inner(client).unwrap().disconnect().await;
    let text: String = (0..200_u64).map(|i| format!("{} R {} 8192\n", i * 150, i * 327_680 % IMAGE_BYTES)).collect();
    let trace = Trace::parse(text.as_bytes()).unwrap();
    let options = ReplayOptions { verify: Some(image.into()), ..Default::default() };
    let report = replay_target(&trace, uri, &options).await.unwrap();
    assert_eq!((report.reads, report.mismatches), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_reads_from_our_server() {
    on_both(async |served: Arc<Served>| client_reads(&served.uri, &served.image).await).await;
}

fn start(program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_reads_from_qemu_nbd() {
    if !have("our_client_reads_from_qemu_nbd", "qemu-nbd", "qemu-utils") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (folder.path().join("image"), folder.path().join("socket"));
    write_image(&image);
    let (image_path, socket_path) = (image.to_str().unwrap(), socket.to_str().unwrap());
    let mut server = start("qemu-nbd", &["-r", "-t", "-f", "raw", "-x", "", "-k", socket_path, image_path]);
    client_reads(&format!("nbd+unix:///?socket={socket_path}"), &image).await;
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_reads_from_nbdkit() {
    if !have("our_client_reads_from_nbdkit", "nbdkit", "nbdkit") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (folder.path().join("image"), folder.path().join("socket"));
    write_image(&image);
    let (image_path, socket_path) = (image.to_str().unwrap(), socket.to_str().unwrap());
    // With --no-sr: simple replies.
    for more in ["--threads=4", "--no-sr"] {
        let mut server = start("nbdkit", &["-f", "-r", more, "-U", socket_path, "file", image_path]);
        client_reads(&format!("nbd+unix:///?socket={socket_path}"), &image).await;
        server.kill().await.unwrap();
        let _ = std::fs::remove_file(&socket);
    }
}
