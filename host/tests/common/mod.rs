//! Images to test with, made in a temporary folder.
#![allow(dead_code)]

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use swarmdisk_core::geometry::PieceIndex;
use swarmdisk_host::pack::{PackOptions, PackReport, pack};
use swarmdisk_host::store::Store;
use tempfile::TempDir;

pub static GO_ON: AtomicBool = AtomicBool::new(false);

/// A raw image: text, noise and zeros in turn, chunk by chunk of 64 KiB; more than one leaf page; the end is odd.
pub fn image_bytes(chunks: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks << 16);
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in 0..chunks {
        for at in 0..(1usize << 16) / 8 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let word = match chunk % 4 {
                0 => (chunk * 1000 + at / 64) as u64,
                1 if chunk % 8 == 1 => noise,
                1 => u64::from_le_bytes(*b"swarm and"[..8].first_chunk().unwrap()),
                _ => 0,
            };
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes.truncate((chunks << 16) - 512 * 3);
    bytes
}

/// A packed image and what it was made of.
pub struct Packed {
    pub dir: TempDir,
    pub raw: PathBuf,
    pub swarm: PathBuf,
    pub bytes: Vec<u8>,
    pub report: PackReport,
}

pub fn packed(chunks: usize) -> Packed {
    let dir = tempfile::tempdir().unwrap();
    let (raw, swarm) = (dir.path().join("image.raw"), dir.path().join("image.swarm"));
    let bytes = image_bytes(chunks);
    fs::write(&raw, &bytes).unwrap();
    let report = pack(&PackOptions::new(&raw, &swarm, &GO_ON), &|_, _| {}).unwrap();
    Packed { dir, raw, swarm, bytes, report }
}

/// Puts a piece of `from` into `to`, as a node would that has just received it.
pub fn copy_piece(from: &Store, to: &Store, piece: PieceIndex) -> Vec<(PieceIndex, u32)> {
    let payload = from.read_payload(piece).unwrap();
    assert!(to.verify(piece, &payload).unwrap());
    to.put(piece, &payload).unwrap()
}

/// All pieces, leaf pages first.
pub fn leaves_first(store: &Store) -> impl Iterator<Item = PieceIndex> {
    let g = store.geometry();
    (g.chunk_count()..g.piece_count()).chain(0..g.chunk_count()).map(move |index| g.piece(index).unwrap())
}

/// Writes into a file that is there.
pub fn write_at(path: &Path, bytes: &[u8], offset: u64) {
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Changes these bits of a byte of a file.
pub fn flip(path: &Path, offset: u64, bits: u8) {
    let mut file = fs::File::open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    write_at(path, &[byte[0] ^ bits], offset);
}

/// The names in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Whether to go on without a tool: says so, and what to install; with `CI=true` that is a failure.
pub fn skip(what: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "skipped with CI=true: {what}");
    eprintln!("SKIPPED: {what}");
}
