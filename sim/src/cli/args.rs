//! The arguments of each command.

use crate::policies::Counts;
use crate::sweep::{Axis, Seeds};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use swarmdisk_common::units::{parse_rate, parse_size, parse_time};

/// Asks what a swarm of thousands of nodes would do, and gets the same answer each time.
#[derive(Debug, Parser)]
#[command(name = "swarmdisk-sim", version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a scenario and say what came of it
    ///
    /// Progress goes to stderr, two tables of boot times and bytes to stdout. The same scenario and seed give the same result
    /// and digest each time. Ctrl-C ends a run early and shows what came so far; a second one ends it at once. Exit 0: all
    /// nodes booted; 1: not all, or an error; 2: wrong arguments; 130: interrupted.
    Run(Run),
    /// Run swarms and faults drawn from seeds, and check what must hold in all of them
    Swarm(Swarm),
    /// Make a failing scenario or seed of `swarm` smaller
    Shrink(Shrink),
    /// Run a recording of a real node's engine again, action for action
    Replay(Replay),
    /// Time a pattern of transfers in the network model alone, to compare it with others
    Network(Network),
    /// Run a scenario at every point of a grid and write a row of CSV each
    Sweep(Sweep),
    /// Compare policies: run them all, write a document with the tables and a plot beside it
    ///
    /// Takes some minutes. The same scenarios and arguments give the same document each time.
    Policies(Policies),
    /// Run the settings in which something is aimed at, and write a document that says what is reached
    ///
    /// Takes some minutes, with --all an hour. The same scenarios and arguments give the same document each time.
    Targets(Targets),
}

/// Arguments of `run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// The scenario: a TOML file such as those in sim/scenarios; an empty one is eight nodes that boot a made-up image
    #[arg(value_name = "SCENARIO.toml")]
    pub scenario: PathBuf,
    /// Seed of all random draws; by default the scenario's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Set a key of the scenario, as in group.0.count=100 or network.rack-rtt=1ms; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// How bytes are carried; by default the scenario's
    #[arg(long, value_enum)]
    pub network: Option<Model>,
    /// Write result.json and report.html (tables, plots, scenario in one page) into this folder, which is made if need be
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the result as JSON, as in result.json, instead of tables
    #[arg(long)]
    pub json: bool,
}

/// Network models by name.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// Flows that share links max-min fairly
    Fluid,
    /// Packets through queues: slow, for small swarms
    Packet,
}

/// Arguments of `swarm`.
#[derive(Debug, ClapArgs)]
pub struct Swarm {
    /// Run this scenario instead of drawn ones
    #[arg(value_name = "SCENARIO.toml", conflicts_with_all = ["first", "count"])]
    pub scenario: Option<PathBuf>,
    /// Run one seed alone, and show what it draws
    #[arg(long, value_name = "N", conflicts_with_all = ["first", "count"])]
    pub seed: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub first: u64,
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// Most nodes that are drawn
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub nodes_max: u32,
    /// Run so many at a time; by default one a core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// Arguments of `shrink`.
#[derive(Debug, ClapArgs)]
pub struct Shrink {
    /// The scenario that fails; without it, the one that --seed draws
    #[arg(value_name = "SCENARIO.toml")]
    pub scenario: Option<PathBuf>,
    /// The seed
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Most runs to try
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
    /// Write it to this file instead of the standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Arguments of `replay`.
#[derive(Debug, ClapArgs)]
pub struct Replay {
    /// What `swarmdisk attach --record-engine` wrote
    pub file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `network`.
#[derive(Debug, ClapArgs)]
pub struct Network {
    #[command(subcommand)]
    pub pattern: Pattern,
}

/// Patterns of transfers.
#[derive(Debug, Subcommand)]
pub enum Pattern {
    /// Each node sends something to each other node, all at once
    Exchange(Transfers),
    /// Each node sends to the next what it has got, chunk by chunk
    Chain(Chain),
}

/// What every pattern needs.
#[derive(Debug, ClapArgs)]
pub struct Transfers {
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub nodes: u32,
    /// What each node can send, and receive
    #[arg(long, value_name = "RATE", default_value = "100mbit", value_parser = parse_rate)]
    pub rate: u64,
    /// From node to node, one way
    #[arg(long, value_name = "TIME", default_value = "250us", value_parser = parse_time)]
    pub latency: Duration,
    /// Bytes of each transfer
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_size)]
    pub bytes: u64,
    /// How bytes are carried
    #[arg(long, value_enum, default_value_t = Model::Fluid)]
    pub model: Model,
    /// Let connections begin slowly, as TCP does
    #[arg(long)]
    pub slow_start: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `network chain`.
#[derive(Debug, ClapArgs)]
pub struct Chain {
    #[command(flatten)]
    pub transfers: Transfers,
    /// A chunk is sent on when it is there whole
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = parse_size)]
    pub chunk: u64,
}

