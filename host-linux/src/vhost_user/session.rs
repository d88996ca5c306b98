//! One frontend's queues, served.
//!
//! *Purpose*: takes requests from the queues and answers them. What needs no waiting is answered on the spot; all else are
//! tasks of the runtime, which put their answers into the queue themselves. *Invariants*: each request that was taken is
//! answered once, whatever becomes of its task, unless the frontend is gone: then nothing of its memory is touched any
//! more. A session that has [ended](Session::end) has nothing under way.
//! *Bounds*: those of `flow`; a thread stays with a queue for at most [`TURN`] requests.

use super::chain::{Memory, Parsed};
use super::flow::{Flow, Vring, Waiting};
use super::request::{Done, Target};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use swarmdisk_host::disk::Disk;
use tokio::runtime::Handle;
use tokio::sync::watch;
use vhost_user_backend::{VringState, VringT};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{Bytes as _, GuestAddress, GuestAddressSpace, GuestMemoryAtomic};

/// Requests of one queue before the others of its thread have their turn.
const TURN: usize = 256;
/// Answers given on the spot before the guest is told of them.
const UNTOLD_MAX: usize = 16;
/// A time that is never over.
const ALWAYS: Duration = Duration::from_secs(365 * 24 * 3600);

/// What serves a frontend.
pub(super) struct Session<D> {
    pub(super) target: Target<D>,
    pub(super) memory: GuestMemoryAtomic<Memory>,
    pub(super) flow: Flow,
    runtime: Handle,
    end: watch::Sender<Option<End>>,
}

type Ring = VringState<GuestMemoryAtomic<Memory>>;

/// What becomes of requests that are under way at the end.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// They fail.
    Failed,
    /// Nobody is there to be answered.
    Gone,
}

/// What a queue had.
enum Taken<D: Disk> {
    Request(DescriptorChain<Arc<Memory>>, Slot<D>),
    Nothing,
    /// Somebody else takes the queue up again, or nobody.
    Later,
}

impl<D: Disk> Session<D> {
    pub(super) fn new(target: Target<D>, queues: usize, runtime: Handle) -> Self {
        let memory = GuestMemoryAtomic::new(Memory::new());
        Self { target, memory, flow: Flow::new(queues), runtime, end: watch::Sender::new(None) }
    }

    /// Takes no more requests, and ends those under way; they get `grace` to be answered before. When this is done, there
    /// are none.
    pub(super) fn end(&self, grace: Duration, end: End) {
        self.flow.close();
        if !self.flow.wait(grace) {
            self.end.send_replace(Some(end));
            self.flow.wait(ALWAYS);
        }
    }

    /// Serves what this queue has.
    pub(super) fn serve(self: &Arc<Self>, queue: usize, vring: &Vring) {
        let _runtime = self.runtime.enter();
        let mut untold = Untold { vring, answers: 0 };
        let mut had_more = false;
        expect_no_kicks(vring);
        for _ in 0..TURN {
            match self.take(queue, vring) {
                Taken::Request(chain, slot) => {
                    had_more = false;
                    untold.add(self.begin(vring, chain, slot));
                }
                Taken::Nothing => {
                    untold.tell();
                    // A ring that has more and gives nothing is broken.
                    if had_more || !expect_kicks(vring) {
                        return;
                    }
                    had_more = true;
                }
                Taken::Later => return,
            }
        }
        drop(untold);
        self.serve_later(Waiting { queue, vring: vring.clone() });
    }

    fn serve_later(self: &Arc<Self>, Waiting { queue, vring }: Waiting) {
        let session = Arc::clone(self);
        self.runtime.spawn(async move { session.serve(queue, &vring) });
    }

    fn take(self: &Arc<Self>, queue: usize, vring: &Vring) -> Taken<D> {
        if !self.flow.enter(queue, vring) {
            return Taken::Later;
        }
        // From here on dropping it counts it out.
        let slot = Slot { session: Arc::clone(self), queue, bytes: 0 };
        let memory = self.memory.memory().into_inner();
        let mut ring = vring.get_mut();
        let chain = if is_live(&ring) { ring.get_queue_mut().pop_descriptor_chain(memory) } else { None };
        drop(ring);
        chain.map_or(Taken::Nothing, |chain| Taken::Request(chain, slot))
    }

