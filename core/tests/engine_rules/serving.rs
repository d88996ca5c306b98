//! Whom to answer next, and how.

use crate::hand::*;
use swarmdisk_core::engine::{Action, BlobKind, Body, Event, Offered, PeerError};
use swarmdisk_core::ids::{Address, Digest, PeerId};
use swarmdisk_core::wire::{BlobRange, BlobRedirect, Class, Data, Frame, Hello, Redirect, Request, Role, Run};

/// Bytes of a body here.
const BYTES: u32 = 30_000;

/// A holder of everything that hands over one body at a time.
fn slow_holder() -> Hand {
    Hand::holding(0..PIECES, |config| config.unsent_bytes_max = 1)
}

/// Drains, and loads what is to be loaded; the bodies that went out.
fn serve(hand: &mut Hand) -> Vec<(PeerId, u32)> {
    let mut sent = vec![];
    loop {
        let outs = hand.drain();
        if outs.is_empty() {
            return sent;
        }
        for out in outs {
            match out {
                Out::Say(peer, Frame::Data(Data { piece, .. }), Some(Body::Piece(_))) => sent.push((peer, piece)),
                Out::Do(Action::Load { upload, .. }) => hand.tell(Event::Loaded { upload, bytes: BYTES }),
                _ => {}
            }
        }
    }
}

/// All that was handed over has left.
fn writable(hand: &mut Hand, peers: &[PeerId]) {
    peers.iter().for_each(|peer| hand.tell(Event::PeerWritable { peer: *peer, bytes: u32::MAX }));
}

/// Lets bodies leave one by one, a millisecond each, until there are none; who got what.
fn serve_all(hand: &mut Hand, peers: &[PeerId]) -> Vec<(PeerId, u32)> {
    let mut all = vec![];
    loop {
        let sent = serve(hand);
        if sent.is_empty() {
            return all;
        }
        all.extend(sent);
        hand.wait_micros(1000);
        writable(hand, peers);
    }
}

#[test]
fn a_demand_overtakes_an_earlier_prefetch_of_another() {
    let mut hand = slow_holder();
    let (prefetches, demands) = (hand.link(1, Role::Node), hand.link(2, Role::Node));
    hand.tell(Event::PeerWritable { peer: prefetches, bytes: u32::MAX });
    hand.tell(Event::PeerWritable { peer: demands, bytes: u32::MAX });
    hand.is_asked(prefetches, 0, 4, Class::Prefetch).unwrap();
    assert_eq!(serve(&mut hand), [(prefetches, 0)], "one body at a time");
    hand.is_asked(demands, 100, 1, Class::Demand).unwrap();
    assert_eq!(serve(&mut hand), []);
    hand.tell(Event::PeerWritable { peer: prefetches, bytes: u32::MAX });
    let order = serve_all(&mut hand, &[prefetches, demands]);
    assert_eq!(order, [(demands, 100), (prefetches, 1), (prefetches, 2), (prefetches, 3)]);
}

#[test]
fn a_raised_request_overtakes_too() {
    let mut hand = slow_holder();
    let peers = [hand.link(1, Role::Node), hand.link(2, Role::Node)];
    writable(&mut hand, &peers);
    hand.is_asked(peers[0], 0, 3, Class::Prefetch).unwrap();
    hand.is_asked(peers[1], 100, 2, Class::Prefetch).unwrap();
    assert_eq!(serve(&mut hand).len(), 1);
    let run = Run { first: 101, count: 1 };
    hand.hear(
        peers[1],
        Frame::Request(Request { run, class: Class::Demand, insist: false, raise: true, due_millis: 0 }),
    )
    .unwrap();
    writable(&mut hand, &peers);
    assert_eq!(serve_all(&mut hand, &peers)[0], (peers[1], 101));
}

#[test]
fn a_raise_of_what_has_been_answered_is_not_answered_again() {
    let mut hand = Hand::holding(0..PIECES, |_| {});
    let peer = hand.link(1, Role::Node);
    let run = Run { first: 5, count: 1 };
    hand.hear(peer, Frame::Request(Request { run, class: Class::Demand, insist: false, raise: true, due_millis: 0 }))
        .unwrap();
    assert_eq!(hand.drain(), []);
}

