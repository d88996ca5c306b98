//! Rows: their columns, and the files that hold them.
//!
//! *Invariants*: a file of rows is CSV with one header; each row says of which sweep it is and how many points that has, so
//! that parts can be told apart and joined without the scenario. What was cut off at the end by a crash is no row.

use super::{Plan, Point, SweepError};
use crate::outcome::Outcome;
use csv::StringRecord;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// A column's name, and what it says of a run.
type Column = (&'static str, fn(&Outcome) -> String);

/// The first column: the point's number.
const FIRST: &str = "point";
/// The last ones: points of the sweep, its fingerprint, and what depends on the machine.
const LAST: [&str; 3] = ["points", "sweep", "wall_seconds"];

const COLUMNS: &[Column] = &[
    ("digest", |o| o.digest.clone()),
    ("nodes", |o| o.nodes.len().to_string()),
    ("booted", |o| o.booted_count.to_string()),
    ("virtual_seconds", |o| format!("{:.6}", o.virtual_micros as f64 / 1e6)),
    ("run_micros_p50", |o| booted(o, o.totals.run_micros.p50)),
    ("run_micros_p95", |o| booted(o, o.totals.run_micros.p95)),
    ("run_micros_max", |o| booted(o, o.totals.run_micros.max)),
    ("run_over_local_min", |o| booted(o, Ratio(o.totals.run_over_local.min))),
    ("run_over_local_p50", |o| booted(o, Ratio(o.totals.run_over_local.p50))),
    ("run_over_local_p95", |o| booted(o, Ratio(o.totals.run_over_local.p95))),
    ("run_over_local_max", |o| booted(o, Ratio(o.totals.run_over_local.max))),
    ("run_over_bound_min", |o| booted(o, Ratio(o.totals.run_over_bound.min))),
    ("run_over_bound_p50", |o| booted(o, Ratio(o.totals.run_over_bound.p50))),
    ("run_over_bound_p95", |o| booted(o, Ratio(o.totals.run_over_bound.p95))),
    ("run_over_bound_max", |o| booted(o, Ratio(o.totals.run_over_bound.max))),
    ("stall_micros_p50", |o| o.totals.stall_micros.p50.to_string()),
    ("stall_micros_p95", |o| o.totals.stall_micros.p95.to_string()),
    ("stall_micros_max", |o| o.totals.stall_micros.max.to_string()),
    ("origin_bytes", |o| o.totals.origin_bytes.to_string()),
    ("origin_amplification", |o| Ratio(o.totals.origin_amplification).to_string()),
    ("peer_bytes", |o| o.totals.peer_bytes.to_string()),
    ("far_bytes", |o| o.totals.far_bytes.to_string()),
    ("cross_rack_working_sets_per_rack", |o| Ratio(o.totals.cross_rack_working_sets_per_rack).to_string()),
    ("discarded_bytes", |o| o.totals.discarded_bytes.to_string()),
    ("prefetch_unused_bytes", |o| o.nodes.iter().map(|node| node.prefetch_unused_bytes).sum::<u64>().to_string()),
    ("metadata_bytes", |o| o.totals.metadata_bytes.to_string()),
    ("upload_max_over_mean", |o| Ratio(o.totals.upload_max_over_mean).to_string()),
    ("frames", |o| o.totals.frames.to_string()),
    ("events", |o| o.event_count.to_string()),
];

/// A ratio as rows show it.
struct Ratio(f64);

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

/// Nothing where no guest came to its end: a 0 would look very fast.
fn booted(outcome: &Outcome, value: impl ToString) -> String {
    if outcome.booted_count == 0 { String::new() } else { value.to_string() }
}

/// The header of a sweep over these keys.
pub(super) fn header(keys: &[String]) -> StringRecord {
    let keys = keys.iter().map(String::as_str);
    let columns = COLUMNS.iter().map(|(name, _)| *name);
    [FIRST].into_iter().chain(keys).chain(["seed"]).chain(columns).chain(LAST).collect()
}

/// A point's row.
pub(super) fn row(plan: &Plan, point: &Point<'_>, outcome: &Outcome, wall: Duration) -> StringRecord {
    let mut row = StringRecord::new();
    row.push_field(&point.number.to_string());
    point.values.iter().for_each(|value| row.push_field(value));
    row.push_field(&point.seed.to_string());
    COLUMNS.iter().for_each(|(_, text)| row.push_field(&text(outcome)));
    row.push_field(&plan.point_count().to_string());
    row.push_field(&plan.fingerprint);
    row.push_field(&format!("{:.3}", wall.as_secs_f64()));
    row
}

/// What a file of rows holds.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// None if there is not even that.
    pub header: Option<StringRecord>,
    /// By the point's number.
    pub rows: BTreeMap<u32, StringRecord>,
    /// Points and fingerprint of the sweep, if there is a row.
    pub sweep: Option<(u32, String)>,
    /// Bytes that are whole rows.
    pub good_bytes: u64,
}

