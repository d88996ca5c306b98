//! A node of the swarm: one engine bound to sockets and a store.
//!
//! *Purpose*: [`Node::start`] runs an engine for one image; [`SwarmDisk`] reads through it; a [`Listener`] lets others in;
//! [`bootstrap`](bootstrap()) fetches what is needed before there is an engine.
//! *Invariants*: one task owns the engine and never waits for a link, a disk or a guest; all others may wait for it. It and
//! the links' tasks share a thread of their own, where a chunk's way through them wakes nobody; at some 15 µs to read and
//! to hash a chunk of 64 KiB it carries more than a link of 10 Gbit/s.
//! *Units*: bytes on the wire. *Bounds*: those of [`Limits`]; a read buffer and a credit of bytes a link.
//!
//! | module | holds |
//! |---|---|
//! | `engine_task`, `actions`, `recorder` | the task: messages in, actions carried out, recorded if wished |
//! | `link`, `socket`, `pacer` | links, their making, their rates |
//! | `pieces`, `puts`, `waiters` | payloads and blocking threads; what is to be stored; guests that wait |
//! | `keeper` | a cache's bound |
//! | `taker` | chunks that other images of the cache hold |
//! | `disk`, `touches` | what guests read through |
//! | `learner` | a seed's: the profile from what nodes tell |
//! | `listen`, `bootstrap` | strangers that come; an image that is not known yet |

mod actions;
mod bootstrap;
mod clock;
mod departures;
mod disk;
mod engine_task;
mod handle;
mod keeper;
mod learner;
mod link;
mod listen;
mod message;
mod pacer;
mod pieces;
mod puts;
mod recorder;
mod socket;
mod taker;
mod touches;
mod waiters;

pub use bootstrap::{AttemptError, Bootstrap, BootstrapError, BootstrapOptions, bootstrap};
pub use disk::{SwarmDisk, SwarmDiskError};
pub use handle::{NodeHandle, PeerLine, Snapshot};
pub use keeper::CacheState;
pub use link::Rates;
pub use listen::{Listener, Serving, check_exposure};
pub use pacer::Pacer;
pub use recorder::EngineRecordError;
pub use socket::LinkError;

use crate::digest::digest_of;
use crate::own_thread;
use crate::store::Store;
use bytes::Bytes;
use engine_task::Setup;
use handle::Inner;
use pieces::Pieces;
use recorder::EngineRecorder;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use swarmdisk_common::policies::Prefetch;
use swarmdisk_core::engine::{Config, Fill, Limits, Offered, SetupError, Tuning};
use swarmdisk_core::format::profile::{ProfileEntry, ProfileError, ProfileView};
use swarmdisk_core::ids::{Address, NodeId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::Role;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Messages from links and blocking threads that may wait for the engine's task; their senders wait then.
const MESSAGES: usize = 256;
/// What a link may be handed before its socket has taken anything, in bytes.
const CREDIT_BYTES: u32 = 256 * 1024;
/// What all links together may be handed, in bytes: 3 ms of a 10 Gbit/s link, a third of a second of a 100 Mbit/s one.
const UNSENT_BYTES: u32 = 4 << 20;
/// The same where the rate is limited: what has been handed over, no demand can overtake.
const UNSENT_BYTES_LIMITED: u32 = 128 * 1024;
/// Longest profile, in bytes.
pub(crate) const PROFILE_BYTES_MAX: usize = 16 << 20;

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The image: a cache that fills up, or a complete file.
    pub store: Arc<Store>,
    /// Seed or node.
    pub role: Role,
    /// Sizes of the engine's tables: [`Limits::NODE`] or [`Limits::SEED`].
    pub limits: Limits,
    /// Where others can reach it: with an unspecified ip (`0.0.0.0`, `::`) at the address that its links come from;
    /// none: it cannot be dialled.
    pub advertise: Option<SocketAddr>,
    /// Where it stands; near nodes go before the rest.
    pub locality: Locality,
    /// A profile of this image: offered to others, and followed as far as `prefetch` says. At most 16 MiB.
    pub profile: Option<Bytes>,
    /// What guesses are made from.
    pub prefetch: Prefetch,
    /// A node: whether others are told what its guests touch, seeds if they ask for it. A seed: whether it asks for it.
    pub teach: bool,
    /// What the cache's directory may hold, in bytes of payload: see [`CacheState`]. At least
    /// [`Store::least_cache_bytes`], or else that is taken.
    pub cache_bytes: Option<u64>,
    /// Whether to fetch what nobody has asked for.
    pub fill: Fill,
    /// What all links may send and receive; share one between nodes of a process whose limit is for all of them.
    pub rates: Rates,
    /// Where nodes may listen, and which of these are seeds.
    pub contacts: Vec<(SocketAddr, bool)>,
    /// Bytes that have been received before the node was started, for the report.
    pub bootstrap_bytes: u64,
    /// Where to record what the engine is told and answers; a file that is there is replaced.
    pub record_engine: Option<PathBuf>,
}

impl NodeOptions {
    /// For a node that reads this image: nobody known, nothing limited.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            role: Role::Node,
            limits: Limits::NODE,
            advertise: None,
            locality: Locality::NONE,
            profile: None,
            prefetch: Prefetch::default(),
            teach: true,
            cache_bytes: None,
            fill: Fill::Off,
            rates: Rates::default(),
            contacts: Vec::new(),
            bootstrap_bytes: 0,
            record_engine: None,
        }
    }

    /// For a seed of this image.
    pub fn seed(store: Arc<Store>) -> Self {
        Self { role: Role::Seed, limits: Limits::SEED, prefetch: Prefetch::Off, teach: false, ..Self::new(store) }
    }
}

