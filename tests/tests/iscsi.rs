//! The iSCSI target and other people's initiators: libiscsi's tools and its conformance suite, QEMU, iPXE.

use std::fmt::Write as _;
use std::fs;
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

/// Tests of libiscsi's suite that skip, wholly or in part, and why: suite, test (all, if none), reason.
const SKIPPED: &[(&str, &[&str], &str)] = &[
    ("CompareAndWrite", &[], "COMPARE AND WRITE is not offered"),
    ("ExtendedCopy", &[], "EXTENDED COPY is not offered"),
    ("MultipathIO", &[], "the suite was given one path"),
    ("OrWrite", &[], "ORWRITE is not offered"),
    ("Prefetch10", &[], "PRE-FETCH is not offered"),
    ("Prefetch16", &[], "PRE-FETCH is not offered"),
    (
        "PreventAllow",
        &["Simple", "Eject", "ITNexusLoss", "Logout", "WarmReset", "ColdReset", "LUNReset", "2ITNexuses"],
        "they are for media that can be removed; the command itself is answered",
    ),
    ("ReadDefectData10", &[], "READ DEFECT DATA is not offered"),
    ("ReadDefectData12", &[], "READ DEFECT DATA is not offered"),
    (
        "ReadOnly",
        &["ReadOnlySBC"],
        "in part: of the writes that it tries some are not offered; the others are refused as they should be",
    ),
    ("ReceiveCopyResults", &[], "RECEIVE COPY RESULTS is not offered"),
    (
        "ReportSupportedOpcodes",
        &["OneCommand"],
        "the suite takes the refusal that it asks for (of a command without service actions) as one of the whole command",
    ),
    ("Reserve6", &[], "RESERVE and RELEASE of SCSI-2 are not offered; persistent reservations are"),
    ("Sanitize", &[], "SANITIZE is not offered"),
    ("StartStopUnit", &["Simple"], "it is for media that can be removed; the command itself is answered"),
    ("WriteAtomic16", &[], "WRITE ATOMIC is not offered"),
];

/// Tests of commands that are offered that fail, as they ask for what SBC-3, as we read it, does not say; they are not run.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "GetLBAStatus",
        "UnmapSingle",
        "it asks for the status of one block and expects that of another where physical blocks have several",
    ),
    (
        "WriteSame10",
        "UnmapUntilEnd",
        "it sends data other than zeros with UNMAP, where SBC-3 has them written, and expects zeros (that of WriteSame16 sends \
         zeros, and passes)",
    ),
];

/// Of a disk that can be written to; its counterpart is run with one that cannot.
const READ_ONLY: &str = "ReadOnly";

/// What a test of the suite came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tested {
    suite: String,
    name: String,
    is_passed: bool,
    is_skipped: bool,
    said: String,
}

fn conformance(tool: &Path, suite: &str, uri: &str) -> Vec<Tested> {
    let finished = run(tool, &["-d", "-t", suite, uri]);
    let said = [finished.stdout, finished.stderr].concat();
    let tests = said.split("  Test: ").skip(1).map(|part| Tested {
        suite: suite.rsplit('.').next().unwrap_or(suite).to_owned(),
        name: part.split(" ...").next().unwrap_or_default().to_owned(),
        is_passed: part.contains("passed"),
        is_skipped: part.contains("[SKIPPED]"),
        said: part.to_owned(),
    });
    let tests: Vec<Tested> = tests.collect();
    assert!(!tests.is_empty(), "{suite}: {said}");
    tests
}

#[test]
fn the_conformance_suite_passes_but_for_what_is_listed() {
    let Some(tool) = need(find_tool("iscsi-test-cu", "libiscsi-bin")) else { return };
    let fixture = Fixture::mixed(IMAGE_BYTES, 24);
    let (node, uri) = iscsi(&fixture, &["--overlay", "memory:1G"]);
    let (read_only, read_only_uri) = iscsi(&fixture, &[]);
    let listed = succeed(&tool, &["--list"]);
    let suites = listed
        .lines()
        .filter(|line| line.matches('.').count() == 1 && (line.starts_with("SCSI.") || line.starts_with("iSCSI.")));
    let mut all = Vec::new();
    // Each in a process of its own: what CompareAndWrite does to the units that it sends, it goes on doing.
    for suite in suites {
        let name = suite.rsplit('.').next().unwrap_or(suite);
        let uri = if name == READ_ONLY { &read_only_uri } else { &uri };
        if WRONG.iter().all(|wrong| wrong.0 != name) {
            all.extend(conformance(&tool, suite, uri));
            continue;
        }
        let is_own = |line: &&str| line.strip_prefix(suite).is_some_and(|rest| rest.starts_with('.'));
        let is_right = |line: &&str| WRONG.iter().all(|wrong| !line.ends_with(&format!("{}.{}", wrong.0, wrong.1)));
        for test in listed.lines().filter(is_own).filter(is_right) {
            all.extend(
                conformance(&tool, test, uri).into_iter().map(|tested| Tested { suite: name.to_owned(), ..tested }),
            );
        }
    }
    node.stop();
    read_only.stop();
    let failed: Vec<&Tested> = all.iter().filter(|test| !test.is_passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for test in &all {
        let may_skip = reason(&test.suite, &test.name).is_some();
        assert_eq!(test.is_skipped, may_skip, "{}.{}: {}", test.suite, test.name, test.said);
    }
    println!("{} of {} tests passed, the others were skipped; {} not run", count_passed(&all), all.len(), WRONG.len());
    check_list(&all);
}

fn reason(suite: &str, test: &str) -> Option<&'static str> {
    let applies = |tests: &[&str]| tests.is_empty() || tests.contains(&test);
    SKIPPED.iter().find(|(name, tests, _)| *name == suite && applies(tests)).map(|(_, _, reason)| *reason)
}

fn count_passed(all: &[Tested]) -> usize {
    all.iter().filter(|test| !test.is_skipped).count()
}

/// The published list is the one that was found.
fn check_list(all: &[Tested]) {
    const BEGIN: &str = "<!-- found by tests/tests/iscsi.rs -->\n";
    let mut list = format!(
        "Of {} tests of libiscsi 1.19's `iscsi-test-cu`, {} pass, and {} say that they skip, wholly or in part. {} of commands that \
         are offered are not run, as they fail:\n\n| suite | tests | why |\n|---|---|---|\n",
        all.len() + WRONG.len(),
        count_passed(all),
        all.len() - count_passed(all),
        WRONG.len(),
    );
    for (suite, tests, reason) in SKIPPED {
        let tests = if tests.is_empty() { "all".to_owned() } else { tests.join(", ") };
        writeln!(list, "| {suite} | {tests} | {reason} |").unwrap();
    }
    for (suite, test, reason) in WRONG {
        writeln!(list, "| {suite} | {test} | fails, and is not run: {reason} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/iscsi.md");
    let written = fs::read_to_string(&path).unwrap();
    let (head, found) = written.split_once(BEGIN).expect("the page has a place for the list");
    if std::env::var_os("SWARMDISK_BLESS").is_some() {
        fs::write(&path, [head, BEGIN, &list].concat()).unwrap();
    } else {
        assert_eq!(found, list, "run it with SWARMDISK_BLESS=1");
    }
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
