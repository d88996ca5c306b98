//! What can go wrong with an overlay, each said in one line.

use crate::digest::to_hex;
use crate::disk::DiskError;
use std::io;
use std::path::{Path, PathBuf};
use swarmdisk_core::format::overlay::HeaderError;
use swarmdisk_core::ids::Digest;

/// Why an overlay could not do what was asked. Nothing in it has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// The operating system refused.
    #[error("cannot {action} the overlay {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something else than a file is there.
    #[error("{} is no regular file; choose another name for the overlay", .0.display())]
    NoFile(PathBuf),
    /// The file does not begin as it must.
    #[error("{} cannot be used as an overlay: {source}; choose another name for it, or restore it from a copy", path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The file was cut off.
    #[error("the overlay {} is {bytes} bytes long but should be {expected_bytes}; restore it from a copy", path.display())]
    Truncated {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length it should have.
        expected_bytes: u64,
    },
    /// It lies over another image.
    #[error("the overlay {} belongs to image {}, not to {}; attach that one, or choose another overlay", path.display(), to_hex(own), to_hex(asked))]
    OtherImage {
        /// Which file.
        path: PathBuf,
        /// The image that it belongs to.
        own: Digest,
        /// The image that was asked for.
        asked: Digest,
    },
    /// The image is as large as no overlay's.
    #[error("an image of {0} bytes cannot have an overlay; attach it without --overlay")]
    ImageSize(u64),
    /// Both copies of a page of the map are bad.
    #[error("the overlay {} is damaged: both copies of page {page} of its map are bad, so what was written there cannot be told; restore it from a copy", path.display())]
    MapDamaged {
        /// Which file.
        path: PathBuf,
        /// Which page.
        page: u32,
    },
    /// Another process uses it.
    #[error("the overlay {} is in use by another process; end that one, or choose another overlay", .0.display())]
    InUse(PathBuf),
    /// A killed process's device waits for what it had answered.
    #[error("{} is of a device whose node was killed: take that back with --ublk --recover, or delete {} to give up what was not flushed", overlay.display(), live.display())]
    Waits {
        /// The overlay.
        overlay: PathBuf,
        /// What says what was answered.
        live: PathBuf,
    },
    /// There is nothing that a killed process had answered.
    #[error("there is no {} of this boot, so no device waits for this overlay; attach it without --recover", .0.display())]
    NotLive(PathBuf),
    /// A flush failed: what was written since the one before may be lost, and it cannot be told.
    #[error("the overlay {} could not be made durable and takes no more writes; check its disk, then attach it again", .0.display())]
    Broken(PathBuf),
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OverlayError {
    move |source| OverlayError::Io { action, path: path.to_owned(), source }
}

impl From<OverlayError> for DiskError {
    fn from(error: OverlayError) -> Self {
        match error {
            OverlayError::Io { source, .. } if is_full(&source) => Self::Full,
            other => Self::failed(other),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
