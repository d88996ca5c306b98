//! Runs of scenarios under the eyes of the checkers.
//!
//! *Invariants*: a run depends on its scenario and seed alone; a panic in it is a violation like any other, and ends neither
//! the other runs nor the program. *Bounds*: [`Options::events_max`] events a run.

use super::checkers::{Checker, Checkers, Fairness, Violation};
use super::{Coverage, draw};
use crate::model::{Setup, SetupError};
use crate::network::Nanos;
use crate::scenario::{Fault, FaultKind, Scenario};
use crate::world::{Phase, World};
use bumpalo::Bump;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

/// How often what has not come is looked for.
const TICK: Nanos = 1_000_000_000;
/// How long a swarm is listened to that ought to be quiet.
const QUIET: Nanos = 30_000_000_000;

/// How seeds are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Most nodes that are drawn.
    pub nodes_max: u32,
    /// The engines' tables are looked through once in so many polls.
    pub invariants_every: u32,
    /// A run that takes more is one that never ends.
    pub events_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes_max: 80, invariants_every: 200, events_max: 10_000_000 }
    }
}

/// What there was for the checkers to judge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    /// Integrity: chunks that guests got.
    pub got_count: u64,
    /// Integrity: pieces that were kept.
    pub kept_count: u64,
    /// Integrity: bodies that were found to be wrong.
    pub corrupt_count: u64,
    /// Progress: waits that ended after the faults had.
    pub calm_wait_count: u64,
    /// Progress: the longest of these, in nanoseconds, and what was allowed.
    pub longest: (Nanos, Nanos),
    /// Budget: slots.
    pub slot_count: u64,
    /// Budget: times that an engine's tables were looked through.
    pub invariants_count: u64,
    /// Fairness: what the busiest node sent and what the median did, in bytes, if it was judged.
    pub uploads: Option<(u64, u64)>,
    /// Quiet: nodes that were judged.
    pub quiet_count: u64,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Nodes, seeds not counted.
    pub nodes: u32,
    /// Faults of the plan.
    pub faults: u32,
    /// Kinds of faults in it.
    pub kinds: u32,
    /// How many faults of each kind have happened.
    pub happened: BTreeMap<FaultKind, u32>,
    /// Things that have happened.
    pub events: u64,
    /// Virtual time.
    pub virtual_nanos: Nanos,
    /// Hash of all that has happened; 0 if it ended in a panic.
    pub digest: u64,
    /// What there was to judge.
    pub subjects: Subjects,
    /// The first thing that was wrong.
    pub result: Result<(), Violation>,
}

/// A seed that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// Why.
    pub violation: Violation,
    /// The command that shows it again.
    pub replay: String,
}

/// What came of many seeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What they have tried.
    pub coverage: Coverage,
    /// Those that fail, in order.
    pub failures: Vec<Failure>,
}

/// Draws a scenario from a seed and runs it.
pub fn run_seed(seed: u64, options: &Options) -> Verdict {
    match run_scenario(&draw::draw(seed, options), seed, options) {
        Ok(verdict) => verdict,
        Err(error) => unreachable!("what is drawn names no files: {error}"),
    }
}

/// Runs a scenario with all checkers.
///
/// # Errors
/// [`SetupError`]: a file that it names is wrong.
pub fn run_scenario(scenario: &Scenario, seed: u64, options: &Options) -> Result<Verdict, SetupError> {
    let setup = Setup::new(scenario.clone(), seed)?;
    let reached = Cell::new((0, 0));
    let run = || Run::new(&setup, options, &reached, &Bump::new()).verdict();
    let (mut verdict, result) = match quietly(run) {
        Ok(verdict) => {
            let result = verdict.result.clone();
            (verdict, result)
        }
        Err(what) => {
            let (at, events) = reached.get();
            let violation = Violation { checker: Checker::Panic, at, node: None, what };
            (Verdict { events, virtual_nanos: at, ..Verdict::of(scenario, seed) }, Err(violation))
        }
    };
    verdict.result = result;
    Ok(verdict)
}

/// Runs seeds on so many threads; `progress` is told of each, in any order.
pub fn swarm(seeds: Range<u64>, threads: usize, options: &Options, progress: impl Fn(&Verdict) + Sync) -> Outcome {
    let next = AtomicU64::new(seeds.start);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let verdict = run_seed(seed, options);
                    progress(&verdict);
                    verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(verdict);
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    verdicts.sort_by_key(|verdict| verdict.seed);
    let failure = |verdict: &Verdict| {
        let violation = verdict.result.clone().err()?;
        let seed = verdict.seed;
        Some(Failure { seed, violation, replay: format!("swarmdisk-sim swarm --seed {seed}") })
    };
    Outcome { coverage: Coverage::of(&verdicts), failures: verdicts.iter().filter_map(failure).collect() }
}

