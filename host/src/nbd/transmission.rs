//! The server's side of the transmission phase (proto.md, "Transmission"): requests in, replies as they complete.
//!
//! *Purpose*: one reader that answers what is ready and starts a task for each other request, one writer that sends what
//! has completed, many replies with one system call; both in one task. *Invariants*: replies to one request are whole and in order, those of different requests come as they
//! complete. When the client goes away, its requests are given up; after `DISC` or at shutdown they have [`GRACE`].
//! *Bounds*: a connection's requests weigh at most [`WEIGHT_MAX`]; then nothing more is read from it.

use super::handshake::{Session, violation};
use super::proto::{self, READ_BYTES_MAX, REQUEST_BYTES, Request, chunk, cmd, errno};
use crate::disk::{self, Disk, DiskError, ExtentKind};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

/// How long requests that are under way get to complete when the connection ends in order.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// What a connection's requests may weigh together, in bytes: two of the largest.
const WEIGHT_MAX: usize = 2 * (READ_BYTES_MAX + WEIGHT_BASE) as usize;
/// What a request weighs beside its data, in bytes; so at most 129 are under way.
const WEIGHT_BASE: u32 = 512 * 1024;
/// Most bytes of requests that are read ahead.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Most replies that one system call sends.
const BATCH_REPLIES: usize = 64;
/// Longest read that is answered by the task that reads requests, in bytes; longer ones are spread over the processors.
const READY_BYTES_MAX: u32 = 256 << 10;
/// So many bytes of answers are gathered before they are sent.
const UNSENT_BYTES: usize = 128 * 1024;
/// Most parts of a vectored write (Linux's `IOV_MAX`).
const WRITE_PARTS: usize = 1024;
/// Most extents of one reply.
const EXTENTS_MAX: usize = 1024;

