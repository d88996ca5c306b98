//! Which commands there are, and which of their bits mean something (SPC-4, section 6.35: REPORT SUPPORTED OPERATION CODES).
//!
//! *Invariants*: the list that initiators are told is the one that commands are held against.

use super::sense::Sense;

/// A command.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) struct Opcode {
    pub code: u8,
    /// For codes that several commands share.
    pub action: Option<u8>,
    /// For each byte after the code, the bits that it may have. As long as the command, less one.
    mask: &'static [u8],
}

/// Longest command.
pub(in crate::iscsi) const CDB_BYTES: usize = 16;

pub(in crate::iscsi) mod code {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const WRITE_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const PREFETCH_10: u8 = 0x34;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const PERSISTENT_IN: u8 = 0x5e;
    pub const PERSISTENT_OUT: u8 = 0x5f;
    pub const READ_16: u8 = 0x88;
    pub const COMPARE_AND_WRITE: u8 = 0x89;
    pub const WRITE_16: u8 = 0x8a;
    pub const OR_WRITE_16: u8 = 0x8b;
    pub const WRITE_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const PREFETCH_16: u8 = 0x90;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const MAINTENANCE_IN: u8 = 0xa3;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const WRITE_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
}

pub(in crate::iscsi) mod action {
    pub const READ_CAPACITY_16: u8 = 0x10;
    pub const LBA_STATUS: u8 = 0x12;
    pub const REPORT_OPCODES: u8 = 0x0c;
}

/// Of a read or write: DPO, FUA, and FUA_NV as it once was.
const CACHE: u8 = 0x1a;
const ALL: u8 = 0xff;
/// NACA, with which we could do nothing, is in none of them.
const CONTROL: u8 = 0xf8;
const GROUP: u8 = 0x3f;

const fn plain(code: u8, mask: &'static [u8]) -> Opcode {
    Opcode { code, action: None, mask }
}

const fn acting(code: u8, action: u8, mask: &'static [u8]) -> Opcode {
    Opcode { code, action: Some(action), mask }
}

const PERSISTENT_IN_MASK: &[u8] = &[0x1f, 0, 0, 0, 0, 0, ALL, ALL, CONTROL];
const PERSISTENT_OUT_MASK: &[u8] = &[0x1f, ALL, 0, 0, ALL, ALL, ALL, ALL, CONTROL];
const IO_10: &[u8] = &[CACHE, ALL, ALL, ALL, ALL, GROUP, ALL, ALL, CONTROL];
const IO_12: &[u8] = &[CACHE, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, GROUP, CONTROL];
const IO_16: &[u8] = &[CACHE, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, GROUP, CONTROL];
/// DPO and BYTCHK.
const VERIFY_10: &[u8] = &[0x16, ALL, ALL, ALL, ALL, GROUP, ALL, ALL, CONTROL];
const VERIFY_12: &[u8] = &[0x16, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, GROUP, CONTROL];
const VERIFY_16: &[u8] = &[0x16, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, GROUP, CONTROL];

