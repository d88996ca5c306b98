//! The one task that owns an engine: it takes messages, tells the engine, and carries out what it asks for.
//!
//! *Invariants*: this task never waits for anything but messages and time, so links and guests may wait for it.
//! What the engine asks for is carried out in the order in which it asks ([`actions`](super::actions)).
//! *Units*: bytes on the wire. *Bounds*: [`MESSAGES_MAX`] messages between two polls, [`ACTIONS_MAX`] actions between
//! two looks at the messages; a body buffer for each of `Limits::transfers`.

use super::NodeError;
use super::clock::Clock;
use super::departures::Departures;
use super::keeper::Keeper;
use super::link::{LinkHandle, LinkSetup, OutBody, Outgoing, READ_BYTES, Rates, start};
use super::message::{Heard, Message, Report, Request, Revealed};
use super::pieces::{Pieces, lost_by};
use super::recorder::EngineRecorder;
use super::socket::{LinkError, Socket, adopt, to_address};
use super::taker;
use super::waiters::{Answer, Waiter, Waiters, answer_all};
use crate::digest::digest_of;
use crate::log;
use crate::store::{Holdings, StoreError};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use swarmdisk_common::memory::Memory;
use swarmdisk_common::policies::{Prefetch, Pupil, policies};
use swarmdisk_common::recording::Recorded;
use swarmdisk_core::engine::{Config, Event, Footprint, Landing, Offered, PeerError, Received, Verdict};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::format::recording;
use swarmdisk_core::geometry::{Piece, PieceIndex};
use swarmdisk_core::ids::{GuestId, PeerId, SlotId, UploadId};
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::{Farewell, Frame, HEAD_BYTES_MAX, PREFACE_BYTES, Role, encode};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Duration, Instant as HostInstant, sleep_until};

const MESSAGES_MAX: usize = 64;
const ACTIONS_MAX: usize = 1024;
/// The shortest sleep: a deadline that has passed already must not make the loop spin.
const NAP_MIN: Duration = Duration::from_micros(100);
/// Addresses that are complained of, each once.
const COMPLAINTS_MAX: usize = 256;
/// A disk that is nearly full takes short pieces and refuses long ones: it is well when none was refused for so long.
const STORE_QUIET: Duration = Duration::from_secs(10);
/// How long a shutdown waits for goodbyes to leave.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// All that the task needs.
pub(crate) struct Setup {
    pub config: Config,
    pub prefetch: Prefetch,
    pub entries: Vec<ProfileEntry>,
    /// The profile as it is offered to others.
    pub profile: Bytes,
    pub pieces: Arc<Pieces>,
    /// The cache's bound.
    pub cache_bytes: Option<u64>,
    pub rates: Rates,
    pub credit_bytes: u32,
    /// Records the engine.
    pub recorder: Option<EngineRecorder>,
    /// Takes notes of what nodes tell of their guests.
    pub pupil: Option<Pupil>,
    /// Where links and blocking threads report to.
    pub sender: mpsc::Sender<Message>,
}

/// What the engine does not count.
#[derive(Debug, Default, Copy, Clone)]
pub(crate) struct Counters {
    /// Heads of frames and prefaces received.
    pub head_bytes: u64,
    /// Leaf pages received from seeds.
    pub leaf_seed_bytes: u64,
    /// Leaf pages received from nodes.
    pub leaf_peer_bytes: u64,
}

