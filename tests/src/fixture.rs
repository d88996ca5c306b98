//! A packed image of a test's own, and the seeds and nodes that it starts of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use swarmdisk_host::report::AttachReport;
use swarmdisk_host::status::{ImageStatus, Status};
use tempfile::TempDir;

use crate::images::{folder, write_mixed, write_random};
use crate::process::{Process, Swarmdisk};

/// How long something may take that happens soon; it bounds a failure, and decides nothing else.
const SOON: Duration = Duration::from_secs(30);

/// An image and its `.swarm` file, in a folder that goes with it.
#[derive(Debug)]
pub struct Fixture {
    /// The command.
    pub swarmdisk: Swarmdisk,
    /// The image, raw.
    pub raw: PathBuf,
    /// The image, packed.
    pub swarm: PathBuf,
    /// Its id.
    pub id: String,
    folder: TempDir,
}

impl Fixture {
    /// Packs a mixed image of this size.
    #[track_caller]
    pub fn mixed(bytes: u64, seed: u64) -> Self {
        Self::of(|raw| write_mixed(raw, bytes, seed))
    }

    /// Packs an image of this size in which nothing compresses.
    #[track_caller]
    pub fn random(bytes: usize, seed: u64) -> Self {
        Self::of(|raw| write_random(raw, bytes, seed))
    }

    /// Packs the image that `write` writes.
    #[track_caller]
    pub fn of(write: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        let (raw, swarm) = (folder.path().join("disk.raw"), folder.path().join("disk.swarm"));
        write(&raw);
        let swarmdisk = Swarmdisk::find();
        let id = swarmdisk.succeed([Path::new("pack"), &raw, &swarm]).trim().to_owned();
        Self { swarmdisk, raw, swarm, id, folder }
    }

    /// A path in the fixture's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// Starts a seed of the image; gives its reference.
    #[track_caller]
    pub fn seed(&self, arguments: &[&str]) -> (Process, String) {
        let file = text(&self.swarm);
        self.swarmdisk.seed([&[file.as_str()], arguments].concat())
    }

    /// Attaches over TCP with this cache; gives the disk's URI.
    #[track_caller]
    pub fn attach(&self, target: &str, cache: &str, arguments: &[&str]) -> (Process, String) {
        let cache = self.text(cache);
        let own = [target, "--nbd", "127.0.0.1:0", "--cache", &cache];
        self.swarmdisk.attach([&own[..], arguments].concat())
    }

    /// Where the image is in a cache.
    pub fn cached(&self, cache: &str) -> PathBuf {
        self.path(cache).join(format!("{}.swarm", self.id))
    }

    /// What `status --json` says of a process.
    ///
    /// # Panics
    /// When it says nothing of it for a while.
    #[track_caller]
    pub fn status(&self, process: &Process) -> Status {
        let until = Instant::now() + SOON;
        loop {
            let all = self.swarmdisk.succeed(["status", "--json"]);
            let all: Vec<Status> = serde_json::from_str(&all).expect("it is what it was written from");
            if let Some(status) = all.into_iter().find(|status| status.pid == process.pid()) {
                return status;
            }
            assert!(Instant::now() < until, "no status of process {}", process.pid());
        }
    }

    /// The same of the process's only image.
    #[track_caller]
    pub fn image_status(&self, process: &Process) -> ImageStatus {
        self.status(process).images.remove(0)
    }
}

/// The report at this path.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn read_report(path: &Path) -> AttachReport {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path as text.
///
/// # Panics
/// When it is none.
pub fn text(path: &Path) -> String {
    path.to_str().expect("the path is text").to_owned()
}

/// Waits until it is so.
///
/// # Panics
/// When that takes too long.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
