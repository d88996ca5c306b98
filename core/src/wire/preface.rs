//! The eight bytes that each side sends before anything else.
//!
//! *Purpose*: tell at once a port scanner, a web browser or a node with another idea of encryption from a peer.
//! *Invariants*: `swarmdk` and the kind of link; a wrong byte is noticed when it comes, not when eight are there.
//! *Bounds*: [`PREFACE_BYTES`].

use core::fmt;

/// Length of a preface in bytes.
pub const PREFACE_BYTES: usize = 8;
const NAME: [u8; 7] = *b"swarmdk";

/// How the bytes after the preface travel.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkKind {
    /// As they are.
    Plain = 0,
    /// In Noise records, keyed by the swarm key.
    Encrypted = 1,
}

/// What [`check_preface`] found.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Preface {
    /// Right so far; [`PREFACE_BYTES`] are needed.
    NeedMore,
    /// A preface, [`PREFACE_BYTES`] long. Whether this kind of link is welcome is for the caller to say.
    Link(LinkKind),
}

/// The other side speaks something else; nothing was consumed, close the connection without a word.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ForeignProtocol;

/// The preface of a link.
pub const fn preface(kind: LinkKind) -> [u8; PREFACE_BYTES] {
    let [s, w, a, r, m, d, k] = NAME;
    [s, w, a, r, m, d, k, kind as u8]
}

/// Looks at the first bytes that came; those after the preface do not matter.
///
/// # Errors
/// [`ForeignProtocol`] from the first wrong byte on, an unknown kind of link included.
pub fn check_preface(bytes: &[u8]) -> Result<Preface, ForeignProtocol> {
    if bytes.iter().zip(&NAME).any(|(given, wanted)| given != wanted) {
        return Err(ForeignProtocol);
    }
    match bytes.get(NAME.len()) {
        None => Ok(Preface::NeedMore),
        Some(0) => Ok(Preface::Link(LinkKind::Plain)),
        Some(1) => Ok(Preface::Link(LinkKind::Encrypted)),
        Some(_) => Err(ForeignProtocol),
    }
}

impl fmt::Display for ForeignProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other side does not speak the swarm's protocol")
    }
}

impl core::error::Error for ForeignProtocol {}
