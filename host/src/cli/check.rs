//! `swarmdisk check`.

use super::args::Check;
use super::output::say;
use super::{Failure, signals};
use crate::check::{CheckReport, check_cache, check_file};
use crate::digest::to_hex;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use swarmdisk_common::output::remark;
use swarmdisk_common::progress::Progress;

pub(super) fn run(args: &Check) -> Result<ExitCode, Failure> {
    let cancel = signals::flag_on_interrupt();
    let progress = Progress::new("checking");
    let tell = |done, total| progress.update(done, total);
    let outcomes = match &args.cache {
        Some(dir) => check_cache(dir, args.repair, cancel, &tell)?,
        None => args.files.iter().map(|file| check_file(file, cancel, &tell)).collect(),
    };
    drop(progress);
    if cancel.load(Relaxed) {
        return Err(Failure::new("cancelled; not everything was looked at"));
    }
    if outcomes.is_empty() {
        remark("swarmdisk: there is no cache in that directory");
    }
    let mut is_good = true;
    let mut values = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(report) => {
                is_good &= report.is_good() || report.is_repaired;
                match args.json {
                    true => values.push(value(&report)),
                    false => say(&report)?,
                }
            }
            Err(error) => {
                is_good = false;
                match args.json {
                    true => values.push(json!({ "error": error.to_string() })),
                    false => remark(format_args!("swarmdisk: {error}")),
                }
            }
        }
    }
    if args.json {
        say(format_args!("{:#}", Value::from(values)))?;
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn value(report: &CheckReport) -> Value {
    json!({
        "file": report.path.display().to_string(),
        "image": to_hex(&report.image),
        "good_pieces": report.good_count,
        "bad_pieces": report.bad_count,
        "missing_pieces": report.missing_count,
        "is_repaired": report.is_repaired,
        "faults": report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
