//! The iSCSI target and other people's initiators: libiscsi's tools, QEMU, iPXE. Its conformance: `iscsi_conformance.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use swarmdisk_tests::appliance::Appliance;
use swarmdisk_tests::fixture::{Fixture, read_report, text};
use swarmdisk_tests::images::folder;
use swarmdisk_tests::process::{Finished, Process, RUN_DEADLINE, Swarmdisk};
use swarmdisk_tests::qemu::{Boot, Machine, Qemu};
use swarmdisk_tests::skip::{find_file, find_tool, need};

const BOOT_DEADLINE: Duration = Duration::from_secs(600);
const IMAGE_BYTES: u64 = (100 << 20) + 4096;

fn run(program: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(program);
    command.args(arguments);
    Process::start(command).wait(RUN_DEADLINE)
}

#[track_caller]
fn succeed(program: &Path, arguments: &[&str]) -> String {
    let finished = run(program, arguments);
    assert!(finished.status.success(), "{arguments:?}: {}\n{}{}", finished.status, finished.stdout, finished.stderr);
    finished.stdout
}

fn iscsi(fixture: &Fixture, arguments: &[&str]) -> (Process, String) {
    let own = [fixture.swarm.to_str().unwrap(), "--iscsi", "127.0.0.1:0"];
    fixture.swarmdisk.attach([&own[..], arguments].concat())
}

fn portal(uri: &str) -> &str {
    &uri[..uri.rfind("/iqn.").expect("a URI has a name")]
}

#[test]
fn initiators_find_and_read_the_image() {
    let tools = ["iscsi-ls", "iscsi-inq", "iscsi-readcapacity16"].map(|tool| find_tool(tool, "libiscsi-bin"));
    let [Some(ls), Some(inq), Some(capacity)] = tools.map(need) else { return };
    let Some(qemu_img) = need(find_tool("qemu-img", "qemu-utils")) else { return };
    let fixture = Fixture::mixed(IMAGE_BYTES, 21);
    let (node, uri) = iscsi(&fixture, &[]);
    let iqn = format!("iqn.2026-01.swarmdisk:{}", &fixture.id[..32]);
    assert!(uri.starts_with("iscsi://127.0.0.1:") && uri.ends_with(&format!("/{iqn}/0")), "{uri}");
    let listed = succeed(&ls, &["-s", portal(&uri)]);
    assert!(listed.contains(&iqn) && listed.contains("Type:DIRECT_ACCESS"), "{listed}");
    let told = succeed(&inq, &[&uri]);
    assert!(told.contains("Vendor:SWARMDSK") && told.contains("Removable:0"), "{told}");
    let serial = succeed(&inq, &["-e", "1", "-c", "128", &uri]);
    assert!(serial.contains(&fixture.id[..20]), "{serial}");
    let told = succeed(&capacity, &[&uri]);
    assert!(told.contains(&format!("Total size:{IMAGE_BYTES}")), "{told}");
    let raw = text(&fixture.raw);
    let place = portal(&uri).trim_start_matches("iscsi://");
    let digested = format!("driver=iscsi,transport=tcp,portal={place},target={iqn},lun=0,header-digest=crc32c");
    succeed(&qemu_img, &["compare", "--image-opts", &format!("driver=file,filename={raw}"), &digested]);
    // Several sessions at once.
    let compare = |_| {
        let mut command = Command::new(&qemu_img);
        command.args(["compare", "-f", "raw", "-F", "raw", &raw, &uri]);
        Process::start(command)
    };
    let all: Vec<Process> = (0..3).map(compare).collect();
    for one in all {
        let finished = one.wait(RUN_DEADLINE);
        assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    }
    node.stop();
}

#[test]
fn what_an_initiator_writes_is_there_for_the_next() {
    let Some(qemu_io) = need(find_tool("qemu-io", "qemu-utils")) else { return };
    let fixture = Fixture::mixed(8 << 20, 22);
    let overlay = fixture.text("overlay");
    let mut names = Vec::new();
    for (command, expected) in [
        ("write -P 7 1000k 300k", "wrote 307200"),
        ("write -z -u 1100k 64k", "wrote 65536"),
        ("read -P 7 1000k 100k", "read 102400"),
        ("read -P 0 1100k 64k", "read 65536"),
        ("read -P 7 1164k 136k", "read 139264"),
    ] {
        let (node, uri) = iscsi(&fixture, &["--overlay", &overlay]);
        let told = succeed(&qemu_io, &["-f", "raw", "-c", command, "-c", "flush", &uri]);
        assert!(told.contains(expected) && !told.contains("failed"), "{command}: {told}");
        names.push(uri[uri.rfind("/iqn.").unwrap()..].to_owned());
        node.stop();
    }
    // The same overlay is the same disk, and not that of the image.
    assert!(names.iter().all(|name| *name == names[0] && !name.contains(&fixture.id[..32])), "{names:?}");
    let (node, uri) = iscsi(&fixture, &[]);
    let refused = run(&qemu_io, &["-f", "raw", "-c", "write 0 4k", &uri]);
    let said = [refused.stdout, refused.stderr].concat();
    assert!(!said.contains("wrote 4096"), "{said}");
    node.stop();
}

