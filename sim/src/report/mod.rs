//! What a run shows: progress while it runs, a table on a terminal, a page with plots.
//!
//! *Invariants*: made of an [`Outcome`] alone, so that a report can be made again from `result.json`; wall time stands in no
//! report, since it differs from run to run. *Units*: bytes and rates decimal, as links are; times in seconds. *Bounds*: a
//! page has a few hundred points a plot, however many nodes there were.
//!
//! | module | holds |
//! |---|---|
//! | `progress` | what stderr shows meanwhile |
//! | `table` | the rows, for a terminal and for the page |
//! | `plots` | the plots |
//! | `growth` | a plot in a file of its own: how something grows with the number of nodes |
//! | `svg` | drawing surfaces, axes, bars |
//! | `page` | the page |

mod growth;
mod page;
mod plots;
mod progress;
mod svg;
mod table;
#[cfg(test)]
mod tests;

pub use growth::{Curve, growth};
pub use page::page;
pub use progress::Progress;
pub use table::table;

use crate::outcome::{NodeOutcome, Outcome};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use swarmdisk_common::file::{without_path, write_whole};

/// A guest that has waited for so long, while nothing came for any node, waits for ever.
const STUCK_MICROS: u64 = 10_000_000;

/// A report could not be written; what the folder held before is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}; choose another --out", path.display())]
pub struct ReportError {
    path: PathBuf,
    source: io::Error,
}

/// Makes the folder of a report and says early that nothing can be written there.
///
/// # Errors
/// [`ReportError`] if it cannot be made, is a file, or takes no files.
pub fn check_folder(folder: &Path) -> Result<(), ReportError> {
    let made =
        fs::create_dir_all(folder).and_then(|()| tempfile::Builder::new().prefix(".swarmdisk-").tempfile_in(folder));
    made.map(drop).map_err(|source| ReportError { path: folder.to_owned(), source: without_path(source) })
}

/// Writes `result.json` and `report.html` into a folder that is there.
///
/// # Errors
/// [`ReportError`].
pub fn write(outcome: &Outcome, folder: &Path) -> Result<(), ReportError> {
    let written = |name: &str, fill: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
        let path = folder.join(name);
        write_whole(&path, fill).map_err(|source| ReportError { path, source })
    };
    written("result.json", &|out| {
        serde_json::to_writer_pretty(&mut *out, outcome)?;
        out.write_all(b"\n")
    })?;
    written("report.html", &|out| out.write_all(page(outcome)?.as_bytes()))
}

/// What is to be said of a run that did not come to its end, and what to do: one line.
pub fn shortfall(outcome: &Outcome) -> Option<String> {
    let (booted, all) = (outcome.booted_count as usize, outcome.nodes.len());
    let after = seconds(outcome.virtual_micros);
    let so_far = format!("{booted} of {all} nodes had booted after {after} of virtual time");
    if outcome.cut_off {
        return Some(format!("cut off: {so_far}; this is what came until then, run it again for the rest"));
    }
    if booted == all {
        return None;
    }
    let gone = outcome.gone_count as usize;
    if booted + gone == all {
        return Some(format!(
            "not all booted: {so_far}, {} had gone for good; give faults that end a node a `for`, after which it is back",
            counted(gone, "node")
        ));
    }
    let quiet = outcome.virtual_micros.saturating_sub(last_traffic_micros(outcome));
    if quiet >= STUCK_MICROS && stuck_count(outcome) > 0 {
        return Some(format!(
            "stuck: {so_far} and nothing had come for the last {}; a longer limit does not help, look at the scenario's \
             faults and at who can reach a seed",
            seconds(quiet)
        ));
    }
    let limit = outcome.scenario.limit.0 / 1_000;
    Some(format!(
        "not all booted: {booted} of {all} nodes had booted after {} of virtual time, the scenario's limit; give it more, \
         as in --set limit={}s",
        seconds(limit),
        (limit / 1_000_000 * 4).max(60)
    ))
}

/// End of the last step in which a body arrived.
fn last_traffic_micros(outcome: &Outcome) -> u64 {
    let traffic = &outcome.traffic;
    let came = |step: &usize| traffic.origin_bytes[*step] + traffic.peer_bytes[*step] > 0;
    let steps = (0..traffic.origin_bytes.len()).rev().find(came).map_or(0, |step| step as u64 + 1);
    steps * traffic.step_micros
}

/// Nodes that were waiting for long at the end: their guests' own work would have been done.
fn stuck_count(outcome: &Outcome) -> usize {
    let waits = |node: &&NodeOutcome| {
        let done = node.start_micros + node.ready_micros + node.local_micros + node.stall_micros;
        node.run_micros.is_none() && done + STUCK_MICROS <= outcome.virtual_micros
    };
    outcome.nodes.iter().filter(waits).count()
}

/// Micros as seconds with as many decimals as one reads.
fn seconds(micros: u64) -> String {
    match micros as f64 / 1e6 {
        s if s < 0.1 => format!("{s:.3} s"),
        s if s < 100.0 => format!("{s:.2} s"),
        s => format!("{s:.0} s"),
    }
}

/// Decimal, as links are.
fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e3 => format!("{b} B"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b if b < 1e12 => format!("{:.2} GB", b / 1e9),
        b => format!("{:.2} TB", b / 1e12),
    }
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 node`, `2 nodes`.
fn counted(number: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(number as u64), if number == 1 { "" } else { "s" })
}
