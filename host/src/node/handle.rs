//! A node, seen by its owner.

use super::keeper::CacheState;
use super::message::{Message, Report, Request};
use super::pieces::Pieces;
use super::socket::{Socket, to_socket_addr};
use crate::store::Store;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use swarmdisk_core::engine::{PeerStatus, Stats};
use swarmdisk_core::ids::Digest;
use swarmdisk_core::wire::Role;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// A running node. Clones are the same node.
#[derive(Debug, Clone)]
pub struct NodeHandle(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub requests: mpsc::UnboundedSender<Request>,
    pub messages: mpsc::Sender<Message>,
    /// Of the engine's thread.
    pub runtime: Handle,
    pub pieces: Arc<Pieces>,
    /// One for each demand that the engine keeps.
    pub permits: Arc<Semaphore>,
    pub bootstrap_bytes: u64,
}

/// How a node is doing. Bytes are counted since it was started.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The engine's counters.
    pub stats: Stats,
    /// The links.
    pub peers: Vec<PeerLine>,
    /// Chunks' bodies received from seeds, in bytes, duplicates and rejects included.
    pub fetched_origin_bytes: u64,
    /// The same from other nodes.
    pub fetched_peer_bytes: u64,
    /// Leaf pages, manifest, profile, and all frames but their bodies, received, in bytes.
    pub metadata_bytes: u64,
    /// Payloads that were prefetched and that no guest has read, in bytes.
    pub prefetch_unused_bytes: u64,
    /// Payloads read from other images of the cache instead of being fetched, in bytes.
    pub other_images_bytes: u64,
    /// Bytes that the image's file takes on disk.
    pub disk_bytes: u64,
    /// Of a cache with a bound, how it stands.
    pub cache: Option<CacheState>,
    /// Whether what came could lately not be stored, as when the disk is full.
    pub store_fails: bool,
    /// Pieces that are held.
    pub held_count: u32,
    /// Pieces of the image.
    pub piece_count: u32,
}

/// A link, for a person.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct PeerLine {
    /// Where the other node listens; port 0: nowhere.
    pub address: SocketAddr,
    /// What it does in the swarm.
    pub role: Role,
    /// Round trip.
    pub rtt: Duration,
    /// What it has sent lately, in bytes a second; 0 if not known.
    pub bytes_per_sec: u64,
    /// Pieces that it holds.
    pub piece_count: u32,
    /// Pieces asked of it and not here yet.
    pub in_flight: u16,
    /// Pieces that it has asked for and not been sent yet.
    pub uploads: u16,
}

impl NodeHandle {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(crate) fn pieces(&self) -> &Arc<Pieces> {
        &self.0.pieces
    }

    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.0.permits
    }

    /// The thread of the node's engine: what waits for the engine wakes nobody if it runs there. It must not keep it long.
    pub fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// The image that the node is about.
    pub fn image(&self) -> Digest {
        self.store().image()
    }

    /// What the node holds.
    pub fn store(&self) -> &Arc<Store> {
        self.0.pieces.store()
    }

    /// Tells the node where another may listen, and whether it is a seed, to which a link is kept before all others.
    pub fn add_contact(&self, address: SocketAddr, is_seed: bool) {
        self.request(Request::Contact { address, seed: is_seed });
    }

    /// How the node is doing; none if it has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, report) = oneshot::channel();
        self.request(Request::Snapshot(reply));
        let Report { stats, peers, counters, unused, cache, store_fails } = report.await.ok()?;
        let unused_bytes = self.0.pieces.blocking(move |store| {
            let geometry = store.geometry();
            // What cannot be looked up any longer is not held any longer.
            let lengths = unused.into_iter().filter_map(|chunk| store.payload_bytes(geometry.chunk_piece(chunk)).ok());
            Ok(lengths.map(u64::from).sum())
        });
        let leaf_bytes = counters.leaf_seed_bytes + counters.leaf_peer_bytes;
        Some(Snapshot {
            peers: peers.iter().map(PeerLine::new).collect(),
            fetched_origin_bytes: stats.fetched_seed_bytes.saturating_sub(counters.leaf_seed_bytes),
            fetched_peer_bytes: stats.fetched_peer_bytes.saturating_sub(counters.leaf_peer_bytes),
            metadata_bytes: self.0.bootstrap_bytes + counters.head_bytes + leaf_bytes,
            prefetch_unused_bytes: unused_bytes.await.unwrap_or(0),
            other_images_bytes: self.store().taken_bytes(),
            held_count: self.store().held_count(),
            piece_count: self.store().geometry().piece_count(),
            disk_bytes: self.store().disk_bytes(),
            cache,
            store_fails,
            stats,
        })
    }

    /// Says goodbye to all links and ends the node; reads that wait fail. What is held is made safe against a power cut.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        self.request(Request::Shutdown(done));
        // An error means that the node has ended already.
        let _ = ended.await;
        // A failure costs at most what has come in lately: it is verified again before it is used.
        let _ = self.0.pieces.blocking(Store::sync).await;
    }

    /// A node that has ended needs no requests: whoever waits for an answer sees the channel closed.
    pub(crate) fn request(&self, request: Request) {
        let _ = self.0.requests.send(request);
    }

    /// Hands over a link that has come in.
    pub(crate) async fn arrive(&self, socket: Socket) {
        let _ = self.0.messages.send(Message::Arrived { socket }).await;
    }
}

impl PeerLine {
    fn new(status: &PeerStatus) -> Self {
        Self {
            address: to_socket_addr(status.address),
            role: status.role,
            rtt: Duration::from_micros(status.rtt.as_micros()),
            bytes_per_sec: status.bytes_per_sec,
            piece_count: status.pieces,
            in_flight: status.in_flight,
            uploads: status.uploads,
        }
    }
}
