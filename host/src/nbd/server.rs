//! The NBD server: listeners, connections, shutdown.
//!
//! *Purpose*: serves one [`Disk`] on one TCP address or Unix socket. *Invariants*: beyond loopback only if
//! told to ([`ServerConfig::open`]), since TLS is not spoken; the socket file of a dead process is replaced, that of a
//! live one never; our own is removed in the end. *Bounds*: [`ServerConfig::connections_max`] connections, one more is
//! closed at once; negotiation gets [`HANDSHAKE_TIME`]; a connection's requests as the transmission says, on a
//! thread of its own.

use super::address::{NbdListen, NbdUri};
use super::handshake::{Export, negotiate};
use super::proto::{READ_BYTES_MAX, STRING_BYTES_MAX};
use super::transmission;
use crate::disk::Disk;
#[cfg(unix)]
use crate::socket_file::{SocketFile, SocketFileError};
use crate::{log, own_thread};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, lookup_host};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

/// How long a client may negotiate.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

/// How a server shall behave.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Whether it may listen beyond loopback, where anybody can then read the disk, and write to it if it is writable.
    pub open: bool,
    /// Most connections at a time.
    pub connections_max: usize,
    /// What clients are told of the disk, in up to 4,096 bytes.
    pub description: String,
    /// The thread that serves a client while it is the only one, as one on which the disk itself works: a read that waits
    /// for the disk then wakes no other. None: each has a thread of its own.
    pub first_on: Option<Handle>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { open: false, connections_max: 256, description: String::new(), first_on: None }
    }
}

/// Why a server cannot listen. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The operating system refused.
    #[error("cannot listen on {place}: {source}; choose another --nbd")]
    Io {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The socket's file cannot be ours.
    #[cfg(unix)]
    #[error("{0}")]
    Socket(#[from] SocketFileError),
    /// The address is not a loopback one.
    #[error("{0} can be reached from other machines, and NBD has no key here; listen on 127.0.0.1, or pass --open")]
    NotLoopback(SocketAddr),
    /// This operating system has no such sockets for us.
    #[error("Unix sockets are not supported here; choose --nbd 127.0.0.1:0")]
    NoUnixSockets,
}

/// A server that listens, but serves only once it [runs](Self::run).
#[derive(Debug)]
pub struct NbdServer<D> {
    listener: Listener,
    uri: NbdUri,
    disk: Arc<D>,
    config: ServerConfig,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        /// Removed at the end.
        _file: SocketFile,
    },
}

impl<D: Disk> NbdServer<D> {
    /// Listens. From now on clients can connect, and wait until the server runs.
    ///
    /// # Errors
    /// [`ServerError`]: the place is taken, not allowed, or the operating system refuses.
    pub async fn bind(listen: &NbdListen, disk: Arc<D>, mut config: ServerConfig) -> Result<Self, ServerError> {
        config.description.truncate(config.description.floor_char_boundary(STRING_BYTES_MAX - 4));
        let (listener, server) = match listen {
            NbdListen::Tcp { host, port } => {
                let listener = bind_tcp(host, *port, config.open).await?;
                let address = listener.local_addr().map_err(io_error(format!("{host}:{port}")))?;
                let server = NbdListen::Tcp { host: reachable(address.ip()).to_string(), port: address.port() };
                (Listener::Tcp(listener), server)
            }
            #[cfg(unix)]
            NbdListen::Unix(path) => {
                let fail = || io_error(path.display().to_string());
                let (listener, file) = SocketFile::bind(path, "--nbd")?;
                listener.set_nonblocking(true).map_err(fail())?;
                let listener = UnixListener::from_std(listener).map_err(fail())?;
                let server = NbdListen::Unix(file.path().to_owned());
                (Listener::Unix { listener, _file: file }, server)
            }
            #[cfg(not(unix))]
            NbdListen::Unix(_) => return Err(ServerError::NoUnixSockets),
        };
        Ok(Self { listener, uri: NbdUri { server, export: String::new() }, disk, config })
    }

    /// Where guests find the disk; the port is the one that was taken.
    pub fn uri(&self) -> &NbdUri {
        &self.uri
    }

    /// Serves until `shutdown` completes; then requests that are under way get a few seconds, and the socket's file is
    /// removed. Dropped instead, it ends all connections at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let export = Arc::new(Export {
            image_bytes: self.disk.image_bytes(),
            preferred_bytes: self.disk.preferred_bytes().clamp(512, READ_BYTES_MAX).next_power_of_two(),
            is_writable: self.disk.is_writable(),
            description: self.config.description.clone(),
        });
        let Self { listener, disk, config, .. } = self;
        let start = |stream, connections: &mut JoinSet<()>, down| {
            let (disk, export) = (Arc::clone(&disk), Arc::clone(&export));
            match config.first_on.as_ref().filter(|_| connections.is_empty()) {
                Some(thread) => {
                    connections.spawn_on(connection(stream, disk, export, down, Handle::current()), thread);
                }
                None => {
                    connections.spawn(on_own_thread(stream, disk, export, down));
                }
            }
        };
        accept_all(listener, Listener::accept, config.connections_max, start, shutdown).await;
    }
}

