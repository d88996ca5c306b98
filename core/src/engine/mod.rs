//! The state machine: a switchboard that routes events to the modules, which decide.
//!
//! *Purpose*: decides what to fetch, from whom and in which order, and whom to serve first.
//! *Invariants*: output is derived from state when [`Engine::poll`] asks for it, so no queue can overflow; every order of
//! calls is legal; the same calls give the same answers. [`Engine::check_invariants`] is the tables' part in code.
//! *Units*: bytes on the wire, microseconds. *Bounds*: the storage given to [`Engine::new`]; a call looks at the rows that
//! it is about or that are due, found in O(log rows), and a search for fetches also at those in flight.
//!
//! | module | decides |
//! |---|---|
//! | `fetch`, `fill` | what to ask of whom: demand, then prefetch, then fill; hedging; giving up |
//! | `cache` | what goes when the cache is full, and what may come then |
//! | `serve`, `giveway` | whom to answer next, and how |
//! | `links` | whom to link with, and what each peer is to be told |
//! | `inbound` | what a peer's frames mean |
//! | `peer`, `peers`, `transfers`, `uploads`, `demands`, `contacts`, `hints`, `holders`, `kept`, `announce`, `touchlog` | the tables |
//! | `agenda` | which row of a table is next |

mod agenda;
mod announce;
mod cache;
mod config;
mod contacts;
mod demands;
mod event;
mod fetch;
mod fill;
mod giveway;
mod guesses;
mod hints;
mod holders;
mod inbound;
mod kept;
mod links;
mod meter;
mod ownership;
mod peer;
mod peers;
mod prefetch;
mod serve;
mod stock;
mod touchlog;
mod transfers;
mod uploads;

pub use announce::Change;
pub use config::{Config, Fill, Footprint, Limits, Offered, SetupError, Stats, Storage, Tuning};
pub use contacts::Contact;
pub use demands::Demand;
pub use event::{Action, BlobKind, Body, Event, Reason, Verdict};
pub use inbound::{Landing, PeerError, Received};
pub use links::PeerStatus;
pub use peer::PeerRow;
pub use touchlog::Touch;
pub use transfers::Transfer;
pub use uploads::{Served, Upload};

use crate::bitmap::{self, Bits};
use crate::geometry::{ChunkIndex, Geometry, Piece, PieceIndex};
use crate::ids::{GuestId, PeerId, SlotId};
use crate::locality::{Locality, Nearness};
use crate::policy::{Access, ChunkView, Order, Outcome, Predictor, Selector};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::Class;
use announce::Changes;
use cache::Cache;
use contacts::Contacts;
use demands::Demands;
use fill::Filling;
use giveway::GiveWay;
use hints::Hints;
use meter::Meter;
use peers::Peers;
use prefetch::Window;
use touchlog::TouchLog;
use transfers::{Step, Transfers, WAITING, WITH_HOST};
use uploads::{ServedTo, Uploads};

/// Steps of a fetch at which the host is to be told something.
const TO_TELL: &[Step] = &[Step::Landed, Step::Genuine, Step::Delivered, Step::ToAbandon];

/// How long changes are gathered when one is of a piece that no linked node has.
const RARE_BATCH: Duration = Duration::from_millis(5);
/// To so many peers it is told at once; then they serve the rest, or all would ask the one that has it.
const TOLD_FIRST: usize = 4;

/// Bitmaps of this node's own, with a bit for each piece.
#[derive(Debug)]
struct Own<'a> {
    /// Held: stored and fit to be read and sent.
    held: &'a mut [u64],
    /// Has a live fetch.
    flight: &'a mut [u64],
    /// Held because it was guessed, and not touched since.
    guessed: &'a mut [u64],
    /// Chunks that a guest has read or asked for.
    touched: &'a mut [u64],
}

impl Own<'_> {
    /// These as predictors see them.
    fn view(&self, geometry: Geometry) -> ChunkView<'_> {
        let [held, flight, touched] =
            [&*self.held, self.flight, self.touched].map(|words| Bits::new(words, geometry.piece_count()));
        ChunkView::new(geometry, held, flight, touched)
    }
}

