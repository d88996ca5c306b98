//! The server's side of fixed newstyle negotiation (proto.md, "Fixed newstyle negotiation").
//!
//! *Purpose*: from the first byte to the transmission phase, or to the end of the connection.
//! *Invariants*: every option but `EXPORT_NAME` and `ABORT` gets exactly one final reply; an unknown one is refused and
//! the talk goes on. *Bounds*: [`OPTIONS_MAX`] options of [`OPTION_BYTES_MAX`] bytes; the caller limits the time.

use super::proto::{self, BASE_ALLOCATION, BASE_ALLOCATION_ID, ClientOption, OPTION_BYTES_MAX, flag, info, rep};
use std::io;
use swarmdisk_core::ids::GuestId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most options of one client.
const OPTIONS_MAX: usize = 256;
/// An option over [`OPTION_BYTES_MAX`] is skipped up to this length in bytes; a longer one ends the connection.
const SKIP_BYTES_MAX: u32 = 1 << 20;

/// What every client is told of the disk.
#[derive(Debug, Clone)]
pub(super) struct Export {
    pub image_bytes: u64,
    pub preferred_bytes: u32,
    pub is_writable: bool,
    pub description: String,
}

/// What was agreed on.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub guest: GuestId,
    pub structured: bool,
    pub allocation: bool,
}

/// Negotiates with a client; none if it went away in peace.
pub(super) async fn negotiate<R, W>(read: R, write: W, export: &Export) -> io::Result<Option<Session>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    Negotiation { read, write, export, structured: false, allocation_for: None }.run().await
}

struct Negotiation<'a, R, W> {
    read: R,
    write: W,
    export: &'a Export,
    structured: bool,
    /// The guest whose export `base:allocation` was last selected for: it holds for no other export.
    allocation_for: Option<GuestId>,
}

enum Next {
    Option,
    Transmission(Session),
    End,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Negotiation<'_, R, W> {
    async fn run(mut self) -> io::Result<Option<Session>> {
        let mut greeting = Vec::with_capacity(18);
        greeting.extend(proto::MAGIC.to_be_bytes());
        greeting.extend(proto::MAGIC_OPTION.to_be_bytes());
        greeting.extend((proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES).to_be_bytes());
        self.send(&greeting).await?;
        let client_flags = self.read.read_u32().await?;
        if client_flags & !u32::from(proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES) != 0 {
            return Err(violation("unknown client flags"));
        }
        let no_zeroes = client_flags & u32::from(proto::FLAG_NO_ZEROES) != 0;
        let mut data = Vec::new();
        for _ in 0..OPTIONS_MAX {
            if self.read.read_u64().await? != proto::MAGIC_OPTION {
                return Err(violation("no option where one must be"));
            }
            let option = self.read.read_u32().await?;
            let bytes = self.read.read_u32().await?;
            if bytes > OPTION_BYTES_MAX {
                self.skip(option, bytes).await?;
                continue;
            }
            data.resize(bytes as usize, 0);
            self.read.read_exact(&mut data).await?;
            let next = match ClientOption::parse(option, &data) {
                Ok(parsed) => self.answer(option, parsed, no_zeroes).await?,
                Err(_) if option == proto::opt::EXPORT_NAME => return Err(violation("a bad export name")),
                Err(_) => self.refuse(option, rep::ERR_INVALID, "the option's data are malformed").await?,
            };
            match next {
                Next::Option => {}
                Next::Transmission(session) => return Ok(Some(session)),
                Next::End => return Ok(None),
            }
        }
        Err(violation("too many options"))
    }

    async fn answer(&mut self, option: u32, parsed: ClientOption<'_>, no_zeroes: bool) -> io::Result<Next> {
        match parsed {
            ClientOption::ExportName(name) => self.export_name(name, no_zeroes).await,
            ClientOption::Abort => {
                // The client need not wait for it.
                let _ = self.reply(option, rep::ACK, &[]).await;
                Ok(Next::End)
            }
            ClientOption::List => {
                let mut server = 0u32.to_be_bytes().to_vec();
                server.extend(self.export.description.as_bytes());
                self.reply(option, rep::SERVER, &server).await?;
                self.acknowledge(option).await
            }
            ClientOption::Info { go, name, wants_name, wants_description } => {
                let Some(guest) = proto::guest_of(name) else { return self.refuse_name(option).await };
                self.describe(option, name, wants_name, wants_description).await?;
                self.acknowledge(option).await?;
                Ok(if go { Next::Transmission(self.session(guest)) } else { Next::Option })
            }
            ClientOption::StructuredReply => {
                self.structured = true;
                self.acknowledge(option).await
            }
            ClientOption::MetaContext { set, name, allocation } => {
                self.meta_context(option, set, name, allocation).await
            }
            ClientOption::Unknown => self.refuse(option, rep::ERR_UNSUP, "the option is not supported").await,
        }
    }

