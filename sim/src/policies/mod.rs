//! The comparison of policies: all of them in one setting, as a document that one command makes.
//!
//! *Purpose*: orders of prefetching and ways to protect the seed, each with each; the hosts' defaults against VMTorrent's own
//! policy; profiles that miss something. *Invariants*: the document is a function of the scenarios and the [`Spec`]; every
//! sentence that states a result is computed from the runs. *Bounds*: as many runs as [`Spec::parts`] has points.
//!
//! | module | holds |
//! |---|---|
//! | `parts` | what is run: sweeps |
//! | `rows` | what came of them |
//! | `text` | the document |

mod parts;
mod rows;
mod text;

pub use parts::{Part, Spec};
pub use rows::{Row, Rows};

use crate::report::{Curve, growth};
use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;

/// Where the scenarios are, from the repository's root.
pub const FOLDER: &str = "sim/scenarios";
/// Nodes in the tables of policies.
pub const NODES: &str = "8,30,100";
/// Nodes in VMTorrent's grid.
pub const GRID: &str = "1,2,4,8,16,32,64,128";
/// Seeds of the draws.
pub const SEEDS: &str = "1..3";

/// Numbers of nodes, growing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(pub Vec<u32>);

impl FromStr for Counts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let counts: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        let counts = counts.map_err(|_| format!("`{text}` are no numbers of nodes; write them as 8,30,100"))?;
        match counts.first() {
            Some(1..) if counts.is_sorted_by(|a, b| a < b) => Ok(Self(counts)),
            _ => Err(format!("`{text}`: write the smaller number first, each once, 1 or more, as in 8,30,100")),
        }
    }
}

/// The document and its plot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Markdown.
    pub text: String,
    /// The plot, to be found beside it.
    pub plot: String,
}

impl Document {
    /// Of what the parts came to, by their names; `plot` is the plot's file as the text names it, `command` what makes it.
    ///
    /// # Errors
    /// If the plot cannot be drawn.
    pub fn new(spec: &Spec, rows: &BTreeMap<&'static str, Rows>, command: &str, plot: &str) -> io::Result<Self> {
        let text = text::text(spec, rows, command, plot);
        let of = |part: &str| {
            let row = |nodes: &u32| {
                let row =
                    rows.get(part)?.middle(&[("group.0.count", &nodes.to_string()), ("arrivals.kind", "at-once")])?;
                Some((*nodes, row.number("run_over_local_p50")?))
            };
            spec.grid.0.iter().filter_map(row).collect()
        };
        let curves =
            [("swarmdisk", parts::OURS), ("VMTorrent's policy", parts::VMTORRENT), ("one server", parts::ONE_SERVER)]
                .map(|(name, part)| Curve { name: name.into(), points: of(part) });
        let plot = growth("Time of a boot by the number of nodes", "times as long as from a local disk", &curves)?;
        Ok(Self { text, plot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_nodes_grow() {
        assert_eq!("1, 8,100".parse(), Ok(Counts(vec![1, 8, 100])));
        for text in ["", "0,1", "8,8", "9,8", "x"] {
            assert!(text.parse::<Counts>().is_err(), "{text}");
        }
    }
}
