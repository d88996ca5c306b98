//! `swarmdisk replay`.

use super::args::Replay;
use super::output::say;
use super::{Failure, signals};
use crate::replay::{ReplayOptions, replay_target};
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use swarmdisk_common::file::{check_writable, write_json};
use swarmdisk_common::trace::Trace;

pub(super) async fn run(args: Replay) -> Result<ExitCode, Failure> {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(Failure::usage(format!("a speed of {} is none; pass a positive number", args.speed)));
    }
    args.report.as_deref().map(check_writable).transpose()?;
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", args.trace.display()));
    let file = File::open(&args.trace).map_err(|error| fail(&error))?;
    let trace = Trace::parse(BufReader::new(file)).map_err(|error| fail(&error))?;
    let options = ReplayOptions { speed: args.speed, writes: args.writes, verify: args.verify.clone() };
    let report = tokio::select! {
        report = replay_target(&trace, &args.disk, &options) => report?,
        _ = signals::asked_to_end() => return Err(Failure::new("interrupted; nothing was measured")),
    };
    if args.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        say(report.to_string())?;
    }
    if let Some(path) = &args.report {
        write_json(&report, path)?;
    }
    if report.mismatches > 0 {
        return Err(Failure::new(format!(
            "{} reads were not what the image says; do not use that disk",
            report.mismatches
        )));
    }
    Ok(ExitCode::SUCCESS)
}
