//! One engine with a careless host and hostile peers: events in any order, ids that are stale or made up, garbage.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use swarmdisk_core::engine::{Event, Landing, Received, Verdict};
use swarmdisk_core::geometry::{ChunkIndex, PieceIndex};
use swarmdisk_core::ids::{Address, Digest, GuestId, NodeId, PeerId, SlotId, UploadId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::*;

/// A call, drawn: what kind, and three numbers from which the rest follows.
type Draw = (u8, u32, u32, u32);

struct Careless {
    engine: RandomEngine,
    now: u64,
    // Ids that the engine has issued, in use or not.
    peers: Vec<PeerId>,
    slots: Vec<SlotId>,
    uploads: Vec<UploadId>,
    /// What a good host would say next.
    answers: Vec<Event>,
    /// What good peers would say next.
    replies: Vec<(PeerId, Vec<u8>)>,
    genuine: BTreeSet<SlotId>,
}

fn made_up<T: serde::de::DeserializeOwned>(index: u32, generation: u32) -> T {
    postcard::from_bytes(&[(index % 10) as u8, (generation % 4) as u8]).unwrap()
}

fn any_of<T: Copy + serde::de::DeserializeOwned>(issued: &[T], pick: u32, other: u32) -> T {
    if issued.is_empty() || pick.is_multiple_of(16) {
        made_up(pick / 16, other)
    } else {
        issued[pick as usize % issued.len()]
    }
}

fn some_address(number: u32) -> Address {
    net::address(number as usize % 9)
}

fn some_locality(number: u32) -> Locality {
    Locality { zone: number % 2, rack: number % 3, host: number % 5 }
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut head = [0; HEAD_BYTES_MAX];
    let length = encode(frame, &mut head).unwrap();
    head[..length].to_vec()
}

impl Careless {
    fn new(role: Role, seed: u64) -> Self {
        let change = |config: &mut Config| {
            config.seed = seed;
            config.locality = some_locality(seed as u32);
            config.tuning.queue = 2;
            config.unsent_bytes_max = if seed.is_multiple_of(2) { 50_000 } else { u32::MAX };
        };
        let limits = Limits { transfers: if seed.is_multiple_of(3) { 8 } else { 40 }, ..small() };
        let mut engine = engine(0, role, limits, change);
        if role == Role::Seed {
            let (first, count) = (geometry().piece(0).unwrap(), geometry().piece_count());
            engine.handle(Instant::ZERO, Event::Held { first, count });
        }
        let (peers, slots, uploads) = (vec![], vec![], vec![]);
        Self { engine, now: 0, peers, slots, uploads, answers: vec![], replies: vec![], genuine: BTreeSet::new() }
    }

    fn time(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    fn chunk(&self, number: u32) -> ChunkIndex {
        // Most of the time among few, so that calls concern each other.
        let bound = if number.is_multiple_of(4) { CHUNKS } else { 20 };
        geometry().chunk(number / 4 % bound).unwrap()
    }

    fn piece(&self, number: u32) -> PieceIndex {
        let pieces = geometry().piece_count();
        let index =
            if number.is_multiple_of(5) { CHUNKS + number / 5 % (pieces - CHUNKS) } else { self.chunk(number).get() };
        geometry().piece(index).unwrap()
    }

    fn event(&mut self, (_, a, b, c): Draw) -> Event {
        let (guest, chunk, piece) = (GuestId((b % 3) as u16), self.chunk(a), self.piece(a));
        let leaf = geometry().leaf_of(chunk);
        let peer = any_of(&self.peers, a, b);
        let slot = any_of(&self.slots, a, b);
        match c % 24 {
            0..=3 => Event::Wanted { guest, chunk },
            4 => Event::Released { guest, chunk },
            5 => Event::LeafWanted { leaf },
            6 => Event::LeafReleased { leaf },
            7 => Event::Touched { guest, chunk },
            8 => Event::Held { first: piece, count: b % 3 },
            9 => Event::PieceLost { piece },
            10 => Event::ContactFound { address: some_address(a), seed: b % 2 == 0 },
            11 => Event::PeerOpened { peer, credit_bytes: b },
            12 => Event::PeerClosed { peer },
            13 => Event::PeerWritable { peer, bytes: c },
            14 => Event::BodyLanded { slot },
            15 | 16 => self.verified(slot, b),
            17 => Event::BodyStored { slot },
            18 => Event::StoreFailed { slot },
            19 => Event::Found { first: piece, count: b % 3 },
            20 => Event::Room { bytes: if b % 9 == 0 { i64::from(a) << 32 } else { i64::from(b % 40_000) - 20_000 } },
            21 => Event::Kept { first: piece, count: b % 30 },
            22 => Event::Room { bytes: [i64::MIN, i64::MAX][a as usize % 2] },
            _ => Event::Loaded { upload: any_of(&self.uploads, a, b), bytes: b % 65_537 },
        }
    }

    fn verified(&mut self, slot: SlotId, draw: u32) -> Event {
        let verdict = if draw.is_multiple_of(8) { Verdict::Corrupt } else { Verdict::Genuine };
        if verdict == Verdict::Genuine {
            self.genuine.insert(slot);
        }
        Event::BodyVerified { slot, verdict }
    }

    fn frame(&self, (_, a, b, c): Draw) -> Vec<u8> {
        let run = Run { first: self.piece(a).get(), count: 1 + (b % 4 + u32::from(b.is_multiple_of(64))) as u16 };
        let class = [Class::Demand, Class::Prefetch, Class::Fill][(b % 3) as usize];
        let (node, address) = (NodeId([(b % 6) as u8; 16]), some_address(b));
        let digest = Digest([if b % 2 == 0 { 7 } else { 8 }; 32]);
        let mut buffer = [0; 64];
        let mut list = RunsEncoder::new(&mut buffer, 0);
        let _ = list.push(a % 700, b % 300);
        let length = list.finish();
        let runs = &buffer[..length];
        let mut addresses = [0; 2 * ADDRESS_BYTES];
        pack_addresses([some_address(a), some_address(c)], &mut addresses);
        let mut localities = [0; 2 * LOCALITY_BYTES];
        pack_localities([some_locality(b), some_locality(c)], &mut localities);
        let range = BlobRange { digest, total_bytes: 0, offset: a % 2000, bytes: b };
        let frame = match c % 48 {
            0 => Frame::Hello(self.hello(a, if c % 3 == 0 { Role::Seed } else { Role::Node })),
            1 => Frame::Map(Map { first: 0, count: geometry().piece_count() + (b % 16) / 15, runs }),
            2 => Frame::Have(Pieces { runs }),
            3 => Frame::Lost(Pieces { runs }),
            8 => Frame::Cancel(run),
            9 => Frame::Data(Data { piece: run.first, bytes: b % 40_000 }),
            12 => Frame::Busy(Busy { run, retry_millis: a as u16 }),
            13 => Frame::Refuse(run),
            14 => Frame::Redirect(Redirect { run, node, address }),
            15 => Frame::Peers(Peers { addresses: &addresses, localities: &localities[..[0, 24][a as usize % 2]] }),
            16 => Frame::BlobRequest(range),
            17 => Frame::Ping(u64::from(a)),
            18 => Frame::Pong(self.now.wrapping_sub(u64::from(a))),
            19 => Frame::Touched(Touched { age_millis: a, touches: runs }),
            20 => Frame::Unknown(0x99),
            21 => Frame::Bye(Farewell::Leaving),
            _ => Frame::Request(Request { run, class, insist: a % 2 == 0, raise: a % 5 == 0, due_millis: a }),
        };
        encoded(&frame)
    }

    fn hello(&self, draw: u32, role: Role) -> Hello {
        Hello {
            version: VERSION,
            features: 0,
            image: Digest([7; 32]),
            node: NodeId([(draw % 5) as u8; 16]),
            listen: some_address(draw),
            role,
            requests_max: (draw % 9) as u16,
            locality: some_locality(draw),
        }
    }

    fn tell(&mut self, event: Event) {
        let time = self.time();
        self.engine.handle(time, event);
        if let Event::PeerOpened { peer, .. } = event {
            self.greets(peer);
        }
    }

    /// A good peer says hello, and that it holds everything.
    fn greets(&mut self, peer: PeerId) {
        let role = if peer.index().is_multiple_of(2) { Role::Seed } else { Role::Node };
        self.replies.push((peer, encoded(&Frame::Hello(self.hello(1 + peer.index() as u32, role)))));
        let mut buffer = [0; 16];
        let mut list = RunsEncoder::new(&mut buffer, 0);
        list.push(0, geometry().piece_count()).unwrap();
        let length = list.finish();
        let map = Map { first: 0, count: geometry().piece_count(), runs: &buffer[..length] };
        self.replies.push((peer, encoded(&Frame::Map(map))));
    }

    fn hear(&mut self, peer: PeerId, bytes: &[u8], careful: bool) {
        let time = self.time();
        match self.engine.receive(time, peer, bytes) {
            Ok(Received::Head { consumed, body }) => {
                assert!(consumed <= bytes.len());
                if let Landing::Land { slot, .. } = body {
                    self.slots.push(slot);
                    self.genuine.remove(&slot);
                    self.answers.push(Event::BodyLanded { slot });
                }
            }
            Ok(Received::NeedMore { bytes: more }) => assert!(more > bytes.len() && more <= HEAD_BYTES_MAX),
            Err(_) if careful => self.tell(Event::PeerClosed { peer }),
            Err(_) => {}
        }
    }

    fn poll_all(&mut self) {
        let (time, mut actions) = (self.time(), vec![]);
        drain(&mut self.engine, time, |action, head| actions.push((action, head.to_vec())));
        actions.into_iter().for_each(|(action, head)| self.act(action, &head));
    }

    /// Notes what a good host, and good peers, would do.
    fn act(&mut self, action: Action, head: &[u8]) {
        match action {
            Action::Dial { peer, .. } => {
                self.peers.push(peer);
                self.answers.push(Event::PeerOpened { peer, credit_bytes: 100_000 });
            }
            Action::Transmit { peer, head_bytes, .. } => {
                let head = &head[..usize::from(head_bytes)];
                self.answers.push(Event::PeerWritable { peer, bytes: 20_000 });
                match decode(head) {
                    Ok(Decoded::Frame { frame, consumed, .. }) if consumed == head.len() => self.reply(peer, &frame),
                    other => panic!("the engine sent no frame: {other:?}"),
                }
            }
            Action::Load { upload, piece } => {
                assert!(self.engine.holds(piece) || !self.answers.is_empty());
                self.uploads.push(upload);
                self.answers.push(Event::Loaded { upload, bytes: 10_000 });
            }
            Action::Verify { slot, .. } => {
                let answer = self.verified(slot, slot.generation().into());
                self.answers.push(answer);
            }
            Action::Deliver { slot, .. } => assert!(self.genuine.contains(&slot), "no wrong byte reaches a guest"),
            Action::Store { slot, .. } => {
                assert!(self.genuine.contains(&slot), "no wrong byte is kept");
                self.answers.push(Event::BodyStored { slot });
            }
            Action::Evict { chunk } => {
                let piece = geometry().chunk_piece(chunk);
                assert!(self.engine.holds(piece), "what goes is held");
                self.answers.push(Event::PieceLost { piece });
            }
            _ => {}
        }
    }

    fn reply(&mut self, peer: PeerId, frame: &Frame<'_>) {
        let frame = match frame {
            Frame::Ping(nonce) => Frame::Pong(*nonce),
            Frame::Request(request) => {
                let run = Run { first: request.run.first, count: 1 };
                for piece in run.first..run.first + u32::from(request.run.count) - 1 {
                    self.replies.push((peer, encoded(&Frame::Data(Data { piece: piece + 1, bytes: 2000 }))));
                }
                match run.first % 7 {
                    0 => Frame::Busy(Busy { run, retry_millis: 20 }),
                    1 => Frame::Redirect(Redirect { run, node: NodeId([3; 16]), address: some_address(3) }),
                    2 => Frame::Refuse(run),
                    _ => Frame::Data(Data { piece: run.first, bytes: 2000 }),
                }
            }
            _ => return,
        };
        self.replies.push((peer, encoded(&frame)));
    }

    fn step(&mut self, draw: Draw) {
        let (kind, a, b, c) = draw;
        let careful = c % 4 != 0;
        match kind % 16 {
            0..=2 => {
                let event = self.event(draw);
                self.tell(event);
            }
            3 => self.peers_come(a, b),
            4 => {
                let (peer, bytes) = (any_of(&self.peers, a, b), self.frame(draw));
                self.hear(peer, &bytes, careful);
            }
            5 => self.hears_garbage(draw, careful),
            6..=8 if !self.answers.is_empty() => {
                let answer = self.answers.swap_remove(a as usize % self.answers.len());
                self.tell(answer);
            }
            9..=11 if !self.replies.is_empty() => {
                // In the order of the link, mostly.
                let at = if a % 8 == 0 { b as usize % self.replies.len() } else { 0 };
                let (peer, bytes) = self.replies.remove(at);
                self.hear(peer, &bytes, careful);
            }
            12 => {
                let (time, mut head) = (self.time(), [0; HEAD_BYTES_MAX]);
                if let Some(action) = self.engine.poll(time, &mut head) {
                    self.act(action, &head);
                }
            }
            13 => self.reaches_the_deadline(),
            _ => {
                self.now += u64::from(a % 20_000) * u64::from(b % 20 / 19 * 100 + 1);
                self.poll_all();
            }
        }
        self.engine.check_invariants();
    }

    fn peers_come(&mut self, a: u32, b: u32) {
        let time = self.time();
        if let Some(peer) = self.engine.admit(time, some_address(a), b % 200_000) {
            self.peers.push(peer);
            self.greets(peer);
        }
    }

    fn hears_garbage(&mut self, (kind, a, b, c): Draw, careful: bool) {
        let mut bytes = self.frame((kind, b, c, a));
        match a % 3 {
            0 => {
                let bit = b as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            1 => bytes.truncate(b as usize % bytes.len()),
            _ => bytes
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = swarmdisk_core::rng::mix(u64::from(c) + at as u64) as u8),
        }
        let peer = any_of(&self.peers, a, b);
        self.hear(peer, &bytes, careful);
    }

    /// At the deadline there is something to do, or there is a later one.
    fn reaches_the_deadline(&mut self) {
        self.poll_all();
        let Some(deadline) = self.engine.deadline() else { return };
        self.now = deadline.as_micros();
        let mut head = [0; HEAD_BYTES_MAX];
        match self.engine.poll(deadline, &mut head) {
            Some(action) => self.act(action, &head),
            None => assert!(self.engine.deadline().is_none_or(|next| next > deadline), "stuck at a deadline"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_called_tables_stay_in_order_and_poll_ends(
        seed in any::<u64>(),
        is_seed in prop::bool::weighted(0.2),
        draws in prop::collection::vec(any::<Draw>(), 1..3000),
    ) {
        let mut careless = Careless::new(if is_seed { Role::Seed } else { Role::Node }, seed);
        for draw in draws {
            careless.step(draw);
        }
        careless.poll_all();
    }
}
