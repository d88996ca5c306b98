//! The overlay: what a guest has written over an image, and which parts of the image that covers.
//!
//! *Purpose*: a header, then map pages in two slots each, then data; unit *n* of the data lies at [`Layout::data_start`] plus
//! its offset in the image, in a sparse file. A map page says of each unit whether it is the image's, data, or zeros.
//! *Invariants*: a page is written to the slot that the newest good one is not in, with a generation one higher; one that is
//! torn is so passed over, and the one before counts. A crash never leaves both slots bad: such a page was damaged. Each
//! attempt to write a generation has a number of its own: sectors of two that were torn never make a good page together.
//! *Units*: units of 4 KiB; the last may be shorter. *Bounds*: header and pages of 4096 bytes, images of up to 2^51 bytes.

use super::{array, u32_at, u64_at};
use crate::ids::Digest;

/// Length of the header.
pub const HEADER_BYTES: usize = 4096;
/// Length of a map page, one slot of it.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a map page that hold states, four to a byte, the lowest bits first.
pub const STATE_BYTES: usize = PAGE_BYTES - STATES_AT - 4;
/// Units that a map page describes.
pub const PAGE_UNITS: u32 = STATE_BYTES as u32 * 4;
/// Size of a unit as a power of two.
pub const UNIT_SHIFT: u8 = 12;
/// Size of a unit.
pub const UNIT_BYTES: u32 = 1 << UNIT_SHIFT;
/// Version of the overlay that this code writes and reads.
pub const VERSION: u32 = 1;
/// Largest image: as many of the largest chunks as there may be.
const IMAGE_BYTES_MAX: u64 = 1 << 51;
const MAGIC: [u8; 8] = *b"SWARMOVL";
const STATES_AT: usize = 16;
const CRC_AT: usize = PAGE_BYTES - 4;

/// Where a unit's bytes are.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Unit {
    /// In the image: never written.
    Base,
    /// In the overlay.
    Data,
    /// Nowhere: they are zeros.
    Zero,
}

impl Unit {
    const fn code(self) -> u8 {
        match self {
            Self::Base => 0,
            Self::Data => 1,
            Self::Zero => 2,
        }
    }
}

/// The states of a map page's units.
pub type States = [u8; STATE_BYTES];

/// The state of the unit with this index in its page, below [`PAGE_UNITS`].
pub fn unit(states: &States, index: u32) -> Unit {
    match states[(index / 4) as usize] >> (index % 4 * 2) & 3 {
        1 => Unit::Data,
        2 => Unit::Zero,
        _ => Unit::Base,
    }
}

/// Whether each of these is a state that there is.
pub fn are_states(states: &States) -> bool {
    states.iter().all(|byte| byte & byte >> 1 & 0b0101_0101 == 0)
}

/// Sets the states of `count` units from `first` on; all must be within the page.
pub fn set_units(states: &mut States, first: u32, count: u32, unit: Unit) {
    let (mut index, end) = (first, first + count);
    while index < end {
        let byte = &mut states[(index / 4) as usize];
        if index.is_multiple_of(4) && end - index >= 4 {
            *byte = unit.code() * 0b0101_0101;
            index += 4;
        } else {
            let shift = index % 4 * 2;
            *byte = *byte & !(3 << shift) | unit.code() << shift;
            index += 1;
        }
    }
}

/// How many units from `first` on, up to `end`, are in the same state as the first; at least one if there is one.
pub fn run(states: &States, first: u32, end: u32) -> u32 {
    let state = unit(states, first.min(PAGE_UNITS - 1));
    let mut index = first;
    while index < end {
        if index.is_multiple_of(4) && end - index >= 4 && states[(index / 4) as usize] == state.code() * 0b0101_0101 {
            index += 4;
        } else if unit(states, index) == state {
            index += 1;
        } else {
            break;
        }
    }
    index - first
}

/// Where everything lies in the overlay of an image of a certain size.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Layout {
    image_bytes: u64,
}

impl Layout {
    /// None if there is no such image: of no bytes, or of more than 2^51.
    pub const fn new(image_bytes: u64) -> Option<Self> {
        if image_bytes == 0 || image_bytes > IMAGE_BYTES_MAX { None } else { Some(Self { image_bytes }) }
    }

    /// Size of the image.
    pub const fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Number of units, the last of which may be shorter than the rest.
    pub const fn unit_count(&self) -> u64 {
        self.image_bytes.div_ceil(UNIT_BYTES as u64)
    }

    /// Number of map pages.
    pub const fn page_count(&self) -> u32 {
        self.unit_count().div_ceil(PAGE_UNITS as u64) as u32
    }

