//! A third node's bulk fetch lengthens another node's demand misses by at most a fifth; a fill costs its own guest nothing.

use std::path::Path;
use swarmdisk_sim::model::Setup;
use swarmdisk_sim::outcome::{self, Outcome};
use swarmdisk_sim::priority::{Bulk, Case, Uploader, measure};
use swarmdisk_sim::scenario::{Rate, Span, load_with};

/// The mean miss and the median, against those without bulk fetches, must not be more.
const RATIO_MAX: f64 = 1.2;

#[test]
fn fills_of_others_lengthen_demand_misses_by_at_most_a_fifth() {
    for (uploader, mbit, micros) in [
        (Uploader::Seed, 25, 200),
        (Uploader::Seed, 100, 200),
        (Uploader::Seed, 100, 5000),
        (Uploader::Seed, 1000, 200),
        (Uploader::Node, 25, 200),
        (Uploader::Node, 100, 200),
        (Uploader::Node, 100, 5000),
        (Uploader::Node, 1000, 200),
    ] {
        let case = |fetchers| Case {
            uploader,
            bulk: Bulk::Fill,
            fetchers,
            rate: Rate(mbit * 125_000),
            rtt: Span::micros(micros),
            think: Span::micros(3500),
            seed: 1,
        };
        let alone = measure(&case(0)).unwrap();
        assert!(alone.mean() > 0);
        for fetchers in [1, 4] {
            let measured = measure(&case(fetchers)).unwrap();
            let mean = measured.mean() as f64 / alone.mean() as f64;
            let median = measured.percentile(50) as f64 / alone.percentile(50) as f64;
            println!("{uploader:?}, {mbit} Mbit/s, {micros} us, {fetchers} fills: mean {mean:.2}, median {median:.2}");
            assert!(mean <= RATIO_MAX && median <= RATIO_MAX, "{uploader:?} {mbit} {micros} {fetchers}");
            assert!(measured.bulk_bytes_per_sec > 0, "they do get something");
        }
    }
}

/// 16 nodes boot, with these settings.
fn boot(seed: u64, sets: &[(&str, &str)]) -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/vmtorrent.toml");
    let sets: Vec<_> = sets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    outcome::run(&Setup::new(load_with(&path, &sets).unwrap(), seed).unwrap(), |_| true)
}

#[test]
fn a_fill_costs_guests_that_boot_nothing_to_speak_of() {
    let fetched = |outcome: &Outcome| outcome.totals.origin_bytes + outcome.totals.peer_bytes;
    for seed in [1, 2, 5, 7] {
        let off = boot(seed, &[]);
        // Little comes of either while guests boot: the seed gives fills a twelfth of its uplink.
        for fill in [&[("policy.fill", "auto"), ("policy.fill-after", "0s")][..], &[("policy.fill-rate", "10mbit")]] {
            let with = boot(seed, fill);
            let more = fetched(&with) as f64 / fetched(&off) as f64;
            let [median, last] = [
                with.totals.run_micros.p50 as f64 / off.totals.run_micros.p50 as f64,
                with.totals.run_micros.max as f64 / off.totals.run_micros.max as f64,
            ];
            println!("seed {seed}, {fill:?}: {more:.2} x the bytes; boots {median:.3} x (median), {last:.3} x (last)");
            assert!(more > 1.01, "it does fill while they boot: {more}");
            assert!(median <= 1.03 && last <= 1.05, "seed {seed}: {median} {last}");
        }
    }
}
