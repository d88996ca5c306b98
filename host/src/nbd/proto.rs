//! Numbers and layouts of the NBD protocol, as in proto.md; all integers are big-endian.
//!
//! *Purpose*: what client and server must agree on, and parsers for what clients send, without any I/O.
//! *Invariants*: parsers never panic and take nothing from beyond their input. *Bounds*: [`OPTION_BYTES_MAX`].

use swarmdisk_core::ids::GuestId;

/// `NBDMAGIC`, the server's first bytes.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, before every option.
pub const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
/// Before every reply to an option.
pub const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Before every request.
pub const MAGIC_REQUEST: u32 = 0x2560_9513;
/// Before every simple reply.
pub const MAGIC_SIMPLE: u32 = 0x6744_6698;
/// Before every chunk of a structured reply.
pub const MAGIC_CHUNK: u32 = 0x668e_33ef;

/// Handshake flags, of server and client alike.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// No 124 zeros after `OPT_EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 2;

/// Longest option that is looked at, in bytes.
pub const OPTION_BYTES_MAX: u32 = 64 * 1024;
/// Longest string, in bytes (proto.md, "Values").
pub const STRING_BYTES_MAX: usize = 4096;
/// Longest read or write, in bytes: what proto.md lets every client assume.
pub const READ_BYTES_MAX: u32 = 32 << 20;
/// Length of a request's head, in bytes.
pub const REQUEST_BYTES: usize = 28;

/// The only metadata context.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The id that this server gives to it.
pub const BASE_ALLOCATION_ID: u32 = 1;

/// Options (`NBD_OPT_*`).
pub mod opt {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options (`NBD_REP_*`).
pub mod rep {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// What is told of an export (`NBD_INFO_*`).
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags (`NBD_FLAG_*`).
pub mod flag {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Commands (`NBD_CMD_*`).
pub mod cmd {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
    /// Answered once it is durable.
    pub const FLAG_FUA: u16 = 1;
    /// Zeros keep their space.
    pub const FLAG_NO_HOLE: u16 = 1 << 1;
    /// No gaps: a read is answered in one chunk.
    pub const FLAG_DF: u16 = 1 << 2;
    /// `BLOCK_STATUS` answers with one extent.
    pub const FLAG_REQ_ONE: u16 = 1 << 3;
}

/// Chunks of structured replies (`NBD_REPLY_TYPE_*`).
pub mod chunk {
    pub const FLAG_DONE: u16 = 1;
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = (1 << 15) + 1;
    /// Set in every type that tells of an error.
    pub const IS_ERROR: u16 = 1 << 15;
}

/// Errors of requests (`NBD_E*`).
pub mod errno {
    pub const EPERM: u32 = 1;
    pub const EIO: u32 = 5;
    pub const EINVAL: u32 = 22;
    pub const ENOSPC: u32 = 28;
}

/// `NBD_STATE_HOLE | NBD_STATE_ZERO`: an extent that reads as zeros.
pub const STATE_ZERO: u32 = 3;

/// A request of a client, without the payload of a write.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub bytes: u32,
}

/// The bytes are no request: the stream cannot be followed any further.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BadMagic;

impl Request {
    pub fn parse(head: &[u8; REQUEST_BYTES]) -> Result<Self, BadMagic> {
        let mut rest = &head[..];
        if take_u32(&mut rest) != Some(MAGIC_REQUEST) {
            return Err(BadMagic);
        }
        Self::fields(&mut rest).ok_or(BadMagic)
    }

    fn fields(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            flags: take_u16(rest)?,
            command: take_u16(rest)?,
            cookie: take_u64(rest)?,
            offset: take_u64(rest)?,
            bytes: take_u32(rest)?,
        })
    }

    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut head = [0; REQUEST_BYTES];
        head[..4].copy_from_slice(&MAGIC_REQUEST.to_be_bytes());
        head[4..6].copy_from_slice(&self.flags.to_be_bytes());
        head[6..8].copy_from_slice(&self.command.to_be_bytes());
        head[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        head[16..24].copy_from_slice(&self.offset.to_be_bytes());
        head[24..].copy_from_slice(&self.bytes.to_be_bytes());
        head
    }
}

/// What a client asks for while it negotiates.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientOption<'a> {
    ExportName(&'a str),
    Abort,
    List,
    /// `INFO`, or `GO` if `go`.
    Info {
        go: bool,
        name: &'a str,
        wants_name: bool,
        wants_description: bool,
    },
    StructuredReply,
    /// `SET_META_CONTEXT`, or `LIST_META_CONTEXT` if not `set`; whether `base:allocation` is among what is asked for.
    MetaContext {
        set: bool,
        name: &'a str,
        allocation: bool,
    },
    Unknown,
}

/// An option's data are not laid out as they must be: answered with `NBD_REP_ERR_INVALID`.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BadOption;

