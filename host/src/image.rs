//! Disk images to pack: raw, qcow2, vmdk, vhdx, told apart by their content.
//!
//! *Purpose*: one way to read an image's bytes, and to skip over what is known to be zeros.
//! *Invariants*: never written to; no other file is read on an image's behalf, so an image whose content was chosen by a
//! guest or a stranger cannot draw the host's files into the packed one. A backing file is therefore refused.
//!
//! Raw and qcow2 images are read in place. For the others `qemu-img` converts to a raw copy beside the output, which goes
//! when the image is dropped.

use crate::file::{next_data, read_exact_at};
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempPath;

/// How an image is stored.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ImageFormat {
    /// Byte for byte; block devices too.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
}

impl ImageFormat {
    /// The name that QEMU's tools know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
        }
    }

    fn detect(beginning: &[u8]) -> Self {
        match beginning {
            [b'Q', b'F', b'I', 0xfb, ..] => Self::Qcow2,
            [b'K', b'D', b'M', b'V', ..] | [b'C', b'O', b'W', b'D', ..] => Self::Vmdk,
            text if text.starts_with(b"# Disk DescriptorFile") => Self::Vmdk,
            text if text.starts_with(b"vhdxfile") => Self::Vhdx,
            _ => Self::Raw,
        }
    }
}

/// Why an image cannot be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} is empty; there is nothing to pack", path.display())]
    Empty {
        /// Which image.
        path: PathBuf,
    },
    /// It is what packing makes.
    #[error("{} is packed already; seed or attach it as it is", path.display())]
    Packed {
        /// Which file.
        path: PathBuf,
    },
    /// A tool is missing.
    #[error("{} is a {format} image, and reading those needs qemu-img; install it (Debian: apt install qemu-utils)", path.display())]
    ToolMissing {
        /// Which image.
        path: PathBuf,
        /// Its format.
        format: &'static str,
    },
    /// A tool failed.
    #[error("qemu-img cannot read {} as {format}: {message}", path.display())]
    Tool {
        /// Which image.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// What the tool said.
        message: String,
    },
    /// The image needs other files.
    #[error("{} refers to {other}, which is not read on its behalf; flatten it first: qemu-img convert -O raw IMAGE NEW", path.display())]
    NotAlone {
        /// Which image.
        path: PathBuf,
        /// What it refers to.
        other: String,
    },
    /// The cancel flag was set.
    #[error("cancelled")]
    Cancelled,
}

/// An image, open to be read. Any number of threads may use one.
pub struct Image {
    path: PathBuf,
    format: ImageFormat,
    bytes: u64,
    // Before the copy, so that the file is closed when the copy is removed.
    source: Source,
    _copy: Option<TempPath>,
}

enum Source {
    Raw(File),
    Qcow2(Box<FormatAccess<imago::file::File>>),
}

impl Image {
    /// Opens an image. A raw copy, where one is needed, is made in `scratch_dir`; that ends early when `cancel` is set.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn open(path: &Path, scratch_dir: &Path, cancel: &AtomicBool) -> Result<Self, ImageError> {
        let io = |source| ImageError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let mut beginning = Vec::new();
        Read::take(&mut file, 512).read_to_end(&mut beginning).map_err(io)?;
        if beginning.starts_with(b"SWARMDSK") {
            return Err(ImageError::Packed { path: path.to_owned() });
        }
        let format = ImageFormat::detect(&beginning);
        let (source, copy) = match format {
            ImageFormat::Raw => (Source::Raw(file), None),
            ImageFormat::Qcow2 if !has_zstd_clusters(&beginning) => (open_qcow2(path, file, &beginning)?, None),
            _ => {
                let copy = convert(path, format, scratch_dir, cancel)?;
                (Source::Raw(File::open(&copy).map_err(io)?), Some(copy))
            }
        };
        let bytes = match &source {
            // Seeking tells the size of block devices too.
            Source::Raw(file) => { file }.seek(SeekFrom::End(0)).map_err(io)?,
            Source::Qcow2(access) => access.size(),
        };
        if bytes == 0 {
            return Err(ImageError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), format, bytes, source, _copy: copy })
    }

    /// Its format.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// Size of the disk that it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `out` with the disk's bytes from `offset` on; all must be within the disk.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), ImageError> {
        let result = match &self.source {
            Source::Raw(file) => read_exact_at(file, out, offset),
            Source::Qcow2(access) => access.read(out, offset),
        };
        result.map_err(|source| ImageError::Io { path: self.path.clone(), source })
    }

    /// The first byte at or after `offset` that may be other than zero; the disk's size if there is none.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn next_data(&self, offset: u64) -> Result<u64, ImageError> {
        let result = match &self.source {
            Source::Raw(file) => next_data_raw(file, offset, self.bytes),
            Source::Qcow2(access) => next_data_qcow2(access, offset, self.bytes),
        };
        result.map_err(|source| ImageError::Io { path: self.path.clone(), source })
    }
}

