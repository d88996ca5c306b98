//! The seam to exports that only one operating system has: ublk and vhost-user on Linux, WNBD on Windows.
//!
//! *Purpose*: this crate depends on no such system's interfaces; a command's own crate passes in what it can do
//! ([`Exports`]), as trait objects. [`Disk`](crate::disk::Disk) cannot be one (its reads are futures of any kind), so
//! an export is given the one kind of disk that sessions have, and is generic itself where that is of use.
//! *Invariants*: a device is gone when [`Device::detach`] is done, or left to the system where that says so.

use crate::attached::AttachedDisk;
use crate::cli::Failure;
use crate::observed::Observed;
use crate::service::ServiceManager;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// What a session gives its guests.
pub type SessionDisk = Observed<AttachedDisk>;

/// What this is to be: boxed, as each export has a future of its own.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The exports that a command has beside NBD, and what else only one system has.
#[derive(Copy, Clone, Default)]
pub struct Exports {
    /// `--ublk`.
    pub ublk: Option<&'static dyn DeviceExport>,
    /// `--vhost-user`.
    pub vhost_user: Option<&'static dyn SocketExport>,
    /// `--wnbd`.
    pub wnbd: Option<&'static dyn DriveExport>,
    /// What starts services of this system, for `service`.
    pub services: Option<&'static dyn ServiceManager>,
}

/// Makes devices of disks.
pub trait DeviceExport: Sync {
    /// Makes one: when it is there, it can be read. Where the future is dropped, nothing is left behind.
    ///
    /// # Errors
    /// Whatever the system has against it, in one line that says what to do.
    fn attach(&self, disk: Arc<SessionDisk>, wish: DeviceWish) -> Later<'_, Result<Box<dyn Device>, Failure>>;
}

/// Serves disks to whoever connects to a socket.
pub trait SocketExport: Sync {
    /// Begins to serve at `socket`. Guests are told `serial`, up to 20 bytes, by which they know the disk again. Where the
    /// future is dropped, nothing is left behind.
    ///
    /// # Errors
    /// Whatever the system has against it, in one line that says what to do.
    fn attach(
        &self,
        disk: Arc<SessionDisk>,
        socket: PathBuf,
        serial: String,
    ) -> Later<'_, Result<Box<dyn Device>, Failure>>;
}

/// Makes drives of disks, which the system numbers itself.
pub trait DriveExport: Sync {
    /// Makes one: when it is there, it can be read. The system is told `serial`, up to 20 letters and digits, by which it
    /// knows the disk again. Where the future is dropped, nothing is left behind.
    ///
    /// # Errors
    /// Whatever the system has against it, in one line that says what to do.
    fn attach(&self, disk: Arc<SessionDisk>, serial: String) -> Later<'_, Result<Box<dyn Device>, Failure>>;
}

/// A device that guests can use.
pub trait Device: Send {
    /// Where it is: what `ready` says.
    fn uri(&self) -> String;

    /// Waits until somebody else removes it, or it ends by itself.
    fn ended(&mut self) -> Later<'_, ()>;

    /// Removes it; what is in flight gets a few seconds, then it fails.
    /// Dropping it does that, and blocks meanwhile.
    fn detach(self: Box<Self>) -> Later<'static, ()>
    where
        Self: 'static,
    {
        Box::pin(async {
            // An error means that its end panicked: then it is as far gone as it can be.
            let _ = tokio::task::spawn_blocking(move || drop(self)).await;
        })
    }
}

/// What a device is to be.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct DeviceWish {
    /// Its number; any if none.
    pub number: Option<u32>,
    /// Whether to take back one whose server is dead.
    pub recover: bool,
    /// Whether it waits for another server when this one dies; else its requests fail then. Not to be wished where that
    /// server would not know of writes that were answered and not flushed.
    pub outlives_server: bool,
    /// Which disk it is: by this it is known again.
    pub mark: u64,
}
