//! `swarmdisk-sim sweep` as a command: rows in grid order, whatever the threads, the shards, and the interruptions.
//!
//! Runs are of three nodes and twenty chunks. Where a sweep has to be stopped midway, it is tried again until it was.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

const SCENARIO: &str =
    "[[group]]\ncount = 3\n[[image]]\nsize = \"16M\"\n[[workload]]\nchunks = 20\nthink = \"100us\"\n";
const GRID: &[&str] = &["--grid", "group.0.count=3,2", "--grid", "network.rack-rtt=1ms,10ms", "--seeds", "1..3"];
/// Long enough to be stopped midway.
const LONG: &[&str] = &["--seeds", "1..60", "--threads", "1"];

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("small.toml"), SCENARIO).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmdisk-sim"));
        command.arg("sweep").args(arguments).current_dir(self.folder.path());
        for variable in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"] {
            command.env_remove(variable);
        }
        command
    }

    /// A sweep that comes to its end; gives what it says.
    fn sweep(&self, out: &str, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = end(self.command(&["small.toml", "--out", out]).args(arguments).output().unwrap());
        assert_eq!(code, Some(0), "{stderr}");
        assert!(!self.path(&format!("{out}.part")).exists());
        stdout
    }

    /// One that does not; gives its last line.
    fn refused(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = end(self.command(arguments).output().unwrap());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        stderr.lines().last().unwrap_or_default().to_owned()
    }

    /// Starts a sweep and stops it in `stop`'s way when it has so many rows; gives its end.
    fn stop_midway(&self, arguments: &[&str], rows: usize, stop: fn(&mut Child)) -> Output {
        let part = self.path("a.csv.part");
        loop {
            let mut command = self.command(&["small.toml", "--out", "a.csv"]);
            let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            while fs::read_to_string(&part).map_or(0, |text| text.lines().count()) <= rows {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                sleep(Duration::from_millis(1));
            }
            stop(&mut child);
            let output = child.wait_with_output().unwrap();
            if part.exists() {
                return output;
            }
            // It was faster.
            assert_eq!(end(output).0, Some(0));
            fs::remove_file(self.path("a.csv")).unwrap();
        }
    }
}

#[cfg(unix)]
fn interrupt(child: &mut Child) {
    // It may just have ended.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::INT);
}

fn end(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The columns that do not depend on the machine.
fn without_wall(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.rsplit_once(',').unwrap().0).collect()
}

/// The first columns of each row.
fn heads(text: &str, columns: usize) -> Vec<String> {
    let head = |line: &str| line.split(',').take(columns).collect::<Vec<_>>().join(",");
    text.lines().skip(1).map(head).collect()
}

/// What is in a column of a row, counted from 1.
fn field<'a>(text: &'a str, row: usize, name: &str) -> &'a str {
    let column = text.lines().next().unwrap().split(',').position(|column| column == name).unwrap();
    text.lines().nth(row).unwrap().split(',').nth(column).unwrap()
}

#[test]
fn rows_come_in_grid_order_whatever_the_threads() {
    let bench = Bench::new();
    let said = bench.sweep("one.csv", &[GRID, &["--threads", "1"]].concat());
    assert!(said.starts_with("one.csv: 12 points, 0 of them from before, 12 in "), "{said}");
    bench.sweep("two.csv", &[GRID, &["--threads", "2"]].concat());
    let text = bench.text("one.csv");
    assert_eq!(without_wall(&text), without_wall(&bench.text("two.csv")));
    assert!(text.starts_with("point,group.0.count,network.rack-rtt,seed,digest,nodes,booted,virtual_seconds,"));
    let places = ["3,1ms", "3,10ms", "2,1ms", "2,10ms"];
    let expected = places.iter().flat_map(|values| (1..=3).map(move |seed| (values, seed)));
    let expected: Vec<String> = expected.zip(1..).map(|((values, seed), n)| format!("{n},{values},{seed}")).collect();
    assert_eq!(heads(&text, 4), expected);
    // Each point is a run of its own, and all of its guests have booted.
    for row in 1..=12 {
        let count = field(&text, row, "group.0.count");
        assert_eq!((field(&text, row, "nodes"), field(&text, row, "booted")), (count, count));
    }
    let mut digests: Vec<&str> = (1..=12).map(|row| field(&text, row, "digest")).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 12);
}

