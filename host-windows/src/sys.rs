//! `libwnbd.dll`, and the event log: all of this crate's `unsafe` is here.
//!
//! *Invariants*: the DLL is looked for where only administrators write, beside this program first, and stays loaded. A
//! disk's handle and what its callbacks see live until the dispatcher threads have ended; where their end is not known, both
//! stay for ever. Nothing that a callback is given is kept: bytes are copied. *Bounds*: at most
//! [`abi::TRANSFER_BYTES_MAX`] and [`abi::UNMAP_RANGES_MAX`] are copied from a callback's buffer, whatever it says.

use crate::wnbd::abi::{
    self, BLOCK_BYTES, IoResponse, Properties, RemoveOptions, UnmapDescriptor, remove_flag, request_type,
};
use crate::wnbd::request::{Answer, Request};
use bytes::Bytes;
use std::ffi::{CStr, OsString, c_char, c_void};
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use windows_sys::Win32::Foundation::{ERROR_MOD_NOT_FOUND, FreeLibrary, HMODULE};
use windows_sys::Win32::System::Com::CoTaskMemFree;
use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE, RegisterEventSourceW,
    ReportEventW,
};
use windows_sys::Win32::System::LibraryLoader::{
    GetProcAddress, LOAD_LIBRARY_SEARCH_APPLICATION_DIR, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR,
    LOAD_LIBRARY_SEARCH_SYSTEM32, LoadLibraryExW,
};
use windows_sys::Win32::System::Registry::{
    HKEY_LOCAL_MACHINE, REG_DWORD, REG_EXPAND_SZ, RegDeleteTreeW, RegSetKeyValueW,
};
use windows_sys::Win32::UI::Shell::{FOLDERID_ProgramFiles, SHGetKnownFolderPath};

/// The DLL's name.
const DLL: &str = "libwnbd.dll";
/// Where the installer that brings it puts it, below the folder for programs.
const INSTALLED: &str = r"Ceph\bin\libwnbd.dll";

/// What takes the requests of a disk.
pub(crate) trait Handler: Send + Sync {
    /// Takes one, on one of the disk's dispatcher threads; it is answered by [`Mapping::respond`], now or later.
    fn handle(&self, handle: u64, request: Request, mapping: Arc<Mapping>);
}

/// Why the DLL is not to be had.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// It is nowhere.
    NotFound,
    /// It is there.
    Broken(io::Error),
    /// It has no such function.
    Lacks(&'static str),
}

/// `PWNBD_DISK`.
type RawDisk = *mut c_void;

type Create = unsafe extern "C" fn(*const Properties, *const Interface, *mut c_void, *mut RawDisk) -> u32;
type StartDispatcher = unsafe extern "C" fn(RawDisk, u32) -> u32;
type WaitDispatcher = unsafe extern "C" fn(RawDisk) -> u32;
type SendResponse = unsafe extern "C" fn(RawDisk, *const IoResponse, *const c_void, u32) -> u32;
type Remove = unsafe extern "C" fn(RawDisk, *const RemoveOptions) -> u32;
type Close = unsafe extern "C" fn(RawDisk);
type PollDiskNumber = unsafe extern "C" fn(*const c_char, u8, u8, u32, u32, *mut u32) -> u32;
type UserContext = unsafe extern "C" fn(RawDisk, *mut *mut c_void) -> u32;

/// The functions of the DLL that are used.
pub(crate) struct Library {
    create: Create,
    start_dispatcher: StartDispatcher,
    wait_dispatcher: WaitDispatcher,
    send_response: SendResponse,
    remove: Remove,
    close: Close,
    poll_disk_number: PollDiskNumber,
    user_context: UserContext,
}

static LIBRARY: OnceLock<Library> = OnceLock::new();

