//! What is asked of whom, and when.

use crate::hand::*;
use swarmdisk_core::engine::{Action, Config, Event, Fill, Landing, PeerError, Verdict};
use swarmdisk_core::ids::GuestId;
use swarmdisk_core::policy::Owners;
use swarmdisk_core::time::Duration;
use swarmdisk_core::wire::{Busy, Class, Data, Frame, HEAD_BYTES_MAX, Hello, Redirect, Request, Role, Run};

/// A node that holds all leaf pages, so that only chunks are asked for.
fn with_leaves() -> Hand {
    Hand::holding(CHUNKS..PIECES, |_| {})
}

fn busy(first: u32, retry_millis: u16) -> Frame<'static> {
    Frame::Busy(Busy { run: Run { first, count: 1 }, retry_millis })
}

fn redirect(first: u32, to: u8) -> Frame<'static> {
    Frame::Redirect(Redirect { run: Run { first, count: 1 }, node: node_id(to), address: listens(to) })
}

fn is_cancel(out: &Out) -> bool {
    matches!(out, Out::Say(_, Frame::Cancel(_), _))
}

#[test]
fn demand_goes_before_prefetch_before_fill() {
    let mut hand = Hand::guessing(&[10, 12], |config| config.fill = Fill::Rate(u64::MAX));
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.link(1, Role::Node);
    hand.wants(500);
    hand.maps(peer, 0..PIECES);
    let classes = |hand: &mut Hand| hand.requests().into_iter().map(|(_, it)| it.class).collect::<Vec<_>>();
    assert_eq!(classes(&mut hand), [Class::Demand, Class::Prefetch, Class::Prefetch], "no fill while a guest waits");
    hand.releases(500);
    hand.keeps(500..501);
    assert_eq!(classes(&mut hand)[0], Class::Fill);
}

#[test]
fn the_only_place_at_a_holder_goes_to_demand() {
    let mut hand = Hand::guessing(&[10, 12], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(Hello { requests_max: 1, ..hand.hello(1, Role::Node) })).unwrap();
    hand.wants(500);
    hand.maps(peer, 0..PIECES);
    assert_eq!(hand.asks(), [(peer, 500)]);
    hand.lands(peer, 500);
    assert_eq!(hand.asks(), [(peer, 10)]);
}

#[test]
fn a_demand_goes_before_a_prefetch_that_waits_for_credit() {
    let mut hand = Hand::guessing(&[10], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.engine.admit(hand.time(), listens(50), 1).unwrap();
    hand.hear(peer, Frame::Hello(hand.hello(1, Role::Node))).unwrap();
    hand.maps(peer, 0..PIECES);
    assert_eq!(hand.asks(), [], "the hello has used up the credit");
    hand.wants(500);
    hand.drain();
    hand.tell(Event::PeerWritable { peer, bytes: u32::MAX });
    let mut asked = vec![];
    while !asked.contains(&10) {
        asked.extend(hand.asks().into_iter().map(|(_, piece)| piece));
        hand.tell(Event::PeerWritable { peer, bytes: u32::MAX });
    }
    assert_eq!(asked, [500, 10]);
}

#[test]
fn a_chunk_and_its_leaf_page_are_asked_for_at_once() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(300);
    let requests = hand.requests();
    let asked: Vec<_> = requests.iter().map(|(to, request)| (*to, request.run.first, request.class)).collect();
    assert_eq!(asked, [(peer, CHUNKS + 1, Class::Demand), (peer, 300, Class::Demand)]);
}

#[test]
fn neighbours_are_asked_for_in_one_request() {
    let mut hand = with_leaves();
    let peer = hand.link(1, Role::Node);
    [5, 6, 7, 8, 20].into_iter().for_each(|chunk| hand.wants(chunk));
    hand.maps(peer, 0..PIECES);
    let runs: Vec<_> = hand.requests().iter().map(|(_, request)| (request.run.first, request.run.count)).collect();
    assert_eq!(runs, [(5, 4), (20, 1)]);
}

