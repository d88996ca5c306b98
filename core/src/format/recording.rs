//! A recording: what an engine was made of, what it was told, and what it answered; its run can be had again from it.
//!
//! *Purpose*: single records as bytes and back; a file is [`start`], then one [`Record`] after the other: [`Record::Made`],
//! the profile's entries, then the calls in their order. Of what peers sent and were sent only heads are kept, never
//! bodies.
//! *Invariants*: no bytes make a parser panic or allocate. A decoded record fits its checksum; its indices are to be
//! checked by [`Record::fits`]. A file may end anywhere: what is after the last whole record does not count.
//! *Units*: microseconds of the engine's clock; lengths in bytes, little-endian.
//! *Bounds*: a record is at most [`RECORD_BYTES_MAX`] bytes.

use super::{array, u32_at};
use crate::engine::{Action, Config, Event, Landing, PeerError, Received, Tuning};
use crate::format::profile::ProfileEntry;
use crate::geometry::Geometry;
use crate::ids::{Address, PeerId};
use crate::time::{Duration, Instant};
use crate::wire::{self, Full, HEAD_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// Version of recordings that this code writes and reads.
pub const VERSION: u32 = 4;
/// Length of what is before the first record.
pub const START_BYTES: usize = 12;
/// Longest payload of a record: a frame's head and what is said of it, or what an engine is made of.
pub const PAYLOAD_BYTES_MAX: usize = HEAD_BYTES_MAX + 128;
/// Longest record.
pub const RECORD_BYTES_MAX: usize = LENGTH_BYTES + PAYLOAD_BYTES_MAX + CHECKSUM_BYTES;
/// The latest time: 285 years after the clock's origin.
const TIME_MAX: Instant = Instant::from_micros(1 << 53);
/// The longest span in an engine's settings: a year.
const SPAN_MAX: Duration = Duration::from_secs(366 * 86_400);
const MAGIC: [u8; 8] = *b"SWARMREC";
const LENGTH_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;

/// One thing that is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator; a record lives for a call")]
pub enum Record<'a> {
    /// What the engine was made of; the first of all.
    Made(Setup),
    /// An entry of the profile that it follows, in the profile's order; before all calls.
    Foreseen(ProfileEntry),
    /// [`handle`](crate::engine::Engine::handle). What was held at the start is told by events too.
    Handled {
        /// When.
        now: Instant,
        /// What it was told.
        event: Event,
    },
    /// [`admit`](crate::engine::Engine::admit).
    Admitted {
        /// When.
        now: Instant,
        /// From where the link came.
        address: Address,
        /// What might be sent at once.
        credit_bytes: u32,
        /// The answer.
        peer: Option<PeerId>,
    },
    /// [`receive`](crate::engine::Engine::receive).
    Received {
        /// When.
        now: Instant,
        /// From whom.
        peer: PeerId,
        /// The answer.
        answer: Heard,
        /// The head that was consumed; where none was, as much as there was of it ([`heard_part`]).
        #[serde(borrow)]
        bytes: &'a [u8],
    },
    /// [`poll`](crate::engine::Engine::poll) with a buffer of [`HEAD_BYTES_MAX`] bytes, when it gave something.
    Polled {
        /// When.
        now: Instant,
        /// The answer.
        action: Action,
        /// The head that is to be sent; empty but for `Transmit`.
        #[serde(borrow)]
        head: &'a [u8],
    },
    /// `poll` when it gave nothing.
    Idle {
        /// When.
        now: Instant,
    },
}

/// What an engine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// When it was made.
    pub now: Instant,
    /// How its image is cut.
    pub geometry: Geometry,
    /// Its settings.
    pub config: Config,
    /// Its policies.
    pub policies: Policies,
}

/// Which policies an engine has, and how they are set.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Follows a profile, looking so many entries ahead; 0: as far as is due soon.
    pub profile_window: Option<u32>,
    /// Follows what other nodes' guests touch.
    pub live: Option<LiveSetting>,
    /// Follows sequential readers, looking so many chunks ahead.
    pub sequential_ahead: Option<u32>,
    /// The order of prefetching.
    pub order: OrderKind,
    /// The choice of peers.
    pub selector: SelectorKind,
}

