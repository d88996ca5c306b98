//! What is to be sent: units in their order, data from where they lie, many with one system call.
//!
//! *Invariants*: units are whole and in order; dropping the future of [`Outbox::send_some`] loses nothing.
//! *Bounds*: its owner's: it says how many bytes wait ([`Outbox::bytes`]).

use crate::iscsi::pdu::{DIGEST_BYTES, HEADER_BYTES, Header};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Most parts of a vectored write (Linux's `IOV_MAX`).
const PARTS_MAX: usize = 1024;
/// Padding and a digest.
const TAIL_BYTES: usize = 3 + DIGEST_BYTES;

/// A unit on its way.
struct Reply {
    head: [u8; HEADER_BYTES + DIGEST_BYTES],
    head_bytes: u8,
    body: Vec<Bytes>,
    tail: [u8; TAIL_BYTES],
    tail_bytes: u8,
    /// Comes back to the owner when it is sent.
    weight: usize,
    bytes: usize,
}

impl Reply {
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let head = &self.head[..self.head_bytes.into()];
        let tail = &self.tail[..self.tail_bytes.into()];
        std::iter::once(head).chain(self.body.iter().map(|part| &part[..])).chain(std::iter::once(tail))
    }
}

/// The queue to an initiator.
pub(super) struct Outbox<W> {
    write: W,
    queue: VecDeque<Reply>,
    /// Bytes of the first that are sent.
    sent: usize,
    /// Bytes that are not.
    bytes: usize,
    pub header_digest: bool,
    pub data_digest: bool,
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    pub(super) fn new(write: W, header_digest: bool, data_digest: bool) -> Self {
        Self { write, queue: VecDeque::new(), sent: 0, bytes: 0, header_digest, data_digest }
    }

    /// Bytes that wait to be sent.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Units that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Queues a unit; its length is set here.
    pub(super) fn push(&mut self, header: Header, body: Vec<Bytes>, weight: usize) {
        let data_bytes = body.iter().map(Bytes::len).sum::<usize>();
        let header = header.with_data_bytes(data_bytes);
        let mut head = [0; HEADER_BYTES + DIGEST_BYTES];
        head[..HEADER_BYTES].copy_from_slice(&header.0);
        let mut head_bytes = HEADER_BYTES;
        if self.header_digest {
            head[HEADER_BYTES..].copy_from_slice(&crc32c::crc32c(&header.0).to_le_bytes());
            head_bytes += DIGEST_BYTES;
        }
        let mut tail = [0; TAIL_BYTES];
        let padding = data_bytes.next_multiple_of(4) - data_bytes;
        let mut tail_bytes = padding;
        if self.data_digest && data_bytes > 0 {
            let digest = body.iter().fold(0, |digest, part| crc32c::crc32c_append(digest, part));
            let digest = crc32c::crc32c_append(digest, &tail[..padding]).to_le_bytes();
            tail[padding..padding + DIGEST_BYTES].copy_from_slice(&digest);
            tail_bytes += DIGEST_BYTES;
        }
        let bytes = head_bytes + data_bytes + tail_bytes;
        self.bytes += bytes;
        let (head_bytes, tail_bytes) = (head_bytes as u8, tail_bytes as u8);
        self.queue.push_back(Reply { head, head_bytes, body, tail, tail_bytes, weight, bytes });
    }

    /// Sends what one system call takes; gives the weight of what is sent wholly.
    pub(super) async fn send_some(&mut self) -> io::Result<usize> {
        let mut parts = Vec::with_capacity(self.queue.len().min(PARTS_MAX) * 3);
        let mut skipped = self.sent;
        for part in self.queue.iter().flat_map(Reply::parts) {
            let skip = skipped.min(part.len());
            skipped -= skip;
            if skip < part.len() {
                parts.push(IoSlice::new(&part[skip..]));
            }
            if parts.len() == PARTS_MAX {
                break;
            }
        }
        let sent = self.write.write_vectored(&parts).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(self.sent(sent))
    }

    fn sent(&mut self, bytes: usize) -> usize {
        self.bytes -= bytes;
        self.sent += bytes;
        let mut weight = 0;
        while let Some(first) = self.queue.pop_front_if(|first| first.bytes <= self.sent) {
            self.sent -= first.bytes;
            weight += first.weight;
        }
        weight
    }

    /// No more comes.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.write.shutdown().await
    }
}
