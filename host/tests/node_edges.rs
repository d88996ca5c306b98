//! What goes wrong around a node: strangers, wrong versions, nobody there, reads that are given up.

mod common;
mod nodes;

use common::{flip, packed};
use nodes::{GUEST, LOCAL, asking, node_options, read_all, seed, start};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use swarmdisk_core::ids::{Address, Digest, NodeId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::{
    BlobRange, BlobRedirect, Decoded, Farewell, Frame, HEAD_BYTES_MAX, Hello, LinkKind, PREFACE_BYTES, Role, VERSION,
    decode, encode, preface,
};
use swarmdisk_host::disk::{Disk, DiskError, ExtentKind};
use swarmdisk_host::node::{AttemptError, BootstrapError, LinkError, NodeOptions, Rates, SwarmDisk, bootstrap};
use swarmdisk_host::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn hello(image: Digest, version: u16) -> Vec<u8> {
    let hello = Hello {
        version,
        features: 0,
        image,
        node: NodeId([9; 16]),
        listen: Address::NONE,
        role: Role::Node,
        requests_max: 4,
        locality: Locality::NONE,
    };
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode(&Frame::Hello(hello), &mut head).unwrap();
    [&preface(LinkKind::Plain)[..], &head[..bytes]].concat()
}

/// Sends `bytes` and reads until the other side closes.
async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // The other side may have closed with bytes unread.
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the other side keeps the connection open");
    answer
}

