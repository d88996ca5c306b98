//! A small NBD client: reads and writes, many in flight over one connection, with simple or structured replies.
//!
//! *Purpose*: `replay` against any NBD server. *Invariants*: a request that is given up leaves the connection whole; when
//! the connection ends, every request under way ends with an error. What a server sends is checked before it is used.
//! *Units*: bytes. *Bounds*: [`IN_FLIGHT_MAX`] requests; nothing is allocated beyond what was asked for; connecting and
//! negotiating get [`CONNECT_TIME`].

use super::address::{NbdListen, NbdUri};
use super::proto::{self, READ_BYTES_MAX, Request, chunk, cmd, errno, flag, info, opt, rep};
use crate::disk::{Disk, DiskError, Extent, ExtentKind, check_range};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarmdisk_core::ids::GuestId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

/// Most requests in flight; more wait for their turn.
pub const IN_FLIGHT_MAX: usize = 64;
/// How long connecting and negotiating may take.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest reply to an option, in bytes.
const OPTION_REPLY_BYTES_MAX: u32 = 64 * 1024;

/// Why the client could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection could not be made, or broke.
    #[error("the connection to {uri} failed: {source}; check that the server runs")]
    Io {
        /// Whither.
        uri: String,
        /// Why.
        source: io::Error,
    },
    /// The server is at fault; the connection has ended.
    #[error("the NBD server sent what the protocol does not allow: {0}")]
    Protocol(&'static str),
    /// The server refused the export.
    #[error("the NBD server refused {uri}: {why}; check the export's name (nbdinfo --list)")]
    Refused {
        /// The URI.
        uri: String,
        /// What the server said, or an error's number.
        why: String,
    },
    /// The read failed at the server; the connection goes on.
    #[error("the NBD server could not read {bytes} bytes at {offset}: {why}")]
    Read {
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u32,
        /// What the server said, or an error's number.
        why: String,
    },
    /// The write failed at the server; the connection goes on.
    #[error("the NBD server could not write {bytes} bytes at {offset}: {why}")]
    Write {
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u32,
        /// What the server said, or an error's number.
        why: String,
    },
    /// The flush failed at the server; the connection goes on.
    #[error("the NBD server could not make the writes durable: {0}")]
    Flush(String),
    /// The connection has ended; the reason says what to do.
    #[error("the connection to the NBD server has ended: {0}")]
    Ended(Arc<str>),
    /// This operating system has no such sockets for us.
    #[error("Unix sockets are not supported here; use nbd://HOST:PORT")]
    NoUnixSockets,
}

/// A connection to one export. Dropping it ends the connection.
#[derive(Debug)]
pub struct NbdClient {
    shared: Arc<Shared>,
    export: ExportInfo,
    requests: mpsc::Sender<(Request, Bytes)>,
    in_flight: Semaphore,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// What a server tells of an export.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Size in bytes.
    pub image_bytes: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether the server can be asked to make writes durable.
    pub can_flush: bool,
    /// Smallest unit of a read in bytes, a power of two; reads are widened to it.
    pub min_bytes: u32,
    /// What the server likes best, in bytes.
    pub preferred_bytes: u32,
    /// Longest read in bytes; longer ones are split.
    pub max_bytes: u32,
}

impl NbdClient {
    /// Connects and opens the export.
    ///
    /// # Errors
    /// [`ClientError`]: no connection, not in time, no NBD server of the fixed newstyle, or no such export.
    pub async fn connect(uri: &NbdUri) -> Result<Self, ClientError> {
        let fail = |source| ClientError::Io { uri: uri.to_string(), source };
        let connected = timeout(CONNECT_TIME, async {
            let (read, mut write) = open(&uri.server).await.map_err(|error| match error {
                OpenError::Io(source) => fail(source),
                #[cfg(not(unix))]
                OpenError::NoUnixSockets => ClientError::NoUnixSockets,
            })?;
            let mut read = BufReader::with_capacity(64 * 1024, read);
            let (export, structured) = Negotiation { read: &mut read, write: &mut write, uri }.run().await?;
            Ok((read, write, export, structured))
        });
        let (read, write, export, structured) =
            connected.await.unwrap_or_else(|_| Err(fail(io::ErrorKind::TimedOut.into())))?;
        let shared = Arc::new(Shared { uri: uri.to_string(), state: Mutex::default() });
        let (requests, queue) = mpsc::channel(IN_FLIGHT_MAX);
        let writer = tokio::spawn(send_requests(write, queue));
        let reader = tokio::spawn(receive(Receiver { read, structured, shared: Arc::clone(&shared) }));
        Ok(Self { shared, export, requests, in_flight: Semaphore::new(IN_FLIGHT_MAX), reader, writer })
    }

