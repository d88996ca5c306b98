//! `vhost-user:PATH`: a disk as a virtio block device of virtual machines, with no kernel between.
//!
//! *Purpose*: [`VhostUserDevice`] serves any [`Disk`] to QEMU, Cloud Hypervisor and other frontends; [`VhostUser`] is what
//! the command's `--vhost-user` is. *Invariants*: one frontend at a time, each with a session of its own; when it leaves,
//! the next one is let in after all that the first had under way is over. The socket's file is ours as long as the device
//! lives. *Bounds*: those of `flow` and `backend`; at the end requests get 5 s, then they fail. A frontend that stops a queue
//! waits as long as the disk takes for what is under way, since a guest that goes on would miss its answers.
//!
//! The protocol and the rings are those of rust-vmm's crates. *Source*: QEMU's `docs/interop/vhost-user.rst`; VIRTIO 1.2.
//!
//! | module | holds |
//! |---|---|
//! | `config` | features, configuration space |
//! | `backend` | what the daemon of `vhost-user-backend` asks |
//! | `session`, `flow` | a frontend's queues served; what is under way |
//! | `chain`, `request` | a request read from guests' memory, and answered |

mod backend;
mod chain;
mod config;
mod error;
mod flow;
mod request;
mod session;

pub use error::VhostUserError;

use crate::sys::ExitEvents;
use backend::{Backend, Shown};
use config::QUEUES;
use request::Target;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use session::{End, Session};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use swarmdisk_host::cli::Failure;
use swarmdisk_host::device::{Device, Later, SessionDisk, SocketExport};
use swarmdisk_host::disk::Disk;
use swarmdisk_host::log;
use swarmdisk_host::socket_file::SocketFile;
use tokio::runtime::Handle;
use tokio::sync::mpsc as channel;
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, ShutdownHandle, VhostUserDaemon};

/// How long requests in flight have at the end, before they fail.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when the system has no means left.
const PAUSE: Duration = Duration::from_millis(100);
/// How often threads that end are looked at.
const STEP: Duration = Duration::from_millis(1);

/// The command's `--vhost-user`.
#[derive(Debug)]
pub struct VhostUser;

impl SocketExport for VhostUser {
    fn attach(
        &self,
        disk: Arc<SessionDisk>,
        socket: PathBuf,
        serial: String,
    ) -> Later<'_, Result<Box<dyn Device>, Failure>> {
        Box::pin(async move {
            let device = VhostUserDevice::start(disk, &socket, &serial)?;
            Ok(Box::new(device) as Box<dyn Device>)
        })
    }
}

/// A device that frontends can attach. Dropping it ends it, and blocks for as long as that takes.
pub struct VhostUserDevice<D: Disk> {
    file: SocketFile,
    shared: Arc<Shared<D>>,
    thread: Option<JoinHandle<()>>,
    ended: channel::Receiver<()>,
}

/// What the device and its thread share.
struct Shared<D: Disk> {
    now: Mutex<Now<D>>,
    /// Wakes the thread.
    wake: OwnedFd,
}

struct Now<D> {
    is_ending: bool,
    /// The session, and what ends its connection.
    session: Option<(Arc<Session<D>>, ShutdownHandle)>,
}

impl<D: Disk> VhostUserDevice<D> {
    /// Serves a disk at a socket; guests know it again by `serial`, up to 20 bytes. To be called on a runtime, which must
    /// outlive the device.
    ///
    /// # Errors
    /// [`VhostUserError`].
    pub fn start(disk: Arc<D>, socket: &Path, serial: &str) -> Result<Self, VhostUserError> {
        if disk.image_bytes() == 0 {
            return Err(VhostUserError::Empty);
        }
        let (listener, file) = SocketFile::bind(socket, "--vhost-user")?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let shared = Arc::new(Shared { now: Mutex::new(Now { is_ending: false, session: None }), wake });
        let (end, ended) = channel::channel(1);
        let server = Server {
            shown: Arc::new(Shown::of(&*disk)),
            disk,
            serial: serial.to_owned(),
            shared: shared.clone(),
            runtime: Handle::current(),
        };
        let run = move || {
            // Tells the end, whatever it ends of.
            let _end = end;
            server.run(listener);
        };
        let thread = Some(thread::Builder::new().name("vhost-user".into()).spawn(run)?);
        Ok(Self { file, shared, thread, ended })
    }
}

