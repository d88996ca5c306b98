//! The seam between what guests attach (NBD, ublk, iSCSI) and what gives the bytes (a node, a file).
//!
//! *Purpose*: exports are generic over [`Disk`]; a node, a complete store, a raw file ([`FileDisk`]) or another server
//! implement it. Most are read-only: writing is there by default and refuses.
//! *Invariants*: segments and extents are in order, without gaps, and never empty. Dropping a read's future gives the
//! read up; a write whose future is dropped may have been done, in part or not at all. *Units*: bytes.
//! *Bounds*: a read is at most `u32::MAX` bytes here; exports ask for at most 32 MiB.

use crate::file::{next_data, next_hole, read_exact_at};
use bytes::{Bytes, BytesMut};
use std::error::Error;
use std::fs::File;
use std::future::{Future, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use swarmdisk_core::ids::GuestId;
use tokio::task::spawn_blocking;

/// A disk as guests see it.
pub trait Disk: Send + Sync + 'static {
    /// Size of the disk in bytes.
    fn image_bytes(&self) -> u64;

    /// Preferred size of a read in bytes: a power of two from 512 to 32 MiB (the chunk size).
    fn preferred_bytes(&self) -> u32;

    /// `bytes` bytes from `offset` on, as consecutive segments, so that chunks in memory need no copy. A segment known
    /// to be zero is best taken from [`zero_segments`], by which exports recognise a hole.
    ///
    /// # Errors
    /// [`DiskError::OutOfRange`] if the disk ends before; [`DiskError::TimedOut`] if nobody had the bytes in time;
    /// [`DiskError::Failed`] if they cannot be had. Nothing has changed, the read may be tried again.
    fn read(
        &self,
        guest: GuestId,
        offset: u64,
        bytes: u32,
    ) -> impl Future<Output = Result<Vec<Bytes>, DiskError>> + Send;

    /// The same at once, if that costs no more than a copy of the bytes and waits for nothing; none if not, or if
    /// [`read`](Self::read) would fail.
    fn read_ready(&self, guest: GuestId, offset: u64, bytes: u32) -> Option<Vec<Bytes>> {
        let _ = (guest, offset, bytes);
        None
    }

    /// The extents of `offset..offset + bytes`, in order, neighbours of one kind merged. At least one unless `bytes` or
    /// `max` is 0; they may end before the range does, the rest is then to be asked for again. At most `max`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn extents(
        &self,
        guest: GuestId,
        offset: u64,
        bytes: u64,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Extent>, DiskError>> + Send;

    /// Whether guests may write; the same for as long as the disk lives.
    fn is_writable(&self) -> bool {
        false
    }

    /// Writes `data` at `offset`. Reads that begin after the answer see it; a crash may lose it until a
    /// [`flush`](Self::flush) that began after the answer has succeeded.
    ///
    /// # Errors
    /// [`DiskError::ReadOnly`], [`DiskError::Full`], [`DiskError::OutOfRange`], or as [`read`](Self::read). After an
    /// error each sector of 512 bytes holds what it held or what was to be written.
    fn write(&self, guest: GuestId, offset: u64, data: Bytes) -> impl Future<Output = Result<(), DiskError>> + Send {
        let _ = (guest, offset, data);
        ready(Err(DiskError::ReadOnly))
    }

    /// Writes zeros. With `may_trim` their space may be given back; without, later writes there should find it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_zeroes(
        &self,
        guest: GuestId,
        offset: u64,
        bytes: u64,
        may_trim: bool,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        let _ = (guest, offset, bytes, may_trim);
        ready(Err(DiskError::ReadOnly))
    }

    /// The guest has no more use for the range: what can be cheaply is made zeros and its space given back, the rest
    /// stays as it is.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn trim(&self, guest: GuestId, offset: u64, bytes: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        let _ = (guest, offset, bytes);
        ready(Err(DiskError::ReadOnly))
    }

    /// Makes all writes, zeros and trims that were answered before durable. A read-only disk has nothing to do.
    ///
    /// # Errors
    /// [`DiskError::Full`] or [`DiskError::Failed`]: nothing can be said of what was not durable before.
    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        ready(Ok(()))
    }
}

