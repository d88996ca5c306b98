//! How fast bytes pass, as far as can be seen.
//!
//! *Invariants*: a rate seen is forgotten slowly, since a link that idles is no slower. *Units*: bytes a second,
//! microseconds. *Bounds*: constant.

use crate::time::{Duration, Instant};

/// Bytes are counted for so long, then a rate is made of them.
const WINDOW: Duration = Duration::from_millis(100);

/// Counts bytes.
#[derive(Debug)]
pub(super) struct Meter {
    since: Instant,
    bytes: u64,
    bytes_per_sec: u64,
    /// Of a rate seen, one part in two to the power of this is forgotten with each window.
    forget_shift: u32,
}

impl Meter {
    pub fn new(now: Instant) -> Self {
        Self::forgetting(now, 3)
    }

    pub fn forgetting(now: Instant, forget_shift: u32) -> Self {
        Self { since: now, bytes: 0, bytes_per_sec: 0, forget_shift }
    }

    /// Some more have passed.
    pub fn note(&mut self, now: Instant, bytes: u32) {
        let elapsed = now - self.since;
        if elapsed >= WINDOW {
            let seen = self.bytes.saturating_mul(1_000_000) / elapsed.as_micros();
            self.bytes_per_sec = seen.max(self.bytes_per_sec - (self.bytes_per_sec >> self.forget_shift));
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes = self.bytes.saturating_add(u64::from(bytes));
    }

    /// The rate; 0 if not known.
    pub const fn bytes_per_sec(&self) -> u64 {
        self.bytes_per_sec
    }

    /// How many bytes pass within a span.
    pub fn bytes_within(&self, span: Duration) -> u64 {
        self.bytes_per_sec.saturating_mul(span.as_micros()) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_window_of_late_counts() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut meter = Meter::new(at(0));
        assert_eq!(meter.bytes_per_sec(), 0);
        (0..=20).for_each(|step| meter.note(at(step * 10), 1000));
        assert_eq!(meter.bytes_per_sec(), 100_000);
        assert_eq!(meter.bytes_within(Duration::from_millis(10)), 1000);
        meter.note(at(10_000), 1);
        assert_eq!(meter.bytes_per_sec(), 87_500, "a pause is not taken for a slow link at once");
    }
}
