//! Two versions of an image in one cache: only what differs crosses the wire.

mod common;
mod nodes;

use common::{GO_ON, Packed, packed};
use nodes::{node, read_all, read_range, seed};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use swarmdisk_core::engine::Fill;
use swarmdisk_core::geometry::Piece;
use swarmdisk_core::ids::Digest;
use swarmdisk_host::pack::{PackOptions, pack};
use swarmdisk_host::store::Store;

const CHUNKS: usize = 600;

/// A second version: chunks 8, 9 and 301 are others, and 40 to 48 moved to where 80 to 88 were.
struct Next {
    swarm: PathBuf,
    image: Digest,
    bytes: Vec<u8>,
    /// Payloads that the first version has not, in bytes.
    new_bytes: u64,
    /// The same beyond the first half of the image.
    new_bytes_late: u64,
}

fn next_version(first: &Packed) -> Next {
    let mut bytes = first.bytes.clone();
    for chunk in [8, 9, 301] {
        bytes[chunk << 16..(chunk << 16) + 5000].fill(77);
    }
    bytes.copy_within(40 << 16..48 << 16, 80 << 16);
    let (raw, swarm) = (first.dir.path().join("next.raw"), first.dir.path().join("next.swarm"));
    fs::write(&raw, &bytes).unwrap();
    let image = pack(&PackOptions::new(&raw, &swarm, &GO_ON), &|_, _| {}).unwrap().image;
    let old = payloads(&first.swarm);
    let is_new = |(_, payload): &&(u32, Vec<u8>)| old.iter().all(|(_, other)| other != payload);
    let new: Vec<(u32, Vec<u8>)> = payloads(&swarm).iter().filter(is_new).cloned().collect();
    let sum = |from: u32| new.iter().filter(|(chunk, _)| *chunk >= from).map(|(_, payload)| payload.len() as u64).sum();
    Next { swarm, image, bytes, new_bytes: sum(0), new_bytes_late: sum(CHUNKS as u32 / 2) }
}

