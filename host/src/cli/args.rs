//! The arguments of each command.

use crate::iscsi::{IscsiListen, PhysicalBlocks};
use crate::reference::is_host_and_port;
use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use swarmdisk_common::policies::Prefetch;
use swarmdisk_common::units::{parse_rate, parse_size, parse_time};
use swarmdisk_core::engine::Fill;
use swarmdisk_core::locality::Locality;

/// Boots any VM from a swarm: a block device whose bytes come from peers, in the order the guest will need them.
#[derive(Debug, Parser)]
#[command(name = "swarmdisk", version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pack a disk image (raw, qcow2, vmdk, vhdx) into a .swarm file
    Pack(Pack),
    /// Serve .swarm files to the swarm; prints a reference (REF) a line
    Seed(Seed),
    /// Attach an image as a disk; prints `ready URI` once it can be read
    Attach(Attach),
    /// Attach an image, run a command on it, detach
    Run(Run),
    /// Read a disk as a recorded guest did, and say how long it took
    Replay(Replay),
    /// Build a profile from recorded traces, or show one
    Profile(Profile),
    /// Show the nodes and seeds of this user on this machine
    Status(Status),
    /// Verify every byte of .swarm files or of a cache
    Check(Check),
    /// Show what was written over an image, or pack it as a new image
    Overlay(Overlay),
    /// Show in a minute what the swarm gains: one image, several nodes, limited links
    Demo(Demo),
    /// Seed and attach what a file lists, as a service of Windows or under another system's service manager
    Service(super::service::Service),
}

/// Arguments of `pack`.
#[derive(Debug, ClapArgs)]
pub struct Pack {
    /// The disk image: raw, qcow2, vmdk or vhdx (told apart by content)
    pub image: PathBuf,
    /// The file to make; it appears when all is done
    #[arg(value_name = "OUT.swarm")]
    pub out: PathBuf,
    /// Size of a chunk: a power of two from 16K to 1M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = chunk_shift)]
    pub chunk_size: u8,
    /// How chunks are compressed
    #[arg(long, value_enum, default_value_t = CodecName::Zstd)]
    pub codec: CodecName,
    /// zstd's level, 1 to 22
    #[arg(long, value_name = "N", default_value_t = crate::pack::LEVEL_DEFAULT, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Codecs by name.
#[derive(Debug, Copy, Clone, ValueEnum)]
pub enum CodecName {
    Zstd,
    None,
}

/// Arguments of `seed`.
#[derive(Debug, ClapArgs)]
pub struct Seed {
    /// The files to serve
    #[arg(value_name = "FILE.swarm", required = true)]
    pub files: Vec<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The host name or address to print in references, if it is not the one listened on
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// A profile to offer, of one of the files; may be given several times
    #[arg(long, value_name = "FILE")]
    pub profile: Vec<PathBuf>,
    /// Learn from what guests touch: nodes tell, and the profile that is offered is made of it (and of --profile)
    #[arg(long)]
    pub learn: bool,
    /// Send at most so much a second, as in 100mbit or 12MB
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub limit_up: Option<u64>,
    /// Where this machine stands, coarse to fine and as far as it has names: near nodes go before the rest
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = super::locality::parse)]
    pub locality: Option<Locality>,
    /// Let everybody who reaches the address join, also from other machines
    #[arg(long)]
    pub open: bool,
    /// Serve the status as JSON over HTTP at this address
    #[arg(long, value_name = "ADDR")]
    pub status: Option<SocketAddr>,
    /// Print each line as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `attach`.
#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("export").required(true).args(["nbd", "ublk", "vhost_user", "iscsi", "wnbd"])))]
pub struct Attach {
    /// What to attach: swarm://HOST:PORT/IMAGE-ID, or a complete FILE.swarm
    #[arg(value_name = "REF|FILE.swarm")]
    pub target: String,
    /// Serve NBD at HOST:PORT (port 0: any that is free) or unix:PATH
    #[arg(long, value_name = "ADDR|unix:PATH")]
    pub nbd: Option<String>,
    #[command(flatten)]
    pub iscsi: IscsiOptions,
    /// Have the initiator of this machine attach the disk, say which it is, and detach it at the end (Windows: PowerShell, as
    /// Administrator; Linux: iscsiadm, as root)
    #[arg(long, requires = "iscsi", conflicts_with_all = ["nbd", "ublk", "vhost_user", "wnbd"])]
    pub mount: bool,
    #[command(flatten)]
    pub device: DeviceOptions,
    #[command(flatten)]
    pub options: AttachOptions,
}

