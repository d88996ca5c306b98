//! Who waits for which piece.
//!
//! *Invariants*: the engine knows one demand for each pair of guest and piece, however many reads of the guest wait for it.
//! *Bounds*: each waiter holds a permit, of which there are as many as the engine keeps demands.

use bytes::Bytes;
use std::collections::HashMap;
use swarmdisk_core::geometry::PieceIndex;
use swarmdisk_core::ids::GuestId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What a waiter gets.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The chunk's payload, verified: whoever waits decodes it, as that has to be woken anyway.
    Payload(Bytes),
    /// The store has it now.
    Held,
    /// It cannot be had: why, for the log.
    Unusable(String),
}

/// A read that waits for a piece.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Whose read.
    pub guest: GuestId,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
    /// Given back when the waiter is dropped.
    pub _permit: OwnedSemaphorePermit,
}

/// All waiters.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_piece: HashMap<PieceIndex, Vec<Waiter>>,
}

impl Waiters {
    /// Adds a waiter; true if this guest did not wait for this piece before.
    pub fn add(&mut self, piece: PieceIndex, waiter: Waiter) -> bool {
        let waiters = self.by_piece.entry(piece).or_default();
        let is_new = waiters.iter().all(|other| other.guest != waiter.guest);
        waiters.push(waiter);
        is_new
    }

    /// Takes out all who wait for the piece.
    pub fn take(&mut self, piece: PieceIndex) -> Vec<Waiter> {
        self.by_piece.remove(&piece).unwrap_or_default()
    }

    /// Takes out all who wait for a piece of a run.
    pub fn take_run(&mut self, first: u32, count: u32) -> Vec<Waiter> {
        self.pieces(first, count).into_iter().flat_map(|piece| self.take(piece)).collect()
    }

    /// The pieces of a run that somebody waits for.
    pub fn pieces(&self, first: u32, count: u32) -> Vec<PieceIndex> {
        let run = first..first.saturating_add(count);
        self.by_piece.keys().copied().filter(|piece| run.contains(&piece.get())).collect()
    }

    /// The guests that wait for the piece, each once.
    pub fn guests(&self, piece: PieceIndex) -> Vec<GuestId> {
        let waiters = self.by_piece.get(&piece).into_iter().flatten();
        let mut guests: Vec<GuestId> = waiters.map(|waiter| waiter.guest).collect();
        guests.sort_unstable();
        guests.dedup();
        guests
    }

    /// Forgets the guest's waiters for this piece that have gone away; true if that leaves it none, and it had some.
    pub fn release(&mut self, guest: GuestId, piece: PieceIndex) -> bool {
        let Some(waiters) = self.by_piece.get_mut(&piece) else { return false };
        let count = waiters.len();
        waiters.retain(|waiter| waiter.guest != guest || !waiter.answer.is_closed());
        let is_gone = waiters.len() < count && waiters.iter().all(|waiter| waiter.guest != guest);
        if waiters.is_empty() {
            self.by_piece.remove(&piece);
        }
        is_gone
    }
}

/// Gives all of them the same answer.
pub(crate) fn answer_all(waiters: Vec<Waiter>, answer: &Answer) {
    for waiter in waiters {
        // Whoever went away in the meantime needs none.
        let _ = waiter.answer.send(answer.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use swarmdisk_core::geometry::Geometry;
    use tokio::sync::Semaphore;

    #[test]
    fn a_guest_is_released_with_its_last_waiter() {
        let geometry = Geometry::new(10 << 16, 16).unwrap();
        let (one, two) = (geometry.piece(1).unwrap(), geometry.piece(2).unwrap());
        let permits = Arc::new(Semaphore::new(8));
        let mut waiters = Waiters::default();
        let add = |waiters: &mut Waiters, piece, guest| {
            let (answer, receiver) = oneshot::channel();
            let permit = permits.clone().try_acquire_owned().unwrap();
            (waiters.add(piece, Waiter { guest: GuestId(guest), answer, _permit: permit }), receiver)
        };
        let (is_new, first) = add(&mut waiters, one, 0);
        assert!(is_new);
        let (is_new, second) = add(&mut waiters, one, 0);
        assert!(!is_new);
        let (is_new, other) = add(&mut waiters, one, 1);
        assert!(is_new);
        drop(first);
        assert!(!waiters.release(GuestId(0), one));
        drop(second);
        assert!(waiters.release(GuestId(0), one));
        assert!(!waiters.release(GuestId(0), one));
        assert_eq!(permits.available_permits(), 7);
        let (_, late) = add(&mut waiters, two, 1);
        answer_all(waiters.take_run(1, 2), &Answer::Held);
        assert!(matches!((other.blocking_recv(), late.blocking_recv()), (Ok(Answer::Held), Ok(Answer::Held))));
        assert!(waiters.by_piece.is_empty());
        assert_eq!(permits.available_permits(), 8);
    }
}
