//! Boots a swarm for real, in network namespaces with links of a given rate, then the same in the simulator, and prints
//! what it cost each node and how far the two are apart.
//!
//! `cargo run --release -p swarmdisk-tests --example reality`, as root. Use `--release`, or the processors are the limit.
//! Exits with 1 if the simulator misses a target: times to boot are left out of that where the processors were busy for
//! more than [`BUSY_LIMIT`] of the time, as they, and not the links, may have been what the nodes waited for.
//! `--json` writes `{"setup": …, "runs": [{"real": …, "simulated": …, "ratios": …}]}` with the fields of
//! `swarmdisk_tests::reality` and `simulated`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use swarmdisk_tests::netlab::Netlab;
use swarmdisk_tests::reality::{Outcome, Setup, Subject};
use swarmdisk_tests::simulated::{Comparison, Simulated};

/// Share of the processors' time.
const BUSY_LIMIT: f64 = 0.9;

/// Boots a swarm for real and in the simulator, and prints how far the two are apart.
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
    runs: Vec<Run>,
}

/// One run of both.
#[derive(Serialize)]
struct Run {
    real: Outcome,
    simulated: Simulated,
    ratios: Comparison,
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
    let (mut runs, mut missed) = (Vec::new(), String::new());
    for number in 1..=args.runs {
        let real = subject.boot(&setup).expect("there was a network a moment ago");
        let simulated = Simulated::run(&subject, &setup, number.into());
        let ratios = Comparison::new(&real, &simulated);
        println!("run {number}\n{}", table(&real, &simulated, &ratios));
        let is_idle = real.busy <= BUSY_LIMIT;
        if !is_idle {
            println!("the processors were busy: times to boot are not judged in this run\n");
        }
        missed += &ratios.misses(is_idle);
        runs.push(Run { real, simulated, ratios });
    }
    println!("{}", spread(&runs));
    print!("{}", if missed.is_empty() { "the simulator is within its targets\n" } else { &missed });
    if let Some(path) = args.json {
        let text = serde_json::to_string_pretty(&Written { setup, runs }).expect("it is plain data");
        if let Err(error) = std::fs::write(&path, text + "\n") {
            eprintln!("cannot write {}: {error}; choose another --json", path.display());
            return ExitCode::FAILURE;
        }
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A node a line.
fn table(outcome: &Outcome, simulated: &Simulated, ratios: &Comparison) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let head =
        ["node", "boot s", "simulated", "ratio", "MB", "simulated", "ratio", "with start", "origin MB", "peers MB"];
    table.set_header(head.into_iter().chain(["metadata kB", "sent MB", "misses", "CPU s"]));
    let both = outcome.nodes.iter().zip(&simulated.nodes).zip(&ratios.nodes);
    for (index, ((node, simulated), ratio)) in both.enumerate() {
        table.add_row([
            (index + 1).to_string(),
            seconds(node.boot_micros),
            seconds(simulated.boot_micros),
            format!("{:.3}", ratio.boot),
            megabytes(node.fetched_bytes()),
            megabytes(simulated.fetched_bytes),
            format!("{:.3}", ratio.fetched),
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
        "{table}\nworking set {} MB, origin amplification {:.3} (simulated {:.3}, ratio {:.3}; seed sent {} MB), processors {:.0} % busy, {} frames dropped\n",
        megabytes(outcome.working_set_bytes),
        outcome.amplification(),
        simulated.amplification,
        ratios.amplification,
        megabytes(outcome.seed_sent_bytes),
        outcome.busy * 100.0,
        outcome.drops
    )
}

/// How far apart the nodes of all runs are, and the simulator from them.
fn spread(runs: &[Run]) -> String {
    let of = |name: &str, values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &value| (a.min(value), b.max(value)));
        format!("{name:30} {mean:.3} ({least:.3} to {most:.3})\n")
    };
    let nodes = || runs.iter().flat_map(|run| &run.real.nodes);
    let ratios = || runs.iter().flat_map(|run| &run.ratios.nodes);
    [
        of("boot, s", nodes().map(|node| node.boot_micros as f64 / 1e6).collect()),
        of("simulated / real", ratios().map(|ratio| ratio.boot).collect()),
        of("fetched, MB", nodes().map(|node| node.fetched_bytes() as f64 / 1e6).collect()),
        of("simulated / real", ratios().map(|ratio| ratio.fetched).collect()),
        of("origin amplification", runs.iter().map(|run| run.real.amplification()).collect()),
        of("simulated / real", runs.iter().map(|run| run.ratios.amplification).collect()),
    ]
    .concat()
}

fn seconds(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1e6)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}
