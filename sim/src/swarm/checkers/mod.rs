//! What must hold in every swarm, each in a module of its own.
//!
//! *Purpose*: they see what happens through [`Watch`] and change nothing. *Invariants*: the first violation is kept; nothing
//! that comes after it counts. *Units*: nanoseconds of virtual time, bytes. *Bounds*: a call is O(chunks that a guest waits
//! for), but for the engines' own tables, which are looked through once in so many calls.

mod budget;
mod fairness;
mod integrity;
mod progress;
mod quiet;

pub use budget::Budget;
pub use fairness::Fairness;
pub use integrity::Integrity;
pub use progress::Progress;
pub use quiet::Quiet;

use crate::model::{Setup, SimEngine};
use crate::network::Nanos;
use crate::scenario::FaultKind;
use crate::world::{Observation, Watch};
use std::collections::BTreeMap;
use std::fmt;

/// Who has found something.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checker {
    /// No wrong byte is read or kept.
    Integrity,
    /// Whoever waits gets something in the end.
    Progress,
    /// Nobody uses more than it may, and all that was taken is given back.
    Budget,
    /// Nobody sends far more than others do.
    Fairness,
    /// Who has nothing to do says little.
    Quiet,
    /// An assertion of the engine's own, or of the simulator's.
    Panic,
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integrity => "integrity",
            Self::Progress => "progress",
            Self::Budget => "budget",
            Self::Fairness => "fairness",
            Self::Quiet => "quiet",
            Self::Panic => "panic",
        })
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Who says so.
    pub checker: Checker,
    /// When, in nanoseconds of virtual time.
    pub at: Nanos,
    /// At which node, seeds counted first; none: it concerns all.
    pub node: Option<usize>,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms", self.checker, self.at / 1_000_000)?;
        if let Some(node) = self.node {
            write!(f, ", node {node}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What a checker makes of something: an error says what is wrong.
pub type Judgement = Result<(), String>;

/// All that watch a run.
#[derive(Debug)]
pub struct Checkers {
    /// See [`Integrity`].
    pub integrity: Integrity,
    /// See [`Progress`].
    pub progress: Progress,
    /// See [`Budget`].
    pub budget: Budget,
    /// See [`Quiet`].
    pub quiet: Quiet,
    /// How often each kind of fault has happened.
    pub faults: BTreeMap<FaultKind, u32>,
    violation: Option<Violation>,
}

impl Checkers {
    /// For a run of `setup`, whose faults end at `calm` if they do. The engines' tables are looked through once in
    /// `invariants_every` polls.
    pub fn new(setup: &Setup, calm: Option<Nanos>, invariants_every: u32) -> Self {
        Self {
            integrity: Integrity::default(),
            progress: Progress::new(setup.nodes.len(), calm, progress::bound(setup)),
            budget: Budget::new(setup, invariants_every),
            quiet: Quiet::new(setup.nodes.len()),
            faults: BTreeMap::new(),
            violation: None,
        }
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes what a checker says.
    pub fn judge(&mut self, checker: Checker, at: Nanos, node: Option<usize>, judgement: Judgement) {
        if let Err(what) = judgement
            && self.violation.is_none()
        {
            self.violation = Some(Violation { checker, at, node, what });
        }
    }

    /// Time has passed, to be said once in a while.
    pub fn tick(&mut self, now: Nanos) {
        for node in 0..self.progress.node_count() {
            let judgement = self.progress.judge(now, node);
            self.judge(Checker::Progress, now, Some(node), judgement);
            let judgement = self.budget.judge_slots(self.progress.patience_since(now), node);
            self.judge(Checker::Budget, now, Some(node), judgement);
        }
    }
}

impl Watch for Checkers {
    fn observe(&mut self, now: Nanos, node: usize, what: Observation) {
        if let Observation::Fault { what } = what {
            *self.faults.entry(what).or_default() += 1;
        }
        self.progress.observe(now, node, what);
        self.quiet.observe(node, what);
        let judgement = self.integrity.observe(what);
        self.judge(Checker::Integrity, now, Some(node), judgement);
        let judgement = self.budget.observe(now, node, what);
        self.judge(Checker::Budget, now, Some(node), judgement);
    }

    fn polled(&mut self, now: Nanos, node: usize, engine: &SimEngine<'_>, action_count: u32) {
        let judgement = self.budget.polled(node, engine.slots_in_use(), action_count);
        self.judge(Checker::Budget, now, Some(node), judgement);
        if self.budget.is_due() {
            engine.check_invariants();
        }
    }
}
