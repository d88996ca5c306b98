//! A cache with a bound: what goes when it is full, and what may come then.
//!
//! *Value*: what a chunk is worth is, first, whether a linked peer is known to hold it (what nobody else has is kept longest),
//! then how lately and in how many rounds guests used it, then how few hold it. A hand goes round the chunks: whatever it
//! passes and nobody has used since the last round ages; the least of [`SAMPLE`] goes. What was guessed counts as much used,
//! until it has aged unused. Leaf pages and zeros never go.
//! *Invariants*: a demand finds room as long as there is a chunk that may go. A guess takes the place of what is aged out
//! alone, and ages nothing, so that guesses cannot drive each other out for ever; a fill takes free room alone. Nothing is
//! stored that does not fit into what the host has said to be free.
//! *Units*: bytes of payload, as the host counts them. *Bounds*: four bits a chunk; nothing without a bound. A choice looks at
//! [`SAMPLE`] chunks, and at [`GOING_MAX`] at most that are on their way out.

use super::config::Limits;
use super::event::Action;
use super::transfers::Step;
use super::{Engine, Transfer};
use crate::bitmap::{self, Bits};
use crate::geometry::{ChunkIndex, Geometry, Piece, PieceIndex};
use crate::ids::SlotId;
use crate::policy::{Order, Predictor, Selector};
use crate::wire::Class;

/// Chunks that are weighed against each other.
const SAMPLE: usize = 64;
/// Of these, how many the hand passes: few, so that a small cache does not age as a whole with each chunk that goes.
const PASSED: usize = 4;
/// Chunks that the host is taking away at a time.
const GOING_MAX: usize = 16;
/// Rounds after which a chunk's use has been forgotten, at the most.
const AGE_MAX: u8 = 3;
const BITMAPS: usize = 4;
/// Steps at which a body waits for room.
const PLACED: &[Step] = &[Step::Genuine, Step::Delivered];

/// What the cache holds that may go, and how much is free.
#[derive(Debug)]
pub(super) struct Cache<'a> {
    /// Chunks that take room and may go.
    kept: &'a mut [u64],
    /// Used since the hand came by.
    used: &'a mut [u64],
    /// How many rounds more it takes until the use before that is forgotten, in binary.
    ages: [&'a mut [u64]; 2],
    chunks: u32,
    /// Bytes that are free, less what is being stored; none: there is no bound.
    room: Option<i64>,
    hand: u32,
    going: heapless::Vec<ChunkIndex, GOING_MAX>,
}

/// How much a chunk is worth; the least goes first.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    is_only: bool,
    use_level: u8,
    rarity: u16,
}

impl<'a> Cache<'a> {
    pub(super) const fn words(geometry: Geometry, limits: Limits) -> usize {
        if limits.bounded { BITMAPS * geometry.bitmap_words() } else { 0 }
    }

    /// An empty one. `words` are as many as [`words`](Self::words) says, and clear.
    pub(super) fn new(words: &'a mut [u64], geometry: Geometry, limits: Limits) -> Self {
        let each = words.len() / BITMAPS;
        let (kept, rest) = words.split_at_mut(each);
        let (used, rest) = rest.split_at_mut(each);
        let (low, high) = rest.split_at_mut(each);
        let chunks = if limits.bounded { geometry.chunk_count() } else { 0 };
        Self { kept, used, ages: [low, high], chunks, room: None, hand: 0, going: heapless::Vec::new() }
    }

