//! What others' fills cost a guest's demand misses, for real, on links of a given rate:
//! `cargo run --release -p swarmdisk-tests --example priority`, as root. Use `--release`, or the processors are the limit.
//!
//! Prints the misses' mean, median and 99th percentile without and with nodes that fill from the same seed, and the ratios.

use std::process::ExitCode;

use clap::Parser;
use swarmdisk_tests::netlab::Netlab;
use swarmdisk_tests::priority::{Case, Measured, image, measure};

/// Measures what fills of some nodes cost another's demand misses.
#[derive(Parser)]
struct Args {
    /// Rates of each link both ways, in Mbit/s
    #[arg(long, value_name = "MBIT", default_values_t = [25, 100], value_parser = clap::value_parser!(u32).range(1..=1000))]
    link: Vec<u32>,
    /// How many nodes fill, one measurement each
    #[arg(long, value_name = "N", default_values_t = [1, 3], value_parser = clap::value_parser!(u16).range(1..=32))]
    fetchers: Vec<u16>,
    /// Misses of each measurement
    #[arg(long, value_name = "N", default_value_t = 400)]
    misses: u32,
    /// Size of the image in MiB; its payloads are three eighths of it
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    image: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Before the image, which takes longer.
    if let Err(missing) = Netlab::new(1, 100) {
        eprintln!("{missing}");
        return ExitCode::FAILURE;
    }
    let fixture = image(args.image << 20);
    println!("Mbit/s fills   miss ms: mean   p50   p99   ratio: mean  p50  p99   seed sends Mbit/s");
    for link_mbit in args.link {
        let mut alone = None;
        for fetchers in [0].into_iter().chain(args.fetchers.iter().copied()) {
            let case = Case { link_mbit, fetchers: fetchers.into(), misses: args.misses };
            let measured = measure(&fixture, &case).expect("there was a network a moment ago");
            show(&case, &measured, alone.get_or_insert_with(|| measured.clone()));
        }
    }
    ExitCode::SUCCESS
}

fn show(case: &Case, measured: &Measured, alone: &Measured) {
    let of = |measured: &Measured| [measured.mean(), measured.percentile(50), measured.percentile(99)];
    let ([mean, p50, p99], base) =
        (of(measured).map(|micros| micros as f64 / 1e3), of(alone).map(|micros| micros as f64 / 1e3));
    println!(
        "{:>6} {:>5} {mean:>15.2} {p50:>5.2} {p99:>5.2} {:>13.2} {:>4.2} {:>4.2} {:>19.1}",
        case.link_mbit,
        case.fetchers,
        mean / base[0],
        p50 / base[1],
        p99 / base[2],
        measured.seed_mbit
    );
}
