//! A writable disk over a read-only one: what guests write goes into a file of its own, or into memory.
//!
//! *Purpose*: copy on write in units of 4 KiB. A unit is the base's, data (at its own place in a sparse file), or zeros; the
//! map of that is in memory, and in the file as far as it was flushed ([`swarmdisk_core::format::overlay`]).
//! *Units*: bytes; units of 4 KiB. *Bounds*: 4 KiB of map for each 64 MiB of image that is written to; what a request brings.
//!
//! *What a crash leaves*: all that a flush has covered; and of each sector of 512 bytes that was written since, the old
//! content or one that was written. It rests on this:
//!
//! 1. A unit becomes data in the map only after all of its bytes are in the file, and the flush copies the changed pages of
//!    the map before it syncs. So no page that reaches the file speaks of bytes which the first sync did not cover: never a
//!    hole, never a stale byte in place of data.
//! 2. A flush syncs the data, then writes each changed page to the slot that does not have its newest durable copy, then
//!    syncs again. A torn page leaves the older slot, which says what the flush before said. The first sync also makes
//!    durable what a killed process left in the newer slot, before the older one is overwritten; opening syncs too.
//! 3. Data over data is written in place: the map is right before and after, each sector old or new.
//! 4. Data to zeros: only the map changes, then the hole is punched. The durable map may still say data; what it then finds
//!    in the hole are zeros, which is what was written there. So nothing has to wait for the flush.
//! 5. Zeros, or the base, to data: the bytes go where the durable map does not look, or (data, zeros, data without a flush)
//!    where it finds old bytes, zeros or the new ones by sector, all of which were written. Since a hole may have bytes from
//!    before in it (a write that failed, zeros that keep their space), the unit is always written whole.
//! 6. A write that fails half-way leaves units that were not data as they were, others old or new by sector.
//! 7. Once a sync has failed, the system may have forgotten what it could not write: nothing more is written or flushed.
//!
//! A process that is killed alone loses less: what it has answered is in the system's hands, and where a device waits for the
//! next process, the map of it is too (`live`).
//!
//! The space of both slots is reserved when a page of the map is first needed, so that a full disk refuses writes, not
//! flushes. A write holds its units (`ranges`) until its last byte is in the file, also when its future is dropped.

mod commit;
mod error;
mod inner;
mod live;
mod map;
mod open;
mod ranges;
mod storage;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;

pub use commit::{CommitOptions, commit};
pub use error::OverlayError;
pub use live::Survival;
pub use open::{OverlayFile, OverlaySummary};

use crate::disk::{Disk, DiskError, Extent, ExtentKind, check_range, push_extent, zero_segments};
use bytes::{Bytes, BytesMut};
use inner::Inner;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use swarmdisk_core::format::overlay::{UNIT_BYTES, Unit};
use swarmdisk_core::ids::GuestId;
use tokio::task::spawn_blocking;

/// Size of a unit in bytes.
const UNIT: u64 = UNIT_BYTES as u64;
/// Most bytes that are read without a thread of their own, if they are in memory.
const READ_NOW_BYTES_MAX: u64 = 256 * 1024;

/// A writable disk over `D`. Dropped without a [`flush`](Disk::flush) it is as after a crash.
pub struct Overlay<D> {
    base: D,
    inner: Arc<Inner>,
}

/// Part of a request whose bytes lie in one place.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct Run {
    state: Unit,
    offset: u64,
    bytes: u64,
}

impl<D: Disk> Overlay<D> {
    /// Over `base`, in a file that was opened for its image.
    ///
    /// # Errors
    /// [`OverlayError::ImageSize`] if the file is of an image of another size than `base`.
    pub fn in_file(base: D, file: OverlayFile) -> Result<Self, OverlayError> {
        if file.header.layout.image_bytes() != base.image_bytes() {
            return Err(OverlayError::ImageSize(base.image_bytes()));
        }
        Ok(Self { base, inner: Arc::new(Inner::in_file(file)) })
    }

    /// Over `base`, in memory, in at most so many bytes; forgotten when dropped.
    ///
    /// # Errors
    /// [`OverlayError::ImageSize`] if no overlay can be of the base's size.
    pub fn in_memory(base: D, bytes_max: u64) -> Result<Self, OverlayError> {
        Ok(Self { inner: Arc::new(Inner::in_memory(base.image_bytes(), bytes_max)?), base })
    }

    /// The disk below.
    pub fn base(&self) -> &D {
        &self.base
    }

    /// What makes it another than all that were before, where what it has answered outlives the process.
    pub fn salt(&self) -> Option<u64> {
        self.inner.salt()
    }

    /// A device was made of it: from now on what was answered is kept for the next process.
    pub fn await_next(&self) {
        self.inner.await_next();
    }

