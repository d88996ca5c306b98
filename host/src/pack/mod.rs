//! Packs a disk image into a `.swarm` file.
//!
//! *Purpose*: cut, elide zeros, compress, hash; on all cores.
//! *Invariants*: equal image and options give equal bytes, whatever the number of threads (and with one version of zstd);
//! `out` appears whole, or not at all.
//! *Bounds*: memory for a few batches of 1 MiB a thread, and the hashes of the leaf pages.

mod queue;

use crate::digest::{digest_of, to_hex};
use crate::file::write_all_at;
use crate::image::{Image, ImageError};
use crate::store::write_head;
use bytes::Bytes;
use queue::Queue;
use std::error::Error;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use swarmdisk_common::file::{persist, real_folder_of, without_path};
use swarmdisk_core::format::leaf::{self, LeafEntry};
use swarmdisk_core::format::manifest::{Codec, HEADER_BYTES_MAX, Layout};
use swarmdisk_core::geometry::{CHUNK_SHIFT_DEFAULT, CHUNK_SHIFT_MAX, ChunkIndex, Geometry, LeafIndex};
use swarmdisk_core::ids::Digest;

/// zstd level unless another is chosen: packing is done once, its bytes are sent many times. A Debian 12 image (724 MB of
/// data) on two cores:
///
/// | level | file | time |
/// |---|---|---|
/// | 1 | 277 MB | 1.2 s |
/// | 3 | 268 MB | 1.2 s |
/// | 6 | 255 MB | 2.9 s |
/// | 9 | 253 MB | 4.4 s |
/// | 12 | 252 MB | 11.7 s |
pub const LEVEL_DEFAULT: i32 = 6;
/// What one thread reads and compresses at a time.
const BATCH_SHIFT: u8 = CHUNK_SHIFT_MAX;

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct PackOptions<'a> {
    /// The image: raw, qcow2, vmdk or vhdx.
    pub image: &'a Path,
    /// The `.swarm` file to make; one that is there already is replaced when all is done.
    pub out: &'a Path,
    /// Size of a chunk as a power of two, 14 to 20.
    pub chunk_shift: u8,
    /// How payloads are coded.
    pub codec: Codec,
    /// zstd's level, 1 to 22.
    pub level: i32,
    /// Threads to use; as many as there are cores by default.
    pub threads: Option<NonZeroUsize>,
    /// Set it, and packing ends soon with [`PackError::Cancelled`].
    pub cancel: &'a AtomicBool,
}

