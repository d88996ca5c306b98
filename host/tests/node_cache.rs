//! Caches with a bound, in whole nodes on loopback.

mod common;
mod nodes;

use common::GO_ON;
use nodes::{GUEST, Running, node_options, read_all, read_range, seed, start};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use swarmdisk_common::policies::Prefetch;
use swarmdisk_core::format::manifest::Codec;
use swarmdisk_core::ids::Digest;
use swarmdisk_host::disk::Disk;
use swarmdisk_host::node::{CacheState, NodeHandle, NodeOptions};
use swarmdisk_host::pack::{PackOptions, pack};
use swarmdisk_host::store::{Store, allocated_bytes};
use tempfile::TempDir;

const CHUNK: u64 = 1 << 16;
const CHUNKS: u64 = 200;
/// Superblock, manifest, and the block in which a leaf page ends.
const HEAD_BYTES: u64 = 3 * 4096;

/// Noise, not compressed: payloads fill blocks.
struct Noise {
    _dir: TempDir,
    swarm: PathBuf,
    image: Digest,
    bytes: Vec<u8>,
}

fn noise(seed: u64) -> Noise {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![0; (CHUNKS * CHUNK) as usize];
    for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&swarmdisk_core::rng::mix(seed << 32 | at as u64).to_le_bytes());
    }
    let (raw, swarm) = (dir.path().join("image.raw"), dir.path().join("image.swarm"));
    fs::write(&raw, &bytes).unwrap();
    let mut options = PackOptions::new(&raw, &swarm, &GO_ON);
    options.codec = Codec::None;
    let image = pack(&options, &|_, _| {}).unwrap().image;
    Noise { _dir: dir, swarm, image, bytes }
}

fn allocated(path: &Path) -> u64 {
    allocated_bytes(&File::open(path).unwrap()).unwrap()
}

/// A node that keeps few chunks in memory.
async fn bounded_by(
    dir: &TempDir,
    noise: &Noise,
    contacts: &[(SocketAddr, bool)],
    bytes: u64,
    prefetch: Prefetch,
) -> Running {
    let options = node_options(dir, noise.image, contacts).await;
    let store = Arc::into_inner(options.store).unwrap().with_memory_bytes(4 * CHUNK as usize);
    start(NodeOptions { store: Arc::new(store), cache_bytes: Some(bytes), prefetch, ..options }).await
}

async fn bounded(dir: &TempDir, noise: &Noise, contacts: &[(SocketAddr, bool)], bytes: u64) -> Running {
    bounded_by(dir, noise, contacts, bytes, Prefetch::Off).await
}

async fn cache(node: &NodeHandle) -> CacheState {
    node.snapshot().await.unwrap().cache.unwrap()
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    for _ in 0..2000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 20 s: {what}");
}

