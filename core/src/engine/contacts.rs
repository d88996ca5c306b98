//! The table of addresses where other nodes may listen: whom to dial next, and whom to tell others of.
//!
//! *Invariants*: an address occurs once. *Bounds*: as many rows as `Limits::contacts`; when they are used up, a new
//! address replaces one that has failed, or is dropped. A call is O(rows), but O(1) while nobody is to be dialled.

use crate::ids::{Address, PeerId};
use crate::time::{Duration, Instant};

/// An address; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Contact {
    address: Address,
    seed: bool,
    link: Option<PeerId>,
    failures: u8,
    retry_at: Instant,
    /// A guest waits for what it has.
    urgent: bool,
}

impl Contact {
    /// An unused row.
    pub const EMPTY: Self =
        Self { address: Address::NONE, seed: false, link: None, failures: 0, retry_at: Instant::ZERO, urgent: false };
}

/// A node that has failed this often is told to nobody, and gives way when the table is full.
const FAILURES_MAX: u8 = 3;
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_SHIFT_MAX: u8 = 6;

/// All addresses.
#[derive(Debug)]
pub(super) struct Contacts<'a> {
    rows: &'a mut [Contact],
    len: usize,
    /// Counts additions, so that a peer is told only when there is something new.
    version: u32,
    /// When there will be something to dial: among seeds, and among all.
    retries: [Instant; 2],
}

impl<'a> Contacts<'a> {
    pub(super) fn new(rows: &'a mut [Contact]) -> Self {
        Self { rows, len: 0, version: 0, retries: [Instant::NEVER; 2] }
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Notes an address; `seed` is kept once known.
    pub(super) fn add(&mut self, address: Address, seed: bool) {
        if !address.is_dialable() {
            return;
        }
        if let Some(row) = self.rows[..self.len].iter_mut().find(|row| row.address == address) {
            if seed && !row.seed {
                // The link may be of somebody who only claims the address.
                (row.seed, row.link) = (true, None);
                self.note_retries();
            }
            return;
        }
        let fresh = Contact { address, seed, ..Contact::EMPTY };
        if self.len < self.rows.len() {
            self.rows[self.len] = fresh;
            self.len += 1;
        } else if let Some(row) =
            self.rows.iter_mut().find(|row| row.link.is_none() && !row.seed && row.failures >= FAILURES_MAX)
        {
            *row = fresh;
        } else {
            return;
        }
        self.version = self.version.wrapping_add(1);
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

    /// The address to dial next: seeds first, then the least failed. Nodes only if `nodes` says so.
    pub(super) fn next_to_dial(&self, now: Instant, nodes: bool) -> Option<Address> {
        if now < self.next_retry(nodes) {
            return None;
        }
        let due = self.dialable(nodes).filter(|row| row.retry_at <= now);
        due.min_by_key(|row| (!row.seed, !row.urgent, row.failures)).map(|row| row.address)
    }

    /// When there will be something to dial.
    pub(super) fn next_retry(&self, nodes: bool) -> Instant {
        self.retries[usize::from(nodes)]
    }

    /// To be called when a row has changed.
    fn note_retries(&mut self) {
        self.retries = [false, true].map(|nodes| self.first_retry(nodes));
    }

    fn first_retry(&self, nodes: bool) -> Instant {
        self.dialable(nodes).map(|row| row.retry_at).min().unwrap_or(Instant::NEVER)
    }

    /// Panics unless the times to dial are those of the rows.
    pub(super) fn check(&self) {
        assert_eq!(
            self.retries,
            [false, true].map(|nodes| self.first_retry(nodes)),
            "who is to be dialled is dialled in time"
        );
    }

    /// Addresses worth telling others, starting somewhere in the table.
    pub(super) fn good(&self, start: u32) -> impl Iterator<Item = Address> {
        let start = if self.len == 0 { 0 } else { start as usize % self.len };
        let (late, early) = self.rows[..self.len].split_at(start);
        early.iter().chain(late).filter(|row| row.failures < FAILURES_MAX).map(|row| row.address)
    }

    fn dialable(&self, nodes: bool) -> impl Iterator<Item = &Contact> {
        self.rows[..self.len].iter().filter(move |row| {
            row.link.is_none() && row.retry_at != Instant::NEVER && (nodes || row.seed || row.urgent)
        })
    }

    fn by_link(&mut self, peer: PeerId) -> impl Iterator<Item = &mut Contact> {
        self.rows[..self.len].iter_mut().filter(move |row| row.link == Some(peer))
    }
}
