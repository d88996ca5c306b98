//! How an image is cut, and the typed indices that name its parts.
//!
//! *Purpose*: one index space for all that is requested, verified and held: a *piece* is a chunk's payload (pieces
//! `0..chunk_count`) or a leaf page (the pieces after it).
//! *Invariants*: an index is minted only by the [`Geometry`] it belongs to, so it is in range.
//! *Bounds*: chunks of 16 KiB to 1 MiB; at most 2^30 chunks.

use serde::{Deserialize, Serialize};

/// Chunks described by one leaf page.
pub const LEAF_CHUNKS: u32 = 256;
/// Bytes before a leaf page's entries: the file offset of the page's first payload.
pub const LEAF_HEADER_BYTES: u32 = 8;
/// Bytes a chunk in a leaf page: hash and length.
pub const LEAF_ENTRY_BYTES: u32 = 36;
/// Smallest chunk, as a power of two: 16 KiB.
pub const CHUNK_SHIFT_MIN: u8 = 14;
/// Largest chunk, as a power of two: 1 MiB.
pub const CHUNK_SHIFT_MAX: u8 = 20;
/// Chunk size by default, as a power of two: 64 KiB.
pub const CHUNK_SHIFT_DEFAULT: u8 = 16;
const CHUNK_COUNT_MAX: u64 = 1 << 30;

/// The index of a chunk, in image order.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkIndex(u32);

/// The index of a leaf page; it describes chunks `leaf * LEAF_CHUNKS ..`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeafIndex(u32);

/// The index of a piece: a chunk or a leaf page.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PieceIndex(u32);

/// What a piece is.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A chunk's payload.
    Chunk(ChunkIndex),
    /// A leaf page.
    Leaf(LeafIndex),
}

/// Why a [`Geometry`] cannot be: the image is empty, the chunk size out of bounds, or there are too many chunks.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BadGeometry;

/// Size of an image and of its chunks.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Geometry {
    image_bytes: u64,
    chunk_shift: u8,
}

impl Geometry {
    /// An image of `image_bytes` bytes in chunks of `1 << chunk_shift` bytes; the last may be shorter.
    ///
    /// # Errors
    /// [`BadGeometry`] if the image is empty, the shift is outside 14 to 20, or there would be over 2^30 chunks.
    pub const fn new(image_bytes: u64, chunk_shift: u8) -> Result<Self, BadGeometry> {
        if image_bytes == 0 || chunk_shift < CHUNK_SHIFT_MIN || chunk_shift > CHUNK_SHIFT_MAX {
            return Err(BadGeometry);
        }
        if image_bytes.div_ceil(1 << chunk_shift) > CHUNK_COUNT_MAX {
            return Err(BadGeometry);
        }
        Ok(Self { image_bytes, chunk_shift })
    }

    /// Size of the image in bytes.
    pub const fn image_bytes(self) -> u64 {
        self.image_bytes
    }

    /// Size of a chunk as a power of two.
    pub const fn chunk_shift(self) -> u8 {
        self.chunk_shift
    }

    /// Size of every chunk but perhaps the last, in bytes.
    pub const fn chunk_bytes(self) -> u32 {
        1 << self.chunk_shift
    }

    /// Number of chunks.
    pub const fn chunk_count(self) -> u32 {
        self.image_bytes.div_ceil(1 << self.chunk_shift) as u32
    }

    /// Number of leaf pages.
    pub const fn leaf_count(self) -> u32 {
        self.chunk_count().div_ceil(LEAF_CHUNKS)
    }

    /// Number of pieces: chunks and leaf pages.
    pub const fn piece_count(self) -> u32 {
        self.chunk_count() + self.leaf_count()
    }

    /// 64-bit words of a bitmap with a bit for each piece.
    pub const fn bitmap_words(self) -> usize {
        self.piece_count().div_ceil(64) as usize
    }

    /// The chunk with this index, if there is one.
    pub const fn chunk(self, index: u32) -> Option<ChunkIndex> {
        if index < self.chunk_count() { Some(ChunkIndex(index)) } else { None }
    }

