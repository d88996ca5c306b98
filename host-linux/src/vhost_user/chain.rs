//! A request as the guest describes it in its memory, taken apart.
//!
//! *Purpose*: a chain of descriptors is read once, and what it says is kept: a guest that changes it later changes nothing.
//! *Invariants*: whatever stands there, the answer is a request or a refusal. Addresses are not looked at here: what is not
//! the guest's memory fails when it is read or written. *Bounds*: [`DESCRIPTORS_MAX`] descriptors. *Source*: VIRTIO 1.2,
//! sections 2.7 and 5.2.6.

use super::config::SEGMENTS_MAX;
use std::collections::VecDeque;
use std::sync::Arc;
use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::guest_memory::Error as MemoryError;
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryMmap};

/// A guest's memory; as long as it is held it stays mapped.
pub(super) type Memory = GuestMemoryMmap<()>;

/// Descriptors of a request: its data's, its head and its status.
const DESCRIPTORS_MAX: usize = SEGMENTS_MAX as usize + 2;
/// What a request begins with: its kind (4 bytes), something that no one uses (4), the first sector (8).
const HEAD_BYTES: u64 = 16;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// `VIRTIO_BLK_T_…`.
    pub(super) kind: u32,
    pub(super) sector: u64,
    /// What the guest gives.
    pub(super) given: Buffer,
    /// Where the answer goes.
    pub(super) wanted: Buffer,
}

/// What a chain comes to: a request, or why it is none; and where its status is to be written, if there is such a place.
pub(super) struct Parsed {
    pub(super) request: Result<Request, &'static str>,
    pub(super) status_at: Option<GuestAddress>,
}

impl Parsed {
    pub(super) fn from_chain(memory: &Memory, chain: DescriptorChain<Arc<Memory>>) -> Self {
        let (mut given, mut wanted) = (Buffer::default(), Buffer::default());
        let (last, fault) = describe(chain, &mut given, &mut wanted);
        let status_at = last.and_then(|last| last.addr().checked_add(u64::from(last.len() - 1)));
        let parse = || {
            fault.map_or(Ok(()), Err)?;
            status_at.ok_or("it has no room for a status")?;
            wanted.drop_last_byte();
            let mut head = [0; HEAD_BYTES as usize];
            if given.bytes() < HEAD_BYTES || given.take(memory, &mut head).is_err() {
                return Err("it has no head");
            }
            let [kind, _, low, high] = [0, 4, 8, 12].map(|at| u32_at(&head, at));
            Ok(Request { kind, sector: u64::from(low) | u64::from(high) << 32, given, wanted })
        };
        Self { request: parse(), status_at }
    }
}

/// Follows a chain to its end, which must be where it says. The last that is to be written, which ends with the status; and
/// why it is no request, if it is none.
fn describe(
    chain: DescriptorChain<Arc<Memory>>,
    given: &mut Buffer,
    wanted: &mut Buffer,
) -> (Option<Descriptor>, Option<&'static str>) {
    let (mut last, mut fault, mut goes_on) = (None, None, true);
    for (count, descriptor) in chain.enumerate() {
        goes_on = descriptor.has_next();
        if count >= DESCRIPTORS_MAX {
            // No more than this is kept of it.
            fault = Some("it has more descriptors than were allowed");
        } else if descriptor.is_write_only() {
            wanted.push(descriptor);
        } else if last.is_none() {
            given.push(descriptor);
        } else {
            fault = Some("what is to be read comes after what is to be written");
        }
        if descriptor.is_write_only() && descriptor.len() > 0 {
            last = Some(descriptor);
        }
    }
    // Also a loop, an index beyond the table, a table that is none, more than 4 GiB.
    (last, fault.or(goes_on.then_some("its descriptors come to no end")))
}

/// Little-endian, as all of virtio 1.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Bytes of the guest's memory, in parts; read and written from the front on.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    parts: VecDeque<(GuestAddress, u32)>,
}

impl Buffer {
    fn push(&mut self, descriptor: Descriptor) {
        if descriptor.len() > 0 {
            self.parts.push_back((descriptor.addr(), descriptor.len()));
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| u64::from(*bytes)).sum()
    }

    /// Reads what comes first into `data`, which it must be enough for.
    pub(super) fn take(&mut self, memory: &Memory, data: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < data.len() {
            let (at, bytes) = self.next(data.len() - done)?;
            memory.read_slice(&mut data[done..done + bytes], at)?;
            done += bytes;
        }
        Ok(())
    }

    /// Writes `data` to what comes first, which must have room for it.
    pub(super) fn fill(&mut self, memory: &Memory, mut data: &[u8]) -> Result<(), MemoryError> {
        while !data.is_empty() {
            let (at, bytes) = self.next(data.len())?;
            let (now, rest) = data.split_at(bytes);
            memory.write_slice(now, at)?;
            data = rest;
        }
        Ok(())
    }

    /// Takes up to `bytes_max` bytes that lie together from the front.
    fn next(&mut self, bytes_max: usize) -> Result<(GuestAddress, usize), MemoryError> {
        let Some((at, left)) = self.parts.front_mut() else {
            return Err(MemoryError::PartialBuffer { expected: bytes_max, completed: 0 });
        };
        let bytes = (*left as usize).min(bytes_max);
        let taken = (*at, bytes);
        *left -= bytes as u32;
        // What wraps is beyond any memory.
        at.0 = at.0.wrapping_add(bytes as u64);
        if *left == 0 {
            self.parts.pop_front();
        }
        Ok(taken)
    }

    fn drop_last_byte(&mut self) {
        if let Some((_, bytes)) = self.parts.back_mut() {
            *bytes -= 1;
            if *bytes == 0 {
                self.parts.pop_back();
            }
        }
    }
}
