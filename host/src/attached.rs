//! An attached image as guests see it: as it is, or under an overlay that they write to.
//!
//! *Invariants*: which of the two does not change as long as it is attached.

use crate::disk::{Disk, DiskError, Extent};
use crate::node::SwarmDisk;
use crate::overlay::Overlay;
use bytes::Bytes;
use swarmdisk_core::ids::GuestId;

/// A disk whose bytes come from the swarm, writable or not.
pub enum AttachedDisk {
    /// Read-only.
    Image(SwarmDisk),
    /// What guests write goes into the overlay.
    Writable(Overlay<SwarmDisk>),
}

impl AttachedDisk {
    /// Where what was not written comes from.
    pub fn swarm(&self) -> &SwarmDisk {
        match self {
            Self::Image(disk) => disk,
            Self::Writable(overlay) => overlay.base(),
        }
    }

    /// The overlay, if there is one.
    pub fn overlay(&self) -> Option<&Overlay<SwarmDisk>> {
        match self {
            Self::Image(_) => None,
            Self::Writable(overlay) => Some(overlay),
        }
    }
}

impl Disk for AttachedDisk {
    fn image_bytes(&self) -> u64 {
        self.swarm().image_bytes()
    }

    fn preferred_bytes(&self) -> u32 {
        self.swarm().preferred_bytes()
    }

    async fn read(&self, guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        match self {
            Self::Image(disk) => disk.read(guest, offset, bytes).await,
            Self::Writable(overlay) => overlay.read(guest, offset, bytes).await,
        }
    }

    fn read_ready(&self, guest: GuestId, offset: u64, bytes: u32) -> Option<Vec<Bytes>> {
        match self {
            Self::Image(disk) => disk.read_ready(guest, offset, bytes),
            Self::Writable(overlay) => overlay.read_ready(guest, offset, bytes),
        }
    }

    async fn extents(&self, guest: GuestId, offset: u64, bytes: u64, max: usize) -> Result<Vec<Extent>, DiskError> {
        match self {
            Self::Image(disk) => disk.extents(guest, offset, bytes, max).await,
            Self::Writable(overlay) => overlay.extents(guest, offset, bytes, max).await,
        }
    }

    fn is_writable(&self) -> bool {
        matches!(self, Self::Writable(_))
    }

    async fn write(&self, guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        match self {
            Self::Image(disk) => disk.write(guest, offset, data).await,
            Self::Writable(overlay) => overlay.write(guest, offset, data).await,
        }
    }

    async fn write_zeroes(&self, guest: GuestId, offset: u64, bytes: u64, may_trim: bool) -> Result<(), DiskError> {
        match self {
            Self::Image(disk) => disk.write_zeroes(guest, offset, bytes, may_trim).await,
            Self::Writable(overlay) => overlay.write_zeroes(guest, offset, bytes, may_trim).await,
        }
    }

    async fn trim(&self, guest: GuestId, offset: u64, bytes: u64) -> Result<(), DiskError> {
        match self {
            Self::Image(disk) => disk.trim(guest, offset, bytes).await,
            Self::Writable(overlay) => overlay.trim(guest, offset, bytes).await,
        }
    }

    async fn flush(&self) -> Result<(), DiskError> {
        match self {
            Self::Image(disk) => disk.flush().await,
            Self::Writable(overlay) => overlay.flush().await,
        }
    }
}
