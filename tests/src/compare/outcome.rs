//! What came of a comparison: each way's runs, and how far the swarm is from what was wanted of it.
//!
//! *Units*: microseconds, bytes of Ethernet frames on the server's link. A way's time is its slowest node's; of several runs,
//! the median. *Invariants*: a way that was stopped has no time, only a bound that it exceeds.

use serde::Serialize;

use super::Setup;
use super::subject::Subject;
use super::ways::Way;

/// Payload of a full TCP segment, and the frame that the links count for it.
const SEGMENT_BYTES: (f64, f64) = (1448.0, 1514.0);

/// What a node's boot cost.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize)]
pub struct NodeOutcome {
    /// From the start of its first process until its disk could be read.
    pub ready_micros: u64,
    /// From there to the guest's last answer, and what came before.
    pub start_to_last_micros: u64,
    /// The guest's think times alone.
    pub ideal_micros: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Of them, those that brought other bytes than the image's.
    pub mismatches: u64,
}

/// One run of a way.
#[derive(Debug, Clone, Serialize)]
pub struct RunOutcome {
    /// A node that took longer was stopped.
    pub bound_micros: u64,
    /// Each node; none for one that was stopped.
    pub nodes: Vec<Option<NodeOutcome>>,
    /// Carried by the server's link from it, while the nodes ran.
    pub server_sent_bytes: u64,
    /// Share of the machine's processor time that was used meanwhile; 1 is all of it.
    pub busy: f64,
    /// Frames that full queues dropped.
    pub drops: u64,
    /// How all was started: at the server, and at the first node.
    pub started: Vec<String>,
}

/// How far a way got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All nodes booted, in all runs.
    Measured,
    /// Some node took too long.
    Stopped,
    /// Something went wrong.
    Failed(String),
    /// Something is not there.
    Missing(String),
}

/// A way, and all its runs.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub way: Way,
    /// Size of its torrent's pieces.
    pub piece_bytes: Option<u32>,
    /// How far it got.
    pub state: State,
    /// The runs, as far as there are any.
    pub runs: Vec<RunOutcome>,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// What was compared.
    pub setup: Setup,
    /// What was booted.
    pub image: Image,
    /// The ways, in the order in which they ran.
    pub rows: Vec<Row>,
    /// What was wanted, and what came of it.
    pub targets: Vec<Target>,
}

/// What was booted.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// For people.
    pub what: String,
    /// Whether its contents are made up.
    pub is_made_up: bool,
    /// Size of the disk.
    pub image_bytes: u64,
    /// What of it is not holes.
    pub allocated_bytes: u64,
    /// Size of the packed image.
    pub packed_bytes: u64,
    /// What the guest reads.
    pub guest_bytes: u64,
    /// In so many reads.
    pub reads: u64,
    /// Payloads of the chunks that it touches.
    pub working_set_bytes: u64,
}

/// What was wanted of the swarm.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// What is compared.
    pub what: String,
    /// Of which way of the swarm.
    pub swarm: Way,
    /// How many times faster the swarm was, in the target's own unit; none if something is not there.
    pub value: Option<f64>,
    /// The other way was stopped: it is more than that.
    pub is_bound: bool,
    /// At least so much.
    pub wanted: f64,
}

impl RunOutcome {
    /// All nodes' times, the shortest first; none if any was stopped.
    fn sorted_micros(&self) -> Option<Vec<u64>> {
        let times: Option<Vec<u64>> = self.nodes.iter().map(|node| Some((*node)?.start_to_last_micros)).collect();
        let mut times = times?;
        times.sort_unstable();
        Some(times)
    }
}

impl Row {
    /// Not yet run.
    pub fn new(way: Way, piece_bytes: Option<u32>) -> Self {
        Self { way, piece_bytes, state: State::Measured, runs: Vec::new() }
    }

    /// Adds a run.
    pub fn add(&mut self, run: RunOutcome) {
        if run.nodes.iter().any(Option::is_none) {
            self.state = State::Stopped;
        }
        self.runs.push(run);
    }

    /// For people.
    pub fn title(&self) -> String {
        match self.piece_bytes {
            Some(bytes) if self.way.is_torrent_on_demand() => {
                format!("{}, pieces of {}", self.way.title(), kibibytes(bytes))
            }
            _ => self.way.title().to_owned(),
        }
    }

    /// The slowest node's time.
    pub fn slowest_micros(&self) -> Option<u64> {
        self.over_runs(|run| run.sorted_micros()?.last().copied())
    }

    /// The time of the node in the middle.
    pub fn median_micros(&self) -> Option<u64> {
        self.over_runs(|run| median(run.sorted_micros()?))
    }

