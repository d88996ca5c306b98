//! Links: how they open, which of two stays, and what ends one.

use crate::hand::*;
use swarmdisk_core::engine::{Action, Event, Landing, PeerError, Reason};
use swarmdisk_core::ids::{Address, Digest, PeerId};
use swarmdisk_core::time::Duration;
use swarmdisk_core::wire::{self, ADDRESS_BYTES, Data, Farewell, Frame, Hello, Role, WireError};

/// A frame of a kind that nobody knows.
fn unknown(flags: u8, body_bytes: Option<u32>) -> Vec<u8> {
    let mut bytes = vec![3, 0, 0x99, flags];
    bytes.extend(body_bytes.into_iter().flat_map(u32::to_le_bytes));
    bytes.extend([1, 2, 3]);
    // CRC-32/ISO-HDLC, bit by bit.
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    bytes.extend((!crc).to_le_bytes());
    bytes
}

#[test]
fn an_unknown_optional_frame_is_skipped_with_its_body() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.link(1, Role::Node);
    assert_eq!(hand.hear_bytes(peer, &unknown(1, None)), Ok(Landing::None));
    assert_eq!(hand.hear_bytes(peer, &unknown(3, Some(77))), Ok(Landing::Discard { bytes: 77 }));
    assert_eq!(hand.hear_bytes(peer, &unknown(3, Some(0))), Ok(Landing::None));
}

#[test]
fn an_unknown_mandatory_frame_ends_the_link() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.link(1, Role::Node);
    let error = Err(PeerError::Malformed(WireError::UnknownKind(0x99)));
    assert_eq!(hand.hear_bytes(peer, &unknown(0, None)), error);
    assert_eq!(hand.hear_bytes(peer, &unknown(2, Some(5))), error);
}

#[test]
fn a_hello_must_fit_and_come_first_and_once() {
    let mut hand = Hand::new(|_| {});
    let right = hand.hello(1, Role::Node);
    let peer = hand.admit();
    assert_eq!(hand.hear(peer, Frame::Ping(1)), Err(PeerError::Unexpected));
    let version = Hello { version: wire::VERSION_MIN - 1, ..right };
    assert_eq!(hand.hear(peer, Frame::Hello(version)), Err(PeerError::Version(wire::VERSION_MIN - 1)));
    let image = Hello { image: Digest([6; 32]), ..right };
    assert_eq!(hand.hear(peer, Frame::Hello(image)), Err(PeerError::Image));
    assert_eq!(hand.hear(peer, Frame::Hello(right)), Ok(Landing::None));
    assert_eq!(hand.hear(peer, Frame::Hello(right)), Err(PeerError::Unexpected));
}

#[test]
fn a_farewell_ends_the_link_and_is_nobody_s_fault() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.link(1, Role::Node);
    assert_eq!(hand.hear(peer, Frame::Bye(Farewell::Leaving)), Err(PeerError::Bye(Farewell::Leaving)));
    hand.tell(Event::PeerClosed { peer });
    assert_eq!(hand.hear(peer, Frame::Ping(1)), Err(PeerError::Unexpected), "that link is no more");
}

#[test]
fn a_short_frame_needs_more() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.link(1, Role::Node);
    let mut head = [0; wire::HEAD_BYTES_MAX];
    let length = wire::encode(&Frame::Ping(1), &mut head).unwrap();
    for short in 0..length {
        let received = hand.engine.receive(hand.time(), peer, &head[..short]).unwrap();
        assert!(matches!(received, swarmdisk_core::engine::Received::NeedMore { bytes } if bytes > short));
    }
}

#[test]
fn a_silent_link_is_pinged_and_then_given_up() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.link(1, Role::Node);
    hand.wait_micros(10_000_000);
    assert!(matches!(hand.says(peer)[..], [Frame::Ping(_)]));
    hand.wait_micros(20_000_000);
    assert_eq!(hand.engine.deadline().map(|at| at <= hand.time()), Some(true));
    let actions = hand.actions();
    assert_eq!(actions[0], Action::Hangup { peer, reason: Reason::Silent });
    assert_eq!(hand.engine.peers().count(), 0);
}

#[test]
fn a_link_that_never_says_hello_is_given_up() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.admit();
    hand.drain();
    hand.wait_micros(30_000_000);
    assert_eq!(hand.actions(), [Action::Hangup { peer, reason: Reason::Silent }]);
}

