//! A swarm that boots for real, on links of a given rate, and what it cost: what the simulator is measured against.
//!
//! *What is real*: every process, the kernel's TCP, a recorded server boot. *What is not*: the links (see [`Netlab`]), the
//! image's contents, the guest (a replay of its reads, the think time divided by [`Setup::speed`]). All nodes start at
//! once, with empty caches, and stay until the last has booted. *Units*: bytes, microseconds. Bytes fetched are bodies of
//! chunks as in the nodes' reports; a link's are Ethernet frames.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};
use swarmdisk_common::trace::Trace;
use swarmdisk_host::demo::image::{self, DemoImage};
use swarmdisk_host::replay::ReplayReport;
use tempfile::TempDir;

use crate::fixture::{read_report, text};
use crate::images::folder;
use crate::netlab::Netlab;
use crate::process::{DEADLINE, Process, Swarmdisk};
use crate::skip::Missing;

/// Size of the disk that the boots were recorded from.
pub const IMAGE_BYTES: u64 = 3_221_225_472;
const PORT: u16 = 7000;
const BOOT_DEADLINE: Duration = Duration::from_secs(300);

/// How many nodes boot, on which links.
#[derive(Debug, Copy, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Nodes, without the seed.
    pub nodes: usize,
    /// Rate of each link both ways, also the seed's, in Mbit/s of Ethernet frames.
    pub link_mbit: u32,
    /// The recorded think time is divided by this.
    pub speed: f64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { nodes: 8, link_mbit: 50, speed: 10.0 }
    }
}

/// The image that is booted, with its profile, in a folder that goes with it.
#[derive(Debug)]
pub struct Subject {
    /// The image.
    pub image: DemoImage,
    /// The boot that is replayed.
    pub replayed: PathBuf,
    /// The command that boots it.
    pub swarmdisk: Swarmdisk,
    folder: TempDir,
}

/// What a run cost; the JSON of it is what the example writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Each node, in the order of their addresses.
    pub nodes: Vec<NodeOutcome>,
    /// Payloads of the chunks that the boot touches: what a node cannot do without.
    pub working_set_bytes: u64,
    /// Bodies that the seed has sent, leaf pages included.
    pub seed_sent_bytes: u64,
    /// Share of the processors' time that was used while the nodes booted, by all of the machine; 1 is all of it.
    pub busy: f64,
    /// Frames that full queues dropped.
    pub drops: u64,
}

/// What a boot cost one node.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOutcome {
    /// From the start of the node's process until its disk could be read.
    pub ready_micros: u64,
    /// From the guest's first read to its last answer.
    pub boot_micros: u64,
    /// The guest's think times alone.
    pub ideal_micros: u64,
    /// From the start of the node's process to the guest's last answer.
    pub start_to_last_micros: u64,
    /// Chunks received from the seed.
    pub origin_bytes: u64,
    /// Chunks received from other nodes.
    pub peer_bytes: u64,
    /// All else received: leaf pages, manifest, profile, frames' heads.
    pub metadata_bytes: u64,
    /// Bodies sent to other nodes.
    pub uploaded_bytes: u64,
    /// Guest reads that waited for the network.
    pub demand_misses: u64,
    /// Carried by the node's link from it.
    pub link_up_bytes: u64,
    /// Carried by the node's link to it.
    pub link_down_bytes: u64,
    /// Processor time of the node's process, without the replay.
    pub cpu_micros: u64,
}

impl Outcome {
    /// Bytes that left the seed for each byte that a node needs; 1 is ideal.
    pub fn amplification(&self) -> f64 {
        let origin: u64 = self.nodes.iter().map(|node| node.origin_bytes).sum();
        origin as f64 / self.working_set_bytes as f64
    }
}

impl NodeOutcome {
    /// Chunks received, from wherever.
    pub fn fetched_bytes(&self) -> u64 {
        self.origin_bytes + self.peer_bytes
    }
}

