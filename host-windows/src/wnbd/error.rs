//! Why there is no drive.

use crate::sys::LoadError;
use std::io;
use swarmdisk_host::disk::DiskError;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, ERROR_NO_MORE_ITEMS, ERROR_OPEN_FAILED,
};

/// Why a drive cannot be made; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum WnbdError {
    /// The machine lacks the DLL.
    #[error(
        "there is no libwnbd.dll; install WNBD (https://cloudbase.it/ceph-for-windows/ has it), or put its libwnbd.dll beside swarmdisk.exe"
    )]
    NoLibrary,
    /// The DLL is there and is of no use.
    #[error("libwnbd.dll cannot be loaded: {0}; install WNBD anew")]
    Library(io::Error),
    /// The DLL is of another time.
    #[error("libwnbd.dll has no {0}; install WNBD 0.7 or later")]
    OtherLibrary(&'static str),
    /// The machine lacks the driver.
    #[error(
        "the WNBD driver is not installed; run `wnbd-client install-driver wnbd.inf` as Administrator, in the folder of WNBD's driver, and restart"
    )]
    NoDriver,
    /// Who runs this may not.
    #[error("only Administrators can make drives; run it from an elevated prompt, or as a service")]
    Denied,
    /// There is one of this name.
    #[error("the driver has such a drive already; remove it with `wnbd-client unmap`, see `wnbd-client list`")]
    Exists,
    /// The driver refuses.
    #[error("the WNBD driver makes no drive: {0}; see `wnbd-client list` and the event log")]
    Create(io::Error),
    /// No threads.
    #[error("the WNBD driver gives no requests (error {0}); try again")]
    Dispatcher(u32),
    /// Windows is slow, or has something against it.
    #[error("Windows does not show the drive (error {0}); look into Disk Management, then try again")]
    NotShown(u32),
    /// An image without a byte.
    #[error("the image is empty; there is no drive without a block")]
    Empty,
    /// A thread could not be had.
    #[error("cannot start a thread: {0}; end other programs")]
    Thread(io::Error),
    /// The image cannot be read.
    #[error("{0}")]
    Disk(#[from] DiskError),
}

impl WnbdError {
    /// What the number says that making a drive ended with.
    pub(super) fn from_create(code: u32) -> Self {
        match code {
            ERROR_FILE_NOT_FOUND | ERROR_NO_MORE_ITEMS | ERROR_OPEN_FAILED => Self::NoDriver,
            ERROR_ACCESS_DENIED => Self::Denied,
            ERROR_ALREADY_EXISTS => Self::Exists,
            code => Self::Create(io::Error::from_raw_os_error(code as i32)),
        }
    }
}

impl From<LoadError> for WnbdError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotFound => Self::NoLibrary,
            LoadError::Broken(error) => Self::Library(error),
            LoadError::Lacks(function) => Self::OtherLibrary(function),
        }
    }
}