#[test]
fn two_peers_are_served_in_turn() {
    let mut hand = slow_holder();
    let peers = [hand.link(1, Role::Node), hand.link(2, Role::Node)];
    writable(&mut hand, &peers);
    hand.is_asked(peers[0], 0, 6, Class::Demand).unwrap();
    hand.is_asked(peers[1], 100, 3, Class::Demand).unwrap();
    let order: Vec<_> = serve_all(&mut hand, &peers).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(order.len(), 9);
    let first_six = order[..6].iter().filter(|peer| **peer == peers[0]).count();
    assert!((3..=4).contains(&first_six), "{order:?}");
}

#[test]
fn a_peer_that_takes_nothing_keeps_nobody_from_being_served() {
    let mut hand = slow_holder();
    let (stalled, other) = (hand.link(1, Role::Node), hand.link(2, Role::Node));
    writable(&mut hand, &[stalled, other]);
    hand.is_asked(stalled, 5, 1, Class::Demand).unwrap();
    assert_eq!(serve(&mut hand), [(stalled, 5)]);
    hand.is_asked(other, 6, 1, Class::Demand).unwrap();
    assert_eq!(serve(&mut hand), []);
    let deadline = hand.engine.deadline().unwrap();
    hand.wait_micros(1_000_000);
    assert!(deadline <= hand.time());
    assert_eq!(serve(&mut hand), [(other, 6)]);
}

#[test]
fn a_full_queue_answers_busy_but_takes_demand() {
    let mut hand = Hand::holding(0..PIECES, |config| config.tuning.queue = 4);
    let (first, second) = (hand.link(1, Role::Node), hand.link(2, Role::Node));
    hand.is_asked(first, 0, 4, Class::Prefetch).unwrap();
    hand.is_asked(second, 100, 1, Class::Prefetch).unwrap();
    hand.is_asked(second, 200, 1, Class::Demand).unwrap();
    let outs = hand.drain();
    let busy = outs.iter().find_map(|out| match out {
        Out::Say(to, Frame::Busy(busy), None) if *to == second => Some(*busy),
        _ => None,
    });
    assert_eq!(busy.map(|busy| busy.run), Some(Run { first: 100, count: 1 }));
    assert!(busy.is_some_and(|busy| busy.retry_millis > 0));
    let loads = outs.iter().filter(|out| matches!(out, Out::Do(Action::Load { piece, .. }) if piece.get() == 200));
    assert_eq!(loads.count(), 1);
    assert_eq!(hand.engine.stats().busy_sent, 1);
}

#[test]
fn what_is_under_way_is_promised_but_not_to_whom_it_comes_from() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |_| {});
    let asker = hand.link(1, Role::Node);
    let node = hand.holder(2, Role::Node, 5..6);
    hand.wants(5);
    hand.drain();
    hand.is_asked(node, 5, 1, Class::Demand).unwrap();
    assert_eq!(hand.says(node), [Frame::Refuse(Run { first: 5, count: 1 })], "they would wait for each other");
    hand.is_asked(asker, 5, 2, Class::Demand).unwrap();
    assert_eq!(hand.says(asker), [Frame::Refuse(Run { first: 6, count: 1 })], "nothing is known of that");
    hand.gets(node, 5);
    let loads = hand.actions();
    assert!(matches!(loads[..], [Action::Load { piece, .. }] if piece == hand.piece(5)), "{loads:?}");
}

#[test]
fn a_promise_to_a_guest_hurries_the_fetch() {
    let mut hand = Hand::guessing(&[5], |_| {});
    hand.keeps(CHUNKS..PIECES);
    let asker = hand.link(1, Role::Node);
    let holder = hand.holder(2, Role::Node, 5..6);
    assert_eq!(hand.asks(), [(holder, 5)]);
    hand.is_asked(asker, 5, 1, Class::Demand).unwrap();
    let raised = hand.requests();
    assert!(
        matches!(raised[..], [(to, Request { class: Class::Demand, raise: true, .. })] if to == holder),
        "{raised:?}"
    );
}

#[test]
fn a_promise_that_cannot_be_kept_is_taken_back() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |_| {});
    let asker = hand.link(1, Role::Node);
    let seed = hand.holder(3, Role::Seed, 6..7);
    hand.wants(6);
    hand.drain();
    hand.is_asked(asker, 6, 1, Class::Demand).unwrap();
    assert_eq!(hand.says(asker), []);
    hand.tell(Event::PeerClosed { peer: seed });
    assert_eq!(hand.says(asker), [Frame::Refuse(Run { first: 6, count: 1 })]);
}

