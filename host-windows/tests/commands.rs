//! The commands of `swarmdisk.exe` as a user of Windows runs them, each in a process of its own.
#![cfg(windows)]

mod common;

use common::{CHUNK, Fixture, Running, fail, finish, run};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_image_goes_from_a_seed_to_a_node_and_on_to_the_next() {
    let fixture = Fixture::new(100 * CHUNK);
    let seed = fixture.start(&["seed", &fixture.text("disk.swarm")]);
    assert!(seed.first_line.starts_with("swarm://127.0.0.1:") && seed.first_line.ends_with(&fixture.id));
    let (cache, report) = (fixture.text("cache"), fixture.text("report.json"));
    let first =
        fixture.start(&["attach", &seed.first_line, "--nbd", "127.0.0.1:0", "--cache", &cache, "--report", &report]);
    fixture.read_all(first.uri());

    // It is found, and says where others reach it.
    let all: Vec<Value> = serde_json::from_str(&fixture.succeed(&["status", "--json"])).unwrap();
    let status = |running: &Running| all.iter().find(|one| one["pid"] == running.pid()).unwrap();
    assert_eq!((&status(&seed)["role"], &status(&first)["role"]), (&"seed".into(), &"node".into()));
    assert_eq!(status(&first)["place"], first.uri());

    // The cache is whole, and in use.
    assert!(fail(1, run(&fixture.program, &["check", "--cache", &cache, "--repair"])).contains("in use"));
    first.stop_silent();
    seed.stop_silent();
    let report = json(&fixture.path("report.json"));
    assert_eq!(report["guest_read_bytes"], 100 * CHUNK as u64);
    assert!(report["fetched_bytes"]["origin"].as_u64().unwrap() > 25 * CHUNK as u64, "{report:#}");
    fixture.succeed(&["check", "--cache", &cache]);

    // It is the origin's file, and needs no network.
    let whole = fixture.path("cache").join(format!("{}.swarm", fixture.id));
    assert!(fs::read(&whole).unwrap() == fs::read(fixture.path("disk.swarm")).unwrap());
    let alone = fixture.start(&["attach", whole.to_str().unwrap(), "--nbd", "127.0.0.1:0"]);
    fixture.read_all(alone.uri());
    alone.stop_silent();
}

#[test]
fn a_command_runs_on_its_disk_and_gives_its_status() {
    let fixture = Fixture::new(20 * CHUNK);
    let (own, trace, raw, swarm) = (
        fixture.program.to_str().unwrap(),
        fixture.text("boot.trace"),
        fixture.text("disk.raw"),
        fixture.text("disk.swarm"),
    );
    let run_replay =
        ["run", &swarm, "--", own, "replay", &trace, "--disk", "{disk}", "--speed", "1000", "--verify", &raw, "--json"];
    let result: Value = serde_json::from_str(&fixture.succeed(&run_replay)).unwrap();
    assert_eq!((&result["mismatches"], &result["reads"]), (&0.into(), &20.into()));
    for (command, status) in [("exit 0", 0), ("exit 37", 37)] {
        assert_eq!(run(&fixture.program, &["run", &swarm, "--", "cmd", "/c", command]).status.code(), Some(status));
    }
    assert_eq!(run(&fixture.program, &["run", &swarm, "--", "no-such-program"]).status.code(), Some(127));
}

