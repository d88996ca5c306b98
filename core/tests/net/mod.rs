//! A small virtual network for tests: real engines, real frames, a virtual clock, links with rates and latency.
//!
//! Bodies are not modelled byte for byte: a body is genuine or not. After every event the engine's invariants are checked.
#![allow(dead_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use swarmdisk_core::bitmap::Bits;
use swarmdisk_core::engine::{
    Action, Body, Change, Config, Contact, Demand, Engine, Event, Fill, Footprint, Landing, Limits, PeerRow, Received,
    Served, Stats, Storage, Touch, Transfer, Tuning, Upload, Verdict,
};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::geometry::{Geometry, LEAF_CHUNKS, Piece, PieceIndex};
use swarmdisk_core::ids::{Address, Digest, GuestId, NodeId, PeerId, SlotId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::policy::{ExpectedCompletion, Lesson, Live, Mixed, Profile, Sequential, WindowedRandom};
use swarmdisk_core::rng::mix;
use swarmdisk_core::time::{Duration, Instant};
use swarmdisk_core::wire::{HEAD_BYTES_MAX, Kind, Role};

pub type TestEngine = Engine<'static, Mixed<'static>, WindowedRandom, ExpectedCompletion>;
pub const CREDIT: u32 = 128 * 1024;

/// What a node is like.
#[derive(Clone)]
pub struct NodeSpec {
    pub role: Role,
    /// Bytes a second each way.
    pub rate: u64,
    pub profile: &'static [ProfileEntry],
    pub sequential: bool,
    pub live: bool,
    pub fill: Fill,
    /// Chunks that the guest reads, in order, and its think time before each.
    pub trace: Vec<(u64, u32)>,
    /// Sends wrong bytes.
    pub lies: bool,
    pub limits: Limits,
}

impl NodeSpec {
    pub fn node(rate: u64) -> Self {
        let limits = Limits { peers: 60, ..Limits::NODE };
        let (profile, sequential, live, fill) = (&[][..], false, false, Fill::Off);
        Self { role: Role::Node, rate, profile, sequential, live, fill, trace: vec![], lies: false, limits }
    }

    pub fn seed(rate: u64) -> Self {
        Self { role: Role::Seed, limits: Limits { peers: 100, ..Limits::SEED }, ..Self::node(rate) }
    }
}

struct Node {
    spec: NodeSpec,
    engine: TestEngine,
    up: bool,
    /// The store: what is kept, as the engine is told.
    kept: BTreeSet<u32>,
    slots: HashMap<SlotId, bool>,
    links: HashMap<PeerId, (usize, PeerId)>,
    uplink_free: u64,
    downlink_free: u64,
    wakeup: u64,
    guest_next: usize,
    guest_waits: Option<u32>,
    finished_at: Option<u64>,
    demand_misses: usize,
    control_bytes: u64,
    have_bytes: u64,
    body_bytes: u64,
}

/// A call to an engine, as it was made.
#[derive(Clone)]
pub enum Call {
    Admit(Address),
    Handle(Event),
    Receive(PeerId, Vec<u8>),
    Poll,
}

enum What {
    Wake,
    Opened { peer: PeerId, to: usize, address: Address },
    Sent { peer: PeerId, bytes: u32 },
    Arrived { peer: PeerId, head: Vec<u8>, body: Option<(u32, bool)> },
    Closed { peer: PeerId },
    Tell(Event),
    GuestReads,
}

/// The network.
pub struct Net {
    pub now: u64,
    pub geometry: Geometry,
    latency: u64,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, (usize, What)>,
    next_event: u64,
    pub digest: u64,
    pub check: bool,
    /// Every call, with the time and the node, if asked for.
    pub calls: Option<Vec<(Instant, usize, Call)>>,
}

fn leak<T: Clone>(value: T, count: usize) -> &'static mut [T] {
    Box::leak(vec![value; count].into_boxed_slice())
}

/// Memory for an engine; leaked, as tests are short.
pub fn storage(need: Footprint) -> Storage<'static> {
    Storage {
        words: leak(u64::MAX, need.words),
        peers: leak(PeerRow::EMPTY, need.peers),
        transfers: leak(Transfer::EMPTY, need.transfers),
        uploads: leak(Upload::EMPTY, need.uploads),
        demands: leak(Demand::EMPTY, need.demands),
        contacts: leak(Contact::EMPTY, need.contacts),
        changes: leak(Change::EMPTY, need.changes),
        served: leak(Served::EMPTY, need.served),
        touches: leak(Touch::EMPTY, need.touches),
    }
}

