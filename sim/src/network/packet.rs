//! Packets through queues.
//!
//! *Purpose*: the check of the fluid model in swarms of some tens of nodes: what windows, queues, losses and packets' order
//! do, which flows leave out.
//! *How*: a packet is stored and forwarded by each link of its path, then takes the path's latency; its acknowledgement
//! takes the same latency back and no bandwidth (the links' rates leave it room). In the queue of the host's own link each
//! pipe has one packet at most and nothing is dropped there: hosts hold senders back (fair queueing, small queues). Behind
//! it a packet is dropped at random after the first link, or where the buffer is full: one of those that wait there, drawn,
//! as exactly periodic packets would else meet the full buffer always or never (Floyd, Jacobson: "On traffic phase effects
//! in packet-switched gateways", 1992); hosts' jitter, which breaks that, is not modelled.
//! *Invariants*: a pipe's packets never overtake each other; whatever has left the sender arrives once, in order, also after
//! `close`; a closed pipe's number is used again when nothing of it is under way any more.
//! *Units*: nanoseconds, bytes, bytes a second of TCP payload. *Bounds*: a packet costs an event a link and two more.

mod link;
mod pipe;

use self::link::{Link, Parcel};
use self::pipe::Pipe;
use super::tcp::{MSS_BYTES, Tcp};
use super::topology::{LinkIndex, Topology, TopologySpec, Usage};
use super::{HostIndex, NEVER, Nanos, Occurrence, PipeId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use swarmdisk_core::rng::Rng;

/// What every buffer holds: common switches' order of magnitude, and room for some tens of initial windows at once.
const BUFFER_PACKETS_MIN: u64 = 256;
/// Losses are the same in each run.
const DRAWS_SEED: u64 = 0x6C6F_7373;
const MILLION: u32 = 1_000_000;

/// A network of packets.
#[derive(Debug)]
pub struct Packet {
    topology: Topology,
    tcp: Tcp,
    links: Vec<Link>,
    pipes: Vec<Pipe>,
    free_pipes: Vec<u32>,
    queue: BinaryHeap<Reverse<Entry>>,
    entry_count: u64,
    /// What has happened and was not said yet.
    ready: VecDeque<Occurrence>,
    draws: Rng,
}

/// Ordered by time, then by who came first.
#[derive(Debug)]
struct Entry {
    at: Nanos,
    number: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A pipe has something new to send.
    Wake { pipe: u32 },
    /// A link has sent the packet in front.
    Sent { link: LinkIndex, epoch: u32 },
    /// A packet reaches the receiver.
    Receive { parcel: Parcel },
    /// Its acknowledgement reaches the sender.
    Acknowledge { pipe: u32, number: u64 },
    /// Perhaps nothing answers any more.
    Timeout { pipe: u32 },
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl Packet {
    /// A network without pipes.
    pub fn new(topology: Topology, tcp: Tcp) -> Self {
        let spec = topology.spec();
        let link = |rate: &u64| Link::new(*rate, buffer_bytes(*rate, spec));
        let links = topology.rates().iter().map(link).collect();
        Self {
            topology,
            tcp,
            links,
            pipes: Vec::new(),
            free_pipes: Vec::new(),
            queue: BinaryHeap::new(),
            entry_count: 0,
            ready: VecDeque::new(),
            draws: Rng::new(DRAWS_SEED),
        }
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Repetitions count: the link has carried them.
    pub(super) fn carried(&self, link: LinkIndex) -> u64 {
        self.links[link as usize].carried_bytes
    }

    pub(super) fn open(&mut self, from: HostIndex, to: HostIndex) -> PipeId {
        let pipe = Pipe::new(self.topology.path(from, to), &self.tcp);
        match self.free_pipes.pop() {
            Some(index) => {
                self.pipes[index as usize] = pipe;
                PipeId(index)
            }
            None => {
                self.pipes.push(pipe);
                PipeId(self.pipes.len() as u32 - 1)
            }
        }
    }

    pub(super) fn close(&mut self, now: Nanos, pipe: PipeId, dropped: &mut Vec<u32>) {
        if !self.pipes[pipe.0 as usize].is_open {
            return;
        }
        // What was sent at this moment and finds the way free has left.
        self.transmit(now, pipe.0);
        let first = dropped.len();
        self.pipes[pipe.0 as usize].close(dropped);
        let gone = &dropped[first..];
        self.ready.retain(|what| !matches!(what, Occurrence::Taken { tag } if gone.contains(tag)));
        self.free_if_over(pipe.0);
    }

    pub(super) fn send(&mut self, now: Nanos, pipe: PipeId, bytes: u32, tag: u32) -> bool {
        let row = &mut self.pipes[pipe.0 as usize];
        debug_assert!(row.is_open && bytes > 0, "nothing to send, or on a closed pipe");
        let taken = row.append(bytes, tag, &self.tcp);
        // Not at once: what is sent at one moment, a head and its body, shares packets.
        if !std::mem::replace(&mut row.is_woken, true) {
            self.push(now, What::Wake { pipe: pipe.0 });
        }
        taken
    }

    pub(super) fn next(&mut self, now: Nanos) -> Nanos {
        if self.ready.is_empty() { self.queue.peek().map_or(NEVER, |Reverse(entry)| entry.at) } else { now }
    }

    pub(super) fn advance(&mut self, now: Nanos) -> Option<Occurrence> {
        if self.ready.is_empty() && self.queue.peek().is_some_and(|Reverse(entry)| entry.at <= now) {
            let Reverse(entry) = self.queue.pop()?;
            self.handle(now, entry.what);
        }
        self.ready.pop_front()
    }

    pub(super) fn set_host_rates(&mut self, now: Nanos, host: HostIndex, up: u64, down: u64) {
        for (usage, rate) in [(Usage::Up, up), (Usage::Down, down)] {
            let link = self.topology.host_link(host, usage);
            let done = self.links[link as usize].set_rate(now, rate);
            self.expect_sent(link, done);
        }
    }

    fn push(&mut self, at: Nanos, what: What) {
        self.entry_count += 1;
        self.queue.push(Reverse(Entry { at, number: self.entry_count, what }));
    }

    fn handle(&mut self, now: Nanos, what: What) {
        match what {
            What::Wake { pipe } => {
                self.pipes[pipe as usize].is_woken = false;
                self.transmit(now, pipe);
            }
            What::Sent { link, epoch } if self.links[link as usize].epoch == epoch => self.on_sent(now, link),
            What::Sent { .. } => (),
            What::Receive { parcel } => self.on_receive(now, parcel),
            What::Acknowledge { pipe, number } => {
                self.pipes[pipe as usize].acknowledge(number, &self.tcp);
                self.transmit(now, pipe);
                self.watch_for_timeout(now, pipe);
                self.free_if_over(pipe);
            }
            What::Timeout { pipe } => self.on_timeout(now, pipe),
        }
    }

    /// Puts the pipe's next packet into the queue of the host's own link, unless one is there.
    fn transmit(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        if row.is_queued {
            return;
        }
        let Some(parcel) = row.emit(now, pipe, &self.tcp) else { return };
        row.is_queued = true;
        while let Some(tag) = row.take_next(&self.tcp) {
            self.ready.push_back(Occurrence::Taken { tag });
        }
        self.enqueue(now, parcel);
    }

    fn enqueue(&mut self, now: Nanos, parcel: Parcel) {
        let link = self.pipes[parcel.pipe as usize].path.links()[usize::from(parcel.hop)];
        let row = &mut self.links[link as usize];
        if row.put(parcel) {
            let done = row.begin(now);
            self.expect_sent(link, done);
        }
        while parcel.hop > 0 && self.links[link as usize].excess_count() > 0 {
            let row = &mut self.links[link as usize];
            let place = self.draws.below(row.excess_count());
            if let Some(victim) = row.drop_waiting(place) {
                self.lose(now, victim.pipe);
            }
        }
    }

    fn expect_sent(&mut self, link: LinkIndex, done: Option<Nanos>) {
        if let Some(at) = done {
            let epoch = self.links[link as usize].epoch;
            self.push(at, What::Sent { link, epoch });
        }
    }

    fn on_sent(&mut self, now: Nanos, link: LinkIndex) {
        let Some(mut parcel) = self.links[link as usize].take() else { return };
        let done = self.links[link as usize].begin(now);
        self.expect_sent(link, done);
        let is_first = parcel.hop == 0;
        parcel.hop += 1;
        let row = &self.pipes[parcel.pipe as usize];
        let (is_last, latency) = (usize::from(parcel.hop) == row.path.links().len(), row.path.latency);
        if is_first && self.tcp.loss_ppm > 0 && self.draws.below(MILLION) < self.tcp.loss_ppm {
            self.lose(now, parcel.pipe);
        } else if is_last {
            self.push(now + latency, What::Receive { parcel });
        } else {
            self.enqueue(now, parcel);
        }
        if is_first {
            self.pipes[parcel.pipe as usize].is_queued = false;
            self.transmit(now, parcel.pipe);
        }
    }

    fn on_receive(&mut self, now: Nanos, parcel: Parcel) {
        let row = &mut self.pipes[parcel.pipe as usize];
        row.receive(&parcel);
        while let Some(tag) = row.pop_arrived() {
            self.ready.push_back(Occurrence::Arrived { tag });
        }
        let at = now + row.path.latency;
        self.push(at, What::Acknowledge { pipe: parcel.pipe, number: parcel.number });
    }

    fn lose(&mut self, now: Nanos, pipe: u32) {
        self.pipes[pipe as usize].live_count -= 1;
        self.watch_for_timeout(now, pipe);
    }

    fn watch_for_timeout(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        let due = row.timeout_at().filter(|_| !row.is_timed);
        if let Some(at) = due {
            row.is_timed = true;
            self.push(at.max(now), What::Timeout { pipe });
        }
    }

    fn on_timeout(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        row.is_timed = false;
        if row.timeout_at().is_some_and(|at| at <= now) {
            row.time_out(&self.tcp);
            self.transmit(now, pipe);
            self.free_if_over(pipe);
        } else {
            // Something was sent in the meantime.
            self.watch_for_timeout(now, pipe);
        }
    }

    fn free_if_over(&mut self, pipe: u32) {
        if self.pipes[pipe as usize].is_over() {
            self.free_pipes.push(pipe);
        }
    }
}

/// What a link's queue holds: a bandwidth-delay product of the longest round trip that occurs, so that a window that is
/// halved when the buffer has run over still fills the link (Villamizar, Song: "High performance TCP in ANSNET", CCR 1994).
fn buffer_bytes(rate: u64, spec: &TopologySpec) -> u64 {
    let (has_racks, has_zones) =
        (spec.rack_zones.len() > 1, spec.rack_zones.iter().any(|zone| *zone != spec.rack_zones[0]));
    let zone_latency = if has_racks { spec.zone_latency } else { 0 };
    let world_latency = if has_zones { spec.world_latency } else { 0 };
    let latency = spec.rack_latency.max(zone_latency).max(world_latency);
    let product = u128::from(rate) * u128::from(latency) * 2 / 1_000_000_000;
    u64::try_from(product).unwrap_or(u64::MAX).max(BUFFER_PACKETS_MIN * MSS_BYTES)
}

#[cfg(test)]
mod tests;
