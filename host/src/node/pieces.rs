//! Payloads for the links: the store on blocking threads, with what was used last in memory.
//!
//! *Purpose*: what `Load` has read is sent by `Transmit` without a second read, and what has just come in is what others
//! ask for next. *Invariants*: nothing here was not verified in this process.
//! *Bounds*: [`RECENT_BYTES`] of payloads in memory; [`BLOCKING_MAX`] blocking threads at a time.

use crate::store::{Store, StoreError};
use bytes::Bytes;
use lru::LruCache;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarmdisk_core::geometry::PieceIndex;
use tokio::sync::Semaphore;

/// Payloads kept in memory: 16 MiB.
pub(crate) const RECENT_BYTES: usize = 16 << 20;
/// Threads that read, write, hash and decompress: enough to keep a disk busy.
pub(crate) const BLOCKING_MAX: usize = 32;

/// A store, and what was used of it last.
#[derive(Debug)]
pub(crate) struct Pieces {
    store: Arc<Store>,
    threads: Semaphore,
    recent: Mutex<Recent>,
}

#[derive(Debug)]
struct Recent {
    payloads: LruCache<PieceIndex, Bytes>,
    bytes: usize,
}

impl Pieces {
    /// Over this store.
    pub fn new(store: Arc<Store>) -> Self {
        let recent = Recent { payloads: LruCache::unbounded(), bytes: 0 };
        Self { store, threads: Semaphore::new(BLOCKING_MAX), recent: Mutex::new(recent) }
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Does something with the store on a blocking thread.
    ///
    /// # Errors
    /// What `work` answers; [`StoreError::Io`] if the thread could not finish.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The semaphore is never closed; without a permit there would only be one thread more.
        let _permit = self.threads.acquire().await;
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| {
            let source = io::Error::other(error);
            Err(StoreError::Io { action: "work on", path: self.store.path().to_owned(), source })
        })
    }

    /// The piece's payload.
    ///
    /// # Errors
    /// As [`Store::read_payload`].
    pub async fn payload(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        if let Some(payload) = self.recent(piece) {
            return Ok(payload);
        }
        let payload = self.blocking(move |store| store.read_payload(piece)).await?;
        self.remember(piece, &payload);
        Ok(payload)
    }

    /// The piece's payload if it is in memory.
    pub fn recent(&self, piece: PieceIndex) -> Option<Bytes> {
        self.lock().payloads.get(&piece).cloned()
    }

    /// Keeps a payload, which has been verified, in memory for a while.
    pub fn remember(&self, piece: PieceIndex, payload: &Bytes) {
        let mut recent = self.lock();
        let old = recent.payloads.put(piece, payload.clone());
        recent.bytes += payload.len();
        recent.bytes -= old.map_or(0, |old| old.len());
        while recent.bytes > RECENT_BYTES {
            let Some((_, oldest)) = recent.payloads.pop_lru() else { break };
            recent.bytes -= oldest.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is lost if the store answers so when it is asked for `piece`; nothing if that says nothing about what it holds.
/// A disk that fails to read has lost the piece: there are others who have it.
pub(crate) fn lost_by(store: &Store, piece: PieceIndex, error: &StoreError) -> Vec<(PieceIndex, u32)> {
    match error {
        StoreError::Missing(gone) | StoreError::Rotten(gone) => store.lost_with(*gone),
        StoreError::Io { .. } => {
            store.mark_lost(piece);
            store.lost_with(piece)
        }
        _ => Vec::new(),
    }
}