    /// Sent by the server, also of what was stopped: until then.
    pub fn server_sent_bytes(&self) -> Option<u64> {
        median(self.runs.iter().map(|run| run.server_sent_bytes).collect())
    }

    /// The time, or what it exceeds: whether it is that.
    pub fn time_or_bound(&self) -> Option<(u64, bool)> {
        match self.state {
            State::Measured => Some((self.slowest_micros()?, false)),
            State::Stopped => Some((self.runs.last()?.bound_micros, true)),
            _ => None,
        }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        match &self.state {
            State::Measured | State::Stopped => match self.time_or_bound() {
                Some((micros, false)) => format!("{:.2} s", micros as f64 / 1e6),
                Some((micros, true)) => format!("> {:.0} s", micros as f64 / 1e6),
                None => "not run".to_owned(),
            },
            State::Failed(why) => format!("failed: {why}"),
            State::Missing(what) => format!("left out: {what}"),
        }
    }

    fn over_runs(&self, of: impl Fn(&RunOutcome) -> Option<u64>) -> Option<u64> {
        if self.state != State::Measured {
            return None;
        }
        median(self.runs.iter().map(of).collect::<Option<Vec<u64>>>()?)
    }
}

impl Comparison {
    /// With what follows from it.
    pub fn new(subject: &Subject, setup: &Setup, rows: Vec<Row>) -> Self {
        let image = Image {
            what: subject.what.clone(),
            is_made_up: subject.is_made_up(),
            image_bytes: subject.image_bytes,
            allocated_bytes: subject.allocated_bytes,
            packed_bytes: subject.packed_bytes,
            guest_bytes: subject.guest_bytes,
            reads: subject.reads,
            working_set_bytes: subject.working_set_bytes,
        };
        let mut all = Self { setup: setup.clone(), image, rows, targets: Vec::new() };
        let swarms = [Way::Profile, Way::Live].into_iter().filter(|way| setup.ways.contains(way));
        all.targets = swarms.flat_map(|swarm| all.targets_of(swarm)).collect();
        all
    }

    /// The way's time.
    pub fn slowest_micros(&self, way: Way) -> Option<u64> {
        self.rows.iter().filter(|row| row.way == way).filter_map(Row::slowest_micros).min()
    }

    /// Times the local boot.
    pub fn ratio_to_local(&self, micros: u64) -> Option<f64> {
        Some(micros as f64 / self.slowest_micros(Way::Local)? as f64)
    }

    /// What a link carries of payloads, in bytes a second.
    pub fn payload_bytes_per_sec(&self) -> f64 {
        f64::from(self.setup.link_mbit) * 1e6 / 8.0 * SEGMENT_BYTES.0 / SEGMENT_BYTES.1
    }

    /// N·R/(s·T): how many times longer than a local boot one server takes at least, which sends R bytes to each of N
    /// nodes over a link of s bytes a second.
    pub fn nbd_bound(&self) -> Option<f64> {
        let seconds = self.slowest_micros(Way::Local)? as f64 / 1e6;
        let sent = (self.setup.nodes as u64 * self.image.guest_bytes) as f64;
        Some(sent / (self.payload_bytes_per_sec() * seconds))
    }

    fn targets_of(&self, swarm: Way) -> Vec<Target> {
        let target = |what: &str, wanted: f64, is_one: fn(Way) -> bool, unit: Option<f64>| {
            let own = self.slowest_micros(swarm);
            let speed_up = self.best(is_one).zip(own).zip(unit);
            Target {
                what: what.to_owned(),
                swarm,
                value: speed_up.map(|(((other, _), own), unit)| other as f64 / own as f64 / unit),
                is_bound: self.best(is_one).is_some_and(|(_, is_bound)| is_bound),
                wanted,
            }
        };
        vec![
            target("one NBD server / swarm, of N·R/(s·T)", 0.85, Way::is_nbd, self.nbd_bound()),
            target("download first, raw / swarm", 25.0, Way::is_raw_download, Some(1.0)),
            target("download first, compressed qcow2 / swarm", 3.0, Way::is_qcow2, Some(1.0)),
            target("best on-demand BitTorrent / swarm", 3.0, Way::is_torrent_on_demand, Some(1.0)),
        ]
    }

    /// The shortest time of such ways; or, should all have been stopped, what they all exceed.
    fn best(&self, is_one: fn(Way) -> bool) -> Option<(u64, bool)> {
        let rows = self.rows.iter().filter(|row| is_one(row.way));
        let all: Vec<(u64, bool)> = rows.filter_map(Row::time_or_bound).collect();
        let measured = all.iter().filter(|(_, is_bound)| !is_bound).min();
        measured.or_else(|| all.iter().min()).copied()
    }
}

