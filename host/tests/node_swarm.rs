//! Whole nodes on loopback: an image spreads, whoever ends and whoever lies.

mod common;

use bytes::Bytes;
use common::packed;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use swarmdisk_core::engine::Fill;
use swarmdisk_core::ids::{Digest, GuestId};
use swarmdisk_host::disk::Disk;
use swarmdisk_host::node::{
    BootstrapOptions, Listener, Node, NodeHandle, NodeOptions, Rates, Serving, SwarmDisk, bootstrap,
};
use swarmdisk_host::store::Store;
use tempfile::TempDir;

const GUEST: GuestId = GuestId(0);
const LOCAL: &str = "127.0.0.1:0";

struct Running {
    handle: NodeHandle,
    address: SocketAddr,
    _serving: Serving,
}

async fn start(options: NodeOptions) -> Running {
    let listener = Listener::bind(LOCAL.parse().unwrap(), false, &options.rates).unwrap();
    let address = listener.address();
    let handle = Node::start(NodeOptions { advertise: Some(address), ..options }).await.unwrap();
    Running { _serving: listener.serve(vec![handle.clone()]), handle, address }
}

async fn seed(file: &Path) -> Running {
    start(NodeOptions::seed(Arc::new(Store::open_complete(file).unwrap()))).await
}

/// A node with an empty cache, which knows `contacts` (the first is a seed, if any is).
async fn node(dir: &TempDir, image: Digest, contacts: &[(SocketAddr, bool)], fill: Fill) -> Running {
    let hosts = contacts.iter().map(|(address, _)| address.to_string()).collect();
    let patience = Duration::from_secs(10);
    let asked = BootstrapOptions { image, hosts, rates: Rates::default(), patience, wants_profile: true };
    let found = bootstrap(asked).await.unwrap();
    let store = Arc::new(Store::open_cache(dir.path(), image, &found.manifest).unwrap());
    let options = NodeOptions {
        contacts: contacts.to_vec(),
        fill,
        profile: found.profile.map(Bytes::from),
        bootstrap_bytes: found.received_bytes,
        ..NodeOptions::new(store)
    };
    start(options).await
}

fn disk(node: &Running) -> SwarmDisk {
    SwarmDisk::new(node.handle.clone(), Duration::from_secs(20))
}

/// Reads the whole image in pieces of `step` bytes.
async fn read_all(disk: &SwarmDisk, step: u32) -> Vec<u8> {
    let mut all = Vec::new();
    while (all.len() as u64) < disk.image_bytes() {
        let step = u64::from(step).min(disk.image_bytes() - all.len() as u64) as u32;
        let segments = disk.read(GUEST, all.len() as u64, step).await.unwrap();
        all.extend(segments.concat());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_spreads_from_a_seed_to_three_nodes() {
    let packed = packed(600);
    let seed = seed(&packed.swarm).await;
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut readers = Vec::new();
    let mut nodes = Vec::new();
    for dir in &dirs {
        let node = node(dir, packed.report.image, &[(seed.address, true)], Fill::Off).await;
        let disk = disk(&node);
        nodes.push(node);
        readers.push(tokio::spawn(async move { (read_all(&disk, 300_000).await, disk) }));
    }
    for reader in readers {
        let (bytes, disk) = reader.await.unwrap();
        assert!(bytes == packed.bytes);
        assert!(disk.demand_misses() > 0);
        assert!(disk.stalls().total() > Duration::ZERO);
    }
    for node in &nodes {
        let snapshot = node.handle.snapshot().await.unwrap();
        println!("{snapshot:?}");
        assert_eq!(snapshot.stats.corrupt_pieces, 0);
        assert!(snapshot.metadata_bytes > 0);
        assert_eq!(snapshot.held_count, snapshot.piece_count);
        let fetched = snapshot.fetched_origin_bytes + snapshot.fetched_peer_bytes;
        assert!(fetched >= packed.report.payload_bytes);
    }
    for (node, dir) in nodes.into_iter().zip(dirs) {
        node.handle.shutdown().await;
        let path = node.handle.store().path().to_owned();
        assert!(std::fs::read(path).unwrap() == std::fs::read(&packed.swarm).unwrap());
        drop(dir);
    }
    seed.handle.shutdown().await;
    assert!(seed.handle.snapshot().await.is_none());
}
