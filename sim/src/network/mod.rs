//! What carries bytes between hosts: two models behind one interface.
//!
//! *Purpose*: [`Fluid`] shares links max-min fairly among flows and is fast; [`Packet`] moves every packet through
//! queues, with windows and losses, and is the fluid model's check in small swarms.
//! *Invariants*: a pipe delivers what was sent in order, each segment once; integers only, so every machine computes
//! the same. *Units*: nanoseconds of virtual time, bytes, bytes a second of TCP payload.

mod fluid;
mod packet;
mod tcp;
mod topology;

pub use fluid::Fluid;
pub use packet::Packet;
pub use tcp::Tcp;
pub use topology::{HostSpec, LinkIndex, Path, Topology, TopologySpec, Usage};

/// A moment of virtual time, in nanoseconds since the run began.
pub type Nanos = u64;
/// Later than any moment that occurs.
pub const NEVER: Nanos = u64::MAX;

/// A host's number in the topology.
pub type HostIndex = u32;

/// One direction of a connection. Numbers of closed pipes are used again.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeId(pub u32);

/// What happens in a network.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Occurrence {
    /// The segment's last byte has reached the other end.
    Arrived {
        /// What was given to `send`.
        tag: u32,
    },
    /// The sender's socket has taken the segment: there is room for more.
    Taken {
        /// What was given to `send`.
        tag: u32,
    },
}

/// A network; one owner calls it, with times that never go back.
#[derive(Debug)]
pub enum Network {
    /// Flows.
    Fluid(Box<Fluid>),
    /// Packets.
    Packet(Box<Packet>),
}

macro_rules! each {
    ($self:ident, $network:ident => $call:expr) => {
        match $self {
            Network::Fluid($network) => $call,
            Network::Packet($network) => $call,
        }
    };
}

impl Network {
    /// Opens a pipe between two hosts.
    pub fn open(&mut self, from: HostIndex, to: HostIndex) -> PipeId {
        each!(self, network => network.open(from, to))
    }

    /// Closes a pipe; what has not left the sender is dropped, and its tags are appended to `dropped`. What is on its way
    /// still arrives.
    pub fn close(&mut self, now: Nanos, pipe: PipeId, dropped: &mut Vec<u32>) {
        each!(self, network => network.close(now, pipe, dropped))
    }

    /// Sends `bytes` (at least 1) behind what is in the pipe already; true if the socket has taken them at once, else
    /// `Taken` follows. `tag` comes back with `Arrived`.
    pub fn send(&mut self, now: Nanos, pipe: PipeId, bytes: u32, tag: u32) -> bool {
        each!(self, network => network.send(now, pipe, bytes, tag))
    }

    /// When something happens next.
    pub fn next(&mut self, now: Nanos) -> Nanos {
        each!(self, network => network.next(now))
    }

    /// What happens at `now`, which is what `next` said; none if it was an affair of the network's own.
    pub fn advance(&mut self, now: Nanos) -> Option<Occurrence> {
        each!(self, network => network.advance(now))
    }

    /// Changes the rates of a host's own links, in bytes a second.
    pub fn set_host_rates(&mut self, now: Nanos, host: HostIndex, up: u64, down: u64) {
        each!(self, network => network.set_host_rates(now, host, up, down))
    }

    /// The hosts and links.
    pub fn topology(&self) -> &Topology {
        each!(self, network => network.topology())
    }

    /// Bytes that a link has carried so far.
    pub fn carried(&self, link: LinkIndex) -> u64 {
        each!(self, network => network.carried(link))
    }
}
