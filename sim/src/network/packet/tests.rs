//! Times of simple transfers against arithmetic, losses against the formula, and order under anything at all.

use super::*;
use crate::network::HostSpec;
use proptest::prelude::*;

const MB: u64 = 1_000_000;

fn spec(rates: &[(u64, u64)], latency: Nanos) -> TopologySpec {
    TopologySpec {
        hosts: rates.iter().map(|(up, down)| HostSpec { up: *up, down: *down, rack: 0 }).collect(),
        rack_zones: vec![0],
        rack_rate: None,
        zone_rate: None,
        rack_latency: latency,
        zone_latency: latency,
        world_latency: latency,
    }
}

fn network(rates: &[(u64, u64)], latency: Nanos, tcp: Tcp) -> Packet {
    Packet::new(Topology::new(spec(rates, latency)), tcp)
}

fn no_windows() -> Tcp {
    Tcp { slow_start: false, window_bytes_max: u64::MAX >> 32, ..Tcp::default() }
}

/// Runs until nothing happens before `end` any more; gives (time, tag) of each arrival.
fn run_until(network: &mut Packet, mut now: Nanos, end: Nanos) -> Vec<(Nanos, u32)> {
    let mut arrived = Vec::new();
    loop {
        let next = network.next(now);
        if next >= end {
            return arrived;
        }
        assert!(next >= now);
        now = next;
        if let Some(Occurrence::Arrived { tag }) = network.advance(now) {
            arrived.push((now, tag));
        }
    }
}

fn run(network: &mut Packet, now: Nanos) -> Vec<(Nanos, u32)> {
    run_until(network, now, NEVER)
}

#[test]
fn one_transfer_takes_its_time() {
    let mut network = network(&[(10 * MB, 10 * MB), (5 * MB, 5 * MB)], 100_000, no_windows());
    let pipe = network.open(0, 1);
    assert!(network.send(0, pipe, 200 * 1448, 7));
    // One packet takes 144.8 us up; then 200 take 289.6 us each down; then 0.1 ms on the way.
    assert_eq!(run(&mut network, 0), [(144_800 + 200 * 289_600 + 100_000, 7)]);
    assert_eq!((network.carried(0), network.carried(3)), (200 * 1448, 200 * 1448));
}

#[test]
fn a_small_packet_pays_for_its_headers() {
    let mut network = network(&[(MB, MB); 2], 100_000, no_windows());
    let pipe = network.open(0, 1);
    network.send(0, pipe, 100, 1);
    // 166 of a full packet's 1,514 bytes: 158 of its 1,448, twice.
    assert_eq!(run(&mut network, 0), [(2 * 158_000 + 100_000, 1)]);
    network.send(1_000_000, pipe, 50, 2);
    network.send(1_000_000, pipe, 50, 3);
    // What is sent at one moment shares a packet.
    assert_eq!(run(&mut network, 1_000_000), [(1_416_000, 2), (1_416_000, 3)]);
}

#[test]
fn flows_share_links() {
    // One uplink, then one downlink behind two uplinks.
    for ways in [[(0, 1), (0, 2)], [(1, 0), (2, 0)]] {
        for latency in [100_000, 5_000_000] {
            let mut network = network(&[(10 * MB, 10 * MB); 3], latency, Tcp::default());
            for (tag, (from, to)) in ways.into_iter().enumerate() {
                let pipe = network.open(from, to);
                (0..100).for_each(|_| {
                    network.send(0, pipe, 100_000, tag as u32);
                });
            }
            let arrived = run(&mut network, 0);
            // When one has all its 10 MB, the other has about as much.
            let first = arrived.iter().filter(|(_, tag)| *tag == 0).nth(99).map(|(at, _)| *at);
            let second = arrived.iter().filter(|(_, tag)| *tag == 1).nth(99).map(|(at, _)| *at);
            let end = first.min(second).expect("both arrive");
            let fewest = (0..2).map(|flow| arrived.iter().filter(|(at, tag)| *tag == flow && *at <= end).count()).min();
            println!("{ways:?}, {latency} ns: {fewest:?} % of the other; all in {} ms", arrived[199].0 / 1_000_000);
            assert!(fewest >= Some(90), "{ways:?}: {fewest:?}");
        }
    }
}

#[test]
fn slow_start_shows_on_long_ways() {
    let time = |slow_start| {
        let tcp = Tcp { slow_start, ..Tcp::default() };
        let mut network = network(&[(100 * MB, 100 * MB); 2], 20_000_000, tcp);
        let pipe = network.open(0, 1);
        network.send(0, pipe, MB as u32, 1);
        run(&mut network, 0)[0].0
    };
    // Windows of 14 KB, doubled each 40 ms, have let through 1 MB in the seventh round trip.
    let (slow, fast) = (time(true), time(false));
    assert!(fast < 35_000_000, "{fast}");
    assert!((240_000_000..300_000_000).contains(&slow), "{slow}");
}

