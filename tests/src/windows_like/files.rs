//! The made-up files of a Windows-like volume: how many of each kind, how large, and what they hold.
//!
//! *Invariants*: the same scale and seed give the same files, byte for byte. *What the numbers are*: of the size that the
//! files of a Windows 10 have, as anybody sees in its folders: a kernel of 10 MB, drivers of 10 KB to 3 MB, libraries of
//! 20 KB to 4 MB of which most are small, hives of which `SOFTWARE` is the largest. How many of them a boot touches is ours.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::images::Numbers;

/// Bytes of a page, by which contents are made.
pub const PAGE_BYTES: u64 = 4096;

/// What a file is, which says when a boot reads it, how much of it, and how its contents compress.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `bootmgr`, the boot configuration, `winload`: read by the firmware's interface.
    Loader,
    /// The kernel, and what is loaded with it.
    Kernel,
    /// The hive that the loader reads whole.
    SystemHive,
    /// A driver that the loader reads whole.
    BootDriver,
    /// A driver that the kernel loads.
    Driver,
    /// The plan of what to read ahead.
    Plan,
    /// The other hives.
    Hive,
    /// A program or library.
    Library,
    /// Tables and settings of a few pages.
    Small,
    /// A font.
    Font,
    /// An event log, which is written to.
    Log,
    /// The page file: zeros at first.
    PageFile,
    /// What no boot reads.
    Store,
}

/// A made-up file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeUp {
    /// Its name, in the root.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its length.
    pub bytes: u64,
    /// What its contents are made of.
    pub seed: u64,
    /// Of so many pages in a thousand the contents are newer than the file.
    pub changed_permille: u64,
}

/// How many files, and how large.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Size of the volume.
    pub image_bytes: u64,
    /// Drivers that the loader reads, those that the kernel loads, libraries, small files, fonts, logs, files not read.
    pub counts: [u32; 7],
    /// What the longest library has; others are down to a 200th of it.
    pub library_bytes_max: u64,
    /// The two large hives: `SYSTEM`, `SOFTWARE`.
    pub hive_bytes: [u64; 2],
    /// The page file.
    pub page_file_bytes: u64,
    /// Each file that is not read.
    pub store_bytes: u64,
}

impl Scale {
    /// A volume of 4 GiB, of which some 1.2 GB are files.
    pub const FULL: Self = Self {
        image_bytes: 4 << 30,
        counts: [70, 110, 620, 160, 36, 40, 20],
        library_bytes_max: 4 << 20,
        hive_bytes: [14 << 20, 72 << 20],
        page_file_bytes: 128 << 20,
        store_bytes: 20 << 20,
    };

    /// A volume of 192 MiB, of which some 25 MB are files: for tests.
    pub const SMALL: Self = Self {
        image_bytes: 192 << 20,
        counts: [6, 8, 40, 8, 3, 3, 3],
        library_bytes_max: 1 << 20,
        hive_bytes: [1 << 20, 4 << 20],
        page_file_bytes: 4 << 20,
        store_bytes: 3 << 20,
    };
}

/// The files of a volume, in the order in which they are copied to it.
pub fn all(scale: &Scale, seed: u64) -> Vec<MadeUp> {
    let mut numbers = Numbers(seed);
    let mut files = Vec::new();
    let mut add = |name: String, kind, bytes: u64, numbers: &mut Numbers| {
        files.push(MadeUp { name, kind, bytes, seed: numbers.draw(), changed_permille: 0 });
    };
    let [boot_drivers, drivers, libraries, small, fonts, logs, stores] = scale.counts;
    let most = scale.library_bytes_max;
    for (name, kind, bytes) in [
        ("bootmgr", Kind::Loader, 400 << 10),
        ("BCD", Kind::Loader, 28 << 10),
        ("winload.efi", Kind::Loader, 1700 << 10),
        ("ntoskrnl.exe", Kind::Kernel, most / 2 * 5),
        ("hal.dll", Kind::Kernel, 500 << 10),
        ("SYSTEM", Kind::SystemHive, scale.hive_bytes[0]),
        ("SOFTWARE", Kind::Hive, scale.hive_bytes[1]),
        ("DEFAULT", Kind::Hive, 512 << 10),
        ("SECURITY", Kind::Hive, 64 << 10),
        ("SAM", Kind::Hive, 128 << 10),
        ("NTUSER.DAT", Kind::Hive, 1536 << 10),
        ("UsrClass.dat", Kind::Hive, scale.hive_bytes[0] / 8),
        ("ReadyBoot.plan", Kind::Plan, scale.hive_bytes[0] / 4),
    ] {
        add(name.into(), kind, bytes, &mut numbers);
    }
    let kinds = [
        ("boot-driver", "sys", Kind::BootDriver, boot_drivers, 12 << 10, most * 3 / 4),
        ("driver", "sys", Kind::Driver, drivers, 12 << 10, most / 2),
        ("library", "dll", Kind::Library, libraries, most / 200, most),
        ("table", "dat", Kind::Small, small, 600, 60 << 10),
        ("font", "ttf", Kind::Font, fonts, most / 40, most * 2 / 5),
        ("log", "evtx", Kind::Log, logs, 68 << 10, 1 << 20),
    ];
    for (name, suffix, kind, count, least, most) in kinds {
        for number in 0..count {
            let bytes = skewed(&mut numbers, least, most);
            add(format!("{name}-{number:03}.{suffix}"), kind, bytes, &mut numbers);
        }
    }
    add("pagefile.sys".into(), Kind::PageFile, scale.page_file_bytes, &mut numbers);
    for number in 0..stores {
        add(format!("component-{number:03}.store"), Kind::Store, scale.store_bytes, &mut numbers);
    }
    files
}

