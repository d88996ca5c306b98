//! The held log: which pieces a cache has, safe against a crash at any byte.
//!
//! *Purpose*: records are only appended: *these pieces are held*, *these are lost*. Replayed in order into a bitmap.
//! *Invariants*: a record counts only if its checksum fits the image, its place in the log and its bytes; a torn tail or a
//! damaged record is passed over and costs just what it said. A log may so claim too little or, when a *lost* record is
//! damaged, too much; the host verifies each piece before its first use, so neither can hurt.
//! *Bounds*: a header of 64 bytes, records of 16.

use super::{array, u32_at};
use crate::bitmap::{Bits, assign_run};
use crate::ids::Digest;
use embedded_io::{Read, Write};

/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// Length of a record.
pub const RECORD_BYTES: usize = 16;
/// Version of the held log that this code writes and reads.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"SWARMHLD";
const LOST: u32 = 1 << 31;

/// What a record says of its pieces.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Kind {
    /// They are held.
    Held,
    /// They are held no longer.
    Lost,
}

/// What a replay met.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Good records.
    pub good_count: u32,
    /// Records passed over: damaged, or about pieces that the image does not have.
    pub bad_count: u32,
    /// Bytes after the last whole record: a torn tail.
    pub torn_bytes: u32,
}

/// Why a log cannot be replayed. Nothing was changed but perhaps bits of the bitmap (`Io`).
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum HeldError<E> {
    /// Not a held log, or its header is damaged: the file is at fault.
    Header,
    /// Written by a version that this code does not know.
    Version(u32),
    /// The log of another image.
    OtherImage,
    /// The bitmap has fewer words than the image needs: the caller is at fault.
    Room,
    /// The disk is at fault.
    Io(E),
}

/// Writes a log, to its end.
#[derive(Debug, Clone)]
pub struct HeldWriter {
    image: Digest,
    position: u32,
}

impl HeldWriter {
    /// A writer for a new log of `image`: write its [`header`] first.
    pub const fn new(image: Digest) -> Self {
        Self { image, position: 0 }
    }

    /// A writer for a log that has `record_count` whole records already, good or bad.
    pub const fn resume(image: Digest, record_count: u32) -> Self {
        Self { image, position: record_count }
    }

    /// How many bytes the log has: where the next record belongs.
    pub const fn log_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.position as u64 * RECORD_BYTES as u64
    }

    /// Appends a record. `out` must stand at [`log_bytes`](Self::log_bytes).
    ///
    /// # Errors
    /// Those of `out`; the writer is as before then, so the next record belongs over what was torn.
    pub fn append<W: Write>(&mut self, out: &mut W, first: u32, count: u32, kind: Kind) -> Result<(), W::Error> {
        out.write_all(&record(self.image, self.position, first, count, kind))?;
        self.position += 1;
        Ok(())
    }

    /// Writes a whole new log that says just what `bits` does: compaction. The writer then stands at its end.
    ///
    /// # Errors
    /// Those of `out`; the new log is then to be thrown away, the writer stands nowhere useful.
    pub fn rewrite<W: Write>(&mut self, out: &mut W, bits: Bits<'_>) -> Result<(), W::Error> {
        self.position = 0;
        out.write_all(&header(self.image, bits.len()))?;
        for (first, count) in bits.runs(0) {
            self.append(out, first, count, Kind::Held)?;
        }
        Ok(())
    }
}

