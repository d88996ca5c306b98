//! The table of fetches: each is a piece asked of a peer, and a slot for its body at the host.
//!
//! *Invariants*: a piece has at most two fetches (the second is a hedge); its bit in the flight map is set exactly while
//! it has one; the sets and the agenda say what the rows say, since rows change by [`Transfers::change`] alone.
//! *Bounds*: as many rows as `Limits::transfers`; every call is O(rows in use).

use super::agenda::Agenda;
use super::peers::split;
use crate::bitmap;

use crate::geometry::PieceIndex;
use crate::ids::{PeerId, SlotId};
use crate::time::{Duration, Instant};
use crate::wire::Class;

/// How far a fetch has come. The names say what happened last, or what is to be done next.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Free,
    /// The request is to be sent; or sent again, to raise its class.
    ToAsk,
    Asked,
    /// The request is to be taken back.
    ToCancel,
    /// The body is on its way into the host's buffer.
    Landing,
    /// The body is there; it is verified as soon as its leaf page is held.
    Landed,
    Verifying,
    /// Verified.
    Genuine,
    /// Verified, and given to the guests that waited.
    Delivered,
    Storing,
    /// The host is to forget the buffer.
    ToAbandon,
}

const STEPS: usize = 11;
const CLASSES: usize = 3;

/// At these the peer may still be asked, or has been asked and has not begun to answer.
pub(super) const WAITING: &[Step] = &[Step::ToAsk, Step::Asked];

/// At these the host has the body, or some of it.
pub(super) const WITH_HOST: &[Step] =
    &[Step::Landing, Step::Landed, Step::Verifying, Step::Genuine, Step::Delivered, Step::Storing, Step::ToAbandon];

/// A fetch; opaque to the caller.
#[derive(Debug, Copy, Clone)]
pub struct Transfer {
    pub(super) step: Step,
    generation: u16,
    piece: u32,
    pub(super) peer: PeerId,
    pub(super) class: Class,
    /// Whether no guest had asked for it when it was started.
    pub(super) guessed: bool,
    /// Whether the request has been sent at least once.
    pub(super) asked: bool,
    /// Whether the peer is not to redirect.
    pub(super) insist: bool,
    /// Whether another row asks a second peer for the same piece.
    pub(super) hedged: bool,
    /// Length of the body, once it begins to come.
    pub(super) bytes: u32,
    /// How many pieces had been asked of the peer before.
    pub(super) queued: u16,
    /// When it was started; once it has landed, when that was.
    pub(super) started: Instant,
    /// When a guest began to wait for it.
    pub(super) urgent_since: Instant,
    /// When a guest is expected to want it.
    pub(super) due: Instant,
}

impl Transfer {
    /// An unused row.
    pub const EMPTY: Self = Self {
        step: Step::Free,
        generation: 0,
        piece: 0,
        peer: PeerId::new(0, 0),
        class: Class::Fill,
        guessed: false,
        asked: false,
        insist: false,
        hedged: false,
        bytes: 0,
        queued: 0,
        started: Instant::ZERO,
        urgent_since: Instant::NEVER,
        due: Instant::ZERO,
    };

    pub(super) fn piece_number(&self) -> u32 {
        self.piece
    }

    /// Whether the peer may still be asked, or has been asked and has not begun to answer.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.step, Step::ToAsk | Step::Asked)
    }

    /// Whether the piece may still come of it.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.step, Step::Free | Step::ToCancel | Step::ToAbandon)
    }
}

