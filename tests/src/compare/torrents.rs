//! Torrents of a file, the tracker that nodes find each other by, and the seed.
//!
//! *Real parts*: `mktorrent`, `opentracker` (it serves the torrents that it is told of), aria2 or libtorrent as seed. The seed
//! takes the file for whole without checking, as after a restart. *Invariants*: tracker and seed run in the server's
//! namespace, so that the server's link carries what they say.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::session::{Failure, Span};
use super::subject::Subject;
use super::ways::Tools;

/// Where the tracker listens.
pub const TRACKER_PORT: u16 = 6969;
/// Seeds and downloads by libtorrent.
const SCRIPT: &str = include_str!("../torrent.py");

/// A torrent, and the file that it is of.
#[derive(Debug, Clone)]
pub struct Torrent {
    /// The `.torrent` file.
    pub path: PathBuf,
    /// The file's folder.
    pub folder: PathBuf,
    /// The file's name there.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The torrent's hash, in hexadecimal digits.
    pub hash: String,
}

impl Torrent {
    /// Makes one, or takes the one that an earlier run has made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn of(
        file: &Path,
        piece_bytes: u32,
        tracker: Ipv4Addr,
        subject: &Subject,
        tools: &Tools,
        span: &Span<'_>,
    ) -> Result<Self, Failure> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = subject.folder.join(format!("{name}.{}K.torrent", piece_bytes >> 10));
        if !path.exists() {
            let part = path.with_extension("part");
            fs::remove_file(&part).ok();
            let announce = format!("http://{tracker}:{TRACKER_PORT}/announce");
            let mut command = Command::new(tools.find("mktorrent")?);
            command.args(["-l", &piece_bytes.trailing_zeros().to_string(), "-a", &announce, "-o"]).args([&part, file]);
            span.succeed(command)?;
            fs::rename(&part, &path).map_err(Failure::file(&path))?;
        }
        let mut show = Command::new(tools.find("aria2c")?);
        show.arg("-S").arg(&path);
        let shown = span.succeed(show)?;
        let hash = shown.lines().find_map(|line| line.strip_prefix("Info Hash: "));
        let hash = hash.ok_or_else(|| Failure::Program { program: "aria2c -S".into(), said: "no hash".into() })?;
        Ok(Self {
            hash: hash.trim().to_owned(),
            folder: file.parent().unwrap_or(Path::new("/")).to_owned(),
            bytes: fs::metadata(file).map_err(Failure::file(file))?.len(),
            path,
            name,
        })
    }

    /// The tracker of this torrent alone.
    ///
    /// # Errors
    /// When it is not there, or `work` cannot be written to.
    pub fn tracker(&self, address: Ipv4Addr, work: &Path, tools: &Tools) -> Result<Command, Failure> {
        // It shuts itself in there, as nobody, and reads the list then.
        let (folder, list) = (work.join("tracker"), "torrents.txt");
        fs::create_dir(&folder).map_err(Failure::file(&folder))?;
        fs::write(folder.join(list), format!("{}\n", self.hash)).map_err(Failure::file(&folder))?;
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(Failure::file(&folder))?;
        let (address, port) = (address.to_string(), TRACKER_PORT.to_string());
        let mut command = Command::new(tools.find("opentracker")?);
        command.args(["-i", &address, "-p", &port, "-P", &port, "-u", "nobody", "-d"]).arg(&folder).args(["-w", list]);
        Ok(command)
    }

    /// aria2 as seed.
    ///
    /// # Errors
    /// When it is not there.
    pub fn aria2_seed(&self, tools: &Tools) -> Result<Command, Failure> {
        let mut command = Command::new(tools.find("aria2c")?);
        command.args(["--quiet=true", "--seed-ratio=0.0", "--bt-seed-unverified=true", "--dir"]);
        command.arg(&self.folder).arg(&self.path);
        Ok(command)
    }

    /// libtorrent, by the script, as `seed` or to `download` into a folder.
    ///
    /// # Errors
    /// When it is not there, or `work` cannot be written to.
    pub fn libtorrent(&self, job: &str, folder: &Path, work: &Path, tools: &Tools) -> Result<Command, Failure> {
        let script = work.join("torrent.py");
        fs::write(&script, SCRIPT).map_err(Failure::file(&script))?;
        let mut command = Command::new(tools.libtorrent()?);
        command.arg(&script).arg(job).arg(&self.path).arg(folder);
        Ok(command)
    }
}
