//! A cache with a bound: what goes, and what may come.

use crate::hand::*;
use swarmdisk_core::engine::{Action, Event, Fill};
use swarmdisk_core::ids::{GuestId, PeerId};
use swarmdisk_core::wire::{Class, Role};

/// The longest payload of a chunk; those that come here have 100 bytes.
const LONGEST_BYTES: i64 = 1 << 16;

/// A node with all leaf pages whose cache holds these chunks, and may hold no more.
fn full(chunks: std::ops::Range<u32>, guesses: &[u32], fill: Fill) -> Hand {
    let mut hand = Hand::guessing(guesses, |config| (config.limits.bounded, config.fill) = (true, fill));
    hand.keeps(CHUNKS..PIECES);
    hand.keeps(chunks.clone());
    let first = hand.piece(chunks.start);
    hand.tell(Event::Kept { first, count: chunks.len() as u32 });
    hand.tell(Event::Room { bytes: 0 });
    hand
}

fn reads(hand: &mut Hand, chunks: std::ops::Range<u32>) {
    for number in chunks {
        let chunk = hand.chunk(number);
        hand.tell(Event::Touched { guest: GuestId(0), chunk });
    }
}

/// Takes away what is to go, as a host does; says what that was.
fn takes_away(hand: &mut Hand, room: i64) -> Option<u32> {
    let going: Vec<u32> = hand
        .actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::Evict { chunk } => Some(chunk.get()),
            _ => None,
        })
        .collect();
    assert!(going.len() <= 1, "{going:?}");
    let gone = *going.first()?;
    let piece = hand.piece(gone);
    hand.tell(Event::Room { bytes: room });
    hand.tell(Event::PieceLost { piece });
    Some(gone)
}

/// The cache shrinks by a chunk; which one goes.
fn shrinks(hand: &mut Hand) -> Option<u32> {
    hand.tell(Event::Room { bytes: -1 });
    takes_away(hand, 0)
}

#[test]
fn what_most_hold_goes_first_and_what_nobody_else_holds_last() {
    let mut hand = full(0..5, &[], Fill::Off);
    hand.holder(1, Role::Node, 1..PIECES);
    hand.holder(2, Role::Node, 2..4);
    hand.holder(3, Role::Seed, 3..4);
    let order: Vec<u32> = (0..5).filter_map(|_| shrinks(&mut hand)).collect();
    assert_eq!(order, [3, 2, 4, 1, 0]);
    assert_eq!(shrinks(&mut hand), None, "leaf pages stay");
}

#[test]
fn what_was_used_long_ago_goes_before_what_was_used_lately_or_often() {
    let mut hand = full(0..6, &[], Fill::Off);
    hand.holder(1, Role::Node, 0..PIECES);
    hand.holder(2, Role::Node, 2..3);
    // Chunk 2 is held by more, and yet stays for it is used.
    reads(&mut hand, 2..6);
    assert_eq!([shrinks(&mut hand), shrinks(&mut hand)], [Some(0), Some(1)]);
    // In each round again, the others no more.
    for _ in 0..2 {
        reads(&mut hand, 4..5);
        assert!(shrinks(&mut hand).is_some_and(|gone| gone != 4));
    }
    assert_eq!([shrinks(&mut hand), shrinks(&mut hand)], [Some(5), Some(4)]);
}

#[test]
fn a_demand_finds_room_whatever_is_there() {
    // Nobody else is known to hold any of these, and all have been used.
    let mut hand = full(0..3, &[], Fill::Off);
    let peer = hand.holder(1, Role::Seed, 100..PIECES);
    reads(&mut hand, 0..3);
    hand.wants(100);
    assert_eq!(hand.asks(), [(peer, 100)]);
    let slot = hand.verifies(peer, 100);
    let piece = hand.piece(100);
    let chunk = hand.chunk(0);
    assert_eq!(hand.actions(), [Action::Deliver { slot, piece }, Action::Evict { chunk }], "the guest first");
    assert_eq!(hand.actions(), [], "it is on its way out");
    let gone = hand.piece(0);
    hand.tell(Event::Room { bytes: 99 });
    hand.tell(Event::PieceLost { piece: gone });
    assert!(matches!(hand.actions()[..], [Action::Evict { .. }]), "not enough");
    hand.tell(Event::Room { bytes: 100 });
    assert_eq!(hand.actions(), [Action::Store { slot, piece }]);
}

#[test]
fn room_on_its_way_to_be_used_is_not_used_twice() {
    let mut hand = full(0..3, &[], Fill::Off);
    let peer = hand.holder(1, Role::Seed, 100..PIECES);
    hand.tell(Event::Room { bytes: 150 });
    for chunk in [100, 101] {
        hand.wants(chunk);
        hand.drain();
    }
    let stores = |actions: Vec<Action>| actions.iter().filter(|action| matches!(action, Action::Store { .. })).count();
    let slot = hand.verifies(peer, 100);
    assert_eq!(stores(hand.actions()), 1);
    hand.verifies(peer, 101);
    assert_eq!(stores(hand.actions()), 0);
    // Also if the host says the same again.
    hand.tell(Event::Room { bytes: 150 });
    assert_eq!(stores(hand.actions()), 0);
    hand.tell(Event::BodyStored { slot });
    hand.tell(Event::Room { bytes: 100 });
    assert_eq!(stores(hand.actions()), 1);
}

