//! Profiles from recorded runs: which chunks a guest touches, when, and how surely.
//!
//! *Purpose*: merge traces into one profile, as VMTorrent does (sorted by mean first access, CoNEXT 2012, section 4); runs of
//! several workloads stay apart in groups, so that a guest can tell which it is like.
//! *Invariants*: all-zero chunks are left out, as they are never fetched; the same traces in the same order give the same
//! profile. *Units*: milliseconds since the first request. *Bounds*: [`GROUPS_MAX`] groups, [`ENTRIES_MAX`] entries.

mod group;

use crate::trace::{Op, Trace};
use group::{Group, grouped};
use std::collections::BTreeMap;
use swarmdisk_core::format::profile::{ENTRIES_MAX, GROUPS_MAX, ProfileEntry};
use swarmdisk_core::geometry::{ChunkIndex, Geometry};

/// When a run first touched each chunk, in milliseconds.
type Touches = BTreeMap<ChunkIndex, u64>;

/// Several runs in one: what a profile says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// How many runs each group is of, the largest first.
    pub groups: Vec<u16>,
    /// What is touched, in the order of time; never empty.
    pub entries: Vec<ProfileEntry>,
}

/// Why traces make no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A trace reads beyond the image.
    #[error("{trace} reads byte {offset}, beyond the image's {image_bytes}; was it recorded with another image?")]
    Beyond {
        /// Which trace.
        trace: String,
        /// Where it reads.
        offset: u64,
        /// Size of the image.
        image_bytes: u64,
    },
    /// There is nothing in the traces.
    #[error("the traces read nothing but zeros; record a run with `swarmdisk attach --record`")]
    Empty,
    /// There are too many traces.
    #[error("{0} traces are too many; merge at most 65535")]
    TooMany(usize),
}

/// Groups that touch a chunk at times further apart than this, and than a quarter, have entries of their own.
const APART_MILLIS: u64 = 2000;
/// A chunk that all runs touch at about the same time ties their clocks together: at most so many times later in one than in
/// another, and so much.
const TIE_FACTOR: u64 = 3;
const TIE_MILLIS: u64 = 5000;

/// Merges `traces` (each with a name for errors) of an image; `is_zero` says which chunks to leave out.
///
/// # Errors
/// See [`MergeError`]; the errors of `is_zero` pass through.
pub fn merge<E: From<MergeError>>(
    geometry: Geometry,
    traces: &[(String, Trace)],
    mut is_zero: impl FnMut(ChunkIndex) -> Result<bool, E>,
) -> Result<Merged, E> {
    if traces.len() > usize::from(u16::MAX) {
        return Err(MergeError::TooMany(traces.len()).into());
    }
    let mut runs = Vec::with_capacity(traces.len());
    let mut zero = BTreeMap::new();
    for (name, trace) in traces {
        let mut touches = first_touches(geometry, name, trace)?;
        for chunk in touches.keys() {
            if !zero.contains_key(chunk) {
                zero.insert(*chunk, is_zero(*chunk)?);
            }
        }
        touches.retain(|chunk, _| !zero[chunk]);
        runs.push(touches);
    }
    if runs.iter().all(BTreeMap::is_empty) {
        return Err(MergeError::Empty.into());
    }
    tie(&mut runs);
    let groups = grouped(&runs);
    let entries = entries(&groups);
    Ok(Merged { groups: groups.iter().map(Group::run_count).collect(), entries })
}

/// Puts the runs' times on one clock: recorded on machines that were slow at different times, they would else order chunks
/// that few runs touch wrongly among those that all do.
fn tie(runs: &mut [Touches]) {
    let mut ties: BTreeMap<ChunkIndex, u64> = BTreeMap::new();
    for chunk in runs.first().into_iter().flat_map(BTreeMap::keys) {
        let times: Option<Vec<u64>> = runs.iter().map(|run| run.get(chunk).copied()).collect();
        let Some(times) = times else { continue };
        let (least, most) = times.iter().fold((u64::MAX, 0), |(least, most), at| (least.min(*at), most.max(*at)));
        if most <= least * TIE_FACTOR + TIE_MILLIS {
            ties.insert(*chunk, times.iter().sum::<u64>() / times.len() as u64);
        }
    }
    for run in runs {
        let mut in_order: Vec<(u64, ChunkIndex)> = run.iter().map(|(chunk, at)| (*at, *chunk)).collect();
        in_order.sort_unstable();
        // The last tie, by the run's clock and by the common one.
        let (mut own, mut common) = (0, 0);
        for (at, chunk) in in_order {
            match ties.get(&chunk) {
                Some(tied) => {
                    if *tied >= common {
                        (own, common) = (at, *tied);
                    }
                    run.insert(chunk, *tied);
                }
                None => drop(run.insert(chunk, common + (at - own))),
            }
        }
    }
}

