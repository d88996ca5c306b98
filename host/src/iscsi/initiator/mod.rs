//! The initiator of this machine, told to attach a target's disk: PowerShell's cmdlets on Windows, `iscsiadm` elsewhere.
//!
//! *Invariants*: whatever was begun is undone by [`Initiator::detach`], even if it failed half-way; a secret is in no
//! argument of a process, where other users could read it. *Bounds*: each program that is run gets a minute or two.

#[cfg(not(windows))]
mod iscsiadm;
#[cfg(windows)]
mod powershell;

#[cfg(not(windows))]
use iscsiadm as system;
#[cfg(windows)]
use powershell as system;

use super::address::{IscsiListen, IscsiUri};
use super::chap::{Chap, Secret};
use std::io::{Error, ErrorKind};
use std::process::{Output, Stdio};
use tokio::process::Command;
use tokio::time::{Duration, timeout};

/// The longest that a program may take; the disk is waited for in that time.
const PROGRAM_TIME: Duration = Duration::from_secs(120);
/// How long the disk is waited for once the session is there.
const DISK_TIME: Duration = Duration::from_secs(30);

/// Why this machine's initiator has not attached the disk. What it has begun, [`Initiator::detach`] undoes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitiatorError {
    /// There is no initiator.
    #[error("{what}; or leave out --mount, and attach the disk yourself")]
    Absent {
        /// What is missing, and what to do.
        what: &'static str,
    },
    /// A program of the system cannot be run.
    #[error("cannot run {program}: {source}; leave out --mount, and attach the disk yourself")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        source: Error,
    },
    /// A program of the system has failed.
    #[error("{program} could not attach the disk: {said}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it complains about.
        said: String,
    },
    /// A program of the system does not end.
    #[error("{program} takes too long; is the target reachable from this machine by the address of --iscsi?")]
    TimedOut {
        /// Which.
        program: &'static str,
    },
    /// The session is there, and no disk.
    #[error("the initiator has a session, and shows no disk; see its log, or leave out --mount")]
    NoDisk,
}

/// This machine's initiator, for one target.
#[derive(Debug)]
pub struct Initiator {
    portal: IscsiListen,
    iqn: String,
    #[cfg_attr(not(windows), expect(dead_code, reason = "iscsiadm is given none"))]
    login: Option<Secret>,
    has_begun: bool,
}

impl Initiator {
    /// Whether a secret can be given to it without others seeing it.
    pub const TAKES_SECRETS: bool = system::TAKES_SECRETS;

    /// For a target, with what lets initiators in.
    pub fn new(uri: &IscsiUri, chap: Option<&Chap>) -> Self {
        let login = chap.map(Chap::login);
        Self { portal: uri.listen.clone(), iqn: uri.iqn.clone(), login, has_begun: false }
    }

    /// Has the disk attached, and says what it is called here.
    ///
    /// # Errors
    /// [`InitiatorError`]: there is no initiator, or it has failed.
    pub async fn attach(&mut self) -> Result<String, InitiatorError> {
        self.has_begun = true;
        let attached = system::attach(self).await;
        if matches!(attached, Err(InitiatorError::Absent { .. })) {
            self.has_begun = false;
        }
        attached
    }

    /// Undoes it, if it has begun.
    ///
    /// # Errors
    /// [`InitiatorError`]: what could not be undone may stay.
    pub async fn detach(&mut self) -> Result<(), InitiatorError> {
        if std::mem::take(&mut self.has_begun) { system::detach(self).await } else { Ok(()) }
    }
}

/// Runs a program to its end.
async fn run(program: &'static str, command: &mut Command) -> Result<Output, InitiatorError> {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    match timeout(PROGRAM_TIME, running).await {
        Err(_) => Err(InitiatorError::TimedOut { program }),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
            Err(InitiatorError::Absent { what: system::HOW_TO_GET_IT })
        }
        Ok(Err(source)) => Err(InitiatorError::Program { program, source }),
        Ok(Ok(output)) => Ok(output),
    }
}

/// What a program that has failed complains about: its first line, or its status.
fn refused(program: &'static str, output: &Output) -> InitiatorError {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    InitiatorError::Refused { program, said: line.map_or_else(|| output.status.to_string(), str::to_owned) }
}
