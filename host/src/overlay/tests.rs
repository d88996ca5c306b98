//! Against a naive disk: a vector of bytes.

use super::*;
use proptest::prelude::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use swarmdisk_core::ids::Digest;
use tempfile::TempDir;

pub(super) const GUEST: GuestId = GuestId(0);
pub(super) const IMAGE: Digest = Digest([7; 32]);
/// Seventeen units, the last of which is short.
pub(super) const IMAGE_BYTES: u64 = 16 * UNIT + 1000;

/// Something below: odd units are noise, even ones zeros, and it says so.
pub(super) struct Below;

impl Below {
    pub(super) fn bytes() -> Vec<u8> {
        (0..IMAGE_BYTES).map(|at| if at / UNIT % 2 == 1 { (at % 251) as u8 + 1 } else { 0 }).collect()
    }
}

impl Disk for Below {
    fn image_bytes(&self) -> u64 {
        IMAGE_BYTES
    }

    fn preferred_bytes(&self) -> u32 {
        65536
    }

    async fn read(&self, _: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        tokio::task::yield_now().await;
        Ok(vec![Bytes::from(Self::bytes()).slice(offset as usize..offset as usize + bytes as usize)])
    }

    async fn extents(&self, _: GuestId, offset: u64, bytes: u64, max: usize) -> Result<Vec<Extent>, DiskError> {
        let mut extents = Vec::new();
        for at in offset..offset + bytes {
            let kind = if at / UNIT % 2 == 1 { ExtentKind::Data } else { ExtentKind::Zero };
            push_extent(&mut extents, Extent { bytes: 1, kind });
        }
        extents.truncate(max);
        Ok(extents)
    }
}

pub(super) async fn all<D: Disk>(disk: &D) -> Vec<u8> {
    disk.read(GUEST, 0, disk.image_bytes() as u32).await.unwrap().concat()
}

pub(super) fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overlay");
    (folder, path)
}

fn open(path: &Path) -> Overlay<Below> {
    Overlay::in_file(Below, OverlayFile::open_or_create(path, IMAGE, IMAGE_BYTES, Survival::Flushed).unwrap()).unwrap()
}

fn error_of(path: &Path, image: Digest) -> String {
    match OverlayFile::open_or_create(path, image, IMAGE_BYTES, Survival::Flushed) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Write {
        offset: u64,
        bytes: u64,
        fill: u8,
    },
    Zero {
        offset: u64,
        bytes: u64,
        may_trim: bool,
    },
    Trim {
        offset: u64,
        bytes: u64,
    },
    Flush,
    /// Clean: flushed before.
    Reopen,
}

