//! What the engine asks for, carried out: dialling, sending, and work with the store on blocking threads.
//!
//! *Invariants*: nothing here waits; each job reports back with one message. *Bounds*: as many jobs as the engine has
//! transfers, uploads and links.

use super::engine_task::{Link, Task};
use super::link::{OutBody, Outgoing};
use super::message::Message;
use super::pieces::INLINE_BYTES;
use super::puts::Put;
use super::socket::{dial, to_socket_addr};
use super::waiters::{Answer, Waiter, answer_all};
use crate::log;
use bytes::Bytes;
use swarmdisk_core::engine::{Action, BlobKind, Body, Event, Reason, Verdict};
use swarmdisk_core::geometry::{Piece, PieceIndex};
use swarmdisk_core::ids::{Address, PeerId, SlotId, UploadId};
use swarmdisk_core::time::Duration;

/// What is expected to be read so soon is decompressed when it comes; until later it would not stay in memory.
const DECODE_AHEAD: Duration = Duration::from_millis(500);

impl Task<'_> {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Dial { peer, address } => self.dial(peer, address),
            Action::Hangup { peer, reason } => self.hang_up(peer, reason),
            Action::Transmit { peer, head_bytes, body } => self.transmit(peer, head_bytes.into(), body),
            Action::Load { upload, piece } => self.load(upload, piece),
            Action::Verify { slot, piece } => self.verify(slot, piece),
            Action::Deliver { slot, piece } => {
                let waiters = self.waiters.take(piece);
                if let Some(body) = self.slot(slot).map(|row| row.body.clone()) {
                    self.deliver(piece, body, waiters);
                }
            }
            Action::Store { slot, piece } => self.store(slot, piece),
            Action::Abandon { slot } => drop(self.take_slot(slot)),
            Action::Evict { chunk } => self.evict(chunk),
            // An engine newer than this host; it will time out.
            _ => log::warn(format_args!("the engine asked for something unknown")),
        }
    }

    fn dial(&mut self, peer: PeerId, address: Address) {
        let address = to_socket_addr(address);
        let (sender, rates) = (self.sender.clone(), self.rates.clone());
        let dialler = tokio::spawn(async move {
            let outcome = dial(address, &rates).await;
            // If the engine's task has ended there is nobody to tell.
            let _ = sender.send(Message::Dialed { peer, outcome }).await;
        });
        self.links.insert(peer, Link::Dialing { address, dialler: dialler.abort_handle() });
    }

    fn hang_up(&mut self, peer: PeerId, reason: Reason) {
        let Some(link) = self.links.remove(&peer) else { return };
        let address = link.address();
        match reason {
            Reason::Corrupt => log::warn(format_args!("{address} is dropped: it sent wrong bytes")),
            Reason::Silent => log::info(format_args!("{address} is dropped: it has been silent for too long")),
            Reason::Duplicate | Reason::Crowded => log::debug(format_args!("link to {address} is closed: {reason:?}")),
        }
        if let Link::Dialing { dialler, .. } = link {
            dialler.abort();
        }
    }

    fn transmit(&mut self, peer: PeerId, head_bytes: usize, body: Option<Body>) {
        // A link that went down while the engine was about to use it: `PeerClosed` is on its way or told.
        let Some(Link::Up { handle, .. }) = self.links.get(&peer) else { return };
        let body = match body {
            None => OutBody::None,
            Some(Body::Piece(piece)) => self.pieces.recent(piece).map_or(OutBody::Piece(piece), OutBody::Bytes),
            Some(Body::Blob { kind, offset, bytes }) => {
                let blob = match kind {
                    BlobKind::Manifest => &self.manifest,
                    BlobKind::Profile => &self.profile,
                };
                let end = (offset as usize).saturating_add(bytes as usize).min(blob.len());
                OutBody::Bytes(blob.slice((offset as usize).min(end)..end))
            }
        };
        let head = Bytes::copy_from_slice(&self.head[..head_bytes]);
        if !handle.send(Outgoing { head, body })
            && let Some(link) = self.links.remove(&peer)
        {
            log::warn(format_args!("{} is dropped: it does not take what it asked for", link.address()));
            self.tell(Event::PeerClosed { peer });
        }
    }

    fn load(&mut self, upload: UploadId, piece: PieceIndex) {
        if let Some(payload) = self.pieces.payload_now(piece) {
            return self.tell(Event::Loaded { upload, bytes: payload.len() as u32 });
        }
        let (sender, pieces) = (self.sender.clone(), self.pieces.clone());
        tokio::spawn(async move {
            let outcome = pieces.payload(piece).await.map(|payload| payload.len() as u32);
            let _ = sender.send(Message::Loaded { upload, piece, outcome }).await;
        });
    }

    fn verify(&mut self, slot: SlotId, piece: PieceIndex) {
        let Some(body) = self.slot(slot).map(|row| row.body.clone()) else {
            // Cannot be: the slot's body was reported. The engine is to get an answer all the same.
            return self.tell(Event::BodyVerified { slot, verdict: Verdict::Corrupt });
        };
        if body.len() <= INLINE_BYTES
            && let Some(outcome) = self.pieces.store().verify_now(piece, &body)
        {
            return self.on_verified(slot, piece, outcome);
        }
        let (sender, pieces) = (self.sender.clone(), self.pieces.clone());
        tokio::spawn(async move {
            let outcome = pieces.blocking(move |store| store.verify(piece, &body)).await;
            let _ = sender.send(Message::Verified { slot, piece, outcome }).await;
        });
    }

    /// Gives waiters the chunk of a verified payload.
    pub(super) fn deliver(&mut self, piece: PieceIndex, body: Bytes, waiters: Vec<Waiter>) {
        if waiters.is_empty() {
            return;
        }
        match self.pieces.store().geometry().kind(piece) {
            Piece::Chunk(_) => answer_all(waiters, &Answer::Payload(body)),
            // A verified leaf page is in the store's memory.
            Piece::Leaf(_) => answer_all(waiters, &Answer::Held),
        }
    }

    fn store(&mut self, slot: SlotId, piece: PieceIndex) {
        let Some(body) = self.slot(slot).map(|row| row.body.clone()) else {
            return self.tell(Event::StoreFailed { slot });
        };
        let is_due = self.engine.prefetch_due(piece).is_some_and(|due| due <= self.now() + DECODE_AHEAD);
        // Others will hear soon that it is here, and ask for it.
        self.pieces.remember(piece, &body);
        self.pieces.put(Put { slot, piece, body, is_due }, &self.sender);
    }
}
