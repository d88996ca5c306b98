//! The store: what it takes in it gives out, and only that; kills, rot and full disks included.

mod common;

use common::{GO_ON, Packed, copy_piece, leaves_first, names, packed};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use swarmdisk_core::format::held::{HEADER_BYTES, RECORD_BYTES};
use swarmdisk_core::geometry::{Geometry, PieceIndex};
use swarmdisk_host::check::{check_cache, check_file};
use swarmdisk_host::digest::to_hex;
use swarmdisk_host::store::{Store, StoreError};

const HELD_LOG: &str = "held";

/// An origin, and an empty cache of its image.
fn origin_and_cache(packed: &Packed) -> (Store, Store) {
    let origin = Store::open_complete(&packed.swarm).unwrap();
    let cache = reopen(packed, &origin);
    (origin, cache)
}

fn reopen(packed: &Packed, origin: &Store) -> Store {
    Store::open_cache(&packed.dir.path().join("cache"), origin.image(), origin.manifest_bytes()).unwrap()
}

fn nonzero_chunk(store: &Store, from: u32) -> PieceIndex {
    let g = store.geometry();
    let pieces = (from..g.chunk_count()).map(|index| g.piece(index).unwrap());
    pieces.into_iter().find(|piece| store.payload_bytes(*piece).unwrap() > 0).unwrap()
}

/// A chunk that is stored as it is.
fn raw_chunk(store: &Store) -> PieceIndex {
    let g = store.geometry();
    let is_raw = |piece: &PieceIndex| store.payload_bytes(*piece).unwrap() == g.chunk_bytes();
    (0..g.chunk_count()).map(|index| g.piece(index).unwrap()).find(is_raw).unwrap()
}

fn flip(path: &Path, offset: u64) {
    common::flip(path, offset, 0x10);
}

fn held(store: &Store) -> Vec<PieceIndex> {
    let g = store.geometry();
    (0..g.piece_count()).map(|index| g.piece(index).unwrap()).filter(|piece| store.holds(*piece)).collect()
}

#[test]
fn a_full_cache_is_the_origins_file() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    assert!(!cache.is_complete());
    for piece in leaves_first(&origin) {
        let zero_runs = copy_piece(&origin, &cache, piece);
        assert!(cache.holds(piece));
        assert_eq!(zero_runs.is_empty(), piece.get() < g.chunk_count(), "only a leaf page reveals zeros");
    }
    assert!(cache.is_complete());
    assert_eq!(cache.held_runs(), [(g.piece(0).unwrap(), g.piece_count())]);
    assert!(fs::read(cache.path()).unwrap() == fs::read(&packed.swarm).unwrap());
    let path = cache.path().to_owned();
    drop(cache);
    let alone = Store::open_complete(&path).unwrap();
    for index in 0..g.chunk_count() {
        let chunk = g.chunk(index).unwrap();
        let (offset, bytes) = (g.chunk_offset(chunk) as usize, g.chunk_len(chunk) as usize);
        assert!(alone.read_chunk(chunk).unwrap() == packed.bytes[offset..offset + bytes]);
    }
}

#[test]
fn a_chunk_needs_its_leaf_page() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    let (chunk, leaf) = (g.chunk(0).unwrap(), g.leaf(0).unwrap());
    let (chunk_piece, leaf_piece) = (g.chunk_piece(chunk), g.leaf_piece(leaf));
    let payload = origin.read_payload(chunk_piece).unwrap();
    assert!(matches!(cache.verify(chunk_piece, &payload), Err(StoreError::Missing(piece)) if piece == leaf_piece));
    assert!(matches!(cache.put(chunk_piece, &payload), Err(StoreError::Missing(piece)) if piece == leaf_piece));
    assert_eq!(cache.chunk_is_zero(chunk).unwrap(), None);
    let page = origin.read_payload(leaf_piece).unwrap();
    assert!(cache.verify(leaf_piece, &page).unwrap());
    // From memory, before the page is stored: so guests are served when the disk is full.
    assert!(cache.verify(chunk_piece, &payload).unwrap());
    assert_eq!(cache.chunk_is_zero(chunk).unwrap(), Some(false));
    assert_eq!(cache.decode(chunk, payload.clone()).unwrap()[..], packed.bytes[..1 << 16]);
    assert!(matches!(cache.put(chunk_piece, &payload), Err(StoreError::Missing(_))));
    cache.put(leaf_piece, &page).unwrap();
    cache.put(chunk_piece, &payload).unwrap();
    assert_eq!(cache.read_chunk(chunk).unwrap()[..], packed.bytes[..1 << 16]);
    let zero = g.chunk(2).unwrap();
    assert!(cache.holds(g.chunk_piece(zero)) && cache.read_payload(g.chunk_piece(zero)).unwrap().is_empty());
    assert!(cache.read_chunk(zero).unwrap().iter().all(|byte| *byte == 0));
    assert!(cache.verify(g.chunk_piece(zero), &[]).unwrap() && !cache.verify(g.chunk_piece(zero), &[0]).unwrap());
}