impl<'a> ClientOption<'a> {
    pub fn parse(option: u32, data: &'a [u8]) -> Result<Self, BadOption> {
        let mut rest = data;
        let parsed = match option {
            opt::EXPORT_NAME => Self::ExportName(as_string(std::mem::take(&mut rest))?),
            // proto.md lets a server ignore what comes with these two.
            opt::ABORT => return Ok(Self::Abort),
            opt::LIST => Self::List,
            opt::STRUCTURED_REPLY => Self::StructuredReply,
            opt::INFO | opt::GO => info_request(&mut rest, option == opt::GO).ok_or(BadOption)?,
            opt::SET_META_CONTEXT => meta_context(&mut rest, true).ok_or(BadOption)?,
            opt::LIST_META_CONTEXT => meta_context(&mut rest, false).ok_or(BadOption)?,
            _ => return Ok(Self::Unknown),
        };
        if rest.is_empty() { Ok(parsed) } else { Err(BadOption) }
    }
}

fn info_request<'a>(rest: &mut &'a [u8], go: bool) -> Option<ClientOption<'a>> {
    let name = take_string(rest)?;
    let (mut wants_name, mut wants_description) = (false, false);
    for _ in 0..take_u16(rest)? {
        match take_u16(rest)? {
            info::NAME => wants_name = true,
            info::DESCRIPTION => wants_description = true,
            _ => {}
        }
    }
    Some(ClientOption::Info { go, name, wants_name, wants_description })
}

fn meta_context<'a>(rest: &mut &'a [u8], set: bool) -> Option<ClientOption<'a>> {
    let name = take_string(rest)?;
    let query_count = take_u32(rest)?;
    let mut allocation = !set && query_count == 0;
    for _ in 0..query_count {
        let query = take_string(rest)?;
        allocation |= query == BASE_ALLOCATION || (!set && query == "base:");
    }
    Some(ClientOption::MetaContext { set, name, allocation })
}

/// Which guest an export's name stands for.
pub fn guest_of(name: &str) -> Option<GuestId> {
    match name.strip_prefix("guest-") {
        None => name.is_empty().then_some(GuestId(0)),
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok().map(GuestId),
        Some(_) => None,
    }
}

pub fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(bytes)?;
    *rest = tail;
    Some(head)
}

pub fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    take(rest, 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

pub fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

pub fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from(take_u32(rest)?) << 32 | u64::from(take_u32(rest)?))
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let bytes = take_u32(rest)? as usize;
    as_string(take(rest, bytes)?).ok()
}

fn as_string(bytes: &[u8]) -> Result<&str, BadOption> {
    if bytes.len() > STRING_BYTES_MAX {
        return Err(BadOption);
    }
    str::from_utf8(bytes).map_err(|_| BadOption)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_as_the_document_lays_them_out() {
        // name length, name, number of information requests, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE
        let go = b"\0\0\0\x07guest-3\0\x02\0\x02\0\x03";
        let expected = ClientOption::Info { go: true, name: "guest-3", wants_name: false, wants_description: true };
        assert_eq!(ClientOption::parse(opt::GO, go), Ok(expected));
        assert_eq!(ClientOption::parse(opt::GO, &go[..go.len() - 1]), Err(BadOption));
        assert_eq!(ClientOption::parse(opt::INFO, b"\0\0\0\0\0\0\0"), Err(BadOption));
        assert_eq!(ClientOption::parse(opt::LIST, b"x"), Err(BadOption));
        // name length, number of queries, query
        let set = b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation";
        let expected = ClientOption::MetaContext { set: true, name: "", allocation: true };
        assert_eq!(ClientOption::parse(opt::SET_META_CONTEXT, set), Ok(expected));
        let none = ClientOption::MetaContext { set: true, name: "", allocation: false };
        assert_eq!(ClientOption::parse(opt::SET_META_CONTEXT, &[0; 8]), Ok(none));
        let all = ClientOption::MetaContext { set: false, name: "", allocation: true };
        assert_eq!(ClientOption::parse(opt::LIST_META_CONTEXT, &[0; 8]), Ok(all));
        assert_eq!(ClientOption::parse(5, b"anything"), Ok(ClientOption::Unknown));
    }

    #[test]
    fn names_of_guests() {
        assert_eq!(guest_of(""), Some(GuestId(0)));
        assert_eq!(guest_of("guest-65535"), Some(GuestId(65535)));
        for name in ["guest", "guest-", "guest-65536", "guest-+1", "guest--1", "disk", "GUEST-1"] {
            assert_eq!(guest_of(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn options_never_panic(option in 0..12u32, data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ClientOption::parse(option, &data);
        }

        #[test]
        fn lengths_that_lie_never_panic(option in 6..11u32, lengths in prop::collection::vec(0..40u32, 0..20)) {
            let data: Vec<u8> = lengths.iter().flat_map(|l| l.to_be_bytes()).collect();
            let _ = ClientOption::parse(option, &data);
        }

        #[test]
        fn requests_come_back(flags: u16, command: u16, cookie: u64, offset: u64, bytes: u32) {
            let request = Request { flags, command, cookie, offset, bytes };
            prop_assert_eq!(Request::parse(&request.encode()), Ok(request));
        }

        #[test]
        fn other_requests_are_refused(head: [u8; REQUEST_BYTES]) {
            prop_assume!(head[..4] != MAGIC_REQUEST.to_be_bytes());
            prop_assert_eq!(Request::parse(&head), Err(BadMagic));
        }
    }
}
