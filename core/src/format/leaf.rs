//! Leaf pages: where each chunk's payload lies, how long it is, and its hash.
//!
//! *Purpose*: a page describes [`LEAF_CHUNKS`] chunks and is fetched like a chunk, so an image of any size starts at once.
//! *Invariants*: payloads of a page lie one after the other, inside the file's payload area; a payload is never longer
//! than its chunk; an all-zero chunk has no payload and a hash of zeros.
//! *Bounds*: 8 bytes, then 36 for each chunk; pages of one image are all equally long but for the last.

use super::manifest::{Codec, Layout};
use super::{array, u32_at, u64_at};
use crate::geometry::{ChunkIndex, Geometry, LEAF_CHUNKS, LeafIndex};
use crate::ids::Digest;

/// Bytes of a page that describe one chunk.
pub const ENTRY_BYTES: usize = 36;
/// Length of every page but perhaps the last.
pub const LEAF_BYTES_MAX: usize = leaf_bytes(LEAF_CHUNKS);
const STORED: u32 = 1 << 31;

/// Length of a page that describes `chunk_count` chunks, at most [`LEAF_CHUNKS`].
pub const fn leaf_bytes(chunk_count: u32) -> usize {
    8 + chunk_count as usize * ENTRY_BYTES
}

/// What a page says of one chunk.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct LeafEntry {
    /// The payload's hash; zeros for an all-zero chunk.
    pub digest: Digest,
    /// Where the payload lies in the file.
    pub offset: u64,
    /// Length of the payload; 0 for an all-zero chunk.
    pub bytes: u32,
    /// Whether the payload is the chunk itself, not compressed.
    pub stored: bool,
}

impl LeafEntry {
    /// Whether the chunk is all zeros.
    pub const fn is_zero(&self) -> bool {
        self.bytes == 0
    }
}

/// A page's bytes, checked.
#[derive(Debug, Copy, Clone)]
pub struct LeafView<'a> {
    bytes: &'a [u8],
    geometry: Geometry,
    leaf: LeafIndex,
}

/// Why these bytes are no such page. Whoever made the image is at fault; nothing was changed.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum LeafError {
    /// Not as long as the page has to be.
    Length,
    /// The payload of the chunk with this index is too long, or not coded as the image's codec allows.
    Entry(u32),
    /// The payloads reach outside the file's payload area.
    Range,
}

impl<'a> LeafView<'a> {
    /// Checks a page. The caller has compared its hash with the manifest's. `leaf` must be of this layout's geometry.
    ///
    /// # Errors
    /// See [`LeafError`].
    pub fn parse(bytes: &'a [u8], layout: &Layout, leaf: LeafIndex) -> Result<Self, LeafError> {
        if bytes.len() != layout.leaf_bytes(leaf) as usize {
            return Err(LeafError::Length);
        }
        let this = Self { bytes, geometry: layout.geometry(), leaf };
        // At most 256 payloads of at most 1 MiB: their sum fits easily.
        let mut sum = 0u64;
        for chunk in this.chunks() {
            let length = this.length(chunk.get() - leaf.first_chunk());
            if !is_sound(length, this.digest(chunk), this.geometry.chunk_len(chunk), layout.codec()) {
                return Err(LeafError::Entry(chunk.get()));
            }
            sum += u64::from(length & !STORED);
        }
        let first = u64_at(bytes, 0);
        let end = first.checked_add(sum).ok_or(LeafError::Range)?;
        if first < layout.payload_offset() || end > layout.file_bytes() {
            return Err(LeafError::Range);
        }
        Ok(this)
    }

    /// What the page says of this chunk; nothing if another page describes it. Sums up the lengths before it: for all
    /// chunks of a page use [`entries`](Self::entries).
    pub fn entry(&self, chunk: ChunkIndex) -> Option<LeafEntry> {
        let at = chunk.get().checked_sub(self.leaf.first_chunk())?;
        self.entries().nth(at as usize).map(|(_, entry)| entry)
    }