    fn kept(&self) -> Bits<'_> {
        Bits::new(self.kept, self.chunks)
    }

    fn age(&self, chunk: u32) -> u8 {
        let [low, high] = [&*self.ages[0], self.ages[1]].map(|words| Bits::new(words, self.chunks).get(chunk));
        u8::from(low) | u8::from(high) << 1
    }

    fn set_age(&mut self, chunk: u32, age: u8) {
        for (bit, words) in self.ages.iter_mut().enumerate() {
            bitmap::assign(words, chunk, age >> bit & 1 == 1);
        }
    }

    /// The hand passes a chunk.
    fn pass(&mut self, chunk: u32) {
        let age = self.age(chunk);
        let was_used = bitmap::assign(self.used, chunk, false);
        self.set_age(chunk, if was_used { (age + 1).min(AGE_MAX) } else { age.saturating_sub(1) });
    }

    /// A guest has used the chunk.
    pub(super) fn note_use(&mut self, chunk: ChunkIndex) {
        if self.kept().get(chunk.get()) {
            bitmap::assign(self.used, chunk.get(), true);
        }
    }

    /// The host says how much is free.
    pub(super) fn set_room(&mut self, bytes: i64, storing_bytes: u64) {
        self.room = Some(bytes.saturating_sub_unsigned(storing_bytes));
    }

    /// These chunks are held, take room, and may go.
    pub(super) fn keep(&mut self, first: u32, count: u32) {
        let end = first.saturating_add(count).min(self.chunks);
        if first < end {
            bitmap::assign_run(self.kept, first, end - first, true);
            self.going.retain(|chunk| !(first..end).contains(&chunk.get()));
        }
    }

    /// The chunk is gone.
    pub(super) fn lose(&mut self, chunk: ChunkIndex) {
        self.going.retain(|going| *going != chunk);
        if chunk.get() < self.chunks {
            bitmap::assign(self.kept, chunk.get(), false);
            bitmap::assign(self.used, chunk.get(), false);
            self.set_age(chunk.get(), 0);
        }
    }

    /// The chunk has been stored for this; so long is its payload.
    pub(super) fn note_stored(&mut self, chunk: ChunkIndex, row: &Transfer, touched: bool) {
        if row.bytes == 0 || chunk.get() >= self.chunks {
            return;
        }
        self.keep(chunk.get(), 1);
        if touched || row.class == Class::Demand {
            bitmap::assign(self.used, chunk.get(), true);
        } else if row.guessed {
            self.set_age(chunk.get(), AGE_MAX);
        }
    }

    fn take(&mut self, bytes: u32) {
        self.room = self.room.map(|room| room.saturating_sub(bytes.into()));
    }

    /// What was taken for a body is free again: it was not stored.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.room = self.room.map(|room| room.saturating_add(bytes.into()));
    }

    /// The chunks that may go, from the hand on, once round.
    fn round(&self) -> impl Iterator<Item = u32> + '_ {
        let to_end = self.kept().runs(self.hand);
        // A run that begins before the hand may reach beyond it.
        let from_start = self.kept().runs(0).map(|(first, count)| (first, count.min(self.hand.saturating_sub(first))));
        to_end.chain(from_start).flat_map(|(first, count)| first..first + count)
    }

    /// Whether so many bytes more are free.
    fn has_free(&self, bytes: u64) -> bool {
        self.room.is_none_or(|room| room >= bytes as i64)
    }

    /// Panics where what may go is not held.
    pub(super) fn check(&self, held: Bits<'_>) {
        assert!(self.kept().runs(0).flat_map(|(first, count)| first..first + count).all(|chunk| held.get(chunk)));
        assert!(self.going.iter().all(|chunk| !self.kept().get(chunk.get())), "what goes is not chosen twice");
    }
}

