//! The table of links: what is known of each peer and what is owed to it.
//!
//! *Invariants*: a row in use has a generation of its own, so that a stale [`PeerId`] finds nothing; the bits of a free
//! row are all clear. *Units*: bytes, microseconds. *Bounds*: as many rows as `Limits::peers`; every call is O(rows).

use super::config::Limits;
use crate::bitmap::{self, Bits};
use crate::geometry::PieceIndex;
use crate::ids::{Address, NodeId, PeerId};
use crate::policy::Supply;
use crate::time::{Duration, Instant};
use crate::wire::{BlobRange, Farewell, Role};

/// A peer that has taken nothing for so long does not keep others from being served.
const STALLED: Duration = Duration::from_secs(1);

/// How far a link has come.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The row is not used.
    Free,
    /// The host connects.
    Dialing,
    /// Connected; the other's `Hello` has not come.
    Greeting,
    /// Both have said `Hello`.
    Open,
    /// To be closed: say why, then hang up.
    Closing(Farewell, super::event::Reason),
}

/// A link to another node; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct PeerRow {
    pub(super) state: State,
    pub(super) generation: u16,
    /// Whether the other side dialled.
    pub(super) inbound: bool,
    pub(super) role: Role,
    pub(super) node: NodeId,
    /// Where it can be dialled.
    pub(super) address: Address,
    /// Requests that it takes at a time.
    pub(super) requests_max: u16,

    // What is owed to it.
    pub(super) hello_sent: bool,
    pub(super) offers_sent: u8,
    /// First piece that the map sent so far does not cover.
    pub(super) map_next: u32,
    /// Number of the first change not yet announced.
    pub(super) change_next: u64,
    pub(super) changes_due: Instant,
    pub(super) pong: Option<u64>,
    pub(super) ping_due: Instant,
    /// What the last ping said, until it is answered.
    pub(super) pinged: Option<u64>,
    pub(super) contacts_due: Instant,
    pub(super) contacts_seen: u32,
    pub(super) blob: Option<BlobRange>,

    // Flow.
    /// Bytes that may be handed over; negative after a long body.
    pub(super) credit_bytes: i64,
    /// Bytes handed over and not yet reported as sent.
    pub(super) unsent_bytes: u64,
    /// When some of these last left, or the first of them was handed over.
    pub(super) moved_at: Instant,
    /// Its requests that wait here.
    pub(super) uploads: u16,
    /// Of these, how many the host loads or has loaded.
    pub(super) loads: u16,
    pub(super) last_served: Instant,

    // What we have of it.
    pub(super) last_received: Instant,
    /// Pieces asked of it, or about to be, whose body has not begun to come.
    pub(super) in_flight: u16,
    /// Of these, how many no guest waits for.
    pub(super) bulk: u16,
    /// Bodies that may still come for requests that were taken back.
    pub(super) late_bodies: u32,
    /// Until then it is not asked for what no guest waits for.
    pub(super) busy_until: Instant,
    /// Until then it is not asked for anything.
    pub(super) busy_for_demand_until: Instant,
    pub(super) failures: u8,
    pub(super) rtt: Duration,
    pub(super) bytes_per_sec: u64,
}

impl PeerRow {
    /// An unused row.
    pub const EMPTY: Self = Self {
        state: State::Free,
        generation: 0,
        inbound: false,
        role: Role::Node,
        node: NodeId([0; 16]),
        address: Address::NONE,
        requests_max: 0,
        hello_sent: false,
        offers_sent: 0,
        map_next: 0,
        change_next: 0,
        changes_due: Instant::NEVER,
        pong: None,
        ping_due: Instant::NEVER,
        pinged: None,
        contacts_due: Instant::NEVER,
        contacts_seen: 0,
        blob: None,
        credit_bytes: 0,
        unsent_bytes: 0,
        moved_at: Instant::ZERO,
        uploads: 0,
        loads: 0,
        last_served: Instant::ZERO,
        last_received: Instant::ZERO,
        in_flight: 0,
        bulk: 0,
        late_bodies: 0,
        busy_until: Instant::ZERO,
        busy_for_demand_until: Instant::ZERO,
        failures: 0,
        rtt: Duration::ZERO,
        bytes_per_sec: 0,
    };

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether bytes can be handed over to the host for it.
    pub(super) fn takes_bytes(&self) -> bool {
        self.credit_bytes > 0
    }

    /// From when on the peer counts as one that does not take what it has asked for.
    pub(super) fn stalls_at(&self) -> Instant {
        if self.unsent_bytes == 0 { Instant::NEVER } else { self.moved_at + STALLED }
    }

    /// A body came `elapsed` after it was asked for, with `queued` others before it: the rate is what they took together.
    pub(super) fn sample_rate(&mut self, bytes: u32, elapsed: Duration, queued: u16) {
        self.failures /= 2;
        if bytes == 0 {
            return;
        }
        let transfer = elapsed.as_micros().saturating_sub(self.rtt.as_micros()).max(50);
        let sample = u64::from(bytes) * (u64::from(queued) + 1) * 1_000_000 / transfer;
        self.bytes_per_sec = if self.bytes_per_sec == 0 { sample } else { (self.bytes_per_sec * 7 + sample) / 8 };
    }