/// A run of bytes of one kind.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub bytes: u64,
    /// What they are.
    pub kind: ExtentKind,
}

/// What a run of bytes is.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ExtentKind {
    /// Anything.
    Data,
    /// Zeros for certain.
    Zero,
}

/// Why a disk could not answer. The disk is as it was, but for a write that was done in part.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The guest (or who attached it) is at fault.
    #[error("{bytes} bytes at {offset} reach beyond the end of the disk at {image_bytes}; read within it")]
    OutOfRange {
        /// Where the range begins.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// Size of the disk.
        image_bytes: u64,
    },
    /// Guests may not write here.
    #[error("the disk is read-only; attach it with --overlay to write")]
    ReadOnly,
    /// There is no room for what was to be written.
    #[error("no space is left for what guests write; make room, then it goes on")]
    Full,
    /// Nobody had the bytes in time.
    #[error("no peer or origin answered within {}; check that one runs, or raise --io-timeout", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The bytes cannot be had: the source says why and what to do.
    #[error("{0}")]
    Failed(Arc<dyn Error + Send + Sync>),
}

impl DiskError {
    /// [`Failed`](Self::Failed) for this reason.
    pub fn failed(reason: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(reason))
    }
}

/// Whether `offset..offset + bytes` lies within a disk of `image_bytes`.
///
/// # Errors
/// [`DiskError::OutOfRange`] if it does not.
pub fn check_range(image_bytes: u64, offset: u64, bytes: u64) -> Result<(), DiskError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= image_bytes => Ok(()),
        _ => Err(DiskError::OutOfRange { offset, bytes, image_bytes }),
    }
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Segments of zeros, `bytes` long in all, that take no memory of their own.
pub fn zero_segments(bytes: usize) -> impl Iterator<Item = Bytes> {
    let whole = Bytes::from_static(&ZEROS);
    (0..bytes).step_by(ZEROS.len()).map(move |done| whole.slice(..ZEROS.len().min(bytes - done)))
}

/// Whether this segment came from [`zero_segments`]. It does not look at the bytes.
pub fn is_zero_segment(segment: &Bytes) -> bool {
    ZEROS.as_ptr_range().contains(&segment.as_ptr())
}

/// Appends an extent, merged with the last one if they are of one kind.
pub fn push_extent(extents: &mut Vec<Extent>, extent: Extent) {
    match extents.last_mut() {
        _ if extent.bytes == 0 => {}
        Some(last) if last.kind == extent.kind => last.bytes += extent.bytes,
        _ => extents.push(extent),
    }
}

impl<D: Disk> Disk for Arc<D> {
    fn image_bytes(&self) -> u64 {
        (**self).image_bytes()
    }

    fn preferred_bytes(&self) -> u32 {
        (**self).preferred_bytes()
    }

    fn read(
        &self,
        guest: GuestId,
        offset: u64,
        bytes: u32,
    ) -> impl Future<Output = Result<Vec<Bytes>, DiskError>> + Send {
        (**self).read(guest, offset, bytes)
    }

    fn read_ready(&self, guest: GuestId, offset: u64, bytes: u32) -> Option<Vec<Bytes>> {
        (**self).read_ready(guest, offset, bytes)
    }

    fn extents(
        &self,
        guest: GuestId,
        offset: u64,
        bytes: u64,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Extent>, DiskError>> + Send {
        (**self).extents(guest, offset, bytes, max)
    }

    fn is_writable(&self) -> bool {
        (**self).is_writable()
    }

    fn write(&self, guest: GuestId, offset: u64, data: Bytes) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).write(guest, offset, data)
    }

    fn write_zeroes(
        &self,
        guest: GuestId,
        offset: u64,
        bytes: u64,
        may_trim: bool,
    ) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).write_zeroes(guest, offset, bytes, may_trim)
    }

    fn trim(&self, guest: GuestId, offset: u64, bytes: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).trim(guest, offset, bytes)
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        (**self).flush()
    }
}