    /// What the server told of the export.
    pub fn export(&self) -> ExportInfo {
        self.export
    }

    /// `bytes` bytes from `offset`, as one segment or several if they are more than the server gives at a time.
    ///
    /// # Errors
    /// [`ClientError::Read`] if the server could not read, also beyond the end; else the connection has ended.
    pub async fn read_at(&self, offset: u64, bytes: u32) -> Result<Vec<Bytes>, ClientError> {
        let end = offset.checked_add(bytes.into()).filter(|end| *end <= self.export.image_bytes);
        let beyond = || ClientError::Read { offset, bytes, why: "it is beyond the end".into() };
        let end = end.ok_or_else(beyond)?;
        let mut segments = Vec::new();
        let mut at = offset;
        while at < end {
            // Whole blocks only, from the block that `at` is in.
            let min = u64::from(self.export.min_bytes);
            let start = at / min * min;
            let stop =
                end.next_multiple_of(min).min(self.export.image_bytes).min(start + u64::from(self.export.max_bytes));
            let mut part = self.read_part(start, (stop - start) as u32).await?;
            part.truncate((end.min(stop) - start) as usize);
            segments.push(part.split_off((at - start) as usize));
            at = end.min(stop);
        }
        Ok(segments)
    }

    /// Tells the server that this is the end, and closes. Reads under way are given up.
    pub async fn disconnect(mut self) {
        let bye = Request { flags: 0, command: cmd::DISC, cookie: 0, offset: 0, bytes: 0 };
        if self.requests.send((bye, Bytes::new())).await.is_ok() {
            // The writer ends after a DISC.
            let _ = (&mut self.writer).await;
        }
    }

    /// Writes `data` at `offset`, in parts if it is more than the server takes at a time.
    ///
    /// # Errors
    /// [`ClientError::Write`] if the server could not write all of it, it is read-only, or the range is not of its whole
    /// blocks, or goes beyond the end; else the connection has ended.
    pub async fn write_at(&self, offset: u64, mut data: Bytes) -> Result<(), ClientError> {
        let bytes = data.len() as u32;
        let refused = |why: &str| ClientError::Write { offset, bytes, why: why.into() };
        let min = u64::from(self.export.min_bytes);
        if self.export.read_only {
            return Err(refused("it is read-only"));
        }
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > self.export.image_bytes) {
            return Err(refused("it is beyond the end"));
        }
        if !offset.is_multiple_of(min) || !u64::from(bytes).is_multiple_of(min) {
            return Err(refused("its blocks are larger"));
        }
        let mut at = offset;
        while !data.is_empty() {
            let part = data.split_to(data.len().min(self.export.max_bytes as usize));
            let bytes = part.len() as u32;
            self.ask(cmd::WRITE, at, bytes, part).await?;
            at += u64::from(bytes);
        }
        Ok(())
    }

    /// Makes all writes that were answered before durable, if the server can.
    ///
    /// # Errors
    /// [`ClientError::Flush`] if the server could not; else the connection has ended.
    pub async fn flush(&self) -> Result<(), ClientError> {
        if !self.export.can_flush {
            return Ok(());
        }
        self.ask(cmd::FLUSH, 0, 0, Bytes::new()).await.map(drop)
    }

    async fn read_part(&self, offset: u64, bytes: u32) -> Result<Bytes, ClientError> {
        self.ask(cmd::READ, offset, bytes, Bytes::new()).await
    }

    /// Asks once; `payload` goes with it, the answer has data if it is a read.
    async fn ask(&self, command: u16, offset: u64, bytes: u32, payload: Bytes) -> Result<Bytes, ClientError> {
        let _turn = self.in_flight.acquire().await.map_err(|_| self.shared.ended())?;
        let (answer, answered) = oneshot::channel();
        let wanted = if command == cmd::READ { bytes as usize } else { 0 };
        let data = BytesMut::zeroed(wanted);
        let pending = Pending { command, offset, bytes, data, filled: 0, error: None, answer };
        let cookie = self.shared.register(pending)?;
        let request = Request { flags: 0, command, cookie, offset, bytes };
        self.requests.send((request, payload)).await.map_err(|_| self.shared.ended())?;
        answered.await.unwrap_or_else(|_| Err(self.shared.ended()))
    }
}

