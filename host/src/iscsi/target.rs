//! What all sessions of a target share: the disk, reservations, and who is there.
//!
//! *Invariants*: an initiator's end (its name and ISID) has one session at a time; a new one ends the old. What a session is
//! told is told once. *Bounds*: [`ATTENTIONS_MAX`] things that a session is still to hear; [`GUESTS_MAX`] names are told
//! apart, later ones are one guest.

use super::chap::Chap;
use super::identity::Identity;
use super::login::Nexus;
use super::scsi::reserve::{Effects, Reservations};
use super::scsi::sense::Sense;
use super::scsi::{BLOCK_BYTES, BLOCK_SHIFT, Facts};
use crate::disk::Disk;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarmdisk_core::ids::GuestId;
use tokio::sync::{RwLock, watch};

const ATTENTIONS_MAX: usize = 8;
const GUESTS_MAX: usize = 1024;

/// A target with its one logical unit.
pub(super) struct Target<D> {
    pub disk: Arc<D>,
    pub facts: Facts,
    pub chap: Option<Chap>,
    /// What changes the disk shares it; what looks at blocks before it changes them has it alone.
    pub changing: RwLock<()>,
    /// Whether an initiator has it write-protected (SWP).
    protected: AtomicBool,
    reservations: Mutex<Reservations>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_number: BTreeMap<u16, Entry>,
    last: u16,
    joined: u64,
    guests: Vec<String>,
}

struct Entry {
    /// Other than its number, of this one alone.
    id: u64,
    nexus: Nexus,
    orders: watch::Sender<Orders>,
    attentions: VecDeque<Sense>,
}

/// What others want of a session; numbers grow with each time.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub(super) struct Orders {
    /// Its tasks are to end.
    pub aborts: u64,
    /// It is to end itself.
    pub end: bool,
}

/// A session's place among the others; it goes with it.
pub(super) struct Member<D: Disk> {
    target: Arc<Target<D>>,
    id: u64,
    pub number: u16,
    pub nexus: Nexus,
    pub guest: GuestId,
    pub orders: watch::Receiver<Orders>,
}

impl<D: Disk> Target<D> {
    pub(super) fn new(disk: Arc<D>, identity: Identity, chap: Option<Chap>, physical_shift: u8) -> Self {
        let facts = Facts {
            blocks: disk.image_bytes().div_ceil(BLOCK_BYTES),
            is_writable: disk.is_writable(),
            physical_shift,
            preferred_blocks: disk.preferred_bytes() >> BLOCK_SHIFT,
            iqn: identity.iqn,
            serial: identity.serial,
            id: identity.id,
        };
        let changing = RwLock::new(());
        let (reservations, sessions) = (Mutex::default(), Mutex::default());
        Self { disk, facts, chap, changing, protected: AtomicBool::new(false), reservations, sessions }
    }

    /// Has sessions of this initiator's end ended: a new one takes their place when all that these do is over.
    pub(super) async fn end_sessions_of(&self, nexus: &Nexus) {
        for orders in self.take_sessions_of(nexus) {
            orders.send_modify(|orders| orders.end = true);
            // Until the session has dropped its end.
            orders.closed().await;
        }
    }

    fn take_sessions_of(&self, nexus: &Nexus) -> Vec<watch::Sender<Orders>> {
        let mut sessions = lock(&self.sessions);
        let of_nexus = |entry: &Entry| entry.nexus == *nexus;
        let old: Vec<u16> =
            sessions.by_number.iter().filter(|(_, entry)| of_nexus(entry)).map(|(number, _)| *number).collect();
        old.iter().filter_map(|number| sessions.by_number.remove(number)).map(|entry| entry.orders).collect()
    }

    /// Lets a session in. None if there are too many, or one of the same initiator's end.
    pub(super) fn join(self: &Arc<Self>, nexus: Nexus) -> Option<Member<D>> {
        let mut sessions = lock(&self.sessions);
        // Two that come at once: one of them may try again.
        if sessions.by_number.values().any(|entry| entry.nexus == nexus) {
            return None;
        }
        let from = sessions.last;
        let number = (1..=u16::MAX)
            .map(|step| from.wrapping_add(step))
            .find(|number| *number != 0 && !sessions.by_number.contains_key(number))?;
        sessions.last = number;
        sessions.joined += 1;
        let id = sessions.joined;
        let (orders, receiver) = watch::channel(Orders::default());
        let guest = sessions.guest(&nexus.initiator);
        sessions.by_number.insert(number, Entry { id, nexus: nexus.clone(), orders, attentions: VecDeque::new() });
        Some(Member { target: Arc::clone(self), id, number, nexus, guest, orders: receiver })
    }

