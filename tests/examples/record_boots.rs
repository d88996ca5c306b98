//! Boots the appliance in several shapes of machine, and writes what each boot read: `OUT_DIR/SHAPE-RUN.trace`, and
//! `OUT_DIR/nonzero.txt` with the chunks of the image that hold anything.
//!
//! `cargo run --release -p swarmdisk-tests --example record_boots -- OUT_DIR [--only NAME] [--runs 3]`. A boot takes one to
//! two minutes here. What is there already is not recorded again, so that an interrupted run can go on; traces of
//! different builds of the appliance do not belong together.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use swarmdisk_tests::boots::{Recorder, SHAPES, Shape};

/// Boots the appliance in several shapes of machine, and writes what each boot read.
#[derive(Parser)]
struct Args {
    /// Where the traces go
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
    /// Record these shapes alone; may be given several times
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(SHAPES.iter().map(|shape| shape.name)))]
    only: Vec<String>,
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
}

fn main() -> ExitCode {
    match record(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn record(args: &Args) -> Result<(), String> {
    let recorder = Recorder::new().map_err(|missing| missing.to_string())?;
    fs::create_dir_all(&args.out).map_err(|error| format!("cannot make {}: {error}", args.out.display()))?;
    let nonzero = recorder.nonzero().map_err(|error| format!("cannot read the appliance's disk: {error}"))?;
    write(args, "nonzero.txt", &nonzero)?;
    let is_asked = |shape: &&Shape| args.only.is_empty() || args.only.iter().any(|name| name == shape.name);
    // Round by round, so that an interrupted run has some of every shape.
    for run in 1..=args.runs {
        for shape in SHAPES.iter().filter(is_asked) {
            let name = format!("{}-{run}.trace", shape.name);
            if args.out.join(&name).exists() {
                continue;
            }
            let began = Instant::now();
            let trace = recorder.record(shape).map_err(|error| format!("{name}: {error}"))?;
            println!("{name}: {} lines, {:.1} s", trace.lines().count(), began.elapsed().as_secs_f64());
            write(args, &name, &trace)?;
        }
    }
    Ok(())
}

fn write(args: &Args, name: &str, text: &str) -> Result<(), String> {
    let path = args.out.join(name);
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
