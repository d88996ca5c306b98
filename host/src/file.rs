//! Reading and writing at an offset, without a shared cursor, and locking, on each operating system.

use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, Instant};

const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Whether the file is this process's alone from now on, until it is closed. Waits a little: a process that was just
/// killed, or a child between `fork` and `exec`, may have the lock still.
pub(crate) fn lock_patiently(file: &File) -> io::Result<bool> {
    patiently(|| file.try_lock())
}

/// The same for a lock that others may have, too, who do not write.
pub(crate) fn lock_shared_patiently(file: &File) -> io::Result<bool> {
    patiently(|| file.try_lock_shared())
}

fn patiently(lock: impl Fn() -> Result<(), TryLockError>) -> io::Result<bool> {
    let patience_end = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < patience_end => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Fills `out` from `offset` on; `UnexpectedEof` if the file ends before.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

/// Fills `out` from `offset` on if that needs no disk: none if it does, or if the system cannot tell.
pub(crate) fn read_exact_at_now(file: &File, out: &mut [u8], offset: u64) -> Option<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{ReadWriteFlags, preadv2};
        let bytes = out.len();
        let read = preadv2(file, &mut [io::IoSliceMut::new(out)], offset, ReadWriteFlags::NOWAIT);
        (read == Ok(bytes)).then_some(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, out, offset);
        None
    }
}

/// The same, behind what is in `out`, which has room for so much.
pub(crate) fn read_now(file: &File, out: &mut Vec<u8>, bytes: usize, offset: u64) -> Option<()> {
    #[cfg(target_os = "linux")]
    {
        crate::sys::read_cached(std::os::fd::AsFd::as_fd(file), out, bytes, offset)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, out, bytes, offset);
        None
    }
}

/// Writes all of `bytes` at `offset`.
#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Fills `out` from `offset` on; `UnexpectedEof` if the file ends before.
#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => {
                out = &mut out[more..];
                offset += more as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at `offset`.
#[cfg(windows)]
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => {
                bytes = &bytes[more..];
                offset += more as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes that a file takes on disk.
pub(crate) fn allocated_bytes(meta: &std::fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(meta) * 512;
    #[cfg(not(unix))]
    meta.len()
}

/// Gives the disk's space of a range back; its bytes read as zeros then. Best effort: where it cannot be done, the bytes
/// stay.
pub(crate) fn punch_hole(file: &File, offset: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(file, flags, offset, bytes);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, bytes);
}