#[test]
fn more_requests_than_were_allowed_end_the_link() {
    let mut hand = Hand::holding(0..PIECES, |_| {});
    let peer = hand.link(1, Role::Node);
    assert_eq!(hand.is_asked(peer, 0, 17, Class::Fill), Err(PeerError::TooMany));
    hand.is_asked(peer, 0, 16, Class::Fill).unwrap();
    hand.is_asked(peer, 3, 2, Class::Demand).unwrap();
    assert_eq!(hand.is_asked(peer, 16, 1, Class::Demand), Err(PeerError::TooMany));
    assert_eq!(hand.is_asked(peer, PIECES - 1, 2, Class::Demand), Err(PeerError::OutOfRange));
    assert_eq!(hand.is_asked(peer, u32::MAX, 1, Class::Demand), Err(PeerError::OutOfRange));
    assert_eq!(hand.is_asked(peer, 0, 0, Class::Demand), Err(PeerError::OutOfRange));
}

#[test]
fn what_is_taken_back_is_not_sent() {
    let mut hand = slow_holder();
    let peer = hand.link(1, Role::Node);
    hand.tell(Event::PeerWritable { peer, bytes: u32::MAX });
    hand.is_asked(peer, 0, 3, Class::Demand).unwrap();
    assert_eq!(serve(&mut hand), [(peer, 0)]);
    hand.hear(peer, Frame::Cancel(Run { first: 0, count: 2 })).unwrap();
    hand.tell(Event::PeerWritable { peer, bytes: u32::MAX });
    assert_eq!(serve_all(&mut hand, &[peer]), [(peer, 2)]);
}

#[test]
fn what_many_guests_wait_for_from_a_node_goes_through_the_first_of_them() {
    let mut hand = Hand::holding(0..PIECES, |_| {});
    let peers = [1, 2, 3, 4, 5, 6, 7].map(|number| hand.link(number, Role::Node));
    hand.drain();
    let run = Run { first: 5, count: 1 };
    let ask = |class, insist| Frame::Request(Request { run, class, insist, raise: false, due_millis: 0 });
    for peer in &peers[..5] {
        hand.hear(*peer, ask(Class::Demand, false)).unwrap();
    }
    hand.hear(peers[5], ask(Class::Demand, true)).unwrap();
    hand.hear(peers[6], ask(Class::Prefetch, false)).unwrap();
    let mut named = vec![];
    for out in hand.drain() {
        match out {
            Out::Say(peer, Frame::Redirect(to), _) => named.push((peer, to.node)),
            Out::Do(Action::Load { upload, .. }) => hand.tell(Event::Loaded { upload, bytes: BYTES }),
            _ => {}
        }
    }
    // Neither who insists nor who asks for no guest; and each is named to two.
    assert_eq!(named, [(peers[2], node_id(1)), (peers[3], node_id(1)), (peers[4], node_id(2))]);
    let served = serve_all(&mut hand, &peers);
    assert_eq!(served.len(), 4, "the first two, who insists, and the guess: {served:?}");
    hand.hear(peers[2], ask(Class::Demand, false)).unwrap();
    assert_eq!(serve(&mut hand), [(peers[2], 5)], "nobody else waits");
}