#[test]
fn wrong_payloads_are_found() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    for piece in leaves_first(&origin).take(40) {
        let payload = origin.read_payload(piece).unwrap();
        for at in [0, payload.len() / 2, payload.len().saturating_sub(1)] {
            let mut wrong = payload.to_vec();
            if let Some(byte) = wrong.get_mut(at) {
                *byte ^= 1;
                assert!(!cache.verify(piece, &wrong).unwrap());
            }
        }
        assert!(!cache.verify(piece, &[&payload[..], &[0]].concat()).unwrap());
        copy_piece(&origin, &cache, piece);
    }
}

#[test]
fn one_process_at_a_time() {
    let packed = packed(10);
    let (origin, cache) = origin_and_cache(&packed);
    let dir = packed.dir.path().join("cache");
    let second = Store::open_cache(&dir, origin.image(), origin.manifest_bytes());
    assert!(matches!(&second, Err(StoreError::InUse { .. })), "{second:?}");
    assert!(second.unwrap_err().to_string().contains("another process"));
    drop(cache);
    assert_eq!(
        names(&dir),
        [format!("{}.held", to_hex(&origin.image())), format!("{}.swarm", to_hex(&origin.image()))]
    );
    reopen(&packed, &origin);
    let wrong = Store::open_cache(&dir, origin.image(), b"SWMF something else");
    assert!(matches!(wrong, Err(StoreError::WrongManifest(_))));
}

#[test]
fn a_cache_can_be_opened_with_no_network() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let dir = packed.dir.path().join("cache");
    copy_piece(&origin, &cache, origin.geometry().leaf_piece(origin.geometry().leaf(1).unwrap()));
    drop(cache);
    let manifest = Store::find_cached_manifest(&dir, origin.image()).unwrap().unwrap();
    assert_eq!(manifest, origin.manifest_bytes());
    assert_eq!(Store::find_cached_manifest(&dir, Default::default()).unwrap(), None);
    let error = Store::open_complete(&dir.join(format!("{}.swarm", to_hex(&origin.image())))).unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error}");
    assert_eq!(held(&Store::open_cache(&dir, origin.image(), &manifest).unwrap()).len(), 1 + 128);
}

/// Cuts the log at every byte: what is left must claim just what its whole records say, and all of it must be right.
#[test]
fn a_kill_at_any_byte_of_the_log_costs_one_record() {
    let packed = packed(300);
    let (origin, cache) = origin_and_cache(&packed);
    let log = cache.path().with_extension(HELD_LOG);
    let mut after = vec![(fs::metadata(&log).unwrap().len(), held(&cache))];
    for piece in leaves_first(&origin).take(20) {
        copy_piece(&origin, &cache, piece);
        after.push((fs::metadata(&log).unwrap().len(), held(&cache)));
    }
    drop(cache);
    let whole = fs::read(&log).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&log, &whole[..cut]).unwrap();
        let cache = reopen(&packed, &origin);
        let now = held(&cache);
        // A put of a leaf page is several records: between two states when it was torn amid them.
        let low = after.iter().rev().find(|(bytes, _)| *bytes <= cut as u64).map_or(&[][..], |(_, held)| held);
        let high = after.iter().find(|(bytes, _)| *bytes >= cut as u64).map(|(_, held)| held).unwrap();
        assert!(low.iter().all(|piece| now.contains(piece)), "cut at {cut}");
        assert!(now.iter().all(|piece| high.contains(piece)), "cut at {cut}");
        if cut % 7 == 0 {
            for piece in now {
                assert_eq!(cache.read_payload(piece).unwrap(), origin.read_payload(piece).unwrap());
            }
        }
    }
}

