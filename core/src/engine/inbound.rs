//! What a peer's frames mean. Untrusted: every index is checked against the geometry, every size against its bound.
//!
//! *Invariants*: a frame is taken whole or not at all; an error is the peer's fault and ends the link.
//! *Bounds*: a frame a call; a frame costs at most O(its pieces × the peer's requests).

use super::Engine;
use super::peer::State;
use super::transfers::Step;
use crate::geometry::{Piece, PieceIndex};
use crate::ids::{PeerId, SlotId};
use crate::locality::Locality;
use crate::policy::{Order, Predictor, Selector};
use crate::time::{Duration, Instant};
use crate::wire::{
    self, BlobRange, Class, Data, Decoded, Farewell, Frame, Hello, Map, Redirect, Role, Run, Touched, WireError,
};
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// Longest pause that a peer's Busy is allowed to ask for.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Shortest, so that two nodes cannot chase each other.
const BUSY_MIN: Duration = Duration::from_millis(2);

/// How long it may take until nodes' news of what no guest waits for is acted on: each tells each, so that looking at once
/// would cost more than all else.
const NEWS_KEPT: Duration = Duration::from_micros(500);

/// What [`Engine::receive`] made of the bytes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Received {
    /// Nothing was consumed: call again with at least this many bytes.
    NeedMore {
        /// From the start of what was passed in.
        bytes: usize,
    },
    /// A frame's head was consumed; its body, if any, follows on the link.
    Head {
        /// Bytes to drop from the front.
        consumed: usize,
        /// What follows.
        body: Landing,
    },
}

/// What follows a head on the link.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Landing {
    /// The next head.
    None,
    /// A body to read into the slot's buffer; then report `BodyLanded`.
    Land {
        /// Names the buffer.
        slot: SlotId,
        /// Its length; 0 for an all-zero chunk (`BodyLanded` is to be reported all the same).
        bytes: u32,
    },
    /// A body to read and forget.
    Discard {
        /// Its length.
        bytes: u32,
    },
}

/// What a peer did wrong. The peer's fault; nothing was consumed, and the link cannot go on: close it and report
/// `PeerClosed`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerError {
    /// Bytes that are no frame.
    Malformed(WireError),
    /// Another version of the protocol.
    Version(u16),
    /// Another image.
    Image,
    /// A frame out of place: before `Hello`, a second `Hello`, a body that nobody asked for; or the link is closed.
    Unexpected,
    /// A piece, a range or a body beyond the image's bounds.
    OutOfRange,
    /// More requests than `Hello` allows, or more answers than there can be requests.
    TooMany,
    /// It said that it goes; nobody's fault.
    Bye(Farewell),
}

impl core::fmt::Display for PeerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "it sent bytes that are no frame ({error})"),
            Self::Version(version) => {
                write!(f, "it speaks version {version} of the protocol, this node version {}", wire::VERSION)
            }
            Self::Image => f.write_str("it serves another image"),
            Self::Unexpected => f.write_str("it sent a frame out of place"),
            Self::OutOfRange => f.write_str("it named something beyond the image's bounds"),
            Self::TooMany => f.write_str("it asked for more at a time than it may"),
            Self::Bye(farewell) => write!(f, "it closed the link: {farewell:?}"),
        }
    }
}

impl core::error::Error for PeerError {}

