//! Disk images that the tests make themselves, each from a seed: holes, text that compresses well and bytes that do not.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::TempDir;

/// What the parts of a mixed image are made of: a chunk of the default size each.
pub const PART_BYTES: u64 = 64 << 10;

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.draw().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

/// Writes a raw image of a third holes, a third text and a third bytes that do not compress; the last part may be short.
///
/// # Panics
/// When it cannot be written.
pub fn write_mixed(path: &Path, bytes: u64, seed: u64) {
    let (mut file, mut numbers) = (File::create(path).unwrap(), Numbers(seed));
    for offset in (0..bytes).step_by(PART_BYTES as usize) {
        let length = PART_BYTES.min(bytes - offset) as usize;
        let part = match numbers.below(3) {
            0 => continue,
            1 => format!("{seed} {offset:>12} all work and no play\n").into_bytes().repeat(length / 16),
            _ => numbers.bytes(length),
        };
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&part[..length]).unwrap();
    }
    file.set_len(bytes).unwrap();
}

/// Writes a raw image in which nothing compresses.
///
/// # Panics
/// When it cannot be written.
pub fn write_random(path: &Path, bytes: usize, seed: u64) {
    fs::write(path, Numbers(seed).bytes(bytes)).unwrap();
}

/// Inverts one bit of a file.
///
/// # Panics
/// When there is no such byte, or the file cannot be written.
pub fn flip(path: &Path, offset: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

/// A folder that goes with the answer. On Linux a path in it is short enough for a Unix socket.
///
/// # Panics
/// When it cannot be made.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("swarmdisk-test-").tempdir().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_image_is_what_its_seed_says() {
        let folder = folder();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        write_mixed(&one, (1 << 20) + 700, 7);
        write_mixed(&two, (1 << 20) + 700, 7);
        let bytes = fs::read(&one).unwrap();
        assert_eq!(bytes.len(), (1 << 20) + 700);
        assert_eq!(bytes, fs::read(&two).unwrap());
        let is_zeros = |part: &&[u8]| part.iter().all(|&byte| byte == 0);
        let zeros = bytes.chunks(PART_BYTES as usize).filter(is_zeros).count();
        assert!((1..16).contains(&zeros), "{zeros}");
        flip(&one, 70_000);
        let differing = bytes.iter().zip(fs::read(&one).unwrap()).filter(|(a, b)| **a != *b).count();
        assert_eq!(differing, 1);
    }
}
