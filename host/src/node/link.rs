//! A link to another node: how it is made, its reader and its writer.
//!
//! *Purpose*: the reader hands received bytes to the engine's task and reads bodies into buffers of their own; the
//! writer sends heads and bodies in the order in which they were queued, and reports what has left.
//! *Invariants*: the engine's task never waits for a link: its queue takes all at once. Dropping a [`LinkHandle`] ends
//! both tasks, what is queued (a `Bye`) gets [`GRACE`] to leave. Nothing that was read is used before the engine has seen it.
//! *Bounds*: a read buffer of [`READ_BYTES`]; one body at a time, at most [`BODY_BYTES_MAX`]; the queue by the engine's
//! credit and by [`QUEUE_MAX`].

use super::departures::Departures;
use super::message::{Heard, Message};
use super::pacer::Pacer;
use super::pieces::Pieces;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use swarmdisk_core::geometry::PieceIndex;
use swarmdisk_core::ids::PeerId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Duration, sleep_until, timeout};

/// How much is read from a socket at a time while heads are expected, in bytes.
pub(crate) const READ_BYTES: usize = 16 * 1024;
/// Longest body that lands: the largest chunk, in bytes.
pub(crate) const BODY_BYTES_MAX: u32 = 1 << 20;
/// Most frames in a writer's queue; credit keeps it far below.
pub(crate) const QUEUE_MAX: usize = 8192;
/// How long a link that is being closed may still send.
const GRACE: Duration = Duration::from_secs(1);
/// How much is given to the socket at a time, in bytes.
const WRITE_BYTES: usize = 256 * 1024;
/// Parts of a vectored write.
const WRITE_PARTS: usize = 32;

/// The rates that all links share; clones share them too. By default there is no limit.
#[derive(Debug, Default, Clone)]
pub struct Rates {
    /// Limits what is sent.
    pub(crate) up: Option<Arc<Pacer>>,
    /// Limits what is received.
    pub(crate) down: Option<Arc<Pacer>>,
}

impl Rates {
    /// At most so many bytes a second of TCP payload, up and down; none: no limit.
    pub fn new(up_bytes_per_sec: Option<u64>, down_bytes_per_sec: Option<u64>) -> Self {
        let pacer = |rate: Option<u64>| rate.map(|rate| Arc::new(Pacer::new(rate)));
        Self { up: pacer(up_bytes_per_sec), down: pacer(down_bytes_per_sec) }
    }
}

/// A frame to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The frame's head.
    pub head: Bytes,
    /// What follows it.
    pub body: OutBody,
}

/// What follows a head.
#[derive(Debug)]
pub(crate) enum OutBody {
    /// Nothing.
    None,
    /// Bytes in memory.
    Bytes(Bytes),
    /// A piece's payload, to be read from the store.
    Piece(PieceIndex),
}

/// Why a link went down by itself, for the log.
#[derive(Debug)]
pub(crate) enum Down {
    /// The other closed it.
    Closed,
    /// The socket failed.
    Io(io::Error),
    /// What the engine wants read is longer than any body.
    Body(u32),
    /// A piece that was to be sent could not be read.
    Lost(PieceIndex),
}

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the other side closed the link"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Body(bytes) => write!(f, "a body of {bytes} bytes is longer than any chunk"),
            Self::Lost(piece) => write!(f, "piece {} could not be read from the store", piece.get()),
        }
    }
}

impl From<Down> for io::Error {
    fn from(down: Down) -> Self {
        match down {
            Down::Io(error) => error,
            Down::Closed => io::ErrorKind::UnexpectedEof.into(),
            other => Self::other(other.to_string()),
        }
    }
}

/// The engine's end of a link.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    queue: mpsc::UnboundedSender<Outgoing>,
    queued: Arc<AtomicUsize>,
    reader: AbortHandle,
    writer: Option<JoinHandle<()>>,
    /// The writer sees it dropped.
    _alive: oneshot::Sender<()>,
}

