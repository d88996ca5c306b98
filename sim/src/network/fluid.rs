//! Flows that share links max-min fairly.
//!
//! *Purpose*: the network of thousands of nodes. A pipe that has something to send is a flow; each link's rate is shared so
//! that no flow can have more without another that has less getting less still (Bertsekas, Gallager: "Data Networks", 6.5).
//! *How*: each link keeps its fair share; when a flow comes or goes, the shares of its links are computed again, then those
//! of the links that its neighbours use, and so on as far as rates change (relaxation as in Charny, Clark, Jain: "Congestion
//! control with explicit rate indication", ICC 1995), never from scratch. A rate that could grow by less than one part
//! in [`Fluid::SLACK`] stays, so that a change dies out nearby; a rate that must shrink does, so no link is ever overdrawn.
//! *Invariants*: the rates on a link add up to at most its own; a pipe's bytes arrive in order.
//! *Units*: nanoseconds, bytes a second; progress in billionths of a byte, so that it is exact.
//! *Bounds*: a change costs O(flows of the links that it reaches).

use super::tcp::{HEADER_BYTES, MSS_BYTES, Tcp, Window};
use super::topology::{LinkIndex, Path, Topology, Usage};
use super::{HostIndex, NEVER, Nanos, Occurrence, PipeId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Far more than it takes.
const RELAX_STEPS_A_LINK: usize = 1024;
const NANO: u64 = 1_000_000_000;
/// The share that a link which is not full offers.
const UNLIMITED: u64 = u64::MAX;

/// A network of flows.
#[derive(Debug)]
pub struct Fluid {
    topology: Topology,
    tcp: Tcp,
    slack: u64,
    links: Vec<Link>,
    pipes: Vec<Pipe>,
    free_pipes: Vec<u32>,
    queue: BinaryHeap<Reverse<Entry>>,
    entry_count: u64,
    /// Links whose share is to be computed again.
    dirty: VecDeque<LinkIndex>,
    scratch: Vec<u64>,
}

#[derive(Debug)]
struct Link {
    rate: u64,
    /// What a flow that is held back here gets; `UNLIMITED` if none is.
    share: u64,
    /// Active pipes; each knows its place here.
    flows: Vec<u32>,
    is_dirty: bool,
    /// Small frames that passed without being a flow: the next flow waits for them.
    debt_bytes: u64,
    /// When the last of these has passed: they queue behind each other.
    small_until: Nanos,
    carried_bytes: u64,
}

#[derive(Debug)]
struct Pipe {
    path: Path,
    rtt: Nanos,
    /// Where this pipe stands in `Link::flows`, for each link of the path.
    places: [u32; super::topology::PATH_LINKS_MAX],
    segments: VecDeque<Segment>,
    /// Of `segments`, how many the socket has taken, and how many of their bytes have not left.
    taken_count: usize,
    taken_bytes: u64,
    /// What the window and losses let through.
    cap: u64,
    window: Window,
    rate: u64,
    /// Until then progress is accounted for.
    updated: Nanos,
    /// When the queue will look at this pipe; `NEVER` if it will not.
    due: Nanos,
    /// Tells the latest entry in the queue from stale ones.
    epoch: u32,
    /// When the window grows; `NEVER` if it need not.
    grows: Nanos,
    arrival_floor: Nanos,
    is_open: bool,
    is_active: bool,
}

#[derive(Debug, Copy, Clone)]
struct Segment {
    tag: u32,
    bytes: u32,
    /// Billionths of a byte that have not left.
    left: u64,
}

#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Nanos,
    number: u64,
    what: What,
}

#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A segment has left, or a window grows.
    Due {
        pipe: u32,
        epoch: u32,
    },
    Arrive {
        tag: u32,
    },
    Take {
        tag: u32,
    },
}

impl Fluid {
    /// Rates that could grow by less than one part in so many stay as they are.
    pub const SLACK: u64 = 64;

    /// A network without pipes.
    pub fn new(topology: Topology, tcp: Tcp) -> Self {
        Self::with_slack(topology, tcp, Self::SLACK)
    }

