//! The frames, one variant a kind. `PROTOCOL.md` says what each means and when it may be sent.
//!
//! *Invariants*: a decoded frame has had its checksum and lengths checked, not its indices: whoever uses it checks them
//! against the geometry. *Bounds*: a frame's payload is at most [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX) bytes.

use crate::ids::{Address, Digest, NodeId};
use crate::locality::Locality;
use serde::{Deserialize, Serialize};

/// A frame, without its body.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first on every link, both ways.
    Hello(Hello),
    /// Which pieces of a range the sender holds.
    Map(Map<'a>),
    /// Pieces that the sender holds since a short while.
    Have(Pieces<'a>),
    /// Pieces that the sender holds no longer.
    Lost(Pieces<'a>),
    /// Asks for a run of pieces, or raises the class of pieces asked for.
    Request(Request),
    /// Takes a request back.
    Cancel(Run),
    /// A piece; its payload is the body.
    Data(Data),
    /// Not now: ask again later, or elsewhere.
    Busy(Busy),
    /// Not at all: the piece is not here.
    Refuse(Run),
    /// Ask that node instead: it has the piece or is about to.
    Redirect(Redirect),
    /// Nodes that the sender knows.
    Peers(Peers<'a>),
    /// A blob that the sender can give.
    Offer(Offer),
    /// Asks for part of a blob.
    BlobRequest(BlobRange),
    /// Part of a blob; its bytes are the body.
    Blob(BlobRange),
    /// The blob is not here.
    BlobRefuse(Digest),
    /// The blob is here, but ask that node instead.
    BlobRedirect(BlobRedirect),
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
    /// What the sender's guests have touched lately. Optional: may be skipped.
    Touched(Touched<'a>),
    /// The sender is about to close the link.
    Bye(Farewell),
    /// A frame of a kind that this version does not know, flagged optional; its body, if any, is to be skipped.
    Unknown(u8),
}

/// Who speaks, what it speaks, and about which image.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the protocol.
    pub version: u16,
    /// Optional abilities, a bit each; what both have may be used.
    pub features: u64,
    /// The image that the link is about: the hash of its manifest.
    pub image: Digest,
    /// The speaker's name.
    pub node: NodeId,
    /// Where it can be dialled; an unspecified ip (`::`) means: the address the link comes from.
    pub listen: Address,
    /// What it does in the swarm.
    pub role: Role,
    /// How many pieces may be asked of it and not yet answered.
    pub requests_max: u16,
    /// Where it stands.
    pub locality: Locality,
}

/// What a node does in the swarm.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Runs guests, serves what it has.
    Node,
    /// Has everything, runs no guest: an origin, and the tracker.
    Seed,
}

/// Sets what is held within `first .. first + count`: the runs are held, the rest is not.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map<'a> {
    /// First piece of the range.
    pub first: u32,
    /// Length of the range.
    pub count: u32,
    /// The runs, coded as in [`runs`](super::runs), relative to `first`.
    #[serde(borrow)]
    pub runs: &'a [u8],
}

/// A set of pieces.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces<'a> {
    /// The runs, coded as in [`runs`](super::runs), from piece 0.
    #[serde(borrow)]
    pub runs: &'a [u8],
}

/// Consecutive pieces.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first.
    pub first: u32,
    /// How many; at least 1.
    pub count: u16,
}

/// How much a fetch matters. Ordered: the most urgent is the least.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// A guest waits for it.
    Demand,
    /// A guest is expected to want it.
    Prefetch,
    /// It is fetched for completeness' sake.
    Fill,
}

/// Asks for pieces.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which.
    pub run: Run,
    /// How much they matter.
    pub class: Class,
    /// Do not redirect: the other node did not deliver.
    pub insist: bool,
    /// Only raises the class of what waits; what has been answered meanwhile is not to be answered again.
    pub raise: bool,
    /// From now until they are expected to be wanted, in milliseconds; 0 if a guest waits.
    pub due_millis: u32,
}

/// Heads a piece's payload.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Which piece.
    pub piece: u32,
    /// Bytes of the body; 0 for an all-zero chunk.
    #[serde(skip)]
    pub bytes: u32,
}

/// Answers a request: not now.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy {
    /// Which pieces.
    pub run: Run,
    /// When to ask again at the earliest, in milliseconds.
    pub retry_millis: u16,
}

/// Answers a request: ask there.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// Which pieces.
    pub run: Run,
    /// Who has them, or soon will.
    pub node: NodeId,
    /// Where it can be dialled.
    pub address: Address,
}

/// Nodes that may be dialled.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers<'a> {
    /// 18 bytes a node, coded as in [`addresses`](super::addresses).
    #[serde(borrow)]
    pub addresses: &'a [u8],
    /// Where they stand: 12 bytes a node; nothing at all if that is known of none of them.
    #[serde(borrow)]
    pub localities: &'a [u8],
}

/// A blob that can be had.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is: 0 manifest, 1 profile; others are ignored.
    pub kind: u8,
    /// Its hash.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u32,
}

/// Part of a blob.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRange {
    /// Which blob.
    pub digest: Digest,
    /// Size of the whole in bytes; 0 in a request.
    pub total_bytes: u32,
    /// First byte.
    pub offset: u32,
    /// How many; in an answer also the length of the body.
    pub bytes: u32,
}

/// Answers a request for a blob: ask there.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRedirect {
    /// Which blob.
    pub digest: Digest,
    /// Where a node can be dialled that runs this image.
    pub address: Address,
}

/// What guests have touched, in the order of first touch.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched<'a> {
    /// Milliseconds since the newest of these touches.
    pub age_millis: u32,
    /// The touches, coded as in [`touches`](super::touches).
    #[serde(borrow)]
    pub touches: &'a [u8],
}

/// Why a link ends.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Farewell {
    /// The node ends.
    Leaving,
    /// A link between the two exists already, or one would be to oneself.
    Duplicate,
    /// No room.
    Crowded,
    /// The other broke the protocol or sent wrong bytes.
    Misbehaved,
    /// That image is not served here.
    UnknownImage,
    /// The versions do not fit.
    Version,
}
