//! What engines ask for, carried out as a host would.

use super::node::node_at;
use super::queue::What;
use super::{Observation, Watch, World};
use crate::model::Content;
use swarmdisk_core::engine::{Action, Body, Event, Verdict};
use swarmdisk_core::geometry::Piece;
use swarmdisk_core::ids::{SlotId, UploadId};

impl<W: Watch> World<'_, W> {
    pub(super) fn act(&mut self, node: usize, action: Action) {
        let life = self.nodes[node].life;
        let (number, host) = (node as u32, &self.setup.scenario.host);
        match action {
            Action::Dial { peer, address } => {
                self.note(20, node, node_at(address) as u64);
                self.dial(node, peer, node_at(address));
            }
            Action::Hangup { peer, .. } => {
                self.note(21, node, peer.index() as u64);
                self.hang_up(node, peer);
            }
            Action::Transmit { peer, head_bytes, body } => {
                let head: Box<[u8]> = self.head[..usize::from(head_bytes)].into();
                let hash = head.iter().fold(0u64, |hash, byte| hash.rotate_left(7) ^ u64::from(*byte));
                self.note(22, node, hash);
                let body = body.map(|body| match body {
                    Body::Piece(piece) => (piece.get(), self.piece_bytes(node, piece.get())),
                    // Nobody asks: nodes have the blobs before their engines start.
                    Body::Blob { bytes, .. } => (u32::MAX, bytes),
                });
                self.transmit(node, peer, head, body);
            }
            Action::Load { upload, piece } => {
                self.note(23, node, piece.get().into());
                let what = What::Loaded { node: number, life, upload, piece: piece.get() };
                self.queue.push(self.now + host.load.0, what);
            }
            Action::Verify { slot, piece } => {
                self.note(24, node, piece.get().into());
                self.queue.push(self.now + host.verify.0, What::Verified { node: number, life, slot });
            }
            Action::Deliver { slot, piece } => {
                self.note(25, node, piece.get().into());
                let is_genuine = self.nodes[node].slots[slot.index()];
                self.guest_gets(node, piece.get(), is_genuine);
            }
            Action::Store { slot, piece } => {
                self.note(26, node, piece.get().into());
                let what = What::Stored { node: number, life, slot, piece: piece.get() };
                self.queue.push(self.now + host.store.0, what);
            }
            Action::Abandon { slot } => {
                self.note(27, node, slot.index() as u64);
                self.watch.observe(self.now, node, Observation::Released { slot });
            }
            Action::Evict { chunk } => {
                self.note(29, node, chunk.get().into());
                let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
                self.lose(node, chunk.get());
                self.tell_room(node);
                self.tell(node, Event::PieceLost { piece: geometry.chunk_piece(chunk) });
            }
            // The core's actions are matched above; a new one needs a new arm here.
            other => unreachable!("an action that the simulator does not know: {other:?}"),
        }
    }

    fn piece_bytes(&self, node: usize, piece: u32) -> u32 {
        self.setup.images[self.setup.nodes[node].image].piece_bytes(piece)
    }

    pub(super) fn on_loaded(&mut self, node: usize, upload: UploadId, piece: u32) {
        let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
        match self.nodes[node].store.open(piece) {
            Content::Genuine | Content::Undetected => {
                let bytes = self.piece_bytes(node, piece);
                self.tell(node, Event::Loaded { upload, bytes });
            }
            Content::Missing | Content::Rotten => {
                self.lose(node, piece);
                if let Some(piece) = geometry.piece(piece) {
                    self.tell(node, Event::PieceLost { piece });
                }
            }
        }
        self.drain(node);
    }

    pub(super) fn on_verified(&mut self, node: usize, slot: SlotId) {
        let is_genuine = self.nodes[node].slots[slot.index()];
        let verdict = if is_genuine { Verdict::Genuine } else { Verdict::Corrupt };
        self.note(28, node, u64::from(is_genuine));
        self.tell(node, Event::BodyVerified { slot, verdict });
        self.drain(node);
    }

    pub(super) fn on_stored(&mut self, node: usize, slot: SlotId, piece: u32) {
        let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
        let Some(index) = geometry.piece(piece) else { return };
        self.watch.observe(self.now, node, Observation::Released { slot });
        let leaf = match geometry.kind(index) {
            Piece::Leaf(leaf) => Some(leaf),
            Piece::Chunk(_) => None,
        };
        if self.nodes[node].disk_full && leaf.is_none() {
            self.tell(node, Event::StoreFailed { slot });
            self.guest_gets_after_all(node, piece);
            return self.drain(node);
        }
        let is_genuine = self.nodes[node].slots[slot.index()];
        self.keep(node, piece, is_genuine);
        self.watch.observe(self.now, node, Observation::Kept { piece, is_genuine });
        if let Some(leaf) = leaf {
            let first = leaf.first_chunk();
            self.hold_zeros(node, first..first + geometry.leaf_chunk_count(leaf));
        }
        self.tell(node, Event::BodyStored { slot });
        self.guest_gets(node, piece, is_genuine);
        self.tell_room(node);
        self.drain(node);
    }

    /// Bytes that a piece takes of a cache's bound.
    fn bounded_bytes(&self, node: usize, piece: u32) -> u64 {
        let image = &self.setup.images[self.setup.nodes[node].image];
        if piece < image.geometry.chunk_count() { image.piece_bytes(piece).into() } else { 0 }
    }

    fn keep(&mut self, node: usize, piece: u32, is_genuine: bool) {
        if !self.nodes[node].store.holds(piece) {
            self.nodes[node].held_bytes += self.bounded_bytes(node, piece);
        }
        self.nodes[node].store.put(piece, is_genuine);
    }

    pub(super) fn lose(&mut self, node: usize, piece: u32) {
        if self.nodes[node].store.holds(piece) {
            self.nodes[node].held_bytes -= self.bounded_bytes(node, piece);
        }
        self.nodes[node].store.lose(piece);
    }

    fn tell_room(&mut self, node: usize) {
        let row = &self.nodes[node];
        if let Some(bound) = row.bound_bytes {
            let bytes = bound as i64 - row.held_bytes as i64;
            self.tell(node, Event::Room { bytes });
        }
    }

    /// A process with a bounded cache starts: what of it may go, and how much room there is.
    pub(super) fn tell_holdings(&mut self, node: usize) {
        if self.nodes[node].bound_bytes.is_none() {
            return;
        }
        let image = &self.setup.images[self.setup.nodes[node].image];
        let held = self.nodes[node].store.bits();
        let chunks = (0..image.geometry.chunk_count()).filter(|chunk| held.get(*chunk) && !image.is_zero(*chunk));
        let chunks: Vec<u32> = chunks.collect();
        self.nodes[node].held_bytes = chunks.iter().map(|chunk| u64::from(image.piece_bytes(*chunk))).sum();
        for first in chunks.into_iter().filter_map(|chunk| image.geometry.piece(chunk)) {
            self.tell(node, Event::Kept { first, count: 1 });
        }
        self.tell_room(node);
    }

    /// Chunks of which a leaf page says that they are all zero are there with it.
    fn hold_zeros(&mut self, node: usize, chunks: std::ops::Range<u32>) {
        let image = &self.setup.images[self.setup.nodes[node].image];
        for chunk in chunks.filter(|chunk| image.is_zero(*chunk)) {
            let Some(first) = image.geometry.piece(chunk).filter(|_| !self.nodes[node].store.holds(chunk)) else {
                continue;
            };
            self.nodes[node].store.fill(chunk, 1);
            self.tell(node, Event::Held { first, count: 1 });
            self.guest_gets(node, chunk, true);
        }
    }
}
