//! One request of a guest: the disk asked, data copied to or from the guest's pages.
//!
//! *Invariants*: a request's answer is the bytes done, or an error's number below 0; a read is answered whole or not at
//! all. The last sector is padded with zeros where the disk ends within it; what is written to the padding is dropped.
//! *Units*: bytes. *Bounds*: a request's data is held once, and only a write's is copied.

use super::abi::{Descriptor, data_position, op};
use bytes::BytesMut;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::disk::{Disk, DiskError, zero_segments};
use swarmdisk_host::log;

/// A device is one guest, as an NBD server's unnamed export is.
const GUEST: GuestId = GuestId(0);

/// What requests are answered from.
pub(super) struct Target<D> {
    disk: Arc<D>,
    device: Arc<File>,
    has_failed: AtomicBool,
}

/// Which request.
#[derive(Debug, Copy, Clone)]
pub(super) struct Place {
    pub(super) queue: u16,
    pub(super) tag: u16,
}

#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error("the guest's pages cannot be reached: {0}")]
    Copy(#[from] io::Error),
    #[error("the kernel asks for what was not offered (operation {0})")]
    Unknown(u8),
}

impl<D: Disk> Target<D> {
    pub(super) fn new(disk: Arc<D>, device: Arc<File>) -> Self {
        Self { disk, device, has_failed: AtomicBool::new(false) }
    }

    /// Answers a request.
    pub(super) async fn serve(&self, place: Place, request: Descriptor) -> i32 {
        match self.try_serve(place, request).await {
            Ok(()) => i32::try_from(request.bytes()).unwrap_or(i32::MAX),
            Err(error) => {
                // The kernel's own words do not say why, and a failing disk fails often.
                if !self.has_failed.swap(true, Relaxed) {
                    log::warn(format_args!("a request of the guest failed: {error} (later ones are not told)"));
                }
                -error.number().raw_os_error()
            }
        }
    }

    async fn try_serve(&self, place: Place, request: Descriptor) -> Result<(), RequestError> {
        match request.op() {
            op::READ => self.read(place, request).await,
            op::WRITE => self.write(place, request).await,
            op::WRITE_ZEROES => {
                let (offset, within) = self.within(&request);
                Ok(self.disk.write_zeroes(GUEST, offset, within, request.may_unmap()).await?)
            }
            op::DISCARD => {
                let (offset, within) = self.within(&request);
                Ok(self.disk.trim(GUEST, offset, within).await?)
            }
            op::FLUSH => Ok(self.disk.flush().await?),
            unknown => Err(RequestError::Unknown(unknown)),
        }?;
        // Only what writes has this flag.
        if request.is_fua() { Ok(self.disk.flush().await?) } else { Ok(()) }
    }

    async fn read(&self, place: Place, request: Descriptor) -> Result<(), RequestError> {
        let (offset, within) = self.within(&request);
        let segments = self.disk.read(GUEST, offset, within as u32).await?;
        let mut position = data_position(place.queue, place.tag);
        for segment in segments.into_iter().chain(zero_segments((request.bytes() - within) as usize)) {
            self.device.write_all_at(&segment, position)?;
            position += segment.len() as u64;
        }
        Ok(())
    }

    async fn write(&self, place: Place, request: Descriptor) -> Result<(), RequestError> {
        let (offset, within) = self.within(&request);
        let mut data = BytesMut::zeroed(within as usize);
        self.device.read_exact_at(&mut data, data_position(place.queue, place.tag))?;
        Ok(self.disk.write(GUEST, offset, data.freeze()).await?)
    }

    /// Where a request begins, and how many bytes of its range the disk has.
    fn within(&self, request: &Descriptor) -> (u64, u64) {
        let offset = request.offset();
        (offset, request.bytes().min(self.disk.image_bytes().saturating_sub(offset)))
    }
}

impl RequestError {
    fn number(&self) -> Errno {
        match self {
            Self::Unknown(_) => Errno::OPNOTSUPP,
            Self::Disk(DiskError::Full) => Errno::NOSPC,
            Self::Disk(DiskError::ReadOnly) => Errno::PERM,
            Self::Disk(_) | Self::Copy(_) => Errno::IO,
        }
    }
}