/// Makes the engine, says whether that worked, and runs it until it is told to end.
pub(crate) async fn run(
    setup: Setup,
    messages: mpsc::Receiver<Message>,
    requests: mpsc::UnboundedReceiver<Request>,
    ready: oneshot::Sender<Result<Handle, NodeError>>,
) {
    let clock = Clock::start();
    let geometry = setup.pieces.store().geometry();
    let entries = setup.entries;
    let slots = setup.config.limits.transfers.into();
    let policies = policies(setup.prefetch, !entries.is_empty());
    let mut memory = Memory::new(Footprint::of(geometry, setup.config.limits), &policies);
    let made_of = recording::Setup { now: clock.now(), geometry, config: setup.config, policies };
    let sink = setup.recorder.as_ref().map(EngineRecorder::sink);
    let mut engine = match Recorded::new(&made_of, &entries, memory.storage(), sink, setup.pupil) {
        Ok(engine) => engine,
        Err(error) => {
            // Whoever started the node may have gone.
            let _ = ready.send(Err(error.into()));
            return;
        }
    };
    for (first, count) in setup.pieces.store().held_runs() {
        engine.handle(clock.now(), Event::Held { first, count });
    }
    let found = setup.pieces.blocking(|store| Ok(store.all_found_in_others())).await.unwrap_or_default();
    let (keeper, holdings) = match setup.cache_bytes {
        Some(bound) => open_keeper(&setup.pieces, bound).await.unzip(),
        None => (None, None),
    };
    if let Some(keeper) = &keeper {
        keeper.watch(setup.pieces.store().clone(), setup.sender.clone());
    }
    let mut task = Task {
        keeper,
        engine,
        clock,
        head: Box::new([0; HEAD_BYTES_MAX]),
        links: HashMap::new(),
        slots: (0..slots).map(|_| None).collect(),
        waiters: Waiters::default(),
        counters: Counters::default(),
        complained: HashSet::new(),
        store_failed: None,
        taking: HashSet::new(),
        taker: taker::start(setup.pieces.clone(), setup.sender.clone()),
        manifest: Bytes::copy_from_slice(setup.pieces.store().manifest_bytes()),
        profile: setup.profile,
        pieces: setup.pieces,
        rates: setup.rates,
        credit_bytes: setup.credit_bytes,
        recorder: setup.recorder,
        sender: setup.sender,
    };
    task.on_found(found);
    if let Some(holdings) = holdings {
        task.tell_holdings(&holdings);
    }
    // If the owner has gone, the channel of requests is closed and the loop ends at once.
    let _ = ready.send(Ok(Handle::current()));
    task.serve(messages, requests).await;
}

/// A cache that cannot be looked at is not bounded.
async fn open_keeper(pieces: &Pieces, bound_bytes: u64) -> Option<(Keeper, Holdings)> {
    match pieces.blocking(move |store| Keeper::new(store, bound_bytes)).await {
        Ok(opened) => Some(opened),
        Err(error) => {
            log::warn(format_args!("the cache is not kept within its bound: {error}"));
            None
        }
    }
}

/// A link, as its engine's task sees it.
pub(super) enum Link {
    /// Being made.
    Dialing { address: SocketAddr, dialler: AbortHandle },
    /// Up.
    Up { address: SocketAddr, handle: LinkHandle },
}

impl Link {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Dialing { address, .. } | Self::Up { address, .. } => *address,
        }
    }
}

/// A body that has come in and is not stored yet.
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) peer: PeerId,
    /// Where it came from, for the log.
    pub(super) address: SocketAddr,
    pub(super) body: Bytes,
}

pub(super) struct Task<'a> {
    pub(super) engine: Recorded<'a>,
    clock: Clock,
    pub(super) head: Box<[u8; HEAD_BYTES_MAX]>,
    pub(super) links: HashMap<PeerId, Link>,
    /// By `SlotId::index`.
    pub(super) slots: Box<[Option<Slot>]>,
    pub(super) waiters: Waiters,
    pub(super) counters: Counters,
    /// Addresses that a line has been written about.
    complained: HashSet<SocketAddr>,
    /// When a piece could last not be stored, until long after: said once.
    store_failed: Option<HostInstant>,
    /// Of a cache with a bound.
    pub(super) keeper: Option<Keeper>,
    /// Chunks that are being taken from other images.
    pub(super) taking: HashSet<PieceIndex>,
    /// Takes over what it is sent when there is time.
    pub(super) taker: mpsc::UnboundedSender<taker::Runs>,
    pub(super) manifest: Bytes,
    pub(super) profile: Bytes,
    pub(super) pieces: Arc<Pieces>,
    pub(super) rates: Rates,
    credit_bytes: u32,
    recorder: Option<EngineRecorder>,
    pub(super) sender: mpsc::Sender<Message>,
}