    /// How many units this page describes.
    pub fn page_units(&self, page: u32) -> u32 {
        let first = u64::from(page) * u64::from(PAGE_UNITS);
        self.unit_count().saturating_sub(first).min(PAGE_UNITS.into()) as u32
    }

    /// Where a slot (0 or 1) of a map page lies.
    pub const fn slot_offset(&self, page: u32, slot: u8) -> u64 {
        HEADER_BYTES as u64 + (page as u64 * 2 + slot as u64) * PAGE_BYTES as u64
    }

    /// Where the data begin.
    pub const fn data_start(&self) -> u64 {
        self.slot_offset(self.page_count(), 0)
    }

    /// Length of the whole file.
    pub const fn file_bytes(&self) -> u64 {
        self.data_start() + self.image_bytes
    }
}

/// What a header says.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Header {
    /// The image that the overlay lies over.
    pub image: Digest,
    /// Where everything is.
    pub layout: Layout,
}

/// Why these bytes are no header. The file is at fault; nothing was changed.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// The magic is missing: not an overlay.
    Foreign,
    /// It is cut off, or its checksum is wrong.
    Damaged,
    /// Written by a version that this code does not know.
    Version(u32),
    /// Units of a size that this code does not know, or an image of an impossible one.
    Sizes,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&u32::from(UNIT_SHIFT).to_le_bytes());
        out[16..48].copy_from_slice(&self.image.0);
        out[48..56].copy_from_slice(&self.layout.image_bytes.to_le_bytes());
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; bytes beyond the first 4096 are ignored.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(HeaderError::Foreign);
        }
        let block = bytes.get(..HEADER_BYTES).ok_or(HeaderError::Damaged)?;
        if crc32fast::hash(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(block, 8);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let layout = Layout::new(u64_at(block, 48)).filter(|_| u32_at(block, 12) == u32::from(UNIT_SHIFT));
        Ok(Self { image: Digest(array(block, 16)), layout: layout.ok_or(HeaderError::Sizes)? })
    }
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no overlay"),
            Self::Damaged => f.write_str("its header is damaged"),
            Self::Version(version) => write!(f, "its format version {version} is not known here, only {VERSION}"),
            Self::Sizes => f.write_str("its header tells of sizes that are not known here"),
        }
    }
}

impl core::error::Error for HeaderError {}

/// What is in a slot.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Slot<'a> {
    /// Nothing was ever written there.
    Empty,
    /// What is there is no page of this image and number: torn, or damaged.
    Bad,
    /// A page.
    Good {
        /// 1 or more; the higher one of two counts.
        generation: u64,
        /// The states of its units.
        states: &'a States,
    },
}

/// A map page's bytes. `generation` must be 1 or more; `attempt` should differ from that of every other page that was ever
/// written with this number and generation; states beyond the image's end must be [`Unit::Base`].
pub fn encode_page(header: &Header, page: u32, generation: u64, attempt: u32, states: &States) -> [u8; PAGE_BYTES] {
    let mut out = [0; PAGE_BYTES];
    out[..8].copy_from_slice(&generation.to_le_bytes());
    out[8..12].copy_from_slice(&page.to_le_bytes());
    out[12..16].copy_from_slice(&attempt.to_le_bytes());
    out[STATES_AT..CRC_AT].copy_from_slice(states);
    let crc = page_crc(header, &out);
    out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a slot of a map page.
pub fn parse_slot<'a>(header: &Header, page: u32, bytes: &'a [u8; PAGE_BYTES]) -> Slot<'a> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    let (generation, states) = (u64_at(bytes, 0), bytes[STATES_AT..].first_chunk::<STATE_BYTES>());
    let Some(states) = states else { return Slot::Bad };
    let units = header.layout.page_units(page);
    let is_good = page_crc(header, bytes) == u32_at(bytes, CRC_AT)
        && u32_at(bytes, 8) == page
        && generation > 0
        && are_states(states)
        && (units..PAGE_UNITS).all(|index| unit(states, index) == Unit::Base);
    if is_good { Slot::Good { generation, states } } else { Slot::Bad }
}

