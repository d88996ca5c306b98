//! Whom to answer next, and how: others' demand before others' prefetch before others' fill, fair between peers.
//!
//! *Invariants*: every request is answered, by the piece, Busy, Refuse or Redirect, unless it is taken back or the link
//! ends. *Units*: bytes, milliseconds. *Bounds*: a queue of `Limits::requests_per_peer` a peer; two loads a peer
//! and class.

use super::event::{Action, Body};
use super::peers::{NO_TURN, Turn};
use super::uploads::{Answer, Upload};
use super::{Engine, PeerError};
use crate::geometry::{Piece, PieceIndex};
use crate::ids::{PeerId, UploadId};
use crate::policy::{Order, Predictor, Selector};
use crate::time::{Duration, Instant};
use crate::wire::{Busy, Class, Data, Frame, Redirect, Request, Role, Run};

/// Loads a peer, of each class or more urgent: one on the wire, one ready to follow.
const LOADS_MAX: u16 = 2;
const CLASSES: usize = Class::Fill as usize + 1;
/// How long a seed takes for granted that whom it served still has the piece.
const SERVED_FOR: Duration = Duration::from_secs(60);
/// What a queued piece is taken to last, in milliseconds, when a peer is told when to ask again.
const BUSY_MILLIS_EACH: u32 = 2;
const BUSY_MILLIS_MAX: u32 = 500;
/// Bodies are handed over for so long ahead, so that what is more urgent need not wait longer; but so many bytes at least.
const UNSENT_SPAN: Duration = Duration::from_millis(5);
const UNSENT_BYTES_MIN: u64 = 96 << 10;
/// Requests waiting at a seed above which it redirects whatever the asker says: else all would come at once, and wait.
const SEED_QUEUE: u32 = 32;
/// So many guests wait for a piece from a node when it names these to others, who ask there.
const CROWD: usize = 2;
/// What a seed has sent is given so long to spread before another copy is sent to whom no guest waits for.
const SPREAD: Duration = Duration::from_secs(10);

