//! The appliance itself, from its own file: what it must do before a swarm serves it.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use swarmdisk_tests::appliance::Appliance;
use swarmdisk_tests::qemu::{Boot, BootError, Machine, Qemu};
use swarmdisk_tests::skip::need;

const DEADLINE: Duration = Duration::from_secs(600);

#[test]
fn the_appliance_boots_with_its_services() {
    let (Some(qemu), Some(appliance)) = (need(Qemu::find()), need(Appliance::get())) else { return };
    let disk = appliance.disk.to_str().unwrap();
    let before = fs::metadata(disk).unwrap();
    // One after the other: side by side they take as long and come closer to the deadline.
    for boot in [Boot::Direct(&appliance), Boot::Bios, Boot::Uefi] {
        let booted = qemu.boot(&Machine::new(disk, boot), DEADLINE).unwrap();
        println!("{:.1} s: {}", booted.took.as_secs_f64(), booted.line);
        assert!(booted.is_healthy(), "{boot:?}: {}", booted.line);
    }
    let after = fs::metadata(disk).unwrap();
    assert_eq!(before.len(), 3 << 30);
    assert_eq!(before.modified().unwrap(), after.modified().unwrap(), "the guest's writes must not reach the disk");
}

#[test]
fn a_disk_that_cannot_be_opened_ends_the_boot_at_once() {
    let Some(qemu) = need(Qemu::find()) else { return };
    let error = qemu.boot(&Machine::new("/no/such/disk", Boot::Bios), DEADLINE).unwrap_err();
    assert!(matches!(&error, BootError::Ended { console } if console.contains("/no/such/disk")), "{error}");
}

#[test]
fn a_machine_ends_when_it_is_dropped() {
    let Some(qemu) = need(Qemu::find()) else { return };
    let marker = format!("guest-{}", std::process::id());
    let machine = Machine { arguments: &["-S", "-name", &marker], ..Machine::new("null-co://", Boot::Bios) };
    let running = qemu.start(&machine).unwrap();
    wait_until(|| processes_with(&marker) > 0);
    drop(running);
    wait_until(|| processes_with(&marker) == 0);
}

/// How many processes have this argument.
fn processes_with(argument: &str) -> usize {
    let ps = Command::new("ps").args(["-A", "-o", "args="]).stderr(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&ps.stdout).lines().filter(|line| line.split(' ').any(|word| word == argument)).count()
}

fn wait_until(condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "not within 20 s");
        thread::sleep(Duration::from_millis(20));
    }
}
