//! A profile: which chunks guests of this image touch, when, and how surely. Merged from recorded runs, which are told apart
//! in groups of runs alike: several workloads in one profile.
//!
//! *Invariants*: entries are in the order of time; a checked profile names only chunks of its image and fits its checksum. A
//! chunk that groups touch at times far apart has an entry for each of these times, with the groups that touch it then.
//! *Units*: milliseconds since the guest's first read; probability in 1/255. *Bounds*: [`GROUPS_MAX`] groups, [`ENTRIES_MAX`]
//! entries; an entry takes 2 to 10 bytes, about 4 in practice, and one for each group.

use super::{array, u32_at};
use crate::geometry::{ChunkIndex, Geometry};
use crate::ids::Digest;
use serde::{Deserialize, Serialize};

/// Length of the header.
pub const HEADER_BYTES: usize = 56;
/// Version of the profile that this code writes and reads.
pub const VERSION: u16 = 2;
/// Most groups of runs.
pub const GROUPS_MAX: usize = 16;
/// Most entries: whoever follows a profile looks through all of them now and then.
pub const ENTRIES_MAX: usize = 1 << 16;
/// Longest entry without its probabilities: two varints of 32 bits.
const ENTRY_BYTES_MAX: usize = 10;
const ENTRY_BYTES_MIN: usize = 2;
/// Length of a group's row.
const GROUP_BYTES: usize = 2;
const MAGIC: [u8; 8] = *b"SWARMPRF";

/// What runs are expected to do with a chunk.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileEntry {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// When it is first touched, in milliseconds since the guest's first read.
    pub at_millis: u32,
    /// In how many of 255 runs of each group it is touched then. 0 beyond the last group.
    pub probabilities: [u8; GROUPS_MAX],
}

/// A profile's bytes, checked.
#[derive(Debug, Copy, Clone)]
pub struct ProfileView<'a> {
    image: Digest,
    run_count: u16,
    entry_count: u32,
    groups: &'a [u8],
    entries: &'a [u8],
    geometry: Geometry,
}

/// Why these bytes are no profile, or these entries cannot be one. Nothing was changed but perhaps the output slice.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ProfileError {
    /// The magic is missing: another file.
    Foreign,
    /// Written by a version that this code does not know.
    Version(u16),
    /// The checksum is wrong: damaged on its way.
    Damaged,
    /// A profile of another image.
    OtherImage,
    /// Entry number so-and-so is out of range or ends early: whoever made the profile is at fault.
    Entry(u32),
    /// More or fewer entries than announced, more than can be, or no group or too many.
    Count,
    /// The entries to encode are not in the order of time: the caller is at fault.
    Order,
    /// The slice is too short: the caller is at fault.
    Room,
}

/// Bytes that suffice for a profile with so many groups and entries.
pub const fn encoded_bytes_max(group_count: usize, entry_count: usize) -> usize {
    HEADER_BYTES + group_count * GROUP_BYTES + entry_count * (ENTRY_BYTES_MAX + group_count) + 4
}

/// Writes a profile of `image` with groups of so many runs each; returns its length.
///
/// # Errors
/// [`ProfileError::Order`], [`ProfileError::Count`] (no group, too many, or too many entries) or [`ProfileError::Room`].
pub fn encode(image: Digest, groups: &[u16], entries: &[ProfileEntry], out: &mut [u8]) -> Result<usize, ProfileError> {
    if groups.is_empty() || groups.len() > GROUPS_MAX || entries.len() > ENTRIES_MAX {
        return Err(ProfileError::Count);
    }
    let run_count = groups.iter().fold(0u16, |sum, runs| sum.saturating_add(*runs));
    let (header, mut rest) = out.split_at_mut_checked(HEADER_BYTES).ok_or(ProfileError::Room)?;
    header.fill(0);
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&run_count.to_le_bytes());
    header[12..44].copy_from_slice(&image.0);
    header[44..48].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    header[48] = groups.len() as u8;
    let room = rest.len();
    for runs in groups {
        rest = append(rest, &runs.to_le_bytes())?;
    }
    let (mut last_chunk, mut last_millis) = (-1i32, 0);
    for entry in entries {
        let chunk = entry.chunk.get() as i32;
        let pause = entry.at_millis.checked_sub(last_millis).ok_or(ProfileError::Order)?;
        // One after the last touched chunk is the commonest: it becomes 0.
        let coded = (chunk.wrapping_sub(last_chunk).wrapping_sub(1), pause);
        let written = postcard::to_slice(&coded, rest).map_err(|_| ProfileError::Room)?.len();
        rest = append(&mut rest[written..], &entry.probabilities[..groups.len()])?;
        (last_chunk, last_millis) = (chunk, entry.at_millis);
    }
    let end = HEADER_BYTES + room - rest.len();
    let crc = crc32fast::hash(&out[..end]);
    out.get_mut(end..end + 4).ok_or(ProfileError::Room)?.copy_from_slice(&crc.to_le_bytes());
    Ok(end + 4)
}