/// The first [`HEADER_BYTES`] of a log of `image`, which has `piece_count` pieces.
pub fn header(image: Digest, piece_count: u32) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&piece_count.to_le_bytes());
    out[16..48].copy_from_slice(&image.0);
    let crc = crc32fast::hash(&out[..60]);
    out[60..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Replays a log into `words`, a bitmap of `piece_count` bits that the caller has cleared.
///
/// # Errors
/// See [`HeldError`].
pub fn replay<R: Read>(
    log: &mut R,
    image: Digest,
    piece_count: u32,
    words: &mut [u64],
) -> Result<Replayed, HeldError<R::Error>> {
    if words.len() < piece_count.div_ceil(64) as usize {
        return Err(HeldError::Room);
    }
    check_header(log, image, piece_count)?;
    let mut replayed = Replayed::default();
    let mut bytes = [0; RECORD_BYTES];
    for position in 0.. {
        let filled = fill(log, &mut bytes).map_err(HeldError::Io)?;
        if filled < RECORD_BYTES {
            replayed.torn_bytes = filled as u32;
            break;
        }
        match parse_record(&bytes, image, position, piece_count) {
            Some((first, count, kind)) => {
                assign_run(words, first, count, kind == Kind::Held);
                replayed.good_count += 1;
            }
            None => replayed.bad_count += 1,
        }
    }
    Ok(replayed)
}

fn check_header<R: Read>(log: &mut R, image: Digest, piece_count: u32) -> Result<(), HeldError<R::Error>> {
    let mut bytes = [0; HEADER_BYTES];
    let filled = fill(log, &mut bytes).map_err(HeldError::Io)?;
    if filled < HEADER_BYTES || bytes[..8] != MAGIC || crc32fast::hash(&bytes[..60]) != u32_at(&bytes, 60) {
        return Err(HeldError::Header);
    }
    match u32_at(&bytes, 8) {
        VERSION if array(&bytes, 16) == image.0 && u32_at(&bytes, 12) == piece_count => Ok(()),
        VERSION => Err(HeldError::OtherImage),
        version => Err(HeldError::Version(version)),
    }
}

fn record(image: Digest, position: u32, first: u32, count: u32, kind: Kind) -> [u8; RECORD_BYTES] {
    let mut out = [0; RECORD_BYTES];
    let tag = position & !LOST | if kind == Kind::Lost { LOST } else { 0 };
    out[..4].copy_from_slice(&first.to_le_bytes());
    out[4..8].copy_from_slice(&count.to_le_bytes());
    out[8..12].copy_from_slice(&tag.to_le_bytes());
    let crc = record_crc(image, &out);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn parse_record(
    bytes: &[u8; RECORD_BYTES],
    image: Digest,
    position: u32,
    piece_count: u32,
) -> Option<(u32, u32, Kind)> {
    let (first, count, tag) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8));
    let is_sound = record_crc(image, bytes) == u32_at(bytes, 12)
        && tag & !LOST == position & !LOST
        && count > 0
        && first.checked_add(count)? <= piece_count;
    is_sound.then_some((first, count, if tag & LOST != 0 { Kind::Lost } else { Kind::Held }))
}

/// Over the image's id too, so that what is left of another log never counts.
fn record_crc(image: Digest, bytes: &[u8; RECORD_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&image.0);
    hasher.update(&bytes[..12]);
    hasher.finalize()
}

