//! A queue of a device, and the thread that serves it.
//!
//! *Purpose*: takes requests from the kernel and answers them. One that comes alone is tried on the spot, as what is in
//! memory needs no other thread; all else are tasks of the runtime, and come back through a list and an eventfd.
//! *Invariants*: each request is answered once, whatever becomes of its task; only this thread speaks with the ring.
//! The thread ends when no tag will have another request. *Bounds*: as many tasks as the queue has tags.

use super::abi::Descriptor;
use super::request::{Place, Target};
use crate::sys::{Event, QueueRing};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use swarmdisk_host::disk::Disk;
use swarmdisk_host::log;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// The answer to what cannot be answered.
const IO_ERROR: i32 = -Errno::IO.raw_os_error();

/// What others than its thread may do with a queue.
pub(super) struct QueueHandle {
    finished: Mutex<Vec<(u16, i32)>>,
    gives_up: AtomicBool,
    wake: Arc<OwnedFd>,
}

impl QueueHandle {
    pub(super) fn new() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { finished: Mutex::default(), gives_up: AtomicBool::new(false), wake })
    }

    /// From now on requests that cannot be answered at once, those in flight too, fail.
    pub(super) fn give_up(&self) {
        self.gives_up.store(true, Relaxed);
        self.wake();
    }

    fn finish(&self, tag: u16, result: i32) {
        let is_first = {
            let mut finished = self.finished();
            finished.push((tag, result));
            finished.len() == 1
        };
        // Whoever came first has woken the thread.
        if is_first {
            self.wake();
        }
    }

    fn finished(&self) -> MutexGuard<'_, Vec<(u16, i32)>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // The only error is a counter that is full: then the thread is to wake anyhow.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn calm(&self) {
        // The only error is a counter that is empty.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

/// What a queue's thread begins with.
pub(super) struct Queue<D> {
    pub(super) target: Arc<Target<D>>,
    pub(super) device: Arc<File>,
    pub(super) number: u16,
    pub(super) depth: u16,
    pub(super) handle: Arc<QueueHandle>,
    pub(super) runtime: Handle,
}

impl<D: Disk> Queue<D> {
    /// Serves until the device is stopped; says through `ready` when requests can come, or why they cannot.
    pub(super) fn run(self, ready: &mpsc::Sender<io::Result<()>>) {
        let ring = QueueRing::new(self.device.clone(), self.handle.wake.clone(), self.number, self.depth);
        let ring = match ring {
            Ok(ring) => ring,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        let _runtime = self.runtime.enter();
        let tasks = (0..self.depth).map(|_| None).collect();
        let tags = self.depth;
        if let Err(error) = (Server { queue: &self, ring, tasks, in_flight: 0, tags }).serve() {
            log::warn(format_args!("queue {} of the ublk device ended: {error}", self.number));
        }
    }
}

struct Server<'a, D> {
    queue: &'a Queue<D>,
    ring: QueueRing,
    tasks: Vec<Option<AbortHandle>>,
    in_flight: u16,
    /// Those that may have another request.
    tags: u16,
}

impl<D: Disk> Server<'_, D> {
    fn serve(mut self) -> io::Result<()> {
        let handle = &self.queue.handle;
        let (mut events, mut finished) = (Vec::new(), Vec::new());
        while self.tags > 0 {
            self.ring.wait(&mut events)?;
            let is_alone = self.in_flight == 0 && events.len() == 1;
            for event in events.drain(..) {
                match event {
                    Event::Request(tag) => self.begin(tag, is_alone)?,
                    Event::Gone(_) => self.tags -= 1,
                    Event::Woken => handle.calm(),
                }
            }
            if handle.gives_up.load(Relaxed) {
                self.tasks.iter_mut().filter_map(Option::take).for_each(|task| task.abort());
            }
            finished.append(&mut *handle.finished());
            for (tag, result) in finished.drain(..) {
                self.tasks[usize::from(tag)] = None;
                self.in_flight -= 1;
                self.ring.commit(tag, result)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, tag: u16, is_alone: bool) -> io::Result<()> {
        let Some(request) = self.ring.descriptor(tag) else { return self.ring.commit(tag, IO_ERROR) };
        let mut work = self.work(tag, request);
        if is_alone && let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return self.ring.commit(tag, result);
        }
        let answer = Answer { queue: self.queue.handle.clone(), tag, result: IO_ERROR };
        let task = self.queue.runtime.spawn(async move {
            // All of it goes along, not the result alone.
            let mut answer = answer;
            answer.result = work.await;
        });
        self.tasks[usize::from(tag)] = Some(task.abort_handle());
        self.in_flight += 1;
        Ok(())
    }

    fn work(&self, tag: u16, request: Descriptor) -> Pin<Box<dyn Future<Output = i32> + Send>> {
        let (target, place) = (self.queue.target.clone(), Place { queue: self.queue.number, tag });
        Box::pin(async move { target.serve(place, request).await })
    }
}

/// Answers its request when it is dropped, also by a task that was given up.
struct Answer {
    queue: Arc<QueueHandle>,
    tag: u16,
    result: i32,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.queue.finish(self.tag, self.result);
    }
}
