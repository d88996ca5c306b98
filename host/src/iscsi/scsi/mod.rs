//! SCSI as a disk speaks it, apart from sockets and from iSCSI: commands parsed, what is answered from what is known.
//!
//! *Source*: SAM-5, SPC-4 and SBC-3 of T10. *Invariants*: nothing here waits or changes the disk; a command that was parsed
//! lies within the disk. *Units*: blocks of 512 bytes.
//!
//! | module | holds |
//! |---|---|
//! | `command` | what a command descriptor block asks for |
//! | `opcodes` | which commands there are, and which bits of them |
//! | `sense` | why a command failed |
//! | `inquiry`, `mode` | what a disk says of itself |
//! | `unmap` | the list that UNMAP brings, and the one that GET LBA STATUS gives |
//! | `reserve` | persistent reservations |

pub(super) mod command;
pub(super) mod inquiry;
pub(super) mod mode;
pub(super) mod opcodes;
pub(super) mod reserve;
pub(super) mod sense;
pub(super) mod unmap;

/// Size of a block as a power of two.
pub(super) const BLOCK_SHIFT: u32 = 9;
/// Size of a block in bytes.
pub(super) const BLOCK_BYTES: u64 = 1 << BLOCK_SHIFT;
/// Blocks in what the disk likes to be written and unmapped at a time (4 KiB).
pub(super) const GRANULE_BLOCKS: u32 = 8;
/// Most blocks that a command reads or writes: 32 MiB.
pub(super) const TRANSFER_BLOCKS_MAX: u32 = 1 << 16;
/// Most blocks of a COMPARE AND WRITE.
pub(super) const COMPARE_BLOCKS_MAX: u8 = 128;
/// Most blocks of a WRITE SAME, or of all ranges of an UNMAP: 512 MiB.
pub(super) const SAME_BLOCKS_MAX: u32 = 1 << 20;
/// Most ranges of an UNMAP.
pub(super) const RANGES_MAX: usize = 256;

/// What a command has to know of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its size.
    pub blocks: u64,
    pub is_writable: bool,
    /// Blocks in what it says is a physical one, as a power of two.
    pub physical_shift: u8,
    /// Blocks of a read that it likes best.
    pub preferred_blocks: u32,
    /// The target's name.
    pub iqn: String,
    /// Its serial number.
    pub serial: String,
    /// An identifier of its own.
    pub id: u64,
}