#[test]
fn a_seed_sends_a_piece_once_and_then_redirects() {
    let mut hand = Hand::holding(0..PIECES, |config| {
        config.role = Role::Seed;
        config.limits.served = 64;
    });
    let (first, second) = (hand.link(1, Role::Node), hand.link(2, Role::Node));
    hand.is_asked(first, 5, 1, Class::Prefetch).unwrap();
    assert_eq!(serve(&mut hand), [(first, 5)]);
    hand.is_asked(second, 5, 1, Class::Prefetch).unwrap();
    let said = hand.says(second);
    let to_first =
        |frame: &Frame<'_>| matches!(frame, Frame::Redirect(to) if (to.node, to.address) == (node_id(1), listens(1)));
    assert!(matches!(&said[..], [frame] if to_first(frame)), "{said:?}");
    let run = Run { first: 5, count: 1 };
    let insists = |class| Frame::Request(Request { run, class, insist: true, raise: false, due_millis: 0 });
    hand.hear(second, insists(Class::Prefetch)).unwrap();
    let said = hand.says(second);
    assert!(matches!(&said[..], [frame] if to_first(frame)), "the piece gets time to spread: {said:?}");
    hand.wait_micros(9_000_000);
    hand.hear(second, insists(Class::Demand)).unwrap();
    assert_eq!(serve(&mut hand), [(second, 5)], "who insists for a guest is served");
    hand.hear(first, insists(Class::Prefetch)).unwrap();
    assert!(!hand.says(first).is_empty(), "from the last copy on");
    hand.wait_micros(10_000_000);
    hand.hear(first, insists(Class::Prefetch)).unwrap();
    assert_eq!(serve(&mut hand), [(first, 5)], "who insists is served after that");
    hand.is_asked(second, 5, 1, Class::Demand).unwrap();
    let said = hand.says(second);
    assert!(matches!(&said[..], [frame] if to_first(frame)), "an idle seed spares itself too: {said:?}");
    hand.hear(second, insists(Class::Demand)).unwrap();
    assert_eq!(serve(&mut hand), [(second, 5)], "who insists for a guest is served");
    hand.is_asked(second, 5, 1, Class::Prefetch).unwrap();
    let said = hand.says(second);
    assert!(matches!(&said[..], [frame] if to_first(frame)), "nobody is sent to himself: {said:?}");
    hand.hear(first, insists(Class::Demand)).unwrap();
    assert_eq!(serve(&mut hand), [(first, 5)]);
    hand.tell(Event::PeerClosed { peer: first });
    hand.is_asked(second, 5, 1, Class::Prefetch).unwrap();
    assert_eq!(serve(&mut hand), [(second, 5)], "nobody is sent to who is gone");
}

#[test]
fn blobs_are_given_in_ranges() {
    let digest = Digest([8; 32]);
    let mut hand = Hand::new(|config| config.profile = Some(Offered { digest, bytes: 50 }));
    let peer = hand.admit();
    hand.hear(peer, Frame::Hello(hand.hello(1, Role::Node))).unwrap();
    assert!(hand.says(peer).iter().any(|frame| matches!(frame, Frame::Offer(offer) if offer.digest == digest)));
    let image = Digest([7; 32]);
    let (manifest, profile) = (BlobKind::Manifest, BlobKind::Profile);
    let cases = [(image, manifest, 1000, 0, 100), (image, manifest, 1000, 950, 50), (digest, profile, 50, 60, 0)];
    for (digest, kind, total_bytes, offset, bytes) in cases {
        hand.hear(peer, Frame::BlobRequest(BlobRange { digest, total_bytes: 0, offset, bytes: 100 })).unwrap();
        let offset = offset.min(total_bytes);
        let answer = Frame::Blob(BlobRange { digest, total_bytes, offset, bytes });
        assert_eq!(hand.drain(), [Out::Say(peer, answer, Some(Body::Blob { kind, offset, bytes }))]);
    }
    let unknown = BlobRange { digest: Digest([9; 32]), total_bytes: 0, offset: 0, bytes: 1 };
    hand.hear(peer, Frame::BlobRequest(unknown)).unwrap();
    assert_eq!(hand.says(peer), [Frame::BlobRefuse(unknown.digest)]);
    hand.hear(peer, Frame::BlobRequest(unknown)).unwrap();
    assert_eq!(hand.hear(peer, Frame::BlobRequest(unknown)), Err(PeerError::TooMany), "one at a time");
}

#[test]
fn a_blob_waits_for_room_in_the_uplink() {
    let mut hand = slow_holder();
    let peer = hand.link(1, Role::Node);
    let range = BlobRange { digest: Digest([7; 32]), total_bytes: 0, offset: 0, bytes: 100 };
    hand.hear(peer, Frame::BlobRequest(range)).unwrap();
    assert_eq!(hand.drain(), [], "the hello is still on its way");
    hand.tell(Event::PeerWritable { peer, bytes: u32::MAX });
    assert!(matches!(hand.says(peer)[..], [Frame::Blob(_)]));
}

