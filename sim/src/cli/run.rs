//! `swarmdisk-sim run`.

use super::args::{Model, Run};
use super::{Failure, say};
use crate::model::Setup;
use crate::outcome::{self, Outcome};
use crate::report::{self, Progress};
use crate::scenario;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use swarmdisk_common::output::remark;

/// As a shell says of a command that was interrupted.
const INTERRUPTED: u8 = 130;

pub(super) fn run(args: &Run) -> Result<ExitCode, Failure> {
    let mut scenario = scenario::load_with(&args.scenario, &args.set)?;
    match args.network {
        Some(Model::Fluid) => scenario.network.model = scenario::Model::Fluid,
        Some(Model::Packet) => scenario.network.model = scenario::Model::Packet,
        None => {}
    }
    // Before the run, which may take an hour.
    args.out.as_deref().map_or(Ok(()), report::check_folder)?;
    let seed = args.seed.unwrap_or(scenario.seed);
    let setup = Setup::new(scenario, seed)?;
    let outcome = watched(&setup)?;
    if args.json {
        say(serde_json::to_string_pretty(&outcome)?)?;
    } else {
        say(report::table(&outcome))?;
    }
    args.out.as_deref().map_or(Ok(()), |folder| report::write(&outcome, folder))?;
    match report::shortfall(&outcome) {
        None => Ok(ExitCode::SUCCESS),
        Some(why) if outcome.cut_off => Err(Failure::interrupted(why)),
        Some(why) => Err(Failure::new(why)),
    }
}

/// Runs with progress on stderr, to an interrupt if there is one.
fn watched(setup: &Setup) -> io::Result<Outcome> {
    let interrupted = interrupt_flag()?;
    let mut progress = Progress::new(setup.nodes.len() - setup.seed_count());
    let outcome = outcome::run(setup, |world| {
        progress.update(world);
        !interrupted.load(Relaxed)
    });
    let wall = progress.wall_line(outcome.event_count);
    drop(progress);
    remark(wall);
    Ok(outcome)
}

/// Set by the first interrupt; the second ends the process at once.
fn interrupt_flag() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, INTERRUPTED.into(), interrupted.clone())?;
        flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}