#[test]
fn owners_fetch_what_others_own_as_soon_as_a_node_has_it() {
    let mut hand = Hand::ordered(Owners::default(), &[5, 6], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.link(1, Role::Node);
    assert_eq!(hand.asks(), [], "nobody has anything");
    hand.maps(peer, 6..7);
    assert_eq!(hand.asks(), [(peer, 6)]);
    hand.maps(peer, 5..7);
    assert_eq!(hand.asks(), [(peer, 5)]);
}

#[test]
fn a_pick_that_found_nobody_to_ask_is_made_again_once_a_peer_takes_more() {
    let mut hand = Hand::ordered(Owners::default(), &[5, 6, 7], |config| config.tuning.prefetches_per_peer = 1);
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    for _ in 0..3 {
        let asked = hand.asks();
        assert_eq!(asked.len(), 1, "one at a time, and another as soon as that has come");
        hand.lands(peer, asked[0].1);
    }
}

#[test]
fn news_of_what_no_guest_waits_for_is_acted_on_a_little_later_once_for_all() {
    let mut hand = Hand::ordered(Owners::default(), &[5, 6], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.link(1, Role::Node);
    assert_eq!(hand.asks(), [], "nobody has anything");
    hand.has(peer, 5..6);
    assert_eq!(hand.asks(), [], "more may be told");
    hand.wait_micros(499);
    hand.has(peer, 6..7);
    assert_eq!(hand.asks(), []);
    assert_eq!(hand.engine.deadline(), Some(hand.time() + Duration::from_micros(1)));
    hand.wait_micros(1);
    assert_eq!(hand.asks().len(), 2);
    hand.wants(9);
    assert_eq!(hand.asks(), [], "nobody has it");
    hand.has(peer, 9..10);
    assert_eq!(hand.asks(), [(peer, 9)], "a guest waits");
}

#[test]
fn a_guess_that_becomes_a_demand_is_raised() {
    let mut hand = Hand::guessing(&[5], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    let run = Run { first: 5, count: 1 };
    let guess = Request { run, class: Class::Prefetch, insist: false, raise: false, due_millis: 0 };
    assert_eq!(hand.requests(), [(peer, guess)]);
    hand.wants(5);
    assert_eq!(hand.requests(), [(peer, Request { class: Class::Demand, raise: true, ..guess })]);
    hand.wants(5);
    assert_eq!(hand.requests(), [], "once is enough");
}

#[test]
fn a_demand_that_nobody_waits_for_is_cancelled() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.wants(5);
    hand.drain();
    hand.releases(5);
    assert_eq!(hand.drain(), [], "another guest waits");
    hand.releases(5);
    assert_eq!(hand.says(peer), [Frame::Cancel(Run { first: 5, count: 1 })]);
    assert!(matches!(hand.begins(peer, 5), Landing::Discard { .. }), "what was on its way is forgotten");
    assert_eq!(hand.hear(peer, Frame::Data(Data { piece: 5, bytes: 1 })), Err(PeerError::Unexpected), "but only once");
}

#[test]
fn a_guess_that_nobody_waits_for_any_longer_is_a_guess_again() {
    let mut hand = Hand::guessing(&[5], |_| {});
    hand.keeps(CHUNKS..PIECES);
    hand.holder(1, Role::Node, 0..PIECES);
    hand.drain();
    hand.holder(2, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    hand.releases(5);
    assert!(!hand.drain().iter().any(is_cancel), "it is still expected to be wanted");
    hand.wait_micros(2_000_000);
    assert_eq!(hand.requests(), [], "what no guest waits for is not asked of two");
}

#[test]
fn a_late_demand_is_asked_of_a_second_holder_and_the_loser_is_cancelled() {
    let mut hand = with_leaves();
    let slow = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    assert_eq!(hand.asks(), [(slow, 5)]);
    let other = hand.holder(2, Role::Node, 0..PIECES);
    hand.wait_micros(299_000);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(1_000);
    assert_eq!(hand.engine.deadline(), Some(hand.time()), "the engine asks to be called then");
    assert_eq!(hand.asks(), [(other, 5)]);
    hand.wait_micros(1_000_000);
    assert_eq!(hand.asks(), [], "two are enough");
    let slot = hand.lands(other, 5);
    let outs = hand.drain();
    assert!(outs.contains(&Out::Say(slow, Frame::Cancel(Run { first: 5, count: 1 }), None)), "{outs:?}");
    hand.tell(Event::BodyVerified { slot, verdict: Verdict::Genuine });
    assert!(hand.actions().contains(&Action::Deliver { slot, piece: hand.piece(5) }));
    assert_eq!(hand.engine.stats().hedges, 1);
}

#[test]
fn a_second_holder_that_refuses_is_followed_by_a_third() {
    let mut hand = with_leaves();
    hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    let refuses = hand.holder(2, Role::Node, 0..PIECES);
    hand.wait_micros(300_000);
    assert_eq!(hand.asks(), [(refuses, 5)]);
    let third = hand.holder(3, Role::Node, 0..PIECES);
    hand.hear(refuses, Frame::Refuse(Run { first: 5, count: 1 })).unwrap();
    assert_eq!(hand.asks(), [(third, 5)]);
}

#[test]
fn a_body_that_stops_in_the_middle_does_not_stall_a_guest() {
    let mut hand = with_leaves();
    let stops = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    assert!(matches!(hand.begins(stops, 5), Landing::Land { .. }));
    let other = hand.holder(2, Role::Node, 0..PIECES);
    hand.wait_micros(600_000);
    assert_eq!(hand.asks(), [], "it has begun: it is given longer");
    hand.wait_micros(600_000);
    assert_eq!(hand.asks(), [(other, 5)]);
    hand.gets(other, 5);
    assert_eq!(hand.asks(), []);
}

#[test]
fn a_fetch_is_given_up_and_asked_elsewhere() {
    let mut hand = with_leaves();
    let silent = hand.holder(1, Role::Node, 0..PIECES);
    hand.wait_micros(5);
    hand.hear(silent, Frame::Pong(0)).unwrap();
    hand.wants(5);
    hand.drain();
    hand.wait_micros(9_999_000);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(1_000);
    assert!(hand.drain().iter().any(is_cancel), "it is taken back");
    hand.hear(silent, Frame::Pong(hand.now)).unwrap();
    assert_eq!(hand.asks(), [], "that ping was sent before the request was taken back");
    hand.hear(silent, Frame::Pong(hand.now)).unwrap();
    assert_eq!(hand.asks(), [(silent, 5)], "taken back first, then asked again, nobody else having it");
    assert_eq!(hand.engine.stats().timeouts, 1);
}

#[test]
fn a_request_is_taken_back_before_it_is_made_again() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wait_micros(5);
    hand.hear(peer, Frame::Pong(0)).unwrap();
    hand.wants(4);
    hand.wants(5);
    hand.drain();
    hand.gets(peer, 4);
    hand.wait_micros(1000);
    hand.releases(5);
    hand.wants(5);
    let outs = hand.drain();
    let said: Vec<_> =
        outs.iter().filter(|out| matches!(out, Out::Say(_, Frame::Cancel(_) | Frame::Request(_), _))).collect();
    assert!(said.len() == 1 && is_cancel(said[0]), "else the cancel would take back the new request: {said:?}");
    hand.hear(peer, Frame::Pong(hand.now)).unwrap();
    assert_eq!(hand.asks(), [(peer, 5)]);
}

#[test]
fn a_busy_holder_is_left_alone_with_guesses_until_its_time() {
    let mut hand = Hand::guessing(&[5], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    assert_eq!(hand.asks(), [(peer, 5)]);
    hand.hear(peer, busy(5, 100)).unwrap();
    assert_eq!(hand.asks(), []);
    hand.wants(6);
    assert_eq!(hand.asks(), [(peer, 6)], "a demand may overtake its queue");
    hand.wait_micros(99_000);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(1_000);
    assert_eq!(hand.engine.deadline(), Some(hand.time()));
    assert_eq!(hand.asks(), [(peer, 5)]);
}

#[test]
fn a_holder_too_busy_for_a_demand_is_left_alone_until_its_time() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    hand.hear(peer, busy(5, 100)).unwrap();
    hand.wait_micros(99_000);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(1_000);
    assert_eq!(hand.engine.deadline(), Some(hand.time()));
    assert_eq!(hand.asks(), [(peer, 5)]);
}

#[test]
fn what_becomes_possible_between_two_polls_is_not_missed() {
    let mut hand = with_leaves();
    let first = hand.holder(1, Role::Node, 5..6);
    hand.wants(5);
    assert_eq!(hand.asks(), [(first, 5)]);
    let second = hand.holder(2, Role::Node, 6..7);
    hand.drain();
    hand.hear(first, busy(5, 10)).unwrap();
    hand.wants(6);
    let request = hand.engine.poll(hand.time(), &mut [0; HEAD_BYTES_MAX]);
    assert!(matches!(request, Some(Action::Transmit { peer, .. }) if peer == second), "{request:?}");
    // The host takes its time.
    hand.wait_micros(20_000);
    assert_eq!(hand.asks(), [(first, 5)]);
}

#[test]
fn a_peer_that_turns_out_to_be_fast_is_late_earlier() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..CHUNKS);
    hand.wants(5);
    hand.drain();
    hand.wait_micros(1_000_000);
    hand.gets(peer, 5);
    hand.wants(6);
    assert_eq!(hand.asks(), [(peer, 6)]);
    let other = hand.holder(2, Role::Node, 6..7);
    hand.wait_micros(4_000_000);
    hand.wants(7);
    assert_eq!(hand.asks(), [(peer, 7)], "a slow peer is given time");
    let landing = hand.hear(peer, Frame::Data(Data { piece: 7, bytes: 60_000 })).unwrap();
    let Landing::Land { slot, .. } = landing else { panic!("{landing:?}") };
    assert_eq!(hand.asks(), []);
    hand.tell(Event::BodyLanded { slot });
    assert_eq!(hand.asks(), [(other, 6)]);
}

