//! A link: packets wait in a line and are sent one after the other.
//!
//! *Invariants*: packets leave in the order in which they came; a link with packets is busy. *Units*: bytes a second of TCP
//! payload; what is left of the packet in hand in billionths of a byte. *Bounds*: `buffer_bytes`, where the owner heeds
//! [`Link::excess_count`].

use crate::network::Nanos;
use crate::network::tcp::{HEADER_BYTES, MSS_BYTES};
use std::collections::VecDeque;

const NANO: u64 = 1_000_000_000;

/// A packet on its way; it holds bytes of its pipe's stream.
#[derive(Debug, Copy, Clone)]
pub(super) struct Parcel {
    pub pipe: u32,
    /// Counts what the pipe has put on the wire, repetitions too.
    pub number: u64,
    /// Where in the stream it begins.
    pub offset: u64,
    pub bytes: u32,
    /// Which of the path's links has it.
    pub hop: u8,
}

impl Parcel {
    /// What it costs a link: the rates are those of full packets' payload, so headers weigh as much less.
    fn cost_bytes(&self) -> u64 {
        (u64::from(self.bytes) + HEADER_BYTES) * MSS_BYTES / (MSS_BYTES + HEADER_BYTES)
    }
}

/// A queue and what empties it.
#[derive(Debug)]
pub(super) struct Link {
    rate: u64,
    buffer_bytes: u64,
    queue: VecDeque<Parcel>,
    queued_bytes: u64,
    /// Of the packet in front, what was not sent at `updated`.
    left: u64,
    updated: Nanos,
    /// Tells when the packet in hand is sent from earlier answers to that.
    pub epoch: u32,
    pub carried_bytes: u64,
}

impl Link {
    pub fn new(rate: u64, buffer_bytes: u64) -> Self {
        Self {
            rate,
            buffer_bytes,
            queue: VecDeque::new(),
            queued_bytes: 0,
            left: 0,
            updated: 0,
            epoch: 0,
            carried_bytes: 0,
        }
    }

    /// How many packets may be thrown out, all but the one in hand, as more wait than the buffer holds; 0 if not.
    pub fn excess_count(&self) -> u32 {
        if self.queued_bytes > self.buffer_bytes { self.queue.len().saturating_sub(1) as u32 } else { 0 }
    }

    /// Throws out a packet that waits.
    pub fn drop_waiting(&mut self, place: u32) -> Option<Parcel> {
        let parcel = self.queue.remove(place as usize + 1)?;
        self.queued_bytes -= parcel.cost_bytes();
        Some(parcel)
    }

    /// Puts a packet at the end; true if the link was idle.
    pub fn put(&mut self, parcel: Parcel) -> bool {
        self.queued_bytes += parcel.cost_bytes();
        self.queue.push_back(parcel);
        self.queue.len() == 1
    }

    /// Begins to send the packet in front; gives the moment when that is done.
    pub fn begin(&mut self, now: Nanos) -> Option<Nanos> {
        self.left = self.queue.front()?.cost_bytes() * NANO;
        self.updated = now;
        self.done_at()
    }

    /// The packet in front has been sent.
    pub fn take(&mut self) -> Option<Parcel> {
        let parcel = self.queue.pop_front()?;
        self.queued_bytes -= parcel.cost_bytes();
        self.carried_bytes += u64::from(parcel.bytes);
        Some(parcel)
    }

    /// Goes on at another rate; gives the moment when the packet in hand will have been sent.
    pub fn set_rate(&mut self, now: Nanos, rate: u64) -> Option<Nanos> {
        let sent = u128::from(self.rate) * u128::from(now - self.updated);
        self.left = self.left.saturating_sub(u64::try_from(sent).unwrap_or(u64::MAX));
        self.updated = now;
        self.rate = rate.max(1);
        self.queue.front()?;
        self.done_at()
    }

    fn done_at(&mut self) -> Option<Nanos> {
        self.epoch = self.epoch.wrapping_add(1);
        Some(self.updated + self.left.div_ceil(self.rate))
    }
}
