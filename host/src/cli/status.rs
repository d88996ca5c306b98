//! `swarmdisk status`.

use super::Failure;
use super::args::Status as StatusArgs;
use super::output::say;
use crate::status::{Status, find_all};
use comfy_table::{Table, presets::NOTHING};
use std::process::ExitCode;
use swarmdisk_common::units::{Bytes, BytesPerSecond, Micros};

pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, Failure> {
    let found = find_all().await;
    if args.json {
        say(serde_json::to_string_pretty(&found)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        say("no swarmdisk of this user runs on this machine")?;
    }
    for status in &found {
        show(status)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(status: &Status) -> Result<(), Failure> {
    say(format_args!("{} {} (process {}), up {}", status.role, status.place, status.pid, Micros(status.run_micros)))?;
    for image in &status.images {
        let percent = u64::from(image.held_pieces) * 100 / u64::from(image.pieces.max(1));
        // A complete cache needs no network.
        let held = if image.held_pieces == image.pieces { "complete".into() } else { format!("{percent} % held") };
        say(format_args!(
            "  image {} {}: {held}, sent {}, received {} from the origin and {} from peers",
            &image.image[..16],
            Bytes(image.image_bytes),
            Bytes(image.uploaded_bytes),
            Bytes(image.fetched_bytes.origin),
            Bytes(image.fetched_bytes.peers)
        ))?;
        if let Some(cache) = &image.cache {
            say(format_args!(
                "    cache: {} of {} held ({} for the directory), {} chunks evicted",
                Bytes(cache.held_bytes),
                Bytes(cache.limit_bytes),
                Bytes(cache.bound_bytes),
                cache.evictions
            ))?;
        }
        if image.store_fails {
            say("    what comes is not kept at present: the disk is full, or fails")?;
        }
        if image.peers.is_empty() {
            continue;
        }
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["    peer", "role", "round trip", "sends us", "holds", "we await", "it awaits"]);
        for peer in &image.peers {
            let rate =
                if peer.bytes_per_sec == 0 { "-".into() } else { BytesPerSecond(peer.bytes_per_sec).to_string() };
            table.add_row([
                format!("    {}", peer.address),
                peer.role.clone(),
                Micros(peer.rtt_micros).to_string(),
                rate,
                format!("{} %", u64::from(peer.pieces) * 100 / u64::from(image.pieces.max(1))),
                peer.in_flight.to_string(),
                peer.uploads.to_string(),
            ]);
        }
        say(table)?;
    }
    if let Some(report) = &status.report {
        for line in report.to_string().lines() {
            say(format_args!("  {line}"))?;
        }
    }
    Ok(())
}
