//! A real NTFS volume in a file: made by mkntfs, filled by ntfscp, and read back to learn where each file lies.
//!
//! *Invariants*: places are in bytes from the start of the image, which is the volume itself, without a partition table.
//! *What differs from run to run*: times and the volume's serial number; the places are the same for the same files in the
//! same order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;

use ntfs::attribute_value::NtfsAttributeValue;
use ntfs::{Ntfs, NtfsAttributeType, NtfsError, NtfsFile, NtfsFileFlags};

use crate::process::{Process, RUN_DEADLINE};
use crate::skip::{Missing, find_tool};

/// Bytes of a cluster: what Windows takes for volumes of up to 16 TB.
pub const CLUSTER_BYTES: u64 = 4096;
/// Records of `$MFT` that are the file system's own.
const OWN_RECORDS: u64 = 24;

/// ntfs-3g's programs.
#[derive(Debug, Clone)]
pub struct Tools {
    mkntfs: PathBuf,
    ntfscp: PathBuf,
}

impl Tools {
    /// Those of this machine.
    ///
    /// # Errors
    /// When they are not installed.
    pub fn find() -> Result<Self, Missing> {
        let tool = |name| find_tool(name, "ntfs-3g");
        Ok(Self { mkntfs: tool("mkntfs")?, ntfscp: tool("ntfscp")? })
    }

    /// Makes an empty volume in a sparse file.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn make(&self, image: &Path, bytes: u64) {
        let made = File::create_new(image).and_then(|file| file.set_len(bytes));
        made.unwrap_or_else(|error| panic!("cannot make {}: {error}", image.display()));
        let cluster = CLUSTER_BYTES.to_string();
        // All that a block device would tell: sector size, start, geometry.
        let options =
            ["-F", "-Q", "-q", "-c", &cluster, "-s", "512", "-p", "0", "-H", "255", "-S", "63", "-L", "made up"];
        run(Command::new(&self.mkntfs).args(options).arg(image));
    }

    /// Copies a file into the root of a volume, over the one of that name if there is one.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[track_caller]
    pub fn copy(&self, image: &Path, from: &Path, name: &str) {
        run(Command::new(&self.ntfscp).arg("-q").args([image, from]).arg(name));
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let command = std::mem::replace(command, Command::new(""));
    let ended = Process::start(command).wait(RUN_DEADLINE);
    assert!(ended.status.success(), "{}: {}{}", ended.status, ended.stdout, ended.stderr);
}

/// A run of bytes of the image.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// Where a file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// Its record in `$MFT`.
    pub record: Span,
    /// Its contents, in order, whole clusters; of a small file that is in its record, those bytes.
    pub spans: Vec<Span>,
}

/// What lies where on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Size of the image.
    pub image_bytes: u64,
    /// The files by name, the file system's own too.
    pub files: BTreeMap<String, Laid>,
    /// The index of the root.
    pub root: Vec<Span>,
}

impl Layout {
    /// Reads a volume.
    ///
    /// # Panics
    /// When there is none in that file, or it is damaged, or a file lies in more pieces than one record can name.
    #[track_caller]
    pub fn read(image: &Path) -> Self {
        let read = || -> Result<Self, NtfsError> {
            let mut disk = BufReader::new(File::open(image)?);
            let ntfs = Ntfs::new(&mut disk)?;
            let mft = ntfs.file(&mut disk, 0)?;
            let mft_bytes: u64 = spans(&mft, &mut disk, NtfsAttributeType::Data)?.iter().map(|span| span.bytes).sum();
            let root = spans(&ntfs.root_directory(&mut disk)?, &mut disk, NtfsAttributeType::IndexAllocation)?;
            let mut layout = Self { image_bytes: std::fs::metadata(image)?.len(), files: BTreeMap::new(), root };
            let record_bytes = u64::from(ntfs.file_record_size());
            for number in 0..mft_bytes / record_bytes {
                let file = match ntfs.file(&mut disk, number) {
                    Ok(file) if file.flags().contains(NtfsFileFlags::IN_USE) => file,
                    // Records that nobody has used yet have no signature.
                    Ok(_) | Err(NtfsError::InvalidFileSignature { .. }) => continue,
                    Err(error) => return Err(error),
                };
                let Some(name) = file.name(&mut disk, None, None).transpose()? else { continue };
                let name = name.name().to_string_lossy();
                let offset = file.position().value().map_or(0, |position| position.get());
                let record = Span { offset, bytes: record_bytes };
                // The file system keeps sparse and odd things in its own.
                let spans = match spans(&file, &mut disk, NtfsAttributeType::Data) {
                    Err(_) if number < OWN_RECORDS => continue,
                    found => found?,
                };
                layout.files.insert(name, Laid { record, spans });
            }
            Ok(layout)
        };
        read().unwrap_or_else(|error| panic!("{} is no NTFS volume that can be used: {error}", image.display()))
    }

    /// The spans of a file.
    ///
    /// # Panics
    /// When there is no such file.
    #[track_caller]
    pub fn of(&self, name: &str) -> &Laid {
        self.files.get(name).unwrap_or_else(|| panic!("no {name} on the volume"))
    }
}

/// Where the unnamed value of this kind lies, or that of an index; nothing if the file has none.
fn spans<T: Read + Seek>(file: &NtfsFile<'_>, disk: &mut T, kind: NtfsAttributeType) -> Result<Vec<Span>, NtfsError> {
    let mut attributes = file.attributes();
    while let Some(item) = attributes.next(disk) {
        let item = item?;
        let attribute = item.to_attribute()?;
        let is_stream = kind == NtfsAttributeType::Data && !attribute.name()?.is_empty();
        if attribute.ty()? != kind || is_stream {
            continue;
        }
        let whole = match attribute.value(disk)? {
            NtfsAttributeValue::NonResident(value) => {
                let place = |run: Result<ntfs::attribute_value::NtfsDataRun, NtfsError>| {
                    run.map(|run| (run.data_position().value().map_or(0, |at| at.get()), run.allocated_size()))
                };
                value.data_runs().map(place).collect::<Result<Vec<_>, _>>()?
            }
            value => vec![(value.data_position().value().map_or(0, |at| at.get()), value.len())],
        };
        return Ok(whole.into_iter().map(|(offset, bytes)| Span { offset, bytes }).collect());
    }
    Ok(Vec::new())
}
