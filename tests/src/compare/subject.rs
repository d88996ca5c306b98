//! What is booted: an image, a recorded boot of it that is replayed, and another that the profile is built from.
//!
//! *What is real*: with [`Subject::appliance`] all of it; with [`Subject::made_up`] the recorded reads of a server whose
//! image's contents are made up. *Invariants*: what took long is kept beside the appliance and made anew with it; a file
//! that is there is whole. *Bounds*: 1 GB there, or 600 MB of the temporary folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::statvfs;
use swarmdisk_common::trace::{Op, Trace};
use swarmdisk_core::geometry::CHUNK_SHIFT_DEFAULT;
use swarmdisk_host::demo::image;
use swarmdisk_host::store::Store;
use tempfile::TempDir;

use super::Setup;
use super::session::{Failure, Span};
use super::ways::Way;
use crate::appliance::Appliance;
use crate::fixture::text;
use crate::images::folder;
use crate::process::{Process, Swarmdisk};
use crate::qemu::{Boot, Machine, Qemu};
use crate::skip::Missing;

const BOOT_DEADLINE: Duration = Duration::from_secs(600);

/// An image with all that a comparison needs of it.
#[derive(Debug)]
pub struct Subject {
    /// What it is, for people.
    pub what: String,
    /// The command.
    pub swarmdisk: Swarmdisk,
    /// The raw image.
    pub raw: PathBuf,
    /// The packed one.
    pub swarm: PathBuf,
    /// The boot that is replayed.
    pub trace: PathBuf,
    /// Built from the other boot.
    pub profile: PathBuf,
    /// Where what is made of it lies: qcow2, torrents.
    pub folder: PathBuf,
    /// Size of the disk.
    pub image_bytes: u64,
    /// What of the raw file takes room.
    pub allocated_bytes: u64,
    /// Size of the packed file.
    pub packed_bytes: u64,
    /// What the guest reads.
    pub guest_bytes: u64,
    /// In so many reads.
    pub reads: u64,
    /// Payloads of the chunks that the boot touches: what a node cannot do without.
    pub working_set_bytes: u64,
    /// Goes with it.
    temporary: Option<TempDir>,
}

impl Subject {
    /// The Debian server that the boot tests start, and two boots of it; the first time it is built, packed, booted twice.
    ///
    /// # Errors
    /// When it has to be built or booted and cannot be; `told` hears of what takes long.
    pub fn appliance(told: &dyn Fn(&str), cancel: &AtomicBool) -> Result<Self, Failure> {
        let appliance = Appliance::get()?;
        let kept = kept_folder(&appliance)?;
        let swarmdisk = Swarmdisk::find();
        let [swarm, replayed, profiled] = ["disk.swarm", "boot-1.trace", "boot-2.trace"].map(|name| kept.join(name));
        let span = Span::new(BOOT_DEADLINE * 3, cancel);
        if !swarm.exists() {
            told("packing the appliance");
            span.succeed(swarmdisk.command(["pack", &text(&appliance.disk), &text(&swarm)]))?;
        }
        for (number, trace) in [(1, &replayed), (2, &profiled)] {
            if !trace.exists() {
                told(&format!("recording boot {number} of 2 of the appliance; it is kept for the next time"));
                record(&appliance, &swarmdisk, &swarm, trace, &span)?;
            }
        }
        let profile = kept.join("boot.profile");
        if !profile.exists() {
            let build = ["profile", "build", &text(&profiled), "--image", &text(&swarm), "-o", &text(&profile)];
            span.succeed(swarmdisk.command(build))?;
        }
        let what = "a Debian server (nginx, PostgreSQL), built and booted here; another boot of it made the profile";
        let files = Files { raw: appliance.disk, swarm, trace: replayed, profile, folder: kept };
        Self::of(what.to_owned(), swarmdisk, files, None)
    }

