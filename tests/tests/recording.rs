//! A recording of a real node's engine runs again in the simulator's command, action for action; others are refused in one
//! line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarmdisk_tests::fixture::{Fixture, text};
use swarmdisk_tests::process::{Finished, Process, find_or_build};

/// `swarmdisk-sim replay FILE`.
fn replay(sim: &Path, file: &Path) -> Finished {
    let mut command = Command::new(sim);
    command.arg("replay").arg(file);
    Process::start(command).wait(swarmdisk_tests::process::DEADLINE)
}

fn recorded(fixture: &Fixture) -> PathBuf {
    let (_seed, reference) = fixture.seed(&[]);
    let file = fixture.path("engine.recording");
    let trace = fixture.text("reads.trace");
    let reads: String = (0..200).map(|n| format!("{} R {} 4096\n", n * 500, (n * 7919 % 1000) * 8192)).collect();
    fs::write(&trace, reads).unwrap();
    let (node, uri) = fixture.attach(&reference, "cache", &["--record-engine", &text(&file)]);
    fixture.swarmdisk.succeed(["replay", &trace, "--disk", &uri]);
    assert!(node.stop().status.success());
    file
}

#[test]
fn a_real_nodes_recording_runs_again_in_the_simulator() {
    let sim = find_or_build("swarmdisk-sim", "swarmdisk-sim");
    let fixture = Fixture::mixed(16 << 20, 5);
    let file = recorded(&fixture);

    let whole = replay(&sim, &file);
    assert!(whole.status.success(), "{}", whole.stderr);
    assert!(whole.stdout.contains("actions are the same again"), "{}", whole.stdout);

    let bytes = fs::read(&file).unwrap();
    let cut = fixture.path("cut.recording");
    fs::write(&cut, &bytes[..bytes.len() - 3]).unwrap();
    let cut = replay(&sim, &cut);
    assert!(cut.status.success() && cut.stdout.contains("the recording was cut off there"), "{}", cut.stdout);

    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let path = fixture.path("damaged.recording");
    fs::write(&path, damaged).unwrap();
    let damaged = replay(&sim, &path);
    assert_eq!(damaged.status.code(), Some(1));
    assert_eq!(damaged.stderr.trim_end().lines().count(), 1, "{}", damaged.stderr);
    assert!(damaged.stderr.starts_with(&format!("swarmdisk-sim: {}: ", path.display())), "{}", damaged.stderr);
}

#[test]
fn what_is_no_recording_is_refused() {
    let sim = find_or_build("swarmdisk-sim", "swarmdisk-sim");
    let fixture = Fixture::mixed(1 << 20, 6);
    for file in [fixture.raw.clone(), fixture.path("none")] {
        let refused = replay(&sim, &file);
        assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
        assert_eq!(refused.stderr.trim_end().lines().count(), 1, "{}", refused.stderr);
    }
}
