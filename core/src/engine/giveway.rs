//! When an uplink is not used to the full, so that others' guests need not wait behind what nobody waits for.
//!
//! *Why*: what has been handed over cannot be overtaken, and a demand finds the uplink taken as often as bulk takes it. A
//! body of bulk before it costs half a body on average, and a missing chunk at 100 Mbit/s takes little more than one. So
//! while demands come, fills, which can wait, go out one at a time and take no more than a share. Prefetches are others'
//! demands of soon: they take all that is left, with somewhat less handed over ahead.
//! *Invariants*: demand is never held back. *Units*: microseconds, bytes. *Bounds*: constant.

use super::meter::Meter;
use crate::time::{Duration, Instant};
use crate::wire::Class;

/// After a demand others are expected for so long: a guest that misses thinks for some milliseconds.
const EXPECTED_FOR: Duration = Duration::from_secs(1);
/// Fills then take one part in so many of the uplink: demands find it taken by one in as many, then wait half a body and
/// more, as sockets and queues hold some as well. With 8 real misses at 100 Mbit/s took 1.19 times as long.
const FILL_SHARE: u64 = 12;
/// So many bytes of prefetches and others are handed over then before they have left. Of eight real nodes on 100 Mbit/s
/// links that learn live: with 96 KiB they wait a tenth longer, since their own requests wait behind it; with 24 KiB the
/// link idles at times, and where the network is the limit (simulated) the swarm moves less.
const PREFETCH_BYTES: u64 = 64 << 10;
/// How fast the uplink is taken to be as long as nothing has been sent, in bytes a second.
const RATE_UNKNOWN: u64 = 1 << 20;
/// What the uplink was seen to take is forgotten so slowly (by this power of two): little is sent while bulk gives way.
const FORGET_SHIFT: u32 = 8;

/// Whether bulk gives way.
#[derive(Debug)]
pub(super) struct GiveWay {
    /// Demands of others are expected until then.
    expected_until: Instant,
    /// The next fill has to wait until then, if demands are expected.
    fill_at: Instant,
    /// What the uplink takes.
    up: Meter,
}

impl GiveWay {
    pub(super) fn new(now: Instant) -> Self {
        Self { expected_until: now, fill_at: now, up: Meter::forgetting(now, FORGET_SHIFT) }
    }

    /// A guest of another node waits for something from here.
    pub(super) fn note_demand(&mut self, now: Instant) {
        self.expected_until = now + EXPECTED_FOR;
    }

    /// Some bytes have left.
    pub(super) fn note_sent(&mut self, now: Instant, bytes: u32) {
        self.up.note(now, bytes);
    }

    /// A body has been handed over.
    pub(super) fn note_body(&mut self, now: Instant, class: Class, bytes: u32) {
        if class == Class::Fill {
            let rate = self.up.bytes_per_sec().max(RATE_UNKNOWN);
            let pause = u64::from(bytes).saturating_mul(FILL_SHARE * 1_000_000) / rate;
            self.fill_at = now + Duration::from_micros(pause);
        }
    }

    /// Until when what is of this class has to wait, if so much has been handed over that has not left; `NEVER`: until that
    /// has.
    pub(super) fn waits_until(&self, now: Instant, class: Class, moving_bytes: u64) -> Instant {
        if class == Class::Demand || now >= self.expected_until {
            return now;
        }
        let most = if class == Class::Fill { 0 } else { PREFETCH_BYTES };
        if moving_bytes > most {
            return Instant::NEVER;
        }
        if class == Class::Fill { self.fill_at.min(self.expected_until) } else { now }
    }
}