    /// The same with another [`SLACK`](Self::SLACK); `u64::MAX`: exact.
    pub fn with_slack(topology: Topology, tcp: Tcp, slack: u64) -> Self {
        let link = |rate: &u64| Link {
            rate: *rate,
            share: UNLIMITED,
            flows: Vec::new(),
            is_dirty: false,
            debt_bytes: 0,
            small_until: 0,
            carried_bytes: 0,
        };
        let links = topology.rates().iter().map(link).collect();
        Self {
            topology,
            tcp,
            slack,
            links,
            pipes: Vec::new(),
            free_pipes: Vec::new(),
            queue: BinaryHeap::new(),
            entry_count: 0,
            dirty: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(super) fn carried(&self, link: LinkIndex) -> u64 {
        self.links[link as usize].carried_bytes
    }

    pub(super) fn open(&mut self, from: HostIndex, to: HostIndex) -> PipeId {
        let path = self.topology.path(from, to);
        let rtt = path.latency * 2;
        let epoch = self.free_pipes.last().map_or(0, |pipe| self.pipes[*pipe as usize].epoch.wrapping_add(1));
        let pipe = Pipe {
            path,
            rtt,
            places: [0; super::topology::PATH_LINKS_MAX],
            segments: VecDeque::new(),
            taken_count: 0,
            taken_bytes: 0,
            cap: UNLIMITED,
            window: Window::new(&self.tcp),
            rate: 0,
            updated: 0,
            due: NEVER,
            epoch,
            grows: NEVER,
            arrival_floor: 0,
            is_open: true,
            is_active: false,
        };
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
        let index = pipe.0 as usize;
        if !self.pipes[index].is_open {
            return;
        }
        self.settle(now, pipe.0);
        if self.pipes[index].is_active {
            self.deactivate(now, pipe.0);
        }
        let pipe_row = &mut self.pipes[index];
        pipe_row.is_open = false;
        pipe_row.epoch = pipe_row.epoch.wrapping_add(1);
        pipe_row.due = NEVER;
        dropped.extend(pipe_row.segments.drain(..).map(|segment| segment.tag));
        self.free_pipes.push(pipe.0);
    }

    pub(super) fn send(&mut self, now: Nanos, pipe: PipeId, bytes: u32, tag: u32) -> bool {
        let row = &mut self.pipes[pipe.0 as usize];
        if !row.is_active && u64::from(bytes) <= MSS_BYTES {
            self.pass_small(now, pipe.0, bytes, tag);
            return true;
        }
        row.segments.push_back(Segment { tag, bytes, left: u64::from(bytes) * NANO });
        let taken = row.taken_count + 1 == row.segments.len() && row.taken_bytes <= self.tcp.socket_bytes.into();
        if taken {
            row.taken_count += 1;
            row.taken_bytes += u64::from(bytes);
        }
        if !row.is_active {
            self.activate(now, pipe.0);
        }
        taken
    }

    pub(super) fn next(&mut self, now: Nanos) -> Nanos {
        self.relax(now);
        loop {
            let Some(Reverse(entry)) = self.queue.peek() else { return NEVER };
            match entry.what {
                What::Due { pipe, epoch } if self.pipes[pipe as usize].epoch != epoch => {
                    self.queue.pop();
                }
                _ => return entry.at,
            }
        }
    }

    pub(super) fn advance(&mut self, now: Nanos) -> Option<Occurrence> {
        let due = self.queue.peek().is_some_and(|Reverse(entry)| entry.at <= now);
        if !due {
            return None;
        }
        let Reverse(entry) = self.queue.pop()?;
        match entry.what {
            What::Arrive { tag } => Some(Occurrence::Arrived { tag }),
            What::Take { tag } => Some(Occurrence::Taken { tag }),
            What::Due { pipe, epoch } => {
                if self.pipes[pipe as usize].epoch == epoch {
                    self.on_due(now, pipe);
                }
                None
            }
        }
    }

    pub(super) fn set_host_rates(&mut self, now: Nanos, host: HostIndex, up: u64, down: u64) {
        for (usage, rate) in [(Usage::Up, up), (Usage::Down, down)] {
            let link = self.topology.host_link(host, usage);
            self.links[link as usize].rate = rate.max(1);
            self.mark(link);
            for at in 0..self.links[link as usize].flows.len() {
                let pipe = self.links[link as usize].flows[at];
                // A window that did not bind may do so now, and then grows.
                if self.pipes[pipe as usize].grows == NEVER {
                    self.set_cap(now, pipe);
                    self.schedule(now, pipe);
                }
            }
        }
        self.relax(now);
    }

    fn push(&mut self, at: Nanos, what: What) {
        self.entry_count += 1;
        self.queue.push(Reverse(Entry { at, number: self.entry_count, what }));
    }

    /// A frame that fits a packet, on a pipe with nothing before it: it slips in between the flows' packets. Its bytes are
    /// owed by the next flow of each link.
    fn pass_small(&mut self, now: Nanos, pipe: u32, bytes: u32, tag: u32) {
        let row = &mut self.pipes[pipe as usize];
        let on_wire = u64::from(bytes) + HEADER_BYTES;
        let mut at = now;
        for link in row.path.links() {
            let link = &mut self.links[*link as usize];
            link.debt_bytes += on_wire;
            link.carried_bytes += u64::from(bytes);
            at = at.max(link.small_until) + on_wire * NANO / link.rate;
            link.small_until = at;
        }
        at = (at + row.path.latency).max(row.arrival_floor);
        row.arrival_floor = at;
        self.push(at, What::Arrive { tag });
    }

    fn activate(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        row.is_active = true;
        row.rate = 0;
        row.updated = now;
        row.window.resume(now, &self.tcp);
        let mut debt = 0;
        for (place, link) in row.path.links().iter().enumerate() {
            let link = &mut self.links[*link as usize];
            row.places[place] = link.flows.len() as u32;
            link.flows.push(pipe);
            // Each link's own, but they overlap in time: the longest counts.
            debt = debt.max(std::mem::take(&mut link.debt_bytes));
        }
        if let Some(first) = row.segments.front_mut() {
            first.left += debt * NANO;
        }
        self.set_cap(now, pipe);
        let path = self.pipes[pipe as usize].path;
        path.links().iter().for_each(|link| self.mark(*link));
    }

    fn deactivate(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        row.is_active = false;
        row.rate = 0;
        row.grows = NEVER;
        row.window.pause(now);
        let (path, places) = (row.path, row.places);
        for (place, link) in path.links().iter().enumerate() {
            let flows = &mut self.links[*link as usize].flows;
            let at = places[place] as usize;
            flows.swap_remove(at);
            if let Some(moved) = flows.get(at).copied() {
                let moved = &mut self.pipes[moved as usize];
                let nth = moved.path.links().iter().position(|other| other == link);
                if let Some(nth) = nth {
                    moved.places[nth] = at as u32;
                }
            }
            self.mark(*link);
        }
    }

    /// What the window lets through now, and when it grows.
    fn set_cap(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        let widest = row.path.links().iter().map(|link| self.links[*link as usize].rate).min().unwrap_or(UNLIMITED);
        let by_window = Tcp::window_rate(row.window.bytes(), row.rtt);
        row.cap = by_window.min(self.tcp.loss_rate(row.rtt));
        let may_grow = row.window.bytes() < self.tcp.window_bytes_max && by_window < widest;
        row.grows = if may_grow { now + row.rtt.max(1) } else { NEVER };
    }

    fn mark(&mut self, link: LinkIndex) {
        let row = &mut self.links[link as usize];
        if !row.is_dirty {
            row.is_dirty = true;
            self.dirty.push_back(link);
        }
    }

    /// Computes shares again until nothing changes any more; rounding must not keep it going for ever.
    fn relax(&mut self, now: Nanos) {
        let mut steps = RELAX_STEPS_A_LINK * self.links.len();
        while let Some(link) = self.dirty.pop_front() {
            debug_assert!(steps > 0, "shares do not settle");
            steps = steps.saturating_sub(1);
            if steps == 0 {
                self.links[link as usize].is_dirty = false;
                continue;
            }
            self.links[link as usize].is_dirty = false;
            let share = self.share_of(link);
            self.links[link as usize].share = share;
            for at in 0..self.links[link as usize].flows.len() {
                let pipe = self.links[link as usize].flows[at];
                self.update_rate(now, pipe, link);
            }
        }
    }

    /// The share of a link: what those get that nothing else holds back further.
    fn share_of(&mut self, link: LinkIndex) -> u64 {
        let mut demands = std::mem::take(&mut self.scratch);
        demands.clear();
        let row = &self.links[link as usize];
        demands.extend(row.flows.iter().map(|pipe| self.demand_elsewhere(*pipe, link)));
        let share = fair_share(row.rate, &mut demands);
        self.scratch = demands;
        share
    }

    /// What a flow could have if this link were not.
    fn demand_elsewhere(&self, pipe: u32, but: LinkIndex) -> u64 {
        let row = &self.pipes[pipe as usize];
        let others = row.path.links().iter().filter(|link| **link != but);
        others.map(|link| self.links[*link as usize].share).min().unwrap_or(UNLIMITED).min(row.cap)
    }

    fn update_rate(&mut self, now: Nanos, pipe: u32, changed: LinkIndex) {
        let row = &self.pipes[pipe as usize];
        let shares = row.path.links().iter().map(|link| self.links[*link as usize].share);
        let rate = shares.min().unwrap_or(UNLIMITED).min(row.cap).max(1);
        let old = row.rate;
        if rate == old || (rate > old && rate - old < old / self.slack) {
            return;
        }
        let path = row.path;
        self.settle(now, pipe);
        self.pipes[pipe as usize].rate = rate;
        self.schedule(now, pipe);
        for link in path.links().iter().filter(|link| **link != changed) {
            self.mark(*link);
        }
    }

    /// Accounts for what has left since the last time.
    fn settle(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        let span = now - row.updated;
        row.updated = now;
        if span == 0 || row.rate == 0 {
            return;
        }
        let mut sent = u64::try_from(u128::from(row.rate) * u128::from(span)).unwrap_or(u64::MAX);
        for segment in &mut row.segments {
            let part = segment.left.min(sent);
            segment.left -= part;
            sent -= part;
            if sent == 0 {
                break;
            }
        }
    }

    /// Has the queue look at the pipe when its first segment has left or its window grows.
    fn schedule(&mut self, now: Nanos, pipe: u32) {
        let row = &mut self.pipes[pipe as usize];
        let Some(first) = row.segments.front() else { return };
        if row.rate == 0 {
            return;
        }
        let due = (now + first.left.div_ceil(row.rate)).min(row.grows);
        // An entry that comes too early is put off when it comes.
        if due < row.due {
            row.due = due;
            row.epoch = row.epoch.wrapping_add(1);
            let what = What::Due { pipe, epoch: row.epoch };
            self.push(due, what);
        }
    }

    fn on_due(&mut self, now: Nanos, pipe: u32) {
        self.pipes[pipe as usize].due = NEVER;
        self.settle(now, pipe);
        while let Some(segment) = self.pipes[pipe as usize].segments.front().copied().filter(|first| first.left == 0) {
            self.leave(now, pipe, segment);
        }
        self.take_more(now, pipe);
        let row = &mut self.pipes[pipe as usize];
        if row.segments.is_empty() {
            return self.deactivate(now, pipe);
        }
        if now >= row.grows {
            row.window.double(&self.tcp);
            self.set_cap(now, pipe);
            let path = self.pipes[pipe as usize].path;
            path.links().iter().for_each(|link| self.mark(*link));
        }
        self.schedule(now, pipe);
    }

    fn leave(&mut self, now: Nanos, pipe: u32, segment: Segment) {
        let row = &mut self.pipes[pipe as usize];
        row.segments.pop_front();
        if row.taken_count > 0 {
            row.taken_count -= 1;
            row.taken_bytes -= u64::from(segment.bytes);
        } else {
            // It left before the socket was asked to take it: said late rather than never.
            self.push(now, What::Take { tag: segment.tag });
        }
        let row = &mut self.pipes[pipe as usize];
        let at = (now + row.path.latency).max(row.arrival_floor);
        row.arrival_floor = at;
        for link in row.path.links() {
            self.links[*link as usize].carried_bytes += u64::from(segment.bytes);
        }
        self.push(at, What::Arrive { tag: segment.tag });
    }

    fn take_more(&mut self, now: Nanos, pipe: u32) {
        loop {
            let row = &mut self.pipes[pipe as usize];
            if row.taken_bytes > self.tcp.socket_bytes.into() {
                return;
            }
            let Some(next) = row.segments.get(row.taken_count).copied() else { return };
            row.taken_count += 1;
            row.taken_bytes += u64::from(next.bytes);
            self.push(now, What::Take { tag: next.tag });
        }
    }
}

/// The level up to which `rate` fills flows that could use `demands`; unlimited if it serves all of them.
fn fair_share(rate: u64, demands: &mut Vec<u64>) -> u64 {
    let mut left = rate;
    loop {
        let Some(level) = left.checked_div(demands.len() as u64) else { return UNLIMITED };
        let level = level.max(1);
        let before = demands.len();
        demands.retain(|demand| {
            let modest = *demand <= level;
            left = left.saturating_sub(if modest { *demand } else { 0 });
            !modest
        });
        if demands.len() == before {
            return level;
        }
    }
}

#[cfg(test)]
mod tests;
