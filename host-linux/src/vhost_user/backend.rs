//! What the crate `vhost-user-backend` asks of a device.
//!
//! *Invariants*: a session has a daemon, threads and rings of its own, so that nothing of a frontend that is gone can reach
//! the next one. *Bounds*: [`QUEUES`] queues on [`THREADS_MAX`] threads.

use super::chain::Memory;
use super::config::{QUEUE_SIZE_MAX, QUEUES, features, has_feature, space};
use super::flow::Vring;
use super::session::Session;
use crate::sys::ExitEvents;
use std::io;
use std::sync::Arc;
use std::thread;
use swarmdisk_host::disk::Disk;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use vm_memory::GuestMemoryAtomic;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

/// Threads that serve the queues of a session.
const THREADS_MAX: usize = 4;

/// A session with what its daemon wants to know.
pub(super) struct Backend<D> {
    session: Arc<Session<D>>,
    shown: Arc<Shown>,
    threads: usize,
    exits: Arc<ExitEvents>,
}

/// What guests see.
pub(super) struct Shown {
    features: u64,
    space: Vec<u8>,
}

impl Shown {
    pub(super) fn of<D: Disk>(disk: &D) -> Self {
        Self { features: features(disk.is_writable()), space: space(disk) }
    }
}

impl<D> Backend<D> {
    /// `exits` is to outlive the daemon.
    pub(super) fn new(session: Arc<Session<D>>, shown: Arc<Shown>, exits: Arc<ExitEvents>) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        Self { session, shown, threads, exits }
    }
}

impl<D> Clone for Backend<D> {
    fn clone(&self) -> Self {
        let (session, shown, exits) = (self.session.clone(), self.shown.clone(), self.exits.clone());
        Self { session, shown, threads: self.threads, exits }
    }
}

impl<D: Disk> VhostUserBackend for Backend<D> {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE_MAX
    }

    fn features(&self) -> u64 {
        self.shown.features
    }

    fn acked_features(&self, features: u64) {
        self.session.target.set_write_through(!has_feature(features, VIRTIO_BLK_F_FLUSH));
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The rings know it themselves.
    }

    /// What is beyond its end reads as zeros: a frontend may know of a longer one.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let known = self.shown.space.get(offset as usize..).unwrap_or_default();
        let mut config = known[..known.len().min(size as usize)].to_vec();
        config.resize(size as usize, 0);
        config
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<Memory>) -> io::Result<()> {
        // The session has the same one.
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        let queues = |thread| (0..QUEUES).skip(thread).step_by(self.threads);
        (0..self.threads).map(|thread| queues(thread).fold(0, |mask, queue| mask | 1 << queue)).collect()
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exits.make().ok()
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        self.session.flow.wait_for_queue(queue as usize);
        Ok(())
    }

    /// `queue` counts the queues of this thread.
    fn handle_event(&self, queue: u16, _events: EventSet, vrings: &[Vring], thread: usize) -> io::Result<()> {
        if let Some(vring) = vrings.get(usize::from(queue)) {
            self.session.serve(thread + usize::from(queue) * self.threads, vring);
        }
        // An error would end the thread.
        Ok(())
    }
}
