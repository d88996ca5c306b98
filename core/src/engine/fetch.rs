//! What to ask of whom: demand first, then the predictor's window, then fill; hedging and giving up.
//!
//! *Invariants*: a piece is asked of at most two peers at a time, and of two only while a guest waits for it; a seed that
//! has redirected is left alone until the hint has expired. *Units*: microseconds. *Bounds*: a search for work costs
//! O(demands + transfers + guesses).

use super::event::Action;
use super::hints::Hint;
use super::transfers::{Step, WAITING};
use super::{Engine, PeerRow};
use crate::bitmap;
use crate::geometry::{Piece, PieceIndex};
use crate::ids::PeerId;
use crate::locality::{Locality, Nearness};
use crate::policy::{Candidate, Order, Outcome, Predictor, Selector, Want};
use crate::time::{Duration, Instant};
use crate::wire::{Class, Frame, Redirect, Request, Role, Run};

/// How long nothing but demand is fetched after the store has failed.
pub(super) const STORE_FULL: Duration = Duration::from_secs(10);
/// How soon a seed is asked again after the node that it named has refused. Not at once: the seed may name it again.
const REFUTED: Duration = Duration::from_millis(5);
/// Peers that are weighed for one piece.
const CANDIDATES_MAX: usize = 64;
/// A body that has begun to come is waited for so many times longer before a second peer is asked: a peer that stops in the
/// middle must not stall a guest until the link is given up.
const LANDING_PATIENCE: u64 = 4;
/// Steps at which a fetch that a guest waits for may be hedged.
const HEDGED: &[Step] = &[Step::ToAsk, Step::Asked, Step::Landing];
/// How long no leaf page is fetched after one could not be stored (chunks that wait for it would have it fetched at once),
/// and nothing after something could not be checked.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Whom a piece may be asked of.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Whom {
    /// Those nearest that hold it, if no guest waits.
    Nearest,
    /// All.
    Anybody,
    /// All but one, who has been asked.
    But(PeerId),
}

impl<'a, P: Predictor, O: Order, S: Selector> Engine<'a, P, O, S> {
    /// A guest waits for a piece that may be under way already: it becomes urgent.
    pub(super) fn raise(&mut self, now: Instant, piece: PieceIndex) {
        if !bitmap_get(self.own.flight, piece) {
            return;
        }
        let mut from = 0;
        while let Some(index) = self.transfers.next_live(from) {
            from = index + 1;
            let (row, waiting) = (self.transfers.at(index), self.transfers.at(index).is_waiting());
            if row.piece_number() != piece.get() || row.class == Class::Demand {
                continue;
            }
            let (peer, was_prefetch) = (row.peer, row.class == Class::Prefetch);
            self.transfers.change(index, |row| {
                row.class = Class::Demand;
                row.urgent_since = now;
                row.step = if waiting { Step::ToAsk } else { row.step };
            });
            self.peers.change_of(peer, |link| link.prefetches -= u16::from(waiting && was_prefetch));
        }
    }

    /// No guest waits any longer for a piece that is fetched as a guess: it becomes one again.
    pub(super) fn lower(&mut self, piece: PieceIndex) {
        let mut from = 0;
        while let Some(index) = self.transfers.next_live(from) {
            from = index + 1;
            let row = self.transfers.at(index);
            if row.piece_number() != piece.get() || row.class != Class::Demand || !row.guessed {
                continue;
            }
            let (peer, waiting) = (row.peer, row.is_waiting());
            self.transfers.change(index, |row| row.class = Class::Prefetch);
            self.peers.change_of(peer, |link| link.prefetches += u16::from(waiting));
        }
    }

    /// Takes back requests for a piece that `which` picks.
    pub(super) fn take_back(&mut self, piece: PieceIndex, which: impl Fn(&super::Transfer) -> bool) {
        let mut from = 0;
        while let Some(index) = self.transfers.next(from, WAITING) {
            from = index + 1;
            let row = self.transfers.at(index);
            if row.piece_number() == piece.get() && which(row) {
                self.cancel(index);
            }
        }
    }

    /// The piece of this row is there without it.
    pub(super) fn end_superseded(&mut self, index: usize) {
        match self.transfers.at(index).step {
            Step::ToAsk | Step::Asked => self.cancel(index),
            Step::Landed | Step::Genuine | Step::Delivered => {
                self.stats.discarded_bytes += u64::from(self.transfers.at(index).bytes);
                self.abandon(index);
            }
            _ => {}
        }
    }