impl<'a> PackOptions<'a> {
    /// The default options: 64 KiB chunks, zstd.
    pub fn new(image: &'a Path, out: &'a Path, cancel: &'a AtomicBool) -> Self {
        let (chunk_shift, codec, level) = (CHUNK_SHIFT_DEFAULT, Codec::Zstd, LEVEL_DEFAULT);
        Self { image, out, chunk_shift, codec, level, threads: None, cancel }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackReport {
    /// The image's id.
    pub image: Digest,
    /// Size of the disk.
    pub image_bytes: u64,
    /// Number of chunks.
    pub chunk_count: u32,
    /// How many of them are all zeros.
    pub zero_chunk_count: u32,
    /// Sum of the payloads.
    pub payload_bytes: u64,
    /// Size of the file made.
    pub file_bytes: u64,
    /// How long it took.
    pub time: Duration,
}

/// Why nothing was packed. No file is left.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(ImageError),
    /// The output cannot be written.
    #[error("cannot write {}: {source}; make room, or choose another name for the output", path.display())]
    Out {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Image and output are one file.
    #[error("{} is the image itself; choose another name for the output", path.display())]
    SameFile {
        /// Which file.
        path: PathBuf,
    },
    /// The chunk size is out of bounds, or the image too large for it.
    #[error("an image of {image_bytes} bytes cannot be cut into chunks of 2^{chunk_shift} bytes; use 16K to 1M")]
    Geometry {
        /// Size of the disk.
        image_bytes: u64,
        /// Size of a chunk as a power of two.
        chunk_shift: u8,
    },
    /// zstd does not know this level.
    #[error("zstd level {0} does not exist; use 1 to 22")]
    Level(i32),
    /// zstd failed.
    #[error("zstd failed: {0}")]
    Zstd(io::Error),
    /// What is to be packed cannot be had: it says why and what to do.
    #[error(transparent)]
    Source(Box<dyn Error + Send + Sync>),
    /// The cancel flag was set.
    #[error("cancelled; nothing was written")]
    Cancelled,
}

/// What is packed: an image, or a packed one that was written to.
pub(crate) trait Source: Sync {
    /// A byte at or after `offset` before which all from there on are zeros; the disk's size if all are.
    fn next_data(&self, offset: u64) -> Result<u64, PackError>;

    /// Fills `out` with the disk's bytes from `offset` on; all must be within the disk.
    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), PackError>;

    /// What a chunk was packed into before, if it is the same: its entry and its payload.
    fn packed(&self, _chunk: ChunkIndex) -> Result<Option<(LeafEntry, Bytes)>, PackError> {
        Ok(None)
    }
}

impl Source for Image {
    fn next_data(&self, offset: u64) -> Result<u64, PackError> {
        Ok(Self::next_data(self, offset)?)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), PackError> {
        Ok(Self::read_at(self, out, offset)?)
    }
}

impl From<ImageError> for PackError {
    fn from(error: ImageError) -> Self {
        if let ImageError::Cancelled = error { Self::Cancelled } else { Self::Image(error) }
    }
}

impl std::fmt::Display for PackReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { image_bytes, chunk_count, zero_chunk_count, file_bytes, .. } = self;
        write!(
            f,
            "image {}: {image_bytes} bytes in {chunk_count} chunks ({zero_chunk_count} all zero), ",
            to_hex(&self.image)
        )?;
        write!(f, "file of {file_bytes} bytes, {:.1} s", self.time.as_secs_f64())
    }
}

/// Packs an image. `progress` is told bytes of the image done, and its size; from the calling thread.
///
/// # Errors
/// See [`PackError`].
pub fn pack(options: &PackOptions<'_>, progress: &dyn Fn(u64, u64)) -> Result<PackReport, PackError> {
    let began = Instant::now();
    let place = Place::of(options)?;
    let image = Image::open(options.image, &place.dir, options.cancel)?;
    pack_source(&image, image.bytes(), options, began, progress)
}

/// Where the output goes.
struct Place {
    out: PathBuf,
    dir: PathBuf,
}

impl Place {
    /// Checks what can be checked before any work is done.
    fn of(options: &PackOptions<'_>) -> Result<Self, PackError> {
        if !(1..=22).contains(&options.level) {
            return Err(PackError::Level(options.level));
        }
        let out_error = |source| PackError::Out { path: options.out.to_owned(), source };
        // Through a link, which stays.
        let place = options.out.canonicalize();
        if let (Ok(image), Ok(out)) = (options.image.canonicalize(), &place)
            && image == *out
        {
            return Err(PackError::SameFile { path: options.out.to_owned() });
        }
        let out = place.unwrap_or_else(|_| options.out.to_owned());
        match out.metadata() {
            Ok(found) if found.is_dir() => return Err(out_error(io::ErrorKind::IsADirectory.into())),
            Ok(found) if !found.is_file() => return Err(out_error(io::Error::other("it is no regular file"))),
            _ => {}
        }
        let dir = real_folder_of(&out).map_err(out_error)?;
        Ok(Self { out, dir })
    }
}

