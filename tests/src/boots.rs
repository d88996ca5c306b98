//! One image booted in several shapes of machine, with and without work afterwards, and what each boot read.
//!
//! *Purpose*: data that says how far a profile of one machine serves another. *What is real*: the guest, the attached disk,
//! its recording; QEMU keeps what the guest writes, and reads the 64 KiB around a first write, as with any such node.
//! *What is not*: the processors, which are emulated, so that times are long. *Bounds*: see [`DEADLINE`].

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use swarmdisk_common::trace::{Op, Trace};
use tempfile::TempDir;

use crate::appliance::Appliance;
use crate::fixture::text;
use crate::guest_script::GuestScript;
use crate::images::{PART_BYTES, folder};
use crate::process::Swarmdisk;
use crate::qemu::{Boot, Machine, Qemu};
use crate::skip::Missing;

/// The longest boot, and the longest work after one.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// How a machine finds its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// QEMU has loaded it.
    Direct,
    /// SeaBIOS and GRUB.
    Bios,
    /// OVMF and GRUB.
    Uefi,
}

/// Work after the boot.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// A script of the guest's shell, which prints `WORKLOAD-DONE status=STATUS` on the console.
    pub script: &'static str,
}

/// A machine, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// In file names.
    pub name: &'static str,
    /// How it differs from the first shape.
    pub about: &'static str,
    /// How it starts.
    pub loader: Loader,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// As in [`Machine`]; `None`: as any machine.
    pub bus: Option<&'static str>,
    /// As in [`Machine`].
    pub kernel_arguments: &'static str,
    /// As in [`Machine`].
    pub arguments: &'static [&'static str],
    /// What it does after its boot.
    pub workload: Option<Workload>,
}

const BASE: Shape = Shape {
    name: "base",
    about: "2 processors, 1 GiB, virtio-blk, QEMU loads the kernel",
    loader: Loader::Direct,
    cpus: 2,
    memory_mib: 1024,
    bus: None,
    kernel_arguments: "",
    arguments: &[],
    workload: None,
};

/// All shapes; the first is that of the boot tests.
pub const SHAPES: &[Shape] = &[
    BASE,
    Shape { name: "large", about: "4 processors, 3 GiB", cpus: 4, memory_mib: 3072, ..BASE },
    Shape { name: "small", about: "1 processor, 320 MiB", cpus: 1, memory_mib: 320, ..BASE },
    Shape {
        name: "quiet",
        about: "another kernel command line: quiet, two consoles, no AppArmor, no audit, no fsck, no mitigations",
        kernel_arguments: "console=tty0 console=ttyS0 quiet loglevel=3 systemd.show_status=no apparmor=0 audit=0 \
                           fsck.mode=skip mitigations=off",
        ..BASE
    },
    Shape {
        name: "scsi",
        about: "virtio-scsi",
        bus: Some("-device virtio-scsi-pci -device scsi-hd,drive=disk"),
        ..BASE
    },
    Shape { name: "nvme", about: "NVMe", bus: Some("-device nvme,drive=disk,serial=disk"), ..BASE },
    Shape { name: "grub", about: "SeaBIOS and GRUB load the kernel from the disk", loader: Loader::Bios, ..BASE },
    Shape { name: "uefi", about: "OVMF and GRUB load the kernel from the disk", loader: Loader::Uefi, ..BASE },
    Shape {
        name: "devices",
        about: "another processor model, a network card, a screen, a USB tablet",
        arguments: &[
            "-cpu",
            "max",
            "-netdev",
            "user,id=net,restrict=on",
            "-device",
            "virtio-net-pci,netdev=net",
            "-device",
            "VGA",
            "-device",
            "qemu-xhci",
            "-device",
            "usb-tablet",
        ],
        ..BASE
    },
    Shape {
        name: "database",
        about: "then PostgreSQL filled, queried and dumped",
        workload: Some(Workload { script: include_str!("../workloads/database.sh") }),
        ..BASE
    },
    Shape {
        name: "web",
        about: "then pages served, TLS, a batch job in Python",
        workload: Some(Workload { script: include_str!("../workloads/web.sh") }),
        ..BASE
    },
    Shape {
        name: "reports",
        about: "then PostgreSQL used otherwise",
        workload: Some(Workload { script: include_str!("../workloads/reports.sh") }),
        ..BASE
    },
    Shape {
        name: "site",
        about: "then pages served otherwise",
        workload: Some(Workload { script: include_str!("../workloads/site.sh") }),
        ..BASE
    },
    Shape {
        name: "both",
        about: "1 processor, 320 MiB, NVMe; then as database",
        cpus: 1,
        memory_mib: 320,
        bus: Some("-device nvme,drive=disk,serial=disk"),
        workload: Some(Workload { script: include_str!("../workloads/database.sh") }),
        ..BASE
    },
    Shape {
        name: "upkeep",
        about: "then packages verified, logs read, settings archived",
        workload: Some(Workload { script: include_str!("../workloads/upkeep.sh") }),
        ..BASE
    },
];

