//! A node's cache: which pieces it holds, and what a power cut makes of them.
//!
//! *Purpose*: the held log is written and replayed by the very code of real hosts ([`swarmdisk_core::format::held`]), so
//! that a crash in the simulator tears what it would tear on a disk. *Invariants*: a piece's bytes are genuine or rotten; a
//! rotten one is found when it is used first after a restart, as hosts verify then. *Bounds*: a bit a piece, four with
//! faults; 16 bytes a piece stored.

use swarmdisk_core::bitmap::{Bits, assign, assign_run};
use swarmdisk_core::format::held::{HeldWriter, Kind, RECORD_BYTES, header, replay};
use swarmdisk_core::ids::Digest;
use swarmdisk_core::rng::Rng;

/// Records that a power cut may tear: those not known to be on the disk.
const UNSYNCED_MAX: usize = 64;
/// Of the pieces in these, one in so many has wrong bytes.
const ROT_ONE_IN: u32 = 4;

/// A cache.
#[derive(Debug)]
pub struct Store {
    pieces: u32,
    kept: Vec<u64>,
    disk: Option<Box<Disk>>,
}

/// What a crash can hurt.
#[derive(Debug)]
struct Disk {
    image: Digest,
    log: Vec<u8>,
    writer: HeldWriter,
    rotten: Vec<u64>,
    /// Verified in this process.
    checked: Vec<u64>,
}

/// What is at a piece's place.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Missing,
    /// The right bytes.
    Genuine,
    /// Others, as this process would find out now.
    Rotten,
    /// Others, which this process takes for right: it has verified them, or so it says.
    Undetected,
}

impl Store {
    /// An empty cache for so many pieces; with `disk` crashes tear it.
    pub fn new(pieces: u32, disk: Option<Digest>) -> Self {
        let words = pieces.div_ceil(64) as usize;
        let disk = disk.map(|image| {
            let log = header(image, pieces).to_vec();
            Box::new(Disk {
                image,
                log,
                writer: HeldWriter::new(image),
                rotten: vec![0; words],
                checked: vec![0; words],
            })
        });
        Self { pieces, kept: vec![0; words], disk }
    }

    /// Whether the piece is there.
    pub fn holds(&self, piece: u32) -> bool {
        self.bits().get(piece)
    }

    /// What is there.
    pub fn bits(&self) -> Bits<'_> {
        Bits::new(&self.kept, self.pieces)
    }

    /// Holds a run from the start, as a seed does.
    pub fn fill(&mut self, first: u32, count: u32) {
        assign_run(&mut self.kept, first, count, true);
        if let Some(disk) = &mut self.disk {
            assign_run(&mut disk.rotten, first, count, false);
            disk.append(first, count, Kind::Held);
        }
    }

    /// Keeps a piece.
    pub fn put(&mut self, piece: u32, is_genuine: bool) {
        assign(&mut self.kept, piece, true);
        if let Some(disk) = &mut self.disk {
            assign(&mut disk.rotten, piece, !is_genuine);
            assign(&mut disk.checked, piece, true);
            disk.append(piece, 1, Kind::Held);
        }
    }

    /// The piece is gone.
    pub fn lose(&mut self, piece: u32) {
        if assign(&mut self.kept, piece, false)
            && let Some(disk) = &mut self.disk
        {
            disk.append(piece, 1, Kind::Lost);
        }
    }

    /// What a process finds that uses the piece: it verifies what it has not verified before.
    pub fn open(&mut self, piece: u32) -> Content {
        if !self.holds(piece) {
            return Content::Missing;
        }
        let pieces = self.pieces;
        let Some(disk) = &mut self.disk else { return Content::Genuine };
        let rotten = Bits::new(&disk.rotten, pieces).get(piece);
        let fresh = assign(&mut disk.checked, piece, true);
        match (rotten, fresh) {
            (false, _) => Content::Genuine,
            (true, true) => Content::Rotten,
            (true, false) => Content::Undetected,
        }
    }

    /// The power fails: some of what was written last is torn. What is left is read as a new process reads it.
    pub fn crash(&mut self, draws: &mut Rng) {
        let pieces = self.pieces;
        let Some(disk) = &mut self.disk else { return };
        let unsynced = (disk.log.len() - disk.header_bytes()).min(UNSYNCED_MAX * RECORD_BYTES) as u32;
        let cut = disk.log.len() - draws.below(unsynced + 1) as usize;
        let recent = disk.log.len() - unsynced as usize;
        disk.log.truncate(cut);
        self.kept.fill(0);
        // The header was synced when the cache was made: it is whole.
        let replayed = replay(&mut &disk.log[..], disk.image, pieces, &mut self.kept);
        let records = replayed.map_or(0, |replayed| replayed.good_count + replayed.bad_count);
        disk.writer = HeldWriter::resume(disk.image, records);
        disk.log.truncate(disk.writer.log_bytes() as usize);
        disk.checked.fill(0);
        for record in disk.log[recent.min(disk.log.len())..].chunks_exact(RECORD_BYTES) {
            let piece = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
            if draws.below(ROT_ONE_IN) == 0 {
                assign(&mut disk.rotten, piece, true);
            }
        }
    }
}

impl Disk {
    fn header_bytes(&self) -> usize {
        HeldWriter::new(self.image).log_bytes() as usize
    }

    fn append(&mut self, first: u32, count: u32, kind: Kind) {
        // A vector takes all.
        let appended = self.writer.append(&mut Log(&mut self.log), first, count, kind);
        debug_assert!(appended.is_ok(), "a log in memory takes all");
    }
}

/// A log in memory, as a sink of the core's.
struct Log<'a>(&'a mut Vec<u8>);

impl embedded_io::ErrorType for Log<'_> {
    type Error = std::convert::Infallible;
}

impl embedded_io::Write for Log<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loses_and_rots_only_what_is_recent() {
        let mut losses = 0;
        let mut rots = 0;
        for seed in 0..50 {
            let mut store = Store::new(1000, Some(Digest([1; 32])));
            (0..300).for_each(|piece| store.put(piece, true));
            store.crash(&mut Rng::new(seed));
            for piece in 0..300 {
                match store.open(piece) {
                    Content::Genuine => {}
                    Content::Missing => losses += 1,
                    Content::Rotten => rots += 1,
                    Content::Undetected => panic!("nothing is taken for granted after a restart"),
                }
                assert!(piece >= 300 - UNSYNCED_MAX as u32 || store.open(piece) == Content::Genuine);
            }
            // It goes on as before.
            store.put(999, true);
            assert_eq!(store.open(999), Content::Genuine);
        }
        assert!(losses > 100 && rots > 100, "{losses} lost, {rots} rotten");
    }

    #[test]
    fn wrong_bytes_that_nobody_verified_are_noticed() {
        let mut store = Store::new(100, Some(Digest([1; 32])));
        store.put(1, false);
        assert_eq!(store.open(1), Content::Undetected);
    }
}