/// All of them.
const OPCODES: &[Opcode] = &[
    plain(code::TEST_UNIT_READY, &[0, 0, 0, 0, CONTROL]),
    plain(code::REQUEST_SENSE, &[0x01, 0, 0, ALL, CONTROL]),
    plain(code::READ_6, &[0x1f, ALL, ALL, ALL, CONTROL]),
    plain(code::WRITE_6, &[0x1f, ALL, ALL, ALL, CONTROL]),
    plain(code::INQUIRY, &[0x01, ALL, ALL, ALL, CONTROL]),
    // PF, and not SP: nothing is saved.
    plain(code::MODE_SELECT_6, &[0x10, 0, 0, ALL, CONTROL]),
    plain(code::MODE_SENSE_6, &[0x08, ALL, ALL, ALL, CONTROL]),
    plain(code::START_STOP_UNIT, &[0x01, 0, 0x0f, 0xf7, CONTROL]),
    plain(code::PREVENT_ALLOW, &[0, 0, 0, 0x03, CONTROL]),
    plain(code::READ_CAPACITY_10, &[0x01, ALL, ALL, ALL, ALL, 0, 0, 0x01, CONTROL]),
    plain(code::READ_10, IO_10),
    plain(code::WRITE_10, IO_10),
    plain(code::WRITE_VERIFY_10, VERIFY_10),
    plain(code::VERIFY_10, VERIFY_10),
    // IMMED.
    plain(code::PREFETCH_10, &[0x02, ALL, ALL, ALL, ALL, GROUP, ALL, ALL, CONTROL]),
    // IMMED and SYNC_NV.
    plain(code::SYNCHRONIZE_CACHE_10, &[0x06, ALL, ALL, ALL, ALL, GROUP, ALL, ALL, CONTROL]),
    // ANCHOR and UNMAP.
    plain(code::WRITE_SAME_10, &[0x18, ALL, ALL, ALL, ALL, GROUP, ALL, ALL, CONTROL]),
    plain(code::UNMAP, &[0x01, 0, 0, 0, 0, GROUP, ALL, ALL, CONTROL]),
    plain(code::MODE_SELECT_10, &[0x10, 0, 0, 0, 0, 0, ALL, ALL, CONTROL]),
    plain(code::MODE_SENSE_10, &[0x18, ALL, ALL, 0, 0, 0, ALL, ALL, CONTROL]),
    acting(code::PERSISTENT_IN, 0, PERSISTENT_IN_MASK),
    acting(code::PERSISTENT_IN, 1, PERSISTENT_IN_MASK),
    acting(code::PERSISTENT_IN, 2, PERSISTENT_IN_MASK),
    acting(code::PERSISTENT_IN, 3, PERSISTENT_IN_MASK),
    acting(code::PERSISTENT_OUT, 0, PERSISTENT_OUT_MASK),
    acting(code::PERSISTENT_OUT, 1, PERSISTENT_OUT_MASK),
    acting(code::PERSISTENT_OUT, 2, PERSISTENT_OUT_MASK),
    acting(code::PERSISTENT_OUT, 3, PERSISTENT_OUT_MASK),
    acting(code::PERSISTENT_OUT, 4, PERSISTENT_OUT_MASK),
    acting(code::PERSISTENT_OUT, 5, PERSISTENT_OUT_MASK),
    acting(code::PERSISTENT_OUT, 6, PERSISTENT_OUT_MASK),
    plain(code::READ_16, IO_16),
    // One byte for the number of blocks.
    plain(code::COMPARE_AND_WRITE, &[CACHE, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0, 0, ALL, GROUP, CONTROL]),
    plain(code::WRITE_16, IO_16),
    plain(code::OR_WRITE_16, IO_16),
    plain(code::WRITE_VERIFY_16, VERIFY_16),
    plain(code::VERIFY_16, VERIFY_16),
    plain(code::PREFETCH_16, &[0x02, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, GROUP, CONTROL]),
    plain(
        code::SYNCHRONIZE_CACHE_16,
        &[0x06, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, GROUP, CONTROL],
    ),
    // ANCHOR, UNMAP and NDOB.
    plain(code::WRITE_SAME_16, &[0x19, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, GROUP, CONTROL]),
    acting(
        code::SERVICE_ACTION_IN_16,
        action::READ_CAPACITY_16,
        &[0x1f, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0x01, CONTROL],
    ),
    acting(
        code::SERVICE_ACTION_IN_16,
        action::LBA_STATUS,
        &[0x1f, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, CONTROL],
    ),
    plain(code::REPORT_LUNS, &[0, ALL, 0, 0, 0, ALL, ALL, ALL, ALL, 0, CONTROL]),
    acting(code::MAINTENANCE_IN, action::REPORT_OPCODES, &[0x1f, 0x87, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, CONTROL]),
    plain(code::READ_12, IO_12),
    plain(code::WRITE_12, IO_12),
    plain(code::WRITE_VERIFY_12, VERIFY_12),
    plain(code::VERIFY_12, VERIFY_12),
];

impl Opcode {
    /// Length of the command.
    pub(in crate::iscsi) fn bytes(&self) -> usize {
        self.mask.len() + 1
    }

    /// The entry of a command.
    ///
    /// # Errors
    /// Its code is not in the list, or a bit is set that means nothing to us.
    pub(in crate::iscsi) fn of(cdb: &[u8; CDB_BYTES]) -> Result<&'static Self, Sense> {
        let mut same_code = OPCODES.iter().filter(|opcode| opcode.code == cdb[0]).peekable();
        if same_code.peek().is_none() {
            return Err(Sense::INVALID_OPCODE);
        }
        let action = cdb[1] & 0x1f;
        let found = same_code.find(|opcode| opcode.action.is_none_or(|own| own == action));
        let opcode = found.ok_or(Sense::INVALID_FIELD.at_byte(1))?;
        match opcode.mask.iter().zip(&cdb[1..]).position(|(mask, byte)| byte & !mask != 0) {
            Some(at) => Err(Sense::INVALID_FIELD.at_byte(at as u16 + 1)),
            None => Ok(opcode),
        }
    }

    /// The command with all bits that it may have.
    fn usage(&self) -> Vec<u8> {
        let mut usage = vec![self.code];
        usage.extend_from_slice(self.mask);
        if let Some(action) = self.action {
            usage[1] = usage[1] & !0x1f | action;
        }
        usage
    }
}

