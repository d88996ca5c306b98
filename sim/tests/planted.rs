//! Bugs that are planted in the core are found, each by the checker whose business it is.
//!
//! Each is built with its `--cfg swarmdisk_bug`, by a wrapper around the compiler that only this workspace's crates go
//! through: what they depend on is not built again.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_body_that_is_not_verified_is_found_by_integrity() {
    finds("skip-verification", "integrity");
}

#[test]
fn a_fetch_that_outlives_its_peer_is_found_by_progress() {
    finds("forget-retry", "progress");
}

#[test]
fn a_slot_that_leaks_is_found_by_budget() {
    finds("leak-slot", "budget");
}

/// Some seeds fail with this bug, and it is this checker that finds it.
fn finds(bug: &str, checker: &str) {
    let output = Command::new(build(bug)).args(["0", "24", "24"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Vec<&str> = text.lines().filter(|line| line.contains("(swarmdisk-sim swarm --seed")).collect();
    assert!(!found.is_empty(), "nobody has noticed {bug}:\n{text}");
    let by = |line: &&str| line.split(' ').nth(1) == Some(checker);
    assert!(found.iter().all(by), "{bug} was noticed by others than {checker}:\n{}", found.join("\n"));
}

/// The example `planted` with this bug in it.
fn build(bug: &str) -> PathBuf {
    // target/PROFILE/deps/this-test
    let this = std::env::current_exe().unwrap();
    let (profile, target) = (this.ancestors().nth(2).unwrap(), this.ancestors().nth(3).unwrap());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("planted-{bug}"));
    fs::create_dir_all(&folder).unwrap();
    let wrapper = wrapper(&folder, bug);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "swarmdisk-sim", "--example", "planted", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // It runs for a moment: what counts is the compiler's time.
    for package in ["core", "common", "sim"] {
        for setting in ["opt-level=1", "debug=false"] {
            cargo.arg("--config").arg(format!("profile.dev.package.swarmdisk-{package}.{setting}"));
        }
    }
    // Tests run at once: one builds at a time, and takes what it has built out of the others' way.
    let one = fs::File::create(folder.with_file_name("planted.lock")).unwrap();
    one.lock().unwrap();
    cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().unwrap().success(), "cargo cannot build the core with {bug}");
    let program = folder.join("planted");
    fs::copy(profile.join("examples").join("planted"), &program).unwrap();
    program
}

fn wrapper(folder: &Path, bug: &str) -> PathBuf {
    let path = folder.join("rustc");
    let text = format!("#!/bin/sh\nexec \"$@\" --cfg 'swarmdisk_bug=\"{bug}\"'\n");
    // A wrapper that is newer would have everything built again.
    if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path
}
