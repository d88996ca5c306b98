//! What checkers see of a run.

use crate::model::SimEngine;
use crate::network::Nanos;
use crate::scenario::FaultKind;
use swarmdisk_core::ids::SlotId;

/// Something that a checker may want to know.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A guest begins to wait for a chunk.
    Wanted {
        /// Which.
        chunk: u32,
    },
    /// A guest has got a chunk: from the network or from the cache.
    Got {
        /// Which.
        chunk: u32,
        /// Whether its bytes are the image's.
        is_genuine: bool,
    },
    /// A node has kept a piece.
    Kept {
        /// Which.
        piece: u32,
        /// Whether its bytes are the image's.
        is_genuine: bool,
    },
    /// A node has handed bytes over for another.
    Sent {
        /// To whom.
        to: usize,
        /// Head and body.
        bytes: u32,
    },
    /// A body begins to come to a node, which has given it a slot.
    Landing {
        /// Which.
        slot: SlotId,
    },
    /// A slot has come to its end: its body was kept, could not be kept, was abandoned, or its link is gone.
    Released {
        /// Which.
        slot: SlotId,
    },
    /// A fault of the plan happens: to this node, or to all (then the node is the first).
    Fault {
        /// What.
        what: FaultKind,
    },
    /// A node's process has ended: what it had under way is gone.
    Ended,
    /// A node has broken the protocol, as another sees it.
    Accused {
        /// Who.
        whom: usize,
    },
}

/// Sees what happens; changes nothing.
pub trait Watch {
    /// Whether caches can tear and rot, which costs memory.
    const ENABLED: bool = true;

    /// Something has happened at a node.
    fn observe(&mut self, now: Nanos, node: usize, what: Observation);

    /// A node's engine has been polled until it had nothing more to do.
    fn polled(&mut self, now: Nanos, node: usize, engine: &SimEngine<'_>, action_count: u32);
}

/// Sees nothing.
#[derive(Debug, Default, Copy, Clone)]
pub struct Quiet;

impl Watch for Quiet {
    const ENABLED: bool = false;

    fn observe(&mut self, _now: Nanos, _node: usize, _what: Observation) {}

    fn polled(&mut self, _now: Nanos, _node: usize, _engine: &SimEngine<'_>, _action_count: u32) {}
}
