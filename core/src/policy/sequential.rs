//! Prediction of sequential reading.
//!
//! *Purpose*: what follows a run of chunks read in order will be wanted next; needs no profile.
//! *Invariants*: a reader that has read n chunks in order is expected to read at most n / 2 further, so that what is
//! fetched in vain stays below half of what was read; a wasted guess makes its reader begin anew.
//! *Bounds*: [`STREAMS_MAX`] streams, at most `ahead` chunks each.

use super::{Access, ChunkView, Forecast, Guess, Predictor};
use crate::geometry::ChunkIndex;
use crate::ids::GuestId;
use crate::time::{Duration, Instant};

/// Streams that are followed at a time; the one longest silent gives way.
pub const STREAMS_MAX: usize = 16;

/// A place where a guest reads on.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct Stream {
    guest: GuestId,
    /// The chunk read last.
    last: u32,
    /// Chunks read in order.
    run: u32,
}

/// Prefetches ahead of sequential readers.
#[derive(Debug, Clone)]
pub struct Sequential {
    /// The most recent last.
    streams: heapless::Vec<Stream, STREAMS_MAX>,
    ahead_max: u32,
}

impl Sequential {
    /// Looks at most `ahead_max` chunks ahead of each reader.
    pub const fn new(ahead_max: u32) -> Self {
        Self { streams: heapless::Vec::new(), ahead_max }
    }
}

impl Predictor for Sequential {
    fn observe(&mut self, _now: Instant, access: Access) {
        let chunk = access.chunk.get();
        let followed = |stream: &Stream| {
            stream.guest == access.guest && (stream.last == chunk || stream.last.checked_add(1) == Some(chunk))
        };
        let stream = match self.streams.iter().position(followed) {
            Some(index) => {
                let old = self.streams.remove(index);
                let further = u32::from(old.last != chunk);
                Stream { last: chunk, run: old.run.saturating_add(further), ..old }
            }
            None => Stream { guest: access.guest, last: chunk, run: 1 },
        };
        if self.streams.is_full() {
            self.streams.remove(0);
        }
        let pushed = self.streams.push(stream);
        debug_assert!(pushed.is_ok(), "there is room");
    }

    fn forecast(&mut self, _now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        for stream in self.streams.iter().rev() {
            for step in 1..=(stream.run / 2).min(self.ahead_max) {
                let Some(chunk) = view.geometry().chunk(stream.last.saturating_add(step)) else { break };
                let listed = out.iter().any(|guess| guess.chunk == chunk);
                if view.misses(chunk)
                    && !listed
                    && out.push(Guess { chunk, probability: 128, due: Duration::MAX }).is_err()
                {
                    return;
                }
            }
        }
    }

    fn settle(&mut self, chunk: ChunkIndex, used: bool) {
        if used {
            return;
        }
        let near = |stream: &&mut Stream| chunk.get().wrapping_sub(stream.last) <= self.ahead_max;
        if let Some(stream) = self.streams.iter_mut().find(near) {
            stream.run = 1;
        }
    }
}
