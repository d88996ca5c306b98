//! A file that is written on a thread of its own, so that nobody who has something to say waits for the disk.
//!
//! *Invariants*: what is appended is in the file in that order, up to where it ends. *Bounds*: bytes wait in memory for at
//! most [`FLUSH_EVERY`]; if the disk takes none of them and [`PENDING_BYTES_MAX`] wait, the file ends there.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The file is at most so much behind.
pub const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Most bytes that wait to be written.
pub const PENDING_BYTES_MAX: usize = 16 << 20;
/// So many are written without waiting for more.
const WAKE_BYTES: usize = 256 << 10;

/// A file that is appended to. Dropped, it is written to its end without waiting for that.
#[derive(Debug)]
pub(crate) struct BackgroundFile {
    shared: Arc<Shared>,
    /// Dropping it ends the thread.
    wake: mpsc::SyncSender<()>,
}

#[derive(Debug)]
struct Shared {
    file: Mutex<File>,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Nothing more is appended.
    ended: bool,
    /// Something that was appended is not in the file.
    failed: bool,
    failure: Option<io::Error>,
}

impl BackgroundFile {
    /// A new file at `path`; one that is there is replaced.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(File::create(path)?);
        let shared = Arc::new(Shared { file, pending: Mutex::default() });
        let (wake, woken) = mpsc::sync_channel(1);
        let flushed = Arc::clone(&shared);
        let flush = move || {
            while woken.recv_timeout(FLUSH_EVERY) != Err(RecvTimeoutError::Disconnected) {
                flushed.flush();
            }
            flushed.flush();
        };
        thread::Builder::new().name("recorder".into()).spawn(flush)?;
        Ok(Self { shared, wake })
    }

    /// Appends what `write` adds to the bytes that wait; false, without calling it, if the file has ended.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut pending = self.shared.pending();
        if pending.bytes.len() >= PENDING_BYTES_MAX {
            pending.fail(io::Error::new(io::ErrorKind::TimedOut, "the disk is too slow for it"));
        }
        if pending.ended {
            return false;
        }
        write(&mut pending.bytes);
        let is_much = pending.bytes.len() >= WAKE_BYTES;
        drop(pending);
        if is_much {
            // It is awake already if that fails.
            let _ = self.wake.try_send(());
        }
        true
    }

    /// Why the file has ended early, the first time that this is asked.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.shared.pending().failure.take()
    }

    /// Writes what waits; nothing more is appended. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// If the file does not hold all that was appended, now or at any time before, and nobody has been told yet.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.shared.pending().ended = true;
        self.shared.flush();
        self.take_failure().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is pending; nobody is held up meanwhile.
    fn flush(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = std::mem::take(&mut self.pending().bytes);
        if let Err(error) = file.write_all(&bytes) {
            self.pending().fail(error);
        }
    }
}

impl Pending {
    fn fail(&mut self, error: io::Error) {
        self.ended = true;
        if !std::mem::replace(&mut self.failed, true) {
            self.failure = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_in_the_file_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = BackgroundFile::create(&path).unwrap();
        for byte in 0..=255 {
            assert!(file.append(|bytes| bytes.resize(bytes.len() + 10_000, byte)));
        }
        file.finish().unwrap();
        assert!(!file.append(|_| panic!("it has ended")));
        let expected: Vec<u8> = (0..=255).flat_map(|byte| [byte; 10_000]).collect();
        assert!(std::fs::read(&path).unwrap() == expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_ends_it() {
        let file = BackgroundFile::create(Path::new("/dev/full")).unwrap();
        assert!(file.append(|bytes| bytes.push(1)));
        assert_eq!(file.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let file = BackgroundFile::create(Path::new("/dev/full")).unwrap();
        while file.append(|bytes| bytes.resize(bytes.len() + 1000, 0)) {}
        assert_eq!(file.take_failure().unwrap().kind(), io::ErrorKind::StorageFull);
        // It has been told: once.
        file.finish().unwrap();
    }
}
