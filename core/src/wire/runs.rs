//! A set of pieces as runs: what `Map`, `Have` and `Lost` carry.
//!
//! *Purpose*: alternating varints *gap, length*: the first gap counts from a base, each later one from the end of the run
//! before. A full map of a half-filled cache takes a few bytes a run, whatever the image's size.
//! *Invariants*: lengths and all gaps but the first are at least 1, so a set has one form only; runs ascend.
//! *Units*: pieces. *Bounds*: a run is 2 to 10 bytes, so decoding takes at most one step for two bytes.

use super::{Full, WireError, varint};
use core::iter::FusedIterator;

/// Writes runs into a buffer, which after each push holds a valid list.
#[derive(Debug)]
pub struct RunsEncoder<'b> {
    out: &'b mut [u8],
    used: usize,
    /// Where the last run's length stands, and what it is; meaningless before the first run.
    length_at: usize,
    length: u32,
    /// End of the last run; the base before the first one.
    end: u32,
}

impl<'b> RunsEncoder<'b> {
    /// An empty list in `out`, relative to `base`. For a frame, `out` is [`LIST_BYTES_MAX`](super::LIST_BYTES_MAX) long.
    pub const fn new(out: &'b mut [u8], base: u32) -> Self {
        Self { out, used: 0, length_at: 0, length: 0, end: base }
    }

    /// Adds pieces `first .. first + count`; one that continues the run before makes that longer. Nothing if `count` is
    /// 0; what lies beyond `u32::MAX - 1` is cut off.
    ///
    /// # Errors
    /// [`Full`] if there is no room, or `first` is before the end of the run before (or the base): nothing was added,
    /// the list is as valid as before, and the run may start another one.
    pub fn push(&mut self, first: u32, count: u32) -> Result<(), Full> {
        let count = count.min(u32::MAX - first);
        if count == 0 {
            return Ok(());
        }
        let gap = first.checked_sub(self.end).ok_or(Full)?;
        if gap == 0 && self.used > 0 {
            return self.lengthen(count);
        }
        let room = &mut self.out[self.used..];
        if room.len() < varint::len(gap) + varint::len(count) {
            return Err(Full);
        }
        let gap_bytes = varint::write(gap, room).ok_or(Full)?;
        let length_bytes = varint::write(count, &mut room[gap_bytes..]).ok_or(Full)?;
        self.length_at = self.used + gap_bytes;
        self.used = self.length_at + length_bytes;
        self.length = count;
        self.end = first + count;
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

    fn lengthen(&mut self, count: u32) -> Result<(), Full> {
        let length = self.length + count;
        let length_bytes = varint::write(length, &mut self.out[self.length_at..]).ok_or(Full)?;
        self.used = self.length_at + length_bytes;
        self.length = length;
        self.end += count;
        Ok(())
    }
}

/// Reads runs relative to `base` that must lie below `limit`, as `(first, count)`, ascending, neither overlapping nor
/// adjacent.
///
/// Each run is checked when it is reached: the ones before an error are good as such, but the link is not.
///
/// # Errors
/// The last item is [`WireError::Malformed`] if the list is cut off, leaves the range, or is not in its one form.
pub const fn decode_runs(bytes: &[u8], base: u32, limit: u32) -> Runs<'_> {
    Runs { rest: bytes, end: base, limit, begun: false }
}

/// The runs of a list; made by [`decode_runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    rest: &'a [u8],
    end: u32,
    limit: u32,
    begun: bool,
}

impl Runs<'_> {
    fn read(&mut self) -> Option<(u32, u32)> {
        let (gap, rest) = varint::read(self.rest)?;
        let (count, rest) = varint::read(rest)?;
        let first = self.end.checked_add(gap)?;
        let end = first.checked_add(count)?;
        if count == 0 || (gap == 0 && self.begun) || end > self.limit {
            return None;
        }
        (self.rest, self.end, self.begun) = (rest, end, true);
        Some((first, count))
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<(u32, u32), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let run = self.read().ok_or(WireError::Malformed);
        if run.is_err() {
            self.rest = &[];
        }
        Some(run)
    }
}

impl FusedIterator for Runs<'_> {}
