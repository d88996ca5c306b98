//! Virtual machines under QEMU, without KVM: started from any disk that QEMU can open, watched on their serial console.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::appliance::Appliance;
use crate::output::{NoLine, Output, tail};
use crate::skip::{Missing, find_file, find_tool};

/// What QEMU needs from the machine that it runs on.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    uefi_code: PathBuf,
    uefi_variables: PathBuf,
}

/// How a machine finds its kernel.
#[derive(Debug, Clone, Copy)]
pub enum Boot<'a> {
    /// QEMU loads the appliance's kernel and initial RAM disk; the disk serves the root filesystem alone.
    Direct(&'a Appliance),
    /// SeaBIOS and GRUB read the kernel from the disk.
    Bios,
    /// OVMF and GRUB read the kernel from the disk.
    Uefi,
}

/// A machine to start.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// A path or a URI: `nbd://HOST:PORT`, `nbd+unix:///?socket=PATH`, `iscsi://HOST:PORT/IQN/LUN`, `vhost-user:PATH`.
    pub disk: &'a str,
    /// How it starts.
    pub boot: Boot<'a>,
    /// Whether what the guest writes goes to the disk; else to an unnamed file in `TMPDIR` (or `/var/tmp`), gone with the machine.
    /// Over vhost-user QEMU sees no write, and they go to the disk if that takes any.
    pub writable: bool,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// QEMU's `-device` arguments, parted by blanks, that put `drive=disk` on a bus. vhost-user is a bus of its own.
    pub bus: &'a str,
    /// More of the kernel's command line, where QEMU loads the kernel.
    pub kernel_arguments: &'a str,
    /// More of QEMU's own arguments.
    pub arguments: &'a [&'a str],
}

impl<'a> Machine<'a> {
    /// Two processors, 1 GiB of memory, a virtio disk that is not written to.
    pub fn new(disk: &'a str, boot: Boot<'a>) -> Self {
        let bus = "-device virtio-blk-pci,drive=disk";
        Self { disk, boot, writable: false, cpus: 2, memory_mib: 1024, bus, kernel_arguments: "", arguments: &[] }
    }

    /// QEMU's arguments that attach a disk over vhost-user: one such, as they share the machine's memory with its server.
    pub fn vhost_user_arguments(socket: &str, memory_mib: u32) -> [[String; 2]; 4] {
        [
            ["-object".into(), format!("memory-backend-memfd,id=memory,share=on,size={memory_mib}M")],
            ["-numa".into(), "node,memdev=memory".into()],
            ["-chardev".into(), format!("socket,id=vhost-user,path={}", escaped(socket))],
            ["-device".into(), "vhost-user-blk-pci,chardev=vhost-user".into()],
        ]
    }
}

impl Qemu {
    /// # Errors
    /// When QEMU or its UEFI firmware is not installed.
    pub fn find() -> Result<Self, Missing> {
        Ok(Self {
            program: find_tool("qemu-system-x86_64", "qemu-system-x86")?,
            uefi_code: find_file("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf")?,
            uefi_variables: find_file("/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf")?,
        })
    }