/// Why a node could not be started, or let others in. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The limits are at fault.
    #[error("the node cannot be started: {0}")]
    Setup(#[from] SetupError),
    /// The profile cannot be used.
    #[error("the profile cannot be used ({0}); build it again with `swarmdisk profile build`, or leave it out")]
    Profile(ProfileError),
    /// The profile is too long.
    #[error("the profile is {bytes} bytes long, more than {PROFILE_BYTES_MAX}; build it from fewer traces")]
    ProfileTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The recording cannot be made.
    #[error(transparent)]
    Record(#[from] EngineRecordError),
    /// The system gives no thread.
    #[error("the node cannot be started: {0}; let this process have more threads")]
    Thread(io::Error),
    /// The engine's task ended at once.
    #[error("the node ended before it began; its log says why")]
    Ended,
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Everybody could join.
    #[error(
        "{address} can be reached by others; pass --open to let everybody who reaches it join, or listen on 127.0.0.1"
    )]
    Exposed {
        /// Where it would listen.
        address: SocketAddr,
    },
}

/// A node; what runs is reached by its [`NodeHandle`].
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node, on a thread of its own; what learns and what blocks runs on the current tokio runtime. It ends with
    /// [`NodeHandle::shutdown`], or when its last handle is dropped.
    ///
    /// # Errors
    /// [`NodeError::Setup`], [`NodeError::Profile`], [`NodeError::ProfileTooLong`], [`NodeError::Record`],
    /// [`NodeError::Thread`] or [`NodeError::Ended`].
    pub async fn start(options: NodeOptions) -> Result<NodeHandle, NodeError> {
        let entries = options.profile.as_deref().map(|profile| read_profile(profile, &options.store)).transpose()?;
        let config = config(&options);
        let entries = entries.unwrap_or_default();
        let recorder = options.record_engine.as_deref().map(EngineRecorder::create).transpose()?;
        let (sender, messages) = mpsc::channel(MESSAGES);
        let (requests, asked) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let learns = options.role == Role::Seed && options.teach;
        let groups = options.profile.as_deref().and_then(|profile| groups(profile, &options.store));
        let before = groups.map(|groups| (groups, entries.clone()));
        let pieces = Arc::new(Pieces::new(options.store.clone()));
        let setup = Setup {
            credit_bytes: CREDIT_BYTES.max(2 * options.store.geometry().chunk_bytes()),
            config,
            prefetch: options.prefetch,
            pupil: learns.then(|| learner::start(options.store.clone(), before, requests.downgrade())),
            entries,
            profile: options.profile.unwrap_or_default(),
            cache_bytes: options.cache_bytes,
            pieces: pieces.clone(),
            rates: options.rates,
            recorder,
            sender: sender.clone(),
        };
        own_thread::start("swarm", || engine_task::run(setup, messages, asked, ready)).map_err(NodeError::Thread)?;
        let runtime = started.await.map_err(|_| NodeError::Ended)??;
        let handle = NodeHandle::new(Inner {
            requests,
            messages: sender,
            runtime,
            pieces,
            permits: Arc::new(Semaphore::new(options.limits.demands.into())),
            bootstrap_bytes: options.bootstrap_bytes,
        });
        for (address, is_seed) in options.contacts {
            handle.add_contact(address, is_seed);
        }
        Ok(handle)
    }
}

fn read_profile(profile: &[u8], store: &Store) -> Result<Vec<ProfileEntry>, NodeError> {
    if profile.len() > PROFILE_BYTES_MAX {
        return Err(NodeError::ProfileTooLong { bytes: profile.len() });
    }
    let view = ProfileView::parse(profile, store.image(), store.geometry()).map_err(NodeError::Profile)?;
    Ok(view.entries().collect())
}

/// From how many runs each of its groups was merged.
fn groups(profile: &[u8], store: &Store) -> Option<Vec<u16>> {
    Some(ProfileView::parse(profile, store.image(), store.geometry()).ok()?.groups().collect())
}

fn config(options: &NodeOptions) -> Config {
    let listen = match options.advertise {
        None => Address::NONE,
        Some(address) if address.ip().is_unspecified() => Address { ip: [0; 16], port: address.port() },
        Some(address) => socket::to_address(address),
    };
    let node = random_node();
    let offered = |profile: &Bytes| Offered { digest: digest_of(profile), bytes: profile.len() as u32 };
    let tells = options.role == Role::Node && options.teach;
    let touches = if tells { options.limits.touches } else { 0 };
    Config {
        limits: Limits { touches, bounded: options.cache_bytes.is_some(), ..options.limits },
        node,
        image: options.store.image(),
        role: options.role,
        listen,
        locality: options.locality,
        manifest_bytes: options.store.manifest_bytes().len() as u32,
        payload_bytes: options.store.layout().payload_bytes(),
        profile: options.profile.as_ref().map(offered),
        teach: options.teach,
        // A seed has all of it.
        leaves_first: options.role == Role::Node && options.store.has_others(),
        fill: options.fill,
        seed: u64::from_le_bytes(std::array::from_fn(|at| node.0[at])),
        unsent_bytes_max: if options.rates.up.is_some() { UNSENT_BYTES_LIMITED } else { UNSENT_BYTES },
        tuning: Tuning::DEFAULT,
    }
}

/// A name that no other node has, but for a negligible chance. The standard library's keys for hash maps come from the
/// operating system's generator; the counter in them keeps two names of one thread apart.
pub(crate) fn random_node() -> NodeId {
    let mut name = [0; 16];
    for half in name.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    NodeId(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        assert_ne!(random_node(), random_node());
    }
}
