//! The document: tables, and what they say.

use super::parts::{
    DEFAULTS, GAPS, HALF, MISSING, ONE_SERVER, ORDERS, OTHERS, OURS, REDIRECTS, UNCHOKED, UNCHOKED_NODES, VMTORRENT,
    VMTORRENT_CHUNKS, WINDOW,
};
use super::{Row, Rows, Spec};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How a table names an order, and what it is.
const NAMES: [(&str, &str, &str); 4] = [
    ("windowed-random", "random in a window", "a random one of the window's chunks (VMTorrent)"),
    ("rarest", "rarest first in a window", "of the window's chunks the one that fewest linked nodes hold (BitTorrent)"),
    ("in-order", "in order", "the chunk that is wanted soonest"),
    (
        "owners",
        "owners in a window",
        "each chunk has an owner by rendezvous hashing, who alone fetches it from the seed, the soonest first; from nodes the \
         soonest and the rarest in turn",
    ),
];
/// The others.
const HALF_NAME: (&str, &str) = ("random or soonest", "random in a window, every second pick takes the soonest");
const DEFAULTS_NAME: (&str, &str) =
    ("hosts' defaults", "owners, the window as long as what is due soon; what hosts run");

/// What was aimed at for hosts' defaults with a profile that misses a share.
const GAP_TARGETS: [(&str, f64); 2] = [("0.02", 1.10), ("0.1", 1.35)];
/// What was aimed at in time waited against VMTorrent's own policy.
const STALL_TARGET: f64 = 2.0;

/// Ratios that differ by less say nothing.
const ALIKE: f64 = 0.02;

/// A way to protect the seed.
const PROTECTIONS: [(&str, &str); 3] = [
    ("redirects", "the seed sends a chunk about once, then names those who have it or have asked for it"),
    ("4 + 1 unchoked", "the seed serves four nodes and one more at a time, as BitTorrent's does, and redirects nobody"),
    ("none", "the seed sends whatever it is asked for"),
];

/// What came of the parts.
type Parts = BTreeMap<&'static str, Rows>;

/// A policy's row in the tables.
struct Line<'a> {
    order: &'a str,
    protection: &'static str,
    row: &'a Row,
}

/// The document.
pub(super) fn text(spec: &Spec, parts: &Parts, command: &str, plot: &str) -> String {
    let mut out = String::from("# Policies compared\n\n");
    out += &head(spec, command);
    out += &policies();
    for nodes in &spec.nodes.0 {
        let lines = lines(parts, *nodes);
        // Writing to a string does not fail.
        let _ = write!(out, "\n### {}\n\n{}", counted(*nodes), table(&lines));
        out += &said(&lines);
    }
    out += &grid(spec, parts, plot);
    out += &gaps(spec, parts);
    out
}

fn head(spec: &Spec, command: &str) -> String {
    let seeds: Vec<String> = spec.seeds.0.iter().map(u64::to_string).collect();
    format!(
        "Made by `{command}`; do not edit. Simulated with the engines that hosts run: the same command gives the same document.\n\n\
         The setting is that of `vmtorrent.toml` in sim/scenarios: a recorded boot of a server, think times a tenth, with the profile of \
         another boot of it; one seed; 100 Mbit/s for everybody, no delay; all nodes start within 50 ms unless said. Each point \
         is drawn from the seeds {}; shown is the draw whose median is the middle one.\n\n\
         *Median*, *95 %* and *slowest* are the nodes' boot times against the same guest on a local disk, *waited* the median of \
         the time that guests waited for the network, *from the origin* what the seed sent in working sets (1.0 is the \
         least), *wasted* the share of all bodies received that were duplicates or guesses that no guest read. Waste counts \
         until the slowest guest has booted.\n",
        seeds.join(", ")
    )
}

