//! Machines that boot from a swarm: real QEMU, real processes, links of 100 Mbit/s.
//!
//! One image and one recording are shared by all tests of this file, and one machine boots at a time: on a runner with
//! two processors each boot under TCG takes about a minute, side by side they take as long and tell less.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use swarmdisk_host::replay::ReplayReport;
use swarmdisk_host::report::AttachReport;
use swarmdisk_host::status::{ImageStatus, Status};
use swarmdisk_tests::appliance::Appliance;
use swarmdisk_tests::process::{DEADLINE, Process, Swarmdisk};
use swarmdisk_tests::qemu::{Boot, Booted, Machine, Qemu};
use swarmdisk_tests::skip::{find_tool, need};

const BOOT_DEADLINE: Duration = Duration::from_secs(600);
const LINK: &str = "100mbit";

#[test]
fn four_nodes_start_one_image() {
    let Some(lab) = Lab::get() else { return };
    let _turn = turn();
    let folder = lab.folder("four");
    let (seed, reference) = lab.seed();
    let nodes: Vec<Node> = (0..4).map(|index| lab.node(&reference, &folder.join(index.to_string()), &[])).collect();

    let replays: Vec<Process> = nodes[1..].iter().map(|node| lab.replay(&lab.trace, &node.uri, "1")).collect();
    drop(lab.boot(&nodes[0].uri, Boot::Direct(&lab.appliance)));
    for replay in replays {
        let report = replay_report(replay);
        println!("a replay took {:.1} s", report.wall_micros as f64 / 1e6);
        assert_eq!(report.mismatches, 0);
    }
    let reports: Vec<AttachReport> = nodes.into_iter().map(Node::stop).collect();
    reports.iter().enumerate().for_each(|(index, report)| lab.show(&format!("node {index}"), report));

    // The guest in QEMU does not say what it read: the same is read again, from what that node has kept.
    let again = lab.node(&reference, &folder.join("0"), &["--prefetch", "off"]);
    let replay = replay_report(lab.replay(&folder.join("0.trace"), &again.uri, "1000"));
    assert_eq!((replay.mismatches, replay.reads), (0, reports[0].guest_reads));
    assert_eq!(fetched(&again.stop()), 0, "what is kept is not fetched again");
    seed.stop();

    let working_set = fetched(&reports[0]);
    lab.assert_percent("fetched for a boot, of what is allocated", working_set, lab.allocated_bytes, 6);
    for report in &reports {
        lab.assert_percent("unused, of what was fetched", report.prefetch_unused_bytes, fetched(report), 10);
        assert_eq!(report.corrupt_pieces, 0);
    }
    let origin = reports.iter().map(|report| report.fetched_bytes.origin).sum();
    lab.assert_percent("sent by the origin, of the working set", origin, working_set, 200);
    assert!(reports.iter().all(|report| report.fetched_bytes.peers > 0), "each had something from another");
}

#[test]
fn a_boot_loader_reads_the_kernel_from_the_swarm() {
    let Some(lab) = Lab::get() else { return };
    let _turn = turn();
    let (seed, reference) = lab.seed();
    let node = lab.node(&reference, &lab.folder("loader").join("0"), &[]);
    drop(lab.boot(&node.uri, Boot::Bios));
    let report = node.stop();
    seed.stop();
    lab.show("node", &report);
    lab.assert_percent("fetched for a boot with its kernel", fetched(&report), lab.allocated_bytes, 9);
}

#[test]
fn a_boot_outlives_the_origin() {
    let Some(lab) = Lab::get() else { return };
    let _turn = turn();
    let (seed, reference) = lab.swarmdisk.seed(args(&[text(&lab.image), "--profile", text(&lab.profile)]));
    // It has booted before, and is given the rest: where guests write differs each time, and QEMU reads there first.
    let holder = lab.node(&reference, &lab.cache, &["--fill", "1gbit", "--limit-down", "1gbit"]);
    wait_until("the other node has all", || {
        let status = holder.status(&lab.swarmdisk);
        status.held_pieces == status.pieces
    });
    let node = lab.node(&reference, &lab.folder("orphan").join("0"), &["--limit-down", "20mbit"]);
    let fetched_so_far = || {
        let from = node.status(&lab.swarmdisk).fetched_bytes;
        from.origin + from.peers
    };
    let half = fetched(&lab.recorded) / 2;
    let at_kill = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            wait_until("half of what a boot needs is there", || fetched_so_far() >= half);
            seed.kill();
            fetched_so_far()
        });
        drop(lab.boot(&node.uri, Boot::Direct(&lab.appliance)));
        killer.join().expect("its panic has been shown")
    });
    let report = node.stop();
    lab.show("node", &report);
    lab.show("other node", &holder.stop());
    println!("the origin was killed after {} of {} MB", mb(at_kill), mb(fetched(&report)));
    assert!(at_kill * 4 < fetched(&report) * 3, "too late to tell anything");
    // What the origin had sent may come in after its end.
    assert!(report.fetched_bytes.peers * 2 > fetched(&report) - at_kill);
}

