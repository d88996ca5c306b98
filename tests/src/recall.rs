//! How far a profile of some boots tells what another boot reads.
//!
//! *Purpose*: whether one profile serves machines of other shapes and workloads; traces and chunk numbers alone, no
//! network. *Units*: chunks of the default size that are not all zeros, as those are never fetched. A *recall* is the share
//! of a boot's chunks that the profile has, a *precision* the share of the profile's chunks that the boot reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use swarmdisk_common::profile::{MergeError, Merged, merge};
use swarmdisk_common::trace::{Op, Trace};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::geometry::{CHUNK_SHIFT_DEFAULT, Geometry};

/// Size of the disk that the boots were recorded from.
const IMAGE_BYTES: u64 = 3 << 30;
/// Where the head of a profile ends: what comes late harms little if the guest never asks for it.
pub const HEAD_PERCENT: usize = 90;

/// Recorded boots of one image.
#[derive(Debug)]
pub struct Boots {
    /// By shape, then by number.
    pub boots: Vec<RecordedBoot>,
    geometry: Geometry,
    nonzero: BTreeSet<u32>,
}

/// One of them.
#[derive(Debug)]
pub struct RecordedBoot {
    /// The machine's shape.
    pub shape: String,
    /// Which boot of that shape, from 1.
    pub run: u16,
    /// What it read.
    pub trace: Trace,
    /// The chunks of that.
    pub chunks: BTreeSet<u32>,
    /// The same by their first read.
    pub order: Vec<u32>,
}

/// A profile's chunks against those of a boot.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Fit {
    /// In both.
    pub common: usize,
    /// In the boot.
    pub boot: usize,
    /// In the profile.
    pub profile: usize,
    /// In the head of the profile, which ends where it has [`HEAD_PERCENT`] of `common`.
    pub head: usize,
    /// In both the head and the boot.
    pub head_common: usize,
}

impl Boots {
    /// The boots that this repository has.
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/boots")
    }

    /// Reads `SHAPE-RUN.trace` and `nonzero.txt`, as the example `record_boots` leaves them.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("nonzero.txt");
        let list = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let nonzero = list.lines().filter(|line| !line.starts_with('#')).map(run_of_chunks).collect::<Option<Vec<_>>>();
        let nonzero = nonzero.ok_or_else(|| format!("{}: a line is FIRST COUNT", path.display()))?;
        let geometry = Geometry::new(IMAGE_BYTES, CHUNK_SHIFT_DEFAULT).expect("such an image can be packed");
        let mut boots = Self { boots: Vec::new(), geometry, nonzero: nonzero.into_iter().flatten().collect() };
        let entries = fs::read_dir(folder).map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
        for entry in entries.flatten() {
            if let Some((shape, run)) = shape_and_run(&entry.file_name().to_string_lossy()) {
                let of_file = |error: String| format!("{}: {error}", entry.path().display());
                let file = File::open(entry.path()).map_err(|error| of_file(error.to_string()))?;
                let trace = Trace::parse(BufReader::new(file)).map_err(|error| of_file(error.to_string()))?;
                let mut boot = RecordedBoot { shape, run, trace, chunks: BTreeSet::new(), order: Vec::new() };
                let merged = boots.merged(&[&boot]).map_err(|error| of_file(error.to_string()))?;
                boot.order = merged.entries.iter().map(|entry| entry.chunk.get()).collect();
                boot.chunks = boot.order.iter().copied().collect();
                boots.boots.push(boot);
            }
        }
        boots.boots.sort_by(|a, b| (&a.shape, a.run).cmp(&(&b.shape, b.run)));
        Ok(boots)
    }

    /// Each shape once, by name.
    pub fn shapes(&self) -> BTreeSet<&str> {
        self.boots.iter().map(|boot| boot.shape.as_str()).collect()
    }

    /// The boots for which `is_meant` holds.
    pub fn select(&self, is_meant: impl Fn(&RecordedBoot) -> bool) -> Vec<&RecordedBoot> {
        self.boots.iter().filter(|boot| is_meant(boot)).collect()
    }

    /// The chunks of a profile made of these boots, in its order, those alone that at least `percent` of them read.
    ///
    /// # Errors
    /// See [`merge`].
    pub fn profile(&self, boots: &[&RecordedBoot], percent: u8) -> Result<Vec<u32>, MergeError> {
        let merged = self.merged(boots)?;
        let is_likely = |probability: u32| probability >= u32::from(percent) * 255 / 100;
        let likely = merged.entries.iter().filter(|entry| is_likely(overall(&merged.groups, entry)));
        Ok(likely.map(|entry| entry.chunk.get()).collect())
    }

    fn merged(&self, boots: &[&RecordedBoot]) -> Result<Merged, MergeError> {
        let named = |boot: &&RecordedBoot| (format!("{}-{}", boot.shape, boot.run), boot.trace.clone());
        let traces: Vec<(String, Trace)> = boots.iter().map(named).collect();
        merge(self.geometry, &traces, |chunk| Ok(!self.nonzero.contains(&chunk.get())))
    }

    /// How far a profile of `trained` tells the chunks of `tested`, all boots of either taken together. A boot's own trace
    /// is never in its profile; `None` if nothing is left to train with.
    pub fn fit(&self, trained: &[&RecordedBoot], tested: &[&RecordedBoot], percent: u8) -> Option<Fit> {
        let fits = tested.iter().filter_map(|boot| {
            let others: Vec<&RecordedBoot> =
                trained.iter().copied().filter(|other| (&other.shape, other.run) != (&boot.shape, boot.run)).collect();
            let profile = self.profile(&others, percent).ok()?;
            Some(Fit::new(&profile, &boot.chunks))
        });
        fits.reduce(|sum, fit| Fit {
            common: sum.common + fit.common,
            boot: sum.boot + fit.boot,
            profile: sum.profile + fit.profile,
            head: sum.head + fit.head,
            head_common: sum.head_common + fit.head_common,
        })
    }
}

