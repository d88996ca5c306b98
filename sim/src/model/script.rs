//! What a guest reads and when: from a recorded run, or made up.
//!
//! *Model*: that of `swarmdisk replay` ([`swarmdisk_common::guest`]): reads in groups that are in flight together, think time
//! between groups. *Units*: nanoseconds, chunks. *Bounds*: as many groups as the trace has reads.

use super::{ImageModel, Purpose, stream};
use crate::scenario::{Factor, Workload};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use swarmdisk_common::guest::{Plan, PlanError, Speed};
use swarmdisk_common::trace::{Op, Request, Trace, TraceError};

/// Chunks of a made-up boot that follow each other, at most.
const RUN_MAX: u32 = 6;

/// A guest that thinks for longer thinks for ever: in nanoseconds, more than any run lasts.
const THINK_MAX: u64 = 1 << 62;

/// Reads that are in flight together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Think time before it, in nanoseconds, at the workload's speed.
    pub think: u64,
    /// The chunks that it touches, each once.
    pub chunks: Vec<u32>,
    /// Bytes read.
    pub bytes: u64,
}

/// A guest's run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// In order.
    pub groups: Vec<Group>,
}

/// Why there is no script: a file of the scenario is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The trace cannot be opened.
    #[error("cannot read {}: {source}; traces are named relative to the scenario", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The trace is none.
    #[error("{}: {source}", path.display())]
    Trace {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TraceError,
    },
    /// The trace is not of this image.
    #[error("{}: {source}", path.display())]
    Plan {
        /// Which.
        path: PathBuf,
        /// Why.
        source: PlanError,
    },
    /// There is no such speed.
    #[error("a speed of {0} is none; write a number from 0.000001 to 1000000000")]
    Speed(f64),
}

/// Reads a trace.
///
/// # Errors
/// [`ScriptError::Read`] or [`ScriptError::Trace`].
pub fn read_trace(path: &Path) -> Result<Trace, ScriptError> {
    let file = File::open(path).map_err(|source| ScriptError::Read { path: path.to_owned(), source })?;
    Trace::parse(BufReader::new(file)).map_err(|source| ScriptError::Trace { path: path.to_owned(), source })
}

/// The trace of a boot that nobody recorded: short runs of chunks all over the image, each read once.
pub fn made_up(workload: &Workload, image: &ImageModel, seed: u64) -> Trace {
    let mut draws = stream(seed, Purpose::Boot, 0);
    let chunk_count = image.geometry.chunk_count();
    let (mut requests, mut seen) = (Vec::new(), BTreeSet::new());
    let mut micros = 0;
    let mean = workload.think.0 / 1000;
    // An image may have fewer chunks than the boot would read.
    let wanted = workload.chunks.min(chunk_count) as usize;
    let mut tries = wanted as u64 * 64;
    while tries > 0 && requests.len() < wanted {
        tries -= 1;
        let start = draws.below(chunk_count);
        for chunk in start..chunk_count.min(start + 1 + draws.below(RUN_MAX)) {
            if requests.len() < wanted && !image.is_zero(chunk) && seen.insert(chunk) {
                micros += mean / 2 + ((u128::from(draws.draw()) * u128::from(mean)) >> 64) as u64;
                let offset = u64::from(chunk) << image.geometry.chunk_shift();
                // The last chunk may be shorter.
                let bytes = (image.geometry.image_bytes() - offset).min(4096) as u32;
                requests.push(Request { micros, op: Op::Read, offset, bytes });
            }
        }
    }
    Trace { requests }
}

impl Script {
    /// What a guest does that runs `trace` from this image.
    ///
    /// # Errors
    /// [`ScriptError::Plan`] or [`ScriptError::Speed`].
    pub fn new(trace: &Trace, path: &Path, image: &ImageModel, speed: Factor) -> Result<Self, ScriptError> {
        let geometry = image.geometry;
        let plan = Plan::new(trace, geometry.image_bytes())
            .map_err(|source| ScriptError::Plan { path: path.to_owned(), source })?;
        let speed = Speed::new(speed.as_f64()).ok_or(ScriptError::Speed(speed.as_f64()))?;
        let group = |(index, reads): (usize, &[Request])| {
            let touched = |read: &Request| {
                let last = read.offset + u64::from(read.bytes.max(1)) - 1;
                (read.offset >> geometry.chunk_shift()) as u32..=(last >> geometry.chunk_shift()) as u32
            };
            let mut chunks: Vec<u32> = reads.iter().flat_map(touched).collect();
            chunks.sort_unstable();
            chunks.dedup();
            let bytes = reads.iter().map(|read| u64::from(read.bytes)).sum();
            Group { think: plan.think_micros(index, speed).saturating_mul(1000).min(THINK_MAX), chunks, bytes }
        };
        Ok(Self { groups: plan.groups().enumerate().map(group).collect() })
    }

    /// All think times together, in nanoseconds.
    pub fn think(&self) -> u64 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.think))
    }

    /// The chunks that it touches.
    pub fn chunks(&self) -> BTreeSet<u32> {
        self.groups.iter().flat_map(|group| group.chunks.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Image, Size, Span};

    fn image() -> ImageModel {
        ImageModel::new(&Image { size: Size(1 << 26), ..Image::default() }, 1, 0).unwrap()
    }

    #[test]
    fn groups_and_think_times_are_a_replays() {
        let text = "0 R 0 512\n100 R 65000 1000\n2000 W 0 512\n10100 R 200000 4096\n";
        let trace = Trace::parse(text.as_bytes()).unwrap();
        let script = Script::new(&trace, Path::new("t"), &image(), Factor(10_000_000)).unwrap();
        let group = |think, chunks: &[u32], bytes| Group { think, chunks: chunks.to_vec(), bytes };
        assert_eq!(script.groups, [group(0, &[0, 1], 1512), group(1_000_000, &[3], 4096)]);
        assert_eq!(script.think(), 1_000_000);
    }

    #[test]
    fn a_made_up_boot_reads_what_it_is_told() {
        let workload = Workload { chunks: 300, think: Span::millis(3), ..Workload::default() };
        let trace = made_up(&workload, &image(), 7);
        let script = Script::new(&trace, Path::new("t"), &image(), Factor::ONE).unwrap();
        assert_eq!(script.chunks().len(), 300);
        let think = script.think();
        assert!((800_000_000..1_000_000_000).contains(&think), "{think}");
        assert_ne!(made_up(&workload, &image(), 8), trace);
        // More than there is.
        let all = made_up(&Workload { chunks: 5000, ..workload.clone() }, &image(), 7);
        assert!(all.requests.len() <= 1024 && all.requests.len() > 900);
        let endless = Workload { chunks: u32::MAX, think: Span::secs(500_000_000), ..workload };
        let script = Script::new(&made_up(&endless, &image(), 7), Path::new("t"), &image(), Factor(1)).unwrap();
        assert_eq!(script.think(), u64::MAX);
    }
}
