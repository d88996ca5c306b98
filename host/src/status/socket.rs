//! The socket by which a process is found: one in the user's runtime directory.
//!
//! *Invariants*: only the user can reach it: the directory has mode 700.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

/// Of the sockets' files.
pub(super) const EXTENSION: &str = "sock";

/// The directory of this user's sockets, made if need be; none if it is not this user's alone.
pub(super) fn dir() -> Option<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => Path::new(&dir).join("swarmdisk"),
        None => std::env::temp_dir().join(format!("swarmdisk-{user}")),
    };
    // It may be there already.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(&dir);
    let meta = std::fs::symlink_metadata(&dir).ok()?;
    (meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0).then_some(dir)
}

/// Serves at this process's own; says where that is.
pub(super) fn serve(app: axum::Router) -> Option<(AbortHandle, PathBuf)> {
    let path = dir()?.join(format!("{}.{EXTENSION}", std::process::id()));
    // One that is there is of a dead process that had this one's number.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).ok()?;
    Some((tokio::spawn(axum::serve(listener, app).into_future()).abort_handle(), path))
}

/// Connects to the one there.
pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

/// Whether its process is gone.
pub(super) fn is_dead(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