#[test]
fn a_seed_in_a_hurry_names_nodes_to_whom_a_blob_would_have_to_wait() {
    let mut hand = Hand::holding(0..PIECES, |config| {
        config.role = Role::Seed;
        config.unsent_bytes_max = 1;
    });
    let range = BlobRange { digest: Digest([7; 32]), total_bytes: 0, offset: 0, bytes: 100 };
    // They have no engine yet, and listen nowhere.
    let askers: Vec<PeerId> = (1..=6)
        .map(|number| {
            let peer = hand.admit();
            let hello = Hello { listen: Address::NONE, ..hand.hello(number, Role::Node) };
            hand.hear(peer, Frame::Hello(hello)).unwrap();
            hand.drain();
            hand.hear(peer, Frame::BlobRequest(range)).unwrap();
            peer
        })
        .collect();
    assert_eq!(hand.drain(), [], "the hellos are still on their way, and there is nobody to name");
    let mut links = askers.clone();
    let mut told = |hand: &mut Hand, number| {
        let redirect = Frame::BlobRedirect(BlobRedirect { digest: range.digest, address: listens(number) });
        let node = hand.admit();
        links.push(node);
        hand.hear(node, Frame::Hello(hand.hello(number, Role::Node))).unwrap();
        hand.drain_for(|out| match out {
            Out::Say(peer, frame, None) if frame == redirect => Some(peer),
            _ => None,
        })
    };
    assert_eq!(told(&mut hand, 50), askers[..4], "it is named to four");
    hand.hear(askers[0], Frame::BlobRequest(range)).unwrap();
    assert_eq!(told(&mut hand, 51), askers[4..], "and the next to others, but nobody is told twice");
    writable(&mut hand, &links);
    let blob = Frame::Blob(BlobRange { total_bytes: 1000, ..range });
    let gets = hand.drain_for(|out| match out {
        Out::Say(peer, frame, Some(_)) if frame == blob => Some(peer),
        _ => None,
    });
    assert_eq!(gets, askers[..1], "who asks again is given it");
}

/// Drains until the holder has nothing more to do for a second, while all that is handed over leaves at once; when which
/// class's pieces went out, in microseconds.
fn sent_over(hand: &mut Hand, peers: &[PeerId], micros: u64) -> Vec<(u64, u32)> {
    let (began, mut all) = (hand.now, vec![]);
    while hand.now < began + micros {
        all.extend(serve(hand).into_iter().map(|(_, piece)| (hand.now - began, piece)));
        writable(hand, peers);
        hand.wait_micros(1000);
    }
    all
}

#[test]
fn fills_take_a_small_part_of_the_uplink_while_guests_of_others_wait_now_and_then() {
    let mut hand = Hand::holding(0..PIECES, |_| {});
    let peers = [hand.link(1, Role::Node), hand.link(2, Role::Node)];
    writable(&mut hand, &peers);
    hand.is_asked(peers[0], 0, 4, Class::Fill).unwrap();
    assert_eq!(serve(&mut hand).len(), 4, "nobody waits: as much as fits into the uplink");
    writable(&mut hand, &peers);
    hand.is_asked(peers[1], 100, 1, Class::Demand).unwrap();
    assert_eq!(serve(&mut hand), [(peers[1], 100)]);
    hand.is_asked(peers[0], 10, 16, Class::Fill).unwrap();
    assert_eq!(serve(&mut hand), [], "one has just been sent");
    let sent = sent_over(&mut hand, &peers, 900_000);
    let gaps: Vec<u64> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // It has seen five bodies leave within 100 ms: one takes 20 ms.
    assert!(sent.len() >= 3 && gaps.iter().all(|gap| *gap >= 12 * 19_900), "{sent:?}");
    hand.is_asked(peers[1], 101, 2, Class::Demand).unwrap();
    assert_eq!(serve(&mut hand), [(peers[1], 101), (peers[1], 102)], "demand is never held back");
    writable(&mut hand, &peers);
    hand.wait_micros(1_000_000);
    assert_eq!(serve(&mut hand).len(), 4, "no guest has waited for a second: all that is left, at once");
}

#[test]
fn a_demand_is_loaded_beside_its_peer_s_fills_that_wait_for_their_turn() {
    let mut hand = slow_holder();
    let peers = [hand.link(1, Role::Node), hand.link(2, Role::Node)];
    writable(&mut hand, &peers);
    hand.is_asked(peers[1], 50, 1, Class::Prefetch).unwrap();
    hand.is_asked(peers[0], 0, 4, Class::Fill).unwrap();
    assert_eq!(serve(&mut hand), [(peers[1], 50)]);
    hand.is_asked(peers[0], 100, 1, Class::Demand).unwrap();
    let loads = hand.actions().into_iter().filter(|action| matches!(action, Action::Load { .. })).count();
    assert_eq!(loads, 1);
}