impl<P: Predictor, O: Order, S: Selector> Engine<'_, P, O, S> {
    fn worth(&self, chunk: u32) -> Worth {
        let words = 0..self.peers.len().div_ceil(64);
        let holders: u32 = words.map(|word| self.peers.holders.of_piece(chunk, word).count_ones()).sum();
        let used = Bits::new(self.cache.used, self.cache.chunks).get(chunk);
        Worth {
            is_only: holders == 0,
            use_level: self.cache.age(chunk) * 2 + u8::from(used),
            rarity: u16::MAX - holders.min(u16::MAX.into()) as u16,
        }
    }

    /// The chunk that goes for a demand, or because there is less room than there was; what is passed ages.
    fn choose_victim(&mut self) -> Option<u32> {
        let sample: heapless::Vec<u32, SAMPLE> = self.cache.round().take(SAMPLE).collect();
        let victim = sample.iter().copied().min_by_key(|chunk| self.worth(*chunk))?;
        for chunk in sample.iter().take(PASSED) {
            self.cache.pass(*chunk);
            self.cache.hand = chunk + 1;
        }
        Some(victim)
    }

    /// Chunks, of those next, that may go for a guess.
    fn aged_out(&self) -> impl Iterator<Item = u32> + '_ {
        let is_aged = |chunk: &u32| {
            let worth = self.worth(*chunk);
            !worth.is_only && worth.use_level == 0 && !Bits::new(self.own.guessed, self.cache.chunks).get(*chunk)
        };
        self.cache.round().take(SAMPLE).filter(is_aged)
    }

    /// Whether a chunk that no guest waits for will find a place, so far as can be said.
    pub(super) fn has_place(&self, class: Class) -> bool {
        if self.cache.room.is_none() {
            return true;
        }
        let under_way = self.transfers.live().filter(|(_, row)| row.class != Class::Demand).count();
        // The longest will fit, so that none is fetched again and again in vain.
        let bytes = under_way as u64 * u64::from(self.mean_bytes) + u64::from(self.geometry.chunk_bytes());
        self.cache.has_free(bytes) || (class == Class::Prefetch && self.aged_out().count() > under_way)
    }

    /// The body of this row is to be stored: does so, or has something taken away for it, or forgets it. None: it waits.
    pub(super) fn place(&mut self, index: usize) -> Option<Action> {
        let (row, slot) = (*self.transfers.at(index), self.transfers.id(index));
        let piece = self.geometry.piece(row.piece_number())?;
        if self.cache.has_free(row.bytes.into()) {
            return Some(self.store(index, slot, piece));
        }
        // Others wait, too: each has one taken away at a time.
        if self.cache.going.len() >= self.transfers.rows(PLACED).count().min(GOING_MAX) {
            return None;
        }
        let is_leaf = matches!(self.geometry.kind(piece), Piece::Leaf(_));
        let victim = match row.class {
            Class::Demand => self.choose_victim(),
            _ if is_leaf => self.choose_victim(),
            Class::Prefetch => self.aged_out().min_by_key(|chunk| self.worth(*chunk)),
            Class::Fill => None,
        };
        if let Some(chunk) = victim.and_then(|chunk| self.geometry.chunk(chunk)) {
            return Some(self.evict(chunk));
        }
        if !self.cache.going.is_empty() {
            return None;
        }
        if is_leaf {
            // Without it none of its chunks could be used.
            return Some(self.store(index, slot, piece));
        }
        self.free_transfer(index);
        Some(Action::Abandon { slot })
    }

    fn store(&mut self, index: usize, slot: SlotId, piece: PieceIndex) -> Action {
        self.cache.take(self.transfers.at(index).bytes);
        self.transfers.set_step(index, Step::Storing);
        Action::Store { slot, piece }
    }

    /// What is to go because the cache holds more than it may.
    pub(super) fn poll_cache(&mut self) -> Option<Action> {
        let room = self.cache.room.filter(|room| *room < 0)?;
        let expected = self.cache.going.len() as i64 * i64::from(self.mean_bytes);
        if room.saturating_add(expected) >= 0 || self.cache.going.is_full() {
            return None;
        }
        let victim = self.choose_victim().and_then(|chunk| self.geometry.chunk(chunk))?;
        Some(self.evict(victim))
    }

    fn evict(&mut self, chunk: ChunkIndex) -> Action {
        bitmap::assign(self.cache.kept, chunk.get(), false);
        let noted = self.cache.going.push(chunk);
        debug_assert!(noted.is_ok(), "there is room");
        Action::Evict { chunk }
    }

    /// Bytes of bodies that are being stored.
    pub(super) fn storing_bytes(&self) -> u64 {
        self.transfers.rows(&[Step::Storing]).map(|(_, row)| u64::from(row.bytes)).sum()
    }

    /// The piece takes no room any longer.
    pub(super) fn forget_place(&mut self, piece: PieceIndex) {
        if let Piece::Chunk(chunk) = self.geometry.kind(piece) {
            self.cache.lose(chunk);
        }
    }
}