/// The engine: a pure state machine. One owner calls it; see the module's docs for its promises.
///
/// The type parameters are the policies: prediction, order of prefetching, choice of peer.
#[derive(Debug)]
pub struct Engine<'a, P, O, S> {
    geometry: Geometry,
    config: Config,
    own: Own<'a>,
    cache: Cache<'a>,
    peers: Peers<'a>,
    transfers: Transfers<'a>,
    uploads: Uploads<'a>,
    served: ServedTo<'a>,
    demands: Demands<'a>,
    contacts: Contacts<'a>,
    changes: Changes<'a>,
    touches: TouchLog<'a>,
    hints: Hints,
    predictor: P,
    order: O,
    selector: S,
    window: Window,
    rng: Rng,
    stats: Stats,
    touched_count: u32,
    /// Guesses that are held and not touched so far.
    guessed_count: u32,
    /// Guesses that guests have touched.
    used_count: u32,
    /// The predictor's beliefs when guesses were last taken back.
    beliefs: u32,
    /// What all links together take and bring.
    up: Meter,
    down: Meter,
    give_way: GiveWay,
    /// Mean payload of the chunks received so far, in bytes.
    mean_bytes: u32,
    filling: Filling,
    /// Until then the store is taken to be full: nothing but demand is fetched.
    store_full_until: Instant,
    leaves_paused_until: Instant,
    /// Whether something that a guest waited for has come.
    has_answered: bool,
    /// Until then nothing is fetched: this node could not check what came.
    paused_until: Instant,
    /// Whether something has happened since fetches were last looked for.
    look_for_work: bool,
    /// When it is looked again because of what nodes have told.
    news_at: Instant,
    /// Before then, `poll` has nothing to do unless something happens.
    quiet_until: Instant,
    /// From then on there may be fetches to start even if nothing has happened.
    look_at: Instant,
}

impl<'a, P: Predictor, O: Order, S: Selector> Engine<'a, P, O, S> {
    /// An engine that holds nothing and knows nobody.
    ///
    /// # Errors
    /// [`SetupError`] if the storage is smaller than [`Footprint::of`] says, or a limit is 0 that must not be.
    pub fn new(
        now: Instant,
        geometry: Geometry,
        config: Config,
        storage: Storage<'a>,
        (predictor, order, selector): (P, O, S),
    ) -> Result<Self, SetupError> {
        let limits = config.limits;
        let smallest =
            [limits.peers, limits.transfers, limits.requests_per_peer, limits.demands, limits.contacts, limits.changes];
        let uploads = u32::from(limits.peers) * u32::from(limits.requests_per_peer);
        if smallest.contains(&0) || uploads > u32::from(u16::MAX) {
            return Err(SetupError::Limits);
        }
        let need = Footprint::of(geometry, limits);
        if !storage.fits(need) {
            return Err(SetupError::StorageTooSmall(need));
        }
        let words = geometry.bitmap_words();
        let storage_words = &mut storage.words[..need.words];
        storage_words.fill(0);
        let (held, rest) = storage_words.split_at_mut(words);
        let (flight, rest) = rest.split_at_mut(words);
        let (guessed, rest) = rest.split_at_mut(words);
        let (touched, rest) = rest.split_at_mut(words);
        let (cache_words, rest) = rest.split_at_mut(Cache::words(geometry, limits));
        let (peer_words, transfer_words) = rest.split_at_mut(Peers::words(geometry, limits));
        let tuning = config.tuning;
        let mut rng = Rng::new(config.seed);
        Ok(Self {
            geometry,
            own: Own { held, flight, guessed, touched },
            cache: Cache::new(cache_words, geometry, limits),
            peers: Peers::new(limits, tuning, geometry, storage.peers, peer_words),
            transfers: Transfers::new(&mut storage.transfers[..need.transfers], tuning.timeout, transfer_words),
            uploads: Uploads::new(&mut storage.uploads[..need.uploads], limits.requests_per_peer),
            served: ServedTo::new(&mut storage.served[..need.served]),
            demands: Demands::new(&mut storage.demands[..need.demands]),
            contacts: Contacts::new(&mut storage.contacts[..need.contacts], config.locality),
            changes: Changes::new(&mut storage.changes[..need.changes]),
            touches: TouchLog::new(&mut storage.touches[..need.touches]),
            hints: Hints::new(),
            predictor,
            order,
            selector,
            window: Window::new(),
            filling: Filling::new(now, rng.below(geometry.piece_count())),
            rng,
            stats: Stats::default(),
            touched_count: 0,
            guessed_count: 0,
            used_count: 0,
            beliefs: 0,
            up: Meter::new(now),
            down: Meter::new(now),
            give_way: GiveWay::new(now),
            mean_bytes: geometry.chunk_bytes() / 3,
            store_full_until: Instant::ZERO,
            leaves_paused_until: Instant::ZERO,
            has_answered: false,
            paused_until: Instant::ZERO,
            look_for_work: true,
            news_at: Instant::NEVER,
            quiet_until: Instant::ZERO,
            look_at: Instant::NEVER,
            config,
        })
    }

