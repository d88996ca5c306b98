//! The command line: arguments in, exit status out.
//!
//! *Invariants*: results go to stdout, all else to stderr; an error is one line that says what is wrong and what to do; exit
//! 2 for usage, 1 for the rest, 130 after an interrupt.

mod args;
mod interrupt;
mod network;
mod parts;
mod policies;
mod replay;
mod run;
mod swarm;
mod sweep;
mod targets;

use args::{Args, Command};
use clap::Parser;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use swarmdisk_common::{output, usage};

/// The exit status of a command that was interrupted, as a shell says.
const INTERRUPTED: u8 = 130;

/// Why a command ends early: one line for a person.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    exit: u8,
}

impl Failure {
    /// Something went wrong: exit 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: 1 }
    }

    /// The arguments cannot be right: exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: 2 }
    }

    /// The user has asked to end: exit 130, as a shell says.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: INTERRUPTED }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message.replace('\n', " "))
    }
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(error) => return usage::tell::<Args>(&error, &arguments),
    };
    let outcome = match args.command {
        Command::Run(args) => run::run(&args),
        Command::Network(args) => network::run(&args),
        Command::Swarm(args) => swarm::run(&args),
        Command::Shrink(args) => swarm::shrink(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Policies(args) => policies::run(&args),
        Command::Targets(args) => targets::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            output::remark(format_args!("swarmdisk-sim: {failure}"));
            ExitCode::from(failure.exit)
        }
    }
}

/// Writes a result to stdout; a reader who has gone is no error.
pub(crate) fn say(text: impl fmt::Display) -> Result<(), Failure> {
    match output::say(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
