//! `swarmdisk profile`.

use super::Failure;
use super::args::{Profile, ProfileCommand};
use super::output::say;
use crate::digest::to_hex;
use crate::profile::build;
use crate::store::Store;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use swarmdisk_common::file::write_whole;
use swarmdisk_common::output::remark;
use swarmdisk_common::trace::Trace;
use swarmdisk_common::units::{Bytes, Micros};
use swarmdisk_core::format::profile::ProfileView;
use swarmdisk_core::geometry::{CHUNK_SHIFT_MIN, Geometry};

/// Longest profile that is read, in bytes: an entry for each of two million chunks.
const PROFILE_BYTES_MAX: u64 = 16 << 20;

pub(super) fn run(args: &Profile) -> Result<ExitCode, Failure> {
    match &args.command {
        ProfileCommand::Build { traces, image, out, json } => make(traces, image, out, *json),
        ProfileCommand::Show { file, json } => show(file, *json),
    }
}

fn make(paths: &[PathBuf], image: &Path, out: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let store = Store::open_complete(image)?;
    let mut traces = Vec::new();
    for path in paths {
        let file =
            File::open(path).map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))?;
        let trace =
            Trace::parse(BufReader::new(file)).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        traces.push((path.display().to_string(), trace));
    }
    let (bytes, merged) = build(&store, &traces)?;
    write_whole(out, |file| file.write_all(&bytes))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}; choose another -o", out.display())))?;
    if as_json {
        let image = to_hex(&store.image());
        say(format_args!(
            "{:#}",
            json!({
                "image": image,
                "chunks": merged.entries.len(),
                "runs": traces.len(),
                "groups": merged.groups,
                "bytes": bytes.len(),
            })
        ))?;
    } else {
        remark(format_args!(
            "{}: {} chunks from {} runs in {} groups, {}",
            out.display(),
            merged.entries.len(),
            traces.len(),
            merged.groups.len(),
            Bytes(bytes.len() as u64)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a profile, bounded.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let fail = |what: String| Failure::new(format!("cannot read the profile {}: {what}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > PROFILE_BYTES_MAX {
        return Err(fail("it is too long to be one".into()));
    }
    std::fs::read(path).map_err(|error| fail(error.to_string()))
}

fn show(path: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let bytes = read(path)?;
    let fail = |what: &str| Failure::new(format!("{}: {what}; build it again", path.display()));
    let image = ProfileView::peek_image(&bytes).ok_or_else(|| fail("this is no profile"))?;
    // Without the image its size is not known: the largest there can be bounds the indices.
    let largest = Geometry::new(1 << (30 + CHUNK_SHIFT_MIN), CHUNK_SHIFT_MIN).map_err(|_| fail("no geometry"))?;
    let view = ProfileView::parse(&bytes, image, largest).map_err(|error| fail(&error.to_string()))?;
    let groups: Vec<u16> = view.groups().collect();
    if as_json {
        let entries: Vec<_> = view
            .entries()
            .map(|entry| {
                let of_groups = &entry.probabilities[..groups.len()];
                json!({ "chunk": entry.chunk.get(), "at_millis": entry.at_millis, "probabilities": of_groups })
            })
            .collect();
        let value = json!({ "image": to_hex(&image), "runs": view.run_count(), "groups": groups, "entries": entries });
        say(format_args!("{value:#}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let chunks: BTreeSet<u32> = view.entries().map(|entry| entry.chunk.get()).collect();
    let last_millis = view.entries().last().map_or(0, |entry| entry.at_millis);
    say(format_args!("image   {}", to_hex(&image)))?;
    say(format_args!("runs    {}", view.run_count()))?;
    for (number, runs) in groups.iter().enumerate() {
        let touched = || view.entries().map(|entry| entry.probabilities[number]).filter(|probability| *probability > 0);
        let (count, sure) = (touched().count(), touched().filter(|probability| *probability == u8::MAX).count());
        say(format_args!("group   {}: {runs} runs, {count} chunks, of which {sure} in every run", number + 1))?;
    }
    say(format_args!("chunks  {}", chunks.len()))?;
    say(format_args!("span    {}", Micros(u64::from(last_millis) * 1000)))?;
    let a_chunk = bytes.len() as u64 / (chunks.len() as u64).max(1);
    say(format_args!("size    {}, {} a chunk", Bytes(bytes.len() as u64), Bytes(a_chunk)))?;
    Ok(ExitCode::SUCCESS)
}
