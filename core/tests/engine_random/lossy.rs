//! Engines back to back through a lossy host: links break, bodies are corrupt, the store fails, pieces are lost, at random.
//! When that ends, every guest gets what it waits for.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use swarmdisk_core::engine::{Body, Event, Landing, Received, Verdict};
use swarmdisk_core::geometry::PieceIndex;
use swarmdisk_core::ids::{Address, GuestId, PeerId, SlotId};
use swarmdisk_core::rng::Rng;

/// Bytes of a body; no more than a short leaf page has.
const BYTES: u32 = 3000;
/// Microseconds after the last fault within which all guests must have been served.
const PATIENCE: u64 = 120_000_000;

struct Node {
    engine: RandomEngine,
    /// What the host has yet to say.
    answers: Vec<Event>,
    kept: BTreeSet<u32>,
    waits: BTreeSet<u32>,
    /// Pieces on their way to the store.
    storing: Vec<(SlotId, u32)>,
}

/// Two ends, and what is on its way to each.
struct Link {
    ends: [(usize, PeerId); 2],
    pipes: [VecDeque<Vec<u8>>; 2],
}

struct Lossy {
    now: u64,
    nodes: Vec<Node>,
    links: Vec<Link>,
    rng: Rng,
    faults: bool,
}

impl Lossy {
    /// A seed and `nodes` others, which know its address.
    fn new(nodes: usize, seed: u64) -> Self {
        let mut lossy = Self { now: 0, nodes: vec![], links: vec![], rng: Rng::new(seed), faults: true };
        for index in 0..=nodes {
            let role = if index == 0 { Role::Seed } else { Role::Node };
            // Room for as many demands as the test makes: the host has to see to that.
            let limits = Limits { demands: 64, ..small() };
            let mut engine = engine(index, role, limits, |config| config.fill = Fill::Off);
            let mut kept = BTreeSet::new();
            if index == 0 {
                let (first, count) = (geometry().piece(0).unwrap(), geometry().piece_count());
                kept.extend(0..count);
                engine.handle(Instant::ZERO, Event::Held { first, count });
            } else {
                engine.handle(Instant::ZERO, Event::ContactFound { address: net::address(0), seed: true });
            }
            lossy.nodes.push(Node { engine, answers: vec![], kept, waits: BTreeSet::new(), storing: vec![] });
        }
        lossy
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.faults && self.rng.below(count) == 0
    }

    fn tell(&mut self, node: usize, event: Event) {
        self.nodes[node].engine.handle(Instant::from_micros(self.now), event);
        self.nodes[node].engine.check_invariants();
    }

    fn poll(&mut self, node: usize) {
        let (now, mut actions) = (Instant::from_micros(self.now), vec![]);
        drain(&mut self.nodes[node].engine, now, |action, head| actions.push((action, head.to_vec())));
        actions.into_iter().for_each(|(action, head)| self.act(node, action, &head));
    }

    fn act(&mut self, node: usize, action: Action, head: &[u8]) {
        match action {
            Action::Dial { peer, address } => self.dial(node, peer, address),
            Action::Hangup { peer, .. } => self.hang_up(node, peer),
            Action::Transmit { peer, head_bytes, body } => {
                let bytes =
                    u32::from(head_bytes) + body.map_or(0, |body| if let Body::Piece(_) = body { BYTES } else { 0 });
                self.nodes[node].answers.push(Event::PeerWritable { peer, bytes });
                if let Some((link, side)) = self.link(node, peer) {
                    self.links[link].pipes[1 - side].push_back(head[..usize::from(head_bytes)].to_vec());
                }
            }
            Action::Load { upload, piece } => {
                let kept = self.nodes[node].kept.contains(&piece.get());
                let answer = if kept { Event::Loaded { upload, bytes: BYTES } } else { Event::PieceLost { piece } };
                self.nodes[node].answers.push(answer);
            }
            Action::Verify { slot, piece } => {
                self.assert_leaf(node, piece);
                let verdict = if self.one_in(30) { Verdict::Corrupt } else { Verdict::Genuine };
                self.nodes[node].answers.push(Event::BodyVerified { slot, verdict });
            }
            Action::Deliver { piece, .. } => {
                self.nodes[node].waits.remove(&piece.get());
            }
            Action::Store { slot, piece } => {
                let answer = if self.one_in(20) { Event::StoreFailed { slot } } else { Event::BodyStored { slot } };
                self.nodes[node].storing.push((slot, piece.get()));
                self.nodes[node].answers.push(answer);
            }
            _ => {}
        }
    }

    /// A leaf page may have been lost since the chunk's verification began, not in these tests.
    fn assert_leaf(&self, node: usize, piece: PieceIndex) {
        if piece.get() < CHUNKS {
            assert!(
                self.nodes[node].kept.contains(&(CHUNKS + piece.get() / 256)),
                "a chunk is verified with its leaf page"
            );
        }
    }

    fn link(&self, node: usize, peer: PeerId) -> Option<(usize, usize)> {
        let ends = self.links.iter().enumerate().flat_map(|(link, it)| [(link, 0, it.ends[0]), (link, 1, it.ends[1])]);
        ends.into_iter().find(|(_, _, end)| *end == (node, peer)).map(|(link, side, _)| (link, side))
    }

    fn dial(&mut self, node: usize, peer: PeerId, to: Address) {
        let there = usize::from(to.port) - 1;
        let now = Instant::from_micros(self.now);
        let own = Address { port: 50_000, ..net::address(node) };
        let refused = there >= self.nodes.len() || self.one_in(5);
        let accepted = if refused { None } else { self.nodes[there].engine.admit(now, own, 60_000) };
        match accepted {
            Some(remote) => {
                self.links.push(Link { ends: [(node, peer), (there, remote)], pipes: Default::default() });
                self.nodes[node].answers.push(Event::PeerOpened { peer, credit_bytes: 60_000 });
            }
            None => self.nodes[node].answers.push(Event::PeerClosed { peer }),
        }
    }

