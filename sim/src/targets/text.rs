//! The document: a table of aims, and how to run each setting alone.

use super::{Aim, Measure, SETTINGS, Setting, Spec};
use crate::policies::{Row, Rows};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What came of the settings.
type All = BTreeMap<&'static str, Rows>;

/// The document.
pub(super) fn text(spec: &Spec, rows: &All, command: &str) -> String {
    let seeds: Vec<String> = spec.seeds.0.iter().map(u64::to_string).collect();
    let mut table = String::new();
    let (mut met, mut missed, mut left_out) = (0, 0, 0);
    for setting in SETTINGS {
        for aim in setting.aims {
            let reached = row(rows, setting).and_then(|row| measured(aim.of, row, rows));
            let (reached, verdict) = match reached {
                Some(value) if value <= aim.most => (number(aim.of, value), "met"),
                Some(value) => (number(aim.of, value), "**missed**"),
                None if rows.contains_key(setting.name) => ("not all came to their end".into(), "**missed**"),
                None => ("not run".into(), ""),
            };
            match verdict {
                "met" => met += 1,
                "" => left_out += 1,
                _ => missed += 1,
            }
            // Writing to a string does not fail.
            let _ = writeln!(table, "| {} | {} | {} | {reached} | {verdict} |", setting.name, what(aim), most(aim));
        }
    }
    let left_out = if left_out > 0 { format!(", {left_out} not run: `--all` runs them") } else { String::new() };
    let mut out = format!(
        "# What is aimed at, and what is reached\n\n\
         Made by `{command}`; do not edit. Simulated with the engines that hosts run: the same command gives the same document.\n\n\
         Unless said: a recorded boot of a server, think times a tenth, with the profile of another boot of it; one seed; 100 Mbit/s \
         for everybody, no delay; all start within 50 ms. *Live*: without a profile. Each setting is drawn from the seeds {}, \
         those of 1,000 nodes from the first alone; shown is the draw whose median is the middle one.\n\n\
         {met} met, {missed} missed{left_out}.\n\n\
         | setting | measure | at most | reached | |\n|---|---|--:|--:|---|\n{table}\n",
        seeds.join(", ")
    );
    out += "Each alone: `cargo run --release -p swarmdisk-sim -- run sim/scenarios/` and\n\n";
    for setting in SETTINGS {
        let set = setting.set.iter().map(|(key, value)| format!(" --set {}", argument(&format!("{key}={value}"))));
        let _ = writeln!(out, "- {}: `{}.toml{}`", setting.name, setting.scenario, set.collect::<String>());
    }
    out
}

/// As a shell takes it: in quotes if it would make something else of it.
fn argument(text: &str) -> String {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || ".,=-".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The middle run of a setting, if all guests came to their end.
fn row<'a>(rows: &'a All, setting: &Setting) -> Option<&'a Row> {
    rows.get(setting.name)?.middle(&[]).filter(|row| row.is_whole())
}

fn measured(measure: Measure, row: &Row, rows: &All) -> Option<f64> {
    match measure {
        Measure::Median => row.number("run_over_local_p50"),
        Measure::Percentile95 => row.number("run_over_local_p95"),
        Measure::Slowest => row.number("run_over_local_max"),
        Measure::OverBound => row.number("run_over_bound_p50"),
        Measure::Origin => row.number("origin_amplification"),
        Measure::Upload => row.number("upload_max_over_mean"),
        Measure::Waited => {
            let local = row.number("run_micros_p50")? / row.number("run_over_local_p50")?;
            Some(row.number("stall_micros_p50")? / local)
        }
        Measure::Against(other) => {
            let other = rows.get(other)?.middle(&[]).filter(|row| row.is_whole())?;
            Some(row.number("run_micros_p50")? / other.number("run_micros_p50")?)
        }
    }
}

fn what(aim: &Aim) -> String {
    match aim.of {
        Measure::Median => "median against a local disk".into(),
        Measure::Percentile95 => "95th percentile".into(),
        Measure::Slowest => "slowest".into(),
        Measure::OverBound => "median against the lower bound".into(),
        Measure::Against(other) => format!("median against that of “{other}”"),
        Measure::Waited => "waited for the network, of the local time".into(),
        Measure::Origin => "working sets from the origin".into(),
        Measure::Upload => "most that a node uploads against the mean".into(),
    }
}

fn most(aim: &Aim) -> String {
    match aim.of {
        Measure::Waited => format!("{} %", aim.most * 100.0),
        _ => format!("{:.2}", aim.most),
    }
}

fn number(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Waited => format!("{:.2} %", value * 100.0),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(folder: &std::path::Path, name: &str, cells: &str) -> Rows {
        let path = folder.join(name);
        let header = "seed,nodes,booted,run_micros_p50,run_over_local_p50,run_over_local_p95,stall_micros_p50,origin_amplification,\
                      upload_max_over_mean,run_over_local_max,run_over_bound_p50";
        std::fs::write(&path, format!("{header}\n{cells}\n")).unwrap();
        Rows::read(&path).unwrap()
    }

    #[test]
    fn a_shell_takes_arguments_as_they_are() {
        assert_eq!(argument("policy.links-max=9,1.5"), "policy.links-max=9,1.5");
        assert_eq!(argument("workload.0.traces=[]"), "'workload.0.traces=[]'");
        assert_eq!(argument("it's"), r"'it'\''s'");
    }

    #[test]
    fn whether_an_aim_is_met_is_computed() {
        let folder = tempfile::tempdir().unwrap();
        let all = BTreeMap::from([
            ("1 node, live", rows(folder.path(), "a", "1,1,1,1000,1.5,1.5,9,1.1,0,1.5,1.5")),
            ("8 nodes at once, live", rows(folder.path(), "b", "1,8,8,1200,1.55,1.6,9,1.1,2,1.7,1.5")),
            ("100 servers at 10 Gbit/s and 0.2 ms", rows(folder.path(), "c", "1,100,100,2000,2,2,5,1,1,2,2")),
            ("100 nodes at once", rows(folder.path(), "d", "1,100,99,2000,1,1,5,1,1,1,1")),
        ]);
        let spec = Spec { scenarios: "s".into(), seeds: "1".parse().unwrap(), all: false };
        let text = text(&spec, &all, "the command");
        for line in [
            "| 8 nodes at once, live | median against a local disk | 1.60 | 1.550 | met |",
            "| 8 nodes at once, live | median against that of “1 node, live” | 1.10 | 1.200 | **missed** |",
            "| 100 servers at 10 Gbit/s and 0.2 ms | waited for the network, of the local time | 1 % | 0.50 % | met |",
            "| 100 nodes at once | median against a local disk | 1.03 | not all came to their end | **missed** |",
            "| 10 nodes at once | median against a local disk | 1.03 | not run |  |",
            "Made by `the command`",
            "- 8 nodes at once, live: `vmtorrent.toml --set group.0.count=8 --set policy.prefetch=live`",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("3 met, 5 missed, "), "{text}");
    }
}
