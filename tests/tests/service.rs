//! `swarmdisk service run`: what a file lists is seeded and attached, as under a service manager.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::{Fixture, read_report, text, wait_until};
use swarmdisk_tests::images::folder;
use swarmdisk_tests::process::DEADLINE;
use swarmdisk_tests::skip::{find_tool, need};

const MIB: u64 = 1 << 20;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_file_s_seeds_and_disks_run_until_they_are_to_end() {
    let fixture = Fixture::mixed(4 * MIB, 21);
    let (port, config) = (free_port(), fixture.text("swarmdisk.toml"));
    let listed = format!(
        "[[seed]]\nfiles = ['disk.swarm']\nlisten = '127.0.0.1:{port}'\n\n[[attach]]\n\
         target = 'swarm://127.0.0.1:{port}/{}'\nnbd = 'unix:disk.sock'\ncache = 'cache'\nreport = 'report.json'\n\n\
         [[attach]]\ntarget = 'disk.swarm'\nnbd = '127.0.0.1:0'\noverlay = 'memory:1M'\n",
        fixture.id
    );
    fs::write(&config, listed).unwrap();
    let service = fixture.swarmdisk.spawn(["service", "run", "--config", &config]);
    wait_until("one line for each", || service.stdout().lines().count() == 3);
    let said = service.stdout();
    assert!(said.contains(&format!("swarm://127.0.0.1:{port}/{}\n", fixture.id)), "{said}");
    // Paths begin at the file's folder.
    let socket = text(&fixture.path("disk.sock"));
    NbdDisk::open(&format!("nbd+unix:///?socket={socket}")).assert_equal(&fixture.raw);
    let writable = said.lines().find_map(|line| line.strip_prefix("ready nbd://")).unwrap();
    assert!(!NbdDisk::open(&format!("nbd://{writable}")).is_read_only());
    service.stop();
    assert_eq!(read_report(&fixture.path("report.json")).guest_read_bytes, 4 * MIB);
}

#[test]
fn what_fails_is_tried_again_and_told_once() {
    let fixture = Fixture::mixed(MIB, 22);
    let (late, config) = (fixture.path("late.swarm"), fixture.text("swarmdisk.toml"));
    fs::write(&config, "[[seed]]\nfiles = ['late.swarm']\n").unwrap();
    let service = fixture.swarmdisk.spawn(["service", "run", "--config", &config]);
    wait_until("a complaint", || service.stderr().contains("[[seed]] of line 1: "));
    // Long enough that it has been tried again.
    thread::sleep(Duration::from_secs(3));
    fs::copy(&fixture.swarm, &late).unwrap();
    service.wait_for_line("swarm://");
    let finished = service.stop();
    assert_eq!(finished.stderr.matches("it is tried again").count(), 1, "{}", finished.stderr);
}

#[test]
fn what_cannot_be_right_is_told_with_its_line() {
    let fixture = Fixture::mixed(MIB, 23);
    let config = fixture.text("swarmdisk.toml");
    for (listed, says) in [
        ("", "swarmdisk.toml: it lists nothing; write [[seed]] or [[attach]]"),
        ("[[seed]]\nfiles = 'disk.swarm'\nlisten = 5\n", "swarmdisk.toml:3: invalid value '5' for '--listen <ADDR>'"),
        (
            "[[seed]]\n\nfile = 'disk.swarm'\n",
            "swarmdisk.toml:3: `seed` has no option `file`; see `swarmdisk seed --help`",
        ),
        ("[[seed]]\nfiles = 'disk.swarm'\n]", "swarmdisk.toml:3: "),
        // The command itself finds it out.
        ("\n[[seed]]\nfiles = 'disk.swarm'\nlisten = '0.0.0.0:0'\n", "[[seed]] of line 2: "),
    ] {
        fs::write(&config, listed).unwrap();
        let finished = fixture.swarmdisk.spawn(["service", "run", "--config", &config]).wait(DEADLINE);
        assert_eq!(finished.status.code(), Some(2), "{listed}: {}", finished.stderr);
        assert!(finished.stderr.contains(says), "{listed}: {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
    let missing = fixture.swarmdisk.run(["service", "run", "--config", &fixture.text("missing.toml")]);
    assert!(missing.status.code() == Some(1) && missing.stderr.contains("check --config"), "{}", missing.stderr);
    let elsewhere = fixture.swarmdisk.run(["service", "install", "--config", &config]);
    assert!(elsewhere.status.code() == Some(2) && elsewhere.stderr.contains("services are Windows'"));
}

#[test]
fn the_zip_for_windows_has_what_installs_the_service_and_is_the_same_each_time() {
    let Some(python) = need(find_tool("python3", "python3")) else { return };
    let folder = folder();
    let exe = folder.path().join("built.exe");
    fs::write(&exe, "MZ, as it were").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host-windows/package/package.sh");
    let zips = ["a.zip", "b.zip"].map(|name| {
        let zip = folder.path().join(name);
        assert!(Command::new(&script).args([&exe, &zip]).status().unwrap().success());
        zip
    });
    assert_eq!(fs::read(&zips[0]).unwrap(), fs::read(&zips[1]).unwrap());
    let unpack = Command::new(python).args(["-m", "zipfile", "-e"]).arg(&zips[0]).arg(folder.path()).status();
    assert!(unpack.unwrap().success());
    let inside = folder.path().join("swarmdisk");
    for name in ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "install.ps1", "swarmdisk.toml"] {
        assert!(inside.join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read(inside.join("swarmdisk.exe")).unwrap(), fs::read(&exe).unwrap());
    let script = fs::read_to_string(inside.join("install.ps1")).unwrap();
    assert!(script.lines().count() > 50 && script.matches("\r\n").count() == script.matches('\n').count());
}

#[test]
fn the_example_s_lines_are_right_when_they_are_let_in() {
    let fixture = Fixture::mixed(MIB, 24);
    let example = include_str!("../../host-windows/package/swarmdisk.toml");
    let config = fixture.text("swarmdisk.toml");
    let code = |line: &str| {
        line.strip_prefix("# ").filter(|line| line.starts_with("[[") || line.contains(" = ")).map(str::to_owned)
    };
    let listed: Vec<String> = example.lines().filter_map(code).collect();
    assert_eq!(listed.iter().filter(|line| line.starts_with("[[")).count(), 2, "{listed:?}");
    // Here it has no drives to offer: it has been read up to there.
    fs::write(&config, listed.join("\n")).unwrap();
    let finished = fixture.swarmdisk.spawn(["service", "run", "--config", &config]).wait(DEADLINE);
    assert!(finished.stderr.contains("WNBD is Windows'"), "{}", finished.stderr);
}