impl Library {
    /// Loads the DLL, once for the process.
    pub(crate) fn load() -> Result<&'static Self, LoadError> {
        if let Some(library) = LIBRARY.get() {
            return Ok(library);
        }
        let module = find()?;
        let library = Self::of(module).inspect_err(|_| {
            // SAFETY: `find` has loaded it, and no function of it is kept.
            unsafe { FreeLibrary(module) };
        })?;
        Ok(LIBRARY.get_or_init(|| library))
    }

    fn of(module: HMODULE) -> Result<Self, LoadError> {
        macro_rules! function {
            ($name:literal, $kind:ty) => {{
                // SAFETY: the module is loaded, and the name ends with a zero.
                let found = unsafe { GetProcAddress(module, concat!($name, "\0").as_ptr()) };
                let found = found.ok_or(LoadError::Lacks($name))?;
                // SAFETY: a function of this name has this type: `include/wnbd.h`.
                // x86-64 has one calling convention.
                unsafe { std::mem::transmute::<unsafe extern "system" fn() -> isize, $kind>(found) }
            }};
        }
        Ok(Self {
            create: function!("WnbdCreate", Create),
            start_dispatcher: function!("WnbdStartDispatcher", StartDispatcher),
            wait_dispatcher: function!("WnbdWaitDispatcher", WaitDispatcher),
            send_response: function!("WnbdSendResponse", SendResponse),
            remove: function!("WnbdRemove", Remove),
            close: function!("WnbdClose", Close),
            poll_disk_number: function!("WnbdPollDiskNumber", PollDiskNumber),
            user_context: function!("WnbdGetUserContext", UserContext),
        })
    }
}

/// Loads the DLL from beside this program, from the system's folder, or from where its installer puts it.
fn find() -> Result<HMODULE, LoadError> {
    match load(Path::new(DLL), LOAD_LIBRARY_SEARCH_APPLICATION_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32) {
        Err(error) if is_missing(&error) => {}
        loaded => return loaded.map_err(LoadError::Broken),
    }
    let Some(installed) = program_files().map(|folder| folder.join(INSTALLED)).filter(|path| path.is_file()) else {
        return Err(LoadError::NotFound);
    };
    load(&installed, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32).map_err(LoadError::Broken)
}

fn is_missing(error: &io::Error) -> bool {
    // It says the same where one of the DLL's own imports is missing.
    let is_beside = std::env::current_exe().is_ok_and(|program| program.with_file_name(DLL).is_file());
    error.raw_os_error() == Some(ERROR_MOD_NOT_FOUND as i32) && !is_beside
}

fn load(path: &Path, flags: u32) -> io::Result<HMODULE> {
    let path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    // SAFETY: the path ends with a zero. What the DLL does when it is loaded is its own affair: it is of a folder that only
    // administrators write to.
    let module = unsafe { LoadLibraryExW(path.as_ptr(), ptr::null_mut(), flags) };
    if module.is_null() { Err(io::Error::last_os_error()) } else { Ok(module) }
}

/// The folder for programs, from the system: an environment may say anything.
fn program_files() -> Option<PathBuf> {
    let mut found = ptr::null_mut();
    // SAFETY: all that it writes to is `found`.
    let result = unsafe { SHGetKnownFolderPath(&FOLDERID_ProgramFiles, 0, ptr::null_mut(), &mut found) };
    let path = (result == 0 && !found.is_null()).then(|| {
        // SAFETY: where it succeeds, `found` is a text with a zero at its end.
        let units = (0..).map(|at| unsafe { *found.add(at) }).take_while(|unit| *unit != 0);
        PathBuf::from(OsString::from_wide(&units.collect::<Vec<_>>()))
    });
    // SAFETY: it is to be freed whatever the result is; null is allowed.
    unsafe { CoTaskMemFree(found.cast_const().cast()) };
    path
}

