//! Runs some seeds and prints, for each that fails, which checker has found something: `planted FIRST COUNT [NODES]`.

use std::process::ExitCode;
use swarmdisk_sim::swarm::{Options, swarm};

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|argument| argument.parse()).collect();
    let (first, count, nodes) = match numbers.as_deref() {
        Ok([first, count]) => (*first, *count, Options::default().nodes_max),
        Ok([first, count, nodes]) => (*first, *count, *nodes as u32),
        _ => {
            eprintln!("say the first seed, how many, and perhaps the most nodes: planted 1 20 40");
            return ExitCode::from(2);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options { nodes_max: nodes, ..Options::default() };
    let outcome = swarm(first..first + count, threads, &options, |_| {});
    for failure in &outcome.failures {
        println!("{} {} ({})", failure.seed, failure.violation, failure.replay);
    }
    print!("{}", outcome.coverage);
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