fn asked_classes(hand: &mut Hand) -> Vec<Class> {
    hand.requests().into_iter().map(|(_, request)| request.class).collect()
}

#[test]
fn guesses_and_fills_do_not_drive_out_what_is_used() {
    let mut hand = full(0..8, &[0, 1, 2, 3, 4, 5, 6, 7, 300, 301], Fill::Rate(u64::MAX));
    hand.holder(1, Role::Node, 0..PIECES);
    reads(&mut hand, 0..8);
    assert_eq!(asked_classes(&mut hand), []);
    // A place for one.
    hand.tell(Event::Room { bytes: LONGEST_BYTES - 1 });
    assert_eq!(asked_classes(&mut hand), [], "the next may be as long as a chunk");
    hand.tell(Event::Room { bytes: LONGEST_BYTES });
    assert_eq!(asked_classes(&mut hand), [Class::Prefetch]);
}

#[test]
fn a_guess_takes_the_place_of_what_is_aged_out_and_of_no_more() {
    let mut hand = full(0..8, &[300, 301, 302, 303, 304, 305], Fill::Rate(u64::MAX));
    reads(&mut hand, 0..4);
    // Nobody else holds chunk 7.
    let peer = hand.holder(1, Role::Node, 0..7);
    hand.has(peer, 300..400);
    let asked = hand.asks();
    assert_eq!(asked, [(peer, 300), (peer, 301), (peer, 302)], "4, 5 and 6 may go");
    for (at, (_, chunk)) in asked.into_iter().enumerate() {
        let slot = hand.verifies(peer, chunk);
        assert_eq!(takes_away(&mut hand, 100), Some(4 + at as u32));
        let piece = hand.piece(chunk);
        assert_eq!(hand.actions(), [Action::Store { slot, piece }]);
        hand.tell(Event::BodyStored { slot });
        hand.tell(Event::Room { bytes: 0 });
    }
    assert_eq!(hand.asks(), [], "guesses do not take each other's places");
}

#[test]
fn a_guess_that_finds_no_place_when_it_comes_is_forgotten() {
    let mut hand = full(0..4, &[300], Fill::Off);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    assert_eq!(hand.asks(), [(peer, 300)]);
    reads(&mut hand, 0..4);
    let slot = hand.verifies(peer, 300);
    assert_eq!(hand.actions(), [Action::Abandon { slot }]);
    assert_eq!(hand.asks(), [], "nor is it asked for again");
    hand.wants(300);
    assert_eq!(hand.asks(), [(peer, 300)]);
}

/// Everything is answered at once, and a guest reads a little: guesses come to rest between two reads.
#[test]
fn a_small_cache_does_not_fetch_the_same_guesses_for_ever() {
    let guesses: Vec<u32> = (0..500).collect();
    let mut hand = full(900..908, &guesses, Fill::Off);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    let mut used = 8i64;
    for read in [0, 250, 700, 3, 499] {
        if !hand.engine.holds(hand.piece(read)) {
            hand.wants(read);
        }
        let mut fetched = 0;
        loop {
            let asked = hand.asks();
            if asked.is_empty() {
                break;
            }
            for (_, chunk) in asked {
                fetched += 1;
                assert!(fetched < 30, "it goes on for ever");
                used += keeps_or_forgets(&mut hand, peer, chunk, 8 - used);
                assert!(used <= 8, "{used} chunks");
            }
        }
        reads(&mut hand, read..read + 1);
    }
}

/// A piece comes, and the engine does with it what it will; how many more are held then.
fn keeps_or_forgets(hand: &mut Hand, peer: PeerId, chunk: u32, mut places: i64) -> i64 {
    let before = places;
    let mut slot = Some(hand.lands(peer, chunk));
    while let Some(waiting) = slot {
        for action in hand.actions() {
            match action {
                Action::Verify { slot, .. } => {
                    let verdict = swarmdisk_core::engine::Verdict::Genuine;
                    hand.tell(Event::BodyVerified { slot, verdict });
                }
                Action::Evict { chunk } => {
                    let piece = hand.piece(chunk.get());
                    places += 1;
                    hand.tell(Event::Room { bytes: 100 * places });
                    hand.tell(Event::PieceLost { piece });
                }
                Action::Store { .. } => {
                    places -= 1;
                    hand.tell(Event::BodyStored { slot: waiting });
                    hand.tell(Event::Room { bytes: 100 * places });
                    slot = None;
                }
                Action::Abandon { .. } => slot = None,
                _ => {}
            }
        }
    }
    before - places
}