/// Arguments of `run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// What to attach: swarm://HOST:PORT/IMAGE-ID, or a complete FILE.swarm
    #[arg(value_name = "REF|FILE.swarm")]
    pub target: String,
    /// Serve NBD at HOST:PORT or unix:PATH; by default at a Unix socket of its own (Windows: at a port of its own)
    #[arg(long, value_name = "ADDR|unix:PATH", conflicts_with_all = ["ublk", "vhost_user", "iscsi", "wnbd"])]
    pub nbd: Option<String>,
    #[command(flatten)]
    pub iscsi: IscsiOptions,
    #[command(flatten)]
    pub device: DeviceOptions,
    #[command(flatten)]
    pub options: AttachOptions,
    /// The command; `{disk}` in it becomes the disk's URI or path (of --vhost-user see --help)
    ///
    /// With --vhost-user it becomes vhost-user:PATH, which is no drive of QEMU's: give the command PATH itself instead (QEMU:
    /// -chardev socket,id=c0,path=PATH -device vhost-user-blk-pci,chardev=c0).
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// An iSCSI target, instead of NBD.
#[derive(Debug, ClapArgs)]
pub struct IscsiOptions {
    /// Serve an iSCSI target at HOST[:PORT] (port 0: any that is free) [default port: 3260]
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["ublk", "vhost_user"])]
    pub iscsi: Option<IscsiListen>,
    /// Let in only initiators that prove by CHAP that they know a secret: the file's first line is NAME SECRET, its second,
    /// if any, those of the target for initiators that ask for a proof in turn; secrets have 12 to 255 bytes
    #[arg(long, value_name = "FILE", requires = "iscsi", conflicts_with_all = ["nbd", "ublk", "vhost_user", "wnbd"])]
    pub chap_file: Option<PathBuf>,
    /// Tell initiators that physical blocks have so many bytes: some want 512, which costs writes that are not aligned
    #[arg(long, value_name = "BYTES", requires = "iscsi", default_value = "4096", value_parser = physical_blocks,
        conflicts_with_all = ["nbd", "ublk", "vhost_user", "wnbd"])]
    pub physical_block: PhysicalBlocks,
}

fn physical_blocks(text: &str) -> Result<PhysicalBlocks, &'static str> {
    match text {
        "512" => Ok(PhysicalBlocks::Of512),
        "4096" => Ok(PhysicalBlocks::Of4096),
        _ => Err("write 512 or 4096"),
    }
}

/// What only one operating system has, instead of a server.
#[derive(Debug, ClapArgs)]
pub struct DeviceOptions {
    /// Make /dev/ublkbN, a block device of this machine; N is one that is free, unless given (Linux 6.5, root)
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true)]
    pub ublk: Option<Option<u32>>,
    /// Serve a virtio-blk device at a Unix socket, for QEMU, Cloud Hypervisor and others that speak vhost-user (Linux)
    #[arg(long, value_name = "PATH", conflicts_with = "ublk")]
    pub vhost_user: Option<PathBuf>,
    /// Make a drive of this machine, PhysicalDriveN, through the driver WNBD (Windows 10 1809, Administrator)
    #[arg(long, conflicts_with_all = ["ublk", "vhost_user", "iscsi"])]
    pub wnbd: bool,
    /// Take back the device of this image, and of this overlay, whose node has died; its guests' requests wait for that
    #[arg(long, requires = "ublk", conflicts_with_all = ["nbd", "vhost_user", "iscsi", "wnbd"])]
    pub recover: bool,
}

