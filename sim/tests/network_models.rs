//! The fluid model against the packet model: the same traffic takes the same time, within one part in twenty; ten where many
//! short flows change often.
//!
//! *Units*: nanoseconds, bytes.

use swarmdisk_sim::network::{
    Fluid, HostSpec, NEVER, Nanos, Network, Occurrence, Packet, PipeId, Tcp, Topology, TopologySpec,
};

/// 100 Mbit/s, less headers and acknowledgements.
const RATE: u64 = 11_687_500;
const MB: u32 = 1_000_000;

fn networks(hosts: usize, latency: Nanos) -> [Network; 2] {
    in_racks(hosts, 1, None, latency)
}

fn in_racks(hosts: usize, racks: u32, rack_rate: Option<u64>, latency: Nanos) -> [Network; 2] {
    let spec = TopologySpec {
        hosts: (0..hosts as u32).map(|host| HostSpec { up: RATE, down: RATE, rack: host % racks }).collect(),
        rack_zones: vec![0; racks as usize],
        rack_rate,
        zone_rate: None,
        rack_latency: latency,
        zone_latency: latency,
        world_latency: latency,
    };
    let topology = Topology::new(spec);
    let fluid = Fluid::new(topology.clone(), Tcp::default());
    [Network::Fluid(Box::new(fluid)), Network::Packet(Box::new(Packet::new(topology, Tcp::default())))]
}

/// Runs to the end; `on_arrival` hears each tag and may send more. Gives the time of the last arrival and the mean.
fn run(network: &mut Network, mut on_arrival: impl FnMut(&mut Network, Nanos, u32)) -> (Nanos, Nanos) {
    let (mut now, mut sum, mut count, mut last) = (0, 0, 0, 0);
    loop {
        let next = network.next(now);
        if next == NEVER {
            return (last, sum / count);
        }
        now = next;
        if let Some(Occurrence::Arrived { tag }) = network.advance(now) {
            (last, sum, count) = (now, sum + now, count + 1);
            on_arrival(network, now, tag);
        }
    }
}

fn assert_alike(what: &str, fluid: Nanos, packet: Nanos) {
    assert_within(5, what, fluid, packet);
}

fn assert_within(percent: u64, what: &str, fluid: Nanos, packet: Nanos) {
    let ratio = packet as f64 / fluid as f64;
    println!("{what}: fluid {:.3} ms, packet {:.3} ms, ratio {ratio:.4}", fluid as f64 / 1e6, packet as f64 / 1e6);
    assert!(fluid.abs_diff(packet) * 100 <= fluid * percent, "{what}: {ratio}");
}

#[test]
fn one_flow() {
    for latency in [100_000, 10_000_000] {
        let [fluid, packet] = networks(2, latency).map(|mut network| {
            let pipe = network.open(0, 1);
            network.send(0, pipe, 20 * MB, 0);
            run(&mut network, |_, _, _| ()).0
        });
        assert_alike(&format!("one flow of 20 MB, {} us one way", latency / 1000), fluid, packet);
    }
}

#[test]
fn two_flows_on_one_uplink() {
    let both = networks(3, 100_000).map(|mut network| {
        for (to, bytes) in [(1, MB), (2, 2 * MB)] {
            let pipe = network.open(0, to);
            network.send(0, pipe, bytes, to);
        }
        let mut times = [0; 2];
        run(&mut network, |_, now, tag| times[tag as usize - 1] = now);
        times
    });
    assert_alike("two flows on an uplink: the short one", both[0][0], both[1][0]);
    assert_alike("two flows on an uplink: the long one", both[0][1], both[1][1]);
}

#[test]
fn two_flows_on_one_downlink() {
    let both = networks(3, 100_000).map(|mut network| {
        for (from, bytes) in [(0, 5 * MB), (1, 10 * MB)] {
            let pipe = network.open(from, 2);
            network.send(0, pipe, bytes, from);
        }
        let mut times = [0; 2];
        run(&mut network, |_, now, tag| times[tag as usize] = now);
        times
    });
    assert_alike("two flows on a downlink: the short one", both[0][0], both[1][0]);
    assert_alike("two flows on a downlink: the long one", both[0][1], both[1][1]);
}

