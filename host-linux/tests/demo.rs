//! `swarmdisk demo` as a newcomer runs it, but small: what it finds has the promised shape, and nothing of it is left.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far more than it takes, even on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn the_demo_tells_what_it_measured_and_cleans_up() {
    let temp = TempDir::new().unwrap();
    let mut demo = start(temp.path(), &["--nodes", "2", "--speed", "100", "--link", "1gbit", "--json"]);
    let status = wait(&mut demo);
    let text = fs::read_to_string(temp.path().join("out")).unwrap();
    let complaints = fs::read_to_string(temp.path().join("err")).unwrap();
    assert!(status.success(), "{complaints}");
    let found: Value = serde_json::from_str(&text).unwrap();

    for name in ["image_bytes", "data_bytes", "packed_bytes", "touched_bytes", "working_set_bytes", "run_micros"] {
        assert!(found[name].as_u64().unwrap() > 0, "{name}: {found:#}");
    }
    assert_eq!((found["nodes"].as_u64(), found["mismatches"].as_u64()), (Some(2), Some(0)));
    let ways = found["ways"].as_array().unwrap();
    let names: Vec<_> = ways.iter().map(|way| way["way"].as_str().unwrap()).collect();
    assert_eq!(names, ["local", "one_server", "download_first", "swarm"]);
    for way in ways {
        assert_eq!(way["node_micros"].as_array().unwrap().len(), 2, "{way:#}");
        assert!(way["last_micros"].as_u64() >= way["median_micros"].as_u64(), "{way:#}");
        assert_eq!(way["mismatches"].as_u64(), Some(0));
    }
    let sent = |at: usize| ways[at]["server_sent_bytes"].as_u64().unwrap();
    let working_set = found["working_set_bytes"].as_u64().unwrap();
    assert!(sent(2) > 2 * found["packed_bytes"].as_u64().unwrap() - 1, "each downloads the whole: {found:#}");
    // Loose: how much the seed sends depends on how busy the machine is.
    assert!((working_set / 2..3 * working_set).contains(&sent(3)), "{found:#}");
    nothing_is_left(temp.path());
}

#[cfg(target_os = "linux")]
#[test]
fn a_demo_that_is_asked_to_end_takes_its_processes_along() {
    let temp = TempDir::new().unwrap();
    let mut demo = start(temp.path(), &["--nodes", "2", "--speed", "100", "--link", "10gbit"]);
    // The last step has processes of its own.
    let began = Instant::now();
    while !fs::read_to_string(temp.path().join("err")).unwrap().contains("4/4") {
        assert!(began.elapsed() < DEADLINE && demo.try_wait().unwrap().is_none(), "the demo did not get to the swarm");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &demo.id().to_string()]).status().unwrap().success());
    // It may have been done just then, but never hangs, and never leaves anything.
    wait(&mut demo);
    nothing_is_left(temp.path());
}

/// Its output goes to files in `temp`, where it also puts its own: `temp` is in the arguments of each of its processes.
fn start(temp: &Path, args: &[&str]) -> Child {
    let file = |name| Stdio::from(fs::File::create(temp.join(name)).unwrap());
    fs::create_dir(temp.join("tmp")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_swarmdisk"))
        .arg("demo")
        .args(args)
        .env("TMPDIR", temp.join("tmp"))
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .unwrap()
}

fn wait(demo: &mut Child) -> std::process::ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = demo.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > DEADLINE {
            let _ = demo.kill();
            panic!("the demo is not done after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn nothing_is_left(temp: &Path) {
    // The sockets' own folder stays, as it does in a runtime directory.
    let files: Vec<_> = fs::read_dir(temp.join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("swarmdisk-demo-"))
        .collect();
    assert_eq!(files, [""; 0]);
    #[cfg(target_os = "linux")]
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(!command.contains(temp.to_str().unwrap()), "it is still running: {command}");
    }
}
