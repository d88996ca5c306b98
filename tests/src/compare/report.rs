//! A comparison as text: the table, how all was started, what is missing, the targets.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};

use super::outcome::{Comparison, Row, State, Target, kibibytes};
use super::ways::Way;

impl Comparison {
    /// For people.
    pub fn text(&self) -> String {
        let parts = [self.head(), self.table().to_string(), self.left_out(), self.started(), self.targets()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n") + "\n"
    }

    fn head(&self) -> String {
        let (setup, image) = (&self.setup, &self.image);
        let start = match setup.stagger.is_zero() {
            true => "at once".to_owned(),
            false => format!("each {} s after the one before", setup.stagger.as_secs_f64()),
        };
        format!(
            "{} nodes, started {start}, behind links of {} Mbit/s both ways, the server's too; think time ÷ {}; runs: {}\n\
             image: {}\n\
             {} of disk, {} allocated, {} packed; the boot reads {} in {} reads, its working set is {} packed",
            setup.nodes,
            setup.link_mbit,
            setup.think_divisor,
            setup.runs,
            image.what,
            megabytes(image.image_bytes),
            megabytes(image.allocated_bytes),
            megabytes(image.packed_bytes),
            megabytes(image.guest_bytes),
            image.reads,
            megabytes(image.working_set_bytes)
        )
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(["way", "slowest", "median", "vs local", "server sent", "working sets", "processors busy"]);
        for row in self.rows.iter().filter(|row| matches!(row.state, State::Measured | State::Stopped)) {
            table.add_row(self.cells(row));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn cells(&self, row: &Row) -> [String; 7] {
        let none = || "-".to_owned();
        let ratio = row.time_or_bound().and_then(|(micros, is_bound)| Some((self.ratio_to_local(micros)?, is_bound)));
        let sent = row.server_sent_bytes().filter(|_| row.way != Way::Local);
        let busy = row.runs.last().map_or_else(none, |run| format!("{:.0} %", run.busy * 100.0));
        [
            row.title(),
            row.summary(),
            row.median_micros().map_or_else(none, |micros| format!("{:.2} s", micros as f64 / 1e6)),
            ratio.map_or_else(none, |(ratio, is_bound)| format!("{}{ratio:.2} x", if is_bound { "> " } else { "" })),
            sent.map_or_else(none, megabytes),
            sent.map_or_else(none, |bytes| format!("{:.2}", bytes as f64 / self.image.working_set_bytes as f64)),
            busy,
        ]
    }

    fn left_out(&self) -> String {
        let rows = self.rows.iter().filter(|row| matches!(row.state, State::Failed(_) | State::Missing(_)));
        rows.map(|row| format!("{}: {}", row.title(), row.summary())).collect::<Vec<_>>().join("\n")
    }

    /// How the programs of others, and ours, were started: all that is not said there is at its default.
    fn started(&self) -> String {
        let mut text =
            "how all was started, at the server and at the first node (the rest is at its default):".to_owned();
        for row in &self.rows {
            let Some(run) = row.runs.first() else { continue };
            let pieces = row.piece_bytes.map_or_else(String::new, |bytes| format!(" (pieces of {})", kibibytes(bytes)));
            write!(text, "\n  {}{pieces}", row.way).expect("a string can be written to");
            for line in &run.started {
                write!(text, "\n    {line}").expect("a string can be written to");
            }
        }
        text
    }

    fn targets(&self) -> String {
        let mut text = String::new();
        if let Some(bound) = self.nbd_bound() {
            let rate = self.payload_bytes_per_sec() / 1e6;
            writeln!(
                text,
                "N·R/(s·T) = {bound:.2}: {} nodes, {} read by each, {rate:.2} MB/s of payload, T as in the first row",
                self.setup.nodes,
                megabytes(self.image.guest_bytes)
            )
            .expect("a string can be written to");
        }
        let lines: Vec<String> = self.targets.iter().map(Target::line).collect();
        text + &lines.join("\n")
    }
}

impl Target {
    fn line(&self) -> String {
        let verdict = match (self.value, self.is_met()) {
            (None, _) => "not measured",
            (_, true) => "met",
            _ if self.is_bound => "not decided, as the other was stopped; try a larger --bound",
            (_, false) => "missed",
        };
        let sign = if self.is_bound { "> " } else { "" };
        let value = self.value.map_or_else(|| "-".to_owned(), |value| format!("{sign}{value:.2}"));
        format!("{} ({}): {value}, wanted {}: {verdict}", self.what, self.swarm, self.wanted)
    }
}

/// Decimal, as links are.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use crate::compare::outcome::tests::made_up;

    #[test]
    fn nothing_is_left_out_in_silence() {
        let text = made_up().text();
        for part in [
            "> 300 s",
            "> 60.00 x",
            "rqbit's HTTP streaming, pieces of 64 KiB: left out: no rqbit; install it",
            "btfs, pieces of 256 KiB",
            "node: program --option",
            "1.25",
            "best on-demand BitTorrent / swarm (profile): 4.17, wanted 3: met",
            "download first, compressed qcow2 / swarm (profile): -, wanted 3: not measured",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