#[test]
fn guests_of_one_node_share_what_it_fetches() {
    let Some(lab) = Lab::get() else { return };
    let _turn = turn();
    let (seed, reference) = lab.seed();
    let node = lab.node(&reference, &lab.folder("guests").join("0"), &[]);
    let replay = lab.replay(&lab.trace, &node.uri, "1");
    drop(lab.boot(&node.uri, Boot::Direct(&lab.appliance)));
    let replay = replay_report(replay);
    let report = node.stop();
    seed.stop();
    lab.show("node", &report);
    assert_eq!(replay.mismatches, 0);
    assert!(report.guest_reads > replay.reads * 3 / 2, "both guests have read");
    lab.assert_percent("fetched for two boots, of one", fetched(&report), fetched(&lab.recorded), 110);
}

#[test]
fn run_ends_as_its_command_does() {
    let Some(_) = need(find_tool("qemu-img", "qemu-utils")) else { return };
    let swarmdisk = Swarmdisk::find();
    let folder = work_folder().join("run");
    fs::create_dir_all(&folder).unwrap();
    let (raw, packed) = (folder.join("raw"), folder.join("packed.swarm"));
    fs::write(&raw, [7; 1 << 20]).unwrap();
    swarmdisk.succeed(args(&["pack", text(&raw), text(&packed)]));
    let (seed, reference) = swarmdisk.seed([&packed]);
    let cache = folder.join("cache");
    let run = |command: &[&str]| {
        swarmdisk.run(args(&["run", &reference, "--cache", text(&cache), "--"]).into_iter().chain(args(command)))
    };
    let info = run(&["qemu-img", "info", "{disk}"]);
    assert_eq!(info.status.code(), Some(0), "{}", info.stderr);
    assert!(info.stdout.contains("1 MiB (1048576 bytes)"), "{}", info.stdout);
    let compared = run(&["qemu-img", "compare", "-f", "raw", "-F", "raw", "{disk}", text(&raw)]);
    assert_eq!(compared.status.code(), Some(0), "{}{}", compared.stdout, compared.stderr);
    assert_eq!(run(&["qemu-img", "info", "/no/such/file"]).status.code(), Some(1));
    assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), Some(128 + 9));
    assert_eq!(run(&["/no/such/command"]).status.code(), Some(127));
    seed.stop();
}

/// What the tests share.
struct Lab {
    swarmdisk: Swarmdisk,
    qemu: Qemu,
    appliance: Appliance,
    folder: PathBuf,
    /// The appliance, packed.
    image: PathBuf,
    allocated_bytes: u64,
    /// Of a boot of one node, without a profile.
    trace: PathBuf,
    recorded: AttachReport,
    /// What that node has kept.
    cache: PathBuf,
    /// Made of the trace.
    profile: PathBuf,
}

