//! What sweeps came to.

use crate::sweep::SweepError;
use std::path::Path;

/// A point's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<(String, String)>);

/// All rows of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows(Vec<Row>);

impl Row {
    /// A cell; empty if there is no such column.
    pub fn text(&self, column: &str) -> &str {
        self.0.iter().find(|(name, _)| name == column).map_or("", |(_, value)| value)
    }

    /// A cell as a number; none where no guest came to its end.
    pub fn number(&self, column: &str) -> Option<f64> {
        self.text(column).parse().ok()
    }

    /// Whether all guests came to their end.
    pub fn is_whole(&self) -> bool {
        self.text("nodes") == self.text("booted")
    }

    /// Bodies that were of no use, as a share of all that came.
    pub fn wasted(&self) -> Option<f64> {
        let of = |column| self.number(column);
        let came = of("origin_bytes")? + of("peer_bytes")?;
        Some((of("discarded_bytes")? + of("prefetch_unused_bytes")?) / came.max(1.0))
    }
}

impl Rows {
    /// Reads what a sweep has written.
    ///
    /// # Errors
    /// [`SweepError`].
    pub fn read(path: &Path) -> Result<Self, SweepError> {
        let wrong = |_: csv::Error| SweepError::Foreign { path: path.to_owned() };
        let mut reader = csv::Reader::from_path(path).map_err(wrong)?;
        let header = reader.headers().map_err(wrong)?.clone();
        let row = |record: Result<csv::StringRecord, csv::Error>| {
            let cells = header.iter().map(str::to_owned);
            Ok(Row(cells.zip(record.map_err(wrong)?.iter().map(str::to_owned)).collect()))
        };
        reader.records().map(row).collect::<Result<_, SweepError>>().map(Self)
    }

    /// Of the seeds at a point the one whose median boot is the middle one; one at which not all booted is the slowest.
    pub fn middle(&self, point: &[(&str, &str)]) -> Option<&Row> {
        let is_there = |row: &&Row| point.iter().all(|(key, value)| row.text(key) == *value);
        let mut rows: Vec<&Row> = self.0.iter().filter(is_there).collect();
        let time = |row: &Row| match row.is_whole() {
            true => row.number("run_over_local_p50").unwrap_or(f64::INFINITY),
            false => f64::INFINITY,
        };
        rows.sort_by(|a, b| time(a).total_cmp(&time(b)));
        rows.get(rows.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_seed_is_shown_and_none_that_did_not_boot_for_fast() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let text = "key,seed,nodes,booted,run_over_local_p50,origin_bytes,peer_bytes,discarded_bytes,prefetch_unused_bytes\n\
                    x,1,9,9,1.5,50,50,3,2\nx,2,9,8,1.0,1,1,1,1\nx,3,9,9,1.2,1,1,1,1\ny,1,9,0,,0,0,0,0\n";
        std::fs::write(&path, text).unwrap();
        let rows = Rows::read(&path).unwrap();
        let middle = rows.middle(&[("key", "x")]).unwrap();
        assert_eq!((middle.text("seed"), middle.number("run_over_local_p50")), ("1", Some(1.5)));
        assert!(middle.is_whole() && (middle.wasted().unwrap() - 0.05).abs() < 1e-9);
        let none = rows.middle(&[("key", "y")]).unwrap();
        assert_eq!((none.number("run_over_local_p50"), none.is_whole()), (None, false));
        assert_eq!(rows.middle(&[("key", "z")]), None);
    }
}
