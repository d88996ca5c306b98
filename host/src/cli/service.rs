//! `swarmdisk service`: what a file lists, run until it is told to stop; on Windows as a service.
//!
//! *Invariants*: what is wrong with the file is told before anything is run. A command that fails is tried again, later and
//! later, since a network may come up after the service does; its failure is told once. One that cannot be right ends them
//! all. *Bounds*: [`RETRY_MAX`] between two tries.

use super::config::{self, Entry, Job};
use super::output::say;
use super::{Failure, attach, on_runtime, seed, signals};
use crate::device::Exports;
use crate::log;
use crate::service::{Duty, ServiceManager, Work};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Arguments of `service`.
#[derive(Debug, Args)]
pub struct Service {
    #[command(subcommand)]
    pub command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Make the Windows service, which starts with the machine
    Install(Config),
    /// Start it
    Start,
    /// Stop it
    Stop,
    /// Stop it, and take it away
    Remove,
    /// Run what the file lists: what the service does; elsewhere until Ctrl-C or SIGTERM
    Run(Config),
}

/// What a service runs.
#[derive(Debug, Args)]
pub struct Config {
    /// A TOML file: [[seed]] and [[attach]], each with that command's options, as in `listen = "127.0.0.1:7000"`
    ///
    /// The keys are the long options, without their dashes; `files` and `target` are what is served or attached. Paths in it
    /// begin at the file's folder.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

pub(super) fn run(args: Service, exports: Exports) -> Result<ExitCode, Failure> {
    let manager = |does: fn(&dyn ServiceManager) -> Result<(), Failure>, done: &str| {
        does(services(exports)?)?;
        say(format_args!("the service {done}"))
    };
    match args.command {
        ServiceCommand::Install(Config { config }) => {
            let services = services(exports)?;
            let config = absolute(&config)?;
            config::read(&config)?;
            services.install(&config)?;
            say("the service is installed; `swarmdisk service start` starts it now, later it starts with the machine")?;
        }
        ServiceCommand::Start => manager(|services| services.start(), "runs")?,
        ServiceCommand::Stop => manager(|services| services.stop(), "has stopped")?,
        ServiceCommand::Remove => manager(|services| services.remove(), "is removed")?,
        ServiceCommand::Run(Config { config }) => run_listed(config, exports)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn services(exports: Exports) -> Result<&'static dyn ServiceManager, Failure> {
    exports.services.ok_or_else(|| {
        Failure::usage(
            "services are Windows'; elsewhere let the service manager run `swarmdisk service run --config FILE`",
        )
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::new(format!("cannot tell where {} is: {error}", path.display())))
}

/// As the service that the system has started this as, or else until a person ends it.
fn run_listed(config: PathBuf, exports: Exports) -> Result<(), Failure> {
    let work: Work = {
        let config = config.clone();
        Box::new(move |duty: Duty| {
            let entries = prepare(&config)?;
            (duty.begun)();
            // Who would have stopped it is gone: the same.
            run_until(entries, exports, || async move { drop(duty.stop.await) })
        })
    };
    match exports.services.map(|services| services.run(work)) {
        Some(Ok(outcome)) => outcome,
        Some(Err(_)) | None => run_until(prepare(&config)?, exports, || async {
            signals::asked_to_end().await;
        }),
    }
}

/// Reads the file, and goes to its folder.
fn prepare(config: &Path) -> Result<Vec<Entry>, Failure> {
    let config = absolute(config)?;
    let entries = config::read(&config)?;
    if let Some(folder) = config.parent() {
        std::env::set_current_dir(folder)
            .map_err(|error| Failure::new(format!("cannot go to {}: {error}", folder.display())))?;
    }
    Ok(entries)
}

fn run_until<E: Future<Output = ()>>(
    entries: Vec<Entry>,
    exports: Exports,
    end: impl FnOnce() -> E,
) -> Result<(), Failure> {
    on_runtime(async {
        run_all(entries, exports, end()).await?;
        Ok(ExitCode::SUCCESS)
    })
    .map(|_| ())
}

async fn run_all(entries: Vec<Entry>, exports: Exports, end: impl Future<Output = ()>) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    let mut jobs = JoinSet::new();
    for entry in entries {
        jobs.spawn(keep_on(entry, exports, stopped.clone()));
    }
    let ended = |job: Result<Result<(), Failure>, _>| match job {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new("a command of the service ended unexpectedly; start it again")),
    };
    let mut outcome = tokio::select! {
        () = end => Ok(()),
        Some(job) = jobs.join_next() => ended(job),
    };
    // All others end as if they had been asked to.
    stop.send_replace(true);
    while let Some(job) = jobs.join_next().await {
        outcome = outcome.and(ended(job));
    }
    outcome
}

/// Runs one command until it is to stop; an error is one that would come again.
async fn keep_on(entry: Entry, exports: Exports, mut stopped: watch::Receiver<bool>) -> Result<(), Failure> {
    let mut told = String::new();
    let mut wait = RETRY_MIN;
    loop {
        let began = Instant::now();
        let end = {
            let mut stopped = stopped.clone();
            async move { stopped.wait_for(|is| *is).await.is_ok() }
        };
        let outcome = match &entry.job {
            Job::Seed(args) => seed::keep(args, end).await,
            Job::Attach(args) => attach::keep(args, exports, began, end).await,
        };
        let failure = match outcome {
            _ if *stopped.borrow() => return outcome.or_else(|failure| tell_late(&entry, &failure)),
            Ok(()) => Failure::new("it has ended by itself"),
            Err(failure) => failure,
        };
        let message = failure.message().unwrap_or_default();
        if failure.is_usage() {
            return Err(Failure::usage(format!("{}: {message}", entry.name)));
        }
        if message != told {
            log::warn(format_args!("{}: {message}; it is tried again", entry.name));
            told = message;
        }
        if began.elapsed() > RETRY_MAX {
            wait = RETRY_MIN;
        }
        let is_time = tokio::time::timeout(wait, stopped.wait_for(|is| *is)).await;
        if is_time.is_ok() {
            return Ok(());
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// A command that fails at its end, or is stopped before it has begun, has ended all the same.
fn tell_late(entry: &Entry, failure: &Failure) -> Result<(), Failure> {
    log::warn(format_args!("{}: {failure}", entry.name));
    Ok(())
}
