//! What is fetched though no guest wants it yet.

use crate::hand::*;
use swarmdisk_core::engine::{Event, Fill};
use swarmdisk_core::ids::{GuestId, PeerId};
use swarmdisk_core::time::Duration;
use swarmdisk_core::wire::{Class, Role};

/// What a chunk's payload is taken to be before any has come, in bytes.
const MEAN_BYTES: u64 = (1 << 16) / 3;
const SECOND: u64 = 1_000_000;
/// How long is long, in microseconds.
const LONG: u64 = 5 * SECOND;

/// A node that fills by itself and holds all leaf pages and the first chunks, and a holder of everything.
fn filler(chunks: &[u32], payload_bytes: u64) -> (Hand, PeerId) {
    let mut hand = Hand::guessing(chunks, |config| {
        (config.fill, config.payload_bytes) = (Fill::Auto, payload_bytes);
        config.tuning.fill_after = Duration::from_micros(LONG);
    });
    hand.keeps(CHUNKS..PIECES);
    hand.keeps(0..500);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    (hand, peer)
}

fn reads(hand: &mut Hand, chunks: std::ops::Range<u32>) {
    for number in chunks {
        let chunk = hand.chunk(number);
        hand.tell(Event::Touched { guest: GuestId(0), chunk });
    }
}

fn classes(hand: &mut Hand) -> Vec<Class> {
    hand.requests().into_iter().map(|(_, request)| request.class).collect()
}

#[test]
fn it_begins_when_much_of_what_is_in_the_image_has_been_read() {
    let (mut hand, _) = filler(&[], 100 * MEAN_BYTES);
    reads(&mut hand, 0..30);
    assert_eq!(classes(&mut hand), [], "of payloads of a hundred chunks, thirty");
    reads(&mut hand, 30..31);
    assert_eq!(classes(&mut hand), [Class::Fill]);
}

#[test]
fn of_the_whole_image_if_it_is_not_known_what_is_in_it() {
    let (mut hand, _) = filler(&[], 0);
    reads(&mut hand, 0..307);
    assert_eq!(classes(&mut hand), []);
    reads(&mut hand, 307..308);
    assert_eq!(classes(&mut hand), [Class::Fill]);
}

#[test]
fn it_begins_when_a_guest_has_been_reading_for_long() {
    let (mut hand, _) = filler(&[], 0);
    hand.wait_micros(6 * SECOND);
    assert_eq!(classes(&mut hand), [], "no guest has read");
    reads(&mut hand, 0..1);
    assert_eq!(classes(&mut hand), []);
    hand.wait_micros(LONG - 1);
    reads(&mut hand, 1..2);
    assert_eq!(classes(&mut hand), [], "the first read counts, and it is not long ago");
    assert_eq!(hand.engine.deadline(), Some(hand.time() + Duration::from_micros(1)));
    hand.wait_micros(1);
    assert_eq!(classes(&mut hand), [Class::Fill]);
}

#[test]
fn it_rests_as_long_as_a_piece_takes() {
    let (mut hand, peer) = filler(&[], 1);
    reads(&mut hand, 0..1);
    let asked = hand.asks();
    let [(_, piece)] = asked[..] else { panic!("one at a time: {asked:?}") };
    hand.wait_micros(7000);
    hand.gets(peer, piece);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(6999);
    assert_eq!(hand.asks(), [], "it has taken 7 ms");
    hand.wait_micros(1);
    assert_eq!(hand.asks().len(), 1);
}

#[test]
fn it_waits_while_anything_else_is_under_way() {
    let (mut hand, peer) = filler(&[700], 1);
    reads(&mut hand, 0..1);
    assert_eq!(hand.asks(), [(peer, 700)], "a guess");
    hand.wants(600);
    hand.wait_micros(2000);
    assert_eq!(hand.asks(), [(peer, 600)]);
    hand.gets(peer, 700);
    hand.wait_micros(2000);
    assert_eq!(hand.asks(), [], "a guest waits");
    hand.gets(peer, 600);
    hand.wait_micros(2000);
    assert_eq!(classes(&mut hand), [Class::Fill]);
}

#[test]
fn it_is_never_asked_of_a_second_peer_and_goes_on_to_the_end() {
    let (mut hand, _) = filler(&[], 1);
    hand.holder(2, Role::Node, 0..PIECES);
    hand.keeps(500..CHUNKS - 2);
    reads(&mut hand, 0..1);
    let asked = hand.asks();
    hand.wait_micros(SECOND);
    assert_eq!((asked.len(), hand.asks()), (1, vec![]));
    let (mut next, mut all) = (asked, vec![]);
    while let [(peer, piece)] = next[..] {
        hand.gets(peer, piece);
        all.push(piece);
        hand.wait_micros(2 * SECOND);
        next = hand.asks();
    }
    all.sort_unstable();
    assert_eq!(all, [CHUNKS - 2, CHUNKS - 1]);
    assert_eq!((hand.engine.held().count(), hand.engine.stats().hedges), (PIECES, 0));
}

#[test]
fn it_takes_no_place_from_what_is_about_to_be_wanted() {
    let mut hand = Hand::guessing(&[500, 501], |config| config.fill = Fill::Rate(1 << 40));
    hand.keeps(CHUNKS..PIECES);
    hand.keeps(0..500);
    let peer = hand.holder(1, Role::Node, 502..PIECES);
    let fills = hand.requests();
    assert!(fills.iter().all(|(_, request)| request.class == Class::Fill), "{fills:?}");
    assert_eq!(fills.iter().map(|(_, request)| request.run.count).sum::<u16>(), 4, "as many as may be");
    hand.has(peer, 500..502);
    hand.drain();
    hand.wait_micros(100_000);
    assert_eq!(classes(&mut hand), [Class::Prefetch], "of the peer that has not answered them");
}