#[test]
fn nobody_is_busy_for_longer_than_five_seconds() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    hand.hear(peer, busy(5, u16::MAX)).unwrap();
    hand.wait_micros(5_000_000);
    assert_eq!(hand.asks(), [(peer, 5)]);
}

#[test]
fn a_seed_that_redirects_is_left_alone_until_patience_has_passed_then_asked_with_insistence() {
    for (guesses, micros) in [(&[][..], 150_000), (&[5][..], 450_000)] {
        let mut hand = Hand::guessing(guesses, |_| {});
        hand.keeps(CHUNKS..PIECES);
        let seed = hand.holder(1, Role::Seed, 0..PIECES);
        if guesses.is_empty() {
            hand.wants(5);
        }
        let first = hand.requests();
        assert!(matches!(first[..], [(to, Request { insist: false, .. })] if to == seed));
        hand.hear(seed, redirect(5, 2)).unwrap();
        let dials = hand.actions();
        assert!(matches!(dials[..], [Action::Dial { address, .. }] if address == listens(2)), "{dials:?}");
        hand.wait_micros(micros - 1);
        assert_eq!(hand.requests(), []);
        hand.wait_micros(1);
        assert_eq!(hand.engine.deadline(), Some(hand.time()));
        let again = hand.requests();
        assert!(matches!(again[..], [(to, Request { insist: true, .. })] if to == seed), "{again:?}");
    }
}