pub fn config(index: usize, role: Role, limits: Limits) -> Config {
    Config {
        limits,
        node: NodeId([index as u8 + 1; 16]),
        image: Digest([7; 32]),
        role,
        listen: address(index),
        locality: Locality::NONE,
        manifest_bytes: 1000,
        payload_bytes: 0,
        profile: None,
        teach: true,
        leaves_first: false,
        fill: Fill::Off,
        seed: index as u64 + 1,
        unsent_bytes_max: u32::MAX,
        tuning: Tuning::DEFAULT,
    }
}

pub fn address(index: usize) -> Address {
    Address { ip: [1; 16], port: index as u16 + 1 }
}

/// A zero chunk in every eighth place.
pub fn is_zero(chunk: u32) -> bool {
    chunk % 8 == 7
}

/// Bytes on the wire of a piece: 12 to 36 KiB a chunk.
pub fn wire_bytes(geometry: Geometry, piece: u32) -> u32 {
    match geometry.kind(geometry.piece(piece).unwrap()) {
        Piece::Leaf(leaf) => geometry.leaf_bytes(leaf),
        Piece::Chunk(_) if is_zero(piece) => 0,
        Piece::Chunk(_) => 12 * 1024 + (mix(u64::from(piece)) % (24 * 1024)) as u32,
    }
}

/// A node's engine at the start: a seed holds all, a node knows the seed's address.
pub fn fresh_engine(geometry: Geometry, index: usize, spec: &NodeSpec) -> TestEngine {
    let mut config = config(index, spec.role, spec.limits);
    config.fill = spec.fill;
    let policies = Mixed {
        profile: (!spec.profile.is_empty()).then(|| Profile::new(spec.profile, 300)),
        live: spec.live.then(|| Live::new(leak(Lesson::EMPTY, 4096), 300)),
        sequential: spec.sequential.then(|| Sequential::new(16)),
    };
    let need = Footprint::of(geometry, spec.limits);
    let policies = (policies, WindowedRandom::default(), ExpectedCompletion);
    let mut engine = Engine::new(Instant::ZERO, geometry, config, storage(need), policies).unwrap();
    let event = match spec.role {
        Role::Seed => Event::Held { first: geometry.piece(0).unwrap(), count: geometry.piece_count() },
        Role::Node => Event::ContactFound { address: address(0), seed: true },
    };
    engine.handle(Instant::ZERO, event);
    engine
}

impl Net {
    pub fn new(geometry: Geometry, latency_micros: u64, specs: Vec<NodeSpec>) -> Self {
        let mut net = Self {
            now: 0,
            geometry,
            latency: latency_micros,
            nodes: vec![],
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            digest: 0,
            check: true,
            calls: None,
        };
        for (index, spec) in specs.into_iter().enumerate() {
            net.add(index, spec);
        }
        net
    }

    fn add(&mut self, index: usize, spec: NodeSpec) {
        let engine = fresh_engine(self.geometry, index, &spec);
        let mut kept = BTreeSet::new();
        if spec.role == Role::Seed {
            kept.extend(0..self.geometry.piece_count());
        }
        self.nodes.push(Node {
            spec,
            engine,
            up: true,
            kept,
            slots: HashMap::new(),
            links: HashMap::new(),
            uplink_free: 0,
            downlink_free: 0,
            wakeup: u64::MAX,
            guest_next: 0,
            guest_waits: None,
            finished_at: None,
            demand_misses: 0,
            control_bytes: 0,
            have_bytes: 0,
            body_bytes: 0,
        });
        self.at(0, index, What::Wake);
        let think = self.nodes[index].spec.trace.first().map(|(think, _)| *think);
        if let Some(think) = think {
            self.at(think, index, What::GuestReads);
        }
    }

    fn at(&mut self, time: u64, node: usize, what: What) {
        self.next_event += 1;
        self.queue.push(Reverse((time, self.next_event)));
        self.events.insert(self.next_event, (node, what));
    }

    /// Runs until all guests have finished, or until `limit`; says whether they have.
    pub fn run(&mut self, limit_micros: u64) -> bool {
        while !self.all_finished() {
            if !self.step(limit_micros) {
                return false;
            }
        }
        true
    }

    /// Runs until `time`.
    pub fn run_until(&mut self, time: u64) {
        while self.step(time) {}
        self.now = self.now.max(time);
    }

    fn step(&mut self, limit: u64) -> bool {
        let Some(Reverse((time, number))) = self.queue.peek().copied() else { return false };
        if time > limit {
            return false;
        }
        self.queue.pop();
        let (index, what) = self.events.remove(&number).unwrap();
        self.now = time;
        if self.nodes[index].up {
            self.happen(index, what);
            self.drain(index);
        }
        true
    }

