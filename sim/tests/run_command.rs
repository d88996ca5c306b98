//! `swarmdisk-sim run` as people call it: what it prints, what it writes, how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use swarmdisk_sim::outcome::Outcome;

/// Few reads: a run takes a moment.
const SMALL: &str = "[[group]]\ncount = 2\n[[workload]]\nchunks = 40\n";

fn command(folder: &Path, scenario: &str, args: &[&str]) -> Command {
    fs::write(folder.join("small.toml"), scenario).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmdisk-sim"));
    command.current_dir(folder).args(["run", "small.toml"]).args(args);
    command
}

fn run(folder: &Path, scenario: &str, args: &[&str]) -> Output {
    command(folder, scenario, args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_good_run_prints_tables_and_writes_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), SMALL, &["--out", "new/folder", "--seed", "9"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("2 of 2 nodes booted") && shown.contains("from seeds"), "{shown}");
    assert!(shown.contains("small: seed 9, digest "), "{shown}");
    assert!(!shown.contains("wall time") && text(&output.stderr).contains("wall time"), "{shown}");
    let out = folder.path().join("new/folder");
    let outcome: Outcome = serde_json::from_slice(&fs::read(out.join("result.json")).unwrap()).unwrap();
    assert_eq!((outcome.booted_count, outcome.seed, outcome.cut_off), (2, 9, false));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains(&outcome.digest) && page.contains("chunks = 40"));
    assert_eq!(run(folder.path(), SMALL, &["--seed", "9"]).stdout, output.stdout, "the same again");
}

#[test]
fn json_is_the_result_alone() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), SMALL, &["--json", "--set", "group.0.count=3"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let outcome: Outcome = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((outcome.booted_count, outcome.nodes.len(), outcome.name.as_str()), (3, 3, "small"));
}

#[test]
fn an_error_is_one_line_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let unknown = "seed = 1\n[network]\nlos = 0.1\n";
    for (scenario, args, exit, said) in [
        (unknown, &[][..], 1, "swarmdisk-sim: small.toml:3: unknown field `los`"),
        (SMALL, &["--set", "seeds.upp=1gbit"], 1, "swarmdisk-sim: `seeds.upp=1gbit`: "),
        (SMALL, &["--seed", "many"], 2, "'many'"),
        (SMALL, &["--set", "seeds"], 2, "KEY=VALUE"),
        (SMALL, &["--network", "pigeons"], 2, "'pigeons'"),
    ] {
        let output = run(folder.path(), scenario, args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{error}");
        assert!(error.contains(said), "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_folder_that_cannot_be_is_found_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "mine").unwrap();
    for out in ["file", "file/below"] {
        let output = run(folder.path(), SMALL, &["--out", out]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(out) && error.contains("choose another --out"), "{error}");
        // Neither a table nor a wall time: nothing has run.
        assert!(output.stdout.is_empty() && error.trim_end().lines().count() == 1, "{error}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "mine");
}

#[test]
fn a_limit_too_short_is_said_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), SMALL, &["--set", "limit=20ms", "--out", "out"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(text(&output.stdout).contains("0 of 2 nodes booted"));
    let last = error.lines().last().unwrap();
    assert!(
        last.starts_with("swarmdisk-sim: not all booted: 0 of 2 nodes") && last.contains("--set limit="),
        "{error}"
    );
    assert!(fs::read_to_string(folder.path().join("out/report.html")).unwrap().contains("not all booted"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_shows_what_came_so_far() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    // The second node comes in twenty years: the first and the seed ask for each other's health meanwhile.
    let endless = "limit = \"400000h\"\n[[group]]\ncount = 1\n[[group]]\ncount = 1\ndelay = \"200000h\"\n[[workload]]\nchunks = 40\n";
    let mut child = command(folder.path(), endless, &["--out", "out"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("1 of 2 nodes booted, "), "{first}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let last = lines.map(|line| line.unwrap()).last().unwrap();
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{last}");
    assert!(last.starts_with("swarmdisk-sim: cut off: 1 of 2 nodes"), "{last}");
    assert!(shown.contains("1 of 2 nodes booted, cut off"), "{shown}");
    let read = fs::read(folder.path().join("out/result.json")).unwrap();
    assert!(serde_json::from_slice::<Outcome>(&read).unwrap().cut_off);
    assert!(fs::read_to_string(folder.path().join("out/report.html")).unwrap().contains("cut off"));
}
