//! How fast this run goes through a profile, whose times are those of other machines.
//!
//! *Purpose*: recorded runs are often slow, emulated ones; when an entry is due depends on how fast this guest gets there.
//! *Invariants*: times in which the guest waited for a chunk do not count. *Units*: microseconds; a profile's in milliseconds.
//! *Bounds*: constant.

use crate::time::{Duration, Instant};

/// Less than this says nothing about the pace, in microseconds of this run.
const KNOWN_MICROS: u64 = 50_000;
/// The sums are halved when this much has been measured, in microseconds of this run.
const MEMORY_MICROS: u64 = 2_000_000;

/// Where the guest is in the profile's time, and how fast.
#[derive(Debug, Default, Copy, Clone)]
pub(super) struct Pace {
    /// When the guest was at how many milliseconds.
    last: Option<(Instant, u32)>,
    /// Whether the guest has waited since.
    stalled: bool,
    real_micros: u64,
    profile_micros: u64,
}

impl Pace {
    /// The guest has read something, and waited for it unless it was a hit.
    pub(super) fn note_access(&mut self, hit: bool) {
        self.stalled |= !hit;
    }

    /// The guest is where recorded runs were at `at_millis`.
    pub(super) fn note_position(&mut self, now: Instant, at_millis: u32) {
        if let Some((then, before)) = self.last
            && !self.stalled
        {
            self.real_micros += (now - then).as_micros().min(MEMORY_MICROS);
            self.profile_micros =
                self.profile_micros.saturating_add(u64::from(at_millis.saturating_sub(before)) * 1000);
            if self.real_micros >= MEMORY_MICROS {
                self.real_micros /= 2;
                self.profile_micros /= 2;
            }
        }
        self.last = Some((now, at_millis));
        self.stalled = false;
    }

    /// In what time from `now` it is so long after the guest's last touch.
    pub(super) fn due(&self, now: Instant, ahead: Duration) -> Duration {
        (self.last.map_or(now, |(then, _)| then) + ahead) - now
    }

    /// How long after its last touch the guest will be where recorded runs were at `at_millis`.
    pub(super) fn ahead(&self, at_millis: u32) -> Duration {
        let here = self.last.map_or(0, |(_, here)| here);
        let ahead_micros = u64::from(at_millis.saturating_sub(here)) * 1000;
        if self.real_micros < KNOWN_MICROS || self.profile_micros == 0 {
            // Taken for as fast as the recorded runs.
            return Duration::from_micros(ahead_micros);
        }
        Duration::from_micros(ahead_micros.saturating_mul(self.real_micros) / self.profile_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(pace: &Pace, now: Instant, at_millis: u32) -> Duration {
        pace.due(now, pace.ahead(at_millis))
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn what_took_recorded_runs_ten_times_as_long_is_due_in_a_tenth() {
        let mut pace = Pace::default();
        assert_eq!(due(&pace, at(0), 70), Duration::from_millis(70));
        pace.note_position(at(0), 0);
        pace.note_position(at(10), 100);
        assert_eq!(due(&pace, at(10), 200), Duration::from_millis(100), "too little is known");
        pace.note_position(at(100), 1000);
        assert_eq!(due(&pace, at(100), 2000), Duration::from_millis(100));
        assert_eq!(due(&pace, at(130), 2000), Duration::from_millis(70));
        assert_eq!(due(&pace, at(300), 2000), Duration::ZERO, "it is late");
        assert_eq!(due(&pace, at(100), 500), Duration::ZERO);
    }

    #[test]
    fn waiting_for_chunks_is_not_thinking() {
        let mut pace = Pace::default();
        pace.note_position(at(0), 0);
        pace.note_position(at(100), 100);
        pace.note_access(false);
        pace.note_position(at(1100), 200);
        pace.note_position(at(1200), 300);
        assert_eq!(due(&pace, at(1200), 400), Duration::from_millis(100));
    }
}