#[test]
fn whom_a_seed_redirects_to_is_asked_though_it_has_not_said_that_it_holds_the_piece() {
    let mut hand = with_leaves();
    let seed = hand.holder(1, Role::Seed, 0..PIECES);
    let node = hand.link(2, Role::Node);
    hand.wants(5);
    assert_eq!(hand.asks(), [(seed, 5)]);
    hand.hear(seed, redirect(5, 2)).unwrap();
    assert_eq!(hand.asks(), [(node, 5)]);
    hand.hear(node, Frame::Refuse(Run { first: 5, count: 1 })).unwrap();
    assert_eq!(hand.requests(), [], "the seed might name it again");
    hand.wait_micros(5_000);
    let again = hand.requests();
    assert!(matches!(again[..], [(to, Request { insist: true, .. })] if to == seed), "no patience then: {again:?}");
}

#[test]
fn whom_a_node_with_much_to_do_names_is_asked_and_no_other_holder() {
    let mut hand = with_leaves();
    let holder = hand.holder(1, Role::Node, 0..PIECES);
    let named = hand.link(2, Role::Node);
    hand.wants(5);
    assert_eq!(hand.asks(), [(holder, 5)]);
    hand.hear(holder, redirect(5, 2)).unwrap();
    assert_eq!(hand.asks(), [(named, 5)]);
    hand.hear(named, Frame::Refuse(Run { first: 5, count: 1 })).unwrap();
    let again = hand.requests();
    assert!(matches!(again[..], [(to, Request { insist: true, .. })] if to == holder), "{again:?}");
}

