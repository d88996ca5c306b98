//! Live learning among real nodes, and a seed that makes a profile of what it is told.

mod common;
mod nodes;

use common::packed;
use nodes::{GUEST, Running, asking, node_options, seed, seed_options, start};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use swarmdisk_common::policies::Prefetch;
use swarmdisk_core::format::profile::ProfileView;
use swarmdisk_core::ids::Digest;
use swarmdisk_host::disk::Disk;
use swarmdisk_host::node::{NodeOptions, SwarmDisk, bootstrap};
use tempfile::TempDir;

const CHUNK_BYTES: u64 = 65536;
const PATIENCE: Duration = Duration::from_secs(20);

/// Chunks that a guest reads, far from each other: no reader in order is to be seen.
fn reads() -> impl Iterator<Item = u64> {
    (0..60).map(|number| number * 37 % 600)
}

async fn read(disk: &SwarmDisk, chunk: u64) {
    disk.read(GUEST, chunk * CHUNK_BYTES, 4096).await.unwrap();
}

async fn learning_node(dir: &TempDir, image: Digest, seed: SocketAddr, prefetch: Prefetch) -> Running {
    start(NodeOptions { prefetch, ..node_options(dir, image, &[(seed, true)]).await }).await
}

/// A node runs against the seed, and stays a while; its guest's demand misses.
async fn first_run(dir: &TempDir, image: Digest, seed: SocketAddr, stay: Duration) -> u64 {
    let node = learning_node(dir, image, seed, Prefetch::Auto).await;
    let disk = node.disk();
    for chunk in reads() {
        read(&disk, chunk).await;
    }
    tokio::time::sleep(Duration::from_millis(300) + stay).await;
    node.end().await;
    disk.demand_misses()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_boot_trains_a_seed_that_learns() {
    let packed = packed(600);
    let image = packed.report.image;
    let seed = start(NodeOptions { teach: true, ..seed_options(&packed.swarm) }).await;
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (begin, mut first_misses) = (Instant::now(), None);
    let profile = loop {
        // What is touched is told within a batch; a machine may be too busy for that before the node ends.
        let misses = first_run(&dirs[0], image, seed.address, begin.elapsed()).await;
        first_misses.get_or_insert(misses);
        let found = bootstrap(asking(image, vec![seed.address.to_string()])).await.unwrap();
        if let Some(profile) = found.profile {
            break profile;
        }
        assert!(begin.elapsed() < PATIENCE, "the seed has learned nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let first_misses = first_misses.unwrap();
    let geometry = seed.handle.store().geometry();
    let view = ProfileView::parse(&profile, image, geometry).unwrap();
    let chunks: Vec<_> = view.entries().map(|entry| entry.chunk).collect();
    // The second one is there when all of it is prefetched, and its guest waits for nothing.
    let second = learning_node(&dirs[1], image, seed.address, Prefetch::Auto).await;
    let store = second.handle.store().clone();
    while !chunks.iter().all(|chunk| store.holds(geometry.chunk_piece(*chunk))) {
        assert!(begin.elapsed() < PATIENCE, "what was learned is not prefetched");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let disk = second.disk();
    for chunk in reads() {
        read(&disk, chunk).await;
    }
    assert!(second.handle.snapshot().await.unwrap().stats.prefetched_bytes > 0);
    assert!(disk.demand_misses() * 5 < first_misses, "{} of {first_misses}", disk.demand_misses());
    second.end().await;
    seed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_prefetches_what_its_neighbours_guest_touches() {
    let packed = packed(600);
    let image = packed.report.image;
    let seed = seed(&packed.swarm).await;
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ahead = learning_node(&dirs[0], image, seed.address, Prefetch::Live).await;
    let disk = ahead.disk();
    for chunk in reads() {
        read(&disk, chunk).await;
    }
    let behind = learning_node(&dirs[1], image, seed.address, Prefetch::Live).await;
    behind.handle.add_contact(ahead.address, false);
    // Nobody has asked it for anything; a neighbour is believed so far at first.
    let begin = Instant::now();
    while behind.handle.snapshot().await.unwrap().stats.prefetched_bytes == 0 {
        assert!(begin.elapsed() < PATIENCE, "nothing is learned");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A seed that does not learn has no profile to offer.
    assert!(bootstrap(asking(image, vec![seed.address.to_string()])).await.unwrap().profile.is_none());
    behind.end().await;
    ahead.end().await;
    seed.end().await;
}
