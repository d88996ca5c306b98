//! A seed that learns: what nodes tell of their guests becomes the profile that is offered next.
//!
//! *Invariants*: the engine's task only takes notes; the profile is made on a blocking thread and offered to links that come
//! then. A link is a run, from its node's first touch on. *Units*: microseconds.
//! *Bounds*: [`RUNS_MAX`] runs that have ended, [`TOUCHES_MAX`] touches in all; the oldest run gives way, and where there is
//! none, what is told is not noted. A profile is made at most each [`PAUSE`], when a node has gone, or each [`PERIOD`] if
//! there is something new. Runs much shorter than most are left out: they have hardly begun.

use super::PROFILE_BYTES_MAX;
use super::message::Request;
use crate::log;
use crate::profile::{BuildError, build};
use crate::store::Store;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarmdisk_common::policies::{Pupil, Told};
use swarmdisk_common::trace::{Op, Request as Read, Trace};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::geometry::{ChunkIndex, Geometry};
use swarmdisk_core::ids::PeerId;
use tokio::sync::Notify;
use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::time::{Duration, sleep};

const RUNS_MAX: usize = 64;
const TOUCHES_MAX: usize = 1 << 20;
const PERIOD: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
/// Of a profile that was there before, so many runs count at most: what is learned shall have some weight.
const RUNS_BEFORE_MAX: u64 = 16;
/// A run with less than one in so many of the touches that the median run has is left out.
const SHORT: usize = 4;

/// What one node's guests have touched, and when by this node's clock.
type Run = Vec<(i64, ChunkIndex)>;

#[derive(Debug, Default)]
struct Notes {
    /// By the link's row and generation.
    under_way: HashMap<u32, Run>,
    ended: VecDeque<Run>,
    touch_count: usize,
    is_new: bool,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    notes: Mutex<Notes>,
    news: Notify,
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the learner when the engine ends.
struct Taker(Arc<Shared>);

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.notes().is_over = true;
        self.0.news.notify_one();
    }
}

/// Starts to learn on the current tokio runtime; gives who takes the notes. `before` is the profile offered so far.
pub(super) fn start(
    store: Arc<Store>,
    before: Option<(Vec<u16>, Vec<ProfileEntry>)>,
    requests: WeakUnboundedSender<Request>,
) -> Pupil {
    let taker = Taker(Arc::new(Shared::default()));
    tokio::spawn(learn(taker.0.clone(), store, before, requests));
    let name = |peer: PeerId| (peer.index() as u32) << 16 | u32::from(peer.generation());
    Box::new(move |told| match told {
        Told::Touched { peer, at_micros, chunk } => taker.0.notes().touched(name(peer), at_micros, chunk),
        Told::Left { peer } => {
            if taker.0.notes().left(name(peer)) {
                taker.0.news.notify_one();
            }
        }
    })
}

async fn learn(
    shared: Arc<Shared>,
    store: Arc<Store>,
    before: Option<(Vec<u16>, Vec<ProfileEntry>)>,
    requests: WeakUnboundedSender<Request>,
) {
    let geometry = store.geometry();
    let before = before.map_or_else(Vec::new, |(groups, entries)| runs_of(geometry, &groups, &entries));
    loop {
        tokio::select! {
            () = shared.news.notified() => {}
            () = sleep(PERIOD) => {}
        }
        if shared.notes().is_over {
            return;
        }
        let Some(mut traces) = shared.notes().news(geometry) else { continue };
        let run_count = traces.len();
        traces.extend(before.iter().cloned());
        let store = store.clone();
        let built = tokio::task::spawn_blocking(move || build(&store, &traces)).await;
        match built {
            Ok(Ok((profile, merged))) if profile.len() <= PROFILE_BYTES_MAX => {
                let chunk_count = merged.entries.len();
                log::info(format_args!("a profile of {chunk_count} chunks was learned from {run_count} runs"));
                let Some(requests) = requests.upgrade() else { return };
                // An engine that has ended offers nothing.
                let _ = requests.send(Request::Offer(Bytes::from(profile)));
            }
            Ok(Ok(_)) => log::warn(format_args!("what was learned is too long for a profile; going on with the last")),
            // Nobody has touched anything but zeros.
            Ok(Err(BuildError::Merge(_))) => {}
            Ok(Err(error)) => log::warn(format_args!("no profile can be made of what was learned: {error}")),
            Err(error) => log::warn(format_args!("no profile was made of what was learned: {error}")),
        }
        sleep(PAUSE).await;
    }
}

impl Notes {
    fn touched(&mut self, link: u32, at_micros: i64, chunk: ChunkIndex) {
        self.make_room();
        if self.touch_count < TOUCHES_MAX {
            self.under_way.entry(link).or_default().push((at_micros, chunk));
            self.touch_count += 1;
            self.is_new = true;
        }
    }

    /// A link is gone; says whether its node has told something.
    fn left(&mut self, link: u32) -> bool {
        let Some(run) = self.under_way.remove(&link) else { return false };
        self.ended.push_back(run);
        self.make_room();
        true
    }