/// Kills a process that fills a cache, again and again: all that it had finished is there, and all that is there is right.
#[test]
fn a_killed_process_loses_only_what_was_in_flight() {
    const CHILD: &str = "SWARMDISK_TEST_KILLED_CHILD";
    if let Ok(folder) = std::env::var(CHILD) {
        return fill_and_tell(Path::new(&folder));
    }
    let packed = packed(600);
    let origin = Store::open_complete(&packed.swarm).unwrap();
    let (mut kills, mut is_complete) = (0, false);
    while !is_complete {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_killed_process_loses_only_what_was_in_flight", "--nocapture"]);
        let mut child = command.env(CHILD, packed.dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut told = Vec::new();
        for piece in lines.filter_map(|line| line.strip_prefix("put ")?.parse::<u32>().ok()) {
            told.push(piece);
            if told.len() == 17 + kills * 3 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        kills += 1;
        let cache = reopen(&packed, &origin);
        assert!(told.iter().all(|piece| cache.holds(origin.geometry().piece(*piece).unwrap())));
        for piece in held(&cache) {
            assert_eq!(cache.read_payload(piece).unwrap(), origin.read_payload(piece).unwrap());
        }
        is_complete = cache.is_complete();
    }
    assert!(kills > 2, "{kills}");
}

fn fill_and_tell(folder: &Path) {
    let origin = Store::open_complete(&folder.join("image.swarm")).unwrap();
    let cache = Store::open_cache(&folder.join("cache"), origin.image(), origin.manifest_bytes()).unwrap();
    for piece in leaves_first(&origin).filter(|piece| !cache.holds(*piece)).collect::<Vec<_>>() {
        copy_piece(&origin, &cache, piece);
        println!("put {}", piece.get());
    }
}

#[test]
fn a_damaged_record_costs_what_it_said() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    let log = cache.path().with_extension(HELD_LOG);
    let pieces = [g.leaf_piece(g.leaf(0).unwrap()), nonzero_chunk(&origin, 0), nonzero_chunk(&origin, 50)];
    let mut ends = Vec::new();
    for piece in pieces {
        copy_piece(&origin, &cache, piece);
        ends.push(fs::metadata(&log).unwrap().len());
    }
    let all = held(&cache);
    drop(cache);
    let whole = fs::read(&log).unwrap();
    flip(&log, ends[1] - 3);
    let cache = reopen(&packed, &origin);
    let lost: Vec<_> = all.iter().filter(|piece| !cache.holds(**piece)).collect();
    assert_eq!(lost, [&pieces[1]]);
    drop(cache);
    // The leaf page's own record: the page is found in the file.
    fs::write(&log, &whole).unwrap();
    flip(&log, HEADER_BYTES as u64 + RECORD_BYTES as u64 - 1);
    assert_eq!(held(&reopen(&packed, &origin)), all);
    // And if it is not good there, its chunks go too.
    fs::write(&log, &whole).unwrap();
    flip(&log, HEADER_BYTES as u64 + RECORD_BYTES as u64 - 1);
    let path = log.with_extension("swarm");
    flip(&path, origin.layout().leaf_offset(g.leaf(0).unwrap()));
    assert_eq!(held(&reopen(&packed, &origin)), []);
}

#[test]
fn rot_is_found_on_the_first_read_and_not_passed_on() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    let path = cache.path().to_owned();
    let piece = nonzero_chunk(&origin, 100);
    drop(cache);
    flip(&path, origin.payload_range(piece).unwrap().0);
    let leaf = g.leaf(1).unwrap();
    flip(&path, origin.layout().leaf_offset(leaf) + 1000);

    let cache = reopen(&packed, &origin);
    assert!(cache.is_complete(), "not read yet");
    assert!(matches!(cache.read_payload(piece), Err(StoreError::Rotten(lost)) if lost == piece));
    assert!(matches!(cache.read_payload(piece), Err(StoreError::Missing(lost)) if lost == piece));
    let in_leaf = g.chunk(256).unwrap();
    assert!(matches!(cache.read_chunk(in_leaf), Err(StoreError::Rotten(lost)) if lost == g.leaf_piece(leaf)));
    let lost = cache.lost_with(g.leaf_piece(leaf));
    assert_eq!(lost, [(g.leaf_piece(leaf), 1), (g.piece(256).unwrap(), 256)]);
    assert!(lost.iter().all(|(first, _)| !cache.holds(*first)));
    drop(cache);

    let cache = reopen(&packed, &origin);
    assert_eq!(cache.held_count(), g.piece_count() - 1 - 257, "the log remembers");
    for piece in leaves_first(&origin).filter(|piece| !cache.holds(*piece)).collect::<Vec<_>>() {
        copy_piece(&origin, &cache, piece);
    }
    assert!(fs::read(&path).unwrap() == fs::read(&packed.swarm).unwrap());
}