/// What `attach` and `run` have in common.
#[derive(Debug, ClapArgs)]
pub struct AttachOptions {
    /// Another node or seed to begin with; may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub peer: Vec<String>,
    /// Where to listen for other nodes
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The address under which others reach this node, if it is not the one they see
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Where fetched chunks are kept [default: the user's cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Keep the cache's directory within so many bytes of chunks; the least valuable go [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub cache_size: Option<u64>,
    /// Let guests write: what they write is kept in FILE, made if missing, or in at most SIZE of memory until the end
    #[arg(long, value_name = "FILE|memory:SIZE", value_parser = overlay_place)]
    pub overlay: Option<OverlayPlace>,
    /// A profile to follow, instead of one that the swarm offers
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// What to fetch before the guest asks for it
    #[arg(long, value_enum, value_name = "HOW", default_value_t = PrefetchName::Auto)]
    pub prefetch: PrefetchName,
    /// Tell nobody, neither nodes nor a seed that learns, which chunks the guest touches, and when
    #[arg(long)]
    pub no_teach: bool,
    /// Fetch the whole image in the background: off, auto (once 30 % of it has been read, or after 10 min), or a RATE
    #[arg(long, value_name = "off|auto|RATE", default_value = "off", value_parser = fill)]
    pub fill: Fill,
    /// Send at most so much a second, as in 100mbit or 12MB
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub limit_up: Option<u64>,
    /// Receive at most so much a second
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub limit_down: Option<u64>,
    /// Where this machine stands, coarse to fine and as far as it has names: near nodes go before the rest
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = super::locality::parse)]
    pub locality: Option<Locality>,
    /// How long a guest's read waits for the swarm before it fails
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    pub io_timeout: Duration,
    /// Record the guests' requests as a trace
    #[arg(long, value_name = "TRACE")]
    pub record: Option<PathBuf>,
    /// Record what the engine is told and answers, for `swarmdisk-sim replay`
    #[arg(long, value_name = "FILE")]
    pub record_engine: Option<PathBuf>,
    /// Write a report (JSON) at the end
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Serve the status as JSON over HTTP at this address
    #[arg(long, value_name = "ADDR")]
    pub status: Option<SocketAddr>,
    /// Let everybody who reaches the addresses join or read, also from other machines
    #[arg(long)]
    pub open: bool,
}

/// Where what guests write is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverlayPlace {
    /// In this file.
    File(PathBuf),
    /// In memory, in at most so many bytes.
    Memory(u64),
}

/// Prefetch modes by name.
#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub enum PrefetchName {
    /// Nothing
    Off,
    /// Ahead of sequential readers
    Sequential,
    /// What the profile says
    Profile,
    /// What other nodes' guests touch, and ahead of sequential readers
    Live,
    /// All of these
    Auto,
}

impl From<PrefetchName> for Prefetch {
    fn from(name: PrefetchName) -> Self {
        match name {
            PrefetchName::Off => Self::Off,
            PrefetchName::Sequential => Self::Sequential,
            PrefetchName::Profile => Self::Profile,
            PrefetchName::Live => Self::Live,
            PrefetchName::Auto => Self::Auto,
        }
    }
}

