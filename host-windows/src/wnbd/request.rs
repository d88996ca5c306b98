//! One request of Windows: the disk asked, and the answer in SCSI's words.
//!
//! *Purpose*: what is not the DLL's interface, so that it is tested on every system. *Invariants*: each request gets one
//! answer, after [`PATIENCE`] at the latest; a read is answered whole or not at all. The last block is padded with zeros
//! where the disk ends within it; what is written to the padding is dropped. *Units*: blocks of 512 bytes.
//! *Bounds*: a request is at most [`BYTES_MAX`] long.

use super::abi::{self, BLOCK_BYTES, Status, UnmapDescriptor, request_type};
use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::disk::{Disk, DiskError, zero_segments};
use swarmdisk_host::log;
use tokio::time::timeout;

/// How long a request may take before Windows is asked to come again. The driver removes a disk that has not answered for
/// a minute, and Windows gives a request up after as long; what came of it until then is kept, so that the next try has
/// less to fetch.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The largest request.
pub const BYTES_MAX: u64 = abi::TRANSFER_BYTES_MAX as u64;
/// A disk is one guest, as an NBD server's unnamed export is.
const GUEST: GuestId = GuestId(0);

/// What Windows asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Bytes.
    Read {
        /// The first block.
        block: u64,
        /// How many.
        count: u32,
    },
    /// To keep bytes.
    Write {
        /// The first block.
        block: u64,
        /// Whole blocks.
        data: Bytes,
        /// Whether they are durable when it is answered.
        is_durable: bool,
    },
    /// To make durable what was answered before.
    Flush,
    /// To forget ranges.
    Unmap(Vec<UnmapDescriptor>),
    /// What cannot be: answered with a refusal.
    Malformed(u32),
}

impl Request {
    /// Which of [`request_type`] it is.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Read { .. } => request_type::READ,
            Self::Write { .. } => request_type::WRITE,
            Self::Flush => request_type::FLUSH,
            Self::Unmap(_) => request_type::UNMAP,
            Self::Malformed(kind) => *kind,
        }
    }

    /// The memory that it takes until it is answered, in bytes.
    pub fn held_bytes(&self) -> u64 {
        match self {
            Self::Read { count, .. } => u64::from(*count) * u64::from(BLOCK_BYTES),
            Self::Write { data, .. } => data.len() as u64,
            Self::Flush | Self::Unmap(_) | Self::Malformed(_) => 0,
        }
    }
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub status: Status,
    /// What was read.
    pub data: Bytes,
}

/// What requests are answered from.
pub struct Target<D> {
    disk: D,
    block_count: u64,
    has_failed: AtomicBool,
    has_waited: AtomicBool,
}

