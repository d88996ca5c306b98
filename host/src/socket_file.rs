//! A Unix socket's file: made, replaced and removed.
//!
//! *Invariants*: the file of a dead process is replaced, that of a live one never, nor what is no socket; our own is removed
//! in the end, if it is still ours.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why nobody can be listened for at a path. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketFileError {
    /// The operating system refused.
    #[error("cannot listen on {}: {source}; choose another {option}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What the command calls the path.
        option: &'static str,
    },
    /// A live process has the socket.
    #[error("{} is in use by another process; end that one, or choose another {option}", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
        /// What the command calls the path.
        option: &'static str,
    },
    /// Something that is no socket is there.
    #[error("{} is there and is no socket; remove it, or choose another {option}", path.display())]
    NoSocket {
        /// Where.
        path: PathBuf,
        /// What the command calls the path.
        option: &'static str,
    },
}

/// Dropping it removes the file, if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at a path, which is made absolute; `option` is what the command calls it.
    ///
    /// # Errors
    /// [`SocketFileError`].
    pub fn bind(path: &Path, option: &'static str) -> Result<(UnixListener, Self), SocketFileError> {
        let fail = |source| SocketFileError::Io { path: path.to_owned(), source, option };
        let path = std::path::absolute(path).map_err(fail)?;
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(&path, option)?;
                UnixListener::bind(&path)
            }
            bound => bound,
        };
        let listener = listener.map_err(fail)?;
        let identity = identity(&path).map_err(fail)?;
        Ok((listener, Self { path, identity }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Removes the socket file of a process that is gone: nobody accepts there.
fn remove_dead(path: &Path, option: &'static str) -> Result<(), SocketFileError> {
    let fail = |source| SocketFileError::Io { path: path.to_owned(), source, option };
    if !fs::symlink_metadata(path).map_err(fail)?.file_type().is_socket() {
        return Err(SocketFileError::NoSocket { path: path.to_owned(), option });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(fail),
        _ => Err(SocketFileError::InUse { path: path.to_owned(), option }),
    }
}
