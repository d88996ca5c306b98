//! The commands of `swarmdisk.exe` as a user of Windows runs them, each in a process of its own.
#![cfg(windows)]

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tempfile::TempDir;
use windows_sys::Win32::Foundation::CloseHandle;
use windows_sys::Win32::System::Threading::{EVENT_MODIFY_STATE, OpenEventW, SetEvent};

const CHUNK: usize = 1 << 16;

fn command<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmdisk"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Output {
    command(arguments).output().unwrap()
}

/// What a command prints that succeeds.
#[track_caller]
fn succeed<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let output = run(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complains about, in one line, that fails with this status.
#[track_caller]
fn fail<A: AsRef<OsStr>>(status: i32, arguments: &[A]) -> String {
    let output = run(arguments);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{complaint}");
    assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
    assert!(output.stdout.is_empty());
    complaint
}

/// A seed or a node; killed when it is dropped.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    first_line: String,
}

impl Running {
    #[track_caller]
    fn start<A: AsRef<OsStr>>(arguments: &[A]) -> Self {
        let mut command = command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first_line = String::new();
        output.read_line(&mut first_line).unwrap();
        assert!(!first_line.is_empty(), "it has ended");
        Self { child, output, first_line: first_line.trim_end().to_owned() }
    }

    fn uri(&self) -> &str {
        self.first_line.strip_prefix("ready ").unwrap()
    }