/// What is asked of the list.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) enum Wish {
    All,
    Code(u8),
    Action(u8, u16),
    Either(u8, u16),
}

/// A descriptor of how long a command may take (SPC-4, section 6.35.4), which says nothing.
const TIMEOUTS: [u8; 12] = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// REPORTING OPTIONS do not fit the command that is asked for.
const WRONG_OPTION: Sense = Sense::INVALID_FIELD.at_byte(2);

/// The list, or one of it.
///
/// # Errors
/// A command that has actions is asked for without one, or the other way round.
pub(in crate::iscsi) fn report(wish: Wish, with_timeouts: bool) -> Result<Vec<u8>, Sense> {
    let found = match wish {
        Wish::All => return Ok(report_all(with_timeouts)),
        Wish::Code(code) => {
            let found = OPCODES.iter().find(|opcode| opcode.code == code);
            if found.is_some_and(|opcode| opcode.action.is_some()) {
                return Err(WRONG_OPTION);
            }
            found
        }
        Wish::Action(code, action) => {
            if OPCODES.iter().any(|opcode| opcode.code == code && opcode.action.is_none()) {
                return Err(WRONG_OPTION);
            }
            with_action(code, action)
        }
        Wish::Either(code, action) => with_action(code, action)
            .or_else(|| OPCODES.iter().find(|opcode| opcode.code == code && opcode.action.is_none())),
    };
    let Some(opcode) = found else { return Ok(vec![0, 0x01, 0, 0]) };
    let usage = opcode.usage();
    let mut data = vec![0, if with_timeouts { 0x83 } else { 0x03 }, 0, usage.len() as u8];
    data.extend(usage);
    if with_timeouts {
        data.extend(TIMEOUTS);
    }
    Ok(data)
}

fn with_action(code: u8, action: u16) -> Option<&'static Opcode> {
    OPCODES.iter().find(|opcode| opcode.code == code && opcode.action.is_some_and(|own| u16::from(own) == action))
}

fn report_all(with_timeouts: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for opcode in OPCODES {
        let flags = u8::from(opcode.action.is_some()) | if with_timeouts { 0x02 } else { 0 };
        list.extend([opcode.code, 0, 0, opcode.action.unwrap_or(0), 0, flags, 0, opcode.bytes() as u8]);
        if with_timeouts {
            list.extend(TIMEOUTS);
        }
    }
    let mut data = (list.len() as u32).to_be_bytes().to_vec();
    data.extend(list);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_the_length_of_its_group() {
        for opcode in OPCODES {
            let expected = match opcode.code >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                _ => 12,
            };
            assert_eq!(opcode.bytes(), expected, "{opcode:?}");
            assert_eq!(report(Wish::Either(opcode.code, opcode.action.unwrap_or(0).into()), true).unwrap()[1], 0x83);
        }
        assert_eq!(report(Wish::All, false).unwrap().len(), 4 + 8 * OPCODES.len());
        assert_eq!(report(Wish::All, true).unwrap().len(), 4 + 20 * OPCODES.len());
    }

    #[test]
    fn what_means_nothing_to_us_is_refused() {
        let mut cdb = [0; CDB_BYTES];
        cdb[0] = code::READ_10;
        assert!(Opcode::of(&cdb).is_ok());
        cdb[1] = 0x20; // RDPROTECT
        assert_eq!(Opcode::of(&cdb), Err(Sense::INVALID_FIELD.at_byte(1)));
        cdb[1..10].copy_from_slice(&[0, 0, 0, 0, 0, 0x80, 0, 0, 0]);
        assert_eq!(Opcode::of(&cdb), Err(Sense::INVALID_FIELD.at_byte(6)));
        cdb[6] = 0;
        cdb[0] = 0xff;
        assert_eq!(Opcode::of(&cdb), Err(Sense::INVALID_OPCODE));
        cdb[0] = code::SERVICE_ACTION_IN_16;
        assert_eq!(Opcode::of(&cdb), Err(Sense::INVALID_FIELD.at_byte(1)));
        assert_eq!(report(Wish::Code(code::MAINTENANCE_IN), false), Err(WRONG_OPTION));
        assert_eq!(report(Wish::Action(code::READ_10, 0), false), Err(WRONG_OPTION));
        assert_eq!(report(Wish::Code(0xff), false).unwrap(), [0, 1, 0, 0]);
    }
}
