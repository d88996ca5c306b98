//! What a command descriptor block asks for.
//!
//! *Invariants*: whatever bytes come, the answer is a command or the sense of a refusal; ranges lie within the disk and
//! within [`TRANSFER_BLOCKS_MAX`]. *Units*: blocks; allocation lengths in bytes.

use super::mode::Asked;
use super::opcodes::{CDB_BYTES, Opcode, Wish, action, code};
use super::reserve::PARAMETER_BYTES;
use super::sense::Sense;
use super::{BLOCK_SHIFT, COMPARE_BLOCKS_MAX, Facts, SAME_BLOCKS_MAX, TRANSFER_BLOCKS_MAX};

/// Consecutive blocks.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) struct Extent {
    pub lba: u64,
    pub blocks: u32,
}

impl Extent {
    pub(in crate::iscsi) fn offset(self) -> u64 {
        self.lba << BLOCK_SHIFT
    }

    pub(in crate::iscsi) fn bytes(self) -> u64 {
        u64::from(self.blocks) << BLOCK_SHIFT
    }
}

/// What a VERIFY compares.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) enum Compare {
    /// Nothing: that it can be read is enough.
    Nothing,
    /// Each block with its own data.
    All,
    /// Each block with the same block of data.
    One,
}

/// What is asked for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) enum Command {
    TestUnitReady,
    RequestSense {
        in_descriptors: bool,
        allocated: u32,
    },
    Inquiry {
        page: Option<u8>,
        allocated: u32,
    },
    ModeSense {
        asked: Asked,
        allocated: u32,
    },
    ModeSelect {
        is_long: bool,
        bytes: u32,
    },
    StartStop,
    PreventAllow,
    ReadCapacity10,
    ReadCapacity16 {
        allocated: u32,
    },
    LbaStatus {
        lba: u64,
        allocated: u32,
    },
    ReportLuns {
        select: u8,
        allocated: u32,
    },
    ReportOpcodes {
        wish: Wish,
        with_timeouts: bool,
        allocated: u32,
    },
    PersistentIn {
        action: u8,
        allocated: u32,
    },
    PersistentOut {
        action: u8,
        scope: u8,
        kind: u8,
    },
    Read {
        extent: Extent,
    },
    Write {
        extent: Extent,
        is_durable: bool,
        compare: bool,
    },
    Verify {
        extent: Extent,
        compare: Compare,
    },
    /// What is to be there, then what is to take its place.
    CompareAndWrite {
        extent: Extent,
        is_durable: bool,
    },
    OrWrite {
        extent: Extent,
        is_durable: bool,
    },
    Prefetch {
        extent: Extent,
    },
    SynchronizeCache,
    WriteSame {
        extent: Extent,
        unmap: bool,
        has_data: bool,
    },
    Unmap {
        bytes: u32,
    },
}

