//! The command line, the same on every operating system: arguments in, exit status out.
//!
//! *Invariants*: what a command has to say goes to stdout, all else to stderr; an error is one line that says what is
//! wrong and what to do; exit 2 for usage, 1 for the rest.

mod args;
mod attach;
mod check;
mod config;
mod export;
mod failure;
mod locality;
mod output;
mod overlay;
mod pack;
mod profile;
mod replay;
mod run;
mod seed;
mod service;
pub(crate) mod signals;
mod status;

pub use args::Demo as DemoArgs;
pub use failure::Failure;

use crate::device::Exports;
use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;
use swarmdisk_common::output::remark;
use swarmdisk_common::usage;

/// Runs the command that the process's arguments name; `exports` are what only this operating system has.
pub fn main(exports: Exports) -> ExitCode {
    let began = Instant::now();
    crate::sys::few_heaps();
    let arguments: Vec<_> = std::env::args_os().collect();
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(error) => return usage::tell::<Args>(&error, &arguments),
    };
    let outcome = match args.command {
        Command::Pack(args) => pack::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Overlay(args) => overlay::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Seed(args) => on_runtime(seed::run(args)),
        Command::Attach(args) => on_runtime(attach::run(args, exports, began)),
        Command::Run(args) => on_runtime(run::run(args, exports, began)),
        Command::Replay(args) => on_runtime(replay::run(args)),
        Command::Status(args) => on_runtime(status::run(args)),
        Command::Demo(args) => crate::demo::run(&args),
        Command::Service(args) => service::run(args, exports),
    };
    outcome.unwrap_or_else(|failure| {
        if let Some(message) = failure.message() {
            remark(format_args!("swarmdisk: {message}"));
        }
        failure.exit_code()
    })
}

/// Runs a command that needs the network.
pub(crate) fn on_runtime(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(command);
    // Blocking reads of files may be under way: the process does not wait for them.
    runtime.shutdown_background();
    outcome
}