impl Drop for NbdClient {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

impl Disk for NbdClient {
    fn image_bytes(&self) -> u64 {
        self.export.image_bytes
    }

    fn preferred_bytes(&self) -> u32 {
        self.export.preferred_bytes
    }

    async fn read(&self, _guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        check_range(self.export.image_bytes, offset, bytes.into())?;
        self.read_at(offset, bytes).await.map_err(DiskError::failed)
    }

    async fn extents(&self, _guest: GuestId, offset: u64, bytes: u64, max: usize) -> Result<Vec<Extent>, DiskError> {
        check_range(self.export.image_bytes, offset, bytes)?;
        let all = Extent { bytes, kind: ExtentKind::Data };
        Ok(if bytes == 0 || max == 0 { Vec::new() } else { vec![all] })
    }

    fn is_writable(&self) -> bool {
        !self.export.read_only
    }

    async fn write(&self, _guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        check_range(self.export.image_bytes, offset, data.len() as u64)?;
        if self.export.read_only {
            return Err(DiskError::ReadOnly);
        }
        self.write_at(offset, data).await.map_err(DiskError::failed)
    }

    async fn flush(&self) -> Result<(), DiskError> {
        NbdClient::flush(self).await.map_err(DiskError::failed)
    }
}

/// What the client and its tasks share.
#[derive(Debug)]
struct Shared {
    uri: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<u64, Pending>,
    next_cookie: u64,
    /// Why the connection has ended, if it has.
    ended: Option<Arc<str>>,
}

/// A request under way.
#[derive(Debug)]
struct Pending {
    command: u16,
    offset: u64,
    bytes: u32,
    data: BytesMut,
    /// Bytes of `data` that the server has sent.
    filled: u64,
    error: Option<String>,
    answer: oneshot::Sender<Result<Bytes, ClientError>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, pending: Pending) -> Result<u64, ClientError> {
        let mut state = self.state();
        if let Some(why) = &state.ended {
            return Err(ClientError::Ended(Arc::clone(why)));
        }
        let cookie = state.next_cookie;
        state.next_cookie += 1;
        state.pending.insert(cookie, pending);
        Ok(cookie)
    }

    fn take(&self, cookie: u64) -> Result<Pending, ClientError> {
        self.state().pending.remove(&cookie).ok_or(ClientError::Protocol("a reply to no request"))
    }

    fn put_back(&self, cookie: u64, pending: Pending) {
        self.state().pending.insert(cookie, pending);
    }

    /// Every request under way learns that the connection has ended, and why.
    fn end(&self, error: &ClientError) {
        let why: Arc<str> = error.to_string().into();
        let mut state = self.state();
        for (_, pending) in state.pending.drain() {
            let _ = pending.answer.send(Err(ClientError::Ended(Arc::clone(&why))));
        }
        state.ended = Some(why);
    }

    fn ended(&self) -> ClientError {
        ClientError::Ended(self.state().ended.clone().unwrap_or_else(|| "it was closed".into()))
    }
}

impl Pending {
    fn finish(self) -> Result<(), ClientError> {
        let incomplete = || ClientError::Protocol("a reply that leaves something out");
        let whole = self.filled == self.data.len() as u64;
        let Self { command, offset, bytes, .. } = self;
        let answer = match self.error {
            Some(why) => Err(match command {
                cmd::WRITE => ClientError::Write { offset, bytes, why },
                cmd::FLUSH => ClientError::Flush(why),
                _ => ClientError::Read { offset, bytes, why },
            }),
            None if whole => Ok(self.data.freeze()),
            None => Err(incomplete()),
        };
        let broken = matches!(answer, Err(ClientError::Protocol(_)));
        // Nobody waits if the request was given up.
        let _ = self.answer.send(answer);
        if broken { Err(incomplete()) } else { Ok(()) }
    }