impl Command {
    /// # Errors
    /// The sense by which the command is refused.
    pub(in crate::iscsi) fn parse(cdb: &[u8; CDB_BYTES], facts: &Facts) -> Result<Self, Sense> {
        let opcode = Opcode::of(cdb)?;
        let fields = Fields { cdb, bytes: opcode.bytes() };
        let command = match cdb[0] {
            code::READ_6 | code::READ_10 | code::READ_12 | code::READ_16 => {
                Self::Read { extent: fields.extent(facts, TRANSFER_BLOCKS_MAX)? }
            }
            code::WRITE_6 | code::WRITE_10 | code::WRITE_12 | code::WRITE_16 => {
                let is_durable = cdb[0] != code::WRITE_6 && cdb[1] & 0x08 != 0;
                Self::Write { extent: fields.changed(facts, TRANSFER_BLOCKS_MAX)?, is_durable, compare: false }
            }
            code::COMPARE_AND_WRITE => {
                let extent = fields.changed(facts, COMPARE_BLOCKS_MAX.into())?;
                Self::CompareAndWrite { extent, is_durable: cdb[1] & 0x08 != 0 }
            }
            code::OR_WRITE_16 => {
                let extent = fields.changed(facts, TRANSFER_BLOCKS_MAX)?;
                Self::OrWrite { extent, is_durable: cdb[1] & 0x08 != 0 }
            }
            code::PREFETCH_10 | code::PREFETCH_16 => {
                let Extent { lba, blocks } = fields.extent(facts, u32::MAX)?;
                // None means all to the end; what exceeds a transfer is not worth the wait, which is allowed.
                let rest = (facts.blocks - lba).min(TRANSFER_BLOCKS_MAX.into()) as u32;
                Self::Prefetch { extent: Extent { lba, blocks: if blocks == 0 { rest } else { blocks.min(rest) } } }
            }
            code::WRITE_VERIFY_10 | code::WRITE_VERIFY_12 | code::WRITE_VERIFY_16 => {
                let compare = fields.compare()? != Compare::Nothing;
                Self::Write { extent: fields.changed(facts, TRANSFER_BLOCKS_MAX)?, is_durable: true, compare }
            }
            code::VERIFY_10 | code::VERIFY_12 | code::VERIFY_16 => {
                let compare = match cdb[1] >> 1 & 3 {
                    0 => Compare::Nothing,
                    1 => Compare::All,
                    3 => Compare::One,
                    _ => return Err(Sense::INVALID_FIELD),
                };
                Self::Verify { extent: fields.extent(facts, TRANSFER_BLOCKS_MAX)?, compare }
            }
            code::SYNCHRONIZE_CACHE_10 | code::SYNCHRONIZE_CACHE_16 => {
                fields.extent(facts, u32::MAX)?;
                Self::SynchronizeCache
            }
            code::WRITE_SAME_10 | code::WRITE_SAME_16 => fields.write_same(facts)?,
            code::UNMAP if cdb[1] & 1 != 0 => return Err(Sense::INVALID_FIELD),
            code::UNMAP if !facts.is_writable => return Err(Sense::WRITE_PROTECTED),
            code::UNMAP => Self::Unmap { bytes: fields.u16(7).into() },
            code::SERVICE_ACTION_IN_16 if cdb[1] & 0x1f == action::LBA_STATUS => {
                let lba = fields.u64(2);
                if lba >= facts.blocks {
                    return Err(Sense::OUT_OF_RANGE);
                }
                Self::LbaStatus { lba, allocated: fields.u32(10) }
            }
            _ => fields.other()?,
        };
        Ok(command)
    }

    /// How many bytes the command reads from the initiator.
    pub(in crate::iscsi) fn bytes_out(&self) -> u64 {
        match *self {
            Self::Write { extent, .. }
            | Self::OrWrite { extent, .. }
            | Self::Verify { extent, compare: Compare::All } => extent.bytes(),
            Self::CompareAndWrite { extent, .. } => 2 * extent.bytes(),
            Self::Verify { extent, compare: Compare::One } | Self::WriteSame { extent, has_data: true, .. }
                if extent.blocks > 0 =>
            {
                1 << BLOCK_SHIFT
            }
            Self::ModeSelect { bytes, .. } | Self::Unmap { bytes } => bytes.into(),
            Self::PersistentOut { .. } => PARAMETER_BYTES as u64,
            _ => 0,
        }
    }

    /// Whether it changes what blocks hold.
    pub(in crate::iscsi) fn writes(&self) -> bool {
        matches!(
            self,
            Self::Write { .. }
                | Self::CompareAndWrite { .. }
                | Self::OrWrite { .. }
                | Self::WriteSame { .. }
                | Self::Unmap { .. }
        )
    }
}

/// A command's fields by its length.
struct Fields<'a> {
    cdb: &'a [u8; CDB_BYTES],
    bytes: usize,
}

