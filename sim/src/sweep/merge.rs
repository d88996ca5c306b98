//! Joining the parts that shards have written.

use super::SweepError;
use super::table::Table;
use std::path::{Path, PathBuf};
use swarmdisk_common::file::write_whole;

/// What came of joining.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// Rows of all parts together.
    pub row_count: usize,
    /// Points of the sweep.
    pub point_count: u32,
    /// Points of which no part has a row.
    pub missing: Vec<u32>,
    /// Whether the file was written.
    pub is_written: bool,
}

/// Joins parts into a file in grid order. If it is there already, it is a part too. If points are missing, it is written only
/// if it may be `partial`.
///
/// # Errors
/// [`SweepError`]; nothing is written then.
pub fn merge(out: &Path, parts: &[PathBuf], partial: bool) -> Result<Merged, SweepError> {
    let mut all = Table::read(out)?;
    let mut first = all.header.is_some().then_some(out);
    for path in parts {
        // A part that is not there is a mistake, unlike the file to be.
        std::fs::metadata(path).map_err(|source| SweepError::Read { path: path.clone(), source })?;
        let part = Table::read(path)?;
        if part.header.is_none() {
            continue;
        }
        let one = *first.get_or_insert(path);
        let headers_differ = all.header.is_some() && all.header != part.header;
        // A shard without a point has no row to say of which sweep it is.
        let sweeps_differ = all.sweep.as_ref().zip(part.sweep.as_ref()).is_some_and(|(a, b)| a != b);
        if headers_differ || sweeps_differ {
            return Err(SweepError::Unlike { one: one.to_owned(), other: path.clone() });
        }
        all.join(part).map_err(|(point, column)| SweepError::Disagreement { path: path.clone(), point, column })?;
    }
    let Some((point_count, _)) = all.sweep else { return Err(SweepError::Empty) };
    let missing: Vec<u32> = (1..=point_count).filter(|number| !all.rows.contains_key(number)).collect();
    let is_written = missing.is_empty() || partial;
    if is_written {
        write_whole(out, |file| all.write(file))
            .map_err(|source| SweepError::Write { path: out.to_owned(), source })?;
    }
    Ok(Merged { row_count: all.rows.len(), point_count, missing, is_written })
}