    /// Begins with a request; whether it was answered already, and the guest not told.
    fn begin(self: &Arc<Self>, vring: &Vring, chain: DescriptorChain<Arc<Memory>>, mut slot: Slot<D>) -> bool {
        let memory = self.memory.memory().into_inner();
        let head = chain.head_index();
        let Parsed { request, status_at } = Parsed::from_chain(&memory, chain);
        if let Ok(request) = &request {
            slot.weigh(request.given.bytes() + request.wanted.bytes());
        }
        let mut answer =
            Answer { _slot: slot, vring: vring.clone(), memory, head, status_at, done: Some(Done::FAILED) };
        let request = match request {
            Ok(request) => request,
            Err(why) => {
                answer.done = Some(self.target.refuse(why));
                answer.give();
                return true;
            }
        };
        let (session, memory) = (Arc::clone(self), Arc::clone(&answer.memory));
        let mut work = Box::pin(async move { session.target.serve(&memory, request).await });
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            answer.done = Some(done);
            answer.give();
            return true;
        }
        let mut end = self.end.subscribe();
        self.runtime.spawn(async move {
            // All of it goes along, not the outcome alone.
            let mut answer = answer;
            answer.done = tokio::select! {
                biased;
                done = work => Some(done),
                end = end.wait_for(Option::is_some) => match end.map(|end| *end) {
                    Ok(Some(End::Gone)) => None,
                    _ => Some(Done::FAILED),
                },
            };
        });
        false
    }
}

/// The guest need not say what is seen anyhow.
fn expect_no_kicks(vring: &Vring) {
    let mut ring = vring.get_mut();
    if is_live(&ring) {
        // Where the ring is nowhere, nothing comes of it.
        let _ = ring.disable_notification();
    }
}

/// From now on the guest is to say when there is something. Whether there was already.
fn expect_kicks(vring: &Vring) -> bool {
    let mut ring = vring.get_mut();
    is_live(&ring) && ring.enable_notification().unwrap_or(false)
}

/// Whether its memory is a ring: that of a stopped one is the guest's again.
fn is_live(ring: &Ring) -> bool {
    ring.is_enabled() && ring.get_queue().ready()
}

/// Answers that the guest has not been told of; it is, when this is dropped.
struct Untold<'a> {
    vring: &'a Vring,
    answers: usize,
}

impl Untold<'_> {
    fn add(&mut self, is_answered: bool) {
        self.answers += usize::from(is_answered);
        if self.answers == UNTOLD_MAX {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if std::mem::take(&mut self.answers) > 0 {
            tell(self.vring);
        }
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Tells the guest that there are answers, if it wants to know.
fn tell(vring: &Vring) {
    let mut ring = vring.get_mut();
    // Where the guest cannot be reached, it looks by itself, or never again.
    if ring.needs_notification().unwrap_or(true) {
        let _ = ring.signal_used_queue();
    }
}

/// A request that is counted, until it is dropped.
struct Slot<D: Disk> {
    session: Arc<Session<D>>,
    queue: usize,
    bytes: u64,
}

impl<D: Disk> Slot<D> {
    fn weigh(&mut self, bytes: u64) {
        self.bytes = self.session.flow.weigh(bytes);
    }
}

impl<D: Disk> Drop for Slot<D> {
    fn drop(&mut self) {
        for waiting in self.session.flow.leave(self.queue, self.bytes) {
            self.session.serve_later(waiting);
        }
    }
}

/// Answers its request when it is dropped, also by a task that was given up.
struct Answer<D: Disk> {
    vring: Vring,
    /// Mapped until it is answered.
    memory: Arc<Memory>,
    head: u16,
    status_at: Option<GuestAddress>,
    /// None: nobody is to be answered.
    done: Option<Done>,
    /// The last field: counted until all else is done.
    _slot: Slot<D>,
}

impl<D: Disk> Answer<D> {
    /// Puts the answer into the queue.
    fn give(&mut self) {
        let Some(Done { status, written_bytes }) = self.done.take() else { return };
        let status_bytes = match self.status_at {
            Some(at) if self.memory.write_obj(status, at).is_ok() => 1,
            _ => 0,
        };
        // What is no queue's any more gets no answer.
        let _ = self.vring.add_used(self.head, written_bytes + status_bytes);
    }
}

impl<D: Disk> Drop for Answer<D> {
    fn drop(&mut self) {
        if self.done.is_some() {
            self.give();
            tell(&self.vring);
        }
    }
}
