//! What the host tells the engine, and what the engine asks of the host: plain data, so that both can be recorded.
//!
//! *Invariants*: any interleaving is legal; an event about a row that is gone is counted as stale and changes nothing.
//! *Units*: bytes on the wire. *Bounds*: an event or an action is at most 48 bytes.
//!
//! The life of a fetch, seen by the host: `Transmit` (a request goes out) → `Land` from [`receive`](super::Engine::receive)
//! → [`Event::BodyLanded`] → [`Action::Verify`] → [`Event::BodyVerified`] → [`Action::Deliver`] if a guest waits →
//! [`Action::Store`] → [`Event::BodyStored`]. The life of an upload: a request comes in → [`Action::Load`] →
//! [`Event::Loaded`] → [`Action::Transmit`] with a body.

use super::config::Offered;
use crate::geometry::{ChunkIndex, LeafIndex, PieceIndex};
use crate::ids::{Address, GuestId, PeerId, SlotId, UploadId};
use serde::{Deserialize, Serialize};

/// Something that happened at the host.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A guest reads a chunk that is not held, and waits. The host keeps at most [`Limits::demands`] different chunks
    /// wanted at a time; one more is not recorded and counted in `Stats::demands_refused`.
    ///
    /// [`Limits::demands`]: super::Limits::demands
    Wanted {
        /// Who waits.
        guest: GuestId,
        /// For what.
        chunk: ChunkIndex,
    },
    /// A guest that waited does so no longer, without an answer (its read was given up).
    Released {
        /// Who waited.
        guest: GuestId,
        /// For what.
        chunk: ChunkIndex,
    },
    /// A guest asks what a leaf page says, and waits until it is held. Bounded together with `Wanted`.
    LeafWanted {
        /// Which.
        leaf: LeafIndex,
    },
    /// A guest that waited for a leaf page does so no longer, without an answer.
    LeafReleased {
        /// Which.
        leaf: LeafIndex,
    },
    /// A guest read a chunk that was held: the predictor learns of it. May come late and in batches.
    Touched {
        /// Who read.
        guest: GuestId,
        /// What.
        chunk: ChunkIndex,
    },
    /// Pieces are held that the engine did not fetch: found in the cache at start, or chunks that a leaf page which has
    /// just come shows to be all zero (these before the page's own `BodyStored`). Not announced to peers one by one.
    Held {
        /// The first of the run.
        first: PieceIndex,
        /// Length of the run; what is beyond the last piece is ignored.
        count: u32,
    },
    /// A piece that was held is gone: evicted, or found rotten.
    PieceLost {
        /// The piece.
        piece: PieceIndex,
    },
    /// An address where a node may listen, from the command line, DNS or a file.
    ContactFound {
        /// Where.
        address: Address,
        /// Whether it is known to be a seed, to which a link is kept before all others.
        seed: bool,
    },
    /// A link asked for by `Dial` is up. `credit_bytes` as in `PeerWritable`.
    PeerOpened {
        /// The link.
        peer: PeerId,
        /// What may be sent at once.
        credit_bytes: u32,
    },
    /// A link is down, or could not be made. Slots whose body was landing on it are forgotten on both sides.
    PeerClosed {
        /// The link.
        peer: PeerId,
    },
    /// Of what was handed over by `Transmit`, this much more has left: credit for more.
    PeerWritable {
        /// The link.
        peer: PeerId,
        /// Bytes that have left.
        bytes: u32,
    },
    /// The body that `Land` announced is in the host's buffer, whole.
    BodyLanded {
        /// Which.
        slot: SlotId,
    },
    /// The answer to `Verify`.
    BodyVerified {
        /// Which.
        slot: SlotId,
        /// Whether the bytes are what the image says.
        verdict: Verdict,
    },
    /// The answer to `Store`: the piece is held and may be read and sent.
    BodyStored {
        /// Which.
        slot: SlotId,
    },
    /// The answer to `Store` when it failed (disk full): guests were served, the piece is not held. Nothing but demand
    /// is fetched for a while. A leaf page is better kept in memory and reported as stored: without it no chunk of its
    /// can be verified.
    StoreFailed {
        /// Which.
        slot: SlotId,
    },
    /// The answer to `Load`: the piece is there, verified in this process, this many payload bytes long.
    Loaded {
        /// Which.
        upload: UploadId,
        /// Payload bytes; 0 for an all-zero chunk.
        bytes: u32,
    },
    /// Another profile is offered from now on, to links that come; blobs of the one before are no longer given.
    ProfileOffered {
        /// Which, if any.
        profile: Option<Offered>,
    },
    /// Chunks can be had without the network, as another image of this node's cache holds them (before the `BodyStored` of
    /// the leaf page that shows it): as `Held`, and announced to peers.
    Found {
        /// The first of the run.
        first: PieceIndex,
        /// Length of the run; what is beyond the last piece is ignored.
        count: u32,
    },
    /// How much may be stored beside what is there, by all that the host has told so far; what is on its way to be stored
    /// is not counted. Less than none: so much is to go. From the first of these on the cache has a bound, if the
    /// limits provide for one.
    Room {
        /// Bytes of payload.
        bytes: i64,
    },
    /// Of what is held, these chunks take room in the cache, and may go: told of what was found at the start, and of one that
    /// could not be taken away.
    Kept {
        /// The first of the run.
        first: PieceIndex,
        /// Length of the run; what is no chunk is ignored.
        count: u32,
    },
}