#[test]
fn a_node_that_names_one_without_a_link_is_asked_again_with_insistence_and_then_no_more() {
    let mut hand = with_leaves();
    let holder = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    assert_eq!(hand.asks(), [(holder, 5)]);
    hand.hear(holder, redirect(5, 2)).unwrap();
    let again = hand.requests();
    assert!(matches!(again[..], [(to, Request { insist: true, .. })] if to == holder), "{again:?}");
    // Else the two could go on for ever.
    hand.hear(holder, redirect(5, 2)).unwrap();
    hand.wait_micros(1_000_000);
    assert_eq!(hand.requests(), [], "it is taken for one that has not got the piece");
}

#[test]
fn a_refusal_leads_to_another_holder() {
    let mut hand = with_leaves();
    let first = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    assert_eq!(hand.asks(), [(first, 5)]);
    hand.hear(first, Frame::Refuse(Run { first: 5, count: 1 })).unwrap();
    assert_eq!(hand.asks(), [], "it does not hold it, as we know now");
    let second = hand.holder(2, Role::Node, 0..PIECES);
    assert_eq!(hand.asks(), [(second, 5)]);
}

#[test]
fn answers_to_more_than_can_have_been_asked_end_the_link() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    assert_eq!(hand.hear(peer, Frame::Refuse(Run { first: 0, count: 129 })), Err(PeerError::TooMany));
    assert_eq!(hand.hear(peer, Frame::Refuse(Run { first: PIECES - 1, count: 2 })), Err(PeerError::OutOfRange));
}

#[test]
fn who_sends_a_corrupt_body_is_hung_up_and_the_piece_is_asked_for_elsewhere() {
    let mut hand = with_leaves();
    let liar = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    let slot = hand.lands(liar, 5);
    let other = hand.holder(2, Role::Node, 0..PIECES);
    hand.drain();
    hand.tell(Event::BodyVerified { slot, verdict: Verdict::Corrupt });
    let outs = hand.drain();
    assert!(outs.contains(&Out::Do(Action::Abandon { slot })));
    assert!(outs.iter().any(|out| matches!(out, Out::Do(Action::Hangup { peer, .. }) if *peer == liar)));
    assert!(!outs.iter().any(|out| matches!(out, Out::Do(Action::Deliver { .. } | Action::Store { .. }))));
    let asked =
        |out: &Out| matches!(out, Out::Say(to, Frame::Request(request), _) if *to == other && request.run.first == 5);
    assert!(outs.iter().any(asked));
    assert_eq!(hand.engine.stats().corrupt_pieces, 1);
}

#[test]
fn what_could_not_be_checked_is_asked_for_again_after_a_pause_and_nobody_is_blamed() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    let slot = hand.lands(peer, 5);
    hand.drain();
    hand.tell(Event::BodyVerified { slot, verdict: Verdict::Unable });
    assert_eq!(hand.drain(), [Out::Do(Action::Abandon { slot })]);
    hand.wait_micros(999_000);
    assert_eq!(hand.asks(), []);
    hand.wait_micros(2_000);
    assert_eq!(hand.asks(), [(peer, 5)]);
    assert_eq!(hand.engine.stats().corrupt_pieces, 0);
}