#[test]
fn only_the_answer_to_a_ping_tells_the_round_trip() {
    let mut hand = Hand::new(|_| {});
    hand.now = 1_000_000;
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(hand.hello(1, Role::Node))).unwrap();
    let pings = hand.says(peer);
    let nonce =
        pings.iter().find_map(|frame| if let Frame::Ping(nonce) = frame { Some(*nonce) } else { None }).unwrap();
    let rtt = |hand: &Hand| hand.engine.peers().next().unwrap().rtt;
    hand.wait_micros(5000);
    for made_up in [nonce + 4999, u64::MAX, 0] {
        hand.hear(peer, Frame::Pong(made_up)).unwrap();
        assert_eq!(rtt(&hand), Duration::ZERO, "it would look near");
    }
    hand.hear(peer, Frame::Pong(nonce)).unwrap();
    assert_eq!(rtt(&hand), Duration::from_millis(5));
    hand.wait_micros(1_000_000);
    hand.hear(peer, Frame::Pong(nonce)).unwrap();
    assert_eq!(rtt(&hand), Duration::from_millis(5), "once");
}

#[test]
fn an_empty_body_tells_nothing_of_the_rate() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |_| {});
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    for (chunk, bytes) in [(5, 60_000), (6, 0)] {
        hand.wants(chunk);
        hand.drain();
        hand.wait_micros(1000);
        let data = Data { piece: chunk, bytes };
        let Ok(Landing::Land { slot, .. }) = hand.hear(peer, Frame::Data(data)) else { panic!("it does not land") };
        hand.tell(Event::BodyLanded { slot });
        assert_eq!(hand.engine.peers().next().unwrap().bytes_per_sec, 60_000_000);
    }
}

#[test]
fn addresses_go_round() {
    let mut hand = Hand::new(|_| {});
    let teller = hand.link(1, Role::Node);
    let mut list = [0; 3 * ADDRESS_BYTES];
    wire::pack_addresses([listens(100), listens(1), listens(5)], &mut list);
    hand.hear(teller, Frame::Peers(wire::Peers { addresses: &list, localities: &[] })).unwrap();
    let dials = hand.actions();
    assert!(matches!(dials[..], [Action::Dial { address, .. }] if address == listens(5)), "not oneself: {dials:?}");
    assert_eq!(
        hand.hear(teller, Frame::Peers(wire::Peers { addresses: &[1; 17], localities: &[] })),
        Err(PeerError::Malformed(WireError::Malformed))
    );
}

#[test]
fn a_table_full_of_links_takes_no_more() {
    let mut hand = Hand::new(|config| config.limits.peers = 2);
    let node = hand.link(1, Role::Node);
    hand.tell(Event::ContactFound { address: listens(9), seed: true });
    let dials = hand.actions();
    let [Action::Dial { peer, .. }] = dials[..] else { panic!("{dials:?}") };
    let address = Address { ip: [9; 16], port: 1 };
    assert_eq!(hand.engine.admit(hand.time(), address, 1), None);
    hand.tell(Event::PeerClosed { peer });
    assert_eq!(hand.engine.admit(hand.time(), address, 1), None, "the last row is the seed's");
    hand.tell(Event::PeerClosed { peer: node });
    assert!(hand.engine.admit(hand.time(), address, 1).is_some());
}

#[test]
fn who_claims_a_seed_s_address_keeps_nobody_from_it() {
    let mut hand = Hand::new(|_| {});
    let liar = hand.admit();
    hand.hear(liar, Frame::Hello(Hello { listen: listens(9), ..hand.hello(1, Role::Seed) })).unwrap();
    hand.drain();
    hand.tell(Event::ContactFound { address: listens(9), seed: true });
    hand.tell(Event::ContactFound { address: listens(8), seed: true });
    let other = hand.admit();
    hand.hear(other, Frame::Hello(Hello { listen: listens(8), ..hand.hello(2, Role::Seed) })).unwrap();
    let dialled = hand.drain_for(|out| match out {
        Out::Do(Action::Dial { address, .. }) => Some(address),
        _ => None,
    });
    assert_eq!(dialled, [listens(9), listens(8)]);
}

#[test]
fn who_claims_a_seed_s_name_keeps_nobody_from_it() {
    // The seed's name is less than this node's, or greater.
    for seed in [9, 200] {
        let mut hand = Hand::new(|_| {});
        hand.tell(Event::ContactFound { address: listens(seed), seed: true });
        let dials = hand.actions();
        let [Action::Dial { peer, .. }] = dials[..] else { panic!("{dials:?}") };
        let early = hand.link(seed, Role::Seed);
        hand.tell(Event::PeerOpened { peer, credit_bytes: u32::MAX });
        hand.hear(peer, Frame::Hello(hand.hello(seed, Role::Seed))).unwrap();
        let late = hand.admit();
        hand.hear(late, Frame::Hello(hand.hello(seed, Role::Seed))).unwrap();
        let closed = hand.drain_for(|out| match out {
            Out::Do(Action::Hangup { peer, .. }) => Some(peer),
            _ => None,
        });
        assert_eq!(closed, [early, late]);
    }
}

