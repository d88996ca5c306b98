//! The table of links: what is known of each peer and what is owed to it.
//!
//! *Invariants*: a row in use has a generation of its own, so that a stale [`PeerId`] finds nothing; the bits of a free
//! row are all clear; sums, sets and agendas say what the rows say, since rows change by [`Peers::change`] alone.
//! *Units*: bytes, microseconds. *Bounds*: as many rows as `Limits::peers`; a change is O(log rows). All rows are looked at
//! only to take one, to find a node by its name, and when changes or contacts are to be told.

use super::agenda::{Agenda, Tournament};
use super::config::{Limits, Tuning};
use super::holders::Holders;
use super::kept::Kept;
use super::ownership;
use super::peer::{PeerRow, State};
use crate::bitmap::{self, Bits};
use crate::geometry::{ChunkIndex, Geometry};
use crate::ids::{NodeId, PeerId};
use crate::locality::Nearness;
use crate::time::{Duration, Instant};
use crate::wire::{Class, Role};

/// All links, and which pieces each peer holds.
#[derive(Debug)]
pub(super) struct Peers<'a> {
    rows: &'a mut [PeerRow],
    pub(super) holders: Holders<'a>,
    piece_count: u32,
    tuning: Tuning,
    /// The version of the contacts of which peers are told.
    contacts_version: u32,
    /// Deadlines up to then have been looked at.
    settled: Instant,
    sums: Sums,
    sets: Sets<'a>,
    agendas: Agendas<'a>,
    /// Kept until a node comes or goes: [`ownership::outweighed`], 0 for none, else one more than how near.
    outweighed: Kept,
    /// Kept as news comes: how many nodes hold a chunk.
    node_holders: Kept,
    /// Another number whenever a node has come or gone, takes requests again, or what one is known to hold has changed.
    supply: u32,
}

/// What the rows add up to.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub(super) struct Sums {
    /// Rows in use.
    pub in_use: usize,
    /// Of these, open ones.
    pub open: usize,
    /// Requests of peers that wait here.
    pub uploads: u32,
    /// Bytes handed to the host and not yet sent.
    pub unsent_bytes: u64,
    /// Of these, what was handed over for peers that take it.
    pub moving_bytes: u64,
}

impl Sums {
    fn replace(&mut self, old: Self, new: Self) {
        self.in_use = self.in_use + new.in_use - old.in_use;
        self.open = self.open + new.open - old.open;
        self.uploads = self.uploads + new.uploads - old.uploads;
        self.unsent_bytes = self.unsent_bytes + new.unsent_bytes - old.unsent_bytes;
        self.moving_bytes = self.moving_bytes + new.moving_bytes - old.moving_bytes;
    }

    fn of(row: &PeerRow) -> Self {
        Self {
            in_use: usize::from(row.state != State::Free),
            open: usize::from(row.is_open()),
            uploads: u32::from(row.uploads),
            unsent_bytes: row.unsent_bytes,
            moving_bytes: row.moving_bytes(),
        }
    }
}

/// Rows with a property, a bit each.
#[derive(Debug)]
struct Sets<'a> {
    open: &'a mut [u64],
    seeds: &'a mut [u64],
    /// Open, and may be asked for what a guest waits for, unless busy.
    demand: &'a mut [u64],
    /// The same for what no guest waits for.
    bulk: &'a mut [u64],
    /// Open links to nodes of the same zone, rack, machine: each among those before.
    near: [&'a mut [u64]; LEVELS],
}

/// Sets that every change of a row may change.
const NOTED_SETS: usize = 4;
/// How near a node may be, beside far.
const LEVELS: usize = 3;
const SETS: usize = NOTED_SETS + LEVELS;
const NEAR: [Nearness; LEVELS] = [Nearness::Zone, Nearness::Rack, Nearness::Host];

