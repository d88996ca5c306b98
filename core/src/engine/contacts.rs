//! The table of addresses where other nodes may listen: whom to dial next, and whom to tell others of.
//!
//! *Invariants*: an address occurs once. *Bounds*: as many rows as `Limits::contacts`; when they are used up, a new
//! address replaces one that has failed, one in the own rack one of elsewhere (but for a quarter), or is dropped. A call is
//! O(rows), but O(1) while nobody is to be dialled.

use crate::ids::{Address, PeerId};
use crate::locality::{Locality, Nearness};
use crate::time::{Duration, Instant};

/// An address; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Contact {
    address: Address,
    /// Where it is said to stand.
    locality: Locality,
    seed: bool,
    link: Option<PeerId>,
    failures: u8,
    retry_at: Instant,
    /// A guest waits for what it has.
    urgent: bool,
}

impl Contact {
    /// An unused row.
    pub const EMPTY: Self = Self {
        address: Address::NONE,
        locality: Locality::NONE,
        seed: false,
        link: None,
        failures: 0,
        retry_at: Instant::ZERO,
        urgent: false,
    };
}

/// A node that has failed this often is told to nobody, and gives way when the table is full.
const FAILURES_MAX: u8 = 3;
/// Addresses told in one frame.
pub(super) const TOLD_MAX: usize = 32;
/// Of these, so many at first of the rack that is told.
const TOLD_NEAR: usize = 24;
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_SHIFT_MAX: u8 = 6;

/// All addresses.
#[derive(Debug)]
pub(super) struct Contacts<'a> {
    /// Where this node stands.
    own: Locality,
    rows: &'a mut [Contact],
    len: usize,
    /// Counts additions, so that a peer is told only when there is something new.
    version: u32,
    /// When there will be something to dial, by [`Wanted::number`].
    retries: [Instant; 4],
}

/// Which nodes are to be dialled. Seeds always are.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Those of this node's rack.
    pub near: bool,
    /// The others.
    pub far: bool,
}

impl Wanted {
    /// By number.
    const ALL: [Self; 4] = [
        Self { near: false, far: false },
        Self { near: true, far: false },
        Self { near: false, far: true },
        Self { near: true, far: true },
    ];

    /// Its place among all.
    fn number(self) -> usize {
        usize::from(self.near) + 2 * usize::from(self.far)
    }
}

