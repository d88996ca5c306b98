//! What the data path costs beside programs that do the same without a swarm, each figure as a ratio within one run:
//! `cargo run --release -p swarmdisk-tests --example data_path`; `tests/setup/peers.sh` installs the others.
//!
//! Takes some ten minutes, on a machine that does nothing else. Prints each figure's medians, the median of the rounds'
//! ratios, and the least and the greatest of them: that is the machine's noise. Exits with 1 if something could not be
//! measured; a missed target is said, and no failure.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Parser;
use swarmdisk_tests::data_path::{Group, Setup, measure};
use swarmdisk_tests::process::Swarmdisk;

/// Set when someone asks to end.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Measures what the data path costs beside programs that do the same without a swarm.
#[derive(Parser)]
struct Args {
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// What is measured, parted by commas: nbd, iscsi, ublk, vhost-user, fetch, latency, memory, idle [default: all]
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    only: Vec<Group>,
    /// Small and short: shows that it works, and nothing of the figures
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Programs that run end as well: this one drops them.
    if let Err(error) = ctrlc::set_handler(|| CANCEL.store(true, Ordering::Relaxed)) {
        eprintln!("cannot be asked to end: {error}");
    }
    // One of an earlier build would be measured in its place.
    Swarmdisk::up_to_date();
    let groups = if args.only.is_empty() { Group::ALL.to_vec() } else { args.only };
    let setup = Setup { rounds: if args.quick { 1 } else { args.rounds.into() }, is_quick: args.quick };
    let began = Instant::now();
    let told = |line: &str| eprintln!("{:6.1} s  {line}", began.elapsed().as_secs_f64());
    match measure(&groups, setup, &CANCEL, &told) {
        Ok(report) => {
            // Nobody reads any more: there is nobody to tell.
            io::stdout().write_all(report.text().as_bytes()).ok();
            if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