#[test]
fn what_is_expected_to_be_wanted_is_sent_before_fills_that_are_loaded_and_wait_for_their_turn() {
    let mut hand = Hand::holding(0..PIECES, |_| {});
    let peers = [hand.link(1, Role::Node), hand.link(2, Role::Node)];
    writable(&mut hand, &peers);
    hand.wait_micros(1);
    hand.is_asked(peers[0], 50, 1, Class::Demand).unwrap();
    assert_eq!(serve(&mut hand), [(peers[0], 50)]);
    writable(&mut hand, &peers);
    hand.wait_micros(1);
    for peer in peers {
        hand.is_asked(peer, 0, 2, Class::Fill).unwrap();
    }
    assert_eq!(serve(&mut hand), [(peers[1], 0)], "one at a time, though all are loaded");
    writable(&mut hand, &peers);
    for peer in peers {
        hand.is_asked(peer, 100, 2, Class::Prefetch).unwrap();
    }
    let sent = serve(&mut hand);
    assert!(peers.iter().all(|peer| sent.contains(&(*peer, 100))), "both get some: {sent:?}");
}

#[test]
fn a_seed_sends_sooner_what_others_whom_it_redirects_want_sooner() {
    for (class, order) in [(Class::Prefetch, [6, 5]), (Class::Fill, [5, 6])] {
        let mut hand = Hand::holding(0..PIECES, |config| {
            config.role = Role::Seed;
            config.limits.served = 64;
            config.unsent_bytes_max = 1;
        });
        let peers = [1, 2, 3].map(|number| hand.link(number, Role::Node));
        writable(&mut hand, &peers);
        let asks = |hand: &mut Hand, peer, first, class, due_millis| {
            let run = Run { first, count: 1 };
            hand.hear(peer, Frame::Request(Request { run, class, insist: false, raise: false, due_millis })).unwrap();
        };
        asks(&mut hand, peers[2], 9, Class::Demand, 0);
        assert_eq!(serve(&mut hand), [(peers[2], 9)], "the others wait behind this");
        asks(&mut hand, peers[0], 5, Class::Prefetch, 500);
        asks(&mut hand, peers[0], 6, Class::Prefetch, 900);
        asks(&mut hand, peers[1], 6, class, 0);
        assert!(matches!(hand.says(peers[1])[..], [Frame::Redirect(_)]));
        writable(&mut hand, &peers);
        let order = order.map(|piece| (peers[0], piece));
        assert_eq!(serve_all(&mut hand, &peers), order, "{class:?}");
    }
}

#[test]
fn what_a_guest_waits_for_is_promised_as_soon_as_its_holder_is_named() {
    let mut hand = Hand::holding(CHUNKS..PIECES, |_| {});
    let (asker, seed) = (hand.link(1, Role::Node), hand.holder(2, Role::Seed, 0..PIECES));
    let refuse = Frame::Refuse(Run { first: 5, count: 1 });
    hand.wants(5);
    assert_eq!(hand.asks(), [(seed, 5)]);
    let to = Redirect { run: Run { first: 5, count: 1 }, node: node_id(7), address: listens(7) };
    hand.hear(seed, Frame::Redirect(to)).unwrap();
    hand.is_asked(asker, 5, 1, Class::Demand).unwrap();
    assert_eq!(hand.says(asker), [], "node 7 has it, and is being dialled");
    hand.is_asked(asker, 6, 1, Class::Demand).unwrap();
    assert_eq!(hand.says(asker), [Frame::Refuse(Run { first: 6, count: 1 })], "nothing is known of that");
    let named = hand.admit();
    hand.hear(named, Frame::Hello(hand.hello(7, Role::Node))).unwrap();
    hand.is_asked(named, 5, 1, Class::Demand).unwrap();
    assert!(hand.says(named).contains(&refuse), "they would wait for each other");
    hand.releases(5);
    assert_eq!(hand.says(asker), [refuse], "nobody fetches it any longer");
}
