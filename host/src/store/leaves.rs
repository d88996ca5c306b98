//! Leaf pages in memory: parsed once, kept as far as they are used.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use swarmdisk_core::format::leaf::{LeafEntry, LeafError, LeafView};
use swarmdisk_core::format::manifest::Layout;
use swarmdisk_core::geometry::{ChunkIndex, Geometry, LeafIndex};

/// Pages kept in memory: about 12 KiB each, and 16 MiB of image by default.
const PAGES_MAX: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// A verified leaf page: where each of its chunks' payloads lies, how long it is, and its hash.
#[derive(Debug)]
pub struct LeafPage {
    leaf: LeafIndex,
    entries: Box<[LeafEntry]>,
    zero_runs: Box<[(ChunkIndex, u32)]>,
}

impl LeafPage {
    /// Parses a page whose hash has been compared.
    pub(crate) fn parse(bytes: &[u8], layout: &Layout, leaf: LeafIndex) -> Result<Self, LeafError> {
        let view = LeafView::parse(bytes, layout, leaf)?;
        let entries = view.entries().map(|(_, entry)| entry).collect();
        Ok(Self { leaf, entries, zero_runs: view.zero_runs().collect() })
    }

    /// Which page it is.
    pub fn leaf(&self) -> LeafIndex {
        self.leaf
    }

    /// What the page says of this chunk; nothing if another page describes it.
    pub fn entry(&self, chunk: ChunkIndex) -> Option<&LeafEntry> {
        let at = chunk.get().checked_sub(self.leaf.first_chunk())?;
        self.entries.get(at as usize)
    }

    /// What the page says of each of its chunks.
    pub(crate) fn entries(&self, geometry: Geometry) -> impl Iterator<Item = (ChunkIndex, &LeafEntry)> {
        let chunks = (self.leaf.first_chunk()..).map_while(move |index| geometry.chunk(index));
        chunks.zip(&self.entries)
    }

    /// The runs of all-zero chunks, as (first, count), in order.
    pub fn zero_runs(&self) -> &[(ChunkIndex, u32)] {
        &self.zero_runs
    }
}

/// The pages in memory.
pub(crate) struct LeafCache(Mutex<LruCache<LeafIndex, Arc<LeafPage>>>);

impl LeafCache {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::sparse(PAGES_MAX)))
    }

    pub(crate) fn get(&self, leaf: LeafIndex) -> Option<Arc<LeafPage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&leaf).cloned()
    }

    pub(crate) fn put(&self, page: &Arc<LeafPage>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(page.leaf, page.clone());
    }

    pub(crate) fn forget(&self, leaf: LeafIndex) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop(&leaf);
    }
}