#[test]
fn what_comes_on_a_link_that_is_being_closed_is_nobody_s_fault() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(hand.hello(100, Role::Node))).unwrap();
    assert_eq!(hand.hear(peer, Frame::Ping(1)), Ok(Landing::None), "it has this node's own name");
    let data = Frame::Data(Data { piece: 1, bytes: 100 });
    assert_eq!(hand.hear(peer, data), Ok(Landing::Discard { bytes: 100 }));
    assert!(matches!(hand.drain()[..], [.., Out::Do(Action::Hangup { reason: Reason::Duplicate, .. })]));
}

/// Two nodes; links between them carry frames in order, whole, at once.
struct Pair {
    hands: [Hand; 2],
    /// Each link's names: at node 0, at node 1.
    links: Vec<[PeerId; 2]>,
    /// What is on its way: to whom, and what.
    wire: std::collections::VecDeque<(usize, PeerId, Frame<'static>)>,
    dials: usize,
}

impl Pair {
    /// Nodes number 1 and 2.
    fn new() -> Self {
        let hand = |number: u8| {
            Hand::new(|config| {
                config.node = node_id(number);
                config.listen = listens(number);
            })
        };
        Self { hands: [hand(1), hand(2)], links: vec![], wire: Default::default(), dials: 0 }
    }

    fn finds(&mut self, node: usize, address: Address) {
        self.hands[node].tell(Event::ContactFound { address, seed: false });
    }

    /// Polls a node; its frames are under way then.
    fn poll(&mut self, node: usize) {
        for out in self.hands[node].drain() {
            match out {
                Out::Say(peer, frame, _) => {
                    if let Some(link) = self.links.iter().find(|link| link[node] == peer) {
                        self.wire.push_back((1 - node, link[1 - node], frame));
                    }
                }
                // A node's own second address, which the other has told it.
                Out::Do(Action::Dial { peer, address }) if node == 1 && address != listens(1) => {
                    self.hands[node].tell(Event::PeerClosed { peer });
                }
                Out::Do(Action::Dial { peer, .. }) => {
                    self.dials += 1;
                    let there = self.hands[1 - node].admit();
                    self.links.push(if node == 0 { [peer, there] } else { [there, peer] });
                    self.hands[node].tell(Event::PeerOpened { peer, credit_bytes: u32::MAX });
                }
                Out::Do(Action::Hangup { peer, .. }) => self.cut(node, peer),
                Out::Do(other) => panic!("{other:?}"),
            }
        }
    }

    /// What one side closes the other sees closed, after what was on its way.
    fn cut(&mut self, node: usize, peer: PeerId) {
        if let Some(at) = self.links.iter().position(|link| link[node] == peer) {
            let link = self.links.remove(at);
            while let Some(at) = self.wire.iter().position(|(to, there, _)| *to != node && *there == link[1 - node]) {
                let (to, there, frame) = self.wire.remove(at).unwrap();
                let _ = self.hands[to].hear(there, frame);
            }
            self.hands[1 - node].tell(Event::PeerClosed { peer: link[1 - node] });
        }
    }

    /// Delivers all frames; `pick` chooses which link's next one goes first.
    fn settle(&mut self, mut pick: impl FnMut(usize) -> usize) {
        for _ in 0..1000 {
            self.poll(0);
            self.poll(1);
            if self.wire.is_empty() {
                return;
            }
            let at = pick(self.wire.len());
            let (to, peer) = (self.wire[at].0, self.wire[at].1);
            let first = self.wire.iter().position(|(node, link, _)| (*node, *link) == (to, peer)).unwrap();
            let (_, _, frame) = self.wire.remove(first).unwrap();
            if self.hands[to].hear(peer, frame).is_err() {
                self.hands[to].tell(Event::PeerClosed { peer });
                self.cut(to, peer);
            }
        }
        panic!("they talk for ever");
    }