    /// A body has come: what else was asked for the same piece is taken back.
    pub(super) fn end_waiting_siblings(&mut self, index: usize) {
        let number = self.transfers.at(index).piece_number();
        let Some(piece) = self.geometry.piece(number) else { return };
        self.take_back(piece, |_| true);
    }

    /// Ends a row whose buffer the host is to forget.
    pub(super) fn abandon(&mut self, index: usize) {
        self.end(index, Step::ToAbandon);
    }

    /// Ends a row; its buffer, if there was one, is forgotten on both sides.
    pub(super) fn free_transfer(&mut self, index: usize) {
        self.end(index, Step::Free);
    }

    pub(super) fn cancel(&mut self, index: usize) {
        let asked = self.transfers.at(index).asked;
        self.end(index, if asked { Step::ToCancel } else { Step::Free });
    }

    /// The piece will not come of this row: it may be asked for anew, of whom else there is.
    fn end(&mut self, index: usize, step: Step) {
        self.leave_waiting(index);
        let was_live = self.transfers.at(index).is_live();
        self.transfers.set_step(index, step);
        self.look_for_work = true;
        if !was_live {
            return;
        }
        match self.transfers.sibling(index) {
            Some(other) => self.transfers.change(other, |row| row.hedged = false),
            None => {
                let number = self.transfers.at(index).piece_number();
                bitmap::assign(self.own.flight, number, false);
                self.window.note_change();
                if number >= self.geometry.chunk_count() {
                    self.transfers.leaf_gone();
                }
            }
        }
    }

    /// The row's peer no longer owes it an answer. To be called before its step changes.
    pub(super) fn leave_waiting(&mut self, index: usize) {
        let row = self.transfers.at(index);
        if !row.is_waiting() {
            return;
        }
        let (peer, is_prefetch) = (row.peer, row.class == Class::Prefetch);
        self.peers.change_of(peer, |link| {
            link.in_flight -= 1;
            link.prefetches -= u16::from(is_prefetch);
        });
    }

    /// A peer asks to be left alone: with what no guest waits for, and with demand only if it says so to a demand.
    pub(super) fn on_busy(&mut self, peer: PeerId, piece: PieceIndex, until: Instant) {
        let Some(index) = self.transfers.waiting(peer, piece.get()) else { return };
        let demand = self.transfers.at(index).class == Class::Demand;
        self.free_transfer(index);
        if demand {
            self.peers.change_of(peer, |link| link.busy_for_demand_until = until);
        }
    }

    pub(super) fn on_refused(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        if let Some(index) = self.transfers.waiting(peer, piece.get()) {
            self.free_transfer(index);
            self.selector.observe(now, peer, Outcome::Refused);
        }
        self.peers.note_pieces(peer.index(), piece.get(), 1, false);
        self.hints.refuted(piece, now + REFUTED);
    }

    pub(super) fn on_redirected(&mut self, now: Instant, peer: PeerId, piece: PieceIndex, to: &Redirect) {
        let Some(index) = self.transfers.waiting(peer, piece.get()) else { return };
        let patience = self.config.tuning.patience.as_micros();
        let row = self.transfers.at(index);
        let (is_demand, insisted) = (row.class == Class::Demand, row.insist);
        let by_node = self.peers.get(peer).is_some_and(|link| link.role == Role::Node);
        if by_node && insisted {
            return self.on_refused(now, peer, piece);
        }
        let wait = Duration::from_micros(if is_demand { patience / 3 } else { patience });
        self.stats.redirects_received += 1;
        self.free_transfer(index);
        self.hints.add(Hint { piece: piece.get(), node: to.node, until: now + wait, by_node });
        // Who is not linked is not waited for: the node that has the piece gives it to who insists.
        if by_node {
            return;
        }
        self.contacts.add(to.address, false, Locality::NONE);
        // Nobody linked comes by a leaf page that few want, and what waits for it cannot be verified.
        if is_demand || (insisted && matches!(self.geometry.kind(piece), Piece::Leaf(_))) {
            self.contacts.urge(to.address);
        }
    }

