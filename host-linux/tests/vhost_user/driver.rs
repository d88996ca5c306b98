//! A guest and its virtual machine in one: a vhost-user frontend with memory of its own, and a driver of virtio block
//! devices as far as the tests need one.
//!
//! What a guest writes into its rings is written by hand, so that it may be anything.

use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How long an answer may take; it bounds a failure, and decides nothing else.
pub const SOON: Duration = Duration::from_secs(20);
/// The guest's memory.
pub const MEMORY_BYTES: u64 = 64 << 20;
/// Descriptors of a queue.
pub const QUEUE_SIZE: u16 = 128;
/// Where the memory is in the virtual machine's own process.
const VMM_ADDRESS: u64 = 0x10_0000_0000;
/// A queue's rings: descriptors, what is offered, what was used.
const QUEUE_BYTES: u64 = 0x4000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Where data begins.
pub const DATA: u64 = 0x40_0000;
/// Where a slot's request is, each with its head, its status and its data.
const SLOT_BYTES: u64 = 0x4_0000;

/// A descriptor: where, how long, flags. Its successor is the next one, unless it says otherwise.
#[derive(Debug, Copy, Clone)]
pub struct Part {
    pub at: u64,
    pub bytes: u32,
    pub flags: u32,
    pub next: Option<u16>,
}

impl Part {
    /// What the device reads.
    pub fn given(at: u64, bytes: u32) -> Self {
        Self { at, bytes, flags: 0, next: None }
    }

    /// What the device writes.
    pub fn wanted(at: u64, bytes: u32) -> Self {
        Self { at, bytes, flags: VRING_DESC_F_WRITE, next: None }
    }
}

/// A virtual machine.
pub struct Driver {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap,
    pub features: u64,
    queues: Vec<Queue>,
    _file: File,
}

struct Queue {
    kick: EventFd,
    call: EventFd,
    called: Epoll,
    offered: u16,
    used: u16,
}

