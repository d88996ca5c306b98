//! `swarmdisk-sim run`.

use super::args::{Model, Run};
use super::{Failure, say};
use crate::model::Setup;
use crate::outcome;
use crate::scenario;
use std::process::ExitCode;

pub(super) fn run(args: &Run) -> Result<ExitCode, Failure> {
    let mut scenario = scenario::load_with(&args.scenario, &args.set)?;
    match args.network {
        Some(Model::Fluid) => scenario.network.model = scenario::Model::Fluid,
        Some(Model::Packet) => scenario.network.model = scenario::Model::Packet,
        None => {}
    }
    let seed = args.seed.unwrap_or(scenario.seed);
    let setup = Setup::new(scenario, seed)?;
    let outcome = outcome::run(&setup, |_| true);
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder)?;
        swarmdisk_common::file::write_json(&outcome, &folder.join("result.json"))?;
    }
    say(serde_json::to_string_pretty(&outcome)?)?;
    Ok(ExitCode::SUCCESS)
}
