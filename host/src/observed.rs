//! A disk that is watched: requests and bytes counted, latencies of reads recorded, and if wished every read and write
//! written to a trace.
//!
//! *Invariants*: a request is counted and traced when it begins, in the order of the trace's times; a read's latency when
//! it is answered without an error. What is out of range is passed on but neither counted nor traced, nor are trims and
//! what a read-only disk refuses; zeros written are a write. Requests of all guests go into one trace.
//! *Units*: bytes, microseconds since the first request.
//! *Bounds*: those of a file written in the background; where the trace ends early, [`Observed::finish`] says so.

use crate::background::BackgroundFile;
use crate::disk::{Disk, DiskError, Extent};
use crate::latency::{LatencyMicros, LatencyRecorder};
use bytes::Bytes;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use swarmdisk_common::trace::{Op, REQUEST_BYTES_MAX, Request};
use swarmdisk_core::ids::GuestId;

/// Wraps a disk and watches it.
#[derive(Debug)]
pub struct Observed<D> {
    disk: D,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    latency: LatencyRecorder,
    recorder: OnceLock<TraceRecorder>,
}

/// What was seen so far.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Observations {
    /// Reads begun.
    pub reads: u64,
    /// Bytes asked for by them.
    pub read_bytes: u64,
    /// Writes begun, of zeros too.
    pub writes: u64,
    /// Bytes that they were to write.
    pub written_bytes: u64,
    /// How long those took that were answered.
    pub latency: LatencyMicros,
}

impl<D: Disk> Observed<D> {
    /// Watches `disk`, without a trace.
    pub fn new(disk: D) -> Self {
        Self {
            disk,
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            latency: LatencyRecorder::new(),
            recorder: OnceLock::new(),
        }
    }

    /// Watches `disk` and writes every read and write to a new file at `path`; one that is there is replaced.
    ///
    /// # Errors
    /// [`RecordError`] if the file cannot be made.
    pub fn recording(disk: D, path: &Path) -> Result<Self, RecordError> {
        let observed = Self::new(disk);
        observed.record_to(path)?;
        Ok(observed)
    }

    /// From now on writes every read and write to a new file at `path`; one that is there is replaced. To be called once.
    ///
    /// # Errors
    /// [`RecordError`] if the file cannot be made.
    pub fn record_to(&self, path: &Path) -> Result<(), RecordError> {
        // A second trace would end at once.
        let _ = self.recorder.set(TraceRecorder::create(path)?);
        Ok(())
    }

    /// What was seen so far.
    pub fn observations(&self) -> Observations {
        Observations {
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            latency: self.latency.summary(),
        }
    }

    /// Writes what is left of the trace; later requests are not traced. Blocks for as long as the file takes.
    ///
    /// # Errors
    /// [`RecordError`] if the file does not hold all requests, now or at any time before.
    pub fn finish(&self) -> Result<(), RecordError> {
        self.recorder.get().map_or(Ok(()), TraceRecorder::finish)
    }

    /// The disk that is watched.
    pub fn inner(&self) -> &D {
        &self.disk
    }

    /// Counts and traces a write that is about to begin.
    fn note_write(&self, offset: u64, bytes: u64) -> Result<(), DiskError> {
        crate::disk::check_range(self.disk.image_bytes(), offset, bytes)?;
        if !self.disk.is_writable() {
            return Ok(());
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(recorder) = self.recorder.get() {
            recorder.record(Op::Write, offset, bytes);
        }
        Ok(())
    }
}

impl<D: Disk> Disk for Observed<D> {
    fn image_bytes(&self) -> u64 {
        self.disk.image_bytes()
    }

    fn preferred_bytes(&self) -> u32 {
        self.disk.preferred_bytes()
    }

    async fn read(&self, guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        crate::disk::check_range(self.disk.image_bytes(), offset, bytes.into())?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
        if let Some(recorder) = self.recorder.get() {
            recorder.record(Op::Read, offset, bytes.into());
        }
        let start = Instant::now();
        let segments = self.disk.read(guest, offset, bytes).await?;
        self.latency.record(start.elapsed());
        Ok(segments)
    }

    fn read_ready(&self, guest: GuestId, offset: u64, bytes: u32) -> Option<Vec<Bytes>> {
        let start = Instant::now();
        let segments = self.disk.read_ready(guest, offset, bytes)?;
        // Only now: what is not ready is counted when it is read.
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
        if let Some(recorder) = self.recorder.get() {
            recorder.record(Op::Read, offset, bytes.into());
        }
        self.latency.record(start.elapsed());
        Some(segments)
    }

