//! What a command does to the disk, and what it answers.
//!
//! *Invariants*: a disk that ends within a block reads as zeros behind its end, and what is written there is dropped.
//! *Bounds*: what a command brings or asks for, and [`PIECE_BYTES`] beside.

use crate::disk::{Disk, DiskError, zero_segments};
use crate::iscsi::scsi::command::{Command, Compare, Extent};
use crate::iscsi::scsi::sense::{Sense, status};
use crate::iscsi::scsi::{BLOCK_BYTES, Facts, inquiry, mode, opcodes, unmap};
use crate::iscsi::target::Target;
use bytes::Bytes;
use std::sync::Arc;
use swarmdisk_core::ids::GuestId;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// So much is written, or read to be compared, at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// So much is looked at to say what is allocated, in so many extents.
const STATUS_BYTES_MAX: u64 = 1 << 30;
const EXTENTS_MAX: usize = 256;

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub status: u8,
    pub sense: Option<Sense>,
    /// For the initiator.
    pub data: Vec<Bytes>,
}

impl Outcome {
    pub(super) fn good() -> Self {
        Self::of_status(status::GOOD)
    }

    pub(super) fn of_status(status: u8) -> Self {
        Self { status, sense: None, data: Vec::new() }
    }

    pub(super) fn of_sense(sense: Sense) -> Self {
        Self { status: status::CHECK_CONDITION, sense: Some(sense), data: Vec::new() }
    }

    pub(super) fn of_segments(data: Vec<Bytes>) -> Self {
        Self { data, ..Self::good() }
    }

    /// Data of which the initiator wants so many bytes.
    pub(super) fn of_data(mut data: Vec<u8>, allocated: u32) -> Self {
        data.truncate(allocated as usize);
        if data.is_empty() { Self::good() } else { Self::of_segments(vec![data.into()]) }
    }
}

impl From<Result<(), Sense>> for Outcome {
    fn from(done: Result<(), Sense>) -> Self {
        done.map_or_else(Self::of_sense, |()| Self::good())
    }
}

/// Answers what is known without the disk; none of other commands.
pub(super) fn answer<D: Disk>(command: &Command, target: &Target<D>) -> Option<Outcome> {
    let facts = &target.facts;
    let (data, allocated) = match *command {
        Command::TestUnitReady | Command::StartStop | Command::PreventAllow => return Some(Outcome::good()),
        Command::Inquiry { page: None, allocated } => (Ok(inquiry::standard()), allocated),
        Command::Inquiry { page: Some(page), allocated } => (inquiry::page(page, facts), allocated),
        Command::ReadCapacity10 => (Ok(inquiry::capacity_10(facts)), u32::MAX),
        Command::ReadCapacity16 { allocated } => (Ok(inquiry::capacity_16(facts)), allocated),
        Command::ReportLuns { select, allocated } => (inquiry::luns(select), allocated),
        Command::ReportOpcodes { wish, with_timeouts, allocated } => (opcodes::report(wish, with_timeouts), allocated),
        Command::ModeSense { asked, allocated } => (mode::sense(facts, target.is_protected(), asked), allocated),
        _ => return None,
    };
    Some(data.map_or_else(Outcome::of_sense, |data| Outcome::of_data(data, allocated)))
}

/// What a read gives at once, if it can.
pub(super) fn read_ready<D: Disk>(target: &Target<D>, guest: GuestId, extent: Extent) -> Option<Outcome> {
    let (bytes, padding) = within(&target.facts, target.disk.image_bytes(), extent);
    let mut segments = target.disk.read_ready(guest, extent.offset(), bytes as u32)?;
    segments.extend(zero_segments(padding as usize));
    Some(checked(segments, extent))
}

