//! Why there is no `/dev/ublkbN`: one line that says what to do. Nothing was left behind.

use std::io;
use std::path::PathBuf;

/// Why a disk cannot be a ublk device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UblkError {
    /// The kernel at fault: no driver.
    #[error(
        "the kernel (Linux {release}) has no ublk driver loaded: `modprobe ublk_drv` as root; the module is in Linux 6.0 \
         and later, recovery in 6.1, and 6.5 is needed here; or choose --nbd"
    )]
    NoDriver {
        /// Of the kernel.
        release: String,
    },
    /// The kernel at fault: the driver lacks what we use.
    #[error("the ublk driver of Linux {release} is too old: Linux 6.5 is needed; or choose --nbd")]
    TooOld {
        /// Of the kernel.
        release: String,
    },
    /// The caller at fault: rights.
    #[error("a ublk device is made by root alone (CAP_SYS_ADMIN): run it as root, or choose --nbd")]
    NotRoot,
    /// The kernel's rings are not for us.
    #[error(
        "io_uring, which ublk needs, is not allowed here: {0}; see `sysctl kernel.io_uring_disabled` and the rules of \
         the container, or choose --nbd"
    )]
    Ring(io::Error),
    /// The caller at fault: the number.
    #[error("there is a /dev/ublkb{0} already; choose another number, or --ublk for any that is free")]
    NumberTaken(u32),
    /// The caller at fault: nothing to take back.
    #[error("no ublk device of this image waits for its node; attach it without --recover")]
    NothingToRecover,
    /// The caller at fault: the device is of another disk.
    #[error("/dev/ublkb{0} is of another image, or of another size or kind; --recover takes the same one back")]
    OtherDisk(u32),
    /// The caller at fault: the device is in use.
    #[error("/dev/ublkb{0} is served by another process that lives; end that one first")]
    Served(u32),
    /// The disk at fault.
    #[error("the disk cannot be read: {0}")]
    Disk(#[from] swarmdisk_host::disk::DiskError),
    /// The disk at fault: it has no bytes.
    #[error("the disk is empty: there is nothing to make a device of")]
    Empty,
    /// The kernel refused a command.
    #[error("cannot {action} the ublk device{}: {source}; see `dmesg`, or choose --nbd", Number(*.number))]
    Command {
        /// What was wanted.
        action: &'static str,
        /// Of the device, if it has one.
        number: Option<u32>,
        /// Why.
        source: io::Error,
    },
    /// A file of the device cannot be used.
    #[error("cannot {action} {}: {source}; see that /dev is a devtmpfs, or choose --nbd", path.display())]
    Device {
        /// What was wanted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process has no threads left, or one has ended.
    #[error("a thread of the ublk device ended unexpectedly: {0}")]
    Thread(io::Error),
}

impl UblkError {
    pub(super) fn no_driver() -> Self {
        Self::NoDriver { release: release() }
    }

    pub(super) fn too_old() -> Self {
        Self::TooOld { release: release() }
    }

    pub(super) fn from_ring(error: io::Error) -> Self {
        Self::Ring(error)
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// A device's number in a sentence.
struct Number(Option<u32>);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |number| write!(f, " {number}"))
    }
}
