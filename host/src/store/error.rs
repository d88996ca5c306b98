//! What can go wrong with a store, each said in one line.

use std::io;
use std::path::{Path, PathBuf};
use swarmdisk_core::format::leaf::LeafError;
use swarmdisk_core::format::manifest::ManifestError;
use swarmdisk_core::format::superblock::SuperblockError;
use swarmdisk_core::geometry::{ChunkIndex, PieceIndex};

/// Why a store could not do what was asked. Unless a variant says otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused: disk, permissions.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file does not begin with a good superblock: another kind of file, or damaged.
    #[error("{} cannot be used: {source}; `swarmdisk pack` makes such files, or copy it again", path.display())]
    Superblock {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: SuperblockError,
    },
    /// The manifest in the file is not the one that the superblock names.
    #[error("{} is damaged: its manifest (at offset {offset}) does not fit the image id; copy the file again, or if it is a cache attach it again", path.display())]
    ManifestDamaged {
        /// Which file.
        path: PathBuf,
        /// Where the manifest begins, in bytes.
        offset: u64,
    },
    /// The manifest's hash is right, but it makes no sense: whoever made the image is at fault.
    #[error("the image cannot be used: {0}; pack it again")]
    Manifest(#[from] ManifestError),
    /// The manifest given is not that of the image asked for: whoever sent it is at fault.
    #[error("the manifest does not belong to image {0}; get it from another node")]
    WrongManifest(String),
    /// The file is not as long as its superblock says.
    #[error("{} is {bytes} bytes long but should be {expected_bytes}; copy the file again", path.display())]
    Truncated {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length it should have.
        expected_bytes: u64,
    },
    /// The file is a cache that does not have everything.
    #[error("{} is a cache with {held_count} of {piece_count} pieces; attach it by its swarm:// reference to complete it", path.display())]
    Incomplete {
        /// Which file.
        path: PathBuf,
        /// Pieces that are held.
        held_count: u32,
        /// Pieces of the image.
        piece_count: u32,
    },
    /// Another process has the cache.
    #[error("{} is in use by another process; end that one, or choose another --cache", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// No room for the payload or its record: the piece is not held.
    #[error("no space left for {}; make room, or choose another --cache", path.display())]
    DiskFull {
        /// Which file.
        path: PathBuf,
    },
    /// The store was opened read-only.
    #[error("{} is a complete image and is not written to", path.display())]
    ReadOnly {
        /// Which file.
        path: PathBuf,
    },
    /// The piece is needed for this and not held: fetch it, then ask again. For a chunk, it may be its leaf page that
    /// is named here.
    #[error("piece {} is not held; it has to be fetched first", .0.get())]
    Missing(PieceIndex),
    /// The piece was held, but its bytes are not what the image says. It is no longer held, and with a leaf page neither
    /// are the chunks that it describes: see [`Store::lost_with`](super::Store::lost_with).
    #[error("piece {} is damaged on disk; `swarmdisk check` tells how much else is", .0.get())]
    Rotten(PieceIndex),
    /// A leaf page's hash is right, but it makes no sense: whoever made the image is at fault.
    #[error("the image cannot be used: {0}; pack it again")]
    BadLeaf(#[from] LeafError),
    /// A payload's hash is right, but it does not decompress to its chunk: whoever made the image is at fault.
    #[error("the image cannot be used: chunk {} does not decompress to its size; pack it again", .0.get())]
    Undecodable(ChunkIndex),
}

impl StoreError {
    /// For `map_err`: the operating system's error with what was tried on which file. A full disk is told apart.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }
}
