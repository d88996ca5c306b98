//! `swarmdisk overlay`.

use super::args::{Overlay, OverlayCommand};
use super::output::say;
use super::{Failure, pack, signals};
use crate::digest::to_hex;
use crate::overlay::{CommitOptions, OverlaySummary, commit};
use crate::store::Store;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use swarmdisk_common::progress::Progress;
use swarmdisk_common::units::Bytes;

pub(super) fn run(args: &Overlay) -> Result<ExitCode, Failure> {
    match &args.command {
        OverlayCommand::Info { file, json } => info(file, *json),
        OverlayCommand::Commit { out, overlay, image, level, json } => {
            let cancel = signals::flag_on_interrupt();
            let progress = Progress::new("packing");
            let options = CommitOptions { image, overlay, out, level: *level, cancel };
            let report = commit(&options, &|done, total| progress.update(done, total))?;
            drop(progress);
            pack::tell(&report, out, Store::open_complete(out)?.geometry().chunk_shift(), *json)
        }
    }
}

fn info(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let OverlaySummary { image, image_bytes, data_bytes, zero_bytes, space_bytes } = OverlaySummary::read(file)?;
    if json {
        let value = json!({
            "image": to_hex(&image),
            "image_bytes": image_bytes,
            "data_bytes": data_bytes,
            "zero_bytes": zero_bytes,
            "space_bytes": space_bytes,
        });
        say(format_args!("{value:#}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("image        {}, {}", to_hex(&image), Bytes(image_bytes)))?;
    say(format_args!("written      {}", Bytes(data_bytes)))?;
    say(format_args!("zeroed       {}", Bytes(zero_bytes)))?;
    say(format_args!("takes        {} of disk", Bytes(space_bytes)))?;
    Ok(ExitCode::SUCCESS)
}
