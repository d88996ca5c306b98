//! Chunks that another image of the node's cache has: leaf pages come first, what they show is not fetched.

use crate::hand::*;
use swarmdisk_core::engine::{Event, Fill};
use swarmdisk_core::ids::PeerId;
use swarmdisk_core::wire::{Frame, Role};

/// A node that sees leaf pages first, and guesses these chunks; somebody holds all.
fn beside_another_image(guesses: &[u32]) -> (Hand, PeerId) {
    let mut hand = Hand::guessing(guesses, |config| config.leaves_first = true);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    (hand, peer)
}

#[test]
fn a_demand_asks_for_the_leaf_page_and_then_for_what_nobody_here_has() {
    let (mut hand, peer) = beside_another_image(&[]);
    hand.wants(5);
    hand.wants(6);
    assert_eq!(hand.asks(), [(peer, CHUNKS)]);
    let slot = hand.verifies(peer, CHUNKS);
    hand.drain();
    let first = hand.piece(6);
    hand.tell(Event::Found { first, count: 9 });
    hand.tell(Event::BodyStored { slot });
    assert_eq!(hand.asks(), [(peer, 5)]);
    hand.wants(9);
    assert_eq!(hand.asks(), []);
    // Another image has lost it.
    let piece = hand.piece(9);
    hand.tell(Event::PieceLost { piece });
    hand.wants(9);
    assert_eq!(hand.asks(), [(peer, 9)]);
}

#[test]
fn guesses_and_fills_see_the_leaf_page_first_too() {
    let (mut hand, peer) = beside_another_image(&[300, 301, 302]);
    assert_eq!(hand.asks(), [(peer, CHUNKS + 1)]);
    let slot = hand.verifies(peer, CHUNKS + 1);
    hand.drain();
    let first = hand.piece(301);
    hand.tell(Event::Found { first, count: 1 });
    hand.tell(Event::BodyStored { slot });
    assert_eq!(hand.asks(), [(peer, 300), (peer, 302)]);

    let mut hand = Hand::new(|config| (config.leaves_first, config.fill) = (true, Fill::Rate(u64::MAX)));
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    let asked = hand.asks();
    assert!(!asked.is_empty() && asked.iter().all(|ask| ask.0 == peer && ask.1 >= CHUNKS), "{asked:?}");
}

#[test]
fn others_are_told_of_what_was_found() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |config| config.leaves_first = true);
    let peer = hand.link(1, Role::Node);
    let first = hand.piece(7);
    hand.tell(Event::Found { first, count: 3 });
    hand.tell(Event::Found { first, count: 4 });
    hand.wait_micros(100_000);
    let told = hand.says(peer).into_iter().find_map(|frame| match frame {
        Frame::Have(pieces) => Some(runs(pieces)),
        _ => None,
    });
    assert_eq!(told, Some(vec![(7, 4)]));
}