    /// The old way into transmission: no errors but a closed connection.
    async fn export_name(&mut self, name: &str, no_zeroes: bool) -> io::Result<Next> {
        let guest = proto::guest_of(name).ok_or_else(|| violation("no such export"))?;
        let mut answer = self.export.image_bytes.to_be_bytes().to_vec();
        answer.extend(self.flags().to_be_bytes());
        if !no_zeroes {
            answer.extend([0; 124]);
        }
        self.send(&answer).await?;
        Ok(Next::Transmission(self.session(guest)))
    }

    async fn describe(&mut self, option: u32, name: &str, wants_name: bool, description: bool) -> io::Result<()> {
        let mut export = info::EXPORT.to_be_bytes().to_vec();
        export.extend(self.export.image_bytes.to_be_bytes());
        export.extend(self.flags().to_be_bytes());
        self.reply(option, rep::INFO, &export).await?;
        let mut sizes = info::BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, self.export.preferred_bytes, proto::READ_BYTES_MAX] {
            sizes.extend(size.to_be_bytes());
        }
        self.reply(option, rep::INFO, &sizes).await?;
        if wants_name {
            self.reply(option, rep::INFO, &[&info::NAME.to_be_bytes(), name.as_bytes()].concat()).await?;
        }
        if description {
            let text = [&info::DESCRIPTION.to_be_bytes(), self.export.description.as_bytes()].concat();
            self.reply(option, rep::INFO, &text).await?;
        }
        Ok(())
    }

    async fn meta_context(&mut self, option: u32, set: bool, name: &str, allocation: bool) -> io::Result<Next> {
        if set {
            self.allocation_for = None;
        }
        if !self.structured {
            return self.refuse(option, rep::ERR_INVALID, "structured replies come first").await;
        }
        let Some(guest) = proto::guest_of(name) else { return self.refuse_name(option).await };
        if allocation {
            // proto.md: the id means nothing in answer to LIST_META_CONTEXT and should be 0.
            let id = if set { BASE_ALLOCATION_ID } else { 0 };
            let context = [&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()].concat();
            self.reply(option, rep::META_CONTEXT, &context).await?;
            if set {
                self.allocation_for = Some(guest);
            }
        }
        self.acknowledge(option).await
    }

    fn session(&self, guest: GuestId) -> Session {
        Session { guest, structured: self.structured, allocation: self.allocation_for == Some(guest) }
    }

    fn flags(&self) -> u16 {
        // Several connections: all of them write to one disk, and a flush covers what any of them was answered.
        let always = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::CAN_MULTI_CONN;
        let always = match self.export.is_writable {
            true => always | flag::SEND_FUA | flag::SEND_TRIM | flag::SEND_WRITE_ZEROES,
            false => always | flag::READ_ONLY,
        };
        // proto.md: not without structured replies.
        if self.structured { always | flag::SEND_DF } else { always }
    }

    async fn skip(&mut self, option: u32, bytes: u32) -> io::Result<()> {
        if bytes > SKIP_BYTES_MAX || option == proto::opt::EXPORT_NAME {
            return Err(violation("an option that is too long"));
        }
        tokio::io::copy(&mut (&mut self.read).take(bytes.into()), &mut tokio::io::sink()).await?;
        self.refuse(option, rep::ERR_TOO_BIG, "the option is too long").await.map(drop)
    }

    async fn refuse_name(&mut self, option: u32) -> io::Result<Next> {
        self.refuse(option, rep::ERR_UNKNOWN, "no such export; use the empty name, or guest-N").await
    }

    async fn refuse(&mut self, option: u32, error: u32, why: &str) -> io::Result<Next> {
        self.reply(option, error, why.as_bytes()).await?;
        Ok(Next::Option)
    }

    async fn acknowledge(&mut self, option: u32) -> io::Result<Next> {
        self.reply(option, rep::ACK, &[]).await?;
        Ok(Next::Option)
    }

    async fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = Vec::with_capacity(20 + data.len());
        reply.extend(proto::MAGIC_OPTION_REPLY.to_be_bytes());
        reply.extend(option.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend((data.len() as u32).to_be_bytes());
        reply.extend(data);
        self.send(&reply).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await?;
        self.write.flush().await
    }
}