/// `WNBD_INTERFACE`: what the DLL's dispatcher threads call.
#[repr(C)]
struct Interface {
    read: unsafe extern "C" fn(RawDisk, u64, *mut c_void, u64, u32, u8),
    write: unsafe extern "C" fn(RawDisk, u64, *mut c_void, u64, u32, u8),
    flush: unsafe extern "C" fn(RawDisk, u64, u64, u32),
    unmap: unsafe extern "C" fn(RawDisk, u64, *mut UnmapDescriptor, u32),
    /// Persistent reservations, which are not offered, and what is reserved.
    nothing: [usize; 15],
}

const _: () = assert!(size_of::<Interface>() == 152 && std::mem::offset_of!(Interface, nothing) == 32);

static INTERFACE: Interface =
    Interface { read: on_read, write: on_write, flush: on_flush, unmap: on_unmap, nothing: [0; 15] };

/// What callbacks find.
struct Context {
    handler: Box<dyn Handler>,
    mapping: OnceLock<Weak<Mapping>>,
}

/// A disk that the driver knows. Dropping it removes it, but for one whose dispatcher threads run: that is left as it is.
pub(crate) struct Mapping {
    library: &'static Library,
    disk: RawDisk,
    context: *mut Context,
    instance_name: [u8; abi::NAME_BYTES],
    has_dispatchers: AtomicBool,
    is_removed: AtomicBool,
}