    /// Gives up what has taken too long.
    pub(super) fn give_up(&mut self, now: Instant) {
        let mut from = 0;
        while let Some(index) = self.transfers.next_timeout(from, now) {
            from = index + 1;
            let row = self.transfers.at(index);
            if row.step == Step::Landed {
                self.end_superseded(index);
                continue;
            }
            let peer = row.peer;
            self.stats.timeouts += 1;
            self.selector.observe(now, peer, Outcome::Late);
            self.peers.change_of(peer, |link| link.failures = link.failures.saturating_add(1));
            self.cancel(index);
        }
        self.close_silent(now);
    }

    /// Requests to send, after looking for what else to ask.
    pub(super) fn poll_requests(&mut self, now: Instant, head: &mut [u8]) -> Option<Action> {
        if self.look_for_work {
            self.look_for_work = false;
            self.news_at = Instant::NEVER;
            // It is not known yet when time alone lets more be found: if time passes before that is, it is looked again.
            self.look_at = now + Duration::from_micros(1);
            self.take_back_guesses();
            self.start_demands(now);
            self.start_hedges(now);
            self.start_leaves(now);
            self.start_prefetches(now);
            self.start_fills(now);
        }
        // What is taken back goes first: it may be asked for anew, and a peer counts what it has been asked.
        if let Some(index) = self.to_send(&[Step::ToCancel]) {
            let row = *self.transfers.at(index);
            self.peers.change_of(row.peer, |link| link.take_back(row.piece_number()));
            self.free_transfer(index);
            let run = Run { first: row.piece_number(), count: 1 };
            return self.transmit(now, row.peer.index(), &Frame::Cancel(run), None, head);
        }
        let index = self.to_send(&[Step::ToAsk])?;
        let peer = self.transfers.at(index).peer;
        let request = self.gather_run(now, index);
        self.transmit(now, peer.index(), &Frame::Request(request), None, head)
    }

    /// The most urgent row at these steps whose peer takes bytes.
    fn to_send(&self, steps: &'static [Step]) -> Option<usize> {
        let takes = |peer: PeerId| self.peers.get(peer).is_some_and(PeerRow::takes_bytes);
        let rows = self.transfers.rows(steps).filter(|(_, row)| takes(row.peer));
        rows.min_by_key(|(_, row)| row.class).map(|(index, _)| index)
    }

    /// One request for this row and for those of the pieces that follow, as far as they go to the same peer alike.
    fn gather_run(&mut self, now: Instant, index: usize) -> Request {
        let row = *self.transfers.at(index);
        let mut run = Run { first: row.piece_number(), count: 0 };
        let mut next = Some(index);
        while let Some(index) = next {
            self.transfers.change(index, |row| {
                row.step = Step::Asked;
                row.asked = true;
            });
            run.count += 1;
            next = self.transfers.to_ask(&row, run.first + u32::from(run.count));
        }
        let due_millis = ((row.due - now).as_micros() / 1000).min(u64::from(u32::MAX)) as u32;
        Request { run, class: row.class, insist: row.insist, raise: row.asked, due_millis }
    }

    fn start_demands(&mut self, now: Instant) {
        let mut index = 0;
        while let Some((piece, since)) = self.demands.at(index) {
            index += 1;
            if let Piece::Chunk(chunk) = self.geometry.kind(piece) {
                self.start_missing(now, self.geometry.leaf_piece(self.geometry.leaf_of(chunk)), Class::Demand, since);
            }
            self.start_missing(now, piece, Class::Demand, since);
        }
    }

    /// Leaf pages without which chunks that are under way cannot be verified.
    pub(super) fn start_leaves(&mut self, now: Instant) {
        let mut from = 0;
        while let Some(index) = self.transfers.next_leafless(from) {
            from = index + 1;
            let row = *self.transfers.at(index);
            let piece = self.geometry.piece(row.piece_number()).map(|piece| self.geometry.kind(piece));
            let Some(Piece::Chunk(chunk)) = piece else {
                self.transfers.has_leaf(index);
                continue;
            };
            let leaf = self.geometry.leaf_piece(self.geometry.leaf_of(chunk));
            if self.holds(leaf) || bitmap_get(self.own.flight, leaf) {
                self.transfers.has_leaf(index);
            } else {
                self.start_missing(now, leaf, row.class, row.urgent_since);
            }
        }
    }

