//! Records from a file, or from whatever can be read.
//!
//! *Invariants*: what is after the last whole record is not looked at: whoever recorded may have been killed.
//! *Bounds*: one record in memory.

use std::io::{self, ErrorKind, Read};
use swarmdisk_core::format::recording::{Decoded, Record, RecordingError, START_BYTES, check_start, decode};

/// A recording's records, one after the other.
#[derive(Debug)]
pub struct Records<R> {
    input: R,
    record: Vec<u8>,
    /// Where the record that is read next begins.
    offset: u64,
    /// Bytes after the last whole record, once that was met.
    torn_bytes: Option<u64>,
    /// The record in `record` is to be given once more.
    once_more: bool,
}

/// Why a recording cannot be read any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file is at fault.
    #[error("cannot read the recording: {0}")]
    Io(#[from] io::Error),
    /// It is another file, or of another version.
    #[error("{0}; record one with `swarmdisk attach --record-engine FILE`")]
    Foreign(RecordingError),
    /// It is damaged.
    #[error("the recording is damaged at byte {offset}: {problem}; record it again")]
    Damaged {
        /// Where the record begins.
        offset: u64,
        /// What is wrong with it.
        problem: RecordingError,
    },
}

impl<R: Read> Records<R> {
    /// The records in `input`, which is read in small pieces: best buffered.
    ///
    /// # Errors
    /// [`ReadError::Io`], or [`ReadError::Foreign`] if it is no recording.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut start = [0; START_BYTES];
        input.read_exact(&mut start).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => ReadError::Foreign(RecordingError::Foreign),
            _ => ReadError::Io(error),
        })?;
        check_start(&start).map_err(ReadError::Foreign)?;
        Ok(Self { input, record: Vec::new(), offset: START_BYTES as u64, torn_bytes: None, once_more: false })
    }

    /// The next record; none after the last whole one.
    ///
    /// # Errors
    /// [`ReadError::Io`] or [`ReadError::Damaged`]; there is no way on then.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        if self.torn_bytes.is_some() {
            return Ok(None);
        }
        let offset = self.offset;
        let damaged = |problem| ReadError::Damaged { offset, problem };
        if !std::mem::take(&mut self.once_more) {
            self.record.clear();
        }
        while let Decoded::NeedMore { bytes } = decode(&self.record).map_err(damaged)? {
            let more = (bytes - self.record.len()) as u64;
            if (self.input.by_ref().take(more).read_to_end(&mut self.record)? as u64) < more {
                self.torn_bytes = Some(self.record.len() as u64);
                return Ok(None);
            }
        }
        self.offset += self.record.len() as u64;
        match decode(&self.record).map_err(damaged)? {
            Decoded::Record { record, .. } => Ok(Some(record)),
            Decoded::NeedMore { .. } => Ok(None),
        }
    }

    /// Gives the record that was read last once more.
    pub fn step_back(&mut self) {
        if !std::mem::replace(&mut self.once_more, true) {
            self.offset -= self.record.len() as u64;
        }
    }

    /// Where the record that is read next begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes after the last whole record, once that was met: 0 if the recording was ended properly.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes.unwrap_or(0)
    }
}
