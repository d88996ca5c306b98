//! What is known of a peer, what is owed to it, and what it owes: a row of the table of links.
//!
//! *Units*: bytes, microseconds. *Bounds*: a row is of fixed size.

use crate::ids::{Address, NodeId};
use crate::locality::{Locality, Nearness};
use crate::time::{Duration, Instant};
use crate::wire::{BlobRange, Farewell, Role};

/// A peer that has taken nothing for so long does not keep others from being served.
const STALLED: Duration = Duration::from_secs(1);

/// To so many others a node is named as one that has the blobs, then it is left alone for a while: these have them
/// soon, and are named in turn.
const BLOB_NAMED_MAX: u8 = 4;
const BLOB_NAMED_FOR: Duration = Duration::from_secs(1);

/// Requests taken back that are remembered one by one.
const TAKEN_BACK_MAX: usize = 4;

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
    /// Where it says that it stands, and how near that is.
    pub(super) locality: Locality,
    pub(super) nearness: Nearness,
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
    /// Whether it is told what guests here touch.
    pub(super) taught: bool,
    /// Number of the first touch not yet told.
    pub(super) touch_next: u16,
    pub(super) pong: Option<u64>,
    pub(super) ping_due: Instant,
    /// What the last ping said, until it is answered.
    pub(super) pinged: Option<u64>,
    pub(super) contacts_due: Instant,
    pub(super) contacts_seen: u32,
    pub(super) blob: Option<BlobRange>,
    /// Whether it has been told whom else to ask for a blob: it is not told again.
    pub(super) blob_redirected: bool,
    /// How often it was named as such lately, and when last.
    pub(super) blob_named: u8,
    pub(super) blob_named_at: Instant,

    // Flow.
    /// Bytes that may be handed over; negative after a long body.
    pub(super) credit_bytes: i64,
    /// Bytes handed over and not yet reported as sent.
    pub(super) unsent_bytes: u64,
    /// When some of these last left, or the first of them was handed over.
    pub(super) moved_at: Instant,
    /// Whether it counts as one that does not take what it has asked for.
    pub(super) stalled: bool,
    /// Its requests that wait here.
    pub(super) uploads: u16,
    pub(super) last_served: Instant,

    // What we have of it.
    pub(super) last_received: Instant,
    /// How many pieces it holds.
    pub(super) pieces: u32,
    /// Pieces asked of it, or about to be, whose body has not begun to come.
    pub(super) in_flight: u16,
    /// Of these, how many are prefetches. Fills have places of their own: they wait long, and would be in the way.
    pub(super) prefetches: u16,
    /// Bodies that may still come for requests that were taken back.
    pub(super) late_bodies: u32,
    /// The pieces of these, as long as there are no more than find room. Until it is known that none comes they are not
    /// asked of this peer: the answer to the first request would be taken for that to the second.
    pub(super) taken_back: [u32; TAKEN_BACK_MAX],
    /// Whether a ping has been sent since: its answer comes after all bodies that may be late.
    pub(super) late_pinged: bool,
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
        locality: Locality::NONE,
        nearness: Nearness::Far,
        requests_max: 0,
        hello_sent: false,
        offers_sent: 0,
        map_next: 0,
        change_next: 0,
        changes_due: Instant::NEVER,
        taught: false,
        touch_next: 0,
        pong: None,
        ping_due: Instant::NEVER,
        pinged: None,
        contacts_due: Instant::NEVER,
        contacts_seen: 0,
        blob: None,
        blob_redirected: false,
        blob_named: 0,
        blob_named_at: Instant::ZERO,
        credit_bytes: 0,
        unsent_bytes: 0,
        moved_at: Instant::ZERO,
        stalled: false,
        uploads: 0,
        last_served: Instant::ZERO,
        last_received: Instant::ZERO,
        pieces: 0,
        in_flight: 0,
        prefetches: 0,
        late_bodies: 0,
        taken_back: [0; TAKEN_BACK_MAX],
        late_pinged: false,
        busy_until: Instant::ZERO,
        busy_for_demand_until: Instant::ZERO,
        failures: 0,
        rtt: Duration::ZERO,
        bytes_per_sec: 0,
    };

    /// A request has been taken back.
    pub(super) fn take_back(&mut self, piece: u32) {
        if let Some(place) = self.taken_back.get_mut(self.late_bodies as usize) {
            *place = piece;
        }
        self.late_bodies = self.late_bodies.saturating_add(1);
        self.late_pinged = false;
    }

    /// A body has come late.
    pub(super) fn late_body(&mut self, piece: u32) {
        let count = self.late_bodies as usize;
        if let Some(known) = self.taken_back.get_mut(..count)
            && let Some(at) = known.iter().position(|known| *known == piece)
        {
            known.swap(at, count - 1);
            self.late_bodies -= 1;
        }
    }

    /// Whether an answer to a request for this piece may be one to an earlier request.
    pub(super) fn may_be_late(&self, piece: u32) -> bool {
        self.taken_back.get(..self.late_bodies as usize).is_none_or(|known| known.contains(&piece))
    }

    /// Whether a ping is to find out that no late body comes any more.
    pub(super) fn late_ping_due(&self) -> bool {
        self.late_bodies > 0 && !self.late_pinged && self.pinged.is_none()
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether bytes can be handed over to the host for it.
    pub(super) fn takes_bytes(&self) -> bool {
        self.credit_bytes > 0
    }

    /// Whether its requests can be answered now.
    pub(super) fn answerable(&self) -> bool {
        self.is_open() && self.takes_bytes() && self.uploads > 0
    }

    /// When the peer will count as one that does not take what it has asked for.
    pub(super) fn stalls_at(&self) -> Instant {
        if self.unsent_bytes == 0 || self.stalled { Instant::NEVER } else { self.moved_at + STALLED }
    }

    /// When it may be told whom else to ask for the blob that it has asked for.
    pub(super) fn blob_redirect_at(&self) -> Instant {
        let waits = self.is_open() && self.takes_bytes() && self.blob.is_some() && !self.blob_redirected;
        if waits { Instant::ZERO } else { Instant::NEVER }
    }

    /// When it may be named to others who ask for a blob: it has them all.
    pub(super) fn blob_name_at(&self) -> Instant {
        let may_be_named = self.is_open() && self.role == Role::Node && self.address.is_dialable();
        match may_be_named {
            false => Instant::NEVER,
            true if self.blob_named < BLOB_NAMED_MAX => Instant::ZERO,
            true => self.blob_named_at + BLOB_NAMED_FOR,
        }
    }

    /// It is named to one more.
    pub(super) fn name_for_blob(&mut self, now: Instant) {
        let is_rested = now >= self.blob_named_at + BLOB_NAMED_FOR;
        self.blob_named = if is_rested { 1 } else { self.blob_named.saturating_add(1) };
        self.blob_named_at = now;
    }

    /// Of what was handed over, what its link is expected to send.
    pub(super) fn moving_bytes(&self) -> u64 {
        if self.stalled { 0 } else { self.unsent_bytes }
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