/// Does what a command asks of the disk.
pub(super) async fn run<D: Disk>(target: Arc<Target<D>>, guest: GuestId, command: Command, data: Bytes) -> Outcome {
    let work = Work { target: &target, guest };
    let _changing = Changing::begin(&target.changing, &command).await;
    match command {
        Command::Read { extent } => match work.read(extent).await {
            Ok(segments) => checked(segments, extent),
            Err(sense) => Outcome::of_sense(sense),
        },
        Command::Write { extent, is_durable, compare } => {
            work.write_all(extent, data, is_durable, compare).await.into()
        }
        Command::Verify { extent, compare } => work.verify(extent, compare, &data).await.into(),
        Command::CompareAndWrite { extent, is_durable } => {
            work.compare_and_write(extent, data, is_durable).await.into()
        }
        Command::OrWrite { extent, is_durable } => work.or_write(extent, &data, is_durable).await.into(),
        Command::Prefetch { extent } => work.verify(extent, Compare::Nothing, &data).await.into(),
        Command::SynchronizeCache => work.flush().await.into(),
        Command::WriteSame { extent, unmap, .. } => work.write_same(extent, unmap, &data).await.into(),
        Command::Unmap { .. } => work.unmap(&data).await.into(),
        Command::LbaStatus { lba, allocated } => match work.status(lba, allocated).await {
            Ok(data) => Outcome::of_data(data, allocated),
            Err(sense) => Outcome::of_sense(sense),
        },
        _ => Outcome::of_sense(Sense::INTERNAL),
    }
}

/// How many bytes of blocks the disk has, and how many are behind its end.
fn within(facts: &Facts, image_bytes: u64, extent: Extent) -> (u64, u64) {
    debug_assert!(extent.lba + u64::from(extent.blocks) <= facts.blocks);
    let bytes = extent.bytes().min(image_bytes.saturating_sub(extent.offset()));
    (bytes, extent.bytes() - bytes)
}

/// A disk that gives another number of bytes than it was asked for would shift all that follows.
fn checked(segments: Vec<Bytes>, extent: Extent) -> Outcome {
    let is_whole = segments.iter().map(Bytes::len).sum::<usize>() as u64 == extent.bytes();
    if is_whole { Outcome::of_segments(segments) } else { Outcome::of_sense(Sense::INTERNAL) }
}

/// What a command holds of the disk while others would change it.
enum Changing<'a> {
    Nothing,
    Shared { _held: RwLockReadGuard<'a, ()> },
    Alone { _held: RwLockWriteGuard<'a, ()> },
}

impl<'a> Changing<'a> {
    async fn begin(lock: &'a RwLock<()>, command: &Command) -> Self {
        match command {
            Command::CompareAndWrite { .. } | Command::OrWrite { .. } => Self::Alone { _held: lock.write().await },
            command if command.writes() => Self::Shared { _held: lock.read().await },
            _ => Self::Nothing,
        }
    }
}

struct Work<'a, D> {
    target: &'a Target<D>,
    guest: GuestId,
}

