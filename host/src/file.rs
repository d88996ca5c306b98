//! Reading and writing at an offset, without a shared cursor, and locking, on each operating system.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Whether the file is this process's alone from now on, until it is closed. Waits a little: a process that was just
/// killed, or a child between `fork` and `exec`, may have the lock still. Who does not ask for it may read and write the file.
pub(crate) fn lock_patiently(file: &File) -> io::Result<bool> {
    patiently(|| try_lock(file, true))
}

/// The same for a lock that others may have, too, who do not write.
pub(crate) fn lock_shared_patiently(file: &File) -> io::Result<bool> {
    patiently(|| try_lock(file, false))
}

/// Whether somebody has it locked.
pub(crate) fn is_locked(file: &File) -> bool {
    matches!(try_lock(file, true), Ok(false))
}

fn patiently(lock: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
    let patience_end = Instant::now() + LOCK_PATIENCE;
    loop {
        let is_ours = lock()?;
        if is_ours || Instant::now() >= patience_end {
            return Ok(is_ours);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

fn try_lock(file: &File, is_exclusive: bool) -> io::Result<bool> {
    #[cfg(windows)]
    return crate::sys::windows::try_lock(file, is_exclusive);
    #[cfg(not(windows))]
    match if is_exclusive { file.try_lock() } else { file.try_lock_shared() } {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
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
///
/// # Errors
/// Those of the disk.
pub fn allocated_bytes(file: &File) -> io::Result<u64> {
    #[cfg(unix)]
    return Ok(std::os::unix::fs::MetadataExt::blocks(&file.metadata()?) * 512);
    #[cfg(windows)]
    crate::sys::windows::allocated_bytes(file)
}

/// Lets the file have holes, where it has to be asked for. To be called before it is made longer. Best effort: a file system
/// without them takes space for all of the file.
pub(crate) fn make_sparse(file: &File) {
    #[cfg(windows)]
    let _ = crate::sys::windows::set_sparse(file);
    #[cfg(not(windows))]
    let _ = file;
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
    #[cfg(windows)]
    let _ = crate::sys::windows::zero_data(file, offset..offset + bytes);
    #[cfg(not(any(target_os = "linux", windows)))]
    let _ = (file, offset, bytes);
}

/// The first byte at or after `offset` that may be other than zero; `u64::MAX` if there is none up to the file's end. None if
/// the system cannot tell: all may be data.
pub(crate) fn next_data(file: &File, offset: u64) -> Option<u64> {
    #[cfg(target_os = "linux")]
    return match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => Some(data),
        Err(rustix::io::Errno::NXIO) => Some(u64::MAX),
        Err(_) => None,
    };
    #[cfg(windows)]
    return match crate::sys::windows::first_data(file, offset) {
        Ok(run) => Some(run.map_or(u64::MAX, |run| run.start)),
        Err(_) => None,
    };
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        let _ = (file, offset);
        None
    }
}

/// The end of the data that `offset` is in; none if the system cannot tell, or if there is none.
pub(crate) fn next_hole(file: &File, offset: u64) -> Option<u64> {
    #[cfg(target_os = "linux")]
    return rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(offset)).ok().filter(|hole| *hole > offset);
    #[cfg(windows)]
    return crate::sys::windows::first_data(file, offset).ok()?.filter(|run| run.start == offset).map(|run| run.end);
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        let _ = (file, offset);
        None
    }
}
