//! The Debian server that `demo --vm` boots: found where an earlier build left it, or built from the source tree.
//!
//! *Invariants*: an appliance named by [`PLACE`] is taken as it is; otherwise the build script decides whether the one in
//! the cache is of these sources; without the sources the one in the cache is taken. The packed image is made anew when the
//! raw one is newer.

use super::family::Family;
use crate::cli::Failure;
use crate::pack::{PackOptions, pack};
use etcetera::{BaseStrategy, choose_base_strategy};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use swarmdisk_common::progress::Progress;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::task::spawn_blocking;

/// Names a folder with `disk.raw`, `vmlinuz` and `initrd.img`, to be used instead of the one in the cache.
const PLACE: &str = "SWARMDISK_APPLIANCE";
/// The folder of swarmdisk in the user's cache, if it is another than usual.
const CACHE: &str = "SWARMDISK_CACHE";

/// A machine that can be booted.
#[derive(Debug)]
pub(super) struct Appliance {
    /// The raw disk.
    pub disk: PathBuf,
    /// Its kernel.
    pub kernel: PathBuf,
    /// The kernel's initial RAM disk.
    pub initrd: PathBuf,
    /// Where the demo keeps what it makes of it.
    pub cache: PathBuf,
}

impl Appliance {
    fn in_folder(folder: &Path, cache: &Path) -> Option<Self> {
        let [disk, kernel, initrd] = ["disk.raw", "vmlinuz", "initrd.img"].map(|name| folder.join(name));
        let is_whole = [&disk, &kernel, &initrd].iter().all(|file| file.is_file());
        is_whole.then(|| Self { disk, kernel, initrd, cache: cache.join("demo-vm") })
    }

    /// The packed image: from an earlier run, or made now.
    pub async fn packed(&self) -> Result<PathBuf, Failure> {
        let (disk, out) = (self.disk.clone(), self.cache.join("appliance.swarm"));
        std::fs::create_dir_all(&self.cache)?;
        let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        if modified(&out).is_some_and(|packed| modified(&disk).is_some_and(|raw| packed > raw)) {
            return Ok(out);
        }
        static CANCEL: AtomicBool = AtomicBool::new(false);
        /// Set when the future is dropped, so that packing ends with it.
        struct CancelOnDrop;
        impl Drop for CancelOnDrop {
            fn drop(&mut self) {
                CANCEL.store(true, Relaxed);
            }
        }
        let guard = CancelOnDrop;
        let packing = spawn_blocking(move || {
            let progress = Progress::new("packing");
            pack(&PackOptions::new(&disk, &out, &CANCEL), &|done, total| progress.update(done, total)).map(|_| out)
        });
        let packed = packing.await?;
        std::mem::forget(guard);
        Ok(packed?)
    }
}

/// Finds the appliance, or builds it.
pub(super) async fn get(family: &Family) -> Result<Appliance, Failure> {
    let cache = cache()?;
    if let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) {
        return Appliance::in_folder(&place, &cache).ok_or_else(|| {
            Failure::new(format!("{PLACE}={} holds no disk.raw, vmlinuz and initrd.img", place.display()))
        });
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/appliance/build.sh");
    if !script.is_file() {
        return Appliance::in_folder(&cache.join("appliance"), &cache).ok_or_else(|| {
            Failure::new(format!(
                "there is no appliance to boot, and no source tree to build it from; run tests/appliance/build.sh of a \
                 clone as root, or set {PLACE} to a folder with disk.raw, vmlinuz and initrd.img"
            ))
        });
    }
    let folder = build(&script, family).await?;
    Appliance::in_folder(&folder, &cache).ok_or_else(|| Failure::new("the build left no appliance; run it again"))
}

/// Runs the script, which says on stderr what it does and what it lacks; at the end, on stdout, where the result is.
async fn build(script: &Path, family: &Family) -> Result<PathBuf, Failure> {
    let mut command = Command::new(script);
    let output = family.adopt(command.stdout(Stdio::piped()));
    let output = output.map_err(|error| Failure::new(format!("cannot run {}: {error}", script.display())))?;
    let mut place = String::new();
    output.ok_or_else(|| Failure::new("the build has no output"))?.read_to_string(&mut place).await?;
    if place.trim_end().is_empty() {
        return Err(Failure::new("the appliance could not be built; the lines above say what is missing"));
    }
    Ok(PathBuf::from(place.trim_end()))
}

fn cache() -> Result<PathBuf, Failure> {
    match std::env::var_os(CACHE).filter(|place| !place.is_empty()) {
        Some(place) => Ok(place.into()),
        None => Ok(choose_base_strategy()
            .map_err(|_| Failure::new(format!("there is no home directory for the cache; set {CACHE}")))?
            .cache_dir()
            .join("swarmdisk")),
    }
}

/// Looks for a program as a shell does.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
