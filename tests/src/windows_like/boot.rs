//! What a made-up boot asks of a Windows-like volume, and when.
//!
//! *The order*: the loader reads a piece at a time; the kernel reads the plan of past boots, `$MFT` and the directory; then,
//! stage after stage (drivers, session, services, logon, shell), a burst reads ahead what the plan says, in the order of files
//! and offsets, many requests in flight, and the guest faults in what the plan did not know, reads hives, thinks, and
//! writes: logs of the file system and of events, records of `$MFT`, the page file.
//! *Invariants*: a volume, a seed and the number of a boot give the same trace; requests are whole sectors within the volume,
//! writes none but of what Windows writes. *What differs from boot to boot*: which optional files are read, a hundredth
//! of the plan, some faults, all times. *Units*: microseconds, bytes.

use swarmdisk_common::trace::{Op, Request, Trace};

use super::files::{Kind, MadeUp};
use super::volume::{CLUSTER_BYTES, Laid, Layout, Span};
use crate::images::Numbers;

/// Stages after the loader: drivers, session, services, logon, shell.
const STAGES: u64 = 5;
/// What the plan covers of a file is decided by runs of so many bytes.
const RUN_BYTES: u64 = 64 << 10;
/// The longest request.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// What the loader reads at a time.
const LOADER_BYTES: u64 = 64 << 10;
/// Reads ahead that lie closer than this are one.
const GAP_BYTES: u64 = 16 << 10;
/// What is written to the page file at a time, and how often in a stage.
const PAGED_BYTES: u64 = 256 << 10;
const PAGED_PER_STAGE: u64 = 12;
/// For so many files that a stage reads something else is written once.
const FILES_PER_WRITE: usize = 3;

/// The boot of this number.
///
/// # Panics
/// When a file is not on the volume.
pub fn trace(layout: &Layout, files: &[MadeUp], seed: u64, boot: u64) -> Trace {
    let mut guest = Guest::new(layout, files, seed, boot);
    guest.load();
    guest.start_kernel();
    for stage in 0..STAGES {
        guest.run_stage(stage);
    }
    guest.requests.sort_by_key(|request| request.micros);
    Trace { requests: guest.requests }
}

/// A file of the boot, and where it lies.
#[derive(Clone, Copy)]
struct Placed<'a> {
    file: &'a MadeUp,
    laid: &'a Laid,
}

/// The guest as it goes on.
struct Guest<'a> {
    layout: &'a Layout,
    files: Vec<Placed<'a>>,
    micros: u64,
    requests: Vec<Request>,
    numbers: Numbers,
    /// How far the file system's log has been written.
    logged: u64,
    /// How far the page file has.
    paged: u64,
}

impl<'a> Guest<'a> {
    fn new(layout: &'a Layout, files: &'a [MadeUp], seed: u64, boot: u64) -> Self {
        let files = files.iter().map(|file| Placed { file, laid: layout.of(&file.name) }).collect();
        let numbers = Numbers(Numbers(seed ^ 0x626f_6f74).draw().wrapping_add(boot));
        Self { layout, files, micros: 0, requests: Vec::new(), numbers, logged: 0, paged: 0 }
    }

    /// The firmware's interface takes one request at a time.
    fn load(&mut self) {
        self.alone(Op::Read, Span { offset: 0, bytes: 512 }, 400);
        self.alone(Op::Read, Span { offset: 0, bytes: 8192 }, 400);
        for name in ["$MFT", "$Volume"] {
            self.alone(Op::Read, cluster(self.layout.of(name).record.offset), 300);
        }
        for kind in [Kind::Loader, Kind::Kernel, Kind::SystemHive, Kind::BootDriver] {
            for placed in self.of(kind) {
                // The directory is a tree; the way to a file goes through its top and one of its leaves.
                self.look_up(placed);
                for part in parts(&placed.laid.spans, LOADER_BYTES) {
                    self.alone(Op::Read, part, 900);
                }
                // The module is checked and mapped.
                self.think(2_000, 12_000);
            }
        }
        self.think(400_000, 700_000);
    }

