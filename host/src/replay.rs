//! Replays a trace against a disk, as the guest that was recorded would have read it.
//!
//! *Purpose*: measures what a disk costs a guest, again and again, without the guest; [`swarmdisk_common::guest`] is the
//! model of it. *Units*: microseconds, bytes.
//!
//! *How it waits*: tokio's timer is good to a millisecond, think times are shorter. So the replay has a thread of its own
//! that sleeps in the operating system (some 60 µs late on Linux, and idle meanwhile: spinning would take the processor
//! from the disk under test). By what a sleep was late, the next is shorter, so that the times add up.

use crate::disk::{Disk, DiskError, FileDisk, FileDiskError};
use crate::file::read_exact_at;
use crate::latency::{LatencyMicros, LatencyRecorder};
use crate::nbd::address::AddressError;
use crate::nbd::client::ClientError;
use crate::nbd::{NbdClient, NbdUri};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use swarmdisk_common::guest::{Plan, PlanError, Speed};
use swarmdisk_common::trace::{Request, Trace};
use swarmdisk_common::units;
use swarmdisk_core::ids::GuestId;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Duration, Instant};

/// By at most this much is a sleep shortened because the one before was late: a guest whose host was busy for longer has
/// lost that time.
const CARRY_MAX: Duration = Duration::from_millis(1);
/// Reads whose bytes wait to be compared.
const VERIFY_QUEUE: usize = 256;

/// How to replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Think times are divided by this: positive and finite.
    pub speed: f64,
    /// Whether writes are replayed too; no disk can do that yet.
    pub writes: bool,
    /// A raw image that every byte read is compared with.
    pub verify: Option<PathBuf>,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { speed: 1.0, writes: false, verify: None }
    }
}

/// What a replay cost.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// From the first read's start to the last one's answer.
    pub wall_micros: u64,
    /// The think times alone.
    pub ideal_micros: u64,
    /// The difference of the two: what the disk cost.
    pub stall_micros: u64,
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How long the reads took.
    pub read_latency_micros: LatencyMicros,
    /// Reads whose bytes were not those of the image compared with.
    pub mismatches: u64,
}