/// Where holes are not told (no such file system, a block device), all is data.
fn next_data_raw(file: &File, offset: u64, end: u64) -> io::Result<u64> {
    match next_data(file, offset) {
        // Said at a hole that reaches to the end, but also of a file that was cut short meanwhile.
        Some(u64::MAX) if { file }.seek(SeekFrom::End(0))? < end => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter"))
        }
        data => Ok(data.unwrap_or(offset).min(end)),
    }
}

fn next_data_qcow2(access: &FormatAccess<imago::file::File>, mut offset: u64, end: u64) -> io::Result<u64> {
    while offset < end {
        match access.get_mapping(offset, end - offset)? {
            (Mapping::Zero { .. }, bytes) if bytes > 0 => offset += bytes,
            _ => break,
        }
    }
    Ok(offset.min(end))
}

/// A qcow2 header's incompatible features: none before version 3. See QEMU's `docs/interop/qcow2.rst`.
fn qcow2_features(header: &[u8]) -> u8 {
    let is_v3 = header.get(4..8).is_some_and(|version| version >= &[0, 0, 0, 3][..]);
    if is_v3 { header.get(79).copied().unwrap_or(0) } else { 0 }
}

/// Whether a qcow2 image is compressed by other than deflate, which the reader at hand does not know.
fn has_zstd_clusters(header: &[u8]) -> bool {
    qcow2_features(header) & 1 << 3 != 0
}

fn open_qcow2(path: &Path, file: File, header: &[u8]) -> Result<Source, ImageError> {
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let has_backing_file = header.get(8..16).is_some_and(|offset| offset != [0; 8]);
    let has_data_file = qcow2_features(header) & 1 << 2 != 0;
    if has_backing_file || has_data_file {
        let other = if has_backing_file { "a backing file" } else { "an external data file" };
        return Err(ImageError::NotAlone { path: path.to_owned(), other: other.to_owned() });
    }
    let storage = imago::file::File::try_from(file).map_err(io)?;
    let qcow2 = Qcow2::<imago::file::File>::builder(storage).open(DenyImplicitOpenGate::default()).map_err(io)?;
    Ok(Source::Qcow2(Box::new(FormatAccess::new(qcow2))))
}

/// A raw copy of the image, in a file that goes when it is dropped.
fn convert(path: &Path, format: ImageFormat, scratch_dir: &Path, cancel: &AtomicBool) -> Result<TempPath, ImageError> {
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    // An absolute path is never taken for one of QEMU's "protocol:" names.
    let absolute = path.canonicalize().map_err(io)?;
    check_alone(path, &absolute, format, cancel)?;
    let copy = tempfile::Builder::new().prefix(".swarmdisk-raw-").tempfile_in(scratch_dir).map_err(io)?;
    let copy = copy.into_temp_path();
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-f", format.name(), "-O", "raw"]).arg(&absolute).arg(&copy);
    run(command, path, format, cancel)?;
    Ok(copy)
}

/// Refuses an image that draws on files outside its own folder.
fn check_alone(path: &Path, absolute: &Path, format: ImageFormat, cancel: &AtomicBool) -> Result<(), ImageError> {
    let mut command = Command::new("qemu-img");
    command.args(["info", "--output=json", "-f", format.name()]).arg(absolute);
    let output = run(command, path, format, cancel)?;
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| ImageError::Tool {
        path: path.to_owned(),
        format: format.name(),
        message: format!("its answer is not JSON: {error}"),
    })?;
    let refuse = |other: String| Err(ImageError::NotAlone { path: path.to_owned(), other });
    if let Some(backing) = info["backing-filename"].as_str() {
        return refuse(format!("the backing file {backing}"));
    }
    let data = &info["format-specific"]["data"];
    if let Some(data_file) = data["data-file"].as_str() {
        return refuse(format!("the data file {data_file}"));
    }
    for extent in data["extents"].as_array().into_iter().flatten() {
        let name = extent["filename"].as_str().unwrap_or_default();
        let real = Path::new(name).canonicalize();
        if real.ok().as_deref().and_then(Path::parent) != absolute.parent() {
            return refuse(format!("the extent {name} in another folder"));
        }
    }
    Ok(())
}

/// Runs a tool to its end, or until `cancel` is set.
fn run(mut command: Command, path: &Path, format: ImageFormat, cancel: &AtomicBool) -> Result<Output, ImageError> {
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::ToolMissing { path: path.to_owned(), format: format.name() });
        }
        Err(error) => return Err(io(error)),
    };
    while child.try_wait().map_err(io)?.is_none() {
        if cancel.load(Relaxed) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(ImageError::Cancelled);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(io)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = said.lines().next().unwrap_or("it gives no reason").to_owned();
    Err(ImageError::Tool { path: path.to_owned(), format: format.name(), message })
}
