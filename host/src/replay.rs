//! Replays a trace against a disk, as the guest that was recorded would have read it, and written to it if that is asked for.
//!
//! *Purpose*: measures what a disk costs a guest, again and again, without the guest; [`swarmdisk_common::guest`] is the
//! model of it. What is written is made up (see `written`), as traces have no contents, and compared when it is read
//! again. *Units*: microseconds, bytes.
//!
//! *How it waits*: tokio's timer is good to a millisecond, think times are shorter. So the replay has a thread of its own
//! that sleeps in the operating system (some 60 µs late on Linux, and idle meanwhile: spinning would take the processor
//! from the disk under test). By what a sleep was late, the next is shorter, so that the times add up.

use crate::disk::{Disk, DiskError, FileDisk, FileDiskError};
use crate::latency::{LatencyMicros, LatencyRecorder};
use crate::nbd::address::AddressError;
use crate::nbd::client::ClientError;
use crate::nbd::{NbdClient, NbdUri};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use swarmdisk_common::guest::{Plan, PlanError, Speed};
use swarmdisk_common::trace::{Op, Request, Trace};
use swarmdisk_common::units;
use swarmdisk_core::ids::GuestId;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Duration, Instant};
use verify::{Check, Verifier};

mod verify;
mod written;

/// By at most this much is a sleep shortened because the one before was late: a guest whose host was busy for longer has
/// lost that time.
const CARRY_MAX: Duration = Duration::from_millis(1);

/// How to replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Think times are divided by this: positive and finite.
    pub speed: f64,
    /// Whether writes are replayed too; the disk must be writable, and what was written stays in it.
    pub writes: bool,
    /// A raw image that every byte read is compared with, but for those that were written before.
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
    /// From the first request's start to the last one's answer.
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
    /// Reads whose bytes were neither those of the image compared with nor those written before.
    pub mismatches: u64,
    /// Writes.
    #[serde(default)]
    pub writes: u64,
    /// Bytes written.
    #[serde(default)]
    pub written_bytes: u64,
}

/// Why a trace could not be replayed to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Asked for writes.
    #[error("this disk is read-only; attach it with --overlay and give its URI, or leave out --writes")]
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
    /// The disk failed; the replay ended there.
    #[error("the write of {bytes} bytes at {offset} failed: {source}")]
    Write {
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u32,
        /// Why.
        source: DiskError,
    },
    /// The disk failed at the end.
    #[error("what was written could not be made durable: {0}")]
    Flush(DiskError),
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
/// [`ReplayError`]: the options or the trace do not fit the disk, it failed, or the image to compare with could not
/// be read.
pub async fn replay<D: Disk>(
    trace: &Trace,
    disk: Arc<D>,
    options: &ReplayOptions,
) -> Result<ReplayReport, ReplayError> {
    if options.writes && !disk.is_writable() {
        return Err(ReplayError::ReadOnly);
    }
    let speed = Speed::new(options.speed).ok_or(ReplayError::BadSpeed(options.speed))?;
    let plan = if options.writes { Plan::with_writes } else { Plan::new }(trace, disk.image_bytes())?;
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
    let (mut late, mut first) = (Duration::ZERO, 0);
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
        let done = ask_group(group, first, &disk, &latency).await?;
        first += group.len() as u64;
        answered = Instant::now();
        if let Some(checks) = &checks {
            // Should the queue be full, the think time that follows is counted from before the wait.
            done.into_iter().for_each(|check| drop(checks.send(check)));
        }
    }
    let wall = answered - start;
    let all = |op| plan.requests().iter().filter(move |request| request.op == op);
    let count = |op| all(op).count() as u64;
    let bytes = |op| all(op).map(|request| u64::from(request.bytes)).sum();
    if count(Op::Write) > 0 {
        disk.flush().await.map_err(ReplayError::Flush)?;
    }
    Ok(ReplayReport {
        wall_micros: wall.as_micros() as u64,
        ideal_micros: ideal.as_micros() as u64,
        stall_micros: wall.saturating_sub(ideal).as_micros() as u64,
        reads: count(Op::Read),
        bytes: bytes(Op::Read),
        read_latency_micros: latency.summary(),
        mismatches: 0,
        writes: count(Op::Write),
        written_bytes: bytes(Op::Write),
    })
}

/// Asks for a group, all at once; done when the last is answered. `first` is the number of its first request.
async fn ask_group<D: Disk>(
    group: &[Request],
    first: u64,
    disk: &Arc<D>,
    latency: &Arc<LatencyRecorder>,
) -> Result<Vec<Check>, ReplayError> {
    if let [single] = group {
        return Ok(vec![ask_one(*single, first, Arc::clone(disk), Arc::clone(latency)).await?]);
    }
    let mut asked = JoinSet::new();
    for (number, request) in (first..).zip(group) {
        asked.spawn(ask_one(*request, number, Arc::clone(disk), Arc::clone(latency)));
    }
    let mut done = Vec::with_capacity(group.len());
    while let Some(check) = asked.join_next().await {
        done.push(check.map_err(|error| ReplayError::Broken(error.into()))??);
    }
    Ok(done)
}

async fn ask_one<D: Disk>(
    request: Request,
    number: u64,
    disk: Arc<D>,
    latency: Arc<LatencyRecorder>,
) -> Result<Check, ReplayError> {
    let Request { op, offset, bytes, .. } = request;
    if op == Op::Write {
        let done = disk.write(GuestId(0), offset, written::content(number, offset, bytes)).await;
        done.map_err(|source| ReplayError::Write { offset, bytes, source })?;
        return Ok(Check::Written { number, offset, bytes });
    }
    let start = Instant::now();
    let segments = disk.read(GuestId(0), offset, bytes).await;
    let segments = segments.map_err(|source| ReplayError::Read { offset, bytes, source })?;
    latency.record(start.elapsed());
    Ok(Check::Read { offset, segments })
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (micros, latency) = (units::Micros, self.read_latency_micros);
        let (wall, ideal, stall) = (micros(self.wall_micros), micros(self.ideal_micros), micros(self.stall_micros));
        writeln!(f, "replayed     {} reads, {}", self.reads, units::Bytes(self.bytes))?;
        if self.writes > 0 {
            writeln!(f, "wrote        {} writes, {}", self.writes, units::Bytes(self.written_bytes))?;
        }
        writeln!(f, "took         {wall}: {ideal} thinking, {stall} waiting for the disk")?;
        let (p50, p99, max) = (micros(latency.p50), micros(latency.p99), micros(latency.max));
        writeln!(f, "latency      half within {p50}, 99 % within {p99}, all within {max}")?;
        write!(f, "mismatches   {}", self.mismatches)
    }
}

#[cfg(test)]
mod tests;
