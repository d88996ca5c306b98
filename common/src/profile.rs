//! Profiles from recorded runs: which chunks a guest touches, when, and how surely.
//!
//! *Purpose*: merge traces into one profile, as VMTorrent does (sorted by mean first access, CoNEXT 2012, section 4).
//! *Invariants*: all-zero chunks are left out, as they are never fetched. *Units*: milliseconds since the first request.
//! *Bounds*: an entry a chunk at most.

use crate::trace::{Op, Trace};
use std::collections::BTreeMap;
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::geometry::{ChunkIndex, Geometry};

/// Several runs in one: what a profile says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// How many runs.
    pub run_count: u16,
    /// The chunks by mean first access; never empty.
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

/// The mean first touch of a chunk, in the runs that touch it.
#[derive(Debug, Default, Copy, Clone)]
struct Touches {
    run_count: u64,
    sum_millis: u64,
}

/// Merges `traces` (each with a name for errors) of an image; `is_zero` says which chunks to leave out.
///
/// # Errors
/// See [`MergeError`]; the errors of `is_zero` pass through.
pub fn merge<E: From<MergeError>>(
    geometry: Geometry,
    traces: &[(String, Trace)],
    mut is_zero: impl FnMut(ChunkIndex) -> Result<bool, E>,
) -> Result<Merged, E> {
    let run_count = u16::try_from(traces.len()).map_err(|_| MergeError::TooMany(traces.len()))?;
    let mut touches: BTreeMap<ChunkIndex, Touches> = BTreeMap::new();
    for (name, trace) in traces {
        for (chunk, at_millis) in first_touches(geometry, name, trace)? {
            let entry = touches.entry(chunk).or_default();
            entry.run_count += 1;
            entry.sum_millis += at_millis;
        }
    }
    let mut entries = Vec::with_capacity(touches.len());
    for (chunk, seen) in touches {
        if !is_zero(chunk)? {
            let at_millis = u32::try_from(seen.sum_millis / seen.run_count).unwrap_or(u32::MAX);
            let probability = (seen.run_count * 255 / u64::from(run_count)) as u8;
            entries.push(ProfileEntry { chunk, at_millis, probability });
        }
    }
    if entries.is_empty() {
        return Err(MergeError::Empty.into());
    }
    entries.sort_by_key(|entry| (entry.at_millis, entry.chunk));
    Ok(Merged { run_count, entries })
}

fn first_touches(geometry: Geometry, name: &str, trace: &Trace) -> Result<BTreeMap<ChunkIndex, u64>, MergeError> {
    let image_bytes = geometry.image_bytes();
    let mut touched = BTreeMap::new();
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

    #[test]
    fn the_mean_first_touch_decides_the_order() {
        // Chunk 2 in both runs, at 10 and 30 ms; 0 and 1 by one read across their border; 7 is zero.
        let first = "10000 R 131072 4096\n15000 R 65535 2\n";
        let second = "30000 R 131072 4096\n40000 R 131072 1\n50000 R 458752 1\n60000 W 196608 1\n";
        let merged = merged(&[first, second], 7).unwrap();
        let rows: Vec<_> = merged.entries.iter().map(|e| (e.chunk.get(), e.at_millis, e.probability)).collect();
        assert_eq!((merged.run_count, rows), (2, vec![(0, 15, 127), (1, 15, 127), (2, 20, 255)]));
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
