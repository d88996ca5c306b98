//! Numbered work done by many threads, its results taken in order.
//!
//! *Bounds*: at most `window` results are under way or wait to be taken.

use super::{Batch, PackError};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

type Outcome = Result<Batch, PackError>;

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    count: u32,
    window: u32,
}

struct State {
    next_claim: u32,
    next_take: u32,
    done: BTreeMap<u32, Outcome>,
    stopped: bool,
}

impl Queue {
    pub(super) fn new(count: u32, window: u32) -> Self {
        let state = State { next_claim: 0, next_take: 0, done: BTreeMap::new(), stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), count, window }
    }

    /// The next number to work on; nothing when there is no more to do.
    pub(super) fn claim(&self) -> Option<u32> {
        let is_crowded = |state: &mut State| {
            !state.stopped && state.next_claim < self.count && state.next_claim - state.next_take >= self.window
        };
        let waited = self.changed.wait_while(self.lock(), is_crowded);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.stopped || state.next_claim == self.count {
            return None;
        }
        state.next_claim += 1;
        Some(state.next_claim - 1)
    }

    pub(super) fn done(&self, number: u32, outcome: Outcome) {
        self.lock().done.insert(number, outcome);
        self.changed.notify_all();
    }

    /// The next result in order; nothing if the work was stopped.
    pub(super) fn take(&self) -> Option<Outcome> {
        let is_missing = |state: &mut State| !state.stopped && !state.done.contains_key(&state.next_take);
        let waited = self.changed.wait_while(self.lock(), is_missing);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let number = state.next_take;
        let outcome = state.done.remove(&number)?;
        state.next_take += 1;
        self.changed.notify_all();
        Some(outcome)
    }

    /// Ends the work when it is dropped, so that no thread waits for ever.
    pub(super) fn stop_on_drop(&self) -> Stop<'_> {
        Stop { queue: self, only_on_panic: false }
    }

    /// The same, but only if its thread panics.
    pub(super) fn stop_on_panic(&self) -> Stop<'_> {
        Stop { queue: self, only_on_panic: true }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Stop<'a> {
    queue: &'a Queue,
    only_on_panic: bool,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if !self.only_on_panic || std::thread::panicking() {
            self.queue.lock().stopped = true;
            self.queue.changed.notify_all();
        }
    }
}