    pub(super) fn sample_rtt(&mut self, sample: Duration) {
        let (old, new) = (self.rtt.as_micros(), sample.as_micros().max(1));
        self.rtt = Duration::from_micros(if old == 0 { new } else { (old * 7 + new) / 8 });
    }
}

/// All links, and which pieces each peer holds.
#[derive(Debug)]
pub(super) struct Peers<'a> {
    rows: &'a mut [PeerRow],
    had: &'a mut [u64],
    words: usize,
    pieces: u32,
    unsent_bytes: u64,
}

impl<'a> Peers<'a> {
    pub(super) fn new(limits: Limits, rows: &'a mut [PeerRow], had: &'a mut [u64], words: usize, pieces: u32) -> Self {
        let rows = &mut rows[..usize::from(limits.peers)];
        rows.fill(PeerRow::EMPTY);
        had.fill(0);
        // Without maps every row's is empty: nobody is known to hold anything.
        let (words, pieces) = if limits.maps { (words, pieces) } else { (0, 0) };
        Self { rows, had, words, pieces, unsent_bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn id(&self, index: usize) -> PeerId {
        PeerId::new(index as u16, self.rows[index].generation)
    }

    /// The row at `index`, in use or not.
    pub(super) fn at(&self, index: usize) -> &PeerRow {
        &self.rows[index]
    }

    pub(super) fn at_mut(&mut self, index: usize) -> &mut PeerRow {
        &mut self.rows[index]
    }

    /// The row that `peer` names, unless that link is gone.
    pub(super) fn get(&self, peer: PeerId) -> Option<&PeerRow> {
        self.rows.get(peer.index()).filter(|row| row.generation == peer.generation() && row.state != State::Free)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut PeerRow> {
        let row = self.rows.get_mut(peer.index())?;
        (row.generation == peer.generation() && row.state != State::Free).then_some(row)
    }

    pub(super) fn open(&self) -> impl Iterator<Item = (usize, &PeerRow)> {
        self.rows.iter().enumerate().filter(|(_, row)| row.is_open())
    }

    pub(super) fn in_use(&self) -> usize {
        self.rows.iter().filter(|row| row.state != State::Free).count()
    }

    /// Takes a free row.
    pub(super) fn take(&mut self, state: State) -> Option<PeerId> {
        let index = self.rows.iter().position(|row| row.state == State::Free)?;
        let generation = self.rows[index].generation.wrapping_add(1);
        self.rows[index] = PeerRow { state, generation, ..PeerRow::EMPTY };
        Some(self.id(index))
    }

    /// Frees a row.
    pub(super) fn free(&mut self, peer: PeerId) {
        let words = self.words;
        let Some(row) = self.get_mut(peer) else { return };
        let unsent = row.unsent_bytes;
        row.state = State::Free;
        row.unsent_bytes = 0;
        self.unsent_bytes -= unsent;
        self.had[peer.index() * words..][..words].fill(0);
    }

    pub(super) fn had(&self, index: usize) -> Bits<'_> {
        Bits::new(&self.had[index * self.words..][..self.words], self.pieces)
    }

    /// Notes that the peer holds, or does not hold, a run that lies within the image.
    pub(super) fn note(&mut self, index: usize, first: u32, count: u32, held: bool) {
        if self.words == 0 {
            return;
        }
        bitmap::assign_run(&mut self.had[index * self.words..][..self.words], first, count, held);
    }

    /// Bytes handed to the host and not yet sent, over all links.
    pub(super) fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Of these, what was handed over for peers that take it.
    pub(super) fn moving_bytes(&self, now: Instant) -> u64 {
        self.rows.iter().filter(|row| now < row.stalls_at()).map(|row| row.unsent_bytes).sum()
    }

    /// Notes that bytes were handed over for a peer.
    pub(super) fn handed_over(&mut self, now: Instant, index: usize, bytes: u32, ping: Duration) {
        let row = &mut self.rows[index];
        row.moved_at = if row.unsent_bytes == 0 { now } else { row.moved_at };
        row.credit_bytes -= i64::from(bytes);
        row.unsent_bytes += u64::from(bytes);
        row.ping_due = row.ping_due.max(now + ping);
        self.unsent_bytes += u64::from(bytes);
    }

    /// Notes that bytes have left.
    pub(super) fn sent(&mut self, now: Instant, peer: PeerId, bytes: u32) -> bool {
        let Some(row) = self.get_mut(peer) else { return false };
        let bytes = u64::from(bytes).min(row.unsent_bytes);
        row.moved_at = now;
        row.credit_bytes += bytes as i64;
        row.unsent_bytes -= bytes;
        self.unsent_bytes -= bytes;
        true
    }

    /// The open link to a node.
    pub(super) fn by_node(&self, node: NodeId) -> Option<usize> {
        self.open().find(|(_, row)| row.node == node).map(|(index, _)| index)
    }
}

impl Supply for Peers<'_> {
    fn holders(&self, piece: PieceIndex) -> u16 {
        let holds = |(index, row): &(usize, &PeerRow)| row.role == Role::Node && self.had(*index).get(piece.get());
        self.open().filter(holds).count() as u16
    }
}
