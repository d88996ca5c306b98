//! What Windows offers of files and events, and the standard library does not.
//!
//! *Invariants*: no handle outlives the call that it is lent to; nothing here keeps a pointer. *Units*: bytes.

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::ops::Range;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, ERROR_MORE_DATA, HANDLE, WAIT_OBJECT_0};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_COMPRESSION_INFO, FILE_INFO_BY_HANDLE_CLASS, FILE_STANDARD_INFO, FileCompressionInfo, FileStandardInfo,
    GetFileInformationByHandleEx, LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx,
};
use windows_sys::Win32::System::IO::{DeviceIoControl, OVERLAPPED};
use windows_sys::Win32::System::Ioctl::{
    FILE_ALLOCATED_RANGE_BUFFER, FILE_ZERO_DATA_INFORMATION, FSCTL_QUERY_ALLOCATED_RANGES, FSCTL_SET_SPARSE,
    FSCTL_SET_ZERO_DATA,
};
use windows_sys::Win32::System::Threading::{
    CreateEventW, EVENT_MODIFY_STATE, INFINITE, OpenEventW, SetEvent, WaitForSingleObject,
};

/// The byte that stands for the file when it is locked: what is locked on Windows nobody else can read, and other processes
/// read caches that are in use. No file is so long.
const LOCKED_AT: u64 = i64::MAX as u64 - 1;

