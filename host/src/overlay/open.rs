//! Opening an overlay's file, or making one.
//!
//! *Invariants*: a new file appears under its name whole; one that is there is never replaced, and nothing is written to one
//! that cannot be used. The file is this process's alone until it is dropped.

use super::UNIT;
use super::error::{OverlayError, io_error};
use super::live::{Live, Survival};
use super::map::{Counts, Map};
use super::storage::Storage;
use crate::file::{allocated_bytes, lock_patiently, make_sparse, write_all_at};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use swarmdisk_common::file::{real_folder_of, without_path};
use swarmdisk_core::format::overlay::{HEADER_BYTES, Header, HeaderError, Layout, Unit};
use swarmdisk_core::ids::Digest;

/// An overlay's file, open and locked.
pub struct OverlayFile {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    pub(super) map: Map,
    pub(super) storage: Box<dyn Storage>,
    pub(super) live: Option<Live>,
}

impl OverlayFile {
    /// Opens the overlay of an image, or makes it if there is no file.
    ///
    /// # Errors
    /// [`OverlayError`]: it is in use, belongs to another image, is damaged, waits to be recovered or has nothing that
    /// could be, or the operating system refuses.
    pub fn open_or_create(
        path: &Path,
        image: Digest,
        image_bytes: u64,
        survival: Survival,
    ) -> Result<Self, OverlayError> {
        let layout = Layout::new(image_bytes).ok_or(OverlayError::ImageSize(image_bytes))?;
        if let Err(error) = path.metadata()
            && error.kind() == io::ErrorKind::NotFound
        {
            create(path, &Header { image, layout })?;
        }
        let mut this = Self::open(path)?;
        this.check_image(image)?;
        this.live = Live::open(path, &this.header, &mut this.map, survival)?;
        Ok(this)
    }

    /// Whether it is this image's.
    pub(super) fn check_image(&self, asked: Digest) -> Result<(), OverlayError> {
        let own = self.header.image;
        if own == asked { Ok(()) } else { Err(OverlayError::OtherImage { path: self.path.clone(), own, asked }) }
    }

    /// Opens an overlay that is there, of whatever image.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    pub fn open(path: &Path) -> Result<Self, OverlayError> {
        check_is_file(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
        if !lock_patiently(&file).map_err(io_error("lock", path))? {
            return Err(OverlayError::InUse(path.to_owned()));
        }
        let header = read_header(&file, path)?;
        Self::of_storage(Box::new(file), header, path, RandomState::new().hash_one(()) as u32)
    }

    /// The runs of units in one state within `units`.
    pub(super) fn runs(&self, units: Range<u64>) -> impl Iterator<Item = (Unit, u64)> {
        self.map.runs(units)
    }

    /// Reads data at this offset of the image.
    pub(super) fn read_data(&self, out: &mut [u8], offset: u64) -> Result<(), OverlayError> {
        self.storage.read(out, self.header.layout.data_start() + offset).map_err(io_error("read", &self.path))
    }

    pub(super) fn of_storage(
        storage: Box<dyn Storage>,
        header: Header,
        path: &Path,
        attempt: u32,
    ) -> Result<Self, OverlayError> {
        // What a killed process wrote and did not sync shall not be lost after it was read.
        storage.sync().map_err(io_error("sync", path))?;
        let map = Map::load(&*storage, &header, path, attempt)?;
        Ok(Self { header, path: path.to_owned(), map, storage, live: None })
    }
}

/// What an overlay's file says of itself.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct OverlaySummary {
    /// The image that it belongs to.
    pub image: Digest,
    /// Size of that.
    pub image_bytes: u64,
    /// What was written, in units of 4 KiB, in bytes.
    pub data_bytes: u64,
    /// What was made zeros, in the same way.
    pub zero_bytes: u64,
    /// Space that the file takes.
    pub space_bytes: u64,
}

impl OverlaySummary {
    /// Reads it, also while another process uses the overlay: as that has last flushed it.
    ///
    /// # Errors
    /// As [`OverlayFile::open`], but never [`OverlayError::InUse`].
    pub fn read(path: &Path) -> Result<Self, OverlayError> {
        check_is_file(path)?;
        let file = File::open(path).map_err(io_error("open", path))?;
        let header = read_header(&file, path)?;
        let Counts { data, zero } = Map::load(&file, &header, path, 0)?.counts();
        let space_bytes = allocated_bytes(&file).map_err(io_error("read", path))?;
        let image_bytes = header.layout.image_bytes();
        Ok(Self { image: header.image, image_bytes, data_bytes: data * UNIT, zero_bytes: zero * UNIT, space_bytes })
    }
}

fn check_is_file(path: &Path) -> Result<(), OverlayError> {
    match path.metadata() {
        Ok(found) if !found.is_file() => Err(OverlayError::NoFile(path.to_owned())),
        Ok(_) => Ok(()),
        Err(error) => Err(io_error("open", path)(error)),
    }
}

fn read_header(file: &File, path: &Path) -> Result<Header, OverlayError> {
    let mut beginning = Vec::with_capacity(HEADER_BYTES);
    Read::take(file, HEADER_BYTES as u64).read_to_end(&mut beginning).map_err(io_error("read", path))?;
    let header = Header::parse(&beginning)
        .map_err(|source: HeaderError| OverlayError::Header { path: path.to_owned(), source })?;
    let (bytes, expected_bytes) = (file.metadata().map_err(io_error("read", path))?.len(), header.layout.file_bytes());
    if bytes < expected_bytes {
        return Err(OverlayError::Truncated { path: path.to_owned(), bytes, expected_bytes });
    }
    Ok(header)
}

/// Makes a file that says nothing yet, unless somebody else has made one meanwhile.
fn create(path: &Path, header: &Header) -> Result<(), OverlayError> {
    let failed = |source| OverlayError::Io { action: "make", path: path.to_owned(), source };
    let dir = real_folder_of(path).map_err(failed)?;
    let temp = tempfile::Builder::new().prefix(".swarmdisk-overlay-").tempfile_in(&dir);
    let temp = temp.map_err(without_path).map_err(failed)?;
    let write = |file: &File| {
        make_sparse(file);
        file.set_len(header.layout.file_bytes())?;
        write_all_at(file, &header.encode(), 0)?;
        file.sync_all()
    };
    write(temp.as_file()).map_err(failed)?;
    match temp.persist_noclobber(dir.join(path.file_name().unwrap_or_default())) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(error.error)),
    }
    #[cfg(unix)]
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(())
}
