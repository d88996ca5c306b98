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
use swarmdisk_core::bitmap::assign_run;
use swarmdisk_core::engine::Event;
use swarmdisk_core::geometry::{ChunkIndex, Geometry, Piece, PieceIndex};
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
    /// A bitmap of the chunks that other images hold for this one: these take no room here, until they are stored.
    borrowed: Vec<u64>,
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
        let mut keeper = Self::of(store.geometry(), bound_bytes, store.least_cache_bytes(), holdings.bytes);
        keeper.beside = look_and_cut(store, bound_bytes, holdings.bytes);
        Ok((keeper, holdings))
    }

    fn of(geometry: Geometry, bound_bytes: u64, least_bytes: u64, used_bytes: u64) -> Self {
        let keeper = Self {
            bound_bytes,
            least_bytes,
            beside: Beside::default(),
            used_bytes,
            evictions: 0,
            evicted_bytes: 0,
            evicting: HashSet::new(),
            borrowed: vec![0; geometry.bitmap_words()],
            pinched: None,
            shared: Arc::default(),
        };
        keeper.shared.used_bytes.store(used_bytes, Relaxed);
        keeper
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

    /// Another image holds this chunk.
    fn borrow(&mut self, piece: PieceIndex) {
        assign_run(&mut self.borrowed, piece.get(), 1, true);
    }

    /// A payload has been stored.
    fn gain(&mut self, piece: PieceIndex, bytes: u64) {
        assign_run(&mut self.borrowed, piece.get(), 1, false);
        self.note(bytes, 0);
    }

    /// A payload is not to be had any more: here, unless it was in another image.
    fn lose(&mut self, piece: PieceIndex, bytes: u64) {
        let (word, bit) = (piece.get() as usize / 64, piece.get() % 64);
        let was_borrowed = self.borrowed.get(word).is_some_and(|word| word >> bit & 1 == 1);
        assign_run(&mut self.borrowed, piece.get(), 1, false);
        if !was_borrowed {
            self.note(0, bytes);
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
    pub(super) fn note_kept(&mut self, piece: PieceIndex, bytes: u64) {
        if let Some(keeper) = &mut self.keeper {
            keeper.gain(piece, bytes);
        }
    }

    /// Other images hold these chunks, which are read there.
    pub(super) fn note_found(&mut self, first: PieceIndex, count: u32) {
        let (Some(keeper), store) = (&mut self.keeper, self.pieces.store()) else { return };
        let run = (first.get()..first.get().saturating_add(count)).map_while(|index| store.geometry().piece(index));
        // One that has been stored since it was found is here.
        run.filter(|piece| !store.holds(*piece)).for_each(|piece| keeper.borrow(piece));
    }

    /// What was held is not held any more, though nothing was evicted.
    pub(super) fn note_rotten(&mut self, piece: PieceIndex) {
        let (Some(keeper), store) = (&mut self.keeper, self.pieces.store()) else { return };
        if let Piece::Chunk(chunk) = store.geometry().kind(piece)
            && !keeper.evicting.contains(&chunk)
        {
            // Where it cannot be told, too much is taken to be held until the next start.
            keeper.lose(piece, store.payload_bytes_now(chunk).unwrap_or(0).into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_image_had_and_has_no_more_frees_no_room_here() {
        let geometry = Geometry::new(100 << 16, 16).unwrap();
        let piece = |index| geometry.piece(index).unwrap();
        let mut keeper = Keeper::of(geometry, 1 << 20, 0, 5000);
        keeper.borrow(piece(64));
        keeper.borrow(piece(65));
        keeper.lose(piece(64), 300);
        assert_eq!(keeper.state().held_bytes, 5000, "it was never here");
        keeper.gain(piece(64), 300);
        keeper.gain(piece(65), 200);
        assert_eq!(keeper.state().held_bytes, 5500);
        keeper.lose(piece(64), 300);
        keeper.lose(piece(65), 200);
        keeper.lose(piece(3), 1000);
        assert_eq!(keeper.state().held_bytes, 4000, "these were");
    }
}