impl<'a> Contacts<'a> {
    pub(super) fn new(rows: &'a mut [Contact], own: Locality) -> Self {
        Self { own, rows, len: 0, version: 0, retries: [Instant::NEVER; 4] }
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Notes an address; `seed` is kept once known, and so is who has said first where it stands.
    pub(super) fn add(&mut self, address: Address, seed: bool, locality: Locality) {
        if !address.is_dialable() {
            return;
        }
        if let Some(row) = self.rows[..self.len].iter_mut().find(|row| row.address == address) {
            let becomes_seed = seed && !row.seed;
            if becomes_seed {
                // The link may be of somebody who only claims the address.
                (row.seed, row.link) = (true, None);
            }
            let is_located = !row.locality.is_said() && locality.is_said();
            if is_located {
                row.locality = locality;
            }
            if becomes_seed || is_located {
                self.note_retries();
            }
            return;
        }
        let fresh = Contact { address, seed, locality, ..Contact::EMPTY };
        if self.len < self.rows.len() {
            self.rows[self.len] = fresh;
            self.len += 1;
        } else if let Some(row) = self.to_replace(&fresh) {
            self.rows[row] = fresh;
        } else {
            return;
        }
        self.version = self.version.wrapping_add(1);
        self.note_retries();
    }

    /// The row of a full table that gives way: one that has failed, or one of elsewhere to one of the own rack. A quarter of
    /// the table does not, or whoever tells lies about racks could cut this node off from all others.
    fn to_replace(&self, fresh: &Contact) -> Option<usize> {
        let free = |row: &Contact| row.link.is_none() && !row.seed;
        let failed = self.rows.iter().position(|row| free(row) && row.failures >= FAILURES_MAX);
        failed.or_else(|| {
            let near = self.rows.iter().filter(|row| self.is_near(row)).count();
            let has_room = self.is_near(fresh) && near < self.rows.len() / 4 * 3;
            has_room.then(|| self.rows.iter().position(|row| free(row) && !self.is_near(row)))?
        })
    }

    fn is_near(&self, row: &Contact) -> bool {
        self.own.nearness(&row.locality) >= Nearness::Rack
    }

    /// Notes where who is at the other end of a link says that it stands.
    pub(super) fn located(&mut self, peer: PeerId, locality: Locality) {
        for row in self.by_link(peer) {
            row.locality = locality;
        }
        self.note_retries();
    }

    /// Notes that a guest waits for what is to be had at this address: it is dialled even if there are links enough.
    pub(super) fn urge(&mut self, address: Address) {
        if let Some(row) = self.rows[..self.len].iter_mut().find(|row| row.address == address && row.link.is_none()) {
            row.urgent = row.failures == 0;
            self.note_retries();
        }
    }

    /// Notes that this address is being dialled.
    pub(super) fn dialled(&mut self, address: Address, peer: PeerId) {
        if let Some(row) = self.rows[..self.len].iter_mut().find(|row| row.address == address) {
            row.link = Some(peer);
            row.urgent = false;
        }
        self.note_retries();
    }

    /// Notes that who has dialled this node says that it listens at this address: no need to dial that. Nobody can so keep
    /// this node from a seed.
    pub(super) fn claimed(&mut self, address: Address, peer: PeerId) {
        let unlinked = |row: &&mut Contact| row.address == address && row.link.is_none() && !row.seed;
        if let Some(row) = self.rows[..self.len].iter_mut().find(unlinked) {
            row.link = Some(peer);
            self.note_retries();
        }
    }

    /// Whether this is the link to a seed that the operator named.
    pub(super) fn leads_to_seed(&self, peer: PeerId) -> bool {
        self.rows[..self.len].iter().any(|row| row.seed && row.link == Some(peer))
    }

    /// Notes that two links lead to one node, and which of them stays: it stands for the addresses of both.
    pub(super) fn moved(&mut self, from: PeerId, to: PeerId) {
        for row in self.by_link(from) {
            row.link = Some(to);
        }
    }

    /// Notes that the other side has answered: it is a node that works.
    pub(super) fn answered(&mut self, peer: PeerId) {
        for row in self.by_link(peer) {
            row.failures = 0;
        }
    }

    /// Notes that a link is gone; it may be dialled again after a while.
    pub(super) fn unlinked(&mut self, now: Instant, peer: PeerId) {
        for row in self.by_link(peer) {
            row.link = None;
            row.retry_at = now + RETRY_FIRST.times(1 << row.failures.min(RETRY_SHIFT_MAX));
            row.failures = row.failures.saturating_add(1);
        }
        self.note_retries();
    }

    /// Notes that an address leads nowhere useful (to oneself): it is not dialled again.
    pub(super) fn barred(&mut self, peer: PeerId) {
        for row in self.by_link(peer) {
            *row = Contact { failures: u8::MAX, retry_at: Instant::NEVER, seed: false, link: None, ..*row };
        }
        self.note_retries();
    }

    /// The address to dial next: seeds first, then the least failed, of these those of the own rack.
    pub(super) fn next_to_dial(&self, now: Instant, wanted: Wanted) -> Option<Address> {
        if now < self.next_retry(wanted) {
            return None;
        }
        let due = self.dialable(wanted).filter(|row| row.retry_at <= now);
        due.min_by_key(|row| (!row.seed, !row.urgent, row.failures, !self.is_near(row))).map(|row| row.address)
    }

    /// When there will be something to dial.
    pub(super) fn next_retry(&self, wanted: Wanted) -> Instant {
        self.retries[wanted.number()]
    }

    /// To be called when a row has changed.
    fn note_retries(&mut self) {
        self.retries = Wanted::ALL.map(|wanted| self.first_retry(wanted));
    }

    fn first_retry(&self, wanted: Wanted) -> Instant {
        self.dialable(wanted).map(|row| row.retry_at).min().unwrap_or(Instant::NEVER)
    }

    /// Panics unless the times to dial are those of the rows.
    pub(super) fn check(&self) {
        assert_eq!(
            self.retries,
            Wanted::ALL.map(|wanted| self.first_retry(wanted)),
            "who is to be dialled is dialled in time"
        );
    }

    /// Addresses worth telling who listens at `own` and stands at `to`, starting somewhere in the table: those of its rack go
    /// first, but some of elsewhere come with them.
    pub(super) fn good(&self, start: u32, own: Address, to: Locality) -> impl Iterator<Item = (Address, Locality)> {
        let start = if self.len == 0 { 0 } else { start as usize % self.len };
        let (late, early) = self.rows[..self.len].split_at(start);
        let good = early.iter().chain(late).filter(move |row| row.failures < FAILURES_MAX && row.address != own);
        let is_near = move |row: &&Contact| to.nearness(&row.locality) >= Nearness::Rack;
        let near = good.clone().filter(is_near);
        let far = good.filter(move |row| !is_near(row));
        let told = near.clone().take(TOLD_NEAR).chain(far).chain(near.skip(TOLD_NEAR)).take(TOLD_MAX);
        told.map(|row| (row.address, row.locality))
    }

    fn dialable(&self, wanted: Wanted) -> impl Iterator<Item = &Contact> {
        self.rows[..self.len].iter().filter(move |row| {
            let is_wanted = || if self.is_near(row) { wanted.near } else { wanted.far };
            row.link.is_none() && row.retry_at != Instant::NEVER && (row.seed || row.urgent || is_wanted())
        })
    }

    fn by_link(&mut self, peer: PeerId) -> impl Iterator<Item = &mut Contact> {
        self.rows[..self.len].iter_mut().filter(move |row| row.link == Some(peer))
    }
}