    /// The place in `data` of `bytes` bytes from `offset` of the export.
    fn place(&mut self, offset: u64, bytes: u32) -> Result<&mut [u8], ClientError> {
        let bad = ClientError::Protocol("data that were not asked for");
        let Some(start) = offset.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok()) else {
            return Err(bad);
        };
        self.filled += u64::from(bytes);
        start.checked_add(bytes as usize).and_then(|end| self.data.get_mut(start..end)).ok_or(bad)
    }
}

async fn send_requests<W: AsyncWrite + Unpin>(mut write: W, mut queue: mpsc::Receiver<(Request, Bytes)>) {
    let mut batch = Vec::with_capacity(IN_FLIGHT_MAX);
    let mut bytes = Vec::with_capacity(IN_FLIGHT_MAX * proto::REQUEST_BYTES);
    while queue.recv_many(&mut batch, IN_FLIGHT_MAX).await > 0 {
        let last = batch.iter().any(|(request, _)| request.command == cmd::DISC);
        // If it fails, the reader learns of it too, and tells.
        if send_batch(&mut write, &mut bytes, &mut batch).await.is_err() || last {
            break;
        }
    }
    let _ = write.shutdown().await;
}

/// Heads together, as far as no payload is between.
async fn send_batch<W: AsyncWrite + Unpin>(
    write: &mut W,
    heads: &mut Vec<u8>,
    batch: &mut Vec<(Request, Bytes)>,
) -> io::Result<()> {
    heads.clear();
    for (request, payload) in batch.drain(..) {
        heads.extend(request.encode());
        if !payload.is_empty() {
            write.write_all(heads).await?;
            heads.clear();
            write.write_all(&payload).await?;
        }
    }
    write.write_all(heads).await
}

struct Receiver<R> {
    read: R,
    structured: bool,
    shared: Arc<Shared>,
}

