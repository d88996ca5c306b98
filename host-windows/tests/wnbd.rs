//! `attach --wnbd` against a stand-in for `libwnbd.dll` (`tests/windows/standin_libwnbd.c`), which asks for what Windows would
//! ask for, checks the contract of WNBD's headers and logs. What only the real driver can show is listed in `README.md`.
#![cfg(windows)]

mod common;

use common::{Fixture, Running, fail, finish, stand_in, wait_for};
use std::fs;
use std::process::Command;

const BLOCK: usize = 512;
/// The image ends within a block, and within a chunk.
const IMAGE_BYTES: usize = (3 << 20) + 1000;
const BLOCKS: usize = IMAGE_BYTES.div_ceil(BLOCK);

/// The program, an image, and the stand-in beside the program.
struct Drive {
    fixture: Fixture,
}

impl Drive {
    fn new() -> Option<Self> {
        let library = stand_in()?;
        let fixture = Fixture::new(IMAGE_BYTES);
        fs::copy(library, fixture.path("libwnbd.dll")).unwrap();
        Some(Self { fixture })
    }

    /// `attach TARGET --wnbd`, under this script.
    fn command(&self, target: &str, script: &str, options: &[&str]) -> Command {
        fs::write(self.fixture.path("script"), script).unwrap();
        // The file is appended to by each process.
        let _ = fs::remove_file(self.fixture.path("log"));
        let mut command = self.fixture.command(&[&["attach", target, "--wnbd"], options].concat());
        command.env("STANDIN_WNBD_LOG", self.fixture.path("log"));
        command.env("STANDIN_WNBD_SCRIPT", self.fixture.path("script"));
        command
    }

    #[track_caller]
    fn start(&self, script: &str, options: &[&str]) -> Running {
        let running = Running::start(self.command(&self.fixture.text("disk.swarm"), script, options));
        assert_eq!(running.first_line, r"ready \\.\PhysicalDrive7");
        running
    }

    #[track_caller]
    fn seed(&self) -> Running {
        Running::start(self.fixture.command(&["seed", &self.fixture.text("disk.swarm")]))
    }

    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.fixture.path("log")).unwrap_or_default();
        log.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    #[track_caller]
    fn wait_for_script(&self) {
        wait_for("end of the script", || self.log().iter().any(|line| line == "script done").then_some(()));
    }

    /// What the log says of what was asked for, in its order.
    fn done(&self) -> Vec<String> {
        self.log().iter().filter_map(|line| line.strip_prefix("done ").map(str::to_owned)).collect()
    }

    #[track_caller]
    fn assert_clean(&self) {
        let log = self.log();
        assert!(!log.iter().any(|line| line.starts_with("fault")), "{log:#?}");
        assert_eq!(log.last().map(String::as_str), Some("close"), "{log:#?}");
    }

    /// The image as a drive shows it, its last block padded.
    fn padded(&self) -> Vec<u8> {
        let mut bytes = self.fixture.image.clone();
        bytes.resize(BLOCKS * BLOCK, 0);
        bytes
    }
}

/// What the stand-in writes.
fn written(blocks: usize, seed: usize) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (seed + at * 7 + (at >> 9)) as u8).collect()
}

fn line(name: &str, block: usize, count: usize, status: &str, read: &[u8]) -> String {
    let sum =
        read.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let sum = if name.ends_with("read") || name == "abort" { sum } else { 0 };
    format!("{name} {block} {count} status {status} hash {sum:016x}")
}

const GOOD: &str = "00/00/00/00";

