//! What is to be stored: gathered, so that threads are woken and records written for many pieces at once.
//!
//! *Invariants*: each put is reported once, also if the store panics; no put waits while no thread works.
//! *Bounds*: as many puts as the engine has transfers; [`THREADS_MAX`] threads, [`BATCH`] pieces with one record.

use super::message::{Message, Revealed};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use swarmdisk_core::geometry::{Piece, PieceIndex};
use swarmdisk_core::ids::SlotId;
use tokio::sync::mpsc;

/// A second one writes on while the first is kept waiting by the disk, or decompresses.
const THREADS_MAX: usize = 2;
/// Pieces that are stored together: the first is reported when all are.
const BATCH: usize = 16;

/// A payload to be stored.
#[derive(Debug)]
pub(crate) struct Put {
    /// The engine's name for it.
    pub slot: SlotId,
    /// Which piece.
    pub piece: PieceIndex,
    /// Its payload, verified.
    pub body: Bytes,
    /// Whether a guest is expected to read it soon: it is decompressed then.
    pub is_due: bool,
}

/// All that wait.
#[derive(Debug, Default)]
pub(crate) struct Puts(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Put>,
    threads: usize,
}

impl Puts {
    /// Adds one; true: a thread is to be started that [`work`](Self::work)s.
    #[must_use]
    pub fn add(&self, put: Put) -> bool {
        let mut queue = self.lock();
        queue.waiting.push_back(put);
        // The second thread is for what the first leaves lying.
        let is_needed = queue.threads == 0 || (queue.threads < THREADS_MAX && queue.waiting.len() > BATCH);
        queue.threads += usize::from(is_needed);
        is_needed
    }

    /// Stores until nothing waits. Blocks.
    pub fn work(&self, store: &Store, engine: &mpsc::Sender<Message>) {
        while let Some(batch) = self.next() {
            let all: Vec<(PieceIndex, &[u8])> = batch.iter().map(|put| (put.piece, &put.body[..])).collect();
            let outcomes = catch_unwind(AssertUnwindSafe(|| put_all(store, &all)));
            let outcomes = outcomes.unwrap_or_else(|_| all.iter().map(|_| Err(panicked(store))).collect());
            for (put, outcome) in batch.iter().zip(outcomes) {
                // If the engine's task has ended there is nobody to tell.
                let _ = engine.blocking_send(Message::Stored { slot: put.slot, piece: put.piece, outcome });
            }
            for put in batch.into_iter().filter(|put| put.is_due) {
                if let Piece::Chunk(chunk) = store.geometry().kind(put.piece) {
                    // The guest that reads it then need not wait for that. Whether it can be is seen again when it does.
                    let _ = catch_unwind(AssertUnwindSafe(|| store.decode(chunk, put.body)));
                }
            }
        }
    }

    /// The next ones; if there are none, the thread that asks has ended.
    fn next(&self) -> Option<Vec<Put>> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(BATCH);
        if count == 0 {
            queue.threads -= 1;
            return None;
        }
        Some(queue.waiting.drain(..count).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores all, and says what each has revealed.
fn put_all(store: &Store, all: &[(PieceIndex, &[u8])]) -> Vec<Result<Revealed, StoreError>> {
    let found = |piece| match store.geometry().kind(piece) {
        Piece::Leaf(leaf) => store.found_in_others(leaf),
        Piece::Chunk(_) => Vec::new(),
    };
    let outcomes = all.iter().zip(store.put_all(all));
    outcomes.map(|((piece, _), outcome)| outcome.map(|zeros| Revealed { zeros, found: found(*piece) })).collect()
}

fn panicked(store: &Store) -> StoreError {
    let source = io::Error::other("a thread ended unexpectedly");
    StoreError::Io { action: "work on", path: store.path().to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmdisk_core::geometry::Geometry;

    #[test]
    fn threads_are_started_for_what_waits_and_end_when_nothing_does() {
        let piece = Geometry::new(1 << 20, 16).unwrap().piece(0).unwrap();
        // Only an engine makes one.
        let slot: SlotId = serde_json::from_str(r#"{"index":0,"generation":0}"#).unwrap();
        let put = || Put { slot, piece, body: Bytes::new(), is_due: false };
        let puts = Puts::default();
        assert!(puts.add(put()));
        assert!((1..BATCH).all(|_| !puts.add(put())), "the first thread can take them");
        assert!(puts.add(put()) && !puts.add(put()), "a second, no third");
        assert_eq!(puts.next().map(|batch| batch.len()), Some(BATCH));
        assert_eq!(puts.next().map(|batch| batch.len()), Some(2));
        assert!(puts.next().is_none() && !puts.add(put()), "the other thread is still there");
        assert!(puts.next().is_some() && puts.next().is_none());
        assert!(puts.add(put()), "nobody works any more");
    }
}