/// Why a trace could not be replayed to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Asked for writes.
    #[error("this disk is read-only; leave out --writes")]
    ReadOnly,
    /// The speed makes no sense.
    #[error("a speed of {0} is none; pass --speed with a positive number, as in 2 for half of the think time")]
    BadSpeed(f64),
    /// The trace is not of this disk.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The disk failed; the replay ended there.
    #[error("the read of {bytes} bytes at {offset} failed: {source}")]
    Read {
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u32,
        /// Why.
        source: DiskError,
    },
    /// The image to compare with could not be read.
    #[error("cannot read {} to compare with: {source}; pass the raw image that was packed", path.display())]
    Verify {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that replays ended unexpectedly.
    #[error("the replay broke off: {0}; report this as a bug")]
    Broken(io::Error),
    /// What was given as disk is no URI.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The NBD server could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file could not be opened.
    #[error(transparent)]
    File(#[from] FileDiskError),
}

/// Replays against `target`: an NBD URI, or the path of a raw image or block device.
///
/// # Errors
/// [`ReplayError`]: the target cannot be opened, or as [`replay`].
pub async fn replay_target(trace: &Trace, target: &str, options: &ReplayOptions) -> Result<ReplayReport, ReplayError> {
    if !target.contains("://") {
        return replay(trace, Arc::new(FileDisk::open(target)?), options).await;
    }
    let uri: NbdUri = target.parse()?;
    let client = Arc::new(NbdClient::connect(&uri).await?);
    let report = replay(trace, Arc::clone(&client), options).await;
    if let Some(client) = Arc::into_inner(client) {
        client.disconnect().await;
    }
    report
}

/// Replays against an open disk.
///
/// # Errors
/// [`ReplayError`]: the options or the trace do not fit the disk, a read failed, or the image to compare with could not
/// be read.
pub async fn replay<D: Disk>(
    trace: &Trace,
    disk: Arc<D>,
    options: &ReplayOptions,
) -> Result<ReplayReport, ReplayError> {
    if options.writes {
        return Err(ReplayError::ReadOnly);
    }
    let speed = Speed::new(options.speed).ok_or(ReplayError::BadSpeed(options.speed))?;
    let plan = Plan::new(trace, disk.image_bytes())?;
    let verifier = options.verify.as_deref().map(Verifier::start).transpose()?;
    let checks = verifier.as_ref().map(|verifier| verifier.queue.clone());
    let runtime = Handle::current();
    let ran = spawn_blocking(move || runtime.block_on(run(&plan, speed, disk, ThreadSleep, checks))).await;
    let mut report = ran.map_err(|error| ReplayError::Broken(error.into()))??;
    if let Some(verifier) = verifier {
        report.mismatches = verifier.finish().await?;
    }
    Ok(report)
}

/// How the guest's thinking passes: in tests, on a virtual clock.
trait Sleep {
    fn sleep(&self, span: Duration) -> impl Future<Output = ()>;
}

/// Blocks the thread, which is the replay's own.
struct ThreadSleep;

impl Sleep for ThreadSleep {
    async fn sleep(&self, span: Duration) {
        thread::sleep(span);
    }
}

type Check = (u64, Vec<Bytes>);

async fn run<D: Disk>(
    plan: &Plan,
    speed: Speed,
    disk: Arc<D>,
    sleep: impl Sleep,
    checks: Option<SyncSender<Check>>,
) -> Result<ReplayReport, ReplayError> {
    let latency = Arc::new(LatencyRecorder::new());
    let start = Instant::now();
    let mut answered = start;
    let mut late = Duration::ZERO;
    let mut ideal = Duration::ZERO;
    for (index, group) in plan.groups().enumerate() {
        let think = Duration::from_micros(plan.think_micros(index, speed));
        ideal = ideal.saturating_add(think);
        let due = answered + think.saturating_sub(late);
        late = late.saturating_sub(think);
        let now = Instant::now();
        if due > now {
            sleep.sleep(due - now).await;
        }
        late = (late + due.elapsed()).min(CARRY_MAX);
        let done = read_group(group, &disk, &latency).await?;
        answered = Instant::now();
        if let Some(checks) = &checks {
            // Should the queue be full, the think time that follows is counted from before the wait.
            done.into_iter().for_each(|check| drop(checks.send(check)));
        }
    }
    let wall = answered - start;
    Ok(ReplayReport {
        wall_micros: wall.as_micros() as u64,
        ideal_micros: ideal.as_micros() as u64,
        stall_micros: wall.saturating_sub(ideal).as_micros() as u64,
        reads: plan.reads().len() as u64,
        bytes: plan.reads().iter().map(|read| u64::from(read.bytes)).sum(),
        read_latency_micros: latency.summary(),
        mismatches: 0,
    })
}

/// Reads a group, all at once; done when the last is answered.
async fn read_group<D: Disk>(
    group: &[Request],
    disk: &Arc<D>,
    latency: &Arc<LatencyRecorder>,
) -> Result<Vec<Check>, ReplayError> {
    if let [single] = group {
        return Ok(vec![read_one(*single, Arc::clone(disk), Arc::clone(latency)).await?]);
    }
    let mut reads = JoinSet::new();
    for read in group {
        reads.spawn(read_one(*read, Arc::clone(disk), Arc::clone(latency)));
    }
    let mut done = Vec::with_capacity(group.len());
    while let Some(read) = reads.join_next().await {
        done.push(read.map_err(|error| ReplayError::Broken(error.into()))??);
    }
    Ok(done)
}

async fn read_one<D: Disk>(read: Request, disk: Arc<D>, latency: Arc<LatencyRecorder>) -> Result<Check, ReplayError> {
    let Request { offset, bytes, .. } = read;
    let start = Instant::now();
    let segments = disk.read(GuestId(0), offset, bytes).await;
    let segments = segments.map_err(|source| ReplayError::Read { offset, bytes, source })?;
    latency.record(start.elapsed());
    Ok((offset, segments))
}

/// Compares what was read with an image, on a thread beside the replay.
struct Verifier {
    queue: SyncSender<Check>,
    thread: thread::JoinHandle<io::Result<u64>>,
    path: PathBuf,
}

impl Verifier {
    fn start(path: &Path) -> Result<Self, ReplayError> {
        let fail = |source| ReplayError::Verify { path: path.to_owned(), source };
        let image = File::open(path).map_err(fail)?;
        let (queue, checks) = sync_channel::<Check>(VERIFY_QUEUE);
        let compare = move || {
            let mut expected = Vec::new();
            let mut mismatches = 0;
            for (mut offset, segments) in checks {
                let mut same = true;
                for segment in segments {
                    expected.resize(segment.len(), 0);
                    read_exact_at(&image, &mut expected, offset)?;
                    same &= segment == expected;
                    offset += segment.len() as u64;
                }
                mismatches += u64::from(!same);
            }
            Ok(mismatches)
        };
        let thread = thread::Builder::new().name("verify".into()).spawn(compare).map_err(ReplayError::Broken)?;
        Ok(Self { queue, thread, path: path.to_owned() })
    }

    async fn finish(self) -> Result<u64, ReplayError> {
        let Self { queue, thread, path } = self;
        drop(queue);
        let joined = spawn_blocking(move || thread.join()).await.map_err(|error| ReplayError::Broken(error.into()))?;
        let compared = joined.unwrap_or_else(|_| Err(io::Error::other("the comparison panicked")));
        compared.map_err(|source| ReplayError::Verify { path, source })
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (micros, latency) = (units::Micros, self.read_latency_micros);
        let (wall, ideal, stall) = (micros(self.wall_micros), micros(self.ideal_micros), micros(self.stall_micros));
        writeln!(f, "replayed     {} reads, {}", self.reads, units::Bytes(self.bytes))?;
        writeln!(f, "took         {wall}: {ideal} thinking, {stall} waiting for the disk")?;
        let (p50, p99, max) = (micros(latency.p50), micros(latency.p99), micros(latency.max));
        writeln!(f, "latency      half within {p50}, 99 % within {p99}, all within {max}")?;
        write!(f, "mismatches   {}", self.mismatches)
    }
}

#[cfg(test)]
mod tests;