    fn extents(
        &self,
        guest: GuestId,
        offset: u64,
        bytes: u64,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Extent>, DiskError>> + Send {
        self.disk.extents(guest, offset, bytes, max)
    }

    fn is_writable(&self) -> bool {
        self.disk.is_writable()
    }

    async fn write(&self, guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        self.note_write(offset, data.len() as u64)?;
        self.disk.write(guest, offset, data).await
    }

    async fn write_zeroes(&self, guest: GuestId, offset: u64, bytes: u64, may_trim: bool) -> Result<(), DiskError> {
        self.note_write(offset, bytes)?;
        self.disk.write_zeroes(guest, offset, bytes, may_trim).await
    }

    fn trim(&self, guest: GuestId, offset: u64, bytes: u64) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.trim(guest, offset, bytes)
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + Send {
        self.disk.flush()
    }
}

/// The trace is not, or not wholly, on disk. The disk itself goes on.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the trace {}: {source}; make room or choose another --record", path.display())]
pub struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// Writes requests to a trace's file.
#[derive(Debug)]
struct TraceRecorder {
    path: PathBuf,
    file: BackgroundFile,
    first: OnceLock<Instant>,
}

impl TraceRecorder {
    fn create(path: &Path) -> Result<Self, RecordError> {
        let fail = |source| RecordError { path: path.to_owned(), source };
        let file = BackgroundFile::create(path).map_err(fail)?;
        file.append(|text| text.extend_from_slice(b"# MICROSECONDS R|W OFFSET LENGTH\n"));
        Ok(Self { path: path.to_owned(), file, first: OnceLock::new() })
    }

    /// Zeros may be longer than a trace's longest request: they become several.
    fn record(&self, op: Op, offset: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.file.append(|text| {
            // The time is taken under the file's lock: times in it never go back.
            let now = Instant::now();
            let micros = now.duration_since(*self.first.get_or_init(|| now)).as_micros() as u64;
            for done in (0..bytes).step_by(REQUEST_BYTES_MAX as usize) {
                let bytes = (bytes - done).min(REQUEST_BYTES_MAX.into()) as u32;
                let _ = writeln!(text, "{}", Request { micros, op, offset: offset + done, bytes });
            }
        });
    }

    fn finish(&self) -> Result<(), RecordError> {
        self.file.finish().map_err(|source| RecordError { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background::FLUSH_EVERY;
    use crate::disk::FileDisk;
    use swarmdisk_common::trace::Trace;

    #[tokio::test]
    async fn reads_are_counted_and_traced() {
        let folder = tempfile::tempdir().unwrap();
        let (image, trace) = (folder.path().join("image"), folder.path().join("trace"));
        std::fs::write(&image, [1; 10_000]).unwrap();
        let disk = Observed::recording(FileDisk::open(&image).unwrap(), &trace).unwrap();
        let guest = GuestId(0);
        disk.read(guest, 0, 4096).await.unwrap();
        disk.read(guest, 4096, 100).await.unwrap();
        disk.read(guest, 9_999, 2).await.unwrap_err();
        disk.finish().unwrap();
        disk.read(guest, 0, 1).await.unwrap();
        let seen = disk.observations();
        assert_eq!((seen.reads, seen.read_bytes), (3, 4197));
        assert!(seen.latency.max >= seen.latency.p50);
        let trace = Trace::parse(&std::fs::read(&trace).unwrap()[..]).unwrap();
        let ranges: Vec<_> = trace.requests.iter().map(|r| (r.op, r.offset, r.bytes)).collect();
        assert_eq!(ranges, [(Op::Read, 0, 4096), (Op::Read, 4096, 100)]);
        assert_eq!(trace.requests[0].micros, 0);
    }

    #[tokio::test]
    async fn a_trace_reaches_the_file_within_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let (image, trace) = (folder.path().join("image"), folder.path().join("trace"));
        std::fs::write(&image, [1; 10_000]).unwrap();
        let disk = Observed::recording(FileDisk::open(&image).unwrap(), &trace).unwrap();
        disk.read(GuestId(0), 0, 4096).await.unwrap();
        tokio::time::sleep(FLUSH_EVERY + FLUSH_EVERY / 2).await;
        assert!(std::fs::read_to_string(&trace).unwrap().ends_with("0 R 0 4096\n"));
    }
}
