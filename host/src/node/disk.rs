//! What guests read through: chunks that are held come from the store, the others from the swarm.
//!
//! *Purpose*: [`SwarmDisk`] is a [`Disk`]. What is in memory is answered at once, what is held by blocking threads, and all
//! that is missing is asked for before anything is waited for.
//! *Invariants*: no byte is handed out that the store has not verified. Dropping a read gives up what it waited for.
//! *Bounds*: all reads together wait for at most `Limits::demands` pieces; a read waits at most the I/O timeout.

use super::handle::NodeHandle;
use super::message::Request;
use super::pieces::lost_by;
use super::touches::Touches;
use super::waiters::{Answer, Waiter};
use crate::disk::{Disk, DiskError, Extent, ExtentKind, check_range, push_extent, zero_segments};
use crate::report::StallClock;
use crate::store::{LeafPage, Store, StoreError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::time::Duration;
use swarmdisk_core::geometry::{ChunkIndex, LeafIndex, PieceIndex};
use swarmdisk_core::ids::GuestId;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Chunks that one blocking thread reads in a row, unless as many reads as there are processors are under way: each has one
/// then, since to wake another takes as long as to decompress a chunk.
const CHUNKS_PER_THREAD: usize = 4;
/// Leaf pages that one call of `extents` looks at: 256 MiB of image by default.
const LEAVES_MAX: u32 = 16;
/// How long `extents` waits for a leaf page: QEMU asks on behalf of guests' writes, and data is always a true answer.
const EXTENTS_TIME: Duration = Duration::from_secs(1);
/// So many bytes of chunks are decompressed by whoever reads them, if that needs no disk; more are spread over threads.
const INLINE_BYTES: u64 = 128 << 10;
/// How often a piece may turn out to be damaged on disk before the read fails.
const LOSSES_MAX: u32 = 8;

/// A node's image as a disk.
#[derive(Debug)]
pub struct SwarmDisk {
    node: NodeHandle,
    io_timeout: Duration,
    is_alone: bool,
    touches: Touches,
    demand_misses: AtomicU64,
    stalls: StallClock,
    /// Reads that blocking threads work on.
    reading: AtomicUsize,
    processors: usize,
}

/// Why bytes cannot be had, where waiting does not help.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmDiskError {
    /// The node has been shut down.
    #[error("the node has been shut down; attach the image again")]
    Ended,
    /// The image or what holds it is at fault.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The image is at fault: what it names cannot be decoded.
    #[error("{0}")]
    Unusable(String),
    /// The file is at fault, and there is no swarm.
    #[error("piece {piece} of the file is damaged; see `swarmdisk check`, and copy the file again or give a --peer")]
    Damaged {
        /// Which piece.
        piece: u32,
    },
    /// The cache loses what is written to it.
    #[error("piece {piece} is damaged on disk each time it is fetched; check the disk that holds the cache")]
    Rotting {
        /// Which piece.
        piece: u32,
    },
}

impl SwarmDisk {
    /// Reads through this node. A read fails after `io_timeout` if nobody had the bytes.
    pub fn new(node: NodeHandle, io_timeout: Duration) -> Self {
        let touches = Touches::new(node.clone());
        Self {
            touches,
            node,
            io_timeout,
            is_alone: false,
            demand_misses: AtomicU64::new(0),
            stalls: StallClock::new(),
            reading: AtomicUsize::new(0),
            processors: available_parallelism().map_or(1, usize::from),
        }
    }

