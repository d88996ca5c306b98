//! Engines called at random, recorded, and run again; recordings that were changed, cut, or never were one.

use super::*;
use crate::memory::Memory;
use crate::policies::{Prefetch, policies};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use swarmdisk_core::engine::{Action, Config, Event, Fill, Footprint, Landing, Limits, Received, Tuning, Verdict};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::format::recording::{
    RECORD_BYTES_MAX, Record, RecordingError, START_BYTES, Setup, encode as encode_record, start,
};
use swarmdisk_core::geometry::Geometry;
use swarmdisk_core::ids::{Address, Digest, GuestId, NodeId, PeerId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::{Busy, Data, Frame, HEAD_BYTES_MAX, Hello, Map, Request, Role, Run, VERSION, encode};

const GUEST: GuestId = GuestId(0);
const ADDRESS: Address = Address { ip: [1; 16], port: 7 };
/// Something that is done to the engine, and two numbers that say how.
type Step = (u8, u32, u32);

fn geometry() -> Geometry {
    Geometry::new(600 << 16, 16).unwrap()
}

fn profile() -> Vec<ProfileEntry> {
    let entry = |chunk| ProfileEntry::single(geometry().chunk(chunk).unwrap(), chunk, 200);
    (0..60).map(|number| entry(number * 7 % 300)).collect()
}

fn setup() -> Setup {
    let limits = Limits {
        peers: 9,
        transfers: 8,
        requests_per_peer: 4,
        demands: 6,
        contacts: 6,
        changes: 4,
        served: 4,
        touches: 8,
        maps: true,
        bounded: false,
    };
    let config = Config {
        limits,
        node: NodeId([1; 16]),
        image: Digest([7; 32]),
        role: Role::Node,
        listen: Address::NONE,
        locality: Locality::new(None, Some("7"), None),
        manifest_bytes: 1000,
        payload_bytes: 0,
        profile: None,
        teach: true,
        leaves_first: false,
        fill: Fill::Rate(50_000_000),
        seed: 3,
        unsent_bytes_max: u32::MAX,
        tuning: Tuning::DEFAULT,
    };
    Setup { now: Instant::from_micros(5), geometry: geometry(), config, policies: policies(Prefetch::Auto, true) }
}

/// What a recorded engine's host keeps in mind.
struct Host<'a> {
    engine: Recorded<'a>,
    now: Instant,
    peers: Vec<PeerId>,
    polled: Vec<Action>,
}