#[test]
fn a_silent_pipe_begins_slowly_again() {
    let mut network = network(&[(100 * MB, 100 * MB); 2], 20_000_000, Tcp::default());
    let pipe = network.open(0, 1);
    let mut now = 0;
    let times = [0, 50_000_000, 10_000_000_000].map(|silence| {
        let began = now + silence;
        network.send(began, pipe, MB as u32, 1);
        now = run(&mut network, began)[0].0;
        now - began
    });
    // The acknowledgements of the first are not all back when the second begins.
    assert!(times[1] < 100_000_000, "{times:?}");
    assert!(times[2].abs_diff(times[0]) <= 40_000_000, "{times:?}");
}

#[test]
fn losses_cost_what_the_formula_says() {
    for loss_ppm in [200, 1_000, 10_000] {
        for latency in [5_000_000, 20_000_000] {
            let tcp = Tcp { loss_ppm, ..Tcp::default() };
            let mut network = network(&[(1000 * MB, 1000 * MB); 2], latency, tcp);
            let pipe = network.open(0, 1);
            for tag in 0..40_000 {
                network.send(0, pipe, 10_000, tag);
            }
            let end = 60_000_000_000;
            let arrived = run_until(&mut network, 0, end);
            let span = arrived.last().map_or(end, |(at, _)| *at);
            let rate = arrived.len() as u64 * 10_000 * 1_000_000_000 / span;
            let formula = tcp.loss_rate(2 * latency);
            println!(
                "{loss_ppm} ppm, RTT {} ms: {rate} B/s, by the formula {formula}, ratio {:.2}",
                latency / 500_000,
                rate as f64 / formula as f64
            );
            assert!(rate.abs_diff(formula) * 4 < formula, "{rate} instead of {formula}");
        }
    }
}

#[test]
fn a_lost_tail_waits_for_the_timeout() {
    let tcp = Tcp { loss_ppm: 1_000_000, ..Tcp::default() };
    let mut network = network(&[(10 * MB, 10 * MB); 2], 1_000_000, tcp);
    let pipe = network.open(0, 1);
    network.send(0, pipe, 1448, 1);
    assert_eq!(run_until(&mut network, 0, 100_000_000), []);
    network.tcp.loss_ppm = 0;
    // Round trip and time-out, then two links and the way.
    assert_eq!(run(&mut network, 100_000_000), [(202_000_000 + 2 * 144_800 + 1_000_000, 1)]);
}

#[test]
fn a_full_buffer_drops_and_the_pipe_recovers() {
    let mut network = network(&[(100 * MB, 100 * MB), (10 * MB, 10 * MB)], 100_000, no_windows());
    let pipe = network.open(0, 1);
    network.send(0, pipe, 5 * MB as u32, 1);
    let arrived = run(&mut network, 0);
    // More than 5 MB has gone up, as much as is needed came down.
    assert!(network.carried(0) > 5 * MB, "nothing was dropped");
    assert_eq!(network.carried(3), 5 * MB);
    assert!((500_000_000..800_000_000).contains(&arrived[0].0), "{arrived:?}");
}

#[test]
fn sockets_take_what_fits() {
    let tcp = Tcp { socket_bytes: 100_000, ..no_windows() };
    let mut network = network(&[(10 * MB, 10 * MB); 2], 100_000, tcp);
    let pipe = network.open(0, 1);
    let taken: Vec<bool> = (0..4).map(|tag| network.send(0, pipe, 60_000, tag)).collect();
    assert_eq!(taken, [true, true, false, false]);
    let mut occurrences = Vec::new();
    let mut now = 0;
    while network.next(now) != NEVER {
        now = network.next(now);
        occurrences.extend(network.advance(now).map(|what| (now, what)));
    }
    let takes: Vec<_> = occurrences.iter().filter(|(_, what)| matches!(what, Occurrence::Taken { .. })).collect();
    assert_eq!(takes.len(), 2);
    // 20,000 bytes have to leave, that is 14 packets; the 14th begins after 13.
    assert_eq!(*takes[0], (13 * 144_800, Occurrence::Taken { tag: 2 }));
    assert_eq!(occurrences.len(), 6);
}

#[test]
fn what_has_not_left_is_dropped_with_the_pipe() {
    let mut network = network(&[(MB, MB); 2], 100_000, no_windows());
    let pipe = network.open(0, 1);
    (0..3).for_each(|tag| assert!(network.send(0, pipe, 30_000, tag)));
    assert_eq!(run_until(&mut network, 0, 45_000_000), [(22 * 1_448_000 + 100_000, 0)]);
    let mut dropped = Vec::new();
    network.close(45_000_000, pipe, &mut dropped);
    assert_eq!(dropped, [1, 2]);
    network.close(45_000_000, pipe, &mut dropped);
    assert_eq!(dropped.len(), 2);
    assert_ne!(network.open(1, 0), pipe);
    assert_eq!(run(&mut network, 45_000_000), []);
    // The number is used again, for a pipe of its own.
    let again = network.open(1, 0);
    assert_eq!(again, pipe);
    network.send(60_000_000, again, 1448, 3);
    assert_eq!(run(&mut network, 60_000_000), [(60_000_000 + 2 * 1_448_000 + 100_000, 3)]);
}

