//! Where nodes stand: one of a rack brings what is held elsewhere, near ones are linked with, asked and named first; and
//! without a word about it nothing is different.

use crate::hand::{CHUNKS, Hand, Out, PIECES, listens, node_id};
use std::collections::BTreeSet;
use swarmdisk_core::engine::{Action, Config, Event, PeerError, Reason};
use swarmdisk_core::ids::PeerId;
use swarmdisk_core::locality::Locality;
use swarmdisk_core::policy::{Order, Owners};
use swarmdisk_core::wire::{self, Class, Frame, Hello, Role, WireError};

/// A guest's chunks.
const WANTED: std::ops::Range<u32> = 0..24;

fn rack(name: &str) -> Locality {
    Locality::new(None, Some(name), None)
}

/// A node of this name that follows a profile of the chunks wanted, with leaf pages and room to ask for all at once.
fn guessing(name: u8, locality: Locality) -> Hand<Owners> {
    let chunks: Vec<u32> = WANTED.collect();
    let mut hand = Hand::ordered(Owners::default(), &chunks, |config: &mut Config| {
        config.node = node_id(name);
        config.locality = locality;
        config.tuning.prefetches_per_peer = 64;
    });
    hand.keeps(CHUNKS..PIECES);
    hand
}

/// An open link to node `number`, which stands there.
fn link<O: Order>(hand: &mut Hand<O>, number: u8, locality: Locality) -> PeerId {
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(Hello { locality, requests_max: 64, ..hand.hello(number, Role::Node) })).unwrap();
    hand.drain();
    peer
}

fn pieces(asks: &[(PeerId, u32)]) -> BTreeSet<u32> {
    asks.iter().map(|(_, piece)| *piece).collect()
}

#[test]
fn one_of_a_rack_brings_each_chunk_and_the_others_take_it_from_that_one() {
    let mut brought = vec![];
    for (own, other) in [(1, 2), (2, 1)] {
        let mut hand = guessing(own, rack("a"));
        let (mate, far) = (link(&mut hand, other, rack("a")), link(&mut hand, 9, rack("b")));
        hand.maps(far, WANTED);
        let asks = hand.asks();
        assert!(asks.iter().all(|(peer, _)| *peer == far));
        let (mine, all) = (pieces(&asks), WANTED.collect::<BTreeSet<u32>>());
        assert!(!mine.is_empty() && mine != all, "some are the mate's to bring: {mine:?}");
        hand.maps(mate, WANTED);
        let asks = hand.asks();
        assert!(asks.iter().all(|(peer, _)| *peer == mate), "what the mate has is asked of nobody farther: {asks:?}");
        assert_eq!(pieces(&asks), &all - &mine);
        brought.push(mine);
    }
    assert!(brought[0].is_disjoint(&brought[1]), "both agree on who brings what: {brought:?}");
    assert_eq!(&brought[0] | &brought[1], WANTED.collect());
}

#[test]
fn who_does_not_say_where_it_stands_waits_for_nobody() {
    for (own, mate_says) in [(Locality::NONE, rack("a")), (rack("a"), Locality::NONE)] {
        let mut hand = guessing(1, own);
        let far = link(&mut hand, 9, rack("b"));
        link(&mut hand, 2, mate_says);
        hand.maps(far, WANTED);
        assert_eq!(pieces(&hand.asks()), WANTED.collect());
    }
}

#[test]
fn what_is_wanted_next_is_brought_by_anybody_in_the_end() {
    let mut hand = guessing(1, rack("a"));
    let (_, far) = (link(&mut hand, 2, rack("a")), link(&mut hand, 9, rack("b")));
    hand.maps(far, WANTED);
    let mine = pieces(&hand.asks());
    let next = WANTED.into_iter().find(|piece| !mine.contains(piece)).unwrap();
    hand.wait_micros(299_000);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(1_000);
    assert_eq!(hand.asks(), [(far, next)], "its mate has had its time");
}

#[test]
fn a_guest_is_not_kept_waiting_for_the_rack() {
    let mut hand = guessing(1, rack("a"));
    let (_, far) = (link(&mut hand, 2, rack("a")), link(&mut hand, 9, rack("b")));
    hand.maps(far, 0..CHUNKS);
    hand.asks();
    let others: Vec<u32> = (100..120).collect();
    others.iter().for_each(|chunk| hand.wants(*chunk));
    assert_eq!(pieces(&hand.asks()), others.into_iter().collect(), "whoever's turn it would be");
}

#[test]
fn a_guest_s_chunk_is_asked_of_the_nearest_of_those_alike() {
    let here = Locality::new(Some("z"), Some("a"), Some("h"));
    let places = [
        Locality::NONE,
        Locality::new(Some("z"), Some("b"), Some("h")),
        Locality::new(Some("z"), Some("a"), None),
        here,
    ];
    let mut hand = Hand::holding(CHUNKS..PIECES, |config| config.locality = here);
    let links: Vec<PeerId> = (1..).zip(places).map(|(number, place)| link(&mut hand, number, place)).collect();
    links.iter().for_each(|peer| hand.maps(*peer, 0..CHUNKS));
    hand.wants(5);
    for peer in links.into_iter().rev() {
        assert_eq!(hand.asks(), [(peer, 5)], "the nearest that is left");
        hand.tell(Event::PeerClosed { peer });
    }
}

