//! Runs the points that have no row yet, on several threads.
//!
//! *Invariants*: a row is appended to `FILE.part` whole and at once when its point has ended; `FILE` itself is written whole,
//! in grid order, when all points of the shard are there. One process writes a file at a time.

use super::table::{Table, header, line, row};
use super::{Plan, Shard, SweepError};
use crate::model::Setup;
use crate::outcome;
use csv::StringRecord;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use swarmdisk_common::file::write_whole;

/// As the main thread has: what runs there must run here.
const STACK_BYTES: usize = 8 << 20;
/// How often somebody who watches is told that nothing has happened.
const TICK: Duration = Duration::from_millis(500);

/// How to run a sweep.
#[derive(Debug, Copy, Clone)]
pub struct Options<'a> {
    /// The file to be.
    pub out: &'a Path,
    /// Runs at a time, at least 1.
    pub threads: usize,
    /// Which points.
    pub shard: Shard,
    /// Drops the rows that are there.
    pub restart: bool,
    /// Set by somebody who wants it to end.
    pub interrupt: &'a AtomicBool,
}

/// How far it has come.
#[derive(Debug, Copy, Clone)]
pub struct Status<'a> {
    /// Points of the shard.
    pub all: usize,
    /// Those that had a row before.
    pub kept: usize,
    /// Those that have one now.
    pub done: usize,
    /// Those under way.
    pub running: &'a BTreeSet<u32>,
}

/// A sweep at its end.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Report {
    /// Points of the shard.
    pub all: usize,
    /// Those that had a row before.
    pub kept: usize,
    /// Points of all shards.
    pub point_count: usize,
}

/// Runs what is missing and writes the file. `watch` is called when a point starts or ends, and twice a second.
///
/// # Errors
/// [`SweepError`]; rows that were written stay.
pub fn run(plan: &Plan, options: &Options<'_>, watch: impl FnMut(&Status<'_>)) -> Result<Report, SweepError> {
    let ours: Vec<u32> = (1..=plan.point_count() as u32).filter(|number| options.shard.has(*number)).collect();
    let is_stopped = || options.interrupt.load(Relaxed);
    let mut part = Part::open(options.out)?;
    if options.restart {
        plan.check(&ours, is_stopped)?;
        part.restart(options.out)?;
    }
    let known = Table::read(options.out)?;
    let mut table = part.take_up(plan, known, options.out)?;
    let (kept, missing): (Vec<u32>, Vec<u32>) = ours.into_iter().partition(|number| table.rows.contains_key(number));
    plan.check(&missing, is_stopped)?;
    let (kept, all) = (kept.len(), kept.len() + missing.len());
    let mut sweep = Running { plan, part: &mut part, table: &mut table, all, kept, done: kept, watch };
    if !missing.is_empty() {
        sweep.run(&missing, options)?;
    }
    write_whole(options.out, |file| table.write(file)).map_err(|source| wrote(options.out, source))?;
    part.finish();
    Ok(Report { all, kept, point_count: plan.point_count() })
}

fn part_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn wrote(path: &Path, source: io::Error) -> SweepError {
    SweepError::Write { path: path.to_owned(), source }
}

/// Rows as they come. Dropped empty, it is removed.
struct Part {
    path: PathBuf,
    file: File,
    good_bytes: u64,
}