    /// For a complete file that is attached with no swarm: what is damaged in it fails at once, as nobody can be asked.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { is_alone: true, ..self }
    }

    /// The node that it reads through.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Wall time during which guests waited for the network.
    pub fn stalls(&self) -> &StallClock {
        &self.stalls
    }

    /// Reads of guests that waited for the network.
    pub fn demand_misses(&self) -> u64 {
        self.demand_misses.load(Relaxed)
    }

    fn store(&self) -> &Arc<Store> {
        self.node.store()
    }

    fn deadline(&self) -> Instant {
        // Far enough off to be never, near enough for the timer.
        Instant::now() + self.io_timeout.min(Duration::from_secs(365 * 24 * 3600))
    }

    async fn in_time<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Result<T, DiskError> {
        timeout_at(deadline, work).await.map_err(|_| DiskError::TimedOut(self.io_timeout))
    }

    /// Asks for a piece.
    async fn want(&self, guest: GuestId, piece: PieceIndex, deadline: Instant) -> Result<Want, DiskError> {
        if self.is_alone {
            return Err(DiskError::failed(SwarmDiskError::Damaged { piece: piece.get() }));
        }
        let permit = self.in_time(deadline, self.node.permits().clone().acquire_owned()).await?;
        let permit = permit.map_err(|_| DiskError::failed(SwarmDiskError::Ended))?;
        let (answer, receiver) = oneshot::channel();
        self.node.request(Request::Want { piece, waiter: Waiter { guest, answer, _permit: permit } });
        Ok(Want { node: self.node.clone(), guest, piece, receiver: Some(receiver) })
    }

    /// Where a chunk's bytes come from; what is missing is asked for.
    async fn begin(
        &self,
        guest: GuestId,
        chunk: ChunkIndex,
        is_inline: bool,
        deadline: Instant,
    ) -> Result<Source, DiskError> {
        let piece = self.store().geometry().chunk_piece(chunk);
        if let Some(data) = self.store().chunk_in_memory(chunk) {
            self.touches.add(guest, chunk);
            return Ok(Source::Data(data));
        }
        if self.store().holds(piece) {
            self.touches.add(guest, chunk);
            // To wake a thread takes as long as to decompress a small chunk.
            let data = if is_inline { self.store().read_chunk_now(chunk) } else { None };
            return Ok(data.map_or(Source::Held, Source::Data));
        }
        self.want(guest, piece, deadline).await.map(Source::Wanted)
    }

    /// Waits until the chunk's bytes are there.
    async fn finish(
        &self,
        guest: GuestId,
        chunk: ChunkIndex,
        mut want: Want,
        deadline: Instant,
    ) -> Result<Bytes, DiskError> {
        for _ in 0..LOSSES_MAX {
            match self.in_time(deadline, want.answer()).await?? {
                Answer::Payload(payload) => return self.decode(chunk, payload).await,
                Answer::Unusable(why) => return Err(DiskError::failed(SwarmDiskError::Unusable(why))),
                Answer::Held => {}
            }
            let read = self.node.pieces().blocking(move |store| store.read_chunk(chunk));
            match read.await {
                Ok(data) => return Ok(data),
                Err(error) => want = self.want_again(guest, chunk, error, deadline).await?,
            }
        }
        Err(DiskError::failed(SwarmDiskError::Rotting { piece: want.piece.get() }))
    }

    /// The bytes of a verified payload.
    async fn decode(&self, chunk: ChunkIndex, payload: Bytes) -> Result<Bytes, DiskError> {
        let decoded = if u64::from(self.store().geometry().chunk_bytes()) <= INLINE_BYTES {
            self.store().decode(chunk, payload)
        } else {
            self.node.pieces().blocking(move |store| store.decode(chunk, payload)).await
        };
        decoded.map_err(|error| DiskError::failed(SwarmDiskError::Unusable(error.to_string())))
    }

    /// What was held turns out not to be: it is fetched, unless that is of no use.
    async fn want_again(
        &self,
        guest: GuestId,
        chunk: ChunkIndex,
        error: StoreError,
        deadline: Instant,
    ) -> Result<Want, DiskError> {
        let piece = self.store().geometry().chunk_piece(chunk);
        let lost = lost_by(self.store(), piece, &error);
        if lost.is_empty() {
            return Err(DiskError::failed(SwarmDiskError::Store(Arc::new(error))));
        }
        self.node.request(Request::Lost(lost));
        self.want(guest, piece, deadline).await
    }

    /// Reads chunks that are held, a few on each thread; in order, with an entry for each: none for those that a thread
    /// which ended early did not come to.
    fn read_held(&self, chunks: &[ChunkIndex]) -> VecDeque<JoinHandle<Vec<HeldRead>>> {
        let start = |chunks: &[ChunkIndex]| {
            let (pieces, chunks) = (self.node.pieces().clone(), chunks.to_vec());
            tokio::spawn(async move {
                let count = chunks.len();
                let read = |store: &Store| Ok(chunks.into_iter().map(|chunk| Some(store.read_chunk(chunk))).collect());
                pieces.blocking(read).await.unwrap_or_else(|error| all_failed(error, count))
            })
        };
        let is_crowded = self.reading.load(Relaxed) >= self.processors;
        let each = if is_crowded { chunks.len().max(1) } else { CHUNKS_PER_THREAD };
        chunks.chunks(each).map(start).collect()
    }

    async fn collect_held(&self, chunks: &[ChunkIndex], deadline: Instant) -> Result<VecDeque<HeldRead>, DiskError> {
        let mut done = VecDeque::with_capacity(chunks.len());
        if chunks.is_empty() {
            return Ok(done);
        }
        let _reading = Counted::new(&self.reading);
        for job in self.read_held(chunks) {
            let read = self.in_time(deadline, job).await?;
            done.extend(read.map_err(|_| DiskError::failed(SwarmDiskError::Ended))?);
        }
        Ok(done)
    }

    /// The bytes of consecutive chunks.
    async fn chunks(
        &self,
        guest: GuestId,
        chunks: Vec<ChunkIndex>,
        deadline: Instant,
    ) -> Result<Vec<Bytes>, DiskError> {
        let mut sources = Vec::with_capacity(chunks.len());
        let chunk_bytes = u64::from(self.store().geometry().chunk_bytes());
        let is_inline = chunks.len() as u64 * chunk_bytes <= INLINE_BYTES;
        for chunk in &chunks {
            sources.push(self.begin(guest, *chunk, is_inline, deadline).await?);
        }
        let is_miss = sources.iter().any(|source| matches!(source, Source::Wanted(_)));
        let _stalled = is_miss.then(|| {
            self.demand_misses.fetch_add(1, Relaxed);
            self.stalls.enter()
        });
        let is_held = |(chunk, source): (&ChunkIndex, &Source)| matches!(source, Source::Held).then_some(*chunk);
        let held: Vec<ChunkIndex> = chunks.iter().zip(&sources).filter_map(is_held).collect();
        let mut held = self.collect_held(&held, deadline).await?;
        let mut all = Vec::with_capacity(chunks.len());
        for (chunk, source) in chunks.into_iter().zip(sources) {
            let want = match source {
                Source::Data(data) => {
                    all.push(data);
                    continue;
                }
                Source::Wanted(want) => want,
                Source::Held => match held.pop_front().flatten() {
                    Some(Ok(data)) => {
                        all.push(data);
                        continue;
                    }
                    Some(Err(error)) => self.want_again(guest, chunk, error, deadline).await?,
                    // The thread ended early and has said why for the chunk before.
                    None => self.want(guest, self.store().geometry().chunk_piece(chunk), deadline).await?,
                },
            };
            all.push(self.finish(guest, chunk, want, deadline).await?);
        }
        Ok(all)
    }

    /// The leaf page, fetched if it is missing.
    async fn leaf(&self, guest: GuestId, leaf: LeafIndex, deadline: Instant) -> Result<Arc<LeafPage>, DiskError> {
        let piece = self.store().geometry().leaf_piece(leaf);
        for _ in 0..LOSSES_MAX {
            let read = self.node.pieces().blocking(move |store| store.leaf(leaf));
            let error = match self.in_time(deadline, read).await? {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            let lost = lost_by(self.store(), piece, &error);
            if lost.is_empty() {
                return Err(DiskError::failed(SwarmDiskError::Store(Arc::new(error))));
            }
            self.node.request(Request::Lost(lost));
            let mut want = self.want(guest, piece, deadline).await?;
            if let Answer::Unusable(why) = self.in_time(deadline, want.answer()).await?? {
                return Err(DiskError::failed(SwarmDiskError::Unusable(why)));
            }
        }
        Err(DiskError::failed(SwarmDiskError::Rotting { piece: piece.get() }))
    }

    /// The leaf page; nothing if nobody has it to give soon.
    async fn leaf_soon(&self, guest: GuestId, leaf: LeafIndex) -> Result<Option<Arc<LeafPage>>, DiskError> {
        let deadline = self.deadline().min(Instant::now() + EXTENTS_TIME);
        match self.leaf(guest, leaf, deadline).await {
            Ok(page) => Ok(Some(page)),
            Err(DiskError::TimedOut(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The chunks that overlap `offset..offset + bytes`; `bytes` is not 0 and the range within the image.
    fn range(&self, offset: u64, bytes: u64) -> RangeInclusive<u32> {
        let shift = self.store().geometry().chunk_shift();
        (offset >> shift) as u32..=((offset + bytes - 1) >> shift) as u32
    }
}

impl Disk for SwarmDisk {
    fn image_bytes(&self) -> u64 {
        self.store().geometry().image_bytes()
    }

    fn preferred_bytes(&self) -> u32 {
        self.store().geometry().chunk_bytes()
    }

    async fn read(&self, guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        check_range(self.image_bytes(), offset, bytes.into())?;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        if let Some(ready) = self.read_ready(guest, offset, bytes) {
            return Ok(ready);
        }
        let geometry = self.store().geometry();
        let chunks: Vec<ChunkIndex> =
            self.range(offset, bytes.into()).filter_map(|index| geometry.chunk(index)).collect();
        let data = self.chunks(guest, chunks.clone(), self.deadline()).await?;
        let end = offset + u64::from(bytes);
        let mut segments = Vec::with_capacity(data.len());
        for (chunk, data) in chunks.into_iter().zip(data) {
            let start = geometry.chunk_offset(chunk);
            let from = offset.saturating_sub(start) as usize;
            let to = (end - start).min(data.len() as u64) as usize;
            if crate::store::is_zeros(&data) {
                segments.extend(zero_segments(to - from));
            } else {
                segments.push(data.slice(from..to));
            }
        }
        Ok(segments)
    }

    fn read_ready(&self, guest: GuestId, offset: u64, bytes: u32) -> Option<Vec<Bytes>> {
        check_range(self.image_bytes(), offset, bytes.into()).ok()?;
        if bytes == 0 {
            return Some(Vec::new());
        }
        let ready = self.store().bytes_ready(offset, bytes)?;
        let geometry = self.store().geometry();
        let chunks = self.range(offset, bytes.into()).filter_map(|index| geometry.chunk(index));
        self.touches.add_all(guest, chunks);
        if !ready.iter().any(crate::store::is_zeros) {
            return Some(ready);
        }
        let mut segments = Vec::with_capacity(ready.len());
        for data in ready {
            if crate::store::is_zeros(&data) {
                segments.extend(zero_segments(data.len()));
            } else {
                segments.push(data);
            }
        }
        Some(segments)
    }

    async fn extents(&self, guest: GuestId, offset: u64, bytes: u64, max: usize) -> Result<Vec<Extent>, DiskError> {
        check_range(self.image_bytes(), offset, bytes)?;
        let mut extents = Vec::new();
        if bytes == 0 || max == 0 {
            return Ok(extents);
        }
        let geometry = self.store().geometry();
        let chunks = self.range(offset, bytes);
        let mut page: Option<Arc<LeafPage>> = None;
        let (mut current, mut leaves) = (None, 0);
        for chunk in chunks.filter_map(|index| geometry.chunk(index)) {
            let leaf = geometry.leaf_of(chunk);
            if current != Some(leaf) {
                // The first page is worth a wait, the others are looked at as far as they are here.
                if leaves == LEAVES_MAX || (leaves > 0 && !self.store().holds(geometry.leaf_piece(leaf))) {
                    break;
                }
                (current, leaves) = (Some(leaf), leaves + 1);
                page = self.leaf_soon(guest, leaf).await?;
            }
            let is_zero = page.as_ref().and_then(|page| page.entry(chunk)).is_some_and(|entry| entry.is_zero());
            let start = geometry.chunk_offset(chunk).max(offset);
            let end = (geometry.chunk_offset(chunk) + u64::from(geometry.chunk_len(chunk))).min(offset + bytes);
            let kind = if is_zero { ExtentKind::Zero } else { ExtentKind::Data };
            push_extent(&mut extents, Extent { bytes: end - start, kind });
            if extents.len() > max {
                extents.pop();
                break;
            }
        }
        Ok(extents)
    }
}

/// What reading a held chunk came to.
type HeldRead = Option<Result<Bytes, StoreError>>;

/// As many entries as there were chunks, or else what others have read would be taken for these.
fn all_failed(error: StoreError, count: usize) -> Vec<HeldRead> {
    let mut failed = vec![Some(Err(error))];
    failed.resize_with(count, || None);
    failed
}

/// One more, until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Where a chunk's bytes come from.
enum Source {
    Data(Bytes),
    Held,
    Wanted(Want),
}

/// A piece that was asked for; dropped without an answer, it is given up.
struct Want {
    node: NodeHandle,
    guest: GuestId,
    piece: PieceIndex,
    receiver: Option<oneshot::Receiver<Answer>>,
}

impl Want {
    /// Waits for the answer. Dropped before it is there, it may be called again.
    async fn answer(&mut self) -> Result<Answer, DiskError> {
        let Some(receiver) = &mut self.receiver else { return Ok(Answer::Held) };
        let answer = receiver.await;
        self.receiver = None;
        answer.map_err(|_| DiskError::failed(SwarmDiskError::Ended))
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        if let Some(mut receiver) = self.receiver.take() {
            // Closed first: the engine's task forgets the waiters that it finds closed.
            receiver.close();
            self.node.request(Request::Release { guest: self.guest, piece: self.piece });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_failed_leaves_no_chunk_without_an_entry() {
        let source = std::io::Error::other("it panicked");
        let failed = all_failed(StoreError::Io { action: "read", path: "x".into(), source }, CHUNKS_PER_THREAD);
        assert_eq!(failed.len(), CHUNKS_PER_THREAD);
        assert!(matches!(failed[0], Some(Err(_))) && failed[1..].iter().all(Option::is_none));
    }
}