/// A raw image in a file or on a block device, read on blocking threads. Holes of a sparse file are zero extents.
#[derive(Debug)]
pub struct FileDisk {
    file: Arc<File>,
    path: Arc<Path>,
    image_bytes: u64,
}

/// Why a raw file cannot be a disk, or could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileDiskError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileDisk {
    const PREFERRED_BYTES: u32 = 64 * 1024;

    /// Opens a file or block device for reading; its size is taken once, now.
    ///
    /// # Errors
    /// [`FileDiskError`] if it cannot be opened or its size cannot be told.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileDiskError> {
        let path = path.as_ref();
        let fail = |action| move |source| FileDiskError { action, path: path.to_owned(), source };
        let mut file = File::open(path).map_err(fail("open"))?;
        // The metadata of a block device says 0.
        let image_bytes = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(fail("tell the size of"))?;
        Ok(Self { file: Arc::new(file), path: path.into(), image_bytes })
    }

    /// Runs `work` on a blocking thread; its errors get the path.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        let file = Arc::clone(&self.file);
        let done = spawn_blocking(move || work(&file)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|source| {
            DiskError::failed(FileDiskError { action: "read", path: self.path.to_path_buf(), source })
        })
    }
}

impl Disk for FileDisk {
    fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    fn preferred_bytes(&self) -> u32 {
        Self::PREFERRED_BYTES
    }

    async fn read(&self, _guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        check_range(self.image_bytes, offset, bytes.into())?;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let read = move |file: &File| {
            let mut buffer = BytesMut::zeroed(bytes as usize);
            read_exact_at(file, &mut buffer, offset)?;
            Ok(vec![buffer.freeze()])
        };
        self.blocking(read).await
    }

    async fn extents(&self, _guest: GuestId, offset: u64, bytes: u64, max: usize) -> Result<Vec<Extent>, DiskError> {
        check_range(self.image_bytes, offset, bytes)?;
        self.blocking(move |file| Ok(file_extents(file, offset, offset + bytes, max))).await
    }
}

/// Extents of `offset..end`; all data where the system does not tell holes.
fn file_extents(file: &File, mut offset: u64, end: u64, max: usize) -> Vec<Extent> {
    let mut extents = Vec::new();
    while offset < end && extents.len() < max {
        let data = next_data(file, offset).unwrap_or(offset).min(end);
        if data > offset {
            push_extent(&mut extents, Extent { bytes: data - offset, kind: ExtentKind::Zero });
            offset = data;
            continue;
        }
        // A hole that begins here means that the file changed in between: data is always a safe answer.
        let hole = next_hole(file, offset).unwrap_or(end).min(end);
        push_extent(&mut extents, Extent { bytes: hole - offset, kind: ExtentKind::Data });
        offset = hole;
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const GUEST: GuestId = GuestId(0);

    #[tokio::test]
    async fn reads_and_extents_of_a_sparse_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 65536]).unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let disk = FileDisk::open(file.path()).unwrap();
        assert_eq!(disk.image_bytes(), 1 << 20);
        let read = disk.read(GUEST, 65535, 2).await.unwrap().concat();
        assert_eq!(read, [7, 0]);
        assert!(matches!(disk.read(GUEST, (1 << 20) - 1, 2).await, Err(DiskError::OutOfRange { .. })));
        assert!(matches!(disk.read(GUEST, u64::MAX, 2).await, Err(DiskError::OutOfRange { .. })));
        let extents = disk.extents(GUEST, 0, 1 << 20, 16).await.unwrap();
        assert_eq!(extents.iter().map(|e| e.bytes).sum::<u64>(), 1 << 20);
        assert_eq!(disk.extents(GUEST, 0, 1 << 20, 1).await.unwrap().len(), 1);
    }

    #[test]
    fn zero_segments_are_recognised() {
        let segments: Vec<_> = zero_segments(200_000).collect();
        assert_eq!(segments.iter().map(Bytes::len).sum::<usize>(), 200_000);
        assert!(segments.iter().all(is_zero_segment));
        assert!(!is_zero_segment(&Bytes::from_static(&[0; 4])));
        assert_eq!(zero_segments(0).count(), 0);
    }
}
