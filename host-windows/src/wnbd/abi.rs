//! The structures and numbers of `libwnbd.dll`'s interface.
//!
//! *Purpose*: what `include/wnbd.h` and `include/wnbd_ioctl.h` of WNBD 0.7 (<https://github.com/cloudbase/wnbd>) publish, as
//! far as it is used here. *Invariants*: sizes and places of fields are those of the headers: the compiler checks the sizes
//! that these assert, and each field's offset by C's rules on x86-64. Bit fields are whole words, their first bit the
//! lowest. *Units*: blocks of [`BLOCK_BYTES`].

use std::mem::{offset_of, size_of};

/// Size of a block: the driver takes no other.
pub const BLOCK_BYTES: u32 = 512;
/// The largest request of the driver, in bytes.
pub const TRANSFER_BYTES_MAX: u32 = 2 << 20;
/// Length of names, with the zero at their end.
pub const NAME_BYTES: usize = 256;
/// Length of the owner's name, with the zero at its end.
pub const OWNER_BYTES: usize = 16;
/// Most ranges that one unmap may have. The driver sends one at a time.
pub const UNMAP_RANGES_MAX: u32 = 32;

/// Kinds of requests (`WnbdRequestType`).
pub mod request_type {
    /// A read.
    pub const READ: u32 = 1;
    /// A write.
    pub const WRITE: u32 = 2;
    /// A flush.
    pub const FLUSH: u32 = 3;
    /// An unmap.
    pub const UNMAP: u32 = 4;
}

/// What a disk can do (`WNBD_FLAGS`).
pub mod disk_flag {
    /// It refuses writes.
    pub const READ_ONLY: u32 = 1 << 0;
    /// It takes flushes.
    pub const FLUSH: u32 = 1 << 1;
    /// Its writes may ask to be durable when they are answered.
    pub const FUA: u32 = 1 << 2;
    /// It takes unmaps.
    pub const UNMAP: u32 = 1 << 3;
}

/// How a disk is removed (`WNBD_REMOVE_FLAGS`).
pub mod remove_flag {
    /// At once, whoever uses it.
    pub const HARD: u32 = 1 << 0;
    /// At once where Windows refuses a polite removal.
    pub const HARD_FALLBACK: u32 = 1 << 1;
}

/// What a disk is to be (`WNBD_PROPERTIES`).
#[repr(C)]
#[derive(Clone)]
pub struct Properties {
    /// By this name it is found; unique on the machine.
    pub instance_name: [u8; NAME_BYTES],
    /// What Windows shows as the serial number.
    pub serial_number: [u8; NAME_BYTES],
    /// Whose it is.
    pub owner: [u8; OWNER_BYTES],
    /// [`disk_flag`]s.
    pub flags: u32,
    /// Its size in blocks.
    pub block_count: u64,
    /// [`BLOCK_BYTES`].
    pub block_bytes: u32,
    /// Most ranges of one unmap.
    pub unmap_ranges_max: u32,
    /// The process that serves it; 0 for the caller.
    pub pid: i32,
    /// Of an NBD server; zeros.
    pub nbd: [u32; 138],
    /// An NAA identifier; zeros for none.
    pub naa_id: [u8; 16],
    /// Zeros.
    pub reserved: [u8; 240],
}

impl Properties {
    /// Of a disk with `block_count` blocks. Names that are too long are cut.
    pub fn new(instance_name: &str, serial_number: &str, owner: &str, block_count: u64, flags: u32) -> Self {
        Self {
            instance_name: name(instance_name),
            serial_number: name(serial_number),
            owner: name(owner),
            flags,
            block_count,
            block_bytes: BLOCK_BYTES,
            unmap_ranges_max: UNMAP_RANGES_MAX,
            pid: 0,
            nbd: [0; 138],
            naa_id: [0; 16],
            reserved: [0; 240],
        }
    }
}

