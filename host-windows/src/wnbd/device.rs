//! `\\.\PhysicalDriveN`: a disk as a drive of this machine.
//!
//! *Invariants*: a drive that is dropped is removed, at once and whoever uses it; one that is detached is first asked for
//! politely, so that Windows writes what it has not written yet. *Bounds*: requests in flight hold [`HELD_BYTES_MAX`]; more
//! wait in the driver.

use super::abi::{Properties, RemoveOptions, Status, disk_flag, remove_flag};
use super::error::WnbdError;
use super::request::{Answer, Request, Target, sense};
use crate::sys::{Handler, Library, Mapping};
use bytes::Bytes;
use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::cli::Failure;
use swarmdisk_host::device::{Device, DriveExport, Later, SessionDisk};
use swarmdisk_host::disk::Disk;
use swarmdisk_host::log;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use windows_sys::Win32::Foundation::ERROR_FILE_NOT_FOUND;

/// Most memory that requests in flight may take, in bytes.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// What it is counted in.
const HELD_UNIT_BYTES: u64 = 4096;
/// Dispatcher threads do little but copy.
const DISPATCHERS_MAX: usize = 4;
/// How long Windows may take to show a drive.
const SHOW_TIME: Duration = Duration::from_secs(60);
/// How long Windows is asked politely to let a drive go.
const SOFT_REMOVE_TIME: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(500);
/// What is read before Windows reads.
const FIRST_BYTES: u64 = 4096;
/// Whose drives these are, as `wnbd-client list` shows it.
const OWNER: &str = "swarmdisk";

/// The command's `--wnbd`.
#[derive(Debug)]
pub struct Wnbd;

impl DriveExport for Wnbd {
    fn attach(&self, disk: Arc<SessionDisk>, serial: String) -> Later<'_, Result<Box<dyn Device>, Failure>> {
        Box::pin(async move { Ok(Box::new(WnbdDrive::start(disk, &serial).await?) as Box<dyn Device>) })
    }
}

/// A drive that is there. Dropping it removes it, and blocks for as long as that takes.
pub struct WnbdDrive {
    mapping: Arc<Mapping>,
    uri: String,
    /// Ends when the dispatcher threads have.
    waiter: Option<JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

impl WnbdDrive {
    /// Makes a drive of a disk; Windows shows it when this is done. To be called on a runtime, which must outlive the drive.
    ///
    /// # Errors
    /// [`WnbdError`].
    pub async fn start<D: Disk>(disk: Arc<D>, serial: &str) -> Result<Self, WnbdError> {
        let library = Library::load()?;
        let target = Arc::new(Target::new(disk));
        if target.block_count() == 0 {
            return Err(WnbdError::Empty);
        }
        let first_bytes = target.disk().image_bytes().min(FIRST_BYTES);
        target.disk().read(GuestId(0), 0, first_bytes as u32).await?;
        let flags = match target.disk().is_writable() {
            true => disk_flag::FLUSH | disk_flag::FUA | disk_flag::UNMAP,
            false => disk_flag::READ_ONLY,
        };
        let properties = Properties::new(&instance_name(serial), serial, OWNER, target.block_count(), flags);
        let budget = Arc::new(Semaphore::new((HELD_BYTES_MAX / HELD_UNIT_BYTES) as usize));
        let server = Server { target, budget, runtime: Handle::current() };
        let mapping = Mapping::create(library, &properties, Box::new(server)).map_err(WnbdError::from_create)?;
        let mut this = Self::serve(mapping)?;
        let shown = {
            let mapping = this.mapping.clone();
            let show = move || mapping.disk_number(SHOW_TIME.as_millis() as u32, RETRY.as_millis() as u32);
            tokio::task::spawn_blocking(show).await.map_err(|error| WnbdError::Thread(io::Error::other(error)))?
        };
        this.uri = format!(r"\\.\PhysicalDrive{}", shown.map_err(WnbdError::NotShown)?);
        Ok(this)
    }

