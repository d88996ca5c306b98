//! What is to happen, in order of time; what happens at one time happens in the order in which it was planned.

use crate::network::{NEVER, Nanos, PipeId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use swarmdisk_core::ids::{PeerId, SlotId, UploadId};

/// Something that is to happen. `life` tells a node's present process from earlier ones.
#[derive(Debug, Copy, Clone)]
pub(super) enum What {
    /// A node's process starts for the first time.
    Start { node: u32 },
    /// It asks a seed for manifest and profile.
    Bootstrap { node: u32, life: u32 },
    /// The seed sends them.
    Send { pipe: PipeId, bytes: u32, tag: u32 },
    /// Its engine's deadline.
    Wake { node: u32, life: u32 },
    /// A connection that it makes has reached the other host.
    Dialled { node: u32, life: u32, peer: PeerId, to: u32 },
    /// The connection is up.
    Opened { node: u32, life: u32, peer: PeerId, connection: u32, generation: u32 },
    /// It could not be made.
    NotOpened { node: u32, life: u32, peer: PeerId },
    /// A side of a connection learns that the other is gone.
    Reset { connection: u32, generation: u32, side: u8 },
    /// What a side has sent is no longer held up.
    Release { connection: u32, generation: u32, side: u8 },
    /// A payload has been read.
    Loaded { node: u32, life: u32, upload: UploadId, piece: u32 },
    /// A payload has been hashed.
    Verified { node: u32, life: u32, slot: SlotId },
    /// A payload has been written.
    Stored { node: u32, life: u32, slot: SlotId, piece: u32 },
    /// The engine is told what sockets have taken.
    Taken { node: u32, life: u32 },
    /// The guest reads.
    Read { node: u32, life: u32 },
    /// The engine is told what was read of what was held.
    Touches { node: u32, life: u32 },
    /// A fault of the plan.
    Fault { number: u32 },
    /// Its end.
    Heal { number: u32 },
    /// A node leaves, drawn at random.
    Churn,
    /// A node's process starts again.
    Return { node: u32 },
}

impl What {
    /// The process to which it happens.
    pub fn target(&self) -> Option<(usize, u32)> {
        match *self {
            Self::Bootstrap { node, life }
            | Self::Wake { node, life }
            | Self::Dialled { node, life, .. }
            | Self::Opened { node, life, .. }
            | Self::NotOpened { node, life, .. }
            | Self::Loaded { node, life, .. }
            | Self::Verified { node, life, .. }
            | Self::Stored { node, life, .. }
            | Self::Taken { node, life }
            | Self::Read { node, life }
            | Self::Touches { node, life } => Some((node as usize, life)),
            _ => None,
        }
    }
}

/// The plan.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(Nanos, u64, u32)>>,
    rows: Vec<What>,
    free: Vec<u32>,
    count: u64,
}

impl Queue {
    /// Plans something.
    pub fn push(&mut self, at: Nanos, what: What) {
        let row = match self.free.pop() {
            Some(row) => {
                self.rows[row as usize] = what;
                row
            }
            None => {
                self.rows.push(what);
                self.rows.len() as u32 - 1
            }
        };
        self.count += 1;
        self.heap.push(Reverse((at, self.count, row)));
    }

    /// When the next thing is to happen.
    pub fn next(&self) -> Nanos {
        self.heap.peek().map_or(NEVER, |Reverse((at, ..))| *at)
    }

    /// The next thing.
    pub fn pop(&mut self) -> Option<What> {
        let Reverse((_, _, row)) = self.heap.pop()?;
        self.free.push(row);
        Some(self.rows[row as usize])
    }
}