    /// Tells the engine what happened. Every event is legal at any time.
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.wake();
        // The others start no fetch by themselves; what ends one says so where it does.
        self.look_for_work |= !matches!(
            event,
            Event::ContactFound { .. }
                | Event::PeerOpened { .. }
                | Event::PeerWritable { .. }
                | Event::BodyLanded { .. }
                | Event::BodyVerified { .. }
                | Event::Loaded { .. }
                | Event::ProfileOffered { .. }
        );
        match event {
            Event::Wanted { guest, chunk } => {
                let hit = self.holds(self.geometry.chunk_piece(chunk));
                self.touch(now, guest, chunk, hit);
                self.want(now, self.geometry.chunk_piece(chunk));
            }
            Event::LeafWanted { leaf } => self.want(now, self.geometry.leaf_piece(leaf)),
            Event::Released { chunk, .. } => self.release(self.geometry.chunk_piece(chunk)),
            Event::LeafReleased { leaf } => self.release(self.geometry.leaf_piece(leaf)),
            Event::Touched { guest, chunk } => self.touch(now, guest, chunk, true),
            Event::Held { first, count } => self.on_held(first, count),
            Event::Found { first, count } => self.on_found(now, first, count),
            Event::PieceLost { piece } => self.on_lost(now, piece),
            Event::Room { bytes } => self.cache.set_room(bytes, self.storing_bytes()),
            Event::Kept { first, count } => self.on_kept(first, count),
            Event::ContactFound { address, seed } => self.contacts.add(address, seed, Locality::NONE),
            Event::PeerOpened { peer, credit_bytes } => self.on_opened(now, peer, credit_bytes),
            Event::PeerClosed { peer } => self.drop_peer(now, peer),
            Event::PeerWritable { peer, bytes } => {
                let bytes = self.peers.get(peer).map_or(0, |link| link.unsent_bytes.min(bytes.into()) as u32);
                self.up.note(now, bytes);
                self.give_way.note_sent(now, bytes);
                let known = self.peers.sent(now, peer, bytes);
                self.count_stale(known);
            }
            Event::BodyLanded { slot } => self.on_landed(now, slot),
            Event::BodyVerified { slot, verdict } => self.on_verified(now, slot, verdict),
            Event::BodyStored { slot } => self.on_stored(now, slot),
            Event::StoreFailed { slot } => self.on_store_failed(now, slot),
            Event::Loaded { upload, bytes } => self.on_loaded(upload, bytes),
            Event::ProfileOffered { profile } => self.config.profile = profile,
        }
    }

    /// The next thing to do, if there is any now. `head` takes a frame's head: at least `wire::HEAD_BYTES_MAX` bytes.
    /// Call again until it gives `None`; then at the latest at [`deadline`](Self::deadline).
    pub fn poll(&mut self, now: Instant, head: &mut [u8]) -> Option<Action> {
        if now < self.quiet_until {
            return None;
        }
        self.peers.settle(now, self.contacts.version());
        self.give_up(now);
        self.look_for_work |= now >= self.look_at.min(self.news_at);
        let action = self
            .poll_bodies()
            .or_else(|| self.poll_links(now, head))
            .or_else(|| self.poll_requests(now, head))
            .or_else(|| self.poll_uploads(now, head));
        if action.is_some() {
            self.quiet_until = Instant::ZERO;
        } else {
            self.quiet_until = self.next_deadline(now);
            self.look_at = self.quiet_until;
        }
        action
    }

    /// When to poll again even if nothing happens. `None`: only when something does.
    pub fn deadline(&self) -> Option<Instant> {
        (self.quiet_until != Instant::NEVER).then_some(self.quiet_until)
    }

    /// Whether the piece is held.
    pub fn holds(&self, piece: PieceIndex) -> bool {
        self.held().get(piece.get())
    }

    /// Which pieces are held.
    pub fn held(&self) -> Bits<'_> {
        Bits::new(self.own.held, self.geometry.piece_count())
    }

    /// Chunks that were prefetched and that no guest has touched so far.
    pub fn unused_guesses(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        let guessed = Bits::new(self.own.guessed, self.geometry.chunk_count());
        guessed.runs(0).flat_map(|(first, count)| first..first + count).filter_map(|index| self.geometry.chunk(index))
    }

    /// When a guest is expected to want the piece; none unless it is on its way for that alone.
    pub fn prefetch_due(&self, piece: PieceIndex) -> Option<Instant> {
        let row = self.transfers.at(self.transfers.of_piece(piece)?);
        (row.class == Class::Prefetch).then_some(row.due)
    }

    /// How the image is cut.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Slots that `Land` has named and that have not come to their end: as many as the host has or receives bodies.
    pub fn slots_in_use(&self) -> usize {
        self.transfers.rows(WITH_HOST).count()
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Something has happened: there may be something to do.
    fn wake(&mut self) {
        self.quiet_until = Instant::ZERO;
    }

    fn count_stale(&mut self, known: bool) {
        self.stats.stale_events += u64::from(!known);
    }

    /// A guest has read a chunk, or asked for it.
    fn touch(&mut self, now: Instant, guest: GuestId, chunk: ChunkIndex, hit: bool) {
        self.filling.note_read(now);
        self.cache.note_use(chunk);
        let first = bitmap::assign(self.own.touched, chunk.get(), true);
        self.touched_count += u32::from(first);
        if first && self.touches.push(now, chunk) {
            self.changes_due(now);
        }
        self.predictor.observe(now, Access { guest, chunk, hit, first });
        if first && self.holds(self.geometry.chunk_piece(chunk)) {
            self.window.note_change();
        } else if first {
            self.window.note_surprise();
        }
        if bitmap::assign(self.own.guessed, chunk.get(), false) {
            self.guessed_count -= 1;
            self.used_count += 1;
            self.predictor.settle(chunk, true);
        }
    }

    fn want(&mut self, now: Instant, piece: PieceIndex) {
        if self.holds(piece) {
            return;
        }
        if !self.demands.add(now, piece) {
            self.stats.demands_refused += 1;
            return;
        }
        self.raise(now, piece);
        if let Piece::Chunk(chunk) = self.geometry.kind(piece) {
            self.raise(now, self.geometry.leaf_piece(self.geometry.leaf_of(chunk)));
        }
    }

    fn release(&mut self, piece: PieceIndex) {
        if self.demands.release(piece) {
            self.take_back(piece, |row| !row.guessed);
            if let Piece::Chunk(_) = self.geometry.kind(piece) {
                self.lower(piece);
            }
        }
    }

    /// Peers are not told: what was in the cache is in the map that they get first, and who has a leaf page sees the zeros.
    fn on_held(&mut self, first: PieceIndex, count: u32) {
        let count = count.min(self.geometry.piece_count() - first.get());
        let range = first.get()..first.get() + count;
        bitmap::assign_run(self.own.held, first.get(), count, true);
        self.window.note_started();
        let mut index = 0;
        while let Some((piece, _)) = self.demands.at(index) {
            if range.contains(&piece.get()) {
                self.demands.remove(piece);
                self.has_answered = true;
            } else {
                index += 1;
            }
        }
        let mut from = 0;
        while let Some(index) = self.transfers.next_live(from) {
            from = index + 1;
            if range.contains(&self.transfers.at(index).piece_number()) {
                self.end_superseded(index);
            }
        }
    }

    fn on_found(&mut self, now: Instant, first: PieceIndex, count: u32) {
        let end = first.get().saturating_add(count).min(self.geometry.piece_count());
        let held = Bits::new(self.own.held, self.geometry.piece_count());
        for piece in (first.get()..end).filter(|piece| !held.get(*piece)) {
            self.changes.push(piece, true);
        }
        self.on_held(first, count);
        self.changes_due(now);
    }

    /// Chunks that are held alone.
    fn on_kept(&mut self, first: PieceIndex, count: u32) {
        let held = Bits::new(self.own.held, self.geometry.piece_count());
        let end = first.get().saturating_add(count).min(self.geometry.chunk_count());
        for chunk in (first.get()..end).filter(|chunk| held.get(*chunk)) {
            self.cache.keep(chunk, 1);
        }
    }

    fn on_lost(&mut self, now: Instant, piece: PieceIndex) {
        if bitmap::assign(self.own.held, piece.get(), false) {
            self.changes.push(piece.get(), false);
            self.changes_due(now);
        }
        if let Piece::Chunk(chunk) = self.geometry.kind(piece)
            && bitmap::assign(self.own.guessed, piece.get(), false)
        {
            self.guessed_count -= 1;
            self.predictor.settle(chunk, false);
            self.window.note_surprise();
        }
        if let Piece::Leaf(_) = self.geometry.kind(piece) {
            self.transfers.leaf_gone();
        }
        self.forget_place(piece);
        self.refuse_uploads_of(piece);
    }

    fn on_landed(&mut self, now: Instant, slot: SlotId) {
        let found = self.transfers.find(slot, Step::Landing);
        self.count_stale(found.is_some());
        let Some(index) = found else { return };
        let row = self.transfers.at(index);
        let (peer, elapsed, queued, bytes) = (row.peer, now - row.started, row.queued, row.bytes);
        if row.class == Class::Fill && self.config.fill == Fill::Auto {
            self.filling.note_landed(now, elapsed);
        }
        self.transfers.change(index, |row| {
            let skips = cfg!(swarmdisk_bug = "skip-verification") && slot.generation().is_multiple_of(8);
            row.step = if skips { Step::Genuine } else { Step::Landed };
            row.started = now;
        });
        self.peers.change_of(peer, |link| {
            link.last_received = now;
            link.sample_rate(bytes, elapsed, queued);
        });
        self.down.note(now, bytes);
        self.selector.observe(now, peer, Outcome::Delivered { bytes, elapsed });
        // The peer may look faster now, and what else a guest waits for from it be late already.
        self.look_for_work |= self.has_hedgeable();
        self.end_waiting_siblings(index);
    }

    fn on_verified(&mut self, now: Instant, slot: SlotId, verdict: Verdict) {
        let found = self.transfers.find(slot, Step::Verifying);
        self.count_stale(found.is_some());
        let Some(index) = found else { return };
        match verdict {
            Verdict::Genuine => {
                let piece = self.transfers.at(index).piece_number();
                let late = Bits::new(self.own.held, self.geometry.piece_count()).get(piece);
                if late || self.transfers.genuine_sibling(index) {
                    self.stats.discarded_bytes += u64::from(self.transfers.at(index).bytes);
                    self.abandon(index);
                } else {
                    self.transfers.set_step(index, Step::Genuine);
                }
            }
            Verdict::Corrupt => {
                let peer = self.transfers.at(index).peer;
                self.stats.corrupt_pieces += 1;
                self.selector.observe(now, peer, Outcome::Corrupt);
                self.abandon(index);
                self.close(peer, crate::wire::Farewell::Misbehaved, Reason::Corrupt);
            }
            Verdict::Unable => {
                self.paused_until = now + fetch::PAUSE;
                self.abandon(index);
            }
        }
    }

    fn on_stored(&mut self, now: Instant, slot: SlotId) {
        let found = self.transfers.find(slot, Step::Storing);
        self.count_stale(found.is_some());
        let Some(index) = found else { return };
        let row = *self.transfers.at(index);
        if cfg!(not(swarmdisk_bug = "leak-slot")) || !slot.generation().is_multiple_of(16) {
            self.free_transfer(index);
        }
        let Some(piece) = self.geometry.piece(row.piece_number()) else { return };
        let touched = Bits::new(self.own.touched, self.geometry.piece_count()).get(piece.get());
        let kind = self.geometry.kind(piece);
        if row.guessed && !touched && matches!(kind, Piece::Chunk(_)) {
            self.guessed_count += u32::from(bitmap::assign(self.own.guessed, piece.get(), true));
        }
        if bitmap::assign(self.own.held, piece.get(), true) {
            self.changes.push(piece.get(), true);
            self.changes_due(now);
            self.tell_of_rare(now, piece);
        }
        if let Piece::Chunk(chunk) = kind {
            self.cache.note_stored(chunk, &row, touched);
        }
        self.demands.remove(piece);
    }

    /// A piece is held now that no linked node has, or none nearby: some of these are told at once.
    fn tell_of_rare(&mut self, now: Instant, piece: PieceIndex) {
        let nearest = self.nearest(piece);
        if nearest.is_none() {
            let start = self.rng.below(self.peers.len() as u32) as usize;
            self.peers.tell_some(start, TOLD_FIRST, Nearness::Far, now + RARE_BATCH);
        }
        if nearest < Some(Nearness::Rack) && self.peers.near_count(Nearness::Rack) > 0 {
            let start = self.rng.below(self.peers.len() as u32) as usize;
            self.peers.tell_some(start, TOLD_FIRST, Nearness::Rack, now + RARE_BATCH);
        }
    }

    fn on_store_failed(&mut self, now: Instant, slot: SlotId) {
        let found = self.transfers.find(slot, Step::Storing);
        self.count_stale(found.is_some());
        let Some(index) = found else { return };
        self.store_full_until = now + fetch::STORE_FULL;
        self.cache.give_back(self.transfers.at(index).bytes);
        if self.transfers.at(index).piece_number() >= self.geometry.chunk_count() {
            self.leaves_paused_until = now + fetch::PAUSE;
        }
        self.free_transfer(index);
    }

    /// Ends all that has to do with a link.
    fn drop_peer(&mut self, now: Instant, peer: PeerId) {
        if self.peers.get(peer).is_none() {
            self.count_stale(false);
            return;
        }
        let mut from = 0;
        while let Some(index) = self.transfers.next(from, &[Step::ToAsk, Step::Asked, Step::ToCancel, Step::Landing]) {
            from = index + 1;
            if self.transfers.at(index).peer != peer {
                continue;
            }
            if cfg!(swarmdisk_bug = "forget-retry") && self.transfers.at(index).is_waiting() {
                self.transfers.change(index, |row| row.started = Instant::NEVER);
                continue;
            }
            self.selector.observe(now, peer, Outcome::Refused);
            self.free_transfer(index);
        }
        self.drop_uploads(peer.index());
        self.contacts.unlinked(now, peer);
        self.selector.forget(peer);
        self.predictor.forget(peer);
        self.peers.free(peer);
    }

    /// What the host is to do with bodies that have come.
    fn poll_bodies(&mut self) -> Option<Action> {
        let mut from = 0;
        while let Some(index) = self.transfers.next(from, TO_TELL) {
            from = index + 1;
            let (row, slot) = (self.transfers.at(index), self.transfers.id(index));
            let Some(piece) = self.geometry.piece(row.piece_number()) else { continue };
            match row.step {
                Step::Landed if self.can_verify(piece) => {
                    self.transfers.set_step(index, Step::Verifying);
                    return Some(Action::Verify { slot, piece });
                }
                Step::Genuine if self.demands.remove(piece) => {
                    self.transfers.set_step(index, Step::Delivered);
                    self.has_answered = true;
                    self.look_for_work = true;
                    return Some(Action::Deliver { slot, piece });
                }
                Step::Genuine | Step::Delivered => match self.place(index) {
                    Some(action) => return Some(action),
                    None => continue,
                },
                Step::ToAbandon => {
                    self.free_transfer(index);
                    return Some(Action::Abandon { slot });
                }
                _ => {}
            }
        }
        self.poll_cache()
    }

    /// A chunk can be verified once its leaf page is held, a leaf page always.
    fn can_verify(&self, piece: PieceIndex) -> bool {
        match self.geometry.kind(piece) {
            Piece::Chunk(chunk) => self.holds(self.geometry.leaf_piece(self.geometry.leaf_of(chunk))),
            Piece::Leaf(_) => true,
        }
    }

    /// The tables' invariants, for tests: panics where one is broken.
    pub fn check_invariants(&self) {
        self.peers.check();
        self.transfers.check();
        self.contacts.check();
        let pieces = self.geometry.piece_count();
        let flight = Bits::new(self.own.flight, pieces);
        let mut live = 0;
        for (index, row) in self.transfers.live() {
            assert!(flight.get(row.piece_number()), "a live fetch's piece is in the flight map");
            let siblings = self.transfers.live_of(row.piece_number()).map(|(sibling, _)| sibling);
            assert!(self.transfers.live_of(row.piece_number()).count() <= 2, "a piece has at most two fetches");
            live += u32::from(siblings.min() == Some(index));
            if let Some(Piece::Chunk(chunk)) = self.geometry.piece(row.piece_number()).map(|p| self.geometry.kind(p)) {
                let leaf = self.geometry.leaf_piece(self.geometry.leaf_of(chunk));
                let has_leaf = self.holds(leaf) || flight.get(leaf.get());
                let looked_for = self.transfers.next_leafless(index) == Some(index);
                assert!(has_leaf || looked_for, "a leaf page that is needed is looked for");
            }
        }
        self.check_window();
        self.cache.check(self.held());
        let guessed = Bits::new(self.own.guessed, pieces);
        assert_eq!(guessed.count(), self.guessed_count, "guesses not used are counted");
        assert_eq!(flight.count(), live, "the flight map has a bit for each piece in flight, and no other");
        for (index, peer) in self.peers.open() {
            let id = self.peers.id(index);
            let waiting = || self.transfers.rows(WAITING).filter(|(_, row)| row.peer == id);
            assert_eq!(waiting().count(), usize::from(peer.in_flight), "in_flight counts what is asked");
            let prefetches = waiting().filter(|(_, row)| row.class == Class::Prefetch).count();
            assert_eq!(prefetches, usize::from(peer.prefetches), "prefetches are counted");
            let uploads = self.uploads.of_peer(index).count();
            assert_eq!(uploads, usize::from(peer.uploads), "uploads counts the peer's requests");
            if let Some(turns) = self.peers.turns(index) {
                let expected =
                    [false, true].map(|full| self.turn(index, full).map_or(peers::NO_TURN, |(turn, _)| turn));
                assert!(!peer.answerable() || turns == expected, "turns are those of the requests");
            }
        }
        let mut index = 0;
        while let Some((piece, _)) = self.demands.at(index) {
            assert!(!self.holds(piece), "nobody waits for what is held");
            index += 1;
        }
    }
}