impl<P: Predictor, O: Order, S: Selector> Engine<'_, P, O, S> {
    /// A peer asks for pieces, or more urgently for some that it has asked for.
    pub(super) fn on_request(&mut self, now: Instant, index: usize, request: &Request) -> Result<(), PeerError> {
        if request.class == Class::Demand {
            self.give_way.note_demand(now);
        }
        for number in self.check_run(request.run)? {
            let Some(piece) = self.geometry.piece(number) else { return Err(PeerError::OutOfRange) };
            let known = self.uploads.of_peer(index).find(|(_, row)| row.piece == number).map(|(row, _)| row);
            if let Some(row) = known {
                let row = self.uploads.at_mut(row);
                row.class = row.class.min(request.class);
                self.peers.review(index);
                continue;
            }
            if request.raise {
                continue;
            }
            let answer = self.decide(now, index, piece, request);
            let due = now + Duration::from_millis(u64::from(request.due_millis));
            self.uploads.add(index, number, request.class, due, answer).ok_or(PeerError::TooMany)?;
            self.peers.change(index, |row| row.uploads += 1);
            match answer {
                Answer::Queued if self.holds(piece) => {
                    self.served.note(now, piece, self.peers.id(index));
                }
                Answer::Busy(_) => self.stats.busy_sent += 1,
                Answer::Redirect(..) => self.stats.redirects_sent += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// The numbers of a run's pieces, if it lies within the image and is not longer than may be asked at once.
    pub(super) fn check_run(&self, run: Run) -> Result<core::ops::Range<u32>, PeerError> {
        let end = run.first.checked_add(u32::from(run.count)).ok_or(PeerError::OutOfRange)?;
        if run.count == 0 || end > self.geometry.piece_count() {
            return Err(PeerError::OutOfRange);
        }
        if run.count > self.config.limits.requests_per_peer {
            return Err(PeerError::TooMany);
        }
        Ok(run.first..end)
    }

    fn decide(&mut self, now: Instant, index: usize, piece: PieceIndex, request: &Request) -> Answer {
        if !self.holds(piece) {
            let asked = self.transfers.of_piece(piece).map(|row| self.transfers.at(row).peer);
            let promised = self.promises(now, index, piece) && asked != Some(self.peers.id(index));
            if promised && request.class == Class::Demand {
                self.raise(now, piece);
            }
            return if promised { Answer::Queued } else { Answer::Refuse };
        }
        let sums = self.peers.sums();
        // What the host has been handed waits no less.
        let unsent_count = u32::try_from(sums.moving_bytes / u64::from(self.mean_bytes)).unwrap_or(u32::MAX);
        let queued = sums.uploads.saturating_add(unsent_count);
        if self.config.role == Role::Seed {
            return self.redirect(now, index, piece, request, queued).unwrap_or(Answer::Queued);
        }
        if let Some(answer) = self.pass_on(index, piece, request) {
            return answer;
        }
        if request.class != Class::Demand && queued >= u32::from(self.config.tuning.queue) {
            return Answer::Busy(queued.saturating_mul(BUSY_MILLIS_EACH).min(BUSY_MILLIS_MAX) as u16);
        }
        Answer::Queued
    }

    /// Whether a piece that is not held will be soon: it is under way; or a guest waits for it, or for a chunk of that leaf page,
    /// and whom to ask has been named though it may not be linked yet. (Not the asker: they would wait for each other.)
    fn promises(&self, now: Instant, index: usize, piece: PieceIndex) -> bool {
        let waited = match self.geometry.kind(piece) {
            Piece::Chunk(chunk) => chunk.get()..chunk.get() + 1,
            Piece::Leaf(leaf) => leaf.first_chunk()..leaf.first_chunk() + self.geometry.leaf_chunk_count(leaf),
        };
        let asker = self.peers.at(index).node;
        let is_named = || self.hints.find(piece).is_some_and(|hint| now < hint.until && hint.node != asker);
        self.transfers.of_piece(piece).is_some() || (self.demands.any_within(&waited) && is_named())
    }

    /// Who else has got the piece from this seed lately, unless the asker has tried there and a copy more does no harm.
    fn redirect(
        &mut self,
        now: Instant,
        index: usize,
        piece: PieceIndex,
        request: &Request,
        queued: u32,
    ) -> Option<Answer> {
        let at = self.served.last(piece)?;
        let has_time = if request.class == Class::Demand { queued < SEED_QUEUE } else { now - at >= SPREAD };
        if now - at >= SERVED_FOR || (request.insist && has_time) {
            return None;
        }
        let answer = self.name_another(index, piece)?;
        self.hurry(piece, request.class, now + Duration::from_millis(u64::from(request.due_millis)));
        Some(answer)
    }

    /// Names one of those to whom the piece was given, or will be, to the peer at `index`.
    fn name_another(&mut self, index: usize, piece: PieceIndex) -> Option<Answer> {
        let (peers, to) = (&self.peers, self.peers.at(index).locality);
        let fits = |peer| {
            let link = peers.get(peer).filter(|link| link.is_open() && link.address.is_dialable());
            link.map(|link| to.nearness(&link.locality))
        };
        let link = peers.get(self.served.name(piece, peers.id(index), fits)?)?;
        Some(Answer::Redirect(link.node, link.address))
    }

    /// Whom to ask instead for what many guests wait for from here: it goes through them as through a tree. (From here to each
    /// it would reach the last after all others: of 30 simulated nodes on 100 Mbit/s that follow one, after 45 ms.)
    fn pass_on(&mut self, index: usize, piece: PieceIndex, request: &Request) -> Option<Answer> {
        if request.insist || request.class != Class::Demand {
            return None;
        }
        let waits = |peer: &PeerId| {
            let mut asked = self.uploads.of_peer(peer.index()).map(|(_, row)| row);
            *peer != self.peers.id(index) && asked.any(|row| row.piece == piece.get())
        };
        let waiting =
            self.served.nodes(piece).iter().filter(|peer| self.peers.get(**peer).is_some() && waits(peer)).count();
        if waiting < CROWD { None } else { self.name_another(index, piece) }
    }

    /// What others have asked for and not been sent yet is wanted more urgently, or sooner: it goes to these as urgently and as
    /// soon, so that they can pass it on. (Who asked before it knew its guest's pace may have said a time that is far off.)
    fn hurry(&mut self, piece: PieceIndex, class: Class, due: Instant) {
        for peer in self.served.nodes(piece) {
            let index = peer.index();
            let found = self.uploads.of_peer(index).find(|(_, row)| row.piece == piece.get()).map(|(row, _)| row);
            if let Some(row) = found.filter(|_| self.peers.get(peer).is_some()) {
                let upload = self.uploads.at_mut(row);
                upload.class = upload.class.min(class);
                // A fill has no time.
                if class != Class::Fill {
                    upload.due = upload.due.min(due);
                }
                self.peers.review(index);
            }
        }
    }

    /// A peer takes requests back.
    pub(super) fn on_cancel(&mut self, index: usize, run: Run) -> Result<(), PeerError> {
        for number in self.check_run(run)? {
            let found = self.uploads.of_peer(index).find(|(_, row)| row.piece == number).map(|(row, _)| row);
            if let Some(row) = found {
                self.free_upload(row);
            }
        }
        Ok(())
    }

    pub(super) fn on_loaded(&mut self, upload: UploadId, bytes: u32) {
        let found = self.uploads.find(upload).filter(|row| self.uploads.at(*row).answer == Answer::Loading);
        self.count_stale(found.is_some());
        if let Some(row) = found {
            self.uploads.at_mut(row).answer = Answer::Loaded(bytes);
            self.peers.review(self.uploads.peer_index(row));
        }
    }

    /// A piece is gone: whoever asked for it is told.
    pub(super) fn refuse_uploads_of(&mut self, piece: PieceIndex) {
        for index in 0..self.peers.len() {
            if self.peers.at(index).uploads == 0 {
                continue;
            }
            let found = self.uploads.of_peer(index).find(|(_, row)| row.piece == piece.get()).map(|(row, _)| row);
            if let Some(row) = found {
                self.uploads.at_mut(row).answer = Answer::Refuse;
                self.peers.review(index);
            }
        }
    }

    /// Forgets all that a peer has asked for.
    pub(super) fn drop_uploads(&mut self, index: usize) {
        while let Some(row) = self.uploads.first_of_peer(index) {
            self.free_upload(row);
        }
    }

    fn free_upload(&mut self, row: usize) {
        let index = self.uploads.peer_index(row);
        self.peers.change(index, |row| row.uploads -= 1);
        self.uploads.free(row);
    }

    /// Answers to send, the most urgent first; short ones before bodies.
    pub(super) fn poll_uploads(&mut self, now: Instant, head: &mut [u8]) -> Option<Action> {
        let mut from = 0;
        while let Some(index) = self.peers.next_review(from) {
            from = index + 1;
            self.refuse_broken_promises(now, index);
            if let Some(row) = self.denial(index) {
                return self.send_denial(now, index, row, head);
            }
            let [turn, turn_full] = [false, true].map(|full| self.turn(index, full).map_or(NO_TURN, |(turn, _)| turn));
            let promised = |upload: &Upload| upload.answer == Answer::Queued && !self.held().get(upload.piece);
            let again = self.uploads.of_peer(index).any(|(_, upload)| promised(upload));
            self.peers.reviewed(index, turn, turn_full, again);
        }
        let full = self.uplink_full();
        let (_, row) = self.turn(self.peers.next_turn(full)?, full)?;
        if self.waits_until(now, row) > now {
            return None;
        }
        match self.uploads.at(row).answer {
            Answer::Loaded(bytes) => self.send_piece(now, row, bytes, head),
            _ => self.load(row),
        }
    }

    /// Until when a request that it would be the turn of waits all the same.
    fn waits_until(&self, now: Instant, row: usize) -> Instant {
        self.give_way.waits_until(now, self.uploads.at(row).class, self.peers.sums().moving_bytes)
    }

    /// When the next request can be served that waits now though the uplink has room.
    pub(super) fn serve_deadline(&self, now: Instant) -> Instant {
        let full = self.uplink_full();
        let Some((_, row)) = self.peers.next_turn(full).and_then(|index| self.turn(index, full)) else {
            return Instant::NEVER;
        };
        match self.waits_until(now, row) {
            // What is handed over no longer counts once its link is found to stall.
            Instant::NEVER => self.peers.deadline(true),
            at if at > now => at,
            _ => Instant::NEVER,
        }
    }

    /// A request of the peer whose answer is no body.
    fn denial(&self, index: usize) -> Option<usize> {
        let short = |answer| matches!(answer, Answer::Busy(_) | Answer::Refuse | Answer::Redirect(..));
        self.uploads.of_peer(index).find(|(_, upload)| short(upload.answer)).map(|(row, _)| row)
    }

    /// The peer's most urgent request that can be answered with a body, or loaded, and its turn among all peers'.
    pub(super) fn turn(&self, index: usize, full: bool) -> Option<(Turn, usize)> {
        let (link, by_due) = (self.peers.at(index), self.config.role == Role::Seed);
        let (mut loads, mut queued, mut ready) = ([0; CLASSES], [None; CLASSES], None);
        for (row, upload) in self.uploads.of_peer(index) {
            let turn = || Some((turn_of(upload, link.last_served, by_due), row));
            let class = upload.class as usize;
            match upload.answer {
                Answer::Loading | Answer::Loaded(_) => loads[class] += 1,
                Answer::Queued if self.held().get(upload.piece) => queued[class] = sooner(queued[class], turn()),
                _ => {}
            }
            if matches!(upload.answer, Answer::Loaded(_)) && !full {
                ready = sooner(ready, turn());
            }
        }
        // Loads that are less urgent are in nobody's way: they may wait long.
        let mut before = 0;
        for (class, first) in queued.into_iter().enumerate() {
            before += loads[class];
            // A demand is loaded all the same, so that it goes before all others once there is room.
            if before < LOADS_MAX && (!full || class == Class::Demand as usize) {
                ready = sooner(ready, first);
            }
        }
        ready
    }

    /// Whether as much as may be has been handed over and not yet sent. What waits for a peer that takes nothing is not in
    /// the uplink's way.
    pub(super) fn uplink_full(&self) -> bool {
        let bound = self.up.bytes_within(UNSENT_SPAN).max(UNSENT_BYTES_MIN);
        self.peers.sums().moving_bytes >= bound.min(u64::from(self.config.unsent_bytes_max))
    }

    /// Requests that wait for pieces that will not come after all are refused.
    fn refuse_broken_promises(&mut self, now: Instant, index: usize) {
        for row in self.uploads.rows_of_peer(index) {
            let upload = self.uploads.at(row);
            let Some(piece) = self.geometry.piece(upload.piece) else { continue };
            if upload.answer == Answer::Queued && !self.holds(piece) && !self.promises(now, index, piece) {
                self.uploads.at_mut(row).answer = Answer::Refuse;
            }
        }
    }

    fn load(&mut self, row: usize) -> Option<Action> {
        let piece = self.geometry.piece(self.uploads.at(row).piece)?;
        self.uploads.at_mut(row).answer = Answer::Loading;
        self.peers.review(self.uploads.peer_index(row));
        Some(Action::Load { upload: self.uploads.id(row), piece })
    }

    fn send_piece(&mut self, now: Instant, row: usize, bytes: u32, head: &mut [u8]) -> Option<Action> {
        let Upload { piece: number, class, .. } = *self.uploads.at(row);
        let piece = self.geometry.piece(number)?;
        let index = self.uploads.peer_index(row);
        self.give_way.note_body(now, class, bytes);
        self.free_upload(row);
        self.peers.change(index, |row| row.last_served = now);
        self.stats.uploaded_bytes += u64::from(bytes);
        let data = Data { piece: number, bytes };
        self.transmit(now, index, &Frame::Data(data), Some((Body::Piece(piece), bytes)), head)
    }

    fn send_denial(&mut self, now: Instant, index: usize, row: usize, head: &mut [u8]) -> Option<Action> {
        let upload = *self.uploads.at(row);
        let run = Run { first: upload.piece, count: 1 };
        let frame = match upload.answer {
            Answer::Busy(retry_millis) => Frame::Busy(Busy { run, retry_millis }),
            Answer::Redirect(node, address) => Frame::Redirect(Redirect { run, node, address }),
            _ => Frame::Refuse(run),
        };
        self.free_upload(row);
        self.transmit(now, index, &frame, None, head)
    }
}

/// By class, then who was served longest ago, then who asked first; `by_due`: what no guest waits for by when it is wanted.
fn turn_of(upload: &Upload, last_served: Instant, by_due: bool) -> Turn {
    let order = if by_due && upload.class != Class::Demand { upload.due } else { last_served };
    [(upload.class as u64) << 62 | order.as_micros(), upload.number]
}

/// The one whose turn comes first.
fn sooner(a: Option<(Turn, usize)>, b: Option<(Turn, usize)>) -> Option<(Turn, usize)> {
    a.into_iter().chain(b).min()
}
