//! Profiles from recorded runs: which chunks a guest touches, when, and how surely.
//!
//! *Purpose*: merge traces into one profile, as VMTorrent does (sorted by mean first access, CoNEXT 2012, section 4).
//! *Invariants*: all-zero chunks are left out, as they are never fetched. *Units*: milliseconds since the first request.
//! *Bounds*: an entry a chunk at most.

use crate::store::{Store, StoreError};
use crate::trace::{Op, Trace};
use std::collections::BTreeMap;
use swarmdisk_core::format::profile::{self, ProfileEntry, ProfileError};
use swarmdisk_core::geometry::{ChunkIndex, Geometry};

/// Why no profile was made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The image cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// The format cannot hold it.
    #[error("the profile cannot be written ({0:?})")]
    Format(ProfileError),
}

/// The mean first touch of a chunk, in the runs that touch it.
#[derive(Debug, Default, Copy, Clone)]
struct Touches {
    run_count: u64,
    sum_millis: u64,
}

/// Merges `traces` (each with a name for errors) into a profile of the image in `store`; gives its bytes and the number
/// of chunks in it.
///
/// # Errors
/// See [`BuildError`].
pub fn build(store: &Store, traces: &[(String, Trace)]) -> Result<(Vec<u8>, usize), BuildError> {
    let run_count = u16::try_from(traces.len()).map_err(|_| BuildError::TooMany(traces.len()))?;
    let mut touches: BTreeMap<ChunkIndex, Touches> = BTreeMap::new();
    for (name, trace) in traces {
        for (chunk, at_millis) in first_touches(store.geometry(), name, trace)? {
            let entry = touches.entry(chunk).or_default();
            entry.run_count += 1;
            entry.sum_millis += at_millis;
        }
    }
    let mut entries = Vec::with_capacity(touches.len());
    for (chunk, seen) in touches {
        if store.chunk_is_zero(chunk)? != Some(true) {
            let at_millis = u32::try_from(seen.sum_millis / seen.run_count).unwrap_or(u32::MAX);
            let probability = (seen.run_count * 255 / u64::from(run_count)) as u8;
            entries.push(ProfileEntry { chunk, at_millis, probability });
        }
    }
    if entries.is_empty() {
        return Err(BuildError::Empty);
    }
    entries.sort_by_key(|entry| (entry.at_millis, entry.chunk));
    let mut bytes = vec![0; profile::encoded_bytes_max(entries.len())];
    let length = profile::encode(store.image(), run_count, &entries, &mut bytes).map_err(BuildError::Format)?;
    bytes.truncate(length);
    Ok((bytes, entries.len()))
}

fn first_touches(geometry: Geometry, name: &str, trace: &Trace) -> Result<BTreeMap<ChunkIndex, u64>, BuildError> {
    let image_bytes = geometry.image_bytes();
    let mut touched = BTreeMap::new();
    for request in trace.requests.iter().filter(|request| request.op == Op::Read && request.bytes > 0) {
        let end = request.offset.saturating_add(u64::from(request.bytes));
        if end > image_bytes {
            return Err(BuildError::Beyond { trace: name.to_owned(), offset: end - 1, image_bytes });
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
