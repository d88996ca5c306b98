//! Whom to link with, and what each peer is to be told besides answers: hello, what is held, whom we know, pings.
//!
//! *Invariants*: a frame is made only when the link takes bytes; between two nodes one link lasts, that which the lesser
//! node name dialled. *Units*: microseconds. *Bounds*: a frame a call; telling costs O(changes) for a batch.

use super::contacts::{TOLD_MAX, Wanted};
use super::event::{Action, BlobKind, Body, Reason};
use super::peer::State;
use super::{Engine, PeerRow};
use crate::bitmap::Bits;
use crate::geometry::ChunkIndex;
use crate::ids::{Address, NodeId, PeerId};
use crate::locality::Nearness;
use crate::policy::{Order, Predictor, Selector};
use crate::time::{Duration, Instant};
use crate::wire::{
    self, ADDRESS_BYTES, BlobRedirect, Farewell, Frame, Hello, LIST_BYTES_MAX, LOCALITY_BYTES, Map, Offer, Pieces,
    Role, RunsEncoder,
};

/// Changes announced in one frame: a run takes at most 6 bytes.
const CHANGES_MAX: usize = 192;
/// With so many peers a batch takes twice as long as with none.
const BATCH_PEERS: u64 = 3;
/// How often a peer is told of new addresses.
const CONTACTS_PAUSE: Duration = Duration::from_secs(2);

/// A link as a person would want to see it.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The link.
    pub peer: PeerId,
    /// The node at its other end.
    pub node: NodeId,
    /// Where that listens.
    pub address: Address,
    /// Seed or node.
    pub role: Role,
    /// Round trip.
    pub rtt: Duration,
    /// What it has sent us lately, in bytes a second; 0 if not known.
    pub bytes_per_sec: u64,
    /// How many pieces it holds.
    pub pieces: u32,
    /// Pieces asked of it and not yet here.
    pub in_flight: u16,
    /// Pieces that it has asked for and not yet been sent.
    pub uploads: u16,
}

impl<'a, P: Predictor, O: Order, S: Selector> Engine<'a, P, O, S> {
    /// A link has come in from `address`; `credit_bytes` may be sent at once. `None`: there is no room, close it. A node
    /// keeps an eighth of its rows, and at least one, for links to seeds, so that nobody can shut it off from them.
    pub fn admit(&mut self, now: Instant, address: Address, credit_bytes: u32) -> Option<PeerId> {
        if self.peers.sums().in_use + self.kept_rows() >= self.peers.len() {
            return None;
        }
        self.wake();
        let peer = self.peers.take(State::Greeting)?;
        self.peers.change(peer.index(), |row| {
            row.inbound = true;
            row.address = address;
            row.credit_bytes = i64::from(credit_bytes);
            row.last_received = now;
        });
        Some(peer)
    }

    /// Rows that no link to another node takes: without one a seed that was lost could never be dialled again.
    fn kept_rows(&self) -> usize {
        let most = self.peers.len() - 1;
        if self.config.role == Role::Node { (self.peers.len() / 8).max(1).min(most) } else { 0 }
    }

