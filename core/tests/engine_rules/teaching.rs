//! Live learning: whom a node tells what its guests touch, and what it makes of what it is told.

use crate::hand::*;
use swarmdisk_core::engine::{Config, Event, Landing, Offered, PeerError};
use swarmdisk_core::ids::{Digest, GuestId, PeerId};
use swarmdisk_core::time::Duration;
use swarmdisk_core::wire::{
    FEATURE_TEACH, Frame, Hello, LIST_BYTES_MAX, Role, Touched, TouchesEncoder, WireError, decode_touches,
};

/// When changes are told to one peer, in microseconds.
const BATCH: u64 = 60_000;
/// What it is set to: a batch among one or two others takes up to 60 ms.
const BATCH_ALONE: Duration = Duration::from_millis(36);

fn logging(touches: u16) -> impl FnOnce(&mut Config) {
    move |config| {
        config.limits.touches = touches;
        config.tuning.batch = BATCH_ALONE;
    }
}

/// A guest reads a chunk that is held.
fn touches(hand: &mut Hand, chunk: u32) {
    if !hand.engine.holds(hand.piece(chunk)) {
        hand.keeps(chunk..chunk + 1);
    }
    let chunk = hand.chunk(chunk);
    hand.tell(Event::Touched { guest: GuestId(0), chunk });
}

/// The touches that a peer is told now, in each frame: age, then chunk and gap.
fn told(hand: &mut Hand, peer: PeerId) -> Vec<(u32, Vec<(u32, u32)>)> {
    let frames = hand.says(peer).into_iter().filter_map(|frame| match frame {
        Frame::Touched(touched) => Some(touched),
        _ => None,
    });
    frames.map(|it| (it.age_millis, decode_touches(it.touches, CHUNKS).map(Result::unwrap).collect())).collect()
}

/// A link with features.
fn featured(hand: &mut Hand, number: u8, role: Role, features: u64) -> PeerId {
    let peer = hand.admit();
    let hello = Hello { features, ..hand.hello(number, role) };
    hand.hear(peer, Frame::Hello(hello)).unwrap();
    peer
}

fn tells(hand: &mut Hand, peer: PeerId, age_millis: u32, touches: &[(u32, u32)]) -> Result<Landing, PeerError> {
    let mut buffer = [0; LIST_BYTES_MAX];
    let mut encoder = TouchesEncoder::new(&mut buffer);
    touches.iter().for_each(|(chunk, gap)| encoder.push(*chunk, *gap).unwrap());
    let length = encoder.finish();
    hand.hear(peer, Frame::Touched(Touched { age_millis, touches: &buffer[..length] }))
}

#[test]
fn a_node_is_told_first_touches_in_batches() {
    let mut hand = Hand::new(logging(100));
    let peer = hand.link(1, Role::Node);
    touches(&mut hand, 5);
    hand.wait_micros(20_000);
    touches(&mut hand, 9);
    touches(&mut hand, 5);
    assert_eq!(told(&mut hand, peer), [], "the batch is gathered");
    hand.wait_micros(BATCH);
    assert_eq!(told(&mut hand, peer), [(60, vec![(5, 0), (9, 20)])]);
    hand.wait_micros(BATCH);
    assert_eq!(told(&mut hand, peer), [], "all is told");
    touches(&mut hand, 9);
    touches(&mut hand, 2);
    hand.wait_micros(BATCH);
    assert_eq!(told(&mut hand, peer), [(60, vec![(2, 0)])], "what is new, each chunk once");
}