impl<D: Disk> Target<D> {
    /// Over this disk.
    pub fn new(disk: D) -> Self {
        let block_count = disk.image_bytes().div_ceil(BLOCK_BYTES.into());
        Self { disk, block_count, has_failed: AtomicBool::new(false), has_waited: AtomicBool::new(false) }
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Its size in blocks, the last one padded.
    pub fn block_count(&self) -> u64 {
        self.block_count
    }

    /// Answers a read of what needs no waiting; none for all else.
    pub fn serve_ready(&self, request: &Request) -> Option<Answer> {
        let Request::Read { block, count } = *request else { return None };
        let range = self.range(request_type::READ, block, count.into()).ok()?;
        let segments = self.disk.read_ready(GUEST, range.offset, range.within as u32)?;
        Some(Answer { status: Status::default(), data: joined(segments, range.padding()) })
    }

    /// Answers a request.
    pub async fn serve(&self, request: Request) -> Answer {
        let outcome = match timeout(PATIENCE, self.try_serve(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RequestError::Slow),
        };
        match outcome {
            Ok(data) => Answer { status: Status::default(), data },
            Err(error) => {
                self.tell(&error);
                Answer { status: error.status(), data: Bytes::new() }
            }
        }
    }

    async fn try_serve(&self, request: Request) -> Result<Bytes, RequestError> {
        match request {
            Request::Read { block, count } => {
                let range = self.range(request_type::READ, block, count.into())?;
                let segments = self.disk.read(GUEST, range.offset, range.within as u32).await.map_err(read_failed)?;
                return Ok(joined(segments, range.padding()));
            }
            Request::Write { block, data, is_durable } => {
                let blocks = data.len() as u64 / u64::from(BLOCK_BYTES);
                let range = self.range(request_type::WRITE, block, blocks)?;
                self.disk
                    .write(GUEST, range.offset, data.slice(..range.within as usize))
                    .await
                    .map_err(write_failed)?;
                if is_durable {
                    self.disk.flush().await.map_err(write_failed)?;
                }
            }
            Request::Flush => self.disk.flush().await.map_err(write_failed)?,
            Request::Unmap(ranges) => {
                for range in ranges {
                    let range = self.place(range.block_address, range.block_count.into())?;
                    self.disk.trim(GUEST, range.offset, range.within).await.map_err(write_failed)?;
                }
            }
            Request::Malformed(kind) => return Err(RequestError::Malformed(kind)),
        }
        Ok(Bytes::new())
    }

    /// The bytes of a request that moves data.
    fn range(&self, kind: u32, block: u64, count: u64) -> Result<Range, RequestError> {
        let range = self.place(block, count)?;
        if range.bytes > BYTES_MAX { Err(RequestError::Malformed(kind)) } else { Ok(range) }
    }

    fn place(&self, block: u64, count: u64) -> Result<Range, RequestError> {
        match block.checked_add(count) {
            Some(end) if end <= self.block_count => {}
            _ => return Err(RequestError::OutOfRange { block, count }),
        }
        let (offset, bytes) = (block * u64::from(BLOCK_BYTES), count * u64::from(BLOCK_BYTES));
        Ok(Range { offset, bytes, within: bytes.min(self.disk.image_bytes().saturating_sub(offset)) })
    }

    /// Windows does not say why a request failed, and a failing disk fails often.
    fn tell(&self, error: &RequestError) {
        let told = if matches!(error, RequestError::Slow) { &self.has_waited } else { &self.has_failed };
        if !told.swap(true, Relaxed) {
            log::warn(format_args!("a request of Windows failed: {error} (later ones are not told)"));
        }
    }
}

/// Bytes of the disk.
struct Range {
    offset: u64,
    bytes: u64,
    /// How many of them the disk has: the rest is padding.
    within: u64,
}

impl Range {
    fn padding(&self) -> usize {
        (self.bytes - self.within) as usize
    }
}

/// One piece of memory, as the DLL takes no other.
fn joined(mut segments: Vec<Bytes>, padding: usize) -> Bytes {
    if padding == 0 && segments.len() == 1 {
        return segments.remove(0);
    }
    let bytes = segments.iter().map(Bytes::len).sum::<usize>() + padding;
    let mut all = BytesMut::with_capacity(bytes);
    segments.into_iter().chain(zero_segments(padding)).for_each(|segment| all.extend_from_slice(&segment));
    all.freeze()
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{0}")]
    Read(DiskError),
    #[error("{0}")]
    Write(DiskError),
    #[error("nobody had the bytes within {} s; Windows was told to try again", PATIENCE.as_secs())]
    Slow,
    #[error("{count} blocks at block {block} are beyond the end of the disk")]
    OutOfRange { block: u64, count: u64 },
    #[error("it is of a form that the driver does not send (kind {0})")]
    Malformed(u32),
}

fn read_failed(error: DiskError) -> RequestError {
    RequestError::Read(error)
}

fn write_failed(error: DiskError) -> RequestError {
    RequestError::Write(error)
}

impl RequestError {
    /// In SCSI's words (SPC-4, sections 4.5 and D.2).
    fn status(&self) -> Status {
        match self {
            Self::Read(DiskError::OutOfRange { .. })
            | Self::Write(DiskError::OutOfRange { .. })
            | Self::OutOfRange { .. } => sense::BEYOND_END,
            Self::Malformed(_) => sense::INVALID_FIELD,
            Self::Slow => sense::BECOMING_READY,
            Self::Write(DiskError::ReadOnly) => sense::WRITE_PROTECTED,
            Self::Write(DiskError::Full) => sense::NO_SPACE,
            Self::Read(_) => sense::READ_ERROR,
            Self::Write(_) => sense::WRITE_ERROR,
        }
    }
}

/// What a status may say.
pub mod sense {
    use super::Status;

    const fn check_condition(sense_key: u8, asc: u8, ascq: u8) -> Status {
        Status { scsi_status: 2, sense_key, asc, ascq, information: 0, reserved_csi: 0, reserved_sks: 0, flags: 0 }
    }

    /// Not ready, in process of becoming ready: Windows waits and tries again.
    pub const BECOMING_READY: Status = check_condition(0x02, 0x04, 0x01);
    /// Medium error, unrecovered read error.
    pub const READ_ERROR: Status = check_condition(0x03, 0x11, 0);
    /// Medium error, write error.
    pub const WRITE_ERROR: Status = check_condition(0x03, 0x0c, 0);
    /// Illegal request, logical block address out of range.
    pub const BEYOND_END: Status = check_condition(0x05, 0x21, 0);
    /// Illegal request, invalid field in the command.
    pub const INVALID_FIELD: Status = check_condition(0x05, 0x24, 0);
    /// Data protect, write protected.
    pub const WRITE_PROTECTED: Status = check_condition(0x07, 0x27, 0);
    /// Data protect, space allocation failed: what Windows knows of thin disks.
    pub const NO_SPACE: Status = check_condition(0x07, 0x27, 0x07);
}

#[cfg(test)]
mod tests;