async fn receive<R: AsyncRead + Unpin>(mut receiver: Receiver<R>) {
    loop {
        if let Err(error) = receiver.reply().await {
            return receiver.shared.end(&error);
        }
    }
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    async fn reply(&mut self) -> Result<(), ClientError> {
        match self.read_u32().await? {
            proto::MAGIC_SIMPLE => self.simple().await,
            proto::MAGIC_CHUNK if self.structured => self.chunk().await,
            _ => Err(ClientError::Protocol("no reply where one must be")),
        }
    }

    async fn simple(&mut self) -> Result<(), ClientError> {
        let error = self.read_u32().await?;
        let cookie = self.read_u64().await?;
        let mut pending = self.shared.take(cookie)?;
        let filled = self.simple_data(error, &mut pending).await;
        self.next(cookie, pending, filled.map(|()| true))
    }

    async fn simple_data(&mut self, error: u32, pending: &mut Pending) -> Result<(), ClientError> {
        if error != 0 {
            pending.error = Some(describe(error));
            return Ok(());
        }
        // Of other requests the answer may be simple all the same.
        if self.structured && pending.command == cmd::READ {
            return Err(ClientError::Protocol("a simple reply to a read, after structured ones were agreed on"));
        }
        let place = pending.place(pending.offset, pending.data.len() as u32)?;
        self.read.read_exact(place).await.map(drop).map_err(|source| self.io(source))
    }

    async fn chunk(&mut self) -> Result<(), ClientError> {
        let flags_and_kind = self.read_u32().await?;
        let (flags, kind) = ((flags_and_kind >> 16) as u16, flags_and_kind as u16);
        let cookie = self.read_u64().await?;
        let bytes = self.read_u32().await?;
        let mut pending = self.shared.take(cookie)?;
        let filled = self.chunk_data(kind, bytes, &mut pending).await;
        self.next(cookie, pending, filled.map(|()| flags & chunk::FLAG_DONE != 0))
    }

    async fn chunk_data(&mut self, kind: u16, bytes: u32, pending: &mut Pending) -> Result<(), ClientError> {
        match kind {
            chunk::NONE if bytes == 0 => {}
            chunk::OFFSET_DATA if bytes > 8 => {
                let offset = self.read_u64().await?;
                let place = pending.place(offset, bytes - 8)?;
                self.read.read_exact(place).await.map_err(|source| self.io(source))?;
            }
            chunk::OFFSET_HOLE if bytes == 12 => {
                let offset = self.read_u64().await?;
                let hole_bytes = self.read_u32().await?;
                pending.place(offset, hole_bytes)?.fill(0);
            }
            kind if kind & chunk::IS_ERROR != 0 => pending.error = Some(self.error_chunk(bytes).await?),
            _ => return Err(ClientError::Protocol("a chunk of unknown kind or length")),
        }
        Ok(())
    }

    /// After a part of a reply: the read is done, goes on, or ends with the connection.
    fn next(&self, cookie: u64, pending: Pending, done: Result<bool, ClientError>) -> Result<(), ClientError> {
        match done {
            Ok(true) => pending.finish(),
            Ok(false) => {
                self.shared.put_back(cookie, pending);
                Ok(())
            }
            Err(error) => {
                self.shared.put_back(cookie, pending);
                Err(error)
            }
        }
    }

    /// `ERROR`, `ERROR_OFFSET`, or an error of a kind yet to be invented: all begin alike.
    async fn error_chunk(&mut self, bytes: u32) -> Result<String, ClientError> {
        if !(6..=OPTION_REPLY_BYTES_MAX).contains(&bytes) {
            return Err(ClientError::Protocol("an error of impossible length"));
        }
        let mut payload = vec![0; bytes as usize];
        self.read.read_exact(&mut payload).await.map_err(|source| self.io(source))?;
        let mut rest = &payload[..];
        let number = proto::take_u32(&mut rest).unwrap_or(errno::EIO);
        let text_bytes = proto::take_u16(&mut rest).unwrap_or(0);
        let text = proto::take(&mut rest, text_bytes.into()).unwrap_or_default();
        let text = printable(text);
        Ok(if text.is_empty() { describe(number) } else { text })
    }

    async fn read_u32(&mut self) -> Result<u32, ClientError> {
        self.read.read_u32().await.map_err(|source| self.io(source))
    }

    async fn read_u64(&mut self) -> Result<u64, ClientError> {
        self.read.read_u64().await.map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { uri: self.shared.uri.clone(), source }
    }
}

fn describe(number: u32) -> String {
    match number {
        errno::EPERM => "not permitted".into(),
        errno::EIO => "input/output error".into(),
        errno::EINVAL => "invalid request".into(),
        errno::ENOSPC => "no space is left".into(),
        other => format!("error {other}"),
    }
}

/// A server's text, on one line and without surprises for a terminal.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect()
}

