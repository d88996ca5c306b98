//! Which pieces are held: an atomic map that readers ask without a lock, and the log that makes it last.
//!
//! *Invariants*: a bit of the map is set only after the log has its record; the log has one writer, under a mutex.
//! *Bounds*: a log in which chunks come and go is written anew when it has grown.

use super::error::StoreError;
use crate::file::write_all_at;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use swarmdisk_core::bitmap::{Bits, assign_run};
use swarmdisk_core::format::held::{self, HeldError, HeldWriter, Kind, RECORD_BYTES};
use swarmdisk_core::geometry::{Geometry, PieceIndex};
use swarmdisk_core::ids::Digest;

/// A log may grow to so many bytes, or to four times what it is when it is written anew.
const LOG_BYTES: u64 = 1 << 20;

/// A bitmap of pieces that any thread may read and change.
pub(crate) struct AtomicMap {
    words: Box<[AtomicU64]>,
    geometry: Geometry,
    count: AtomicU32,
}

impl AtomicMap {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let words = (0..geometry.bitmap_words()).map(|_| AtomicU64::new(0)).collect();
        Self { words, geometry, count: AtomicU32::new(0) }
    }

    pub(crate) fn from_words(geometry: Geometry, words: &[u64]) -> Self {
        let count = AtomicU32::new(Bits::new(words, geometry.piece_count()).count());
        Self { words: words.iter().map(|word| AtomicU64::new(*word)).collect(), geometry, count }
    }

    pub(crate) fn full(geometry: Geometry) -> Self {
        let mut words = vec![0; geometry.bitmap_words()];
        assign_run(&mut words, 0, geometry.piece_count(), true);
        Self::from_words(geometry, &words)
    }

    pub(crate) fn get(&self, piece: PieceIndex) -> bool {
        let index = piece.get();
        self.words[index as usize / 64].load(SeqCst) >> (index % 64) & 1 == 1
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(SeqCst)
    }

    pub(crate) fn assign(&self, first: PieceIndex, count: u32, value: bool) {
        for index in first.get()..first.get() + count {
            let (word, bit) = (&self.words[index as usize / 64], 1u64 << (index % 64));
            if value && word.fetch_or(bit, SeqCst) & bit == 0 {
                self.count.fetch_add(1, SeqCst);
            } else if !value && word.fetch_and(!bit, SeqCst) & bit != 0 {
                self.count.fetch_sub(1, SeqCst);
            }
        }
    }

    fn words(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.load(SeqCst)).collect()
    }

    pub(crate) fn runs(&self) -> Vec<(PieceIndex, u32)> {
        let words = self.words();
        let runs = Bits::new(&words, self.geometry.piece_count()).runs(0);
        runs.filter_map(|(first, count)| Some((self.geometry.piece(first)?, count))).collect()
    }
}

/// A change of what is held.
pub(crate) type Change = (PieceIndex, u32, Kind);

/// The log on disk, at its end.
pub(crate) struct HeldLog {
    /// None after it could not be opened anew.
    file: Option<File>,
    path: PathBuf,
    image: Digest,
    writer: HeldWriter,
    /// When it is longer than that, it is written anew.
    bytes_max: u64,
}

impl HeldLog {
    /// Appends these changes, in one write. On an error none of them counts, and the next are written over the torn ones.
    /// `held` is what the log says, but for these.
    pub(crate) fn append(&mut self, changes: &[Change], held: &AtomicMap) -> Result<(), StoreError> {
        if self.writer.log_bytes() > self.bytes_max {
            self.compact(held);
        }
        let mut writer = self.writer.clone();
        let mut bytes = Vec::with_capacity(changes.len() * RECORD_BYTES);
        for (first, count, kind) in changes {
            let Ok(()) = writer.append(&mut bytes, first.get(), *count, *kind);
        }
        let at = self.writer.log_bytes();
        let written = self.file().and_then(|file| write_all_at(file, &bytes, at));
        written.map_err(StoreError::io("write", &self.path))?;
        self.writer = writer;
        Ok(())
    }

    /// Writes it anew with just what is held; if that fails it goes on growing.
    fn compact(&mut self, held: &AtomicMap) {
        // Not every system and file system replaces a file that is open.
        self.file = None;
        let old = OldLog { words: held.words(), records: None };
        match open_log(&self.path, self.image, held.geometry, &old) {
            Ok(log) => *self = log,
            Err(_) => self.bytes_max += LOG_BYTES,
        }
    }

    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        self.file().and_then(|file| file.sync_data()).map_err(StoreError::io("write", &self.path))
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().write(true).open(&self.path)?);
        }
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What was found of a log.
pub(crate) struct OldLog {
    /// A bitmap of what is held.
    pub(crate) words: Vec<u64>,
    /// Whole records in the file, good and bad; nothing if there is no usable log.
    records: Option<u32>,
}

/// Reads the log at `path`. A log that is missing, damaged in its header or of another image says that nothing is held.
pub(crate) fn read_log(path: &Path, image: Digest, geometry: Geometry) -> Result<OldLog, StoreError> {
    let mut words = vec![0; geometry.bitmap_words()];
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(OldLog { words, records: None }),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let records = match held::replay(&mut &bytes[..], image, geometry.piece_count(), &mut words) {
        Ok(replayed) => Some(replayed.good_count + replayed.bad_count),
        Err(HeldError::Header | HeldError::OtherImage | HeldError::Version(_)) => None,
        Err(HeldError::Room) => unreachable!("the bitmap has a bit for each piece"),
        Err(HeldError::Io(never)) => match never {},
    };
    Ok(OldLog { words, records })
}

/// Opens the log at `path` for appending, compacted to just what `old` says is held. With a full disk the old log is used on
/// as it is, if it is a log of this image.
pub(crate) fn open_log(path: &Path, image: Digest, geometry: Geometry, old: &OldLog) -> Result<HeldLog, StoreError> {
    let mut writer = HeldWriter::new(image);
    let mut bytes = Vec::new();
    let Ok(()) = writer.rewrite(&mut bytes, Bits::new(&old.words, geometry.piece_count()));
    let new_path = path.with_extension("held.new");
    let replaced = File::create(&new_path)
        .and_then(|file| write_all_at(&file, &bytes, 0).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new_path, path));
    if let Err(error) = replaced {
        let _ = fs::remove_file(&new_path);
        let error = StoreError::io("write", path)(error);
        match old.records {
            Some(records) if matches!(error, StoreError::DiskFull { .. }) => {
                writer = HeldWriter::resume(image, records);
            }
            _ => return Err(error),
        }
    }
    let file = OpenOptions::new().write(true).open(path).map_err(StoreError::io("open", path))?;
    let bytes_max = LOG_BYTES.max(4 * writer.log_bytes());
    Ok(HeldLog { file: Some(file), path: path.to_owned(), image, writer, bytes_max })
}
