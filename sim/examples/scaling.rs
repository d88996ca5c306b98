//! What a simulated chunk transfer costs, from 100 to 10,000 nodes: `cargo run --release -p swarmdisk-sim --example scaling
//! [-- NODES…]` (by default 100, 300, 1,000 and 3,000; 10,000 take minutes and some GiB).
//!
//! Processor time, so that other work on the machine counts little; memory is the process's peak, so sizes go up.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use swarmdisk_sim::model::Setup;
use swarmdisk_sim::outcome;
use swarmdisk_sim::scenario::load_with;

fn main() -> ExitCode {
    let given: Result<Vec<u32>, _> = std::env::args().skip(1).map(|count| count.parse()).collect();
    let counts = match given {
        Ok(counts) if counts.is_empty() => vec![100, 300, 1000, 3000],
        Ok(mut counts) => {
            counts.sort_unstable();
            counts
        }
        Err(error) => {
            eprintln!("scaling: {error}; pass numbers of nodes");
            return ExitCode::from(2);
        }
    };
    println!("server appliance, 1,568 chunks a node; 40 nodes a rack at 1 Gbit/s, four seeds at 10 Gbit/s");
    println!(
        "{:>6} {:>11} {:>7} {:>7} {:>8} {:>11} {:>16} {:>9}",
        "nodes", "transfers", "CPU s", "wall s", "peak MiB", "µs/transfer", "µs/(tr. × log₂N)", "µs/event"
    );
    for count in counts {
        if let Err(error) = measure(count) {
            eprintln!("scaling: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/ten-thousand.toml");
    let set = |key: &str, value: u32| (key.to_owned(), value.to_string());
    let sets = [set("group.0.count", count), set("group.0.racks", count.div_ceil(40))];
    let (wall, before) = (Instant::now(), cpu_seconds());
    let setup = Setup::new(load_with(&path, &sets)?, 1)?;
    let outcome = outcome::run(&setup, |_| true);
    let (cpu, wall) = (cpu_seconds() - before, wall.elapsed().as_secs_f64());
    let working_set = setup.working_set(0).len() as f64;
    let bodies = (outcome.totals.origin_bytes + outcome.totals.peer_bytes) as f64 / outcome.working_set_bytes as f64;
    let transfers = bodies * working_set;
    let each = cpu * 1e6 / transfers;
    println!(
        "{count:>6} {transfers:>11.0} {cpu:>7.1} {wall:>7.1} {:>8} {each:>11.1} {:>16.2} {:>9.2}",
        peak_mib()?,
        each / f64::from(count).log2(),
        cpu * 1e6 / outcome.event_count as f64
    );
    Ok(())
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn peak_mib() -> Result<u64, Box<dyn std::error::Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024)
}
