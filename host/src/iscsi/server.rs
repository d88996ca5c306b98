//! The iSCSI server: the listener, connections, shutdown.
//!
//! *Purpose*: serves one [`Disk`] as the one logical unit of one target. *Invariants*: beyond loopback only with CHAP or if
//! told to ([`IscsiConfig::open`]). *Bounds*: [`IscsiConfig::connections_max`] connections, one more is closed at once; a
//! login gets 30 s; a session's tasks and data as its modules say. A peer that is gone without a word is noticed by TCP's
//! keep-alives, within some minutes.

use super::address::{IscsiListen, IscsiUri};
use super::chap::Chap;
use super::connection::serve;
use super::identity::Identity;
use super::target::Target;
use crate::disk::Disk;
use crate::nbd::server::{accept_all, is_loopback, reachable};
use socket2::{SockRef, TcpKeepalive};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Duration;

/// After so long a silence the other end is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How a target shall behave.
#[derive(Debug, Clone)]
pub struct IscsiConfig {
    /// What it is called.
    pub identity: Identity,
    /// Who may log in; none: everybody.
    pub chap: Option<Chap>,
    /// Whether it may listen beyond loopback without CHAP, where anybody can then read the disk, and write to it if it is
    /// writable.
    pub open: bool,
    /// Most connections at a time.
    pub connections_max: usize,
    /// What initiators are told of the disk's physical blocks.
    pub physical: PhysicalBlocks,
}

/// The size of the blocks in which a disk is said to be kept: initiators align to it, and some take no other than 512.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub enum PhysicalBlocks {
    /// 512 bytes, as logical blocks have.
    Of512,
    /// 4 KiB, as overlays have.
    #[default]
    Of4096,
}

impl PhysicalBlocks {
    /// Logical blocks in one, as a power of two.
    fn shift(self) -> u8 {
        match self {
            Self::Of512 => 0,
            Self::Of4096 => 3,
        }
    }
}

impl IscsiConfig {
    /// With CHAP or without, on loopback, for up to 256 connections.
    pub fn new(identity: Identity, chap: Option<Chap>) -> Self {
        Self { identity, chap, open: false, connections_max: 256, physical: PhysicalBlocks::default() }
    }
}

/// Why a target cannot listen. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IscsiServerError {
    /// The operating system refused.
    #[error("cannot listen on {place}: {source}; choose another --iscsi")]
    Io {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The address is not a loopback one.
    #[error("{0} can be reached from other machines; listen on 127.0.0.1, or pass --chap-file, or --open")]
    NotLoopback(SocketAddr),
}

/// A target that listens, but serves only once it [runs](Self::run).
pub struct IscsiServer<D> {
    listener: TcpListener,
    uri: IscsiUri,
    target: Arc<Target<D>>,
    connections_max: usize,
}

impl<D: Disk> IscsiServer<D> {
    /// Listens. From now on initiators can connect, and wait until the target runs.
    ///
    /// # Errors
    /// [`IscsiServerError`]: the place is taken, not allowed, or the operating system refuses.
    pub async fn bind(listen: &IscsiListen, disk: Arc<D>, config: IscsiConfig) -> Result<Self, IscsiServerError> {
        let IscsiListen { host, port } = listen;
        let fail = |source| IscsiServerError::Io { place: format!("{host}:{port}"), source };
        let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), *port)).await.map_err(fail)?.collect();
        let is_guarded = config.open || config.chap.is_some();
        if let Some(outside) = addresses.iter().find(|address| !is_guarded && !is_loopback(address.ip())) {
            return Err(IscsiServerError::NotLoopback(*outside));
        }
        let listener = TcpListener::bind(&addresses[..]).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let listen = IscsiListen { host: reachable(address.ip()).to_string(), port: address.port() };
        let uri = IscsiUri { listen, iqn: config.identity.iqn.clone() };
        let target = Arc::new(Target::new(disk, config.identity, config.chap, config.physical.shift()));
        Ok(Self { listener, uri, target, connections_max: config.connections_max })
    }

    /// Where initiators find the disk; the port is the one that was taken.
    pub fn uri(&self) -> &IscsiUri {
        &self.uri
    }

    /// Serves until `shutdown` completes; then sessions end. Dropped instead, it ends all connections at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, target, connections_max, .. } = self;
        let start = |stream, connections: &mut JoinSet<()>, down| {
            connections.spawn(connection(stream, Arc::clone(&target), down));
        };
        let accept = async |listener: &TcpListener| listener.accept().await.map(|(stream, _)| stream);
        accept_all(listener, accept, connections_max, start, shutdown).await;
    }
}

async fn connection<D: Disk>(stream: TcpStream, target: Arc<Target<D>>, down: watch::Receiver<bool>) {
    let prepared = stream.set_nodelay(true).and_then(|()| {
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
        stream.local_addr()
    });
    // The address by which it was reached is one by which it can be reached again.
    let Ok(portal) = prepared else { return };
    let (read, write) = stream.into_split();
    let _ = serve(read, write, target, portal.to_string(), down).await;
}