    /// All chunks of the page, in order, each with what the page says of it.
    pub fn entries(self) -> impl Iterator<Item = (ChunkIndex, LeafEntry)> + use<'a> {
        let mut offset = u64_at(self.bytes, 0);
        self.chunks().map(move |chunk| {
            let length = self.length(chunk.get() - self.leaf.first_chunk());
            let bytes = length & !STORED;
            let entry = LeafEntry { digest: self.digest(chunk), offset, bytes, stored: length & STORED != 0 };
            offset += u64::from(bytes);
            (chunk, entry)
        })
    }

    /// The runs of all-zero chunks, as (first, count), in order.
    pub fn zero_runs(self) -> impl Iterator<Item = (ChunkIndex, u32)> + use<'a> {
        let mut chunks = self.chunks().peekable();
        core::iter::from_fn(move || {
            let is_zero = |chunk: &ChunkIndex| self.length(chunk.get() - self.leaf.first_chunk()) == 0;
            let first = chunks.find(is_zero)?;
            let mut count = 1;
            while chunks.next_if(is_zero).is_some() {
                count += 1;
            }
            Some((first, count))
        })
    }

    fn chunks(&self) -> impl Iterator<Item = ChunkIndex> + use<'a> {
        let (geometry, first) = (self.geometry, self.leaf.first_chunk());
        (first..first + geometry.leaf_chunk_count(self.leaf)).filter_map(move |index| geometry.chunk(index))
    }

    fn length(&self, in_page: u32) -> u32 {
        u32_at(self.bytes, 8 + in_page as usize * ENTRY_BYTES + 32)
    }

    fn digest(&self, chunk: ChunkIndex) -> Digest {
        Digest(array(self.bytes, 8 + (chunk.get() - self.leaf.first_chunk()) as usize * ENTRY_BYTES))
    }
}

fn is_sound(length: u32, digest: Digest, chunk_len: u32, codec: Codec) -> bool {
    let bytes = length & !STORED;
    if length == 0 {
        digest == Digest::default()
    } else if length & STORED != 0 {
        bytes == chunk_len
    } else {
        bytes < chunk_len && codec == Codec::Zstd
    }
}

/// Begins a page: the offset of its first payload. `out` is of [`leaf_bytes`] length.
pub fn encode_start(out: &mut [u8], payload_offset: u64) {
    out[..8].copy_from_slice(&payload_offset.to_le_bytes());
}

/// Sets what a page says of its `in_page`-th chunk. `entry.offset` is implied and not written.
pub fn encode_entry(out: &mut [u8], in_page: u32, entry: &LeafEntry) {
    let at = 8 + in_page as usize * ENTRY_BYTES;
    let length = entry.bytes | if entry.stored { STORED } else { 0 };
    out[at..at + 32].copy_from_slice(&entry.digest.0);
    out[at + 32..at + ENTRY_BYTES].copy_from_slice(&length.to_le_bytes());
}

impl core::fmt::Display for LeafError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length => f.write_str("the leaf page's length is wrong"),
            Self::Entry(chunk) => write!(f, "the leaf page's entry for chunk {chunk} is unsound"),
            Self::Range => f.write_str("the leaf page places payloads outside the file"),
        }
    }
}

