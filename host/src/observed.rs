//! A disk that is watched: reads and bytes counted, latencies recorded, and if wished every read written to a trace.
//!
//! *Invariants*: a read is counted and traced when it begins, in the order of the trace's times; its latency when it is
//! answered without an error. What is out of range is passed on but neither counted nor traced. Reads of all guests go
//! into one trace. *Units*: bytes, microseconds since the first read.
//! *Bounds*: a trace's lines wait in memory for at most [`FLUSH_EVERY`]; if the file takes none of them and
//! [`PENDING_BYTES_MAX`] wait, the trace ends there and [`Observed::finish`] says so.

use crate::disk::{Disk, DiskError, Extent};
use crate::latency::{LatencyMicros, LatencyRecorder};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use swarmdisk_common::trace::{Op, Request};
use swarmdisk_core::ids::GuestId;

/// A trace's file is at most so much behind.
pub const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Most bytes of trace that wait to be written.
pub const PENDING_BYTES_MAX: usize = 16 << 20;

/// Wraps a disk and watches it.
#[derive(Debug)]
pub struct Observed<D> {
    disk: D,
    reads: AtomicU64,
    read_bytes: AtomicU64,
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
    /// How long those took that were answered.
    pub latency: LatencyMicros,
}

impl<D: Disk> Observed<D> {
    /// Watches `disk`, without a trace.
    pub fn new(disk: D) -> Self {
        let latency = LatencyRecorder::new();
        Self { disk, reads: AtomicU64::new(0), read_bytes: AtomicU64::new(0), latency, recorder: OnceLock::new() }
    }

    /// Watches `disk` and writes every read to a new file at `path`; one that is there is replaced.
    ///
    /// # Errors
    /// [`RecordError`] if the file cannot be made.
    pub fn recording(disk: D, path: &Path) -> Result<Self, RecordError> {
        let observed = Self::new(disk);
        observed.record_to(path)?;
        Ok(observed)
    }

    /// From now on writes every read to a new file at `path`; one that is there is replaced. To be called once.
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
            latency: self.latency.summary(),
        }
    }

    /// Writes what is left of the trace; later reads are not traced. Blocks for as long as the file takes.
    ///
    /// # Errors
    /// [`RecordError`] if the file does not hold all reads, now or at any time before.
    pub fn finish(&self) -> Result<(), RecordError> {
        self.recorder.get().map_or(Ok(()), TraceRecorder::finish)
    }

    /// The disk that is watched.
    pub fn inner(&self) -> &D {
        &self.disk
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
            recorder.record(offset, bytes);
        }
        let start = Instant::now();
        let segments = self.disk.read(guest, offset, bytes).await?;
        self.latency.record(start.elapsed());
        Ok(segments)
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
}

/// The trace is not, or not wholly, on disk. The disk itself goes on.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the trace {}: {source}; make room or choose another --record", path.display())]
pub struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// Writes reads to a trace's file, on a thread of its own.
#[derive(Debug)]
struct TraceRecorder {
    shared: Arc<Shared>,
    /// Dropping it ends the thread.
    wake: mpsc::SyncSender<()>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: Mutex<File>,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
    first: Option<Instant>,
    finished: bool,
    failure: Option<io::Error>,
}

const WAKE_BYTES: usize = 256 << 10;

impl TraceRecorder {
    fn create(path: &Path) -> Result<Self, RecordError> {
        let fail = |source| RecordError { path: path.to_owned(), source };
        let file = Mutex::new(File::create(path).map_err(fail)?);
        let text = b"# MICROSECONDS R|W OFFSET LENGTH\n".to_vec();
        let pending = Mutex::new(Pending { text, ..Pending::default() });
        let shared = Arc::new(Shared { path: path.to_owned(), file, pending });
        let (wake, woken) = mpsc::sync_channel(1);
        let flushed = Arc::clone(&shared);
        let flush = move || {
            while woken.recv_timeout(FLUSH_EVERY) != Err(RecvTimeoutError::Disconnected) {
                flushed.flush();
            }
            flushed.flush();
        };
        thread::Builder::new().name("trace".into()).spawn(flush).map_err(fail)?;
        Ok(Self { shared, wake })
    }

    fn record(&self, offset: u64, bytes: u32) {
        let mut pending = self.shared.pending();
        if bytes == 0 || pending.finished {
            return;
        }
        if pending.text.len() >= PENDING_BYTES_MAX {
            pending.fail(io::Error::new(io::ErrorKind::TimedOut, "the disk is too slow for it"));
            return;
        }
        // The time is taken under the lock: times in the file never go back.
        let now = Instant::now();
        let micros = now.duration_since(*pending.first.get_or_insert(now)).as_micros() as u64;
        let _ = writeln!(pending.text, "{}", Request { micros, op: Op::Read, offset, bytes });
        let full = pending.text.len() >= WAKE_BYTES;
        drop(pending);
        if full {
            let _ = self.wake.try_send(());
        }
    }

    fn finish(&self) -> Result<(), RecordError> {
        self.shared.pending().finished = true;
        self.shared.flush();
        match self.shared.pending().failure.take() {
            Some(source) => Err(RecordError { path: self.shared.path.clone(), source }),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is pending; readers are not held up meanwhile.
    fn flush(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::take(&mut self.pending().text);
        if let Err(error) = file.write_all(&text) {
            self.pending().fail(error);
        }
    }
}

impl Pending {
    fn fail(&mut self, error: io::Error) {
        self.finished = true;
        self.failure.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