impl Host<'_> {
    fn step(&mut self, (what, a, b): Step) {
        self.now = Instant::from_micros(self.now.as_micros() + u64::from(b % 40_000));
        let chunk = geometry().chunk(a % geometry().chunk_count()).unwrap();
        match what % 10 {
            0 => self.tell(Event::Wanted { guest: GUEST, chunk }),
            1 => self.tell(Event::Touched { guest: GUEST, chunk }),
            2 => self.tell(Event::ContactFound { address: Address { port: a as u16, ..ADDRESS }, seed: b % 2 == 0 }),
            3 => self.tell(Event::PieceLost { piece: geometry().piece(a % geometry().piece_count()).unwrap() }),
            4 => {
                if let Some(peer) = self.engine.admit(self.now, ADDRESS, 100_000) {
                    self.peers.push(peer);
                    self.greet(peer, a);
                }
            }
            5 | 6 => {
                let Some(peer) = self.peers.get(a as usize % self.peers.len().max(1)) else { return };
                let run = Run { first: b % 600, count: 1 };
                match a % 4 {
                    0 => self.hear(*peer, &Frame::Busy(Busy { run, retry_millis: 30 })),
                    1 => {
                        let class = swarmdisk_core::wire::Class::Demand;
                        self.hear(
                            *peer,
                            &Frame::Request(Request { run, class, insist: false, raise: false, due_millis: 0 }),
                        );
                    }
                    2 => self.hear(*peer, &Frame::Refuse(run)),
                    // Not a whole frame.
                    _ => drop(self.engine.receive(self.now, *peer, &[3, 0][..b as usize % 3])),
                }
            }
            _ => self.act(),
        }
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event);
    }

    /// A peer says who it is, and that it holds all 603 pieces.
    fn greet(&mut self, peer: PeerId, number: u32) {
        self.hear(peer, &Frame::Hello(hello(number)));
        self.hear(peer, &Frame::Map(Map { first: 0, count: 603, runs: &[0, 0xdb, 0x04] }));
    }

    /// A head from a peer, and after it the body's bytes, which the engine is to leave alone.
    fn hear(&mut self, peer: PeerId, frame: &Frame<'_>) {
        let mut bytes = [0xbb; HEAD_BYTES_MAX + 100];
        encode(frame, &mut bytes).unwrap();
        match self.engine.receive(self.now, peer, &bytes) {
            Ok(Received::Head { body: Landing::Land { slot, .. }, .. }) => self.tell(Event::BodyLanded { slot }),
            Ok(_) => {}
            Err(_) => {
                self.peers.retain(|other| *other != peer);
                self.tell(Event::PeerClosed { peer });
            }
        }
    }

    /// Does what the engine asks for; pieces that it requests come at once.
    fn act(&mut self) {
        let mut head = [0; HEAD_BYTES_MAX];
        while let Some(action) = self.engine.poll(self.now, &mut head) {
            self.polled.push(action);
            match action {
                Action::Dial { peer, .. } => {
                    self.peers.push(peer);
                    self.tell(Event::PeerOpened { peer, credit_bytes: 100_000 });
                    self.greet(peer, 2 * self.peers.len() as u32);
                }
                Action::Hangup { peer, .. } => self.peers.retain(|other| *other != peer),
                Action::Transmit { peer, head_bytes, .. } => {
                    self.tell(Event::PeerWritable { peer, bytes: head_bytes.into() });
                    let decoded = swarmdisk_core::wire::decode(&head);
                    if let Ok(swarmdisk_core::wire::Decoded::Frame { frame: Frame::Request(request), .. }) = decoded {
                        self.hear(peer, &Frame::Data(Data { piece: request.run.first, bytes: 100 }));
                    }
                }
                Action::Load { upload, .. } => self.tell(Event::Loaded { upload, bytes: 100 }),
                Action::Verify { slot, .. } => self.tell(Event::BodyVerified { slot, verdict: Verdict::Genuine }),
                Action::Store { slot, .. } => self.tell(Event::BodyStored { slot }),
                _ => {}
            }
        }
    }
}

fn hello(number: u32) -> Hello {
    let node = NodeId((u128::from(number) + 100).to_le_bytes());
    let role = if number.is_multiple_of(2) { Role::Seed } else { Role::Node };
    Hello {
        version: VERSION,
        features: 0,
        image: Digest([7; 32]),
        node,
        listen: ADDRESS,
        role,
        requests_max: 16,
        locality: Locality::NONE,
    }
}

/// The recording of an engine to which these steps were done, and what it asked for.
fn recorded(steps: &[Step]) -> (Vec<u8>, Vec<Action>) {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let sink: Sink = Box::new({
        let bytes = bytes.clone();
        move |more| {
            bytes.lock().unwrap().extend_from_slice(more);
            true
        }
    });
    let polled = run(steps, Some(sink));
    let bytes = bytes.lock().unwrap().clone();
    (bytes, polled)
}

fn run(steps: &[Step], sink: Option<Sink>) -> Vec<Action> {
    let (setup, profile) = (setup(), profile());
    let mut memory = Memory::new(Footprint::of(setup.geometry, setup.config.limits), &setup.policies);
    let engine = Recorded::new(&setup, &profile, memory.storage(), sink, None).unwrap();
    let mut host = Host { engine, now: setup.now, peers: Vec::new(), polled: Vec::new() };
    steps.iter().for_each(|step| host.step(*step));
    host.polled
}

