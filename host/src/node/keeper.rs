//! Keeps a cache within a bound: tells the engine how much room there is, and takes away what the engine picks.
//!
//! *The bound* is over the whole directory. What other images take there counts, by their bytes on disk; those that no process
//! has open give way, those used longest ago first. Of images that are open each process gives up its own chunks alone, and keeps
//! at least an equal share of the bound and the least that it needs: so a newcomer gets its share as the others learn of it.
//! *Invariants*: the engine is told of room after the disk has given it back, and stores no chunk that does not fit.
//! *Units*: bytes of payload, of this image; superblock, manifest, held log, and blocks that payloads fill in part are not
//! counted. *Bounds*: the directory is looked at once in [`LOOK_EVERY`], or sooner when room runs out beside idle images.

use super::engine_task::Task;
use super::message::Message;
use super::pieces::lost_by;
use crate::log;
use crate::store::directory::{Beside, cut_idle, look};
use crate::store::{Holdings, Store, StoreError};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use swarmdisk_core::engine::Event;
use swarmdisk_core::geometry::{ChunkIndex, Piece, PieceIndex};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant, timeout};

/// How often the other images of the directory are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long less is kept after the disk was full.
const PINCHED: Duration = Duration::from_secs(60);
/// More than any disk has.
const BOUND_BYTES_MAX: u64 = 1 << 60;
/// A part of the bound, as a divisor: with less room than that idle images are cut, to twice as much.
const LOW: u64 = 8;

/// How a cache with a bound stands.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct CacheState {
    /// Payloads that are held, in bytes.
    pub held_bytes: u64,
    /// How many this image may hold now.
    pub limit_bytes: u64,
    /// The bound of the directory.
    pub bound_bytes: u64,
    /// Chunks given up.
    pub evictions: u64,
    /// Their payloads, in bytes.
    pub evicted_bytes: u64,
}

/// A cache's bound, and what is held by all that the engine has been told.
pub(super) struct Keeper {
    bound_bytes: u64,
    least_bytes: u64,
    beside: Beside,
    used_bytes: u64,
    evictions: u64,
    evicted_bytes: u64,
    /// Chunks that are being taken away: they are counted when they are.
    evicting: HashSet<ChunkIndex>,
    /// The disk was full: until then, so much is kept at most.
    pinched: Option<(Instant, u64)>,
    /// What the watcher knows of `used_bytes`, and how it is told that room runs out.
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    used_bytes: AtomicU64,
    is_low: Notify,
}

impl Keeper {
    /// Looks at the cache and at the directory; idle images are cut if together they hold too much. Gives what is held, too.
    pub(super) fn new(store: &Store, bound_bytes: u64) -> Result<(Self, Holdings), StoreError> {
        // Sums of some of these fit.
        let bound_bytes = bound_bytes.min(BOUND_BYTES_MAX);
        let holdings = store.holdings()?;
        let mut keeper = Self {
            bound_bytes,
            least_bytes: store.least_cache_bytes(),
            beside: Beside::default(),
            used_bytes: holdings.bytes,
            evictions: 0,
            evicted_bytes: 0,
            evicting: HashSet::new(),
            pinched: None,
            shared: Arc::default(),
        };
        keeper.shared.used_bytes.store(holdings.bytes, Relaxed);
        keeper.beside = look_and_cut(store, bound_bytes, holdings.bytes);
        Ok((keeper, holdings))
    }

    /// Watches the directory until the engine's task has ended.
    pub(super) fn watch(&self, store: Arc<Store>, engine: mpsc::Sender<Message>) {
        let (shared, bound_bytes) = (self.shared.clone(), self.bound_bytes);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = engine.closed() => return,
                    // Whether it was called or the time is over.
                    _ = timeout(LOOK_EVERY, shared.is_low.notified()) => {}
                }
                let (store, used_bytes) = (store.clone(), shared.used_bytes.load(Relaxed));
                let look = tokio::task::spawn_blocking(move || look_and_cut(&store, bound_bytes, used_bytes));
                let Ok(beside) = look.await else { return };
                if engine.send(Message::Beside { beside }).await.is_err() {
                    return;
                }
            }
        });
    }

    /// How much this image may hold now.
    fn limit_bytes(&self) -> u64 {
        let Beside { idle_bytes, open_bytes, open_count } = self.beside;
        let rest = self.bound_bytes.saturating_sub(idle_bytes);
        let share = if open_count > 0 { rest / u64::from(open_count + 1) } else { 0 };
        let limit = rest.saturating_sub(open_bytes).max(share).max(self.least_bytes);
        let pinched = self.pinched.filter(|(until, _)| Instant::now() < *until);
        pinched.map_or(limit, |(_, most)| limit.min(most))
    }

    /// Room for more; less than none if too much is held.
    fn room_bytes(&self) -> i64 {
        self.limit_bytes() as i64 - self.used_bytes as i64
    }

    fn note(&mut self, gained: u64, lost: u64) {
        self.used_bytes = (self.used_bytes + gained).saturating_sub(lost);
        self.shared.used_bytes.store(self.used_bytes, Relaxed);
        let is_low = self.room_bytes() < (self.bound_bytes / LOW) as i64;
        if is_low && self.beside.idle_bytes > 0 {
            self.shared.is_low.notify_one();
        }
    }

    pub(super) fn state(&self) -> CacheState {
        CacheState {
            held_bytes: self.used_bytes,
            limit_bytes: self.limit_bytes(),
            bound_bytes: self.bound_bytes,
            evictions: self.evictions,
            evicted_bytes: self.evicted_bytes,
        }
    }
}

