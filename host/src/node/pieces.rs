//! Payloads for the links: the store on blocking threads, with what was used last in memory.
//!
//! *Purpose*: what `Load` has read is sent by `Transmit` without a second read, and what has just come in is what others
//! ask for next. *Invariants*: nothing here was not verified in this process.
//! *Bounds*: [`RECENT_BYTES`] of payloads and what keeps them in memory; [`BLOCKING_MAX`] blocking threads at a time.

use super::message::Message;
use super::puts::{Put, Puts};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use lru::LruCache;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarmdisk_core::geometry::PieceIndex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

/// Payloads kept in memory: 8 MiB.
pub(crate) const RECENT_BYTES: usize = 8 << 20;
/// What a payload costs beside its bytes, about: without it a peer that asks for all chunks that are zeros, whose payloads
/// have no bytes, would fill the memory.
const ENTRY_BYTES: usize = 128;
/// Threads that read, write, hash and decompress: enough to keep a disk busy.
pub(crate) const BLOCKING_MAX: usize = 32;

/// A payload up to this long is read and hashed at once: a thread would have to be woken, which takes longer.
pub(crate) const INLINE_BYTES: usize = 64 << 10;

/// A store, and what was used of it last.
#[derive(Debug)]
pub(crate) struct Pieces {
    store: Arc<Store>,
    /// Whose blocking threads work here, whoever asks.
    runtime: Handle,
    threads: Semaphore,
    recent: Mutex<Recent>,
    puts: Puts,
}

#[derive(Debug)]
struct Recent {
    payloads: LruCache<PieceIndex, Bytes>,
    bytes: usize,
}

impl Pieces {
    /// Over this store, with blocking threads of the current tokio runtime.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            runtime: Handle::current(),
            threads: Semaphore::new(BLOCKING_MAX),
            recent: Mutex::new(Recent::new()),
            puts: Puts::default(),
        }
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
        let done = self.runtime.spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| {
            let source = io::Error::other(error);
            Err(StoreError::Io { action: "work on", path: self.store.path().to_owned(), source })
        })
    }

    /// The piece's payload.
    ///
    /// # Errors
    /// As [`Store::read_payload_anywhere`].
    pub async fn payload(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        if let Some(payload) = self.recent(piece) {
            return Ok(payload);
        }
        let payload = self.blocking(move |store| store.read_payload_anywhere(piece)).await?;
        self.remember(piece, &payload);
        Ok(payload)
    }

    /// The piece's payload if that needs no disk and little time.
    pub fn payload_now(&self, piece: PieceIndex) -> Option<Bytes> {
        if let Some(payload) = self.recent(piece) {
            return Some(payload);
        }
        let payload = self.store.read_payload_now(piece, INLINE_BYTES)?;
        self.remember(piece, &payload);
        Some(payload)
    }

    /// Stores a verified payload on a blocking thread, which reports to the engine's task.
    pub fn put(self: &Arc<Self>, put: Put, engine: &mpsc::Sender<Message>) {
        if self.puts.add(put) {
            let (pieces, engine) = (self.clone(), engine.clone());
            self.runtime.spawn_blocking(move || pieces.puts.work(&pieces.store, &engine));
        }
    }

    /// The piece's payload if it is in memory.
    pub fn recent(&self, piece: PieceIndex) -> Option<Bytes> {
        self.lock().payloads.get(&piece).cloned()
    }

    /// Keeps a payload, which has been verified, in memory for a while.
    pub fn remember(&self, piece: PieceIndex, payload: &Bytes) {
        self.lock().remember(piece, payload);
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn new() -> Self {
        Self { payloads: LruCache::unbounded(), bytes: 0 }
    }

    fn remember(&mut self, piece: PieceIndex, payload: &Bytes) {
        let old = self.payloads.put(piece, payload.clone());
        self.bytes += payload.len() + ENTRY_BYTES;
        self.bytes -= old.map_or(0, |old| old.len() + ENTRY_BYTES);
        while self.bytes > RECENT_BYTES {
            let Some((_, oldest)) = self.payloads.pop_lru() else { break };
            self.bytes -= oldest.len() + ENTRY_BYTES;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use swarmdisk_core::geometry::Geometry;

    #[test]
    fn payloads_without_bytes_do_not_fill_the_memory() {
        let geometry = Geometry::new(1 << 36, 16).unwrap();
        let mut recent = Recent::new();
        let pieces = (0..400_000).filter_map(|index| geometry.piece(index));
        pieces.for_each(|piece| recent.remember(piece, &Bytes::new()));
        assert_eq!(recent.payloads.len(), RECENT_BYTES / ENTRY_BYTES);
        assert_eq!(recent.bytes, RECENT_BYTES);
    }
}
