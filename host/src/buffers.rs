//! Buffers for what is read to be sent on at once, used again and again: fresh memory of that size comes from the system
//! page by page, which costs as much as the copy into it.
//!
//! *Invariants*: a buffer is back when the last reference to its bytes is dropped. *Bounds*: buffers hold at most
//! [`BUFFER_BYTES`]; [`KEPT`] of them are kept while nobody uses them.

use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Capacity of a buffer.
pub(crate) const BUFFER_BYTES: usize = 128 << 10;
/// Shorter reads have memory of their own: the allocator has that at hand.
const SHORT_BYTES: usize = 8 << 10;
/// Together 4 MiB: what one client reads ahead.
const KEPT: usize = 32;

static POOL: Pool = Pool(Mutex::new(Vec::new()));

/// What `fill` puts into an empty buffer that has room for `bytes` bytes; none if it does not succeed.
pub(crate) fn filled(bytes: usize, fill: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<Bytes> {
    POOL.filled(bytes, fill)
}

/// Buffers that nobody uses.
struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    fn filled(&'static self, bytes: usize, fill: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<Bytes> {
        if !(SHORT_BYTES..=BUFFER_BYTES).contains(&bytes) {
            let mut memory = Vec::with_capacity(bytes);
            fill(&mut memory)?;
            return Some(memory.into());
        }
        let memory = self.idle().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        let mut buffer = Buffer { memory, pool: self };
        fill(&mut buffer.memory)?;
        Some(Bytes::from_owner(buffer))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Buffer {
    memory: Vec<u8>,
    pool: &'static Pool,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        memory.clear();
        let mut idle = self.pool.idle();
        if idle.len() < KEPT {
            idle.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_has_its_bytes() {
        static OWN: Pool = Pool(Mutex::new(Vec::new()));
        let fill = |bytes: usize| {
            let sevens = |memory: &mut Vec<u8>| {
                memory.resize(bytes, 7);
                Some(())
            };
            OWN.filled(bytes, sevens).unwrap()
        };
        let one = fill(64 << 10);
        let (place, part) = (one.as_ptr(), one.slice(100..200));
        drop(one);
        assert_ne!(fill(64 << 10).as_ptr(), place, "a part of it is in use");
        assert_eq!(part, vec![7; 100]);
        drop(part);
        let again: Vec<Bytes> = (0..=KEPT).map(|_| fill(BUFFER_BYTES)).collect();
        assert!(again.iter().any(|bytes| bytes.as_ptr() == place));
        drop(again);
        assert_eq!(OWN.idle().len(), KEPT);
        assert!(OWN.filled(BUFFER_BYTES, |_| None).is_none());
        assert_eq!(OWN.idle().len(), KEPT, "it is back");
        assert_eq!(fill(BUFFER_BYTES + 1).len(), BUFFER_BYTES + 1);
    }
}
