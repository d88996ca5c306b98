//! Virtual machines under QEMU, without KVM: started from any disk that QEMU can open, watched on their serial console.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
        let mut command = vec![text(&self.program)];
        command.extend(self.arguments(machine));
        let process = Mutex::new(Process::start(&command)?);
        Ok(Running { command, process })
    }

    /// Starts the machine and waits up to `deadline` for the appliance's `BOOT-DONE` line.
    ///
    /// # Errors
    /// When the machine ends or the time is over before that; the error shows the end of the console.
    pub fn boot(&self, machine: &Machine<'_>, deadline: Duration) -> Result<Booted, BootError> {
        let running = self.start(machine).map_err(BootError::Start)?;
        let line = running.wait_for_line("BOOT-DONE", deadline)?;
        let took = running.process().started.elapsed();
        Ok(Booted { took, line, running })
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
    command: Vec<String>,
    process: Mutex<Process>,
}

/// The QEMU of a machine.
#[derive(Debug)]
struct Process {
    child: Child,
    lifeline: Option<ChildStdin>,
    console: Output,
    started: Instant,
    /// How many before it have aborted.
    aborted: u32,
}

impl Process {
    /// QEMU 10.0's last word when, without KVM, one processor moves a PCI device in memory while another reads one: taken for a race of
    /// its own, rare, seen as the kernel sets up PCI.
    const RACE: &str = "iotlb_to_section: Assertion";
    /// More in a row are no accident.
    const MOST_ABORTED: u32 = 3;

    fn start(command: &[String]) -> io::Result<Self> {
        // The shell holds QEMU's life to its standard input, which closes with this process even when that is killed.
        // It closes its own output, so that the console ends when QEMU does.
        const LIFELINE: &str = r#""$@" </dev/null 2>&1 & exec >&- 2>&-; read end; kill -KILL $!; wait $!"#;
        let mut child = Command::new("sh")
            .args(["-c", LIFELINE, "sh"])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let lifeline = child.stdin.take();
        let console = Output::collect(child.stdout.take().expect("stdout is piped"));
        Ok(Self { child, lifeline, console, started: Instant::now(), aborted: 0 })
    }

    /// Whether QEMU's own race has ended it, and it has not done so too often.
    fn may_start_again(&self) -> bool {
        self.aborted < Self::MOST_ABORTED && self.console.text().contains(Self::RACE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        self.child.wait().ok();
    }
}

impl Running {
    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self) -> Output {
        self.process().console.clone()
    }

    /// Starts the machine once more if a race of QEMU's has ended it; whether it did.
    fn started_again(&self) -> bool {
        let mut process = self.process();
        if !process.may_start_again() {
            return false;
        }
        eprintln!("QEMU aborted by a race of its own ({}): the machine is started again", Process::RACE);
        let Ok(mut next) = Process::start(&self.command) else { return false };
        next.aborted = process.aborted + 1;
        *process = next;
        true
    }

    /// Waits until a whole line with `needle` in it stands on the console, and gives it from there on.
    ///
    /// # Errors
    /// When the machine ends or `deadline` is over before that.
    pub fn wait_for_line(&self, needle: &str, deadline: Duration) -> Result<String, BootError> {
        // What is before it in its line may be what another process printed.
        loop {
            let line = match self.output().wait_for_line(needle, deadline) {
                Err(NoLine::Ended) if self.started_again() => continue,
                Err(NoLine::Ended) => return Err(BootError::Ended { console: self.console() }),
                Err(NoLine::Deadline) => {
                    return Err(BootError::Deadline { needle: needle.to_owned(), deadline, console: self.console() });
                }
                Ok(line) => line,
            };
            return Ok(line.find(needle).map_or_else(String::new, |at| line[at..].to_owned()));
        }
    }

    /// Waits until the machine has powered itself off; gives all that it has printed.
    ///
    /// # Errors
    /// When it ends otherwise, or `deadline` is over before.
    pub fn wait_for_power_off(&self, deadline: Duration) -> Result<String, BootError> {
        let needle = "reboot: Power down";
        self.wait_for_line(needle, deadline)?;
        if self.output().wait_for_end(deadline) {
            return Ok(self.console());
        }
        Err(BootError::Deadline { needle: needle.to_owned(), deadline, console: self.console() })
    }

    /// All that the machine, and QEMU itself, have printed.
    pub fn console(&self) -> String {
        self.output().text()
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

    /// A machine whose QEMU is a shell script.
    fn stand_in(script: &str) -> Running {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let process = Mutex::new(Process::start(&command).unwrap());
        Running { command, process }
    }

    #[test]
    fn a_machine_that_qemus_own_race_ended_is_started_again_and_no_other() {
        let deadline = Duration::from_secs(60);
        let folder = std::env::temp_dir().join(format!("qemu-{}", std::process::id()));
        let race = "echo physmem.c:2678: iotlb_to_section: Assertion failed";
        let once = stand_in(&format!("mkdir {} && {{ {race}; exit; }}; echo up; sleep 60", text(&folder)));
        let line = once.wait_for_line("up", deadline);
        std::fs::remove_dir(folder).unwrap();
        assert_eq!(line.unwrap(), "up");
        assert!(matches!(stand_in("echo no").wait_for_line("up", deadline), Err(BootError::Ended { .. })));
        let always = stand_in("echo iotlb_to_section: Assertion failed");
        assert!(matches!(always.wait_for_line("up", deadline), Err(BootError::Ended { .. })));
        assert_eq!(always.process().aborted, Process::MOST_ABORTED);
    }
}
