//! Work for a guest to do after its boot: a script of its shell on a disk of its own.

use std::fs;
use std::path::Path;

use crate::fixture::text;

/// A script that a machine gets beside its disk.
#[derive(Debug)]
pub struct GuestScript {
    drive: String,
}

impl GuestScript {
    /// Has systemd run the script once the boot is over. The command would power the machine off and be the only target by
    /// default.
    pub const KERNEL_ARGUMENTS: &str = "systemd.unit=multi-user.target systemd.wants=kernel-command-line.service \
        systemd.run_success_action=none systemd.run_failure_action=none \
        systemd.run=\"/usr/bin/systemd-run --no-block -p After=boot-done.service /bin/sh /dev/disk/by-id/virtio-workload\"";

    /// Writes the disk.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(path: &Path, script: &str) -> Self {
        fs::write(path, sectors(script)).expect("the folder can be written to");
        Self { drive: format!("if=none,id=workload,format=raw,readonly=on,file={}", text(path)) }
    }

    /// QEMU's arguments that attach it.
    pub fn arguments(&self) -> [&str; 4] {
        ["-drive", &self.drive, "-device", "virtio-blk-pci,drive=workload,serial=workload"]
    }
}

/// A disk has whole sectors; the shell skips blank lines.
fn sectors(script: &str) -> String {
    let mut script = script.to_owned();
    script.extend(std::iter::repeat_n('\n', script.len().next_multiple_of(512) - script.len()));
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_fills_whole_sectors() {
        assert_eq!(sectors("").len(), 0);
        assert_eq!(sectors("true\n"), format!("true\n{}", "\n".repeat(507)));
    }
}