impl Driver {
    /// Attaches the device, takes all features but those in `without`, and starts so many queues.
    pub fn connect(socket: &Path, queues: usize, without: u64) -> Self {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(MEMORY_BYTES).unwrap();
        let ranges = [(GuestAddress(0), MEMORY_BYTES as usize, Some(FileOffset::new(file.try_clone().unwrap(), 0)))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        let mut frontend = Frontend::connect(socket, 64).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap() & !without;
        frontend.set_features(features).unwrap();
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0 {
            let offered = frontend.get_protocol_features().unwrap();
            frontend.set_protocol_features(offered).unwrap();
            if offered.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
        }
        let mut this = Self { frontend, memory, features, queues: Vec::new(), _file: file };
        this.frontend.set_features(features).unwrap();
        this.share_memory();
        for number in 0..queues {
            this.start_queue(number);
        }
        this
    }

    fn share_memory(&self) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY_BYTES,
            userspace_addr: VMM_ADDRESS,
            mmap_offset: 0,
            mmap_handle: self._file.as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).unwrap();
    }

    fn start_queue(&mut self, number: usize) {
        let [kick, call] = [0, 1].map(|_| EventFd::new(EFD_NONBLOCK).unwrap());
        let ring = VMM_ADDRESS + ring(number);
        let config = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: ring,
            used_ring_addr: ring + USED,
            avail_ring_addr: ring + AVAIL,
            log_addr: None,
        };
        self.frontend.set_vring_num(number, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_addr(number, &config).unwrap();
        self.frontend.set_vring_base(number, 0).unwrap();
        self.frontend.set_vring_call(number, &call).unwrap();
        self.frontend.set_vring_kick(number, &kick).unwrap();
        self.frontend.set_vring_enable(number, true).unwrap();
        let called = Epoll::new().unwrap();
        called.ctl(ControlOperation::Add, call.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
        self.queues.push(Queue { kick, call, called, offered: 0, used: 0 });
    }

    /// Starts a queue again that was stopped.
    pub fn resume(&self, number: usize, base: u16) {
        let Queue { kick, call, .. } = &self.queues[number];
        self.frontend.set_vring_base(number, base).unwrap();
        self.frontend.set_vring_call(number, call).unwrap();
        self.frontend.set_vring_kick(number, kick).unwrap();
    }

    /// The configuration space.
    pub fn config(&mut self, bytes: u32) -> Vec<u8> {
        let empty = vec![0; bytes as usize];
        self.frontend.get_config(0, bytes, VhostUserConfigFlags::WRITABLE, &empty).unwrap().1
    }

    /// Writes a chain of descriptors from `first` on.
    pub fn describe(&self, queue: usize, first: u16, parts: &[Part]) {
        for (index, part) in parts.iter().enumerate() {
            let index = index as u16;
            let goes_on = part.next.is_some() || usize::from(index) + 1 < parts.len();
            let flags = part.flags | if goes_on { VRING_DESC_F_NEXT } else { 0 };
            let next = part.next.unwrap_or(first + index + 1);
            self.put_descriptor(ring(queue) + u64::from(first + index) * 16, part.at, part.bytes, flags as u16, next);
        }
    }

    /// Writes one descriptor anywhere.
    pub fn put_descriptor(&self, at: u64, address: u64, bytes: u32, flags: u16, next: u16) {
        let mut words = [0; 16];
        words[..8].copy_from_slice(&address.to_le_bytes());
        words[8..12].copy_from_slice(&bytes.to_le_bytes());
        words[12..14].copy_from_slice(&flags.to_le_bytes());
        words[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&words, GuestAddress(at)).unwrap();
    }

    /// Offers the chain that begins at this descriptor, without a word.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let state = &mut self.queues[queue];
        let slot = ring(queue) + AVAIL + 4 + u64::from(state.offered % QUEUE_SIZE) * 2;
        self.memory.write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        state.offered = state.offered.wrapping_add(1);
        let index = state.offered;
        self.set_offered(queue, index);
    }

    /// Says how many chains were offered.
    pub fn set_offered(&self, queue: usize, index: u16) {
        self.memory.store(index.to_le(), GuestAddress(ring(queue) + AVAIL + 2), Ordering::SeqCst).unwrap();
    }

    /// Wakes the device.
    pub fn kick(&self, queue: usize) {
        self.queues[queue].kick.write(1).unwrap();
    }

    /// The next answer, once the device has told of one: the head of its chain, and the bytes written to it.
    pub fn answer(&mut self, queue: usize) -> (u32, u32) {
        self.try_answer(queue, SOON).unwrap_or_else(|| panic!("no answer of queue {queue} within {SOON:?}"))
    }

    /// The same, if it comes in time.
    pub fn try_answer(&mut self, queue: usize, time: Duration) -> Option<(u32, u32)> {
        let until = Instant::now() + time;
        let base = ring(queue);
        if self.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0 {
            // With the next answer the guest wants to be told.
            let event = base + AVAIL + 4 + u64::from(QUEUE_SIZE) * 2;
            self.memory.store(self.queues[queue].used.to_le(), GuestAddress(event), Ordering::SeqCst).unwrap();
        }
        let state = &mut self.queues[queue];
        loop {
            let used: u16 = self.memory.load(GuestAddress(base + USED + 2), Ordering::SeqCst).unwrap();
            if u16::from_le(used) != state.used {
                let entry = base + USED + 4 + u64::from(state.used % QUEUE_SIZE) * 8;
                let [head, bytes] = [0, 4].map(|at| self.memory.read_obj::<u32>(GuestAddress(entry + at)).unwrap());
                state.used = state.used.wrapping_add(1);
                return Some((u32::from_le(head), u32::from_le(bytes)));
            }
            // Only what the device tells of is looked at again.
            loop {
                if state.call.read().is_ok() {
                    break;
                }
                if Instant::now() >= until {
                    return None;
                }
                let _ = state.called.wait(100, &mut [EpollEvent::default()]);
            }
        }
    }

    /// Where the data of a slot is: requests in flight have one each.
    pub fn data(slot: u16) -> u64 {
        DATA + u64::from(slot) * SLOT_BYTES + 0x1000
    }

    fn head(slot: u16) -> u64 {
        DATA + u64::from(slot) * SLOT_BYTES
    }

    fn status(slot: u16) -> u64 {
        Self::head(slot) + 0x800
    }

    /// Writes a request's head.
    pub fn put_head(&self, slot: u16, kind: u32, sector: u64) -> Part {
        let at = Self::head(slot);
        self.memory.write_obj(kind.to_le(), GuestAddress(at)).unwrap();
        self.memory.write_obj(0_u32, GuestAddress(at + 4)).unwrap();
        self.memory.write_obj(sector.to_le(), GuestAddress(at + 8)).unwrap();
        Part::given(at, 16)
    }

    /// Where a request's status goes; it holds none yet.
    pub fn put_status(&self, slot: u16) -> Part {
        self.memory.write_obj(0xff_u8, GuestAddress(Self::status(slot))).unwrap();
        Part::wanted(Self::status(slot), 1)
    }

    /// A request's status.
    pub fn status_of(&self, slot: u16) -> u8 {
        self.memory.read_obj(GuestAddress(Self::status(slot))).unwrap()
    }

    /// Offers a request with data that is given or wanted; its chain is at `3 * slot`.
    pub fn submit(&mut self, queue: usize, slot: u16, kind: u32, sector: u64, given: &[u8], wanted_bytes: u32) {
        let mut parts = vec![self.put_head(slot, kind, sector)];
        if !given.is_empty() {
            self.memory.write_slice(given, GuestAddress(Self::data(slot))).unwrap();
            parts.push(Part::given(Self::data(slot), given.len() as u32));
        }
        if wanted_bytes > 0 {
            parts.push(Part::wanted(Self::data(slot), wanted_bytes));
        }
        parts.push(self.put_status(slot));
        self.describe(queue, 3 * slot, &parts);
        self.offer(queue, 3 * slot);
    }

    /// One request from its beginning to its answer: its status, and what was wanted.
    pub fn request(&mut self, kind: u32, sector: u64, given: &[u8], wanted_bytes: u32) -> (u32, Vec<u8>) {
        self.submit(0, 0, kind, sector, given, wanted_bytes);
        self.kick(0);
        let (head, written_bytes) = self.answer(0);
        assert_eq!(head, 0);
        let status = self.status_of(0);
        let wanted = if status == 0 { wanted_bytes } else { 0 };
        assert_eq!(written_bytes, wanted + 1, "status {status}");
        let mut data = vec![0; wanted as usize];
        self.memory.read_slice(&mut data, GuestAddress(Self::data(0))).unwrap();
        (status.into(), data)
    }
}

fn ring(queue: usize) -> u64 {
    queue as u64 * QUEUE_BYTES
}