impl LinkHandle {
    /// Queues a frame. False: the queue is too long, the link is to be closed.
    #[must_use]
    pub fn send(&self, frame: Outgoing) -> bool {
        if self.queued.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            return false;
        }
        // A writer that has ended has reported it.
        let _ = self.queue.send(frame);
        true
    }

    /// Ends the link; the writer to wait for, if what is queued is to leave.
    pub fn close(mut self) -> impl Future<Output = ()> {
        let writer = self.writer.take();
        drop(self);
        async move {
            if let Some(writer) = writer {
                // A writer that panicked has nothing more to say.
                let _ = writer.await;
            }
        }
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What both tasks of a link share with the engine's.
#[derive(Debug, Clone)]
pub(crate) struct LinkSetup {
    /// The link's name.
    pub peer: PeerId,
    /// To the engine's task.
    pub engine: mpsc::Sender<Message>,
    /// Rates.
    pub rates: Rates,
    /// Where bodies are read from.
    pub pieces: Arc<Pieces>,
}

/// Starts the two tasks of a link. `received`: what has been read behind the preface already.
pub(crate) fn start<R, W>(setup: LinkSetup, read: R, write: W, received: BytesMut, departures: Departures) -> LinkHandle
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (queue, frames) = mpsc::unbounded_channel();
    let (alive, dead) = oneshot::channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let reader = Reader { setup: setup.clone(), read, buffer: received };
    let writer = Writer { setup, write, frames, queued: queued.clone(), pending: VecDeque::new(), departures };
    let reader = tokio::spawn(reader.run()).abort_handle();
    let writer = tokio::spawn(writer.run(dead));
    LinkHandle { queue, queued, reader, writer: Some(writer), _alive: alive }
}