/// Packs a disk of `image_bytes`.
pub(crate) fn pack_source(
    source: &impl Source,
    image_bytes: u64,
    options: &PackOptions<'_>,
    began: Instant,
    progress: &dyn Fn(u64, u64),
) -> Result<PackReport, PackError> {
    let out_error = |source| PackError::Out { path: options.out.to_owned(), source };
    let Place { out, dir } = Place::of(options)?;
    let chunk_shift = options.chunk_shift;
    let geometry =
        Geometry::new(image_bytes, chunk_shift).map_err(|_| PackError::Geometry { image_bytes, chunk_shift })?;

    let mut builder = tempfile::Builder::new();
    builder.prefix(".swarmdisk-pack-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temp = builder.tempfile_in(&dir).map_err(without_path).map_err(out_error)?;
    let mut writer = Writer::new(temp.as_file(), geometry, options);
    compress_all(source, geometry, options, |batch| {
        writer.append(&batch).map_err(out_error)?;
        let done = u64::from(writer.chunk_count) << chunk_shift;
        progress(done.min(image_bytes), image_bytes);
        Ok(())
    })?;
    let (zero_chunk_count, payload_bytes) = (writer.zero_chunk_count, writer.payload_bytes);
    let (id, file_bytes) = writer.finish().map_err(out_error)?;
    persist(temp, &out).map_err(out_error)?;
    #[cfg(unix)]
    File::open(&dir).and_then(|dir| dir.sync_all()).map_err(out_error)?;
    Ok(PackReport {
        image: id,
        image_bytes,
        chunk_count: geometry.chunk_count(),
        zero_chunk_count,
        payload_bytes,
        file_bytes,
        time: began.elapsed(),
    })
}

/// Consecutive chunks, compressed.
struct Batch {
    entries: Vec<LeafEntry>,
    payloads: Vec<u8>,
}

/// Compresses all chunks on all threads; hands the batches to `write` in order.
fn compress_all(
    source: &impl Source,
    geometry: Geometry,
    options: &PackOptions<'_>,
    mut write: impl FnMut(Batch) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let batch_chunks = 1u32 << (BATCH_SHIFT - geometry.chunk_shift());
    let batch_count = geometry.chunk_count().div_ceil(batch_chunks);
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = options.threads.unwrap_or_else(cores).get();
    let queue = Queue::new(batch_count, threads as u32 * 4);
    std::thread::scope(|scope| {
        let _stop = queue.stop_on_drop();
        for _ in 0..threads {
            scope.spawn(|| {
                let _stop = queue.stop_on_panic();
                let mut worker = Worker::new(source, geometry, options);
                while let Some(number) = queue.claim() {
                    let first = number * batch_chunks;
                    let end = (first + batch_chunks).min(geometry.chunk_count());
                    queue.done(number, worker.batch(first, end));
                }
            });
        }
        for _ in 0..batch_count {
            let Some(batch) = queue.take() else { break };
            write(batch?)?;
        }
        Ok(())
    })
}

/// What one thread needs.
struct Worker<'a, S> {
    source: &'a S,
    geometry: Geometry,
    options: &'a PackOptions<'a>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    chunk: Vec<u8>,
}

impl<'a, S: Source> Worker<'a, S> {
    fn new(source: &'a S, geometry: Geometry, options: &'a PackOptions<'a>) -> Self {
        Self { source, geometry, options, compressor: None, chunk: Vec::new() }
    }

    fn batch(&mut self, first: u32, end: u32) -> Result<Batch, PackError> {
        let mut batch = Batch { entries: Vec::with_capacity((end - first) as usize), payloads: Vec::new() };
        let mut data_offset = 0;
        let geometry = self.geometry;
        for chunk in (first..end).filter_map(|index| geometry.chunk(index)) {
            if self.options.cancel.load(Relaxed) {
                return Err(PackError::Cancelled);
            }
            let (offset, bytes) = (geometry.chunk_offset(chunk), geometry.chunk_len(chunk));
            if data_offset <= offset {
                data_offset = self.source.next_data(offset)?;
            }
            let is_hole = data_offset >= offset + u64::from(bytes);
            let entry = if is_hole { zero_entry() } else { self.compress(chunk, &mut batch.payloads)? };
            batch.entries.push(entry);
        }
        Ok(batch)
    }