impl RecordedBoot {
    /// How many bytes it read, repeats included.
    pub fn read_bytes(&self) -> u64 {
        self.reads().map(u64::from).sum()
    }

    /// How many reads it made.
    pub fn read_count(&self) -> usize {
        self.reads().count()
    }

    /// Of the pairs of chunks that another boot reads too, the share that it reads in the same order, in percent.
    pub fn same_order(&self, other: &Self) -> f64 {
        let places: BTreeMap<u32, usize> =
            other.order.iter().enumerate().map(|(place, &chunk)| (chunk, place)).collect();
        let common: Vec<usize> = self.order.iter().filter_map(|chunk| places.get(chunk).copied()).collect();
        let after = |(index, place): (usize, &usize)| common[index + 1..].iter().filter(|other| *other > place).count();
        let same: usize = common.iter().enumerate().map(after).sum();
        same as f64 * 200.0 / (common.len() * common.len().saturating_sub(1)) as f64
    }

    fn reads(&self) -> impl Iterator<Item = u32> {
        self.trace.requests.iter().filter(|request| request.op == Op::Read).map(|request| request.bytes)
    }
}

impl Fit {
    /// A profile's chunks, in its order, against a boot's.
    pub fn new(profile: &[u32], boot: &BTreeSet<u32>) -> Self {
        let common = profile.iter().filter(|chunk| boot.contains(chunk)).count();
        let (mut head, mut head_common) = (0, 0);
        for chunk in profile {
            if head_common * 100 >= common * HEAD_PERCENT {
                break;
            }
            head += 1;
            head_common += usize::from(boot.contains(chunk));
        }
        Self { common, boot: boot.len(), profile: profile.len(), head, head_common }
    }

    /// Share of the boot's chunks that the profile has, in percent.
    pub fn recall(&self) -> f64 {
        self.common as f64 * 100.0 / self.boot as f64
    }

    /// Share of the profile's chunks that the boot reads, in percent.
    pub fn precision(&self) -> f64 {
        self.common as f64 * 100.0 / self.profile as f64
    }

    /// The same of the profile's head.
    pub fn head_precision(&self) -> f64 {
        self.head_common as f64 * 100.0 / self.head as f64
    }
}

fn run_of_chunks(line: &str) -> Option<std::ops::Range<u32>> {
    let (first, count) = line.split_once(' ')?;
    let first: u32 = first.parse().ok()?;
    Some(first..first.checked_add(count.parse().ok()?)?)
}