/// Looks at a cache all the time; ends with the most that was seen on disk.
fn watch(node: &NodeHandle, bound: u64) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let (done, node) = (Arc::new(AtomicBool::new(false)), node.clone());
    let is_done = done.clone();
    let watching = tokio::spawn(async move {
        let mut most = 0;
        while !is_done.load(Relaxed) {
            most = most.max(allocated(node.store().path()));
            let state = cache(&node).await;
            assert!(state.held_bytes <= bound, "{state:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        most
    });
    (done, watching)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounded_cache_reads_right_and_stays_within_its_bound() {
    let noise = noise(1);
    let seed = seed(&noise.swarm).await;
    for prefetch in [Prefetch::Off, Prefetch::Auto] {
        let (dir, bound) = (tempfile::tempdir().unwrap(), 4 << 20);
        let node = bounded_by(&dir, &noise, &[(seed.address, true)], bound, prefetch).await;
        let (done, watching) = watch(&node.handle, bound);
        let disk = node.disk();
        for step in [100_000, 1 << 20] {
            assert!(read_all(&disk, step).await == noise.bytes);
        }
        // What is read again and again stays.
        let before = node.handle.snapshot().await.unwrap();
        for _ in 0..5 {
            assert!(read_range(&disk, 0, 10 * CHUNK, 1 << 16).await == noise.bytes[..10 << 16]);
        }
        done.store(true, Relaxed);
        let most = watching.await.unwrap();
        assert!(most <= bound + HEAD_BYTES && most > bound / 2, "{most} bytes on disk");
        let after = node.handle.snapshot().await.unwrap();
        let fetched = after.fetched_origin_bytes - before.fetched_origin_bytes;
        assert!(fetched <= 10 * CHUNK + (2 << 20), "{fetched} bytes fetched for ten chunks");
        let state = cache(&node.handle).await;
        assert!(state.evictions >= CHUNKS && state.evicted_bytes >= CHUNKS * CHUNK, "{state:?}");
        assert_eq!(state.bound_bytes, bound);
        // Guesses did not go round and round.
        assert!(after.fetched_origin_bytes < 4 * noise.bytes.len() as u64, "{}", after.fetched_origin_bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_hold_goes_before_what_nobody_else_has() {
    let noise = noise(2);
    let seed = seed(&noise.swarm).await;
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let b = {
        let options = node_options(&dir_b, noise.image, &[(seed.address, true)]).await;
        start(NodeOptions { prefetch: Prefetch::Off, ..options }).await
    };
    read_range(&b.disk(), 0, 20 * CHUNK, 1 << 20).await;
    read_range(&b.disk(), 60 * CHUNK, 80 * CHUNK, 1 << 20).await;
    let a = bounded(&dir_a, &noise, &[(seed.address, true), (b.address, false)], 9224 - 56 * 36 + 60 * CHUNK).await;
    // Those that B holds too are read last.
    read_range(&a.disk(), 20 * CHUNK, 60 * CHUNK, 1 << 20).await;
    read_range(&a.disk(), 0, 20 * CHUNK, 1 << 20).await;
    seed.end().await;
    let handle = &a.handle;
    until("the seed is gone, and what B holds is known", || async {
        let peers = handle.snapshot().await.unwrap().peers;
        peers.len() == 1 && peers[0].piece_count >= 41
    })
    .await;
    assert_eq!(cache(handle).await.evictions, 0);
    assert!(read_range(&a.disk(), 60 * CHUNK, 75 * CHUNK, 1 << 20).await == noise.bytes[60 << 16..75 << 16]);
    until("room was made", || async { cache(handle).await.evictions >= 15 }).await;
    let g = handle.store().geometry();
    let lost = (20..60).filter(|index| !handle.store().holds(g.piece(*index).unwrap())).count();
    assert_eq!(lost, 0, "what nobody else has is kept");
    // What went comes again from B.
    assert!(read_range(&a.disk(), 0, 80 * CHUNK, 1 << 20).await == noise.bytes[..80 << 16]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_with_small_caches_serve_each_other() {
    let noise = noise(3);
    let seed = seed(&noise.swarm).await;
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = bounded(&dirs[0], &noise, &[(seed.address, true)], 3 << 20).await;
    let b = bounded(&dirs[1], &noise, &[(seed.address, true), (a.address, false)], 4 << 20).await;
    let (one, two) = (a.disk(), b.disk());
    let (one, two) = tokio::join!(async { [read_all(&one, 1 << 18).await, read_all(&one, 1 << 20).await] }, async {
        [read_all(&two, 1 << 20).await, read_all(&two, 1 << 17).await]
    },);
    for read in one.iter().chain(&two) {
        assert!(*read == noise.bytes);
    }
    assert!(cache(&a.handle).await.held_bytes <= 3 << 20 && cache(&b.handle).await.held_bytes <= 4 << 20);
    assert_eq!(a.handle.snapshot().await.unwrap().stats.corrupt_pieces, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_too_large_is_cut_down_at_the_start() {
    let noise = noise(4);
    let seed = seed(&noise.swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let contacts = [(seed.address, true)];
    let node = start(node_options(&dir, noise.image, &contacts).await).await;
    read_all(&node.disk(), 1 << 20).await;
    node.end().await;
    let bound = 3 << 20;
    let node = bounded(&dir, &noise, &contacts, bound).await;
    let handle = &node.handle;
    until("it is cut", || async { cache(handle).await.held_bytes <= bound }).await;
    let on_disk = allocated(handle.store().path());
    assert!(on_disk <= bound + HEAD_BYTES && on_disk > bound / 2, "{on_disk}");
    assert!(read_all(&node.disk(), 1 << 20).await == noise.bytes);
    assert!(cache(handle).await.held_bytes <= bound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_nobody_has_open_give_way_and_open_ones_share() {
    let [first, second, third] = [5, 6, 7].map(noise);
    let (one, two, three) = (seed(&first.swarm).await, seed(&second.swarm).await, seed(&third.swarm).await);
    let dir = tempfile::tempdir().unwrap();
    for (noise, seed) in [(&first, &one), (&second, &two)] {
        let node = start(node_options(&dir, noise.image, &[(seed.address, true)]).await).await;
        read_all(&node.disk(), 1 << 20).await;
        node.end().await;
    }
    let path = |noise: &Noise| dir.path().join(format!("{}.swarm", swarmdisk_host::digest::to_hex(&noise.image)));
    let bound = 20 << 20;
    let all = || [&first, &second, &third].map(|noise| allocated(&path(noise)));
    let node = bounded(&dir, &third, &[(three.address, true)], bound).await;
    // Together they held too much: of the first, which was used longest ago, something is gone.
    let [old, newer, _] = all();
    assert!(old + newer < bound && newer >= CHUNKS * CHUNK, "{old} and {newer} bytes");
    assert!(read_all(&node.disk(), 1 << 20).await == third.bytes);
    until("the older image gave way", || async { cache(&node.handle).await.limit_bytes >= CHUNKS * CHUNK }).await;
    assert!(all().iter().sum::<u64>() <= bound + 3 * HEAD_BYTES);

    // A second one comes: both keep their share.
    let other = bounded(&dir, &second, &[(two.address, true)], bound).await;
    assert!(cache(&other.handle).await.limit_bytes >= bound / 2 - (2 << 20));
    assert!(read_all(&other.disk(), 1 << 20).await == second.bytes);
    until("both fit", || async { all().iter().sum::<u64>() <= bound + 3 * HEAD_BYTES }).await;
    assert!(read_all(&node.disk(), 1 << 20).await == third.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_which_chunks_come_and_go_does_not_grow_for_ever() {
    let noise = noise(8);
    let origin = Store::open_complete(&noise.swarm).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = Store::open_cache(dir.path(), origin.image(), origin.manifest_bytes()).unwrap();
    let g = origin.geometry();
    common::copy_piece(&origin, &cache, g.piece(g.chunk_count()).unwrap());
    let chunk = g.chunk(7).unwrap();
    let payload = origin.read_payload(g.chunk_piece(chunk)).unwrap();
    for _ in 0..40_000 {
        cache.put(g.chunk_piece(chunk), &payload).unwrap();
        cache.evict(chunk).unwrap();
    }
    let log = fs::metadata(cache.path().with_extension("held")).unwrap().len();
    assert!(log < 1_200_000, "{log} bytes");
    cache.put(g.chunk_piece(chunk), &payload).unwrap();
    drop(cache);
    let cache = Store::open_cache(dir.path(), origin.image(), origin.manifest_bytes()).unwrap();
    assert_eq!(cache.held_count(), 2);
    assert_eq!(cache.holdings().unwrap().bytes, 9224 - 56 * 36 + CHUNK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_version_is_read_from_the_first_within_a_bound_too() {
    let noise = noise(9);
    let first = seed(&noise.swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let old = start(node_options(&dir, noise.image, &[(first.address, true)]).await).await;
    read_all(&old.disk(), 1 << 20).await;
    let mut bytes = noise.bytes.clone();
    bytes[5 << 16..6 << 16].fill(1);
    let (raw, swarm) = (dir.path().join("next.raw"), dir.path().join("next.packed"));
    fs::write(&raw, &bytes).unwrap();
    let mut options = PackOptions::new(&raw, &swarm, &GO_ON);
    options.codec = Codec::None;
    let image = pack(&options, &|_, _| {}).unwrap().image;
    let second = seed(&swarm).await;
    let next = Noise { _dir: tempfile::tempdir().unwrap(), swarm, image, bytes };
    let new = bounded(&dir, &next, &[(second.address, true)], 16 << 20).await;
    let disk = new.disk();
    for _ in 0..2 {
        assert!(read_all(&disk, 1 << 20).await == next.bytes);
    }
    assert_eq!(disk.read(GUEST, 0, 512).await.unwrap().concat(), next.bytes[..512]);
    let seen = new.handle.snapshot().await.unwrap();
    assert_eq!(seen.fetched_origin_bytes, CHUNK);
    assert_eq!(seen.cache.unwrap().held_bytes, 9224 - 56 * 36 + CHUNK, "there is no second copy");
}