#[test]
fn chap_lets_in_who_knows_the_secret() {
    let Some(ls) = need(find_tool("iscsi-ls", "libiscsi-bin")) else { return };
    let Some(inq) = need(find_tool("iscsi-inq", "libiscsi-bin")) else { return };
    let fixture = Fixture::mixed(1 << 20, 23);
    fs::write(fixture.path("chap"), "guest 0123456789abc\ntarget zyxwvutsrqpo\n").unwrap();
    // With it others may be let in.
    let swarm = text(&fixture.swarm);
    let (node, uri) = fixture.swarmdisk.attach([&swarm, "--iscsi", "0.0.0.0:0", "--chap-file", &fixture.text("chap")]);
    let with = |secret: &str| uri.replace("iscsi://", &format!("iscsi://{secret}"));
    assert!(succeed(&inq, &[&with("guest%0123456789abc@")]).contains("SWARMDSK"));
    assert!(succeed(&ls, &[portal(&with("guest%0123456789abc@"))]).contains("iqn.2026-01.swarmdisk:"));
    let both = format!("{}?target_user=target&target_password=zyxwvutsrqpo", with("guest%0123456789abc@"));
    assert!(succeed(&inq, &[&both]).contains("SWARMDSK"));
    for wrong in ["", "guest%0123456789abd@", "other%0123456789abc@"] {
        let refused = run(&inq, &[&with(wrong)]);
        let said = [refused.stdout, refused.stderr].concat();
        assert!(!said.contains("SWARMDSK") && said.contains("Authentication"), "{wrong}: {said}");
    }
    let false_target = format!("{}?target_user=target&target_password=zyxwvutsrqpO", with("guest%0123456789abc@"));
    assert!(!run(&inq, &[&false_target]).stdout.contains("SWARMDSK"), "the target could not prove itself");
    node.stop();
}

/// A stand-in for `iscsiadm`, before the others on the path of the command: it notes what it is asked for, logs in to the
/// target as far as a connection, and shows what the real one does of a session that has a disk.
const ISCSIADM: &str = r#"#!/bin/bash
echo "$*" >> "$0.log"
case "$*" in
  *--login) exec 3<> "/dev/tcp/127.0.0.1/${6##*:}" || exit 1; [ ! -e "$0.refuse" ] || { echo 'iscsiadm: no such target' >&2; exit 8; } ;;
  *'-P 3') printf 'Target: iqn.other (non-flash)\n\tAttached scsi disk sda\tState: running\n'
    printf 'Target: %s (non-flash)\n\t\tAttached scsi disk sdx\tState: running\n' "$(cat "$0.iqn")" ;;
esac
"#;

#[test]
fn mount_has_a_stand_in_for_iscsiadm_attach_and_detach_the_disk() {
    let fixture = Fixture::mixed(1 << 20, 25);
    let (swarm, bin) = (text(&fixture.swarm), fixture.path("bin"));
    let attach = |path: &Path| {
        let mut command = fixture.swarmdisk.command(["attach", &swarm, "--iscsi", "127.0.0.1:0", "--mount"]);
        command.env("PATH", path);
        Process::start(command)
    };
    let absent = attach(&fixture.path("nowhere")).wait(RUN_DEADLINE);
    assert_eq!((absent.status.code(), absent.stderr.lines().count()), (Some(1), 1), "{}", absent.stderr);
    assert!(absent.stderr.contains("install open-iscsi"), "{}", absent.stderr);

    fs::create_dir(&bin).unwrap();
    let (tool, log) = (bin.join("iscsiadm"), bin.join("iscsiadm.log"));
    fs::write(&tool, ISCSIADM).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let iqn = format!("iqn.2026-01.swarmdisk:{}", &fixture.id[..32]);
    fs::write(bin.join("iscsiadm.iqn"), &iqn).unwrap();
    let path = PathBuf::from(format!("{}:/usr/bin:/bin", text(&bin)));
    let node = attach(&path);
    let ready = node.wait_for_line("ready ");
    let place = portal(&ready).trim_start_matches("ready iscsi://").to_owned();
    assert_eq!(node.wait_for_line("mounted").trim_end(), "mounted as /dev/sdx");
    node.stop();
    let of_node = |what: &str| format!("-m node -T {iqn} -p {place} {what}");
    let asked = fs::read_to_string(&log).unwrap();
    let expected =
        [of_node("-o new"), of_node("--login"), "-m session -P 3".into(), of_node("--logout"), of_node("-o delete")];
    assert_eq!(asked.lines().collect::<Vec<_>>(), expected);

    // What was begun is undone.
    fs::write(bin.join("iscsiadm.refuse"), "").unwrap();
    let refused = attach(&path).wait(RUN_DEADLINE);
    let said = "could not attach the disk: iscsiadm: no such target";
    assert!(refused.status.code() == Some(1) && refused.stderr.contains(said), "{}", refused.stderr);
    assert!(fs::read_to_string(&log).unwrap().trim_end().ends_with("-o delete"));
}

