//! `swarmdisk-sim replay`.

use super::args::Replay;
use super::{Failure, say};
use serde::Serialize;
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use swarmdisk_common::recording::{self, Replayed};
use swarmdisk_common::units::Micros;

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    records: u64,
    events: u64,
    admissions: u64,
    frames: u64,
    actions: u64,
    span_micros: u64,
    torn_bytes: u64,
}

pub(super) fn run(args: &Replay) -> Result<ExitCode, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", args.file.display()));
    let file = File::open(&args.file)
        .map_err(|error| named(&format_args!("{error}; name a file that `swarmdisk attach --record-engine` wrote")))?;
    let Replayed { records, events, admissions, frames, actions, span_micros, torn_bytes, .. } =
        recording::replay(BufReader::new(file)).map_err(|error| named(&error))?;
    if args.json {
        let summary = Summary { records, events, admissions, frames, actions, span_micros, torn_bytes };
        say(serde_json::to_string_pretty(&summary)?)?;
    } else {
        say(format_args!(
            "{records} records over {}: {events} events, {frames} frames, {admissions} links let in; all {actions} actions are the same again",
            Micros(span_micros)
        ))?;
        if torn_bytes > 0 {
            say(format_args!("the last {torn_bytes} bytes are no whole record: the recording was cut off there"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
