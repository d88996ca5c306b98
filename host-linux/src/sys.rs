//! The kernel's rings and mapped memory, as ublk uses them, and what a library leaves open: all of this crate's `unsafe` is
//! here.
//!
//! *Invariants*: a buffer that the kernel may write to lives until it has answered, and whatever else an entry names is
//! kept by the ring; so what is offered here is safe to use. *Bounds*: a ring's entries are given when it is made.

use crate::ublk::abi::{self, ControlCommand, Descriptor};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

/// A ring for commands to `/dev/ublk-control`, one at a time.
pub(crate) struct ControlRing {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    control: File,
}

impl ControlRing {
    pub(crate) fn new(control: File) -> io::Result<Self> {
        Ok(Self { ring: IoUring::builder().build(4)?, control })
    }

    /// Sends a command with a buffer that the kernel reads or writes, and waits for the answer. Gives the buffer back.
    pub(crate) fn command(&mut self, command: &ControlCommand, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let bytes = u16::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fields = command.encode(buffer.as_mut_ptr().expose_provenance() as u64, bytes);
        let file = types::Fd(self.control.as_raw_fd());
        let entry = opcode::UringCmd80::new(file, command.op).cmd(fields).build();
        // SAFETY: the file is open as long as the ring. The buffer has `bytes` bytes, and is neither touched nor freed
        // before the kernel has answered; where its answer cannot be had it is leaked.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_passing(&error) => continue,
                Err(error) => {
                    std::mem::forget(buffer);
                    return Err(error);
                }
            }
            let Some(answer) = self.ring.completion().next() else { continue };
            return match answer.result() {
                0.. => Ok(buffer),
                error => Err(io::Error::from_raw_os_error(-error)),
            };
        }
    }
}

/// What a queue's ring tells.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The tag has a request.
    Request(u16),
    /// The tag will have no more.
    Gone(u16),
    /// Somebody has written to the eventfd.
    Woken,
}

/// One queue of a device: its ring, and the memory in which the kernel describes requests. For one thread.
pub(crate) struct QueueRing {
    ring: IoUring,
    descriptors: Descriptors,
    device: Arc<File>,
    wake: Arc<OwnedFd>,
    queue: u16,
}

impl QueueRing {
    /// What marks the eventfd among tags.
    const WAKE: u64 = u64::MAX;

    pub(crate) fn new(device: Arc<File>, wake: Arc<OwnedFd>, queue: u16, depth: u16) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build((u32::from(depth) * 2).next_power_of_two())?;
        let descriptors = Descriptors::map(&device, queue, depth)?;
        let mut this = Self { ring, descriptors, device, wake, queue };
        this.watch()?;
        for tag in 0..depth {
            this.push_io(tag, abi::FETCH, 0)?;
        }
        this.ring.submit()?;
        Ok(this)
    }

    /// The request that this tag has.
    pub(crate) fn descriptor(&self, tag: u16) -> Option<Descriptor> {
        self.descriptors.get(tag)
    }

    /// Answers the tag's request with the bytes done, or an error's number below 0. It goes to the kernel with the next
    /// wait.
    pub(crate) fn commit(&mut self, tag: u16, result: i32) -> io::Result<()> {
        self.push_io(tag, abi::COMMIT_AND_FETCH, result)
    }

    /// Hands over what is to be handed over, waits until there is something, and appends it to `events`.
    pub(crate) fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        let mut is_watched = true;
        for answer in self.ring.completion() {
            let tag = answer.user_data() as u16;
            events.push(match (answer.user_data(), answer.result()) {
                (Self::WAKE, _) => {
                    is_watched &= cqueue::more(answer.flags());
                    Event::Woken
                }
                (_, 0) => Event::Request(tag),
                _ => Event::Gone(tag),
            });
        }
        if is_watched { Ok(()) } else { self.watch() }
    }

    fn watch(&mut self) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), rustix::event::PollFlags::IN.bits().into());
        self.push(&poll.multi(true).build().user_data(Self::WAKE))
    }

    fn push_io(&mut self, tag: u16, op: u32, result: i32) -> io::Result<()> {
        let command = opcode::UringCmd16::new(types::Fd(self.device.as_raw_fd()), op);
        self.push(&command.cmd(abi::encode_io(self.queue, tag, result)).build().user_data(tag.into()))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: the entry names no memory, and the files that it names are open as long as the ring.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }
}

/// Whether the same call may go well the next time.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | WouldBlock)
}

/// The requests of a queue's tags, in memory that the kernel writes.
struct Descriptors {
    start: *mut u64,
    bytes: usize,
    depth: u16,
}

impl Descriptors {
    fn map(device: &File, queue: u16, depth: u16) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let bytes = (usize::from(depth) * Descriptor::BYTES).next_multiple_of(page_bytes);
        let position = abi::descriptors_position(queue, page_bytes);
        // SAFETY: a new mapping where the kernel likes it; nothing else is there.
        let start = unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, device, position) }?;
        Ok(Self { start: start.cast(), bytes, depth })
    }

    fn get(&self, tag: u16) -> Option<Descriptor> {
        let words = Descriptor::BYTES / size_of::<u64>();
        (tag < self.depth).then(|| {
            // SAFETY: below the depth all is mapped, and a mapping begins at a page. The kernel writes a tag's
            // descriptor before it gives us the tag, and not again until we have answered.
            let word = |at: usize| unsafe { self.start.add(usize::from(tag) * words + at).read_volatile() };
            Descriptor::from_words([word(0), word(1)])
        })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: it is our own mapping, and no reference into it was given out.
        // An error would leave it mapped, which harms nobody.
        let _ = unsafe { munmap(self.start.cast(), self.bytes) };
    }
}

/// Events by which the daemon of `vhost-user-backend` ends its threads. It makes a raw descriptor of each consumer and
/// forgets it: dropping this, after the daemon, closes them.
#[derive(Default)]
pub(crate) struct ExitEvents(Mutex<Vec<RawFd>>);

impl ExitEvents {
    /// For [`VhostUserBackend::exit_event`](vhost_user_backend::VhostUserBackend::exit_event) alone.
    pub(crate) fn make(&self) -> io::Result<(EventConsumer, EventNotifier)> {
        let (consumer, notifier) = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(consumer.as_raw_fd());
        Ok((consumer, notifier))
    }

    /// Ends the threads of a daemon that was given up while it was made, which tells them nothing.
    pub(crate) fn notify(&self) {
        for forgotten in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // SAFETY: nobody but `drop` closes it.
            let event = unsafe { BorrowedFd::borrow_raw(*forgotten) };
            // The only error is a counter that is full, which ends them as well.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }
}

impl Drop for ExitEvents {
    fn drop(&mut self) {
        for forgotten in self.0.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: `into_raw_fd` has made it nobody's (a test counts that they neither stay nor are closed twice), and
            // the threads that waited for it have ended with the daemon.
            drop(unsafe { OwnedFd::from_raw_fd(forgotten) });
        }
    }
}
