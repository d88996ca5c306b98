//! A frame as bytes.
//!
//! ```text
//! payload_bytes u16 | kind u8 | flags u8 | [body_bytes u32 if flags bit 1] | payload | crc32 u32 | body …
//! ```
//! *Purpose*: [`encode`] writes and [`decode`] reads all but the body, which the host moves by itself.
//! *Invariants*: little-endian; the payload is postcard; the checksum (CRC-32/ISO-HDLC, zlib's) covers all before it.
//! Length and flags are judged as soon as they are there, since they say where the checksum is; all else after it.
//! *Bounds*: [`PAYLOAD_BYTES_MAX`], [`BODY_BYTES_MAX`]; one pass over the frame's own bytes.

use super::{BODY_BYTES_MAX, BlobRange, Data, Frame, Full, Kind, PAYLOAD_BYTES_MAX, WireError};
use serde::{Deserialize, Serialize};

const HEADER_BYTES: usize = 4;
const BODY_LENGTH_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;
/// A receiver that does not know the kind skips the frame and its body.
const OPTIONAL: u8 = 1;
/// The header carries the length of a body, which follows the checksum.
const BODY: u8 = 2;

/// What [`decode`] found at the front of the bytes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Not a whole frame yet, nothing wrong so far.
    NeedMore {
        /// Bytes needed before another try has a chance, from the start of the frame; more than there were, at most
        /// [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX).
        bytes: usize,
    },
    /// A frame.
    Frame {
        /// The frame, borrowed from the bytes.
        frame: Frame<'a>,
        /// Its length without the body, in bytes.
        consumed: usize,
        /// Length of the body that follows, in bytes; at most [`BODY_BYTES_MAX`], 0 if there is none.
        body_bytes: u32,
    },
}

/// Writes all of `frame` but its body to the front of `out`; returns the number of bytes, at most
/// [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX).
///
/// [`Frame::Unknown`] becomes an optional frame with nothing in it, which every receiver skips.
///
/// # Errors
/// [`Full`] if `out` is too short, or no frame can hold that: a payload over [`PAYLOAD_BYTES_MAX`], a body over
/// [`BODY_BYTES_MAX`], an `Unknown` of a kind that is known. The contents of `out` are then undefined.
pub fn encode(frame: &Frame<'_>, out: &mut [u8]) -> Result<usize, Full> {
    let (number, optional) = match (frame.kind(), frame) {
        (Some(kind), _) => (kind.number(), kind.is_optional()),
        (None, Frame::Unknown(number)) if Kind::from_number(*number).is_none() => (*number, true),
        (None, _) => return Err(Full),
    };
    let body_bytes = match frame {
        Frame::Data(data) => Some(data.bytes),
        Frame::Blob(range) => Some(range.bytes),
        _ => None,
    };
    if body_bytes.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(Full);
    }
    let payload_at = HEADER_BYTES + if body_bytes.is_some() { BODY_LENGTH_BYTES } else { 0 };
    let payload_end_max = out.len().min(payload_at + PAYLOAD_BYTES_MAX);
    let payload_bytes = write_payload(frame, out.get_mut(payload_at..payload_end_max).ok_or(Full)?)?;

    let [length_low, length_high] = (payload_bytes as u16).to_le_bytes();
    let flags = if optional { OPTIONAL } else { 0 } | if body_bytes.is_some() { BODY } else { 0 };
    out[..HEADER_BYTES].copy_from_slice(&[length_low, length_high, number, flags]);
    if let Some(bytes) = body_bytes {
        out[HEADER_BYTES..payload_at].copy_from_slice(&bytes.to_le_bytes());
    }
    let (covered, rest) = out.split_at_mut(payload_at + payload_bytes);
    let checksum = rest.first_chunk_mut::<CHECKSUM_BYTES>().ok_or(Full)?;
    *checksum = crc32fast::hash(covered).to_le_bytes();
    Ok(payload_at + payload_bytes + CHECKSUM_BYTES)
}

