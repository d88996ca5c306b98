//! `swarmdisk-sim policies`.

use super::args::Policies;
use super::{Failure, parts, say};
use crate::policies::{Document, FOLDER, GRID, NODES, SEEDS, Spec};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(args: &Policies) -> Result<ExitCode, Failure> {
    let spec = Spec {
        scenarios: args.scenarios.clone(),
        nodes: args.nodes.clone(),
        grid: args.grid.clone(),
        seeds: args.seeds.clone(),
    };
    let plot = args.out.with_extension("svg");
    let (Some(name), false) = (plot.file_name().map(|name| name.to_string_lossy().into_owned()), plot == args.out)
    else {
        return Err(Failure::usage("the document is a Markdown file; pass --out docs/policies.md"));
    };
    parts::check_out(&args.out)?;
    let rows = parts::run(&spec.parts()?, args.threads)?;
    let document = Document::new(&spec, &rows, &command(args), &name)?;
    parts::write(&plot, &document.plot)?;
    parts::write(&args.out, &document.text)?;
    say(format_args!("{} and {}", args.out.display(), plot.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// What makes the same document again.
fn command(args: &Policies) -> String {
    let mut command = format!("cargo run --release -p swarmdisk-sim -- policies --out {}", args.out.display());
    let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let counts = |counts: &[u32]| list(&counts.iter().map(|count| u64::from(*count)).collect::<Vec<_>>());
    if args.scenarios != Path::new(FOLDER) {
        command += &format!(" --scenarios {}", args.scenarios.display());
    }
    if Ok(&args.nodes) != NODES.parse().as_ref() {
        command += &format!(" --nodes {}", counts(&args.nodes.0));
    }
    if Ok(&args.grid) != GRID.parse().as_ref() {
        command += &format!(" --grid {}", counts(&args.grid.0));
    }
    if Ok(&args.seeds) != SEEDS.parse().as_ref() {
        command += &format!(" --seeds {}", list(&args.seeds.0));
    }
    command
}