    /// Asks it to end by its event; it must end as it does by itself.
    #[track_caller]
    fn stop(mut self) {
        let name = format!(r"Local\swarmdisk-end-{}", self.child.id());
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        // SAFETY: the name ends with a zero and outlives the call; the handle is closed once, by who has opened it.
        unsafe {
            let event = OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr());
            assert!(!event.is_null(), "{}", std::io::Error::last_os_error());
            assert_ne!(SetEvent(event), 0);
            CloseHandle(event);
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing else goes to stdout");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A raw image, packed, and a trace that reads all of it.
struct Fixture {
    folder: TempDir,
    id: String,
}

impl Fixture {
    fn of_chunks(chunks: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let mut state = 7u64;
        let mut image = Vec::with_capacity(chunks * CHUNK);
        for chunk in 0..chunks {
            for _ in 0..CHUNK / 8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Every fourth chunk is noise, every fourth zeros.
                let word = [state, 0, chunk as u64, state >> 56][chunk % 4];
                image.extend(word.to_le_bytes());
            }
        }
        fs::write(folder.path().join("disk.raw"), &image).unwrap();
        let reads = (0..chunks).map(|chunk| format!("{} R {} {CHUNK}\n", chunk * 300, chunk * CHUNK));
        fs::write(folder.path().join("boot.trace"), reads.collect::<String>()).unwrap();
        let mut fixture = Self { folder, id: String::new() };
        let (raw, swarm) = (fixture.text("disk.raw"), fixture.text("disk.swarm"));
        fixture.id = succeed(&["pack", &raw, &swarm]).trim().to_owned();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn seed(&self) -> Running {
        Running::start(&["seed", &self.text("disk.swarm")])
    }

    /// Reads the whole disk and compares it with the raw image.
    #[track_caller]
    fn read_all(&self, uri: &str) {
        let result = succeed(&[
            "replay",
            &self.text("boot.trace"),
            "--disk",
            uri,
            "--speed",
            "1000",
            "--verify",
            &self.text("disk.raw"),
            "--json",
        ]);
        let result: Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["mismatches"], 0);
        assert_eq!(result["bytes"].as_u64(), Some(fs::metadata(self.path("disk.raw")).unwrap().len()));
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_image_goes_from_a_seed_to_a_node_and_on_to_the_next() {
    let fixture = Fixture::of_chunks(100);
    let seed = fixture.seed();
    assert!(seed.first_line.starts_with("swarm://127.0.0.1:") && seed.first_line.ends_with(&fixture.id));
    let (cache, report) = (fixture.text("cache"), fixture.text("report.json"));
    let first =
        Running::start(&["attach", &seed.first_line, "--nbd", "127.0.0.1:0", "--cache", &cache, "--report", &report]);
    fixture.read_all(first.uri());

    // It is found, and says where others reach it.
    let all: Vec<Value> = serde_json::from_str(&succeed(&["status", "--json"])).unwrap();
    let status = |running: &Running| all.iter().find(|one| one["pid"] == running.child.id()).unwrap();
    assert_eq!((&status(&seed)["role"], &status(&first)["role"]), (&"seed".into(), &"node".into()));
    assert_eq!(status(&first)["place"], first.uri());

    // The cache is whole, and in use.
    assert!(fail(1, &["check", "--cache", &cache, "--repair"]).contains("in use"));
    first.stop();
    seed.stop();
    let report = json(&fixture.path("report.json"));
    assert_eq!(report["guest_read_bytes"], 100 * CHUNK as u64);
    assert!(report["fetched_bytes"]["origin"].as_u64().unwrap() > 25 * CHUNK as u64, "{report:#}");
    succeed(&["check", "--cache", &cache]);

    // It is the origin's file, and needs no network.
    let whole = fixture.path("cache").join(format!("{}.swarm", fixture.id));
    assert!(fs::read(&whole).unwrap() == fs::read(fixture.path("disk.swarm")).unwrap());
    let alone = Running::start(&["attach", whole.to_str().unwrap(), "--nbd", "127.0.0.1:0"]);
    fixture.read_all(alone.uri());
    alone.stop();
}

#[test]
fn a_command_runs_on_its_disk_and_gives_its_status() {
    let fixture = Fixture::of_chunks(20);
    let (own, trace, raw, swarm) = (
        env!("CARGO_BIN_EXE_swarmdisk"),
        fixture.text("boot.trace"),
        fixture.text("disk.raw"),
        fixture.text("disk.swarm"),
    );
    let run_replay =
        ["run", &swarm, "--", own, "replay", &trace, "--disk", "{disk}", "--speed", "1000", "--verify", &raw, "--json"];
    let result: Value = serde_json::from_str(&succeed(&run_replay)).unwrap();
    assert_eq!((&result["mismatches"], &result["reads"]), (&0.into(), &20.into()));
    for (command, status) in [("exit 0", 0), ("exit 37", 37)] {
        assert_eq!(run(&["run", &swarm, "--", "cmd", "/c", command]).status.code(), Some(status));
    }
    assert_eq!(run(&["run", &swarm, "--", "no-such-program"]).status.code(), Some(127));
}

#[test]
fn paths_may_be_longer_than_windows_by_itself_allows() {
    let fixture = Fixture::of_chunks(20);
    let deep = (0..8).fold(fixture.path("deep"), |path, _| path.join("a".repeat(50)));
    fs::create_dir_all(&deep).unwrap();
    let in_deep = |name: &str| deep.join(name).to_str().unwrap().to_owned();
    assert!(in_deep("").len() > 400);
    let (raw, swarm, report) = (fixture.text("disk.raw"), in_deep("disk.swarm"), in_deep("report.json"));
    assert_eq!(succeed(&["pack", &raw, &swarm]).trim(), fixture.id);
    let seed = Running::start(&["seed", &swarm]);
    let node = Running::start(&[
        "attach",
        &seed.first_line,
        "--nbd",
        "127.0.0.1:0",
        "--cache",
        &in_deep("cache"),
        "--overlay",
        &in_deep("guest.overlay"),
        "--report",
        &report,
    ]);
    fixture.read_all(node.uri());
    node.stop();
    seed.stop();
    assert_eq!(json(Path::new(&report))["guest_reads"], 20);
    succeed(&["check", &swarm]);
    succeed(&["check", "--cache", &in_deep("cache")]);
    assert!(succeed(&["overlay", "info", &in_deep("guest.overlay")]).contains(&fixture.id));
}

#[test]
fn what_a_seed_has_open_can_be_packed_anew() {
    let fixture = Fixture::of_chunks(20);
    let (raw, swarm) = (fixture.text("disk.raw"), fixture.text("disk.swarm"));
    let seed = fixture.seed();
    // The seed keeps the file that it has opened.
    assert_ne!(succeed(&["pack", &raw, &swarm, "--chunk-size", "16K"]).trim(), fixture.id);
    let node = Running::start(&["attach", &seed.first_line, "--nbd", "127.0.0.1:0", "--cache", &fixture.text("cache")]);
    fixture.read_all(node.uri());
    node.stop();
    seed.stop();
}

#[test]
fn a_recorded_boot_becomes_a_profile() {
    let fixture = Fixture::of_chunks(20);
    let (trace, swarm, profile) =
        (fixture.text("recorded.trace"), fixture.text("disk.swarm"), fixture.text("disk.profile"));
    let node = Running::start(&["attach", &swarm, "--nbd", "127.0.0.1:0", "--record", &trace]);
    fixture.read_all(node.uri());
    node.stop();
    succeed(&["profile", "build", &trace, "--image", &swarm, "-o", &profile]);
    let shown: Value = serde_json::from_str(&succeed(&["profile", "show", &profile, "--json"])).unwrap();
    assert_eq!(shown["image"], fixture.id);
}

#[test]
fn what_windows_has_not_is_refused_in_one_line() {
    let fixture = Fixture::of_chunks(4);
    let swarm = fixture.text("disk.swarm");
    for (way, says) in [
        (&["--nbd", "unix:C:\\disk.sock"][..], "choose --nbd 127.0.0.1:0"),
        (&["--ublk"], "ublk is Linux's; choose --nbd here"),
        (&["--vhost-user", "C:\\disk.sock"], "vhost-user is Linux's; choose --nbd here"),
    ] {
        let complaint = fail(2, &[&["attach", &swarm], way].concat());
        assert!(complaint.contains(says), "{complaint}");
    }
    assert!(fail(1, &["demo", "--vm"]).contains("needs Linux"));
    assert!(
        fail(1, &["replay", &fixture.text("boot.trace"), "--disk", "nbd+unix:///?socket=/x"])
            .contains("not supported here")
    );
    // Windows' own words for what it refuses.
    assert!(fail(1, &["check", &fixture.text("missing.swarm")]).contains("(os error 2)"));
}

#[test]
fn the_demo_measures_all_ways_and_leaves_nothing() {
    let temp = TempDir::new().unwrap();
    let mut demo = command(&["demo", "--nodes", "2", "--speed", "100", "--link", "1gbit", "--json"]);
    let output = demo.env("TMP", temp.path()).env("TEMP", temp.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["mismatches"], &found["nodes"]), (&0.into(), &2.into()));
    let ways = found["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 4);
    // Asked to end, the nodes have written their reports.
    assert!(ways[3]["server_sent_bytes"].as_u64().unwrap() > 0, "{found:#}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