struct Reader<R> {
    setup: LinkSetup,
    read: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) {
        let Some(down) = self.converse().await.err() else { return };
        // If the engine's task has ended there is nobody to tell.
        let _ = self.setup.engine.send(Message::Down { peer: self.setup.peer, why: down }).await;
    }

    /// Reads until the link fails (`Err`) or the engine's task wants no more (`Ok`).
    async fn converse(&mut self) -> Result<(), Down> {
        if self.buffer.is_empty() {
            self.read_some(1).await?;
        }
        loop {
            let (reply, heard) = oneshot::channel();
            let message = Message::Received { peer: self.setup.peer, buffer: std::mem::take(&mut self.buffer), reply };
            if self.setup.engine.send(message).await.is_err() {
                return Ok(());
            }
            match heard.await {
                Err(_) => return Ok(()),
                Ok(Heard::More { buffer, bytes }) => {
                    self.buffer = buffer;
                    self.read_some(bytes).await?;
                }
                Ok(Heard::Land { slot, bytes, start }) => {
                    let body = self.read_body(bytes, start).await?;
                    let message = Message::Landed { peer: self.setup.peer, slot, body };
                    if self.setup.engine.send(message).await.is_err() {
                        return Ok(());
                    }
                    self.read_some(1).await?;
                }
                Ok(Heard::Discard { bytes }) => {
                    self.discard(bytes).await?;
                    self.read_some(1).await?;
                }
            }
        }
    }

    /// Reads until the buffer holds at least this many bytes.
    async fn read_some(&mut self, bytes: usize) -> Result<(), Down> {
        while self.buffer.len() < bytes {
            self.buffer.reserve(READ_BYTES.max(bytes - self.buffer.len()));
            let Self { read, buffer, setup } = self;
            read_slice(read, buffer, READ_BYTES, setup.rates.down.as_deref()).await?;
        }
        Ok(())
    }

    async fn read_body(&mut self, bytes: u32, start: BytesMut) -> Result<Bytes, Down> {
        if bytes > BODY_BYTES_MAX {
            return Err(Down::Body(bytes));
        }
        let mut body = Vec::with_capacity(bytes as usize);
        body.extend_from_slice(&start);
        self.buffer = start;
        self.buffer.clear();
        while body.len() < bytes as usize {
            let left = bytes as usize - body.len();
            read_slice(&mut self.read, &mut body, left, self.setup.rates.down.as_deref()).await?;
        }
        Ok(body.into())
    }

    async fn discard(&mut self, mut bytes: u32) -> Result<(), Down> {
        while bytes > 0 {
            self.buffer.clear();
            self.buffer.reserve(READ_BYTES);
            let most = READ_BYTES.min(bytes as usize);
            bytes -= read_slice(&mut self.read, &mut self.buffer, most, self.setup.rates.down.as_deref()).await? as u32;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// Reads between 1 and `most` bytes, then waits as long as the rate asks for: the socket's window does the rest.
pub(crate) async fn read_slice<R: AsyncRead + Unpin, B: bytes::BufMut>(
    read: &mut R,
    into: &mut B,
    most: usize,
    pacer: Option<&Pacer>,
) -> Result<usize, Down> {
    let most = pacer.map_or(most, |pacer| most.min(pacer.slice_bytes()));
    let count = read.take(most as u64).read_buf(into).await.map_err(Down::Io)?;
    if count == 0 {
        return Err(Down::Closed);
    }
    if let Some(pacer) = pacer {
        pacer.take(count).await;
    }
    Ok(count)
}

struct Writer<W> {
    setup: LinkSetup,
    write: W,
    frames: mpsc::UnboundedReceiver<Outgoing>,
    queued: Arc<AtomicUsize>,
    /// What comes next on the wire; no part is empty.
    pending: VecDeque<Bytes>,
    /// What the socket has taken and the network has not.
    departures: Departures,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn run(mut self, mut dead: oneshot::Receiver<()>) {
        let engine = self.setup.engine.clone();
        let peer = self.setup.peer;
        let ended = {
            let mut sending = std::pin::pin!(self.send_all());
            tokio::select! {
                biased;
                ended = &mut sending => ended,
                _ = &mut dead => timeout(GRACE, sending).await.unwrap_or(Ok(())),
            }
        };
        match ended {
            Ok(()) => drop(timeout(GRACE, self.write.shutdown()).await),
            Err(why) => drop(engine.send(Message::Down { peer, why }).await),
        }
    }

    /// Sends until the queue is closed and empty.
    async fn send_all(&mut self) -> Result<(), Down> {
        loop {
            let frame = match self.departures.look_at() {
                None => self.frames.recv().await,
                Some(at) => tokio::select! {
                    biased;
                    frame = self.frames.recv() => frame,
                    () = sleep_until(at) => {
                        self.report().await;
                        continue;
                    }
                },
            };
            let Some(frame) = frame else { return Ok(()) };
            self.append(frame).await?;
            // What else waits goes out with it: most payloads are in memory by now.
            while self.pending.len() < WRITE_PARTS
                && let Ok(frame) = self.frames.try_recv()
            {
                self.append(frame).await?;
            }
            while !self.pending.is_empty() {
                self.write_some().await?;
            }
        }
    }

    /// Tells the engine's task what has left since the last time.
    async fn report(&mut self) {
        let bytes = self.departures.take();
        if bytes > 0 {
            let sent = Message::Sent { peer: self.setup.peer, bytes };
            // If the engine's task has ended, what is queued leaves all the same.
            let _ = self.setup.engine.send(sent).await;
        }
    }

    /// Gives the socket what it takes; meanwhile what has left is reported.
    async fn write(&mut self, most: usize) -> Result<usize, Down> {
        loop {
            let at = self.departures.look_at();
            let mut left = most;
            let mut parts = Vec::with_capacity(WRITE_PARTS);
            for part in self.pending.iter().take(WRITE_PARTS) {
                let take = part.len().min(left);
                parts.push(IoSlice::new(&part[..take]));
                left -= take;
                if left == 0 {
                    break;
                }
            }
            let writing = self.write.write_vectored(&parts);
            let written = match at {
                None => writing.await,
                Some(at) => tokio::select! {
                    biased;
                    written = writing => written,
                    () = sleep_until(at) => {
                        self.report().await;
                        continue;
                    }
                },
            };
            return written.map_err(Down::Io);
        }
    }

    async fn append(&mut self, frame: Outgoing) -> Result<(), Down> {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        let body = match frame.body {
            OutBody::None => Bytes::new(),
            OutBody::Bytes(bytes) => bytes,
            OutBody::Piece(piece) => self.setup.pieces.payload(piece).await.map_err(|_| Down::Lost(piece))?,
        };
        self.pending.extend([frame.head, body].into_iter().filter(|part| !part.is_empty()));
        Ok(())
    }

    async fn write_some(&mut self) -> Result<(), Down> {
        let waiting: usize = self.pending.iter().map(Bytes::len).sum();
        let pacer = self.setup.rates.up.clone();
        let most = waiting.min(pacer.as_ref().map_or(WRITE_BYTES, |pacer| pacer.slice_bytes()));
        if let Some(pacer) = &pacer {
            pacer.take(most).await;
        }
        let written = self.write(most).await?;
        if written == 0 {
            return Err(Down::Closed);
        }
        if let Some(pacer) = &pacer {
            pacer.give_back(most - written.min(most));
        }
        self.advance(written);
        self.departures.note(written as u32);
        self.report().await;
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(part) = self.pending.front_mut() {
            if written < part.len() {
                part.advance(written);
                return;
            }
            written -= part.len();
            self.pending.pop_front();
        }
    }
}
