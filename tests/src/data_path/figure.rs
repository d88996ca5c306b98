//! Figures, their ratios, and the table of them.
//!
//! *Invariants*: all sides of a figure have been measured in the same rounds, so that the rounds' ratios mean something.
//! The yardstick is the best of the others by its median. *Units*: as each figure says.

use std::fmt::Write;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

use super::Group;
use crate::compare::session::Failure;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the table.
    pub figures: Vec<Figure>,
    /// Groups that came to nothing, and why.
    pub failures: Vec<(Group, Failure)>,
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What it is of.
    pub what: String,
    /// What it is counted in.
    pub unit: &'static str,
    /// swarmdisk's.
    pub ours: Vec<f64>,
    /// Others', or a bound.
    pub others: Vec<Side>,
    /// What the ratio should be.
    pub target: Target,
}

/// What someone else has reached.
#[derive(Debug, Clone)]
pub struct Side {
    /// Who.
    pub name: &'static str,
    /// In each round.
    pub values: Vec<f64>,
}

/// What a ratio should be.
#[derive(Debug, Copy, Clone, PartialEq)]
pub enum Target {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

/// Ratios of all rounds.
#[derive(Debug, Copy, Clone, PartialEq)]
pub struct Ratio {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Figure {
    /// Against a bound, which every round has alike.
    pub fn bounded(what: String, unit: &'static str, ours: Vec<f64>, name: &'static str, bound: f64) -> Self {
        let values = vec![bound; ours.len()];
        Self { what, unit, ours, others: vec![Side { name, values }], target: Target::AtMost(1.0) }
    }

    /// The other that is hardest to beat.
    pub fn yardstick(&self) -> Option<&Side> {
        let by_median = |one: &&Side, other: &&Side| median(&one.values).total_cmp(&median(&other.values));
        match self.target {
            Target::AtLeast(_) => self.others.iter().max_by(by_median),
            Target::AtMost(_) => self.others.iter().min_by(by_median),
        }
    }

    /// Ours to the yardstick's.
    pub fn ratio(&self) -> Option<Ratio> {
        let yardstick = self.yardstick()?;
        let mut ratios: Vec<f64> = self.ours.iter().zip(&yardstick.values).map(|(ours, other)| ours / other).collect();
        ratios.sort_by(f64::total_cmp);
        Some(Ratio { median: median(&ratios), least: *ratios.first()?, greatest: *ratios.last()? })
    }

    /// Whether the median is what it should be.
    pub fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio()?.median;
        Some(match self.target {
            Target::AtLeast(least) => ratio >= least,
            Target::AtMost(most) => ratio <= most,
        })
    }
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(["figure", "unit", "swarmdisk", "others", "ratio", "least, greatest", "target", ""]);
        for figure in &self.figures {
            table.add_row(row(figure));
        }
        let mut text = format!("{table}\n");
        for (group, failure) in &self.failures {
            let _ = writeln!(text, "not measured: {group}: {failure}");
        }
        text
    }
}

fn row(figure: &Figure) -> [String; 8] {
    let others = figure.others.iter().map(|side| format!("{} {}", side.name, short(median(&side.values))));
    let (sign, target) = match figure.target {
        Target::AtLeast(least) => ('≥', least),
        Target::AtMost(most) => ('≤', most),
    };
    let (ratio, range) = match figure.ratio() {
        Some(ratio) => (format!("{:.2}", ratio.median), format!("{:.2}, {:.2}", ratio.least, ratio.greatest)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let verdict = match figure.is_met() {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not measured",
    };
    [
        figure.what.clone(),
        figure.unit.to_owned(),
        short(median(&figure.ours)),
        others.collect::<Vec<_>>().join(", "),
        ratio,
        range,
        format!("{sign} {target}"),
        verdict.to_owned(),
    ]
}

/// A number in about three digits.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The median; of two in the middle, their mean. NaN if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(target: Target) -> Figure {
        let side = |name, values: [f64; 3]| Side { name, values: values.to_vec() };
        let others = vec![side("slow", [1.0, 9.0, 1.0]), side("fast", [2.0, 4.0, 5.0])];
        Figure { what: "a figure".into(), unit: "1/s", ours: vec![3.0, 3.0, 5.0], others, target }
    }

    #[test]
    fn the_best_of_the_others_is_the_yardstick_round_by_round() {
        let throughput = figure(Target::AtLeast(1.0));
        assert_eq!(throughput.yardstick().unwrap().name, "fast");
        assert_eq!(throughput.ratio(), Some(Ratio { median: 1.0, least: 0.75, greatest: 1.5 }));
        assert_eq!(throughput.is_met(), Some(true));
        let time = figure(Target::AtMost(2.0));
        assert_eq!((time.yardstick().unwrap().name, time.is_met()), ("slow", Some(false)));
    }

    #[test]
    fn the_table_says_what_is_missed_and_what_is_not_measured() {
        let missing = Failure::Mismatches(3);
        let figures = vec![figure(Target::AtMost(2.0)), Figure { others: vec![], ..figure(Target::AtLeast(1.0)) }];
        let text = Report { figures, failures: vec![(Group::Idle, missing)] }.text();
        assert!(text.contains("MISSED") && text.contains("not measured: idle: 3 reads"), "{text}");
    }
}
