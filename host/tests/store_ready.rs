//! The store's quick ways: what is ready without a disk is what the image says and was verified first, and many pieces
//! stored together are as many stored one by one.

mod common;

use common::{flip, leaves_first, packed};
use swarmdisk_core::geometry::Piece;
use swarmdisk_host::store::{Store, StoreError};

/// Whether the system tells what needs no disk.
const IS_TOLD: bool = cfg!(target_os = "linux");

#[test]
fn what_is_ready_is_the_image_and_was_verified() {
    let packed = packed(64);
    let origin = Store::open_complete(&packed.swarm).unwrap();
    let g = origin.geometry();
    let all = packed.bytes.len() as u32;
    assert_eq!(origin.bytes_ready(0, all), None, "nothing is verified yet");
    for index in 0..g.chunk_count() {
        origin.read_chunk(g.chunk(index).unwrap()).unwrap();
    }
    // Stored as they are, the chunks of noise come from the file; the others are in memory, or zeros.
    for (offset, bytes) in [(0, all), (65535, 2), (9 << 16, 65536), ((8 << 16) + 5, 3 << 16), (u64::from(all) - 1, 1)] {
        let ready = origin.bytes_ready(offset, bytes);
        assert!(ready.is_some() || !IS_TOLD, "{bytes} bytes at {offset} are not ready");
        let is_right = |ready: Vec<_>| ready.concat() == packed.bytes[offset as usize..][..bytes as usize];
        assert!(ready.is_none_or(is_right), "{bytes} bytes at {offset}");
    }
}

#[test]
fn a_payload_at_hand_is_the_piece_or_nothing() {
    let packed = packed(64);
    let origin = Store::open_complete(&packed.swarm).unwrap();
    for piece in leaves_first(&origin) {
        if let Piece::Chunk(chunk) = origin.geometry().kind(piece) {
            origin.leaf(origin.geometry().leaf_of(chunk)).unwrap();
        }
        let now = origin.read_payload_now(piece, 0);
        assert!(now.is_none_or(|payload| payload.is_empty()), "it is not verified, and too long to be");
        let now = origin.read_payload_now(piece, 1 << 20);
        assert!(now.is_some() || !IS_TOLD);
        assert!(now.is_none_or(|payload| payload == origin.read_payload(piece).unwrap()));
    }
    // What rots before it was verified is not handed out.
    let again = Store::open_complete(&packed.swarm).unwrap();
    let g = again.geometry();
    let noise = g.chunk_piece(g.chunk(9).unwrap());
    let (offset, _) = again.payload_range(noise).unwrap();
    flip(&packed.swarm, offset, 0xff);
    assert_eq!(again.read_payload_now(noise, 1 << 20), None);
    assert_eq!(again.bytes_ready(9 << 16, 4096), None);
    assert!(matches!(again.read_payload(noise), Err(StoreError::Rotten(_))));
}

#[test]
fn pieces_stored_together_are_as_if_one_by_one() {
    let packed = packed(600);
    let origin = Store::open_complete(&packed.swarm).unwrap();
    let open = || Store::open_cache(&packed.dir.path().join("cache"), origin.image(), origin.manifest_bytes()).unwrap();
    let cache = open();
    let g = origin.geometry();
    let payloads: Vec<_> = leaves_first(&origin).map(|piece| (piece, origin.read_payload(piece).unwrap())).collect();
    let all: Vec<_> = payloads.iter().map(|(piece, payload)| (*piece, &payload[..])).collect();
    let leaves = (g.piece_count() - g.chunk_count()) as usize;
    let outcomes = cache.put_all(&all[leaves - 1..leaves + 1]);
    assert!(outcomes[0].as_ref().is_ok_and(|zero_runs| !zero_runs.is_empty()));
    // The first chunk's page is another one.
    assert!(matches!(outcomes[1], Err(StoreError::Missing(page)) if page == all[0].0));
    assert!(cache.put_all(&all[..leaves]).iter().all(Result::is_ok));
    for part in all[leaves..].chunks(16) {
        assert!(cache.put_all(part).iter().all(|outcome| outcome.as_ref().is_ok_and(Vec::is_empty)));
    }
    assert!(cache.is_complete());
    drop(cache);
    let again = open();
    assert!(again.is_complete(), "the log has all of them");
    assert!(std::fs::read(again.path()).unwrap() == std::fs::read(&packed.swarm).unwrap());
    assert!(matches!(origin.put_all(&all[..1])[0], Err(StoreError::ReadOnly { .. })));
}