impl<D: Disk> Drop for VhostUserDevice<D> {
    fn drop(&mut self) {
        let session = {
            let mut now = self.shared.now();
            now.is_ending = true;
            now.session.take()
        };
        // The only error is a counter that is full: then the thread is to wake anyhow.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        if let Some((session, connection)) = session {
            session.end(GRACE, End::Failed);
            connection.shutdown();
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<D: Disk> Device for VhostUserDevice<D> {
    fn uri(&self) -> String {
        format!("vhost-user:{}", self.file.path().display())
    }

    fn ended(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            self.ended.recv().await;
        })
    }
}

impl<D: Disk> Shared<D> {
    fn now(&self) -> MutexGuard<'_, Now<D>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the threads of a daemon that was given up have let go of their descriptors.
fn wait_for_threads(exits: &Arc<ExitEvents>) {
    let until = Instant::now() + GRACE;
    // Each of them holds the backend, which holds this.
    while Arc::strong_count(exits) > 1 && Instant::now() < until {
        thread::sleep(STEP);
    }
}

/// The thread that lets frontends in, one after the other.
struct Server<D: Disk> {
    disk: Arc<D>,
    serial: String,
    shown: Arc<Shown>,
    shared: Arc<Shared<D>>,
    runtime: Handle,
}

impl<D: Disk> Server<D> {
    fn run(&self, listener: UnixListener) {
        let mut waiting = match listener.try_clone() {
            Ok(listener) => Listener::from(listener),
            Err(error) => return log::warn(format_args!("the vhost-user socket is lost: {error}")),
        };
        let mut told = None;
        loop {
            match self.wait_for_frontend(&listener) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return log::warn(format_args!("the vhost-user socket is lost: {error}")),
            }
            match self.serve(&mut waiting) {
                Ok(()) => told = None,
                Err(error) => {
                    let why = error.to_string();
                    // One that cannot be let in is tried again and again.
                    if told.as_ref() != Some(&why) {
                        log::warn(format_args!("a frontend of {} was lost: {why}", self.serial));
                    }
                    told = Some(why);
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Whether there is one; else the device ends.
    fn wait_for_frontend(&self, listener: &UnixListener) -> io::Result<bool> {
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.shared.wake, PollFlags::IN)];
            match poll(&mut events, None) {
                Ok(_) if self.shared.now().is_ending => return Ok(false),
                Ok(_) if events[0].revents().contains(PollFlags::IN) => return Ok(true),
                Ok(_) if events[0].revents().is_empty() => {}
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Serves one frontend, which is there, until it leaves.
    fn serve(&self, listener: &mut Listener) -> Result<(), DaemonError> {
        let target = Target::new(self.disk.clone(), &self.serial);
        let session = Arc::new(Session::new(target, QUEUES, self.runtime.clone()));
        // Dropped after the daemon.
        let exits = Arc::new(ExitEvents::default());
        let backend = Backend::new(session.clone(), self.shown.clone(), exits.clone());
        let daemon = VhostUserDaemon::new("vhost-user".into(), backend, session.memory.clone());
        let mut daemon = daemon.inspect_err(|_| {
            exits.notify();
            wait_for_threads(&exits);
            // It would be there again at once. Where there is no descriptor even for this, it stays, and all is tried again.
            let _ = listener.accept();
        })?;
        daemon.start(listener)?;
        if let Some(connection) = daemon.shutdown_handle() {
            let mut now = self.shared.now();
            if now.is_ending {
                drop(now);
                session.end(GRACE, End::Failed);
                connection.shutdown();
            } else {
                now.session = Some((session.clone(), connection));
            }
        }
        let served = daemon.wait();
        self.shared.now().session = None;
        session.end(Duration::ZERO, End::Gone);
        match served {
            // How frontends leave.
            Err(DaemonError::HandleRequest(ProtocolError::Disconnected | ProtocolError::PartialMessage)) => Ok(()),
            served => served,
        }
    }
}