/// What boots are recorded with: the appliance, packed, in a folder that goes with it.
#[derive(Debug)]
pub struct Recorder {
    swarmdisk: Swarmdisk,
    qemu: Qemu,
    appliance: Appliance,
    image: PathBuf,
    folder: TempDir,
}

impl Recorder {
    /// Packs the appliance, which takes a few seconds once it is built.
    ///
    /// # Errors
    /// When there is no QEMU or no appliance, and none can be built.
    pub fn new() -> Result<Self, Missing> {
        let (qemu, appliance) = (Qemu::find()?, Appliance::get()?);
        let (swarmdisk, folder) = (Swarmdisk::find(), folder());
        let image = folder.path().join("appliance.swarm");
        swarmdisk.succeed([Path::new("pack"), &appliance.disk, &image]);
        Ok(Self { swarmdisk, qemu, appliance, image, folder })
    }

    /// Boots the shape, and gives what it read until it was ready, or its work was done, as a file's text.
    ///
    /// # Errors
    /// When the machine does not get there within [`DEADLINE`], or with a failed service; one line and its console.
    ///
    /// # Panics
    /// When the image cannot be attached, or there is no room for the files.
    pub fn record(&self, shape: &Shape) -> Result<String, String> {
        let [socket, trace, script] = ["sock", "trace", "script"].map(|name| self.folder.path().join(name));
        let nbd = format!("unix:{}", text(&socket));
        let (image, trace_text) = (text(&self.image), text(&trace));
        let (attached, uri) = self.swarmdisk.attach([&image, "--nbd", &nbd, "--record", &trace_text]);
        self.run(shape, &uri, &script)?;
        attached.stop();
        let trace = File::open(&trace).expect("it was recorded");
        let trace = Trace::parse(BufReader::new(trace)).expect("it is what attach writes");
        Ok(self.written(shape, &trace))
    }

    fn run(&self, shape: &Shape, uri: &str, script: &Path) -> Result<(), String> {
        let boot = match shape.loader {
            Loader::Direct => Boot::Direct(&self.appliance),
            Loader::Bios => Boot::Bios,
            Loader::Uefi => Boot::Uefi,
        };
        let workload = shape.workload.map(|workload| GuestScript::write(script, workload.script));
        let mut arguments = shape.arguments.to_vec();
        let mut kernel_arguments = shape.kernel_arguments.to_owned();
        if let Some(workload) = &workload {
            arguments.extend(workload.arguments());
            kernel_arguments = format!("{kernel_arguments} {}", GuestScript::KERNEL_ARGUMENTS);
        }
        let plain = Machine::new(uri, boot);
        let machine = Machine {
            cpus: shape.cpus,
            memory_mib: shape.memory_mib,
            bus: shape.bus.unwrap_or(plain.bus),
            kernel_arguments: &kernel_arguments,
            arguments: &arguments,
            ..plain
        };
        let booted = self.qemu.boot(&machine, DEADLINE).map_err(|error| error.to_string())?;
        if !booted.is_healthy() {
            return Err(format!("a service has failed: {}", booted.line));
        }
        if shape.workload.is_some() {
            let done = booted.running.wait_for_line("WORKLOAD-DONE", DEADLINE).map_err(|error| error.to_string())?;
            if !done.contains("status=0") {
                return Err(format!("the work has failed: {done}\n{}", booted.running.console()));
            }
        }
        Ok(())
    }

    /// The reads, with what they are of.
    fn written(&self, shape: &Shape, trace: &Trace) -> String {
        let version = self.qemu.version().unwrap_or_default();
        let mut text = format!("# {}: {}\n# {version}, TCG\n", shape.name, shape.about);
        for request in trace.requests.iter().filter(|request| request.op == Op::Read) {
            writeln!(text, "{request}").expect("a string takes all");
        }
        text
    }

    /// The chunks of the image that are not all zeros, as lines `FIRST COUNT`.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn nonzero(&self) -> io::Result<String> {
        let mut disk = BufReader::with_capacity(PART_BYTES as usize, File::open(&self.appliance.disk)?);
        let (mut runs, mut chunk) = (Vec::<(u64, u64)>::new(), Vec::new());
        for index in 0.. {
            chunk.clear();
            if disk.by_ref().take(PART_BYTES).read_to_end(&mut chunk)? == 0 {
                break;
            }
            if chunk.iter().all(|&byte| byte == 0) {
                continue;
            }
            match runs.last_mut() {
                Some((first, count)) if *first + *count == index => *count += 1,
                _ => runs.push((index, 1)),
            }
        }
        let about = "# chunks of 64 KiB that are not all zeros: FIRST COUNT\n".to_owned();
        Ok(runs.into_iter().fold(about, |text, (first, count)| format!("{text}{first} {count}\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        assert_eq!(names.len(), SHAPES.len());
    }
}