    /// To be called after the last flush, when no device waits any more: nothing is left for another process to take up.
    ///
    /// # Errors
    /// [`OverlayError::Io`] if the system refuses.
    pub fn retire(&self) -> Result<(), OverlayError> {
        self.inner.retire()
    }

    /// Up to `max` runs of `offset..offset + bytes`, in order, from its beginning; neighbours differ.
    fn runs(&self, offset: u64, bytes: u64, max: usize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let (mut at, end) = (offset, offset + bytes);
        let map = self.inner.map();
        for (state, count) in map.runs(units_touched(offset..end)) {
            let next = ((at / UNIT + count) * UNIT).min(end);
            let is_full = runs.len() == max;
            match runs.last_mut() {
                Some(last) if last.state == state => last.bytes += next - at,
                _ if is_full => break,
                _ => runs.push(Run { state, offset: at, bytes: next - at }),
            }
            at = next;
        }
        runs
    }

    async fn read_run(&self, guest: GuestId, run: Run) -> Result<Vec<Bytes>, DiskError> {
        match run.state {
            Unit::Base => self.base.read(guest, run.offset, run.bytes as u32).await,
            Unit::Zero => Ok(zero_segments(run.bytes as usize).collect()),
            Unit::Data => {
                let mut buffer = BytesMut::zeroed(run.bytes as usize);
                let is_small = run.bytes <= READ_NOW_BYTES_MAX || self.inner.is_quick();
                if is_small && self.inner.read_now(&mut buffer, run.offset).is_some() {
                    return Ok(vec![buffer.freeze()]);
                }
                let read = move |inner: &Inner| {
                    inner.read(&mut buffer, run.offset)?;
                    Ok(vec![buffer.freeze()])
                };
                self.blocking(read).await
            }
        }
    }

    /// The bytes of a unit as it is: whoever asks must hold it, and it must not be data.
    async fn whole_unit(&self, guest: GuestId, unit: u64) -> Result<BytesMut, DiskError> {
        let bytes = UNIT.min(self.base.image_bytes() - unit * UNIT) as usize;
        if self.inner.map().unit(unit) == Unit::Zero {
            return Ok(BytesMut::zeroed(bytes));
        }
        let mut whole = BytesMut::with_capacity(bytes);
        for segment in self.base.read(guest, unit * UNIT, bytes as u32).await? {
            whole.extend_from_slice(&segment);
        }
        if whole.len() != bytes { Err(DiskError::failed(ShortBase)) } else { Ok(whole) }
    }

    /// What is to be written so that `data` is at `offset`, by place: the unit at either end is made whole unless it is
    /// data already. Whoever asks must hold the units.
    async fn completed(&self, guest: GuestId, offset: u64, data: Bytes) -> Result<Vec<(u64, Bytes)>, DiskError> {
        let end = offset + data.len() as u64;
        let whole = self.units_covered(offset..end);
        let mut body = offset..end;
        let mut parts = Vec::new();
        for unit in partial_units(offset..end, &whole) {
            if self.inner.map().unit(unit) == Unit::Data {
                continue;
            }
            let mut filled = self.whole_unit(guest, unit).await?;
            let (start, unit_end) = (unit * UNIT, unit * UNIT + filled.len() as u64);
            let patch = offset.max(start)..end.min(unit_end);
            filled[(patch.start - start) as usize..(patch.end - start) as usize]
                .copy_from_slice(&data[(patch.start - offset) as usize..(patch.end - offset) as usize]);
            parts.push((start, filled.freeze()));
            if patch.start == body.start {
                body.start = patch.end;
            } else {
                body.end = patch.start;
            }
        }
        if body.start < body.end {
            let within = (body.start - offset) as usize..(body.end - offset) as usize;
            parts.push((body.start, data.slice(within)));
        }
        Ok(parts)
    }

    /// The units that a range covers wholly; the last of the image may be shorter.
    fn units_covered(&self, range: Range<u64>) -> Range<u64> {
        let first = range.start.div_ceil(UNIT);
        let is_to_end = range.end == self.base.image_bytes();
        let end = if is_to_end { range.end.div_ceil(UNIT) } else { range.end / UNIT };
        first..end.max(first)
    }

    /// Makes the units that the range covers zeros, and their space free if `release`.
    async fn zero_covered(&self, covered: Range<u64>, held: ranges::Held, release: bool) -> Result<(), DiskError> {
        self.blocking(move |inner| {
            let _held = held;
            inner.zero(covered, release)
        })
        .await
    }

    /// Runs `work` to its end, whether or not anybody still waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, OverlayError> + Send + 'static,
    ) -> Result<T, DiskError> {
        if self.inner.is_quick() {
            return Ok(work(&self.inner)?);
        }
        let inner = Arc::clone(&self.inner);
        Ok(spawn_blocking(move || work(&inner)).await.map_err(DiskError::failed)??)
    }
}

