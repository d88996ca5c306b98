//! Prediction from what other nodes' guests touch just now.
//!
//! *Purpose*: a swarm without a profile still prefetches: who is behind fetches what those ahead of it needed.
//! *How*: what the neighbours tell is merged into one sequence: a chunk is put behind the one that the same guest touched
//! before, and stays there. So nothing depends on how fast each guest runs; times only say how far apart two places are.
//! This node's own guests are followed in it: their place is the earliest of the last few chunks that they touched. What
//! comes behind that place is guessed, the soonest first; what lies before it nobody is likely to want any more.
//! *Invariants*: what the guests have touched is not guessed; a neighbour's word counts as far as it came true: all of them
//! together get [`CREDIT_ALL`] guesses at first, each [`CREDIT`], and [`GAIN`] more for each chunk that was wanted indeed,
//! [`GAIN`] less for each that was fetched in vain. So lies cost at most [`CREDIT_ALL`] chunks that nobody wants, and as
//! many as a fifth of what is useful. *Units*: milliseconds in the sequence's own time.
//! *Bounds*: the caller's storage; filled to seven eighths, what does not fit is dropped. A neighbour adds at most half
//! as many as there are rows, and as many more as it was right about. Of more than [`TELLERS_MAX`] peers some are not
//! listened to. A forecast is O(window), all else O(1) but for the neighbours that told the same.

use super::{Access, ChunkView, Forecast, Guess, Predictor};
use crate::geometry::ChunkIndex;
use crate::ids::PeerId;
use crate::rng::mix;
use crate::time::{Duration, Instant};

/// A guest is taken to touch a chunk so often: what is further ahead is due later.
const PACE: Duration = Duration::from_millis(4);

/// Neighbours that are listened to at a time.
pub const TELLERS_MAX: usize = 32;
/// Guesses in flight or not used yet that a neighbour of which nothing is known is believed.
const CREDIT: i64 = 32;
/// The same for all neighbours together.
const CREDIT_ALL: i64 = 64;
/// What one guess that turned out right, or wrong, changes in these.
const GAIN: i64 = 4;
/// The guests' place is the earliest of so many touches.
const RECENT: usize = 8;
/// A chunk that fewer than one in so many touched of those that got so far is not guessed.
const RARE: u32 = 8;
/// Steps that a forecast takes for each guess it may make.
const STEPS: usize = 4;
/// A neighbour that was right so often is believed when it did not touch something.
const PROVEN: u32 = 16;
/// A guest that is so far beyond a chunk has passed by what it did not touch there.
const BEYOND_MILLIS: u32 = 200;

const NONE: u16 = u16::MAX;
const NO_CHUNK: u32 = u32::MAX;

/// Own guests have touched it.
const TOUCHED: u8 = 1;
/// It was guessed.
const LISTED: u8 = 2;
/// It was fetched in vain.
const WASTED: u8 = 4;
/// It lies before the guests' place.
const PASSED: u8 = 8;
/// Another predictor guesses it.
const FORESEEN: u8 = 16;

/// A chunk in the sequence; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Lesson {
    chunk: u32,
    /// Its place in the sequence's time; never less than that of the one before.
    at_millis: u32,
    /// Who touched it, a bit for each teller.
    tellers: u32,
    next: u16,
    flags: u8,
}