/// The client's side of the negotiation: structured replies if they can be had, then `GO`.
struct Negotiation<'a, R, W> {
    read: &'a mut R,
    write: &'a mut W,
    uri: &'a NbdUri,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Negotiation<'_, R, W> {
    async fn run(mut self) -> Result<(ExportInfo, bool), ClientError> {
        let magics = (self.u64().await?, self.u64().await?);
        if magics != (proto::MAGIC, proto::MAGIC_OPTION) {
            return Err(ClientError::Protocol("this is no NBD server, or a very old one"));
        }
        let mut flags = [0; 2];
        self.exact(&mut flags).await?;
        let flags = u16::from_be_bytes(flags);
        if flags & proto::FLAG_FIXED_NEWSTYLE == 0 {
            return Err(ClientError::Protocol("it does not know the fixed newstyle"));
        }
        let ours = flags & (proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES);
        self.send(&u32::from(ours).to_be_bytes()).await?;
        self.option(opt::STRUCTURED_REPLY, &[]).await?;
        let (kind, _) = self.option_reply(opt::STRUCTURED_REPLY).await?;
        let structured = kind == rep::ACK;
        let mut go = (self.uri.export.len() as u32).to_be_bytes().to_vec();
        go.extend(self.uri.export.as_bytes());
        go.extend([0, 1]);
        go.extend(info::BLOCK_SIZE.to_be_bytes());
        self.option(opt::GO, &go).await?;
        let export = self.export().await?;
        Ok((export, structured))
    }

    async fn export(&mut self) -> Result<ExportInfo, ClientError> {
        let (mut size_and_flags, mut sizes) = (None, (1, 4096, READ_BYTES_MAX));
        loop {
            let (kind, data) = self.option_reply(opt::GO).await?;
            let mut rest = &data[..];
            match kind {
                rep::ACK => break,
                rep::INFO => match proto::take_u16(&mut rest) {
                    Some(info::EXPORT) => {
                        size_and_flags = proto::take_u64(&mut rest).zip(proto::take_u16(&mut rest));
                    }
                    Some(info::BLOCK_SIZE) => sizes = block_sizes(rest)?,
                    _ => {}
                },
                rep::ERR_UNSUP => return Err(ClientError::Protocol("it does not know NBD_OPT_GO; use a newer one")),
                error => {
                    let text = printable(&data);
                    let why = if text.is_empty() { format!("error {:#x}", error) } else { text };
                    return Err(ClientError::Refused { uri: self.uri.to_string(), why });
                }
            }
        }
        let (image_bytes, flags) = size_and_flags.ok_or(ClientError::Protocol("no size of the export"))?;
        let (min_bytes, preferred_bytes, max_bytes) = sizes;
        let (read_only, can_flush) = (flags & flag::READ_ONLY != 0, flags & flag::SEND_FLUSH != 0);
        Ok(ExportInfo { image_bytes, read_only, can_flush, min_bytes, preferred_bytes, max_bytes })
    }

    async fn option(&mut self, option: u32, data: &[u8]) -> Result<(), ClientError> {
        let mut bytes = proto::MAGIC_OPTION.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.send(&bytes).await
    }

    async fn option_reply(&mut self, option: u32) -> Result<(u32, Vec<u8>), ClientError> {
        let magic = self.u64().await?;
        let mut head = [0; 12];
        self.exact(&mut head).await?;
        let mut rest = &head[..];
        let mut next = || proto::take_u32(&mut rest).unwrap_or_default();
        let (of, kind, bytes) = (next(), next(), next());
        if magic != proto::MAGIC_OPTION_REPLY || of != option || bytes > OPTION_REPLY_BYTES_MAX {
            return Err(ClientError::Protocol("a bad reply to an option"));
        }
        let mut data = vec![0; bytes as usize];
        self.exact(&mut data).await?;
        Ok((kind, data))
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.write.write_all(bytes).await.map_err(|source| self.io(source))
    }

    async fn u64(&mut self) -> Result<u64, ClientError> {
        self.read.read_u64().await.map_err(|source| self.io(source))
    }

    async fn exact(&mut self, out: &mut [u8]) -> Result<(), ClientError> {
        self.read.read_exact(out).await.map(drop).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { uri: self.uri.to_string(), source }
    }
}

/// Minimum, preferred and maximum, as far as we go along with them.
fn block_sizes(mut rest: &[u8]) -> Result<(u32, u32, u32), ClientError> {
    let mut next = || proto::take_u32(&mut rest).unwrap_or_default();
    let (min, preferred, max) = (next(), next(), next());
    if !min.is_power_of_two() || min > 65536 || max < min {
        return Err(ClientError::Protocol("impossible block sizes"));
    }
    Ok((min, preferred, max.min(READ_BYTES_MAX) / min * min))
}

type Stream = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

enum OpenError {
    Io(io::Error),
    #[cfg(not(unix))]
    NoUnixSockets,
}

async fn open(server: &NbdListen) -> Result<Stream, OpenError> {
    match server {
        NbdListen::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(OpenError::Io)?;
            stream.set_nodelay(true).map_err(OpenError::Io)?;
            let (read, write) = stream.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        #[cfg(unix)]
        NbdListen::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path).await.map_err(OpenError::Io)?;
            let (read, write) = stream.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        #[cfg(not(unix))]
        NbdListen::Unix(_) => Err(OpenError::NoUnixSockets),
    }
}
