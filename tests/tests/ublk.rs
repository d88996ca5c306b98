//! A ublk device under a real kernel: one boot of a guest in QEMU, whose script (`tests/ublk/checks.sh`) says what must hold.
//!
//! The guest is a stock kernel with the module `ublk_drv`, busybox, and the command of these sources; its results are
//! read from the serial console.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use swarmdisk_tests::fixture::Fixture;
use swarmdisk_tests::images::write_random;
use swarmdisk_tests::process::{DEADLINE, Process, RUN_DEADLINE, find_or_build_example};
use swarmdisk_tests::skip::{Missing, find_tool, need};

/// What a guest without KVM may take, on a machine that does other things as well.
const GUEST_DEADLINE: Duration = Duration::from_secs(600);
const IMAGE_BYTES: u64 = 32 << 20;

struct Guest {
    qemu: PathBuf,
    kernel: PathBuf,
    /// Programs that go into it.
    tools: Vec<PathBuf>,
}

fn guest() -> Result<Guest, Missing> {
    let qemu = find_tool("qemu-system-x86_64", "qemu-system-x86")?;
    for (tool, package) in [("busybox", "busybox-static"), ("cpio", "cpio"), ("strip", "binutils"), ("xz", "xz-utils")]
    {
        find_tool(tool, package)?;
    }
    let tools = ["mke2fs", "e2fsck"].map(|tool| find_tool(tool, "e2fsprogs")).into_iter().collect::<Result<_, _>>()?;
    let script = Process::start(Command::new(scripts().join("kernel.sh"))).wait(RUN_DEADLINE);
    if !script.status.success() {
        let what = format!("no kernel with ublk: {}", script.stderr.lines().last().unwrap_or_default());
        return Err(Missing { what, remedy: "see what tests/ublk/kernel.sh says; it needs a package mirror".into() });
    }
    Ok(Guest { qemu, kernel: script.stdout.trim().into(), tools })
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ublk")
}

#[test]
fn devices_do_as_the_script_says() {
    let Some(guest) = need(guest()) else { return };
    let fixture = Fixture::mixed(IMAGE_BYTES, 1);
    let (other_raw, other) = (fixture.path("other.raw"), fixture.path("other.swarm"));
    write_random(&other_raw, 1 << 20, 2);
    fixture.swarmdisk.succeed([Path::new("pack"), &other_raw, &other]);
    // In the guest the files have names of their own.
    let (raw, swarm) = (fixture.path("image.raw"), fixture.path("image.swarm"));
    fs::rename(&fixture.raw, &raw).unwrap();
    fs::rename(&fixture.swarm, &swarm).unwrap();
    let initramfs = fixture.path("initramfs");
    let mut pack = Command::new(scripts().join("initramfs.sh"));
    pack.args([&guest.kernel, &initramfs, &scripts().join("guest.sh")]);
    pack.arg(fixture.swarmdisk.program()).arg(find_or_build_example("ublk_file", "swarmdisk-host-linux"));
    pack.args(&guest.tools).args([&raw, &swarm, &other, &scripts().join("checks.sh")]);
    let packed = Process::start(pack).wait(DEADLINE);
    assert!(packed.status.success(), "{packed:?}");

    let mut qemu = Command::new(&guest.qemu);
    qemu.args("-accel tcg,thread=multi -M q35 -cpu Nehalem -smp 2 -m 1536 -nodefaults -no-user-config".split(' '));
    qemu.args("-display none -no-reboot -serial stdio -append".split(' ')).arg("console=ttyS0 quiet panic=-1");
    qemu.arg("-kernel").arg(guest.kernel.join("vmlinuz")).arg("-initrd").arg(&initramfs);
    let console = Process::start(qemu).wait(GUEST_DEADLINE).stdout;
    let results = |word: &str| console.lines().filter(|line| line.starts_with(word)).count();
    println!("{console}");
    assert!(console.contains("UBLK-DONE"), "the guest did not come to its end");
    assert_eq!(results("FAIL "), 0, "see the console above");
    // Checks in loops count several times: a script that ends early is what this notices.
    let checks = fs::read_to_string(scripts().join("checks.sh")).unwrap();
    let checks = checks.lines().filter(|line| line.trim_start().starts_with("check ")).count();
    assert!(results("PASS ") >= checks, "{} of {checks} checks", results("PASS "));
}