    /// One side closes; what was on its way to the other still comes, in tests without faults.
    fn hang_up(&mut self, node: usize, peer: PeerId) {
        if let Some((link, side)) = self.link(node, peer) {
            let link = self.links.remove(link);
            let (other, there) = link.ends[1 - side];
            self.nodes[other].answers.push(Event::PeerClosed { peer: there });
        }
    }

    /// The next frame of a link arrives.
    fn deliver(&mut self, link: usize, side: usize) {
        let Some(head) = self.links[link].pipes[side].pop_front() else { return };
        let (node, peer) = self.links[link].ends[side];
        let received = self.nodes[node].engine.receive(Instant::from_micros(self.now), peer, &head);
        self.nodes[node].engine.check_invariants();
        match received {
            Ok(Received::Head { body: Landing::Land { slot, .. }, .. }) => {
                self.nodes[node].answers.push(Event::BodyLanded { slot });
            }
            Ok(received) => assert!(matches!(received, Received::Head { .. })),
            Err(_) => {
                self.hang_up(node, peer);
                self.tell(node, Event::PeerClosed { peer });
            }
        }
    }

    /// The host says something that it owes.
    fn answer(&mut self, node: usize, at: usize) {
        let event = self.nodes[node].answers.remove(at);
        if let Event::BodyStored { slot } | Event::StoreFailed { slot } = event {
            let at = self.nodes[node].storing.iter().position(|(stored, _)| *stored == slot).unwrap();
            let (_, piece) = self.nodes[node].storing.remove(at);
            if matches!(event, Event::BodyStored { .. }) {
                self.nodes[node].kept.insert(piece);
                self.nodes[node].waits.remove(&piece);
            }
        }
        self.tell(node, event);
    }

    fn reads(&mut self, node: usize, number: u32) {
        let (guest, chunk) = (GuestId(0), geometry().chunk(number).unwrap());
        if self.nodes[node].kept.contains(&number) {
            self.tell(node, Event::Touched { guest, chunk });
        } else if self.nodes[node].waits.insert(number) {
            self.tell(node, Event::Wanted { guest, chunk });
        }
    }

    fn step(&mut self, draw: u8) {
        let node = 1 + self.rng.below(self.nodes.len() as u32 - 1) as usize;
        match draw % 32 {
            0..=2 => {
                let number = self.rng.below(40) * 11;
                self.reads(node, number);
            }
            3 if !self.links.is_empty() && self.one_in(20) => {
                let link = self.rng.below(self.links.len() as u32) as usize;
                let (at, peer) = self.links[link].ends[0];
                self.hang_up(at, peer);
                self.tell(at, Event::PeerClosed { peer });
            }
            4 if self.one_in(4) => {
                let waits: Vec<u32> = self.nodes[node].waits.iter().copied().collect();
                if let Some(number) = waits.first() {
                    self.nodes[node].waits.remove(number);
                    let chunk = geometry().chunk(*number).unwrap();
                    self.tell(node, Event::Released { guest: GuestId(0), chunk });
                }
            }
            5 => {
                let number = self.rng.below(CHUNKS);
                if self.nodes[node].kept.remove(&number) {
                    let piece = geometry().piece(number).unwrap();
                    self.tell(node, Event::PieceLost { piece });
                }
            }
            6..=8 => self.now += u64::from(self.rng.below(200_000)),
            9..=14 => {
                let node = self.rng.below(self.nodes.len() as u32) as usize;
                let count = self.nodes[node].answers.len() as u32;
                if count > 0 {
                    let at = self.rng.below(count) as usize;
                    self.answer(node, at);
                }
            }
            15..=22 if !self.links.is_empty() => {
                let link = self.rng.below(self.links.len() as u32) as usize;
                let side = self.rng.below(2) as usize;
                self.deliver(link, side);
            }
            _ => {
                let node = self.rng.below(self.nodes.len() as u32) as usize;
                self.poll(node);
            }
        }
    }

    /// No more faults: everything arrives, in time all guests are served.
    fn heal(&mut self) {
        self.faults = false;
        let end = self.now + PATIENCE;
        while self.nodes.iter().any(|node| !node.waits.is_empty()) {
            for node in 0..self.nodes.len() {
                while !self.nodes[node].answers.is_empty() {
                    self.answer(node, 0);
                }
                self.poll(node);
            }
            let mut moved = self.nodes.iter().any(|node| !node.answers.is_empty());
            for link in (0..self.links.len()).rev() {
                for side in 0..2 {
                    while self.links.get(link).is_some_and(|link| !link.pipes[side].is_empty()) {
                        self.deliver(link, side);
                        moved = true;
                    }
                }
            }
            if !moved {
                let next = self.nodes.iter().filter_map(|node| node.engine.deadline()).min();
                self.now = self.now.max(next.map_or(u64::MAX, Instant::as_micros));
            }
            let waits: Vec<_> = self.nodes.iter().map(|node| &node.waits).collect();
            assert!(self.now < end, "guests wait for ever: {waits:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 5000, ..ProptestConfig::default() })]

    #[test]
    fn after_all_faults_every_guest_gets_what_it_waits_for(
        seed in any::<u64>(),
        nodes in 1usize..4,
        draws in prop::collection::vec(any::<u8>(), 1..6000),
    ) {
        let mut lossy = Lossy::new(nodes, seed);
        for draw in draws {
            lossy.step(draw);
        }
        lossy.heal();
    }
}
