//! The kernel's block devices in user space, as numbers and bytes (Linux's `include/uapi/linux/ublk_cmd.h`).
//!
//! *Purpose*: what goes to `/dev/ublk-control` and `/dev/ublkcN` and comes from there. No I/O here.
//! *Units*: sectors of 512 bytes where a name says so, whatever the device's block size; bytes else.
//! *Bounds*: [`QUEUES_MAX`], [`DEPTH`], [`IO_BYTES_MAX`]; a request has at most 2^25 bytes, a queue 2^16 tags.

/// Bytes of the kernel's sector.
pub(crate) const SECTOR_SHIFT: u8 = 9;
/// Queues that we ask for; each has a thread.
pub(super) const QUEUES_MAX: u16 = 4;
/// Requests that are in flight in a queue.
pub(super) const DEPTH: u16 = 128;
/// The longest request. No buffers are kept, so it costs nothing.
pub(super) const IO_BYTES_MAX: u32 = 1 << 20;
/// The longest trim and the longest run of zeros.
pub(super) const DISCARD_SECTORS_MAX: u32 = 1 << 21;

/// `UBLK_F_*`: what a device can do.
pub(super) mod feature {
    /// The device outlives its server, which another one can follow (Linux 6.1).
    pub const USER_RECOVERY: u64 = 1 << 3;
    /// What the dead server had not answered is given to the next one.
    pub const USER_RECOVERY_REISSUE: u64 = 1 << 4;
    /// Commands have numbers as ioctls have (Linux 6.4).
    pub const CMD_IOCTL_ENCODE: u64 = 1 << 6;
    /// Data is copied by `pread` and `pwrite` (Linux 6.5).
    pub const USER_COPY: u64 = 1 << 7;
    /// What all devices have.
    pub const ALWAYS: u64 = CMD_IOCTL_ENCODE | USER_COPY;
    /// What those have besides that outlive their server.
    pub const RECOVERABLE: u64 = USER_RECOVERY | USER_RECOVERY_REISSUE;
    /// All that the driver is to offer.
    pub const NEEDED: u64 = ALWAYS | RECOVERABLE;
}

/// `UBLK_S_DEV_*`: the state of a device.
pub(super) mod state {
    pub const LIVE: u16 = 1;
    /// Its server is dead, and requests wait for another.
    pub const QUIESCED: u16 = 2;
}

/// `UBLK_ATTR_*`: what guests are told of a device.
pub(super) mod attribute {
    pub const READ_ONLY: u32 = 1 << 0;
    pub const VOLATILE_CACHE: u32 = 1 << 2;
    pub const FUA: u32 = 1 << 3;
}

const READ: u32 = 2;
const WRITE: u32 = 1;
const CONTROL_BYTES: u32 = 32;
const IO_BYTES: u32 = 16;

/// A number as the kernel's `_IOC` makes it.
const fn ioc(direction: u32, number: u32, bytes: u32) -> u32 {
    direction << 30 | bytes << 16 | (b'u' as u32) << 8 | number
}

/// `UBLK_U_CMD_*`: commands to `/dev/ublk-control`.
pub(super) mod command {
    use super::{CONTROL_BYTES, READ, WRITE, ioc};
    pub const GET_DEV_INFO: u32 = ioc(READ, 0x02, CONTROL_BYTES);
    pub const ADD_DEV: u32 = ioc(READ | WRITE, 0x04, CONTROL_BYTES);
    pub const DEL_DEV: u32 = ioc(READ | WRITE, 0x05, CONTROL_BYTES);
    pub const START_DEV: u32 = ioc(READ | WRITE, 0x06, CONTROL_BYTES);
    pub const STOP_DEV: u32 = ioc(READ | WRITE, 0x07, CONTROL_BYTES);
    pub const SET_PARAMS: u32 = ioc(READ | WRITE, 0x08, CONTROL_BYTES);
    pub const GET_PARAMS: u32 = ioc(READ, 0x09, CONTROL_BYTES);
    pub const START_USER_RECOVERY: u32 = ioc(READ | WRITE, 0x10, CONTROL_BYTES);
    pub const END_USER_RECOVERY: u32 = ioc(READ | WRITE, 0x11, CONTROL_BYTES);
    pub const GET_FEATURES: u32 = ioc(READ, 0x13, CONTROL_BYTES);
    /// Linux 6.9.
    pub const DEL_DEV_ASYNC: u32 = ioc(READ, 0x14, CONTROL_BYTES);
}

/// `UBLK_U_IO_FETCH_REQ`: the tag waits for its first request.
pub(crate) const FETCH: u32 = ioc(READ | WRITE, 0x20, IO_BYTES);
/// `UBLK_U_IO_COMMIT_AND_FETCH_REQ`: the tag's request is answered, and it waits for the next.
pub(crate) const COMMIT_AND_FETCH: u32 = ioc(READ | WRITE, 0x21, IO_BYTES);