/// Arguments of `replay`.
#[derive(Debug, ClapArgs)]
pub struct Replay {
    /// The recorded trace
    pub trace: PathBuf,
    /// The disk: nbd://HOST:PORT, nbd+unix:///?socket=PATH, or a file or device
    #[arg(long, value_name = "URI|PATH")]
    pub disk: String,
    /// Divide the guest's think time by this
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub speed: f64,
    /// Replay writes too, of made-up contents (the disk must be writable)
    #[arg(long)]
    pub writes: bool,
    /// Compare every byte read with this raw image, or with what was written before
    #[arg(long, value_name = "IMAGE")]
    pub verify: Option<PathBuf>,
    /// Write the result as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `profile`.
#[derive(Debug, ClapArgs)]
pub struct Profile {
    #[command(subcommand)]
    pub command: ProfileCommand,
}

#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// Merge traces of one image into a profile
    Build {
        /// Traces that `attach --record` wrote
        #[arg(value_name = "TRACE", required = true)]
        traces: Vec<PathBuf>,
        /// The image that they are of
        #[arg(long, value_name = "FILE.swarm")]
        image: PathBuf,
        /// The profile to write
        #[arg(short, long, value_name = "OUT")]
        out: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a profile says
    Show {
        /// The profile
        file: PathBuf,
        /// Print it as JSON, with all its entries
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `overlay`.
#[derive(Debug, ClapArgs)]
pub struct Overlay {
    #[command(subcommand)]
    pub command: OverlayCommand,
}

#[derive(Debug, Subcommand)]
pub enum OverlayCommand {
    /// Show what an overlay holds, as it was last flushed
    Info {
        /// The overlay
        file: PathBuf,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Pack an image and its overlay as a new image; chunks that did not change are the same in both
    Commit {
        /// The file to make; it appears when all is done
        #[arg(value_name = "OUT.swarm")]
        out: PathBuf,
        /// The overlay; it stays as it is
        #[arg(long, value_name = "FILE")]
        overlay: PathBuf,
        /// The image that it lies over
        #[arg(value_name = "IMAGE.swarm")]
        image: PathBuf,
        /// zstd's level for chunks that changed, 1 to 22
        #[arg(long, value_name = "N", default_value_t = crate::pack::LEVEL_DEFAULT, value_parser = clap::value_parser!(i32).range(1..=22))]
        level: i32,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `status`.
#[derive(Debug, ClapArgs)]
pub struct Status {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `check`.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// The files to verify
    #[arg(value_name = "FILE.swarm", required_unless_present = "cache", conflicts_with = "cache")]
    pub files: Vec<PathBuf>,
    /// Verify all caches in this directory instead
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Forget damaged pieces of a cache, so that they are fetched again
    #[arg(long, requires = "cache")]
    pub repair: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `demo`.
#[derive(Debug, ClapArgs)]
pub struct Demo {
    /// Build a Debian appliance and boot it in QEMU from the swarm
    #[arg(long)]
    pub vm: bool,
    /// How many nodes start at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Each node's and the server's link, up and down
    #[arg(long, value_name = "RATE", default_value = "100mbit", value_parser = parse_rate)]
    pub link: u64,
    /// Divide the recorded guest's think time by this
    #[arg(long, value_name = "X", default_value_t = 10.0)]
    pub speed: f64,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
}

fn chunk_shift(text: &str) -> Result<u8, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    let fits = bytes.is_power_of_two() && (16 << 10..=1 << 20).contains(&bytes);
    if fits { Ok(bytes.trailing_zeros() as u8) } else { Err("a chunk is a power of two from 16K to 1M".into()) }
}

fn host_and_port(text: &str) -> Result<String, String> {
    if is_host_and_port(text) { Ok(text.to_owned()) } else { Err("write HOST:PORT".into()) }
}

fn overlay_place(text: &str) -> Result<OverlayPlace, String> {
    match text.strip_prefix("memory:") {
        None if text.is_empty() => Err("write a file's name, or memory:SIZE".into()),
        None => Ok(OverlayPlace::File(text.into())),
        Some(size) => match parse_size(size) {
            Ok(bytes) if bytes >= 4096 => Ok(OverlayPlace::Memory(bytes)),
            Ok(_) => Err("an overlay in memory takes 4K or more".into()),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn fill(text: &str) -> Result<Fill, String> {
    match text {
        "off" => Ok(Fill::Off),
        "auto" => Ok(Fill::Auto),
        rate => parse_rate(rate).map(Fill::Rate).map_err(|error| format!("{error}; or off, or auto")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn chunk_sizes_and_fills_are_read() {
        assert_eq!(chunk_shift("64K"), Ok(16));
        assert!(chunk_shift("65K").is_err() && chunk_shift("8K").is_err());
        assert_eq!(fill("12MB"), Ok(Fill::Rate(12_000_000)));
        assert!(fill("much").is_err());
        assert_eq!(overlay_place("memory:2G"), Ok(OverlayPlace::Memory(2 << 30)));
        assert_eq!(overlay_place("./memory:2G"), Ok(OverlayPlace::File("./memory:2G".into())));
        assert!(overlay_place("memory:").is_err() && overlay_place("memory:1").is_err() && overlay_place("").is_err());
    }
}
