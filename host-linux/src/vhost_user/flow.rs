//! What a session has under way: counted, bounded, waited for.
//!
//! *Invariants*: a request is counted before it is taken from its queue and until it is answered, so that whoever sees none
//! of a queue knows that nothing of it will be read, written or answered any more. A queue that had to wait is taken up again.
//! *Bounds*: [`REQUESTS_MAX`] requests; they hold [`BYTES_MAX`] bytes and what the last ones of each thread add.

use super::chain::Memory;
use super::request::PIECE_BYTES;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vhost_user_backend::VringMutex;
use vm_memory::GuestMemoryAtomic;

/// A queue's ring, and how the guest is told.
pub(super) type Vring = VringMutex<GuestMemoryAtomic<Memory>>;

/// Requests of a session that are under way.
pub(super) const REQUESTS_MAX: usize = 1024;
/// Bytes that they hold.
const BYTES_MAX: u64 = 64 << 20;

/// The counts of one session.
pub(super) struct Flow {
    counts: Mutex<Counts>,
    /// A queue may have come to rest.
    rested: Condvar,
}

#[derive(Default)]
struct Counts {
    is_closed: bool,
    requests: usize,
    requests_by_queue: Vec<usize>,
    bytes: u64,
    /// Queues that found no room.
    waiting: Vec<Waiting>,
}

/// A queue that is to be taken up again.
pub(super) struct Waiting {
    pub(super) queue: usize,
    pub(super) vring: Vring,
}

impl Flow {
    pub(super) fn new(queues: usize) -> Self {
        let counts = Counts { requests_by_queue: vec![0; queues], ..Counts::default() };
        Self { counts: Mutex::new(counts), rested: Condvar::new() }
    }

    /// Whether a request may be taken from this queue; it is counted then. If not now, it will be [taken
    /// up](Self::leave) again, unless all is over.
    pub(super) fn enter(&self, queue: usize, vring: &Vring) -> bool {
        let mut counts = self.counts();
        if counts.is_closed {
            return false;
        }
        if !counts.has_room() {
            if counts.waiting.iter().all(|waiting| waiting.queue != queue) {
                counts.waiting.push(Waiting { queue, vring: vring.clone() });
            }
            return false;
        }
        counts.requests += 1;
        counts.requests_by_queue[queue] += 1;
        true
    }

    /// A request that was counted holds so many bytes.
    pub(super) fn weigh(&self, bytes: u64) -> u64 {
        let bytes = bytes.min(PIECE_BYTES);
        self.counts().bytes += bytes;
        bytes
    }

    /// A request is over, which held so many bytes; queues that are to be taken up again.
    #[must_use]
    pub(super) fn leave(&self, queue: usize, bytes: u64) -> Vec<Waiting> {
        let mut counts = self.counts();
        counts.requests -= 1;
        counts.requests_by_queue[queue] -= 1;
        counts.bytes -= bytes;
        if counts.requests_by_queue[queue] == 0 {
            self.rested.notify_all();
        }
        if counts.has_room() && !counts.is_closed { std::mem::take(&mut counts.waiting) } else { Vec::new() }
    }

    /// From now on no request is taken.
    pub(super) fn close(&self) {
        let mut counts = self.counts();
        counts.is_closed = true;
        counts.waiting.clear();
    }

    /// Waits until nothing of this queue is under way.
    pub(super) fn wait_for_queue(&self, queue: usize) {
        let counts = self.counts();
        let rested = self.rested.wait_while(counts, |counts| counts.requests_by_queue[queue] > 0);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until nothing is under way, for at most so long; whether that is so.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut counts = self.counts();
        while counts.requests > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            counts = self.rested.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn has_room(&self) -> bool {
        self.requests < REQUESTS_MAX && self.bytes < BYTES_MAX
    }
}