impl Fields<'_> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.cdb[at], self.cdb[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(std::array::from_fn(|index| self.cdb[at + index]))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|index| self.cdb[at + index]))
    }

    /// The blocks that it is about.
    fn extent(&self, facts: &Facts, blocks_max: u32) -> Result<Extent, Sense> {
        let (lba, blocks) = match self.bytes {
            6 => {
                let lba = self.u32(0) & 0x1f_ffff;
                // None means all that the byte can say, and one more.
                (lba.into(), if self.cdb[4] == 0 { 256 } else { self.cdb[4].into() })
            }
            10 => (self.u32(2).into(), self.u16(7).into()),
            12 => (self.u32(2).into(), self.u32(6)),
            _ => (self.u64(2), self.u32(10)),
        };
        match lba.checked_add(blocks.into()) {
            Some(end) if end <= facts.blocks => {}
            _ => return Err(Sense::OUT_OF_RANGE),
        }
        if blocks > blocks_max { Err(Sense::INVALID_FIELD) } else { Ok(Extent { lba, blocks }) }
    }

    /// The same of a command that changes them.
    fn changed(&self, facts: &Facts, blocks_max: u32) -> Result<Extent, Sense> {
        if !facts.is_writable {
            return Err(Sense::WRITE_PROTECTED);
        }
        self.extent(facts, blocks_max)
    }

    /// WRITE AND VERIFY knows no comparison with one block.
    fn compare(&self) -> Result<Compare, Sense> {
        match self.cdb[1] >> 1 & 3 {
            0 => Ok(Compare::Nothing),
            1 => Ok(Compare::All),
            _ => Err(Sense::INVALID_FIELD),
        }
    }

    fn write_same(&self, facts: &Facts) -> Result<Command, Sense> {
        let flags = self.cdb[1];
        let (anchor, unmap, has_data) = (flags & 0x10 != 0, flags & 0x08 != 0, flags & 0x01 == 0);
        let mut extent = self.changed(facts, SAME_BLOCKS_MAX)?;
        if extent.blocks == 0 {
            // None means all to the end.
            let rest = u32::try_from(facts.blocks - extent.lba).unwrap_or(u32::MAX);
            extent.blocks = rest;
        }
        if anchor || extent.blocks > SAME_BLOCKS_MAX {
            return Err(Sense::INVALID_FIELD);
        }
        Ok(Command::WriteSame { extent, unmap, has_data })
    }

    /// All that is not about blocks.
    fn other(&self) -> Result<Command, Sense> {
        let cdb = self.cdb;
        Ok(match cdb[0] {
            code::TEST_UNIT_READY => Command::TestUnitReady,
            code::REQUEST_SENSE => Command::RequestSense { in_descriptors: cdb[1] & 1 != 0, allocated: cdb[4].into() },
            code::INQUIRY => {
                let is_page = cdb[1] & 1 != 0;
                if !is_page && cdb[2] != 0 {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::Inquiry { page: is_page.then_some(cdb[2]), allocated: self.u16(3).into() }
            }
            code::MODE_SENSE_6 | code::MODE_SENSE_10 => {
                let is_long = cdb[0] == code::MODE_SENSE_10;
                let asked = Asked {
                    is_long,
                    without_descriptor: cdb[1] & 0x08 != 0,
                    control: cdb[2] >> 6,
                    page: cdb[2] & 0x3f,
                    subpage: cdb[3],
                };
                Command::ModeSense { asked, allocated: if is_long { self.u16(7).into() } else { cdb[4].into() } }
            }
            // Without PF the list has a form of each vendor's own.
            code::MODE_SELECT_6 | code::MODE_SELECT_10 if cdb[1] & 0x10 == 0 => {
                return Err(Sense::INVALID_FIELD.at_byte(1));
            }
            code::MODE_SELECT_6 => Command::ModeSelect { is_long: false, bytes: cdb[4].into() },
            code::MODE_SELECT_10 => Command::ModeSelect { is_long: true, bytes: self.u16(7).into() },
            code::START_STOP_UNIT => Command::StartStop,
            code::PREVENT_ALLOW => Command::PreventAllow,
            code::READ_CAPACITY_10 if cdb[8] & 1 == 0 && self.u32(2) != 0 => return Err(Sense::INVALID_FIELD),
            code::READ_CAPACITY_10 => Command::ReadCapacity10,
            code::SERVICE_ACTION_IN_16 => Command::ReadCapacity16 { allocated: self.u32(10) },
            code::REPORT_LUNS => Command::ReportLuns { select: cdb[2], allocated: self.u32(6) },
            code::MAINTENANCE_IN => {
                let (code, action) = (cdb[3], self.u16(4));
                let wish = match cdb[2] & 7 {
                    0 => Wish::All,
                    1 => Wish::Code(code),
                    2 => Wish::Action(code, action),
                    3 => Wish::Either(code, action),
                    _ => return Err(Sense::INVALID_FIELD),
                };
                Command::ReportOpcodes { wish, with_timeouts: cdb[2] & 0x80 != 0, allocated: self.u32(6) }
            }
            code::PERSISTENT_IN => Command::PersistentIn { action: cdb[1] & 0x1f, allocated: self.u16(7).into() },
            code::PERSISTENT_OUT if self.u32(5) != PARAMETER_BYTES as u32 => return Err(Sense::PARAMETER_LENGTH),
            code::PERSISTENT_OUT => {
                Command::PersistentOut { action: cdb[1] & 0x1f, scope: cdb[2] >> 4, kind: cdb[2] & 0x0f }
            }
            _ => return Err(Sense::INVALID_OPCODE),
        })
    }
}