impl core::error::Error for LeafError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const CHUNK: u32 = 1 << 14;

    fn layout(chunks: u64, payload: u64) -> Layout {
        Layout::plan(Geometry::new(chunks * u64::from(CHUNK) - 100, 14).unwrap(), Codec::Zstd, payload).unwrap()
    }

    /// Entries of the page's chunks: 0 zero, 1 stored, else compressed to that many bytes.
    fn page(layout: &Layout, leaf: LeafIndex, kinds: &[u32]) -> Vec<u8> {
        let g = layout.geometry();
        let mut out = std::vec![0; layout.leaf_bytes(leaf) as usize];
        encode_start(&mut out, layout.payload_offset());
        for (at, kind) in kinds.iter().enumerate() {
            let chunk = g.chunk(leaf.first_chunk() + at as u32).unwrap();
            let bytes = if *kind == 1 { g.chunk_len(chunk) } else { *kind };
            let digest = if bytes == 0 { Digest::default() } else { Digest([at as u8 | 1; 32]) };
            encode_entry(&mut out, at as u32, &LeafEntry { digest, offset: 0, bytes, stored: *kind == 1 });
        }
        out
    }

    proptest! {
        #[test]
        fn round_trip(
            kinds in prop::collection::vec(prop_oneof![Just(0), Just(1), 2u32..CHUNK - 100], 1..300),
        ) {
            let layout = layout(kinds.len() as u64, 1 << 40);
            let g = layout.geometry();
            for leaf in (0..g.leaf_count()).map(|i| g.leaf(i).unwrap()) {
                let first = leaf.first_chunk() as usize;
                let own = &kinds[first..first + g.leaf_chunk_count(leaf) as usize];
                let bytes = page(&layout, leaf, own);
                let view = LeafView::parse(&bytes, &layout, leaf).unwrap();
                let mut offset = layout.payload_offset();
                for ((chunk, entry), kind) in view.entries().zip(own) {
                    prop_assert_eq!(entry.offset, offset);
                    prop_assert_eq!(entry.is_zero(), *kind == 0);
                    prop_assert_eq!(entry.stored, *kind == 1);
                    prop_assert_eq!(view.entry(chunk), Some(entry));
                    offset += u64::from(entry.bytes);
                }
                let zeros: Vec<u32> = view.zero_runs().flat_map(|(c, n)| c.get()..c.get() + n).collect();
                let expected: Vec<u32> =
                    (0..own.len()).filter(|i| own[*i] == 0).map(|i| (first + i) as u32).collect();
                prop_assert_eq!(zeros, expected);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 8 + 36 * 3), lengths in any::<[u16; 3]>()) {
            let layout = layout(3, 1 << 20);
            let leaf = layout.geometry().leaf(0).unwrap();
            let _ = LeafView::parse(&bytes, &layout, leaf).map(|view| view.entries().count());
            let mut bytes = bytes;
            encode_start(&mut bytes, layout.payload_offset());
            for (at, length) in lengths.into_iter().enumerate() {
                bytes[8 + at * 36 + 32..8 + at * 36 + 36].copy_from_slice(&u32::from(length).to_le_bytes());
            }
            let _ = LeafView::parse(&bytes, &layout, leaf).map(|view| view.entries().count());
        }
    }

    #[test]
    fn unsound_entries_are_refused() {
        let layout = layout(3, 100_000);
        let leaf = layout.geometry().leaf(0).unwrap();
        let good = page(&layout, leaf, &[5, 0, 1]);
        assert!(LeafView::parse(&good, &layout, leaf).is_ok());
        assert_eq!(LeafView::parse(&good[1..], &layout, leaf).err(), Some(LeafError::Length));
        let set = |at: u32, length: u32| {
            let mut bad = good.clone();
            bad[8 + at as usize * 36 + 32..][..4].copy_from_slice(&length.to_le_bytes());
            LeafView::parse(&bad, &layout, leaf).err()
        };
        assert_eq!(set(0, CHUNK), Some(LeafError::Entry(0)), "compressed but not shorter");
        assert_eq!(set(0, 0), Some(LeafError::Entry(0)), "zero with a hash");
        assert_eq!(set(2, STORED | CHUNK), Some(LeafError::Entry(2)), "longer than the short last chunk");
        assert_eq!(set(1, STORED), Some(LeafError::Entry(1)), "stored and empty");
        for first in [0, u64::MAX, layout.file_bytes()] {
            let mut bad = good.clone();
            encode_start(&mut bad, first);
            assert_eq!(LeafView::parse(&bad, &layout, leaf).err(), Some(LeafError::Range));
        }
    }

    #[test]
    fn an_image_without_codec_has_no_compressed_payload() {
        let layout = Layout::plan(Geometry::new(u64::from(CHUNK), 14).unwrap(), Codec::None, 1 << 20).unwrap();
        let leaf = layout.geometry().leaf(0).unwrap();
        assert_eq!(LeafView::parse(&page(&layout, leaf, &[5]), &layout, leaf).err(), Some(LeafError::Entry(0)));
        assert!(LeafView::parse(&page(&layout, leaf, &[1]), &layout, leaf).is_ok());
    }
}