/// How live learning is set.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSetting {
    /// Chunks that it keeps in mind; as much storage.
    pub lessons: u16,
    /// It looks so many chunks ahead.
    pub window: u32,
}

/// Orders of prefetching, as recorded.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// [`Owners`](crate::policy::Owners).
    Owners,
}

/// Choices of peers, as recorded.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectorKind {
    /// [`ExpectedCompletion`](crate::policy::ExpectedCompletion).
    ExpectedCompletion,
}

/// What `receive` answered; how much was consumed is the length of the bytes recorded.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    /// Nothing was consumed; so many bytes were asked for.
    NeedMore {
        /// From the start of what was passed in.
        bytes: u32,
    },
    /// A head was consumed; this follows.
    Head(Landing),
    /// The link cannot go on.
    Failed(PeerError),
}

/// Why bytes are no recording, or no record: whoever wrote them is at fault.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum RecordingError {
    /// The magic is missing: another file.
    Foreign,
    /// Written by a version that this code does not know.
    Version(u32),
    /// A record says that it is longer than any can be.
    TooBig,
    /// A record's checksum is wrong.
    Checksum,
    /// A record fits its checksum and makes no sense.
    Malformed,
}

/// What [`decode`] found at the front of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator; it lives for a call")]
pub enum Decoded<'a> {
    /// Not a whole record yet, nothing wrong so far.
    NeedMore {
        /// Bytes needed before another try has a chance; more than there were, at most [`RECORD_BYTES_MAX`].
        bytes: usize,
    },
    /// A record.
    Record {
        /// The record, borrowed from the bytes.
        record: Record<'a>,
        /// Its length.
        consumed: usize,
    },
}

impl Setup {
    /// Whether an engine can be made of it, if its limits and the memory are large enough: there can be an image that is
    /// cut like that, and no span is longer than an engine can reckon with. Where not, nothing may be asked of the
    /// geometry.
    pub fn is_sound(&self) -> bool {
        let Tuning { fill_after, batch, hedge, timeout, patience, ping, silence, .. } = self.config.tuning;
        Geometry::new(self.geometry.image_bytes(), self.geometry.chunk_shift()).is_ok()
            && [fill_after, batch, hedge, timeout, patience, ping, silence].iter().all(|span| *span <= SPAN_MAX)
            && self.now <= TIME_MAX
    }
}

impl Heard {
    /// What is recorded of an answer.
    pub fn of(answer: Result<Received, PeerError>) -> Self {
        match answer {
            Ok(Received::NeedMore { bytes }) => Self::NeedMore { bytes: bytes as u32 },
            Ok(Received::Head { body, .. }) => Self::Head(body),
            Err(error) => Self::Failed(error),
        }
    }

    /// The answer again; `consumed` is the length of the bytes recorded.
    pub fn answer(self, consumed: usize) -> Result<Received, PeerError> {
        match self {
            Self::NeedMore { bytes } => Ok(Received::NeedMore { bytes: bytes as usize }),
            Self::Head(body) => Ok(Received::Head { consumed, body }),
            Self::Failed(error) => Err(error),
        }
    }
}

/// As much of `bytes`, passed to `receive`, as decided on its answer: one head, or what there was of it.
pub fn heard_part(bytes: &[u8], answer: Result<Received, PeerError>) -> &[u8] {
    let length = match answer {
        Ok(Received::Head { consumed, .. }) => consumed,
        Ok(Received::NeedMore { .. }) => HEAD_BYTES_MAX,
        Err(_) => match wire::decode(bytes) {
            Ok(wire::Decoded::Frame { consumed, .. }) => consumed,
            _ => HEAD_BYTES_MAX,
        },
    };
    &bytes[..length.min(bytes.len())]
}

