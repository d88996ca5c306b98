//! `swarmdisk-sim network`: patterns of transfers in the network model alone, for comparison with other simulators.

use super::args::{Chain, Model, Network as NetworkArgs, Pattern, Transfers};
use super::{Failure, say};
use crate::network::{Fluid, HostSpec, NEVER, Network, Occurrence, Packet, PipeId, Tcp, Topology, TopologySpec};
use std::process::ExitCode;

/// The longest transfer, in bytes: a segment of the network model.
const BYTES_MAX: u64 = u32::MAX as u64;

pub(super) fn run(args: &NetworkArgs) -> Result<ExitCode, Failure> {
    let (transfers, nanos) = match &args.pattern {
        Pattern::Exchange(transfers) => (transfers, exchange(transfers)?),
        Pattern::Chain(chain) => (&chain.transfers, chain_broadcast(chain)?),
    };
    let seconds = nanos as f64 / 1e9;
    say(match transfers.json {
        true => format!("{{\"seconds\": {seconds}}}"),
        false => format!("{seconds:.6} s"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Each sends to each other: more would not fit into memory.
const EXCHANGE_NODES_MAX: u32 = 1_000;

/// Hosts with nothing but their own links between them.
fn network(args: &Transfers) -> Result<Network, Failure> {
    if args.bytes == 0 || args.bytes > BYTES_MAX {
        return Err(Failure::usage(format!("a transfer of {} bytes is none; pass 1 byte to 4G", args.bytes)));
    }
    let latency = args.latency.as_nanos() as u64;
    let topology = Topology::new(TopologySpec {
        hosts: (0..args.nodes).map(|_| HostSpec { up: args.rate, down: args.rate, rack: 0 }).collect(),
        rack_zones: vec![0],
        rack_rate: None,
        zone_rate: None,
        rack_latency: latency,
        zone_latency: latency,
        world_latency: latency,
    });
    let window_bytes_max = if args.slow_start { Tcp::default().window_bytes_max } else { u64::MAX >> 32 };
    let tcp = Tcp { slow_start: args.slow_start, window_bytes_max, ..Tcp::default() };
    Ok(match args.model {
        Model::Fluid => Network::Fluid(Box::new(Fluid::new(topology, tcp))),
        Model::Packet => Network::Packet(Box::new(Packet::new(topology, tcp))),
    })
}

fn exchange(args: &Transfers) -> Result<u64, Failure> {
    if args.nodes > EXCHANGE_NODES_MAX {
        let nodes = args.nodes;
        return Err(Failure::usage(format!("{nodes} nodes are too many to exchange; pass 2 to {EXCHANGE_NODES_MAX}")));
    }
    let mut network = network(args)?;
    for from in 0..args.nodes {
        for to in (0..args.nodes).filter(|to| *to != from) {
            let pipe = network.open(from, to);
            network.send(0, pipe, args.bytes as u32, 0);
        }
    }
    Ok(run_out(&mut network, |_, _, _| {}))
}

fn chain_broadcast(args: &Chain) -> Result<u64, Failure> {
    if args.chunk == 0 || args.chunk > BYTES_MAX {
        return Err(Failure::usage(format!("a chunk of {} bytes is none; pass 1 byte to 4G", args.chunk)));
    }
    let mut network = network(&args.transfers)?;
    let pipes: Vec<PipeId> = (1..args.transfers.nodes).map(|to| network.open(to - 1, to)).collect();
    let length = |chunk: u64| args.chunk.min(args.transfers.bytes - chunk * args.chunk) as u32;
    let chunks = args.transfers.bytes.div_ceil(args.chunk);
    // Tags: which pipe, and how many chunks it has carried.
    let mut carried = vec![0u64; pipes.len()];
    (0..chunks).for_each(|chunk| {
        network.send(0, pipes[0], length(chunk), 0);
    });
    Ok(run_out(&mut network, |network, now, pipe| {
        let chunk = carried[pipe as usize];
        carried[pipe as usize] += 1;
        if let Some(next) = pipes.get(pipe as usize + 1) {
            network.send(now, *next, length(chunk), pipe + 1);
        }
    }))
}

/// Runs until nothing happens any more; the time of the last arrival.
fn run_out(network: &mut Network, mut arrived: impl FnMut(&mut Network, u64, u32)) -> u64 {
    let (mut now, mut last) = (0, 0);
    loop {
        now = match network.next(now) {
            NEVER => return last,
            next => next,
        };
        if let Some(Occurrence::Arrived { tag }) = network.advance(now) {
            last = now;
            arrived(network, now, tag);
        }
    }
}
