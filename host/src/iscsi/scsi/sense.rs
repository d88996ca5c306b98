//! Statuses, and sense data that say why a command failed (SPC-4, section 4.5).

use crate::disk::DiskError;

/// Statuses (SAM-5, section 5.3).
pub(in crate::iscsi) mod status {
    pub const GOOD: u8 = 0x00;
    pub const CHECK_CONDITION: u8 = 0x02;
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    pub const TASK_SET_FULL: u8 = 0x28;
}

/// Length of sense data.
const BYTES: usize = 18;
/// The same in the format of descriptors.
const DESCRIPTOR_BYTES: usize = 8;

/// What sense data say beside key, code and qualifier.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) enum Detail {
    Nothing,
    /// What the command's description says, in bytes or blocks (INFORMATION).
    Information(u32),
    /// Which byte of the command is wrong (FIELD POINTER).
    Field(u16),
}

/// Key, code and qualifier.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) struct Sense {
    pub key: u8,
    pub code: u8,
    pub qualifier: u8,
    pub detail: Detail,
}

impl Sense {
    pub const NONE: Self = Self::new(0x0, 0x00, 0x00);
    pub const READ_ERROR: Self = Self::new(0x3, 0x11, 0x00);
    pub const WRITE_ERROR: Self = Self::new(0x3, 0x0c, 0x00);
    pub const INTERNAL: Self = Self::new(0x4, 0x44, 0x00);
    pub const INVALID_UNIT: Self = Self::new(0x5, 0x0e, 0x03);
    pub const PARAMETER_LENGTH: Self = Self::new(0x5, 0x1a, 0x00);
    pub const INVALID_OPCODE: Self = Self::new(0x5, 0x20, 0x00);
    pub const OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0x00);
    pub const INVALID_FIELD: Self = Self::new(0x5, 0x24, 0x00);
    pub const NO_LUN: Self = Self::new(0x5, 0x25, 0x00);
    pub const INVALID_PARAMETER: Self = Self::new(0x5, 0x26, 0x00);
    pub const INVALID_RELEASE: Self = Self::new(0x5, 0x26, 0x04);
    pub const NOT_SAVED: Self = Self::new(0x5, 0x39, 0x00);
    pub const TOO_MANY_REGISTERED: Self = Self::new(0x5, 0x55, 0x04);
    pub const WAS_RESET: Self = Self::new(0x6, 0x29, 0x03);
    pub const MODE_CHANGED: Self = Self::new(0x6, 0x2a, 0x01);
    pub const PREEMPTED: Self = Self::new(0x6, 0x2a, 0x05);
    pub const RELEASED: Self = Self::new(0x6, 0x2a, 0x04);
    pub const CLEARED: Self = Self::new(0x6, 0x2a, 0x03);
    pub const WRITE_PROTECTED: Self = Self::new(0x7, 0x27, 0x00);
    pub const SOFTWARE_PROTECTED: Self = Self::new(0x7, 0x27, 0x02);
    pub const SPACE: Self = Self::new(0x7, 0x27, 0x07);
    pub const COMMUNICATION: Self = Self::new(0xb, 0x08, 0x01);
    pub const TOO_LITTLE_DATA: Self = Self::new(0xb, 0x0c, 0x0d);
    pub const OUT_OF_ORDER: Self = Self::new(0xb, 0x4b, 0x00);
    pub const MISCOMPARE: Self = Self::new(0xe, 0x1d, 0x00);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code, qualifier, detail: Detail::Nothing }
    }

    /// The same, of this byte of the command.
    pub(in crate::iscsi) const fn at_byte(self, byte: u16) -> Self {
        Self { detail: Detail::Field(byte), ..self }
    }

    /// The same with INFORMATION.
    pub(in crate::iscsi) const fn with_information(self, information: u32) -> Self {
        Self { detail: Detail::Information(information), ..self }
    }

    /// Of a read or a write that the disk refused.
    pub(in crate::iscsi) fn of(error: &DiskError, is_write: bool) -> Self {
        match error {
            DiskError::OutOfRange { .. } => Self::OUT_OF_RANGE,
            DiskError::ReadOnly => Self::WRITE_PROTECTED,
            DiskError::Full => Self::SPACE,
            DiskError::TimedOut(_) => Self::COMMUNICATION,
            DiskError::Failed(_) if is_write => Self::WRITE_ERROR,
            DiskError::Failed(_) => Self::READ_ERROR,
        }
    }

    /// As data, in the fixed format.
    pub(in crate::iscsi) fn fixed(self) -> [u8; BYTES] {
        let mut data = [0; BYTES];
        data[0] = 0x70;
        data[2] = self.key;
        data[7] = BYTES as u8 - 8;
        data[12] = self.code;
        data[13] = self.qualifier;
        match self.detail {
            Detail::Nothing => {}
            Detail::Information(information) => {
                data[0] |= 0x80; // VALID
                data[3..7].copy_from_slice(&information.to_be_bytes());
            }
            Detail::Field(byte) => {
                data[15] = 0xc0; // SKSV; of the command
                data[16..18].copy_from_slice(&byte.to_be_bytes());
            }
        }
        data
    }

    /// As data, in the format of descriptors, of which there are none: what REQUEST SENSE tells has no detail.
    pub(in crate::iscsi) fn descriptor(self) -> [u8; DESCRIPTOR_BYTES] {
        [0x72, self.key, self.code, self.qualifier, 0, 0, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::time::Duration;

    #[test]
    fn each_error_of_a_disk_has_its_sense() {
        let range = DiskError::OutOfRange { offset: 1, bytes: 1, image_bytes: 1 };
        for (error, expected) in [
            (range, [Sense::OUT_OF_RANGE; 2]),
            (DiskError::ReadOnly, [Sense::WRITE_PROTECTED; 2]),
            (DiskError::Full, [Sense::SPACE; 2]),
            (DiskError::TimedOut(Duration::ZERO), [Sense::COMMUNICATION; 2]),
            (DiskError::failed(io::Error::other("rot")), [Sense::READ_ERROR, Sense::WRITE_ERROR]),
        ] {
            assert_eq!([false, true].map(|is_write| Sense::of(&error, is_write)), expected, "{error}");
        }
    }

    #[test]
    fn details_lie_where_the_standard_puts_them() {
        let plain = Sense::MISCOMPARE.fixed();
        assert_eq!(plain, [0x70, 0, 0xe, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0, 0]);
        let told = Sense::MISCOMPARE.with_information(0x0102_0304).fixed();
        assert_eq!((told[0], &told[3..7], told[15]), (0xf0, &[1, 2, 3, 4][..], 0));
        let field = Sense::INVALID_FIELD.at_byte(0x0102).fixed();
        assert_eq!((field[0], &field[3..7], &field[15..]), (0x70, &[0; 4][..], &[0xc0, 1, 2][..]));
        assert_eq!(Sense::NO_LUN.descriptor(), [0x72, 5, 0x25, 0, 0, 0, 0, 0]);
    }
}