impl Part {
    /// Opens it, ours alone.
    fn open(out: &Path) -> Result<Self, SweepError> {
        let path = part_of(out);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| wrote(&path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SweepError::Busy { path }),
            // Some network file systems know no locks: then the user has to see to it.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(wrote(&path, source)),
        }
        // Whatever is in it was there before us.
        let good_bytes = file.metadata().map_err(|source| wrote(&path, source))?.len();
        Ok(Self { path, file, good_bytes })
    }

    /// Drops the rows that are there; nothing but what a sweep has written.
    fn restart(&mut self, out: &Path) -> Result<(), SweepError> {
        for path in [out, &self.path] {
            match Table::read(path) {
                Ok(_) | Err(SweepError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match fs::remove_file(out) {
            Err(source) if source.kind() != ErrorKind::NotFound => return Err(wrote(out, source)),
            _ => {}
        }
        self.good_bytes = 0;
        self.cut().map_err(|source| wrote(&self.path, source))
    }

    /// The rows that it and the file to be have; what is torn is cut off.
    fn take_up(&mut self, plan: &Plan, known: Table, out: &Path) -> Result<Table, SweepError> {
        let table = Table::read(&self.path)?;
        let header = header(&plan.keys);
        let sweep = (plan.point_count() as u32, plan.fingerprint.clone());
        for (path, table) in [(out, &known), (&self.path, &table)] {
            let is_ours = table.header.as_ref().is_none_or(|known| *known == header)
                && table.sweep.as_ref().is_none_or(|known| *known == sweep);
            if !is_ours {
                return Err(SweepError::Changed { path: path.to_owned() });
            }
        }
        self.good_bytes = table.good_bytes;
        self.cut().map_err(|source| wrote(&self.path, source))?;
        if table.header.is_none() {
            self.append(&header)?;
        }
        let mut all = Table { header: Some(header), ..known };
        all.join(table).map_err(|(point, column)| SweepError::Disagreement {
            path: self.path.clone(),
            point,
            column,
        })?;
        Ok(all)
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.good_bytes)?;
        self.file.seek(SeekFrom::Start(self.good_bytes)).map(drop)
    }

    /// Writes a row; if it cannot be written whole, none of it stays.
    fn append(&mut self, row: &StringRecord) -> Result<(), SweepError> {
        let written = line(row).and_then(|line| self.file.write_all(&line).map(|()| line.len()));
        match written {
            Ok(bytes) => self.good_bytes += bytes as u64,
            Err(source) => {
                // If this fails too, the next start cuts it.
                let _ = self.cut();
                return Err(wrote(&self.path, source));
            }
        }
        Ok(())
    }

    /// All that it has is in the file that was to be.
    fn finish(mut self) {
        self.good_bytes = 0;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.good_bytes == 0 {
            // Left over, it is taken up by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a thread tells.
enum News {
    Started(u32),
    Ended(u32, StringRecord),
    Failed(u32, String),
}

/// Runs under way.
struct Running<'a, F> {
    plan: &'a Plan,
    part: &'a mut Part,
    table: &'a mut Table,
    all: usize,
    kept: usize,
    done: usize,
    watch: F,
}

impl<F: FnMut(&Status<'_>)> Running<'_, F> {
    fn run(&mut self, points: &[u32], options: &Options<'_>) -> Result<(), SweepError> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let is_stopped = || stop.load(Relaxed) || options.interrupt.load(Relaxed);
        let plan = self.plan;
        let failures = thread::scope(|scope| {
            let (sender, receiver) = channel();
            for _ in 0..options.threads.clamp(1, points.len()) {
                let (sender, next, is_stopped) = (sender.clone(), &next, &is_stopped);
                let work = move || work(plan, points, next, is_stopped, &sender);
                let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
                if let Err(error) = spawned {
                    stop.store(true, Relaxed);
                    return Err(SweepError::Thread(error));
                }
            }
            drop(sender);
            let collected = self.collect(&receiver);
            stop.store(true, Relaxed);
            collected
        })?;
        let path = self.part.path.clone();
        if let Some((first, message)) = failures.first() {
            let first = format!("{}: {message}", self.plan.label(*first));
            return Err(SweepError::Failed { count: failures.len(), first, path });
        }
        if self.done < self.all {
            return Err(SweepError::Interrupted { done: self.done, all: self.all, path });
        }
        Ok(())
    }

    /// Writes rows until no thread is left; gives the points that have failed.
    fn collect(&mut self, receiver: &Receiver<News>) -> Result<Vec<(u32, String)>, SweepError> {
        let mut running = BTreeSet::new();
        let mut failures = Vec::new();
        loop {
            let status = Status { all: self.all, kept: self.kept, done: self.done, running: &running };
            (self.watch)(&status);
            match receiver.recv_timeout(TICK) {
                Ok(News::Started(number)) => {
                    running.insert(number);
                }
                Ok(News::Ended(number, row)) => {
                    running.remove(&number);
                    self.part.append(&row)?;
                    self.table.rows.insert(number, row);
                    self.done += 1;
                }
                Ok(News::Failed(number, message)) => {
                    running.remove(&number);
                    failures.push((number, message));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(failures),
            }
        }
    }
}

/// Runs one point after another until none is left.
fn work(plan: &Plan, points: &[u32], next: &AtomicUsize, is_stopped: &impl Fn() -> bool, sender: &Sender<News>) {
    while !is_stopped() {
        let Some(number) = points.get(next.fetch_add(1, Relaxed)).copied() else { return };
        // Whoever does not listen has stopped us, too.
        let _ = sender.send(News::Started(number));
        let point = plan.point(number);
        let started = Instant::now();
        // A panic is one point's, not that of the others, which may have run for days.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let setup = Setup::new(point.scenario.clone(), point.seed).map_err(|error| error.to_string())?;
            Ok(outcome::run(&setup, |_| !is_stopped()))
        }));
        let news = match ended {
            // Cut short, it is no result.
            _ if is_stopped() => return,
            Ok(Ok(outcome)) => News::Ended(number, row(plan, &point, &outcome, started.elapsed())),
            Ok(Err(message)) => News::Failed(number, message),
            Err(_) => News::Failed(number, "it panicked; please report this".into()),
        };
        let _ = sender.send(news);
    }
}
