//! What can go wrong between a frame and its bytes.
//!
//! *Invariants*: every [`WireError`] is the peer's fault and ends the link; [`Full`] is nobody's.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Bytes that are no frame: the peer's fault. Whatever the variant, close the link; there is no way back into step.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireError {
    /// The layout is wrong: reserved flags, a body where none may be, a payload or a list that does not parse or has
    /// bytes left over. Nothing was consumed; the link cannot go on.
    Malformed,
    /// The checksum is wrong. Nothing was consumed; the link cannot go on.
    Checksum,
    /// A payload over [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX) or a body over
    /// [`BODY_BYTES_MAX`](super::BODY_BYTES_MAX). Nothing was consumed; the link cannot go on.
    TooBig,
    /// A kind that this version does not know, and that is not flagged optional. Nothing was consumed; the link cannot
    /// go on.
    UnknownKind(u8),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the peer sent a malformed frame"),
            Self::Checksum => f.write_str("the peer sent a frame with a wrong checksum"),
            Self::TooBig => f.write_str("the peer sent a frame that is too big"),
            Self::UnknownKind(kind) => write!(f, "the peer sent a frame of unknown kind {kind:#04x}"),
        }
    }
}

impl core::error::Error for WireError {}

/// It does not fit; what had been written before is intact, so that another frame can take the rest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it does not fit into the frame")
    }
}

impl core::error::Error for Full {}
