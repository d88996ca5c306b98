//! Processes of one run: started, waited for until a moment or until someone asks to end, ended by their ids.
//!
//! *Invariants*: no wait outlives its span by more than a poll; what a session has been given to keep ends in the order in
//! which it was given, when the session does.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::output::{NoLine, tail};
use crate::process::{Finished, Process};
use crate::skip::Missing;

/// How often something is asked whether it is ready: short against the shortest boot.
const POLL: Duration = Duration::from_millis(2);

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Someone asked to end.
    #[error("interrupted")]
    Interrupted,
    /// The span was over.
    #[error("not done within {:.0} s", .0.as_secs_f64())]
    Late(Duration),
    /// A program did not do what it should.
    #[error("{program}: {said}")]
    Program {
        /// Which, with its arguments.
        program: String,
        /// What it complained about.
        said: String,
    },
    /// A read brought other bytes than the image's.
    #[error("{0} reads were not what the image says")]
    Mismatches(u64),
    /// A program or a right is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A file could not be made or read.
    #[error("{what}: {source}")]
    File {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Failure {
    /// For `map_err`.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let what = path.display().to_string();
        move |source| Self::File { what, source }
    }
}

/// Until when something may take.
#[derive(Debug, Copy, Clone)]
pub struct Span<'a> {
    until: Instant,
    bound: Duration,
    cancel: &'a AtomicBool,
}

impl<'a> Span<'a> {
    /// From now on.
    pub fn new(bound: Duration, cancel: &'a AtomicBool) -> Self {
        Self { until: Instant::now() + bound, bound, cancel }
    }

    /// From now on, and for the same one who may cancel.
    pub fn within(&self, bound: Duration) -> Self {
        Self::new(bound, self.cancel)
    }

    /// # Errors
    /// When it is over.
    pub fn check(&self) -> Result<(), Failure> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        if Instant::now() > self.until { Err(Failure::Late(self.bound)) } else { Ok(()) }
    }

    /// Whether it was over so long ago, or cancelled.
    pub fn is_over_by(&self, grace: Duration) -> bool {
        self.cancel.load(Ordering::Relaxed) || Instant::now() > self.until + grace
    }

    /// Why something failed: because someone asked to end, because the span was over, or for its own reason.
    pub fn why(&self, failure: Failure) -> Failure {
        self.check().err().unwrap_or(failure)
    }

    /// Waits until there is something.
    ///
    /// # Errors
    /// When the span ends before, or as `ready` says.
    pub fn wait_for<T>(&self, mut ready: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
        loop {
            self.check()?;
            if let Some(found) = ready()? {
                return Ok(found);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the process has printed a line with this, and gives that line.
    ///
    /// # Errors
    /// When the span or the process ends before.
    pub fn line(&self, process: &Process, needle: &str) -> Result<String, Failure> {
        self.wait_for(|| match process.try_line(needle, Duration::from_millis(50)) {
            Ok(line) => Ok(Some(line)),
            Err(NoLine::Deadline) => Ok(None),
            Err(NoLine::Ended) => Err(ended(process)),
        })
    }

    /// Waits until the process has made this file.
    ///
    /// # Errors
    /// When the span or the process ends before.
    pub fn file(&self, process: &mut Process, path: &Path) -> Result<(), Failure> {
        self.wait_for(|| {
            if path.exists() {
                return Ok(Some(()));
            }
            if process.is_running() { Ok(None) } else { Err(ended(process)) }
        })
    }

    /// Waits until the process ends, and gives it back should the span end before.
    ///
    /// # Errors
    /// The process, if it still runs, and why.
    pub fn end(&self, mut process: Process) -> Result<Finished, (Failure, Box<Process>)> {
        let waited = self.wait_for(|| Ok((!process.is_running()).then_some(())));
        match waited {
            Ok(()) => Ok(process.wait(Duration::from_secs(10))),
            Err(failure) => Err((failure, process.into())),
        }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it fails or the span ends before.
    pub fn succeed(&self, command: Command) -> Result<String, Failure> {
        let process = Process::start(command);
        let program = process.name().to_owned();
        let finished = self.end(process).map_err(|(failure, _)| failure)?;
        if finished.status.success() {
            return Ok(finished.stdout);
        }
        Err(Failure::Program { program, said: last_of(&finished.stderr, &finished.stdout) })
    }
}

fn ended(process: &Process) -> Failure {
    // What it says last may come after the end of its stdout.
    thread::sleep(Duration::from_millis(200));
    Failure::Program { program: process.name().to_owned(), said: last_of(&process.stderr(), &process.stdout()) }
}

/// The last line of the first of them that has any.
fn last_of(stderr: &str, stdout: &str) -> String {
    let texts = [tail(stderr), tail(stdout)];
    let last = texts.iter().filter_map(|text| text.lines().rfind(|line| !line.trim().is_empty())).next();
    last.unwrap_or("it ended and gives no reason").trim().to_owned()
}

/// What runs, and how it was started.
#[derive(Debug, Default)]
pub struct Session {
    kept: Mutex<Vec<Process>>,
    started: Mutex<Vec<String>>,
}

impl Session {
    /// Keeps a process until the session ends.
    pub fn keep(&self, process: Process) {
        lock(&self.kept).push(process);
    }

    /// Ends all that is kept, the first first: what others wait for is there last.
    pub fn end(&self) {
        let kept = std::mem::take(&mut *lock(&self.kept));
        kept.into_iter().for_each(drop);
    }

    /// The last thing that each of those complained about which are kept.
    pub fn complaints(&self) -> String {
        let kept = lock(&self.kept);
        let lines = kept.iter().filter_map(|process| process.stderr().lines().last().map(str::to_owned));
        lines.map(|line| format!("; {line}")).collect()
    }

    /// Notes how something was started.
    pub fn note(&self, line: String) {
        lock(&self.started).push(line);
    }

    /// How all was started.
    pub fn started(&self) -> Vec<String> {
        lock(&self.started).clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_span_ends_waits_and_gives_the_process_back() {
        let cancel = AtomicBool::new(false);
        let span = Span::new(Duration::from_millis(50), &cancel);
        let process = Process::start(shell("sleep 600"));
        let (failure, mut process) = span.end(process).unwrap_err();
        assert!(matches!(failure, Failure::Late(_)) && process.is_running());
        let span = Span::new(Duration::from_secs(600), &cancel);
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(span.line(&process, "never"), Err(Failure::Interrupted)));
    }

    #[test]
    fn what_fails_says_why() {
        let cancel = AtomicBool::new(false);
        let span = Span::new(Duration::from_secs(60), &cancel);
        let failure = span.succeed(shell("echo no disk >&2; exit 3")).unwrap_err();
        assert!(failure.to_string().ends_with(": no disk"), "{failure}");
        let failure = span.line(&Process::start(shell("echo gone >&2")), "ready").unwrap_err();
        assert!(failure.to_string().ends_with(": gone"), "{failure}");
        assert_eq!(span.succeed(shell("echo well")).unwrap(), "well\n");
    }
}
