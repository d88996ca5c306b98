//! One request of a guest: the disk asked, data copied to or from the guest's memory.
//!
//! *Invariants*: whatever a guest asks for, the answer is a status. The last sector is padded with zeros where the disk ends
//! within it; what is written to the padding is dropped. A guest that does not know how to flush finds its writes durable
//! when they are answered. *Units*: bytes; sectors of 512 bytes. *Bounds*: of a request's data [`PIECE_BYTES`] are held at a
//! time, once, and only a write's are copied.

use super::chain::{Buffer, Memory, Request, u32_at};
use super::config::{RANGE_SECTORS_MAX, RANGES_MAX, SECTOR_SHIFT, sectors};
use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::disk::{Disk, DiskError, zero_segments};
use swarmdisk_host::log;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::guest_memory::Error as MemoryError;

/// A device is one guest, as an NBD server's unnamed export is.
const GUEST: GuestId = GuestId(0);
/// What is read or written at a time, in bytes: more than guests ask for by themselves.
pub(super) const PIECE_BYTES: u64 = 4 << 20;
/// A range to discard or to make zeros: its first sector (8 bytes), their number (4), flags (4).
const RANGE_BYTES: usize = 16;

/// What requests are answered from.
pub(super) struct Target<D> {
    disk: Arc<D>,
    serial: [u8; VIRTIO_BLK_ID_BYTES as usize],
    writes_through: AtomicBool,
    has_failed: AtomicBool,
}

/// How a request ended.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Done {
    /// `VIRTIO_BLK_S_…`.
    pub(super) status: u8,
    /// Bytes written to the guest's memory, without the status.
    pub(super) written_bytes: u32,
}

impl Done {
    pub(super) const FAILED: Self = Self { status: VIRTIO_BLK_S_IOERR as u8, written_bytes: 0 };
}