fn shape_and_run(name: &str) -> Option<(String, u16)> {
    let (shape, run) = name.strip_suffix(".trace")?.rsplit_once('-')?;
    Some((shape.to_owned(), run.parse().ok()?))
}

/// In how many of 255 runs of all groups the entry's chunk is touched.
fn overall(groups: &[u16], entry: &ProfileEntry) -> u32 {
    let of_groups = groups.iter().zip(entry.probabilities);
    let touched: u32 = of_groups.map(|(runs, probability)| u32::from(*runs) * u32::from(probability)).sum();
    touched / groups.iter().map(|runs| u32::from(*runs)).sum::<u32>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks 0 to 9 hold something, but 3.
    fn boots(traces: &[(&str, &[u64])]) -> Boots {
        let folder = crate::images::folder();
        fs::write(folder.path().join("nonzero.txt"), "# FIRST COUNT\n0 3\n4 6\n").unwrap();
        for (name, chunks) in traces {
            let trace: String = chunks.iter().map(|chunk| format!("5 R {} 4096\n", chunk << 16)).collect();
            fs::write(folder.path().join(format!("{name}.trace")), trace).unwrap();
        }
        Boots::read(folder.path()).unwrap()
    }

    #[test]
    fn a_boot_is_not_tested_with_itself() {
        let boots = boots(&[("a-1", &[0, 1, 2, 3]), ("a-2", &[0, 1, 4]), ("b-1", &[0, 5])]);
        let [a, b] = ["a", "b"].map(|shape| boots.select(|boot| boot.shape == shape));
        assert_eq!(boots.boots[0].chunks, BTreeSet::from([0, 1, 2]), "a chunk of zeros is none");
        let shares = |fit: Option<Fit>| fit.map(|fit| (fit.common, fit.boot, fit.profile));
        assert_eq!(shares(boots.fit(&a, &a, 0)), Some((2 + 2, 3 + 3, 3 + 3)));
        assert_eq!(shares(boots.fit(&a, &b, 0)), Some((1, 2, 4)));
        assert_eq!(shares(boots.fit(&a, &b, 100)), Some((1, 2, 2)));
        assert_eq!(boots.fit(&b, &b, 0), None);
    }

    #[test]
    fn a_head_ends_where_most_is_had() {
        let boot: BTreeSet<u32> = (0..12).collect();
        let profile: Vec<u32> = (0..8).chain(20..22).chain(8..10).chain(30..38).collect();
        let fit = Fit::new(&profile, &boot);
        assert_eq!(fit, Fit { common: 10, boot: 12, profile: 20, head: 11, head_common: 9 });
        assert_eq!((fit.precision(), fit.head_precision()), (50.0, 900.0 / 11.0));
        assert_eq!(fit.recall(), 1000.0 / 12.0);
    }

    #[test]
    fn orders_are_compared_by_pairs() {
        let boot = |order: &[u32]| RecordedBoot {
            shape: String::new(),
            run: 1,
            trace: Trace::default(),
            chunks: order.iter().copied().collect(),
            order: order.to_vec(),
        };
        let one = boot(&[7, 1, 2, 3]);
        assert_eq!(one.same_order(&one), 100.0);
        assert_eq!(one.same_order(&boot(&[3, 2, 9, 1])), 0.0);
        assert!((one.same_order(&boot(&[9, 1, 3, 2])) - 200.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn rare_chunks_can_be_left_out() {
        let boots = boots(&[("a-1", &[0]), ("a-2", &[0, 1]), ("a-3", &[0, 1, 2])]);
        let chunks = |percent| boots.profile(&boots.select(|_| true), percent).unwrap().len();
        assert_eq!([0, 33, 40, 60, 70, 100].map(chunks), [3, 3, 2, 2, 1, 1]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = crate::images::folder();
        assert!(Boots::read(folder.path()).unwrap_err().contains("nonzero.txt"));
        fs::write(folder.path().join("nonzero.txt"), "1\n").unwrap();
        assert!(Boots::read(folder.path()).unwrap_err().contains("FIRST COUNT"));
        fs::write(folder.path().join("nonzero.txt"), "1 1\n").unwrap();
        fs::write(folder.path().join("a-1.trace"), "junk\n").unwrap();
        assert!(Boots::read(folder.path()).unwrap_err().contains("a-1.trace: line 1"));
    }
}
