//! The `swarmdisk` command: run to its end, or started as a seed or a node and asked to end later.
//!
//! Whatever goes wrong ends the test with what the process has printed. No process outlives its handle, nor this
//! process in whatever way it ends.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::output::{NoLine, Output, tail};

/// How long a command may take to print its first line, and to end when asked to.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long a command that is run to its end may take.
pub const RUN_DEADLINE: Duration = Duration::from_secs(300);

/// The command.
#[derive(Debug, Clone)]
pub struct Swarmdisk {
    program: PathBuf,
}

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Swarmdisk {
    /// The command of these sources: the one beside the running test, built if there is none.
    ///
    /// `cargo test --workspace` has built it; a test run of this package alone takes the one of the last build.
    ///
    /// # Panics
    /// When it cannot be built.
    pub fn find() -> Self {
        static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
        Self { program: PROGRAM.get_or_init(|| find_or_build("swarmdisk", "swarmdisk-host-linux")).clone() }
    }

    /// The same, built anew first should the sources have changed: for what is measured. Without cargo it is taken as it is.
    ///
    /// # Panics
    /// When it cannot be built.
    pub fn up_to_date() -> Self {
        if env::var_os("CARGO").is_some() {
            build("swarmdisk-host-linux", &built_folder());
        }
        Self::find()
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// It with these arguments, for those who start it in their own way.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts it.
    ///
    /// # Panics
    /// When no process can be started.
    pub fn spawn<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Process {
        Process::start(self.command(arguments))
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When that takes longer than [`RUN_DEADLINE`].
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        self.spawn(arguments).wait(RUN_DEADLINE)
    }

    /// Runs it to its end, which must be a success, and gives what it printed.
    ///
    /// # Panics
    /// When it fails, or takes longer than [`RUN_DEADLINE`].
    #[track_caller]
    pub fn succeed<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let process = self.spawn(arguments);
        let name = process.name.clone();
        let finished = process.wait(RUN_DEADLINE);
        assert!(finished.status.success(), "{name}: {}\n{}", finished.status, tail(&finished.stderr));
        finished.stdout
    }

    /// Starts `seed FILE…` with these arguments, and waits until it serves; gives its first reference.
    ///
    /// # Panics
    /// When it prints no reference within [`DEADLINE`].
    #[track_caller]
    pub fn seed<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> (Process, String) {
        let mut command = self.command(["seed"]);
        let process = Process::start({
            command.args(arguments);
            command
        });
        let reference = process.wait_for_line("swarm://");
        (process, reference)
    }

    /// Starts `attach REF --nbd …` with these arguments, and waits until the disk can be read; gives its URI.
    ///
    /// # Panics
    /// When it is not ready within [`DEADLINE`].
    #[track_caller]
    pub fn attach<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> (Process, String) {
        let mut command = self.command(["attach"]);
        let process = Process::start({
            command.args(arguments);
            command
        });
        let ready = process.wait_for_line("ready ");
        let uri = ready.strip_prefix("ready ").unwrap_or_else(|| panic!("{ready:?} is no ready line"));
        (process, uri.to_owned())
    }
}

/// A process that runs; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    guard: Child,
    stdout: Output,
    stderr: Output,
}

