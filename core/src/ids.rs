//! Names for what the engine keeps in tables.
//!
//! *Purpose*: events and actions refer to table rows by small ids that can be compared and copied.
//! *Invariants*: an id of a row that is used again carries a new generation, so a late event cannot hit the wrong row.
//! *Bounds*: 16 bits of index, 16 of generation.

use serde::{Deserialize, Serialize};

/// A link to another node.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId {
    index: u16,
    generation: u16,
}

/// A fetch in flight, and the host's buffer for its body.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId {
    index: u16,
    generation: u16,
}

/// A piece on its way out to another node.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadId {
    index: u16,
    generation: u16,
}

macro_rules! table_row {
    ($id:ident) => {
        impl $id {
            pub(crate) const fn new(index: u16, generation: u16) -> Self {
                Self { index, generation }
            }

            /// Row in the table; below the table's length.
            pub const fn index(self) -> usize {
                self.index as usize
            }

            /// How often the row had been used before.
            pub const fn generation(self) -> u16 {
                self.generation
            }
        }
    };
}
table_row!(PeerId);
table_row!(SlotId);
table_row!(UploadId);

/// A guest: one virtual machine (or one export) that reads from this node. Chosen by the host.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GuestId(pub u16);

/// A node's name, drawn at random when it starts; unique in the swarm but for a negligible chance.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 16]);

/// A BLAKE3 hash of a manifest, a profile, a leaf page or a payload.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// Where a node listens: an IPv6 address (IPv4 as `::ffff:a.b.c.d`, RFC 4291 2.5.5.2) and a TCP port.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The address, in network order.
    pub ip: [u8; 16],
    /// The port; 0 means that the node cannot be dialled.
    pub port: u16,
}

impl Address {
    /// Nowhere: the node cannot be dialled.
    pub const NONE: Self = Self { ip: [0; 16], port: 0 };

    /// Whether somebody could be listening there.
    pub const fn is_dialable(&self) -> bool {
        self.port != 0
    }
}
