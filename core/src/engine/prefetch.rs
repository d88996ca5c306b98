//! What is fetched before a guest wants it: a window of guesses, kept between looks, from which an order picks.
//!
//! *Invariants*: no guess is started that is held or under way. *Units*: microseconds.
//! *Bounds*: a look costs O(guesses); a forecast, which costs more, is made once in [`CHANGED_KEPT`] however often there is
//! something new, or at once after what may have made guesses wrong or left none.

use super::Engine;
use super::fetch::Whom;
use super::stock::Stock;
use crate::geometry::ChunkIndex;
use crate::locality::Nearness;
use crate::policy::{FORECAST_MAX, Forecast, Guess, Order, Predictor, Selector, Supply, Throughput};
use crate::time::{Duration, Instant};
use crate::wire::Class;

/// Guesses that are tried for one free place among the prefetches.
const TRIES_MAX: usize = 8;
/// How long a forecast is kept after the predictor has heard more.
const CHANGED_KEPT: Duration = Duration::from_millis(2);
/// A near node that has not given what is wanted next for so long is not waited for.
const NEAR_PATIENCE: Duration = Duration::from_millis(300);
/// How long it is kept if nothing happens: what is due soon changes with time.
const KEPT: Duration = Duration::from_millis(100);

/// The last forecast, less what has been started since.
#[derive(Debug)]
pub(super) struct Window {
    guesses: Forecast,
    made_at: Instant,
    /// It may miss guesses.
    changed: bool,
    /// It may have guesses that the predictor would not make now.
    stale: bool,
    /// Some of its guesses may be there, or under way.
    dirty: bool,
    /// There may have been more guesses than it has room for.
    was_full: bool,
    /// Nothing was picked when the supply was so.
    idle_at: Option<SupplySigns>,
    /// What is wanted next, and since when it is; kept where some nodes are nearer than others.
    head: Option<(ChunkIndex, Instant)>,
}

/// What an order's answer depends on beside the window and time.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct SupplySigns {
    version: u32,
    has_room: bool,
    seed_has_room: bool,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            guesses: Forecast::new(),
            made_at: Instant::ZERO,
            changed: false,
            stale: true,
            dirty: false,
            was_full: false,
            idle_at: None,
            head: None,
        }
    }

    /// When those near have had their time to give what is wanted next.
    fn overdue_at(&self) -> Instant {
        self.head.map_or(Instant::NEVER, |(_, since)| since + NEAR_PATIENCE)
    }

    /// The predictor has heard something, or what was under way is not: there may be more to guess.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }

    /// The predictor has heard something that it did not foresee, or believes something else.
    pub(super) fn note_surprise(&mut self) {
        self.stale = true;
    }

    /// Something has been fetched, or is, that was not picked from it.
    pub(super) fn note_started(&mut self) {
        self.dirty = true;
    }

    /// When a new forecast is to be made, unless it is asked for later.
    fn due(&self) -> Instant {
        let is_short = self.was_full && self.guesses.len() < FORECAST_MAX / 4 * 3;
        if self.stale || (self.changed && self.guesses.is_empty()) {
            Instant::ZERO
        } else if self.changed || is_short {
            self.made_at + CHANGED_KEPT
        } else {
            Instant::NEVER
        }
    }
}

impl<'a, P: Predictor, O: Order, S: Selector> Engine<'a, P, O, S> {
    pub(super) fn start_prefetches(&mut self, now: Instant) {
        while self.may_prefetch(now) {
            self.renew_window(now);
            if !self.start_overdue(now) && !self.start_guess(now) {
                return;
            }
            self.start_leaves(now);
        }
    }

    fn may_prefetch(&self, now: Instant) -> bool {
        let is_open = now >= self.store_full_until && self.prefetches_have_room() && self.bulk_has_room();
        is_open && self.may_guess() && self.has_place(Class::Prefetch)
    }