/// Lets clients in until `shutdown` completes, and then waits until all that were let in have ended; each is handed what tells it
/// that it is to. With `connections_max` of them one more is closed at once.
pub(crate) async fn accept_all<L, C>(
    listener: L,
    accept: impl AsyncFn(&L) -> io::Result<C>,
    connections_max: usize,
    start: impl Fn(C, &mut JoinSet<()>, watch::Receiver<bool>),
    shutdown: impl Future<Output = ()>,
) {
    let (down, going_down) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener) => match accepted {
                Ok(client) if connections.len() < connections_max => start(client, &mut connections, going_down.clone()),
                Ok(_) => {}
                // Out of descriptors, most likely: give others the time to close some.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
        }
    }
    drop(listener);
    // Whoever has ended need not hear it.
    let _ = down.send(true);
    while connections.join_next().await.is_some() {}
}

/// A client that nobody has heard yet.
enum Accepted {
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream.into_std()?))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

/// A connection on a thread of its own; when this is dropped it ends.
async fn on_own_thread<D: Disk>(client: Accepted, disk: Arc<D>, export: Arc<Export>, down: watch::Receiver<bool>) {
    let (_wanted, unwanted) = oneshot::channel::<()>();
    let (done, ended) = oneshot::channel::<()>();
    let others = Handle::current();
    let work = || async move {
        let _done = done;
        tokio::select! {
            () = connection(client, disk, export, down, others) => {}
            _ = unwanted => {}
        }
    };
    if let Err(error) = own_thread::start("nbd", work) {
        log::warn(format_args!("an NBD client cannot be served: {error}"));
    }
    // Nothing is sent: the thread drops its end when it is done.
    let _ = ended.await;
}

/// A connection from its first byte to its last. What ends it is the client's own affair.
async fn connection<D: Disk>(
    client: Accepted,
    disk: Arc<D>,
    export: Arc<Export>,
    down: watch::Receiver<bool>,
    others: Handle,
) {
    match client {
        Accepted::Tcp(stream) => {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let (read, write) = stream.into_split();
            converse(read, write, disk, export, down, others).await;
        }
        #[cfg(unix)]
        Accepted::Unix(stream) => {
            let Ok(stream) = UnixStream::from_std(stream) else { return };
            let (read, write) = stream.into_split();
            converse(read, write, disk, export, down, others).await;
        }
    }
}

async fn converse<R, W, D>(
    mut read: R,
    mut write: W,
    disk: Arc<D>,
    export: Arc<Export>,
    mut down: watch::Receiver<bool>,
    others: Handle,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    D: Disk,
{
    let negotiated = tokio::select! {
        negotiated = timeout(HANDSHAKE_TIME, negotiate(&mut read, &mut write, &export)) => negotiated,
        _ = down.wait_for(|down| *down) => return,
    };
    if let Ok(Ok(Some(session))) = negotiated {
        let _ = transmission::serve(read, write, disk, session, down, others).await;
    }
}

async fn bind_tcp(host: &str, port: u16, open: bool) -> Result<TcpListener, ServerError> {
    let fail = || io_error(format!("{host}:{port}"));
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(fail())?.collect();
    if let Some(outside) = addresses.iter().find(|address| !open && !is_loopback(address.ip())) {
        return Err(ServerError::NotLoopback(*outside));
    }
    TcpListener::bind(&addresses[..]).await.map_err(fail())
}

fn io_error(place: String) -> impl FnOnce(io::Error) -> ServerError {
    |source| ServerError::Io { place, source }
}

pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The address at which a client on this machine reaches a server that listens on `ip`.
pub(crate) fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskError, Extent, ExtentKind};
    use crate::nbd::NbdClient;
    use bytes::Bytes;
    use swarmdisk_core::ids::GuestId;

    /// Its bytes are the first letter of the name of the thread that reads them.
    struct ThreadDisk;

    impl Disk for ThreadDisk {
        fn image_bytes(&self) -> u64 {
            4096
        }

        fn preferred_bytes(&self) -> u32 {
            4096
        }

        async fn read(&self, _: GuestId, _: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
            let letter = std::thread::current().name().map_or(b'?', |name| name.as_bytes()[0]);
            Ok(vec![vec![letter; bytes as usize].into()])
        }

        async fn extents(&self, _: GuestId, _: u64, bytes: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
            Ok(vec![Extent { bytes, kind: ExtentKind::Data }])
        }
    }

    #[tokio::test]
    async fn a_first_client_shares_the_disks_thread_and_the_next_has_its_own() {
        let (tell, told) = oneshot::channel();
        let (_end, ended) = oneshot::channel::<()>();
        let disks_thread = || async move {
            let _ = tell.send(Handle::current());
            let _ = ended.await;
        };
        own_thread::start("disk", disks_thread).unwrap();
        let config = ServerConfig { first_on: Some(told.await.unwrap()), ..ServerConfig::default() };
        let listen: NbdListen = "127.0.0.1:0".parse().unwrap();
        let server = NbdServer::bind(&listen, Arc::new(ThreadDisk), config).await.unwrap();
        let uri = server.uri().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.run(async move { drop(stopped.await) }));
        let [first, second] = [NbdClient::connect(&uri).await.unwrap(), NbdClient::connect(&uri).await.unwrap()];
        for (client, letter) in [(&first, b'd'), (&second, b'n')] {
            assert_eq!(client.read_at(0, 512).await.unwrap().concat(), vec![letter; 512]);
        }
        first.disconnect().await;
        second.disconnect().await;
        stop.send(()).unwrap();
        serving.await.unwrap();
    }
}