/// Rows by when there is something to do about them. What can be done at once is due at time zero.
#[derive(Debug)]
struct Agendas<'a> {
    /// Something to say, other than blobs and answers, or to close.
    news: Agenda<'a>,
    /// A blob to send, once there is room in the uplink.
    blobs: Agenda<'a>,
    /// The same, from another until then.
    blob_askers: Agenda<'a>,
    /// Can be named as that other.
    blob_namers: Agenda<'a>,
    /// Heard nothing of for too long.
    silence: Agenda<'a>,
    /// Takes nothing for too long.
    stalls: Agenda<'a>,
    /// Its requests are to be looked at before turns are compared.
    reviews: Agenda<'a>,
    /// Its next turn to be answered.
    turns: Tournament<'a, 2>,
    /// The same while the uplink is full.
    turns_full: Tournament<'a, 2>,
}

/// What sets and agendas say of a row, in their order.
#[derive(Debug, PartialEq, Eq)]
struct Noted {
    sets: [bool; NOTED_SETS],
    agendas: [Instant; AGENDAS - 1],
}

const AGENDAS: usize = 7;
const TURNS: usize = 2;

/// When it is a peer's turn to be answered, the least first; [`Tournament::OUT`]: not now.
pub(super) type Turn = [u64; 2];
pub(super) const NO_TURN: Turn = Tournament::<2>::OUT;

impl<'a> Peers<'a> {
    /// Words of storage that the table needs beside its rows.
    pub(super) const fn words(geometry: Geometry, limits: Limits) -> usize {
        let rows = limits.peers as usize;
        Holders::words(geometry, limits)
            + SETS * rows.div_ceil(64)
            + AGENDAS * Agenda::words(rows)
            + TURNS * Tournament::<2>::words(rows)
    }

