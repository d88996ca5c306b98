//! Boots a swarm for real, in network namespaces with links of a given rate, and prints what it cost each node.
//!
//! `cargo run --release -p swarmdisk-tests --example reality`, as root. Use `--release`, or the processor is the limit.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use swarmdisk_tests::netlab::Netlab;
use swarmdisk_tests::reality::{Outcome, Setup, Subject};

/// Boots a swarm for real, and prints what it cost each node.
#[derive(Parser)]
struct Args {
    /// How many nodes boot at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Rate of each link both ways, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    link: u32,
    /// Divide the recorded guest's think time by this
    #[arg(long, value_name = "X", default_value_t = 10.0)]
    speed: f64,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Write all of it as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Written {
    setup: Setup,
    runs: Vec<Outcome>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let setup = Setup { nodes: args.nodes.into(), link_mbit: args.link, speed: args.speed };
    // Before the image, which takes longer.
    if let Err(missing) = Netlab::new(1, args.link) {
        eprintln!("{missing}");
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    let subject = Subject::make();
    eprintln!("made an image in {:.1} s", began.elapsed().as_secs_f64());
    let mut runs = Vec::new();
    for run in 1..=args.runs {
        let outcome = subject.boot(&setup).expect("there was a network a moment ago");
        println!("run {run}\n{}", table(&outcome));
        runs.push(outcome);
    }
    println!("{}", spread(&runs));
    if let Some(path) = args.json {
        let text = serde_json::to_string_pretty(&Written { setup, runs }).expect("it is plain data");
        if let Err(error) = std::fs::write(&path, text + "\n") {
            eprintln!("cannot write {}: {error}; choose another --json", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A node a line.
fn table(outcome: &Outcome) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let head = ["node", "boot s", "with start", "origin MB", "peers MB", "metadata kB", "sent MB", "misses", "CPU s"];
    table.set_header(head);
    for (index, node) in outcome.nodes.iter().enumerate() {
        table.add_row([
            (index + 1).to_string(),
            seconds(node.boot_micros),
            seconds(node.start_to_last_micros),
            megabytes(node.origin_bytes),
            megabytes(node.peer_bytes),
            format!("{:.0}", node.metadata_bytes as f64 / 1e3),
            megabytes(node.uploaded_bytes),
            node.demand_misses.to_string(),
            seconds(node.cpu_micros),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{table}\nworking set {} MB, origin amplification {:.3} (seed sent {} MB), processors {:.0} % busy, {} frames dropped\n",
        megabytes(outcome.working_set_bytes),
        outcome.amplification(),
        megabytes(outcome.seed_sent_bytes),
        outcome.busy * 100.0,
        outcome.drops
    )
}

/// How far apart the nodes of all runs are.
fn spread(runs: &[Outcome]) -> String {
    let nodes = || runs.iter().flat_map(|run| &run.nodes);
    let of = |values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &value| (a.min(value), b.max(value)));
        format!("{mean:.3} ({least:.3} to {most:.3})")
    };
    format!(
        "all runs: boot {} s, fetched {} MB, amplification {}",
        of(nodes().map(|node| node.boot_micros as f64 / 1e6).collect()),
        of(nodes().map(|node| node.fetched_bytes() as f64 / 1e6).collect()),
        of(runs.iter().map(Outcome::amplification).collect())
    )
}

fn seconds(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1e6)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}