#[test]
fn rot_after_the_first_read_is_not_taken_for_a_bad_image() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let cache = cache.with_memory_bytes(0);
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    let piece = nonzero_chunk(&origin, 0);
    let chunk = origin.geometry().chunk(piece.get()).unwrap();
    assert_eq!(cache.read_chunk(chunk).unwrap(), origin.read_chunk(chunk).unwrap());
    flip(cache.path(), origin.payload_range(piece).unwrap().0);
    assert!(matches!(cache.read_chunk(chunk), Err(StoreError::Rotten(lost)) if lost == piece));
    assert!(!cache.holds(piece));
}

/// Whether this file's system answers from memory alone when it is asked to.
#[cfg(not(target_os = "linux"))]
fn tells_what_is_in_memory(_path: &Path) -> bool {
    false
}

/// The same.
#[cfg(target_os = "linux")]
fn tells_what_is_in_memory(path: &Path) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};
    let file = File::open(path).unwrap();
    let mut byte = [0];
    preadv2(file, &mut [std::io::IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT) == Ok(1)
}

#[test]
fn what_is_in_memory_is_read_at_once_and_never_wrongly() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    // Stored as it is, so that no decoder notices the damage.
    let piece = raw_chunk(&origin);
    let chunk = g.chunk(piece.get()).unwrap();
    let cache = cache.with_memory_bytes(0);
    assert_eq!(cache.read_chunk_now(chunk), None, "it is not held");
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    let expected = origin.read_chunk(chunk).unwrap();
    match cache.read_chunk_now(chunk) {
        Some(data) => assert_eq!(data, expected),
        None => assert!(!tells_what_is_in_memory(cache.path()), "its payload has just been written"),
    }
    drop(cache);
    let cache = reopen(&packed, &origin).with_memory_bytes(0);
    // Its leaf page comes into memory with another chunk.
    cache.leaf(g.leaf_of(chunk)).unwrap();
    flip(cache.path(), origin.payload_range(piece).unwrap().0 + 8);
    assert_eq!(cache.read_chunk_now(chunk), None, "it was not verified in this process, and is damaged");
}

#[test]
fn a_cache_that_was_cut_off_asks_for_its_manifest() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let (path, dir) = (cache.path().to_owned(), packed.dir.path().join("cache"));
    drop(cache);
    File::options().write(true).open(&path).unwrap().set_len(4100).unwrap();
    assert_eq!(Store::find_cached_manifest(&dir, origin.image()).unwrap(), None);
    assert!(!reopen(&packed, &origin).is_complete());
    assert!(Store::find_cached_manifest(&dir, origin.image()).unwrap().is_some());
}

