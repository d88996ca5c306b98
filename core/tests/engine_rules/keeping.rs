//! What is stored, what is lost, and what others are told of it.

use crate::hand::*;
use swarmdisk_core::engine::{Action, Event};
use swarmdisk_core::wire::{self, Class, Frame, Map, Role, Run};

fn news(frames: &[Frame<'static>]) -> Vec<(&'static str, Vec<(u32, u32)>)> {
    let news = frames.iter().filter_map(|frame| match frame {
        Frame::Have(pieces) => Some(("have", runs(*pieces))),
        Frame::Lost(pieces) => Some(("lost", runs(*pieces))),
        Frame::Map(Map { first, count, runs }) => {
            Some(("map", wire::decode_runs(runs, *first, first + count).map(Result::unwrap).collect()))
        }
        _ => None,
    });
    news.collect()
}

/// Chunks are wanted, come from the peer and are stored.
fn get(hand: &mut Hand, peer: swarmdisk_core::ids::PeerId, chunks: std::ops::Range<u32>) {
    for chunk in chunks {
        hand.wants(chunk);
        hand.drain();
        hand.gets(peer, chunk);
    }
}

#[test]
fn what_is_held_is_told_once_a_link_opens() {
    let mut hand = Hand::holding(3..9, |_| {});
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(hand.hello(1, Role::Node))).unwrap();
    assert_eq!(news(&hand.says(peer)), [("map", vec![(3, 6)])]);
}

#[test]
fn who_holds_nothing_says_nothing() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(hand.hello(1, Role::Node))).unwrap();
    assert_eq!(news(&hand.says(peer)), []);
    hand.keeps(3..4);
    assert_eq!(news(&hand.says(peer)), [], "what was found later is not announced");
}

#[test]
fn the_map_does_not_wait_for_addresses_to_tell() {
    let mut hand = Hand::holding(3..9, |_| {});
    let peer = hand.admit();
    // The only address known is the peer's own: there is nothing to tell it.
    hand.hear(peer, Frame::Hello(hand.hello(1, Role::Node))).unwrap();
    let mut head = [0; wire::HEAD_BYTES_MAX];
    let mut actions = 0;
    while hand.engine.poll(hand.time(), &mut head).is_some() {
        actions += 1;
    }
    assert_eq!(actions, 3, "hello, ping, map");
}

#[test]
fn a_seed_is_told_nothing() {
    let mut hand = Hand::holding(3..9, |_| {});
    let seed = hand.admit();
    hand.hear(seed, Frame::Hello(hand.hello(1, Role::Seed))).unwrap();
    assert_eq!(news(&hand.says(seed)), []);
}

#[test]
fn what_has_come_is_told_in_batches() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |_| {});
    let source = hand.holder(1, Role::Seed, 0..PIECES);
    let peer = hand.link(2, Role::Node);
    get(&mut hand, source, 5..8);
    get(&mut hand, source, 20..21);
    assert_eq!(news(&hand.says(peer)), []);
    hand.wait_micros(100_000);
    assert!(hand.engine.deadline().is_some_and(|at| at <= hand.time()));
    assert_eq!(news(&hand.says(peer)), [("have", vec![(5, 3), (20, 1)])]);
    hand.wait_micros(1_000_000);
    assert_eq!(news(&hand.says(peer)), [], "once");
}

#[test]
fn a_peer_is_not_told_of_what_it_has_itself() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |_| {});
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    get(&mut hand, peer, 5..8);
    hand.wait_micros(100_000);
    assert_eq!(news(&hand.says(peer)), []);
}

#[test]
fn a_peer_far_behind_is_told_everything_again() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |config| config.limits.changes = 4);
    let source = hand.holder(1, Role::Seed, 0..PIECES);
    let peer = hand.link(2, Role::Node);
    get(&mut hand, source, 5..10);
    hand.wait_micros(100_000);
    assert_eq!(news(&hand.says(peer)), [("map", vec![(5, 5), (CHUNKS, 4)])]);
    for piece in (5..10).chain(CHUNKS..PIECES) {
        let piece = hand.piece(piece);
        hand.tell(Event::PieceLost { piece });
    }
    hand.wait_micros(100_000);
    assert_eq!(news(&hand.says(peer)), [("map", vec![])], "also that nothing is left");
}

#[test]
fn a_lost_piece_is_taken_back_and_requests_for_it_are_refused() {
    let mut hand = Hand::holding(0..PIECES, |_| {});
    let peer = hand.link(1, Role::Node);
    hand.is_asked(peer, 5, 1, Class::Demand).unwrap();
    let loads = hand.actions();
    assert!(matches!(loads[..], [Action::Load { .. }]), "{loads:?}");
    let piece = hand.piece(5);
    hand.tell(Event::PieceLost { piece });
    assert_eq!(hand.says(peer), [Frame::Refuse(Run { first: 5, count: 1 })]);
    hand.wait_micros(100_000);
    assert_eq!(news(&hand.says(peer)), [("lost", vec![(5, 1)])]);
    hand.is_asked(peer, 5, 1, Class::Demand).unwrap();
    assert_eq!(hand.says(peer), [Frame::Refuse(Run { first: 5, count: 1 })]);
}

#[test]
fn what_came_and_went_is_told_by_its_last_change_alone() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |_| {});
    let source = hand.holder(1, Role::Seed, 0..PIECES);
    let peer = hand.link(2, Role::Node);
    get(&mut hand, source, 5..7);
    let piece = hand.piece(5);
    hand.tell(Event::PieceLost { piece });
    hand.wait_micros(100_000);
    assert_eq!(news(&hand.says(peer)), [("have", vec![(6, 1)]), ("lost", vec![(5, 1)])]);
}

#[test]
fn a_full_disk_stops_guesses_for_a_while_but_not_demand() {
    let mut hand = Hand::guessing(&[50, 51], |config| config.tuning.prefetches = 1);
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    assert_eq!(hand.asks(), [(peer, 50)]);
    let slot = hand.verifies(peer, 50);
    hand.drain();
    hand.tell(Event::StoreFailed { slot });
    assert!(!hand.engine.holds(hand.piece(50)));
    assert_eq!(hand.asks(), []);
    hand.wants(7);
    assert_eq!(hand.asks(), [(peer, 7)]);
    let slot = hand.verifies(peer, 7);
    assert_eq!(
        hand.actions()[..],
        [Action::Deliver { slot, piece: hand.piece(7) }, Action::Store { slot, piece: hand.piece(7) }]
    );
    hand.tell(Event::StoreFailed { slot });
    hand.wait_micros(9_999_000);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(1_000);
    assert!(hand.engine.deadline().is_some_and(|at| at <= hand.time()));
    assert_eq!(hand.asks(), [(peer, 50)]);
}

#[test]
fn a_leaf_page_that_cannot_be_stored_is_not_fetched_in_a_loop() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    hand.lands(peer, 5);
    let slot = hand.verifies(peer, CHUNKS);
    hand.drain();
    hand.tell(Event::StoreFailed { slot });
    assert_eq!(hand.asks(), []);
    hand.wait_micros(1_000_000);
    assert!(hand.engine.deadline().is_some_and(|at| at <= hand.time()));
    assert_eq!(hand.asks(), [(peer, CHUNKS)]);
    hand.gets(peer, CHUNKS);
    let actions = hand.actions();
    assert!(matches!(actions[..], [Action::Verify { piece, .. }] if piece == hand.piece(5)), "{actions:?}");
}