#[test]
fn a_body_that_nobody_asked_for_ends_the_link() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    assert_eq!(hand.hear(peer, Frame::Data(Data { piece: 5, bytes: 1 })), Err(PeerError::Unexpected));
    hand.wants(5);
    hand.drain();
    assert_eq!(hand.hear(peer, Frame::Data(Data { piece: 5, bytes: 65_537 })), Err(PeerError::OutOfRange));
}

#[test]
fn a_chunk_is_verified_only_once_its_leaf_page_is_stored() {
    let mut hand = Hand::new(|_| {});
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    let slot = hand.lands(peer, 5);
    assert_eq!(hand.actions(), []);
    hand.gets(peer, CHUNKS);
    assert_eq!(hand.actions(), [Action::Verify { slot, piece: hand.piece(5) }]);
}

#[test]
fn chunks_whose_leaf_page_nobody_has_give_their_places_back() {
    let mut hand = Hand::new(|config| config.limits.transfers = 4);
    let peer = hand.holder(1, Role::Node, 0..CHUNKS);
    [5, 300, 600, 900].into_iter().for_each(|chunk| hand.wants(chunk));
    let slots: Vec<_> = hand.asks().into_iter().map(|(_, piece)| hand.lands(peer, piece)).collect();
    assert_eq!(slots.len(), 4, "all places are taken");
    let whole = hand.holder(2, Role::Node, 0..PIECES);
    assert_eq!(hand.asks(), [], "no place for a leaf page");
    hand.wait_micros(10_000_000);
    assert_eq!(hand.engine.deadline().map(|at| at <= hand.time()), Some(true));
    let asked = hand.asks();
    assert!(asked.iter().any(|(to, piece)| *to == whole && *piece >= CHUNKS), "{asked:?}");
}

#[test]
fn guesses_leave_room_for_demand() {
    let guesses: Vec<u32> = (0..100).collect();
    let mut hand = Hand::guessing(&guesses, |config| config.limits.transfers = 8);
    hand.keeps(CHUNKS..PIECES);
    let peers: Vec<_> = (1..9).map(|number| hand.link(number, Role::Node)).collect();
    peers.iter().for_each(|peer| hand.maps(*peer, 0..PIECES));
    assert_eq!(hand.asks().len(), 4, "half of the places");
    hand.wants(500);
    assert_eq!(hand.asks().len(), 1);
}

#[test]
fn a_full_table_of_demands_is_counted() {
    let mut hand = Hand::new(|config| config.limits.demands = 3);
    for chunk in 0..5 {
        hand.wants(chunk);
    }
    hand.wants(2);
    assert_eq!(hand.engine.stats().demands_refused, 2);
    let leaf = hand.geometry.leaf(1).unwrap();
    hand.tell(Event::LeafWanted { leaf });
    assert_eq!(hand.engine.stats().demands_refused, 3);
    hand.releases(0);
    hand.wants(3);
    assert_eq!(hand.engine.stats().demands_refused, 3, "there is room again");
}

#[test]
fn what_comes_from_elsewhere_is_not_fetched_any_longer() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    [5, 6].into_iter().for_each(|chunk| hand.wants(chunk));
    hand.drain();
    let slot = hand.lands(peer, 5);
    hand.keeps(5..7);
    let outs = hand.drain();
    assert!(outs.contains(&Out::Do(Action::Abandon { slot })));
    assert!(outs.contains(&Out::Say(peer, Frame::Cancel(Run { first: 6, count: 1 }), None)));
    hand.releases(5);
    hand.wants(6);
    assert_eq!(hand.asks(), []);
}