#[test]
fn a_row_says_what_the_outcome_says() {
    use swarmdisk_sim::{model::Setup, outcome, scenario};
    let bench = Bench::new();
    bench.sweep("a.csv", GRID);
    let set = [("group.0.count", "2"), ("network.rack-rtt", "1ms")].map(|(key, value)| (key.into(), value.into()));
    let scenario = scenario::load_with(&bench.path("small.toml"), &set).unwrap();
    let outcome = outcome::run(&Setup::new(scenario, 2).unwrap(), |_| true);
    let text = bench.text("a.csv");
    let totals = &outcome.totals;
    for (name, value) in [
        ("point", "8".to_owned()),
        ("digest", outcome.digest.clone()),
        ("virtual_seconds", format!("{:.6}", outcome.virtual_micros as f64 / 1e6)),
        ("run_micros_p95", totals.run_micros.p95.to_string()),
        ("run_over_local_max", format!("{:.6}", totals.run_over_local.max)),
        ("run_over_bound_min", format!("{:.6}", totals.run_over_bound.min)),
        ("stall_micros_p50", totals.stall_micros.p50.to_string()),
        ("origin_bytes", totals.origin_bytes.to_string()),
        ("peer_bytes", totals.peer_bytes.to_string()),
        ("metadata_bytes", totals.metadata_bytes.to_string()),
        ("frames", totals.frames.to_string()),
        ("events", outcome.event_count.to_string()),
        ("points", "12".to_owned()),
    ] {
        assert_eq!(field(&text, 8, name), value, "{name}");
    }
}

#[test]
fn where_no_guest_has_booted_there_are_no_times() {
    let bench = Bench::new();
    bench.sweep("a.csv", &["--grid", "limit=1ms,600s"]);
    let text = bench.text("a.csv");
    assert_eq!((field(&text, 1, "booted"), field(&text, 2, "booted")), ("0", "3"));
    for name in ["run_micros_p50", "run_over_local_max", "run_over_bound_min"] {
        assert_eq!(field(&text, 1, name), "");
        assert_ne!(field(&text, 2, name), "");
    }
}

#[test]
fn a_killed_sweep_goes_on_where_it_was() {
    let bench = Bench::new();
    bench.stop_midway(LONG, 4, |child| child.kill().unwrap());
    let part = bench.text("a.csv.part");
    let before = &part[..=part.rfind('\n').unwrap()];
    let kept = before.lines().count() - 1;
    assert!((4..60).contains(&kept), "{kept}");
    // As if it had been killed in the midst of a row.
    fs::write(bench.path("a.csv.part"), format!("{before}60,60,0123")).unwrap();
    let said = bench.sweep("a.csv", LONG);
    assert!(said.starts_with(&format!("a.csv: 60 points, {kept} of them from before, ")), "{said}");
    let after = bench.text("a.csv");
    // With the time that each took at first: none was run again.
    assert!(before.lines().all(|row| after.lines().any(|line| line == row)), "{before}{after}");
    bench.sweep("whole.csv", LONG);
    assert_eq!(without_wall(&after), without_wall(&bench.text("whole.csv")));
    // Nothing is left to do, and nothing is done.
    let said = bench.sweep("a.csv", LONG);
    assert!(said.starts_with("a.csv: 60 points, 60 of them from before, 0 in "), "{said}");
    assert_eq!(bench.text("a.csv"), after);
}

