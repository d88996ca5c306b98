//! A whole server that writes to its disk: booted over NBD and over vhost-user under QEMU, shut down by itself, its
//! filesystem checked, and what it wrote found at the next boot.
//!
//! Each life of the server is a boot of about a minute under TCG; they follow one another, so that each finds what the one
//! before left, over another export.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use swarmdisk_host::overlay::OverlaySummary;
use swarmdisk_tests::appliance::Appliance;
use swarmdisk_tests::fixture::{Fixture, read_report, text};
use swarmdisk_tests::guest_script::GuestScript;
use swarmdisk_tests::images::folder;
use swarmdisk_tests::process::{Process, RUN_DEADLINE, Swarmdisk};
use swarmdisk_tests::qemu::{Boot, Booted, Machine, Qemu};
use swarmdisk_tests::skip::{find_tool, need};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(600);

#[test]
fn what_a_server_writes_is_there_at_its_next_boot() {
    let Some(lab) = Lab::new() else { return };
    let overlay = lab.text("overlay");
    let reference = lab.seed(&lab.image);

    // The first life, over NBD; beside its disk it has a read-only one over vhost-user.
    let (node, uri) = lab.attach(&reference.1, &["--nbd", &lab.socket("nbd")], &overlay);
    let other = ReadOnly::attach(&lab);
    let script = [&other.variables(), include_str!("../workloads/keep.sh")].concat();
    lab.live(&uri, &script, &other.arguments, None);
    lab.stop(node);
    other.node.stop();
    let written = OverlaySummary::read(overlay.as_ref()).unwrap();
    println!("the overlay has {} bytes of data and {} of zeros", written.data_bytes, written.zero_bytes);
    assert!(written.data_bytes > 20 << 20 && written.zero_bytes > 1 << 20, "{written:?}");
    // As it is now, from the swarm and the overlay.
    let (node, uri) = lab.attach(&reference.1, &["--nbd", &lab.socket("check")], &overlay);
    lab.check_filesystem(&uri);
    lab.stop(node);

    // The second, over vhost-user, on the same overlay.
    let (node, uri) = lab.attach(&reference.1, &["--vhost-user", &lab.text("vhost-user")], &overlay);
    lab.live(&uri, include_str!("../workloads/change.sh"), &[], Some("KEPT status=0 files=40 rows=5000"));
    lab.stop(node);
    drop(reference);

    // A new image of both: checked, and booted over vhost-user through its own boot loader.
    let committed = lab.text("committed.swarm");
    let image = text(&lab.image);
    lab.swarmdisk.succeed(["overlay", "commit", &committed, "--overlay", &overlay, &image, "--level", "1"]);
    let (_seed, reference) = lab.seed(committed.as_ref());
    let (node, uri) = lab.attach(&reference, &["--nbd", &lab.socket("check")], "memory:64K");
    lab.check_filesystem(&uri);
    lab.stop(node);
    let (node, uri) = lab.attach(&reference, &["--vhost-user", &lab.text("vhost-user")], "memory:256M");
    let booted = lab.boot(&Machine::new(&uri, Boot::Bios));
    let kept = booted.running.wait_for_line("KEPT ", DEADLINE).unwrap();
    assert_eq!(kept, "KEPT status=0 files=41 rows=4500");
    drop(booted);
    lab.stop(node);
}

struct Lab {
    swarmdisk: Swarmdisk,
    qemu: Qemu,
    appliance: Appliance,
    qemu_img: PathBuf,
    e2fsck: PathBuf,
    /// The appliance, packed.
    image: PathBuf,
    folder: TempDir,
}

impl Lab {
    fn new() -> Option<Self> {
        let (qemu, appliance) = (need(Qemu::find())?, need(Appliance::get())?);
        let (qemu_img, e2fsck) = (need(find_tool("qemu-img", "qemu-utils"))?, need(find_tool("e2fsck", "e2fsprogs"))?);
        let (swarmdisk, folder) = (Swarmdisk::find(), folder());
        let image = folder.path().join("appliance.swarm");
        swarmdisk.succeed(["pack", &text(&appliance.disk), &text(&image), "--level", "1"]);
        Some(Self { swarmdisk, qemu, appliance, qemu_img, e2fsck, image, folder })
    }

