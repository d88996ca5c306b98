//! Whole nodes on loopback: an image spreads, whoever ends and whoever lies.

mod common;
mod nodes;

use bytes::Bytes;
use common::packed;
use nodes::{GUEST, asking, liar, node, node_options, read_all, read_range, seed, seed_options, start};
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmdisk_core::engine::Fill;
use swarmdisk_core::format::profile::{ProfileEntry, encode, encoded_bytes_max};
use swarmdisk_host::disk::{Disk, ExtentKind};
use swarmdisk_host::node::{Listener, Node, NodeOptions, Rates, SwarmDisk, bootstrap};
use swarmdisk_host::store::Store;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_spreads_from_a_seed_to_three_nodes() {
    let packed = packed(600);
    let seed = seed(&packed.swarm).await;
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut readers = Vec::new();
    let mut nodes = Vec::new();
    for dir in &dirs {
        let node = node(dir, packed.report.image, &[(seed.address, true)], Fill::Off).await;
        let disk = node.disk();
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
        assert_eq!(snapshot.stats.corrupt_pieces, 0);
        assert!(snapshot.metadata_bytes > 0);
        assert!(snapshot.peers.iter().any(|peer| peer.address == seed.address));
        assert!(snapshot.fetched_origin_bytes + snapshot.fetched_peer_bytes >= packed.report.payload_bytes);
    }
    for node in nodes {
        let path = node.handle.store().path().to_owned();
        let is_complete = node.handle.store().is_complete();
        node.end().await;
        assert!(!is_complete || std::fs::read(path).unwrap() == std::fs::read(&packed.swarm).unwrap());
    }
    let handle = seed.handle.clone();
    seed.end().await;
    assert!(handle.snapshot().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_without_the_seed() {
    let packed = packed(400);
    let seed = seed(&packed.swarm).await;
    let image = packed.report.image;
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = node(&dir_a, image, &[(seed.address, true)], Fill::Off).await;
    assert!(read_all(&a.disk(), 1 << 20).await == packed.bytes);
    let b = node(&dir_b, image, &[(seed.address, true), (a.address, false)], Fill::Off).await;
    let disk = b.disk();
    let half = packed.bytes.len() as u64 / 2;
    assert!(read_range(&disk, 0, half, 100_000).await == packed.bytes[..half as usize]);
    seed.end().await;
    let rest = read_range(&disk, half, packed.bytes.len() as u64, 100_000).await;
    assert!(rest == packed.bytes[half as usize..]);
    assert!(b.handle.snapshot().await.unwrap().fetched_peer_bytes > 0);
    a.end().await;
    b.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_is_found_out_and_dropped() {
    let packed = packed(300);
    let (honest, other) = (seed(&packed.swarm).await, seed(&packed.swarm).await);
    let liar = liar(other.address).await;
    let dir = tempfile::tempdir().unwrap();
    // The liar is known first and alone, so that it is asked.
    let options = node_options(&dir, packed.report.image, &[(liar, true)]).await;
    let node = start(options).await;
    let disk = Arc::new(node.disk());
    let reader = tokio::spawn({
        let disk = disk.clone();
        async move { read_all(&disk, 200_000).await }
    });
    // It is dropped as soon as it has lied. It may come back later, as nodes have no memory of liars.
    let dropped = async {
        loop {
            let snapshot = node.handle.snapshot().await.unwrap();
            if snapshot.stats.corrupt_pieces > 0 && snapshot.peers.iter().all(|peer| peer.address != liar) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), dropped).await.expect("a liar is found out, and dropped");
    node.handle.add_contact(honest.address, true);
    assert!(reader.await.unwrap() == packed.bytes);
    let snapshot = node.handle.snapshot().await.unwrap();
    assert!(snapshot.peers.iter().any(|peer| peer.address == honest.address), "{:?}", snapshot.peers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_serves_many_images_on_one_port() {
    let (one, two) = (packed(40), packed(70));
    let options = |file| seed_options(file);
    let listener = Listener::bind(nodes::LOCAL.parse().unwrap(), false, &Rates::default()).unwrap();
    let address = listener.address();
    let handles = vec![
        Node::start(options(&one.swarm)).await.unwrap(),
        Node::start(NodeOptions { advertise: Some(address), ..options(&two.swarm) }).await.unwrap(),
    ];
    let _serving = listener.serve(handles);
    for packed in [&one, &two] {
        let dir = tempfile::tempdir().unwrap();
        let node = node(&dir, packed.report.image, &[(address, true)], Fill::Off).await;
        assert!(read_all(&node.disk(), 1 << 20).await == packed.bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extents_of_a_cold_node_show_the_holes() {
    let packed = packed(600);
    let seed = seed(&packed.swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir, packed.report.image, &[(seed.address, true)], Fill::Off).await;
    let disk = node.disk();
    let bytes = packed.bytes.len() as u64;
    let mut extents = Vec::new();
    let mut told = 0;
    while told < bytes {
        // An answer ends where the next leaf page is not here.
        let more = disk.extents(GUEST, told, bytes - told, 10_000).await.unwrap();
        assert!(!more.is_empty());
        told += more.iter().map(|extent| extent.bytes).sum::<u64>();
        extents.extend(more);
    }
    assert_eq!((told, extents.len()), (bytes, 300));
    let mut at = 0;
    for extent in &extents {
        let range = &packed.bytes[at as usize..(at + extent.bytes) as usize];
        assert_eq!(extent.kind == ExtentKind::Zero, range.iter().all(|byte| *byte == 0));
        at += extent.bytes;
    }
    let some = disk.extents(GUEST, 65536 + 5, bytes - 65536 - 5, 3).await.unwrap();
    assert_eq!(some.iter().map(|extent| extent.bytes).collect::<Vec<_>>(), [65531, 131_072, 131_072]);
    assert_eq!(node.handle.snapshot().await.unwrap().fetched_origin_bytes, 0);
    // Zeros are known now and need nobody.
    seed.end().await;
    assert!(read_range(&disk, 2 << 16, 4 << 16, 4096).await == packed.bytes[2 << 16..4 << 16]);
    assert_eq!(disk.demand_misses(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_is_offered_passed_on_and_followed() {
    let packed = packed(300);
    let store = Arc::new(Store::open_complete(&packed.swarm).unwrap());
    let geometry = store.geometry();
    let chunks = (0..100).map(|index| geometry.chunk(index * 2).unwrap());
    let entries: Vec<ProfileEntry> =
        chunks.enumerate().map(|(at, chunk)| ProfileEntry::single(chunk, at as u32, 255)).collect();
    let mut profile = vec![0; encoded_bytes_max(1, entries.len())];
    let bytes = encode(packed.report.image, &[1], &entries, &mut profile).unwrap();
    profile.truncate(bytes);
    let seed = start(NodeOptions { profile: Some(Bytes::from(profile.clone())), ..NodeOptions::seed(store) }).await;
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir, packed.report.image, &[(seed.address, true)], Fill::Off).await;
    let store = node.handle.store().clone();
    let begin = Instant::now();
    while !entries.iter().all(|entry| store.holds(geometry.chunk_piece(entry.chunk))) {
        assert!(begin.elapsed() < Duration::from_secs(10), "the profile is not followed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let disk = node.disk();
    assert!(read_range(&disk, 0, 65536, 65536).await == packed.bytes[..65536]);
    assert_eq!(disk.demand_misses(), 0);
    // The node passes it on.
    let found = bootstrap(asking(packed.report.image, vec![node.address.to_string()])).await.unwrap();
    assert_eq!(found.profile, Some(profile));
    // The node learns of a warm read a little later.
    let mut snapshot = node.handle.snapshot().await.unwrap();
    while snapshot.prefetch_unused_bytes >= snapshot.stats.prefetched_bytes {
        assert!(begin.elapsed() < Duration::from_secs(10), "what a guest has read counts as unused: {snapshot:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        snapshot = node.handle.snapshot().await.unwrap();
    }
    assert!(snapshot.prefetch_unused_bytes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_seed_keeps_its_limit() {
    const LIMIT: u64 = 3_000_000;
    let packed = packed(600);
    let seed = start(NodeOptions { rates: Rates::new(Some(LIMIT), None), ..seed_options(&packed.swarm) }).await;
    let dir = tempfile::tempdir().unwrap();
    let options = node_options(&dir, packed.report.image, &[(seed.address, true)]).await;
    let begin = Instant::now();
    let node = start(NodeOptions { fill: Fill::Rate(u64::MAX / 2), ..options }).await;
    let disk = SwarmDisk::new(node.handle.clone(), Duration::from_secs(60));
    assert!(read_all(&disk, 1 << 20).await == packed.bytes);
    let rate = packed.report.payload_bytes as f64 / begin.elapsed().as_secs_f64();
    println!("{:.1} % of the limit", rate * 100.0 / LIMIT as f64);
    assert!(rate <= LIMIT as f64 * 1.05, "{rate}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_with_comings_and_goings() {
    const NODES: usize = 12;
    let packed = packed(200);
    let image = packed.report.image;
    let seed = start(NodeOptions { rates: Rates::new(Some(6_000_000), None), ..seed_options(&packed.swarm) }).await;
    let expected = Arc::new(packed.bytes.clone());
    let mut tasks = Vec::new();
    for at in 0..NODES {
        let (address, expected) = (seed.address, expected.clone());
        tasks.push(tokio::spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            // Every third node ends in the middle and comes again with what it has.
            if at % 3 == 0 {
                let node = node(&dir, image, &[(address, true)], Fill::Off).await;
                let half = expected.len() as u64 / 2;
                assert!(read_range(&node.disk(), 0, half, 150_000).await == expected[..half as usize]);
                node.end().await;
            }
            let node = node(&dir, image, &[(address, true)], Fill::Off).await;
            let disk = node.disk();
            assert!(read_all(&disk, 100_000 + at as u32 * 10_000).await == *expected);
            let snapshot = node.handle.snapshot().await.unwrap();
            assert_eq!(snapshot.stats.corrupt_pieces, 0);
            (node, dir, snapshot.fetched_origin_bytes)
        }));
    }
    let (mut nodes, mut from_origin) = (Vec::new(), 0);
    for task in tasks {
        let (node, dir, bytes) = task.await.unwrap();
        from_origin += bytes;
        nodes.push((node, dir));
    }
    let copies = from_origin as f64 / packed.report.payload_bytes as f64;
    println!("{NODES} nodes took {copies:.1} copies from the seed");
    for (node, _dir) in nodes {
        node.end().await;
    }
}