/// The text in ASCII, with a zero at the end.
fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let kept = text.bytes().filter(u8::is_ascii_graphic).take(N - 1);
    bytes.iter_mut().zip(kept).for_each(|(to, from)| *to = from);
    bytes
}

/// How a request ended (`WNBD_STATUS`): all zeros for well.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Status {
    /// SCSI's status byte.
    pub scsi_status: u8,
    /// SCSI's sense key.
    pub sense_key: u8,
    /// SCSI's additional sense code.
    pub asc: u8,
    /// What qualifies that code.
    pub ascq: u8,
    /// Sense information.
    pub information: u64,
    /// Zero.
    pub reserved_csi: u64,
    /// Zero.
    pub reserved_sks: u32,
    /// Bit 8: whether `information` is valid.
    pub flags: u32,
}

/// An answer (`WNBD_IO_RESPONSE`).
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct IoResponse {
    /// The request's.
    pub request_handle: u64,
    /// The request's: one of [`request_type`].
    pub request_type: u32,
    /// How it ended.
    pub status: Status,
    /// Zeros.
    pub reserved: [u8; 32],
}

/// A range of an unmap (`WNBD_UNMAP_DESCRIPTOR`).
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct UnmapDescriptor {
    /// Its first block.
    pub block_address: u64,
    /// Its length in blocks.
    pub block_count: u32,
    /// Not used.
    pub reserved: u32,
}

/// How to remove a disk (`WNBD_REMOVE_OPTIONS`).
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct RemoveOptions {
    /// [`remove_flag`]s.
    pub flags: u32,
    /// How long Windows is asked politely.
    pub soft_timeout_millis: u32,
    /// How long to wait between two such requests.
    pub soft_retry_millis: u32,
    /// Zeros.
    pub reserved: [u8; 64],
}

const _: () = {
    assert!(size_of::<Properties>() == 1368);
    assert!(offset_of!(Properties, serial_number) == 256);
    assert!(offset_of!(Properties, owner) == 512);
    assert!(offset_of!(Properties, flags) == 528);
    assert!(offset_of!(Properties, block_count) == 536);
    assert!(offset_of!(Properties, block_bytes) == 544);
    assert!(offset_of!(Properties, unmap_ranges_max) == 548);
    assert!(offset_of!(Properties, pid) == 552);
    assert!(offset_of!(Properties, nbd) == 556);
    assert!(offset_of!(Properties, naa_id) == 1108);
    assert!(offset_of!(Properties, reserved) == 1124);
    assert!(size_of::<Status>() == 32);
    assert!(offset_of!(Status, sense_key) == 1 && offset_of!(Status, asc) == 2 && offset_of!(Status, ascq) == 3);
    assert!(offset_of!(Status, information) == 8 && offset_of!(Status, reserved_csi) == 16);
    assert!(offset_of!(Status, reserved_sks) == 24 && offset_of!(Status, flags) == 28);
    assert!(size_of::<IoResponse>() == 80);
    assert!(offset_of!(IoResponse, request_type) == 8);
    assert!(offset_of!(IoResponse, status) == 16 && offset_of!(IoResponse, reserved) == 48);
    assert!(size_of::<UnmapDescriptor>() == 16);
    assert!(offset_of!(UnmapDescriptor, block_count) == 8);
    assert!(size_of::<RemoveOptions>() == 76);
    assert!(offset_of!(RemoveOptions, soft_timeout_millis) == 4 && offset_of!(RemoveOptions, soft_retry_millis) == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_end_with_a_zero() {
        let properties = Properties::new(&"x".repeat(300), "a b\u{e9}\0c", "swarmdisk", 7, disk_flag::READ_ONLY);
        assert_eq!(properties.instance_name[254..], [b'x', 0]);
        assert_eq!(properties.serial_number[..4], *b"abc\0");
        assert_eq!(properties.owner, *b"swarmdisk\0\0\0\0\0\0\0");
    }
}