#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error("its memory is not where it says: {0}")]
    Memory(#[from] MemoryError),
    #[error("it asks for what cannot be: {0}")]
    Malformed(&'static str),
    #[error("it asks for what was not offered ({0})")]
    Unsupported(&'static str),
}

/// Part of the disk that a guest names.
struct Range {
    offset: u64,
    bytes: u64,
    flags: u32,
}

impl<D: Disk> Target<D> {
    pub(super) fn new(disk: Arc<D>, serial: &str) -> Self {
        let mut padded = [0; VIRTIO_BLK_ID_BYTES as usize];
        padded.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        Self { disk, serial: padded, writes_through: AtomicBool::new(false), has_failed: AtomicBool::new(false) }
    }

    /// Whether writes are to be durable when they are answered.
    pub(super) fn set_write_through(&self, writes_through: bool) {
        self.writes_through.store(writes_through, Relaxed);
    }

    /// Answers a request.
    pub(super) async fn serve(&self, memory: &Memory, request: Request) -> Done {
        match self.try_serve(memory, request).await {
            Ok(written_bytes) => Done { status: VIRTIO_BLK_S_OK as u8, written_bytes },
            Err(RequestError::Unsupported(what)) => {
                self.tell(&RequestError::Unsupported(what));
                Done { status: VIRTIO_BLK_S_UNSUPP as u8, written_bytes: 0 }
            }
            Err(error) => {
                self.tell(&error);
                Done::FAILED
            }
        }
    }

    /// Answers what is no request.
    pub(super) fn refuse(&self, why: &'static str) -> Done {
        self.tell(&RequestError::Malformed(why));
        Done::FAILED
    }

    /// The guest's own words do not say why, and a failing disk fails often.
    fn tell(&self, error: &RequestError) {
        if !self.has_failed.swap(true, Relaxed) {
            log::warn(format_args!("a request of the guest failed: {error} (later ones are not told)"));
        }
    }

    /// The bytes written to the guest's memory.
    async fn try_serve(&self, memory: &Memory, request: Request) -> Result<u32, RequestError> {
        let Request { kind, sector, given, mut wanted } = request;
        match kind {
            VIRTIO_BLK_T_IN => self.read(memory, sector, wanted).await,
            VIRTIO_BLK_T_OUT => self.write(memory, sector, given).await,
            VIRTIO_BLK_T_FLUSH => self.disk.flush().await.map(|()| 0).map_err(RequestError::from),
            VIRTIO_BLK_T_GET_ID => {
                let bytes = self.serial.len().min(wanted.bytes() as usize);
                wanted.fill(memory, &self.serial[..bytes])?;
                Ok(bytes as u32)
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                let is_discard = kind == VIRTIO_BLK_T_DISCARD;
                self.clear(memory, given, is_discard).await
            }
            _ => Err(RequestError::Unsupported("its kind")),
        }
    }

    async fn read(&self, memory: &Memory, sector: u64, mut wanted: Buffer) -> Result<u32, RequestError> {
        let mut range = self.range(sector, wanted.bytes(), 0)?;
        let all = range.bytes as u32;
        while range.bytes > 0 {
            let bytes = range.bytes.min(PIECE_BYTES);
            let within = self.within(range.offset, bytes);
            let segments = self.disk.read(GUEST, range.offset, within as u32).await?;
            for segment in segments.into_iter().chain(zero_segments((bytes - within) as usize)) {
                wanted.fill(memory, &segment)?;
            }
            range.offset += bytes;
            range.bytes -= bytes;
        }
        Ok(all)
    }

    async fn write(&self, memory: &Memory, sector: u64, mut given: Buffer) -> Result<u32, RequestError> {
        if !self.disk.is_writable() {
            return Err(DiskError::ReadOnly.into());
        }
        let mut range = self.range(sector, given.bytes(), 0)?;
        while range.bytes > 0 {
            let bytes = range.bytes.min(PIECE_BYTES);
            let mut data = BytesMut::zeroed(bytes as usize);
            given.take(memory, &mut data)?;
            data.truncate(self.within(range.offset, bytes) as usize);
            self.disk.write(GUEST, range.offset, data.freeze()).await?;
            range.offset += bytes;
            range.bytes -= bytes;
        }
        self.settle().await
    }

    /// Discards ranges, or makes them zeros. All are looked at before any is touched.
    async fn clear(&self, memory: &Memory, mut given: Buffer, is_discard: bool) -> Result<u32, RequestError> {
        if !self.disk.is_writable() {
            return Err(RequestError::Unsupported("writing"));
        }
        let bytes = given.bytes();
        if bytes == 0 || bytes > RANGE_BYTES as u64 * u64::from(RANGES_MAX) || !bytes.is_multiple_of(RANGE_BYTES as u64)
        {
            return Err(RequestError::Malformed("a list of ranges that is none"));
        }
        let mut list = vec![0; bytes as usize];
        given.take(memory, &mut list)?;
        let flags_allowed = if is_discard { 0 } else { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
        let mut ranges = Vec::with_capacity(list.len() / RANGE_BYTES);
        for entry in list.chunks_exact(RANGE_BYTES) {
            let [low, high, sectors, flags] = [0, 4, 8, 12].map(|at| u32_at(entry, at));
            if flags & !flags_allowed != 0 {
                return Err(RequestError::Unsupported("a range's flags"));
            }
            if sectors > RANGE_SECTORS_MAX {
                return Err(RequestError::Malformed("a range that is too long"));
            }
            let bytes = u64::from(sectors) << SECTOR_SHIFT;
            ranges.push(self.range(u64::from(low) | u64::from(high) << 32, bytes, flags)?);
        }
        for Range { offset, bytes, flags } in ranges {
            let within = self.within(offset, bytes);
            if is_discard {
                self.disk.trim(GUEST, offset, within).await?;
            } else {
                self.disk.write_zeroes(GUEST, offset, within, flags != 0).await?;
            }
        }
        self.settle().await
    }

    /// After what was written.
    async fn settle(&self) -> Result<u32, RequestError> {
        if self.writes_through.load(Relaxed) {
            self.disk.flush().await?;
        }
        Ok(0)
    }

    fn range(&self, sector: u64, bytes: u64, flags: u32) -> Result<Range, RequestError> {
        if !bytes.is_multiple_of(1 << SECTOR_SHIFT) {
            return Err(RequestError::Malformed("a part of a sector"));
        }
        match sector.checked_add(bytes >> SECTOR_SHIFT) {
            Some(end) if end <= sectors(&*self.disk) => Ok(Range { offset: sector << SECTOR_SHIFT, bytes, flags }),
            _ => Err(RequestError::Malformed("a sector beyond the end of the disk")),
        }
    }

    /// How many bytes of a range the disk has.
    fn within(&self, offset: u64, bytes: u64) -> u64 {
        bytes.min(self.disk.image_bytes().saturating_sub(offset))
    }
}
