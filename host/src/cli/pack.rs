//! `swarmdisk pack`.

use super::args::{CodecName, Pack};
use super::output::say;
use super::{Failure, signals};
use crate::digest::to_hex;
use crate::pack::{PackOptions, PackReport, pack};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use swarmdisk_common::output::remark;
use swarmdisk_common::progress::Progress;
use swarmdisk_common::units::Bytes;
use swarmdisk_core::format::manifest::Codec;

pub(super) fn run(args: &Pack) -> Result<ExitCode, Failure> {
    let mut options = PackOptions::new(&args.image, &args.out, signals::flag_on_interrupt());
    options.chunk_shift = args.chunk_size;
    options.level = args.level;
    options.codec = match args.codec {
        CodecName::Zstd => Codec::Zstd,
        CodecName::None => Codec::None,
    };
    let progress = Progress::new("packing");
    let report = pack(&options, &|done, total| progress.update(done, total))?;
    drop(progress);
    tell(&report, &args.out, args.chunk_size, args.json)
}

/// Says what became of it.
pub(super) fn tell(report: &PackReport, out: &Path, chunk_shift: u8, json: bool) -> Result<ExitCode, Failure> {
    if json {
        let value = json!({
            "image": to_hex(&report.image),
            "file": out.display().to_string(),
            "image_bytes": report.image_bytes,
            "chunk_bytes": 1u32 << chunk_shift,
            "chunk_count": report.chunk_count,
            "zero_chunk_count": report.zero_chunk_count,
            "payload_bytes": report.payload_bytes,
            "file_bytes": report.file_bytes,
            "run_micros": report.time.as_micros() as u64,
        });
        say(format_args!("{value:#}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(to_hex(&report.image))?;
    remark(format_args!(
        "{}: {} of image in {} of file, {} chunks ({} all zeros), {:.1} s",
        out.display(),
        Bytes(report.image_bytes),
        Bytes(report.file_bytes),
        report.chunk_count,
        report.zero_chunk_count,
        report.time.as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}
