//! Why there is no vhost-user device: one line that says what to do. Nothing was left behind.

use std::io;
use swarmdisk_host::socket_file::SocketFileError;

/// Why a disk cannot be served over vhost-user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VhostUserError {
    /// The socket's file cannot be ours.
    #[error("{0}")]
    Socket(#[from] SocketFileError),
    /// The disk at fault: it has no bytes.
    #[error("the disk is empty: there is nothing to make a device of")]
    Empty,
    /// The process has no threads or descriptors left.
    #[error("the system has no means left to serve vhost-user: {0}; close something, or choose --nbd")]
    Means(#[from] io::Error),
}