// SAFETY: the DLL locks what its threads share, and its functions may be called from any thread (its own shipped daemon
// answers from many). A handler is `Send` and `Sync`, and of the context nothing else changes after it was made.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Makes a disk; no request comes before [`start`](Self::start). An error is one of Windows' numbers.
    pub(crate) fn create(
        library: &'static Library,
        properties: &Properties,
        handler: Box<dyn Handler>,
    ) -> Result<Arc<Self>, u32> {
        let context = Box::into_raw(Box::new(Context { handler, mapping: OnceLock::new() }));
        let mut disk = ptr::null_mut();
        // SAFETY: the properties are as the header says and are copied; the interface is static; the context lives as long
        // as the disk.
        let error = unsafe { (library.create)(properties, &INTERFACE, context.cast(), &mut disk) };
        if error != 0 || disk.is_null() {
            // SAFETY: it was made above, and nobody else has it.
            drop(unsafe { Box::from_raw(context) });
            return Err(error);
        }
        let this = Arc::new(Self {
            library,
            disk,
            context,
            instance_name: properties.instance_name,
            has_dispatchers: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
        });
        // SAFETY: it was made above; no callback has come yet.
        let context = unsafe { &*context };
        // It is set once, here.
        let _ = context.mapping.set(Arc::downgrade(&this));
        Ok(this)
    }

    /// Begins to give the handler requests, on so many threads. To be called once, and then [`wait`](Self::wait) by somebody
    /// who keeps this until that is done.
    pub(crate) fn start(&self, threads: u32) -> Result<(), u32> {
        self.has_dispatchers.store(true, SeqCst);
        // SAFETY: the disk is open. The context lives until `wait` has seen the threads' end.
        let error = unsafe { (self.library.start_dispatcher)(self.disk, threads) };
        if error == 0 {
            return Ok(());
        }
        // It has ended those that it had started: if it was asked for what it takes.
        self.wait();
        Err(error)
    }

    /// Waits until the disk is removed, by whomever, and its dispatcher threads have ended.
    pub(crate) fn wait(&self) {
        // SAFETY: the disk is open.
        let error = unsafe { (self.library.wait_dispatcher)(self.disk) };
        if error == 0 {
            self.is_removed.store(true, SeqCst);
            self.has_dispatchers.store(false, SeqCst);
        }
    }

    /// Answers a request. An error is of no use to anybody: Windows, or who removed the disk, has given the request up.
    pub(crate) fn respond(&self, handle: u64, kind: u32, answer: &Answer) -> Result<(), u32> {
        let response =
            IoResponse { request_handle: handle, request_type: kind, status: answer.status, reserved: [0; 32] };
        let data = &answer.data;
        // SAFETY: the disk is open. What is passed is read before the call returns.
        let error =
            unsafe { (self.library.send_response)(self.disk, &response, data.as_ptr().cast(), data.len() as u32) };
        if error == 0 { Ok(()) } else { Err(error) }
    }

    /// Removes the disk: requests go on until the driver says that there will be no more.
    pub(crate) fn remove(&self, options: &RemoveOptions) -> Result<(), u32> {
        // SAFETY: the disk is open, and the options are as the header says.
        match unsafe { (self.library.remove)(self.disk, options) } {
            0 => {
                self.is_removed.store(true, SeqCst);
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Waits until Windows shows the disk, and gives its number.
    pub(crate) fn disk_number(&self, timeout_millis: u32, retry_millis: u32) -> Result<u32, u32> {
        let mut number = 0;
        let name = self.instance_name.as_ptr().cast();
        // SAFETY: the name has a zero at its end, and the number is written before the call returns.
        let error = unsafe { (self.library.poll_disk_number)(name, 1, 1, timeout_millis, retry_millis, &mut number) };
        if error == 0 { Ok(number) } else { Err(error) }
    }

    /// The name by which the disk is found.
    pub(crate) fn name(&self) -> String {
        CStr::from_bytes_until_nul(&self.instance_name).unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.has_dispatchers.load(SeqCst) {
            return;
        }
        if !self.is_removed.load(SeqCst) {
            let hard = RemoveOptions {
                flags: remove_flag::HARD,
                soft_timeout_millis: 0,
                soft_retry_millis: 0,
                reserved: [0; 64],
            };
            // An error means that somebody else has removed it.
            let _ = self.remove(&hard);
        }
        // SAFETY: no dispatcher thread runs, and nobody else has the disk.
        unsafe { (self.library.close)(self.disk) };
        // SAFETY: the same; it was made by `create`.
        drop(unsafe { Box::from_raw(self.context) });
    }
}

/// Hands a request to the disk's handler.
///
/// # Safety
/// `disk` is that of a callback, which has not returned.
unsafe fn deliver(disk: RawDisk, handle: u64, request: Request) {
    let Some(library) = LIBRARY.get() else { return };
    let mut context = ptr::null_mut();
    // SAFETY: the disk is one that lives, as the caller says.
    if unsafe { (library.user_context)(disk, &mut context) } != 0 || context.is_null() {
        return;
    }
    // SAFETY: it is what `create` gave, and lives as long as dispatcher threads run: this is one.
    let context = unsafe { &*context.cast_const().cast::<Context>() };
    // Whoever waits for the threads' end keeps it.
    if let Some(mapping) = context.mapping.get().and_then(Weak::upgrade) {
        context.handler.handle(handle, request, mapping);
    }
}

unsafe extern "C" fn on_read(disk: RawDisk, handle: u64, _: *mut c_void, block: u64, count: u32, _: u8) {
    // SAFETY: this is a callback.
    unsafe { deliver(disk, handle, Request::Read { block, count }) }
}

unsafe extern "C" fn on_write(disk: RawDisk, handle: u64, buffer: *mut c_void, block: u64, count: u32, fua: u8) {
    let bytes = u64::from(count) * u64::from(BLOCK_BYTES);
    let request = match bytes <= u64::from(abi::TRANSFER_BYTES_MAX) && !buffer.is_null() {
        true => {
            // SAFETY: the DLL's buffer has room for the largest request, and holds this one's bytes until this returns.
            let data = unsafe { std::slice::from_raw_parts(buffer.cast_const().cast::<u8>(), bytes as usize) };
            Request::Write { block, data: Bytes::copy_from_slice(data), is_durable: fua != 0 }
        }
        false => Request::Malformed(request_type::WRITE),
    };
    // SAFETY: this is a callback.
    unsafe { deliver(disk, handle, request) }
}

unsafe extern "C" fn on_flush(disk: RawDisk, handle: u64, _: u64, _: u32) {
    // SAFETY: this is a callback.
    unsafe { deliver(disk, handle, Request::Flush) }
}

unsafe extern "C" fn on_unmap(disk: RawDisk, handle: u64, ranges: *mut UnmapDescriptor, count: u32) {
    let request = match count <= abi::UNMAP_RANGES_MAX && !ranges.is_null() {
        // SAFETY: so many are there until this returns: the DLL passes on no more than it was told to.
        true => Request::Unmap((0..count as usize).map(|at| unsafe { ranges.add(at).read_unaligned() }).collect()),
        false => Request::Malformed(request_type::UNMAP),
    };
    // SAFETY: this is a callback.
    unsafe { deliver(disk, handle, request) }
}

/// Kinds of events.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// Something has happened.
    Information,
    /// Something has failed.
    Warning,
    /// The service ends.
    Error,
}

/// What shows an event as its text alone, whatever its number: it comes with .NET, which every Windows has.
const MESSAGE_FILE: &str = r"%SystemRoot%\Microsoft.NET\Framework64\v4.0.30319\EventLogMessages.dll";

/// Writes an event.
pub(crate) fn report_event(source: &str, kind: EventKind, message: &str) -> io::Result<()> {
    let (kind, number) = match kind {
        EventKind::Information => (EVENTLOG_INFORMATION_TYPE, 1),
        EventKind::Warning => (EVENTLOG_WARNING_TYPE, 2),
        EventKind::Error => (EVENTLOG_ERROR_TYPE, 3),
    };
    let (source, message) = (wide(source), wide(message));
    // SAFETY: the name ends with a zero.
    let log = unsafe { RegisterEventSourceW(ptr::null(), source.as_ptr()) };
    if log.is_null() {
        return Err(io::Error::last_os_error());
    }
    let texts = [message.as_ptr()];
    // SAFETY: the log is open, there is one text, and it ends with a zero.
    let written = unsafe { ReportEventW(log, kind, 0, number, ptr::null_mut(), 1, 0, texts.as_ptr(), ptr::null()) };
    let outcome = if written == 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: it was opened above.
    unsafe { DeregisterEventSource(log) };
    outcome
}

/// Has the event log show events of this source as their texts.
pub(crate) fn register_event_source(source: &str) -> io::Result<()> {
    let types = EVENTLOG_INFORMATION_TYPE | EVENTLOG_WARNING_TYPE | EVENTLOG_ERROR_TYPE;
    let file: Vec<u8> = wide(MESSAGE_FILE).into_iter().flat_map(u16::to_le_bytes).collect();
    set_value(source, "EventMessageFile", REG_EXPAND_SZ, &file)?;
    set_value(source, "TypesSupported", REG_DWORD, &u32::from(types).to_le_bytes())
}

/// Undoes that.
pub(crate) fn unregister_event_source(source: &str) -> io::Result<()> {
    let key = source_key(source);
    // SAFETY: the name ends with a zero, and is that of a key of our own.
    done(unsafe { RegDeleteTreeW(HKEY_LOCAL_MACHINE, key.as_ptr()) })
}

fn set_value(source: &str, name: &str, kind: u32, data: &[u8]) -> io::Result<()> {
    let (key, name) = (source_key(source), wide(name));
    // SAFETY: the names end with a zero, and so many bytes of data are there.
    done(unsafe {
        RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.as_ptr(), name.as_ptr(), kind, data.as_ptr().cast(), data.len() as u32)
    })
}

fn done(error: u32) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error as i32)) }
}

fn source_key(source: &str) -> Vec<u16> {
    wide(&format!(r"SYSTEM\CurrentControlSet\Services\EventLog\Application\{source}"))
}

/// In UTF-16, with a zero at the end, and none before it.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().filter(|unit| *unit != 0).chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_can_be_written() {
        for kind in [EventKind::Information, EventKind::Warning, EventKind::Error] {
            report_event("swarmdisk-tests", kind, "a test\0, to be ignored").unwrap();
        }
    }

    #[test]
    fn the_folder_for_programs_is_known() {
        assert!(program_files().unwrap().is_absolute());
    }
}
