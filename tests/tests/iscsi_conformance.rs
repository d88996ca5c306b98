//! The iSCSI target and libiscsi's conformance suite: of the program on Linux, and of `swarmdisk.exe` under Wine, with the
//! same list of what is skipped, which is published in docs/iscsi.md.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use swarmdisk_tests::fixture::Fixture;
use swarmdisk_tests::images::write_mixed;
use swarmdisk_tests::process::{Process, RUN_DEADLINE};
use swarmdisk_tests::skip::{find_tool, need};
use swarmdisk_tests::windows::{WindowsSwarmdisk, seen};

/// More than a WRITE SAME may change, so that its bound is tested too.
const IMAGE_BYTES: u64 = (513 << 20) + 4096;
/// All behind them is zeros.
const MIXED_BYTES: u64 = 100 << 20;

/// Tests of libiscsi's suite that skip, wholly or in part, and why: suite, test (all, if none), reason.
const SKIPPED: &[(&str, &[&str], &str)] = &[
    ("ExtendedCopy", &[], "EXTENDED COPY is not offered"),
    ("NoMedia", &[], "they are for media that can be removed"),
    ("PreventAllow", &[], "they are for media that can be removed; the command itself is answered"),
    ("ReadDefectData10", &[], "READ DEFECT DATA is not offered"),
    ("ReadDefectData12", &[], "READ DEFECT DATA is not offered"),
    ("ReceiveCopyResults", &[], "RECEIVE COPY RESULTS is not offered"),
    ("Reserve6", &[], "RESERVE and RELEASE of SCSI-2 are not offered; persistent reservations are"),
    ("Sanitize", &[], "SANITIZE is not offered"),
    ("StartStopUnit", &[], "they are for media that can be removed; the command itself is answered"),
    ("WriteAtomic16", &[], "WRITE ATOMIC is not offered"),
];

/// How a test says that it skips, wholly or in part: one of MODE SENSE in words of its own.
const SKIPS: [&str; 2] = ["[SKIPPED]", "SWP is not changeable"];

/// Of a disk that cannot be written to.
const READ_ONLY: &str = "ReadOnly";
/// Over two sessions at once.
const MULTIPATH: &str = "MultipathIO";
/// Asks for the status of one block, and expects that of the first of the next physical block: both are one with physical
/// blocks of 512 bytes alone.
const SMALL_BLOCKS: (&str, &str) = ("GetLBAStatus", "UnmapSingle");

/// The URIs of one image, attached in three ways.
struct Targets {
    writable: String,
    read_only: String,
    small_blocks: String,
}

/// What a test of the suite came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tested {
    suite: String,
    name: String,
    is_passed: bool,
    is_skipped: bool,
    said: String,
}

struct Suite {
    tool: PathBuf,
    /// Names of all that there is.
    listed: String,
}

impl Suite {
    fn find() -> Option<Self> {
        let tool = need(find_tool("iscsi-test-cu", "libiscsi-bin"))?;
        let mut command = Command::new(&tool);
        command.arg("--list");
        let listed = Process::start(command).wait(RUN_DEADLINE).stdout;
        Some(Self { tool, listed })
    }

    /// All tests, each suite in a process of its own: what CompareAndWrite does to the units that it sends, it goes on doing.
    fn run(&self, targets: &Targets) -> Vec<Tested> {
        let is_suite =
            |line: &&str| line.matches('.').count() == 1 && (line.starts_with("SCSI.") || line.starts_with("iSCSI."));
        let suites: Vec<&str> = self.listed.lines().filter(is_suite).collect();
        suites.into_iter().flat_map(|suite| self.run_suite(suite, targets)).collect()
    }

    fn run_suite(&self, suite: &str, targets: &Targets) -> Vec<Tested> {
        let name = suite.rsplit('.').next().unwrap_or(suite);
        match name {
            READ_ONLY => self.run_one(suite, name, &[&targets.read_only]),
            MULTIPATH => self.run_one(suite, name, &[&targets.writable, &targets.writable]),
            name if name == SMALL_BLOCKS.0 => {
                let own = self.listed.lines().filter(|line| line.starts_with(&format!("{suite}.")));
                let run = |test: &str| {
                    let is_small = test.ends_with(SMALL_BLOCKS.1);
                    let uri = if is_small { &targets.small_blocks } else { &targets.writable };
                    self.run_one(test, name, &[uri])
                };
                own.flat_map(run).collect()
            }
            _ => self.run_one(suite, name, &[&targets.writable]),
        }
    }