impl Lesson {
    /// An unused row.
    pub const EMPTY: Self = Self { chunk: NO_CHUNK, at_millis: 0, tellers: 0, next: NONE, flags: 0 };

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A seat at the table of those who tell. Its merits stay when another link takes it, so that who comes back under a new
/// name gains nothing.
#[derive(Debug, Copy, Clone)]
struct Teller {
    peer: Option<PeerId>,
    /// The chunk that it told last.
    cursor: u16,
    /// When that was touched, in microseconds of this node's clock; may lie before its origin.
    last_micros: i64,
    /// How far it has got for sure: one touch alone may be an exception.
    far_millis: u32,
    /// Chunks that it was the first to tell.
    added: u32,
    /// Chunks that own guests touched after it had told of them.
    used: u32,
    /// Chunks that it told of and that were fetched in vain.
    wasted: u32,
}

impl Teller {
    const EMPTY: Self = Self { peer: None, cursor: NONE, last_micros: 0, far_millis: 0, added: 0, used: 0, wasted: 0 };
}

/// Prefetches what others' guests, further on, have touched.
#[derive(Debug)]
pub struct Live<'a> {
    /// By chunk (open addressing); a row in use stays where it is.
    rows: &'a mut [Lesson],
    used_rows: usize,
    window: usize,
    tellers: [Teller; TELLERS_MAX],
    /// The sequence's first row, the last that was passed, the first that was not.
    head: u16,
    behind: u16,
    first: u16,
    /// The own guests' last touch and when, as of a teller.
    cursor: u16,
    last_micros: i64,
    /// Where the last few touches were, in a ring; and how many there were, each row's first.
    recent: [u32; RECENT],
    recent_count: usize,
    /// Chunks touched after they had been told, and fetched in vain.
    used: u32,
    wasted: u32,
}

impl<'a> Live<'a> {
    /// Looks at most `window` chunks ahead of its guests. `rows` are storage, at most 65,535; the contents do not matter.
    pub fn new(rows: &'a mut [Lesson], window: usize) -> Self {
        let count = rows.len().min(usize::from(NONE));
        let rows = &mut rows[..count];
        rows.fill(Lesson::EMPTY);
        Self {
            rows,
            used_rows: 0,
            window,
            tellers: [Teller::EMPTY; TELLERS_MAX],
            head: NONE,
            behind: NONE,
            first: NONE,
            cursor: NONE,
            last_micros: 0,
            recent: [0; RECENT],
            recent_count: 0,
            used: 0,
            wasted: 0,
        }
    }

    /// Whether somebody has told of the chunk.
    pub fn knows(&self, chunk: ChunkIndex) -> bool {
        self.find(chunk.get()).is_ok_and(|slot| self.rows[slot].tellers != 0)
    }

    /// Leaves guessing the chunk to another predictor.
    pub fn leave(&mut self, chunk: ChunkIndex) {
        if let Ok(slot) = self.find(chunk.get()) {
            self.rows[slot].flags |= FORESEEN;
        }
    }

    /// Whether somebody who is to be believed has touched the chunk and then gone on: what it did not touch behind it, it
    /// does not want.
    pub fn went_on(&self, chunk: ChunkIndex) -> bool {
        let Ok(slot) = self.find(chunk.get()) else { return false };
        let row = &self.rows[slot];
        let beyond = row.at_millis.saturating_add(BEYOND_MILLIS);
        seats(row.tellers)
            .map(|seat| &self.tellers[seat])
            .any(|teller| teller.far_millis > beyond && teller.used >= PROVEN && teller.used > teller.wasted)
    }

    /// The row of a chunk, or where it would be put.
    fn find(&self, chunk: u32) -> Result<usize, Option<usize>> {
        let count = self.rows.len();
        if count == 0 {
            return Err(None);
        }
        let mut slot = (mix(chunk.into()) % count as u64) as usize;
        loop {
            match self.rows[slot].chunk {
                found if found == chunk => return Ok(slot),
                NO_CHUNK => break,
                _ => slot = (slot + 1) % count,
            }
        }
        // Some rows stay free, so that each search ends soon.
        Err((self.used_rows < count / 8 * 7).then_some(slot))
    }

    /// The seat of a link; none if another one has it.
    fn seat(&mut self, peer: PeerId) -> Option<usize> {
        let seat = peer.index() % TELLERS_MAX;
        let teller = &mut self.tellers[seat];
        match teller.peer {
            Some(known) if known == peer => {}
            // Of two links of one row the first is gone.
            Some(other) if other.index() != peer.index() => return None,
            _ => *teller = Teller { peer: Some(peer), cursor: NONE, far_millis: 0, ..*teller },
        }
        Some(seat)
    }

