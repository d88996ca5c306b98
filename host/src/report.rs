//! What an attached disk did, for programs (JSON) and for people (one screen), and the clock of its stalls.
//!
//! *Purpose*: the report that `attach --report FILE` writes; the JSON names are an interface that others rely on.
//! *Units*: bytes of image where guests are concerned, bytes of chunks received for what was fetched, microseconds of wall
//! time.

use crate::latency::LatencyMicros;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use swarmdisk_common::units::{Bytes, Micros};

/// What an attached disk did since the start of its process.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachReport {
    /// Size of the image.
    pub image_bytes: u64,
    /// Reads that guests made.
    pub guest_reads: u64,
    /// Bytes that guests read.
    pub guest_read_bytes: u64,
    /// Writes that guests made, of zeros too.
    #[serde(default)]
    pub guest_writes: u64,
    /// Bytes that guests wrote.
    #[serde(default)]
    pub guest_write_bytes: u64,
    /// Guest reads that waited for the network, or for another image of the cache.
    pub demand_misses: u64,
    /// Wall time during which at least one guest read waited for the network: see [`StallClock`].
    pub stall_micros: u64,
    /// Bodies of chunks received, duplicates and rejects included.
    pub fetched_bytes: FetchedBytes,
    /// Bodies of chunks that other images of the cache had, so that they were not fetched.
    #[serde(default)]
    pub other_images_bytes: u64,
    /// Chunks that went, as the cache has a bound.
    #[serde(default)]
    pub evictions: u64,
    /// Everything else received: leaf pages, manifest, profile, all other frames.
    pub metadata_bytes: u64,
    /// Sent to other nodes.
    pub uploaded_bytes: u64,
    /// Fetched before a guest asked for it.
    pub prefetched_bytes: u64,
    /// Of these, what no guest has read.
    pub prefetch_unused_bytes: u64,
    /// Pieces whose hash was wrong.
    pub corrupt_pieces: u64,
    /// How long guest reads took.
    pub read_latency_micros: LatencyMicros,
    /// From the start of the process.
    pub run_micros: u64,
}

/// Where chunks came from.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedBytes {
    /// From seeds and from HTTP or S3.
    pub origin: u64,
    /// From nodes that are themselves attached.
    pub peers: u64,
}

impl fmt::Display for AttachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fetched = self.fetched_bytes.origin + self.fetched_bytes.peers;
        let latency = self.read_latency_micros;
        writeln!(f, "ran          {}, image {}", Micros(self.run_micros), Bytes(self.image_bytes))?;
        writeln!(f, "guest        {} reads, {}", self.guest_reads, Bytes(self.guest_read_bytes))?;
        writeln!(f, "wrote        {} writes, {}", self.guest_writes, Bytes(self.guest_write_bytes))?;
        writeln!(
            f,
            "latency      half within {}, 99 % within {}, all within {}",
            Micros(latency.p50),
            Micros(latency.p99),
            Micros(latency.max)
        )?;
        writeln!(f, "waited       {} in {} reads", Micros(self.stall_micros), self.demand_misses)?;
        writeln!(
            f,
            "fetched      {}: {} from the origin, {} from peers",
            Bytes(fetched),
            Bytes(self.fetched_bytes.origin),
            Bytes(self.fetched_bytes.peers)
        )?;
        writeln!(f, "taken        {} from other images of the cache", Bytes(self.other_images_bytes))?;
        writeln!(f, "evicted      {} chunks", self.evictions)?;
        writeln!(
            f,
            "prefetched   {}, of which unused {}",
            Bytes(self.prefetched_bytes),
            Bytes(self.prefetch_unused_bytes)
        )?;
        writeln!(f, "uploaded     {}", Bytes(self.uploaded_bytes))?;
        writeln!(f, "metadata     {}", Bytes(self.metadata_bytes))?;
        write!(f, "corrupt      {} pieces", self.corrupt_pieces)
    }
}

/// Wall time during which at least one guest read waited for the network: the union of the waits, not their sum.
#[derive(Debug, Default, Clone)]
pub struct StallClock {
    state: Arc<Mutex<Stalls>>,
}

/// A wait that is counted until this is dropped.
#[derive(Debug)]
#[must_use = "the wait ends when this is dropped"]
pub struct Stalled {
    state: Arc<Mutex<Stalls>>,
}

#[derive(Debug, Default)]
struct Stalls {
    waiting_count: u64,
    /// When the first of those that wait began; none waits otherwise.
    since: Option<Instant>,
    total: Duration,
}

impl StallClock {
    /// A clock that has counted nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A guest read waits from now on, until the answer is dropped.
    pub fn enter(&self) -> Stalled {
        lock(&self.state).enter(Instant::now());
        Stalled { state: Arc::clone(&self.state) }
    }

    /// The time counted so far, a wait that goes on included.
    pub fn total(&self) -> Duration {
        lock(&self.state).total(Instant::now())
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        lock(&self.state).leave(Instant::now());
    }
}

fn lock(state: &Mutex<Stalls>) -> MutexGuard<'_, Stalls> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stalls {
    fn enter(&mut self, now: Instant) {
        self.waiting_count += 1;
        self.since.get_or_insert(now);
    }

    fn leave(&mut self, now: Instant) {
        self.waiting_count -= 1;
        if self.waiting_count == 0 {
            self.total = self.total(now);
            self.since = None;
        }
    }

    fn total(&self, now: Instant) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_others_rely_on() {
        let value = serde_json::to_value(AttachReport::default()).unwrap();
        let mut names: Vec<&String> = value.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(
            names,
            [
                "corrupt_pieces",
                "demand_misses",
                "evictions",
                "fetched_bytes",
                "guest_read_bytes",
                "guest_reads",
                "guest_write_bytes",
                "guest_writes",
                "image_bytes",
                "metadata_bytes",
                "other_images_bytes",
                "prefetch_unused_bytes",
                "prefetched_bytes",
                "read_latency_micros",
                "run_micros",
                "stall_micros",
                "uploaded_bytes"
            ]
        );
        assert!(value["fetched_bytes"]["origin"].is_u64() && value["fetched_bytes"]["peers"].is_u64());
        let latency = &value["read_latency_micros"];
        assert!(latency["p50"].is_u64() && latency["p99"].is_u64() && latency["max"].is_u64());
    }

    #[test]
    fn a_person_sees_one_screen() {
        let text = AttachReport::default().to_string();
        assert!(text.lines().count() <= 24 && text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn stalls_that_overlap_count_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut stalls = Stalls::default();
        stalls.enter(at(0));
        stalls.enter(at(10));
        stalls.leave(at(30));
        assert_eq!(stalls.total(at(35)), Duration::from_millis(35));
        stalls.leave(at(40));
        assert_eq!(stalls.total(at(90)), Duration::from_millis(40));
        stalls.enter(at(100));
        stalls.leave(at(105));
        assert_eq!(stalls.total(at(200)), Duration::from_millis(45));

        let clock = StallClock::new();
        let (first, second) = (clock.enter(), clock.enter());
        drop(first);
        drop(second);
        let total = clock.total();
        assert_eq!(clock.total(), total);
    }
}
