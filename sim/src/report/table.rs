//! The figures of a run, in two tables: times by percentile, and bytes. The page has the same rows.

use super::{bytes, counted, grouped, seconds, share};
use crate::outcome::{LinkOutcome, Outcome, Ratios, Spread};
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};

/// Links that are shown one by one: those used most.
const LINKS_SHOWN: usize = 6;

/// Header and rows; the first column names what the others hold.
pub(super) struct Rows {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// The tables for a terminal.
pub fn table(outcome: &Outcome) -> String {
    let tables = [times(outcome), traffic(outcome)].map(|rows| rows.text().to_string());
    format!("{}\n{}\n{}", tables[0], tables[1], identity(outcome))
}

/// What tells this run from others.
pub(super) fn identity(outcome: &Outcome) -> String {
    format!(
        "{}: seed {}, digest {}, {} of virtual time, {} events",
        outcome.name,
        outcome.seed,
        outcome.digest,
        seconds(outcome.virtual_micros),
        grouped(outcome.event_count)
    )
}

/// When guests had booted, and how long they waited.
pub(super) fn times(outcome: &Outcome) -> Rows {
    let totals = &outcome.totals;
    let cut = if outcome.cut_off { ", cut off" } else { "" };
    let booted = format!("{} of {} booted{cut}", outcome.booted_count, counted(outcome.nodes.len(), "node"));
    // Nobody booted: a time of 0 would say the contrary.
    let known = outcome.booted_count > 0;
    let times = |what: &str, known: bool, spread: Spread| {
        let shown = [spread.p50, spread.p95, spread.max].map(|micros| if known { seconds(micros) } else { "-".into() });
        [vec![what.to_owned()], shown.to_vec()].concat()
    };
    let ratios = |what: &str, ratios: Ratios| {
        let shown = [ratios.p50, ratios.p95, ratios.max].map(|r| if known { format!("{r:.2} x") } else { "-".into() });
        [vec![what.to_owned()], shown.to_vec()].concat()
    };
    Rows {
        header: [&booted, "median", "95th percentile", "slowest"].map(str::to_owned).to_vec(),
        rows: vec![
            times("boot time", known, totals.run_micros),
            ratios("against a local disk", totals.run_over_local),
            ratios("against the lower bound", totals.run_over_bound),
            times("waited for the network", true, totals.stall_micros),
        ],
    }
}

/// What was carried, from where.
pub(super) fn traffic(outcome: &Outcome) -> Rows {
    let totals = &outcome.totals;
    let bodies = totals.origin_bytes + totals.peer_bytes;
    let racks: u32 = outcome.scenario.groups.iter().map(|group| group.racks).sum();
    let row = |what: &str, amount: String, remark: String| vec![what.to_owned(), amount, remark];
    let mut rows = vec![
        row(
            "from seeds",
            bytes(totals.origin_bytes),
            format!("{:.3} x the working set of {}", totals.origin_amplification, bytes(outcome.working_set_bytes)),
        ),
        row(
            "from nodes",
            bytes(totals.peer_bytes),
            format!("{:.1} % of all bodies", 100.0 * share(totals.peer_bytes, bodies)),
        ),
        row(
            "of both from other racks",
            bytes(totals.far_bytes),
            match racks {
                0 | 1 => "1 rack".to_owned(),
                _ => format!(
                    "{:.3} working sets a rack, of {}; {:.3} the worst",
                    totals.cross_rack_working_sets_per_rack,
                    counted(racks as usize, "rack"),
                    totals.cross_rack_working_sets_worst_rack
                ),
            },
        ),
        row(
            "metadata",
            bytes(totals.metadata_bytes),
            format!("{:.1} % of all bytes", 100.0 * share(totals.metadata_bytes, bodies + totals.metadata_bytes)),
        ),
        row(
            "most that a node uploaded",
            bytes(outcome.nodes.iter().map(|node| node.uploaded_bytes).max().unwrap_or_default()),
            match totals.upload_max_over_mean > 0.0 {
                true => format!("{:.2} x the mean", totals.upload_max_over_mean),
                false => "nobody uploaded".to_owned(),
            },
        ),
    ];
    let links = by_use(outcome);
    for link in links.iter().take(LINKS_SHOWN) {
        let used = format!("{:.1} % of {}", 100.0 * link.use_share, bits(link.rate));
        rows.push(row(&link.name, bytes(link.carried_bytes), used));
    }
    if links.len() > LINKS_SHOWN {
        let rest = &links[LINKS_SHOWN..];
        let carried = rest.iter().map(|link| link.carried_bytes).sum();
        let most = rest.first().map_or(0.0, |link| link.use_share);
        rows.push(row(
            &counted(rest.len(), "more link"),
            bytes(carried),
            format!("at most {:.1} % each", 100.0 * most),
        ));
    }
    Rows { header: ["bytes", "amount", "that is"].map(str::to_owned).to_vec(), rows }
}

/// Seeds' and shared links, those used most first.
pub(super) fn by_use(outcome: &Outcome) -> Vec<&LinkOutcome> {
    let mut links: Vec<&LinkOutcome> = outcome.links.iter().collect();
    links.sort_by(|a, b| b.use_share.total_cmp(&a.use_share));
    links
}

/// As people buy links.
fn bits(bytes_per_sec: u64) -> String {
    match bytes_per_sec as f64 * 8e-6 {
        mbit if mbit >= 1000.0 => format!("{:.2} Gbit/s", mbit / 1000.0),
        mbit => format!("{mbit:.1} Mbit/s"),
    }
}

impl Rows {
    fn text(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(&self.header);
        for row in &self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}
