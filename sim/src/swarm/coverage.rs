//! What many seeds have tried, summed up.

use super::run::Verdict;
use crate::scenario::FaultKind;
use std::collections::BTreeMap;
use std::fmt;

/// A number of each seed.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Half of the seeds have at least that.
    pub median: u64,
    /// None has more.
    pub most: u64,
    /// Of all seeds together.
    pub sum: u64,
}

/// What seeds have tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// How many seeds.
    pub seeds: u64,
    /// Nodes.
    pub nodes: Spread,
    /// Faults of the plans.
    pub faults: Spread,
    /// Kinds of faults in a plan.
    pub kinds: Spread,
    /// Things that have happened.
    pub events: Spread,
    /// Virtual time, in milliseconds.
    pub virtual_millis: Spread,
    /// By kind of fault: in how many seeds it has happened, and how often.
    pub happened: BTreeMap<FaultKind, (u64, u64)>,
    /// By what a checker judges: in how many seeds there was something, and how much.
    pub judged: BTreeMap<&'static str, (u64, u64)>,
}

impl Spread {
    fn of(numbers: impl Iterator<Item = u64>) -> Self {
        let mut sorted: Vec<u64> = numbers.collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        Self { median, most: sorted.last().copied().unwrap_or(0), sum: sorted.iter().sum() }
    }
}

impl Coverage {
    pub(super) fn of(verdicts: &[Verdict]) -> Self {
        let spread = |number: fn(&Verdict) -> u64| Spread::of(verdicts.iter().map(number));
        let mut coverage = Self {
            seeds: verdicts.len() as u64,
            nodes: spread(|verdict| verdict.nodes.into()),
            faults: spread(|verdict| verdict.faults.into()),
            kinds: spread(|verdict| verdict.kinds.into()),
            events: spread(|verdict| verdict.events),
            virtual_millis: spread(|verdict| verdict.virtual_nanos / 1_000_000),
            ..Self::default()
        };
        for verdict in verdicts {
            for (what, count) in &verdict.happened {
                add(coverage.happened.entry(*what).or_default(), (*count).into());
            }
            let of = &verdict.subjects;
            for (what, count) in [
                ("integrity: chunks that guests got", of.got_count),
                ("integrity: pieces kept", of.kept_count),
                ("integrity: wrong bodies found", of.corrupt_count),
                ("progress: waits after the faults", of.calm_wait_count),
                ("budget: slots", of.slot_count),
                ("budget: looks through an engine's tables", of.invariants_count),
                ("fairness: swarms", u64::from(of.uploads.is_some())),
                ("quiet: nodes", of.quiet_count),
            ] {
                add(coverage.judged.entry(what).or_default(), count);
            }
        }
        coverage
    }
}

fn add((seeds, sum): &mut (u64, u64), count: u64) {
    *seeds += u64::from(count > 0);
    *sum += count;
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} seeds", self.seeds)?;
        for (what, spread) in [
            ("nodes", self.nodes),
            ("faults", self.faults),
            ("kinds of faults", self.kinds),
            ("events", self.events),
            ("virtual milliseconds", self.virtual_millis),
        ] {
            writeln!(f, "  {what}: median {}, at most {}, in all {}", spread.median, spread.most, spread.sum)?;
        }
        for (what, (seeds, count)) in &self.happened {
            let name = toml::Value::try_from(what).ok();
            let name = name.as_ref().and_then(toml::Value::as_str).unwrap_or_default();
            writeln!(f, "  {name}: in {seeds} seeds, {count} times")?;
        }
        for (what, (seeds, count)) in &self.judged {
            writeln!(f, "  {what}: in {seeds} seeds, {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_its_numbers() {
        assert_eq!(Spread::of([5, 1, 9].into_iter()), Spread { median: 5, most: 9, sum: 15 });
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
