//! Decompressed chunks in memory, least recently used out first, and the zeros that all-zero chunks share.
//!
//! *Bounds*: so many bytes of chunks; a chunk larger than the whole budget is not kept.

use bytes::Bytes;
use lru::LruCache;
use std::sync::{Mutex, MutexGuard, PoisonError};
use swarmdisk_core::geometry::{CHUNK_SHIFT_MAX, ChunkIndex};

/// Budget unless another is set: 24 MiB.
pub(crate) const BUDGET_BYTES_DEFAULT: usize = 24 << 20;
static ZEROS: [u8; 1 << CHUNK_SHIFT_MAX] = [0; 1 << CHUNK_SHIFT_MAX];

/// `bytes` zeros, at most a largest chunk of them; nothing is allocated.
pub(crate) fn zeros(bytes: u32) -> Bytes {
    Bytes::from_static(&ZEROS[..bytes as usize])
}

/// Whether these are the zeros that all-zero chunks share. It does not look at the bytes.
pub fn is_zeros(data: &Bytes) -> bool {
    ZEROS.as_ptr_range().contains(&data.as_ptr())
}

pub(crate) struct ChunkCache {
    budget_bytes: usize,
    kept: Mutex<Kept>,
}

struct Kept {
    chunks: LruCache<ChunkIndex, Bytes>,
    bytes: usize,
}

impl ChunkCache {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, kept: Mutex::new(Kept { chunks: LruCache::unbounded(), bytes: 0 }) }
    }

    pub(crate) fn get(&self, chunk: ChunkIndex) -> Option<Bytes> {
        self.lock().chunks.get(&chunk).cloned()
    }

    pub(crate) fn put(&self, chunk: ChunkIndex, data: &Bytes) {
        if data.len() > self.budget_bytes {
            return;
        }
        let mut kept = self.lock();
        if let Some(old) = kept.chunks.put(chunk, data.clone()) {
            kept.bytes -= old.len();
        }
        kept.bytes += data.len();
        while kept.bytes > self.budget_bytes {
            let Some((_, oldest)) = kept.chunks.pop_lru() else { break };
            kept.bytes -= oldest.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmdisk_core::geometry::Geometry;

    #[test]
    fn the_budget_holds_and_the_least_recently_used_leaves() {
        let g = Geometry::new(100 << 16, 16).unwrap();
        let chunk = |index| g.chunk(index).unwrap();
        let cache = ChunkCache::new(1000);
        for index in 0..3 {
            cache.put(chunk(index), &Bytes::from(vec![index as u8; 300]));
        }
        assert!(cache.get(chunk(0)).is_some());
        cache.put(chunk(3), &Bytes::from(vec![3; 300]));
        assert!(cache.get(chunk(1)).is_none());
        cache.put(chunk(3), &Bytes::from(vec![4; 100]));
        assert_eq!(cache.lock().bytes, 700);
        cache.put(chunk(4), &Bytes::from(vec![4; 1001]));
        assert!(cache.get(chunk(4)).is_none());
        assert!(cache.get(chunk(0)).is_some());
    }
}