/// `UBLK_IO_OP_*`: what a request asks for.
pub(super) mod op {
    pub const READ: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const FLUSH: u8 = 2;
    pub const DISCARD: u8 = 3;
    pub const WRITE_ZEROES: u8 = 5;
}

/// A request's flag: it is answered when it is durable.
const FLAG_FUA: u32 = 1 << 13;
/// A request's flag: zeros that keep their space.
const FLAG_NO_UNMAP: u32 = 1 << 15;

/// `struct ublksrv_ctrl_cmd`, without the buffer that goes with it.
#[derive(Debug, Copy, Clone)]
pub(crate) struct ControlCommand {
    pub(crate) op: u32,
    /// `u32::MAX` where the kernel is to choose.
    pub(crate) device: u32,
    pub(crate) data: u64,
}

impl ControlCommand {
    /// The command's bytes in an entry of a ring; `address` and `bytes` are its buffer's.
    pub(crate) fn encode(&self, address: u64, bytes: u16) -> [u8; 80] {
        let mut all = [0; 80];
        all[..4].copy_from_slice(&self.device.to_ne_bytes());
        // It is for no queue.
        all[4..6].copy_from_slice(&u16::MAX.to_ne_bytes());
        all[6..8].copy_from_slice(&bytes.to_ne_bytes());
        all[8..16].copy_from_slice(&address.to_ne_bytes());
        all[16..24].copy_from_slice(&self.data.to_ne_bytes());
        all
    }
}

/// `struct ublksrv_io_cmd`: what goes to a device of a queue's tag.
pub(crate) fn encode_io(queue: u16, tag: u16, result: i32) -> [u8; IO_BYTES as usize] {
    let mut all = [0; IO_BYTES as usize];
    all[..2].copy_from_slice(&queue.to_ne_bytes());
    all[2..4].copy_from_slice(&tag.to_ne_bytes());
    all[4..8].copy_from_slice(&result.to_ne_bytes());
    all
}

/// Where a request's data is in `/dev/ublkcN` (`UBLKSRV_IO_BUF_OFFSET`).
pub(super) fn data_position(queue: u16, tag: u16) -> u64 {
    0x8000_0000 + (u64::from(queue) << 41) + (u64::from(tag) << 25)
}

/// Where a queue's descriptors can be mapped from: room for `UBLK_MAX_QUEUE_DEPTH` of them each.
pub(crate) fn descriptors_position(queue: u16, page_bytes: usize) -> u64 {
    let bytes = (4096 * Descriptor::BYTES).next_multiple_of(page_bytes);
    u64::from(queue) * bytes as u64
}

/// `struct ublksrv_io_desc`: a request.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    op_flags: u32,
    sectors: u32,
    start_sector: u64,
}

impl Descriptor {
    /// Of one descriptor in the queue's memory.
    pub(crate) const BYTES: usize = 24;

    /// From the first two words of three.
    pub(crate) fn from_words([first, second]: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = first.to_ne_bytes();
        Self {
            op_flags: u32::from_ne_bytes([a, b, c, d]),
            sectors: u32::from_ne_bytes([e, f, g, h]),
            start_sector: second,
        }
    }

    pub(super) fn op(&self) -> u8 {
        self.op_flags as u8
    }

    pub(super) fn is_fua(&self) -> bool {
        self.op_flags & FLAG_FUA != 0
    }

    pub(super) fn may_unmap(&self) -> bool {
        self.op_flags & FLAG_NO_UNMAP == 0
    }

    pub(super) fn offset(&self) -> u64 {
        self.start_sector << SECTOR_SHIFT
    }

    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.sectors) << SECTOR_SHIFT
    }
}

/// `struct ublksrv_ctrl_dev_info`.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct DeviceInfo {
    pub(super) queues: u16,
    pub(super) depth: u16,
    pub(super) state: u16,
    pub(super) io_bytes_max: u32,
    pub(super) number: u32,
    /// The process that serves it.
    pub(super) pid: i32,
    pub(super) features: u64,
    /// The kernel keeps it for the server (`ublksrv_flags`): which disk it is.
    pub(super) mark: u64,
}

impl DeviceInfo {
    /// Of the structure.
    pub(super) const BYTES: usize = 64;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(Self::BYTES);
        for half in [self.queues, self.depth, self.state, 0] {
            all.extend(half.to_ne_bytes());
        }
        all.extend(self.io_bytes_max.to_ne_bytes());
        all.extend(self.number.to_ne_bytes());
        all.extend(self.pid.to_ne_bytes());
        all.extend([0; 4]);
        all.extend(self.features.to_ne_bytes());
        all.extend(self.mark.to_ne_bytes());
        all.resize(Self::BYTES, 0);
        all
    }

    /// None if there are too few bytes.
    pub(super) fn decode(all: &[u8]) -> Option<Self> {
        Some(Self {
            queues: half_at(all, 0)?,
            depth: half_at(all, 2)?,
            state: half_at(all, 4)?,
            io_bytes_max: word_at(all, 8)?,
            number: word_at(all, 12)?,
            pid: word_at(all, 16)? as i32,
            features: long_at(all, 24)?,
            mark: long_at(all, 32)?,
        })
    }
}

