//! Prediction from a profile: chunks in the order in which recorded runs first touched them.
//!
//! *Purpose*: the guest will want what others wanted, in about their order (VMTorrent, CoNEXT 2012).
//! *Invariants*: guesses come in profile order; nothing outside the profile is guessed.
//! *Bounds*: a window of `window` entries from the first that is missing; O(window) a forecast.

use super::{Access, ChunkView, Forecast, Guess, Predictor};
use crate::format::profile::ProfileEntry;
use crate::geometry::ChunkIndex;
use crate::time::Instant;

/// Prefetches along a profile, borrowed from the host, sorted by expected time.
#[derive(Debug, Clone)]
pub struct Profile<'a> {
    entries: &'a [ProfileEntry],
    window: usize,
    /// No entry before this one is missing.
    first: usize,
}

impl<'a> Profile<'a> {
    /// Looks `window` entries ahead of the first that is missing (VMTorrent's D; 300 by default).
    pub fn new(entries: &'a [ProfileEntry], window: usize) -> Self {
        Self { entries, window, first: 0 }
    }

    /// Whether the profile has the chunk, at O(entries).
    pub fn lists(&self, chunk: ChunkIndex) -> bool {
        self.entries.iter().any(|entry| entry.chunk == chunk)
    }
}

impl Predictor for Profile<'_> {
    fn observe(&mut self, _now: Instant, _access: Access) {}

    fn forecast(&mut self, _now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        while self.entries.get(self.first).is_some_and(|entry| view.holds(entry.chunk)) {
            self.first += 1;
        }
        let end = self.entries.len().min(self.first.saturating_add(self.window));
        for entry in &self.entries[self.first..end] {
            if view.misses(entry.chunk)
                && out.push(Guess { chunk: entry.chunk, probability: entry.probability }).is_err()
            {
                return;
            }
        }
    }

    fn settle(&mut self, chunk: ChunkIndex, used: bool) {
        // A chunk that was lost unused may be wanted again: the cursor must not have passed it.
        if !used && let Some(at) = self.entries.iter().position(|entry| entry.chunk == chunk) {
            self.first = self.first.min(at);
        }
    }
}
