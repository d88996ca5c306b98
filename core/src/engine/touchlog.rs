//! The log of what this node's guests have touched: each chunk once, when it was touched first. Peers are told of it.
//!
//! *Invariants*: in order of time, times relative to the first touch. *Units*: milliseconds.
//! *Bounds*: as many as `Limits::touches`. When it is full nothing more is logged: the beginning of a run is what those
//! that begin later need most; they foresee the rest as if there were no log.

use crate::bitmap::Bits;
use crate::geometry::ChunkIndex;
use crate::time::{Duration, Instant};
use crate::wire::{Touched, TouchesEncoder};

/// A touch of a chunk that is not held is told after so long.
const UNHELD: Duration = Duration::from_millis(500);

/// A first touch; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Touch {
    chunk: u32,
    /// Since the first touch of all.
    millis: u32,
}

impl Touch {
    /// An unused row.
    pub const EMPTY: Self = Self { chunk: 0, millis: 0 };
}

/// The log.
#[derive(Debug)]
pub(super) struct TouchLog<'a> {
    rows: &'a mut [Touch],
    len: usize,
    /// When the first touch was.
    start: Instant,
}

impl<'a> TouchLog<'a> {
    pub(super) fn new(rows: &'a mut [Touch]) -> Self {
        Self { rows, len: 0, start: Instant::ZERO }
    }

    /// How many have been logged.
    pub(super) fn len(&self) -> u16 {
        self.len as u16
    }

    /// Logs a chunk that has not been touched before; says whether there was room.
    pub(super) fn push(&mut self, now: Instant, chunk: ChunkIndex) -> bool {
        if self.len == 0 {
            self.start = now;
        }
        let Some(row) = self.rows.get_mut(self.len) else { return false };
        let millis = u32::try_from((now - self.start).as_micros() / 1000).unwrap_or(u32::MAX);
        *row = Touch { chunk: chunk.get(), millis };
        self.len += 1;
        true
    }

    /// What a frame with the touches from number `first` on says, as many as fit into `list`, and the number of the next;
    /// none if there is nothing to say. A chunk that is not held yet is waited for: who hears of it would ask a seed.
    pub(super) fn told<'b>(
        &self,
        now: Instant,
        first: u16,
        held: Bits<'_>,
        list: &'b mut [u8],
    ) -> Option<(Touched<'b>, u16)> {
        let (mut next, mut before) = (first, 0);
        let at = |millis: u32| self.start + Duration::from_millis(millis.into());
        let mut encoder = TouchesEncoder::new(list);
        for row in &self.rows[usize::from(first).min(self.len)..self.len] {
            let is_ready = held.get(row.chunk) || now - at(row.millis) >= UNHELD;
            if !is_ready || encoder.push(row.chunk, row.millis.saturating_sub(before)).is_err() {
                break;
            }
            (next, before) = (next + 1, row.millis);
        }
        let length = encoder.finish();
        let age_millis = u32::try_from((now - at(before)).as_micros() / 1000).unwrap_or(u32::MAX);
        (next > first).then_some((Touched { age_millis, touches: &list[..length] }, next))
    }
}