impl<D: Disk> Work<'_, D> {
    async fn read(&self, extent: Extent) -> Result<Vec<Bytes>, Sense> {
        let (bytes, padding) = within(&self.target.facts, self.target.disk.image_bytes(), extent);
        if bytes == 0 {
            // The disk may end within its last block, before the place that is named.
            return Ok(zero_segments(padding as usize).collect());
        }
        let read = self.target.disk.read(self.guest, extent.offset(), bytes as u32).await;
        let mut segments = read.map_err(|error| Sense::of(&error, false))?;
        segments.extend(zero_segments(padding as usize));
        Ok(segments)
    }

    async fn write_all(&self, extent: Extent, data: Bytes, is_durable: bool, compare: bool) -> Result<(), Sense> {
        self.write(extent, data.clone()).await?;
        if is_durable {
            self.flush().await?;
        }
        if compare { self.verify(extent, Compare::All, &data).await } else { Ok(()) }
    }

    async fn write(&self, extent: Extent, mut data: Bytes) -> Result<(), Sense> {
        // Fewer data than the command says are written as far as they go.
        let (bytes, _) = within(&self.target.facts, self.target.disk.image_bytes(), extent);
        data.truncate(bytes as usize);
        if data.is_empty() {
            return Ok(());
        }
        written(self.target.disk.write(self.guest, extent.offset(), data).await)
    }

    async fn flush(&self) -> Result<(), Sense> {
        written(self.target.disk.flush().await)
    }

    async fn verify(&self, extent: Extent, compare: Compare, data: &Bytes) -> Result<(), Sense> {
        let difference = self.difference(extent, compare, data).await?;
        difference.map_or(Ok(()), |_| Err(Sense::MISCOMPARE))
    }

    /// Reads the blocks, and compares them: where in the data is the first byte that differs.
    async fn difference(&self, extent: Extent, compare: Compare, data: &Bytes) -> Result<Option<usize>, Sense> {
        for piece in pieces(extent) {
            let found = self.read(piece).await?;
            let from = ((piece.lba - extent.lba) * BLOCK_BYTES) as usize;
            let differing = match compare {
                Compare::Nothing => None,
                Compare::All => difference(&found, data.get(from..).unwrap_or_default()).map(|at| from + at),
                Compare::One => {
                    found.concat().chunks(BLOCK_BYTES as usize).find_map(|block| difference_of(block, data))
                }
            };
            if differing.is_some() {
                return Ok(differing);
            }
        }
        Ok(None)
    }

    /// Writes the second half of the data where the first is what is there.
    async fn compare_and_write(&self, extent: Extent, mut data: Bytes, is_durable: bool) -> Result<(), Sense> {
        let expected = data.split_to(extent.bytes() as usize);
        // Where they differ, the initiator is told (SBC-3, section 5.3).
        if let Some(at) = self.difference(extent, Compare::All, &expected).await? {
            return Err(Sense::MISCOMPARE.with_information(at as u32));
        }
        self.write_all(extent, data, is_durable, false).await
    }

    async fn or_write(&self, extent: Extent, data: &[u8], is_durable: bool) -> Result<(), Sense> {
        for piece in pieces(extent) {
            let from = ((piece.lba - extent.lba) * BLOCK_BYTES) as usize;
            let mut blocks = self.read(piece).await?.concat();
            let ours = data.get(from..).unwrap_or_default();
            blocks.iter_mut().zip(ours).for_each(|(byte, own)| *byte |= own);
            self.write(piece, blocks.into()).await?;
        }
        if is_durable { self.flush().await } else { Ok(()) }
    }

    async fn write_same(&self, extent: Extent, unmap: bool, block: &Bytes) -> Result<(), Sense> {
        // SBC-3 has data other than zeros written, even with UNMAP; targets in use (LIO, tgt) unmap all the same, and so do we.
        if unmap || block.iter().all(|byte| *byte == 0) {
            return self.zero(extent, unmap).await;
        }
        for piece in pieces(extent) {
            self.write(piece, block.repeat(piece.blocks as usize).into()).await?;
        }
        Ok(())
    }

    async fn zero(&self, extent: Extent, may_trim: bool) -> Result<(), Sense> {
        let (bytes, _) = within(&self.target.facts, self.target.disk.image_bytes(), extent);
        if bytes == 0 {
            return Ok(());
        }
        written(self.target.disk.write_zeroes(self.guest, extent.offset(), bytes, may_trim).await)
    }

    /// What is allocated, from a block on.
    async fn status(&self, lba: u64, allocated: u32) -> Result<Vec<u8>, Sense> {
        let offset = lba * BLOCK_BYTES;
        let bytes = self.target.disk.image_bytes().saturating_sub(offset).min(STATUS_BYTES_MAX);
        let extents = self.target.disk.extents(self.guest, offset, bytes, EXTENTS_MAX).await;
        let extents = extents.map_err(|error| Sense::of(&error, false))?;
        Ok(unmap::status(lba, &extents, &self.target.facts, allocated))
    }

    /// The ranges become zeros, which capacity and pages promise.
    async fn unmap(&self, list: &[u8]) -> Result<(), Sense> {
        for extent in unmap::ranges(list, &self.target.facts)? {
            self.zero(extent, true).await?;
        }
        Ok(())
    }
}

fn written(done: Result<(), DiskError>) -> Result<(), Sense> {
    done.map_err(|error| Sense::of(&error, true))
}

/// The extent in parts of [`PIECE_BYTES`].
fn pieces(extent: Extent) -> impl Iterator<Item = Extent> {
    let most = (PIECE_BYTES / BLOCK_BYTES) as u32;
    (0..extent.blocks)
        .step_by(most as usize)
        .map(move |done| Extent { lba: extent.lba + u64::from(done), blocks: most.min(extent.blocks - done) })
}

/// Where segments and data differ first, as far as both go.
fn difference(segments: &[Bytes], data: &[u8]) -> Option<usize> {
    let mut begin = 0;
    segments.iter().find_map(|segment| {
        let from = begin;
        begin += segment.len();
        difference_of(segment, data.get(from..)?).map(|at| from + at)
    })
}

fn difference_of(one: &[u8], other: &[u8]) -> Option<usize> {
    let bytes = one.len().min(other.len());
    // Nearly always they are the same, which whole slices say sooner than bytes.
    if one[..bytes] == other[..bytes] { None } else { one.iter().zip(other).position(|(one, other)| one != other) }
}
