//! What a process that ends without a flush leaves to the next one.

use super::super::tests::{GUEST, IMAGE, IMAGE_BYTES, all, place};
use super::super::{Overlay, OverlayFile, UNIT};
use super::*;
use crate::disk::Disk;
use crate::overlay::tests::Below;

fn open(path: &Path, survival: Survival) -> Result<Overlay<Below>, OverlayError> {
    Overlay::in_file(Below, OverlayFile::open_or_create(path, IMAGE, IMAGE_BYTES, survival)?)
}

/// Writes and zeros, some flushed, and what the disk is after them.
async fn used(overlay: &Overlay<Below>) -> Vec<u8> {
    overlay.write(GUEST, 3 * UNIT + 7, vec![1; 6000].into()).await.unwrap();
    overlay.write_zeroes(GUEST, 9 * UNIT, 2 * UNIT, true).await.unwrap();
    overlay.flush().await.unwrap();
    overlay.write(GUEST, 10 * UNIT, vec![2; UNIT as usize].into()).await.unwrap();
    overlay.trim(GUEST, 3 * UNIT, UNIT).await.unwrap();
    overlay.write(GUEST, IMAGE_BYTES - 600, vec![3; 600].into()).await.unwrap();
    all(overlay).await
}

#[tokio::test]
async fn what_was_answered_is_there_for_the_next_process() {
    let (_folder, path) = place();
    let overlay = open(&path, Survival::Answered).unwrap();
    overlay.await_next();
    let (expected, salt) = (used(&overlay).await, overlay.salt());
    // As when it is killed: nothing is flushed.
    drop(overlay);
    for survival in [Survival::Flushed, Survival::Answered] {
        let refused = open(&path, survival).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("take that back with --ublk --recover"), "{refused}");
    }
    for _ in 0..2 {
        let overlay = open(&path, Survival::Recovered).unwrap();
        assert!(all(&overlay).await == expected && overlay.salt() == salt);
    }
    let overlay = open(&path, Survival::Recovered).unwrap();
    overlay.flush().await.unwrap();
    overlay.retire().unwrap();
    drop(overlay);
    assert!(matches!(open(&path, Survival::Recovered), Err(OverlayError::NotLive(_))));
    assert!(all(&open(&path, Survival::Flushed).unwrap()).await == expected);
}

#[tokio::test]
async fn without_a_device_nothing_is_left() {
    let (_folder, path) = place();
    let overlay = open(&path, Survival::Answered).unwrap();
    assert!(path_of(&path).exists());
    drop(overlay);
    assert!(!path_of(&path).exists());
}

#[tokio::test]
async fn another_boot_has_nothing_to_take_up() {
    let (_folder, path) = place();
    let overlay = open(&path, Survival::Answered).unwrap();
    overlay.await_next();
    used(&overlay).await;
    drop(overlay);
    let file = OpenOptions::new().write(true).open(path_of(&path)).unwrap();
    write_all_at(&file, &[b'0'; BOOT_BYTES], BOOT_AT as u64).unwrap();
    assert!(matches!(open(&path, Survival::Recovered), Err(OverlayError::NotLive(_))));
    open(&path, Survival::Flushed).unwrap();
    assert!(!path_of(&path).exists());
}