impl Table {
    /// Reads a file; one that is not there is empty.
    ///
    /// # Errors
    /// [`SweepError`].
    pub fn read(path: &Path) -> Result<Self, SweepError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(SweepError::Read { path: path.to_owned(), source }),
        };
        let mut whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut table = Self::default();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&bytes[..whole]);
        let mut record = csv::ByteRecord::new();
        let mut bad: Option<(u64, usize)> = None;
        while reader.read_byte_record(&mut record).unwrap_or(false) {
            if let Some((line, _)) = bad {
                return Err(SweepError::Damaged { path: path.to_owned(), line });
            }
            let position = record.position().cloned().unwrap_or_else(csv::Position::new);
            let text = StringRecord::from_byte_record(record.clone()).ok();
            if table.header.is_none() {
                let header = text.filter(is_header).ok_or_else(|| SweepError::Foreign { path: path.to_owned() })?;
                table.header = Some(header);
            } else if !text.is_some_and(|row| table.add(row)) {
                bad = Some((position.line(), position.byte() as usize));
            }
        }
        // A power cut leaves what it likes where the last row was to be.
        if let Some((_, start)) = bad {
            whole = start;
        }
        // Something without a line's end is a torn header, or somebody's note.
        let start = &bytes[..bytes.len().min(FIRST.len())];
        if table.header.is_none() && !FIRST.as_bytes().starts_with(start) {
            return Err(SweepError::Foreign { path: path.to_owned() });
        }
        table.good_bytes = whole as u64;
        Ok(table)
    }

    /// Adds a row as a file has it; false if it is none, or another sweep's.
    fn add(&mut self, row: StringRecord) -> bool {
        let length = row.len();
        let field = |back: usize| length.checked_sub(back).and_then(|at| row.get(at)).unwrap_or_default();
        let numbers = (row.get(0).unwrap_or_default().parse::<u32>(), field(3).parse::<u32>());
        let (Ok(number), Ok(points)) = numbers else { return false };
        let is_row = Some(length) == self.header.as_ref().map(StringRecord::len) && (1..=points).contains(&number);
        if !is_row {
            return false;
        }
        let sweep = (points, field(2).to_owned());
        if *self.sweep.get_or_insert_with(|| sweep.clone()) != sweep {
            return false;
        }
        self.rows.entry(number).or_insert(row);
        true
    }

    /// Takes over another's rows; gives a point about which the two disagree, and in which column.
    pub fn join(&mut self, other: Self) -> Result<(), (u32, String)> {
        if self.header.is_none() {
            self.header = other.header;
        }
        if self.sweep.is_none() {
            self.sweep = other.sweep;
        }
        for (number, row) in other.rows {
            let Some(known) = self.rows.get(&number) else {
                self.rows.insert(number, row);
                continue;
            };
            let columns = self.header.iter().flatten();
            let differing = columns.zip(known.iter().zip(&row)).find(|(name, (a, b))| *name != LAST[2] && a != b);
            if let Some((name, _)) = differing {
                return Err((number, name.to_owned()));
            }
        }
        Ok(())
    }

    /// All rows in order, as a file has them.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in self.header.iter().chain(self.rows.values()) {
            out.write_all(&line(row)?)?;
        }
        Ok(())
    }
}

fn is_header(header: &StringRecord) -> bool {
    let length = header.len();
    header.get(0) == Some(FIRST) && length > LAST.len() && header.iter().skip(length - LAST.len()).eq(LAST)
}

/// A row as a file has it, with the line's end.
pub(super) fn line(row: &StringRecord) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(row)?;
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_torn_is_to_be_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv.part");
        let header = header(&["a,b".to_owned()]);
        let row = |number: u32| {
            let cells = (0..header.len()).map(|at| match header.len() - at {
                1 => "0.1".to_owned(),
                2 => "0123456789abcdef".to_owned(),
                3 => "9".to_owned(),
                _ => number.to_string(),
            });
            line(&cells.collect::<StringRecord>()).unwrap()
        };
        let whole = [line(&header).unwrap(), row(2), row(1)].concat();
        for torn in [&b""[..], b"3,", b"\"3", b"3,3\n", b"\0\0\0\n", b"\xff\n", &row(10)] {
            fs::write(&path, [&whole[..], torn].concat()).unwrap();
            let table = Table::read(&path).unwrap();
            assert_eq!(table.good_bytes, whole.len() as u64, "{torn:?}");
            assert_eq!(table.rows.keys().copied().collect::<Vec<_>>(), [1, 2]);
            assert_eq!(table.sweep, Some((9, "0123456789abcdef".to_owned())));
        }
        fs::write(&path, [&whole[..], b"3,3\n", &row(3)].concat()).unwrap();
        assert!(matches!(Table::read(&path), Err(SweepError::Damaged { line: 4, .. })));
        assert_eq!(Table::read(&folder.path().join("none")).unwrap().good_bytes, 0);
    }
}