impl Lab {
    /// Packs the appliance and records a boot of it, the first time.
    fn get() -> Option<&'static Self> {
        static LAB: OnceLock<Option<Lab>> = OnceLock::new();
        LAB.get_or_init(|| {
            let (qemu, appliance) = (need(Qemu::find())?, need(Appliance::get())?);
            Some(Self::set_up(qemu, appliance))
        })
        .as_ref()
    }

    fn set_up(qemu: Qemu, appliance: Appliance) -> Self {
        let _turn = turn();
        let folder = work_folder();
        let mut lab = Self {
            swarmdisk: Swarmdisk::find(),
            qemu,
            allocated_bytes: fs::metadata(&appliance.disk).unwrap().blocks() * 512,
            appliance,
            image: folder.join("appliance.swarm"),
            trace: folder.join("recorded.trace"),
            recorded: AttachReport::default(),
            cache: folder.join("recorded"),
            profile: folder.join("profile"),
            folder,
        };
        let began = Instant::now();
        lab.swarmdisk.succeed(args(&["pack", text(&lab.appliance.disk), text(&lab.image)]));
        println!("packed {} MB in {:.1} s", mb(lab.allocated_bytes), began.elapsed().as_secs_f64());

        let (seed, reference) = lab.swarmdisk.seed([&lab.image]);
        let node = lab.node(&reference, &lab.cache, &[]);
        drop(lab.boot(&node.uri, Boot::Direct(&lab.appliance)));
        lab.recorded = node.stop();
        seed.stop();
        lab.show("recorded without a profile", &lab.recorded);

        let build = ["profile", "build", text(&lab.trace), "--image", text(&lab.image), "-o", text(&lab.profile)];
        lab.swarmdisk.succeed(args(&build));
        lab
    }

    /// A folder of one test's own.
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The origin, behind a link of its own, with the profile.
    fn seed(&self) -> (Process, String) {
        self.swarmdisk.seed(args(&[text(&self.image), "--limit-up", LINK, "--profile", text(&self.profile)]))
    }

    /// A node behind a link of its own; what it keeps is in `cache`, its socket, trace and report lie beside that.
    fn node(&self, reference: &str, cache: &Path, more: &[&str]) -> Node {
        let [socket, trace, report] = ["sock", "trace", "json"].map(|extension| cache.with_extension(extension));
        let nbd = format!("unix:{}", text(&socket));
        let mut words = vec![reference, "--nbd", &nbd, "--cache", text(cache), "--report", text(&report)];
        // A later attachment of the same cache reads this one's trace.
        if !trace.exists() {
            words.extend(["--record", text(&trace)]);
        }
        words.extend(["--limit-up", LINK]);
        if !more.contains(&"--limit-down") {
            words.extend(["--limit-down", LINK]);
        }
        words.extend(more);
        let (process, uri) = self.swarmdisk.attach(args(&words));
        Node { process, uri, report }
    }

    /// Starts a replay that compares all that it reads with the image.
    fn replay(&self, trace: &Path, uri: &str, speed: &str) -> Process {
        let words = ["replay", text(trace), "--disk", uri, "--speed", speed, "--json"];
        let verify = ["--verify", text(&self.appliance.disk)];
        self.swarmdisk.spawn(args(&words).into_iter().chain(args(&verify)))
    }

    #[track_caller]
    fn boot(&self, uri: &str, boot: Boot<'_>) -> Booted {
        let booted = self.qemu.boot(&Machine::new(uri, boot), BOOT_DEADLINE).unwrap();
        println!("booted in {:.1} s: {}", booted.took.as_secs_f64(), booted.line);
        assert!(booted.is_healthy(), "{}", booted.line);
        booted
    }

    fn show(&self, name: &str, report: &AttachReport) {
        let percent = percent(fetched(report), self.allocated_bytes);
        println!("{name}: fetched {percent:.2} % of {} MB allocated", mb(self.allocated_bytes));
        println!("{report}\n");
    }

    #[track_caller]
    fn assert_percent(&self, name: &str, part: u64, whole: u64, limit: u64) {
        let is_within = part * 100 <= whole * limit;
        println!("{name}: {} of {} MB, {:.2} % (at most {limit} %)", mb(part), mb(whole), percent(part, whole));
        assert!(is_within, "{name}: {:.2} %, more than {limit} %", percent(part, whole));
    }
}

/// An image attached.
struct Node {
    process: Process,
    uri: String,
    report: PathBuf,
}

impl Node {
    fn stop(self) -> AttachReport {
        self.process.stop();
        serde_json::from_slice(&fs::read(&self.report).unwrap()).unwrap()
    }

    fn status(&self, swarmdisk: &Swarmdisk) -> ImageStatus {
        let found: Vec<Status> = serde_json::from_str(&swarmdisk.succeed(["status", "--json"])).unwrap();
        let own = found.into_iter().find(|status| status.pid == self.process.pid());
        own.expect("a node that runs has a status").images.remove(0)
    }
}

/// One machine boots at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A folder of this process's own, on the disk that the build is on; those of processes that are gone are removed.
fn work_folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in fs::read_dir(all).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix("boot-");
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
        let folder = all.join(format!("boot-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    };
    FOLDER.get_or_init(make).clone()
}

#[track_caller]
fn replay_report(replay: Process) -> ReplayReport {
    let finished = replay.wait(BOOT_DEADLINE);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

fn fetched(report: &AttachReport) -> u64 {
    report.fetched_bytes.origin + report.fetched_bytes.peers
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the build's folder has a name in UTF-8")
}

fn args(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