/// What became of a body's verification.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The hash is right.
    Genuine,
    /// The hash is wrong: the peer is dropped, the piece asked for elsewhere.
    Corrupt,
    /// It could not be checked, by a fault of this node: the bytes are forgotten, nobody is blamed, and nothing is asked
    /// for during a second.
    Unable,
}

/// Something the host shall do.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub enum Action {
    /// Connect; answer with `PeerOpened` or `PeerClosed`.
    Dial {
        /// The name of the link to be.
        peer: PeerId,
        /// Where to.
        address: Address,
    },
    /// Close the link; the engine has forgotten it already, no `PeerClosed` is needed.
    Hangup {
        /// The link.
        peer: PeerId,
        /// Why, for the log.
        reason: Reason,
    },
    /// Send the first `head_bytes` bytes of the buffer given to `poll`, then the body if there is one, in this order.
    Transmit {
        /// To whom.
        peer: PeerId,
        /// Length of the head.
        head_bytes: u16,
        /// What follows it.
        body: Option<Body>,
    },
    /// Make sure that the piece is there and has been verified in this process; answer with `Loaded` or `PieceLost`.
    Load {
        /// Name of the upload.
        upload: UploadId,
        /// The piece.
        piece: PieceIndex,
    },
    /// Check the slot's bytes against the image. For a chunk, its leaf page is held by now.
    Verify {
        /// The slot.
        slot: SlotId,
        /// The piece that it claims to be.
        piece: PieceIndex,
    },
    /// The slot's bytes are genuine and guests wait for them: answer them. `Store` follows.
    Deliver {
        /// The slot.
        slot: SlotId,
        /// The piece.
        piece: PieceIndex,
    },
    /// Keep the slot's bytes; answer with `BodyStored` or `StoreFailed`, which ends the slot.
    Store {
        /// The slot.
        slot: SlotId,
        /// The piece.
        piece: PieceIndex,
    },
    /// Forget the slot's bytes, which ends the slot: corrupt, or already there.
    Abandon {
        /// The slot.
        slot: SlotId,
    },
    /// Give the chunk's room back; answer with `Room` and then `PieceLost` (the other way round another may have to go in
    /// between), or with `Kept` where it cannot be.
    Evict {
        /// The chunk.
        chunk: ChunkIndex,
    },
}

/// Bytes that follow a head; the host sends them from where it has them.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A piece's payload.
    Piece(PieceIndex),
    /// Part of a blob.
    Blob {
        /// Which.
        kind: BlobKind,
        /// First byte.
        offset: u32,
        /// Number of bytes.
        bytes: u32,
    },
}

/// The blobs that a node offers.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlobKind {
    /// The manifest, whose hash is the image id.
    Manifest,
    /// A profile of how guests read the image.
    Profile,
}

/// Why a link is closed.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Sent a corrupt body.
    Corrupt,
    /// Silent for too long.
    Silent,
    /// A second link to the same node, or to oneself.
    Duplicate,
    /// Gives way: the table is full and somebody more useful has come.
    Crowded,
}

const _: () = assert!(size_of::<Event>() <= 40);
const _: () = assert!(size_of::<Action>() <= 40);
