//! What the demo found: a table and a paragraph for people, JSON for programs.

use super::image::RECORDED_DATA_BYTES;
use super::ways::{Setting, WayReport};
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// How a boot gets its disk.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// From its own disk.
    Local,
    /// On demand from one server.
    OneServer,
    /// Downloaded whole.
    DownloadFirst,
    /// From the swarm.
    Swarm,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Local, Self::OneServer, Self::DownloadFirst, Self::Swarm];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Local => "local file",
            Self::OneServer => "one network server",
            Self::DownloadFirst => "download first, then boot",
            Self::Swarm => "swarm",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::OneServer => "one_server",
            Self::DownloadFirst => "download_first",
            Self::Swarm => "swarm",
        }
    }
}

/// What the demo found.
#[derive(Debug)]
pub(super) struct DemoReport {
    setting: Setting,
    ways: Vec<(Way, WayReport)>,
    time: Duration,
}

impl DemoReport {
    pub fn new(setting: Setting, ways: Vec<(Way, WayReport)>) -> Self {
        Self { setting, ways, time: Duration::ZERO }
    }

    /// With how long all of it took.
    pub fn finish(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Reads that brought other bytes than the image's.
    pub fn mismatches(&self) -> u64 {
        self.ways.iter().flat_map(|(_, cost)| &cost.replays).map(|replay| replay.mismatches).sum()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let setting = &self.setting;
        let image = &setting.image;
        let ways: Vec<Value> = self.ways.iter().map(|(way, cost)| self.way_json(*way, cost)).collect();
        json!({
            "nodes": setting.nodes,
            "link_bytes_per_sec": setting.link_bytes_per_sec,
            "speed": setting.speed,
            "ideal_micros": self.ideal_micros(),
            "image_bytes": image.image_bytes,
            "data_bytes": image.data_bytes,
            "packed_bytes": image.packed_bytes,
            "touched_bytes": image.touched_bytes,
            "working_set_bytes": image.working_set_bytes,
            "ways": ways,
            "mismatches": self.mismatches(),
            "run_micros": self.time.as_micros() as u64,
        })
    }

    fn way_json(&self, way: Way, cost: &WayReport) -> Value {
        json!({
            "way": way.name(),
            "node_micros": cost.node_micros,
            "last_micros": cost.last_micros(),
            "median_micros": cost.median_micros(),
            "ratio_to_local": self.ratio_to_local(cost),
            "stall_micros": self.stall_micros(cost),
            "server_sent_bytes": cost.server_sent_bytes,
            "server_sent_working_sets": cost.server_sent_bytes.map(|bytes| self.working_sets(bytes)),
            "peer_sent_bytes": cost.peer_sent_bytes,
            "mismatches": cost.replays.iter().map(|replay| replay.mismatches).sum::<u64>(),
        })
    }

    /// What the guest's thinking takes.
    fn ideal_micros(&self) -> u64 {
        self.ways.iter().flat_map(|(_, cost)| &cost.replays).map(|replay| replay.ideal_micros).max().unwrap_or(0)
    }

    /// All that a node in the middle had to wait for.
    fn stall_micros(&self, cost: &WayReport) -> u64 {
        cost.median_micros().saturating_sub(self.ideal_micros())
    }

    fn ratio_to_local(&self, cost: &WayReport) -> f64 {
        let local = self.way(Way::Local).map_or(0, WayReport::last_micros);
        cost.last_micros() as f64 / local.max(1) as f64
    }

    fn working_sets(&self, bytes: u64) -> f64 {
        bytes as f64 / self.setting.image.working_set_bytes.max(1) as f64
    }

    fn way(&self, way: Way) -> Option<&WayReport> {
        self.ways.iter().find(|(other, _)| *other == way).map(|(_, cost)| cost)
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let setting = format!("{} nodes, {}", self.setting.nodes, bits(self.setting.link_bytes_per_sec));
        table.set_header([&setting, "last booted", "median", "vs local", "waited", "server sent", "working sets"]);
        for (way, cost) in &self.ways {
            let sent = |show: fn(&Self, u64) -> String| match (way, cost.server_sent_bytes) {
                (Way::Local, _) => "-".to_owned(),
                (_, Some(bytes)) => show(self, bytes),
                (_, None) => "not known".to_owned(),
            };
            table.add_row([
                way.title().to_owned(),
                seconds(cost.last_micros()),
                seconds(cost.median_micros()),
                format!("{:.2} x", self.ratio_to_local(cost)),
                seconds(self.stall_micros(cost)),
                sent(|_, bytes| megabytes(bytes)),
                sent(|report, bytes| format!("{:.1}", report.working_sets(bytes))),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// What was done, what was made up, what was not done.
    fn explanation(&self) -> [String; 3] {
        let Setting { nodes, speed, image, .. } = &self.setting;
        let swarm = self.way(Way::Swarm);
        let replay = swarm.and_then(|cost| cost.replays.first()).copied().unwrap_or_default();
        let peers = megabytes(swarm.map_or(0, |cost| cost.peer_sent_bytes));
        let link = bits(self.setting.link_bytes_per_sec);
        let (reads, read, touched) = (replay.reads, megabytes(replay.bytes), megabytes(image.touched_bytes));
        let (ideal, working) = (seconds(self.ideal_micros()), megabytes(image.working_set_bytes));
        let quiet = seconds((image.quiet_micros as f64 / speed) as u64);
        let done = format!(
            "Done: {nodes} nodes booted at once, {ways} times over. Each node and the server had a link of {link} up and down, \
             on this machine's loopback. The boot was recorded from a real Debian 12: {reads} reads of {read} in \
             {touched} of disk, which is {working} packed: one working set. The guest's think time was divided by {speed} and \
             comes to {ideal} (10 makes of the emulated processor that was recorded about a KVM guest); `waited` is \
             what the median node took beyond it. For the first {quiet} of it, while its kernel starts, the guest reads next to \
             nothing; the swarm fetches meanwhile. The swarm was a seed and {nodes} nodes, processes of their own that began \
             with empty caches, and their start is counted. A profile from another recorded boot told them what to fetch, and \
             they gave each other {peers}. The server of the second row sends raw bytes, the others packed ones. Every \
             byte read was compared with the image.",
            ways = self.ways.len(),
        );
        let whole = image.packed_bytes as f64 * RECORDED_DATA_BYTES as f64 / image.data_bytes.max(1) as f64;
        let made_up = format!(
            "Made up: what is on the disk (it compresses as real boots do), and how much: {data}, packed {packed}. The \
             recorded disk held {recorded}; to download all of that, {whole:.0} s would have gone by.",
            data = megabytes(image.data_bytes),
            packed = megabytes(image.packed_bytes),
            recorded = megabytes(RECORDED_DATA_BYTES),
            whole = whole * f64::from(*nodes) / self.setting.link_bytes_per_sec as f64,
        );
        let left_out = format!(
            "Not done: to write and unpack the downloads, to delay or lose packets, to boot a machine \
             (`swarmdisk demo --vm` does). All of it took {}.",
            seconds(self.time.as_micros() as u64)
        );
        [done, made_up, left_out]
    }
}

impl WayReport {
    fn last_micros(&self) -> u64 {
        self.node_micros.iter().copied().max().unwrap_or(0)
    }

    /// The node in the middle; of an even number, the mean of the two there.
    fn median_micros(&self) -> u64 {
        let mut sorted = self.node_micros.clone();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => 0,
            count if count % 2 == 1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2,
        }
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table())?;
        self.explanation().iter().try_for_each(|text| write!(f, "\n\n{}", wrapped(text, 100)))
    }
}

/// Decimal, as links are.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn seconds(micros: u64) -> String {
    format!("{:.1} s", micros as f64 / 1e6)
}

/// As people buy links.
pub(super) fn bits(bytes_per_sec: u64) -> String {
    match bytes_per_sec as f64 * 8e-6 {
        mbit if mbit >= 1000.0 => format!("{} Gbit/s", mbit / 1000.0),
        mbit => format!("{mbit} Mbit/s"),
    }
}

/// Breaks a text into lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 {
            let breaks = column + 1 + length > width;
            lines.push(if breaks { '\n' } else { ' ' });
            column = if breaks { 0 } else { column + 1 };
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let cost = |node_micros: &[u64]| WayReport {
            node_micros: node_micros.to_vec(),
            replays: Vec::new(),
            server_sent_bytes: None,
            peer_sent_bytes: 0,
        };
        assert_eq!(cost(&[]).median_micros(), 0);
        assert_eq!(cost(&[9, 1, 5]).median_micros(), 5);
        assert_eq!(cost(&[9, 1, 5, 7]).median_micros(), 6);
    }

    #[test]
    fn texts_are_broken_between_words() {
        assert_eq!(wrapped("one two  three four", 9), "one two\nthree\nfour");
        assert_eq!((bits(12_500_000), bits(125_000_000)), ("100 Mbit/s".into(), "1 Gbit/s".into()));
    }
}