/// When the last fault has ended; none if one that keeps others from going on never does.
pub fn calm(faults: &[Fault]) -> Option<Nanos> {
    let end = |fault: &Fault| match (fault.what, fault.span) {
        (_, Some(span)) => Some(fault.at.0 + span.0),
        // They lie, have gone for good, or last but a moment: others go on.
        (FaultKind::Liar | FaultKind::Crash | FaultKind::Kill, None) => Some(fault.at.0),
        (FaultKind::Disconnect | FaultKind::Rename | FaultKind::ClockStep, None) => Some(fault.at.0),
        (FaultKind::Pause, None) => Some(fault.at.0 + TICK),
        _ => None,
    };
    faults.iter().map(end).try_fold(0, |latest: Nanos, end| Some(latest.max(end?)))
}

impl Verdict {
    /// Of a run that has not begun.
    fn of(scenario: &Scenario, seed: u64) -> Self {
        let kinds: BTreeSet<FaultKind> = scenario.faults.iter().map(|fault| fault.what).collect();
        Self {
            seed,
            nodes: scenario.node_count(),
            faults: scenario.faults.len() as u32,
            kinds: kinds.len() as u32,
            happened: BTreeMap::new(),
            events: 0,
            virtual_nanos: 0,
            digest: 0,
            subjects: Subjects::default(),
            result: Ok(()),
        }
    }
}

/// A run under way.
struct Run<'a> {
    world: World<'a, Checkers>,
    setup: &'a Setup,
    options: &'a Options,
    /// Time and events, for whoever catches a panic.
    reached: &'a Cell<(Nanos, u64)>,
    /// No later than that; time passes even if nothing happens.
    now: Nanos,
    calm: Option<Nanos>,
    subjects: Subjects,
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup, options: &'a Options, reached: &'a Cell<(Nanos, u64)>, bump: &'a Bump) -> Self {
        let calm = calm(&setup.scenario.faults);
        let world = World::new(setup, bump, Checkers::new(setup, calm, options.invariants_every));
        Self { world, setup, options, reached, now: 0, calm, subjects: Subjects::default() }
    }

    fn verdict(mut self) -> Verdict {
        self.run();
        let checkers = self.world.watch();
        let (integrity, progress, budget) = (&checkers.integrity, &checkers.progress, &checkers.budget);
        let engines = (0..self.setup.nodes.len()).filter_map(|node| self.world.engine(node));
        Verdict {
            happened: checkers.faults.clone(),
            events: self.world.event_count(),
            virtual_nanos: self.world.now(),
            digest: self.world.digest(),
            subjects: Subjects {
                got_count: integrity.got_count,
                kept_count: integrity.kept_count,
                corrupt_count: engines.map(|engine| engine.stats().corrupt_pieces).sum(),
                calm_wait_count: progress.calm_wait_count,
                longest: (progress.longest, progress.bound()),
                slot_count: budget.slot_count,
                invariants_count: budget.invariants_count,
                ..self.subjects
            },
            result: checkers.violation().cloned().map_or(Ok(()), Err),
            ..Verdict::of(&self.setup.scenario, self.setup.seed)
        }
    }

    /// First all boot, while something goes wrong and after; then nothing is to be done any more.
    fn run(&mut self) {
        let finished = self.pass(self.setup.scenario.limit.0, |world| world.booting() == 0);
        if self.is_over() {
            return;
        }
        if !finished {
            let (now, booting) = (self.now, self.world.booting());
            let judgement = self.world.watch().progress.judge_end(now, booting);
            return self.world.watch_mut().judge(Checker::Progress, now, None, judgement);
        }
        self.judge_fairness();
        if let Some(calm) = self.calm {
            self.pass(calm, |_| false);
            // Small caches leave some swarms talking: that is not judged yet.
            if self.setup.scenario.host.capacity.is_none() {
                self.listen();
            }
        }
    }

    /// Lets time pass until `until`, or until it is done, which is said then; or until something is wrong.
    fn pass(&mut self, until: Nanos, is_done: impl Fn(&World<'_, Checkers>) -> bool) -> bool {
        while !self.is_over() {
            if is_done(&self.world) {
                return true;
            }
            let tick = until.min((self.now / TICK + 1) * TICK);
            if self.world.step(tick) {
                self.now = self.world.now();
                self.reached.set((self.now, self.world.event_count()));
                continue;
            }
            self.now = self.now.max(tick);
            self.world.watch_mut().tick(tick);
            if tick == until {
                return false;
            }
        }
        false
    }

    fn is_over(&mut self) -> bool {
        if self.world.event_count() > self.options.events_max {
            let (now, most) = (self.now, self.options.events_max);
            let judgement = Err(format!("more than {most} events: the swarm is busy for ever"));
            self.world.watch_mut().judge(Checker::Budget, now, None, judgement);
        }
        self.world.watch().violation().is_some()
    }

    fn judge_fairness(&mut self) {
        let Some(fairness) = Fairness::new(self.setup) else { return };
        let nodes = self.setup.seed_count()..self.setup.nodes.len();
        let mut uploaded: Vec<u64> = nodes.map(|node| self.world.tally(node).uploaded_bytes).collect();
        let judgement = fairness.judge(&uploaded);
        let now = self.now;
        self.world.watch_mut().judge(Checker::Fairness, now, None, judgement);
        uploaded.sort_unstable();
        self.subjects.uploads = Some((uploaded[uploaded.len() - 1], uploaded[uploaded.len() / 2]));
    }

    /// The swarm is to become quiet within the time in which anything else is to happen.
    fn listen(&mut self) {
        let end = self.now + self.world.watch().progress.bound();
        loop {
            self.world.watch_mut().quiet = super::checkers::Quiet::new(self.setup.nodes.len());
            let now = self.now;
            self.world.watch_mut().quiet.begin(now);
            self.pass(now + QUIET, |_| false);
            if self.is_over() {
                return;
            }
            let loud = self.loud();
            match loud {
                None => return,
                Some((node, what)) if self.now > end => {
                    let now = self.now;
                    return self.world.watch_mut().judge(Checker::Quiet, now, Some(node), Err(what));
                }
                Some(_) => {}
            }
        }
    }

    /// A node that says too much.
    fn loud(&mut self) -> Option<(usize, String)> {
        self.subjects.quiet_count = 0;
        for node in 0..self.setup.nodes.len() {
            let Some(engine) = self.world.engine(node).filter(|_| self.world.phase(node) == Phase::Up) else {
                continue;
            };
            let links = engine.peers().count();
            let fills = self.setup.scenario.policy_of(self.setup.nodes[node].group).fill_rate.is_some();
            if fills && engine.held().count() < engine.geometry().piece_count() {
                // It still has something to do, as have those that serve it.
                return Some((node, "it has not fetched all though it was told to".into()));
            }
            if let Err(what) = self.world.watch().quiet.judge(self.now, node, links) {
                return Some((node, what));
            }
            self.subjects.quiet_count += 1;
        }
        None
    }
}