/// Reads until `out` is full or the input ends; says how much it read.
fn fill<R: Read>(input: &mut R, out: &mut [u8]) -> Result<usize, R::Error> {
    let mut filled = 0;
    while filled < out.len() {
        match input.read(&mut out[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

impl<E: core::fmt::Display> core::fmt::Display for HeldError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Header => f.write_str("not a held log, or its header is damaged"),
            Self::Version(version) => write!(f, "held log version {version} is not known here, only {VERSION}"),
            Self::OtherImage => f.write_str("the held log belongs to another image"),
            Self::Room => f.write_str("the bitmap is too small for the image"),
            Self::Io(error) => write!(f, "cannot read the held log: {error}"),
        }
    }
}

impl<E: core::fmt::Debug + core::fmt::Display> core::error::Error for HeldError<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;
    use proptest::prelude::*;
    use std::vec::Vec;

    const IMAGE: Digest = Digest([9; 32]);
    const PIECES: u32 = 200;
    type Words = [u64; 4];

    /// A disk that keeps only so many bytes of what is written, and says so from then on.
    struct TornDisk {
        bytes: Vec<u8>,
        room: usize,
    }

    #[derive(Debug, Copy, Clone, PartialEq)]
    struct Full;

    impl core::fmt::Display for Full {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("full")
        }
    }
    impl core::error::Error for Full {}
    impl embedded_io::Error for Full {
        fn kind(&self) -> embedded_io::ErrorKind {
            embedded_io::ErrorKind::OutOfMemory
        }
    }
    impl embedded_io::ErrorType for TornDisk {
        type Error = Full;
    }
    impl Write for TornDisk {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Full> {
            let take = bytes.len().min(self.room - self.bytes.len());
            self.bytes.extend(&bytes[..take]);
            if take == 0 { Err(Full) } else { Ok(take) }
        }
        fn flush(&mut self) -> Result<(), Full> {
            Ok(())
        }
    }

    fn disk() -> TornDisk {
        TornDisk { bytes: Vec::new(), room: usize::MAX }
    }

    fn replayed(bytes: &[u8]) -> Result<(Replayed, Words), HeldError<Infallible>> {
        let mut words = Words::default();
        replay(&mut &bytes[..], IMAGE, PIECES, &mut words).map(|replayed| (replayed, words))
    }

    fn log(records: &[(u32, u32, bool)]) -> Vec<u8> {
        let (mut writer, mut disk) = (HeldWriter::new(IMAGE), disk());
        disk.bytes.extend(header(IMAGE, PIECES));
        for (first, count, held) in records {
            writer.append(&mut disk, *first, *count, if *held { Kind::Held } else { Kind::Lost }).unwrap();
        }
        assert_eq!(writer.log_bytes(), disk.bytes.len() as u64);
        disk.bytes
    }

    /// What the good ones among `records` say, `skip` left out.
    fn naive(records: &[(u32, u32, bool)], skip: Option<usize>) -> Words {
        let mut words = Words::default();
        for (_, (first, count, held)) in records.iter().enumerate().filter(|(at, _)| Some(*at) != skip) {
            assign_run(&mut words, *first, *count, *held);
        }
        words
    }

    fn records() -> impl Strategy<Value = Vec<(u32, u32, bool)>> {
        let record = (0..PIECES, 1..PIECES, any::<bool>());
        prop::collection::vec(record.prop_map(|(f, c, h)| (f, c.min(PIECES - f), h)), 0..20)
    }

    proptest! {
        #[test]
        fn a_log_cut_anywhere_says_what_its_whole_records_do(records in records(), cut in 0usize..400) {
            let bytes = log(&records);
            let cut = cut.min(bytes.len());
            match replayed(&bytes[..cut]) {
                Err(error) => prop_assert!(cut < HEADER_BYTES && error == HeldError::Header),
                Ok((replayed, words)) => {
                    let whole = (cut - HEADER_BYTES) / RECORD_BYTES;
                    prop_assert_eq!(replayed.good_count as usize, whole);
                    prop_assert_eq!(replayed.torn_bytes as usize, (cut - HEADER_BYTES) % RECORD_BYTES);
                    prop_assert_eq!(words, naive(&records[..whole], None));
                }
            }
        }

        #[test]
        fn a_flipped_bit_costs_one_record(records in records(), bit in any::<prop::sample::Index>()) {
            let mut bytes = log(&records);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            match replayed(&bytes) {
                Err(_) => prop_assert!(bit / 8 < HEADER_BYTES),
                Ok((replayed, words)) => {
                    prop_assert_eq!(replayed.bad_count, 1);
                    prop_assert_eq!(words, naive(&records, Some((bit / 8 - HEADER_BYTES) / RECORD_BYTES)));
                }
            }
        }

        #[test]
        fn a_compacted_log_says_the_same(records in records()) {
            let words = naive(&records, None);
            let (mut writer, mut disk) = (HeldWriter::new(IMAGE), disk());
            writer.rewrite(&mut disk, Bits::new(&words, PIECES)).unwrap();
            prop_assert_eq!(writer.log_bytes(), disk.bytes.len() as u64);
            writer.append(&mut disk, 0, PIECES, Kind::Held).unwrap();
            let (replayed, all) = replayed(&disk.bytes).unwrap();
            prop_assert_eq!(replayed.bad_count, 0);
            prop_assert_eq!(Bits::new(&all, PIECES).count(), PIECES);
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300), known in any::<bool>()) {
            let mut bytes = if known { header(IMAGE, PIECES).to_vec() } else { Vec::new() };
            bytes.extend(tail);
            let _ = replayed(&bytes);
        }
    }

    #[test]
    fn after_a_full_disk_the_next_record_goes_over_the_torn_one() {
        let mut disk = TornDisk { bytes: log(&[(0, 5, true)]), room: HEADER_BYTES + 2 * RECORD_BYTES - 3 };
        let mut writer = HeldWriter::resume(IMAGE, 1);
        assert_eq!(writer.append(&mut disk, 10, 1, Kind::Held), Err(Full));
        assert_eq!(replayed(&disk.bytes).unwrap().0, Replayed { good_count: 1, bad_count: 0, torn_bytes: 13 });
        disk.room = usize::MAX;
        disk.bytes.truncate(writer.log_bytes() as usize);
        writer.append(&mut disk, 20, 1, Kind::Held).unwrap();
        assert_eq!(replayed(&disk.bytes).unwrap().1, naive(&[(0, 5, true), (20, 1, true)], None));
    }

    #[test]
    fn a_log_of_another_image_is_refused() {
        let bytes = log(&[]);
        let mut words = Words::default();
        let other = replay(&mut &bytes[..], Digest([1; 32]), PIECES, &mut words);
        assert_eq!(other, Err(HeldError::OtherImage));
        assert_eq!(replay(&mut &bytes[..], IMAGE, 300, &mut words), Err(HeldError::Room));
        assert_eq!(replay(&mut &bytes[..], IMAGE, PIECES - 1, &mut words), Err(HeldError::OtherImage));
    }

    #[test]
    fn records_moved_elsewhere_do_not_count() {
        let mut bytes = log(&[(0, 5, true), (10, 5, true)]);
        bytes.drain(HEADER_BYTES..HEADER_BYTES + RECORD_BYTES);
        assert_eq!(replayed(&bytes).unwrap(), (Replayed { good_count: 0, bad_count: 1, torn_bytes: 0 }, [0; 4]));
    }
}