/// `struct ublk_params`: what guests see of a device, in the part that we set.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) attributes: u32,
    pub(super) io_opt_shift: u8,
    pub(super) io_sectors_max: u32,
    pub(super) device_sectors: u64,
    /// Trims and zeros are at most so long; 0: there are none.
    pub(super) discard_sectors_max: u32,
}

impl Parameters {
    /// Of the structure up to its zones, which we leave empty; the kernel takes as much as it is given.
    pub(super) const BYTES: usize = 8 + 32 + 20 + 16 + 32;
    const TYPE_BASIC: u32 = 1 << 0;
    const TYPE_DISCARD: u32 = 1 << 1;
    /// Pages of 4 KiB are what guests write, and what is written at once.
    const PHYSICAL_SHIFT: u8 = 12;

    pub(super) fn encode(&self) -> Vec<u8> {
        let has_discard = self.discard_sectors_max > 0;
        let types = Self::TYPE_BASIC | if has_discard { Self::TYPE_DISCARD } else { 0 };
        let mut all = Vec::with_capacity(Self::BYTES);
        all.extend((Self::BYTES as u32).to_ne_bytes());
        all.extend(types.to_ne_bytes());
        all.extend(self.attributes.to_ne_bytes());
        all.extend([SECTOR_SHIFT, Self::PHYSICAL_SHIFT, self.io_opt_shift, Self::PHYSICAL_SHIFT]);
        all.extend(self.io_sectors_max.to_ne_bytes());
        all.extend(0u32.to_ne_bytes());
        all.extend(self.device_sectors.to_ne_bytes());
        all.extend(0u64.to_ne_bytes());
        if has_discard {
            all.extend(0u32.to_ne_bytes());
            all.extend((1u32 << Self::PHYSICAL_SHIFT).to_ne_bytes());
            all.extend(self.discard_sectors_max.to_ne_bytes());
            all.extend(self.discard_sectors_max.to_ne_bytes());
            // One range a request.
            all.extend(1u16.to_ne_bytes());
        }
        all.resize(Self::BYTES, 0);
        all
    }

    /// None if there are too few bytes.
    pub(super) fn decode(all: &[u8]) -> Option<Self> {
        let has_discard = word_at(all, 4)? & Self::TYPE_DISCARD != 0;
        Some(Self {
            attributes: word_at(all, 8)?,
            io_opt_shift: *all.get(14)?,
            io_sectors_max: word_at(all, 16)?,
            device_sectors: long_at(all, 24)?,
            discard_sectors_max: if has_discard { word_at(all, 48)? } else { 0 },
        })
    }
}

fn half_at(all: &[u8], at: usize) -> Option<u16> {
    all.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn word_at(all: &[u8], at: usize) -> Option<u32> {
    all.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn long_at(all: &[u8], at: usize) -> Option<u64> {
    all.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        // As a C compiler has them of the kernel's header.
        assert_eq!(command::ADD_DEV, 0xc020_7504);
        assert_eq!(command::GET_DEV_INFO, 0x8020_7502);
        assert_eq!(command::GET_FEATURES, 0x8020_7513);
        assert_eq!((FETCH, COMMIT_AND_FETCH), (0xc010_7520, 0xc010_7521));
        assert_eq!(data_position(1, 2), 0x200_8400_0000);
        assert_eq!(descriptors_position(2, 4096), 2 * 98_304);
    }

    #[test]
    fn structures_come_back_as_they_went() {
        let info = DeviceInfo {
            queues: 2,
            depth: 128,
            state: state::QUIESCED,
            io_bytes_max: IO_BYTES_MAX,
            number: 7,
            pid: 99,
            features: feature::NEEDED,
            mark: 0x1234_5678_9abc_def0,
        };
        assert_eq!(info.encode().len(), DeviceInfo::BYTES);
        assert_eq!(DeviceInfo::decode(&info.encode()), Some(info));
        assert_eq!(DeviceInfo::decode(&info.encode()[..39]), None);
        for discard_sectors_max in [0, 4096] {
            let parameters = Parameters {
                attributes: attribute::READ_ONLY,
                io_opt_shift: 16,
                io_sectors_max: 2048,
                device_sectors: 1 << 33,
                discard_sectors_max,
            };
            assert_eq!(parameters.encode().len(), Parameters::BYTES);
            assert_eq!(Parameters::decode(&parameters.encode()), Some(parameters));
        }
    }

    #[test]
    fn a_descriptor_is_read_from_its_words() {
        let words = [u64::from(u32::from(op::WRITE) | FLAG_FUA) | 8 << 32, 16];
        let descriptor = Descriptor::from_words(words);
        assert_eq!((descriptor.op(), descriptor.offset(), descriptor.bytes()), (op::WRITE, 8192, 4096));
        assert!(descriptor.is_fua() && descriptor.may_unmap());
    }
}