#[test]
fn paths_may_be_longer_than_windows_by_itself_allows() {
    let fixture = Fixture::new(20 * CHUNK);
    let deep = (0..8).fold(fixture.path("deep"), |path, _| path.join("a".repeat(50)));
    fs::create_dir_all(&deep).unwrap();
    let in_deep = |name: &str| deep.join(name).to_str().unwrap().to_owned();
    assert!(in_deep("").len() > 400);
    let (raw, swarm, report) = (fixture.text("disk.raw"), in_deep("disk.swarm"), in_deep("report.json"));
    assert_eq!(fixture.succeed(&["pack", &raw, &swarm]).trim(), fixture.id);
    let seed = fixture.start(&["seed", &swarm]);
    let node = fixture.start(&[
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
    node.stop_silent();
    seed.stop_silent();
    assert_eq!(json(Path::new(&report))["guest_reads"], 20);
    fixture.succeed(&["check", &swarm]);
    fixture.succeed(&["check", "--cache", &in_deep("cache")]);
    assert!(fixture.succeed(&["overlay", "info", &in_deep("guest.overlay")]).contains(&fixture.id));
}

#[test]
fn what_a_seed_has_open_can_be_packed_anew() {
    let fixture = Fixture::new(20 * CHUNK);
    let (raw, swarm) = (fixture.text("disk.raw"), fixture.text("disk.swarm"));
    let seed = fixture.start(&["seed", &fixture.text("disk.swarm")]);
    // The seed keeps the file that it has opened.
    assert_ne!(fixture.succeed(&["pack", &raw, &swarm, "--chunk-size", "16K"]).trim(), fixture.id);
    let node = fixture.start(&["attach", &seed.first_line, "--nbd", "127.0.0.1:0", "--cache", &fixture.text("cache")]);
    fixture.read_all(node.uri());
    node.stop_silent();
    seed.stop_silent();
}

#[test]
fn a_recorded_boot_becomes_a_profile() {
    let fixture = Fixture::new(20 * CHUNK);
    let (trace, swarm, profile) =
        (fixture.text("recorded.trace"), fixture.text("disk.swarm"), fixture.text("disk.profile"));
    let node = fixture.start(&["attach", &swarm, "--nbd", "127.0.0.1:0", "--record", &trace]);
    fixture.read_all(node.uri());
    node.stop_silent();
    fixture.succeed(&["profile", "build", &trace, "--image", &swarm, "-o", &profile]);
    let shown: Value = serde_json::from_str(&fixture.succeed(&["profile", "show", &profile, "--json"])).unwrap();
    assert_eq!(shown["image"], fixture.id);
}

#[test]
fn what_windows_has_not_is_refused_in_one_line() {
    let fixture = Fixture::new(4 * CHUNK);
    let swarm = fixture.text("disk.swarm");
    for (way, says) in [
        (&["--nbd", "unix:C:\\disk.sock"][..], "choose --nbd 127.0.0.1:0"),
        (&["--ublk"], "ublk is Linux's; choose --nbd here"),
        (&["--vhost-user", "C:\\disk.sock"], "vhost-user is Linux's; choose --nbd here"),
    ] {
        let complaint = fail(2, run(&fixture.program, &[&["attach", &swarm], way].concat()));
        assert!(complaint.contains(says), "{complaint}");
    }
    assert!(fail(1, run(&fixture.program, &["demo", "--vm"])).contains("needs Linux"));
    assert!(
        fail(1, run(&fixture.program, &["replay", &fixture.text("boot.trace"), "--disk", "nbd+unix:///?socket=/x"]))
            .contains("not supported here")
    );
    // Windows' own words for what it refuses.
    assert!(fail(1, run(&fixture.program, &["check", &fixture.text("missing.swarm")])).contains("(os error 2)"));
}

#[test]
fn the_demo_measures_all_ways_and_leaves_nothing() {
    let (fixture, temp) = (Fixture::new(CHUNK), TempDir::new().unwrap());
    let mut demo = fixture.command(&["demo", "--nodes", "2", "--speed", "100", "--link", "1gbit", "--json"]);
    let output = finish(demo.env("TMP", temp.path()).env("TEMP", temp.path()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["mismatches"], &found["nodes"]), (&0.into(), &2.into()));
    let ways = found["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 4);
    // Asked to end, the nodes have written their reports.
    assert!(ways[3]["server_sent_bytes"].as_u64().unwrap() > 0, "{found:#}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
