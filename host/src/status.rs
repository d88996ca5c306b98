//! How running nodes are doing: JSON over a socket or pipe that the user's `swarmdisk status` finds, and over HTTP where asked for.
//!
//! *Purpose*: `swarmdisk status` finds all of a user's nodes on a machine; `--status ADDR` serves the same to monitors.
//! *Invariants*: only the user finds the socket (its directory has mode 700) or the pipe; HTTP listens on loopback unless `--open`.
//! *Bounds*: an answer of [`ANSWER_BYTES_MAX`], [`ANSWER_TIME`] for each process asked.

#[cfg(windows)]
#[path = "status/pipe.rs"]
mod own;
#[cfg(unix)]
#[path = "status/socket.rs"]
mod own;

use crate::digest::to_hex;
use crate::node::{CacheState, NodeHandle, check_exposure};
use crate::report::{AttachReport, FetchedBytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use swarmdisk_core::wire::Role;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Longest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long a process may take to answer.
pub const ANSWER_TIME: Duration = Duration::from_secs(2);

/// A process: a seed, or an attached image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// `seed` or `node`.
    pub role: String,
    /// Its process.
    pub pid: u32,
    /// Where it is reached: the disk's URI, or the address that a seed listens on.
    pub place: String,
    /// How long it has been running.
    pub run_micros: u64,
    /// Its images: one for a node.
    pub images: Vec<ImageStatus>,
    /// What a report would say now; only of a node.
    pub report: Option<AttachReport>,
}

/// An image of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Its id.
    pub image: String,
    /// Its size.
    pub image_bytes: u64,
    /// Pieces (chunks and leaf pages) that are held.
    pub held_pieces: u32,
    /// Pieces in all.
    pub pieces: u32,
    /// Sent to others.
    pub uploaded_bytes: u64,
    /// Received, by source.
    pub fetched_bytes: FetchedBytes,
    /// Read from other images of the cache instead of being fetched.
    #[serde(default)]
    pub other_images_bytes: u64,
    /// What its file takes on disk.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Of a cache with a bound.
    #[serde(default)]
    pub cache: Option<CacheStatus>,
    /// Whether what came could lately not be stored, as when the disk is full.
    #[serde(default)]
    pub store_fails: bool,
    /// The links.
    pub peers: Vec<PeerStatus>,
}

/// A cache with a bound.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Payloads that are held.
    pub held_bytes: u64,
    /// How many this image may hold now.
    pub limit_bytes: u64,
    /// The bound of the directory.
    pub bound_bytes: u64,
    /// Chunks given up.
    pub evictions: u64,
    /// Their payloads.
    pub evicted_bytes: u64,
}

impl From<CacheState> for CacheStatus {
    fn from(state: CacheState) -> Self {
        let CacheState { held_bytes, limit_bytes, bound_bytes, evictions, evicted_bytes } = state;
        Self { held_bytes, limit_bytes, bound_bytes, evictions, evicted_bytes }
    }
}

/// A link of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Where the other listens.
    pub address: String,
    /// `seed` or `node`.
    pub role: String,
    /// Round trip.
    pub rtt_micros: u64,
    /// What it has sent lately, in bytes a second; 0 if not known.
    pub bytes_per_sec: u64,
    /// Pieces that it holds.
    pub pieces: u32,
    /// Pieces asked of it and not here yet.
    pub in_flight: u16,
    /// Pieces that it has asked for and not been sent yet.
    pub uploads: u16,
}

/// Where a status comes from.
pub trait StatusSource: Send + Sync + 'static {
    /// How it is going; none if it has ended.
    fn status(&self) -> impl Future<Output = Option<Status>> + Send;
}

/// Why the status cannot be served. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Everybody could read it.
    #[error("{address} can be reached by others; pass --open to let them read the status, or listen on 127.0.0.1")]
    Exposed {
        /// Where it would listen.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --status")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl Status {
    /// Of an attached image.
    pub fn attached(place: String, image: ImageStatus, report: AttachReport) -> Self {
        let run_micros = report.run_micros;
        let pid = std::process::id();
        Self { role: "node".into(), pid, place, run_micros, images: vec![image], report: Some(report) }
    }

    /// Of a seed.
    pub fn seed(address: SocketAddr, images: Vec<ImageStatus>, up: Duration) -> Self {
        let (pid, run_micros) = (std::process::id(), up.as_micros() as u64);
        Self { role: "seed".into(), pid, place: address.to_string(), run_micros, images, report: None }
    }
}