fn policies() -> String {
    let mut out = format!(
        "\n## Orders and protections of the seed\n\nWindows have {WINDOW} entries of the profile; 64 KiB chunks, compressed; \
         32 prefetches in flight, 4 of these at the seed.\n\n| order | which chunk is fetched next |\n|---|---|\n"
    );
    let all = NAMES.iter().map(|(_, name, what)| (*name, *what)).chain([HALF_NAME, DEFAULTS_NAME]);
    all.for_each(|(name, what)| out += &format!("| {name} | {what} |\n"));
    out += "\n| protection | what it is |\n|---|---|\n";
    PROTECTIONS.iter().for_each(|(name, what)| out += &format!("| {name} | {what} |\n"));
    out += "\nWhat the engine does besides is the same in all: demand first at both ends, a second node asked for what a guest \
            has waited for, few requests a node, and a seed is not asked for what a linked node holds.\n";
    out
}

fn counted(nodes: u32) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

/// The policies at a number of nodes, the fastest first.
fn lines(parts: &Parts, nodes: u32) -> Vec<Line<'_>> {
    let nodes = nodes.to_string();
    let find = |part: &str, point: &[(&str, &str)]| {
        parts.get(part).and_then(|rows| rows.middle(&[&[("group.0.count", nodes.as_str())], point].concat()))
    };
    let [(redirects, _), (unchoked, _), (none, _)] = PROTECTIONS;
    let mut all: Vec<(&str, &'static str, Option<&Row>)> = vec![(DEFAULTS_NAME.0, redirects, find(DEFAULTS, &[]))];
    for order in ORDERS.split(',') {
        let name = NAMES.iter().find(|(key, ..)| *key == order).map_or(order, |(_, name, _)| *name);
        let at = |switch| [("policy.order", order), ("policy.redirect", switch)];
        all.push((name, redirects, find(REDIRECTS, &at("on"))));
        all.push((name, none, find(REDIRECTS, &at("off"))));
        all.push((name, unchoked, find(UNCHOKED, &at("off")[..1])));
    }
    all.push((HALF_NAME.0, redirects, find(HALF, &[("policy.redirect", "on")])));
    all.push((HALF_NAME.0, none, find(HALF, &[("policy.redirect", "off")])));
    let line = |(order, protection, row): (_, _, Option<_>)| row.map(|row| Line { order, protection, row });
    let mut lines: Vec<Line<'_>> = all.into_iter().filter_map(line).collect();
    lines.sort_by(|a, b| time(a.row).total_cmp(&time(b.row)));
    lines
}

/// The median against a local disk; endless if not all booted.
fn time(row: &Row) -> f64 {
    if row.is_whole() { row.number("run_over_local_p50").unwrap_or(f64::INFINITY) } else { f64::INFINITY }
}

