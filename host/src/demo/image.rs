//! An image for a recorded boot: made up where that reads, and in as many other places again as make it worth not
//! downloading. The demo boots one, and so does what is measured against the simulator.
//!
//! *Invariants*: equal builds make equal bytes; every chunk that the boot touches holds data; the rest is holes, but for
//! `OTHER_FACTOR` times as many other chunks. *What is real*: the size of the disk, and where, when and how much the boot reads.
//! *What is not*: contents (they compress as those of real boots do, 2.8 : 1) and where the unread data lies.
//! *Bounds*: on disk six times what the boot touches, a chunk in memory.

use crate::digest::digest_of;
use crate::file::{make_sparse, write_all_at};
use crate::pack::{PackError, PackOptions, pack};
use crate::profile;
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use swarmdisk_common::trace::{Op, Trace};
use swarmdisk_core::geometry::CHUNK_SHIFT_DEFAULT;
use swarmdisk_core::ids::Digest;
use swarmdisk_core::rng::{Rng, mix};

/// Size of the disk that the demo's boots were recorded from.
pub(super) const IMAGE_BYTES: u64 = 1_610_612_736;
/// What the recorded disk held, in bytes: here it holds less, so that the demo is short.
pub(super) const RECORDED_DATA_BYTES: u64 = 437_000_000;
/// Chunks that hold data and are not read, for each that is.
const OTHER_FACTOR: usize = 3;
/// Unread data lies in runs of so many chunks, as files do.
const OTHER_RUN: u32 = 8;
const CHUNK_BYTES: usize = 1 << CHUNK_SHIFT_DEFAULT;
/// New bytes, then a copy of earlier ones, in turn: zstd makes one of 2.8 of them.
const NEW_BYTES: usize = 32;
const COPIED_BYTES: usize = 72;

const REPLAYED: &[u8] = include_bytes!("../../data/minimal-boot-1.trace");
const PROFILED: &[u8] = include_bytes!("../../data/minimal-boot-2.trace");

/// The two recorded boots: the one that is replayed, and the one that the profile is built from.
pub(super) fn recorded_boots() -> io::Result<(Trace, Trace)> {
    let parse = |text| Trace::parse(text).map_err(io::Error::other);
    Ok((parse(REPLAYED)?, parse(PROFILED)?))
}