    /// An image for recorded boots of another, at most as large.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn made_up(image_bytes: u64, replayed: &Path, profiled: &Path, cancel: &AtomicBool) -> Result<Self, Failure> {
        let temporary = folder();
        let [first, second] = [read_trace(replayed)?, read_trace(profiled)?];
        let made = image::make(temporary.path(), image_bytes, &first, second, cancel);
        let image = made.map_err(|error| match error {
            image::MakeError::Cancelled => Failure::Interrupted,
            other => Failure::Program { program: "the made-up image".into(), said: other.to_string() },
        })?;
        let what = "made up: the recorded reads of a Debian server, on contents that compress as real ones do; data lies \
                    where boots read and in three times as many other places";
        let files = Files {
            raw: image.raw,
            swarm: image.swarm,
            trace: replayed.to_owned(),
            profile: image.profile,
            folder: temporary.path().to_owned(),
        };
        Self::of(what.to_owned(), Swarmdisk::find(), files, Some(temporary))
    }

    fn of(what: String, swarmdisk: Swarmdisk, files: Files, temporary: Option<TempDir>) -> Result<Self, Failure> {
        let Files { raw, swarm, trace, profile, folder } = files;
        let recorded = read_trace(&trace)?;
        let reads = || recorded.requests.iter().filter(|request| request.op == Op::Read);
        let meta = fs::metadata(&raw).map_err(Failure::file(&raw))?;
        Ok(Self {
            what,
            swarmdisk,
            image_bytes: meta.len(),
            allocated_bytes: meta.blocks() * 512,
            packed_bytes: fs::metadata(&swarm).map_err(Failure::file(&swarm))?.len(),
            guest_bytes: reads().map(|read| u64::from(read.bytes)).sum(),
            reads: reads().count() as u64,
            working_set_bytes: working_set(&swarm, &recorded)?,
            raw,
            swarm,
            trace,
            profile,
            folder,
            temporary,
        })
    }

    /// Whether what it is made of goes with it.
    pub fn is_made_up(&self) -> bool {
        self.temporary.is_some()
    }

    /// The image as compressed qcow2.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn qcow2(&self, qemu_img: &Path, span: &Span<'_>) -> Result<PathBuf, Failure> {
        let (whole, part) = (self.folder.join("disk.qcow2"), self.folder.join("disk.qcow2.part"));
        if !whole.exists() {
            let mut command = std::process::Command::new(qemu_img);
            command.args(["convert", "-f", "raw", "-O", "qcow2", "-c"]).args([&self.raw, &part]);
            span.succeed(command)?;
            fs::rename(&part, &whole).map_err(Failure::file(&whole))?;
        }
        Ok(whole)
    }

    /// Whether the temporary folder has room for what a way's nodes write.
    ///
    /// # Errors
    /// How much it wants.
    pub fn check_room(&self, way: Way, setup: &Setup) -> Result<(), Missing> {
        let each = match way {
            // A torrent has no holes.
            _ if way.is_raw_download() => self.image_bytes,
            _ if way.is_qcow2() || way.is_torrent_on_demand() => self.allocated_bytes,
            _ => 0,
        };
        let (wanted, folder) = (each * setup.nodes as u64, std::env::temp_dir());
        let free = statvfs(&folder).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize);
        if free > wanted {
            return Ok(());
        }
        Err(Missing {
            what: format!("{:.0} GB are not free in {}", wanted as f64 / 1e9, folder.display()),
            remedy: "set TMPDIR to where they are".into(),
        })
    }
}

struct Files {
    raw: PathBuf,
    swarm: PathBuf,
    trace: PathBuf,
    profile: PathBuf,
    folder: PathBuf,
}

/// Where what is made of this very appliance is kept; what was made of an earlier one is removed.
fn kept_folder(appliance: &Appliance) -> Result<PathBuf, Failure> {
    let meta = fs::metadata(&appliance.disk).map_err(Failure::file(&appliance.disk))?;
    let cache = appliance.disk.ancestors().nth(2).unwrap_or(Path::new("/"));
    let all = cache.join("compare");
    let own = all.join(format!("{}-{}", meta.mtime(), meta.mtime_nsec()));
    for other in fs::read_dir(&all).into_iter().flatten().flatten().filter(|entry| entry.path() != own) {
        fs::remove_dir_all(other.path()).ok();
    }
    fs::create_dir_all(&own).map_err(Failure::file(&own))?;
    Ok(own)
}

/// Boots the appliance from the packed image and records what it asks for.
fn record(
    appliance: &Appliance,
    swarmdisk: &Swarmdisk,
    swarm: &Path,
    trace: &Path,
    span: &Span<'_>,
) -> Result<(), Failure> {
    let qemu = Qemu::find()?;
    let work = folder();
    let (socket, part) = (text(&work.path().join("nbd.sock")), trace.with_extension("part"));
    let nbd = format!("unix:{socket}");
    fs::remove_file(&part).ok();
    let attach = Process::start(swarmdisk.command(["attach", &text(swarm), "--nbd", &nbd, "--record", &text(&part)]));
    let ready = span.line(&attach, "ready ")?;
    let uri = ready.strip_prefix("ready ").unwrap_or(&ready);
    let running = qemu.start(&Machine::new(uri, Boot::Direct(appliance))).map_err(Failure::file(swarm))?;
    span.wait_for(|| match running.wait_for_line("BOOT-DONE", Duration::from_millis(100)) {
        Ok(_) => Ok(Some(())),
        Err(crate::qemu::BootError::Deadline { .. }) => Ok(None),
        Err(other) => Err(Failure::Program { program: "QEMU".into(), said: other.to_string() }),
    })?;
    drop(running);
    attach.terminate();
    span.end(attach).map_err(|(failure, _)| failure)?;
    fs::rename(&part, trace).map_err(Failure::file(trace))
}

fn read_trace(path: &Path) -> Result<Trace, Failure> {
    let file = File::open(path).map_err(Failure::file(path))?;
    Trace::parse(BufReader::new(file))
        .map_err(|error| Failure::Program { program: path.display().to_string(), said: error.to_string() })
}

/// Payloads of all chunks that a boot touches.
fn working_set(swarm: &Path, trace: &Trace) -> Result<u64, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::Program {
        program: swarm.display().to_string(),
        said: error.to_string(),
    };
    let store = Store::open_complete(swarm).map_err(|error| fail(&error))?;
    let reads = trace.requests.iter().filter(|request| request.op == Op::Read);
    let touched: BTreeSet<u32> = reads
        .flat_map(|read| {
            let last = read.offset + u64::from(read.bytes).saturating_sub(1);
            (read.offset >> CHUNK_SHIFT_DEFAULT) as u32..=(last >> CHUNK_SHIFT_DEFAULT) as u32
        })
        .collect();
    let geometry = store.geometry();
    let mut bytes = 0;
    for chunk in touched.into_iter().filter_map(|index| geometry.chunk(index)) {
        bytes += u64::from(store.payload_bytes(geometry.chunk_piece(chunk)).map_err(|error| fail(&error))?);
    }
    Ok(bytes)
}