/// Ranges of all kinds: of bytes, of sectors, of units, to the end.
fn range() -> impl Strategy<Value = (u64, u64)> {
    let grain = prop::sample::select(vec![1u64, 512, UNIT]);
    (grain, 0..IMAGE_BYTES, 0..4 * UNIT, prop::bool::weighted(0.1)).prop_map(|(grain, offset, bytes, to_end)| {
        let offset = offset / grain * grain;
        let bytes = (bytes / grain * grain).min(IMAGE_BYTES - offset);
        (offset, if to_end { IMAGE_BYTES - offset } else { bytes })
    })
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (range(), 1u8..).prop_map(|((offset, bytes), fill)| Step::Write { offset, bytes, fill }),
        2 => (range(), any::<bool>()).prop_map(|((offset, bytes), may_trim)| Step::Zero { offset, bytes, may_trim }),
        2 => range().prop_map(|(offset, bytes)| Step::Trim { offset, bytes }),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// Does a step, on the disk and on the bytes that it should have then.
pub(super) async fn apply(disk: &impl Disk, model: &mut [u8], step: &Step) {
    let part = |offset: u64, bytes: u64| offset as usize..(offset + bytes) as usize;
    match *step {
        Step::Write { offset, bytes, fill } => {
            let data: Vec<u8> = (0..bytes).map(|at| fill.wrapping_add((at / 512) as u8)).collect();
            model[part(offset, bytes)].copy_from_slice(&data);
            disk.write(GUEST, offset, data.into()).await.unwrap();
        }
        Step::Zero { offset, bytes, may_trim } => {
            model[part(offset, bytes)].fill(0);
            disk.write_zeroes(GUEST, offset, bytes, may_trim).await.unwrap();
        }
        Step::Trim { offset, bytes } => {
            let to_end = offset + bytes == IMAGE_BYTES;
            let end = if to_end { IMAGE_BYTES } else { (offset + bytes) / UNIT * UNIT };
            let first = offset.div_ceil(UNIT) * UNIT;
            if first < end {
                model[part(first, end - first)].fill(0);
            }
            disk.trim(GUEST, offset, bytes).await.unwrap();
        }
        Step::Flush | Step::Reopen => disk.flush().await.unwrap(),
    }
}

async fn assert_same(disk: &impl Disk, model: &[u8]) {
    assert!(all(disk).await == model, "the bytes differ");
    let mut at = 0;
    while at < IMAGE_BYTES {
        for extent in disk.extents(GUEST, at, IMAGE_BYTES - at, 3).await.unwrap() {
            let part = &model[at as usize..(at + extent.bytes) as usize];
            assert!(extent.kind == ExtentKind::Data || part.iter().all(|byte| *byte == 0), "{extent:?} at {at}");
            at += extent.bytes;
        }
    }
    for offset in (0..IMAGE_BYTES - 6000).step_by(1777) {
        let read = disk.read(GUEST, offset, 5555).await.unwrap().concat();
        assert!(read == model[offset as usize..offset as usize + 5555], "the bytes at {offset} differ");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_is_as_the_naive_disk(steps in prop::collection::vec(step(), 1..40)) {
        runtime().block_on(async {
            let (_folder, path) = place();
            let (mut disk, mut model) = (open(&path), Below::bytes());
            for step in &steps {
                apply(&disk, &mut model, step).await;
                if let Step::Reopen = step {
                    drop(disk);
                    disk = open(&path);
                }
                assert_same(&disk, &model).await;
            }
        });
    }

    #[test]
    fn memory_is_as_the_naive_disk(steps in prop::collection::vec(step(), 1..40)) {
        runtime().block_on(async {
            let (disk, mut model) = (Overlay::in_memory(Below, 17 * UNIT).unwrap(), Below::bytes());
            for step in &steps {
                apply(&disk, &mut model, step).await;
                assert_same(&disk, &model).await;
            }
        });
    }
}

#[tokio::test]
async fn memory_that_is_full_takes_writes_again_once_some_is_free() {
    let disk = Overlay::in_memory(Below, 2 * UNIT).unwrap();
    let unit = |fill| Bytes::from(vec![fill; UNIT as usize]);
    disk.write(GUEST, 0, unit(1)).await.unwrap();
    disk.write(GUEST, UNIT, unit(2)).await.unwrap();
    assert!(matches!(disk.write(GUEST, 2 * UNIT, unit(3)).await, Err(DiskError::Full)));
    assert!(matches!(disk.write_zeroes(GUEST, 3 * UNIT, UNIT, false).await, Err(DiskError::Full)));
    disk.write(GUEST, 5, Bytes::from_static(b"in place")).await.unwrap();
    let below = disk.read(GUEST, 3 * UNIT, UNIT as u32).await.unwrap().concat();
    assert_eq!(below, Below::bytes()[3 * UNIT as usize..4 * UNIT as usize]);
    disk.trim(GUEST, 0, UNIT).await.unwrap();
    disk.write(GUEST, 2 * UNIT, unit(3)).await.unwrap();
    let all = all(&disk).await;
    assert!([0, 2, 3].into_iter().zip(all.chunks(UNIT as usize)).all(|(fill, unit)| unit.iter().all(|b| *b == fill)));
}

#[tokio::test]
async fn what_a_write_covers_wholly_is_not_read_below() {
    struct Unreadable;
    impl Disk for Unreadable {
        fn image_bytes(&self) -> u64 {
            IMAGE_BYTES
        }
        fn preferred_bytes(&self) -> u32 {
            4096
        }
        async fn read(&self, _: GuestId, _: u64, _: u32) -> Result<Vec<Bytes>, DiskError> {
            Err(DiskError::TimedOut(std::time::Duration::ZERO))
        }
        async fn extents(&self, _: GuestId, _: u64, _: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
            Err(DiskError::TimedOut(std::time::Duration::ZERO))
        }
    }
    let disk = Overlay::in_memory(Unreadable, 1 << 20).unwrap();
    disk.write(GUEST, UNIT, vec![1; 2 * UNIT as usize].into()).await.unwrap();
    disk.write(GUEST, 16 * UNIT, vec![1; 1000].into()).await.unwrap();
    disk.write_zeroes(GUEST, 3 * UNIT, UNIT, true).await.unwrap();
    disk.write(GUEST, 3 * UNIT + 7, Bytes::from_static(b"over zeros")).await.unwrap();
    assert!(matches!(disk.write(GUEST, 5 * UNIT, vec![1; 5000].into()).await, Err(DiskError::TimedOut(_))));
    assert!(matches!(disk.read(GUEST, 5 * UNIT, 1).await, Err(DiskError::TimedOut(_))));
    disk.read(GUEST, UNIT, 3 * UNIT as u32).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_one_unit_written_at_once_are_all_there() {
    let (_folder, path) = place();
    let disk = Arc::new(open(&path));
    let mut writes = tokio::task::JoinSet::new();
    for part in 0..64u64 {
        let disk = Arc::clone(&disk);
        writes.spawn(async move { disk.write(GUEST, UNIT + part * 128, vec![part as u8 + 1; 128].into()).await });
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap().unwrap();
    }
    let read = disk.read(GUEST, UNIT, 2 * UNIT as u32).await.unwrap().concat();
    assert!(read.chunks(128).zip(1..).all(|(part, fill)| part.iter().all(|byte| *byte == fill)), "{read:?}");
}

#[tokio::test]
async fn a_file_is_locked_and_bound_to_its_image() {
    let (_folder, path) = place();
    let disk = open(&path);
    assert!(error_of(&path, IMAGE).contains("in use by another process"));
    disk.write(GUEST, 0, Bytes::from_static(b"new")).await.unwrap();
    disk.flush().await.unwrap();
    let summary = OverlaySummary::read(&path).unwrap();
    assert_eq!(
        (summary.image, summary.image_bytes, summary.data_bytes, summary.zero_bytes),
        (IMAGE, IMAGE_BYTES, UNIT, 0)
    );
    drop(disk);
    assert!(error_of(&path, Digest([8; 32])).contains("belongs to image 0707"));
    assert_eq!(&all(&open(&path)).await[..3], b"new");
}

#[tokio::test]
async fn damage_is_told_and_nothing_is_written_over() {
    let (_folder, path) = place();
    let disk = open(&path);
    for fill in 1..3u8 {
        disk.write(GUEST, 0, vec![fill; 5000].into()).await.unwrap();
        disk.write_zeroes(GUEST, (8 + u64::from(fill)) * UNIT, UNIT, true).await.unwrap();
        disk.flush().await.unwrap();
    }
    drop(disk);
    let good = fs::read(&path).unwrap();
    let damaged = |at: &[usize]| {
        let mut bad = good.clone();
        at.iter().for_each(|at| bad[*at] ^= 1);
        fs::write(&path, &bad).unwrap();
        bad
    };
    let bad = damaged(&[20]);
    assert!(error_of(&path, IMAGE).contains("header is damaged"));
    assert_eq!(fs::read(&path).unwrap(), bad);
    let bad = damaged(&[4096 + 16, 8192 + 16]);
    assert!(error_of(&path, IMAGE).contains("both copies of page 0"));
    assert_eq!(fs::read(&path).unwrap(), bad);
    // One good copy is enough, though it may be the older one.
    for (at, zero_unit) in [(4096 + 16, 10), (8192 + 16, 9)] {
        damaged(&[at]);
        let all = all(&open(&path)).await;
        assert!(all[..5000] == [2; 5000] && all[zero_unit * UNIT as usize..][..UNIT as usize] == [0; UNIT as usize]);
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(error_of(&path, IMAGE).contains("bytes long but should be"));
    for other in [&b""[..], b"an image", &[0; 10_000]] {
        fs::write(&path, other).unwrap();
        assert!(error_of(&path, IMAGE).contains("no overlay"));
        assert_eq!(fs::read(&path).unwrap(), other);
    }
    assert!(error_of(path.parent().unwrap(), IMAGE).contains("no regular file"));
    File::create(&path).unwrap().set_len(1).unwrap();
    assert!(OverlaySummary::read(&path).is_err());
}
