//! The processes that a demo starts, so that none outlives it.
//!
//! *Invariants*: every process started is ended and waited for by [`Family::end`], by its own id, and none is started
//! after that; one that a panic leaves behind is killed when its handle is dropped. *Bounds*: [`LINE_TIME`] for a process to say its first line, [`END_TIME`]
//! for it to end when asked.

use crate::cli::{Failure, signals};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a seed or node may take until it is ready: longer than it tries by itself.
const LINE_TIME: Duration = Duration::from_secs(60);
/// How long a process may take to end when asked; then it is killed.
const END_TIME: Duration = Duration::from_secs(5);

/// The processes that run.
#[derive(Debug)]
pub(super) struct Family {
    /// None once they have been ended.
    children: Mutex<Option<Vec<Child>>>,
}

impl Family {
    /// Nobody so far.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { children: Mutex::new(Some(Vec::new())) })
    }

    /// Starts a process that is ended with the others.
    pub fn adopt(&self, command: &mut Command) -> std::io::Result<AdoptedOutput> {
        // Held while the process starts: one that starts while all end must not be missed.
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(children) = children.as_mut() else { return Err(std::io::ErrorKind::Interrupted.into()) };
        let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let output = child.stdout.take();
        children.push(child);
        Ok(output)
    }

    /// Starts this very program with these arguments and gives the first line that it prints. What it complains about
    /// goes to `log`.
    pub async fn first_line(&self, args: &[String], log: &Path) -> Result<String, Failure> {
        let own = std::env::current_exe()?;
        let mut command = Command::new(own);
        command.args(args).stdout(Stdio::piped()).stderr(File::create(log)?);
        let output = self.adopt(&mut command)?.ok_or_else(|| Failure::new("a process has no output"))?;
        let line = timeout(LINE_TIME, BufReader::new(output).lines().next_line()).await;
        match line {
            Ok(Ok(Some(line))) => Ok(line),
            _ => Err(Failure::new(format!("`swarmdisk {}` did not start: {}", args[0], last_line(log)))),
        }
    }

    /// Ends all processes and waits for them.
    pub async fn end(&self) {
        let children = self.children.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut children = children.unwrap_or_default();
        children.iter().for_each(signals::ask_to_end);
        for child in &mut children {
            if timeout(END_TIME, child.wait()).await.is_err() {
                // It may have ended just now.
                let _ = child.kill().await;
            }
        }
    }
}

/// What a process prints, if it was asked for.
type AdoptedOutput = Option<tokio::process::ChildStdout>;

/// The last thing that a process complained about.
pub(super) fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it gives no reason").trim_start_matches("swarmdisk: ").to_owned()
}
