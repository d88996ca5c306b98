//! `swarmdisk-sim run`.

use super::args::{Model, Run};
use super::{Failure, interrupt, say};
use crate::model::Setup;
use crate::outcome::{self, Outcome};
use crate::report::{self, Progress};
use crate::scenario;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use swarmdisk_common::output::remark;

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
fn watched(setup: &Setup) -> Result<Outcome, Failure> {
    let interrupted = interrupt::flag()?;
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