/// All fetches.
#[derive(Debug)]
pub(super) struct Transfers<'a> {
    rows: &'a mut [Transfer],
    timeout: Duration,
    /// Rows by step, a bit each.
    steps: [&'a mut [u64]; STEPS],
    /// Rows by class, in use or not.
    classes: [&'a mut [u64]; CLASSES],
    /// Live rows.
    live: &'a mut [u64],
    /// Rows whose leaf page may be neither held nor on its way.
    leafless: &'a mut [u64],
    /// Rows by when they are given up.
    timeouts: Agenda<'a>,
}

impl<'a> Transfers<'a> {
    /// Words of storage that the table needs beside its rows.
    pub(super) const fn words(rows: usize) -> usize {
        (STEPS + CLASSES + 2) * rows.div_ceil(64) + Agenda::words(rows)
    }

    /// All rows are free; one is given up `timeout` after it was started. `words` as [`words`](Self::words) says.
    pub(super) fn new(rows: &'a mut [Transfer], timeout: Duration, words: &'a mut [u64]) -> Self {
        rows.fill(Transfer::EMPTY);
        let set_words = rows.len().div_ceil(64);
        let (sets, timeouts) = words.split_at_mut((STEPS + CLASSES + 2) * set_words);
        sets.fill(0);
        let (steps, sets) = sets.split_at_mut(STEPS * set_words);
        let (classes, sets) = sets.split_at_mut(CLASSES * set_words);
        let (live, leafless) = sets.split_at_mut(set_words);
        let (steps, classes) = (split::<STEPS>(steps), split::<CLASSES>(classes));
        bitmap::assign_run(steps[Step::Free as usize], 0, rows.len() as u32, true);
        bitmap::assign_run(classes[Class::Fill as usize], 0, rows.len() as u32, true);
        Self { rows, timeout, steps, classes, live, leafless, timeouts: Agenda::new(timeouts) }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn at(&self, index: usize) -> &Transfer {
        &self.rows[index]
    }

    /// Changes the row at `index`.
    pub(super) fn change(&mut self, index: usize, change: impl FnOnce(&mut Transfer)) {
        let row = &mut self.rows[index];
        let (step, class) = (row.step, row.class);
        change(row);
        if row.step != step {
            bitmap::assign(self.steps[step as usize], index as u32, false);
            bitmap::assign(self.steps[row.step as usize], index as u32, true);
            bitmap::assign(self.live, index as u32, row.is_live());
        }
        if row.class != class {
            bitmap::assign(self.classes[class as usize], index as u32, false);
            bitmap::assign(self.classes[row.class as usize], index as u32, true);
        }
        self.timeouts.set(index, self.gives_up_at(&self.rows[index]));
    }

    pub(super) fn set_step(&mut self, index: usize, step: Step) {
        self.change(index, |row| row.step = step);
    }

    /// When the fetch is given up. Never, once the host has to say what is next. A chunk that waits for its leaf page gives
    /// way too, or else, when the table is full of such, the page could not be fetched.
    fn gives_up_at(&self, row: &Transfer) -> Instant {
        let gives_up = row.is_waiting() || row.step == Step::Landed;
        if gives_up { row.started + self.timeout } else { Instant::NEVER }
    }

    /// The first row, at or after `from`, that is to be given up.
    pub(super) fn next_timeout(&self, from: usize, now: Instant) -> Option<usize> {
        self.timeouts.next_due(from, now)
    }

    /// When the first row is to be given up.
    pub(super) fn earliest_timeout(&self) -> Instant {
        self.timeouts.earliest()
    }

    pub(super) fn id(&self, index: usize) -> SlotId {
        SlotId::new(index as u16, self.rows[index].generation)
    }

    pub(super) fn find(&self, slot: SlotId, step: Step) -> Option<usize> {
        let row = self.rows.get(slot.index())?;
        (row.generation == slot.generation() && row.step == step).then_some(slot.index())
    }

    /// The first row, at or after `from`, at one of these steps.
    pub(super) fn next(&self, from: usize, steps: &[Step]) -> Option<usize> {
        self.next_in(from, |word| self.at_steps(steps, word))
    }

    /// The same among those of a class.
    pub(super) fn next_of(&self, from: usize, class: Class, steps: &[Step]) -> Option<usize> {
        self.next_in(from, |word| self.at_steps(steps, word) & self.classes[class as usize][word])
    }

    /// The first live row, at or after `from`.
    pub(super) fn next_live(&self, from: usize) -> Option<usize> {
        self.next_in(from, |word| self.live[word])
    }

    /// The first live row, at or after `from`, whose leaf page may be missing.
    pub(super) fn next_leafless(&self, from: usize) -> Option<usize> {
        self.next_in(from, |word| self.leafless[word] & self.live[word])
    }

    /// The row's leaf page is held or on its way; or it needs none.
    pub(super) fn has_leaf(&mut self, index: usize) {
        bitmap::assign(self.leafless, index as u32, false);
    }

    /// A leaf page is neither held nor on its way: any row's may be missing.
    pub(super) fn leaf_gone(&mut self) {
        self.leafless.fill(u64::MAX);
    }

    /// Rows of this word of the sets that are at one of these steps.
    fn at_steps(&self, steps: &[Step], word: usize) -> u64 {
        steps.iter().fold(0, |rows, step| rows | self.steps[*step as usize][word])
    }

    fn next_in(&self, from: usize, set: impl Fn(usize) -> u64) -> Option<usize> {
        let mut bits_mask = u64::MAX << (from % 64);
        for word in from / 64..self.leafless.len() {
            let bits = set(word) & bits_mask;
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            bits_mask = u64::MAX;
        }
        None
    }

    /// Live rows.
    pub(super) fn live(&self) -> impl Iterator<Item = (usize, &Transfer)> {
        self.iterate(|from| self.next_live(from))
    }

    /// Rows at one of these steps.
    pub(super) fn rows(&self, steps: &'static [Step]) -> impl Iterator<Item = (usize, &Transfer)> {
        self.iterate(|from| self.next(from, steps))
    }

    fn iterate(&self, next: impl Fn(usize) -> Option<usize>) -> impl Iterator<Item = (usize, &Transfer)> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let index = next(from)?;
            from = index + 1;
            Some((index, &self.rows[index]))
        })
    }

    pub(super) fn has_room(&self) -> bool {
        self.next(0, &[Step::Free]).is_some()
    }

    /// Rows in use.
    pub(super) fn in_use(&self) -> usize {
        let free = self.steps[Step::Free as usize].iter().map(|word| word.count_ones() as usize);
        self.rows.len() - free.sum::<usize>()
    }

    /// Rows in use whose piece may still come, of a class.
    pub(super) fn count(&self, class: Class) -> usize {
        let class = self.classes[class as usize].iter().enumerate();
        class.map(|(word, rows)| (self.live[word] & rows).count_ones() as usize).sum()
    }

    /// Takes a free row; the caller fills it in.
    pub(super) fn take(&mut self, piece: PieceIndex) -> Option<usize> {
        let index = self.next(0, &[Step::Free])?;
        self.change(index, |row| {
            let generation = row.generation.wrapping_add(1);
            *row = Transfer { generation, piece: piece.get(), step: Step::ToAsk, ..Transfer::EMPTY };
        });
        bitmap::assign(self.leafless, index as u32, true);
        Some(index)
    }

    /// The live rows of a piece.
    pub(super) fn live_of(&self, piece: u32) -> impl Iterator<Item = (usize, &Transfer)> {
        self.live().filter(move |(_, row)| row.piece == piece)
    }

    /// The live fetch of a piece; of two, the one that is further.
    pub(super) fn of_piece(&self, piece: PieceIndex) -> Option<usize> {
        self.live_of(piece.get()).max_by_key(|(_, row)| !row.is_waiting()).map(|(index, _)| index)
    }

    /// The fetch of a piece that waits for this peer's answer.
    pub(super) fn waiting(&self, peer: PeerId, piece: u32) -> Option<usize> {
        let mut rows = self.rows(WAITING);
        rows.find(|(_, row)| row.piece == piece && row.peer == peer).map(|(index, _)| index)
    }

    /// The row, not yet asked, of `piece`, for the same peer and in the same way as `like`.
    pub(super) fn to_ask(&self, like: &Transfer, piece: u32) -> Option<usize> {
        let alike = |row: &Transfer| {
            (row.peer, row.class, row.insist, row.asked) == (like.peer, like.class, like.insist, like.asked)
        };
        let mut rows = self.rows(&[Step::ToAsk]);
        rows.find(|(_, row)| row.piece == piece && alike(row)).map(|(index, _)| index)
    }

    /// The fetch of a piece that was started last.
    pub(super) fn last_of(&self, piece: PieceIndex) -> Option<usize> {
        self.live_of(piece.get()).max_by_key(|(_, row)| row.started).map(|(index, _)| index)
    }

    /// Whether another row than `index` has brought the same piece, verified.
    pub(super) fn genuine_sibling(&self, index: usize) -> bool {
        let piece = self.rows[index].piece;
        let mut done = self.rows(&[Step::Genuine, Step::Delivered, Step::Storing]);
        done.any(|(other, row)| other != index && row.piece == piece)
    }

    /// The fetch of a piece that is about to be taken back from this peer.
    pub(super) fn cancelling(&self, peer: PeerId, piece: u32) -> Option<usize> {
        let mut rows = self.rows(&[Step::ToCancel]);
        rows.find(|(_, row)| row.peer == peer && row.piece == piece).map(|(index, _)| index)
    }

    /// The other row than `index` that still may bring the same piece.
    pub(super) fn sibling(&self, index: usize) -> Option<usize> {
        self.live_of(self.rows[index].piece).map(|(other, _)| other).find(|other| *other != index)
    }

    /// Panics unless sets and agenda say what the rows say.
    pub(super) fn check(&self) {
        for (index, row) in self.rows.iter().enumerate() {
            let has = |set: &[u64]| set[index / 64] >> (index % 64) & 1 == 1;
            let step = self.steps.iter().map(|set| has(set)).enumerate();
            assert!(step.into_iter().all(|(step, has)| has == (step == row.step as usize)), "a row is at its step");
            let class = self.classes.iter().map(|set| has(set)).enumerate();
            assert!(
                class.into_iter().all(|(class, has)| has == (class == row.class as usize)),
                "a row is in its class"
            );
            assert_eq!(self.timeouts.get(index), self.gives_up_at(row), "a row is given up in time");
        }
    }
}