impl<D: Disk> Disk for Overlay<D> {
    fn image_bytes(&self) -> u64 {
        self.base.image_bytes()
    }

    fn preferred_bytes(&self) -> u32 {
        self.base.preferred_bytes()
    }

    async fn read(&self, guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        check_range(self.image_bytes(), offset, bytes.into())?;
        let range = offset..offset + u64::from(bytes);
        if self.inner.map().is_all_base(units_touched(range)) {
            return self.base.read(guest, offset, bytes).await;
        }
        let runs = self.runs(offset, bytes.into(), usize::MAX);
        let parts = all_of(runs.into_iter().map(|run| self.read_run(guest, run)).collect()).await;
        Ok(parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn read_ready(&self, guest: GuestId, offset: u64, bytes: u32) -> Option<Vec<Bytes>> {
        check_range(self.image_bytes(), offset, bytes.into()).ok()?;
        let range = offset..offset + u64::from(bytes);
        let is_all_base = self.inner.map().is_all_base(units_touched(range));
        if is_all_base { self.base.read_ready(guest, offset, bytes) } else { None }
    }

    async fn extents(&self, guest: GuestId, offset: u64, bytes: u64, max: usize) -> Result<Vec<Extent>, DiskError> {
        check_range(self.image_bytes(), offset, bytes)?;
        let mut extents = Vec::new();
        for run in self.runs(offset, bytes, max) {
            let kind = match run.state {
                Unit::Data => ExtentKind::Data,
                Unit::Zero => ExtentKind::Zero,
                Unit::Base => {
                    let below = self.base.extents(guest, run.offset, run.bytes, max).await?;
                    let told: u64 = below.iter().map(|extent| extent.bytes).sum();
                    below.into_iter().for_each(|extent| push_extent(&mut extents, extent));
                    if told < run.bytes {
                        break;
                    }
                    continue;
                }
            };
            push_extent(&mut extents, Extent { bytes: run.bytes, kind });
        }
        extents.truncate(max);
        Ok(extents)
    }

    fn is_writable(&self) -> bool {
        true
    }

    async fn write(&self, guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        check_range(self.image_bytes(), offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let units = units_touched(offset..offset + data.len() as u64);
        let held = self.inner.hold(units.clone()).await;
        let parts = self.completed(guest, offset, data).await?;
        self.blocking(move |inner| {
            let _held = held;
            inner.write(&parts, units)
        })
        .await
    }

    async fn write_zeroes(&self, guest: GuestId, offset: u64, bytes: u64, may_trim: bool) -> Result<(), DiskError> {
        check_range(self.image_bytes(), offset, bytes)?;
        let range = offset..offset + bytes;
        let covered = self.units_covered(range.clone());
        for unit in partial_units(range.clone(), &covered) {
            let part = range.start.max(unit * UNIT)..range.end.min((unit + 1) * UNIT);
            let zeros = zero_segments((part.end - part.start) as usize).collect::<Vec<_>>().concat();
            self.write(guest, part.start, zeros.into()).await?;
        }
        if covered.is_empty() {
            return Ok(());
        }
        let held = self.inner.hold(covered.clone()).await;
        self.zero_covered(covered, held, may_trim).await
    }

    async fn trim(&self, _guest: GuestId, offset: u64, bytes: u64) -> Result<(), DiskError> {
        check_range(self.image_bytes(), offset, bytes)?;
        let covered = self.units_covered(offset..offset + bytes);
        if covered.is_empty() {
            return Ok(());
        }
        let held = self.inner.hold(covered.clone()).await;
        self.zero_covered(covered, held, true).await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        let Some(turn) = self.inner.flush_turn().await else { return Ok(()) };
        self.blocking(move |inner| inner.flush(turn)).await
    }
}

/// The disk below gave fewer bytes than there are, or more.
#[derive(Debug, thiserror::Error)]
#[error("the disk below gave too little or too much")]
struct ShortBase;

/// All units that a range has a byte in.
fn units_touched(range: Range<u64>) -> Range<u64> {
    let first = range.start / UNIT;
    if range.is_empty() { first..first } else { first..range.end.div_ceil(UNIT) }
}

/// The units, at most two, that a range touches and does not cover.
fn partial_units(range: Range<u64>, covered: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    let touched = units_touched(range.clone());
    let covered = covered.clone();
    let (first, last) = (touched.start, touched.end.saturating_sub(1));
    let is_partial = move |unit: &u64| !range.is_empty() && !covered.contains(unit);
    [first, last].into_iter().take(if first == last { 1 } else { 2 }).filter(is_partial)
}

/// What all of these futures answer, in their order; they wait together.
async fn all_of<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
