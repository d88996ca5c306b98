//! Sweeps: one scenario at every point of a grid of its keys, a row of CSV each.
//!
//! *Invariants*: the points of a sweep and their order come from the scenario, the grid and the seeds alone; all columns of a
//! row but the last are a function of its point, whatever ran beside it, in whatever process. A row that has been written is
//! never run again. *Units*: as the columns' names say. *Bounds*: [`POINTS_MAX`] points; as many runs in memory as threads.
//!
//! | module | holds |
//! |---|---|
//! | `grid` | keys and values, seeds |
//! | `plan` | the points, checked, and the sweep's fingerprint |
//! | `shard` | which part of the points is ours |
//! | `table` | columns, and files of rows |
//! | `run` | running what is missing |
//! | `merge` | joining parts |

mod grid;
mod merge;
mod plan;
mod run;
mod shard;
mod table;

pub use grid::{Axis, Seeds, Value, axes_from_file};
pub use merge::{Merged, merge};
pub use plan::{Plan, Point};
pub use run::{Options, Report, Status, run};
pub use shard::{Shard, ShardError};

use std::io;
use std::path::PathBuf;

/// Most points of a sweep.
pub const POINTS_MAX: usize = 100_000;

/// Why a sweep did not come to its end. Rows that were written stay, and are taken up by the next start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The grid is at fault.
    #[error("{0}")]
    Grid(String),
    /// The scenario is, whatever the point.
    #[error(transparent)]
    Scenario(#[from] crate::scenario::ScenarioError),
    /// A point's scenario is wrong; nothing has run.
    #[error("{point}: {message}; nothing has run")]
    Point {
        /// Which.
        point: String,
        /// What.
        message: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}; make room or choose another --out, then start it again", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system has no thread for us.
    #[error("cannot start a thread: {0}; pass fewer --threads")]
    Thread(io::Error),
    /// Somebody else writes the file.
    #[error("another sweep is writing {}; give each shard an --out of its own", path.display())]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// It has something else in it.
    #[error("{} is not the result of a sweep; choose another file", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A row in the midst of the file is no row.
    #[error("{}:{line}: this row is damaged; remove it, and it is run again", path.display())]
    Damaged {
        /// In which file.
        path: PathBuf,
        /// On which line, from 1.
        line: u64,
    },
    /// It has rows of another sweep.
    #[error(
        "{} has rows of another scenario, grid or version; pass --restart to drop them, or another --out",
        path.display()
    )]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// Parts are of different sweeps.
    #[error("{} and {} are not parts of one sweep; run one of them again with the other's arguments", one.display(), other.display())]
    Unlike {
        /// One part.
        one: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// Two parts disagree about a point.
    #[error("{} says otherwise than the parts before it about {column} of point {point}; run that point again", path.display())]
    Disagreement {
        /// The later part.
        path: PathBuf,
        /// Which point.
        point: u32,
        /// Which column.
        column: String,
    },
    /// No part has a row.
    #[error("there is no row to merge; name parts that `sweep` has written")]
    Empty,
    /// Runs have panicked: the simulator is at fault.
    #[error("{count} points came to no end, the first of them {first}; the others are kept in {}", path.display())]
    Failed {
        /// How many.
        count: usize,
        /// One of them, with the reason.
        first: String,
        /// Where the others are.
        path: PathBuf,
    },
    /// The user has asked to end.
    #[error(
        "interrupted; {done} of {all} points are kept in {}: the same command goes on from there",
        path.display()
    )]
    Interrupted {
        /// Points whose rows are there.
        done: usize,
        /// Points that were wanted.
        all: usize,
        /// Where the rows are.
        path: PathBuf,
    },
}