/// Arguments of `sweep`.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub struct Sweep {
    #[command(subcommand)]
    pub command: Option<SweepCommand>,
    /// The scenario, as in sim/scenarios
    #[arg(value_name = "SCENARIO.toml", required = true)]
    pub scenario: Option<PathBuf>,
    /// Values of a key, as in policy.window=30,300 or network.rack-rtt=1ms,10ms; several make a grid, the last fastest
    #[arg(long, value_name = "KEY=V1,V2")]
    pub grid: Vec<Axis>,
    /// A grid in TOML: keys of the scenario with lists of values; it comes before --grid
    #[arg(long, value_name = "GRID.toml")]
    pub grid_file: Option<PathBuf>,
    /// Set a key of the scenario at all points; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Run each point with these seeds, 1..5 being 1 to 5; by default with the scenario's
    #[arg(long, value_name = "N..M")]
    pub seeds: Option<Seeds>,
    /// Write the rows into this file; those that are there already are not run again
    #[arg(long, value_name = "FILE.csv", required = true)]
    pub out: Option<PathBuf>,
    /// Runs at a time; by default one a core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,
    /// Run every n-th point only, from the i-th; auto: as the environment of an array job says
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
    /// Drop the rows that are there
    #[arg(long)]
    pub restart: bool,
}

/// Arguments of `policies`.
#[derive(Debug, ClapArgs)]
pub struct Policies {
    /// Write the document into this Markdown file, and the plot beside it, as .svg
    #[arg(long, value_name = "FILE.md")]
    pub out: PathBuf,
    /// The folder that has vmtorrent.toml and vmtorrent-own.toml
    #[arg(long, value_name = "DIR", default_value = crate::policies::FOLDER)]
    pub scenarios: PathBuf,
    /// Nodes in the tables of policies
    #[arg(long, value_name = "N1,N2", default_value = crate::policies::NODES)]
    pub nodes: Counts,
    /// Nodes in the table against VMTorrent's own policy
    #[arg(long, value_name = "N1,N2", default_value = crate::policies::GRID)]
    pub grid: Counts,
    /// Run each point with these seeds, and show the middle one
    #[arg(long, value_name = "N..M", default_value = crate::policies::SEEDS)]
    pub seeds: Seeds,
    /// Runs at a time; by default one a core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,
}

/// Arguments of `targets`.
#[derive(Debug, ClapArgs)]
pub struct Targets {
    /// Write the document into this Markdown file
    #[arg(long, value_name = "FILE.md")]
    pub out: PathBuf,
    /// Run those of 1,000 nodes as well
    #[arg(long)]
    pub all: bool,
    /// The folder that has the scenarios
    #[arg(long, value_name = "DIR", default_value = crate::policies::FOLDER)]
    pub scenarios: PathBuf,
    /// Run each setting with these seeds, and show the middle one
    #[arg(long, value_name = "N..M", default_value = crate::targets::SEEDS)]
    pub seeds: Seeds,
    /// Runs at a time; by default one a core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,
}

/// What else is done with sweeps.
#[derive(Debug, Subcommand)]
pub enum SweepCommand {
    /// Join the parts that shards have written
    Merge(Merge),
}

/// Arguments of `sweep merge`.
#[derive(Debug, ClapArgs)]
pub struct Merge {
    /// The file to be; what is in it already is a part too
    #[arg(value_name = "OUT.csv")]
    pub out: PathBuf,
    /// What shards have written, ended or not
    #[arg(value_name = "PART.csv", required = true)]
    pub parts: Vec<PathBuf>,
    /// Write it even if points are missing
    #[arg(long)]
    pub partial: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE, as in policy.window=300")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