impl Target {
    /// Whether it is reached.
    pub fn is_met(&self) -> bool {
        self.value.is_some_and(|value| value >= self.wanted)
    }
}

/// As people say it.
pub fn kibibytes(bytes: u32) -> String {
    match bytes >> 10 {
        kib if kib % 1024 == 0 => format!("{} MiB", kib >> 10),
        kib => format!("{kib} KiB"),
    }
}

/// The one in the middle; of an even number, the mean of the two there.
fn median(mut of: Vec<u64>) -> Option<u64> {
    of.sort_unstable();
    let middle = of.len() / 2;
    match of.len() {
        0 => None,
        count if count % 2 == 1 => Some(of[middle]),
        _ => Some((of[middle - 1] + of[middle]) / 2),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn run(times: &[Option<u64>], sent: u64) -> RunOutcome {
        let node = |micros: u64| NodeOutcome {
            ready_micros: 0,
            start_to_last_micros: micros,
            ideal_micros: 0,
            reads: 1,
            mismatches: 0,
        };
        RunOutcome {
            bound_micros: 300_000_000,
            nodes: times.iter().map(|time| time.map(node)).collect(),
            server_sent_bytes: sent,
            busy: 0.5,
            drops: 0,
            started: vec!["node: program --option".to_owned()],
        }
    }

    fn row(way: Way, piece_bytes: Option<u32>, times: &[Option<u64>]) -> Row {
        let mut row = Row::new(way, piece_bytes);
        row.add(run(times, 40_000_000));
        row
    }

    /// Made-up results of two nodes.
    pub fn made_up() -> Comparison {
        let setup = Setup { nodes: 2, ..Setup::default() };
        let image = Image {
            what: "nothing".to_owned(),
            is_made_up: true,
            image_bytes: 1 << 30,
            allocated_bytes: 1 << 28,
            packed_bytes: 1 << 27,
            guest_bytes: 100_000_000,
            reads: 1000,
            working_set_bytes: 32_000_000,
        };
        let mut missing = Row::new(Way::Rqbit, Some(1 << 16));
        missing.state = State::Missing("no rqbit; install it".to_owned());
        let rows = vec![
            row(Way::Local, None, &[Some(4_000_000), Some(5_000_000)]),
            row(Way::Nbd, None, &[Some(17_000_000), Some(20_000_000)]),
            row(Way::Aria2Raw, Some(1 << 20), &[Some(90_000_000), None]),
            row(Way::Btfs, Some(1 << 16), &[Some(30_000_000), Some(40_000_000)]),
            row(Way::Btfs, Some(1 << 18), &[Some(20_000_000), Some(25_000_000)]),
            missing,
            row(Way::Profile, None, &[Some(4_500_000), Some(6_000_000)]),
        ];
        let mut all = Comparison { setup, image, rows, targets: Vec::new() };
        all.targets = all.targets_of(Way::Profile);
        all
    }

    #[test]
    fn the_slowest_node_counts_and_the_best_pieces() {
        let all = made_up();
        assert_eq!(all.slowest_micros(Way::Btfs), Some(25_000_000));
        assert_eq!(all.rows[0].median_micros(), Some(4_500_000));
        assert_eq!(all.ratio_to_local(20_000_000), Some(4.0));
        assert_eq!((all.rows[2].slowest_micros(), all.rows[2].time_or_bound()), (None, Some((300_000_000, true))));
    }

    #[test]
    fn targets_are_computed_from_what_there_is() {
        let all = made_up();
        let values: Vec<_> =
            all.targets.iter().map(|target| (target.value, target.is_bound, target.is_met())).collect();
        // 2 × 100 MB over 100 Mbit/s take 16.7 s, 3.35 local boots; 20 s are 3.33 times the swarm's 6 s.
        let bound = 200e6 / (12.5e6 * 1448.0 / 1514.0) / 5.0;
        assert!((values[0].0.unwrap() - 20.0 / 6.0 / bound).abs() < 1e-9 && values[0].2);
        assert_eq!(values[1], (Some(50.0), true, true));
        assert_eq!(values[2], (None, false, false));
        assert_eq!(values[3].0, Some(25.0 / 6.0));
    }

    #[test]
    fn of_several_runs_the_median_counts() {
        let mut row = row(Way::Local, None, &[Some(5)]);
        row.add(run(&[Some(9)], 0));
        row.add(run(&[Some(6)], 0));
        assert_eq!(row.slowest_micros(), Some(6));
        row.add(run(&[None], 0));
        assert_eq!((row.slowest_micros(), row.state), (None, State::Stopped));
    }
}
