//! A node of a real swarm is recorded; what its engine did is had again from the recording, action for action.

mod common;
mod nodes;

use common::packed;
use nodes::{liar, node_options, read_all, seed, start};
use std::path::Path;
use swarmdisk_common::recording::{Records, ReplayError, Replayed, replay};
use swarmdisk_core::engine::{Action, Event, Stats};
use swarmdisk_core::format::recording::Record;
use swarmdisk_host::node::{Node, NodeError, NodeOptions};

/// Three nodes read an image at once; the first is recorded. What its engine counted.
async fn recorded(file: &Path) -> Stats {
    let packed = packed(400);
    let (seed, other) = (seed(&packed.swarm).await, seed(&packed.swarm).await);
    let liar = liar(other.address).await;
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let (mut nodes, mut readers) = (Vec::new(), Vec::new());
    for (index, dir) in dirs.iter().enumerate() {
        let contacts = [(seed.address, true), (liar, true)];
        let record_engine = (index == 0).then(|| file.to_owned());
        let node =
            start(NodeOptions { record_engine, ..node_options(dir, packed.report.image, &contacts).await }).await;
        let disk = node.disk();
        nodes.push(node);
        readers.push(tokio::spawn(async move { read_all(&disk, 150_000).await }));
    }
    for reader in readers {
        assert!(reader.await.unwrap() == packed.bytes);
    }
    let stats = nodes[0].handle.snapshot().await.unwrap().stats;
    for node in nodes {
        node.end().await;
    }
    stats
}

/// Where each record ends, and whether it is the one looked for.
fn ends(bytes: &[u8], mut is_it: impl FnMut(&Record<'_>) -> bool) -> Vec<(usize, bool)> {
    let mut records = Records::new(bytes).unwrap();
    let mut found = Vec::new();
    while let Some(found_it) = records.next_record().unwrap().map(|record| is_it(&record)) {
        found.push((records.offset() as usize, found_it));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_engine_runs_again_as_it_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording");
    let stats = recorded(&file).await;
    let bytes = std::fs::read(file).unwrap();
    let done = replay(&bytes[..]).unwrap();
    println!("{done:?}, {} bytes", bytes.len());
    assert!(done.actions > 100 && done.frames > 100 && done.events > 100, "{done:?}");
    assert_eq!(done.torn_bytes, 0);
    let mut landed_bytes = 0;
    let all = ends(&bytes, |record| {
        if let Record::Received { bytes, .. } = record
            && let Ok(swarmdisk_core::wire::Decoded::Frame { body_bytes, .. }) = swarmdisk_core::wire::decode(bytes)
        {
            landed_bytes += u64::from(body_bytes);
        }
        false
    });
    assert_eq!(all.len() as u64, done.records);
    assert_eq!(landed_bytes, stats.fetched_seed_bytes + stats.fetched_peer_bytes);
    // Heads alone: that is what makes a recording small.
    assert!((bytes.len() as u64) < landed_bytes / 4, "{} of {landed_bytes}", bytes.len());

    // Cut within its last record but one.
    let cut = all[all.len() - 3].0 + 3;
    let short = replay(&bytes[..cut]).unwrap();
    assert_eq!((short.records, short.torn_bytes), (done.records - 2, 3));

    // Without the event that a body was verified, its piece is never stored.
    let mut is_first = true;
    let found = ends(&bytes, |record| {
        let is_it = matches!(record, Record::Handled { event: Event::BodyVerified { .. }, .. });
        is_it && std::mem::take(&mut is_first)
    });
    let at = found.iter().position(|(_, is_it)| *is_it).unwrap();
    let mut without = bytes.clone();
    without.drain(found[at - 1].0..found[at].0);
    match replay(&without[..]) {
        Err(ReplayError::Diverged(divergence)) => {
            assert!(divergence.record > at as u64 && divergence.until.records + 1 == divergence.record);
            assert_ne!(divergence.expected, divergence.got);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_recording_and_not_the_node() {
    if !Path::new("/dev/full").exists() {
        println!("SKIPPED: there is no /dev/full; run it on Linux");
        return;
    }
    let stats = recorded(Path::new("/dev/full")).await;
    assert!(stats.fetched_seed_bytes + stats.fetched_peer_bytes > 0);
}

#[tokio::test]
async fn a_recording_that_cannot_be_made_is_told_at_once() {
    let (packed, folder) = (packed(10), tempfile::tempdir().unwrap());
    let options = nodes::seed_options(&packed.swarm);
    let record_engine = Some(folder.path().join("missing/recording"));
    let error = Node::start(NodeOptions { record_engine, ..options.clone() }).await.unwrap_err();
    assert!(matches!(error, NodeError::Record(_)));
    assert!(error.to_string().ends_with("choose another --record-engine"), "{error}");
    // One that serves nobody is recorded too.
    let file = folder.path().join("recording");
    let node = Node::start(NodeOptions { record_engine: Some(file.clone()), ..options }).await.unwrap();
    node.shutdown().await;
    let bytes = std::fs::read(file).unwrap();
    let Replayed { events, actions, torn_bytes: 0, .. } = replay(&bytes[..]).unwrap() else { panic!() };
    assert!(events > 0 && actions == 0);
    let is_dial = |record: &Record<'_>| matches!(record, Record::Polled { action: Action::Dial { .. }, .. });
    assert!(ends(&bytes, is_dial).iter().all(|(_, is_it)| !is_it));
}
