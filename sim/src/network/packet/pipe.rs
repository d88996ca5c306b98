//! A pipe: a TCP sender and its receiver.
//!
//! *How*: a byte stream, cut into packets of at most [`MSS_BYTES`] as it leaves, so a packet may hold the end of one segment
//! and the beginning of the next. Selective repetition; the window is halved at most once a round trip (RFC 5681, RFC 6675).
//! As no path reorders, an acknowledgement tells that what was sent before and not acknowledged is lost (compare RFC 8985).
//! *Invariants*: `received <= next <= taken_end <= end`; every byte up to `next` is received, in flight or known to be lost.
//! *Units*: offsets and sizes in bytes. *Bounds*: what is in flight, by the window.

use super::link::Parcel;
use crate::network::Nanos;
use crate::network::tcp::{MSS_BYTES, RTO, Tcp, Window};
use crate::network::topology::Path;
use std::collections::{BTreeMap, VecDeque};

/// Time-outs without an answer double the next one so many times at most.
const BACKOFF_MAX: u32 = 6;

#[derive(Debug)]
pub(super) struct Pipe {
    pub path: Path,
    /// What has not arrived.
    segments: VecDeque<Segment>,
    /// Of `segments`, how many the socket has taken.
    taken_count: usize,
    /// Offsets: the end of all segments, of those that the socket has taken, and of what has been on the wire.
    end: u64,
    taken_end: u64,
    next: u64,
    /// All before this offset has arrived; of what lies behind it, these have (offset and bytes).
    received: u64,
    early: BTreeMap<u64, u32>,
    /// In the order in which they were sent; also what is lost and not known to be.
    in_flight: VecDeque<Sent>,
    flight_bytes: u64,
    /// Packets whose acknowledgement will come.
    pub live_count: u32,
    /// What is to be repeated: offset and bytes.
    lost: BTreeMap<u64, u32>,
    sent_count: u64,
    window: Window,
    /// From this window on it grows by a packet a round trip.
    threshold: u64,
    /// Bytes acknowledged since it last grew so.
    grown_bytes: u64,
    /// Losses of packets before this number are of the round trip for which the window has been halved.
    recovery: u64,
    last_sent: Nanos,
    backoff: u32,
    pub is_open: bool,
    /// Whether one of its packets waits for the host's own link.
    pub is_queued: bool,
    /// Whether the network will look at it at this moment.
    pub is_woken: bool,
    /// Whether the network will ask for a time-out.
    pub is_timed: bool,
}

#[derive(Debug, Copy, Clone)]
struct Segment {
    tag: u32,
    end: u64,
}

#[derive(Debug, Copy, Clone)]
struct Sent {
    number: u64,
    offset: u64,
    bytes: u32,
}

impl Pipe {
    pub fn new(path: Path, tcp: &Tcp) -> Self {
        Self {
            path,
            segments: VecDeque::new(),
            taken_count: 0,
            end: 0,
            taken_end: 0,
            next: 0,
            received: 0,
            early: BTreeMap::new(),
            in_flight: VecDeque::new(),
            flight_bytes: 0,
            live_count: 0,
            lost: BTreeMap::new(),
            sent_count: 0,
            window: Window::new(tcp),
            threshold: u64::MAX,
            grown_bytes: 0,
            recovery: 0,
            last_sent: 0,
            backoff: 0,
            is_open: true,
            is_queued: false,
            is_woken: false,
            is_timed: false,
        }
    }

    /// A segment behind the others; whether the socket takes it at once.
    pub fn append(&mut self, bytes: u32, tag: u32, tcp: &Tcp) -> bool {
        self.end += u64::from(bytes);
        self.segments.push_back(Segment { tag, end: self.end });
        self.take_next(tcp) == Some(tag)
    }

    /// The socket takes the next segment if there is room.
    pub fn take_next(&mut self, tcp: &Tcp) -> Option<u32> {
        let segment = *self.segments.get(self.taken_count)?;
        if self.taken_end - self.next > tcp.socket_bytes.into() {
            return None;
        }
        self.taken_count += 1;
        self.taken_end = segment.end;
        Some(segment.tag)
    }

