//! Boots one image in all the ways that people would pick, on the same links, and prints what it took: swarmdisk beside a
//! network server, a download first, and BitTorrent on demand.
//!
//! `cargo run --release -p swarmdisk-tests --example compare`, as root; `tests/setup/peers.sh` installs the others. With
//! all ways it takes up to an hour, most of it for those that are stopped at `--bound`; `--ways local,nbd,profile` two minutes.
//! The first time it builds the Debian server that is booted and records two boots of it, some five minutes.
//! `--out` keeps the table, its figures as JSON (the fields of `swarmdisk_tests::compare::outcome`) and a picture.
//! Exits with 1 if a way failed or something went wrong; what is missing is printed, and no failure.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use swarmdisk_common::units::{parse_rate, parse_size, parse_time};
use swarmdisk_tests::compare::outcome::{Comparison, State};
use swarmdisk_tests::compare::session::Failure;
use swarmdisk_tests::compare::subject::Subject;
use swarmdisk_tests::compare::ways::Way;
use swarmdisk_tests::compare::{self, NODES_MAX, Setup};
use swarmdisk_tests::process::Swarmdisk;
use swarmdisk_tests::reality::{IMAGE_BYTES, recording};

/// Set when someone asks to end.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Boots one image in several ways, on the same links, and prints what each took.
#[derive(Parser)]
struct Args {
    /// How many nodes boot
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=NODES_MAX as i64))]
    nodes: u16,
    /// Rate of each link both ways, the server's too: whole Mbit/s
    #[arg(long, value_name = "RATE", default_value = "100mbit", value_parser = mbit)]
    rate: u32,
    /// What is run, parted by commas [default: all]
    #[arg(long, value_name = "WAY", value_delimiter = ',')]
    ways: Vec<Way>,
    /// Each node starts so long after the one before
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    stagger: Duration,
    /// Divide the recorded guest's think time by this
    #[arg(long, value_name = "X", default_value_t = 10.0)]
    think_divisor: f64,
    /// How often each way is run; the median counts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Stop a way that takes longer
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    bound: Duration,
    /// Pieces of BitTorrent on demand; of several sizes the best counts
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "64K,256K,1M", value_parser = piece_bytes)]
    pieces: Vec<u32>,
    /// What is booted
    #[arg(long, value_enum, default_value_t = ImageName::Auto)]
    image: ImageName,
    /// Write compare.txt, compare.json and compare.svg there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is booted.
#[derive(Copy, Clone, PartialEq, Eq, ValueEnum)]
enum ImageName {
    /// The appliance, if it can be had
    Auto,
    /// A Debian server, built and recorded here the first time
    Appliance,
    /// Made-up contents where a recorded boot of a Debian server reads
    MadeUp,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Programs that run end as well, as they are in the same group on a terminal, or when this one drops them.
    if let Err(error) = ctrlc::set_handler(|| CANCEL.store(true, Ordering::Relaxed)) {
        eprintln!("cannot be asked to end: {error}");
    }
    match show(&args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn show(args: &Args) -> Result<ExitCode, Failure> {
    let setup = Setup {
        nodes: args.nodes.into(),
        link_mbit: args.rate,
        stagger: args.stagger,
        think_divisor: args.think_divisor,
        runs: args.runs.into(),
        bound: args.bound,
        piece_bytes: args.pieces.clone(),
        ways: if args.ways.is_empty() { Way::ALL.to_vec() } else { args.ways.clone() },
    };
    // One of an earlier build would be measured in its place.
    Swarmdisk::up_to_date();
    let began = Instant::now();
    let told = |line: &str| eprintln!("{:6.1} s  {line}", began.elapsed().as_secs_f64());
    compare::check(&setup)?;
    let subject = subject(args.image, &told)?;
    let found = compare::compare(&subject, &setup, &CANCEL, &told)?;
    if let Some(folder) = &args.out {
        write(&found, folder)?;
    }
    let text = if args.json { json(&found) } else { found.text() };
    // Nobody reads any more: there is nobody to tell.
    io::stdout().write_all(text.as_bytes()).ok();
    let has_failed = found.rows.iter().any(|row| matches!(row.state, State::Failed(_)));
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn subject(image: ImageName, told: &dyn Fn(&str)) -> Result<Subject, Failure> {
    if image != ImageName::MadeUp {
        match Subject::appliance(told, &CANCEL) {
            Err(Failure::Missing(missing)) if image == ImageName::Auto => {
                told(&format!("no appliance, so the image is made up: {missing}"));
            }
            other => return other,
        }
    }
    told("making an image");
    Subject::made_up(IMAGE_BYTES, &recording("server-boot-1.trace"), &recording("server-boot-2.trace"), &CANCEL)
}

fn write(found: &Comparison, folder: &std::path::Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    let files =
        [("compare.txt", Some(found.text())), ("compare.json", Some(json(found))), ("compare.svg", found.svg())];
    for (name, text) in files {
        let (path, Some(text)) = (folder.join(name), text) else { continue };
        fs::write(&path, text).map_err(Failure::file(&path))?;
    }
    Ok(())
}

fn json(found: &Comparison) -> String {
    serde_json::to_string_pretty(found).expect("it has no keys but text") + "\n"
}

fn mbit(text: &str) -> Result<u32, String> {
    let bits = parse_rate(text).map_err(|error| error.to_string())? * 8;
    let mbit = bits / 1_000_000;
    let fits = bits % 1_000_000 == 0 && (1..=1000).contains(&mbit);
    if fits { Ok(mbit as u32) } else { Err("a link has 1 to 1000 whole Mbit/s, as in 100mbit".into()) }
}

fn time(text: &str) -> Result<Duration, String> {
    parse_time(text).map_err(|error| error.to_string())
}

fn piece_bytes(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    let fits = bytes.is_power_of_two() && (32 << 10..=16 << 20).contains(&bytes);
    if fits { Ok(bytes as u32) } else { Err("a piece is a power of two from 32K to 16M".into()) }
}
