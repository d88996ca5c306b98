//! A ublk device under a real kernel: one boot of a guest in QEMU, whose script (`tests/ublk/checks.sh`) says what must hold.
//!
//! The guest is a stock kernel with the module `ublk_drv`, busybox, and the command of these sources; its results are
//! read from the serial console.

use std::fs;
use std::path::Path;
use std::time::Duration;

use swarmdisk_tests::fixture::Fixture;
use swarmdisk_tests::guest_kernel::{GuestKernel, Threads, scripts};
use swarmdisk_tests::images::write_random;
use swarmdisk_tests::process::{Process, find_or_build_example};
use swarmdisk_tests::skip::{find_tool, need};

/// What a guest without KVM may take, on a machine that does other things as well.
const GUEST_DEADLINE: Duration = Duration::from_secs(600);
/// How often the node of an overlay is killed; `SWARMDISK_KILLS` says otherwise.
const KILLS: u32 = 10;
/// What a kill may take besides.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
const IMAGE_BYTES: u64 = 32 << 20;

#[test]
fn devices_do_as_the_script_says() {
    let Some(guest) = need(GuestKernel::find()) else { return };
    let Some(tools) =
        ["mke2fs", "e2fsck"].map(|tool| need(find_tool(tool, "e2fsprogs"))).into_iter().collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let fixture = Fixture::mixed(IMAGE_BYTES, 1);
    let (other_raw, other) = (fixture.path("other.raw"), fixture.path("other.swarm"));
    write_random(&other_raw, 1 << 20, 2);
    fixture.swarmdisk.succeed([Path::new("pack"), &other_raw, &other]);
    // In the guest the files have names of their own.
    let (raw, swarm) = (fixture.path("image.raw"), fixture.path("image.swarm"));
    fs::rename(&fixture.raw, &raw).unwrap();
    fs::rename(&fixture.swarm, &swarm).unwrap();
    let initramfs = fixture.path("initramfs");
    let kills =
        std::env::var("SWARMDISK_KILLS").map_or(KILLS, |count| count.parse().expect("SWARMDISK_KILLS is a number"));
    let example = |name| find_or_build_example(name, "swarmdisk-host-linux");
    let mut files = vec![fixture.swarmdisk.program().to_owned(), example("ublk_file"), example("crash_writes")];
    files.extend(tools);
    files.extend([raw, swarm, other, scripts().join("checks.sh")]);
    let mut qemu = guest.command(&initramfs, &files, &format!("KILLS={kills}"), Threads::One);
    qemu.args(["-m", "1536"]);
    let console = Process::start(qemu).wait(GUEST_DEADLINE + kills * KILL_DEADLINE).stdout;
    let results = |word: &str| console.lines().filter(|line| line.starts_with(word)).count();
    println!("{console}");
    assert!(console.contains("UBLK-DONE"), "the guest did not come to its end");
    assert_eq!(results("FAIL "), 0, "see the console above");
    // Checks in loops count several times: a script that ends early is what this notices.
    let checks = fs::read_to_string(scripts().join("checks.sh")).unwrap();
    let checks = checks.lines().filter(|line| line.trim_start().starts_with("check ")).count();
    assert!(results("PASS ") >= checks, "{} of {checks} checks", results("PASS "));
}