/// Reads the frame at the front of `bytes`.
///
/// # Errors
/// Any [`WireError`]; nothing was consumed, the link cannot go on.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, WireError> {
    let Some(&[length_low, length_high, number, flags]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(Decoded::NeedMore { bytes: HEADER_BYTES });
    };
    if flags & !(OPTIONAL | BODY) != 0 {
        return Err(WireError::Malformed);
    }
    let payload_bytes = usize::from(u16::from_le_bytes([length_low, length_high]));
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(WireError::TooBig);
    }
    let payload_at = HEADER_BYTES + if flags & BODY != 0 { BODY_LENGTH_BYTES } else { 0 };
    let checksum_at = payload_at + payload_bytes;
    let consumed = checksum_at + CHECKSUM_BYTES;
    let Some(whole) = bytes.get(..consumed) else {
        return Ok(Decoded::NeedMore { bytes: consumed });
    };
    let (covered, checksum) = whole.split_at(checksum_at);
    if checksum != crc32fast::hash(covered).to_le_bytes() {
        return Err(WireError::Checksum);
    }
    let (header, payload) = covered.split_at(payload_at);
    let body_bytes = match *header {
        [_, _, _, _, a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d])),
        _ => None,
    };
    if body_bytes.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(WireError::TooBig);
    }
    let frame = match Kind::from_number(number) {
        Some(kind) => read_payload(kind, payload, body_bytes)?,
        None if flags & OPTIONAL != 0 => Frame::Unknown(number),
        None => return Err(WireError::UnknownKind(number)),
    };
    Ok(Decoded::Frame { frame, consumed, body_bytes: body_bytes.unwrap_or(0) })
}

fn write_payload(frame: &Frame<'_>, out: &mut [u8]) -> Result<usize, Full> {
    match frame {
        Frame::Hello(it) => write(it, out),
        Frame::Bye(it) => write(it, out),
        Frame::Ping(it) | Frame::Pong(it) => write(it, out),
        Frame::Map(it) => write(it, out),
        Frame::Have(it) | Frame::Lost(it) => write(it, out),
        Frame::Request(it) => write(it, out),
        Frame::Cancel(it) | Frame::Refuse(it) => write(it, out),
        Frame::Data(it) => write(it, out),
        Frame::Busy(it) => write(it, out),
        Frame::Redirect(it) => write(it, out),
        Frame::Peers(it) => write(it, out),
        Frame::Offer(it) => write(it, out),
        Frame::BlobRequest(it) | Frame::Blob(it) => write(it, out),
        Frame::BlobRefuse(it) => write(it, out),
        Frame::BlobRedirect(it) => write(it, out),
        Frame::Touched(it) => write(it, out),
        Frame::Unknown(_) => Ok(0),
    }
}

fn write(payload: &impl Serialize, out: &mut [u8]) -> Result<usize, Full> {
    postcard::to_slice(payload, out).map(|written| written.len()).map_err(|_| Full)
}

fn read_payload(kind: Kind, payload: &[u8], body_bytes: Option<u32>) -> Result<Frame<'_>, WireError> {
    if kind.has_body() != body_bytes.is_some() {
        return Err(WireError::Malformed);
    }
    let body_bytes = body_bytes.unwrap_or(0);
    Ok(match kind {
        Kind::Hello => Frame::Hello(read(payload)?),
        Kind::Bye => Frame::Bye(read(payload)?),
        Kind::Ping => Frame::Ping(read(payload)?),
        Kind::Pong => Frame::Pong(read(payload)?),
        Kind::Map => Frame::Map(read(payload)?),
        Kind::Have => Frame::Have(read(payload)?),
        Kind::Lost => Frame::Lost(read(payload)?),
        Kind::Request => Frame::Request(read(payload)?),
        Kind::Cancel => Frame::Cancel(read(payload)?),
        Kind::Data => Frame::Data(Data { bytes: body_bytes, ..read(payload)? }),
        Kind::Busy => Frame::Busy(read(payload)?),
        Kind::Refuse => Frame::Refuse(read(payload)?),
        Kind::Redirect => Frame::Redirect(read(payload)?),
        Kind::Peers => Frame::Peers(read(payload)?),
        Kind::Offer => Frame::Offer(read(payload)?),
        Kind::BlobRequest => Frame::BlobRequest(read(payload)?),
        Kind::Blob => match read::<BlobRange>(payload)? {
            range if range.bytes == body_bytes => Frame::Blob(range),
            _ => return Err(WireError::Malformed),
        },
        Kind::BlobRefuse => Frame::BlobRefuse(read(payload)?),
        Kind::BlobRedirect => Frame::BlobRedirect(read(payload)?),
        Kind::Touched => Frame::Touched(read(payload)?),
    })
}

fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        _ => Err(WireError::Malformed),
    }
}
