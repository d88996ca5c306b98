//! Packets through queues.

use super::tcp::Tcp;
use super::topology::{LinkIndex, Topology};
use super::{HostIndex, NEVER, Nanos, Occurrence, PipeId};

/// A network of packets.
#[derive(Debug)]
pub struct Packet {
    topology: Topology,
}

impl Packet {
    /// A network without pipes.
    pub fn new(topology: Topology, _tcp: Tcp) -> Self {
        Self { topology }
    }
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }
    pub(super) fn carried(&self, _link: LinkIndex) -> u64 {
        0
    }
    pub(super) fn open(&mut self, _from: HostIndex, _to: HostIndex) -> PipeId {
        PipeId(0)
    }
    pub(super) fn close(&mut self, _now: Nanos, _pipe: PipeId, _dropped: &mut Vec<u32>) {}
    pub(super) fn send(&mut self, _now: Nanos, _pipe: PipeId, _bytes: u32, _tag: u32) -> bool {
        true
    }
    pub(super) fn next(&mut self, _now: Nanos) -> Nanos {
        NEVER
    }
    pub(super) fn advance(&mut self, _now: Nanos) -> Option<Occurrence> {
        None
    }
    pub(super) fn set_host_rates(&mut self, _now: Nanos, _host: HostIndex, _up: u64, _down: u64) {}
}