impl Task<'_> {
    async fn serve(mut self, mut messages: mpsc::Receiver<Message>, mut requests: mpsc::UnboundedReceiver<Request>) {
        // Set anew only for what comes earlier: a deadline that moves away costs one look for nothing, not one each time.
        let mut timer = pin!(sleep_until(HostInstant::now()));
        loop {
            let is_busy = self.act();
            let due = self.engine.deadline().and_then(|at| self.clock.host_time(at));
            if let Some(due) = due.map(|at| at.max(HostInstant::now() + NAP_MIN))
                && (timer.is_elapsed() || due < timer.deadline())
            {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                request = requests.recv() => {
                    let Some(request) = request else { return self.say_goodbye(messages).await };
                    if let Some(done) = self.on_request(request) {
                        self.say_goodbye(messages).await;
                        // Whoever asked may have gone.
                        let _ = done.send(());
                        return;
                    }
                }
                // Never none: this task has a sender.
                Some(message) = messages.recv() => {
                    self.on_message(message);
                    for _ in 0..MESSAGES_MAX {
                        let Ok(message) = messages.try_recv() else { break };
                        self.on_message(message);
                    }
                }
                () = yield_now(), if is_busy => {}
                () = &mut timer, if due.is_some() => {}
            }
        }
    }

    /// Carries out what the engine wants done; true if there may be more.
    fn act(&mut self) -> bool {
        for _ in 0..ACTIONS_MAX {
            let now = self.clock.now();
            let Some(action) = self.engine.poll(now, &mut self.head) else { return false };
            self.carry_out(action);
        }
        true
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.engine.handle(self.clock.now(), event);
    }

    /// Answers who is to be told that it is over, if it is.
    fn on_request(&mut self, request: Request) -> Option<oneshot::Sender<()>> {
        match request {
            Request::Want { piece, waiter } => self.on_want(piece, waiter),
            Request::Release { guest, piece } => {
                if self.waiters.release(guest, piece) {
                    self.tell_released(guest, piece);
                }
            }
            Request::Touched(touches) => {
                for (guest, chunk) in touches {
                    self.tell(Event::Touched { guest, chunk });
                }
            }
            Request::Lost(runs) => self.tell_lost(&runs),
            Request::Contact { address, seed } => {
                self.tell(Event::ContactFound { address: to_address(address), seed });
            }
            Request::Offer(profile) => self.offer(profile),
            // Whoever asked may have gone.
            Request::Snapshot(reply) => drop(reply.send(self.report())),
            Request::Shutdown(done) => return Some(done),
        }
        None
    }

    /// Offers another profile from now on.
    fn offer(&mut self, profile: Bytes) {
        let offered = Offered { digest: digest_of(&profile), bytes: profile.len() as u32 };
        self.profile = profile;
        self.tell(Event::ProfileOffered { profile: Some(offered) });
    }

    fn on_want(&mut self, piece: PieceIndex, waiter: Waiter) {
        let guest = waiter.guest;
        let kind = self.pieces.store().geometry().kind(piece);
        if self.pieces.store().holds(piece) {
            if let Piece::Chunk(chunk) = kind {
                self.tell(Event::Touched { guest, chunk });
            }
            return answer_all(vec![waiter], &Answer::Held);
        }
        if let Piece::Chunk(chunk) = kind
            && self.engine.holds(piece)
        {
            // Another image has it, or the store lost it and nobody has said so.
            self.waiters.add(piece, waiter);
            return self.take_over(piece, chunk);
        }
        if self.waiters.add(piece, waiter) {
            match kind {
                Piece::Chunk(chunk) => self.tell(Event::Wanted { guest, chunk }),
                Piece::Leaf(leaf) => self.tell(Event::LeafWanted { leaf }),
            }
        }
    }

    fn tell_released(&mut self, guest: GuestId, piece: PieceIndex) {
        match self.pieces.store().geometry().kind(piece) {
            Piece::Chunk(chunk) => self.tell(Event::Released { guest, chunk }),
            Piece::Leaf(leaf) => self.tell(Event::LeafReleased { leaf }),
        }
    }

    pub(super) fn tell_lost(&mut self, runs: &[(PieceIndex, u32)]) {
        let geometry = self.pieces.store().geometry();
        for (first, count) in runs {
            for piece in (first.get()..first.get().saturating_add(*count)).map_while(|index| geometry.piece(index)) {
                if self.engine.holds(piece) {
                    self.note_rotten(piece);
                    self.tell(Event::PieceLost { piece });
                }
            }
        }
    }

    fn report(&self) -> Report {
        Report {
            stats: *self.engine.stats(),
            peers: self.engine.peers().collect(),
            counters: self.counters,
            unused: self.engine.unused_guesses().collect(),
            cache: self.keeper.as_ref().map(Keeper::state),
            store_fails: self.store_failed.is_some_and(|at| at.elapsed() <= STORE_QUIET),
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Arrived { socket } => self.on_arrived(socket),
            Message::Dialed { peer, outcome } => self.on_dialed(peer, outcome),
            Message::Received { peer, buffer, reply } => self.on_received(peer, buffer, reply),
            Message::Landed { peer, slot, body } => self.on_landed(peer, slot, body),
            Message::Sent { peer, bytes } => {
                if self.links.contains_key(&peer) {
                    self.tell(Event::PeerWritable { peer, bytes });
                }
            }
            Message::Down { peer, why } => {
                if let Some(link) = self.links.remove(&peer) {
                    log::debug(format_args!("link to {} is down: {why}", link.address()));
                    self.tell(Event::PeerClosed { peer });
                }
            }
            Message::Verified { slot, piece, outcome } => self.on_verified(slot, piece, outcome),
            Message::Stored { slot, piece, outcome } => self.on_stored(slot, piece, outcome),
            Message::Loaded { upload, piece, outcome } => self.on_loaded(upload, piece, outcome),
            Message::Taken { piece, payload } => self.on_taken(piece, payload),
            Message::Evicted { chunk, outcome } => self.on_evicted(chunk, outcome),
            Message::Beside { beside } => self.on_beside(beside),
        }
    }

    fn on_arrived(&mut self, socket: Socket) {
        let socket = match adopt(socket) {
            Ok(socket) => socket,
            Err(error) => return log::warn(format_args!("a connection that came in cannot be used: {error}")),
        };
        match self.engine.admit(self.clock.now(), to_address(socket.address), self.credit_bytes) {
            Some(peer) => self.link_up(peer, socket),
            None => {
                log::debug(format_args!("{} was turned away: no room for more links", socket.address));
                tokio::spawn(super::listen::turn_away(socket, Farewell::Crowded));
            }
        }
    }

    fn on_dialed(&mut self, peer: PeerId, outcome: Result<Socket, LinkError>) {
        match (self.links.remove(&peer), outcome) {
            (Some(Link::Dialing { .. }), Ok(socket)) => {
                self.link_up(peer, socket);
                self.tell(Event::PeerOpened { peer, credit_bytes: self.credit_bytes });
            }
            (Some(Link::Dialing { address, .. }), Err(error)) => {
                self.complain(address, &error);
                self.tell(Event::PeerClosed { peer });
            }
            // The engine has hung up in the meantime.
            (None, _) => {}
            (Some(up), _) => drop(self.links.insert(peer, up)),
        }
    }

    /// An address that cannot be linked with is tried again and again, but complained of once: if it is not what it was
    /// taken for, or if there is nobody else.
    fn complain(&mut self, address: SocketAddr, error: &LinkError) {
        let is_alone = !self.links.values().any(|link| matches!(link, Link::Up { .. }));
        let is_grave = is_alone || matches!(error, LinkError::Foreign { .. } | LinkError::Encrypted { .. });
        if is_grave && self.complained.len() < COMPLAINTS_MAX && self.complained.insert(address) {
            log::warn(format_args!("{error}"));
        } else {
            log::debug(format_args!("{error}"));
        }
    }

    fn link_up(&mut self, peer: PeerId, socket: Socket) {
        let Socket { stream, address, received } = socket;
        self.complained.remove(&address);
        log::debug(format_args!("link to {address} is up"));
        self.counters.head_bytes += PREFACE_BYTES as u64;
        let setup =
            LinkSetup { peer, engine: self.sender.clone(), rates: self.rates.clone(), pieces: self.pieces.clone() };
        let departures = Departures::of(&stream);
        let (read, write) = stream.into_split();
        let handle = start(setup, read, write, received, departures);
        self.links.insert(peer, Link::Up { address, handle });
    }

    fn on_received(&mut self, peer: PeerId, mut buffer: BytesMut, reply: oneshot::Sender<Heard>) {
        if !self.links.contains_key(&peer) {
            return;
        }
        let heard = loop {
            match self.engine.receive(self.clock.now(), peer, &buffer) {
                Ok(Received::NeedMore { bytes }) if bytes <= READ_BYTES => {
                    let bytes = bytes.max(buffer.len() + 1);
                    break Heard::More { buffer, bytes };
                }
                Ok(Received::NeedMore { .. }) => return self.part(peer, &PeerError::OutOfRange),
                Ok(Received::Head { consumed, body }) => {
                    self.counters.head_bytes += consumed as u64;
                    buffer.advance(consumed.min(buffer.len()));
                    match body {
                        Landing::None => {}
                        Landing::Land { slot, bytes } if bytes as usize <= buffer.len() => {
                            // A copy, since the buffer goes on being read into.
                            let body = Bytes::copy_from_slice(&buffer[..bytes as usize]);
                            buffer.advance(bytes as usize);
                            self.on_landed(peer, slot, body);
                        }
                        Landing::Land { slot, bytes } => break Heard::Land { slot, bytes, start: buffer },
                        Landing::Discard { bytes } => {
                            let here = buffer.len().min(bytes as usize);
                            buffer.advance(here);
                            if here < bytes as usize {
                                break Heard::Discard { bytes: bytes - here as u32 };
                            }
                        }
                    }
                }
                Err(error) => return self.part(peer, &error),
            }
        };
        // A reader that has ended has said so.
        let _ = reply.send(heard);
    }

    /// Closes a link because of what came from it.
    fn part(&mut self, peer: PeerId, error: &PeerError) {
        let Some(link) = self.links.remove(&peer) else { return };
        let farewell = match error {
            PeerError::Bye(_) => None,
            PeerError::Version(_) => Some(Farewell::Version),
            PeerError::Image => Some(Farewell::UnknownImage),
            _ => Some(Farewell::Misbehaved),
        };
        if let Some(farewell) = farewell {
            log::warn(format_args!("link to {} is closed: {error}", link.address()));
            say_bye(&link, farewell);
        } else {
            log::debug(format_args!("link to {} is closed: {error}", link.address()));
        }
        self.tell(Event::PeerClosed { peer });
    }

    fn on_landed(&mut self, peer: PeerId, slot: SlotId, body: Bytes) {
        // With the link, the engine has forgotten what was landing on it.
        let Some(address) = self.links.get(&peer).map(Link::address) else { return };
        if let Some(row) = self.slots.get_mut(slot.index()) {
            *row = Some(Slot { id: slot, peer, address, body });
            self.tell(Event::BodyLanded { slot });
        }
    }

    pub(super) fn slot(&self, slot: SlotId) -> Option<&Slot> {
        self.slots.get(slot.index())?.as_ref().filter(|row| row.id == slot)
    }

    pub(super) fn take_slot(&mut self, slot: SlotId) -> Option<Slot> {
        self.slots.get_mut(slot.index())?.take_if(|row| row.id == slot)
    }

    pub(super) fn on_verified(&mut self, slot: SlotId, piece: PieceIndex, outcome: Result<bool, StoreError>) {
        let verdict = match outcome {
            Ok(true) => {
                self.count_leaf(slot, piece);
                Verdict::Genuine
            }
            Ok(false) => {
                let from = self.slot(slot).map_or("somebody".to_owned(), |row| row.address.to_string());
                // That the link is closed for it is said louder.
                log::info(format_args!("{from} sent wrong bytes for piece {}", piece.get()));
                Verdict::Corrupt
            }
            Err(error) => {
                log::warn(format_args!("piece {} cannot be verified: {error}", piece.get()));
                self.tell_lost(&lost_by(self.pieces.store(), piece, &error));
                self.give_up_leaf(piece, &error);
                Verdict::Unable
            }
        };
        self.tell(Event::BodyVerified { slot, verdict });
    }

    /// An image whose leaf page makes no sense: nobody can have the chunks that it describes.
    fn give_up_leaf(&mut self, piece: PieceIndex, error: &StoreError) {
        let geometry = self.pieces.store().geometry();
        let (StoreError::BadLeaf(_), Piece::Leaf(leaf)) = (error, geometry.kind(piece)) else { return };
        let chunks = leaf.first_chunk()..leaf.first_chunk() + geometry.leaf_chunk_count(leaf);
        for piece in chunks.filter_map(|index| geometry.piece(index)).chain([piece]) {
            answer_all(self.dismiss(piece), &Answer::Unusable(error.to_string()));
        }
    }

    /// Takes out all who wait for the piece; the engine forgets that they want it.
    fn dismiss(&mut self, piece: PieceIndex) -> Vec<Waiter> {
        for guest in self.waiters.guests(piece) {
            self.tell_released(guest, piece);
        }
        self.waiters.take(piece)
    }

    fn count_leaf(&mut self, slot: SlotId, piece: PieceIndex) {
        if let (Piece::Leaf(_), Some(row)) = (self.pieces.store().geometry().kind(piece), self.slot(slot)) {
            let (peer, bytes) = (row.peer, row.body.len() as u64);
            match self.engine.peers().find(|status| status.peer == peer).map(|status| status.role) {
                Some(Role::Seed) => self.counters.leaf_seed_bytes += bytes,
                _ => self.counters.leaf_peer_bytes += bytes,
            }
        }
    }

    fn on_stored(&mut self, slot: SlotId, piece: PieceIndex, outcome: Result<Revealed, StoreError>) {
        let body = self.take_slot(slot).map(|row| row.body);
        let bytes = body.as_ref().map_or(0, |body| body.len() as u64);
        match outcome {
            Ok(Revealed { zeros, found }) => {
                if self.store_failed.take_if(|at| at.elapsed() > STORE_QUIET).is_some() {
                    log::warn(format_args!("pieces are kept in the cache again"));
                }
                for (first, count) in zeros {
                    self.tell(Event::Held { first, count });
                    answer_all(self.waiters.take_run(first.get(), count), &Answer::Held);
                }
                self.on_found(found);
                self.note_kept(piece, bytes);
                self.tell(Event::BodyStored { slot });
                self.tell_room();
                // Who came after the piece was delivered.
                answer_all(self.waiters.take(piece), &Answer::Held);
            }
            Err(error) => {
                if self.store_failed.replace(HostInstant::now()).is_none() {
                    log::warn(format_args!("what comes is not kept: {error}; guests are served all the same"));
                }
                let is_full = matches!(error, StoreError::DiskFull { .. });
                self.on_store_failed(slot, piece, body);
                if is_full {
                    self.note_disk_full(bytes);
                }
            }
        }
    }

    fn on_store_failed(&mut self, slot: SlotId, piece: PieceIndex, body: Option<Bytes>) {
        if let Piece::Leaf(_) = self.pieces.store().geometry().kind(piece) {
            // Verified, it is in the store's memory: its chunks can be used, which matters more than that it is not kept.
            self.tell(Event::BodyStored { slot });
            return answer_all(self.waiters.take(piece), &Answer::Held);
        }
        self.tell(Event::StoreFailed { slot });
        let late = self.dismiss(piece);
        if let Some(body) = body {
            self.deliver(piece, body, late);
        }
    }

    fn on_loaded(&mut self, upload: UploadId, piece: PieceIndex, outcome: Result<u32, StoreError>) {
        match outcome {
            Ok(bytes) => self.tell(Event::Loaded { upload, bytes }),
            Err(error) => {
                log::warn(format_args!("piece {} cannot be served: {error}", piece.get()));
                self.tell_lost(&lost_by(self.pieces.store(), piece, &error));
                // Also where nothing is lost: whoever asked is to get an answer.
                self.tell(Event::PieceLost { piece });
            }
        }
    }

    async fn say_goodbye(mut self, messages: mpsc::Receiver<Message>) {
        // Writers are not to wait for somebody who no longer listens.
        drop(messages);
        let mut writers = Vec::new();
        for (_, link) in self.links.drain() {
            say_bye(&link, Farewell::Leaving);
            if let Link::Up { handle, .. } = link {
                writers.push(handle.close());
            }
        }
        let all = async {
            for writer in writers {
                writer.await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, all).await;
        if let Some(recorder) = self.recorder {
            // If that thread panics there is nothing left to save.
            let _ = tokio::task::spawn_blocking(move || recorder.finish()).await;
        }
    }
}

/// Queues a farewell; what becomes of it is the link's affair.
fn say_bye(link: &Link, farewell: Farewell) {
    let Link::Up { handle, .. } = link else { return };
    let mut head = [0; HEAD_BYTES_MAX];
    if let Ok(bytes) = encode(&Frame::Bye(farewell), &mut head) {
        let _ = handle.send(Outgoing { head: Bytes::copy_from_slice(&head[..bytes]), body: OutBody::None });
    }
}