/// What counts of two slots: the number of the slot that has the newest page; none where nothing was ever made durable.
///
/// # Errors
/// [`BothBad`] if there was a page, and it is lost.
pub fn newest(slots: [Slot<'_>; 2]) -> Result<Option<u8>, BothBad> {
    match slots {
        [Slot::Good { generation: first, .. }, Slot::Good { generation: second, .. }] => {
            Ok(Some(u8::from(second > first)))
        }
        [Slot::Good { .. }, _] => Ok(Some(0)),
        [_, Slot::Good { .. }] => Ok(Some(1)),
        [Slot::Bad, Slot::Bad] => Err(BothBad),
        _ => Ok(None),
    }
}

/// Both slots of a map page are bad: where its units are is not known. The file is at fault.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BothBad;

fn page_crc(header: &Header, page: &[u8; PAGE_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header.image.0);
    hasher.update(&page[..CRC_AT]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn header(image_bytes: u64) -> Header {
        Header { image: Digest([7; 32]), layout: Layout::new(image_bytes).unwrap() }
    }

    #[test]
    fn headers_come_back_and_every_flipped_bit_is_found() {
        let header = header(100 << 30);
        let block = header.encode();
        assert_eq!(Header::parse(&block), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&bad).is_err(), "bit {bit}");
        }
        assert_eq!(Header::parse(&block[..100]), Err(HeaderError::Damaged));
        assert_eq!(Header::parse(b""), Err(HeaderError::Foreign));
    }

    #[test]
    fn the_parts_of_a_file_do_not_overlap() {
        for image_bytes in [1, 4096, 4097, 66_781_184, 66_781_185, 100 << 30, IMAGE_BYTES_MAX] {
            let layout = Layout::new(image_bytes).unwrap();
            let pages = layout.page_count();
            assert!(u64::from(pages) * u64::from(PAGE_UNITS) >= layout.unit_count());
            assert!(layout.page_units(pages - 1) > 0 && layout.page_units(pages) == 0);
            assert_eq!(layout.slot_offset(pages - 1, 1) + PAGE_BYTES as u64, layout.data_start());
            assert_eq!(layout.file_bytes(), layout.data_start() + image_bytes);
        }
        assert_eq!((Layout::new(0), Layout::new(IMAGE_BYTES_MAX + 1)), (None, None));
    }

    #[test]
    fn damaged_pages_and_those_of_others_do_not_count() {
        let header = header(1 << 20);
        let mut states = [0; STATE_BYTES];
        set_units(&mut states, 3, 200, Unit::Zero);
        let page = encode_page(&header, 0, 5, 9, &states);
        assert_eq!(parse_slot(&header, 0, &page), Slot::Good { generation: 5, states: &states });
        for bit in 0..PAGE_BYTES * 8 {
            let mut bad = page;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_slot(&header, 0, &bad), Slot::Bad, "bit {bit}");
        }
        assert_eq!(parse_slot(&header, 1, &page), Slot::Bad);
        let other = Header { image: Digest([8; 32]), ..header };
        assert_eq!(parse_slot(&other, 0, &page), Slot::Bad);
        assert_eq!(parse_slot(&header, 0, &encode_page(&header, 0, 0, 9, &states)), Slot::Bad);
        set_units(&mut states, 256, 1, Unit::Data);
        assert_eq!(parse_slot(&header, 0, &encode_page(&header, 0, 6, 9, &states)), Slot::Bad);
        assert_eq!(parse_slot(&header, 0, &[0; PAGE_BYTES]), Slot::Empty);
    }

    #[test]
    fn the_newest_good_slot_counts() {
        let good = |generation| Slot::Good { generation, states: &[0; STATE_BYTES] };
        assert_eq!(newest([good(1), good(2)]), Ok(Some(1)));
        assert_eq!(newest([good(3), good(2)]), Ok(Some(0)));
        assert_eq!(newest([good(1), Slot::Empty]), Ok(Some(0)));
        assert_eq!(newest([Slot::Bad, good(2)]), Ok(Some(1)));
        assert_eq!(newest([Slot::Bad, Slot::Empty]), Ok(None));
        assert_eq!(newest([Slot::Empty, Slot::Empty]), Ok(None));
        assert_eq!(newest([Slot::Bad, Slot::Bad]), Err(BothBad));
    }

    proptest! {
        /// Against the naive one: a state for each unit.
        #[test]
        fn states_agree_with_a_vector(runs in prop::collection::vec((0u32..200, 0u32..100, 0usize..3), 0..20)) {
            let mut states = [0; STATE_BYTES];
            let mut naive = std::vec![Unit::Base; 300];
            for (first, count, kind) in runs {
                let kind = [Unit::Base, Unit::Data, Unit::Zero][kind];
                set_units(&mut states, first, count, kind);
                naive[first as usize..(first + count) as usize].fill(kind);
            }
            prop_assert_eq!((0..300).map(|index| unit(&states, index)).collect::<Vec<_>>(), naive.clone());
            let mut at = 0;
            while at < 300 {
                let same = naive[at as usize..].iter().take_while(|unit| **unit == naive[at as usize]).count();
                prop_assert_eq!(run(&states, at, 300), same as u32);
                at += same as u32;
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000), page: u32) {
            let mut bytes: Vec<u8> = bytes;
            let _ = Header::parse(&bytes);
            bytes.resize(PAGE_BYTES, 1);
            let _ = parse_slot(&header(1 << 40), page, bytes.first_chunk().unwrap());
        }
    }
}