    /// The first line of `--version`, such as `QEMU emulator version 10.0.2`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn version(&self) -> io::Result<String> {
        let output = Command::new(&self.program).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }

    /// Starts the machine; it runs until the answer is dropped, or this process ends in whatever way.
    ///
    /// # Errors
    /// When no process can be started. What QEMU itself complains about is found on the console.
    pub fn start(&self, machine: &Machine<'_>) -> io::Result<Running> {
        // The shell holds QEMU's life to its standard input, which closes with this process even when that is killed.
        // It closes its own output, so that the console ends when QEMU does.
        const LIFELINE: &str = r#""$@" </dev/null 2>&1 & exec >&- 2>&-; read end; kill -KILL $!; wait $!"#;
        let mut child = Command::new("sh")
            .args(["-c", LIFELINE, "sh"])
            .arg(&self.program)
            .args(self.arguments(machine))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let lifeline = child.stdin.take();
        let console = Output::collect(child.stdout.take().expect("stdout is piped"));
        Ok(Running { child, lifeline, console, started: Instant::now() })
    }

    /// Starts the machine and waits up to `deadline` for the appliance's `BOOT-DONE` line.
    ///
    /// # Errors
    /// When the machine ends or the time is over before that; the error shows the end of the console.
    pub fn boot(&self, machine: &Machine<'_>, deadline: Duration) -> Result<Booted, BootError> {
        let running = self.start(machine).map_err(BootError::Start)?;
        let line = running.wait_for_line("BOOT-DONE", deadline)?;
        Ok(Booted { took: running.started.elapsed(), line, running })
    }

    fn arguments(&self, machine: &Machine<'_>) -> Vec<String> {
        let mut arguments: Vec<String> = "-accel tcg,thread=multi -M q35 -cpu Nehalem -nodefaults -no-user-config \
             -display none -no-reboot -chardev stdio,id=console,signal=off -serial chardev:console \
             -device virtio-rng-pci"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("-smp", machine.cpus.to_string());
        add("-m", machine.memory_mib.to_string());
        if let Some(socket) = machine.disk.strip_prefix("vhost-user:") {
            for [name, value] in Machine::vhost_user_arguments(socket, machine.memory_mib) {
                add(&name, value);
            }
        } else {
            let kept = if machine.writable { "snapshot=off,discard=unmap" } else { "snapshot=on" };
            add("-drive", format!("if=none,id=disk,format=raw,{kept},file={}", escaped(machine.disk)));
            let mut bus = machine.bus.split_whitespace();
            while let (Some(name), Some(value)) = (bus.next(), bus.next()) {
                add(name, value.to_owned());
            }
        }
        match machine.boot {
            Boot::Direct(appliance) => {
                add("-kernel", text(&appliance.kernel));
                add("-initrd", text(&appliance.initrd));
                let own = "root=LABEL=root ro console=ttyS0 net.ifnames=0 panic=1";
                add("-append", format!("{own} {}", machine.kernel_arguments).trim_end().to_owned());
            }
            Boot::Bios => {}
            Boot::Uefi => {
                for (unit, file, mode) in
                    [(0, &self.uefi_code, "readonly=on"), (1, &self.uefi_variables, "snapshot=on")]
                {
                    add("-drive", format!("if=pflash,unit={unit},format=raw,{mode},file={}", escaped(&text(file))));
                }
            }
        }
        arguments.extend(machine.arguments.iter().map(|&argument| argument.to_owned()));
        arguments
    }
}

/// The appliance after its boot; the machine goes on until this is dropped.
#[derive(Debug)]
pub struct Booted {
    /// From QEMU's start to the line.
    pub took: Duration,
    /// `BOOT-DONE up=SECONDS`, then the state of each service and the number of failed units.
    pub line: String,
    /// The machine.
    pub running: Running,
}

impl Booted {
    /// Whether every service of the appliance runs and no unit has failed.
    pub fn is_healthy(&self) -> bool {
        ["nginx=active", "postgresql@15-main=active", "app=active", "failed=0"]
            .iter()
            .all(|word| self.line.contains(word))
    }
}

/// A machine that runs; dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lifeline: Option<ChildStdin>,
    console: Output,
    started: Instant,
}

impl Running {
    /// Waits until a whole line with `needle` in it stands on the console, and gives it from there on.
    ///
    /// # Errors
    /// When the machine ends or `deadline` is over before that.
    pub fn wait_for_line(&self, needle: &str, deadline: Duration) -> Result<String, BootError> {
        // What is before it in its line may be what another process printed.
        let line = self.console.wait_for_line(needle, deadline).map_err(|why| match why {
            NoLine::Ended => BootError::Ended { console: self.console() },
            NoLine::Deadline => BootError::Deadline { needle: needle.to_owned(), deadline, console: self.console() },
        })?;
        Ok(line.find(needle).map_or_else(String::new, |at| line[at..].to_owned()))
    }

    /// Waits until the machine has powered itself off; gives all that it has printed.
    ///
    /// # Errors
    /// When it ends otherwise, or `deadline` is over before.
    pub fn wait_for_power_off(&self, deadline: Duration) -> Result<String, BootError> {
        let needle = "reboot: Power down";
        self.wait_for_line(needle, deadline)?;
        if self.console.wait_for_end(deadline) {
            return Ok(self.console());
        }
        Err(BootError::Deadline { needle: needle.to_owned(), deadline, console: self.console() })
    }

    /// All that the machine, and QEMU itself, have printed.
    pub fn console(&self) -> String {
        self.console.text()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        self.child.wait().ok();
    }
}

/// Why a machine did not get where it was awaited.
pub enum BootError {
    /// No process could be started.
    Start(io::Error),
    /// The machine ended first.
    Ended {
        /// What was printed until then.
        console: String,
    },
    /// The time was over first.
    Deadline {
        /// What was waited for.
        needle: String,
        /// For how long.
        deadline: Duration,
        /// What was printed until then.
        console: String,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "QEMU cannot be started: {error}"),
            Self::Ended { console } => write!(f, "the machine ended early; its console:\n{}", tail(console)),
            Self::Deadline { needle, deadline, console } => {
                write!(f, "no {needle} within {deadline:?}; the console:\n{}", tail(console))
            }
        }
    }
}

// So that `unwrap` shows the console as lines.
impl fmt::Debug for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for BootError {}

/// In QEMU's options a comma ends a value unless it is doubled.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_a_path_are_kept() {
        assert_eq!(escaped("/a,b"), "/a,,b");
    }
}