#[test]
fn a_guess_waits_for_the_near_one_though_a_far_one_could_send_it_at_once() {
    let mut hand = guessing(1, rack("a"));
    let mate = hand.admit();
    let hello = Hello { locality: rack("a"), requests_max: 1, ..hand.hello(2, Role::Node) };
    hand.hear(mate, Frame::Hello(hello)).unwrap();
    hand.maps(mate, WANTED);
    let far = link(&mut hand, 9, rack("b"));
    hand.maps(far, WANTED);
    hand.wait_micros(1_000);
    let mut asked = hand.asks();
    hand.wait_micros(298_000);
    asked.extend(hand.asks());
    assert!(asked.iter().all(|(peer, _)| *peer == mate), "{asked:?}");
    hand.wait_micros(10_000);
    let asks = hand.asks();
    assert!(matches!(asks[..], [(peer, _)] if peer == far), "what is wanted next waits no longer: {asks:?}");
}

#[test]
fn a_seed_names_one_of_the_asker_s_rack_if_it_can() {
    let named = |racks: [Locality; 3]| {
        let mut hand = Hand::holding(0..PIECES, |config| {
            config.role = Role::Seed;
            config.limits.served = 64;
        });
        let links: Vec<PeerId> = (1..).zip(racks).map(|(number, rack)| link(&mut hand, number, rack)).collect();
        links.iter().for_each(|peer| hand.is_asked(*peer, 5, 1, Class::Prefetch).unwrap());
        hand.drain_for(|out| match out {
            Out::Say(peer, Frame::Redirect(to), _) if peer == links[2] => Some(to.node),
            _ => None,
        })
    };
    assert_eq!(named([rack("a"), rack("b"), rack("b")]), [node_id(2)]);
    assert_eq!(named([rack("a"), rack("b"), rack("a")]), [node_id(1)]);
    assert_eq!(named([Locality::NONE; 3]), [node_id(1)], "the first that has not been named often enough");
}

#[test]
fn a_rack_is_told_first_and_dialled_first_and_others_all_the_same() {
    let mut teller = Hand::new(|_| {});
    for number in 1..=40 {
        link(&mut teller, number, rack(if number % 2 == 0 { "a" } else { "b" }));
    }
    let asker = teller.admit();
    let hello = Hello { locality: rack("a"), ..teller.hello(90, Role::Node) };
    teller.hear(asker, Frame::Hello(hello)).unwrap();
    let told =
        teller.says(asker).into_iter().find_map(|frame| if let Frame::Peers(it) = frame { Some(it) } else { None });
    let told = told.expect("it is told of the others");
    let places: Vec<Locality> = wire::unpack_localities(told.localities).unwrap().collect();
    let (near, far) = places.split_at(20);
    assert!(near.iter().all(|place| *place == rack("a")) && far.iter().all(|place| *place == rack("b")), "{places:?}");
    assert_eq!(far.len(), 12);

    // Told the other way round, the near ones are dialled first all the same: all of them, though these are links enough, and
    // a quarter as many others as links are wanted.
    let mut hand = Hand::new(|config| {
        config.locality = rack("a");
        config.tuning.links = 8;
    });
    let teller = link(&mut hand, 50, rack("b"));
    let (mut addresses, mut localities) = ([0; 32 * 18], [0; 32 * 12]);
    wire::pack_addresses((1..=32).map(listens), &mut addresses);
    wire::pack_localities((1..=32).map(|number| rack(if number > 16 { "a" } else { "b" })), &mut localities);
    hand.hear(teller, Frame::Peers(wire::Peers { addresses: &addresses, localities: &localities })).unwrap();
    let dialled: Vec<_> = hand.actions().into_iter().filter_map(dialled).collect();
    assert!(dialled.len() >= 16, "{dialled:?}");
    assert!(dialled[..16].iter().all(|address| (17..=32).any(|number| *address == listens(number))), "{dialled:?}");
}

fn dialled(action: Action) -> Option<swarmdisk_core::ids::Address> {
    if let Action::Dial { address, .. } = action { Some(address) } else { None }
}

#[test]
fn rows_are_kept_for_links_to_other_racks() {
    let mut hand = Hand::new(|config| {
        config.locality = rack("a");
        config.limits.peers = 16;
        config.tuning.links = 8;
    });
    // An eighth of the rows is kept for seeds, and a quarter of the links for other racks.
    let near = |hand: &mut Hand, number| {
        let peer = hand.admit();
        hand.hear(peer, Frame::Hello(Hello { locality: rack("a"), ..hand.hello(number, Role::Node) })).unwrap();
        !hand.actions().contains(&Action::Hangup { peer, reason: Reason::Crowded })
    };
    let taken = (1..=14).filter(|number| near(&mut hand, *number)).count();
    assert_eq!(taken, 12);
    link(&mut hand, 40, rack("b"));
    link(&mut hand, 41, Locality::NONE);
    assert_eq!(hand.engine.peers().count(), 14);
}

#[test]
fn places_are_told_of_all_or_of_none() {
    let mut hand = Hand::new(|_| {});
    let teller = hand.link(1, Role::Node);
    let mut addresses = [0; 36];
    wire::pack_addresses([listens(5), listens(6)], &mut addresses);
    for (localities, is_right) in [(&[1; 24][..], true), (&[], true), (&[1; 12], false), (&[1; 23], false)] {
        let heard = hand.hear(teller, Frame::Peers(wire::Peers { addresses: &addresses, localities }));
        let wrong = Err(PeerError::Malformed(WireError::Malformed));
        assert_eq!(heard.is_ok(), is_right);
        assert!(is_right || heard == wrong, "{heard:?}");
    }
}
