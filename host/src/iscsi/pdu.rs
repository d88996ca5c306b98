//! Protocol data units: the 48 bytes that each begins with, and the cutting of a stream into units.
//!
//! *Purpose*: what RFC 7143, section 11 lays down, apart from sockets. *Invariants*: whatever bytes come, [`next_unit`]
//! answers with a unit, an error or a wish for more, and changes nothing but the buffer. *Units*: bytes; numbers are big
//! endian, digests little endian. *Bounds*: a unit is as long as the caller allows, with at most 1,020 bytes of
//! additional headers.

use bytes::{Buf, Bytes, BytesMut};

/// Length of a basic header segment.
pub(super) const HEADER_BYTES: usize = 48;
/// Length of a digest.
pub(super) const DIGEST_BYTES: usize = 4;
/// A tag that means none.
pub(super) const NO_TAG: u32 = u32::MAX;

/// Operation codes.
pub(super) mod op {
    pub const NOP_OUT: u8 = 0x00;
    pub const SCSI_COMMAND: u8 = 0x01;
    pub const TASK_REQUEST: u8 = 0x02;
    pub const LOGIN: u8 = 0x03;
    pub const TEXT: u8 = 0x04;
    pub const DATA_OUT: u8 = 0x05;
    pub const LOGOUT: u8 = 0x06;
    pub const SNACK: u8 = 0x10;
    pub const NOP_IN: u8 = 0x20;
    pub const SCSI_RESPONSE: u8 = 0x21;
    pub const TASK_RESPONSE: u8 = 0x22;
    pub const LOGIN_RESPONSE: u8 = 0x23;
    pub const TEXT_RESPONSE: u8 = 0x24;
    pub const DATA_IN: u8 = 0x25;
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    pub const R2T: u8 = 0x31;
    pub const REJECT: u8 = 0x3f;
}

/// Why a unit is rejected.
pub(super) mod reject {
    pub const SNACK: u8 = 0x03;
    pub const PROTOCOL: u8 = 0x04;
    pub const NOT_SUPPORTED: u8 = 0x05;
    pub const IN_PROGRESS: u8 = 0x07;
}

/// A basic header segment.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Header(pub [u8; HEADER_BYTES]);

impl Header {
    /// One of the target's, with the final flag, and no tag of a transfer.
    pub(super) fn reply(opcode: u8, tag: u32) -> Self {
        let mut header = Self([0; HEADER_BYTES]);
        header.0[0] = opcode;
        header.0[1] = 0x80;
        header.with_u32(16, tag)
    }

    pub(super) fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// Whether it goes before all that is numbered.
    pub(super) fn is_immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    pub(super) fn flags(&self) -> u8 {
        self.0[1]
    }

    pub(super) fn is_final(&self) -> bool {
        self.0[1] & 0x80 != 0
    }

    pub(super) fn extra_header_bytes(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    pub(super) fn data_bytes(&self) -> usize {
        u32::from_be_bytes([0, self.0[5], self.0[6], self.0[7]]) as usize
    }

    pub(super) fn lun(&self) -> u64 {
        u64::from_be_bytes(self.array(8))
    }

    /// The initiator's tag of the task.
    pub(super) fn tag(&self) -> u32 {
        self.u32_at(16)
    }

    /// The tag of a transfer.
    pub(super) fn transfer_tag(&self) -> u32 {
        self.u32_at(20)
    }

    /// Number of a command, where the unit has one.
    pub(super) fn command_number(&self) -> u32 {
        self.u32_at(24)
    }

    pub(super) fn u32_at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|index| self.0[at + index])
    }

    pub(super) fn with_u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn with_byte(mut self, at: usize, value: u8) -> Self {
        self.0[at] = value;
        self
    }

    pub(super) fn with_lun(mut self, lun: u64) -> Self {
        self.0[8..16].copy_from_slice(&lun.to_be_bytes());
        self
    }

    pub(super) fn with_data_bytes(mut self, bytes: usize) -> Self {
        self.0[5..8].copy_from_slice(&(bytes as u32).to_be_bytes()[1..]);
        self
    }
}

/// A unit as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub header: Header,
    pub data: Bytes,
}

/// How units look on a connection.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Framing {
    /// Whether headers are followed by a digest.
    pub header_digest: bool,
    /// Whether data are.
    pub data_digest: bool,
    /// Longest data of a unit.
    pub data_bytes_max: usize,
}

/// What came is no unit: the connection cannot go on.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    #[error("a unit with more data than was agreed on")]
    TooLong,
    #[error("a header or data that do not match their digest")]
    Digest,
}

/// Takes the next unit off the buffer; none if it is not all there: then at least [`missing`] bytes are.
pub(super) fn next_unit(buffer: &mut BytesMut, framing: Framing) -> Result<Option<Unit>, FramingError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>().copied().map(Header) else { return Ok(None) };
    let lengths = lengths(&header, framing)?;
    if framing.header_digest && buffer.len() >= lengths.head {
        // Before the lengths in it are believed any further.
        check_digest(&buffer[..lengths.head])?;
    }
    if buffer.len() < lengths.all {
        return Ok(None);
    }
    buffer.advance(lengths.head);
    let mut data = buffer.split_to(lengths.all - lengths.head);
    if framing.data_digest && !data.is_empty() {
        check_digest(&data)?;
    }
    data.truncate(header.data_bytes());
    Ok(Some(Unit { header, data: data.freeze() }))
}