fn table(lines: &[Line<'_>]) -> String {
    let mut out = String::from(
        "| order | protection | median | 95 % | slowest | waited | from the origin | wasted |\n|---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for Line { order, protection, row } in lines {
        let _ = writeln!(out, "| {order} | {protection} | {} |", cells(row).join(" | "));
    }
    out
}

/// What both tables say of a run, in the order of their columns.
fn cells(row: &Row) -> [String; 6] {
    [
        median(row),
        ratio(row, "run_over_local_p95"),
        ratio(row, "run_over_local_max"),
        seconds(row.number("stall_micros_p50")),
        ratio(row, "origin_amplification"),
        row.wasted().map_or("-".into(), |wasted| format!("{:.1} %", wasted * 100.0)),
    ]
}

fn median(row: &Row) -> String {
    match row.is_whole() {
        true => ratio(row, "run_over_local_p50"),
        false => format!("{} of {} booted", row.text("booted"), row.text("nodes")),
    }
}

fn ratio(row: &Row, column: &str) -> String {
    row.number(column)
        .map_or("-".into(), |value| if value < 2.0 { format!("{value:.3}") } else { format!("{value:.2}") })
}

fn seconds(micros: Option<f64>) -> String {
    micros.map_or("-".into(), |micros| {
        let seconds = micros / 1e6;
        if seconds < 0.1 { format!("{seconds:.3} s") } else { format!("{seconds:.2} s") }
    })
}

/// What a table shows.
fn said(lines: &[Line<'_>]) -> String {
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return String::new() };
    let name = |line: &Line<'_>| format!("{}, {}", line.order, line.protection);
    let mut out = format!("\nFastest: {} ({} times the local time)", name(first), median(first.row));
    let alike = lines.iter().skip(1).filter(|line| time(line.row) - time(first.row) < ALIKE).count();
    if alike > 0 {
        let _ = write!(out, "; {alike} more within {ALIKE} of it");
    }
    let _ = write!(out, ". Slowest: {} ({}).", name(last), median(last.row));
    if let Some(ours) = lines.iter().find(|line| line.order == DEFAULTS_NAME.0) {
        let faster = lines.iter().filter(|line| time(line.row) <= time(ours.row) - ALIKE).count();
        let _ = match faster {
            0 => write!(out, " No policy here is faster than what hosts run by {ALIKE} or more."),
            _ => write!(out, " Faster than what hosts run ({}) by {ALIKE} or more: {faster}.", median(ours.row)),
        };
    }
    let of =
        |order: &str, protection: &str| lines.iter().find(|line| line.order == order && line.protection == protection);
    let effects = NAMES.iter().filter_map(|(_, order, _)| {
        let (with, without) = (of(order, PROTECTIONS[0].0)?, of(order, PROTECTIONS[2].0)?);
        Some(format!("{order} {} → {}", median(without.row), median(with.row)))
    });
    let _ = writeln!(out, " Without and with redirects: {}.", effects.collect::<Vec<_>>().join(", "));
    out
}

/// Hosts' defaults against VMTorrent's own policy.
fn grid(spec: &Spec, parts: &Parts, plot: &str) -> String {
    let mut out = format!(
        "\n## VMTorrent's own policy\n\n![Time of a boot against a local disk, by the number of nodes that start at once]({plot})\n\n\
         `vmtorrent-own.toml` in sim/scenarios: pieces of 16 KiB that are not compressed, picked at random from a window of \
         D = {WINDOW}, K = 160 in flight, nobody learns from others, a seed that serves {UNCHOKED_NODES} nodes at a time for 10 s \
         each and one more for 30 s (`sim/src/world/choker.rs` says how) and redirects nobody. It is VMTorrent's policy on our \
         engine, which keeps what helps it: demand first at whoever uploads, no request to the seed for what a linked node \
         holds, and as few of the 160 asked of the seed as served it best. It is not the program of 2012. *Our chunks*: the \
         same with 64 KiB chunks, compressed, as ours. *One server*: our engine, nodes that know the seed alone. Boot times are \
         medians in seconds; *ratio* is VMTorrent's policy divided by ours.\n\n\
         | nodes | start | ours | VMTorrent's | ratio | ours waited | VMTorrent's waited | ratio | our chunks | waited | one server |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    let mut count = Count::default();
    for (kind, start) in [("at-once", "at once"), ("staggered", "1 s apart")] {
        for nodes in &spec.grid.0 {
            let nodes = nodes.to_string();
            let find = |part| parts.get(part)?.middle(&[("group.0.count", &nodes), ("arrivals.kind", kind)]);
            if let (Some(ours), Some(theirs)) = (find(OURS), find(VMTORRENT)) {
                let cells = count.add(ours, theirs, find(VMTORRENT_CHUNKS), find(ONE_SERVER));
                let _ = writeln!(out, "| {nodes} | {start} | {} |", cells.join(" | "));
            }
        }
    }
    let Count { points, faster, waits_half, slower_chunks, waits_twice_chunks } = count;
    let _ = writeln!(
        out,
        "\nOurs is faster at {faster} of {points} points (aimed at: all), and its guests wait at most half as long at \
         {waits_half} (aimed at: all). Part of that is compression: the working set is about half as long on the wire, and what \
         is not compressed cannot come over a link of 100 Mbit/s as fast as this guest reads it, whatever the policy. With our \
         chunks VMTorrent's policy is slower than ours at {slower_chunks} of {points} points, and its guests wait at least \
         twice as long at {waits_twice_chunks}."
    );
    out
}

/// Points at which something holds.
#[derive(Debug, Default)]
struct Count {
    points: u32,
    faster: u32,
    waits_half: u32,
    slower_chunks: u32,
    waits_twice_chunks: u32,
}

impl Count {
    /// Counts a point; gives its cells.
    fn add(&mut self, ours: &Row, theirs: &Row, chunks: Option<&Row>, one_server: Option<&Row>) -> [String; 9] {
        const RUN: &str = "run_micros_p50";
        const STALL: &str = "stall_micros_p50";
        let of = |row: &Row, column| if row.is_whole() { row.number(column) } else { None };
        let over = |row, column| Some(of(row, column)? / of(ours, column)?.max(1.0));
        let is_faster = |ratio: Option<f64>| u32::from(ratio.is_some_and(|ratio| ratio > 1.0));
        let waits_half = |ratio: Option<f64>| u32::from(ratio.is_some_and(|ratio| ratio >= STALL_TARGET));
        let (run, stall) = (over(theirs, RUN), over(theirs, STALL));
        self.points += 1;
        self.faster += is_faster(run);
        self.waits_half += waits_half(stall);
        self.slower_chunks += is_faster(chunks.and_then(|row| over(row, RUN)));
        self.waits_twice_chunks += waits_half(chunks.and_then(|row| over(row, STALL)));
        let time = |row: Option<&Row>, column| row.map_or(String::new(), |row| seconds(of(row, column)));
        let shown = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let (ours, theirs) = (Some(ours), Some(theirs));
        [
            time(ours, RUN),
            time(theirs, RUN),
            shown(run),
            time(ours, STALL),
            time(theirs, STALL),
            shown(stall),
            time(chunks, RUN),
            time(chunks, STALL),
            time(one_server, RUN),
        ]
    }
}

/// Profiles that are not whole, or wrong.
fn gaps(spec: &Spec, parts: &Parts) -> String {
    let mut out = String::from(
        "\n## Profiles with gaps, and wrong ones\n\nHosts' defaults; of the profile's chunks a share is left out, drawn from the \
         seed.\n\n| nodes | profile | median | 95 % | slowest | waited | from the origin | wasted | aimed at |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|---|\n",
    );
    let mut row = |nodes: u32, profile: &str, row: Option<&Row>, target: Option<f64>| {
        let Some(row) = row else { return };
        let missed = if target.is_some_and(|target| time(row) > target) { ": missed" } else { "" };
        let target = target.map_or(String::new(), |target| format!("{target:.2}{missed}"));
        let _ = writeln!(out, "| {nodes} | {profile} | {} | {target} |", cells(row).join(" | "));
    };
    for nodes in &spec.nodes.0 {
        let count = nodes.to_string();
        let at = ("group.0.count", count.as_str());
        let find = |part: &str, point: &[(&str, &str)]| parts.get(part).and_then(|rows| rows.middle(point));
        row(*nodes, "whole", find(DEFAULTS, &[at]), None);
        for missing in MISSING.split(',') {
            let target = GAP_TARGETS.iter().find(|(share, _)| *share == missing).map(|(_, target)| *target);
            let percent = missing.parse::<f64>().unwrap_or_default() * 100.0;
            let found = find(GAPS, &[at, ("profile.missing", missing)]);
            row(*nodes, &format!("{percent:.0} % missing"), found, target);
        }
        for (part, name) in OTHERS.into_iter().zip([
            "another image's boot: its own",
            "another image's boot: the server's",
            "another image's boot: none",
        ]) {
            row(*nodes, name, find(part, &[at]), None);
        }
    }
    out += "\n*Another image's boot* is a made-up one: 1,500 chunks in short runs all over the image, which no other boot has read \
            in that order. With *the server's* profile nodes hold one that says nothing of their guests: it should do no \
            worse than none.\n";
    out
}