thread_local! {
    /// Whether panics of this thread are caught, and what the last one said.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Runs something; a panic is no news for the terminal but an error, with its place.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !note(info) {
                others(info)
            }
        }));
    });
    CATCHES.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    CATCHES.set(false);
    result.map_err(|_| CAUGHT.take().unwrap_or_default())
}

fn note(info: &PanicHookInfo<'_>) -> bool {
    if !CATCHES.get() {
        return false;
    }
    let message = info.payload_as_str().unwrap_or("it does not say why");
    let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
    CAUGHT.set(Some(format!("{message}{place}")));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<Fault> {
        let scenario: Scenario = toml::from_str(text).unwrap();
        scenario.faults
    }

    #[test]
    fn it_is_calm_when_all_faults_are_over() {
        assert_eq!(calm(&[]), Some(0));
        let two = "[[fault]]\nwhat = \"slow\"\nat = \"1s\"\nfor = \"2s\"\n[[fault]]\nwhat = \"kill\"\nat = \"2s\"\n";
        assert_eq!(calm(&faults(two)), Some(3_000_000_000));
        assert_eq!(calm(&faults("[[fault]]\nwhat = \"partition\"\nat = \"1s\"\n")), None);
    }

    #[test]
    fn a_panic_is_caught_with_its_place() {
        assert_eq!(quietly(|| 3), Ok(3));
        let what = quietly(|| assert_eq!(1 + 1, 3, "sums")).unwrap_err();
        assert!(what.contains("sums") && what.contains("run.rs:"), "{what}");
    }

    #[test]
    fn a_seed_gives_one_verdict() {
        let options = Options { nodes_max: 10, ..Options::default() };
        let one = swarm(3..6, 1, &options, |_| {});
        assert_eq!(one, swarm(3..6, 3, &options, |_| {}));
        assert_eq!(run_seed(3, &options), run_seed(3, &options));
    }
}