fn farewell(answer: &[u8]) -> Option<Farewell> {
    let mut rest = answer.get(PREFACE_BYTES..)?;
    loop {
        match decode(rest).ok()? {
            Decoded::Frame { frame: Frame::Bye(farewell), .. } => return Some(farewell),
            Decoded::Frame { consumed, body_bytes, .. } => rest = rest.get(consumed + body_bytes as usize..)?,
            Decoded::NeedMore { .. } => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_turned_away() {
    let packed = packed(20);
    let seed = seed(&packed.swarm).await;
    let image = packed.report.image;
    assert!(say(seed.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.is_empty());
    assert!(say(seed.address, &[0xff; 4096]).await.is_empty());
    assert_eq!(farewell(&say(seed.address, &hello(Digest([1; 32]), VERSION)).await), Some(Farewell::UnknownImage));
    assert_eq!(farewell(&say(seed.address, &hello(image, 0)).await), Some(Farewell::Version));
    let noise = [&hello(image, VERSION)[..], &[0x55; 3000]].concat();
    assert_eq!(farewell(&say(seed.address, &noise).await), Some(Farewell::Misbehaved));
    let twice = [&hello(image, VERSION)[..], &hello(image, VERSION)[PREFACE_BYTES..]].concat();
    assert_eq!(farewell(&say(seed.address, &twice).await), Some(Farewell::Misbehaved));
    // None of that has hurt it.
    let dir = tempfile::tempdir().unwrap();
    let node = start(node_options(&dir, image, &[(seed.address, true)]).await).await;
    assert!(read_all(&node.disk(), 1 << 20).await == packed.bytes);
}

#[tokio::test]
async fn bootstrap_says_what_is_wrong() {
    let packed = packed(20);
    let seed = seed(&packed.swarm).await;
    let fail = async |image, host: String| match bootstrap(swarmdisk_host::node::BootstrapOptions {
        patience: Duration::from_secs(2),
        ..asking(image, vec![host])
    })
    .await
    {
        Err(BootstrapError::Nobody { attempts, .. }) => attempts.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    };
    let begin = Instant::now();
    let error = fail(Digest([1; 32]), seed.address.to_string()).await;
    assert!(matches!(error, AttemptError::UnknownImage { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(1), "no point in trying again");

    let web = TcpListener::bind(LOCAL).await.unwrap();
    let address = web.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let error = fail(packed.report.image, address.to_string()).await;
    assert!(matches!(&error, AttemptError::Link(LinkError::Foreign { spoke, .. }) if spoke == "HTTP"), "{error}");

    let gone = TcpListener::bind(LOCAL).await.unwrap().local_addr().unwrap();
    let error = fail(packed.report.image, gone.to_string()).await;
    assert!(matches!(error, AttemptError::Link(LinkError::Connect { .. })), "{error}");
    assert!(error.to_string().contains(&gone.to_string()));

    let error = bootstrap(asking(packed.report.image, Vec::new())).await.unwrap_err();
    assert!(matches!(error, BootstrapError::NoHosts));
    // One that is gone does not keep the other from answering.
    let hosts = vec![gone.to_string(), address.to_string(), seed.address.to_string()];
    let found = bootstrap(asking(packed.report.image, hosts)).await.unwrap();
    assert_eq!(found.from, seed.address);
    assert!(found.received_bytes >= found.manifest.len() as u64);
}

#[tokio::test]
async fn bootstrap_does_not_wait_for_a_profile_that_is_not_offered() {
    let packed = packed(20);
    let seed = seed(&packed.swarm).await;
    let begin = Instant::now();
    let found = bootstrap(asking(packed.report.image, vec![seed.address.to_string()])).await.unwrap();
    assert_eq!(found.profile, None);
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
}

/// A seed that has no time: it names `address` to who asks for a blob, and gives it only to who asks again. How often it was
/// asked is counted.
async fn busy_seed(image: Digest, manifest: Vec<u8>, address: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let (own, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&hello(image, VERSION)).await.unwrap();
        let mut received = vec![];
        stream.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        while stream.read_buf(&mut received).await.is_ok_and(|bytes| bytes > 0) {
            while let Ok(Decoded::Frame { frame, consumed, .. }) = decode(&received) {
                if let Frame::BlobRequest(range) = frame {
                    let (digest, bytes) = (range.digest, manifest.len() as u32);
                    let answer = match count.fetch_add(1, Ordering::Relaxed) {
                        0 => Frame::BlobRedirect(BlobRedirect { digest, address: to_address(address) }),
                        _ => Frame::Blob(BlobRange { digest, total_bytes: bytes, offset: 0, bytes }),
                    };
                    let mut head = [0; HEAD_BYTES_MAX];
                    let head_bytes = encode(&answer, &mut head).unwrap();
                    let body = if let Frame::Blob(_) = answer { &manifest[..] } else { &[] };
                    stream.write_all(&[&head[..head_bytes], body].concat()).await.unwrap();
                }
                received.drain(..consumed);
            }
        }
    });
    (own, asked)
}

fn to_address(address: SocketAddr) -> Address {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is of version 6") };
    Address { ip: ip.to_ipv6_mapped().octets(), port: address.port() }
}

#[tokio::test]
async fn bootstrap_asks_whom_it_is_sent_to_and_comes_back_if_that_is_of_no_use() {
    let (packed, other) = (packed(20), packed(30));
    let manifest = Store::open_complete(&packed.swarm).unwrap().manifest_bytes().to_vec();
    let image = packed.report.image;
    let (good, stranger) = (seed(&packed.swarm).await, seed(&other.swarm).await);
    let gone = TcpListener::bind(LOCAL).await.unwrap().local_addr().unwrap();
    for (named, asked) in [(good.address, 1), (stranger.address, 2), (gone, 2)] {
        let (address, count) = busy_seed(image, manifest.clone(), named).await;
        let found = bootstrap(asking(image, vec![address.to_string()])).await.unwrap();
        assert_eq!(found.manifest, manifest);
        assert_eq!(count.load(Ordering::Relaxed), asked, "{named}");
        assert!(found.received_bytes >= manifest.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_wait_time_out_and_may_be_given_up() {
    let packed = packed(600);
    let manifest = Store::open_complete(&packed.swarm).unwrap().manifest_bytes().to_vec();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open_cache(dir.path(), packed.report.image, &manifest).unwrap());
    let node = start(NodeOptions::new(store)).await;
    let disk = SwarmDisk::new(node.handle.clone(), Duration::from_millis(200));
    let begin = Instant::now();
    let error = disk.read(GUEST, 0, 1000).await.unwrap_err();
    assert!(matches!(error, DiskError::TimedOut(_)), "{error}");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    // What nobody can tell may be data.
    let whole = disk.extents(GUEST, 0, disk.image_bytes(), 9).await.unwrap();
    assert_eq!((whole.len(), whole[0].kind), (1, ExtentKind::Data));
    assert!(disk.read(GUEST, 0, u32::MAX).await.is_err());
    // More pieces are given up than may be waited for at a time: none of them is left behind.
    let patient = Arc::new(SwarmDisk::new(node.handle.clone(), Duration::from_secs(20)));
    for _ in 0..10 {
        let read = patient.read(GUEST, 0, 500 << 16);
        assert!(tokio::time::timeout(Duration::from_millis(20), read).await.is_err());
    }
    let waiting = tokio::spawn({
        let disk = patient.clone();
        async move { read_all(&disk, 8 << 20).await }
    });
    let seed = seed(&packed.swarm).await;
    node.handle.add_contact(seed.address, true);
    assert!(waiting.await.unwrap() == packed.bytes);
    let waiting = tokio::spawn(async move { patient.read(GUEST, 0, 512).await });
    assert!(waiting.await.unwrap().is_ok());
    node.handle.shutdown().await;
    assert!(node.handle.snapshot().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_end_with_the_node() {
    let packed = packed(20);
    let manifest = Store::open_complete(&packed.swarm).unwrap().manifest_bytes().to_vec();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open_cache(dir.path(), packed.report.image, &manifest).unwrap());
    let node = start(NodeOptions::new(store)).await;
    let disk = node.disk();
    let waiting = tokio::spawn(async move { disk.read(GUEST, 0, 512).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    node.handle.shutdown().await;
    assert!(matches!(waiting.await.unwrap(), Err(DiskError::Failed(_))));
}

/// Flips a byte in the middle of the payload of each of these chunks, in the file.
fn rot(path: &std::path::Path, store: &Store, chunks: &[u32]) {
    let geometry = store.geometry();
    for index in chunks {
        let piece = geometry.chunk_piece(geometry.chunk(*index).unwrap());
        let (offset, bytes) = store.payload_range(piece).unwrap();
        flip(path, offset + u64::from(bytes / 2), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rots_in_a_cache_is_fetched_again() {
    let packed = packed(40);
    let seed = seed(&packed.swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let contacts = [(seed.address, true)];
    let node = start(node_options(&dir, packed.report.image, &contacts).await).await;
    assert!(read_all(&node.disk(), 1 << 20).await == packed.bytes);
    let path = node.handle.store().path().to_owned();
    node.end().await;
    rot(&path, &Store::open_complete(&packed.swarm).unwrap(), &[0, 1, 20]);
    // The store may be in use for a moment by what was being done for the node that has ended.
    let options = node_options(&dir, packed.report.image, &contacts).await;
    let node = start(options).await;
    let disk = node.disk();
    assert!(read_all(&disk, 1 << 20).await == packed.bytes);
    let snapshot = node.handle.snapshot().await.unwrap();
    assert_eq!((snapshot.stats.corrupt_pieces, snapshot.held_count), (0, snapshot.piece_count));
    assert!(snapshot.fetched_origin_bytes > 0);
    node.end().await;
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&packed.swarm).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rots_at_a_seed_is_refused_and_had_from_another() {
    let packed = packed(40);
    let image = packed.report.image;
    let good = seed(&packed.swarm).await;
    let bad_file = packed.dir.path().join("bad.swarm");
    std::fs::copy(&packed.swarm, &bad_file).unwrap();
    rot(&bad_file, &Store::open_complete(&packed.swarm).unwrap(), &[0, 9]);
    let bad = seed(&bad_file).await;
    let dir = tempfile::tempdir().unwrap();
    let node = start(node_options(&dir, image, &[(bad.address, true)]).await).await;
    let disk = Arc::new(node.disk());
    let reader = tokio::spawn({
        let disk = disk.clone();
        async move { read_all(&disk, 1 << 20).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!reader.is_finished(), "chunk 0 is not to be had there");
    node.handle.add_contact(good.address, true);
    assert!(reader.await.unwrap() == packed.bytes);
    let snapshot = node.handle.snapshot().await.unwrap();
    assert_eq!((snapshot.stats.corrupt_pieces, snapshot.peers.len()), (0, 2), "{:?}", snapshot.peers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_node_receives_no_faster() {
    const LIMIT: u64 = 2_000_000;
    let packed = packed(400);
    let seed = seed(&packed.swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let options = node_options(&dir, packed.report.image, &[(seed.address, true)]).await;
    let begin = Instant::now();
    let node = start(NodeOptions { rates: Rates::new(None, Some(LIMIT)), ..options }).await;
    assert!(read_all(&node.disk(), 1 << 20).await == packed.bytes);
    let rate = packed.report.payload_bytes as f64 / begin.elapsed().as_secs_f64();
    println!("{:.1} % of the limit", rate * 100.0 / LIMIT as f64);
    assert!(rate <= LIMIT as f64 * 1.05, "{rate}");
}

/// A tiny file system of its own, which other systems cannot mount; unmounted when dropped.
#[cfg(target_os = "linux")]
struct Tmpfs(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_served_though_the_disk_is_full() {
    let Some(disk) = Tmpfs::mount("1m") else {
        return common::skip("no small file system: mounting a tmpfs needs root");
    };
    let packed = packed(400);
    let seed = seed(&packed.swarm).await;
    let node = start(node_options(&disk.0, packed.report.image, &[(seed.address, true)]).await).await;
    let reader = node.disk();
    for _ in 0..2 {
        assert!(read_all(&reader, 300_000).await == packed.bytes);
    }
    let readers = (0..8).map(|at| {
        let disk = node.disk();
        tokio::spawn(async move { read_all(&disk, 65536 * (1 + at)).await })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert!(reader.await.unwrap() == packed.bytes);
    }
    let snapshot = node.handle.snapshot().await.unwrap();
    assert!(snapshot.held_count < snapshot.piece_count);
    assert_eq!(snapshot.stats.corrupt_pieces, 0);
    node.end().await;
}