    /// Whether there is a session of this number.
    pub(super) fn has_session(&self, number: u16) -> bool {
        lock(&self.sessions).by_number.contains_key(&number)
    }

    pub(super) fn reservations(&self) -> MutexGuard<'_, Reservations> {
        lock(&self.reservations)
    }

    /// Whether it is write-protected for now, though it could be written to.
    pub(super) fn is_protected(&self) -> bool {
        self.protected.load(SeqCst)
    }

    /// Has it write-protected or not; all others than who asks hear of a change.
    pub(super) fn protect(&self, is_protected: bool, asking: u16) {
        if self.protected.swap(is_protected, SeqCst) != is_protected {
            let mut sessions = lock(&self.sessions);
            let others = sessions.by_number.iter_mut().filter(|(number, _)| **number != asking);
            others.for_each(|(_, entry)| entry.attend(Sense::MODE_CHANGED));
        }
    }

    /// Tells others what an action on reservations means for them.
    pub(super) fn tell(&self, effects: Effects) {
        if effects == Effects::default() {
            return;
        }
        let mut sessions = lock(&self.sessions);
        for entry in sessions.by_number.values_mut() {
            for (nexus, sense) in &effects.attentions {
                if *nexus == entry.nexus {
                    entry.attend(*sense);
                }
            }
            if effects.aborted.contains(&entry.nexus) {
                entry.orders.send_modify(|orders| orders.aborts += 1);
            }
        }
    }

    /// Resets the unit: all sessions hear of it; the tasks of all but the one that asks end, and it is to end its own.
    pub(super) fn reset(&self, asking: u16, and_end: bool) {
        // Nothing of its modes is saved.
        self.protected.store(false, SeqCst);
        let mut sessions = lock(&self.sessions);
        for (number, entry) in &mut sessions.by_number {
            entry.attend(Sense::WAS_RESET);
            if *number != asking {
                entry.orders.send_modify(|orders| {
                    orders.aborts += 1;
                    orders.end |= and_end;
                });
            }
        }
    }

    /// Ends the tasks of all sessions but the one that asks.
    pub(super) fn clear_tasks(&self, asking: u16) {
        let sessions = lock(&self.sessions);
        let others = sessions.by_number.iter().filter(|(number, _)| **number != asking);
        others.for_each(|(_, entry)| entry.orders.send_modify(|orders| orders.aborts += 1));
    }
}

impl<D: Disk> Member<D> {
    /// The next thing that the session is to hear.
    pub(super) fn attention(&self) -> Option<Sense> {
        lock(&self.target.sessions).by_number.get_mut(&self.number)?.attentions.pop_front()
    }
}

impl<D: Disk> Drop for Member<D> {
    fn drop(&mut self) {
        let mut sessions = lock(&self.target.sessions);
        // One that took its place may have its number by now.
        if sessions.by_number.get(&self.number).is_some_and(|entry| entry.id == self.id) {
            sessions.by_number.remove(&self.number);
        }
    }
}

impl Entry {
    fn attend(&mut self, sense: Sense) {
        if self.attentions.len() < ATTENTIONS_MAX && !self.attentions.contains(&sense) {
            self.attentions.push_back(sense);
        }
    }
}

impl Sessions {
    /// All sessions of one initiator are one guest.
    fn guest(&mut self, initiator: &str) -> GuestId {
        let known = self.guests.iter().position(|name| name == initiator);
        let index = known.unwrap_or(self.guests.len());
        if known.is_none() && index < GUESTS_MAX {
            self.guests.push(initiator.to_owned());
        }
        GuestId(index as u16)
    }
}

/// Whoever panicked with it held left it whole: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_told_apart_as_far_as_there_is_room_for_their_names() {
        let mut sessions = Sessions::default();
        let all: Vec<GuestId> = (0..2 * GUESTS_MAX).map(|name| sessions.guest(&name.to_string())).collect();
        assert_eq!(
            (all[0], all[7], sessions.guest("7"), all[GUESTS_MAX - 1]),
            (GuestId(0), GuestId(7), GuestId(7), GuestId(1023))
        );
        assert!(all[GUESTS_MAX..].iter().all(|guest| *guest == GuestId(GUESTS_MAX as u16)));
        assert_eq!(sessions.guests.len(), GUESTS_MAX);
    }
}