    /// When a look finds more than the last one did, even if nothing happens until then.
    pub(super) fn window_due(&self, now: Instant) -> Instant {
        let overdue_at = Some(self.window.overdue_at()).filter(|at| *at > now).unwrap_or(Instant::NEVER);
        if self.may_prefetch(now) { self.window.due().min(overdue_at) } else { Instant::NEVER }
    }

    /// What nodes have, for the order of prefetching.
    pub(super) fn stock(&self) -> Stock<'a, '_> {
        let has_room = self.transfers.count(Class::Prefetch) < usize::from(self.config.tuning.prefetches);
        Stock::new(&self.peers, self.config.node, has_room, self.spares_seeds())
    }

    /// Seeds are asked for no guesses before the first that a guest waits for is there: where many start at once, all ask for
    /// that, and the answers to guesses would be most of what the seed sends.
    fn spares_seeds(&self) -> bool {
        !self.has_answered && !self.demands.is_empty()
    }

    /// Whether one more prefetch may be started; what is asked of seeds has places of its own.
    fn prefetches_have_room(&self) -> bool {
        let stock = self.stock();
        stock.has_room || stock.seed_has_room()
    }

    /// Makes a new forecast if it is time to, or removes what is no longer missing.
    fn renew_window(&mut self, now: Instant) {
        let view = self.own.view(self.geometry);
        let window = &mut self.window;
        if now >= window.due() || now - window.made_at >= KEPT {
            let throughput = Throughput {
                bytes_per_sec: self.down.bytes_per_sec(),
                mean_bytes: self.mean_bytes,
                ..Throughput::UNKNOWN
            };
            window.guesses.clear();
            self.predictor.forecast(now, &view.with(throughput), &mut window.guesses);
            window.made_at = now;
            window.was_full = window.guesses.is_full();
            (window.changed, window.stale, window.dirty, window.idle_at) = (false, false, false, None);
        } else if core::mem::take(&mut window.dirty) {
            window.guesses.retain(|guess| view.misses(guess.chunk));
            window.idle_at = None;
        }
    }

    /// Asks anybody for what is wanted next if it has been that for long: those near say that they hold it, and do not give it.
    fn start_overdue(&mut self, now: Instant) -> bool {
        let Some(first) = self.window.guesses.first().copied().filter(|_| self.peers.any_nearer(Nearness::Far)) else {
            return false;
        };
        if self.window.head.is_none_or(|(chunk, _)| chunk != first.chunk) {
            self.window.head = Some((first.chunk, now));
        }
        if now < self.window.overdue_at() || !self.stock().has_room || !self.start_guessed(now, first, Whom::Anybody) {
            return false;
        }
        self.window.guesses.remove(0);
        self.window.idle_at = None;
        true
    }

    /// Starts one of the window's guesses, and removes it from there; the others stay.
    fn start_guess(&mut self, now: Instant) -> bool {
        let mut in_vain: heapless::Vec<(usize, Guess), TRIES_MAX> = heapless::Vec::new();
        let mut started = None;
        while !in_vain.is_full() && started.is_none() {
            let Stock { has_room, spares_seeds, .. } = self.stock();
            let stock = Stock::new(&self.peers, self.config.node, has_room, spares_seeds);
            let signs = SupplySigns { version: self.peers.supply(), has_room, seed_has_room: stock.seed_has_room() };
            if self.window.idle_at == Some(signs) && now < self.order.next_pick() {
                break;
            }
            let Some(index) = self.order.pick(now, &self.window.guesses, &stock, &mut self.rng) else {
                self.window.idle_at = in_vain.is_empty().then_some(signs);
                break;
            };
            self.window.idle_at = None;
            if index >= self.window.guesses.len() {
                break;
            }
            let guess = self.window.guesses.remove(index);
            if self.start_guessed(now, guess, Whom::Nearest) {
                started = Some(index);
            } else {
                let noted = in_vain.push((index, guess));
                debug_assert!(noted.is_ok(), "there is room");
            }
        }
        put_back(&mut self.window.guesses, &in_vain, started);
        started.is_some()
    }

