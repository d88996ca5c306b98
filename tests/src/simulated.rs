//! The same boots in the simulator, and how far it is from reality.
//!
//! *What is the same*: the image (the very file that was packed), the traces, the links' rates, the number of nodes; policies are
//! those of the hosts. *What the model is told of the lab*: the round trip of its empty links, and how much of their rate is
//! left for payload; both follow from [`Netlab`](crate::netlab), nothing is fitted. *Targets*: [`BOOT_LIMIT`],
//! [`FETCHED_LIMIT`], [`AMPLIFICATION_LIMIT`], for each node.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fixture::text;
use crate::process::{Process, find_or_build};
use crate::reality::{Outcome, Setup, Subject, profiled};

/// A node's time to boot may differ by this part.
pub const BOOT_LIMIT: f64 = 0.10;
/// The bytes that a node fetches may differ by this part.
pub const FETCHED_LIMIT: f64 = 0.05;
/// What the seed sends may differ by this part.
pub const AMPLIFICATION_LIMIT: f64 = 0.10;

/// Round trip of the lab's empty links, measured with single bytes: 17 µs.
const RTT: &str = "20us";
/// Of a link's rate, what is payload: four segments of 1,448 bytes come in frames of 1,514 and are acknowledged by one
/// frame of 66 the other way, where as much is sent.
const PAYLOAD_SHARE: f64 = 4.0 * 1448.0 / (4.0 * 1514.0 + 66.0);
const DEADLINE: Duration = Duration::from_secs(120);

/// What the simulator says of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Simulated {
    /// Each node.
    pub nodes: Vec<SimulatedNode>,
    /// Bytes that left the seed for each byte that a node needs.
    pub amplification: f64,
}

/// What it says of a node, in the units of [`NodeOutcome`](crate::reality::NodeOutcome).
#[derive(Debug, Copy, Clone, Serialize, Deserialize)]
pub struct SimulatedNode {
    /// From the guest's first read to its last answer.
    pub boot_micros: u64,
    /// Chunks received.
    pub fetched_bytes: u64,
}

/// How far a simulated run is from a real one: each ratio is the simulator's figure by reality's.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Of each node.
    pub nodes: Vec<NodeRatios>,
    /// Of what the seed sends.
    pub amplification: f64,
}

/// Of a node.
#[derive(Debug, Copy, Clone, Serialize)]
pub struct NodeRatios {
    /// Time to boot.
    pub boot: f64,
    /// Bytes fetched.
    pub fetched: f64,
}

impl Simulated {
    /// Runs the simulator on what was booted for real; `seed` seeds its choices.
    ///
    /// # Panics
    /// When it fails, or says something else than it should.
    #[track_caller]
    pub fn run(subject: &Subject, setup: &Setup, seed: u64) -> Self {
        let work = tempfile::tempdir().unwrap();
        let file = work.path().join("reality.toml");
        fs::write(&file, scenario(subject, setup)).unwrap();
        let mut command = Command::new(find_or_build("swarmdisk-sim", "swarmdisk-sim"));
        command.args(["run", &text(&file), "--seed", &seed.to_string(), "--out", &text(work.path())]);
        let finished = Process::start(command).wait(DEADLINE);
        assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
        read_result(&work.path().join("result.json"))
    }
}

impl Comparison {
    /// Of a real run and a simulated one of the same setup; node by node.
    ///
    /// # Panics
    /// When they have not as many nodes.
    #[track_caller]
    pub fn new(real: &Outcome, simulated: &Simulated) -> Self {
        assert_eq!(real.nodes.len(), simulated.nodes.len(), "nodes of reality and of the simulator");
        let ratio = |of: u64, by: u64| of as f64 / by.max(1) as f64;
        let nodes = real.nodes.iter().zip(&simulated.nodes).map(|(real, simulated)| NodeRatios {
            boot: ratio(simulated.boot_micros, real.boot_micros),
            fetched: ratio(simulated.fetched_bytes, real.fetched_bytes()),
        });
        Self { nodes: nodes.collect(), amplification: simulated.amplification / real.amplification() }
    }

    /// What misses its target, a line each; `with_times`: time to boot as well.
    pub fn misses(&self, with_times: bool) -> String {
        let mut missed = String::new();
        let mut judge = |what: &str, ratio: f64, limit: f64| {
            if (ratio - 1.0).abs() > limit {
                let percent = limit * 100.0;
                writeln!(missed, "{what}: simulated {ratio:.3} of what is real, more than {percent:.0} % off").ok();
            }
        };
        for (number, node) in (1..).zip(&self.nodes) {
            judge(&format!("node {number}, bytes fetched"), node.fetched, FETCHED_LIMIT);
            if with_times {
                judge(&format!("node {number}, time to boot"), node.boot, BOOT_LIMIT);
            }
        }
        judge("origin amplification", self.amplification, AMPLIFICATION_LIMIT);
        missed
    }
}

/// The scenario that says the same as `setup`.
fn scenario(subject: &Subject, setup: &Setup) -> String {
    let rate = format!("{}mbit", setup.link_mbit);
    format!(
        r#"name = "reality"
[network]
rack-rtt = "{RTT}"
payload-share = {PAYLOAD_SHARE:.6}
[[image]]
swarm = {swarm:?}
[[group]]
count = {nodes}
up = "{rate}"
down = "{rate}"
[seeds]
up = "{rate}"
down = "{rate}"
[[workload]]
traces = [{replayed:?}]
speed = {speed}
[profile]
traces = [{profiled:?}]
[arrivals]
within = "0ms"
"#,
        nodes = setup.nodes,
        swarm = text(&subject.image.swarm),
        replayed = text(&subject.replayed),
        profiled = text(&profiled()),
        speed = setup.speed,
    )
}

/// What is read of `result.json`.
#[derive(Deserialize)]
struct Written {
    totals: WrittenTotals,
    nodes: Vec<WrittenNode>,
}

#[derive(Deserialize)]
struct WrittenTotals {
    origin_amplification: f64,
}

#[derive(Deserialize)]
struct WrittenNode {
    ready_micros: u64,
    run_micros: Option<u64>,
    origin_bytes: u64,
    peer_bytes: u64,
}

#[track_caller]
fn read_result(path: &Path) -> Simulated {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let written: Written = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let node = |node: &WrittenNode| SimulatedNode {
        // A guest begins to read as soon as it can.
        boot_micros: node.run_micros.expect("every simulated node boots") - node.ready_micros,
        fetched_bytes: node.origin_bytes + node.peer_bytes,
    };
    Simulated { nodes: written.nodes.iter().map(node).collect(), amplification: written.totals.origin_amplification }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reality::NodeOutcome;

    fn both(boot_micros: u64, fetched_bytes: u64, amplification: f64) -> Comparison {
        let node = NodeOutcome { boot_micros: 1000, origin_bytes: 400, peer_bytes: 600, ..NodeOutcome::default() };
        let real = Outcome { nodes: vec![node], working_set_bytes: 400, seed_sent_bytes: 400, busy: 0.5, drops: 0 };
        Comparison::new(&real, &Simulated { nodes: vec![SimulatedNode { boot_micros, fetched_bytes }], amplification })
    }

    #[test]
    fn what_misses_a_target_is_told() {
        assert_eq!(both(1090, 951, 1.09).misses(true), "");
        let missed = both(880, 1060, 1.2).misses(true);
        assert_eq!(missed.lines().count(), 3, "{missed}");
        assert!(missed.starts_with("node 1, bytes fetched: simulated 1.060 of what is real, more than 5 % off\n"));
        assert_eq!(both(880, 1000, 1.0).misses(false), "");
    }
}
