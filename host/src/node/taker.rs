//! Chunks that other images of the cache hold: taken at once for whoever waits for one, the others one after the other.
//!
//! *Invariants*: the engine takes them to be held from when they are found, so that nothing fetches them and peers may ask for
//! them; one that cannot be had after all is told as lost, and then fetched. *Bounds*: one chunk at a time in the background,
//! beside one for each that a guest waits for; of those to come a run is kept, at most 256 for each leaf page.

use super::engine_task::Task;
use super::message::Message;
use super::pieces::Pieces;
use super::waiters::{Answer, answer_all};
use crate::log;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;
use swarmdisk_core::engine::Event;
use swarmdisk_core::geometry::{ChunkIndex, Piece, PieceIndex};
use tokio::sync::mpsc;

/// Runs of chunks, as (first, count).
pub(super) type Runs = Vec<(PieceIndex, u32)>;

impl Task<'_> {
    /// Takes a chunk that is said to be in another image, for those who wait for it.
    pub(super) fn take_over(&mut self, piece: PieceIndex, chunk: ChunkIndex) {
        if !self.taking.insert(piece) {
            return;
        }
        let (sender, pieces, keep) = (self.sender.clone(), self.pieces.clone(), self.keeper.is_none());
        tokio::spawn(async move {
            let read =
                move |store: &Store| Ok(if keep { take(store, chunk).0 } else { store.payload_of_others(chunk) });
            let payload = pieces.blocking(read).await.ok().flatten();
            // If the engine's task has ended there is nobody to tell.
            let _ = sender.send(Message::Taken { piece, payload }).await;
        });
    }

    pub(super) fn on_taken(&mut self, piece: PieceIndex, payload: Option<Bytes>) {
        self.taking.remove(&piece);
        let Piece::Chunk(chunk) = self.pieces.store().geometry().kind(piece) else { return };
        let guests = self.waiters.guests(piece);
        if payload.is_some() || self.pieces.store().holds(piece) {
            for guest in guests {
                self.tell(Event::Touched { guest, chunk });
            }
            let waiters = self.waiters.take(piece);
            return match payload {
                Some(payload) => self.deliver(piece, payload, waiters),
                None => answer_all(waiters, &Answer::Held),
            };
        }
        if self.engine.holds(piece) {
            self.tell(Event::PieceLost { piece });
        }
        for guest in guests {
            self.tell(Event::Wanted { guest, chunk });
        }
    }

    /// Other images hold these chunks; those that are waited for are taken at once.
    pub(super) fn on_found(&mut self, found: Runs) {
        for (first, count) in &found {
            self.note_found(*first, *count);
            self.tell(Event::Found { first: *first, count: *count });
            for piece in self.waiters.pieces(first.get(), *count) {
                if let Piece::Chunk(chunk) = self.pieces.store().geometry().kind(piece) {
                    self.take_over(piece, chunk);
                }
            }
        }
        // Within a bound they are read where they are: a second copy would only cost room.
        if !found.is_empty() && self.keeper.is_none() {
            // The taker ends with this task.
            let _ = self.taker.send(found);
        }
    }
}

/// Starts the task that takes over what it is sent; it ends when nobody can send any more.
pub(super) fn start(pieces: Arc<Pieces>, engine: mpsc::Sender<Message>) -> mpsc::UnboundedSender<Runs> {
    let (sender, found) = mpsc::unbounded_channel();
    tokio::spawn(run(pieces, engine, found));
    sender
}

async fn run(pieces: Arc<Pieces>, engine: mpsc::Sender<Message>, mut found: mpsc::UnboundedReceiver<Runs>) {
    let geometry = pieces.store().geometry();
    while let Some(runs) = found.recv().await {
        let chunks = runs.iter().flat_map(|(first, count)| first.get()..first.get() + count);
        for chunk in chunks.filter_map(|index| geometry.chunk(index)) {
            let piece = geometry.chunk_piece(chunk);
            if engine.is_closed() {
                return;
            }
            if pieces.store().holds(piece) {
                continue;
            }
            match pieces.blocking(move |store| Ok(take(store, chunk))).await {
                Ok((Some(_), Ok(()))) => {}
                Ok((Some(_), Err(error))) => {
                    // It is read from the other image as long as that has it.
                    log::debug(format_args!("chunks of other images are not taken over: {error}"));
                    break;
                }
                Ok((None, _)) | Err(_) => drop(engine.send(Message::Taken { piece, payload: None }).await),
            }
        }
    }
}

/// A chunk's payload from another image, and what came of keeping it.
fn take(store: &Store, chunk: ChunkIndex) -> (Option<Bytes>, Result<(), StoreError>) {
    let payload = store.payload_of_others(chunk);
    let kept = payload.as_ref().map_or(Ok(()), |payload| store.keep_taken(chunk, payload));
    (payload, kept)
}