impl Record<'_> {
    /// When the call was made; none for what is no call.
    pub const fn now(&self) -> Option<Instant> {
        match self {
            Self::Made(_) | Self::Foreseen(_) => None,
            Self::Handled { now, .. }
            | Self::Admitted { now, .. }
            | Self::Received { now, .. }
            | Self::Polled { now, .. }
            | Self::Idle { now } => Some(*now),
        }
    }

    /// Whether an engine for an image of this geometry can be told this: the indices are within the image, the time is one
    /// that a clock can show. Ids of links, slots and uploads may be anything.
    pub fn fits(&self, geometry: Geometry) -> bool {
        if self.now().is_some_and(|now| now > TIME_MAX) {
            return false;
        }
        match self {
            Self::Made(setup) => setup.is_sound(),
            Self::Foreseen(entry) => entry.chunk.get() < geometry.chunk_count(),
            Self::Handled { event, .. } => match *event {
                Event::Wanted { chunk, .. } | Event::Released { chunk, .. } | Event::Touched { chunk, .. } => {
                    chunk.get() < geometry.chunk_count()
                }
                Event::LeafWanted { leaf } | Event::LeafReleased { leaf } => leaf.get() < geometry.leaf_count(),
                Event::Held { first: piece, .. }
                | Event::Found { first: piece, .. }
                | Event::Kept { first: piece, .. }
                | Event::PieceLost { piece } => piece.get() < geometry.piece_count(),
                _ => true,
            },
            // What it answered is only compared.
            Self::Admitted { .. } | Self::Received { .. } | Self::Polled { .. } | Self::Idle { .. } => true,
        }
    }
}

/// The first bytes of a recording.
pub fn start() -> [u8; START_BYTES] {
    let mut out = [0; START_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..].copy_from_slice(&VERSION.to_le_bytes());
    out
}

/// Whether these are the first bytes of a recording.
///
/// # Errors
/// [`RecordingError::Foreign`] or [`RecordingError::Version`].
pub fn check_start(bytes: &[u8; START_BYTES]) -> Result<(), RecordingError> {
    match u32_at(bytes, 8) {
        _ if array(bytes, 0) != MAGIC => Err(RecordingError::Foreign),
        VERSION => Ok(()),
        version => Err(RecordingError::Version(version)),
    }
}

/// Writes a record to the front of `out`; returns its length, at most [`RECORD_BYTES_MAX`].
///
/// # Errors
/// [`Full`] if `out` is too short, or the record holds more than one head. The contents of `out` are then undefined.
pub fn encode(record: &Record<'_>, out: &mut [u8]) -> Result<usize, Full> {
    let end_max = out.len().min(LENGTH_BYTES + PAYLOAD_BYTES_MAX);
    let payload = out.get_mut(LENGTH_BYTES..end_max).ok_or(Full)?;
    let payload_bytes = postcard::to_slice(record, payload).map_err(|_| Full)?.len();
    out[..LENGTH_BYTES].copy_from_slice(&(payload_bytes as u16).to_le_bytes());
    let (covered, rest) = out.split_at_mut(LENGTH_BYTES + payload_bytes);
    let checksum = rest.first_chunk_mut::<CHECKSUM_BYTES>().ok_or(Full)?;
    *checksum = crc32fast::hash(covered).to_le_bytes();
    Ok(LENGTH_BYTES + payload_bytes + CHECKSUM_BYTES)
}

/// Reads the record at the front of `bytes`.
///
/// # Errors
/// [`RecordingError::TooBig`], [`RecordingError::Checksum`] or [`RecordingError::Malformed`]; where the next record
/// begins is not known then.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, RecordingError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(Decoded::NeedMore { bytes: LENGTH_BYTES });
    };
    let payload_bytes = usize::from(u16::from_le_bytes(*length));
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(RecordingError::TooBig);
    }
    let consumed = LENGTH_BYTES + payload_bytes + CHECKSUM_BYTES;
    let Some(whole) = bytes.get(..consumed) else {
        return Ok(Decoded::NeedMore { bytes: consumed });
    };
    let (covered, checksum) = whole.split_at(LENGTH_BYTES + payload_bytes);
    if checksum != crc32fast::hash(covered).to_le_bytes() {
        return Err(RecordingError::Checksum);
    }
    match postcard::take_from_bytes(&covered[LENGTH_BYTES..]) {
        Ok((record, [])) => Ok(Decoded::Record { record, consumed }),
        _ => Err(RecordingError::Malformed),
    }
}