/// What an update makes of the files, and which of them are to be copied to the volume.
///
/// Each eighth driver and library and the kernel is replaced: as Windows' servicing does, the new one is laid beside the old
/// one, which stays. In the hives that name them a few pages change where they lie.
pub fn updated(files: &[MadeUp], seed: u64) -> (Vec<MadeUp>, Vec<MadeUp>) {
    let mut numbers = Numbers(seed ^ 0x7570_6461_7465);
    let (mut all, mut copied) = (Vec::new(), Vec::new());
    for (number, file) in files.iter().enumerate() {
        let mut file = file.clone();
        let is_replaced = match file.kind {
            Kind::Kernel => true,
            Kind::BootDriver | Kind::Driver | Kind::Library => number % 8 == 3,
            _ => false,
        };
        if is_replaced {
            file.name += ".new";
            file.bytes += numbers.below(file.bytes / 20 + 1);
            file.seed = numbers.draw();
        }
        let is_patched = matches!(file.name.as_str(), "SYSTEM" | "SOFTWARE");
        if is_patched {
            file.changed_permille = 15;
        }
        if is_replaced || is_patched {
            copied.push(file.clone());
        }
        all.push(file);
    }
    (all, copied)
}

impl MadeUp {
    /// Writes its contents to a file of the host.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        let mut page = [0; PAGE_BYTES as usize];
        for number in 0..self.bytes.div_ceil(PAGE_BYTES) {
            self.fill(number, &mut page);
            let length = (self.bytes - number * PAGE_BYTES).min(PAGE_BYTES);
            out.write_all(&page[..length as usize])?;
        }
        out.flush()
    }

    /// New bytes and copies of earlier ones in turn, so that it compresses as far as its kind does.
    fn fill(&self, number: u64, page: &mut [u8]) {
        let Some((fresh, copied)) = self.kind.mixture() else { return page.fill(0) };
        let mut numbers = Numbers(self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)));
        let is_changed = numbers.below(1000) < self.changed_permille;
        if is_changed {
            numbers = Numbers(numbers.draw());
        }
        let mut at = 0;
        while at < page.len() {
            let end = (at + fresh).min(page.len());
            for word in page[at..end].chunks_mut(8) {
                word.copy_from_slice(&numbers.draw().to_le_bytes()[..word.len()]);
            }
            let length = copied.min(page.len() - end).min(end);
            let from = numbers.below((end - length + 1) as u64) as usize;
            page.copy_within(from..from + length, end);
            at = end + length;
        }
    }
}

impl Kind {
    /// Bytes that are new and bytes that are copied, in turn; none: zeros.
    fn mixture(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::PageFile => return None,
            Self::SystemHive | Self::Hive => (16, 70),
            Self::Small | Self::Log => (16, 110),
            Self::Font | Self::Plan => (48, 24),
            _ => (32, 46),
        })
    }
}

/// A size of which small ones are more frequent: even by its logarithm, but for rounding.
fn skewed(numbers: &mut Numbers, least: u64, most: u64) -> u64 {
    let doublings = u64::from((most / least.max(1)).max(1).ilog2());
    let from = least << numbers.below(doublings + 1);
    (from + numbers.below(from)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::folder;

    #[test]
    fn the_same_seed_makes_the_same_files() {
        let files = all(&Scale::SMALL, 7);
        assert_eq!(files, all(&Scale::SMALL, 7));
        assert_ne!(files, all(&Scale::SMALL, 8));
        let folder = folder();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        files[3].write(&one).unwrap();
        files[3].write(&two).unwrap();
        assert_eq!(std::fs::read(&one).unwrap().len() as u64, files[3].bytes);
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
    }

    #[test]
    fn an_update_changes_whole_programs_and_single_pages_of_hives() {
        let files = all(&Scale::SMALL, 7);
        let (after, copied) = updated(&files, 7);
        assert_eq!(after.len(), files.len());
        let replaced = after.iter().filter(|file| file.name.ends_with(".new")).count();
        assert!((6..14).contains(&replaced), "{replaced}");
        assert_eq!(copied.len(), replaced + 2);
        let pages = |file: &MadeUp| -> Vec<[u8; PAGE_BYTES as usize]> {
            let of = |number| {
                let mut page = [0; PAGE_BYTES as usize];
                file.fill(number, &mut page);
                page
            };
            (0..file.bytes / PAGE_BYTES).map(of).collect()
        };
        let hive = |files: &[MadeUp]| pages(files.iter().find(|file| file.name == "SOFTWARE").unwrap());
        let (before, after) = (hive(&files), hive(&after));
        let changed = before.iter().zip(&after).filter(|(old, new)| old != new).count();
        assert!((4..40).contains(&changed), "{changed} of {}", before.len());
    }
}