impl<P: Predictor, O: Order, S: Selector> Engine<'_, P, O, S> {
    /// Takes one frame's head from the front of `bytes`, which came from `peer` after the preface.
    ///
    /// # Errors
    /// [`PeerError`]: the peer's fault, or it said goodbye; nothing was consumed and the link must be closed.
    pub fn receive(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) -> Result<Received, PeerError> {
        let heard = self.peers.change_of(peer, |row| {
            row.last_received = now;
            row.state
        });
        let (state, index) = (heard.ok_or(PeerError::Unexpected)?, peer.index());
        let (frame, consumed, body_bytes) = match wire::decode(bytes).map_err(PeerError::Malformed)? {
            Decoded::NeedMore { bytes } => return Ok(Received::NeedMore { bytes }),
            Decoded::Frame { frame, consumed, body_bytes } => (frame, consumed, body_bytes),
        };
        self.wake();
        self.look_for_work |= may_start_fetches(&frame);
        let body = match (state, frame) {
            (State::Greeting, Frame::Hello(hello)) => {
                self.check_hello(&hello)?;
                self.on_hello(now, peer, &hello);
                Landing::None
            }
            (State::Open, Frame::Data(data)) => self.on_data(index, &data)?,
            (State::Open, Frame::Unknown(_)) if body_bytes > 0 => Landing::Discard { bytes: body_bytes },
            (State::Open, frame) => {
                self.on_frame(now, index, &frame)?;
                Landing::None
            }
            (_, Frame::Bye(farewell)) => return Err(PeerError::Bye(farewell)),
            // It does not know yet that the link is being closed.
            (State::Closing(..), _) if body_bytes > 0 => Landing::Discard { bytes: body_bytes },
            (State::Closing(..), _) => Landing::None,
            _ => return Err(PeerError::Unexpected),
        };
        Ok(Received::Head { consumed, body })
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), PeerError> {
        wire::agreed_version(hello.version).ok_or(PeerError::Version(hello.version))?;
        if hello.image != self.config.image {
            return Err(PeerError::Image);
        }
        Ok(())
    }

    /// A frame without a body, on an open link.
    fn on_frame(&mut self, now: Instant, index: usize, frame: &Frame<'_>) -> Result<(), PeerError> {
        let peer = self.peers.id(index);
        match frame {
            Frame::Map(map) => self.on_map(index, map),
            Frame::Have(pieces) => self.on_have(now, index, pieces.runs),
            Frame::Lost(pieces) => self.on_pieces(index, pieces.runs, false, |_, _| {}),
            Frame::Request(request) => self.on_request(now, index, request),
            Frame::Cancel(run) => self.on_cancel(index, *run),
            Frame::Busy(busy) => {
                let pause = Duration::from_millis(u64::from(busy.retry_millis)).clamp(BUSY_MIN, BUSY_MAX);
                self.peers.change(index, |row| row.busy_until = now + pause);
                self.stats.busy_received += 1;
                self.each(busy.run, |engine, piece| engine.on_busy(peer, piece, now + pause))
            }
            Frame::Refuse(run) => self.each(*run, |engine, piece| engine.on_refused(now, peer, piece)),
            Frame::Redirect(redirect) => self.on_redirect(now, index, redirect),
            Frame::Peers(peers) => self.on_peers(index, peers),
            Frame::Touched(touched) => self.on_touched(now, peer, touched),
            Frame::Offer(_) | Frame::BlobRefuse(_) | Frame::BlobRedirect(_) | Frame::Unknown(_) => Ok(()),
            Frame::BlobRequest(range) => self.on_blob_request(index, range),
            Frame::Ping(nonce) => {
                self.peers.change(index, |row| row.pong = Some(*nonce));
                Ok(())
            }
            Frame::Pong(nonce) => {
                // The nonce is the time of the ping. One that is made up would make the peer look near.
                if self.peers.at(index).pinged == Some(*nonce) {
                    self.peers.change(index, |row| {
                        row.pinged = None;
                        if core::mem::take(&mut row.late_pinged) {
                            row.late_bodies = 0;
                        }
                        row.sample_rtt(now - Instant::from_micros(*nonce));
                    });
                    self.look_for_work |= self.has_hedgeable();
                }
                Ok(())
            }
            Frame::Bye(farewell) => Err(PeerError::Bye(*farewell)),
            Frame::Hello(_) | Frame::Data(_) | Frame::Blob(_) => Err(PeerError::Unexpected),
        }
    }

    /// An answer that is no body, to at most as many requests as there can be.
    fn each(&mut self, run: Run, mut act: impl FnMut(&mut Self, PieceIndex)) -> Result<(), PeerError> {
        if usize::from(run.count) > self.transfers.len() {
            return Err(PeerError::TooMany);
        }
        let end = run.first.checked_add(u32::from(run.count)).ok_or(PeerError::OutOfRange)?;
        for number in run.first..end {
            let piece = self.geometry.piece(number).ok_or(PeerError::OutOfRange)?;
            act(self, piece);
        }
        Ok(())
    }

    fn on_map(&mut self, index: usize, map: &Map<'_>) -> Result<(), PeerError> {
        let end = map.first.checked_add(map.count).ok_or(PeerError::OutOfRange)?;
        if end > self.geometry.piece_count() {
            return Err(PeerError::OutOfRange);
        }
        self.peers.note_pieces(index, map.first, map.count, false);
        for run in wire::decode_runs(map.runs, map.first, end) {
            let (first, count) = run.map_err(PeerError::Malformed)?;
            self.peers.note_pieces(index, first, count, true);
        }
        Ok(())
    }

    fn on_have(&mut self, now: Instant, index: usize, runs: &[u8]) -> Result<(), PeerError> {
        self.on_pieces(index, runs, true, |engine, pieces| {
            if engine.demands.any_within(&pieces) {
                engine.look_for_work = true;
            } else if engine.held().next(pieces.start, false).is_some_and(|missing| missing < pieces.end) {
                engine.news_at = engine.news_at.min(now + NEWS_KEPT);
            }
        })
    }

    fn on_pieces(
        &mut self,
        index: usize,
        runs: &[u8],
        held: bool,
        mut also: impl FnMut(&mut Self, Range<u32>),
    ) -> Result<(), PeerError> {
        for run in wire::decode_runs(runs, 0, self.geometry.piece_count()) {
            let (first, count) = run.map_err(PeerError::Malformed)?;
            self.peers.note_pieces(index, first, count, held);
            also(self, first..first + count);
        }
        Ok(())
    }

    fn on_redirect(&mut self, now: Instant, index: usize, redirect: &Redirect) -> Result<(), PeerError> {
        let peer = self.peers.id(index);
        self.each(redirect.run, |engine, piece| engine.on_redirected(now, peer, piece, redirect))
    }

    fn on_peers(&mut self, index: usize, peers: &wire::Peers<'_>) -> Result<(), PeerError> {
        let from = self.peers.at(index).address;
        let addresses = wire::unpack_addresses(peers.addresses).map_err(PeerError::Malformed)?;
        let localities = wire::unpack_localities(peers.localities).map_err(PeerError::Malformed)?;
        if localities.len() != 0 && localities.len() != addresses.len() {
            return Err(PeerError::Malformed(WireError::Malformed));
        }
        for (address, locality) in addresses.zip(localities.chain(core::iter::repeat(Locality::NONE))) {
            if address != from && address != self.config.listen {
                self.contacts.add(address, false, locality);
            }
        }
        Ok(())
    }

    /// What another node's guests have touched: the predictor learns of it.
    fn on_touched(&mut self, now: Instant, peer: PeerId, touched: &Touched<'_>) -> Result<(), PeerError> {
        let chunks = self.geometry.chunk_count();
        let mut span_millis = 0u64;
        for touch in wire::decode_touches(touched.touches, chunks) {
            span_millis += u64::from(touch.map_err(PeerError::Malformed)?.1);
        }
        let mut ago_millis = u64::from(touched.age_millis) + span_millis;
        for (number, millis) in wire::decode_touches(touched.touches, chunks).flatten() {
            ago_millis -= u64::from(millis);
            let Some(chunk) = self.geometry.chunk(number) else { continue };
            if self.predictor.learn(now, peer, chunk, Duration::from_millis(ago_millis)) {
                self.look_for_work = true;
                self.window.note_change();
            }
        }
        Ok(())
    }

    fn on_blob_request(&mut self, index: usize, range: &BlobRange) -> Result<(), PeerError> {
        if self.peers.at(index).blob.is_some() {
            return Err(PeerError::TooMany);
        }
        self.peers.change(index, |row| row.blob = Some(*range));
        Ok(())
    }

    /// A body follows: it lands if its piece was asked of this peer and is still wanted.
    fn on_data(&mut self, index: usize, data: &Data) -> Result<Landing, PeerError> {
        let piece = self.geometry.piece(data.piece).ok_or(PeerError::OutOfRange)?;
        let bytes_max = match self.geometry.kind(piece) {
            Piece::Chunk(chunk) => self.geometry.chunk_len(chunk),
            Piece::Leaf(leaf) => self.geometry.leaf_bytes(leaf),
        };
        if data.bytes > bytes_max {
            return Err(PeerError::OutOfRange);
        }
        let peer = self.peers.id(index);
        match self.peers.at(index).role {
            Role::Seed => self.stats.fetched_seed_bytes += u64::from(data.bytes),
            Role::Node => self.stats.fetched_peer_bytes += u64::from(data.bytes),
        }
        let Some(slot) = self.transfers.waiting(peer, data.piece) else {
            return self.late_body(index, peer, data);
        };
        self.leave_waiting(slot);
        self.transfers.change(slot, |row| {
            row.step = Step::Landing;
            row.bytes = data.bytes;
        });
        let row = self.transfers.at(slot);
        let guess = row.guessed && matches!(self.geometry.kind(piece), Piece::Chunk(_));
        self.stats.prefetched_bytes += u64::from(if guess { data.bytes } else { 0 });
        if row.class != Class::Demand || data.bytes > 0 {
            self.mean_bytes = (self.mean_bytes / 8 * 7 + data.bytes / 8).max(1024);
        }
        Ok(Landing::Land { slot: self.transfers.id(slot), bytes: data.bytes })
    }

    /// The answer to a request that has been taken back, or is about to be.
    fn late_body(&mut self, index: usize, peer: PeerId, data: &Data) -> Result<Landing, PeerError> {
        match self.transfers.cancelling(peer, data.piece) {
            Some(slot) => self.free_transfer(slot),
            None if self.peers.at(index).late_bodies > 0 => self.peers.change(index, |row| row.late_body(data.piece)),
            None => return Err(PeerError::Unexpected),
        }
        self.stats.discarded_bytes += u64::from(data.bytes);
        Ok(Landing::Discard { bytes: data.bytes })
    }
}

/// Whether a frame may be what a fetch has waited for.
fn may_start_fetches(frame: &Frame<'_>) -> bool {
    match frame {
        Frame::Hello(_) | Frame::Map(_) | Frame::Lost(_) | Frame::Data(_) => true,
        Frame::Busy(_) | Frame::Refuse(_) | Frame::Redirect(_) | Frame::Bye(_) => true,
        // It may tell that no late body comes any more.
        Frame::Pong(_) => true,
        Frame::Request(_) | Frame::Cancel(_) | Frame::Peers(_) | Frame::Ping(_) => false,
        Frame::Offer(_) | Frame::Blob(_) | Frame::BlobRequest(_) => false,
        Frame::BlobRefuse(_) | Frame::BlobRedirect(_) => false,
        // What it tells says whether there is more to fetch.
        Frame::Have(_) | Frame::Touched(_) | Frame::Unknown(_) => false,
    }
}