#[test]
fn the_manifest_given_wins_over_a_damaged_cache() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    let path = cache.path().to_owned();
    drop(cache);
    flip(&path, 100);
    flip(&path, 4100);
    let dir = packed.dir.path().join("cache");
    assert_eq!(Store::find_cached_manifest(&dir, origin.image()).unwrap(), None);
    assert!(matches!(Store::open_complete(&path), Err(StoreError::Superblock { .. })));
    drop(reopen(&packed, &origin));
    assert!(fs::read(&path).unwrap() == fs::read(&packed.swarm).unwrap());
    // Cut short: what is gone is found on reading.
    let end = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(end - 10).unwrap();
    let error = Store::open_complete(&path).unwrap_err();
    assert!(matches!(error, StoreError::Truncated { .. }), "{error}");
    let cache = reopen(&packed, &origin);
    let g = cache.geometry();
    let last = (0..g.chunk_count()).rev().map(|index| g.piece(index).unwrap());
    let last = last.into_iter().find(|piece| origin.payload_bytes(*piece).unwrap() > 0).unwrap();
    assert!(matches!(cache.read_payload(last), Err(StoreError::Rotten(_))));
}

#[test]
fn an_evicted_chunk_can_be_fetched_again() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    cache.sync().unwrap();
    let before = cache.disk_bytes();
    for chunk in (0..g.chunk_count()).map(|index| g.chunk(index).unwrap()) {
        let bytes = origin.payload_bytes(g.chunk_piece(chunk)).unwrap();
        assert_eq!(cache.evict(chunk).unwrap(), bytes);
        assert_eq!(cache.holds(g.chunk_piece(chunk)), bytes == 0);
        assert_eq!(cache.evict(chunk).unwrap(), 0);
    }
    assert!(cache.disk_bytes() < before / 4, "{} of {before} bytes are left", cache.disk_bytes());
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    assert!(fs::read(cache.path()).unwrap() == fs::read(&packed.swarm).unwrap());
    assert!(matches!(origin.evict(g.chunk(0).unwrap()), Err(StoreError::ReadOnly { .. })));
}