    /// The next packet, if there is one and the window lets it through.
    pub fn emit(&mut self, now: Nanos, pipe: u32, tcp: &Tcp) -> Option<Parcel> {
        let (offset, bytes) = match self.lost.first_key_value() {
            Some((offset, bytes)) => (*offset, *bytes),
            None => (self.next, (self.taken_end - self.next).min(MSS_BYTES) as u32),
        };
        if bytes == 0 {
            return None;
        }
        if self.in_flight.is_empty() {
            // RFC 2861: the way back up is quick.
            let before = self.window.bytes();
            self.window.resume(now, tcp);
            if self.window.bytes() < before {
                self.threshold = self.threshold.max(before * 3 / 4);
            }
        } else if self.flight_bytes + u64::from(bytes) > self.window.bytes() {
            return None;
        }
        if self.lost.pop_first().is_none() {
            self.next += u64::from(bytes);
        }
        let number = self.sent_count;
        self.sent_count += 1;
        self.in_flight.push_back(Sent { number, offset, bytes });
        self.flight_bytes += u64::from(bytes);
        self.live_count += 1;
        self.last_sent = now;
        self.window.pause(now);
        Some(Parcel { pipe, number, offset, bytes, hop: 0 })
    }

    /// A packet has reached the receiver.
    pub fn receive(&mut self, parcel: &Parcel) {
        if parcel.offset != self.received {
            self.early.insert(parcel.offset, parcel.bytes);
            return;
        }
        self.received += u64::from(parcel.bytes);
        while let Some(bytes) = self.early.remove(&self.received) {
            self.received += u64::from(bytes);
        }
    }

    /// The next segment that has arrived whole.
    pub fn pop_arrived(&mut self) -> Option<u32> {
        let first = self.segments.pop_front_if(|segment| segment.end <= self.received)?;
        self.taken_count -= 1;
        Some(first.tag)
    }

    /// The sender hears that a packet has arrived.
    pub fn acknowledge(&mut self, number: u64, tcp: &Tcp) {
        self.live_count -= 1;
        self.backoff = 0;
        let (window, flight) = (self.window.bytes(), self.flight_bytes);
        if let Some(last_lost) = self.lose_before(number) {
            self.reduce(last_lost, flight, tcp);
        }
        let Some(sent) = self.in_flight.pop_front() else { return };
        self.flight_bytes -= u64::from(sent.bytes);
        // A window that is not used up says nothing about the path (RFC 7661).
        let is_slow_start = window < self.threshold;
        let is_used = if is_slow_start { flight * 2 >= window } else { flight + MSS_BYTES > window };
        if number < self.recovery || !is_used {
            return;
        }
        if is_slow_start {
            self.window.set(window + u64::from(sent.bytes), tcp);
            return;
        }
        self.grown_bytes += u64::from(sent.bytes);
        if self.grown_bytes >= window {
            self.grown_bytes -= window;
            self.window.set(window + MSS_BYTES, tcp);
        }
    }

    /// When a time-out is due: nothing that is in flight will be answered; none if something will.
    pub fn timeout_at(&self) -> Option<Nanos> {
        let is_stuck = self.live_count == 0 && !self.in_flight.is_empty();
        is_stuck.then(|| self.last_sent + ((self.path.latency * 2 + RTO) << self.backoff))
    }

    /// All that was in flight is lost.
    pub fn time_out(&mut self, tcp: &Tcp) {
        let flight = self.flight_bytes;
        if let Some(last_lost) = self.lose_before(self.sent_count) {
            self.reduce(last_lost, flight, tcp);
        }
        self.window.set(MSS_BYTES, tcp);
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// What was sent before this packet and is still in flight is lost; gives the last of it.
    fn lose_before(&mut self, number: u64) -> Option<u64> {
        let mut last_lost = None;
        while let Some(sent) = self.in_flight.pop_front_if(|sent| sent.number < number) {
            self.flight_bytes -= u64::from(sent.bytes);
            last_lost = Some(sent.number);
            // Of a closed pipe only what its segments need.
            if self.is_open || sent.offset < self.end {
                self.lost.insert(sent.offset, sent.bytes);
            }
        }
        last_lost
    }

    fn reduce(&mut self, last_lost: u64, flight: u64, tcp: &Tcp) {
        if last_lost >= self.recovery {
            self.recovery = self.sent_count;
            self.threshold = (flight / 2).max(2 * MSS_BYTES);
            self.grown_bytes = 0;
            self.window.set(self.threshold, tcp);
        }
    }

    /// Lets go of all segments of which not every byte has been on the wire; appends their tags.
    pub fn close(&mut self, dropped: &mut Vec<u32>) {
        self.is_open = false;
        let kept = self.segments.partition_point(|segment| segment.end <= self.next);
        self.end = kept.checked_sub(1).map_or(self.received, |last| self.segments[last].end);
        dropped.extend(self.segments.drain(kept..).map(|segment| segment.tag));
        self.taken_count = self.segments.len();
        self.taken_end = self.next;
        self.lost.retain(|offset, _| *offset < self.end);
    }

    /// Whether nothing of a closed pipe is under way any more.
    pub fn is_over(&self) -> bool {
        !self.is_open && self.in_flight.is_empty() && self.lost.is_empty()
    }
}