#[test]
fn a_held_chunk_that_a_guest_reads_is_a_guess_come_true() {
    let mut hand = Hand::guessing(&[5, 6], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.drain();
    hand.gets(peer, 5);
    hand.gets(peer, 6);
    assert_eq!(hand.engine.unused_guesses().count(), 2);
    let chunk = hand.chunk(5);
    hand.tell(Event::Touched { guest: GuestId(0), chunk });
    assert_eq!(hand.engine.unused_guesses().map(|chunk| chunk.get()).collect::<Vec<_>>(), [6]);
    assert!(hand.engine.touched(chunk));
}

#[test]
fn a_late_event_about_a_row_that_is_gone_is_counted_and_changes_nothing() {
    let mut hand = with_leaves();
    let peer = hand.holder(1, Role::Node, 0..PIECES);
    hand.wants(5);
    hand.drain();
    let slot = hand.verifies(peer, 5);
    hand.drain();
    hand.tell(Event::BodyStored { slot });
    for event in [Event::BodyStored { slot }, Event::BodyLanded { slot }, Event::StoreFailed { slot }] {
        let before = hand.engine.stats().stale_events;
        hand.tell(event);
        assert_eq!(hand.engine.stats().stale_events, before + 1);
    }
    assert!(hand.engine.holds(hand.piece(5)));
}

#[test]
fn what_was_taken_back_is_asked_of_the_same_peer_once_no_late_answer_can_come() {
    let mut hand = Hand::new(|_| {});
    hand.now = 1_000_000;
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(hand.hello(1, Role::Node))).unwrap();
    let pings = |says: Vec<Frame<'static>>| {
        says.into_iter().filter_map(|frame| if let Frame::Ping(nonce) = frame { Some(nonce) } else { None }).next()
    };
    let first = pings(hand.says(peer)).unwrap();
    hand.hear(peer, Frame::Pong(first)).unwrap();
    hand.maps(peer, 0..PIECES);
    hand.wants(5);
    assert!(hand.asks().contains(&(peer, 5)));
    hand.wait_micros(1000);
    hand.releases(5);
    let barrier = pings(hand.says(peer)).unwrap();
    // The answer to the first request may be on its way: it would be taken for that to another.
    hand.wants(5);
    hand.wants(6);
    assert_eq!(hand.asks(), [(peer, 6)]);
    assert_eq!(hand.begins(peer, 5), Landing::Discard { bytes: 100 });
    assert!(hand.asks().contains(&(peer, 5)), "it has come late");
    hand.releases(5);
    hand.drain();
    hand.wants(5);
    hand.hear(peer, Frame::Pong(barrier)).unwrap();
    assert_eq!(hand.asks(), [], "that was asked before the second request was taken back");
    hand.wait_micros(1000);
    let second = pings(hand.says(peer));
    assert_eq!(second, None, "said already");
}

#[test]
fn seeds_are_asked_for_no_guesses_before_the_first_that_a_guest_waits_for_has_come() {
    let mut hand = Hand::ordered(Owners::default(), &[10, 12], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let seed = hand.link(1, Role::Seed);
    hand.wants(500);
    hand.maps(seed, 0..PIECES);
    assert_eq!(hand.asks(), [(seed, 500)]);
    hand.verifies(seed, 500);
    assert_eq!(hand.asks(), [(seed, 10), (seed, 12)]);
    hand.wants(501);
    assert_eq!(hand.asks(), [(seed, 501)]);
}

#[test]
fn who_holds_a_leaf_page_is_dialled_once_a_seed_names_it_for_the_second_time() {
    let no_links = |config: &mut Config| config.tuning.links = 0;
    for (keeps, redirected, is_dialled) in [(5..6, CHUNKS, true), (CHUNKS..PIECES, 5, false)] {
        let mut hand = Hand::guessing(&[5, 6], no_links);
        hand.keeps(keeps);
        let seed = hand.holder(1, Role::Seed, 0..PIECES);
        let asked = hand.asks();
        assert!(asked.contains(&(seed, redirected)), "{asked:?}");
        hand.hear(seed, redirect(redirected, 2)).unwrap();
        assert_eq!(hand.actions(), [], "it may be told of by a node that is linked");
        hand.wait_micros(450_000);
        assert_eq!(hand.asks(), [(seed, redirected)]);
        hand.hear(seed, redirect(redirected, 2)).unwrap();
        let dials = hand.actions();
        let dialled = matches!(dials[..], [Action::Dial { address, .. }] if address == listens(2));
        assert_eq!(dialled, is_dialled, "piece {redirected}: {dials:?}");
    }
}