impl Subject {
    /// Makes an image for the recorded server boot; takes some seconds, and 600 MB of the temporary folder.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn make() -> Self {
        let folder = folder();
        let replayed = recording("server-boot-1.trace");
        let [first, second] = [&replayed, &profiled()].map(|path| {
            let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Trace::parse(BufReader::new(file)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        let made = image::make(folder.path(), IMAGE_BYTES, &first, second, &AtomicBool::new(false));
        let image = made.unwrap_or_else(|error| panic!("no image: {error}"));
        Self { image, replayed, swarmdisk: Swarmdisk::find(), folder }
    }

    /// Boots all nodes at once and waits for the last.
    ///
    /// # Errors
    /// When there can be no such network here.
    ///
    /// # Panics
    /// When anything fails, or a byte that a guest read is wrong.
    #[track_caller]
    pub fn boot(&self, setup: &Setup) -> Result<Outcome, Missing> {
        let lab = Netlab::new(setup.nodes + 1, setup.link_mbit)?;
        let work = tempfile::tempdir_in(self.folder.path()).unwrap();
        let (seed, reference) = self.seed(&lab);
        let busy = Busy::begin();
        let all = Barrier::new(setup.nodes);
        let mut nodes: Vec<Booted> = thread::scope(|scope| {
            let boot = |node| {
                let (lab, work, all, reference) = (&lab, work.path().join(format!("{node}")), &all, &reference);
                scope.spawn(move || {
                    fs::create_dir(&work).unwrap();
                    all.wait();
                    self.boot_one(lab, node, reference, &work, setup.speed)
                })
            };
            let booting: Vec<_> = (1..=setup.nodes).map(boot).collect();
            booting.into_iter().map(|node| node.join().expect("its panic has been shown")).collect()
        });
        let busy = busy.share();
        let carried: Vec<_> = (1..=setup.nodes).map(|node| lab.carried(node)).collect();
        nodes.iter_mut().for_each(Booted::end);
        let nodes: Vec<NodeOutcome> = nodes.into_iter().map(Booted::outcome).collect();
        let seed_sent_bytes = self.sent_by(&seed);
        seed.stop();
        let drops = carried.iter().map(|link| link.drops).sum::<u64>() + lab.carried(0).drops;
        let nodes = nodes.into_iter().zip(carried).map(|(node, link)| NodeOutcome {
            link_up_bytes: link.up_bytes,
            link_down_bytes: link.down_bytes,
            ..node
        });
        let working_set_bytes = self.image.working_set_bytes;
        Ok(Outcome { nodes: nodes.collect(), working_set_bytes, seed_sent_bytes, busy, drops })
    }

    fn seed(&self, lab: &Netlab) -> (Process, String) {
        let listen = listen(lab.address(0));
        let words = ["seed", &text(&self.image.swarm), "--listen", &listen, "--open", "--profile"];
        let command = self.swarmdisk.command(words.map(str::to_owned).into_iter().chain([text(&self.image.profile)]));
        let process = Process::start(lab.command(0, &command));
        let reference = process.wait_for_line("swarm://");
        (process, reference)
    }

    fn boot_one(&self, lab: &Netlab, node: usize, reference: &str, work: &Path, speed: f64) -> Booted {
        let [socket, cache, report] = ["nbd.sock", "cache", "report.json"].map(|name| text(&work.join(name)));
        let (nbd, listen) = (format!("unix:{socket}"), listen(lab.address(node)));
        let words = ["attach", reference, "--nbd", &nbd, "--cache", &cache, "--report", &report, "--listen", &listen];
        let command = self.swarmdisk.command(words.into_iter().chain(["--open"]));
        let began = Instant::now();
        let process = Process::start(lab.command(node, &command));
        let ready = process.wait_for_line("ready ");
        let ready_after = began.elapsed();
        let disk = ready.strip_prefix("ready ").expect("a ready line");
        let (trace, raw, speed) = (text(&self.replayed), text(&self.image.raw), speed.to_string());
        let words = ["replay", &trace, "--disk", disk, "--speed", &speed, "--verify", &raw, "--json"];
        let finished = self.swarmdisk.spawn(words).wait(BOOT_DEADLINE);
        let start_to_last = began.elapsed();
        assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
        let replay: ReplayReport = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(replay.mismatches, 0, "node {node} has read what is not in the image");
        Booted { process, replay, ready_after, start_to_last, report: report.into(), cpu_micros: 0 }
    }

    /// Bodies that the seed has sent.
    fn sent_by(&self, seed: &Process) -> u64 {
        let told: Vec<swarmdisk_host::status::Status> =
            serde_json::from_str(&self.swarmdisk.succeed(["status", "--json"])).unwrap();
        let own = told.into_iter().find(|status| status.pid == seed.pid()).expect("a seed that runs has a status");
        own.images[0].uploaded_bytes
    }
}

/// A node whose guest has read all.
struct Booted {
    process: Process,
    replay: ReplayReport,
    ready_after: Duration,
    start_to_last: Duration,
    report: PathBuf,
    cpu_micros: u64,
}

impl Booted {
    /// Asks the node to end.
    fn end(&mut self) {
        self.cpu_micros = process_micros(self.process.pid()).unwrap_or(0);
        self.process.terminate();
    }

    /// What it cost, once the node has been asked to end.
    fn outcome(self) -> NodeOutcome {
        let ended = self.process.wait(DEADLINE);
        assert!(ended.status.success(), "{}{}", ended.status, ended.stderr);
        let report = read_report(&self.report);
        NodeOutcome {
            ready_micros: self.ready_after.as_micros() as u64,
            boot_micros: self.replay.wall_micros,
            ideal_micros: self.replay.ideal_micros,
            start_to_last_micros: self.start_to_last.as_micros() as u64,
            origin_bytes: report.fetched_bytes.origin,
            peer_bytes: report.fetched_bytes.peers,
            metadata_bytes: report.metadata_bytes,
            uploaded_bytes: report.uploaded_bytes,
            demand_misses: report.demand_misses,
            cpu_micros: self.cpu_micros,
            ..NodeOutcome::default()
        }
    }
}

fn listen(address: Ipv4Addr) -> String {
    SocketAddrV4::new(address, PORT).to_string()
}

/// The recording that the profile is built from.
pub(crate) fn profiled() -> PathBuf {
    recording("server-boot-2.trace")
}

/// A recorded boot of these sources.
pub fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/data").join(name)
}

/// The machine's processors from one moment to another.
pub(crate) struct Busy {
    used: u64,
    all: u64,
}

impl Busy {
    /// From now on.
    pub(crate) fn begin() -> Self {
        let (used, all) = machine_ticks().unwrap_or_default();
        Self { used, all }
    }

    /// Which share of their time was used since.
    pub(crate) fn share(&self) -> f64 {
        let (used, all) = machine_ticks().unwrap_or_default();
        (used.saturating_sub(self.used)) as f64 / (all.saturating_sub(self.all)).max(1) as f64
    }
}

/// Used and all ticks of all processors (proc(5), `/proc/stat`: user nice system idle iowait …).
fn machine_ticks() -> io::Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    // Guests' time, the last two of ten, is in user and nice already.
    let ticks = stat.lines().next().unwrap_or("").split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = ticks.map(|tick| tick.parse().unwrap_or(0)).collect();
    let all: u64 = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

/// Processor time of a process that runs (proc(5), `/proc/PID/stat`: user and system are the 12th and 13th after the name).
fn process_micros(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|ticks| ticks.parse().unwrap_or(0)).sum();
    Some(ticks * 1_000_000 / clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    #[test]
    fn time_that_is_used_is_counted() {
        let busy = Busy::begin();
        let before = process_micros(process::id()).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while process_micros(process::id()).unwrap() < before + 100_000 {
            assert!(Instant::now() < until, "no time is counted");
        }
        assert!((0.0..=1.0).contains(&busy.share()) && busy.share() > 0.0);
    }
}