    fn start_guessed(&mut self, now: Instant, guess: Guess, whom: Whom) -> bool {
        let piece = self.geometry.chunk_piece(guess.chunk);
        let due = self.window.made_at + guess.due;
        if !self.start(now, piece, Class::Prefetch, Instant::NEVER, whom) {
            return false;
        }
        if let Some(index) = self.transfers.last_of(piece) {
            self.transfers.change(index, |row| row.due = due);
        }
        true
    }

    /// Panics where the window or what is kept of its chunks is wrong.
    pub(super) fn check_window(&self) {
        let view = self.own.view(self.geometry);
        let is_current = !self.window.stale && !self.window.dirty;
        for guess in &self.window.guesses {
            assert!(!is_current || view.misses(guess.chunk), "what the window has is missing");
            self.peers.check_chunk(self.config.node, guess.chunk);
        }
    }
}

/// Inserts guesses where they were before they were removed, one after the other; then another may have been removed for
/// good, which was at `gone` without them.
fn put_back(window: &mut Forecast, removed: &[(usize, Guess)], gone: Option<usize>) {
    let mut gone = gone.unwrap_or(usize::MAX);
    for (index, guess) in removed.iter().rev() {
        let was_before = *index <= gone;
        gone = gone.saturating_add(usize::from(was_before));
        let inserted = window.insert(index - usize::from(!was_before), *guess);
        debug_assert!(inserted.is_ok(), "it has just been removed from there");
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use proptest::prelude::*;

    #[test]
    fn a_forecast_is_made_at_once_after_a_surprise_and_a_little_later_after_a_change() {
        let geometry = Geometry::new(512 << 16, 16).unwrap();
        let guess = |number| Guess { chunk: geometry.chunk(number).unwrap(), probability: 1, due: Duration::ZERO };
        let made_at = Instant::ZERO + Duration::from_millis(50);
        let current = |guesses: u32| Window {
            guesses: (0..guesses).map(guess).collect(),
            made_at,
            stale: false,
            ..Window::new()
        };
        assert_eq!(Window::new().due(), Instant::ZERO, "there is none yet");
        assert_eq!([current(9).due(), current(0).due()], [Instant::NEVER; 2], "nothing is new");
        let after = |mut window: Window, note: fn(&mut Window)| {
            note(&mut window);
            window.due()
        };
        assert_eq!(after(current(9), Window::note_change), made_at + CHANGED_KEPT);
        assert_eq!(after(current(0), Window::note_change), Instant::ZERO, "there is nothing left to pick from");
        assert_eq!(after(current(9), Window::note_surprise), Instant::ZERO);
        assert_eq!(after(current(9), Window::note_started), Instant::NEVER);
        let short = Window { was_full: true, ..current(383) };
        assert_eq!(short.due(), made_at + CHANGED_KEPT, "there was more than it has room for");
        assert_eq!(Window { was_full: true, ..current(384) }.due(), Instant::NEVER);
    }

    proptest! {
        /// Some guesses are tried in vain, one is started: what is left is the forecast without that one.
        #[test]
        fn guesses_that_were_tried_in_vain_are_put_back(
            length in 1u32..30,
            picks in prop::collection::vec(any::<u32>(), 1..9),
        ) {
            let geometry = Geometry::new(30 << 16, 16).unwrap();
            let guess = |number| Guess { chunk: geometry.chunk(number).unwrap(), probability: 1, due: Duration::ZERO };
            let mut window: Forecast = (0..length).map(guess).collect();
            let (last, tried) = picks.split_last().unwrap();
            let mut in_vain = std::vec![];
            for pick in tried.iter().take(length as usize - 1) {
                let index = *pick as usize % window.len();
                in_vain.push((index, window.remove(index)));
            }
            let gone = *last as usize % window.len();
            let started = window.remove(gone);
            put_back(&mut window, &in_vain, Some(gone));
            let expected: Forecast = (0..length).map(guess).filter(|guess| *guess != started).collect();
            prop_assert_eq!(window, expected);
        }
    }
}