    fn start_kernel(&mut self) {
        for placed in self.of(Kind::Plan) {
            self.look_up(placed);
            for part in parts(&placed.laid.spans, 4 * LOADER_BYTES) {
                self.alone(Op::Read, part, 700);
            }
        }
        let records = self.files.iter().filter(|placed| placed.file.kind != Kind::Store);
        let mut records: Vec<Span> = records.map(|placed| cluster(placed.laid.record.offset)).collect();
        records.sort_by_key(|span| span.offset);
        self.together(&merged(&records, RUN_BYTES));
        let root = self.layout.root.clone();
        self.together(&parts(&root, RUN_BYTES));
        for name in ["$Bitmap", "$Secure", "$UpCase", "$LogFile"] {
            let Some(laid) = self.layout.files.get(name) else { continue };
            // Of the log its restart area; of the others the beginning.
            for part in parts(&laid.spans, LOADER_BYTES).into_iter().take(2) {
                self.alone(Op::Read, part, 600);
            }
        }
        self.think(300_000, 600_000);
    }

    fn run_stage(&mut self, stage: u64) {
        let files: Vec<Placed<'a>> =
            self.files.iter().copied().filter(|placed| stage_of(placed.file) == Some(stage)).collect();
        let files: Vec<Placed<'a>> = files.into_iter().filter(|placed| self.is_read(placed.file)).collect();
        let mut ahead = Vec::new();
        for placed in &files {
            let planned: Vec<Span> = planned(placed).into_iter().filter(|_| self.numbers.below(100) > 0).collect();
            // Within a file in order; the files in that of the directory, which is not that of their places.
            ahead.extend(merged(&planned, REQUEST_BYTES_MAX));
        }
        self.read_ahead(&ahead);
        let mut writes = self.writes(files.len() / FILES_PER_WRITE);
        let per_file = writes.len() / files.len().max(1) + 1;
        for placed in &files {
            for fault in self.faults(placed) {
                self.alone(Op::Read, fault, 700);
                self.think(100, 3_000);
            }
            let late: Vec<Span> = writes.drain(..per_file.min(writes.len())).collect();
            self.write_together(&late);
            self.think(2_000, 14_000);
        }
        self.write_together(&writes);
        self.page_in();
        self.think(300_000, 900_000);
    }

    /// A file that not each boot reads: one in 25 is, by half of them.
    fn is_read(&mut self, file: &MadeUp) -> bool {
        let is_optional = file.kind == Kind::Library && file.seed.is_multiple_of(25);
        !is_optional || self.numbers.below(2) == 0
    }

    /// What a burst reads ahead, a few dozen at a time, with what a processor needs in between.
    fn read_ahead(&mut self, spans: &[Span]) {
        let mut rest = spans;
        while !rest.is_empty() {
            let count = rest.len().min(12 + self.numbers.below(21) as usize);
            let (now, later) = rest.split_at(count);
            self.together(now);
            self.think(4_000, 40_000);
            rest = later;
        }
    }

    /// What the plan did not know: pages near its own that each boot faults in, and a few that this one does.
    fn faults(&mut self, placed: &Placed<'_>) -> Vec<Span> {
        let pages = placed.file.bytes / CLUSTER_BYTES;
        if pages < 8 {
            return Vec::new();
        }
        let mut usual = Numbers(placed.file.seed ^ 0x6661_756c);
        let count = usual.below(4);
        let mut at: Vec<u64> = (0..count).map(|_| usual.below(pages)).collect();
        at.retain(|_| self.numbers.below(100) < 85);
        if self.numbers.below(100) < 8 {
            at.push(self.numbers.below(pages));
        }
        // A fault takes up to eight pages from the page on.
        let fault = |page| {
            let bytes = CLUSTER_BYTES << (page % 4);
            parts(&within(&placed.laid.spans, page * CLUSTER_BYTES, bytes), REQUEST_BYTES_MAX)
        };
        at.into_iter().flat_map(fault).collect()
    }

