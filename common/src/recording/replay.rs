//! A recording run again: an engine made of the same is told the same, and has to answer the same.
//!
//! *Invariants*: no recording makes it panic: what an engine cannot be told is refused.
//! *Units*: microseconds of the recorded engine's clock; records are counted from 1.
//! *Bounds*: the tables that the recording asks for, at most [`MEMORY_BYTES_MAX`]; a profile's entry for each chunk.

use super::read::{ReadError, Records};
use super::recorded::{Recorded, sent_part};
use crate::memory::Memory;
use std::fmt;
use std::io::Read;
use swarmdisk_core::engine::{Action, Footprint, SetupError};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::format::recording::{Heard, Record, Setup};
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::{self, HEAD_BYTES_MAX};

/// Most memory that an engine which is run again may have, in bytes.
pub const MEMORY_BYTES_MAX: usize = 2 << 30;

/// What was run again, every answer the same.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Records read, what the engine is made of included.
    pub records: u64,
    /// Events told.
    pub events: u64,
    /// Links that came in, those turned away included.
    pub admissions: u64,
    /// Heads of frames received.
    pub frames: u64,
    /// Actions that the engine asked for.
    pub actions: u64,
    /// Times it was asked and had nothing to do.
    pub idle_polls: u64,
    /// From when it was made to the last call.
    pub span_micros: u64,
    /// Bytes after the last whole record.
    pub torn_bytes: u64,
}

/// Why a recording could not be run again to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It does not say what the engine is made of.
    #[error("the recording ends before its engine was made; record it again")]
    Empty,
    /// A record stands where it must not, or names what the image does not have.
    #[error("record {record} of the recording is {problem}; record it again")]
    Senseless {
        /// Which.
        record: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The engine would need too much memory.
    #[error("the recorded engine takes {bytes} bytes of memory, more than {MEMORY_BYTES_MAX}; replay a smaller one")]
    TooLarge {
        /// How much.
        bytes: usize,
    },
    /// The engine cannot be made.
    #[error("the recorded engine cannot be made again: {0}")]
    Setup(#[from] SetupError),
    /// An answer was another one.
    #[error("{0}; this program's engine is not the one that was recorded, or the recording was changed")]
    Diverged(Box<Divergence>),
}

/// The first answer that was not the one recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// Of which record.
    pub record: u64,
    /// When, by the recorded engine's clock.
    pub at_micros: u64,
    /// The answer that was recorded.
    pub expected: String,
    /// The answer now.
    pub got: String,
    /// What had been run again until then.
    pub until: Replayed,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, at_micros, expected, got, .. } = self;
        write!(f, "record {record}, at {at_micros} µs: the engine answered {got}, recorded was {expected}")
    }
}

/// Runs a recording again, to its last whole record, and compares every answer. `input` is best buffered.
///
/// # Errors
/// [`ReplayError`]; [`ReplayError::Diverged`] for the first answer that is another one.
pub fn replay(input: impl Read) -> Result<Replayed, ReplayError> {
    let mut records = Records::new(input)?;
    let mut done = Replayed { records: 1, ..Replayed::default() };
    let setup = match records.next_record()? {
        Some(Record::Made(setup)) => setup,
        Some(_) => return Err(senseless(1, "not what an engine is made of")),
        None => return Err(ReplayError::Empty),
    };
    let need = footprint(&setup)?;
    let profile = read_profile(&mut records, &setup, &mut done)?;
    let mut memory = Memory::new(need, &setup.policies);
    let mut engine = Recorded::new(&setup, &profile, memory.storage(), None, None)?;
    let mut head = [0; HEAD_BYTES_MAX];
    while let Some(record) = records.next_record()? {
        let number = done.records + 1;
        let Some(now) = record.now() else { return Err(senseless(number, "no call")) };
        if !record.fits(setup.geometry) {
            return Err(senseless(number, "about what the image does not have, or of no time"));
        }
        if let Some((expected, got)) = call_again(&mut engine, &record, &mut head) {
            let at_micros = now.as_micros();
            let divergence = Divergence { record: number, at_micros, expected, got, until: done };
            return Err(ReplayError::Diverged(Box::new(divergence)));
        }
        done.count(&record);
        done.span_micros = (now - setup.now).as_micros();
    }
    done.torn_bytes = records.torn_bytes();
    Ok(done)
}