/// Copies `bytes` to the beginning of `out`; gives what is left of it.
fn append<'o>(out: &'o mut [u8], bytes: &[u8]) -> Result<&'o mut [u8], ProfileError> {
    let (head, rest) = out.split_at_mut_checked(bytes.len()).ok_or(ProfileError::Room)?;
    head.copy_from_slice(bytes);
    Ok(rest)
}

impl<'a> ProfileView<'a> {
    /// Checks a whole profile of `image`.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn parse(bytes: &'a [u8], image: Digest, geometry: Geometry) -> Result<Self, ProfileError> {
        if bytes.len() < HEADER_BYTES + 4 || bytes[..8] != MAGIC {
            return Err(ProfileError::Foreign);
        }
        let version = u16::from_le_bytes(array(bytes, 8));
        if version != VERSION {
            return Err(ProfileError::Version(version));
        }
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if crc32fast::hash(body) != u32_at(crc, 0) {
            return Err(ProfileError::Damaged);
        }
        let group_count = usize::from(bytes[48]);
        let rows = body[HEADER_BYTES..].split_at_checked(group_count * GROUP_BYTES).ok_or(ProfileError::Count)?;
        let this = Self {
            image: Digest(array(bytes, 12)),
            run_count: u16::from_le_bytes(array(bytes, 10)),
            entry_count: u32_at(bytes, 44),
            groups: rows.0,
            entries: rows.1,
            geometry,
        };
        if this.image != image {
            return Err(ProfileError::OtherImage);
        }
        let entry_count_max = (this.entries.len() / (ENTRY_BYTES_MIN + group_count)).min(ENTRIES_MAX);
        if this.entry_count as usize > entry_count_max || group_count == 0 || group_count > GROUPS_MAX {
            return Err(ProfileError::Count);
        }
        this.check_entries()?;
        Ok(this)
    }

    /// Which image a profile says it is about; nothing is checked but the magic. `None`: another kind of file.
    pub fn peek_image(bytes: &[u8]) -> Option<Digest> {
        (bytes.len() >= HEADER_BYTES && bytes[..8] == MAGIC).then(|| Digest(array(bytes, 12)))
    }

    /// The image that the profile is about.
    pub const fn image(&self) -> Digest {
        self.image
    }

    /// How many runs were merged.
    pub const fn run_count(&self) -> u16 {
        self.run_count
    }

    /// How many runs each group is of.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        self.groups.chunks_exact(GROUP_BYTES).map(|row| u16::from_le_bytes(array(row, 0)))
    }

    /// How many entries there are; no more than [`ENTRIES_MAX`].
    pub const fn entry_count(&self) -> u32 {
        self.entry_count
    }

    /// The entries, in the order of time.
    pub fn entries(&self) -> impl Iterator<Item = ProfileEntry> + use<'a> {
        self.decoder().map_while(Result::ok)
    }

    /// Copies the entries into `out`; returns how many.
    ///
    /// # Errors
    /// [`ProfileError::Room`] if `out` is shorter than [`entry_count`](Self::entry_count).
    pub fn read_into(&self, out: &mut [ProfileEntry]) -> Result<usize, ProfileError> {
        let out = out.get_mut(..self.entry_count as usize).ok_or(ProfileError::Room)?;
        out.iter_mut().zip(self.entries()).for_each(|(to, from)| *to = from);
        Ok(out.len())
    }

    fn check_entries(&self) -> Result<(), ProfileError> {
        let mut decoder = self.decoder();
        for entry in decoder.by_ref() {
            entry?;
        }
        if decoder.rest.is_empty() { Ok(()) } else { Err(ProfileError::Count) }
    }

    fn decoder(&self) -> Decoder<'a> {
        Decoder {
            rest: self.entries,
            left: self.entry_count,
            group_count: self.groups.len() / GROUP_BYTES,
            number: 0,
            last_chunk: -1,
            last_millis: 0,
            geometry: self.geometry,
        }
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
    left: u32,
    group_count: usize,
    number: u32,
    last_chunk: i32,
    last_millis: u32,
    geometry: Geometry,
}

impl Decoder<'_> {
    fn decode(&mut self) -> Option<ProfileEntry> {
        let ((step, pause), rest) = postcard::take_from_bytes::<(i32, u32)>(self.rest).ok()?;
        let (of_groups, rest) = rest.split_at_checked(self.group_count)?;
        let index = self.last_chunk.wrapping_add(1).wrapping_add(step);
        let chunk = self.geometry.chunk(u32::try_from(index).ok()?)?;
        let at_millis = self.last_millis.checked_add(pause)?;
        (self.rest, self.last_chunk, self.last_millis) = (rest, index, at_millis);
        let mut probabilities = [0; GROUPS_MAX];
        probabilities[..self.group_count].copy_from_slice(of_groups);
        Some(ProfileEntry { chunk, at_millis, probabilities })
    }
}

impl ProfileEntry {
    /// An entry of a profile with a single group.
    pub const fn single(chunk: ChunkIndex, at_millis: u32, probability: u8) -> Self {
        let mut probabilities = [0; GROUPS_MAX];
        probabilities[0] = probability;
        Self { chunk, at_millis, probabilities }
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<ProfileEntry, ProfileError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let number = self.number;
        self.number += 1;
        Some(self.decode().ok_or(ProfileError::Entry(number)))
    }
}