    /// Asks a second peer for what a guest has waited too long for.
    fn start_hedges(&mut self, now: Instant) {
        let mut from = 0;
        while let Some(index) = self.transfers.next_of(from, Class::Demand, HEDGED) {
            from = index + 1;
            let row = *self.transfers.at(index);
            if now < self.hedge_at(index) {
                continue;
            }
            let Some(piece) = self.geometry.piece(row.piece_number()) else { continue };
            if !self.holds(piece) && self.start(now, piece, Class::Demand, row.urgent_since, Whom::But(row.peer)) {
                self.stats.hedges += 1;
                self.transfers.change(index, |row| row.hedged = true);
                if let Some(second) = self.transfers.last_of(piece) {
                    self.transfers.change(second, |row| row.hedged = true);
                }
            }
        }
    }

    /// Whether there is a fetch that a second peer may be asked for, now or later.
    pub(super) fn has_hedgeable(&self) -> bool {
        self.transfers.next_of(0, Class::Demand, HEDGED).is_some()
    }

    /// When the row, one that a guest waits for, is to be hedged.
    fn hedge_at(&self, index: usize) -> Instant {
        let row = self.transfers.at(index);
        if row.hedged {
            return Instant::NEVER;
        }
        let patience = if row.step == Step::Landing { LANDING_PATIENCE } else { 1 };
        let expected = self.peers.get(row.peer).map_or(Duration::ZERO, |link| self.expected(link));
        row.started.max(row.urgent_since) + self.config.tuning.hedge.max(expected.times(2)).times(patience)
    }

    /// How long a piece asked of this peer now is expected to take.
    fn expected(&self, link: &PeerRow) -> Duration {
        let queued = (u64::from(link.in_flight) + 1) * u64::from(self.mean_bytes);
        link.rtt + Duration::from_micros(queued.saturating_mul(1_000_000).checked_div(link.bytes_per_sec).unwrap_or(0))
    }

    /// Half of the table is kept for demand and for leaf pages.
    pub(super) fn bulk_has_room(&self) -> bool {
        self.transfers.in_use() < self.transfers.len().div_ceil(2)
    }

    fn start_missing(&mut self, now: Instant, piece: PieceIndex, class: Class, since: Instant) {
        let paused = now < self.leaves_paused_until && matches!(self.geometry.kind(piece), Piece::Leaf(_));
        if !paused && !self.holds(piece) && !bitmap_get(self.own.flight, piece) {
            self.start(now, piece, class, since, Whom::Nearest);
        }
    }

    /// Begins a fetch, if there is a peer to ask and a row to note it in.
    pub(super) fn start(&mut self, now: Instant, piece: PieceIndex, class: Class, since: Instant, whom: Whom) -> bool {
        if now < self.paused_until || !self.transfers.has_room() {
            return false;
        }
        if let Some(leaf) = self.leaf_to_see_first(piece) {
            self.start_missing(now, leaf, class, since);
            return false;
        }
        let Some((peer, insist)) = self.choose(now, piece, class, whom) else { return false };
        let Some(index) = self.transfers.take(piece) else { return false };
        bitmap::assign(self.own.flight, piece.get(), true);
        if class != Class::Prefetch {
            self.window.note_started();
        }
        let queued = self.peers.change(peer.index(), |link| {
            link.in_flight += 1;
            link.prefetches += u16::from(class == Class::Prefetch);
            link.in_flight - 1
        });
        self.transfers.change(index, |row| {
            row.peer = peer;
            row.class = class;
            row.guessed = class == Class::Prefetch;
            row.insist = insist;
            row.queued = queued;
            row.started = now;
            row.urgent_since = since;
        });
        true
    }

    /// The leaf page without which a chunk is not asked for.
    fn leaf_to_see_first(&self, piece: PieceIndex) -> Option<PieceIndex> {
        let Piece::Chunk(chunk) = self.geometry.kind(piece) else { return None };
        let leaf = self.geometry.leaf_piece(self.geometry.leaf_of(chunk));
        Some(leaf).filter(|leaf| self.config.leaves_first && !self.holds(*leaf))
    }