/// Readers, a writer and an evictor at once: whatever is read is right.
#[test]
fn threads_never_see_a_wrong_byte() {
    let packed = packed(300);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let all = || (0..g.chunk_count()).map(|index| g.chunk(index).unwrap());
        let (cache, origin, reads) = (&cache, &origin, &reads);
        for _ in 0..3 {
            scope.spawn(move || {
                for chunk in std::iter::repeat_with(all).take(5).flatten() {
                    match cache.read_payload(g.chunk_piece(chunk)) {
                        Ok(payload) => {
                            assert_eq!(payload, origin.read_payload(g.chunk_piece(chunk)).unwrap());
                            reads.fetch_add(1, Relaxed);
                        }
                        Err(StoreError::Missing(_) | StoreError::Rotten(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        scope.spawn(move || {
            for chunk in std::iter::repeat_with(all).take(5).flatten() {
                cache.evict(chunk).unwrap();
                copy_piece(origin, cache, g.chunk_piece(chunk));
            }
        });
    });
    assert!(reads.into_inner() > 0);
}

/// A tiny file system of its own, which other systems cannot mount; unmounted when dropped.
#[cfg(target_os = "linux")]
struct Tmpfs(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_nothing_is_claimed() {
    let Some(disk) = Tmpfs::mount("1m") else {
        return common::skip("no small file system: mounting a tmpfs needs root");
    };
    let packed = packed(600);
    let origin = Store::open_complete(&packed.swarm).unwrap();
    let open = || Store::open_cache(disk.0.path(), origin.image(), origin.manifest_bytes());
    let cache = open().unwrap();
    let mut refused = Vec::new();
    for piece in leaves_first(&origin) {
        let payload = origin.read_payload(piece).unwrap();
        assert!(cache.verify(piece, &payload).unwrap());
        match cache.put(piece, &payload) {
            Ok(_) => assert!(cache.holds(piece)),
            Err(StoreError::DiskFull { .. }) => {
                assert!(!cache.holds(piece));
                refused.push(piece);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!refused.is_empty());
    let now = held(&cache);
    drop(cache);
    let cache = open().expect("a full disk is no reason not to attach");
    assert_eq!(held(&cache), now);
    for piece in now {
        assert_eq!(cache.read_payload(piece).unwrap(), origin.read_payload(piece).unwrap());
    }
    let moved = Command::new("mount").args(["-o", "remount,size=64m"]).arg(disk.0.path()).status().unwrap();
    assert!(moved.success());
    for piece in refused {
        copy_piece(&origin, &cache, piece);
    }
    assert!(cache.is_complete());
    assert!(fs::read(cache.path()).unwrap() == fs::read(&packed.swarm).unwrap());
}

#[test]
fn a_check_finds_what_is_damaged() {
    let packed = packed(600);
    let origin = Store::open_complete(&packed.swarm).unwrap();
    let g: Geometry = origin.geometry();
    let report = check_file(&packed.swarm, &GO_ON, &|_, _| {}).unwrap();
    assert!(report.is_good() && report.good_count == g.piece_count(), "{report}");
    let (piece, leaf) = (nonzero_chunk(&origin, 20), g.leaf(2).unwrap());
    let (offset, bytes) = origin.payload_range(piece).unwrap();
    flip(&packed.swarm, offset + u64::from(bytes) - 1);
    flip(&packed.swarm, origin.layout().leaf_offset(leaf));
    let report = check_file(&packed.swarm, &GO_ON, &|_, _| {}).unwrap();
    let in_leaf = g.leaf_chunk_count(leaf);
    assert_eq!((report.bad_count, report.missing_count), (2 + in_leaf, 0));
    assert_eq!(report.faults.iter().map(|fault| fault.piece).collect::<Vec<_>>(), [piece, g.leaf_piece(leaf)]);
    let line = report.to_string();
    assert!(line.contains(&format!("chunk {}, {bytes} bytes at offset {offset}", piece.get())), "{line}");
    assert!(!line.contains('\n'));
}

#[test]
fn a_check_repairs_a_cache() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    let dir = packed.dir.path().join("cache");
    for piece in leaves_first(&origin).take(200) {
        copy_piece(&origin, &cache, piece);
    }
    let busy = check_cache(&dir, false, &GO_ON, &|_, _| {}).unwrap();
    assert!(matches!(busy[..], [Err(StoreError::InUse { .. })]));
    let (count, path) = (cache.held_count(), cache.path().to_owned());
    drop(cache);
    let piece = nonzero_chunk(&origin, 20);
    flip(&path, origin.payload_range(piece).unwrap().0);
    for repair in [false, true] {
        let report = check_cache(&dir, repair, &GO_ON, &|_, _| {}).unwrap().remove(0).unwrap();
        assert_eq!((report.good_count, report.bad_count), (count - 1, 1), "{report}");
        assert_eq!(report.missing_count, g.piece_count() - count);
        assert_eq!(report.is_repaired, repair);
        assert_eq!(reopen(&packed, &origin).holds(piece), !repair);
    }
    let report = check_cache(&dir, true, &GO_ON, &|_, _| {}).unwrap().remove(0).unwrap();
    assert!(report.is_good());
    fs::write(&path, b"not a cache").unwrap();
    let error = check_cache(&dir, true, &GO_ON, &|_, _| {}).unwrap().remove(0).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn nobody_takes_chunks_out_of_a_complete_cache_that_is_read() {
    let packed = packed(60);
    let (origin, cache) = origin_and_cache(&packed);
    for piece in leaves_first(&origin) {
        copy_piece(&origin, &cache, piece);
    }
    let path = cache.path().to_owned();
    assert!(matches!(Store::open_complete(&path), Err(StoreError::InUse { .. })), "its node may evict");
    drop(cache);
    let (reader, other) = (Store::open_complete(&path).unwrap(), Store::open_complete(&path).unwrap());
    let again = Store::open_cache(&packed.dir.path().join("cache"), origin.image(), origin.manifest_bytes());
    assert!(matches!(again, Err(StoreError::InUse { .. })), "those who read it rely on it");
    drop((reader, other));
    reopen(&packed, &origin);
}

#[test]
fn what_could_not_be_stored_is_kept_in_memory_however_it_is_coded() {
    let packed = packed(600);
    let (origin, cache) = origin_and_cache(&packed);
    let g = origin.geometry();
    let piece = raw_chunk(&origin);
    let chunk = g.chunk(piece.get()).unwrap();
    copy_piece(&origin, &cache, g.leaf_piece(g.leaf_of(chunk)));
    let payload = origin.read_payload(piece).unwrap();
    let data = cache.decode(chunk, payload).unwrap();
    assert!(!cache.holds(piece) && data == origin.read_chunk(chunk).unwrap());
    assert_eq!(cache.chunk_in_memory(chunk), Some(data));
}