/// A seed is found, and a guest reads from it.
const STEPS: &[Step] = &[(2, 7, 0), (7, 0, 0), (0, 0, 100), (7, 0, 0), (0, 9, 30_000), (7, 0, 0), (7, 0, 39_999)];

/// Where each record begins and ends, and whether it can be taken for an event of this kind.
fn records(bytes: &[u8], is_it: impl Fn(&Record<'_>) -> bool) -> Vec<(std::ops::Range<usize>, bool)> {
    let mut records = Records::new(bytes).unwrap();
    let mut found = Vec::new();
    let mut from = START_BYTES;
    while let Some(found_it) = records.next_record().unwrap().map(|record| is_it(&record)) {
        let to = records.offset() as usize;
        found.push((from..to, found_it));
        from = to;
    }
    found
}

fn with(record: &Record<'_>) -> Vec<u8> {
    let mut out = [0; RECORD_BYTES_MAX];
    let length = encode_record(record, &mut out).unwrap();
    out[..length].to_vec()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((any::<u8>(), any::<u32>(), any::<u32>()), 0..80)
}

proptest! {
    #[test]
    fn what_was_recorded_runs_again(steps in steps()) {
        let (bytes, polled) = recorded(&steps);
        prop_assert_eq!(&run(&steps, None), &polled, "it does the same when it is not recorded");
        let done = replay(&bytes[..]).unwrap();
        prop_assert_eq!(done.actions as usize, polled.len());
        prop_assert_eq!(done.records as usize, records(&bytes, |_| true).len());
        prop_assert_eq!(done.torn_bytes, 0);
    }

    #[test]
    fn a_recording_may_end_anywhere(steps in steps(), cut in any::<prop::sample::Index>()) {
        let (bytes, _) = recorded(&steps);
        let cut = cut.index(bytes.len() + 1);
        match replay(&bytes[..cut]) {
            Ok(done) => {
                let whole = records(&bytes, |_| true).into_iter().take_while(|(range, _)| range.end <= cut);
                let (count, end) = whole.fold((0, 0), |(count, _), (range, _)| (count + 1, range.end));
                prop_assert_eq!((done.records, done.torn_bytes as usize), (count, cut - end));
            }
            Err(ReplayError::Read(ReadError::Foreign(_))) => prop_assert!(cut < START_BYTES),
            Err(ReplayError::Empty) => prop_assert!(cut < records(&bytes, |_| true)[0].0.end),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_record_less_never_panics(steps in steps(), which in any::<prop::sample::Index>()) {
        let (mut bytes, _) = recorded(&steps);
        let all = records(&bytes, |_| true);
        bytes.drain(which.get(&all).0.clone());
        let _ = replay(&bytes[..]);
    }

    #[test]
    fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..300), known in any::<bool>(), flip in any::<u32>()) {
        let mut bytes = if known { start().to_vec() } else { Vec::new() };
        bytes.extend(junk);
        prop_assert!(replay(&bytes[..]).is_err());
        let (mut bytes, _) = recorded(STEPS);
        let bit = flip as usize % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A length that has grown makes it end early.
        prop_assert!(!matches!(replay(&bytes[..]), Ok(done) if done.torn_bytes == 0));
    }
}

#[test]
fn what_is_recorded_is_counted() {
    let (bytes, polled) = recorded(STEPS);
    let done = replay(&bytes[..]).unwrap();
    let stored = polled.iter().filter(|action| matches!(action, Action::Store { .. })).count();
    assert!(stored >= 2, "{polled:?}");
    assert_eq!((done.actions as usize, done.idle_polls, done.span_micros), (polled.len(), 4, 30_000 + 39_999 + 100));
    assert!(done.frames as usize > stored && done.events as usize > stored);
    // No body is in it.
    assert!(!bytes.windows(8).any(|window| window == [0xbb; 8]));
}

#[test]
fn an_event_less_and_it_diverges_there() {
    let (bytes, _) = recorded(STEPS);
    let is_contact = |record: &Record<'_>| matches!(record, Record::Handled { event: Event::ContactFound { .. }, .. });
    let found = records(&bytes, is_contact);
    let at = found.iter().position(|(_, is_it)| *is_it).unwrap();
    let mut without = bytes.clone();
    without.drain(found[at].0.clone());
    let Err(ReplayError::Diverged(divergence)) = replay(&without[..]) else { panic!("it goes on") };
    // The next poll was to dial the contact, and has the place of the event that is gone.
    assert_eq!((divergence.record, divergence.at_micros), (at as u64 + 1, 5));
    assert!(divergence.expected.starts_with("Dial"), "{}", divergence.expected);
    assert_eq!((divergence.got.as_str(), divergence.until.records), ("nothing to do", at as u64));
    let text = divergence.to_string();
    assert!(text.starts_with(&format!("record {}, at 5 µs: ", at + 1)) && !text.contains('\n'), "{text}");
}

#[test]
fn another_seed_diverges_and_says_which_frame() {
    let (bytes, _) = recorded(STEPS);
    let mut other = setup();
    other.config.node = NodeId([2; 16]);
    let first = records(&bytes, |_| true)[0].0.clone();
    let changed = [&bytes[..first.start], &with(&Record::Made(other)), &bytes[first.end..]].concat();
    let Err(ReplayError::Diverged(divergence)) = replay(&changed[..]) else { panic!("it goes on") };
    assert!(divergence.got.contains("Hello") && divergence.expected.contains("Hello"), "{divergence}");
    assert_ne!(divergence.got, divergence.expected);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let now = Instant::ZERO;
    let made = with(&Record::Made(setup()));
    let replayed = |records: &[&[u8]]| replay(&[&start()[..], &records.concat()].concat()[..]);
    let idle = with(&Record::Idle { now });
    assert!(matches!(replayed(&[]), Err(ReplayError::Empty)));
    assert!(matches!(replayed(&[&idle]), Err(ReplayError::Senseless { record: 1, .. })));
    assert!(matches!(replayed(&[&made, &idle, &made]), Err(ReplayError::Senseless { record: 3, .. })));
    let beyond = Geometry::new(1 << 40, 16).unwrap();
    let chunk = beyond.chunk(600).unwrap();
    let event = with(&Record::Handled { now, event: Event::Touched { guest: GUEST, chunk } });
    assert!(matches!(replayed(&[&made, &idle, &event]), Err(ReplayError::Senseless { record: 3, .. })));
    let entry = with(&Record::Foreseen(ProfileEntry::single(chunk, 0, 1)));
    assert!(matches!(replayed(&[&made, &entry]), Err(ReplayError::Senseless { record: 2, .. })));
    let mut huge = setup();
    huge.geometry = Geometry::new(1 << 44, 14).unwrap();
    huge.config.limits.peers = 1000;
    assert!(matches!(replayed(&[&with(&Record::Made(huge))]), Err(ReplayError::TooLarge { .. })));
    let mut none = setup();
    none.config.limits.peers = 0;
    assert!(matches!(replayed(&[&with(&Record::Made(none)), &idle]), Err(ReplayError::Setup(_))));
    let mut damaged = idle.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let offset = (START_BYTES + made.len() + idle.len()) as u64;
    match replayed(&[&made, &idle, &damaged]) {
        Err(ReplayError::Read(ReadError::Damaged { offset: at, problem: RecordingError::Checksum })) => {
            assert_eq!(at, offset);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sink_that_ends_is_not_asked_again() {
    let (whole, _) = recorded(STEPS);
    let calls = Arc::new(Mutex::new(0));
    let sink: Sink = Box::new({
        let calls = calls.clone();
        move |_| {
            *calls.lock().unwrap() += 1;
            *calls.lock().unwrap() < 10
        }
    });
    let polled = run(STEPS, Some(sink));
    assert_eq!((*calls.lock().unwrap(), polled), (10, recorded(STEPS).1));
    assert!(records(&whole, |_| true).len() > 10);
}