/// An image, raw and packed, with a profile of it.
#[derive(Debug, Clone)]
pub struct DemoImage {
    /// The raw image.
    pub raw: PathBuf,
    /// The packed one.
    pub swarm: PathBuf,
    /// Built from the boot that is not replayed.
    pub profile: PathBuf,
    /// Hash of the packed file.
    pub swarm_digest: Digest,
    /// Size of the disk.
    pub image_bytes: u64,
    /// What of it is data.
    pub data_bytes: u64,
    /// Size of the packed file.
    pub packed_bytes: u64,
    /// Chunks that the replayed boot touches, unpacked.
    pub touched_bytes: u64,
    /// The same, packed: what a node cannot do without.
    pub working_set_bytes: u64,
    /// For how long the recorded guest reads next to nothing at first.
    pub quiet_micros: u64,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The folder is full, or not to be written to.
    #[error("cannot write the made-up image to {}: {source}; set TMPDIR to where 1 GB is free", path.display())]
    Write {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was asked to end.
    #[error("cancelled")]
    Cancelled,
    /// It could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// What was packed cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no profile of it.
    #[error(transparent)]
    Profile(#[from] profile::BuildError),
}

/// Makes an image of this size in `folder`; set `cancel`, and it ends soon.
///
/// # Errors
/// [`MakeError`]; what was written until then stays in `folder`.
pub fn make(
    folder: &Path,
    image_bytes: u64,
    replayed: &Trace,
    profiled: Trace,
    cancel: &AtomicBool,
) -> Result<DemoImage, MakeError> {
    let (raw, swarm, profile) = (folder.join("image.raw"), folder.join("image.swarm"), folder.join("boot.profile"));
    let chunks = data_chunks(&[replayed, &profiled], image_bytes);
    fill(&raw, image_bytes, &chunks, cancel)?;
    let packed = pack(&PackOptions::new(&raw, &swarm, cancel), &|_, _| {})?;

    let write_error = |path: &Path| {
        let path = path.to_owned();
        move |source| MakeError::Write { path, source }
    };
    let store = Store::open_complete(&swarm)?;
    let (bytes, _) = profile::build(&store, &[("the other boot".to_owned(), profiled)])?;
    std::fs::write(&profile, bytes).map_err(write_error(&profile))?;
    let touched = touched_chunks(replayed);
    let geometry = store.geometry();
    let mut working_set_bytes = 0;
    for chunk in touched.iter().filter_map(|&index| geometry.chunk(index)) {
        working_set_bytes += u64::from(store.payload_bytes(geometry.chunk_piece(chunk))?);
    }
    let swarm_digest = digest_of(&std::fs::read(&swarm).map_err(write_error(&swarm))?);
    Ok(DemoImage {
        raw,
        swarm,
        profile,
        swarm_digest,
        image_bytes,
        data_bytes: (chunks.len() * CHUNK_BYTES) as u64,
        packed_bytes: packed.file_bytes,
        touched_bytes: (touched.len() * CHUNK_BYTES) as u64,
        working_set_bytes,
        quiet_micros: quiet_micros(replayed),
    })
}

/// Until a boot has read a hundredth of what it reads.
fn quiet_micros(trace: &Trace) -> u64 {
    let reads = || trace.requests.iter().filter(|request| request.op == Op::Read);
    let total: u64 = reads().map(|read| u64::from(read.bytes)).sum();
    let mut left = total / 100;
    for read in reads() {
        match left.checked_sub(u64::from(read.bytes)) {
            Some(rest) => left = rest,
            None => return read.micros,
        }
    }
    0
}

/// The chunks that a boot reads from.
fn touched_chunks(trace: &Trace) -> BTreeSet<u32> {
    let reads = trace.requests.iter().filter(|request| request.op == Op::Read);
    reads
        .flat_map(|read| {
            let end = read.offset + u64::from(read.bytes);
            (read.offset >> CHUNK_SHIFT_DEFAULT) as u32..=((end - 1) >> CHUNK_SHIFT_DEFAULT) as u32
        })
        .collect()
}

/// The chunks that hold data: those that any of the boots touches, and others, drawn with a seed of ours.
fn data_chunks(traces: &[&Trace], image_bytes: u64) -> BTreeSet<u32> {
    let mut chunks: BTreeSet<u32> = traces.iter().flat_map(|trace| touched_chunks(trace)).collect();
    let wanted = chunks.len() * (1 + OTHER_FACTOR);
    let runs = (image_bytes >> CHUNK_SHIFT_DEFAULT) as u32 / OTHER_RUN;
    let mut rng = Rng::new(0x64656d6f);
    while chunks.len() < wanted {
        let first = rng.below(runs) * OTHER_RUN;
        chunks.extend(first..first + OTHER_RUN);
    }
    chunks
}

fn fill(path: &Path, image_bytes: u64, chunks: &BTreeSet<u32>, cancel: &AtomicBool) -> Result<(), MakeError> {
    let write_error = |source| MakeError::Write { path: path.to_owned(), source };
    let file = File::create_new(path).map_err(write_error)?;
    make_sparse(&file);
    file.set_len(image_bytes).map_err(write_error)?;
    let mut bytes = vec![0; CHUNK_BYTES];
    for &chunk in chunks {
        if cancel.load(Relaxed) {
            return Err(MakeError::Cancelled);
        }
        make_up(chunk, &mut bytes);
        write_all_at(&file, &bytes, u64::from(chunk) << CHUNK_SHIFT_DEFAULT).map_err(write_error)?;
    }
    Ok(())
}

/// The contents of a chunk: no two are alike, and none is like real data but in how far it compresses.
fn make_up(chunk: u32, bytes: &mut [u8]) {
    let mut rng = Rng::new(mix(u64::from(chunk) + 1));
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + NEW_BYTES).min(bytes.len());
        for word in bytes[at..end].chunks_mut(8) {
            word.copy_from_slice(&rng.draw().to_le_bytes()[..word.len()]);
        }
        let length = COPIED_BYTES.min(bytes.len() - end).min(end);
        let from = rng.below((end - length + 1) as u32) as usize;
        bytes.copy_within(from..from + length, end);
        at = end + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traces_are_of_a_disk_of_this_size() {
        for text in [REPLAYED, PROFILED] {
            let comment = str::from_utf8(text).unwrap().lines().next().unwrap();
            assert!(
                comment.contains(&format!("{IMAGE_BYTES} bytes, {} MB allocated", RECORDED_DATA_BYTES / 1_000_000))
            );
        }
    }

    #[test]
    fn data_lies_where_the_boots_read_and_elsewhere() {
        let (replayed, profiled) = recorded_boots().unwrap();
        let chunks = data_chunks(&[&replayed, &profiled], IMAGE_BYTES);
        assert_eq!(chunks, data_chunks(&[&replayed, &profiled], IMAGE_BYTES));
        let touched = touched_chunks(&replayed);
        assert!(touched.is_subset(&chunks) && touched_chunks(&profiled).is_subset(&chunks));
        assert!((4 * touched.len()..5 * touched.len()).contains(&chunks.len()), "{}", chunks.len());
        assert!((15_000_000..18_000_000).contains(&quiet_micros(&replayed)));
        assert!(u64::from(*chunks.last().unwrap()) < IMAGE_BYTES >> CHUNK_SHIFT_DEFAULT);
    }

    #[test]
    fn contents_are_the_same_each_time_and_compress_as_real_ones_do() {
        let made = |chunk| {
            let mut bytes = vec![0; CHUNK_BYTES];
            make_up(chunk, &mut bytes);
            bytes
        };
        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
        let packed: usize = (0..20).map(|chunk| zstd::bulk::compress(&made(chunk), 6).unwrap().len()).sum();
        let ratio = (20 * CHUNK_BYTES) as f64 / packed as f64;
        assert!((2.6..3.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn an_image_holds_its_chunks_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        fill(&path, IMAGE_BYTES, &BTreeSet::from([1, 24_575]), &AtomicBool::new(false)).unwrap();
        let image = File::open(&path).unwrap();
        let mut expected = vec![0; CHUNK_BYTES];
        let mut found = vec![0; CHUNK_BYTES];
        for (chunk, is_data) in [(0u32, false), (1, true), (2, false), (24_575, true)] {
            if is_data {
                make_up(chunk, &mut expected)
            } else {
                expected.fill(0)
            }
            crate::file::read_exact_at(&image, &mut found, u64::from(chunk) << CHUNK_SHIFT_DEFAULT).unwrap();
            assert!(found == expected, "{chunk}");
        }
        assert_eq!(image.metadata().unwrap().len(), IMAGE_BYTES);
    }
}