impl core::fmt::Display for RecordingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Foreign => f.write_str("this is no recording of an engine"),
            Self::Version(version) => write!(f, "recordings of version {version} are not known here, only {VERSION}"),
            Self::TooBig => f.write_str("a record is longer than any can be"),
            Self::Checksum => f.write_str("a record's checksum is wrong"),
            Self::Malformed => f.write_str("a record makes no sense"),
        }
    }
}

impl core::error::Error for RecordingError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Fill, Limits};
    use crate::ids::{Digest, NodeId};
    use crate::locality::Locality;
    use crate::wire::{Farewell, Frame, Role};
    use proptest::prelude::*;

    /// As large as it can be.
    fn setup() -> Setup {
        let offered = crate::engine::Offered { digest: Digest([0xff; 32]), bytes: u32::MAX };
        let config = Config {
            limits: Limits::SEED,
            node: NodeId([0xff; 16]),
            image: Digest([0xff; 32]),
            role: Role::Seed,
            listen: Address { ip: [0xff; 16], port: u16::MAX },
            locality: Locality { zone: u32::MAX, rack: u32::MAX, host: u32::MAX },
            manifest_bytes: u32::MAX,
            payload_bytes: 0,
            profile: Some(offered),
            teach: true,
            leaves_first: true,
            fill: Fill::Rate(u64::MAX),
            seed: u64::MAX,
            unsent_bytes_max: u32::MAX,
            tuning: Tuning::DEFAULT,
        };
        let policies = Policies {
            profile_window: Some(u32::MAX),
            live: Some(LiveSetting { lessons: u16::MAX, window: u32::MAX }),
            sequential_ahead: Some(u32::MAX),
            order: OrderKind::Owners,
            selector: SelectorKind::ExpectedCompletion,
        };
        Setup { now: Instant::NEVER, geometry: Geometry::new(1 << 40, 16).unwrap(), config, policies }
    }

    fn round(record: &Record<'_>) {
        let mut out = [0; RECORD_BYTES_MAX];
        let length = encode(record, &mut out).unwrap();
        assert_eq!(decode(&out), Ok(Decoded::Record { record: record.clone(), consumed: length }));
        for short in 0..length {
            assert!(matches!(decode(&out[..short]), Ok(Decoded::NeedMore { bytes }) if bytes > short));
            assert_eq!(encode(record, &mut [0; RECORD_BYTES_MAX][..short]), Err(Full));
        }
    }

    #[test]
    fn the_largest_records_fit() {
        let (now, peer) = (Instant::NEVER, PeerId::new(u16::MAX, u16::MAX));
        let head = [0xff; HEAD_BYTES_MAX];
        let slot = crate::ids::SlotId::new(u16::MAX, u16::MAX);
        let answer = Heard::Head(Landing::Land { slot, bytes: u32::MAX });
        round(&Record::Made(setup()));
        round(&Record::Received { now, peer, answer, bytes: &head });
        let body = Some(crate::engine::Body::Blob {
            kind: crate::engine::BlobKind::Profile,
            offset: u32::MAX,
            bytes: u32::MAX,
        });
        round(&Record::Polled { now, action: Action::Transmit { peer, head_bytes: u16::MAX, body }, head: &head });
        let long = [0; 2 * HEAD_BYTES_MAX];
        let too_long = Record::Received { now, peer, answer, bytes: &long };
        assert_eq!(encode(&too_long, &mut [0; 2 * RECORD_BYTES_MAX]), Err(Full));
    }

    #[test]
    fn only_indices_of_the_image_fit() {
        let (large, small) = (Geometry::new(1 << 30, 16).unwrap(), Geometry::new(1 << 20, 16).unwrap());
        let guest = crate::ids::GuestId(0);
        let fits = |event| Record::Handled { now: Instant::ZERO, event }.fits(small);
        for (chunk, expected) in [(15, true), (16, false)] {
            let chunk = large.chunk(chunk).unwrap();
            assert_eq!(fits(Event::Wanted { guest, chunk }), expected);
            assert_eq!(fits(Event::Touched { guest, chunk }), expected);
            assert_eq!(fits(Event::Released { guest, chunk }), expected);
            assert_eq!(Record::Foreseen(ProfileEntry::single(chunk, 0, 0)).fits(small), expected);
        }
        for (leaf, expected) in [(0, true), (1, false)] {
            let leaf = large.leaf(leaf).unwrap();
            assert_eq!(fits(Event::LeafWanted { leaf }), expected);
            assert_eq!(fits(Event::LeafReleased { leaf }), expected);
        }
        for (piece, expected) in [(16, true), (17, false)] {
            let piece = large.piece(piece).unwrap();
            assert_eq!(fits(Event::PieceLost { piece }), expected);
            assert_eq!(fits(Event::Held { first: piece, count: u32::MAX }), expected);
        }
    }

    #[test]
    fn times_and_settings_are_those_of_this_world() {
        let geometry = Geometry::new(1 << 20, 16).unwrap();
        assert!(Record::Idle { now: TIME_MAX }.fits(geometry) && !Record::Idle { now: Instant::NEVER }.fits(geometry));
        let sound = Setup { now: Instant::ZERO, ..setup() };
        assert!(sound.is_sound() && !setup().is_sound());
        let tuning = Tuning { batch: Duration::from_micros(u64::MAX), ..Tuning::DEFAULT };
        assert!(!Setup { config: Config { tuning, ..sound.config.clone() }, ..sound }.is_sound());
    }

    #[test]
    fn no_body_is_recorded() {
        let mut bytes = [7; HEAD_BYTES_MAX + 5000];
        let data = Frame::Data(wire::Data { piece: 1, bytes: 5000 });
        let consumed = wire::encode(&data, &mut bytes).unwrap();
        let head = bytes[..consumed].len();
        assert_eq!(heard_part(&bytes, Ok(Received::Head { consumed, body: Landing::None })).len(), head);
        // Refused: it was consumed by nobody.
        assert_eq!(heard_part(&bytes, Err(PeerError::Unexpected)).len(), head);
        assert_eq!(heard_part(&bytes[..5], Ok(Received::NeedMore { bytes: consumed })).len(), 5);
        bytes[4] ^= 1;
        let broken = PeerError::Malformed(wire::WireError::Checksum);
        assert_eq!(heard_part(&bytes, Err(broken)).len(), HEAD_BYTES_MAX);
        assert_eq!(heard_part(&[], Err(PeerError::Bye(Farewell::Leaving))).len(), 0);
    }

    #[test]
    fn another_file_is_refused() {
        assert_eq!(check_start(&start()), Ok(()));
        assert_eq!(check_start(b"SWARMREC\x03\0\0\0"), Err(RecordingError::Version(3)));
        assert_eq!(check_start(b"SWARMREC\x05\0\0\0"), Err(RecordingError::Version(5)));
        assert_eq!(check_start(b"SWARMPRF\x01\0\0\0"), Err(RecordingError::Foreign));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut junk in prop::collection::vec(any::<u8>(), 0..400), sound in any::<bool>()) {
            if sound && junk.len() >= LENGTH_BYTES + CHECKSUM_BYTES {
                // A checksum that fits, so that the payload is looked at.
                let covered = junk.len() - CHECKSUM_BYTES;
                junk[..LENGTH_BYTES].copy_from_slice(&((covered - LENGTH_BYTES) as u16).to_le_bytes());
                let checksum = crc32fast::hash(&junk[..covered]).to_le_bytes();
                junk[covered..].copy_from_slice(&checksum);
            }
            match decode(&junk) {
                Ok(Decoded::Record { record, consumed }) => {
                    prop_assert!(consumed <= junk.len());
                    record.fits(Geometry::new(1 << 20, 16).unwrap());
                }
                Ok(Decoded::NeedMore { bytes }) => prop_assert!(bytes > junk.len() && bytes <= RECORD_BYTES_MAX),
                Err(_) => {}
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in any::<prop::sample::Index>()) {
            let mut out = [0; RECORD_BYTES_MAX];
            let length = encode(&Record::Made(setup()), &mut out).unwrap();
            let bit = bit.index(length * 8);
            out[bit / 8] ^= 1 << (bit % 8);
            let is_record = matches!(decode(&out[..length]), Ok(Decoded::Record { .. }));
            prop_assert!(!is_record);
        }
    }
}
