//! The ways to give a boot its disk, and what each of them needs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::process::Swarmdisk;
use crate::skip::{Missing, find_tool};

/// Pieces of the torrents that are downloaded whole: fewer and larger ones cost less.
pub const DOWNLOAD_PIECE_BYTES: u32 = 1 << 20;
/// Debian's own: `python3-libtorrent` is for no other.
const PYTHON: &str = "/usr/bin/python3";

/// A way.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// The image is on the node's own disk: the yardstick.
    Local,
    /// One NBD server.
    Nbd,
    /// The same, with nbdkit's cache at the node.
    NbdCache,
    /// The same, with its readahead above that cache.
    NbdReadahead,
    /// Downloaded whole by aria2, raw.
    Aria2Raw,
    /// Downloaded whole by aria2, as compressed qcow2.
    Aria2Qcow2,
    /// Downloaded whole by libtorrent, as compressed qcow2.
    LibtorrentQcow2,
    /// btfs: BitTorrent as a filesystem.
    Btfs,
    /// nbdkit's torrent plugin.
    NbdkitTorrent,
    /// rqbit's HTTP streaming.
    Rqbit,
    /// The swarm, without prefetching.
    Off,
    /// The swarm, with a profile of another boot.
    Profile,
    /// The swarm, whose nodes learn from each other.
    Live,
}

impl Way {
    /// All, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Local,
        Self::Nbd,
        Self::NbdCache,
        Self::NbdReadahead,
        Self::Aria2Raw,
        Self::Aria2Qcow2,
        Self::LibtorrentQcow2,
        Self::Btfs,
        Self::NbdkitTorrent,
        Self::Rqbit,
        Self::Off,
        Self::Profile,
        Self::Live,
    ];

    /// On the command line.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// In the table.
    pub fn title(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Local => ("local", "local file"),
            Self::Nbd => ("nbd", "one NBD server"),
            Self::NbdCache => ("nbd-cache", "one NBD server, cache at the node"),
            Self::NbdReadahead => ("nbd-readahead", "one NBD server, readahead and cache"),
            Self::Aria2Raw => ("aria2-raw", "aria2, then boot: raw"),
            Self::Aria2Qcow2 => ("aria2-qcow2", "aria2, then boot: compressed qcow2"),
            Self::LibtorrentQcow2 => ("libtorrent-qcow2", "libtorrent, then boot: compressed qcow2"),
            Self::Btfs => ("btfs", "btfs"),
            Self::NbdkitTorrent => ("nbdkit-torrent", "nbdkit's torrent plugin"),
            Self::Rqbit => ("rqbit", "rqbit's HTTP streaming"),
            Self::Off => ("off", "swarm, no prefetch"),
            Self::Profile => ("profile", "swarm, profile"),
            Self::Live => ("live", "swarm, live learning"),
        }
    }

    /// Whether reads wait for pieces of a torrent.
    pub fn is_torrent_on_demand(self) -> bool {
        matches!(self, Self::Btfs | Self::NbdkitTorrent | Self::Rqbit)
    }

    /// Whether a torrent is downloaded whole before the first read.
    pub fn is_torrent_download(self) -> bool {
        self.is_raw_download() || self.is_qcow2()
    }

    /// Whether that torrent is the raw image.
    pub fn is_raw_download(self) -> bool {
        self == Self::Aria2Raw
    }

    /// Whether the image is compressed qcow2.
    pub fn is_qcow2(self) -> bool {
        matches!(self, Self::Aria2Qcow2 | Self::LibtorrentQcow2)
    }

    /// Whether one NBD server has it.
    pub fn is_nbd(self) -> bool {
        matches!(self, Self::Nbd | Self::NbdCache | Self::NbdReadahead)
    }

    /// Whether it is ours.
    pub fn is_swarm(self) -> bool {
        matches!(self, Self::Off | Self::Profile | Self::Live)
    }

    /// Whether aria2 seeds; another torrent is seeded by libtorrent, which speaks TCP and uTP.
    pub fn is_aria2(self) -> bool {
        matches!(self, Self::Aria2Raw | Self::Aria2Qcow2)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|way| way.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|way| way.name()).collect();
            format!("{text} is no way; there are {}", names.join(", "))
        })
    }
}