    /// Reads a chunk and appends its payload, if it has one.
    fn compress(&mut self, chunk: ChunkIndex, payloads: &mut Vec<u8>) -> Result<LeafEntry, PackError> {
        if let Some((entry, payload)) = self.source.packed(chunk)? {
            payloads.extend_from_slice(&payload);
            return Ok(entry);
        }
        self.chunk.resize(self.geometry.chunk_len(chunk) as usize, 0);
        self.source.read_at(&mut self.chunk, self.geometry.chunk_offset(chunk))?;
        if is_zero(&self.chunk) {
            return Ok(zero_entry());
        }
        let at = payloads.len();
        let mut stored = true;
        if self.options.codec == Codec::Zstd {
            let packed = self.zstd()?;
            stored = packed.len() >= self.chunk.len();
            if !stored {
                payloads.extend(packed);
            }
        }
        if stored {
            payloads.extend(&self.chunk);
        }
        let payload = &payloads[at..];
        Ok(LeafEntry { digest: digest_of(payload), offset: 0, bytes: payload.len() as u32, stored })
    }

    fn zstd(&mut self) -> Result<Vec<u8>, PackError> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(self.options.level).map_err(PackError::Zstd)?),
        };
        compressor.compress(&self.chunk).map_err(PackError::Zstd)
    }
}

fn zero_entry() -> LeafEntry {
    LeafEntry { digest: Digest::default(), offset: 0, bytes: 0, stored: false }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Writes payloads as they come, leaf pages as they fill, and what comes before them at the end.
struct Writer<'a> {
    file: &'a File,
    geometry: Geometry,
    codec: Codec,
    layout: Layout,
    page: Vec<u8>,
    leaf_digests: Vec<u8>,
    chunk_count: u32,
    zero_chunk_count: u32,
    payload_bytes: u64,
}

impl<'a> Writer<'a> {
    fn new(file: &'a File, geometry: Geometry, options: &PackOptions<'_>) -> Self {
        let layout = Layout::plan(geometry, options.codec, 0).expect("an empty file fits");
        Self {
            file,
            geometry,
            codec: options.codec,
            layout,
            page: Vec::new(),
            leaf_digests: Vec::new(),
            chunk_count: 0,
            zero_chunk_count: 0,
            payload_bytes: 0,
        }
    }

    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let mut payload_offset = self.layout.payload_offset() + self.payload_bytes;
        write_all_at(self.file, &batch.payloads, payload_offset)?;
        self.payload_bytes += batch.payloads.len() as u64;
        for entry in &batch.entries {
            let leaf = self.geometry.chunk(self.chunk_count).map(|chunk| self.geometry.leaf_of(chunk));
            let leaf = leaf.ok_or(io::ErrorKind::InvalidInput)?;
            let in_page = self.chunk_count - leaf.first_chunk();
            if in_page == 0 {
                self.page.clear();
                self.page.resize(self.layout.leaf_bytes(leaf) as usize, 0);
                leaf::encode_start(&mut self.page, payload_offset);
            }
            leaf::encode_entry(&mut self.page, in_page, entry);
            payload_offset += u64::from(entry.bytes);
            self.zero_chunk_count += u32::from(entry.is_zero());
            self.chunk_count += 1;
            if in_page + 1 == self.geometry.leaf_chunk_count(leaf) {
                self.end_page(leaf)?;
            }
        }
        Ok(())
    }

    fn end_page(&mut self, leaf: LeafIndex) -> io::Result<()> {
        write_all_at(self.file, &self.page, self.layout.leaf_offset(leaf))?;
        self.leaf_digests.extend(digest_of(&self.page).0);
        Ok(())
    }

    /// Writes the manifest and the superblock, and makes all of it last. Says the image's id and the file's size.
    fn finish(self) -> io::Result<(Digest, u64)> {
        let layout = Layout::plan(self.geometry, self.codec, self.payload_bytes).map_err(io::Error::other)?;
        let mut manifest = vec![0; HEADER_BYTES_MAX];
        let header_bytes = layout.encode_header(&mut manifest).map_err(io::Error::other)?;
        manifest.truncate(header_bytes);
        manifest.extend(self.leaf_digests);
        let id = digest_of(&manifest);
        write_head(self.file, id, &manifest, layout.file_bytes())?;
        self.file.sync_all()?;
        Ok((id, layout.file_bytes()))
    }
}