    fn all_finished(&self) -> bool {
        self.nodes.iter().all(|node| !node.up || node.guest_next >= node.spec.trace.len())
    }

    fn happen(&mut self, index: usize, what: What) {
        let now = Instant::from_micros(self.now);
        match what {
            // One that has been overtaken by an earlier one must not ask for another of its own: there would be ever more.
            What::Wake if self.now < self.nodes[index].wakeup => {}
            What::Wake => self.nodes[index].wakeup = u64::MAX,
            What::Tell(event) => self.tell(index, event),
            What::Sent { peer, bytes } => self.tell(index, Event::PeerWritable { peer, bytes }),
            What::Closed { peer } => {
                self.nodes[index].links.remove(&peer);
                self.tell(index, Event::PeerClosed { peer });
            }
            What::Opened { peer, to, address } => {
                let up = self.nodes[to].up;
                self.note(to, || Call::Admit(address));
                match self.nodes[to].engine.admit(now, address, CREDIT).filter(|_| up) {
                    Some(remote) => {
                        self.nodes[to].links.insert(remote, (index, peer));
                        self.nodes[index].links.insert(peer, (to, remote));
                        self.tell(index, Event::PeerOpened { peer, credit_bytes: CREDIT });
                        self.drain(to);
                    }
                    None => self.tell(index, Event::PeerClosed { peer }),
                }
            }
            What::Arrived { peer, head, body } => self.arrive(index, peer, &head, body),
            What::GuestReads => self.guest_reads(index),
        }
    }

    fn tell(&mut self, index: usize, event: Event) {
        self.digest = mix(self.digest ^ self.now ^ (index as u64) << 40 ^ mix(format!("{event:?}").len() as u64));
        self.note(index, || Call::Handle(event));
        self.nodes[index].engine.handle(Instant::from_micros(self.now), event);
    }

    fn note(&mut self, index: usize, call: impl FnOnce() -> Call) {
        if let Some(calls) = &mut self.calls {
            calls.push((Instant::from_micros(self.now), index, call()));
        }
    }

    fn arrive(&mut self, index: usize, peer: PeerId, head: &[u8], body: Option<(u32, bool)>) {
        let now = Instant::from_micros(self.now);
        let Some((remote, remote_peer)) = self.nodes[index].links.get(&peer).copied() else { return };
        self.note(index, || Call::Receive(peer, head.to_vec()));
        let node = &mut self.nodes[index];
        match node.engine.receive(now, peer, head) {
            Ok(Received::Head { consumed, body: landing }) => {
                assert_eq!(consumed, head.len());
                node.control_bytes += head.len() as u64;
                if (Kind::Map as u8..=Kind::Lost as u8).contains(&head[2]) || head[2] == Kind::Touched as u8 {
                    node.have_bytes += head.len() as u64;
                }
                node.body_bytes += body.map_or(0, |(bytes, _)| u64::from(bytes));
                if let Landing::Land { slot, bytes } = landing {
                    let (sent, genuine) = body.unwrap();
                    assert_eq!(sent, bytes);
                    node.slots.insert(slot, genuine);
                    self.tell(index, Event::BodyLanded { slot });
                }
            }
            Ok(Received::NeedMore { .. }) => panic!("a whole frame needs more"),
            Err(error) => {
                node.links.remove(&peer);
                self.tell(index, Event::PeerClosed { peer });
                self.nodes[remote].links.remove(&remote_peer);
                self.at(self.now + self.latency, remote, What::Closed { peer: remote_peer });
                let expected = matches!(error, swarmdisk_core::engine::PeerError::Bye(_));
                assert!(expected || self.nodes[remote].spec.lies, "node {index}: {error} (of {remote})");
            }
        }
    }

    fn guest_reads(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let (_, number) = node.spec.trace[node.guest_next];
        let chunk = self.geometry.chunk(number).unwrap();
        if node.kept.contains(&number) {
            self.tell(index, Event::Touched { guest: GuestId(0), chunk });
            self.guest_got(index);
        } else {
            node.guest_waits = Some(number);
            node.demand_misses += 1;
            self.tell(index, Event::Wanted { guest: GuestId(0), chunk });
        }
    }

    fn guest_got(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.guest_waits = None;
        node.guest_next += 1;
        match node.spec.trace.get(node.guest_next) {
            Some((think, _)) => {
                let at = self.now + think;
                self.at(at, index, What::GuestReads);
            }
            None => node.finished_at = Some(self.now),
        }
    }