fn senseless(record: u64, problem: &'static str) -> ReplayError {
    ReplayError::Senseless { record, problem }
}

fn footprint(setup: &Setup) -> Result<Footprint, ReplayError> {
    if !setup.is_sound() {
        return Err(senseless(1, "about an engine that cannot be"));
    }
    let need = Footprint::of(setup.geometry, setup.config.limits);
    match need.bytes() {
        0..=MEMORY_BYTES_MAX => Ok(need),
        bytes => Err(ReplayError::TooLarge { bytes }),
    }
}

/// The entries before the first call.
fn read_profile<R: Read>(
    records: &mut Records<R>,
    setup: &Setup,
    done: &mut Replayed,
) -> Result<Vec<ProfileEntry>, ReplayError> {
    let mut profile = Vec::new();
    while let Some(record) = records.next_record()? {
        let Record::Foreseen(entry) = record else {
            records.step_back();
            break;
        };
        done.count(&record);
        if !record.fits(setup.geometry) || profile.len() >= setup.geometry.chunk_count() as usize {
            return Err(senseless(done.records, "about what the image does not have"));
        }
        profile.push(entry);
    }
    Ok(profile)
}

/// Makes a recorded call again. What was answered and what is answered now, if they differ.
fn call_again(
    engine: &mut Recorded<'_>,
    record: &Record<'_>,
    head: &mut [u8; HEAD_BYTES_MAX],
) -> Option<(String, String)> {
    match *record {
        // Neither is a call.
        Record::Made(_) | Record::Foreseen(_) => None,
        Record::Handled { now, event } => {
            engine.handle(now, event);
            None
        }
        Record::Admitted { now, address, credit_bytes, peer } => {
            let got = engine.admit(now, address, credit_bytes);
            (got != peer).then(|| (format!("{peer:?}"), format!("{got:?}")))
        }
        Record::Received { now, peer, answer, bytes } => {
            let (expected, got) = (answer.answer(bytes.len()), engine.receive(now, peer, bytes));
            (got != expected).then(|| (format!("{expected:?}"), format!("{got:?}")))
        }
        Record::Polled { now, action, head: sent } => poll_again(engine, now, head, Some((action, sent))),
        Record::Idle { now } => poll_again(engine, now, head, None),
    }
}

fn poll_again(
    engine: &mut Recorded<'_>,
    now: Instant,
    head: &mut [u8; HEAD_BYTES_MAX],
    expected: Option<(Action, &[u8])>,
) -> Option<(String, String)> {
    let action = engine.poll(now, head);
    let got = action.map(|action| (action, sent_part(action, head)));
    (got != expected).then(|| (describe(expected), describe(got)))
}

/// An action, with the frame that it sends in words.
fn describe(answer: Option<(Action, &[u8])>) -> String {
    match answer {
        None => "nothing to do".to_owned(),
        Some((action, [])) => format!("{action:?}"),
        Some((action, head)) => match wire::decode(head) {
            Ok(wire::Decoded::Frame { frame, .. }) => format!("{action:?} with {frame:?}"),
            _ => format!("{action:?} with bytes that are no frame"),
        },
    }
}

impl Replayed {
    fn count(&mut self, record: &Record<'_>) {
        self.records += 1;
        match record {
            Record::Made(_) | Record::Foreseen(_) => {}
            Record::Handled { .. } => self.events += 1,
            Record::Admitted { .. } => self.admissions += 1,
            Record::Received { answer, .. } => self.frames += u64::from(matches!(answer, Heard::Head(_))),
            Record::Polled { .. } => self.actions += 1,
            Record::Idle { .. } => self.idle_polls += 1,
        }
    }
}
