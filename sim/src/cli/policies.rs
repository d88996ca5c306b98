//! `swarmdisk-sim policies`.

use super::args::Policies;
use super::sweep::Show;
use super::{Failure, interrupt, say};
use crate::policies::{Document, FOLDER, GRID, NODES, Rows, SEEDS, Spec};
use crate::report;
use crate::sweep::{self, Options, Shard, SweepError};
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;
use swarmdisk_common::file::write_whole;

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
    // Before the runs, which take minutes.
    if args.out.is_dir() {
        return Err(Failure::new(format!("{} is a folder; name a file in it", args.out.display())));
    }
    let folder_of = args.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    report::check_folder(folder_of.unwrap_or(Path::new(".")))?;
    let threads = args.threads.map_or_else(|| available_parallelism().map_or(1, NonZero::get), usize::from);
    let interrupt = interrupt::flag()?;
    let parts = spec.parts()?;
    let folder = tempfile::tempdir()?;
    let mut rows = BTreeMap::new();
    for (number, part) in parts.iter().enumerate() {
        let out = folder.path().join(format!("{number}.csv"));
        let options = Options { out: &out, threads, shard: Shard::ALL, restart: false, interrupt: &interrupt };
        let name = format!("{} ({} of {})", part.name, number + 1, parts.len());
        let mut show = Show::new(&name, &part.plan);
        let ran = sweep::run(&part.plan, &options, |status| show.update(status));
        drop(show);
        ran.map_err(|error| match error {
            SweepError::Interrupted { .. } => Failure::interrupted("interrupted; nothing was written"),
            error => error.into(),
        })?;
        rows.insert(part.name, Rows::read(&out)?);
    }
    let document = Document::new(&spec, &rows, &command(args), &name)?;
    write(&plot, &document.plot)?;
    write(&args.out, &document.text)?;
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

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    write_whole(path, |out| out.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}; choose another --out", path.display())))
}
