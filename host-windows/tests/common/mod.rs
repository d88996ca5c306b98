//! What tests of `swarmdisk.exe` have in common: it runs in a process of its own.

#![allow(dead_code, reason = "each test takes what it needs")]

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use windows_sys::Win32::Foundation::CloseHandle;
use windows_sys::Win32::System::Threading::{EVENT_MODIFY_STATE, OpenEventW, SetEvent};

/// How long something may take that happens soon; it bounds a failure, and decides nothing else.
pub const SOON: Duration = Duration::from_secs(60);

/// Bytes of a chunk, and of a read of the trace.
pub const CHUNK: usize = 1 << 16;
/// What Wine 8 says now and then of a process that it cannot start (ERROR_INTERNAL_ERROR), and starts the next time.
const WINE_FAILED: i32 = 1359;
const STARTS_MAX: usize = 5;

/// Where `tests/windows/standin.sh` has put the stand-ins; gives the one for `libwnbd.dll`. None where it was not built: then the skip is told.
pub fn stand_in() -> Option<PathBuf> {
    let built = std::env::var_os("SWARMDISK_STANDIN_WNBD").map(PathBuf::from).filter(|path| path.is_file());
    if built.is_none() {
        let reason = "no stand-ins; run tests/windows/test.sh, which builds them";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        eprintln!("SKIPPED {}: {reason}", thread::current().name().unwrap_or("test"));
    }
    built
}

/// Starts a process that has no input.
#[track_caller]
fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null());
    for _ in 1..STARTS_MAX {
        match command.spawn() {
            Err(error) if error.raw_os_error() == Some(WINE_FAILED) => {
                eprintln!("a process was not started: {error}; once more");
                thread::sleep(Duration::from_millis(100));
            }
            started => return started.unwrap(),
        }
    }
    command.spawn().unwrap()
}

/// Runs a command to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Output {
    spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).wait_with_output().unwrap()
}

/// Runs a program to its end.
#[track_caller]
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Output {
    finish(Command::new(program).args(arguments))
}

/// What a command prints that succeeds.
#[track_caller]
pub fn succeed<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> String {
    let output = run(program, arguments);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complains about, in one line, that fails with this status.
#[track_caller]
pub fn fail(status: i32, output: Output) -> String {
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{complaint}");
    assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
    complaint
}

/// Waits until `found` finds it.
#[track_caller]
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "no {what} within {SOON:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A seed or a node; killed when it is dropped.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    complaints: ChildStderr,
    /// What it has printed first.
    pub first_line: String,
}

impl Running {
    /// Starts it, and waits for its first line.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (mut output, mut complaints) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let mut first_line = String::new();
        output.read_line(&mut first_line).unwrap();
        if first_line.is_empty() {
            let mut said = String::new();
            complaints.read_to_string(&mut said).unwrap();
            panic!("it has ended: {said}");
        }
        Self { child, output, complaints, first_line: first_line.trim_end().to_owned() }
    }

    /// The next line that it prints.
    #[track_caller]
    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Where its disk is.
    pub fn uri(&self) -> &str {
        self.first_line.strip_prefix("ready ").unwrap()
    }

    /// Its process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end by its event, and waits for the end, which must be a success; gives what it has complained about.
    #[track_caller]
    pub fn stop(self) -> String {
        self.ask_to_end();
        let (status, _, complaints) = self.wait();
        assert_eq!(status, Some(0), "{complaints}");
        complaints
    }

    /// The same, of one that prints its first line alone.
    #[track_caller]
    pub fn stop_silent(self) {
        self.ask_to_end();
        let (status, said, complaints) = self.wait();
        assert_eq!((status, said.as_str()), (Some(0), ""), "{complaints}");
    }

    /// Waits until it ends by itself; gives its status, and what it has complained about.
    pub fn end(self) -> (Option<i32>, String) {
        let (status, _, complaints) = self.wait();
        (status, complaints)
    }

    fn ask_to_end(&self) {
        let name = format!(r"Local\swarmdisk-end-{}", self.child.id());
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        // SAFETY: the name ends with a zero and outlives the call; the handle is closed once, by who has opened it.
        unsafe {
            let event = OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr());
            assert!(!event.is_null(), "{}", std::io::Error::last_os_error());
            assert_ne!(SetEvent(event), 0);
            CloseHandle(event);
        }
    }

    /// Its status, and what it has printed after its first line, there and of complaints.
    fn wait(mut self) -> (Option<i32>, String, String) {
        let status = self.child.wait().unwrap();
        let (mut said, mut complaints) = (String::new(), String::new());
        self.output.read_to_string(&mut said).unwrap();
        self.complaints.read_to_string(&mut complaints).unwrap();
        (status.code(), said, complaints.replace("\r\n", "\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program in a folder of the test's own, with an image, its `.swarm` file and a trace that reads all of it.
pub struct Fixture {
    /// The program.
    pub program: PathBuf,
    /// The image's bytes.
    pub image: Vec<u8>,
    /// The image's id.
    pub id: String,
    folder: TempDir,
}

impl Fixture {
    /// With an image of so many bytes.
    pub fn new(bytes: usize) -> Self {
        // Paths with a space in them are usual, and apt to be taken apart.
        let folder = tempfile::Builder::new().prefix("swarm disk ").tempdir().unwrap();
        let program = folder.path().join("swarmdisk.exe");
        fs::copy(env!("CARGO_BIN_EXE_swarmdisk"), &program).unwrap();
        let mut state = 7_u64;
        let mut image = Vec::with_capacity(bytes + 8);
        while image.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // A fourth is noise, a fourth zeros.
            let at = image.len() as u64;
            image.extend([state, 0, at, state >> 56][(at >> 16) as usize % 4].to_le_bytes());
        }
        image.truncate(bytes);
        let reads = (0..bytes).step_by(CHUNK).map(|at| format!("{} R {at} {}\n", at >> 8, (bytes - at).min(CHUNK)));
        fs::write(folder.path().join("boot.trace"), reads.collect::<String>()).unwrap();
        let mut fixture = Self { program, image, id: String::new(), folder };
        fs::write(fixture.path("disk.raw"), &fixture.image).unwrap();
        fixture.id =
            fixture.succeed(&["pack", &fixture.text("disk.raw"), &fixture.text("disk.swarm")]).trim().to_owned();
        fixture
    }

    /// What a command prints that succeeds.
    #[track_caller]
    pub fn succeed<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        succeed(&self.program, arguments)
    }

    /// Starts a seed or a node.
    #[track_caller]
    pub fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Reads the whole disk and compares it with the image.
    #[track_caller]
    pub fn read_all(&self, uri: &str) {
        let (trace, raw) = (self.text("boot.trace"), self.text("disk.raw"));
        let replay = ["replay", &trace, "--disk", uri, "--speed", "1000", "--verify", &raw, "--json"];
        let found: Value = serde_json::from_str(&self.succeed(&replay)).unwrap();
        assert_eq!((&found["mismatches"], &found["bytes"]), (&0.into(), &self.image.len().into()));
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as a text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The program with these arguments.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
    }
}
