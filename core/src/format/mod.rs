//! File formats: what every host reads alike. `FORMAT.md` has the bytes.
//!
//! *Purpose*: a `.swarm` file is [`superblock`], [`manifest`], [`leaf`] pages, payloads; beside a cache lies its
//! [`held`] log; a [`profile`] is a file of its own, so is a [`recording`] of an engine, and an [`overlay`] of an image.
//! *Invariants*: no bytes make a parser panic or allocate; what parses has had every length, offset and index checked.
//! Hashes are computed and compared by the host: this crate knows no hash function.
//! *Units*: offsets and lengths in bytes, little-endian.

pub mod held;
pub mod leaf;
pub mod manifest;
pub mod overlay;
pub mod profile;
pub mod recording;
pub mod superblock;

/// The `N` bytes at `at`; the caller has checked that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
