//! Which chunks guests touched, and when: what `Touched` carries.
//!
//! *Purpose*: for each touch two varints: the chunk's index less the one before (zigzag; the first counts from 0), and the
//! milliseconds since the touch before. Reading ahead makes both small: two or three bytes a touch.
//! *Invariants*: the first touch's milliseconds are 0: the frame's age dates the newest, the gaps date the rest.
//! *Units*: milliseconds. *Bounds*: a touch is 2 to 10 bytes; chunks below 2^31.

use super::{Full, WireError, varint};
use core::iter::FusedIterator;

/// Writes touches into a buffer, which after each push holds a valid list.
#[derive(Debug)]
pub struct TouchesEncoder<'b> {
    out: &'b mut [u8],
    used: usize,
    chunk: u32,
}

impl<'b> TouchesEncoder<'b> {
    /// An empty list in `out`. For a frame, `out` is [`LIST_BYTES_MAX`](super::LIST_BYTES_MAX) long.
    pub const fn new(out: &'b mut [u8]) -> Self {
        Self { out, used: 0, chunk: 0 }
    }

    /// Adds the touch of `chunk` (an index below 2^31), `millis` after the one before; the first one's are taken as 0.
    ///
    /// # Errors
    /// [`Full`] if there is no room: nothing was added, the list is as valid as before.
    pub fn push(&mut self, chunk: u32, millis: u32) -> Result<(), Full> {
        debug_assert!(chunk <= i32::MAX as u32, "geometry allows no such chunk");
        let step = varint::zigzag(chunk.wrapping_sub(self.chunk) as i32);
        let millis = if self.used == 0 { 0 } else { millis };
        let room = &mut self.out[self.used..];
        if room.len() < varint::len(step) + varint::len(millis) {
            return Err(Full);
        }
        let step_bytes = varint::write(step, room).ok_or(Full)?;
        let millis_bytes = varint::write(millis, &mut room[step_bytes..]).ok_or(Full)?;
        self.used += step_bytes + millis_bytes;
        self.chunk = chunk;
        Ok(())
    }

    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Length of the list in bytes; it stands at the front of the buffer.
    pub const fn finish(self) -> usize {
        self.used
    }
}

/// Reads touches as `(chunk, milliseconds since the touch before)`, all chunks below `chunk_count`.
///
/// # Errors
/// The last item is [`WireError::Malformed`] if the list is cut off, leaves the range, or is not in its one form.
pub const fn decode_touches(bytes: &[u8], chunk_count: u32) -> Touches<'_> {
    Touches { rest: bytes, chunk: 0, chunk_count, begun: false }
}

/// The touches of a list; made by [`decode_touches`].
#[derive(Debug, Clone)]
pub struct Touches<'a> {
    rest: &'a [u8],
    chunk: u32,
    chunk_count: u32,
    begun: bool,
}

impl Touches<'_> {
    fn read(&mut self) -> Option<(u32, u32)> {
        let (step, rest) = varint::read(self.rest)?;
        let (millis, rest) = varint::read(rest)?;
        let chunk = self.chunk.checked_add_signed(varint::unzigzag(step))?;
        if chunk >= self.chunk_count || (millis != 0 && !self.begun) {
            return None;
        }
        (self.rest, self.chunk, self.begun) = (rest, chunk, true);
        Some((chunk, millis))
    }
}

impl Iterator for Touches<'_> {
    type Item = Result<(u32, u32), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let touch = self.read().ok_or(WireError::Malformed);
        if touch.is_err() {
            self.rest = &[];
        }
        Some(touch)
    }
}

impl FusedIterator for Touches<'_> {}