impl ImageStatus {
    /// Of a node's image; none if the node has ended.
    pub async fn of(node: &NodeHandle) -> Option<Self> {
        let snapshot = node.snapshot().await?;
        let role = |role: Role| String::from(if role == Role::Seed { "seed" } else { "node" });
        let peers = snapshot.peers.iter().map(|peer| PeerStatus {
            address: peer.address.to_string(),
            role: role(peer.role),
            rtt_micros: peer.rtt.as_micros() as u64,
            bytes_per_sec: peer.bytes_per_sec,
            pieces: peer.piece_count,
            in_flight: peer.in_flight,
            uploads: peer.uploads,
        });
        Some(Self {
            image: to_hex(&node.image()),
            image_bytes: node.store().geometry().image_bytes(),
            held_pieces: snapshot.held_count,
            pieces: snapshot.piece_count,
            uploaded_bytes: snapshot.stats.uploaded_bytes,
            fetched_bytes: FetchedBytes { origin: snapshot.fetched_origin_bytes, peers: snapshot.fetched_peer_bytes },
            other_images_bytes: snapshot.other_images_bytes,
            disk_bytes: snapshot.disk_bytes,
            cache: snapshot.cache.map(CacheStatus::from),
            store_fails: snapshot.store_fails,
            peers: peers.collect(),
        })
    }
}

/// Serves a status until it is dropped.
#[derive(Debug)]
pub struct StatusServer {
    tasks: Vec<AbortHandle>,
    /// The file by which `swarmdisk status` finds this process.
    entry: Option<PathBuf>,
}

impl StatusServer {
    /// Serves at `http`, if given, and at this process's socket, if the system has such.
    ///
    /// # Errors
    /// [`StatusError`] if `http` cannot be listened on. Without its socket a process does its work all the same.
    pub async fn start<S: StatusSource>(
        http: Option<SocketAddr>,
        is_open: bool,
        source: Arc<S>,
    ) -> Result<Self, StatusError> {
        let app =
            axum::Router::new().route("/", get(answer::<S>)).route("/status", get(answer::<S>)).with_state(source);
        let mut server = Self { tasks: Vec::new(), entry: None };
        if let Some(address) = http {
            check_exposure(address, is_open).map_err(|_| StatusError::Exposed { address })?;
            let failed = |source| StatusError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            server.spawn(axum::serve(listener, app.clone()).into_future());
        }
        if let Some((task, entry)) = own::serve(app) {
            server.tasks.push(task);
            server.entry = Some(entry);
        }
        Ok(server)
    }

    fn spawn(&mut self, serve: impl Future<Output = std::io::Result<()>> + Send + 'static) {
        self.tasks.push(tokio::spawn(serve).abort_handle());
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        if let Some(path) = &self.entry {
            // Left behind, it is removed by the next that looks.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn answer<S: StatusSource>(State(source): State<Arc<S>>) -> Response {
    match source.status().await {
        Some(status) => axum::Json(status).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// All of this user's processes on this machine that answer, by process id.
pub async fn find_all() -> Vec<Status> {
    let Some(dir) = own::dir() else { return Vec::new() };
    let paths = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == own::EXTENSION)) {
        found.extend(tokio::time::timeout(ANSWER_TIME, ask(&path)).await.ok().flatten());
    }
    found.sort_by_key(|status: &Status| status.pid);
    found
}

/// Asks one process. HTTP/1.0: the answer ends with the connection.
async fn ask(entry: &Path) -> Option<Status> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = match own::connect(entry).await {
        Ok(stream) => stream,
        Err(error) => {
            if own::is_dead(&error) {
                let _ = std::fs::remove_file(entry);
            }
            return None;
        }
    };
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    serde_json::from_slice(&answer[end + 4..]).ok()
}
