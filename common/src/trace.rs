//! Traces: which ranges a guest asked for, and when.
//!
//! *Purpose*: the text that `--record` writes, `replay` runs and profiles are built from. UTF-8; `#` begins a comment
//! line; every other line is `MICROSECONDS R|W OFFSET LENGTH`, parted by blanks.
//! *Invariants*: times never go back, the first may be anything. *Units*: microseconds since the first request, bytes.
//! *Bounds*: lines of [`LINE_BYTES_MAX`]; requests of 1 to [`REQUEST_BYTES_MAX`] bytes; [`REQUESTS_MAX`] of them.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::str::{FromStr, SplitAsciiWhitespace};

/// Longest line in bytes, comments included.
pub const LINE_BYTES_MAX: usize = 4096;
/// Longest request in bytes: 256 MiB.
pub const REQUEST_BYTES_MAX: u32 = 256 << 20;
/// Most requests in a trace.
pub const REQUESTS_MAX: usize = 16 << 20;

/// Read or write.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// A read.
    Read,
    /// A write.
    Write,
}

/// One request of a guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// When it began, in microseconds since the first of the trace.
    pub micros: u64,
    /// Read or write.
    pub op: Op,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u32,
}

/// A whole trace, in order of time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The requests.
    pub requests: Vec<Request>,
}

/// Why a trace cannot be read: whoever wrote it is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file could not be read.
    #[error("cannot read the trace: {0}")]
    Io(#[from] io::Error),
    /// A line does not say what it should.
    #[error(
        "line {line} of the trace: {problem}; a line is MICROSECONDS R|W OFFSET LENGTH, as in `1500 R 1048576 4096`"
    )]
    Line {
        /// Which, counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

/// What is wrong with a line of a trace.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// Over [`LINE_BYTES_MAX`].
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not text.
    #[error("it is not UTF-8")]
    NotText,
    /// A field is not there.
    #[error("the {0} is missing")]
    Missing(&'static str),
    /// A field is not a number that fits.
    #[error("the {0} is no number in range")]
    BadNumber(&'static str),
    /// Neither `R` nor `W`.
    #[error("the operation is neither R nor W")]
    BadOp,
    /// Zero, or over [`REQUEST_BYTES_MAX`].
    #[error("the length is not between 1 and {REQUEST_BYTES_MAX}")]
    BadLength,
    /// The range ends beyond 2^64.
    #[error("the range ends beyond any disk")]
    BadRange,
    /// More than four fields.
    #[error("there is something after the length")]
    Trailing,
    /// Over [`REQUESTS_MAX`].
    #[error("there are more than {REQUESTS_MAX} requests")]
    TooMany,
}

impl Trace {
    /// Reads a trace to its end.
    ///
    /// # Errors
    /// [`TraceError`], with the number of the first line that is wrong.
    pub fn parse(mut input: impl BufRead) -> Result<Self, TraceError> {
        let mut requests: Vec<Request> = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            let fail = |problem| TraceError::Line { line, problem };
            text.clear();
            // One more than the longest, so that a line too long shows itself.
            let mut limited = io::Read::take(&mut input, LINE_BYTES_MAX as u64 + 1);
            if limited.read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if text.len() > LINE_BYTES_MAX {
                return Err(fail(LineProblem::TooLong));
            }
            let text = str::from_utf8(&text).map_err(|_| fail(LineProblem::NotText))?.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let request: Request = text.parse().map_err(fail)?;
            if requests.len() == REQUESTS_MAX {
                return Err(fail(LineProblem::TooMany));
            }
            requests.push(request);
        }
        // Recorders that write from several threads swap neighbours.
        requests.sort_by_key(|request| request.micros);
        Ok(Self { requests })
    }

    /// Writes the requests, a line each.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        self.requests.iter().try_for_each(|request| writeln!(out, "{request}"))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            Op::Read => 'R',
            Op::Write => 'W',
        };
        write!(f, "{} {op} {} {}", self.micros, self.offset, self.bytes)
    }
}

impl FromStr for Request {
    type Err = LineProblem;

    fn from_str(line: &str) -> Result<Self, LineProblem> {
        let mut fields = line.split_ascii_whitespace();
        let micros = number(&mut fields, "time")?;
        let op = match fields.next() {
            Some("R") => Op::Read,
            Some("W") => Op::Write,
            Some(_) => return Err(LineProblem::BadOp),
            None => return Err(LineProblem::Missing("operation")),
        };
        let offset = number(&mut fields, "offset")?;
        let bytes = number(&mut fields, "length")?;
        if fields.next().is_some() {
            return Err(LineProblem::Trailing);
        }
        let bytes = u32::try_from(bytes).ok().filter(|b| (1..=REQUEST_BYTES_MAX).contains(b));
        let bytes = bytes.ok_or(LineProblem::BadLength)?;
        offset.checked_add(bytes.into()).ok_or(LineProblem::BadRange)?;
        Ok(Self { micros, op, offset, bytes })
    }
}

fn number(fields: &mut SplitAsciiWhitespace<'_>, name: &'static str) -> Result<u64, LineProblem> {
    fields.next().ok_or(LineProblem::Missing(name))?.parse().map_err(|_| LineProblem::BadNumber(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        let trace = Trace::parse(&b"# a boot\n\n0 R 0 512\r\n  7\tW 4096 1024\n7 R 1 1"[..]).unwrap();
        let text: Vec<String> = trace.requests.iter().map(Request::to_string).collect();
        assert_eq!(text, ["0 R 0 512", "7 W 4096 1024", "7 R 1 1"]);
    }

    #[test]
    fn errors_name_the_line() {
        let problem = |text: &[u8]| match Trace::parse(text) {
            Err(TraceError::Line { line, problem }) => (line, problem),
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(b"0 R 0 1\n0 X 0 1"), (2, LineProblem::BadOp));
        assert_eq!(problem(b"0 R 0"), (1, LineProblem::Missing("length")));
        assert_eq!(problem(b"0 R 0 0"), (1, LineProblem::BadLength));
        assert_eq!(problem(b"0 R 0 4294967296"), (1, LineProblem::BadLength));
        assert_eq!(problem(b"0 R -1 1"), (1, LineProblem::BadNumber("offset")));
        assert_eq!(problem(b"0 R 18446744073709551615 1"), (1, LineProblem::BadRange));
        assert_eq!(problem(b"0 R 0 1 2"), (1, LineProblem::Trailing));
        assert_eq!(problem(b"\xff"), (1, LineProblem::NotText));
        assert_eq!(problem(&vec![b'#'; LINE_BYTES_MAX + 1]), (1, LineProblem::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            mut rows in prop::collection::vec((any::<u64>(), any::<bool>(), 0..u64::MAX >> 1, 1..=REQUEST_BYTES_MAX), 0..50)
        ) {
            rows.sort_by_key(|row| row.0);
            let requests = rows.into_iter().map(|(micros, read, offset, bytes)| {
                Request { micros, op: if read { Op::Read } else { Op::Write }, offset, bytes }
            });
            let trace = Trace { requests: requests.collect() };
            let mut text = Vec::new();
            trace.write(&mut text).unwrap();
            prop_assert_eq!(Trace::parse(&text[..]).unwrap(), trace);
        }

        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Trace::parse(&junk[..]);
        }
    }
}
