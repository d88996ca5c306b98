//! A guest of a stock kernel and busybox that runs scripts and ends: for what needs a kernel that this machine has not.
//!
//! Its scripts are in `tests/ublk/`; it says on its console what became of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{DEADLINE, Process, RUN_DEADLINE};
use crate::skip::{Missing, find_tool};

/// What makes such a guest.
#[derive(Debug)]
pub struct GuestKernel {
    qemu: PathBuf,
    kernel: PathBuf,
}

/// The host's threads that run the guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One that takes turns.
    One,
    /// Each its own.
    Each,
}

impl GuestKernel {
    /// # Errors
    /// When a tool is missing, or no kernel can be had.
    pub fn find() -> Result<Self, Missing> {
        let qemu = find_tool("qemu-system-x86_64", "qemu-system-x86")?;
        for (tool, package) in
            [("busybox", "busybox-static"), ("cpio", "cpio"), ("strip", "binutils"), ("xz", "xz-utils")]
        {
            find_tool(tool, package)?;
        }
        let script = Process::start(Command::new(scripts().join("kernel.sh"))).wait(RUN_DEADLINE);
        if !script.status.success() {
            let what = format!("no kernel for a guest: {}", script.stderr.lines().last().unwrap_or_default());
            return Err(Missing {
                what,
                remedy: "see what tests/ublk/kernel.sh says; it needs a package mirror".into(),
            });
        }
        Ok(Self { qemu, kernel: script.stdout.trim().into() })
    }

    /// The command that starts it with these files, once they are packed into `initramfs`: programs are on its path, scripts run,
    /// all else is in `/data`. `variables` are the scripts'. `threads` is one for all processors, or one for each: faster, and now and then
    /// QEMU 10.0 aborts by a race of its own as the kernel sets up PCI.
    ///
    /// # Panics
    /// When they cannot be packed.
    pub fn command(&self, initramfs: &Path, files: &[PathBuf], variables: &str, threads: Threads) -> Command {
        let mut pack = Command::new(scripts().join("initramfs.sh"));
        pack.args([&self.kernel, initramfs, &scripts().join("guest.sh")]).args(files);
        let packed = Process::start(pack).wait(DEADLINE);
        assert!(packed.status.success(), "{packed:?}");
        let mut qemu = Command::new(&self.qemu);
        qemu.args(["-accel", if threads == Threads::One { "tcg,thread=single" } else { "tcg,thread=multi" }]);
        qemu.args("-M q35 -cpu Nehalem -smp 2 -nodefaults -no-user-config".split(' '));
        qemu.args("-display none -no-reboot -serial stdio -append".split(' '));
        qemu.arg(format!("console=ttyS0 quiet panic=-1 {variables}"));
        qemu.arg("-kernel").arg(self.kernel.join("vmlinuz")).arg("-initrd").arg(initramfs);
        qemu
    }
}

/// Where the guest's scripts are.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ublk")
}