    fn make_room(&mut self) {
        while self.ended.len() > RUNS_MAX || self.touch_count >= TOUCHES_MAX {
            let Some(oldest) = self.ended.pop_front() else { return };
            self.touch_count -= oldest.len();
        }
    }

    /// All runs worth learning from, as traces, if there is something new.
    fn news(&mut self, geometry: Geometry) -> Option<Vec<(String, Trace)>> {
        if !std::mem::take(&mut self.is_new) {
            return None;
        }
        let runs = || self.ended.iter().chain(self.under_way.values());
        let mut lengths: Vec<usize> = runs().map(Vec::len).collect();
        lengths.sort_unstable();
        let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
        let learned =
            runs().filter(|run| run.len() * SHORT >= median).map(|run| ("a node".to_owned(), trace(geometry, run)));
        Some(learned.collect())
    }
}

fn read(geometry: Geometry, micros: u64, chunk: ChunkIndex) -> Read {
    Read { micros, op: Op::Read, offset: u64::from(chunk.get()) << geometry.chunk_shift(), bytes: 1 }
}

/// The trace of a guest that reads a byte of each chunk.
fn trace(geometry: Geometry, run: &Run) -> Trace {
    let start = run.iter().map(|(at, _)| *at).min().unwrap_or(0);
    let since = |at: i64| u64::try_from(at.saturating_sub(start)).unwrap_or(0);
    let mut requests: Vec<Read> = run.iter().map(|(at, chunk)| read(geometry, since(*at), *chunk)).collect();
    requests.sort_by_key(|request| request.micros);
    Trace { requests }
}

/// Runs that a profile may have been made from: in each of a group's as many of the chunks as touched them.
fn runs_of(geometry: Geometry, groups: &[u16], entries: &[ProfileEntry]) -> Vec<(String, Trace)> {
    let mut runs = Vec::new();
    for (group, run_count) in groups.iter().enumerate() {
        let count = u64::from(*run_count).clamp(1, RUNS_BEFORE_MAX);
        for number in 0..count {
            let touches = entries.iter().filter(|entry| number * 255 < u64::from(entry.probabilities[group]) * count);
            let requests = touches.map(|entry| read(geometry, u64::from(entry.at_millis) * 1000, entry.chunk));
            runs.push(("the profile".to_owned(), Trace { requests: requests.collect() }));
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(64 << 16, 16).unwrap()
    }

    fn chunk(number: u32) -> ChunkIndex {
        geometry().chunk(number).unwrap()
    }

    #[test]
    fn each_link_is_a_run_in_its_own_time() {
        let mut notes = Notes::default();
        assert!(notes.news(geometry()).is_none());
        // It began before this node's clock did.
        for (link, at_micros, number) in [(1, -5_000, 3), (2, 70, 9), (1, 1_000, 4)] {
            notes.touched(link, at_micros, chunk(number));
        }
        assert!(notes.left(1) && !notes.left(3));
        let mut texts: Vec<Vec<String>> = vec![];
        for (_, trace) in notes.news(geometry()).unwrap() {
            texts.push(trace.requests.iter().map(Read::to_string).collect());
        }
        assert_eq!(texts, [vec!["0 R 196608 1", "6000 R 262144 1"], vec!["0 R 589824 1"]]);
        assert!(notes.news(geometry()).is_none(), "nothing is new");
    }

    #[test]
    fn runs_that_have_hardly_begun_are_left_out() {
        let mut notes = Notes::default();
        for number in 0..3 {
            (0..40).for_each(|index| notes.touched(number, 0, chunk(index)));
        }
        (0..9).for_each(|index| notes.touched(9, 0, chunk(index)));
        assert_eq!(notes.news(geometry()).unwrap().len(), 3);
    }

    #[test]
    fn notes_are_bounded() {
        let mut notes = Notes::default();
        for link in 0..3 * RUNS_MAX as u32 {
            notes.touched(link, 0, chunk(1));
            notes.left(link);
        }
        assert_eq!((notes.ended.len(), notes.touch_count), (RUNS_MAX, RUNS_MAX));
        (0..TOUCHES_MAX).for_each(|_| notes.touched(1, 0, chunk(1)));
        assert_eq!((notes.ended.len(), notes.touch_count), (0, TOUCHES_MAX));
        notes.touched(2, 0, chunk(1));
        assert_eq!(notes.touch_count, TOUCHES_MAX);
    }

    #[test]
    fn a_profile_counts_as_the_runs_that_it_was_made_from() {
        let entry = |number, probability| ProfileEntry::single(chunk(number), 7, probability);
        let runs = runs_of(geometry(), &[4], &[entry(1, 255), entry(2, 127), entry(3, 63)]);
        let lengths: Vec<usize> = runs.iter().map(|(_, trace)| trace.requests.len()).collect();
        assert_eq!(lengths, [3, 2, 1, 1]);
        assert_eq!(runs_of(geometry(), &[2, 3], &[entry(1, 255)]).len(), 5, "groups stay apart");
        assert_eq!(runs_of(geometry(), &[u16::MAX], &[]).len() as u64, RUNS_BEFORE_MAX);
    }
}
