//! The pipe by which a process is found: its name stands in a file in the user's own folder.
//!
//! *Invariants*: the name cannot be guessed, so that nobody else answers in a process's stead; only the user, administrators and
//! the system may write to the pipe, as Windows has it unless told otherwise, and who cannot write cannot ask; none of another
//! machine may. *Bounds*: [`BUSY_PAUSE`] between attempts while a process answers somebody else.

use etcetera::base_strategy::{BaseStrategy, choose_base_strategy};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use windows_sys::Win32::Foundation::ERROR_PIPE_BUSY;

/// Of the files that name a pipe.
pub(super) const EXTENSION: &str = "pipe";
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// After a failure that may be due to a lack of memory.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// The folder of this user's files that name pipes, made if need be.
pub(super) fn dir() -> Option<PathBuf> {
    let dir = choose_base_strategy().ok()?.cache_dir().join("swarmdisk").join("running");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir)
}

/// Serves at this process's own; says where its name is.
pub(super) fn serve(app: axum::Router) -> Option<(AbortHandle, PathBuf)> {
    let own = std::process::id();
    let name = format!(r"\\.\pipe\swarmdisk-{own}-{:016x}", RandomState::new().hash_one(own));
    let next = ServerOptions::new().first_pipe_instance(true).create(&name).ok()?;
    let path = dir()?.join(format!("{own}.{EXTENSION}"));
    std::fs::write(&path, &name).ok()?;
    let task = tokio::spawn(axum::serve(Pipes { name, next }, app).into_future());
    Some((task.abort_handle(), path))
}

/// Connects to the one that is named there.
pub(super) async fn connect(path: &Path) -> io::Result<NamedPipeClient> {
    let name = std::fs::read_to_string(path)?;
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY as i32) => sleep(BUSY_PAUSE).await,
            opened => return opened,
        }
    }
}

/// Whether its process is gone.
pub(super) fn is_dead(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// A pipe that waits for a client; each gets an instance of its own.
struct Pipes {
    name: String,
    next: NamedPipeServer,
}

impl axum::serve::Listener for Pipes {
    type Io = NamedPipeServer;
    type Addr = ();

    async fn accept(&mut self) -> (NamedPipeServer, ()) {
        loop {
            let connected = self.next.connect().await;
            match ServerOptions::new().create(&self.name) {
                Ok(next) => {
                    let this = std::mem::replace(&mut self.next, next);
                    if connected.is_ok() {
                        return (this, ());
                    }
                }
                // Who has connected is sent away, or nobody could any more.
                Err(_) => {
                    let _ = self.next.disconnect();
                }
            }
            sleep(FAILED_PAUSE).await;
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
