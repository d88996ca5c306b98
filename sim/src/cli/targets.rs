//! `swarmdisk-sim targets`.

use super::args::Targets;
use super::{Failure, parts, say};
use crate::policies::FOLDER;
use crate::targets::{SEEDS, Spec};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(args: &Targets) -> Result<ExitCode, Failure> {
    let spec = Spec { scenarios: args.scenarios.clone(), seeds: args.seeds.clone(), all: args.all };
    parts::check_out(&args.out)?;
    let rows = parts::run(&spec.parts()?, args.threads)?;
    parts::write(&args.out, &spec.document(&rows, &command(args)))?;
    say(args.out.display())?;
    Ok(ExitCode::SUCCESS)
}

/// What makes the same document again.
fn command(args: &Targets) -> String {
    let mut command = format!("cargo run --release -p swarmdisk-sim -- targets --out {}", args.out.display());
    if args.all {
        command += " --all";
    }
    if args.scenarios != Path::new(FOLDER) {
        command += &format!(" --scenarios {}", args.scenarios.display());
    }
    if Ok(&args.seeds) != SEEDS.parse().as_ref() {
        let seeds: Vec<String> = args.seeds.0.iter().map(u64::to_string).collect();
        command += &format!(" --seeds {}", seeds.join(","));
    }
    command
}