    /// Polls a node until it has nothing more to do, then sets its alarm.
    fn drain(&mut self, index: usize) {
        let now = Instant::from_micros(self.now);
        let mut head = [0; HEAD_BYTES_MAX];
        let mut actions = 0;
        loop {
            self.note(index, || Call::Poll);
            let Some(action) = self.nodes[index].engine.poll(now, &mut head) else { break };
            self.act(index, action, &head);
            actions += 1;
            assert!(actions < 100_000, "poll goes on for ever: {action:?}");
        }
        if self.check {
            self.nodes[index].engine.check_invariants();
        }
        if let Some(deadline) = self.nodes[index].engine.deadline() {
            let deadline = deadline.as_micros();
            assert!(deadline > self.now, "the deadline of node {index} is not in the future");
            if deadline < self.nodes[index].wakeup {
                self.nodes[index].wakeup = deadline;
                self.at(deadline, index, What::Wake);
            }
        }
    }

    fn act(&mut self, index: usize, action: Action, head: &[u8]) {
        self.digest = mix(self.digest ^ mix(format!("{action:?}").bytes().map(u64::from).sum::<u64>() ^ self.now));
        let soon = self.now + 50;
        match action {
            Action::Dial { peer, address: to } => {
                let own = address(index);
                let at = self.now + 2 * self.latency;
                let to = usize::from(to.port) - 1;
                let address = Address { port: 50_000, ..own };
                self.at(at, index, What::Opened { peer, to, address });
            }
            Action::Hangup { peer, .. } => {
                if let Some((remote, remote_peer)) = self.nodes[index].links.remove(&peer) {
                    self.at(self.now + self.latency, remote, What::Closed { peer: remote_peer });
                }
            }
            Action::Transmit { peer, head_bytes, body } => {
                self.transmit(index, peer, &head[..usize::from(head_bytes)], body)
            }
            Action::Load { upload, piece } => {
                assert!(self.nodes[index].kept.contains(&piece.get()), "only what is held is loaded");
                let bytes = wire_bytes(self.geometry, piece.get());
                self.at(soon, index, What::Tell(Event::Loaded { upload, bytes }));
            }
            Action::Verify { slot, piece } => {
                self.assert_leaf_kept(index, piece);
                let verdict = if self.nodes[index].slots[&slot] { Verdict::Genuine } else { Verdict::Corrupt };
                self.at(soon, index, What::Tell(Event::BodyVerified { slot, verdict }));
            }
            Action::Deliver { slot, piece } => {
                assert!(self.nodes[index].slots[&slot], "no wrong byte reaches a guest");
                assert_eq!(self.nodes[index].guest_waits, Some(piece.get()));
                self.guest_got(index);
            }
            Action::Store { slot, piece } => {
                assert!(self.nodes[index].slots.remove(&slot).unwrap(), "only what is genuine is kept");
                self.keep(index, piece);
                self.at(soon, index, What::Tell(Event::BodyStored { slot }));
            }
            Action::Abandon { slot } => {
                self.nodes[index].slots.remove(&slot);
            }
            _ => panic!("an action that this network does not know: {action:?}"),
        }
    }

    fn assert_leaf_kept(&self, index: usize, piece: PieceIndex) {
        if let Piece::Chunk(chunk) = self.geometry.kind(piece) {
            let leaf = self.geometry.leaf_piece(self.geometry.leaf_of(chunk));
            assert!(self.nodes[index].kept.contains(&leaf.get()), "a chunk is verified with its leaf page");
        }
    }

    fn keep(&mut self, index: usize, piece: PieceIndex) {
        self.nodes[index].kept.insert(piece.get());
        if let Piece::Leaf(leaf) = self.geometry.kind(piece) {
            for number in leaf.first_chunk()..leaf.first_chunk() + self.geometry.leaf_chunk_count(leaf) {
                if is_zero(number) && self.nodes[index].kept.insert(number) {
                    let first = self.geometry.piece(number).unwrap();
                    self.tell(index, Event::Held { first, count: 1 });
                    if self.nodes[index].guest_waits == Some(number) {
                        self.guest_got(index);
                    }
                }
            }
        } else if self.nodes[index].guest_waits == Some(piece.get()) {
            self.guest_got(index);
        }
    }

