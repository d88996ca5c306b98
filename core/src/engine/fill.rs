//! What is fetched so that this node has all of the image, though no guest wants it yet.
//!
//! *Automatic*: it begins when guests have read much of what is in the image, or have been reading for long: whoever runs
//! that long goes on, and shall not depend on others for ever; a boot, or a short-lived guest, causes none. It
//! goes on while nothing else is under way, one piece at a time, and rests as long as the piece took: so it leaves others
//! half of whatever is the narrowest place, without knowing that, and more when others are there too.
//! *Invariants*: no fill is started while a guest waits; those under way stay, as uploaders serve demand before them.
//! *Units*: bytes, microseconds. *Bounds*: [`TRIES_MAX`] pieces are looked at for one free place.

use super::fetch::{Whom, bitmap_get};
use super::{Engine, Fill};
use crate::bitmap::Bits;
use crate::policy::{Order, Predictor, Selector};
use crate::time::{Duration, Instant};
use crate::wire::Class;

/// Pieces that are looked at for one free place among the fills.
const TRIES_MAX: usize = 16;
/// Share of the image, in percent, that guests must have touched before `Fill::Auto` begins.
const AUTO_PERCENT: u128 = 30;
/// The least rest of `Fill::Auto` between two pieces: also where nobody answers with a body.
const REST_MIN: Duration = Duration::from_millis(1);

/// How far it has come.
#[derive(Debug)]
pub(super) struct Filling {
    /// The piece that is looked at next.
    next: u32,
    /// Nothing is started before.
    at: Instant,
    /// When guests began to read; `NEVER`: they have not.
    read_since: Instant,
}

impl Filling {
    /// Begins at piece `first`.
    pub(super) const fn new(now: Instant, first: u32) -> Self {
        Self { next: first, at: now, read_since: Instant::NEVER }
    }

    /// A guest reads.
    pub(super) fn note_read(&mut self, now: Instant) {
        self.read_since = self.read_since.min(now);
    }

    /// A piece has come, so long after it was asked for.
    pub(super) fn note_landed(&mut self, now: Instant, elapsed: Duration) {
        self.at = self.at.max(now + elapsed);
    }
}

impl<P: Predictor, O: Order, S: Selector> Engine<'_, P, O, S> {
    pub(super) fn start_fills(&mut self, now: Instant) {
        let most = match self.config.fill {
            Fill::Off => return,
            Fill::Auto if !self.may_fill_unasked(now) => return,
            Fill::Auto => 1,
            Fill::Rate(_) => usize::from(self.config.tuning.fills),
        };
        if !self.demands.is_empty() || now < self.store_full_until {
            return;
        }
        for _ in 0..TRIES_MAX {
            if now < self.filling.at
                || self.transfers.count(Class::Fill) >= most
                || !self.bulk_has_room()
                || !self.has_place(Class::Fill)
            {
                return;
            }
            let held = Bits::new(self.own.held, self.geometry.piece_count());
            let Some(number) = held.next(self.filling.next, false).or_else(|| held.next(0, false)) else { return };
            self.filling.next = number + 1;
            let Some(piece) = self.geometry.piece(number) else { return };
            if !bitmap_get(self.own.flight, piece) && self.start(now, piece, Class::Fill, Instant::NEVER, Whom::Nearest)
            {
                self.filling.at = self.filling.at.max(now) + self.rest();
            }
        }
    }

    /// From the start of a fill until the next may start, at the least.
    fn rest(&self) -> Duration {
        match self.config.fill {
            Fill::Rate(rate) => {
                Duration::from_micros(u64::from(self.mean_bytes).saturating_mul(1_000_000) / rate.max(1))
            }
            _ => REST_MIN,
        }
    }

    fn may_fill_unasked(&self, now: Instant) -> bool {
        let is_alone = self.transfers.count(Class::Demand) == 0 && self.transfers.count(Class::Prefetch) == 0;
        is_alone && (self.have_guests_read_much() || now >= self.long_read_at())
    }

    /// Of what is in the image; zeros, of which images are full, do not count if it is known how many there are.
    fn have_guests_read_much(&self) -> bool {
        let touched = u128::from(self.touched_count) * 100;
        match self.config.payload_bytes {
            0 => touched > u128::from(self.geometry.chunk_count()) * AUTO_PERCENT,
            all => touched * u128::from(self.mean_bytes) > u128::from(all) * AUTO_PERCENT,
        }
    }

    /// When guests will have been reading for long.
    fn long_read_at(&self) -> Instant {
        self.filling.read_since + self.config.tuning.fill_after
    }

    /// When a fill may start that may not yet.
    pub(super) fn fill_due(&self) -> Instant {
        match self.config.fill {
            Fill::Auto if !self.have_guests_read_much() => self.filling.at.max(self.long_read_at()),
            _ => self.filling.at,
        }
    }
}
