//! The state machine.

mod announce;
mod config;
mod contacts;
mod demands;
mod event;
mod peers;
mod transfers;
mod uploads;

pub use announce::Change;
pub use config::{Config, Fill, Footprint, Limits, Offered, SetupError, Stats, Storage, Tuning};
pub use contacts::Contact;
pub use demands::Demand;
pub use event::{Action, BlobKind, Body, Event, Reason, Verdict};
pub use peers::PeerRow;
pub use transfers::Transfer;
pub use uploads::{Served, Upload};

use crate::geometry::{Geometry, PieceIndex};
use crate::ids::{Address, PeerId, SlotId};
use crate::policy::{Order, Predictor, Selector};
use crate::time::Instant;

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
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
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

/// What a peer did wrong. The peer's fault; the link cannot go on: close it and report `PeerClosed`.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum PeerError {
    /// Bytes that are no frame.
    Malformed,
    /// Another version of the protocol.
    Version(u16),
    /// Another image.
    Image,
    /// A frame out of place: before `Hello`, a second `Hello`, a body that nobody asked for.
    Unexpected,
    /// A piece, a range or a body beyond the image's bounds.
    OutOfRange,
    /// More requests than `Hello` allows.
    TooMany,
    /// It said that it goes; nobody's fault.
    Bye(crate::wire::Farewell),
}

/// The engine.
#[derive(Debug)]
pub struct Engine<'a, P, O, S> {
    geometry: Geometry,
    storage: Storage<'a>,
    policies: (P, O, S),
    stats: Stats,
}

impl<'a, P: Predictor, O: Order, S: Selector> Engine<'a, P, O, S> {
    /// Stub.
    pub fn new(_now: Instant, geometry: Geometry, _config: Config, storage: Storage<'a>, policies: (P, O, S)) -> Result<Self, SetupError> {
        Ok(Self { geometry, storage, policies, stats: Stats::default() })
    }
    /// A link has come in. `None`: no room, close it. `credit_bytes` as in `Event::PeerWritable`.
    pub fn admit(&mut self, _now: Instant, _address: Address, _credit_bytes: u32) -> Option<PeerId> {
        None
    }
    /// Something happened.
    pub fn handle(&mut self, _now: Instant, _event: Event) {}
    /// Bytes from a peer, after the preface; complete frames are consumed one a call.
    pub fn receive(&mut self, _now: Instant, _peer: PeerId, _bytes: &[u8]) -> Result<Received, PeerError> {
        Err(PeerError::Malformed)
    }
    /// The next thing to do; `head` is at least `wire::HEAD_BYTES_MAX` long. Call until `None`.
    pub fn poll(&mut self, _now: Instant, _head: &mut [u8]) -> Option<Action> {
        None
    }
    /// When to poll again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
    /// Whether the piece is held.
    pub fn holds(&self, _piece: PieceIndex) -> bool {
        false
    }
    /// Prefetched pieces that no guest has touched.
    pub fn unused_guesses(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        core::iter::empty()
    }
    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
