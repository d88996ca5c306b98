//! What the commands share that write a document of many sweeps.

use super::sweep::Show;
use super::{Failure, interrupt};
use crate::policies::{Part, Rows};
use crate::report;
use crate::sweep::{self, Options, Shard, SweepError};
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::thread::available_parallelism;
use swarmdisk_common::file::write_whole;

/// Whether the document can be written there, before the runs, which take minutes.
pub(super) fn check_out(out: &Path) -> Result<(), Failure> {
    if out.is_dir() {
        return Err(Failure::new(format!("{} is a folder; name a file in it", out.display())));
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(report::check_folder(folder.unwrap_or(Path::new(".")))?)
}

/// Runs all parts, so many points at a time, by default one a core.
pub(super) fn run(parts: &[Part], threads: Option<u16>) -> Result<BTreeMap<&'static str, Rows>, Failure> {
    let threads = threads.map_or_else(|| available_parallelism().map_or(1, NonZero::get), usize::from);
    let interrupt = interrupt::flag()?;
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
    Ok(rows)
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    write_whole(path, |out| out.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}; choose another --out", path.display())))
}