    /// What a stage writes but for the page file, in the order in which the system's threads come to it.
    fn writes(&mut self, count: usize) -> Vec<Span> {
        let logs: Vec<Span> = self.of(Kind::Log).iter().flat_map(|placed| placed.laid.spans.clone()).collect();
        let mut writes = Vec::new();
        for _ in 0..count {
            let record = self.numbers.below(self.files.len() as u64) as usize;
            writes.push(cluster(self.files[record].laid.record.offset));
            let bytes = CLUSTER_BYTES << self.numbers.below(4);
            writes.extend(within(&self.layout.of("$LogFile").spans, (16 << 10) + self.logged, bytes));
            self.logged += bytes;
            let log = logs[self.numbers.below(logs.len() as u64) as usize];
            let room = log.bytes / CLUSTER_BYTES;
            let (first, count) = (self.numbers.below(room), 1 + self.numbers.below(8));
            writes.extend(within(&[log], first * CLUSTER_BYTES, count * CLUSTER_BYTES));
        }
        writes
    }

    /// Writes what is seldom used to the page file, and faults a few of those pages in again.
    fn page_in(&mut self) {
        let page_file = self.of(Kind::PageFile)[0].laid.spans.clone();
        let room: u64 = page_file.iter().map(|span| span.bytes).sum();
        let mut out = Vec::new();
        for _ in 0..PAGED_PER_STAGE {
            if self.paged + PAGED_BYTES <= room {
                out.extend(within(&page_file, self.paged, PAGED_BYTES));
                self.paged += PAGED_BYTES;
            }
        }
        self.write_together(&out);
        for _ in 0..8 {
            let page = self.numbers.below((self.paged / CLUSTER_BYTES).max(1));
            let bytes = CLUSTER_BYTES << self.numbers.below(3);
            for span in within(&page_file, page * CLUSTER_BYTES, bytes) {
                self.alone(Op::Read, span, 500);
            }
        }
    }

    fn of(&self, kind: Kind) -> Vec<Placed<'a>> {
        self.files.iter().copied().filter(|placed| placed.file.kind == kind).collect()
    }

    fn look_up(&mut self, placed: Placed<'_>) {
        let root = parts(&self.layout.root, CLUSTER_BYTES);
        if let Some(leaf) = root.get(placed.file.seed as usize % root.len().max(1)) {
            self.alone(Op::Read, *leaf, 250);
        }
        self.alone(Op::Read, placed.laid.record, 250);
    }

    /// One request, and about so long until the next.
    fn alone(&mut self, op: Op, span: Span, about_micros: u64) {
        self.ask(op, span);
        self.think(about_micros * 3 / 4, about_micros * 3 / 2);
    }

    /// Reads in flight together.
    fn together(&mut self, spans: &[Span]) {
        for span in spans {
            self.ask(Op::Read, *span);
            self.think(5, 30);
        }
        self.think(1_000, 4_000);
    }

    fn write_together(&mut self, spans: &[Span]) {
        for span in spans {
            self.ask(Op::Write, *span);
            self.think(5, 60);
        }
    }

    fn ask(&mut self, op: Op, span: Span) {
        let end = (span.offset + span.bytes).min(self.layout.image_bytes);
        let bytes = end.saturating_sub(span.offset) as u32;
        if bytes > 0 {
            self.requests.push(Request { micros: self.micros, op, offset: span.offset, bytes });
        }
    }

    fn think(&mut self, least: u64, most: u64) {
        self.micros += least + self.numbers.below(most - least + 1);
    }
}

/// In which stage a file is read; none: before, or never.
fn stage_of(file: &MadeUp) -> Option<u64> {
    Some(match file.kind {
        Kind::Driver => 0,
        Kind::Hive if file.name == "NTUSER.DAT" || file.name == "UsrClass.dat" => 3,
        Kind::Hive => 1,
        Kind::Library | Kind::Small => 1 + file.seed / 25 % 4,
        Kind::Font => 4,
        Kind::Log => 2,
        _ => return None,
    })
}

