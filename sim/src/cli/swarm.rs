//! `swarmdisk-sim swarm` and `shrink`: swarms and faults drawn from seeds, under the eyes of the checkers.

use super::args::{Shrink, Swarm};
use super::{Failure, say};
use crate::scenario::{self, Scenario};
use crate::swarm::{Options, Verdict, draw, run_scenario, shrink as make_smaller, swarm};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::time::Instant;
use swarmdisk_common::file::write_whole;
use swarmdisk_common::output::remark;
use swarmdisk_common::units::Micros;

/// Plain lines come each time so many more percent are done.
const PLAIN_STEP_PERCENT: u64 = 10;

pub(super) fn run(args: &Swarm) -> Result<ExitCode, Failure> {
    let options = Options { nodes_max: args.nodes_max, ..Options::default() };
    if let Some(path) = &args.scenario {
        let scenario = scenario::load(path)?;
        let seed = args.seed.unwrap_or(scenario.seed);
        return judge(&run_scenario(&scenario, seed, &options)?);
    }
    match args.seed {
        Some(seed) => one(seed, &options),
        None => many(args, &options),
    }
}

/// A seed by itself, with its scenario shown.
fn one(seed: u64, options: &Options) -> Result<ExitCode, Failure> {
    let scenario = draw::draw(seed, options);
    say(toml_of(&scenario)?)?;
    judge(&run_scenario(&scenario, seed, options)?)
}

fn judge(verdict: &Verdict) -> Result<ExitCode, Failure> {
    say(format_args!(
        "seed {}: {} nodes, {} faults of {} kinds, {} events, {} of virtual time, digest {:016x}",
        verdict.seed,
        verdict.nodes,
        verdict.faults,
        verdict.kinds,
        verdict.events,
        Micros(verdict.virtual_nanos / 1000),
        verdict.digest
    ))?;
    match &verdict.result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(violation) => Err(Failure::new(format!("{violation}; `swarmdisk-sim shrink` makes the scenario smaller"))),
    }
}

fn many(args: &Swarm, options: &Options) -> Result<ExitCode, Failure> {
    let end = args.first.checked_add(args.count).ok_or_else(|| Failure::usage("there are no such seeds"))?;
    let threads = args.threads.map_or_else(|| available_parallelism().map_or(1, NonZero::get), usize::from);
    let started = Instant::now();
    let show = Show::new(args.count);
    let outcome = swarm(args.first..end, threads, options, |verdict| show.update(verdict));
    drop(show);
    say(outcome.coverage.to_string().trim_end())?;
    remark(format_args!("wall time: {}", Micros(started.elapsed().as_micros() as u64)));
    if outcome.failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for failure in &outcome.failures {
        say(format_args!("seed {} fails: {}\n  {}", failure.seed, failure.violation, failure.replay))?;
    }
    Err(Failure::new(format!("{} of {} seeds fail; run one again with --seed", outcome.failures.len(), args.count)))
}

pub(super) fn shrink(args: &Shrink) -> Result<ExitCode, Failure> {
    let options = Options::default();
    let (scenario, seed) = match (&args.scenario, args.seed) {
        (Some(path), seed) => {
            let scenario = scenario::load(path)?;
            let seed = seed.unwrap_or(scenario.seed);
            (scenario, seed)
        }
        (None, Some(seed)) => (draw::draw(seed, &options), seed),
        (None, None) => return Err(Failure::usage("name a scenario, or the seed that draws it with --seed N")),
    };
    let shrunk = make_smaller::shrink(&scenario, seed, &options, args.tries);
    let Some(mut shrunk) = shrunk else {
        return Err(Failure::new("nothing is wrong with that scenario and seed: there is nothing to make smaller"));
    };
    shrunk.scenario.seed = seed;
    let text = shrunk.to_toml();
    match &args.out {
        Some(path) => write(path, &text)?,
        None => say(text.trim_end())?,
    }
    remark(format_args!("after {} runs: {}", shrunk.tries, shrunk.violation));
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    write_whole(path, |out| out.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}; choose another --out", path.display())))
}

fn toml_of(scenario: &Scenario) -> Result<String, Failure> {
    Ok(toml::to_string(scenario)?.trim_end().to_owned())
}

/// Progress on stderr: a bar on a terminal, lines elsewhere.
struct Show {
    bar: Option<ProgressBar>,
    count: u64,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Show {
    fn new(count: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} {wide_bar} {pos}/{len} seeds, {eta} left";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(count).with_style(style).with_message("swarms")
        });
        Self { bar, count, done: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    fn update(&self, verdict: &Verdict) {
        let done = self.done.fetch_add(1, Relaxed) + 1;
        if let Err(violation) = &verdict.result {
            self.failed.fetch_add(1, Relaxed);
            let line = format!("seed {} fails: {violation}", verdict.seed);
            match &self.bar {
                Some(bar) => bar.suspend(|| remark(line)),
                None => remark(line),
            }
        }
        if let Some(bar) = &self.bar {
            return bar.inc(1);
        }
        let step = |done: u64| done * 100 / self.count.max(1) / PLAIN_STEP_PERCENT;
        if step(done) > step(done - 1) {
            let failed = self.failed.load(Relaxed);
            remark(format_args!("{done} of {} seeds, {failed} fail", self.count));
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
