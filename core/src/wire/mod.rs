//! What nodes say to each other, in bytes. `core/PROTOCOL.md` is the same for people.
//!
//! *Purpose*: turn a [`Frame`] into bytes and back ([`encode`], [`decode`]); the lists within frames ([`runs`],
//! [`addresses`], [`touches`]); what is said before the first frame ([`check_preface`]).
//! *Invariants*: no input panics, allocates or makes a loop longer than the input. A decoded frame has had its checksum
//! and lengths checked; its lists are checked as they are read, its indices where the image is known. A list's bytes are a
//! function of its content.
//! *Units*: lengths in bytes, little-endian; times in milliseconds.
//! *Bounds*: a payload is at most [`PAYLOAD_BYTES_MAX`] bytes, a body [`BODY_BYTES_MAX`], so a receiver needs
//! [`HEAD_BYTES_MAX`] bytes of buffer a link; bodies never pass through here.

pub mod addresses;
mod codec;
mod error;
mod frame;
mod kind;
pub mod preface;
pub mod runs;
pub mod touches;
mod varint;

pub use addresses::{
    ADDRESS_BYTES, ADDRESSES_MAX, LOCALITY_BYTES, LOCATED_MAX, pack_addresses, pack_localities, unpack_addresses,
    unpack_localities,
};
pub use codec::{Decoded, decode, encode};
pub use error::{Full, WireError};
pub use frame::*;
pub use kind::Kind;
pub use preface::{ForeignProtocol, LinkKind, PREFACE_BYTES, Preface, check_preface, preface};
pub use runs::{Runs, RunsEncoder, decode_runs};
pub use touches::{Touches, TouchesEncoder, decode_touches};

/// Highest version of the protocol that this code speaks.
pub const VERSION: u16 = 1;
/// Lowest version of the protocol that this code speaks.
pub const VERSION_MIN: u16 = 1;
/// The bit of `Hello`'s features of a seed that wants to be told what guests touch, and of a node that tells it.
pub const FEATURE_TEACH: u64 = 1;
/// Longest payload of a frame, in bytes; the body is not part of it.
pub const PAYLOAD_BYTES_MAX: usize = 1200;
/// Longest frame without its body, in bytes: header, payload and checksum.
pub const HEAD_BYTES_MAX: usize = 8 + PAYLOAD_BYTES_MAX + 4;
/// Longest body, in bytes: the payload of the largest chunk.
pub const BODY_BYTES_MAX: u32 = 1 << crate::geometry::CHUNK_SHIFT_MAX;
/// Longest list (runs, addresses, touches), in bytes, that fits into every frame that has one, whatever else it says.
pub const LIST_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 12;

/// The version that a link speaks whose other side's `Hello` says `theirs`: the lower of both. `None` if this code does not
/// speak it any more; then the link ends with [`Farewell::Version`].
pub const fn agreed_version(theirs: u16) -> Option<u16> {
    let lower = if theirs < VERSION { theirs } else { VERSION };
    if lower < VERSION_MIN { None } else { Some(lower) }
}
