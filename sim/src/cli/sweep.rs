//! `swarmdisk-sim sweep` and `sweep merge`.

use super::args::{Merge, Sweep, SweepCommand};
use super::{Failure, interrupt, say};
use crate::sweep::{Options, Plan, Report, Shard, Status, SweepError, axes_from_file, merge, run as run_sweep};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::num::NonZero;
use std::process::ExitCode;

use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use swarmdisk_common::output;
use swarmdisk_common::units::Micros;

/// Plain lines come no more often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Missing points, and points under way, that are named.
const NAMED_MAX: usize = 20;

pub(super) fn run(args: &Sweep) -> Result<ExitCode, Failure> {
    if let Some(SweepCommand::Merge(args)) = &args.command {
        return join(args);
    }
    let (Some(scenario), Some(out)) = (&args.scenario, &args.out) else {
        return Err(Failure::usage("name a scenario and --out FILE.csv"));
    };
    let shard = match args.shard.as_deref() {
        None => Shard::ALL,
        Some("auto") => Shard::from_environment(|name| std::env::var(name).ok())?,
        Some(text) => text.parse().map_err(|error| Failure::usage(format!("{error}")))?,
    };
    let mut axes = args.grid_file.as_deref().map_or(Ok(Vec::new()), axes_from_file)?;
    axes.extend(args.grid.iter().cloned());
    let plan = Plan::new(scenario, &args.set, &axes, args.seeds.as_ref())?;
    let threads = args.threads.map_or_else(|| available_parallelism().map_or(1, NonZero::get), usize::from);
    let interrupt = interrupt::flag()?;
    let options = Options { out, threads, shard, restart: args.restart, interrupt: &interrupt };
    let started = Instant::now();
    let mut show = Show::new("sweep", &plan);
    let report = run_sweep(&plan, &options, |status| show.update(status));
    drop(show);
    let Report { all, kept, point_count } = report.map_err(|error| match error {
        SweepError::Interrupted { .. } => Failure::interrupted(error.to_string()),
        error => error.into(),
    })?;
    let of = if all == point_count { String::new() } else { format!(" of {point_count}") };
    let ran = all - kept;
    let took = Micros(started.elapsed().as_micros() as u64);
    say(format_args!("{}: {all}{of} points, {kept} of them from before, {ran} in {took}", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn join(args: &Merge) -> Result<ExitCode, Failure> {
    let merged = merge(&args.out, &args.parts, args.partial)?;
    if !merged.missing.is_empty() {
        let named: Vec<String> = merged.missing.iter().take(NAMED_MAX).map(u32::to_string).collect();
        let more = merged.missing.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let missing = format!("missing points of {}: {}{more}", merged.point_count, named.join(", "));
        if !merged.is_written {
            return Err(Failure::new(format!("{missing}; run their shards again, or pass --partial")));
        }
        output::remark(missing);
    }
    say(format_args!("{}: {} of {} points", args.out.display(), merged.row_count, merged.point_count))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows how far it has come: a bar on a terminal, plain lines elsewhere.
pub(super) struct Show<'a> {
    /// What is run.
    name: &'a str,
    plan: &'a Plan,
    bar: Option<ProgressBar>,
    /// When it began, and when the last line was written.
    lines: Option<(Instant, Instant)>,
}

impl<'a> Show<'a> {
    pub(super) fn new(name: &'a str, plan: &'a Plan) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} points{prefix}\n{wide_msg}");
            ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { name, plan, bar, lines: None }
    }

    pub(super) fn update(&mut self, status: &Status<'_>) {
        let is_first = self.lines.is_none();
        let now = Instant::now();
        let (began, last) = *self.lines.get_or_insert((now, now));
        if let Some(bar) = &self.bar {
            bar.set_length(status.all as u64);
            bar.set_position(status.done as u64);
            bar.set_prefix(left(status, now - began));
            bar.set_message(format!("{}: {}", self.name, self.running(status)));
        } else if is_first || now - last >= LINE_EVERY {
            self.lines = Some((began, now));
            let (left, running) = (left(status, now - began), self.running(status));
            let and = if running.is_empty() { "" } else { "; " };
            output::remark(format_args!("{}: {} of {} points{left}{and}{running}", self.name, status.done, status.all));
        }
    }

    fn running(&self, status: &Status<'_>) -> String {
        let labels: Vec<String> =
            status.running.iter().take(NAMED_MAX).map(|number| self.plan.label(*number)).collect();
        if labels.is_empty() { String::new() } else { format!("running {}", labels.join(", ")) }
    }
}

/// How long the rest takes if it goes on like this; what was there before says nothing about that.
fn left(status: &Status<'_>, elapsed: Duration) -> String {
    let ran = (status.done - status.kept) as u128;
    let micros = elapsed.as_micros() * (status.all - status.done) as u128;
    micros.checked_div(ran).map_or_else(String::new, |micros| format!(", about {} left", Micros(micros as u64)))
}

impl Drop for Show<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
