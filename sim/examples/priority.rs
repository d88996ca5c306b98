//! What others' bulk fetches cost a guest's demand misses, simulated: `cargo run --release -p swarmdisk-sim --example priority`.
//!
//! For each link and round trip: the misses' mean, median and 99th percentile with nobody else there, then with bulk
//! fetchers, and the ratios; beside them what the bulk fetchers get of the uploader's and each other's links.

use std::process::ExitCode;
use swarmdisk_sim::model::SetupError;
use swarmdisk_sim::priority::{Bulk, Case, Measured, Uploader, measure};
use swarmdisk_sim::scenario::{Rate, Span};

fn main() -> ExitCode {
    println!(
        "{:>8} {:>6} {:>8} {:>12} {:>24} {:>24} {:>10}",
        "uploader", "Mbit/s", "rtt ms", "bulk", "miss ms: mean p50 p99", "ratio: mean p50 p99", "bulk MB/s"
    );
    let cases = [Uploader::Seed, Uploader::Node]
        .into_iter()
        .flat_map(|uploader| [25, 100, 1000].map(|mbit| (uploader, mbit)))
        .flat_map(|(uploader, mbit)| [200, 5000].map(|rtt| (uploader, mbit, Span::micros(rtt))));
    for (uploader, mbit, rtt) in cases {
        if let Err(error) = compare(uploader, mbit, rtt) {
            eprintln!("priority: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn compare(uploader: Uploader, mbit: u64, rtt: Span) -> Result<(), SetupError> {
    let rate = Rate(mbit * 125_000);
    let think = Span::micros(3500);
    let case = |bulk, fetchers| Case { uploader, bulk, fetchers, rate, rtt, think, seed: 1 };
    let alone = measure(&case(Bulk::Fill, 0))?;
    for (bulk, fetchers) in
        [(Bulk::Fill, 0), (Bulk::Fill, 1), (Bulk::Fill, 4), (Bulk::Prefetch, 1), (Bulk::Prefetch, 4)]
    {
        let measured = if fetchers == 0 { alone.clone() } else { measure(&case(bulk, fetchers))? };
        let what = if fetchers == 0 { "none".into() } else { format!("{fetchers} {bulk:?}").to_lowercase() };
        let of = |measured: &Measured| {
            [measured.mean(), measured.percentile(50), measured.percentile(99)].map(|nanos| nanos as f64 / 1e6)
        };
        let ([mean, p50, p99], base) = (of(&measured), of(&alone));
        println!(
            "{:>8} {mbit:>6} {:>8} {what:>12} {mean:>9.2} {p50:>6.2} {p99:>7.2} {:>11.2} {:>5.2} {:>6.2} {:>10.2}",
            format!("{uploader:?}").to_lowercase(),
            rtt.0 as f64 / 1e6,
            mean / base[0],
            p50 / base[1],
            p99 / base[2],
            measured.bulk_bytes_per_sec as f64 / 1e6,
        );
    }
    Ok(())
}