    /// The links that are open.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        self.peers.open().map(|(index, row)| PeerStatus {
            peer: self.peers.id(index),
            node: row.node,
            address: row.address,
            role: row.role,
            rtt: row.rtt,
            bytes_per_sec: row.bytes_per_sec,
            pieces: row.pieces,
            in_flight: row.in_flight,
            uploads: row.uploads,
        })
    }

    pub(super) fn on_opened(&mut self, now: Instant, peer: PeerId, credit_bytes: u32) {
        if self.peers.get(peer).is_none_or(|row| row.state != State::Dialing) {
            return self.count_stale(false);
        }
        self.peers.change(peer.index(), |row| {
            row.state = State::Greeting;
            row.credit_bytes = i64::from(credit_bytes);
            row.last_received = now;
        });
    }

    /// The peer has introduced itself (version and image are right).
    pub(super) fn on_hello(&mut self, now: Instant, peer: PeerId, hello: &Hello) {
        if hello.node == self.config.node {
            self.contacts.barred(peer);
            return self.close(peer, Farewell::Duplicate, Reason::Duplicate);
        }
        if let Some(other) = self.peers.by_node(hello.node) {
            let other = self.peers.id(other);
            let loser = if self.keeps_new(peer, other, hello.node) { other } else { peer };
            if loser == peer && !self.peers.at(peer.index()).inbound && self.contacts.leads_to_seed(other) {
                // The seed, if it is that, takes this for the link that lasts. It is not dialled here a second time.
                self.contacts.barred(peer);
            } else {
                self.contacts.moved(loser, if loser == peer { other } else { peer });
            }
            self.close(loser, Farewell::Duplicate, Reason::Duplicate);
            if loser == peer {
                return;
            }
        }
        let nearness = self.config.locality.nearness(&hello.locality);
        if hello.role == Role::Node && self.has_too_many_near(peer, nearness) {
            return self.close(peer, Farewell::Crowded, Reason::Crowded);
        }
        let change_next = self.changes.next();
        let learns = hello.features & wire::FEATURE_TEACH != 0 && self.config.teach;
        let taught = hello.role == Role::Node || learns;
        let has_lessons = taught && self.touches.len() > 0;
        self.peers.change(peer.index(), |row| {
            row.state = State::Open;
            row.taught = taught;
            row.changes_due = if has_lessons { now } else { Instant::NEVER };
            row.role = hello.role;
            row.node = hello.node;
            row.locality = hello.locality;
            row.nearness = nearness;
            row.requests_max = hello.requests_max.max(1);
            row.change_next = change_next;
            row.ping_due = now;
            row.contacts_due = now;
        });
        let row = self.peers.at(peer.index());
        if row.inbound {
            let seen = row.address.ip;
            let ip = if hello.listen.ip == [0; 16] { seen } else { hello.listen.ip };
            let address = if hello.listen.is_dialable() { Address { ip, ..hello.listen } } else { Address::NONE };
            self.peers.change(peer.index(), |row| row.address = address);
            self.contacts.add(address, false, hello.locality);
            self.contacts.claimed(address, peer);
        }
        self.contacts.located(peer, hello.locality);
        self.contacts.answered(peer);
    }

    /// Of two links to one node the one stays that the lesser name dialled; of two alike, the new one. But a link to a seed
    /// gives way only to another such, or else anybody who claims the seed's name could cut this node off: no seed dials.
    fn keeps_new(&self, new: PeerId, old: PeerId, node: NodeId) -> bool {
        let (new_is_seed, old_is_seed) = (self.contacts.leads_to_seed(new), self.contacts.leads_to_seed(old));
        if new_is_seed != old_is_seed {
            return new_is_seed;
        }
        let dialler = |peer: PeerId| if self.peers.at(peer.index()).inbound { node } else { self.config.node };
        dialler(new) <= dialler(old)
    }

    /// Closes a link: says why, then hangs up.
    pub(super) fn close(&mut self, peer: PeerId, farewell: Farewell, reason: Reason) {
        self.peers.change_of(peer, |row| row.state = State::Closing(farewell, reason));
    }

    pub(super) fn close_silent(&mut self, now: Instant) {
        while let Some(index) = self.peers.next_silent(now) {
            self.close(self.peers.id(index), Farewell::Leaving, Reason::Silent);
        }
    }

    /// What has changed is to be announced within a batch's time; more time among many, since all announce to all.
    pub(super) fn changes_due(&mut self, now: Instant) {
        let batch = self.config.tuning.batch.as_micros();
        let due = now + Duration::from_micros(batch + batch * self.peers.sums().open as u64 / BATCH_PEERS);
        self.peers.changes_due(due);
    }

    /// Hands a frame over for a peer.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        index: usize,
        frame: &Frame<'_>,
        body: Option<(Body, u32)>,
        head: &mut [u8],
    ) -> Option<Action> {
        let head_bytes = wire::encode(frame, head).ok()? as u16;
        let body_bytes = body.map_or(0, |(_, bytes)| bytes);
        self.peers.handed_over(now, index, u32::from(head_bytes) + body_bytes);
        let peer = self.peers.id(index);
        Some(Action::Transmit { peer, head_bytes, body: body.map(|(body, _)| body) })
    }

    /// Links to make or to close, and what the peers are to be told.
    pub(super) fn poll_links(&mut self, now: Instant, head: &mut [u8]) -> Option<Action> {
        let blobs = !self.uplink_full();
        let mut from = 0;
        while let Some(index) = self.peers.next_news(from, now, blobs) {
            let row = *self.peers.at(index);
            let action = match row.state {
                State::Closing(farewell, reason) => self.poll_closing(now, index, farewell, reason, head),
                State::Greeting | State::Open if row.takes_bytes() => self.poll_peer(now, index, &row, head),
                _ => None,
            };
            if action.is_some() {
                return action;
            }
            self.peers.note(index);
            from = index + 1;
        }
        self.poll_blob_redirect(now, head).or_else(|| self.poll_dial(now))
    }

    fn poll_closing(
        &mut self,
        now: Instant,
        index: usize,
        farewell: Farewell,
        reason: Reason,
        head: &mut [u8],
    ) -> Option<Action> {
        let peer = self.peers.id(index);
        let row = self.peers.at(index);
        if row.hello_sent && row.takes_bytes() {
            // The farewell is the last frame; then the row is no longer able to take any.
            self.peers.change(index, |row| row.hello_sent = false);
            return self.transmit(now, index, &Frame::Bye(farewell), None, head);
        }
        self.drop_peer(now, peer);
        Some(Action::Hangup { peer, reason })
    }

    fn poll_dial(&mut self, now: Instant) -> Option<Action> {
        if !self.peers.has_room() {
            return None;
        }
        let address = self.contacts.next_to_dial(now, self.wanted_links())?;
        let peer = self.peers.take(State::Dialing)?;
        self.peers.change(peer.index(), |row| row.address = address);
        self.contacts.dialled(address, peer);
        Some(Action::Dial { peer, address })
    }

    /// Which nodes are to be dialled; seeds always are, if there is room. Near ones are dialled as long as there is room, so
    /// that all of a rack know each other and agree on who brings what; but rows are kept for others, or a swarm would fall
    /// apart into racks.
    fn wanted_links(&self) -> Wanted {
        if self.config.role == Role::Seed {
            return Wanted::default();
        }
        let (in_use, most) = (self.peers.sums().in_use, self.peers.len() - self.kept_rows());
        let links = usize::from(self.config.tuning.links).min(most);
        if !self.config.locality.is_said() {
            return Wanted { near: false, far: in_use < links };
        }
        // Whoever is being dialled counts as far: it is not known yet.
        let far = in_use - self.peers.near_count(Nearness::Rack);
        let far_missing = self.far_links().saturating_sub(far);
        Wanted { near: in_use + far_missing < most, far: in_use < links || (far_missing > 0 && in_use < most) }
    }

    /// Links to others than those of its rack that a node tries to have.
    fn far_links(&self) -> usize {
        usize::from(self.config.tuning.links) / 4
    }

    /// Whether this link of a node of the same rack would take a row that is kept for others.
    fn has_too_many_near(&self, peer: PeerId, nearness: Nearness) -> bool {
        let most = self.peers.len().saturating_sub(self.kept_rows() + self.far_links());
        let is_kept = self.contacts.leads_to_seed(peer);
        self.config.role == Role::Node && nearness >= Nearness::Rack && !is_kept && {
            self.peers.near_count(Nearness::Rack) >= most.max(1)
        }
    }

    fn poll_peer(&mut self, now: Instant, index: usize, row: &PeerRow, head: &mut [u8]) -> Option<Action> {
        if !row.hello_sent {
            self.peers.change(index, |row| row.hello_sent = true);
            let hello = Hello {
                version: wire::VERSION,
                features: if self.config.teach { wire::FEATURE_TEACH } else { 0 },
                image: self.config.image,
                node: self.config.node,
                listen: self.config.listen,
                role: self.config.role,
                requests_max: self.config.limits.requests_per_peer,
                locality: self.config.locality,
            };
            return self.transmit(now, index, &Frame::Hello(hello), None, head);
        }
        if !row.is_open() {
            return None;
        }
        if let Some(nonce) = row.pong {
            self.peers.change(index, |row| row.pong = None);
            return self.transmit(now, index, &Frame::Pong(nonce), None, head);
        }
        if row.blob.is_some() && !self.uplink_full() {
            return self.poll_blob(now, index, head);
        }
        if row.offers_sent == 0 {
            self.peers.change(index, |row| row.offers_sent = 1);
            if let Some(profile) = self.config.profile {
                let offer = Offer { kind: 1, digest: profile.digest, bytes: profile.bytes };
                return self.transmit(now, index, &Frame::Offer(offer), None, head);
            }
        }
        // The first ping is not put off by what else is said: it tells the round trip.
        let never_pinged = row.rtt == Duration::ZERO && row.pinged.is_none();
        if now >= row.ping_due || never_pinged || row.late_ping_due() {
            let ping_due = now + self.config.tuning.ping;
            self.peers.change(index, |row| {
                row.ping_due = ping_due;
                row.pinged = Some(now.as_micros());
                row.late_pinged = row.late_bodies > 0;
            });
            return self.transmit(now, index, &Frame::Ping(now.as_micros()), None, head);
        }
        self.poll_contacts(now, index, head).or_else(|| self.poll_holdings(now, index, head))
    }

    fn poll_blob(&mut self, now: Instant, index: usize, head: &mut [u8]) -> Option<Action> {
        let mut range = self.peers.change(index, |row| row.blob.take())?;
        let profile = self.config.profile.filter(|profile| profile.digest == range.digest);
        let (kind, total_bytes) = if range.digest == self.config.image {
            (BlobKind::Manifest, self.config.manifest_bytes)
        } else if let Some(profile) = profile {
            (BlobKind::Profile, profile.bytes)
        } else {
            return self.transmit(now, index, &Frame::BlobRefuse(range.digest), None, head);
        };
        range.total_bytes = total_bytes;
        range.offset = range.offset.min(total_bytes);
        range.bytes = range.bytes.min(total_bytes - range.offset).min(wire::BODY_BYTES_MAX);
        let body = Body::Blob { kind, offset: range.offset, bytes: range.bytes };
        self.transmit(now, index, &Frame::Blob(range), Some((body, range.bytes)), head)
    }

    /// While a seed's uplink is full, who waits for a blob is told of a node that has it: else, of a thousand that start at
    /// once, the last would wait for the blobs of all others.
    fn poll_blob_redirect(&mut self, now: Instant, head: &mut [u8]) -> Option<Action> {
        if self.config.role != Role::Seed || !self.uplink_full() {
            return None;
        }
        let (asker, named) = self.peers.next_blob_redirect(now)?;
        let range = self.peers.change(asker, |row| {
            row.blob_redirected = true;
            row.blob.take()
        })?;
        self.peers.change(named, |row| row.name_for_blob(now));
        let redirect = BlobRedirect { digest: range.digest, address: self.peers.at(named).address };
        self.transmit(now, asker, &Frame::BlobRedirect(redirect), None, head)
    }

    fn poll_contacts(&mut self, now: Instant, index: usize, head: &mut [u8]) -> Option<Action> {
        let version = self.contacts.version();
        let row = self.peers.at(index);
        if now < row.contacts_due || row.contacts_seen == version {
            return None;
        }
        let start = self.rng.below(u32::MAX);
        let (own, locality) = (row.address, row.locality);
        self.peers.change(index, |row| {
            row.contacts_seen = version;
            row.contacts_due = now + CONTACTS_PAUSE;
        });
        let told = || self.contacts.good(start, own, locality);
        let mut packed = [0; TOLD_MAX * (ADDRESS_BYTES + LOCALITY_BYTES)];
        let (addresses, localities) = packed.split_at_mut(TOLD_MAX * ADDRESS_BYTES);
        let length = wire::pack_addresses(told().map(|(address, _)| address), addresses);
        if length == 0 {
            return None;
        }
        let any_said = told().any(|(_, locality)| locality.is_said());
        let said = told().map(|(_, locality)| locality).take(if any_said { TOLD_MAX } else { 0 });
        let said_length = wire::pack_localities(said, localities);
        let peers = wire::Peers { addresses: &addresses[..length], localities: &localities[..said_length] };
        self.transmit(now, index, &Frame::Peers(peers), None, head)
    }

    /// The map at first, then in batches what guests have touched and what has changed. A seed needs no map: it never asks.
    fn poll_holdings(&mut self, now: Instant, index: usize, head: &mut [u8]) -> Option<Action> {
        let pieces = self.geometry.piece_count();
        if self.peers.at(index).role == Role::Seed {
            return self.poll_touches(now, index, head);
        }
        let first = self.peers.at(index).map_next;
        let nothing_to_tell = first == 0 && self.held().next(0, true).is_none();
        if first < pieces && !nothing_to_tell {
            return self.poll_map(now, index, first, head);
        }
        self.peers.change(index, |row| row.map_next = pieces);
        let row = self.peers.at(index);
        if now < row.changes_due {
            return None;
        }
        if !self.changes.reaches(row.change_next) {
            let change_next = self.changes.next();
            self.peers.change(index, |row| row.change_next = change_next);
            return self.poll_map(now, index, 0, head);
        }
        if row.change_next < self.changes.next()
            && let Some(action) = self.poll_changes(now, index, head)
        {
            return Some(action);
        }
        self.poll_touches(now, index, head)
    }

    /// One frame of what guests have touched since the peer was told last: what is due beside has been said.
    fn poll_touches(&mut self, now: Instant, index: usize, head: &mut [u8]) -> Option<Action> {
        let row = self.peers.at(index);
        if now < row.changes_due {
            return None;
        }
        let mut buffer = [0; LIST_BYTES_MAX];
        let (touch_next, held) = (row.touch_next, Bits::new(self.own.held, self.geometry.piece_count()));
        let told = self.touches.told(now, touch_next, held, &mut buffer).filter(|_| row.taught);
        // What is left is told when the next change is.
        let (changes_due, next) = told.map_or((Instant::NEVER, touch_next), |(_, next)| (row.changes_due, next));
        self.peers.change(index, |row| (row.changes_due, row.touch_next) = (changes_due, next));
        let (frame, _) = told?;
        self.transmit(now, index, &Frame::Touched(frame), None, head)
    }

    fn poll_map(&mut self, now: Instant, index: usize, first: u32, head: &mut [u8]) -> Option<Action> {
        let pieces = self.geometry.piece_count();
        let held = Bits::new(self.own.held, pieces);
        let mut buffer = [0; LIST_BYTES_MAX];
        let mut encoder = RunsEncoder::new(&mut buffer, first);
        let mut covered = pieces;
        for (start, count) in held.runs(first) {
            if encoder.push(start, count).is_err() {
                covered = start;
                break;
            }
        }
        let length = encoder.finish();
        self.peers.change(index, |row| row.map_next = covered);
        let map = Map { first, count: covered - first, runs: &buffer[..length] };
        self.transmit(now, index, &Frame::Map(map), None, head)
    }

    /// One frame of changes, all come or all gone, without those that the peer needs not hear of.
    fn poll_changes(&mut self, now: Instant, index: usize, head: &mut [u8]) -> Option<Action> {
        let mut pieces: heapless::Vec<u32, CHANGES_MAX> = heapless::Vec::new();
        let mut number = self.peers.at(index).change_next;
        let mut kind = true;
        while number < self.changes.next() && !pieces.is_full() {
            let (piece, held) = self.changes.get(number);
            if !pieces.is_empty() && held != kind {
                break;
            }
            let known = held && self.peers.holders.get(index, piece);
            // A piece that has come and gone since is announced by its last change alone.
            let current = Bits::new(self.own.held, self.geometry.piece_count()).get(piece) == held;
            if !known && current && !pieces.contains(&piece) && pieces.push(piece).is_ok() {
                kind = held;
            }
            number += 1;
        }
        self.peers.change(index, |row| row.change_next = number);
        if pieces.is_empty() {
            return None;
        }
        pieces.sort_unstable();
        let mut buffer = [0; LIST_BYTES_MAX];
        let mut encoder = RunsEncoder::new(&mut buffer, 0);
        for piece in pieces {
            let fits = encoder.push(piece, 1).is_ok();
            debug_assert!(fits, "CHANGES_MAX runs fit");
        }
        let length = encoder.finish();
        let runs = Pieces { runs: &buffer[..length] };
        let frame = if kind { Frame::Have(runs) } else { Frame::Lost(runs) };
        self.transmit(now, index, &frame, None, head)
    }

    /// When there will be something to do about links.
    fn link_deadline(&self) -> Instant {
        let dial = if self.peers.has_room() { self.contacts.next_retry(self.wanted_links()) } else { Instant::NEVER };
        dial.min(self.peers.deadline(self.uplink_full()))
    }

    /// The earliest time at which anything is to be done.
    pub(super) fn next_deadline(&mut self, now: Instant) -> Instant {
        self.link_deadline().min(self.fetch_deadline(now)).min(self.serve_deadline(now))
    }

    /// Whether a guest has touched the chunk.
    pub fn touched(&self, chunk: ChunkIndex) -> bool {
        Bits::new(self.own.touched, self.geometry.chunk_count()).get(chunk.get())
    }
}
