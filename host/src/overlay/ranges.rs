//! Units that are being written: writers of one unit go one after the other, in the order in which they came.
//!
//! *Invariants*: a range waits only for those that came before it, so none waits for ever. A range is held until its guard
//! is dropped, on whatever thread. *Bounds*: a range for each write that is under way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// By arrival.
    taken: Mutex<(u64, BTreeMap<u64, Range<u64>>)>,
    changed: Notify,
}

/// A range of units that nobody else writes to while this lives.
#[derive(Debug)]
pub(super) struct Held {
    ranges: Arc<Ranges>,
    number: u64,
}

impl Ranges {
    /// Waits until the units are this writer's alone.
    pub(super) async fn hold(self: &Arc<Self>, units: Range<u64>) -> Held {
        let number = {
            let mut taken = self.lock();
            let number = taken.0;
            taken.0 += 1;
            taken.1.insert(number, units.clone());
            number
        };
        // Made first, so that a range whose wait is given up goes too.
        let held = Held { ranges: Arc::clone(self), number };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.lock().1.range(..number).any(|(_, other)| other.start < units.end && units.start < other.end) {
                return held;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Range<u64>>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ranges.lock().1.remove(&self.number);
        self.ranges.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writers_of_one_unit_go_one_after_the_other() {
        let ranges = Arc::new(Ranges::default());
        let first = ranges.hold(0..4).await;
        let apart = ranges.hold(4..6).await;
        let waits = |units| {
            let ranges = Arc::clone(&ranges);
            tokio::spawn(async move { ranges.hold(units).await })
        };
        let (second, given_up) = (waits(3..5), waits(5..7));
        tokio::task::yield_now().await;
        // Behind `second`, though nobody holds its unit.
        let third = waits(4..5);
        drop(apart);
        tokio::task::yield_now().await;
        assert!(!second.is_finished() && !third.is_finished());
        given_up.abort();
        drop(first);
        let second = second.await.unwrap();
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(second);
        drop(third.await.unwrap());
        // It may have had its turn before it was given up.
        drop(given_up.await);
        assert!(ranges.lock().1.is_empty());
    }
}