impl Process {
    /// Starts a command and collects what it prints.
    ///
    /// # Panics
    /// When no process can be started.
    pub fn start(mut command: Command) -> Self {
        let name = name_of(&command);
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let stdout = Output::collect(child.stdout.take().expect("stdout is piped"));
        let stderr = Output::collect(child.stderr.take().expect("stderr is piped"));
        let guard = guard(child.id());
        Self { name, child, guard, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program and its arguments.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has complained about so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until a whole line with `needle` in it stands on its stdout, and gives that line.
    ///
    /// # Panics
    /// When there is none within [`DEADLINE`].
    #[track_caller]
    pub fn wait_for_line(&self, needle: &str) -> String {
        self.stdout.wait_for_line(needle, DEADLINE).unwrap_or_else(|why| {
            let why = match why {
                NoLine::Ended => "ended".to_owned(),
                NoLine::Deadline => format!("took more than {DEADLINE:?}"),
            };
            // What it says last may come after the end of its stdout.
            self.stderr.wait_for_end(Duration::from_millis(200));
            panic!("{} {why} before it printed {needle:?}; its stderr:\n{}", self.name, tail(&self.stderr()))
        })
    }

    /// The same for callers that go on without it.
    ///
    /// # Errors
    /// When its stdout ends, or `deadline` is over, before.
    pub fn try_line(&self, needle: &str, deadline: Duration) -> Result<String, NoLine> {
        self.stdout.wait_for_line(needle, deadline)
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the system refuses that.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child's number is positive");
        kill_process(pid, signal).expect("a child can be signalled until it is waited for");
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, and waits for that: it must be a success.
    ///
    /// # Panics
    /// When it fails, or takes longer than [`DEADLINE`].
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.terminate();
        let name = self.name.clone();
        let finished = self.wait(DEADLINE);
        assert!(finished.status.success(), "{name}: {}\n{}", finished.status, tail(&finished.stderr));
        finished
    }

    /// Kills it (SIGKILL).
    pub fn kill(mut self) -> Finished {
        self.end();
        self.finished()
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// When that takes longer than `deadline`.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Finished {
        let until = Instant::now() + deadline;
        while self.is_running() {
            assert!(Instant::now() < until, "{} runs for more than {deadline:?}; its stderr:\n{}", self.name, {
                tail(&self.stderr())
            });
            thread::sleep(Duration::from_millis(5));
        }
        self.finished()
    }

    fn finished(mut self) -> Finished {
        let status = self.child.wait().expect("a child can be waited for");
        // A process that it left behind could hold its streams open.
        for stream in [&self.stdout, &self.stderr] {
            stream.wait_for_end(Duration::from_secs(5));
        }
        Finished { status, stdout: self.stdout(), stderr: self.stderr() }
    }

    fn end(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: once the process is waited for, its number may be another's.
        self.guard.kill().ok();
        self.guard.wait().ok();
        let is_mute = !thread::panicking();
        self.end();
        if !is_mute {
            self.stderr.wait_for_end(Duration::from_secs(1));
            eprintln!("stderr of {}:\n{}", self.name, tail(&self.stderr()));
        }
    }
}

/// Kills the process with this number when the running one ends, even when that is killed itself.
fn guard(pid: u32) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", r#"read end; kill -KILL "$1""#, "sh", &pid.to_string()]);
    // Its standard input closes with this process; nothing else has the other end.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("sh cannot be started: {error}"))
}

fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program of these sources: the one beside the running test or example, built if there is none.
///
/// # Panics
/// When it cannot be built.
pub fn find_or_build(program: &str, package: &str) -> PathBuf {
    let folder = built_folder();
    let program = folder.join(format!("{program}{}", env::consts::EXE_SUFFIX));
    if !program.is_file() {
        build(package, &folder);
    }
    assert!(program.is_file(), "no {}, although it was built", program.display());
    program
}

/// An example of these sources: the one beside the running test, built if there is none.
///
/// # Panics
/// When it cannot be built.
pub fn find_or_build_example(example: &str, package: &str) -> PathBuf {
    let folder = built_folder();
    let program = folder.join("examples").join(format!("{example}{}", env::consts::EXE_SUFFIX));
    if !program.is_file() {
        build_with(package, &folder, &["--example", example]);
    }
    assert!(program.is_file(), "no {}, although it was built", program.display());
    program
}

/// Where the running test's own build is.
fn built_folder() -> PathBuf {
    let test = env::current_exe().expect("the test's own path is known");
    // target/PROFILE/deps/TEST
    test.ancestors().nth(2).expect("a test lies in a target folder").to_owned()
}

fn build(package: &str, folder: &Path) {
    build_with(package, folder, &[]);
}

fn build_with(package: &str, folder: &Path, more: &[&str]) {
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "-p", package, "--profile", profile, "--target-dir"]);
    command.arg(folder.parent().expect("a profile's folder is in the target folder")).args(more);
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(matches!(&status, Ok(status) if status.success()), "{package} cannot be built: {status:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_printed_is_there_when_it_has_ended() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let finished = Process::start(command).wait(DEADLINE);
        assert_eq!((finished.status.code(), &*finished.stdout, &*finished.stderr), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn a_process_ends_with_its_guard() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut process = Process::start(command);
        assert!(process.is_running());
        // As when the test itself is killed.
        drop(process.guard.stdin.take());
        let status = process.wait(DEADLINE).status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn the_command_is_found() {
        assert!(Swarmdisk::find().succeed(["--version"]).starts_with("swarmdisk "));
        assert_eq!(Swarmdisk::find().run(["no-such-command"]).status.code(), Some(2));
    }
}
