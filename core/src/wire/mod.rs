//! Frames between nodes.

mod frame;

pub use frame::*;

/// Version of the protocol that this code speaks.
pub const VERSION: u16 = 1;
/// Longest payload of a frame, in bytes; the body is not part of it.
pub const PAYLOAD_BYTES_MAX: usize = 1200;
/// Longest frame without its body: header, payload and checksum.
pub const HEAD_BYTES_MAX: usize = 8 + PAYLOAD_BYTES_MAX + 4;