#[test]
fn what_a_power_cut_leaves_is_no_row() {
    let bench = Bench::new();
    bench.sweep("a.csv", &["--seeds", "1..4"]);
    let whole = bench.text("a.csv");
    let lines: Vec<&str> = whole.lines().collect();
    fs::remove_file(bench.path("a.csv")).unwrap();
    let head = &lines[0];
    let parts = [
        (String::new(), 0),
        ("poi".to_owned(), 0),
        (head[..head.len() - 5].to_owned(), 0),
        (format!("{head}\n{}\n{}", lines[1], lines[2]), 1),
        (format!("{head}\n{}\n{}\n\0\0\0\n", lines[1], lines[3]), 2),
    ];
    for (part, kept) in parts {
        fs::write(bench.path("a.csv.part"), &part).unwrap();
        let said = bench.sweep("a.csv", &["--seeds", "1..4"]);
        assert!(said.starts_with(&format!("a.csv: 4 points, {kept} of them from before, ")), "{part}: {said}");
        assert_eq!(without_wall(&bench.text("a.csv")), without_wall(&whole));
        fs::remove_file(bench.path("a.csv")).unwrap();
    }
    fs::write(bench.path("a.csv.part"), format!("{head}\n{}\nbad\n{}\n", lines[1], lines[3])).unwrap();
    let error = bench.refused(&["small.toml", "--out", "a.csv", "--seeds", "1..4"]);
    assert!(error.contains("a.csv.part:3: this row is damaged; remove it"), "{error}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_is_done() {
    let bench = Bench::new();
    let output = bench.stop_midway(LONG, 4, interrupt);
    let (code, stdout, stderr) = end(output);
    assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
    let kept = bench.text("a.csv.part").lines().count() - 1;
    let line = format!("interrupted; {kept} of 60 points are kept in a.csv.part: the same command goes on from there");
    assert!(stderr.ends_with(&format!("{line}\n")), "{stderr}");
    assert!(!bench.path("a.csv").exists());
    let said = bench.sweep("a.csv", LONG);
    assert!(said.starts_with(&format!("a.csv: 60 points, {kept} of them from before, ")), "{said}");
}

#[cfg(unix)]
#[test]
fn a_run_that_was_cut_short_is_no_row() {
    let bench = Bench::new();
    let arguments =
        ["--set", "image.0.size=256M", "--set", "workload.0.chunks=3000", "--grid", "group.0.count=1,40,39"];
    let output = bench.stop_midway(&[&arguments[..], &["--threads", "1"]].concat(), 1, interrupt);
    assert_eq!(end(output).0, Some(130));
    assert_eq!(heads(&bench.text("a.csv.part"), 2), ["1,1"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_costs_no_row() {
    let bench = Bench::new();
    // Files of at most eight blocks stand for a disk that is full.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", limited, env!("CARGO_BIN_EXE_swarmdisk-sim"), "sweep", "small.toml", "--out", "a.csv"])
        .args(LONG);
    let (code, _, stderr) = end(shell.current_dir(bench.folder.path()).output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("cannot write a.csv.part: "), "{stderr}");
    let before = bench.text("a.csv.part");
    assert!(before.ends_with('\n'));
    let kept = before.lines().count() - 1;
    assert!(kept > 0, "{before}");
    let said = bench.sweep("a.csv", LONG);
    assert!(said.starts_with(&format!("a.csv: 60 points, {kept} of them from before, ")), "{said}");
}

#[test]
fn shards_merge_to_what_one_run_gives() {
    let bench = Bench::new();
    bench.sweep("whole.csv", GRID);
    let said = bench.sweep("1.csv", &[GRID, &["--shard", "1/3"]].concat());
    assert!(said.starts_with("1.csv: 4 of 12 points, "), "{said}");
    bench.sweep("3.csv", &[GRID, &["--shard", "3/3"]].concat());
    assert_eq!(heads(&bench.text("3.csv"), 1), ["3", "6", "9", "12"]);

    let error = bench.refused(&["merge", "all.csv", "1.csv", "3.csv"]);
    assert!(error.contains("missing points of 12: 2, 5, 8, 11; run their shards again"), "{error}");
    assert!(!bench.path("all.csv").exists());
    let merge = |arguments: &[&str]| {
        let (code, stdout, stderr) = end(bench.command(&["merge", "all.csv"]).args(arguments).output().unwrap());
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    assert_eq!(merge(&["1.csv", "3.csv", "--partial"]), "all.csv: 8 of 12 points\n");

    // The last one as an array job has it; parts may overlap.
    let mut second = bench.command(&["small.toml", "--out", "2.csv", "--shard", "auto"]);
    second.args(GRID).env("JOB_COMPLETION_INDEX", "1").env("JOB_COMPLETIONS", "3");
    assert!(second.output().unwrap().status.success());
    assert_eq!(heads(&bench.text("2.csv"), 1), ["2", "5", "8", "11"]);
    assert_eq!(merge(&["2.csv", "3.csv", "whole.csv"]), "all.csv: 12 of 12 points\n");
    assert_eq!(without_wall(&bench.text("all.csv")), without_wall(&bench.text("whole.csv")));
}

#[test]
fn parts_that_do_not_belong_together_are_not_merged() {
    let bench = Bench::new();
    bench.sweep("a.csv", &["--seeds", "1..2"]);
    bench.sweep("b.csv", &["--seeds", "1..3"]);
    let error = bench.refused(&["merge", "all.csv", "a.csv", "b.csv"]);
    assert!(error.contains("a.csv and b.csv are not parts of one sweep"), "{error}");

    // A part that says otherwise about a point.
    let text = bench.text("a.csv");
    fs::write(bench.path("b.csv"), text.replace(field(&text, 2, "digest"), "0123456789abcdef")).unwrap();
    let error = bench.refused(&["merge", "all.csv", "a.csv", "b.csv"]);
    assert!(error.contains("b.csv says otherwise than the parts before it about digest of point 2"), "{error}");

    // Only the wall clock may differ.
    let other: Vec<String> = without_wall(&text).iter().skip(1).map(|row| format!("{row},9.000\n")).collect();
    fs::write(bench.path("b.csv"), format!("{}\n{}", text.lines().next().unwrap(), other.concat())).unwrap();
    assert!(bench.command(&["merge", "all.csv", "a.csv", "b.csv"]).output().unwrap().status.success());
    assert_eq!(bench.text("all.csv"), text);

    fs::write(bench.path("note.csv"), "mine\n").unwrap();
    let error = bench.refused(&["merge", "note.csv", "a.csv"]);
    assert!(error.contains("note.csv is not the result of a sweep"), "{error}");
    assert_eq!(bench.text("note.csv"), "mine\n");
    assert!(bench.refused(&["merge", "all.csv", "none.csv"]).contains("cannot read none.csv: "));
}

#[test]
fn rows_of_another_scenario_are_refused() {
    let bench = Bench::new();
    bench.sweep("a.csv", &["--seeds", "1..2"]);
    let before = bench.text("a.csv");
    // What only people read changes nothing.
    fs::write(bench.path("small.toml"), format!("# A note.\nabout = \"x\"\n{SCENARIO}")).unwrap();
    bench.sweep("a.csv", &["--seeds", "1..2"]);
    let refused = |arguments: &[&str]| {
        let error = bench.refused(&[&["small.toml", "--out", "a.csv"], arguments].concat());
        let expected = "a.csv has rows of another scenario, grid or version; pass --restart to drop them, or another";
        assert!(error.contains(expected), "{error}");
        assert_eq!(bench.text("a.csv"), before);
        assert!(!bench.path("a.csv.part").exists());
    };
    refused(&["--seeds", "1..3"]);
    refused(&["--seeds", "1..2", "--grid", "policy.window=300"]);
    fs::write(bench.path("small.toml"), SCENARIO.replace("20", "21")).unwrap();
    refused(&["--seeds", "1..2"]);
    let said = bench.sweep("a.csv", &["--seeds", "1..2", "--restart"]);
    assert!(said.starts_with("a.csv: 2 points, 0 of them from before, 2 in "), "{said}");
    assert_ne!(bench.text("a.csv"), before);
}

#[test]
fn what_cannot_run_is_named_before_anything_runs() {
    let bench = Bench::new();
    for (arguments, expected) in [
        (
            &["--grid", "policy.window=30,x", "--seeds", "1..2"][..],
            "point 3 (policy.window=x): `policy.window=x`: invalid type",
        ),
        (&["--grid", "group.0.count=1,2,0"], "point 3 (group.0.count=0): small.toml:2: 0 nodes; "),
        (&["--grid", "policy.windw=1"], "point 1 (policy.windw=1): `policy.windw=1`: unknown field `windw`"),
        (
            &["--grid", "workload.0.chunks=5,6", "--grid", "profile.traces=[],['no.trace']"],
            "point 2 (workload.0.chunks=5 profile.traces=['no.trace'] seed=1): cannot read no.trace",
        ),
        (&["--grid", "seeds.count=1", "--grid", "seeds.count=2"], "the grid has `seeds.count` twice"),
        (&["--shard", "auto"], "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"),
    ] {
        let error = bench.refused(&[&["small.toml", "--out", "a.csv"], arguments].concat());
        assert!(error.contains(expected), "{error}");
        assert!(!bench.path("a.csv").exists() && !bench.path("a.csv.part").exists());
    }
    for arguments in [&["--grid", "seed=1,2"][..], &["--seeds", "2..1"], &["--shard", "3/2"], &["--threads", "0"]] {
        let output = bench.command(&["small.toml", "--out", "a.csv"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let bench = Bench::new();
    let part = fs::File::create(bench.path("a.csv.part")).unwrap();
    part.lock().unwrap();
    let error = bench.refused(&["small.toml", "--out", "a.csv"]);
    assert!(error.contains("another sweep is writing a.csv.part; give each shard an --out of its own"), "{error}");
    assert!(bench.path("a.csv.part").exists());
    // To close it would not do: a child that another test is starting may have it too for a moment.
    part.unlock().unwrap();
    bench.sweep("a.csv", &[]);

    for name in ["note.csv", "note.csv.part"] {
        fs::write(bench.path(name), "mine\n").unwrap();
        for more in [&[][..], &["--restart"]] {
            let error = bench.refused(&[&["small.toml", "--out", "note.csv"], more].concat());
            assert!(error.contains("is not the result of a sweep; choose another file"), "{error}");
        }
        assert_eq!(bench.text(name), "mine\n");
        fs::remove_file(bench.path(name)).unwrap();
    }
}

#[test]
fn a_grid_can_come_from_a_file() {
    let bench = Bench::new();
    fs::write(bench.path("grid.toml"), "group.0.count = [3, 2]\n").unwrap();
    bench.sweep("file.csv", &["--grid-file", "grid.toml", "--grid", "network.rack-rtt=1ms,10ms", "--seeds", "1..3"]);
    bench.sweep("line.csv", GRID);
    assert_eq!(without_wall(&bench.text("file.csv")), without_wall(&bench.text("line.csv")));
    bench.sweep("set.csv", &["--set", "group.0.count=2", "--set", "network.rack-rtt=1ms"]);
    assert_eq!(field(&bench.text("set.csv"), 1, "digest"), field(&bench.text("line.csv"), 7, "digest"));
}
