//! `swarmdisk profile`.

use super::Failure;
use super::args::{Profile, ProfileCommand};
use super::output::say;
use crate::digest::to_hex;
use crate::profile::build;
use crate::store::Store;
use serde_json::json;
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
    let (bytes, entry_count) = build(&store, &traces)?;
    write_whole(out, |file| file.write_all(&bytes))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}; choose another -o", out.display())))?;
    if as_json {
        let image = to_hex(&store.image());
        say(format_args!(
            "{:#}",
            json!({ "image": image, "chunks": entry_count, "runs": traces.len(), "bytes": bytes.len() })
        ))?;
    } else {
        remark(format_args!(
            "{}: {entry_count} chunks from {} runs, {}",
            out.display(),
            traces.len(),
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
    if as_json {
        let entries: Vec<_> = view
            .entries()
            .map(|entry| {
                json!({ "chunk": entry.chunk.get(), "at_millis": entry.at_millis, "probability": entry.probability })
            })
            .collect();
        let value = json!({ "image": to_hex(&image), "runs": view.run_count(), "entries": entries });
        say(format_args!("{value:#}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut count, mut sure, mut last_millis) = (0u32, 0u32, 0);
    for entry in view.entries() {
        count += 1;
        sure += u32::from(entry.probability == u8::MAX);
        last_millis = entry.at_millis;
    }
    say(format_args!("image   {}", to_hex(&image)))?;
    say(format_args!("runs    {}", view.run_count()))?;
    say(format_args!("chunks  {count}, of which {sure} are touched in every run"))?;
    say(format_args!("span    {}", Micros(u64::from(last_millis) * 1000)))?;
    say(format_args!("size    {}", Bytes(bytes.len() as u64)))?;
    Ok(ExitCode::SUCCESS)
}