/// Looks at the other images, after cutting idle ones where the room runs out.
fn look_and_cut(store: &Store, bound_bytes: u64, used_bytes: u64) -> Beside {
    let Some(dir) = store.path().parent() else { return Beside::default() };
    let beside = look(dir, store.image());
    let room = bound_bytes.saturating_sub(beside.idle_bytes + beside.open_bytes + used_bytes);
    if beside.idle_bytes == 0 || room >= bound_bytes / LOW {
        return beside;
    }
    let over = (beside.idle_bytes + beside.open_bytes + used_bytes).saturating_sub(bound_bytes);
    let freed = cut_idle(dir, store.image(), over + 2 * bound_bytes / LOW - room.min(2 * bound_bytes / LOW));
    if freed == 0 { beside } else { look(dir, store.image()) }
}

impl Task<'_> {
    /// Tells the engine how much room there is, where that is bounded.
    pub(super) fn tell_room(&mut self) {
        if let Some(keeper) = &self.keeper {
            let bytes = keeper.room_bytes();
            self.tell(Event::Room { bytes });
        }
    }

    /// What is in the cache at the start.
    pub(super) fn tell_holdings(&mut self, holdings: &Holdings) {
        for (first, count) in &holdings.chunks {
            self.tell(Event::Kept { first: *first, count: *count });
        }
        self.tell_room();
    }

    /// A payload has been stored, and takes room.
    pub(super) fn note_kept(&mut self, bytes: u64) {
        if let Some(keeper) = &mut self.keeper {
            keeper.note(bytes, 0);
        }
    }

    /// What was held is not held any more, though nothing was evicted.
    pub(super) fn note_rotten(&mut self, piece: PieceIndex) {
        let (Some(keeper), store) = (&mut self.keeper, self.pieces.store()) else { return };
        if let Piece::Chunk(chunk) = store.geometry().kind(piece)
            && !keeper.evicting.contains(&chunk)
        {
            // Where it cannot be told, too much is taken to be held until the next start.
            keeper.note(0, store.payload_bytes_now(chunk).unwrap_or(0).into());
        }
    }

    /// The disk has no room for so many bytes: the cache holds less for a while, so that something goes.
    pub(super) fn note_disk_full(&mut self, bytes: u64) {
        if let Some(keeper) = &mut self.keeper {
            let most = keeper.used_bytes.saturating_sub(2 * bytes).max(1);
            keeper.pinched = Some((Instant::now() + PINCHED, most));
            self.tell_room();
        }
    }

    pub(super) fn on_beside(&mut self, beside: Beside) {
        if let Some(keeper) = &mut self.keeper {
            keeper.beside = beside;
            self.tell_room();
        }
    }

    /// Takes a chunk away.
    pub(super) fn evict(&mut self, chunk: ChunkIndex) {
        if let Some(keeper) = &mut self.keeper {
            keeper.evicting.insert(chunk);
        }
        let (sender, pieces) = (self.sender.clone(), self.pieces.clone());
        tokio::spawn(async move {
            let outcome = pieces.blocking(move |store| store.evict(chunk)).await;
            let _ = sender.send(Message::Evicted { chunk, outcome }).await;
        });
    }

    pub(super) fn on_evicted(&mut self, chunk: ChunkIndex, outcome: Result<u32, StoreError>) {
        let piece = self.pieces.store().geometry().chunk_piece(chunk);
        if let Some(keeper) = &mut self.keeper {
            keeper.evicting.remove(&chunk);
        }
        match outcome {
            Ok(bytes) => {
                if let Some(keeper) = &mut self.keeper {
                    keeper.evictions += u64::from(bytes > 0);
                    keeper.evicted_bytes += u64::from(bytes);
                    keeper.note(0, bytes.into());
                }
                self.tell_room();
            }
            Err(error) => {
                log::debug(format_args!("chunk {} cannot be evicted: {error}", chunk.get()));
                self.tell_lost(&lost_by(self.pieces.store(), piece, &error));
            }
        }
        // It may have been lost, and fetched again, before this was heard of.
        let is_back = self.pieces.store().holds(piece);
        if self.engine.holds(piece) {
            self.tell(if is_back { Event::Kept { first: piece, count: 1 } } else { Event::PieceLost { piece } });
        }
    }
}
