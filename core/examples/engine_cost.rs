//! What an engine costs: `cargo run --release -p swarmdisk-core --example engine_cost`.
//!
//! A swarm is run once and all calls to its engines are noted; then fresh engines are given the same calls in the same
//! order, and only that is timed. The best of three runs counts. *Units*: nanoseconds a call, microseconds a chunk.

#[path = "../tests/net/mod.rs"]
mod net;

use net::{Call, FAST_ETHERNET, Net, NodeSpec, TestEngine};
use std::collections::VecDeque;
use std::hint::black_box;
use swarmdisk_core::engine::{Action, Body, Config, Engine, Event, Fill, Footprint, Limits};
use swarmdisk_core::geometry::Geometry;
use swarmdisk_core::ids::{Address, NodeId, PeerId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::policy::{ExpectedCompletion, Mixed, WindowedRandom};
use swarmdisk_core::rng::Rng;
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::{self, Class, Decoded, Frame, HEAD_BYTES_MAX, Hello, Request, Role, Run};

const REPEATS: usize = 3;
type Noted = Vec<(Instant, usize, Call)>;

fn main() {
    println!("{:<44} {:>9} {:>10} {:>11} {:>10}", "", "ns a call", "calls", "µs a chunk", "calls each");
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let run = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    for (name, boot_chunks) in [("swarm of 40", 1500), ("swarm of 40, start only", 100)] {
        if run(name) {
            swarm(name, 40, boot_chunks);
        }
    }
    for links in [1_000, 10_000] {
        for (kind, uplink) in [("", Uplink::WIDE), (", narrow uplink", Uplink::NARROW)] {
            let name = format!("seed, {links} links{kind}");
            if run(&name) {
                Crowd::new(links, uplink).measure(&name);
            }
        }
    }
}

/// The nodes of a swarm that boots an image of 3 GiB with a profile.
fn swarm(name: &str, nodes: usize, boot_chunks: usize) {
    let geometry = net::image(3);
    let trace = net::boot(geometry, boot_chunks, 3600);
    let profile = net::profile_of(geometry, &trace);
    let node = NodeSpec { profile, sequential: true, trace, ..NodeSpec::node(FAST_ETHERNET) };
    let node = NodeSpec { limits: Limits::NODE, ..node };
    let mut specs = vec![node; nodes + 1];
    specs[0] = NodeSpec::seed(FAST_ETHERNET);
    let mut net = Net::new(geometry, 250, specs.clone());
    net.check = false;
    net.calls = Some(vec![]);
    assert!(net.run(600_000_000), "a guest waits for ever");
    let calls = net.calls.take().expect("calls were noted");
    let calls: Noted = calls.into_iter().filter(|(_, index, _)| *index > 0).collect();
    let stored = |call: &Call| matches!(call, Call::Handle(Event::BodyStored { .. }));
    let chunks = calls.iter().filter(|(_, _, call)| stored(call)).count();
    let fresh = || specs.iter().enumerate().map(|(index, spec)| net::fresh_engine(geometry, index, spec)).collect();
    report(name, fresh, &calls, chunks);
}

fn report(name: &str, fresh: impl Fn() -> Vec<TestEngine>, calls: &Noted, chunks: usize) {
    let nanos = (0..REPEATS).map(|_| replay(&mut fresh(), calls)).min().expect("there are repeats");
    let (count, each) = (calls.len(), calls.len() as f64 / chunks as f64);
    let (call, chunk) = (nanos as f64 / count as f64, nanos as f64 / 1000.0 / chunks as f64);
    println!("{name:<44} {call:>9.0} {count:>10} {chunk:>11.2} {each:>10.1}");
}

/// Nanoseconds that the calls take.
fn replay(engines: &mut [TestEngine], calls: &Noted) -> u128 {
    let mut head = [0; HEAD_BYTES_MAX];
    let start = std::time::Instant::now();
    for (now, index, call) in calls {
        let engine = &mut engines[*index];
        match call {
            Call::Admit(address) => drop(black_box(engine.admit(*now, *address, net::CREDIT))),
            Call::Handle(event) => engine.handle(*now, *event),
            Call::Receive(peer, bytes) => drop(black_box(engine.receive(*now, *peer, bytes))),
            Call::Poll => {
                let _ = black_box(engine.poll(*now, &mut head));
                black_box(engine.deadline());
            }
        }
    }
    start.elapsed().as_nanos()
}

/// A seed with many links: a fifth of them ask for chunk after chunk, the rest only answers its pings.
struct Crowd {
    geometry: Geometry,
    config: Config,
    engine: TestEngine,
    uplink: Uplink,
    now: u64,
    calls: Noted,
    /// What the seed hears, and when; in order of time.
    later: VecDeque<(u64, Call)>,
    /// When the uplink has sent all that it was given.
    uplink_free: u64,
    sent_chunks: usize,
}

/// Between two requests, of whomever: 4,000 a second.
const PACE_MICROS: u64 = 250;
/// From an action to the answer.
const ANSWER_MICROS: u64 = 100;
const MEASURED_REQUESTS: usize = 20_000;

#[derive(Clone, Copy)]
struct Uplink {
    bytes_per_sec: u64,
    unsent_bytes_max: u32,
}

impl Uplink {
    /// Sends all that is asked for.
    const WIDE: Self = Self { bytes_per_sec: 1_000_000_000, unsent_bytes_max: u32::MAX };
    /// Keeps who asks waiting.
    const NARROW: Self = Self { bytes_per_sec: 12_500_000, unsent_bytes_max: 256 << 10 };
}

impl Crowd {
    fn new(links: u16, uplink: Uplink) -> Self {
        let geometry = net::image(3);
        let requests_per_peer = if links > 4000 { 5 } else { 16 };
        let limits = Limits { peers: links, requests_per_peer, ..Limits::SEED };
        let config =
            Config { unsent_bytes_max: uplink.unsent_bytes_max, fill: Fill::Off, ..net::config(0, Role::Seed, limits) };
        let engine = Self::fresh(geometry, &config);
        let (calls, later) = (vec![], VecDeque::new());
        Self { geometry, config, engine, now: 1, uplink, calls, later, uplink_free: 0, sent_chunks: 0 }
    }

    fn fresh(geometry: Geometry, config: &Config) -> TestEngine {
        let policies = (Mixed::default(), WindowedRandom::default(), ExpectedCompletion);
        let storage = net::storage(Footprint::of(geometry, config.limits));
        Engine::new(Instant::ZERO, geometry, config.clone(), storage, policies).expect("the limits are right")
    }

    fn measure(mut self, name: &str) {
        let first = self.geometry.piece(0).expect("the image is not empty");
        self.call(Call::Handle(Event::Held { first, count: self.geometry.piece_count() }));
        let peers: Vec<PeerId> = (0..self.config.limits.peers).map(|number| self.join(number)).collect();
        self.settle(self.now + 20_000_000);
        let settled = self.calls.len();
        self.sent_chunks = 0;
        let mut rng = Rng::new(1);
        for _ in 0..MEASURED_REQUESTS {
            self.settle(self.now + PACE_MICROS);
            let peer = peers[rng.below(peers.len() as u32 / 5) as usize * 5];
            let run = Run { first: rng.below(1500), count: 1 };
            let class = if rng.below(4) == 0 { Class::Demand } else { Class::Prefetch };
            self.hear(peer, &Frame::Request(Request { run, class, insist: true, raise: false, due_millis: 0 }));
        }
        let (setup, calls) = (self.calls[..settled].to_vec(), self.calls[settled..].to_vec());
        let fresh = || {
            let mut engines = vec![Self::fresh(self.geometry, &self.config)];
            replay(&mut engines, &setup);
            engines
        };
        report(&format!("{name}, joining"), || vec![Self::fresh(self.geometry, &self.config)], &setup, peers.len());
        report(name, fresh, &calls, self.sent_chunks);
    }

    fn join(&mut self, number: u16) -> PeerId {
        let address = Address { ip: [2; 16], port: number + 1 };
        self.calls.push((Instant::from_micros(self.now), 0, Call::Admit(address)));
        let peer = self.engine.admit(Instant::from_micros(self.now), address, net::CREDIT).expect("there is room");
        let mut node = NodeId([9; 16]);
        node.0[..2].copy_from_slice(&number.to_le_bytes());
        let (features, requests_max) = (0, 16);
        let (version, image) = (wire::VERSION, self.config.image);
        let hello = Hello {
            version,
            features,
            image,
            node,
            listen: address,
            role: Role::Node,
            requests_max,
            locality: Locality::NONE,
        };
        self.hear(peer, &Frame::Hello(hello));
        self.settle(self.now + PACE_MICROS);
        peer
    }

    /// Until then: alarms, and what the seed hears.
    fn settle(&mut self, until: u64) {
        loop {
            let heard = self.later.front().map_or(u64::MAX, |(at, _)| *at);
            let alarm = self.engine.deadline().map_or(u64::MAX, Instant::as_micros);
            self.now = heard.min(alarm).max(self.now);
            if self.now > until {
                self.now = until;
                return;
            }
            if heard <= alarm
                && let Some((_, call)) = self.later.pop_front()
            {
                self.call(call);
            }
            self.drain();
        }
    }

    fn hear(&mut self, peer: PeerId, frame: &Frame<'_>) {
        let mut head = [0; HEAD_BYTES_MAX];
        let length = wire::encode(frame, &mut head).expect("the frame fits");
        self.call(Call::Receive(peer, head[..length].to_vec()));
        self.drain();
    }

    fn call(&mut self, call: Call) {
        let now = Instant::from_micros(self.now);
        match &call {
            Call::Handle(event) => self.engine.handle(now, *event),
            // Who asks for more than it may is dropped by the host; here it has simply asked in vain.
            Call::Receive(peer, bytes) => drop(self.engine.receive(now, *peer, bytes)),
            Call::Admit(_) | Call::Poll => unreachable!("made elsewhere"),
        }
        self.calls.push((now, 0, call));
    }

    fn drain(&mut self) {
        let mut head = [0; HEAD_BYTES_MAX];
        loop {
            let now = Instant::from_micros(self.now);
            self.calls.push((now, 0, Call::Poll));
            let Some(action) = self.engine.poll(now, &mut head) else { return };
            match action {
                Action::Load { upload, piece } => {
                    let bytes = net::wire_bytes(self.geometry, piece.get());
                    self.answer(self.now + ANSWER_MICROS, Call::Handle(Event::Loaded { upload, bytes }));
                }
                Action::Transmit { peer, head_bytes, body } => {
                    self.transmit(peer, &head[..usize::from(head_bytes)], body)
                }
                _ => panic!("a seed does not do that: {action:?}"),
            }
        }
    }

    fn transmit(&mut self, peer: PeerId, head: &[u8], body: Option<Body>) {
        let body_bytes = match body {
            Some(Body::Piece(piece)) => net::wire_bytes(self.geometry, piece.get()),
            _ => 0,
        };
        self.sent_chunks += usize::from(body.is_some());
        let bytes = head.len() as u32 + body_bytes;
        let sent = self.uplink_free.max(self.now) + u64::from(bytes) * 1_000_000 / self.uplink.bytes_per_sec;
        self.uplink_free = sent;
        self.answer(sent, Call::Handle(Event::PeerWritable { peer, bytes }));
        if let Ok(Decoded::Frame { frame: Frame::Ping(nonce), .. }) = wire::decode(head) {
            let mut pong = [0; HEAD_BYTES_MAX];
            let length = wire::encode(&Frame::Pong(nonce), &mut pong).expect("the frame fits");
            self.answer(sent + ANSWER_MICROS, Call::Receive(peer, pong[..length].to_vec()));
        }
    }

    fn answer(&mut self, at: u64, call: Call) {
        let index = self.later.partition_point(|(time, _)| *time <= at);
        self.later.insert(index, (at, call));
    }
}