    fn run_one(&self, tests: &str, suite: &str, uris: &[&str]) -> Vec<Tested> {
        let mut command = Command::new(&self.tool);
        // Some say that they skip only where all is told.
        command.args(["-d", "-S", "-V", "-t", tests]).args(uris);
        let finished = Process::start(command).wait(RUN_DEADLINE);
        let said = [finished.stdout, finished.stderr].concat();
        let tested = said.split("  Test: ").skip(1).map(|part| Tested {
            suite: suite.to_owned(),
            name: part.split(" ...").next().unwrap_or_default().to_owned(),
            is_passed: has_verdict(part, "passed") && !has_verdict(part, "FAILED"),
            is_skipped: SKIPS.iter().any(|skips| part.contains(skips)),
            said: part.to_owned(),
        });
        let tested: Vec<Tested> = tested.collect();
        assert!(!tested.is_empty(), "{tests}: {said}");
        tested
    }
}

/// Whether a test ended so: the suite says it behind the test's name, or behind all that the test has told.
fn has_verdict(said: &str, verdict: &str) -> bool {
    said.contains(&format!(" ...{verdict}")) || said.lines().any(|line| line.starts_with(verdict))
}

/// None failed, and those that skipped are the listed ones.
fn check(all: &[Tested]) {
    let failed: Vec<&Tested> = all.iter().filter(|test| !test.is_passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for test in all {
        let may_skip = reason(&test.suite, &test.name).is_some();
        assert_eq!(test.is_skipped, may_skip, "{}.{}: {}", test.suite, test.name, test.said);
    }
    println!("{} of {} tests passed, the others were skipped", count_passed(all), all.len());
    check_list(all);
}

fn reason(suite: &str, test: &str) -> Option<&'static str> {
    let applies = |tests: &[&str]| tests.is_empty() || tests.contains(&test);
    SKIPPED.iter().find(|(name, tests, _)| *name == suite && applies(tests)).map(|(_, _, reason)| *reason)
}

fn count_passed(all: &[Tested]) -> usize {
    all.iter().filter(|test| !test.is_skipped).count()
}

/// The published list is the one that was found.
fn check_list(all: &[Tested]) {
    const BEGIN: &str = "<!-- found by tests/tests/iscsi_conformance.rs -->\n";
    let mut list = format!(
        "Of {} tests of libiscsi 1.19's `iscsi-test-cu`, {} pass, none fails, and {} say that they skip, on Linux and of \
         `swarmdisk.exe` under Wine alike:\n\n| suite | tests | why |\n|---|---|---|\n",
        all.len(),
        count_passed(all),
        all.len() - count_passed(all),
    );
    for (suite, tests, reason) in SKIPPED {
        let tests = if tests.is_empty() { "all".to_owned() } else { tests.join(", ") };
        writeln!(list, "| {suite} | {tests} | {reason} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/iscsi.md");
    let written = fs::read_to_string(&path).unwrap();
    let (head, found) = written.split_once(BEGIN).expect("the page has a place for the list");
    if std::env::var_os("SWARMDISK_BLESS").is_some() {
        fs::write(&path, [head, BEGIN, &list].concat()).unwrap();
    } else {
        assert_eq!(found, list, "run it with SWARMDISK_BLESS=1");
    }
}

fn pack() -> Fixture {
    Fixture::of(|raw| {
        write_mixed(raw, MIXED_BYTES, 24);
        File::options().write(true).open(raw).unwrap().set_len(IMAGE_BYTES).unwrap();
    })
}

/// Attached in three ways, by `attach`, which is given the arguments after the image.
fn attach_all(attach: impl Fn(&[&str]) -> (Process, String)) -> (Targets, Vec<Process>) {
    let own = ["--iscsi", "127.0.0.1:0"];
    let overlay = ["--overlay", "memory:1G"];
    let (first, writable) = attach(&[&own[..], &overlay].concat());
    let (second, read_only) = attach(&own);
    let (third, small_blocks) = attach(&[&own[..], &overlay, &["--physical-block", "512"]].concat());
    (Targets { writable, read_only, small_blocks }, vec![first, second, third])
}

#[test]
fn the_conformance_suite_passes_but_for_what_is_listed() {
    let Some(suite) = Suite::find() else { return };
    let fixture = pack();
    let swarm = fixture.swarm.to_str().unwrap();
    let (targets, nodes) = attach_all(|arguments| fixture.swarmdisk.attach([&[swarm], arguments].concat()));
    let all = suite.run(&targets);
    nodes.into_iter().for_each(|node| drop(node.stop()));
    check(&all);
}

#[test]
fn the_conformance_suite_passes_under_wine_too() {
    let Some(windows) = need(WindowsSwarmdisk::find()) else { return };
    let Some(suite) = Suite::find() else { return };
    let fixture = pack();
    let swarm = seen(&fixture.swarm);
    let attach = |arguments: &[&str]| {
        let node = windows.spawn(&[&["attach", &swarm], arguments].concat());
        let uri = node.wait_for_line("ready ").trim_end().strip_prefix("ready ").unwrap().to_owned();
        (node, uri)
    };
    let (targets, _nodes) = attach_all(attach);
    check(&suite.run(&targets));
}