impl core::fmt::Display for ProfileError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Foreign => f.write_str("not a profile"),
            Self::Version(version) => write!(f, "profile version {version} is not known here, only {VERSION}"),
            Self::Damaged => f.write_str("the profile is damaged (its checksum is wrong)"),
            Self::OtherImage => f.write_str("the profile belongs to another image"),
            Self::Entry(number) => write!(f, "the profile's entry {number} is out of range"),
            Self::Count => f.write_str("the profile's number of entries is wrong"),
            Self::Order => f.write_str("the profile's entries are not in the order of time"),
            Self::Room => f.write_str("no room for the profile"),
        }
    }
}

impl core::error::Error for ProfileError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const IMAGE: Digest = Digest([3; 32]);
    const CHUNKS: u32 = 50_000;

    fn geometry() -> Geometry {
        Geometry::new(u64::from(CHUNKS) << 16, 16).unwrap()
    }

    fn entries(raw: &[(u32, u32, u8)]) -> Vec<ProfileEntry> {
        let mut at_millis = 0;
        let entry = |(index, pause, probability): &(u32, u32, u8)| {
            at_millis += pause;
            let mut entry = ProfileEntry::single(geometry().chunk(*index).unwrap(), at_millis, *probability);
            entry.probabilities[1] = !probability;
            entry
        };
        raw.iter().map(entry).collect()
    }

    fn encoded(entries: &[ProfileEntry]) -> Vec<u8> {
        let mut out = std::vec![0; encoded_bytes_max(2, entries.len())];
        let length = encode(IMAGE, &[2, 1], entries, &mut out).unwrap();
        out.truncate(length);
        out
    }

    proptest! {
        #[test]
        fn round_trip_in_five_bytes_an_entry_and_one_for_each_group(
            raw in prop::collection::vec((0..CHUNKS, 0u32..3000, any::<u8>()), 0..100),
        ) {
            let entries = entries(&raw);
            let bytes = encoded(&entries);
            prop_assert!(bytes.len() <= HEADER_BYTES + 4 + 4 + entries.len() * 7);
            let view = ProfileView::parse(&bytes, IMAGE, geometry()).unwrap();
            prop_assert_eq!((view.run_count(), view.entry_count() as usize), (3, entries.len()));
            prop_assert_eq!(view.groups().collect::<Vec<_>>(), [2, 1]);
            prop_assert_eq!(view.entries().collect::<Vec<_>>(), entries.clone());
            let filler = ProfileEntry::single(geometry().chunk(0).unwrap(), 0, 0);
            let mut out = std::vec![filler; entries.len()];
            prop_assert_eq!(view.read_into(&mut out), Ok(entries.len()));
            prop_assert_eq!(out, entries);
        }

        #[test]
        fn every_flipped_bit_is_found(bit in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&entries(&[(5, 0, 255), (6, 100, 200), (49_999, 9, 1)]));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ProfileView::parse(&bytes, IMAGE, geometry()).is_err());
        }

        #[test]
        fn arbitrary_entries_never_panic(
            tail in prop::collection::vec(any::<u8>(), 0..100),
            count in 0u32..40,
            groups in 0u8..20,
        ) {
            let mut bytes = encoded(&[]);
            bytes.truncate(HEADER_BYTES);
            bytes[48] = groups;
            bytes[44..48].copy_from_slice(&count.to_le_bytes());
            bytes.extend(tail);
            let crc = crc32fast::hash(&bytes);
            bytes.extend(crc.to_le_bytes());
            if let Ok(view) = ProfileView::parse(&bytes, IMAGE, geometry()) {
                prop_assert_eq!(view.entries().count(), count as usize);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ProfileView::parse(&bytes, IMAGE, geometry());
        }
    }

    #[test]
    fn wrong_use_is_refused() {
        let good = entries(&[(5, 7, 255), (6, 100, 200)]);
        let swapped = [good[1], good[0]];
        let mut out = [0; 200];
        assert_eq!(encode(IMAGE, &[1], &swapped, &mut out), Err(ProfileError::Order));
        for groups in [&[][..], &[1; GROUPS_MAX + 1]] {
            assert_eq!(encode(IMAGE, groups, &good, &mut out), Err(ProfileError::Count));
        }
        for room in 0..encoded(&good).len() {
            assert_eq!(encode(IMAGE, &[2, 1], &good, &mut out[..room]), Err(ProfileError::Room));
        }
        let bytes = encoded(&good);
        assert_eq!(ProfileView::parse(&bytes, Digest::default(), geometry()).err(), Some(ProfileError::OtherImage));
        let small = Geometry::new(6 << 16, 16).unwrap();
        assert_eq!(ProfileView::parse(&bytes, IMAGE, small).err(), Some(ProfileError::Entry(1)));
        let view = ProfileView::parse(&bytes, IMAGE, geometry()).unwrap();
        assert_eq!(view.read_into(&mut []), Err(ProfileError::Room));
    }
}