#[test]
fn a_stand_in_reads_writes_and_removes_a_writable_drive() {
    let Some(drive) = Drive::new() else { return };
    let dump = drive.fixture.text("dump");
    let script = format!(
        "read 100 300\nwrite 16 8 5\nread 16 8\ndurable 1000 2 9\nread 1000 2\nflush\nunmap 2048 256\nread 2048 256\n\
         anchor 0 8\nreserve\nread {BLOCKS} 1\nread 0 4097\nwrite {BLOCKS} 1 1\nunmap {BLOCKS} 1\nabort 0 8\ndump {dump}\n"
    );
    let running = drive.start(&script, &["--overlay", "memory:64M"]);
    drive.wait_for_script();

    let mut disk = drive.padded();
    let mut expected = vec![line("first read", 0, 1, GOOD, &disk[..BLOCK])];
    expected.push(line("read", 100, 300, GOOD, &disk[100 * BLOCK..400 * BLOCK]));
    disk[16 * BLOCK..24 * BLOCK].copy_from_slice(&written(8, 5));
    disk[1000 * BLOCK..1002 * BLOCK].copy_from_slice(&written(2, 9));
    disk[2048 * BLOCK..2304 * BLOCK].fill(0);
    expected.push(line("write", 16, 8, GOOD, &[]));
    expected.push(line("read", 16, 8, GOOD, &disk[16 * BLOCK..24 * BLOCK]));
    expected.push(line("durable", 1000, 2, GOOD, &[]));
    expected.push(line("read", 1000, 2, GOOD, &disk[1000 * BLOCK..1002 * BLOCK]));
    expected.push(line("flush", 0, 0, GOOD, &[]));
    expected.push(line("unmap", 2048, 256, GOOD, &[]));
    expected.push(line("read", 2048, 256, GOOD, &disk[2048 * BLOCK..2304 * BLOCK]));
    // The library refuses by itself what is not offered.
    expected.push(line("anchor", 0, 8, "02/05/24/00", &[]));
    expected.push(line("reserve", 0, 0, "02/05/20/00", &[]));
    expected.push(line("read", BLOCKS, 1, "02/05/21/00", &[0; BLOCK]));
    expected.push(line("read", 0, 4097, "02/05/24/00", &[0; 4097 * BLOCK]));
    expected.push(line("write", BLOCKS, 1, "02/05/21/00", &[]));
    expected.push(line("unmap", BLOCKS, 1, "02/05/21/00", &[]));
    expected.push(line("abort", 0, 8, GOOD, &[0; 8 * BLOCK]));
    expected.push(format!("dump {BLOCKS} failed 0"));
    assert_eq!(drive.done(), expected);
    assert!(fs::read(dump).unwrap() == disk, "the drive is not what it should be");

    let complaint = running.stop();
    assert!(complaint.contains("1 blocks at block 6146 are beyond the end of the disk"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "a failing disk fails often, and is told of once");
    let log = drive.log();
    assert!(
        log[0].contains(&format!("owner swarmdisk blocks {BLOCKS} read-only 0 flush 1 fua 1 unmap 1 ranges 32")),
        "{log:#?}"
    );
    let removal = log.iter().position(|line| line.starts_with("remove")).unwrap();
    assert_eq!(log[removal], "remove hard 0 fallback 1");
    // Requests go on while Windows lets the drive go.
    let last = [line("last write", BLOCKS - 1, 1, GOOD, &[]), line("last flush", 0, 0, GOOD, &[])];
    assert_eq!(log[removal + 1..removal + 3], last.map(|line| format!("done {line}")));
    // The answer to a read that was given up was taken by nobody.
    assert_eq!(log.iter().filter(|line| line.starts_with("unknown")).count(), 1);
    drive.assert_clean();
}

#[test]
fn a_stand_in_finds_a_drive_without_an_overlay_read_only() {
    let Some(drive) = Drive::new() else { return };
    let (dump, cache) = (drive.fixture.text("dump"), drive.fixture.text("cache"));
    let seed = drive.seed();
    let script = format!("write 0 1 1\nflush\nunmap 0 1\ndump {dump}\n");
    let running = Running::start(drive.command(&seed.first_line, &script, &["--cache", &cache]));
    drive.wait_for_script();
    let disk = drive.padded();
    let expected = [
        line("first read", 0, 1, GOOD, &disk[..BLOCK]),
        line("write", 0, 1, "02/07/27/00", &[]),
        line("flush", 0, 0, "02/05/20/00", &[]),
        line("unmap", 0, 1, "02/05/20/00", &[]),
        format!("dump {BLOCKS} failed 0"),
    ];
    assert_eq!(drive.done(), expected);
    assert!(fs::read(dump).unwrap() == disk, "the drive is not what it should be");
    running.stop();
    seed.stop();
    assert!(drive.log()[0].contains("read-only 1 flush 0 fua 0 unmap 0"));
    drive.assert_clean();
}

#[test]
fn a_drive_that_windows_will_not_let_go_is_removed_all_the_same_from_a_stand_in() {
    let Some(drive) = Drive::new() else { return };
    let running = drive.start("refuse\n", &["--overlay", "memory:64M"]);
    drive.wait_for_script();
    running.stop();
    let log = drive.log();
    let removal = log.iter().position(|line| line.starts_with("remove")).unwrap();
    assert_eq!(log[removal..removal + 2], ["remove hard 0 fallback 1", "refused"]);
    drive.assert_clean();
}

#[test]
fn a_drive_that_somebody_else_removes_from_a_stand_in_ends_the_command() {
    let Some(drive) = Drive::new() else { return };
    let running = drive.start("disconnect\n", &[]);
    let (status, complaint) = running.end();
    assert_eq!(status, Some(1));
    assert!(complaint.contains(r"\\.\PhysicalDrive7 was removed by somebody else"), "{complaint}");
    drive.assert_clean();
}

#[test]
fn what_a_stand_in_was_told_to_be_durable_outlives_a_killed_process() {
    let Some(drive) = Drive::new() else { return };
    for (name, script, answers) in [("fua", "durable 16 8 5\n", 2), ("flush", "write 16 8 5\nflush\n", 3)] {
        let overlay = drive.fixture.text(name);
        let never = drive.fixture.text("never");
        let running = drive.start(&format!("{script}await {never}\n"), &["--overlay", &overlay]);
        wait_for("answers", || (drive.done().len() == answers).then_some(()));
        drop(running);
        let running = drive.start("read 16 8\n", &["--overlay", &overlay]);
        drive.wait_for_script();
        assert_eq!(drive.done()[1], line("read", 16, 8, GOOD, &written(8, 5)), "{name}");
        running.stop();
        drive.assert_clean();
    }
}

#[test]
fn a_drive_of_a_stand_in_whose_seed_has_died_tells_read_errors() {
    let Some(drive) = Drive::new() else { return };
    let seed = drive.seed();
    let go = drive.fixture.text("go");
    let cache = drive.fixture.text("cache");
    let options = ["--cache", &cache, "--io-timeout", "2s", "--prefetch", "off"];
    // The first chunk was read for the drive to be shown; the last ones were not.
    let script = format!("await {go}\nread 0 8\nread 6000 8\n");
    let running = Running::start(drive.command(&seed.first_line, &script, &options));
    drop(seed);
    fs::write(&go, "").unwrap();
    drive.wait_for_script();
    let disk = drive.padded();
    let done = drive.done();
    assert_eq!(done[1], line("read", 0, 8, GOOD, &disk[..8 * BLOCK]));
    assert_eq!(done[2], line("read", 6000, 8, "02/03/11/00", &[0; 8 * BLOCK]));
    let complaint = running.stop();
    assert!(complaint.contains("raise --io-timeout"), "{complaint}");
    drive.assert_clean();
}

#[test]
fn a_drive_may_go_from_a_stand_in_while_a_read_waits_for_the_swarm() {
    let Some(drive) = Drive::new() else { return };
    let seed = drive.seed();
    let (go, cache) = (drive.fixture.text("go"), drive.fixture.text("cache"));
    let script = format!("await {go}\nlater 6000 8\nlater 5000 8\ndisconnect\n");
    let options = ["--cache", &cache, "--io-timeout", "5s", "--prefetch", "off"];
    let running = Running::start(drive.command(&seed.first_line, &script, &options));
    drop(seed);
    fs::write(&go, "").unwrap();
    let (status, complaint) = running.end();
    assert_eq!(status, Some(1), "{complaint}");
    assert!(complaint.contains("was removed by somebody else"), "{complaint}");
    let log = drive.log();
    assert!(!log.iter().any(|line| line.starts_with("fault")), "{log:#?}");
    assert!(log.iter().any(|line| line == "dispatcher ends"), "{log:#?}");
}

#[test]
fn what_a_machine_lacks_is_told_in_one_line() {
    let fixture = Fixture::new(1 << 16);
    let attach = |fixture: &Fixture| fixture.command(&["attach", &fixture.text("disk.swarm"), "--wnbd"]);
    let complaint = fail(1, finish(&mut attach(&fixture)));
    assert!(complaint.contains("there is no libwnbd.dll; install WNBD"), "{complaint}");
    fs::write(fixture.path("libwnbd.dll"), "no library").unwrap();
    let complaint = fail(1, finish(&mut attach(&fixture)));
    assert!(complaint.contains("libwnbd.dll cannot be loaded: "), "{complaint}");
    let Some(library) = stand_in() else { return };
    fs::copy(library, fixture.path("libwnbd.dll")).unwrap();
    for (error, says) in [
        ("2", "the WNBD driver is not installed; run `wnbd-client install-driver"),
        ("259", "the WNBD driver is not installed"),
        ("5", "only Administrators can make drives"),
        ("183", "the driver has such a drive already"),
        ("87", "the WNBD driver makes no drive: "),
    ] {
        let complaint = fail(1, finish(attach(&fixture).env("STANDIN_WNBD_CREATE_ERROR", error)));
        assert!(complaint.contains(says), "{error}: {complaint}");
    }
}