    fn assert_one_link(&self) {
        assert_eq!(self.links.len(), 1, "one link stays");
        for (node, hand) in self.hands.iter().enumerate() {
            let peers: Vec<_> = hand.engine.peers().map(|status| status.peer).collect();
            assert_eq!(peers, [self.links[0][node]], "both keep the same one");
        }
    }
}

#[test]
fn of_two_links_between_two_nodes_the_same_one_stays_on_both_sides() {
    for seed in 0..200 {
        let mut pair = Pair::new();
        let mut rng = swarmdisk_core::rng::Rng::new(seed);
        pair.finds(0, listens(2));
        pair.finds(1, listens(1));
        pair.poll((seed % 2) as usize);
        pair.settle(|count| rng.below(count as u32) as usize);
        pair.assert_one_link();
        assert_eq!(pair.dials, 2);
        let kept = pair.links[0][0];
        for _ in 0..100 {
            pair.hands.iter_mut().for_each(|hand| hand.wait_micros(100_000));
            pair.settle(|_| 0);
        }
        assert_eq!((pair.dials, pair.links[0][0]), (2, kept), "and the other one is not dialled again");
    }
}

#[test]
fn a_node_known_by_two_addresses_is_linked_once() {
    let mut pair = Pair::new();
    pair.finds(0, listens(2));
    pair.finds(0, listens(3));
    pair.settle(|_| 0);
    pair.assert_one_link();
    let kept = pair.links[0][0];
    for _ in 0..100 {
        pair.hands.iter_mut().for_each(|hand| hand.wait_micros(100_000));
        pair.settle(|_| 0);
    }
    assert_eq!(
        (pair.dials, pair.links[0][0]),
        (2, kept),
        "the second address is not dialled as long as the link lasts"
    );
    pair.hands[0].tell(Event::PeerClosed { peer: kept });
    pair.cut(0, kept);
    pair.hands.iter_mut().for_each(|hand| hand.wait_micros(1_000_000));
    pair.settle(|_| 0);
    pair.assert_one_link();
}

#[test]
fn a_link_to_oneself_is_closed_and_not_made_again() {
    let mut hand = Hand::new(|_| {});
    hand.tell(Event::ContactFound { address: listens(7), seed: true });
    let dials = hand.actions();
    let [Action::Dial { peer: dialled, .. }] = dials[..] else { panic!("{dials:?}") };
    let accepted = hand.admit();
    hand.tell(Event::PeerOpened { peer: dialled, credit_bytes: u32::MAX });
    hand.drain();
    for peer in [dialled, accepted] {
        hand.hear(peer, Frame::Hello(hand.hello(100, Role::Node))).unwrap();
    }
    let hangups = hand.actions();
    assert_eq!(hangups.len(), 2);
    for action in hangups {
        assert!(matches!(action, Action::Hangup { reason: Reason::Duplicate, .. }), "{action:?}");
    }
    hand.wait_micros(600_000_000);
    assert_eq!(hand.actions(), []);
}

#[test]
fn strangers_cannot_take_the_last_rows_of_a_node() {
    let mut hand = Hand::new(|_| {});
    let rows = usize::from(swarmdisk_core::engine::Limits::NODE.peers);
    let admitted = (0..rows).filter(|_| hand.engine.admit(hand.time(), listens(9), 1000).is_some()).count();
    assert_eq!(admitted, rows - rows / 8);
}

#[test]
fn a_second_address_of_a_seed_does_not_cost_the_link_to_it_again_and_again() {
    let mut hand = Hand::new(|_| {});
    let dials = |hand: &mut Hand| {
        let dial = |action| if let Action::Dial { peer, address } = action { Some((peer, address)) } else { None };
        hand.actions().into_iter().filter_map(dial).collect::<Vec<_>>()
    };
    let (named, other) = (listens(1), listens(2));
    hand.tell(Event::ContactFound { address: named, seed: true });
    let (first, _) = dials(&mut hand)[0];
    hand.tell(Event::PeerOpened { peer: first, credit_bytes: u32::MAX });
    hand.hear(first, Frame::Hello(hand.hello(1, Role::Seed))).unwrap();
    // Somebody tells of the other address. The seed keeps the newer link of the two, this node the older one.
    hand.tell(Event::ContactFound { address: other, seed: false });
    let (second, _) = dials(&mut hand)[0];
    hand.tell(Event::PeerOpened { peer: second, credit_bytes: u32::MAX });
    hand.hear(second, Frame::Hello(hand.hello(1, Role::Seed))).unwrap();
    assert_eq!(hand.actions(), [Action::Hangup { peer: second, reason: Reason::Duplicate }]);
    hand.tell(Event::PeerClosed { peer: first });
    for _ in 0..10 {
        hand.wait_micros(100_000_000);
        let again = dials(&mut hand);
        assert_eq!(again.iter().map(|(_, address)| *address).collect::<Vec<_>>(), [named]);
        hand.tell(Event::PeerClosed { peer: again[0].0 });
    }
}

#[test]
fn a_small_table_has_room_for_a_seed_that_was_lost() {
    let mut hand = Hand::new(|config| (config.limits.peers, config.tuning.links) = (4, 4));
    (10..20).for_each(|number| hand.tell(Event::ContactFound { address: listens(number), seed: false }));
    let dials = |hand: &mut Hand| {
        let dial = |action| if let Action::Dial { peer, address } = action { Some((peer, address)) } else { None };
        hand.actions().into_iter().filter_map(dial).collect::<Vec<_>>()
    };
    assert_eq!(dials(&mut hand).len(), 3, "nodes do not get the last row");
    assert_eq!(hand.engine.admit(hand.time(), listens(30), 1), None);
    hand.tell(Event::ContactFound { address: listens(1), seed: true });
    let dialled = dials(&mut hand);
    assert_eq!(dialled.iter().map(|(_, address)| *address).collect::<Vec<_>>(), [listens(1)]);
}