/// Serves a connection after its negotiation, until it ends; several reads at a time on `others`.
pub(super) async fn serve<R, W, D>(
    read: R,
    write: W,
    disk: Arc<D>,
    session: Session,
    mut shutdown: watch::Receiver<bool>,
    others: Handle,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    D: Disk,
{
    let (replies, queue) = mpsc::unbounded_channel();
    // In the same task as the reader: what is answered at once is sent without waking another thread.
    let mut writer = std::pin::pin!(send_replies(write, queue));
    let weight = Arc::new(Semaphore::new(WEIGHT_MAX));
    let mut connection = Connection {
        read,
        buffer: BytesMut::with_capacity(BUFFER_BYTES_MAX),
        disk,
        session,
        replies,
        weight,
        reads: JoinSet::new(),
        others,
        unsent_bytes: 0,
    };
    tokio::select! {
        biased;
        ended = connection.run() => ended?,
        sent = &mut writer => return sent,
        _ = shutdown.wait_for(|down| *down) => {}
    }
    let Connection { mut reads, replies, .. } = connection;
    let drain = async {
        while let Some(read) = reads.join_next().await {
            read.map_err(io::Error::other)?;
        }
        drop(replies);
        Ok(())
    };
    let both = async { tokio::try_join!(drain, writer).map(drop) };
    timeout(GRACE, both).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

struct Connection<R, D> {
    read: R,
    buffer: BytesMut,
    disk: Arc<D>,
    session: Session,
    replies: Replies,
    weight: Arc<Semaphore>,
    reads: JoinSet<()>,
    /// Other threads, which take what several requests ask for.
    others: Handle,
    /// Bytes of answers that were given at once since the writer had its turn.
    unsent_bytes: usize,
}

type Replies = mpsc::UnboundedSender<Reply>;

impl<R: AsyncRead + Unpin, D: Disk> Connection<R, D> {
    /// Until the client disconnects in order; any other end is an error.
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let request = self.next_request().await?;
            if request.command == cmd::DISC {
                return Ok(());
            }
            let has_data = matches!(request.command, cmd::READ | cmd::WRITE);
            let bytes = if has_data { request.bytes.min(READ_BYTES_MAX) } else { 0 };
            let permit = self.room_for(WEIGHT_BASE + bytes).await?;
            self.handle(request, permit).await?;
        }
    }

    async fn next_request(&mut self) -> io::Result<Request> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<REQUEST_BYTES>() {
                let request = Request::parse(head).map_err(|_| violation("no request where one must be"))?;
                self.buffer.advance(REQUEST_BYTES);
                return Ok(request);
            }
            self.more().await?;
        }
    }

    /// Waits until a request of this weight may start. A client that goes away meanwhile is noticed.
    async fn room_for(&mut self, weight: u32) -> io::Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.weight).acquire_many_owned(weight);
        tokio::pin!(permit);
        loop {
            tokio::select! {
                biased;
                permit = &mut permit => return permit.map_err(io::Error::other),
                more = self.more() => more?,
            }
        }
    }

    /// Reads some bytes, or sees a read's task end.
    async fn more(&mut self) -> io::Result<()> {
        tokio::select! {
            read = self.read.read_buf(&mut self.buffer), if self.buffer.len() < BUFFER_BYTES_MAX => match read? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            },
            // A reply that never comes would hang the client: better no connection.
            Some(done) = self.reads.join_next() => done.map_err(io::Error::other),
            else => std::future::pending().await,
        }
    }

    async fn handle(&mut self, request: Request, permit: OwnedSemaphorePermit) -> io::Result<()> {
        let answer = Answer { request, session: self.session, replies: self.replies.clone(), permit };
        let disk = Arc::clone(&self.disk);
        if request.command == cmd::WRITE {
            self.handle_write(answer).await?;
        } else if let Some((number, fault)) = self.fault(&request) {
            answer.error(number, fault);
        } else {
            match request.command {
                cmd::READ => self.read(answer, disk).await,
                cmd::BLOCK_STATUS => self.start(answer.block_status(disk)),
                cmd::FLUSH if !disk.is_writable() => answer.done(Ok(())),
                cmd::FLUSH => self.start(answer.flush(disk)),
                cmd::TRIM => self.start(answer.trim(disk)),
                _ => self.start(answer.write_zeroes(disk)),
            }
        }
        while let Some(done) = self.reads.try_join_next() {
            done.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// What a write brings has to be read, also if nothing comes of it.
    async fn handle_write(&mut self, answer: Answer) -> io::Result<()> {
        let request = answer.request;
        if let Some((number, fault)) = self.fault(&request) {
            self.drain_payload(request.bytes).await?;
            answer.error(number, fault);
        } else {
            let data = self.payload(request.bytes).await?;
            let disk = Arc::clone(&self.disk);
            self.start(answer.write(disk, data));
        }
        Ok(())
    }

    /// What costs a copy alone is answered at once; after some of it the writer gets its turn, so that the client has
    /// something to do.
    async fn read(&mut self, answer: Answer, disk: Arc<D>) {
        let Request { offset, bytes, .. } = answer.request;
        let ready = if bytes <= READY_BYTES_MAX { disk.read_ready(self.session.guest, offset, bytes) } else { None };
        let Some(segments) = ready else { return self.start(answer.read(disk)) };
        answer.data(segments);
        self.unsent_bytes += bytes as usize;
        if self.unsent_bytes >= UNSENT_BYTES {
            self.unsent_bytes = 0;
            tokio::task::yield_now().await;
        }
    }

    /// A client that waits for one answer gets it from this thread, at once if there is nothing to wait for: another would
    /// have to be woken. Several reads at a time are spread over the processors.
    fn start(&mut self, answer: impl Future<Output = ()> + Send + 'static) {
        let is_only = self.reads.is_empty() && self.buffer.len() < REQUEST_BYTES;
        if !is_only {
            self.reads.spawn_on(answer, &self.others);
            return;
        }
        let mut answer = Box::pin(answer);
        if answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.reads.spawn(answer);
        }
    }

    /// Why a request is refused at once: the error's number, and a reason.
    fn fault(&self, request: &Request) -> Option<(u32, &'static str)> {
        let is_writable = self.disk.is_writable();
        let changes = matches!(request.command, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES);
        if changes && !is_writable {
            return Some((errno::EPERM, "the disk is read-only"));
        }
        let allowed = match request.command {
            cmd::READ if self.session.structured => cmd::FLAG_DF,
            cmd::BLOCK_STATUS => cmd::FLAG_REQ_ONE,
            cmd::WRITE_ZEROES => cmd::FLAG_NO_HOLE,
            cmd::READ | cmd::WRITE | cmd::TRIM | cmd::FLUSH => 0,
            _ => return Some((errno::EINVAL, "the command is not supported")),
        };
        // proto.md: where FUA was offered, it is accepted with every command.
        let allowed = if is_writable { allowed | cmd::FLAG_FUA } else { allowed };
        if request.flags & !allowed != 0 {
            return Some((errno::EINVAL, "the request has flags that were not agreed on"));
        }
        if request.command == cmd::READ && request.bytes > READ_BYTES_MAX {
            return Some((errno::EINVAL, "the read is longer than the maximum block size"));
        }
        if request.command == cmd::BLOCK_STATUS && !self.session.allocation {
            return Some((errno::EINVAL, "base:allocation was not negotiated"));
        }
        if request.command == cmd::BLOCK_STATUS && request.bytes == 0 {
            return Some((errno::EINVAL, "the status request has no length"));
        }
        if request.command == cmd::FLUSH {
            return None;
        }
        // proto.md: beyond the end there is no space to write, and nothing to read or trim.
        let adds = matches!(request.command, cmd::WRITE | cmd::WRITE_ZEROES);
        let number = if adds { errno::ENOSPC } else { errno::EINVAL };
        let range = disk::check_range(self.disk.image_bytes(), request.offset, request.bytes.into());
        range.err().map(|_| (number, "the range reaches beyond the end of the disk"))
    }

    /// What a write brings. A client that wants to write more at a time than any may is cut off.
    async fn payload(&mut self, bytes: u32) -> io::Result<Bytes> {
        if bytes > READ_BYTES_MAX {
            return Err(violation("a write longer than the maximum block size"));
        }
        let bytes = bytes as usize;
        let mut data = BytesMut::with_capacity(bytes);
        data.put(self.buffer.split_to(self.buffer.len().min(bytes)));
        while data.len() < bytes {
            let rest = (bytes - data.len()) as u64;
            if (&mut self.read).take(rest).read_buf(&mut data).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(data.freeze())
    }

    /// Reads and forgets what a write brings, within the same bound.
    async fn drain_payload(&mut self, bytes: u32) -> io::Result<()> {
        if bytes > READ_BYTES_MAX {
            return Err(violation("a write longer than the maximum block size"));
        }
        let buffered = self.buffer.len().min(bytes as usize);
        self.buffer.advance(buffered);
        let rest = u64::from(bytes) - buffered as u64;
        let drained = tokio::io::copy(&mut (&mut self.read).take(rest), &mut tokio::io::sink()).await?;
        if drained == rest { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Part of what goes to the client: a head, then data that is sent from where it lies.
struct Reply {
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    body: Vec<Bytes>,
    /// With the last part of an answer: its weight is off the connection when this is sent.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The longest head: of a chunk, with the offset of its data.
const HEAD_BYTES_MAX: usize = 28;

impl Reply {
    fn head(&self) -> &[u8] {
        &self.head[..self.head_bytes.into()]
    }
}

/// A request on its way to its answer.
struct Answer {
    request: Request,
    session: Session,
    replies: Replies,
    permit: OwnedSemaphorePermit,
}

impl Answer {
    async fn read<D: Disk>(self, disk: Arc<D>) {
        let Request { offset, bytes, .. } = self.request;
        match disk.read(self.session.guest, offset, bytes).await {
            Ok(segments) => self.data(segments),
            Err(error) => self.disk_error(&error),
        }
    }

    /// Answers a read.
    fn data(self, segments: Vec<Bytes>) {
        let Request { offset, bytes, flags, .. } = self.request;
        if segments.iter().map(Bytes::len).sum::<usize>() != bytes as usize {
            return self.error(errno::EIO, "the disk gave too little or too much");
        }
        if !self.session.structured {
            return self.simple(0, segments);
        }
        if bytes == 0 {
            return self.chunk(chunk::NONE, &[], Vec::new());
        }
        if flags & cmd::FLAG_DF != 0 || !segments.iter().any(disk::is_zero_segment) {
            return self.chunk(chunk::OFFSET_DATA, &offset.to_be_bytes(), segments);
        }
        self.runs(segments);
    }

    /// Data and holes in turn.
    fn runs(self, segments: Vec<Bytes>) {
        let mut offset = self.request.offset;
        let mut rest = segments.into_iter().peekable();
        while let Some(first) = rest.next() {
            let hole = disk::is_zero_segment(&first);
            let mut run_bytes = first.len();
            let mut run = vec![first];
            while let Some(next) = rest.next_if(|next| disk::is_zero_segment(next) == hole) {
                run_bytes += next.len();
                run.push(next);
            }
            let (kind, body) = if hole {
                (chunk::OFFSET_HOLE, vec![Bytes::copy_from_slice(&(run_bytes as u32).to_be_bytes())])
            } else {
                (chunk::OFFSET_DATA, run)
            };
            if rest.peek().is_none() {
                return self.chunk(kind, &offset.to_be_bytes(), body);
            }
            let _ = self.replies.send(chunk_reply(0, kind, self.request.cookie, &offset.to_be_bytes(), body, None));
            offset += run_bytes as u64;
        }
    }

    async fn block_status<D: Disk>(self, disk: Arc<D>) {
        let Request { offset, bytes, flags, .. } = self.request;
        let max = if flags & cmd::FLAG_REQ_ONE != 0 { 1 } else { EXTENTS_MAX };
        let extents = match disk.extents(self.session.guest, offset, bytes.into(), max).await {
            Ok(extents) if !extents.is_empty() => extents,
            Ok(_) => return self.error(errno::EIO, "the disk gave no extents"),
            Err(error) => return self.disk_error(&error),
        };
        let mut body = BytesMut::with_capacity(4 + 8 * extents.len());
        body.put_u32(proto::BASE_ALLOCATION_ID);
        let mut left = bytes;
        for extent in extents.iter().take(max) {
            let length = u32::try_from(extent.bytes).unwrap_or(u32::MAX).min(left);
            if length > 0 {
                body.put_u32(length);
                body.put_u32(if extent.kind == ExtentKind::Zero { proto::STATE_ZERO } else { 0 });
                left -= length;
            }
        }
        self.chunk(chunk::BLOCK_STATUS, &[], vec![body.freeze()]);
    }

    async fn write<D: Disk>(self, disk: Arc<D>, data: Bytes) {
        let done = disk.write(self.session.guest, self.request.offset, data).await;
        self.changed(disk, done).await;
    }

    async fn write_zeroes<D: Disk>(self, disk: Arc<D>) {
        let Request { offset, bytes, flags, .. } = self.request;
        let may_trim = flags & cmd::FLAG_NO_HOLE == 0;
        let done = disk.write_zeroes(self.session.guest, offset, bytes.into(), may_trim).await;
        self.changed(disk, done).await;
    }

    async fn trim<D: Disk>(self, disk: Arc<D>) {
        let done = disk.trim(self.session.guest, self.request.offset, self.request.bytes.into()).await;
        self.changed(disk, done).await;
    }

    async fn flush<D: Disk>(self, disk: Arc<D>) {
        let done = disk.flush().await;
        self.done(done);
    }

    /// Answers a request that changes the disk; with FUA once that is durable.
    async fn changed<D: Disk>(self, disk: Arc<D>, done: Result<(), DiskError>) {
        let done = match done {
            Ok(()) if self.request.flags & cmd::FLAG_FUA != 0 => disk.flush().await,
            done => done,
        };
        self.done(done);
    }

    fn done(self, done: Result<(), DiskError>) {
        match done {
            Ok(()) => self.simple(0, Vec::new()),
            Err(error) => self.disk_error(&error),
        }
    }

    fn disk_error(self, error: &DiskError) {
        let number = match error {
            DiskError::OutOfRange { .. } => errno::EINVAL,
            DiskError::ReadOnly => errno::EPERM,
            DiskError::Full => errno::ENOSPC,
            _ => errno::EIO,
        };
        self.error(number, &error.to_string());
    }

    fn error(self, number: u32, why: &str) {
        let must_be_chunk = matches!(self.request.command, cmd::READ | cmd::BLOCK_STATUS);
        if !(self.session.structured && must_be_chunk) {
            return self.simple(number, Vec::new());
        }
        let why = &why[..why.floor_char_boundary(proto::STRING_BYTES_MAX)];
        let mut body = BytesMut::with_capacity(6 + why.len());
        body.put_u32(number);
        body.put_u16(why.len() as u16);
        body.put_slice(why.as_bytes());
        self.chunk(chunk::ERROR, &[], vec![body.freeze()]);
    }

    fn simple(self, error: u32, body: Vec<Bytes>) {
        let mut head = [0; HEAD_BYTES_MAX];
        head[..4].copy_from_slice(&proto::MAGIC_SIMPLE.to_be_bytes());
        head[4..8].copy_from_slice(&error.to_be_bytes());
        head[8..16].copy_from_slice(&self.request.cookie.to_be_bytes());
        self.send(Reply { head, head_bytes: 16, body, _permit: None });
    }

    /// The last chunk of the answer; `start` is the part of its payload that goes into the head.
    fn chunk(self, kind: u16, start: &[u8], body: Vec<Bytes>) {
        let reply = chunk_reply(chunk::FLAG_DONE, kind, self.request.cookie, start, body, None);
        self.send(reply);
    }

    fn send(self, reply: Reply) {
        // An error means that the writer is gone, and the connection with it.
        let _ = self.replies.send(Reply { _permit: Some(self.permit), ..reply });
    }
}

fn chunk_reply(
    flags: u16,
    kind: u16,
    cookie: u64,
    start: &[u8],
    body: Vec<Bytes>,
    permit: Option<OwnedSemaphorePermit>,
) -> Reply {
    let payload_bytes = start.len() + body.iter().map(Bytes::len).sum::<usize>();
    let mut head = [0; HEAD_BYTES_MAX];
    head[..4].copy_from_slice(&proto::MAGIC_CHUNK.to_be_bytes());
    head[4..6].copy_from_slice(&flags.to_be_bytes());
    head[6..8].copy_from_slice(&kind.to_be_bytes());
    head[8..16].copy_from_slice(&cookie.to_be_bytes());
    head[16..20].copy_from_slice(&(payload_bytes as u32).to_be_bytes());
    head[20..20 + start.len()].copy_from_slice(start);
    Reply { head, head_bytes: 20 + start.len() as u8, body, _permit: permit }
}

/// Sends replies in the order of the queue until it closes.
async fn send_replies<W: AsyncWrite + Unpin>(
    mut write: W,
    mut queue: mpsc::UnboundedReceiver<Reply>,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH_REPLIES);
    while queue.recv_many(&mut batch, BATCH_REPLIES).await > 0 {
        let mut parts = Vec::with_capacity(batch.iter().map(|reply| 1 + reply.body.len()).sum());
        for reply in &batch {
            parts.push(IoSlice::new(reply.head()));
            parts.extend(reply.body.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)));
        }
        let mut rest = &mut parts[..];
        while !rest.is_empty() {
            let sent = write.write_vectored(&rest[..rest.len().min(WRITE_PARTS)]).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, sent);
        }
        batch.clear();
    }
    write.shutdown().await
}

#[cfg(test)]
mod tests;