#[test]
fn what_is_touched_is_told_once_it_is_held() {
    let mut hand = Hand::new(logging(100));
    let seed = hand.holder(1, Role::Seed, 0..PIECES);
    let peer = hand.link(2, Role::Node);
    hand.wants(9);
    assert_eq!(hand.asks().len(), 2);
    hand.wait_micros(2 * BATCH);
    assert_eq!(told(&mut hand, peer), [], "who heard of it would ask the seed as well");
    hand.gets(seed, CHUNKS);
    hand.gets(seed, 9);
    hand.wait_micros(BATCH);
    let frames = hand.says(peer);
    let is = |at: usize, which: fn(&Frame<'_>) -> bool| frames.get(at).is_some_and(which);
    assert!(is(0, |frame| matches!(frame, Frame::Map(_) | Frame::Have(_))), "{frames:?}");
    assert!(is(1, |frame| matches!(frame, Frame::Touched(_))), "{frames:?}");
    // What cannot be had is told at last.
    hand.wants(500);
    hand.wait_micros(600_000);
    touches(&mut hand, 10);
    hand.wait_micros(BATCH);
    let chunks: Vec<u32> = told(&mut hand, peer).iter().flat_map(|(_, list)| list).map(|(chunk, _)| *chunk).collect();
    assert_eq!(chunks, [500, 10]);
}

#[test]
fn a_link_that_comes_later_is_told_all_from_the_start() {
    let mut hand = Hand::new(logging(2000));
    (0..900).for_each(|chunk| touches(&mut hand, chunk));
    hand.wait_micros(5_000_000);
    let peer = featured(&mut hand, 1, Role::Node, 0);
    let frames = told(&mut hand, peer);
    assert!(frames.len() > 1, "one frame does not hold so many");
    assert!(frames.iter().all(|(age, _)| *age == 5000));
    let chunks: Vec<u32> = frames.iter().flat_map(|(_, list)| list.iter().map(|(chunk, _)| *chunk)).collect();
    assert_eq!(chunks, (0..900).collect::<Vec<_>>());
}

#[test]
fn a_full_log_takes_no_more() {
    let mut hand = Hand::new(logging(3));
    (0..5).for_each(|chunk| touches(&mut hand, chunk));
    let peer = featured(&mut hand, 1, Role::Node, 0);
    assert_eq!(told(&mut hand, peer), [(0, vec![(0, 0), (1, 0), (2, 0)])]);
}

#[test]
fn a_seed_is_told_only_if_it_learns_and_the_node_teaches() {
    for (features, teach, is_told) in
        [(0, true, false), (FEATURE_TEACH, true, true), (FEATURE_TEACH, false, false), (!FEATURE_TEACH, true, false)]
    {
        let mut hand = Hand::new(|config| {
            config.limits.touches = 100;
            config.teach = teach;
        });
        touches(&mut hand, 7);
        let peer = featured(&mut hand, 1, Role::Seed, features);
        let frames = hand.says(peer);
        let own =
            frames.iter().find_map(|frame| if let Frame::Hello(hello) = frame { Some(hello.features) } else { None });
        assert_eq!(own, Some(if teach { FEATURE_TEACH } else { 0 }));
        assert_eq!(frames.iter().any(|frame| matches!(frame, Frame::Touched(_))), is_told, "{features} {teach}");
        touches(&mut hand, 8);
        hand.wait_micros(BATCH);
        assert_eq!(told(&mut hand, peer).len(), usize::from(is_told));
        hand.wait_micros(BATCH);
        assert_eq!(told(&mut hand, peer), []);
    }
}

#[test]
fn what_another_guest_touched_is_prefetched_in_its_order() {
    let mut hand = Hand::new(|config| config.tuning.prefetches_per_seed = 16);
    let seed = hand.holder(1, Role::Seed, 0..PIECES);
    let peer = hand.link(2, Role::Node);
    assert_eq!(hand.asks(), []);
    tells(&mut hand, peer, 10, &[(900, 0), (5, 30), (300, 4000)]).unwrap();
    let asked: Vec<(PeerId, u32)> = hand.asks().into_iter().filter(|(_, piece)| *piece < CHUNKS).collect();
    assert_eq!(asked, [(seed, 900), (seed, 5), (seed, 300)]);
    tells(&mut hand, peer, 0, &[(901, 0), (5, 0)]).unwrap();
    assert_eq!(hand.asks(), [(seed, 901)], "each once");
}

#[test]
fn touches_that_make_no_sense_end_the_link_and_teach_nothing() {
    let mut hand = Hand::new(|_| {});
    hand.holder(1, Role::Seed, 0..PIECES);
    let peer = hand.link(2, Role::Node);
    let error = Err(PeerError::Malformed(WireError::Malformed));
    assert_eq!(tells(&mut hand, peer, 0, &[(3, 0), (CHUNKS, 0)]), error, "beyond the image");
    let cut = Touched { age_millis: 0, touches: &[2, 0, 0x80] };
    assert_eq!(hand.hear(peer, Frame::Touched(cut)), error);
    assert_eq!(hand.asks(), []);
}

#[test]
fn times_beyond_all_bounds_are_taken_as_they_are() {
    let mut hand = Hand::new(|config| config.tuning.prefetches_per_seed = 16);
    hand.holder(1, Role::Seed, 0..PIECES);
    let peer = hand.link(2, Role::Node);
    tells(&mut hand, peer, u32::MAX, &[(1, 0), (2, u32::MAX), (3, u32::MAX)]).unwrap();
    tells(&mut hand, peer, 0, &[(4, 0), (1, u32::MAX)]).unwrap();
    tells(&mut hand, peer, 0, &[]).unwrap();
    let asked: Vec<u32> = hand.asks().into_iter().map(|(_, piece)| piece).filter(|piece| *piece < CHUNKS).collect();
    assert_eq!(asked, [1, 2, 3, 4]);
}

#[test]
fn another_profile_is_offered_to_links_that_come_then() {
    let mut hand = Hand::new(|_| {});
    let offers = |hand: &mut Hand, number| {
        let peer = featured(hand, number, Role::Node, 0);
        let frames = hand.says(peer).into_iter();
        frames.filter_map(|frame| if let Frame::Offer(offer) = frame { Some(offer.digest) } else { None }).collect()
    };
    let none: Vec<Digest> = offers(&mut hand, 1);
    assert_eq!(none, []);
    let profile = Some(Offered { digest: Digest([8; 32]), bytes: 70 });
    hand.tell(Event::ProfileOffered { profile });
    assert_eq!(hand.drain(), [], "links that are there need not know");
    let one: Vec<Digest> = offers(&mut hand, 2);
    assert_eq!(one, [Digest([8; 32])]);
}