    /// Puts a chunk behind row `after`, `gap` milliseconds later if what comes next allows; behind none: at the beginning.
    fn insert(&mut self, slot: usize, chunk: u32, after: u16, gap: u32) {
        let at = |link: u16| self.rows.get(usize::from(link)).map(|row| (row.at_millis, row.next));
        let (earliest, next) = at(after).unwrap_or((0, self.head));
        let wished = if after == NONE { 0 } else { earliest.saturating_add(gap) };
        let at_millis = at(next).map_or(wished, |(latest, _)| wished.min(latest));
        let is_behind = after != NONE && self.rows[usize::from(after)].is(PASSED);
        let mut row = Lesson { chunk, at_millis, next, ..Lesson::EMPTY };
        let mut after = after;
        if (is_behind || after == NONE) && self.behind != NONE {
            if at_millis < self.place() {
                row.flags = PASSED;
            } else {
                // What was passed stays together: this comes right behind it.
                after = self.behind;
                row.next = self.first;
                row.at_millis = at(self.first).map_or(at_millis, |(latest, _)| at_millis.min(latest));
                row.at_millis = at(self.behind).map_or(0, |(earliest, _)| earliest).max(row.at_millis);
            }
        }
        let link = slot as u16;
        if after == NONE {
            self.head = link;
        } else {
            self.rows[usize::from(after)].next = link;
        }
        if row.flags & PASSED != 0 {
            self.behind = if self.behind == after { link } else { self.behind };
        } else if after == self.behind {
            self.first = link;
        }
        self.rows[slot] = row;
        self.used_rows += 1;
    }

    /// Where the own guests are.
    fn place(&self) -> u32 {
        self.recent[..self.recent_count.min(RECENT)].iter().copied().min().unwrap_or(0)
    }

    /// Those who told of a row were right (or wrong) about it.
    fn judge(&mut self, slot: usize, right: bool) {
        for seat in seats(self.rows[slot].tellers) {
            let teller = &mut self.tellers[seat];
            teller.used += u32::from(right);
            teller.wasted += u32::from(!right);
        }
        self.used += u32::from(right);
        self.wasted += u32::from(!right);
    }

    fn waste(&mut self, slot: usize) {
        let row = &mut self.rows[slot];
        if row.is(LISTED) && !row.is(TOUCHED | WASTED) {
            row.flags |= WASTED;
            self.judge(slot, false);
        }
    }

    /// Leaves behind what the guests have touched or passed by, or another predictor guesses.
    fn advance(&mut self, view: &ChunkView<'_>) {
        let place = self.place();
        while let Some(row) = self.rows.get_mut(usize::from(self.first)) {
            if !row.is(TOUCHED | FORESEEN) && row.at_millis >= place {
                return;
            }
            row.flags |= PASSED;
            let (slot, next, chunk) = (usize::from(self.first), row.next, row.chunk);
            if view.geometry().chunk(chunk).is_some_and(|chunk| view.holds(chunk)) {
                self.waste(slot);
            }
            self.behind = self.first;
            self.first = next;
        }
    }

    /// How far tellers got, the least first.
    fn fars(&self) -> heapless::Vec<u32, TELLERS_MAX> {
        let told = self.tellers.iter().filter(|teller| teller.cursor != NONE);
        let mut fars: heapless::Vec<u32, TELLERS_MAX> = told.map(|teller| teller.far_millis).collect();
        fars.sort_unstable();
        fars
    }

    fn credit(used: u32, wasted: u32, least: i64) -> i64 {
        least + GAIN * (i64::from(used) - i64::from(wasted))
    }
}