fn payloads(file: &Path) -> Vec<(u32, Vec<u8>)> {
    let store = Store::open_complete(file).unwrap();
    let g = store.geometry();
    let chunks = (0..g.chunk_count()).filter_map(|index| g.piece(index));
    chunks.map(|piece| (piece.get(), store.read_payload(piece).unwrap().to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_version_fetches_its_difference_alone() {
    let first = packed(CHUNKS);
    let next = next_version(&first);
    assert!(next.new_bytes > 0 && next.new_bytes < first.report.payload_bytes / 20);
    let (old_seed, new_seed) = (seed(&first.swarm).await, seed(&next.swarm).await);
    let dir = tempfile::tempdir().unwrap();
    let old = node(&dir, first.report.image, &[(old_seed.address, true)], Fill::Off).await;
    assert!(read_all(&old.disk(), 1 << 20).await == first.bytes);
    // The first version's node goes on: its cache is only read.
    let new = node(&dir, next.image, &[(new_seed.address, true)], Fill::Off).await;
    assert!(read_all(&new.disk(), 300_000).await == next.bytes);
    let seen = new.handle.snapshot().await.unwrap();
    assert_eq!(seen.fetched_origin_bytes, next.new_bytes);
    assert!(seen.other_images_bytes > first.report.payload_bytes / 10 * 9);
    let sent = new_seed.handle.snapshot().await.unwrap().stats.uploaded_bytes;
    let store = new.handle.store();
    let leaf_bytes: u64 = (0..store.geometry().leaf_count())
        .map(|leaf| store.geometry().leaf(leaf).unwrap())
        .map(|leaf| u64::from(store.geometry().leaf_bytes(leaf)))
        .sum();
    assert_eq!(sent, next.new_bytes + leaf_bytes);
    // Another node, elsewhere, has it all from this one.
    new_seed.end().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = node(&elsewhere, next.image, &[(new.address, false)], Fill::Off).await;
    assert!(read_all(&other.disk(), 1 << 20).await == next.bytes);
    // What was taken is the new image's own.
    while !new.handle.store().is_complete() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let path = new.handle.store().path().to_owned();
    new.end().await;
    assert!(fs::read(path).unwrap() == fs::read(&next.swarm).unwrap());
    old.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_is_told_and_taken_over_though_nobody_reads() {
    let first = packed(CHUNKS);
    let next = next_version(&first);
    let (old_seed, new_seed) = (seed(&first.swarm).await, seed(&next.swarm).await);
    let dir = tempfile::tempdir().unwrap();
    let old = node(&dir, first.report.image, &[(old_seed.address, true)], Fill::Off).await;
    read_all(&old.disk(), 1 << 20).await;
    old.end().await;
    // A chunk of each leaf page, so that the pages are there.
    let new = node(&dir, next.image, &[(new_seed.address, true)], Fill::Off).await;
    let disk = new.disk();
    let g = new.handle.store().geometry();
    for leaf in 0..u64::from(g.leaf_count()) {
        let at = leaf << 24;
        assert!(read_range(&disk, at, at + 4096, 4096).await == next.bytes[at as usize..at as usize + 4096]);
    }
    assert_eq!(new.handle.snapshot().await.unwrap().fetched_origin_bytes, 0, "neither reads nor guesses");
    let missing = |store: &Store| {
        let chunks = (0..g.piece_count()).filter_map(|index| g.piece(index));
        chunks.filter(|piece| !store.holds(*piece) && matches!(g.kind(*piece), Piece::Chunk(_))).count()
    };
    // All but what differs.
    while missing(new.handle.store()) > 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Restarted, it has them.
    drop(disk);
    new.end().await;
    let new = node(&dir, next.image, &[(new_seed.address, true)], Fill::Off).await;
    assert!(read_all(&new.disk(), 1 << 20).await == next.bytes);
    assert_eq!(new.handle.snapshot().await.unwrap().fetched_origin_bytes, next.new_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_image_lacks_or_has_wrong_is_fetched() {
    let first = packed(CHUNKS);
    let next = next_version(&first);
    let (old_seed, new_seed) = (seed(&first.swarm).await, seed(&next.swarm).await);
    let dir = tempfile::tempdir().unwrap();
    let half = (CHUNKS as u64 / 2) << 16;
    let old = node(&dir, first.report.image, &[(old_seed.address, true)], Fill::Off).await;
    read_range(&old.disk(), 0, half, 1 << 20).await;
    let held = |store: &Store| {
        (0..store.geometry().chunk_count())
            .filter(|index| store.holds(store.geometry().piece(*index).unwrap()))
            .collect::<Vec<u32>>()
    };
    old.handle.shutdown().await;
    let store = old.handle.store().clone();
    let held = held(&store);
    let (damaged, damaged_bytes) = store.payload_range(store.geometry().piece(1).unwrap()).unwrap();
    let path = store.path().to_owned();
    let mut file = fs::read(&path).unwrap();
    file[damaged as usize + 3] ^= 1;
    fs::write(&path, file).unwrap();

    let new = node(&dir, next.image, &[(new_seed.address, true)], Fill::Off).await;
    assert!(read_all(&new.disk(), 1 << 20).await == next.bytes);
    let old_payloads = payloads(&first.swarm);
    let had = |payload: &Vec<u8>| held.iter().any(|chunk| *chunk != 1 && old_payloads[*chunk as usize].1 == *payload);
    let expected: u64 = payloads(&next.swarm)
        .iter()
        .filter(|(_, payload)| !payload.is_empty() && !had(payload))
        .map(|(_, payload)| payload.len() as u64)
        .sum();
    assert!(expected > next.new_bytes_late + u64::from(damaged_bytes));
    assert_eq!(new.handle.snapshot().await.unwrap().fetched_origin_bytes, expected);
}
