//! The images that are measured with: one of made-up contents, packed as it is and compressed.
//!
//! *Invariants*: every chunk is another, and compresses about as a server's boot set does. *Units*: bytes.
//! *Bounds*: three times the image's size in the temporary folder, and as much page cache.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::compare::session::{Failure, Span};
use crate::fixture::text;
use crate::images::{Numbers, folder};
use crate::process::Swarmdisk;

/// Size of a chunk.
pub const CHUNK_BYTES: u64 = 64 << 10;
/// Size of the image: far more than decompressed chunks are kept.
const IMAGE_BYTES: u64 = 512 << 20;
const IMAGE_BYTES_QUICK: u64 = 32 << 20;
/// Contents are drawn from so many words and so many bytes of text made of them.
const WORDS: usize = 4096;
const TEXT_BYTES: usize = 4 << 20;

/// How an image is packed.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Codec {
    /// As it is: "raw".
    None,
    /// The default.
    Zstd,
}

/// One image, in all its forms.
#[derive(Debug)]
pub struct Subject {
    /// The raw image.
    pub raw: PathBuf,
    /// Its size.
    pub image_bytes: u64,
    none: Packed,
    zstd: Packed,
    folder: TempDir,
}

/// A packed image.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The file.
    pub path: PathBuf,
    /// Its id.
    pub id: String,
    /// Its size.
    pub bytes: u64,
}

impl Subject {
    /// Makes it, in a folder that goes with it.
    ///
    /// # Errors
    /// When it cannot be written or packed.
    pub fn make(swarmdisk: &Swarmdisk, is_quick: bool, span: &Span<'_>) -> Result<Self, Failure> {
        let folder = folder();
        let raw = folder.path().join("disk.raw");
        let image_bytes = if is_quick { IMAGE_BYTES_QUICK } else { IMAGE_BYTES };
        write_image(&raw, image_bytes).map_err(Failure::file(&raw))?;
        let none = pack(swarmdisk, &raw, &folder.path().join("none.swarm"), Codec::None, span)?;
        let zstd = pack(swarmdisk, &raw, &folder.path().join("zstd.swarm"), Codec::Zstd, span)?;
        Ok(Self { raw, image_bytes, none, zstd, folder })
    }

    /// It, packed so.
    pub fn packed(&self, codec: Codec) -> &Packed {
        match codec {
            Codec::None => &self.none,
            Codec::Zstd => &self.zstd,
        }
    }

    /// A path in its folder; short enough for a Unix socket.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Packs an image.
///
/// # Errors
/// When that fails.
pub fn pack(swarmdisk: &Swarmdisk, raw: &Path, path: &Path, codec: Codec, span: &Span<'_>) -> Result<Packed, Failure> {
    let name = match codec {
        Codec::None => "none",
        Codec::Zstd => "zstd",
    };
    let id = span.succeed(swarmdisk.command(["pack", "--codec", name, &text(raw), &text(path)]))?;
    let bytes = fs::metadata(path).map_err(Failure::file(path))?.len();
    Ok(Packed { path: path.to_owned(), id: id.trim().to_owned(), bytes })
}

/// Chunks of text from one long one, each from another place and with its number in front.
fn write_image(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut numbers = Numbers(1);
    let text = long_text(&mut numbers);
    let mut file = BufWriter::new(File::create(path)?);
    for number in 0..bytes / CHUNK_BYTES {
        let number = number.to_le_bytes();
        let rest = CHUNK_BYTES as usize - number.len();
        let from = numbers.below((TEXT_BYTES - rest) as u64) as usize;
        file.write_all(&number)?;
        file.write_all(&text[from..from + rest])?;
    }
    file.into_inner()?.sync_all()
}

/// Words in any order, some numbers in between.
fn long_text(numbers: &mut Numbers) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..WORDS)
        .map(|_| {
            let bytes = 4 + numbers.below(12) as usize;
            numbers.bytes(bytes)
        })
        .collect();
    let mut text = Vec::with_capacity(TEXT_BYTES + 32);
    while text.len() < TEXT_BYTES {
        // Programs and their data use few words often.
        let most = 1 + numbers.below(WORDS as u64);
        text.extend(&words[numbers.below(most) as usize]);
        if numbers.below(5) == 0 {
            let number = numbers.bytes(2);
            text.extend(number);
        }
    }
    text
}