impl Predictor for Live<'_> {
    fn observe(&mut self, now: Instant, access: Access) {
        let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let slot = match self.find(access.chunk.get()) {
            Ok(slot) => slot,
            Err(None) => return,
            Err(Some(slot)) => {
                let gap = gap_millis(self.last_micros, micros);
                self.insert(slot, access.chunk.get(), self.cursor, gap);
                slot
            }
        };
        (self.cursor, self.last_micros) = (slot as u16, micros);
        let row = &mut self.rows[slot];
        if row.is(TOUCHED) {
            return;
        }
        row.flags |= TOUCHED;
        self.recent[self.recent_count % RECENT] = row.at_millis;
        self.recent_count += 1;
        let (tellers, was_wasted) = (row.tellers, row.is(WASTED));
        if tellers == 0 {
            return;
        }
        self.judge(slot, true);
        if was_wasted {
            self.wasted -= 1;
            seats(tellers).for_each(|seat| self.tellers[seat].wasted = self.tellers[seat].wasted.saturating_sub(1));
        }
    }

    fn forecast(&mut self, _now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        self.advance(view);
        let mut credits = self.tellers.map(|teller| Self::credit(teller.used, teller.wasted, CREDIT));
        let mut credit_all = Self::credit(self.used, self.wasted, CREDIT_ALL);
        let success = (u64::from(self.used) + 8, u64::from(self.used) + u64::from(self.wasted) + 8);
        let fars = self.fars();
        let (mut passed, mut ahead, mut link) = (0, 0, self.first);
        for _ in 0..self.window.saturating_mul(STEPS) {
            let Some(row) = self.rows.get_mut(usize::from(link)) else { return };
            link = row.next;
            let Some(chunk) = view.geometry().chunk(row.chunk) else { continue };
            let is_missing = view.misses(chunk);
            if row.is(TOUCHED | FORESEEN) || !(is_missing || row.is(LISTED)) {
                continue;
            }
            while fars.get(passed).is_some_and(|far| *far < row.at_millis) {
                passed += 1;
            }
            let told = row.tellers.count_ones();
            let got_far = ((fars.len() - passed) as u32).max(told);
            // The one that is believed most answers for it.
            let Some(seat) = seats(row.tellers).max_by_key(|seat| credits[*seat]) else { continue };
            if is_missing && (told * RARE < got_far || credits[seat] <= 0 || credit_all <= 0) {
                continue;
            }
            credits[seat] -= 1;
            credit_all -= 1;
            ahead += 1;
            if ahead > self.window {
                return;
            }
            if is_missing {
                let probability = (255 * u64::from(told) * success.0 / (u64::from(got_far) * success.1)) as u8;
                if out.push(Guess { chunk, probability: probability.max(1), due: PACE.times(ahead as u64) }).is_err() {
                    return;
                }
                row.flags |= LISTED;
            }
        }
    }

    fn settle(&mut self, chunk: ChunkIndex, used: bool) {
        // What was used has been observed.
        if !used && let Ok(slot) = self.find(chunk.get()) {
            self.waste(slot);
        }
    }

    fn learn(&mut self, now: Instant, peer: PeerId, chunk: ChunkIndex, ago: Duration) -> bool {
        let Some(seat) = self.seat(peer) else { return false };
        let micros = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
        let at_micros = micros(now.as_micros()).saturating_sub(micros(ago.as_micros()));
        let teller = self.tellers[seat];
        let slot = match self.find(chunk.get()) {
            Ok(slot) => slot,
            Err(Some(slot)) if teller.added < (self.rows.len() / 2) as u32 + teller.used => {
                let gap = if teller.cursor == NONE { 0 } else { gap_millis(teller.last_micros, at_micros) };
                self.insert(slot, chunk.get(), teller.cursor, gap);
                self.tellers[seat].added += 1;
                slot
            }
            Err(_) => return false,
        };
        let row = &mut self.rows[slot];
        row.tellers |= 1 << seat;
        let (at_millis, is_ahead) = (row.at_millis, !row.is(TOUCHED | PASSED));
        let before = self.rows.get(usize::from(teller.cursor)).map_or(0, |row| row.at_millis);
        let teller = &mut self.tellers[seat];
        teller.far_millis = teller.far_millis.max(before.min(at_millis));
        (teller.cursor, teller.last_micros) = (slot as u16, at_micros);
        is_ahead
    }

    fn forget(&mut self, peer: PeerId) {
        let teller = &mut self.tellers[peer.index() % TELLERS_MAX];
        if teller.peer == Some(peer) {
            *teller = Teller { peer: None, ..*teller };
        }
    }
}

/// The seats whose bits are set.
fn seats(mut bits: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let seat = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (seat < TELLERS_MAX).then_some(seat)
    })
}

fn gap_millis(from_micros: i64, to_micros: i64) -> u32 {
    u32::try_from(to_micros.saturating_sub(from_micros).max(0) / 1000).unwrap_or(u32::MAX)
}
