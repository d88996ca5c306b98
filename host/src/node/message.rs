//! What the tasks around an engine tell its task, and what they get back.
//!
//! *Bounds*: [`Message`]s go through a bounded channel, whose senders wait; the engine's task never waits to send.
//! [`Request`]s go through one without a bound of its own: wants and releases are bounded by permits that only the
//! engine's task gives back, the others come one at a time.

use super::engine_task::Counters;
use super::link::Down;
use super::socket::{LinkError, Socket};
use super::waiters::Waiter;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use swarmdisk_core::engine::{PeerStatus, Stats};
use swarmdisk_core::geometry::{ChunkIndex, PieceIndex};
use swarmdisk_core::ids::{GuestId, PeerId, SlotId, UploadId};
use tokio::sync::oneshot;

use super::keeper::CacheState;
use crate::store::StoreError;
use crate::store::directory::Beside;

/// From links and blocking threads.
#[derive(Debug)]
pub(crate) enum Message {
    /// A link has come in; its first bytes are those of `Hello`.
    Arrived { socket: Socket },
    /// What became of a `Dial`.
    Dialed { peer: PeerId, outcome: Result<Socket, LinkError> },
    /// Bytes of heads. The buffer comes back with the answer; no answer: the link is being closed.
    Received { peer: PeerId, buffer: BytesMut, reply: oneshot::Sender<Heard> },
    /// A body is there, whole.
    Landed { peer: PeerId, slot: SlotId, body: Bytes },
    /// So many bytes have left, as [`Departures`](super::departures::Departures) sees it.
    Sent { peer: PeerId, bytes: u32 },
    /// The link has failed.
    Down { peer: PeerId, why: Down },
    /// The answer to `Verify`.
    Verified { slot: SlotId, piece: PieceIndex, outcome: Result<bool, StoreError> },
    /// The answer to `Store`.
    Stored { slot: SlotId, piece: PieceIndex, outcome: Result<Revealed, StoreError> },
    /// The answer to `Load`: the payload's length.
    Loaded { upload: UploadId, piece: PieceIndex, outcome: Result<u32, StoreError> },
    /// A chunk's payload from another image of the cache; none: it cannot be had there.
    Taken { piece: PieceIndex, payload: Option<Bytes> },
    /// The answer to `Evict`: bytes of payload that went.
    Evicted { chunk: ChunkIndex, outcome: Result<u32, StoreError> },
    /// What other images of the cache take.
    Beside { beside: Beside },
}

/// What a leaf page that was stored shows, as runs (first, count).
#[derive(Debug, Default)]
pub(crate) struct Revealed {
    /// Chunks that are zeros.
    pub zeros: Vec<(PieceIndex, u32)>,
    /// Chunks that other images hold.
    pub found: Vec<(PieceIndex, u32)>,
}

/// What a link's reader shall do next.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Read until the buffer holds so many bytes.
    More { buffer: BytesMut, bytes: usize },
    /// Read a body of this length, which begins with `start`.
    Land { slot: SlotId, bytes: u32, start: BytesMut },
    /// Read and forget so many bytes.
    Discard { bytes: u32 },
}

/// From guests and from the node's owner.
#[derive(Debug)]
pub(crate) enum Request {
    /// A guest waits for a chunk, or for what a leaf page says.
    Want { piece: PieceIndex, waiter: Waiter },
    /// Some waiter for the piece has gone away without an answer.
    Release { guest: GuestId, piece: PieceIndex },
    /// Chunks that were held when guests read them.
    Touched(Vec<(GuestId, ChunkIndex)>),
    /// Pieces that turned out not to be held, as (first, count).
    Lost(Vec<(PieceIndex, u32)>),
    /// Where a node may listen.
    Contact { address: SocketAddr, seed: bool },
    /// Offer this profile, of at most 4 GiB, from now on.
    Offer(Bytes),
    /// How it goes.
    Snapshot(oneshot::Sender<Report>),
    /// Say goodbye to all and end.
    Shutdown(oneshot::Sender<()>),
}

/// The engine's task's part of a snapshot.
#[derive(Debug)]
pub(crate) struct Report {
    pub stats: Stats,
    pub peers: Vec<PeerStatus>,
    pub counters: Counters,
    pub unused: Vec<ChunkIndex>,
    /// Of a cache with a bound.
    pub cache: Option<CacheState>,
    /// Whether what comes could lately not be stored.
    pub store_fails: bool,
}