/// How many bytes are missing of the unit that the buffer begins with.
pub(super) fn missing(buffer: &[u8], framing: Framing) -> usize {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>().copied().map(Header) else {
        return HEADER_BYTES - buffer.len();
    };
    lengths(&header, framing).map_or(0, |lengths| lengths.all.saturating_sub(buffer.len()))
}

struct Lengths {
    /// Headers and their digest.
    head: usize,
    all: usize,
}

fn lengths(header: &Header, framing: Framing) -> Result<Lengths, FramingError> {
    let data = header.data_bytes();
    if data > framing.data_bytes_max {
        return Err(FramingError::TooLong);
    }
    let digest = |is_there: bool| if is_there { DIGEST_BYTES } else { 0 };
    let head = HEADER_BYTES + header.extra_header_bytes() + digest(framing.header_digest);
    let body = data.next_multiple_of(4) + digest(framing.data_digest && data > 0);
    Ok(Lengths { head, all: head + body })
}

fn check_digest(bytes: &[u8]) -> Result<(), FramingError> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(FramingError::Digest)?;
    if crc32c::crc32c(content).to_le_bytes() == *digest { Ok(()) } else { Err(FramingError::Digest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(unit: &Unit, framing: Framing) -> Vec<u8> {
        let mut bytes = unit.header.0.to_vec();
        if framing.header_digest {
            bytes.extend(crc32c::crc32c(&unit.header.0).to_le_bytes());
        }
        let mut data = unit.data.to_vec();
        data.resize(data.len().next_multiple_of(4), 0);
        if framing.data_digest && !data.is_empty() {
            data.extend(crc32c::crc32c(&data).to_le_bytes());
        }
        bytes.extend(data);
        bytes
    }

    #[test]
    fn the_digest_is_that_of_the_rfc() {
        // RFC 7143, appendix A.4.
        assert_eq!(crc32c::crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }

    #[test]
    fn fields_lie_where_the_rfc_puts_them() {
        let header = Header::reply(op::R2T, 0x0102_0304).with_lun(5).with_u32(20, 6).with_data_bytes(0x0001_0203);
        assert_eq!(header.0[..8], [0x31, 0x80, 0, 0, 0, 1, 2, 3]);
        assert_eq!((header.lun(), header.tag(), header.transfer_tag()), (5, 0x0102_0304, 6));
        assert!(header.is_final() && !header.is_immediate());
    }

    #[test]
    fn longer_than_agreed_is_refused_before_it_is_there() {
        let framing = Framing { header_digest: false, data_digest: false, data_bytes_max: 8 };
        let mut buffer = BytesMut::from(&Header::reply(op::NOP_OUT, 1).with_data_bytes(9).0[..]);
        assert_eq!(next_unit(&mut buffer, framing), Err(FramingError::TooLong));
    }

    proptest! {
        #[test]
        fn units_come_back_however_they_are_cut(
            data in proptest::collection::vec(any::<u8>(), 0..40),
            header_digest: bool, data_digest: bool, cut in 0_usize..120, flip in 0_usize..1000,
        ) {
            let framing = Framing { header_digest, data_digest, data_bytes_max: 64 };
            let header = Header::reply(op::NOP_OUT, 7).with_data_bytes(data.len());
            let unit = Unit { header, data: data.into() };
            let bytes = encode(&unit, framing);
            let cut = cut.min(bytes.len());
            let mut buffer = BytesMut::from(&bytes[..cut]);
            if cut < bytes.len() {
                prop_assert_eq!(next_unit(&mut buffer, framing), Ok(None));
                prop_assert!((1..=bytes.len() - cut).contains(&missing(&buffer, framing)));
                buffer.extend_from_slice(&bytes[cut..]);
            }
            prop_assert_eq!(next_unit(&mut buffer, framing), Ok(Some(unit)));
            prop_assert!(buffer.is_empty());
            // One bit wrong anywhere is noticed where there are digests.
            if header_digest && data_digest {
                let mut wrong = bytes;
                let at = flip % wrong.len();
                wrong[at] ^= 1 << (flip % 8);
                let mut wrong = BytesMut::from(&wrong[..]);
                prop_assert!(!matches!(next_unit(&mut wrong, framing), Ok(Some(_))));
            }
        }

        #[test]
        fn junk_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), header_digest: bool, data_digest: bool,
        ) {
            let framing = Framing { header_digest, data_digest, data_bytes_max: 64 };
            let mut buffer = BytesMut::from(&bytes[..]);
            let _ = missing(&buffer, framing);
            while let Ok(Some(_)) = next_unit(&mut buffer, framing) {}
        }
    }
}