    fn text(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.text(name))
    }

    fn seed(&self, image: &Path) -> (Process, String) {
        self.swarmdisk.seed([text(image)])
    }

    fn attach(&self, reference: &str, export: &[&str], overlay: &str) -> (Process, String) {
        let (cache, report) = (self.text("cache"), self.text("report"));
        let own = [reference, "--cache", &cache, "--report", &report, "--overlay", overlay];
        self.swarmdisk.attach([&own[..], export].concat())
    }

    /// One life of the server: booted, at work until it powers itself off. What it says of its last life is `expected`.
    fn live(&self, uri: &str, script: &str, arguments: &[String], expected: Option<&str>) {
        let script = GuestScript::write(&self.folder.path().join("script"), script);
        let arguments: Vec<&str> = script.arguments().into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let machine = Machine {
            writable: true,
            kernel_arguments: GuestScript::KERNEL_ARGUMENTS,
            arguments: &arguments,
            ..Machine::new(uri, Boot::Direct(&self.appliance))
        };
        let booted = self.boot(&machine);
        let done = booted.running.wait_for_line("WORKLOAD-DONE", DEADLINE).unwrap();
        assert_eq!(done, "WORKLOAD-DONE status=0", "{}", booted.running.console());
        let console = booted.running.wait_for_power_off(DEADLINE).unwrap();
        let kept = console.lines().find_map(|line| line.find("KEPT ").map(|at| line[at..].trim_end()));
        assert!(expected.is_none() || kept == expected, "{kept:?}\n{console}");
        for complaint in ["I/O error", "EXT4-fs error", "EXT4-fs warning", "recovery complete"] {
            assert!(!console.contains(complaint), "{complaint}:\n{console}");
        }
    }

    fn boot(&self, machine: &Machine<'_>) -> Booted {
        let booted = self.qemu.boot(machine, DEADLINE).unwrap();
        println!("booted from {} in {:.1} s: {}", machine.disk, booted.took.as_secs_f64(), booted.line);
        assert!(booted.is_healthy(), "{}", booted.line);
        booted
    }

    fn stop(&self, node: Process) {
        node.stop();
        let report = read_report(self.text("report").as_ref());
        println!("{} reads, {} writes, {} bytes", report.guest_reads, report.guest_writes, report.guest_write_bytes);
    }

    /// Reads the whole disk, and has its root filesystem checked.
    fn check_filesystem(&self, uri: &str) {
        let raw = self.text("checked.raw");
        let run = |tool: &Path, arguments: &[&str]| {
            let mut command = Command::new(tool);
            command.args(arguments);
            let finished = Process::start(command).wait(RUN_DEADLINE);
            assert!(
                finished.status.success(),
                "{arguments:?}: {}\n{}{}",
                finished.status,
                finished.stdout,
                finished.stderr
            );
            finished.stdout
        };
        run(&self.qemu_img, &["convert", "-f", "raw", "-O", "raw", uri, &raw]);
        let target = format!("{raw}?offset={}", root_offset(raw.as_ref()));
        let told = run(&self.e2fsck, &["-f", "-n", &target]);
        println!("{}", told.lines().last().unwrap_or_default());
    }
}

/// A small image that a guest may not write to.
struct ReadOnly {
    fixture: Fixture,
    node: Process,
    /// QEMU's, to attach it.
    arguments: Vec<String>,
}

impl ReadOnly {
    fn attach(lab: &Lab) -> Self {
        let fixture = Fixture::mixed(5 << 20, 12);
        let socket = lab.text("read-only");
        let (node, uri) = fixture.swarmdisk.attach([&text(&fixture.swarm), "--vhost-user", &socket]);
        assert_eq!(uri, format!("vhost-user:{socket}"));
        let arguments = Machine::vhost_user_arguments(&socket, 1024).into_iter().flatten().collect();
        Self { fixture, node, arguments }
    }

    /// What a script is to know of it: how guests name it, and the hash of its bytes.
    fn variables(&self) -> String {
        let mut command = Command::new("sha256sum");
        command.arg(&self.fixture.raw);
        let told = Process::start(command).wait(RUN_DEADLINE).stdout;
        let sum = told.split_whitespace().next().expect("a sum");
        format!("SERIAL={} SUM={sum}\n", &self.fixture.id[..20])
    }
}

/// Where the third partition begins (UEFI 2.10, section 5.3: entries of 128 bytes from the third sector on).
fn root_offset(raw: &Path) -> u64 {
    let mut first = [0; 8];
    File::open(raw).unwrap().read_exact_at(&mut first, 1024 + 2 * 128 + 32).unwrap();
    u64::from_le_bytes(first) * 512
}
