//! The engine's clock: a monotonic origin, and times since then.
//!
//! *Purpose*: the core counts microseconds from an origin that the host chooses; here that is the moment in which the
//! clock was made. *Invariants*: never goes back. *Units*: microseconds.

use swarmdisk_core::time::Instant;
use tokio::time::{Duration, Instant as HostInstant};

/// Translates between the host's time and the core's.
#[derive(Debug, Copy, Clone)]
pub struct Clock {
    origin: HostInstant,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self { origin: HostInstant::now() }
    }

    /// The time now, as the core sees it.
    pub fn now(&self) -> Instant {
        Instant::from_micros(self.origin.elapsed().as_micros() as u64)
    }

    /// When the host's clock will show this; none for a time so far off that it cannot be expressed.
    pub fn host_time(&self, at: Instant) -> Option<HostInstant> {
        self.origin.checked_add(Duration::from_micros(at.as_micros()))
    }
}