    fn transmit(&mut self, index: usize, peer: PeerId, head: &[u8], body: Option<Body>) {
        let bytes = match body {
            Some(Body::Piece(piece)) => wire_bytes(self.geometry, piece.get()),
            Some(Body::Blob { bytes, .. }) => bytes,
            None => 0,
        };
        let size = head.len() as u32 + bytes;
        let node = &mut self.nodes[index];
        let sent = node.uplink_free.max(self.now) + u64::from(size) * 1_000_000 / node.spec.rate;
        node.uplink_free = sent;
        let Some((remote, remote_peer)) = node.links.get(&peer).copied() else { return };
        let body = body.map(|_| (bytes, !node.spec.lies));
        let there = &mut self.nodes[remote];
        let arrived = (sent + self.latency).max(there.downlink_free + u64::from(size) * 1_000_000 / there.spec.rate);
        there.downlink_free = arrived;
        self.at(sent, index, What::Sent { peer, bytes: size });
        self.at(arrived, remote, What::Arrived { peer: remote_peer, head: head.to_vec(), body });
    }

    /// A node dies without a word; the others notice after a round trip, as when its operating system resets the links.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].up = false;
        let links: Vec<_> = self.nodes[index].links.drain().collect();
        for (_, (remote, peer)) in links {
            self.at(self.now + self.latency, remote, What::Closed { peer });
        }
    }

    /// Gives a node all pieces of `range` from the start.
    pub fn give(&mut self, index: usize, range: std::ops::Range<u32>) {
        let first = self.geometry.piece(range.start).unwrap();
        self.nodes[index].kept.extend(range.clone());
        self.tell(index, Event::Held { first, count: range.len() as u32 });
        self.at(self.now, index, What::Wake);
    }

    pub fn engine(&mut self, index: usize) -> &mut TestEngine {
        &mut self.nodes[index].engine
    }

    pub fn stats(&self, index: usize) -> &Stats {
        self.nodes[index].engine.stats()
    }

    pub fn finished_at(&self, index: usize) -> Option<u64> {
        self.nodes[index].finished_at
    }

    pub fn kept(&self, index: usize) -> usize {
        self.nodes[index].kept.len()
    }

    /// Reads of its guest that had to wait.
    pub fn demand_misses(&self, index: usize) -> usize {
        self.nodes[index].demand_misses
    }

    /// Bytes received by all nodes: announcements of what is held and touched, and everything.
    pub fn traffic(&self) -> (u64, u64) {
        let have = self.nodes.iter().map(|node| node.have_bytes).sum();
        let all = self.nodes.iter().map(|node| node.control_bytes + node.body_bytes).sum();
        (have, all)
    }
}

/// A boot-like trace: `count` chunks in short runs all over the image, `think` apart on average.
pub fn boot(geometry: Geometry, count: usize, think_micros: u64) -> Vec<(u64, u32)> {
    let mut trace = Vec::new();
    let mut seen = BTreeSet::new();
    let mut draw = 1u64;
    while trace.len() < count {
        draw = mix(draw.wrapping_add(0x9E37_79B9_7F4A_7C15));
        let start = (draw % u64::from(geometry.chunk_count())) as u32;
        for chunk in (start..geometry.chunk_count().min(start + 1 + (draw >> 40) as u32 % 6)).take(count - trace.len())
        {
            if !is_zero(chunk) && seen.insert(chunk) {
                trace.push((think_micros / 2 + mix(draw ^ u64::from(chunk)) % think_micros, chunk));
            }
        }
    }
    trace
}

/// The profile that recording `trace` would give; leaked.
pub fn profile_of(geometry: Geometry, trace: &[(u64, u32)]) -> &'static [ProfileEntry] {
    let mut at = 0;
    let entries: Vec<_> = trace
        .iter()
        .map(|(think, chunk)| {
            at += think;
            ProfileEntry::single(geometry.chunk(*chunk).unwrap(), (at / 1000) as u32, 255)
        })
        .collect();
    Box::leak(entries.into_boxed_slice())
}

/// Bytes on the wire of a trace's chunks and their leaf pages.
pub fn working_set(geometry: Geometry, trace: &[(u64, u32)]) -> u64 {
    let leaves: BTreeSet<u32> = trace.iter().map(|(_, chunk)| geometry.chunk_count() + chunk / LEAF_CHUNKS).collect();
    let pieces = trace.iter().map(|(_, chunk)| *chunk).chain(leaves);
    pieces.map(|piece| u64::from(wire_bytes(geometry, piece))).sum()
}

/// 100 Mbit/s in bytes a second.
pub const FAST_ETHERNET: u64 = 12_500_000;

/// An image of `gib` GiB in chunks of 64 KiB.
pub fn image(gib: u64) -> Geometry {
    Geometry::new(gib << 30, 16).unwrap()
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn count(bits: Bits<'_>) -> u32 {
    bits.count()
}