    /// Whom to ask for a piece, and whether that seed is not to redirect.
    fn choose(&mut self, now: Instant, piece: PieceIndex, class: Class, whom: Whom) -> Option<(PeerId, bool)> {
        let hint = self.hints.find(piece).copied();
        let spare_seeds = hint.is_some_and(|hint| now < hint.until);
        let promised = hint.filter(|_| spare_seeds).and_then(|hint| self.peers.by_node(hint.node));
        // What a linked node holds is asked of nodes, unless a guest waits.
        let nearest = if class == Class::Demand { None } else { self.nearest(piece) };
        let ask_seeds = !spare_seeds && nearest.is_none();
        let from = nearest.filter(|_| whom == Whom::Nearest).unwrap_or(Nearness::Far);
        let may_ask = |index: usize| {
            let askable = self.peers.askable(class, index / 64, ask_seeds) >> (index % 64) & 1 == 1;
            askable && self.candidate(now, index, class, piece, whom).is_some()
        };
        // A node that named another has more to do than it can.
        let is_named = whom == Whom::Nearest && hint.is_some_and(|hint| hint.by_node);
        let only = promised.filter(|index| is_named && may_ask(*index));
        let mut candidates: heapless::Vec<Candidate, CANDIDATES_MAX> = heapless::Vec::new();
        let count = self.peers.len();
        let start = self.rng.below(count as u32) as usize;
        let (first, early) = (start / 64, !(u64::MAX << (start % 64)));
        let words = count.div_ceil(64);
        // From `start` on, then those before it: the word in which it lies comes twice.
        for turn in 0..=words {
            let word = (first + turn) % words;
            let here = if turn == 0 {
                !early
            } else if turn == words {
                early
            } else {
                u64::MAX
            };
            let promised = promised.filter(|index| index / 64 == word).map_or(0, |index| 1 << (index % 64));
            let holders = if only.is_some() { 0 } else { self.peers.holders.of_piece(piece.get(), word) };
            let has = holders | promised;
            let near = if from == Nearness::Far { u64::MAX } else { self.peers.near(from, word) };
            let mut bits = has & here & near & self.peers.askable(class, word, ask_seeds);
            while bits != 0 && !candidates.is_full() {
                let index = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let pushed = self.candidate(now, index, class, piece, whom).map(|candidate| candidates.push(candidate));
                debug_assert!(pushed.is_none_or(|pushed| pushed.is_ok()), "there is room");
            }
        }
        let want = Want { piece, class, bytes: self.mean_bytes };
        let chosen = candidates.get(self.selector.choose(now, want, &candidates, &mut self.rng)?)?;
        Some((chosen.peer, hint.is_some()))
    }

    /// How near the nearest node is that holds the piece, if it is a chunk.
    pub(super) fn nearest(&self, piece: PieceIndex) -> Option<Nearness> {
        match self.geometry.kind(piece) {
            Piece::Chunk(chunk) => self.stock().nearest(chunk).map(|(nearness, _)| nearness),
            Piece::Leaf(_) => None,
        }
    }

    /// A peer that may be asked, unless it is busy or the one not to be asked.
    fn candidate(&self, now: Instant, index: usize, class: Class, piece: PieceIndex, whom: Whom) -> Option<Candidate> {
        let (link, peer) = (self.peers.at(index), self.peers.id(index));
        if link.may_be_late(piece.get()) || self.transfers.cancelling(peer, piece.get()).is_some() {
            return None;
        }
        let busy_until = if class == Class::Demand { link.busy_for_demand_until } else { link.busy_until };
        (busy_until <= now && whom != Whom::But(peer)).then_some(Candidate {
            peer,
            role: link.role,
            nearness: link.nearness,
            rtt: link.rtt,
            bytes_per_sec: link.bytes_per_sec,
            in_flight: link.in_flight,
            failures: link.failures,
        })
    }

    /// When there will be something to do about fetches.
    pub(super) fn fetch_deadline(&mut self, now: Instant) -> Instant {
        let mut next = self.hints.next_expiry(now).min(self.transfers.earliest_timeout()).min(self.news_at);
        let mut from = 0;
        while let Some(index) = self.transfers.next_of(from, Class::Demand, HEDGED) {
            from = index + 1;
            // A hedge that is due and has found nobody to ask waits for something else to happen.
            let hedge_at = self.hedge_at(index);
            next = if hedge_at > now { next.min(hedge_at) } else { next };
        }
        let later = [self.store_full_until, self.leaves_paused_until, self.paused_until, self.fill_due()];
        for later in later.into_iter().chain([self.order.next_pick(), self.window_due(now)]) {
            next = if later > now { next.min(later) } else { next };
        }
        next
    }
}

pub(super) fn bitmap_get(words: &[u64], piece: PieceIndex) -> bool {
    words[(piece.get() / 64) as usize] >> (piece.get() % 64) & 1 == 1
}
