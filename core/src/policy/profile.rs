//! Prediction from a profile: chunks in the order in which recorded runs first touched them, as far as this run is like those.
//!
//! *Purpose*: the guest will want what others wanted, in about their order (VMTorrent, CoNEXT 2012); which of several
//! workloads it runs, how fast, and whether the profile is of use at all, its touches tell.
//! *Invariants*: guesses come in the profile's order; nothing outside the profile is guessed, nothing that has been touched
//! or that the guest has passed by. When [`Fit`] says that the guest does something else, nothing is guessed until it says
//! otherwise. *Units*: ranks are places in the profile, milliseconds its times. *Bounds*: O([`VISITS_MAX`]) a forecast,
//! O(entries) for the first touch of a chunk.

use super::evidence::Evidence;
use super::pace::Pace;
use super::{Access, ChunkView, FORECAST_MAX, Forecast, Guess, Predictor};
use crate::format::profile::{GROUPS_MAX, ProfileEntry};
use crate::geometry::ChunkIndex;
use crate::time::{Duration, Instant};

/// Entries that a forecast looks at, at most.
const VISITS_MAX: usize = 2048;
/// From this probability on a chunk is guessed.
const LIKELY: u8 = 128;
/// The same if it follows the last touch within [`SOON`] and a round trip: to miss it costs more then than to fetch it in vain.
const LIKELY_SOON: u8 = 64;
const SOON: Duration = Duration::from_millis(20);
/// What is due in this time is in the window.
const HORIZON: Duration = Duration::from_millis(2000);
/// The window is never shorter than what the links bring in within this time and a round trip, so that none is idle.
const BUSY: Duration = Duration::from_millis(2000);
/// Nor than this many guesses.
const WINDOW_MIN: usize = 256;
/// Touches of which the middle one is where the guest is: some come much earlier or later than in other runs.
const RECENT: usize = 8;
/// The guest has passed an entry when it is this many ranks and a sixth of the profile further.
const SLACK: usize = 64;

/// Prefetches along a profile, borrowed from the host, sorted by expected time.
#[derive(Debug, Clone)]
pub struct Profile<'a> {
    entries: &'a [ProfileEntry],
    /// So many entries from the first that is missing; 0: by time.
    window: usize,
    evidence: Evidence,
    fit: Fit,
    pace: Pace,
    /// Ranks of the last touches, the oldest at `recent_next`.
    recent: heapless::Vec<u32, RECENT>,
    recent_next: usize,
    /// The rank at which the guest is.
    position: usize,
    /// Entries before this rank have been judged: touched, or passed by.
    judged: usize,
    /// No entry before this one is missing that is believed in.
    first: usize,
    /// The beliefs for which `first` is right.
    first_beliefs: u32,
}

impl<'a> Profile<'a> {
    /// Looks `window` entries ahead of the first that is missing (VMTorrent's D, 300 there); 0: as far as is due soon.
    pub fn new(entries: &'a [ProfileEntry], window: usize) -> Self {
        let used =
            |entry: &ProfileEntry| GROUPS_MAX - entry.probabilities.iter().rev().take_while(|p| **p == 0).count();
        Self {
            entries,
            window,
            evidence: Evidence::new(entries.iter().map(used).max().unwrap_or(0).max(1)),
            fit: Fit::default(),
            pace: Pace::default(),
            recent: heapless::Vec::new(),
            recent_next: 0,
            position: 0,
            judged: 0,
            first: 0,
            first_beliefs: 0,
        }
    }

    /// Whether this run does what the profile says.
    pub const fn fits(&self) -> bool {
        self.fit.fits
    }

    /// How likely each group touches a chunk, and the likeliest of its entries; none if it has none.
    fn find(&self, chunk: ChunkIndex) -> Option<([u8; GROUPS_MAX], usize)> {
        let mut found: Option<([u8; GROUPS_MAX], usize, u8)> = None;
        for (rank, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.chunk == chunk) {
            let probability = self.evidence.probability(&entry.probabilities);
            let of_all = found.get_or_insert((entry.probabilities, rank, probability));
            of_all.0.iter_mut().zip(entry.probabilities).for_each(|(sum, other)| *sum = (*sum).max(other));
            if probability > of_all.2 {
                (of_all.1, of_all.2) = (rank, probability);
            }
        }
        found.map(|(probabilities, rank, _)| (probabilities, rank))
    }

    /// The guest is at the middle one of the ranks that it touched last.
    fn note_rank(&mut self, rank: usize) {
        match self.recent.get_mut(self.recent_next) {
            Some(oldest) => *oldest = rank as u32,
            None => drop(self.recent.push(rank as u32)),
        }
        self.recent_next = (self.recent_next + 1) % RECENT;
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        self.position = sorted[sorted.len() / 2] as usize;
    }

    /// Entries before this rank are passed.
    fn passed(&self) -> usize {
        self.position.saturating_sub(SLACK + self.entries.len() / 6)
    }

    /// What the guest has passed without touching it speaks against the groups that touch it, and against the profile.
    fn judge_passed(&mut self, view: &ChunkView<'_>) {
        while self.judged < self.passed() {
            let entry = &self.entries[self.judged];
            let touched = view.is_touched(entry.chunk);
            if self.evidence.probability(&entry.probabilities) >= LIKELY {
                self.fit.note_passed(touched);
            }
            if !touched {
                self.evidence.untouched(&entry.probabilities);
            }
            self.judged += 1;
        }
    }

