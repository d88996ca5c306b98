//! What guests see of a disk: the features and the configuration space of a virtio block device.
//!
//! *Source*: Virtual I/O Device (VIRTIO) 1.2, section 5.2. *Units*: sectors of 512 bytes. *Bounds*: the constants here.

use std::mem::offset_of;
use swarmdisk_host::disk::Disk;
use vhost::vhost_user::message::VhostUserVirtioFeatures;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES, virtio_blk_config,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Sectors have 2^9 bytes.
pub(super) const SECTOR_SHIFT: u32 = 9;
/// Queues that a guest may use. QEMU takes one for each of its processors unless told otherwise, and gives up where there are
/// fewer.
pub(super) const QUEUES: usize = 64;
/// Descriptors of a queue: as many as any frontend offers.
pub(super) const QUEUE_SIZE_MAX: usize = 1024;
/// Parts that the data of a request may have. With its head and its status these fill the queue of 128 that QEMU makes.
pub(super) const SEGMENTS_MAX: u32 = 126;
/// What is said of the size of such a part; firmware that does not ask is served all the same.
const SEGMENT_BYTES_MAX: u32 = 1 << 20;
/// Ranges of one discard, or one write of zeros.
pub(super) const RANGES_MAX: u32 = 16;
/// Sectors of such a range.
pub(super) const RANGE_SECTORS_MAX: u32 = 1 << 21;
/// Writes of whole units of 4 KiB are the cheap ones.
const UNIT_SECTORS_SHIFT: u8 = 3;

/// The features that are offered; a frontend takes of them what it and the guest know.
pub(super) fn features(is_writable: bool) -> u64 {
    let always = [
        VIRTIO_BLK_F_SIZE_MAX,
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_MQ,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_F_VERSION_1,
    ];
    let by_kind: &[u32] =
        if is_writable { &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES] } else { &[VIRTIO_BLK_F_RO] };
    let bits = always.iter().chain(by_kind).fold(0, |bits, bit| bits | 1 << bit);
    bits | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
}

/// Whether this feature is among those that were taken.
pub(super) fn has_feature(features: u64, bit: u32) -> bool {
    features & (1 << bit) != 0
}

/// Sectors of a disk, the last of which it may end within.
pub(super) fn sectors<D: Disk>(disk: &D) -> u64 {
    disk.image_bytes().div_ceil(1 << SECTOR_SHIFT)
}

/// The configuration space.
pub(super) fn space<D: Disk>(disk: &D) -> Vec<u8> {
    let mut space = vec![0; size_of::<virtio_blk_config>()];
    let mut put = |at: usize, value: &[u8]| space[at..at + value.len()].copy_from_slice(value);
    let preferred_sectors = disk.preferred_bytes() >> SECTOR_SHIFT;
    put(offset_of!(virtio_blk_config, capacity), &sectors(disk).to_le_bytes());
    put(offset_of!(virtio_blk_config, size_max), &SEGMENT_BYTES_MAX.to_le_bytes());
    put(offset_of!(virtio_blk_config, seg_max), &SEGMENTS_MAX.to_le_bytes());
    put(offset_of!(virtio_blk_config, blk_size), &(1_u32 << SECTOR_SHIFT).to_le_bytes());
    put(offset_of!(virtio_blk_config, physical_block_exp), &[UNIT_SECTORS_SHIFT]);
    put(offset_of!(virtio_blk_config, min_io_size), &(1_u16 << UNIT_SECTORS_SHIFT).to_le_bytes());
    put(offset_of!(virtio_blk_config, opt_io_size), &preferred_sectors.to_le_bytes());
    put(offset_of!(virtio_blk_config, num_queues), &(QUEUES as u16).to_le_bytes());
    if disk.is_writable() {
        put(offset_of!(virtio_blk_config, max_discard_sectors), &RANGE_SECTORS_MAX.to_le_bytes());
        put(offset_of!(virtio_blk_config, max_discard_seg), &RANGES_MAX.to_le_bytes());
        put(offset_of!(virtio_blk_config, discard_sector_alignment), &(1_u32 << UNIT_SECTORS_SHIFT).to_le_bytes());
        put(offset_of!(virtio_blk_config, max_write_zeroes_sectors), &RANGE_SECTORS_MAX.to_le_bytes());
        put(offset_of!(virtio_blk_config, max_write_zeroes_seg), &RANGES_MAX.to_le_bytes());
        put(offset_of!(virtio_blk_config, write_zeroes_may_unmap), &[1]);
    }
    space
}