impl Serialize for Way {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The programs of others, found or missing.
#[derive(Debug, Clone)]
pub struct Tools {
    swarmdisk: Swarmdisk,
}

impl Tools {
    /// Looks for them when they are asked for.
    pub fn new(swarmdisk: &Swarmdisk) -> Self {
        Self { swarmdisk: swarmdisk.clone() }
    }

    /// Whether a way has all that it needs.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn check(&self, way: Way) -> Result<(), Missing> {
        if way.is_torrent_download() || way.is_torrent_on_demand() {
            ["mktorrent", "opentracker", "aria2c", "curl"]
                .into_iter()
                .try_for_each(|tool| self.find(tool).map(drop))?;
        }
        if way.is_qcow2() {
            ["qemu-img", "qemu-nbd"].into_iter().try_for_each(|tool| self.find(tool).map(drop))?;
        }
        if way.is_torrent_on_demand() || way == Way::LibtorrentQcow2 {
            self.libtorrent()?;
        }
        match way {
            Way::Nbd | Way::NbdCache | Way::NbdReadahead => self.nbdkit_has("file"),
            Way::Btfs => self.find("btfs").and_then(|_| fuse()),
            Way::NbdkitTorrent => self.find("qemu-nbd").and_then(|_| self.nbdkit_has("torrent")),
            Way::Rqbit => self.find("rqbit").and_then(|_| self.find("qemu-nbd")).map(drop),
            Way::Live => self.live(),
            _ => Ok(()),
        }
    }

    /// A program of others.
    ///
    /// # Errors
    /// What to install.
    pub fn find(&self, tool: &str) -> Result<PathBuf, Missing> {
        let package = match tool {
            "aria2c" => "aria2",
            "qemu-img" | "qemu-nbd" => "qemu-utils",
            other => other,
        };
        let remedy = match tool {
            "rqbit" => "it is not in Debian; cargo install rqbit --locked".to_owned(),
            _ => install(package),
        };
        find_tool(tool, package).map_err(|missing| Missing { remedy, ..missing })
    }

    /// The Python that has libtorrent.
    ///
    /// # Errors
    /// What to install.
    pub fn libtorrent(&self) -> Result<PathBuf, Missing> {
        if succeeds(Command::new(PYTHON).args(["-c", "import libtorrent"])) {
            return Ok(PYTHON.into());
        }
        Err(Missing { what: "no libtorrent for Python".into(), remedy: install("python3-libtorrent") })
    }

    fn nbdkit_has(&self, plugin: &str) -> Result<(), Missing> {
        if succeeds(Command::new(self.find("nbdkit")?).args(["--dump-plugin", plugin])) {
            return Ok(());
        }
        Err(Missing { what: format!("nbdkit has no {plugin} plugin"), remedy: install("nbdkit") })
    }

    fn live(&self) -> Result<(), Missing> {
        let help = self.swarmdisk.run(["attach", "--help"]).stdout;
        if help.lines().any(|line| line.trim_start().starts_with("- live")) {
            return Ok(());
        }
        Err(Missing { what: "this swarmdisk has no --prefetch live".into(), remedy: "build one that has it".into() })
    }
}

/// Whether filesystems in user space can be had.
fn fuse() -> Result<(), Missing> {
    if Path::new("/dev/fuse").exists() {
        return Ok(());
    }
    Err(Missing { what: "no /dev/fuse".into(), remedy: "use a kernel with fuse".into() })
}

fn install(package: &str) -> String {
    format!("apt-get install {package}, or run tests/setup/peers.sh")
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_have_names() {
        for way in Way::ALL {
            assert_eq!(way.name().parse(), Ok(way));
        }
        assert!("teleport".parse::<Way>().unwrap_err().contains("nbd-cache, "));
    }

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let missing = Tools::new(&Swarmdisk::find()).find("no-such-tool").unwrap_err().to_string();
        assert_eq!(missing, "no no-such-tool; apt-get install no-such-tool, or run tests/setup/peers.sh");
    }
}