    /// Moves `first` on.
    fn skip(&mut self, view: &ChunkView<'_>) {
        if self.first_beliefs != self.beliefs() {
            (self.first, self.first_beliefs) = (0, self.beliefs());
        }
        while let Some(entry) = self.entries.get(self.first) {
            let believed = self.evidence.probability(&entry.probabilities) >= LIKELY_SOON;
            if believed && self.first >= self.passed() && !view.holds(entry.chunk) && !view.is_touched(entry.chunk) {
                return;
            }
            self.first += 1;
        }
    }

    /// Whether the profile fits and has the chunk, at O(entries).
    pub fn lists(&self, chunk: ChunkIndex) -> bool {
        self.fits() && self.entries.iter().any(|entry| entry.chunk == chunk)
    }
}

impl Predictor for Profile<'_> {
    fn observe(&mut self, now: Instant, access: Access) {
        self.pace.note_access(access.hit);
        if !access.first {
            return;
        }
        let found = self.find(access.chunk);
        let believed = found.is_some_and(|(of_groups, _)| self.evidence.probability(&of_groups) >= LIKELY_SOON / 2);
        self.fit.note_touch(believed);
        let Some((of_groups, rank)) = found else { return };
        self.evidence.touched(&of_groups);
        if believed {
            self.note_rank(rank);
            self.pace.note_position(now, self.entries[self.position].at_millis);
        }
    }

    fn forecast(&mut self, now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        self.judge_passed(view);
        if !self.fits() {
            return;
        }
        self.skip(view);
        let shortest = view.throughput().chunks_within(BUSY).clamp(WINDOW_MIN, FORECAST_MAX);
        let visits = if self.window == 0 { VISITS_MAX } else { self.window.min(VISITS_MAX) };
        let mut likely_count = 0;
        let soon = SOON + view.throughput().rtt;
        let mut listed = Listed::default();
        for entry in self.entries.iter().skip(self.first).take(visits) {
            let ahead = self.pace.ahead(entry.at_millis);
            let due = self.pace.due(now, ahead);
            if self.window == 0 && due > HORIZON && out.len() >= shortest {
                return;
            }
            let probability = self.evidence.probability(&entry.probabilities);
            let likely = probability >= if ahead <= soon { LIKELY_SOON } else { LIKELY };
            likely_count += usize::from(likely);
            if likely_count > FORECAST_MAX {
                return;
            }
            if !likely || !view.misses(entry.chunk) || view.is_touched(entry.chunk) {
                continue;
            }
            if listed.may_have(entry.chunk) && out.iter().any(|guess| guess.chunk == entry.chunk) {
                continue;
            }
            if out.push(Guess { chunk: entry.chunk, probability, due }).is_err() {
                return;
            }
        }
    }

    fn settle(&mut self, chunk: ChunkIndex, used: bool) {
        // A chunk that was lost unused may be wanted again: the cursor must not have passed it.
        if !used && let Some(at) = self.entries.iter().position(|entry| entry.chunk == chunk) {
            self.first = self.first.min(at);
        }
    }

    fn believes(&self, chunk: ChunkIndex) -> bool {
        let likely = |of_groups: [u8; GROUPS_MAX]| self.evidence.probability(&of_groups) >= LIKELY_SOON;
        self.find(chunk).is_none_or(|(of_groups, _)| self.fits() && likely(of_groups))
    }

    fn beliefs(&self) -> u32 {
        self.evidence.changes().wrapping_add(self.fit.changes)
    }
}

/// Whether the guest does what the profile says: how many of its first touches were in the profile, and how much of what it
/// has passed it has touched. Each pair is halved when it is large, so that what is recent counts.
#[derive(Debug, Clone)]
struct Fit {
    inside: u16,
    outside: u16,
    kept: u16,
    vain: u16,
    fits: bool,
    changes: u32,
}

/// So many touches outside the profile, and so many passed in vain, are allowed beyond two for each that was right. Of 30 nodes with
/// the profile of another image each waits the longer the later that is noticed: with 16 they boot up to a third slower.
const OUTSIDE_FREE: u16 = 4;
const VAIN_FREE: u16 = 64;
/// A pair whose sum is this is halved.
const PAIR_MAX: u16 = 256;

impl Default for Fit {
    fn default() -> Self {
        Self { inside: 0, outside: 0, kept: 0, vain: 0, fits: true, changes: 0 }
    }
}

impl Fit {
    fn note_touch(&mut self, inside: bool) {
        count(&mut self.inside, &mut self.outside, inside);
        self.conclude();
    }

    fn note_passed(&mut self, touched: bool) {
        count(&mut self.kept, &mut self.vain, touched);
        self.conclude();
    }

    fn conclude(&mut self) {
        let fits = self.outside <= self.inside * 2 + OUTSIDE_FREE && self.vain <= self.kept * 2 + VAIN_FREE;
        self.changes += u32::from(fits != self.fits);
        self.fits = fits;
    }
}

fn count(right: &mut u16, wrong: &mut u16, is_right: bool) {
    *right += u16::from(is_right);
    *wrong += u16::from(!is_right);
    if *right + *wrong >= PAIR_MAX {
        *right /= 2;
        *wrong /= 2;
    }
}

/// Which chunks may have been listed, so that the list need not be searched for most.
struct Listed {
    words: [u64; Self::WORDS],
}

impl Listed {
    const WORDS: usize = 64;

    /// Notes the chunk; false: it was not noted before.
    fn may_have(&mut self, chunk: ChunkIndex) -> bool {
        let bit = chunk.get().wrapping_mul(0x9e37_79b1) >> 20;
        let (word, bit) = ((bit / 64) as usize % Self::WORDS, 1u64 << (bit % 64));
        let had = self.words[word] & bit != 0;
        self.words[word] |= bit;
        had
    }
}

impl Default for Listed {
    fn default() -> Self {
        Self { words: [0; Self::WORDS] }
    }
}