    pub(super) fn new(
        limits: Limits,
        tuning: Tuning,
        geometry: Geometry,
        rows: &'a mut [PeerRow],
        words: &'a mut [u64],
    ) -> Self {
        let count = usize::from(limits.peers);
        let rows = &mut rows[..count];
        rows.fill(PeerRow::EMPTY);
        let (holders, words) = words.split_at_mut(Holders::words(geometry, limits));
        let (sets, words) = words.split_at_mut(SETS * count.div_ceil(64));
        sets.fill(0);
        let (agendas, turns) = words.split_at_mut(AGENDAS * Agenda::words(count));
        let [open, seeds, demand, bulk, zone, rack, host] = split(sets);
        let [news, blobs, blob_askers, blob_namers, silence, stalls, reviews] = split(agendas).map(Agenda::new);
        let [turns, turns_full] = split(turns).map(Tournament::new);
        Self {
            rows,
            holders: Holders::new(holders, geometry, limits),
            piece_count: geometry.piece_count(),
            tuning,
            contacts_version: 0,
            settled: Instant::ZERO,
            sums: Sums::default(),
            sets: Sets { open, seeds, demand, bulk, near: [zone, rack, host] },
            agendas: Agendas { news, blobs, blob_askers, blob_namers, silence, stalls, reviews, turns, turns_full },
            outweighed: Kept::new(),
            node_holders: Kept::new(),
            supply: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn sums(&self) -> &Sums {
        &self.sums
    }

    pub(super) fn has_room(&self) -> bool {
        self.sums.in_use < self.rows.len()
    }

    pub(super) fn id(&self, index: usize) -> PeerId {
        PeerId::new(index as u16, self.rows[index].generation)
    }

    /// The row at `index`, in use or not.
    pub(super) fn at(&self, index: usize) -> &PeerRow {
        &self.rows[index]
    }

    /// The row that `peer` names, unless that link is gone.
    pub(super) fn get(&self, peer: PeerId) -> Option<&PeerRow> {
        self.rows.get(peer.index()).filter(|row| row.generation == peer.generation() && row.state != State::Free)
    }

    /// Changes the row at `index`.
    pub(super) fn change<T>(&mut self, index: usize, change: impl FnOnce(&mut PeerRow) -> T) -> T {
        let row = &mut self.rows[index];
        let old = Sums::of(row);
        let result = change(row);
        self.sums.replace(old, Sums::of(row));
        self.note(index);
        result
    }

    /// Changes the row that `peer` names, unless that link is gone.
    pub(super) fn change_of<T>(&mut self, peer: PeerId, change: impl FnOnce(&mut PeerRow) -> T) -> Option<T> {
        self.get(peer)?;
        Some(self.change(peer.index(), change))
    }

    /// Brings the sets and agendas up to date with a row.
    pub(super) fn note(&mut self, index: usize) {
        let note = self.noted(&self.rows[index]);
        let has = |word: u64| word >> (index % 64) & 1 == 1;
        let (was_node, took_bulk) = (has(self.open_nodes(index / 64)), has(self.sets.bulk[index / 64]));
        let sets = [&mut *self.sets.open, self.sets.seeds, self.sets.demand, self.sets.bulk];
        for (set, member) in sets.into_iter().zip(note.sets) {
            bitmap::assign(set, index as u32, member);
        }
        let is_node = has(self.open_nodes(index / 64));
        if was_node != is_node || (!took_bulk && has(self.sets.bulk[index / 64])) {
            self.supply = self.supply.wrapping_add(1);
        }
        if was_node != is_node {
            for (set, nearness) in self.sets.near.iter_mut().zip(NEAR) {
                bitmap::assign(set, index as u32, is_node && self.rows[index].nearness >= nearness);
            }
            self.outweighed.forget();
            self.node_holders.forget();
        }
        let Agendas { news, blobs, blob_askers, blob_namers, silence, stalls, .. } = &mut self.agendas;
        for (agenda, at) in [news, blobs, blob_askers, blob_namers, silence, stalls].into_iter().zip(note.agendas) {
            agenda.set(index, at);
        }
        self.review(index);
    }

    fn noted(&self, row: &PeerRow) -> Noted {
        let at_once = |due| if due { Instant::ZERO } else { Instant::NEVER };
        let is_up = matches!(row.state, State::Greeting | State::Open);
        let silent_at = if is_up { row.last_received + self.tuning.silence } else { Instant::NEVER };
        let blob_at = at_once(row.is_open() && row.takes_bytes() && row.blob.is_some());
        let is_seed = row.role == Role::Seed;
        let prefetches_max = if is_seed { self.tuning.prefetches_per_seed } else { self.tuning.prefetches_per_peer };
        let demand = row.is_open() && row.in_flight < row.requests_max;
        Noted {
            sets: [row.is_open(), is_seed, demand, demand && row.prefetches < prefetches_max],
            agendas: [
                self.news_at(row),
                blob_at,
                row.blob_redirect_at(),
                row.blob_name_at(),
                silent_at,
                row.stalls_at(),
            ],
        }
    }

    /// The peer's requests are to be looked at before turns are compared.
    pub(super) fn review(&mut self, index: usize) {
        if self.rows[index].answerable() {
            self.agendas.reviews.set(index, Instant::ZERO);
        } else {
            self.agendas.reviews.set(index, Instant::NEVER);
            self.agendas.turns.set(index, NO_TURN);
            self.agendas.turns_full.set(index, NO_TURN);
        }
    }

    /// The peer's requests have been looked at: its turn, and that while the uplink is full.
    pub(super) fn reviewed(&mut self, index: usize, turn: Turn, turn_full: Turn, again: bool) {
        self.agendas.turns.set(index, turn);
        self.agendas.turns_full.set(index, turn_full);
        self.agendas.reviews.set(index, if again { Instant::ZERO } else { Instant::NEVER });
    }

    /// The first row, at or after `from`, whose requests are to be looked at.
    pub(super) fn next_review(&self, from: usize) -> Option<usize> {
        self.agendas.reviews.next_due(from, Instant::ZERO)
    }

    /// The row whose turn it is to be answered.
    pub(super) fn next_turn(&self, full: bool) -> Option<usize> {
        let turns = if full { &self.agendas.turns_full } else { &self.agendas.turns };
        let least = turns.least();
        if least == NO_TURN { None } else { turns.next(0, least) }
    }

    /// When there is something to say to the peer, other than blobs and answers, or its link is to be closed.
    fn news_at(&self, row: &PeerRow) -> Instant {
        // When it is no longer busy something may be asked of it.
        let busy = [row.busy_until, row.busy_for_demand_until].into_iter().filter(|until| *until > self.settled);
        let busy = busy.min().unwrap_or(Instant::NEVER);
        match row.state {
            State::Closing(..) => Instant::ZERO,
            State::Greeting | State::Open if row.takes_bytes() && !row.hello_sent => Instant::ZERO,
            State::Open if row.takes_bytes() => busy.min(self.open_news_at(row)),
            _ => busy,
        }
    }

    fn open_news_at(&self, row: &PeerRow) -> Instant {
        let is_node = row.role == Role::Node;
        let never_pinged = row.rtt == Duration::ZERO && row.pinged.is_none();
        let map_due = is_node && row.map_next < self.piece_count;
        if row.pong.is_some() || row.offers_sent == 0 || never_pinged || map_due || row.late_ping_due() {
            return Instant::ZERO;
        }
        let changes_due = if is_node || row.taught { row.changes_due } else { Instant::NEVER };
        let contacts_due = if row.contacts_seen == self.contacts_version { Instant::NEVER } else { row.contacts_due };
        row.ping_due.min(changes_due).min(contacts_due)
    }

    /// It is `now`, and the contacts are at this version.
    pub(super) fn settle(&mut self, now: Instant, contacts_version: u32) {
        self.settled = now;
        while let Some(index) = self.agendas.stalls.next_due(0, now) {
            self.change(index, |row| row.stalled = true);
        }
        if self.contacts_version != contacts_version {
            self.contacts_version = contacts_version;
            (0..self.rows.len()).for_each(|index| self.note(index));
        }
    }

    /// The first row, at or after `from`, of which there is something to say or to close; with blobs or without.
    pub(super) fn next_news(&self, from: usize, now: Instant, blobs: bool) -> Option<usize> {
        let news = self.agendas.news.next_due(from, now);
        let blob = self.agendas.blobs.next_due(from, now).filter(|_| blobs);
        news.into_iter().chain(blob).min()
    }

    /// One who waits for a blob, and a node that can be named to it.
    pub(super) fn next_blob_redirect(&self, now: Instant) -> Option<(usize, usize)> {
        let asker = self.agendas.blob_askers.next_due(0, now)?;
        let named = self.agendas.blob_namers.next_due(0, now).filter(|named| *named != asker);
        Some((asker, named.or_else(|| self.agendas.blob_namers.next_due(asker + 1, now))?))
    }

    /// A row of which nothing has been heard for too long.
    pub(super) fn next_silent(&self, now: Instant) -> Option<usize> {
        self.agendas.silence.next_due(0, now)
    }

    /// When there will be something to do; stalls count only if `full`.
    pub(super) fn deadline(&self, full: bool) -> Instant {
        // Then others may be served again.
        let stall = if full { self.agendas.stalls.earliest() } else { Instant::NEVER };
        stall.min(self.agendas.silence.earliest()).min(self.agendas.news.earliest())
    }

    pub(super) fn open(&self) -> impl Iterator<Item = (usize, &PeerRow)> {
        let open = Bits::new(self.sets.open, self.rows.len() as u32);
        open.runs(0)
            .flat_map(|(first, count)| first..first + count)
            .map(|index| (index as usize, &self.rows[index as usize]))
    }

    /// Peers `64 n .. 64 n + 64` that may be asked for something of a class, unless busy; seeds among them if `seeds`.
    pub(super) fn askable(&self, class: Class, n: usize, seeds: bool) -> u64 {
        let set = if class == Class::Demand { self.sets.demand[n] } else { self.sets.bulk[n] };
        if seeds { set } else { set & !self.sets.seeds[n] }
    }

    /// Takes a free row.
    pub(super) fn take(&mut self, state: State) -> Option<PeerId> {
        let index = self.rows.iter().position(|row| row.state == State::Free)?;
        self.change(index, |row| {
            *row = PeerRow { state, generation: row.generation.wrapping_add(1), ..PeerRow::EMPTY };
        });
        Some(self.id(index))
    }

    /// Frees a row.
    pub(super) fn free(&mut self, peer: PeerId) {
        if self.get(peer).is_none() {
            return;
        }
        self.note_pieces(peer.index(), 0, self.piece_count, false);
        self.change(peer.index(), |row| {
            row.state = State::Free;
            row.unsent_bytes = 0;
        });
    }

    /// Notes that the peer holds, or does not hold, a run that lies within the image.
    pub(super) fn note_pieces(&mut self, index: usize, first: u32, count: u32, held: bool) {
        let row = &mut self.rows[index];
        if !held && row.pieces == 0 {
            return;
        }
        let changed = self.holders.assign(index, first, count, held);
        row.pieces = if held { row.pieces + changed } else { row.pieces - changed };
        self.supply = self.supply.wrapping_add(changed);
        if changed > 0 && self.rows[index].is_open() && self.rows[index].role == Role::Node {
            self.node_holders.count(first, count, changed, held);
        }
    }

    /// What has changed is to be announced to all by then.
    pub(super) fn changes_due(&mut self, due: Instant) {
        for index in 0..self.rows.len() {
            if self.rows[index].is_open() && self.rows[index].changes_due > due {
                self.change(index, |row| row.changes_due = due);
            }
        }
    }

    /// What has changed is to be announced to some nodes by then: the first so many, that are so near, from this row on.
    pub(super) fn tell_some(&mut self, start: usize, count: usize, nearness: Nearness, due: Instant) {
        let rows = (start..self.rows.len()).chain(0..start);
        let mut left = count;
        for index in rows {
            if left == 0 {
                return;
            }
            if self.near(nearness, index / 64) >> (index % 64) & 1 == 1 {
                left -= 1;
                let due = due.min(self.rows[index].changes_due);
                self.change(index, |row| row.changes_due = due);
            }
        }
    }

    /// Notes that bytes were handed over for a peer.
    pub(super) fn handed_over(&mut self, now: Instant, index: usize, bytes: u32) {
        let ping_due = now + self.tuning.ping;
        self.change(index, |row| {
            if row.unsent_bytes == 0 {
                row.moved_at = now;
                row.stalled = false;
            }
            row.credit_bytes -= i64::from(bytes);
            row.unsent_bytes += u64::from(bytes);
            row.ping_due = row.ping_due.max(ping_due);
        });
    }

    /// Notes that bytes have left.
    pub(super) fn sent(&mut self, now: Instant, peer: PeerId, bytes: u32) -> bool {
        let sent = self.change_of(peer, |row| {
            let bytes = u64::from(bytes).min(row.unsent_bytes);
            row.moved_at = now;
            row.stalled = false;
            row.credit_bytes += bytes as i64;
            row.unsent_bytes -= bytes;
        });
        sent.is_some()
    }

    /// The open link to a node.
    pub(super) fn by_node(&self, node: NodeId) -> Option<usize> {
        self.open().find(|(_, row)| row.node == node).map(|(index, _)| index)
    }

    /// Words of a bitmap with a bit for each row.
    pub(super) fn row_words(&self) -> usize {
        self.sets.open.len()
    }

    /// The rows of open links to nodes, a bit each, in this word.
    pub(super) fn open_nodes(&self, word: usize) -> u64 {
        self.sets.open[word] & !self.sets.seeds[word]
    }

    /// Of the rows of open links to nodes, those that are so near or nearer.
    pub(super) fn near(&self, nearness: Nearness, word: usize) -> u64 {
        match nearness {
            Nearness::Far => self.open_nodes(word),
            Nearness::Zone => self.sets.near[0][word],
            Nearness::Rack => self.sets.near[1][word],
            Nearness::Host => self.sets.near[2][word],
        }
    }

    /// How many nodes are so near or nearer.
    pub(super) fn near_count(&self, nearness: Nearness) -> usize {
        (0..self.row_words()).map(|word| self.near(nearness, word).count_ones() as usize).sum()
    }

    /// Whether any node is nearer than that.
    pub(super) fn any_nearer(&self, nearness: Nearness) -> bool {
        let next = NEAR.into_iter().find(|next| *next > nearness);
        next.is_some_and(|next| (0..self.row_words()).any(|word| self.near(next, word) != 0))
    }

    /// Another number whenever there may be more to be had of nodes: one has come or gone, takes more requests, or what it is
    /// known to hold has changed.
    pub(super) const fn supply(&self) -> u32 {
        self.supply
    }

    /// How many linked nodes hold a chunk, seeds not counted.
    pub(super) fn node_holders(&self, chunk: ChunkIndex) -> u16 {
        self.node_holders.of(chunk, || self.count_node_holders(chunk))
    }

    fn count_node_holders(&self, chunk: ChunkIndex) -> u16 {
        let holders = |word| self.holders.of_piece(chunk.get(), word) & self.open_nodes(word);
        (0..self.row_words()).map(|word| holders(word).count_ones() as u16).sum()
    }

    /// The nearest linked node that weighs more for a chunk than the node `own`, none if the chunk is its own; and how many
    /// do.
    pub(super) fn outweighed(&self, own: NodeId, chunk: ChunkIndex) -> (Option<Nearness>, u16) {
        const COUNT_BITS: u32 = 13;
        let code = |nearness: Nearness| nearness as u16 + 1;
        let kept = self.outweighed.of(chunk, || {
            let (nearest, count) = self.find_outweighed(own, chunk);
            nearest.map_or(0, code) << COUNT_BITS | count.min((1 << COUNT_BITS) - 1)
        });
        let nearest = Nearness::ALL.into_iter().find(|nearness| code(*nearness) == kept >> COUNT_BITS);
        (nearest, kept & ((1 << COUNT_BITS) - 1))
    }

    fn find_outweighed(&self, own: NodeId, chunk: ChunkIndex) -> (Option<Nearness>, u16) {
        let nodes = self.open().filter(|(_, row)| row.role == Role::Node);
        ownership::outweighed(own, nodes.map(|(_, row)| (row.node, row.nearness)), chunk)
    }

    /// Panics unless what is kept of the chunk's owner and holders is so.
    pub(super) fn check_chunk(&self, own: NodeId, chunk: ChunkIndex) {
        assert_eq!(self.node_holders(chunk), self.count_node_holders(chunk), "what is kept of holders is right");
        let found = self.find_outweighed(own, chunk);
        assert_eq!(self.outweighed(own, chunk), found, "what is kept of ownership is right");
    }

    /// The rows of seeds, a bit each, in this word.
    pub(super) fn seeds(&self, word: usize) -> u64 {
        self.sets.seeds[word]
    }

    /// Panics unless sums, sets and agendas say what the rows say. A row that is due may have become due for nothing.
    pub(super) fn check(&self) {
        let mut sums = Sums::default();
        for (index, row) in self.rows.iter().enumerate() {
            sums.replace(Sums::default(), Sums::of(row));
            let mut noted = self.noted(row);
            let has = |set: &[u64]| Bits::new(set, self.rows.len() as u32).get(index as u32);
            let sets = [&*self.sets.open, self.sets.seeds, self.sets.demand, self.sets.bulk].map(has);
            let Agendas { news, blobs, blob_askers, blob_namers, silence, stalls, .. } = &self.agendas;
            let agendas = [news, blobs, blob_askers, blob_namers, silence, stalls].map(|agenda| agenda.get(index));
            if agendas[0] <= self.settled {
                noted.agendas[0] = agendas[0];
            }
            assert_eq!(Noted { sets, agendas }, noted, "sets and agendas say what the row says");
            assert!(row.state != State::Free || row.pieces == 0, "a free row knows nothing");
            let is_node = row.is_open() && row.role == Role::Node;
            let near = self.sets.near.each_ref().map(|set| has(set));
            assert_eq!(near, NEAR.map(|nearness| is_node && row.nearness >= nearness), "who is near is in its sets");
        }
        assert_eq!(sums, self.sums, "the rows add up");
        let pieces: u64 = self.rows.iter().map(|row| u64::from(row.pieces)).sum();
        assert_eq!(pieces, self.holders.count(), "pieces counts what peers hold");
    }

    /// What is kept of a peer's turn, unless its requests are to be looked at first.
    pub(super) fn turns(&self, index: usize) -> Option<[Turn; 2]> {
        let settled = self.agendas.reviews.get(index) == Instant::NEVER;
        settled.then(|| [self.agendas.turns.get(index), self.agendas.turns_full.get(index)])
    }
}

/// Equal parts of `words`.
pub(super) fn split<const PARTS: usize>(words: &mut [u64]) -> [&mut [u64]; PARTS] {
    let each = words.len() / PARTS;
    let mut parts = words.chunks_exact_mut(each);
    core::array::from_fn(|_| parts.next().unwrap_or_default())
}