/// Locks the file until it is closed; false if somebody else has it, or for a lock that others may have too, has it alone.
pub(crate) fn try_lock(file: &File, is_exclusive: bool) -> io::Result<bool> {
    let exclusive = if is_exclusive { LOCKFILE_EXCLUSIVE_LOCK } else { 0 };
    // SAFETY: all zeros is a valid OVERLAPPED: no event, an offset that is set next.
    let mut overlapped: OVERLAPPED = unsafe { zeroed() };
    overlapped.Anonymous.Anonymous.Offset = LOCKED_AT as u32;
    overlapped.Anonymous.Anonymous.OffsetHigh = (LOCKED_AT >> 32) as u32;
    // SAFETY: the handle is open as long as the file is borrowed and was not opened for overlapped use, so that the call is
    // over when it returns and `overlapped` is used no more.
    let locked =
        unsafe { LockFileEx(handle(file), exclusive | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &raw mut overlapped) };
    match answer(locked) {
        Ok(()) => Ok(true),
        Err(error) if is_code(&error, ERROR_LOCK_VIOLATION) || is_code(&error, ERROR_IO_PENDING) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets the file have holes from now on.
pub(crate) fn set_sparse(file: &File) -> io::Result<()> {
    control(file, FSCTL_SET_SPARSE, &[0u8; 0], &mut [0u8; 0]).map(drop)
}

/// Makes a range zeros; of a sparse file its space is given back.
pub(crate) fn zero_data(file: &File, range: Range<u64>) -> io::Result<()> {
    let range = FILE_ZERO_DATA_INFORMATION { FileOffset: range.start as i64, BeyondFinalZero: range.end as i64 };
    control(file, FSCTL_SET_ZERO_DATA, &[range], &mut [0u8; 0]).map(drop)
}

/// The first run from `offset` on that may be other than zeros; none if all is zeros from there on.
pub(crate) fn first_data(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let asked = FILE_ALLOCATED_RANGE_BUFFER { FileOffset: offset, Length: i64::MAX - offset };
    let mut found = [FILE_ALLOCATED_RANGE_BUFFER::default()];
    let bytes = control(file, FSCTL_QUERY_ALLOCATED_RANGES, &[asked], &mut found)?;
    let [found] = found;
    let run = found.FileOffset.max(offset) as u64..found.FileOffset.saturating_add(found.Length) as u64;
    Ok((bytes > 0).then_some(run))
}

/// Space that the file takes.
pub(crate) fn allocated_bytes(file: &File) -> io::Result<u64> {
    // Of sparse files it is this one that knows of holes.
    if let Ok(info) = information::<FILE_COMPRESSION_INFO>(file, FileCompressionInfo) {
        return Ok(info.CompressedFileSize as u64);
    }
    information::<FILE_STANDARD_INFO>(file, FileStandardInfo).map(|info| info.AllocationSize as u64)
}

/// Something that other processes of this user can make happen, by its name.
#[derive(Debug)]
pub(crate) struct Event(OwnedHandle);

impl Event {
    /// One that is forgotten each time that somebody has waited for it.
    pub(crate) fn create(name: &str) -> io::Result<Self> {
        let name = wide(name);
        // SAFETY: the name ends with a zero and outlives the call; without attributes the process's own rights hold.
        Self::owned(unsafe { CreateEventW(std::ptr::null(), 0, 0, name.as_ptr()) })
    }

    /// Makes the one with this name happen.
    pub(crate) fn set(name: &str) -> io::Result<()> {
        let name = wide(name);
        // SAFETY: the name ends with a zero and outlives the call.
        let this = Self::owned(unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr()) })?;
        // SAFETY: the handle is this event's, and open.
        answer(unsafe { SetEvent(this.0.as_raw_handle().cast()) })
    }

    /// Waits until it happens.
    pub(crate) fn wait(&self) -> io::Result<()> {
        // SAFETY: the handle is this event's, and open as long as it is borrowed.
        match unsafe { WaitForSingleObject(self.0.as_raw_handle().cast(), INFINITE) } {
            WAIT_OBJECT_0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn owned(handle: HANDLE) -> io::Result<Self> {
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the system has just made the handle for us, and nobody else has it.
        Ok(Self(unsafe { OwnedHandle::from_raw_handle(handle.cast()) }))
    }
}

/// As Windows wants texts.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn is_code(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code as i32)
}

fn handle(file: &File) -> HANDLE {
    file.as_raw_handle().cast()
}

fn answer(succeeded: windows_sys::core::BOOL) -> io::Result<()> {
    if succeeded != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Plain numbers, for which any bits will do, without gaps between them.
///
/// # Safety
/// That is so.
unsafe trait Plain: Copy {}
// SAFETY: a number.
unsafe impl Plain for u8 {}
// SAFETY: two of 64 bits.
unsafe impl Plain for FILE_ZERO_DATA_INFORMATION {}
// SAFETY: two of 64 bits.
unsafe impl Plain for FILE_ALLOCATED_RANGE_BUFFER {}

/// Has the file system do something; gives how many bytes of `output` it has written. An `output` that is too short for all
/// there is gets as much as it holds.
fn control<I: Plain, O: Plain>(file: &File, code: u32, input: &[I], output: &mut [O]) -> io::Result<u32> {
    let mut written = 0;
    // SAFETY: the handle is open as long as the file is borrowed and was not opened for overlapped use; both buffers are as
    // long as is said, and any bytes may be written to `output`.
    let done = unsafe {
        DeviceIoControl(
            handle(file),
            code,
            input.as_ptr().cast(),
            size_of_val(input) as u32,
            output.as_mut_ptr().cast(),
            size_of_val(output) as u32,
            &raw mut written,
            std::ptr::null_mut(),
        )
    };
    match answer(done) {
        Err(error) if !is_code(&error, ERROR_MORE_DATA) => Err(error),
        _ => Ok(written),
    }
}

/// `T` is what `class` stands for in Windows' own list.
fn information<T: Copy>(file: &File, class: FILE_INFO_BY_HANDLE_CLASS) -> io::Result<T> {
    // SAFETY: both structures asked for are plain numbers and flags, of which zeros are valid ones.
    let mut info: T = unsafe { zeroed() };
    // SAFETY: the handle is open as long as the file is borrowed; `info` is as long as is said, and of the type that Windows
    // documents for `class`.
    answer(unsafe {
        GetFileInformationByHandleEx(handle(file), class, (&raw mut info).cast(), size_of::<T>() as u32)
    })?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_locked_file_can_be_read_and_written_by_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut other, mut third) = (file.reopen().unwrap(), file.reopen().unwrap());
        assert!(try_lock(file.as_file(), true).unwrap());
        assert!(!try_lock(&other, true).unwrap() && !try_lock(&other, false).unwrap());
        other.write_all(b"written").unwrap();
        let mut text = String::new();
        third.read_to_string(&mut text).unwrap();
        assert_eq!(text, "written");
    }

    #[test]
    fn an_event_is_waited_for_by_its_name() {
        let name = format!(r"Local\swarmdisk-test-{}", std::process::id());
        assert!(Event::set(&name).is_err());
        let event = Event::create(&name).unwrap();
        for _ in 0..2 {
            Event::set(&name).unwrap();
            event.wait().unwrap();
        }
    }

    #[test]
    fn readers_share_a_lock_and_keep_writers_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (first, second, writer) = (file.reopen().unwrap(), file.reopen().unwrap(), file.reopen().unwrap());
        assert!(try_lock(&first, false).unwrap() && try_lock(&second, false).unwrap());
        assert!(!try_lock(&writer, true).unwrap());
        drop((first, second));
        assert!(try_lock(&writer, true).unwrap());
    }
}