struct Lab {
    swarmdisk: Swarmdisk,
    qemu: Qemu,
    appliance: Appliance,
    image: PathBuf,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Option<Self> {
        let (qemu, appliance) = (need(Qemu::find())?, need(Appliance::get())?);
        let (swarmdisk, folder) = (Swarmdisk::find(), folder());
        let image = folder.path().join("appliance.swarm");
        swarmdisk.succeed(["pack", &text(&appliance.disk), &text(&image), "--level", "1"]);
        Some(Self { swarmdisk, qemu, appliance, image, folder })
    }

    /// Attached from a seed.
    fn attach(&self, reference: &str, name: &str, arguments: &[&str]) -> (Process, String) {
        let at = |name: String| text(&self.folder.path().join(name));
        let (cache, report) = (at(format!("{name}.cache")), at(format!("{name}.report")));
        let own = [reference, "--iscsi", "127.0.0.1:0", "--cache", &cache, "--report", &report];
        self.swarmdisk.attach([&own[..], arguments].concat())
    }
}

#[test]
fn a_server_boots_and_writes_over_iscsi() {
    let Some(lab) = Lab::new() else { return };
    let (seed, reference) = lab.swarmdisk.seed([text(&lab.image)]);
    let (node, uri) = lab.attach(&reference, "node", &["--overlay", "memory:1G"]);
    let machine = Machine { writable: true, ..Machine::new(&uri, Boot::Direct(&lab.appliance)) };
    let booted = lab.qemu.boot(&machine, BOOT_DEADLINE).unwrap();
    println!("booted in {:.1} s: {}", booted.took.as_secs_f64(), booted.line);
    assert!(booted.is_healthy(), "{}", booted.line);
    for complaint in ["I/O error", "EXT4-fs error"] {
        assert!(!booted.running.console().contains(complaint), "{}", booted.running.console());
    }
    drop(booted);
    node.stop();
    seed.stop();
    let report = read_report(&lab.folder.path().join("node.report"));
    println!("{} reads, {} writes", report.guest_reads, report.guest_writes);
    assert!(report.guest_write_bytes > 1 << 20, "it wrote to the disk");
}

/// iPXE is the firmware's only way to a disk until the kernel runs; the kernel, which has no initiator, finds the same image
/// over iSCSI as QEMU's disk, from another node.
#[test]
fn ipxe_boots_a_server_from_the_target() {
    let Some(lab) = Lab::new() else { return };
    let Some(rom) = need(find_file("/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu")) else { return };
    let (seed, reference) = lab.swarmdisk.seed([text(&lab.image)]);
    let (firmware, firmware_uri) = lab.attach(&reference, "firmware", &[]);
    let (root, root_uri) = lab.attach(&reference, "root", &[]);
    let (place, iqn) = firmware_uri.strip_prefix("iscsi://127.0.0.1:").unwrap().split_once('/').unwrap();
    let iqn = iqn.strip_suffix("/0").unwrap();
    // QEMU's own network: 10.0.2.2 is this machine.
    let script = format!("#!ipxe\nsanboot iscsi:10.0.2.2::{place}:0:{iqn}\n");
    fs::write(lab.folder.path().join("boot.ipxe"), script).unwrap();
    let network = format!("user,id=net,tftp={},bootfile=boot.ipxe", text(lab.folder.path()));
    let card = format!("virtio-net-pci,netdev=net,bootindex=1,disable-legacy=on,romfile={}", text(&rom));
    let arguments = ["-netdev", &network, "-device", &card];
    let machine = Machine { arguments: &arguments, ..Machine::new(&root_uri, Boot::Bios) };
    let booted = lab.qemu.boot(&machine, BOOT_DEADLINE).unwrap();
    println!("booted in {:.1} s: {}", booted.took.as_secs_f64(), booted.line);
    assert!(booted.is_healthy(), "{}", booted.line);
    drop(booted);
    firmware.stop();
    root.stop();
    seed.stop();
    let report = read_report(&lab.folder.path().join("firmware.report"));
    println!("iPXE read {} MB in {} reads", report.guest_read_bytes >> 20, report.guest_reads);
    assert!(report.guest_read_bytes > 20 << 20, "kernel and initial RAM disk came through iPXE: {report:?}");
}