/// The client does not follow the protocol: the connection ends.
pub(super) fn violation(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn export() -> Export {
        Export { image_bytes: 1 << 20, preferred_bytes: 65536, is_writable: false, description: "a disk".into() }
    }

    /// What the server says, and how it ends, if a client sends these bytes and nothing more.
    fn talk(input: &[u8]) -> (Vec<u8>, io::Result<Option<Session>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut said = Vec::new();
        let end = runtime.block_on(negotiate(input, &mut said, &export()));
        (said, end)
    }

    fn option(number: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = proto::MAGIC_OPTION.to_be_bytes().to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn the_old_way_in() {
        let input = [vec![0, 0, 0, 1], option(proto::opt::EXPORT_NAME, b"guest-9")].concat();
        let (said, end) = talk(&input);
        assert_eq!(end.unwrap(), Some(Session { guest: GuestId(9), structured: false, allocation: false }));
        assert_eq!(said.len(), 18 + 8 + 2 + 124);
        assert_eq!(&said[..18], b"NBDMAGICIHAVEOPT\0\x03");
        assert_eq!(&said[18..28], b"\0\0\0\0\0\x10\0\0\x01\x07");
        let (_, end) = talk(&[vec![0, 0, 0, 1], option(proto::opt::EXPORT_NAME, b"other")].concat());
        assert!(end.is_err());
    }

    #[test]
    fn contexts_hold_for_their_export_only() {
        let context = |name: &[u8]| {
            let length = (name.len() as u32).to_be_bytes();
            option(proto::opt::SET_META_CONTEXT, &[&length, name, b"\0\0\0\x01\0\0\0\x0fbase:allocation"].concat())
        };
        let start = [vec![0, 0, 0, 3], option(proto::opt::STRUCTURED_REPLY, b"")].concat();
        let go = option(proto::opt::GO, &[0; 6]);
        let (_, end) = talk(&[start.clone(), context(b""), go.clone()].concat());
        assert_eq!(end.unwrap(), Some(Session { guest: GuestId(0), structured: true, allocation: true }));
        let (_, end) = talk(&[start, context(b"guest-1"), go].concat());
        assert_eq!(end.unwrap(), Some(Session { guest: GuestId(0), structured: true, allocation: false }));
    }

    #[test]
    fn what_is_unknown_or_too_long_is_refused_and_the_talk_goes_on() {
        let long = vec![0; OPTION_BYTES_MAX as usize + 1];
        let input = [vec![0, 0, 0, 3], option(77, b"x"), option(6, &long), option(2, b"")].concat();
        let (said, end) = talk(&input);
        assert_eq!(end.unwrap(), None);
        let kinds = |said: &[u8]| -> Vec<u32> {
            let mut rest = &said[18..];
            let mut kinds = Vec::new();
            while proto::take(&mut rest, 12).is_some() {
                kinds.push(proto::take_u32(&mut rest).unwrap());
                let bytes = proto::take_u32(&mut rest).unwrap();
                proto::take(&mut rest, bytes as usize).unwrap();
            }
            kinds
        };
        assert_eq!(kinds(&said), [rep::ERR_UNSUP, rep::ERR_TOO_BIG, rep::ACK]);
        let endless = [vec![0, 0, 0, 3], option(77, b"").repeat(OPTIONS_MAX + 1)].concat();
        assert!(talk(&endless).1.is_err());
    }

    proptest! {
        #[test]
        fn junk_never_panics(
            flags in 0..4u8,
            options in prop::collection::vec((0..12u32, prop::collection::vec(any::<u8>(), 0..60)), 0..8),
            tail in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let mut input = vec![0, 0, 0, flags];
            for (number, data) in &options {
                input.extend(option(*number, data));
            }
            input.extend(tail);
            let _ = talk(&input);
        }
    }
}