/// What the plan says of a file, the same for each boot.
fn planned(placed: &Placed<'_>) -> Vec<Span> {
    // Of a hundred runs of 64 KiB.
    let share = match placed.file.kind {
        Kind::Hive => 45,
        Kind::Font => 30,
        Kind::Log => 20,
        _ if placed.file.bytes <= 4 * RUN_BYTES => 100,
        _ => 62,
    };
    let mut numbers = Numbers(placed.file.seed ^ 0x706c_616e);
    let mut out = Vec::new();
    for run in 0..placed.file.bytes.div_ceil(RUN_BYTES) {
        // The beginning has the headers.
        if numbers.below(100) < share || run == 0 {
            let skipped = numbers.below(4) * CLUSTER_BYTES;
            let left = numbers.below(4) * CLUSTER_BYTES;
            let is_whole = share == 100 || run == 0;
            let (skipped, left) = if is_whole { (0, 0) } else { (skipped, left) };
            out.extend(within(&placed.laid.spans, run * RUN_BYTES + skipped, RUN_BYTES - skipped - left));
        }
    }
    out
}

/// The cluster that a place is in.
fn cluster(offset: u64) -> Span {
    Span { offset: offset / CLUSTER_BYTES * CLUSTER_BYTES, bytes: CLUSTER_BYTES }
}

/// Where `bytes` bytes from `from` on of a file lie, as far as there are so many, in whole sectors.
fn within(spans: &[Span], from: u64, bytes: u64) -> Vec<Span> {
    let (mut at, end, mut out) = (0, from + bytes, Vec::new());
    for span in spans {
        let (first, last) = (from.max(at), end.min(at + span.bytes));
        if first < last {
            let start = (span.offset + first - at) / 512 * 512;
            let stop = (span.offset + last - at).next_multiple_of(512);
            out.push(Span { offset: start, bytes: stop - start });
        }
        at += span.bytes;
    }
    out
}

/// All of some spans, at most `most` bytes at a time.
fn parts(spans: &[Span], most: u64) -> Vec<Span> {
    let all: u64 = spans.iter().map(|span| span.bytes).sum();
    (0..all).step_by(most as usize).flat_map(|from| within(spans, from, most.min(all - from))).collect()
}

/// Spans that follow each other closely as one, at most `most` bytes long.
fn merged(spans: &[Span], most: u64) -> Vec<Span> {
    let mut out: Vec<Span> = Vec::new();
    for span in spans {
        if let Some(last) = out.last_mut() {
            let end = span.offset + span.bytes;
            let is_near = span.offset >= last.offset && span.offset <= last.offset + last.bytes + GAP_BYTES;
            if is_near && end - last.offset <= most {
                last.bytes = last.bytes.max(end - last.offset);
                continue;
            }
        }
        out.push(*span);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: u64, bytes: u64) -> Span {
        Span { offset, bytes }
    }

    #[test]
    fn parts_of_files_are_found_across_their_spans() {
        let spans = [span(8192, 4096), span(40960, 8192)];
        assert_eq!(within(&spans, 2048, 4096), [span(10240, 2048), span(40960, 2048)]);
        assert_eq!(within(&spans, 12000, 9000), [span(48640, 512)]);
        assert_eq!(within(&spans, 12288, 1), []);
        assert_eq!(parts(&spans, 8192), [span(8192, 4096), span(40960, 4096), span(45056, 4096)]);
        // What lies in a record of $MFT.
        assert_eq!(parts(&[span(1340, 60)], 4096), [span(1024, 512)]);
    }

    #[test]
    fn what_is_near_is_read_at_once() {
        let spans = [span(0, 4096), span(4096 + GAP_BYTES, 4096), span(65536, 4096), span(4096, 4096)];
        assert_eq!(merged(&spans, 1 << 20), [span(0, 8192 + GAP_BYTES), span(65536, 4096), span(4096, 4096)]);
        assert_eq!(merged(&spans[..2], 4096).len(), 2);
    }
}
