//! Latencies of reads: recorded as they come, told as median, 99th percentile and maximum.
//!
//! *Units*: microseconds. *Bounds*: three significant digits; what is over [`MAX_MICROS`] counts as that. A recorder
//! takes at most some 200 KiB, however much is recorded.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The longest latency told apart, in microseconds: an hour.
pub const MAX_MICROS: u64 = 3_600_000_000;

/// What a report says of latencies, in microseconds; all 0 if there were none.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyMicros {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Maximum.
    pub max: u64,
}

/// Records latencies; shared by reference between tasks.
pub struct LatencyRecorder {
    histogram: Mutex<Histogram<u64>>,
}

impl LatencyRecorder {
    /// A recorder of nothing so far.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_MICROS, 3).expect("the bounds are constants that fit");
        Self { histogram: Mutex::new(histogram) }
    }

    /// Records one latency.
    pub fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MAX_MICROS);
        self.histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros.min(MAX_MICROS));
    }

    /// What was recorded so far.
    pub fn summary(&self) -> LatencyMicros {
        let histogram = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        // Buckets are told by their upper end, which may lie beyond the maximum.
        let max = histogram.max();
        let at = |quantile| histogram.value_at_quantile(quantile).min(max);
        LatencyMicros { p50: at(0.5), p99: at(0.99), max }
    }
}

impl Default for LatencyRecorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LatencyRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ordered_and_bounded() {
        let recorder = LatencyRecorder::new();
        assert_eq!(recorder.summary(), LatencyMicros::default());
        for micros in 1..=1000 {
            recorder.record(Duration::from_micros(micros));
        }
        let summary = recorder.summary();
        assert_eq!((summary.p50, summary.p99, summary.max), (500, 990, 1000));
        recorder.record(Duration::MAX);
        assert!(recorder.summary().max >= MAX_MICROS);
    }
}
