//! What is aimed at and what is reached: a document that one command makes.
//!
//! *Purpose*: the settings in which swarmdisk is to come near to what is possible, each with what is aimed at, run with the
//! engines as hosts run them. *Invariants*: the document is a function of the scenarios and the [`Spec`]; whether an aim is
//! met is computed from the runs. *Bounds*: one run a setting and seed.
//!
//! | module | holds |
//! |---|---|
//! | `list` | settings and aims |
//! | `text` | the document |

mod list;
mod text;

use crate::policies::{Part, Rows};
use crate::scenario::Scenario;
use crate::sweep::{Plan, Seeds, SweepError};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub use list::SETTINGS;

/// Seeds of the draws.
pub const SEEDS: &str = "1..3";
/// A setting with more nodes takes minutes a run: it is run with the first seed alone, and only if it is asked for.
const NODES_MANY: u32 = 300;

/// A setting, and what is aimed at in it.
#[derive(Debug, Copy, Clone)]
pub struct Setting {
    /// What it is, and its name: no two are alike.
    pub name: &'static str,
    /// Its scenario, without the ending.
    pub scenario: &'static str,
    /// Keys that are set in it.
    pub set: &'static [(&'static str, &'static str)],
    /// What is aimed at; none where it is there for others to be compared with.
    pub aims: &'static [Aim],
}

/// What is aimed at.
#[derive(Debug, Copy, Clone)]
pub struct Aim {
    /// What is measured.
    pub of: Measure,
    /// It is to be at most so much.
    pub most: f64,
}

/// What is measured, of the seed whose median is the middle one.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Measure {
    /// Median run time against a local disk.
    Median,
    /// Its 95th percentile.
    Percentile95,
    /// Its slowest.
    Slowest,
    /// Median run time against the lower bound.
    OverBound,
    /// Median run time against that of another setting.
    Against(&'static str),
    /// Median time waited for the network, as a share of the local run time.
    Waited,
    /// What seeds sent, in working sets.
    Origin,
    /// The most that a node uploaded, against the mean.
    Upload,
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The folder of the scenarios.
    pub scenarios: PathBuf,
    /// Of the draws.
    pub seeds: Seeds,
    /// Whether the settings with very many nodes are run as well.
    pub all: bool,
}

impl Spec {
    /// The runs, checked.
    ///
    /// # Errors
    /// [`SweepError`]: a scenario is missing or wrong.
    pub fn parts(&self) -> Result<Vec<Part>, SweepError> {
        let parts = SETTINGS.iter().map(|setting| self.part(setting));
        parts.filter_map(Result::transpose).collect()
    }

    fn part(&self, setting: &Setting) -> Result<Option<Part>, SweepError> {
        let path = self.scenarios.join(format!("{}.toml", setting.scenario));
        let set: Vec<_> = setting.set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let plan = |seeds: &Seeds| Plan::new(&path, &set, &[], Some(seeds));
        let part = |plan| Ok(Some(Part { name: setting.name, plan }));
        let first = Seeds(self.seeds.0.iter().copied().take(1).collect());
        let one = plan(&first)?;
        match (nodes(one.point(1).scenario) > NODES_MANY, self.all) {
            (true, false) => Ok(None),
            (true, true) => part(one),
            (false, _) => part(plan(&self.seeds)?),
        }
    }

    /// The document, of what the runs came to by the settings' names; `command` makes it.
    pub fn document(&self, rows: &BTreeMap<&'static str, Rows>, command: &str) -> String {
        text::text(self, rows, command)
    }
}

fn nodes(scenario: &Scenario) -> u32 {
    scenario.groups.iter().map(|group| group.count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn settings_are_known_by_name_and_those_compared_with_are_there() {
        let names: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        for aim in SETTINGS.iter().flat_map(|setting| setting.aims) {
            assert!(aim.most > 0.0);
            if let Measure::Against(name) = aim.of {
                assert!(names.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn many_nodes_are_run_only_if_asked_for() {
        let scenarios = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"));
        let parts = |all| Spec { scenarios: scenarios.clone(), seeds: SEEDS.parse().unwrap(), all }.parts().unwrap();
        let (few, all) = (parts(false), parts(true));
        assert_eq!(all.len(), SETTINGS.len());
        assert!(few.len() < all.len() && few.iter().all(|part| part.plan.point_count() == 3));
        assert_eq!(all.iter().map(|part| part.plan.point_count()).min(), Some(1));
    }
}
