//! File systems that are soon full.

use crate::skip::Missing;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a given size; unmounted when it is dropped.
#[derive(Debug)]
pub struct TinyDisk(PathBuf);

impl TinyDisk {
    /// Mounts one of so many bytes in a new folder.
    ///
    /// # Errors
    /// Without the right to mount.
    pub fn mount(at: PathBuf, bytes: u64) -> Result<Self, Missing> {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        let missing = || Missing { what: "no right to mount".into(), remedy: "run the tests as root".into() };
        if mounted { Ok(Self(at)) } else { Err(missing()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