    /// Starts the dispatcher threads, and one that waits for their end.
    fn serve(mapping: Arc<Mapping>) -> Result<Self, WnbdError> {
        let (end, ended) = mpsc::channel(1);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(DISPATCHERS_MAX) as u32;
        mapping.start(threads).map_err(WnbdError::Dispatcher)?;
        let wait = {
            let mapping = mapping.clone();
            move || {
                mapping.wait();
                // Nobody needs to hear it twice.
                let _ = end.try_send(());
            }
        };
        let waiter = thread::Builder::new().name("wnbd-wait".into()).spawn(wait).map_err(|error| {
            remove(&mapping, remove_flag::HARD);
            mapping.wait();
            WnbdError::Thread(error)
        })?;
        Ok(Self { mapping, uri: String::new(), waiter: Some(waiter), ended })
    }

    /// Removes the drive, in the way that the [`remove_flag`]s say, and waits for the end of its threads.
    fn end(&mut self, flags: u32) {
        let Some(waiter) = self.waiter.take() else { return };
        // Where it cannot be removed, its threads go on until the process ends, with which the driver lets it go.
        if waiter.is_finished() || remove(&self.mapping, flags) {
            // An error means that it panicked: then it is as far gone as it can be.
            let _ = waiter.join();
        }
    }
}

/// Removes a drive, hard if it must be; says whether it is gone.
fn remove(mapping: &Mapping, flags: u32) -> bool {
    let attempts = [flags, remove_flag::HARD];
    let mut last = 0;
    for flags in attempts {
        let options = RemoveOptions {
            flags,
            soft_timeout_millis: SOFT_REMOVE_TIME.as_millis() as u32,
            soft_retry_millis: RETRY.as_millis() as u32,
            reserved: [0; 64],
        };
        match mapping.remove(&options) {
            // Somebody else has removed it.
            Ok(()) | Err(ERROR_FILE_NOT_FOUND) => return true,
            Err(error) => last = error,
        }
    }
    let (name, error) = (mapping.name(), io::Error::from_raw_os_error(last as i32));
    log::warn(format_args!("the drive cannot be removed: {error}; remove it with `wnbd-client unmap {name}`"));
    false
}

impl Drop for WnbdDrive {
    fn drop(&mut self) {
        self.end(remove_flag::HARD);
    }
}

impl Device for WnbdDrive {
    fn uri(&self) -> String {
        self.uri.clone()
    }

    fn ended(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            self.ended.recv().await;
        })
    }

    fn detach(mut self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async {
            // An error means that its end panicked: then it is as far gone as it can be.
            let _ = tokio::task::spawn_blocking(move || self.end(remove_flag::HARD_FALLBACK)).await;
        })
    }
}

/// The name by which the driver knows a drive: another for each, as one image may be attached several times.
fn instance_name(serial: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("swarmdisk-{serial}-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed))
}

/// Takes requests from the dispatcher threads, and has the runtime answer what is not answered at once.
struct Server<D> {
    target: Arc<Target<D>>,
    budget: Arc<Semaphore>,
    runtime: Handle,
}

impl<D: Disk> Handler for Server<D> {
    fn handle(&self, handle: u64, request: Request, mapping: Arc<Mapping>) {
        let mut pending = Pending { mapping, handle, kind: request.kind(), answer: Pending::FAILED };
        if let Some(answer) = self.target.serve_ready(&request) {
            pending.answer = answer;
            return;
        }
        let units = request.held_bytes().min(HELD_BYTES_MAX).div_ceil(HELD_UNIT_BYTES) as u32;
        let room = self.runtime.block_on(self.budget.clone().acquire_many_owned(units));
        let target = self.target.clone();
        self.runtime.spawn(async move {
            // All of both goes along: the room until it is answered, and an answer even if this is given up.
            let (mut pending, _room) = (pending, room);
            pending.answer = target.serve(request).await;
            drop(pending);
        });
    }
}

/// A request in flight: dropping it answers it.
struct Pending {
    mapping: Arc<Mapping>,
    handle: u64,
    kind: u32,
    answer: Answer,
}

impl Pending {
    const FAILED: Answer = Answer { status: GIVEN_UP, data: Bytes::new() };
}

const GIVEN_UP: Status = sense::BECOMING_READY;

impl Drop for Pending {
    fn drop(&mut self) {
        if let Err(error) = self.mapping.respond(self.handle, self.kind, &self.answer) {
            log::debug(format_args!("Windows has given request {:x} up (error {error})", self.handle));
        }
    }
}