#[test]
fn a_packet_in_hand_goes_on_at_the_new_rate() {
    let mut network = network(&[(MB, 100 * MB); 2], 0, no_windows());
    let pipe = network.open(0, 1);
    network.send(0, pipe, 1448, 1);
    assert_eq!(run_until(&mut network, 0, 448_000), []);
    network.set_host_rates(448_000, 0, 1, 1);
    assert_eq!(run_until(&mut network, 448_000, 900_000_000_000), []);
    network.set_host_rates(500_000_448_000, 0, 100, MB);
    // 1,000 bytes less 500 a byte a second, then 100 a second; then 14.48 us down.
    assert_eq!(run(&mut network, 500_000_448_000), [(505_000_448_000 + 14_480, 1)]);
}

/// What is done to a network.
#[derive(Debug, Clone)]
enum Step {
    Send { pipe: usize, bytes: u32 },
    Close { pipe: usize },
    Rates { host: u32, up: u64, down: u64 },
    Wait { nanos: Nanos },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<usize>(), prop_oneof![1u32..200, 1u32..60_000]).prop_map(|(pipe, bytes)| Step::Send { pipe, bytes }),
        1 => any::<usize>().prop_map(|pipe| Step::Close { pipe }),
        1 => (0u32..4, 10_000u64..10 * MB, 10_000u64..10 * MB).prop_map(|(host, up, down)| Step::Rates { host, up, down }),
        4 => (0u64..20_000_000).prop_map(|nanos| Step::Wait { nanos }),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done: each segment arrives once and in order, or was dropped; each is taken at most once.
    #[test]
    fn all_that_is_sent_arrives_in_order_once(
        steps in steps(),
        loss_ppm in prop_oneof![Just(0u32), 0u32..300_000],
        window in prop_oneof![Just(1u64), 1_000u64..4_000_000],
        slow_start in any::<bool>(),
        latency in prop_oneof![Just(0u64), 0u64..50_000_000],
    ) {
        let tcp = Tcp { loss_ppm, window_bytes_max: window, slow_start, socket_bytes: 20_000 };
        let mut network = network(&[(MB, MB), (2 * MB, 3 * MB), (MB, 5 * MB), (10 * MB, MB)], latency, tcp);
        // Each pipe's tags that are to come, and those that are to be taken.
        let mut expected: Vec<VecDeque<u32>> = Vec::new();
        let mut untaken: Vec<VecDeque<u32>> = Vec::new();
        let mut owners: Vec<usize> = Vec::new();
        let mut open: Vec<(PipeId, usize)> = Vec::new();
        let mut now = 0;
        let end = [Step::Wait { nanos: NEVER / 2 }];
        for step in steps.iter().chain(&end) {
            if open.len() < 6 {
                let (from, to) = (expected.len() as u32 % 4, (expected.len() as u32 / 4 + 1) % 4);
                open.push((network.open(from, to), expected.len()));
                expected.push(VecDeque::new());
                untaken.push(VecDeque::new());
            }
            match *step {
                Step::Send { pipe, bytes } => {
                    let (pipe, owner) = open[pipe % open.len()];
                    let tag = owners.len() as u32;
                    owners.push(owner);
                    expected[owner].push_back(tag);
                    if !network.send(now, pipe, bytes, tag) {
                        untaken[owner].push_back(tag);
                    }
                }
                Step::Close { pipe } => {
                    let (pipe, owner) = open.swap_remove(pipe % open.len());
                    let mut dropped = Vec::new();
                    network.close(now, pipe, &mut dropped);
                    let kept = expected[owner].len() - dropped.len();
                    prop_assert_eq!(expected[owner].split_off(kept), dropped.clone());
                    untaken[owner].retain(|tag| !dropped.contains(tag));
                }
                Step::Rates { host, up, down } => network.set_host_rates(now, host, up, down),
                Step::Wait { nanos } => {
                    let until = now + nanos;
                    while network.next(now) <= until {
                        now = network.next(now);
                        match network.advance(now) {
                            Some(Occurrence::Arrived { tag }) => {
                                let owner = owners[tag as usize];
                                prop_assert_eq!(expected[owner].pop_front(), Some(tag));
                                prop_assert!(!untaken[owner].contains(&tag));
                            }
                            Some(Occurrence::Taken { tag }) => {
                                prop_assert_eq!(untaken[owners[tag as usize]].pop_front(), Some(tag));
                            }
                            None => (),
                        }
                    }
                    now = until;
                }
            }
        }
        prop_assert!(expected.iter().all(VecDeque::is_empty), "not all has arrived: {:?}", expected);
        prop_assert!(untaken.iter().all(VecDeque::is_empty), "not all was taken: {:?}", untaken);
        // Nothing of a closed pipe stays behind.
        prop_assert_eq!(network.free_pipes.len() + open.len(), network.pipes.len());
    }
}