fn entries(groups: &[Group]) -> Vec<ProfileEntry> {
    // Of each chunk: when, in which group, how surely, in how many runs.
    let mut touches: BTreeMap<ChunkIndex, Vec<(u64, usize, u8, u64)>> = BTreeMap::new();
    for (number, group) in groups.iter().enumerate() {
        for (chunk, runs, mean_millis) in group.touches() {
            let probability = (runs * 255 / u64::from(group.run_count())).max(1) as u8;
            touches.entry(chunk).or_default().push((mean_millis, number, probability, runs));
        }
    }
    let mut entries = Vec::with_capacity(touches.len());
    for (chunk, mut times) in touches {
        times.sort_unstable();
        let together = |a: &(u64, usize, u8, u64), b: &(u64, usize, u8, u64)| b.0 - a.0 <= APART_MILLIS.max(a.0 / 4);
        for same in times.chunk_by(together) {
            let runs: u64 = same.iter().map(|(_, _, _, runs)| runs).sum();
            let mean = same.iter().map(|(at, _, _, runs)| at * runs).sum::<u64>() / runs;
            let mut probabilities = [0; GROUPS_MAX];
            same.iter().for_each(|(_, group, probability, _)| probabilities[*group] = *probability);
            entries.push(ProfileEntry { chunk, at_millis: u32::try_from(mean).unwrap_or(u32::MAX), probabilities });
        }
    }
    entries.sort_by_key(|entry| (entry.at_millis, entry.chunk));
    entries.truncate(ENTRIES_MAX);
    entries
}

fn first_touches(geometry: Geometry, name: &str, trace: &Trace) -> Result<Touches, MergeError> {
    let image_bytes = geometry.image_bytes();
    let mut touched = Touches::new();
    for request in trace.requests.iter().filter(|request| request.op == Op::Read && request.bytes > 0) {
        let end = request.offset.saturating_add(u64::from(request.bytes));
        if end > image_bytes {
            return Err(MergeError::Beyond { trace: name.to_owned(), offset: end - 1, image_bytes });
        }
        let shift = geometry.chunk_shift();
        for index in request.offset >> shift..=(end - 1) >> shift {
            if let Some(chunk) = geometry.chunk(index as u32) {
                touched.entry(chunk).or_insert(request.micros / 1000);
            }
        }
    }
    Ok(touched)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE_BYTES: u64 = 8 << 16;

    fn merged(texts: &[&str], zero: u32) -> Result<Merged, MergeError> {
        let named = |(index, text): (usize, &&str)| (format!("run {index}"), Trace::parse(text.as_bytes()).unwrap());
        let traces: Vec<(String, Trace)> = texts.iter().enumerate().map(named).collect();
        merge(Geometry::new(IMAGE_BYTES, 16).unwrap(), &traces, |chunk| Ok(chunk.get() == zero))
    }

    fn rows(merged: &Merged) -> Vec<(u32, u32, Vec<u8>)> {
        let groups = merged.groups.len();
        let row = |e: &ProfileEntry| (e.chunk.get(), e.at_millis, e.probabilities[..groups].to_vec());
        merged.entries.iter().map(row).collect()
    }

    #[test]
    fn the_mean_first_touch_decides_the_order() {
        // Chunk 2 in both runs, at 10 and 30 ms; 0 and 1 by one read across their border; 7 is zero. Too few chunks in common
        // to be one group.
        let first = "10000 R 131072 4096\n15000 R 65535 2\n";
        let second = "30000 R 131072 4096\n40000 R 131072 1\n50000 R 458752 1\n60000 W 196608 1\n";
        let merged = merged(&[first, second], 7).unwrap();
        assert_eq!(merged.groups, [1, 1]);
        // The first run was at 10 ms where both were at 20 in the mean: 5 ms later is 25.
        let expected = [(2, 20, vec![255, 255]), (0, 25, vec![255, 0]), (1, 25, vec![255, 0])];
        assert_eq!(rows(&merged), expected);
    }

    #[test]
    fn runs_alike_are_one_group_and_others_are_not() {
        let run = |chunks: &[u32], millis: u32| -> String {
            chunks.iter().map(|chunk| format!("{} R {} 1\n", millis * (chunk + 1) * 1000, chunk << 16)).collect()
        };
        let (short, most, all) = (run(&[0, 1], 100), run(&[0, 1, 2, 3, 4, 5], 100), run(&[0, 1, 2, 3, 4, 5], 200));
        let merged = merged(&[&short, &most, &all], 7).unwrap();
        assert_eq!(merged.groups, [2, 1], "the largest first");
        assert_eq!(merged.entries.len(), 6);
        assert_eq!(merged.entries[0].probabilities[..3], [255, 255, 0]);
        assert_eq!(merged.entries[5].probabilities[..3], [255, 0, 0]);
    }

    #[test]
    fn what_workloads_touch_at_other_times_has_an_entry_for_each() {
        let early = "0 R 0 1\n1000 R 65536 1\n2000 R 131072 1\n";
        let late = "0 R 0 1\n90000000 R 65536 1\n90001000 R 196608 1\n";
        let merged = merged(&[early, late], 7).unwrap();
        let expected = [(0, 0, vec![255, 255]), (1, 1, vec![255, 0]), (2, 2, vec![255, 0])];
        assert_eq!(rows(&merged)[..3], expected);
        assert_eq!(rows(&merged)[3..], [(1, 90_000, vec![0, 255]), (3, 90_001, vec![0, 255])]);
    }

    #[test]
    fn what_makes_no_profile_is_told() {
        assert_eq!(merged(&[], 7), Err(MergeError::Empty));
        assert_eq!(merged(&["0 R 458752 1\n"], 7), Err(MergeError::Empty));
        let beyond = MergeError::Beyond { trace: "run 1".into(), offset: IMAGE_BYTES, image_bytes: IMAGE_BYTES };
        assert_eq!(merged(&["0 R 0 1\n", "0 R 524287 2\n"], 7), Err(beyond));
        assert_eq!(merged(&vec![""; 65536], 7), Err(MergeError::TooMany(65536)));
    }
}