    /// The leaf page with this index, if there is one.
    pub const fn leaf(self, index: u32) -> Option<LeafIndex> {
        if index < self.leaf_count() { Some(LeafIndex(index)) } else { None }
    }

    /// The piece with this index, if there is one.
    pub const fn piece(self, index: u32) -> Option<PieceIndex> {
        if index < self.piece_count() { Some(PieceIndex(index)) } else { None }
    }

    /// The chunk that holds the byte at `offset`, if it is within the image.
    pub const fn chunk_at(self, offset: u64) -> Option<ChunkIndex> {
        if offset < self.image_bytes { Some(ChunkIndex((offset >> self.chunk_shift) as u32)) } else { None }
    }

    /// Offset of a chunk's first byte in the image.
    pub const fn chunk_offset(self, chunk: ChunkIndex) -> u64 {
        (chunk.0 as u64) << self.chunk_shift
    }

    /// Bytes of this chunk, before compression; only the last may be short.
    pub const fn chunk_len(self, chunk: ChunkIndex) -> u32 {
        let left = self.image_bytes - self.chunk_offset(chunk);
        if left < self.chunk_bytes() as u64 { left as u32 } else { self.chunk_bytes() }
    }

    /// The leaf page that describes this chunk.
    pub const fn leaf_of(self, chunk: ChunkIndex) -> LeafIndex {
        LeafIndex(chunk.0 / LEAF_CHUNKS)
    }

    /// Number of chunks that this leaf page describes.
    pub const fn leaf_chunk_count(self, leaf: LeafIndex) -> u32 {
        let left = self.chunk_count() - leaf.0 * LEAF_CHUNKS;
        if left < LEAF_CHUNKS { left } else { LEAF_CHUNKS }
    }

    /// Size of this leaf page in bytes.
    pub const fn leaf_bytes(self, leaf: LeafIndex) -> u32 {
        LEAF_HEADER_BYTES + self.leaf_chunk_count(leaf) * LEAF_ENTRY_BYTES
    }

    /// The piece that is this chunk's payload.
    pub const fn chunk_piece(self, chunk: ChunkIndex) -> PieceIndex {
        PieceIndex(chunk.0)
    }

    /// The piece that is this leaf page.
    pub const fn leaf_piece(self, leaf: LeafIndex) -> PieceIndex {
        PieceIndex(self.chunk_count() + leaf.0)
    }

    /// What this piece is.
    pub const fn kind(self, piece: PieceIndex) -> Piece {
        if piece.0 < self.chunk_count() {
            Piece::Chunk(ChunkIndex(piece.0))
        } else {
            Piece::Leaf(LeafIndex(piece.0 - self.chunk_count()))
        }
    }
}

impl ChunkIndex {
    /// As a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl LeafIndex {
    /// As a number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Index of the first chunk that this page describes.
    pub const fn first_chunk(self) -> u32 {
        self.0 * LEAF_CHUNKS
    }
}

impl PieceIndex {
    /// As a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_chunk_and_last_leaf_are_short() {
        let g = Geometry::new((LEAF_CHUNKS as u64 + 1) * 65536 + 5, 16).unwrap();
        assert_eq!((g.chunk_count(), g.leaf_count(), g.piece_count()), (258, 2, 260));
        assert_eq!(g.chunk_len(g.chunk(257).unwrap()), 5);
        assert_eq!(g.leaf_chunk_count(g.leaf(1).unwrap()), 2);
        assert_eq!(g.kind(g.piece(258).unwrap()), Piece::Leaf(g.leaf(0).unwrap()));
        assert_eq!(g.chunk_at(g.image_bytes()), None);
        assert_eq!(g.piece(260), None);
    }

    #[test]
    fn out_of_bounds_is_refused() {
        assert!(Geometry::new(0, 16).is_err());
        assert!(Geometry::new(1, 13).is_err());
        assert!(Geometry::new(1, 21).is_err());
        assert!(Geometry::new(1 << 46, 14).is_err());
    }
}
