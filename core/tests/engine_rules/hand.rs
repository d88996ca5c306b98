//! One engine driven by hand: real frames in, actions and decoded frames out, no network.

use crate::net::{address, config, storage};
use swarmdisk_core::engine::{Action, Body, Config, Engine, Event, Footprint, Landing, PeerError, Received, Verdict};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::geometry::{ChunkIndex, Geometry, PieceIndex};
use swarmdisk_core::ids::{Address, GuestId, NodeId, PeerId, SlotId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::policy::{ExpectedCompletion, InOrder, Lesson, Live, Mixed, Order, Profile};
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::{
    self, Class, Data, Decoded, Frame, HEAD_BYTES_MAX, Hello, Map, Pieces, Request, Role, Run, RunsEncoder,
};

/// Chunks of the image; its leaf pages are the pieces after them.
pub const CHUNKS: u32 = 1024;
pub const PIECES: u32 = CHUNKS + 4;

pub type HandEngine<O> = Engine<'static, Mixed<'static>, O, ExpectedCompletion>;

/// What an engine wants done; frames decoded.
#[derive(Debug, Copy, Clone, PartialEq)]
pub enum Out {
    Say(PeerId, Frame<'static>, Option<Body>),
    Do(Action),
}

pub struct Hand<O: Order = InOrder> {
    pub engine: HandEngine<O>,
    pub now: u64,
    pub geometry: Geometry,
}

pub fn node_id(number: u8) -> NodeId {
    NodeId([number; 16])
}

/// The address of the node of that number.
pub fn listens(number: u8) -> Address {
    address(usize::from(number))
}

impl Hand {
    /// Node number 100, which holds nothing and tells of no touches, as `change` would have it.
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::guessing(&[], change)
    }

    /// The same, with a profile of these chunks.
    pub fn guessing(chunks: &[u32], change: impl FnOnce(&mut Config)) -> Self {
        Self::ordered(InOrder, chunks, change)
    }

    /// The same, that holds these pieces.
    pub fn holding(pieces: std::ops::Range<u32>, change: impl FnOnce(&mut Config)) -> Self {
        let mut hand = Self::new(change);
        hand.keeps(pieces);
        hand
    }
}

impl<O: Order> Hand<O> {
    /// The same with a profile, whose chunks are fetched in this order.
    pub fn ordered(order: O, chunks: &[u32], change: impl FnOnce(&mut Config)) -> Self {
        let geometry = Geometry::new(u64::from(CHUNKS) << 16, 16).unwrap();
        let mut config = config(100, Role::Node, swarmdisk_core::engine::Limits::NODE);
        config.node = node_id(100);
        config.limits.touches = 0;
        change(&mut config);
        let entry = |chunk: &u32| ProfileEntry::single(geometry.chunk(*chunk).unwrap(), 0, 255);
        let entries: Vec<_> = chunks.iter().map(entry).collect();
        let profile = (!entries.is_empty()).then(|| Profile::new(entries.leak(), 300));
        let live = Live::new(vec![Lesson::EMPTY; 2048].leak(), 300);
        let policies = (Mixed { profile, live: Some(live), sequential: None }, order, ExpectedCompletion);
        let storage = storage(Footprint::of(geometry, config.limits));
        let engine = Engine::new(Instant::ZERO, geometry, config, storage, policies).unwrap();
        Self { engine, now: 0, geometry }
    }

    pub fn time(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    pub fn piece(&self, number: u32) -> PieceIndex {
        self.geometry.piece(number).unwrap()
    }

    pub fn chunk(&self, number: u32) -> ChunkIndex {
        self.geometry.chunk(number).unwrap()
    }

    pub fn tell(&mut self, event: Event) {
        self.engine.handle(self.time(), event);
        self.engine.check_invariants();
    }

    pub fn keeps(&mut self, pieces: std::ops::Range<u32>) {
        let first = self.piece(pieces.start);
        self.tell(Event::Held { first, count: pieces.len() as u32 });
    }

    pub fn wants(&mut self, chunk: u32) {
        let chunk = self.chunk(chunk);
        self.tell(Event::Wanted { guest: GuestId(0), chunk });
    }

    pub fn releases(&mut self, chunk: u32) {
        let chunk = self.chunk(chunk);
        self.tell(Event::Released { guest: GuestId(0), chunk });
    }

    pub fn wait_micros(&mut self, micros: u64) {
        self.now += micros;
    }

    /// Everything that is to be done now.
    pub fn drain(&mut self) -> Vec<Out> {
        let mut outs = vec![];
        let mut head = [0; HEAD_BYTES_MAX];
        while let Some(action) = self.engine.poll(self.time(), &mut head) {
            self.engine.check_invariants();
            assert!(outs.len() < 10_000, "poll goes on for ever: {action:?}");
            outs.push(match action {
                Action::Transmit { peer, head_bytes, body } => {
                    let bytes: &'static [u8] = head[..usize::from(head_bytes)].to_vec().leak();
                    match wire::decode(bytes).unwrap() {
                        Decoded::Frame { frame, consumed, .. } if consumed == bytes.len() => {
                            Out::Say(peer, frame, body)
                        }
                        other => panic!("no whole frame: {other:?}"),
                    }
                }
                other => Out::Do(other),
            });
        }
        assert!(self.engine.deadline().is_none_or(|deadline| deadline > self.time()), "a deadline in the past");
        outs
    }

    /// Of all that is to be done now, what `pick` picks.
    pub fn drain_for<T>(&mut self, pick: impl FnMut(Out) -> Option<T>) -> Vec<T> {
        self.drain().into_iter().filter_map(pick).collect()
    }

    /// The requests among all that is to be done now.
    pub fn requests(&mut self) -> Vec<(PeerId, Request)> {
        self.drain_for(|out| match out {
            Out::Say(peer, Frame::Request(request), None) => Some((peer, request)),
            _ => None,
        })
    }

    /// Of all that is to be done now, whom it asks for what: the pieces one by one.
    pub fn asks(&mut self) -> Vec<(PeerId, u32)> {
        let numbers = |run: Run| run.first..run.first + u32::from(run.count);
        let requests = self.requests().into_iter();
        requests.flat_map(|(peer, request)| numbers(request.run).map(move |number| (peer, number))).collect()
    }

    /// What is said to `to` now.
    pub fn says(&mut self, to: PeerId) -> Vec<Frame<'static>> {
        self.drain_for(|out| match out {
            Out::Say(peer, frame, _) if peer == to => Some(frame),
            _ => None,
        })
    }

    /// What is to be done now beside sending.
    pub fn actions(&mut self) -> Vec<Action> {
        self.drain_for(|out| match out {
            Out::Do(action) => Some(action),
            Out::Say(..) => None,
        })
    }

    pub fn hear_bytes(&mut self, peer: PeerId, bytes: &[u8]) -> Result<Landing, PeerError> {
        let received = self.engine.receive(self.time(), peer, bytes);
        self.engine.check_invariants();
        match received? {
            Received::Head { consumed, body } if consumed == bytes.len() => Ok(body),
            other => panic!("no whole frame: {other:?}"),
        }
    }

    pub fn hear(&mut self, peer: PeerId, frame: Frame<'_>) -> Result<Landing, PeerError> {
        let mut head = [0; HEAD_BYTES_MAX];
        let length = wire::encode(&frame, &mut head).unwrap();
        self.hear_bytes(peer, &head[..length])
    }

    /// A link that has come in and said nothing.
    pub fn admit(&mut self) -> PeerId {
        self.engine.admit(self.time(), Address { ip: [9; 16], port: 50_000 }, u32::MAX).unwrap()
    }

    pub fn hello(&self, number: u8, role: Role) -> Hello {
        Hello {
            version: wire::VERSION,
            features: 0,
            image: swarmdisk_core::ids::Digest([7; 32]),
            node: node_id(number),
            listen: listens(number),
            role,
            requests_max: 16,
            locality: Locality::NONE,
        }
    }

    /// An open link to node `number`, which has dialled and holds nothing.
    pub fn link(&mut self, number: u8, role: Role) -> PeerId {
        let peer = self.admit();
        self.hear(peer, Frame::Hello(self.hello(number, role))).unwrap();
        self.drain();
        peer
    }

    /// An open link to node `number`, which holds these pieces. Nothing has been asked yet.
    pub fn holder(&mut self, number: u8, role: Role, pieces: std::ops::Range<u32>) -> PeerId {
        let peer = self.link(number, role);
        self.maps(peer, pieces);
        peer
    }

    pub fn maps(&mut self, peer: PeerId, pieces: std::ops::Range<u32>) {
        let mut buffer = [0; 32];
        let runs = encoded(pieces, &mut buffer);
        self.hear(peer, Frame::Map(Map { first: 0, count: PIECES, runs })).unwrap();
    }

    /// The peer tells that it holds these, too.
    pub fn has(&mut self, peer: PeerId, pieces: std::ops::Range<u32>) {
        let mut buffer = [0; 32];
        let runs = encoded(pieces, &mut buffer);
        self.hear(peer, Frame::Have(Pieces { runs })).unwrap();
    }

    /// The peer asks.
    pub fn is_asked(&mut self, peer: PeerId, first: u32, count: u16, class: Class) -> Result<(), PeerError> {
        let request = Request { run: Run { first, count }, class, insist: false, raise: false, due_millis: 0 };
        self.hear(peer, Frame::Request(request)).map(|landing| assert_eq!(landing, Landing::None))
    }

    /// The peer sends a piece, and the body has landed.
    pub fn lands(&mut self, peer: PeerId, piece: u32) -> SlotId {
        match self.begins(peer, piece) {
            Landing::Land { slot, .. } => {
                self.tell(Event::BodyLanded { slot });
                slot
            }
            other => panic!("piece {piece} does not land: {other:?}"),
        }
    }

    /// The peer sends a piece; its body has not come.
    pub fn begins(&mut self, peer: PeerId, piece: u32) -> Landing {
        self.hear(peer, Frame::Data(Data { piece, bytes: 100 })).unwrap()
    }

    /// The peer sends a piece, which is genuine; then it waits to be stored.
    pub fn verifies(&mut self, peer: PeerId, piece: u32) -> SlotId {
        let slot = self.lands(peer, piece);
        self.drain();
        self.tell(Event::BodyVerified { slot, verdict: Verdict::Genuine });
        slot
    }

    /// The peer sends a piece, which is genuine and is stored.
    pub fn gets(&mut self, peer: PeerId, piece: u32) {
        let slot = self.verifies(peer, piece);
        self.drain();
        self.tell(Event::BodyStored { slot });
        assert!(self.engine.holds(self.piece(piece)));
    }
}

/// One run, as frames have it.
fn encoded(pieces: std::ops::Range<u32>, buffer: &mut [u8]) -> &[u8] {
    let mut encoder = RunsEncoder::new(buffer, 0);
    encoder.push(pieces.start, pieces.len() as u32).unwrap();
    let length = encoder.finish();
    &buffer[..length]
}

/// The runs of a frame, as (first, count).
pub fn runs(pieces: Pieces<'_>) -> Vec<(u32, u32)> {
    wire::decode_runs(pieces.runs, 0, PIECES).map(Result::unwrap).collect()
}
