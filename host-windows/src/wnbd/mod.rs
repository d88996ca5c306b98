//! WNBD: a disk as a drive of a Windows machine, by the driver of <https://github.com/cloudbase/wnbd>.
//!
//! *Purpose*: `WnbdDrive` makes a drive of any [`Disk`](swarmdisk_host::disk::Disk); `Wnbd` is what the command's
//! `--wnbd` is. The driver is spoken to through its `libwnbd.dll`, which is loaded when it is asked for.
//!
//! | module | holds |
//! |---|---|
//! | `abi` | the DLL's numbers and structures |
//! | `request` | a request asked of a disk, answered in SCSI's words: on every system |
//! | `device`, `error` | a drive from its making to its removal |

pub mod abi;
#[cfg(windows)]
mod device;
#[cfg(windows)]
mod error;
pub mod request;

#[cfg(windows)]
pub use device::{Wnbd, WnbdDrive};
#[cfg(windows)]
pub use error::WnbdError;