#[test]
fn all_to_all() {
    let [fluid, packet] = networks(8, 100_000).map(|mut network| {
        for from in 0..8 {
            for to in (0..8).filter(|to| *to != from) {
                let pipe = network.open(from, to);
                network.send(0, pipe, MB, from * 8 + to);
            }
        }
        run(&mut network, |_, _, _| ())
    });
    assert_alike("8 hosts, 1 MB from each to each: the last", fluid.0, packet.0);
    assert_alike("8 hosts, 1 MB from each to each: the mean", fluid.1, packet.1);
}

/// Each host hands on what has arrived whole, piece by piece.
#[test]
fn chain() {
    const HOSTS: u32 = 6;
    const PIECES: u32 = 100;
    const PIECE_BYTES: u32 = 64 * 1024;
    let [fluid, packet] = networks(HOSTS as usize, 100_000).map(|mut network| {
        let pipes: Vec<PipeId> = (1..HOSTS).map(|to| network.open(to - 1, to)).collect();
        for piece in 0..PIECES {
            network.send(0, pipes[0], PIECE_BYTES, piece * HOSTS);
        }
        run(&mut network, |network, now, tag| {
            let to = (tag % HOSTS + 1) as usize;
            if let Some(pipe) = pipes.get(to) {
                network.send(now, *pipe, PIECE_BYTES, tag + 1);
            }
        })
        .0
    });
    assert_alike("a chain of 6 hosts, 100 pieces of 64 KiB", fluid, packet);
}

/// Eight hosts in two racks ask each other for pieces, four at a time each, with small frames on their own pipes between
/// them, as peers do. Gives the time of the last piece and the mean round trip of a request.
fn exchange(network: &mut Network) -> (Nanos, Nanos) {
    const HOSTS: u32 = 8;
    const PIECES: u32 = 200;
    const FRAME_BYTES: u32 = 40;
    let pipes: Vec<PipeId> = (0..HOSTS * HOSTS).map(|way| network.open(way / HOSTS, way % HOSTS)).collect();
    let mut asked = [0; HOSTS as usize];
    let mut ask = |network: &mut Network, now, host: u32, times: &mut Vec<Nanos>| {
        let nth = &mut asked[host as usize];
        if *nth < PIECES {
            *nth += 1;
            let from = (host + 1 + *nth % (HOSTS - 1)) % HOSTS;
            // Even tags ask, odd ones answer.
            let tag = times.len() as u32 * 128 + from * 16 + host * 2;
            times.push(now);
            network.send(now, pipes[(host * HOSTS + from) as usize], FRAME_BYTES, tag);
        }
    };
    let mut times = Vec::new();
    (0..HOSTS * 4).for_each(|nth| ask(network, 0, nth % HOSTS, &mut times));
    let mut sum = 0;
    let (last, _) = run(network, |network, now, tag| {
        let (nth, from, host) = (tag / 128, tag / 16 % HOSTS, tag / 2 % HOSTS);
        if tag % 2 == 0 {
            let bytes = 16_384 + nth % 7 * 8_192;
            network.send(now, pipes[(from * HOSTS + host) as usize], bytes, tag + 1);
        } else {
            sum += now - times[nth as usize];
            ask(network, now, host, &mut times);
        }
    });
    (last, sum / u64::from(HOSTS * PIECES))
}

#[test]
fn an_exchange_of_pieces() {
    for rack_rate in [None, Some(2 * RATE)] {
        let [fluid, packet] = in_racks(8, 2, rack_rate, 100_000).map(|mut network| exchange(&mut network));
        // Queues keep links busy that a flow between two shares would leave idle: packets are a little faster.
        let what = format!("an exchange of pieces, racks' limit {rack_rate:?}");
        assert_within(10, &format!("{what}: the last"), fluid.0, packet.0);
        assert_within(10, &format!("{what}: a round trip"), fluid.1, packet.1);
    }
}
