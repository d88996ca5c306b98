//! What is to be simulated, as a TOML file says it.
//!
//! *Purpose*: one value that holds all of a run but its seed's draws; every key has a default, an unknown key or a bad
//! value is an error with file and line. `sim/README.md` lists the keys.
//! *Invariants*: a scenario that [`load`] or [`Scenario::parse`] gave is consistent: [`World`](crate::world) can be built
//! from it, unless a file that it names is wrong. *Bounds*: [`NODES_MAX`] nodes, [`SEEDS_MAX`] seeds an image.

mod file;
mod policy;
mod values;

pub use file::{ScenarioError, load, load_with};
pub use policy::{Fill, Order, Policy, Prefetch, Redirect, Selector};
pub use values::{Factor, Rate, Share, Size, Span};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most nodes of a run.
pub const NODES_MAX: u32 = 100_000;
/// Most seeds of an image.
pub const SEEDS_MAX: u32 = 1_000;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What reports call it; by default the file's name.
    pub name: String,
    /// What it shows, for people.
    pub about: String,
    /// Seeds every random choice; `--seed` goes before it.
    pub seed: u64,
    /// Virtual time after which the run ends even if guests still wait.
    pub limit: Span,
    /// How the nodes are connected.
    pub network: Network,
    /// The images; nodes of different images are swarms of their own on the same links.
    #[serde(rename = "image")]
    pub images: Vec<Image>,
    /// The nodes.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
    /// Who has all of an image.
    pub seeds: Seeds,
    /// What guests do.
    #[serde(rename = "workload")]
    pub workloads: Vec<Workload>,
    /// The profile that seeds offer.
    pub profile: Profile,
    /// When nodes start.
    pub arrivals: Arrivals,
    /// When they end.
    pub leaving: Leaving,
    /// What nodes decide by.
    pub policy: Policy,
    /// What a node's own work costs.
    pub host: Host,
    /// What goes wrong.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            seed: 1,
            limit: Span::secs(600),
            network: Network::default(),
            images: vec![Image::default()],
            groups: vec![Group::default()],
            seeds: Seeds::default(),
            workloads: vec![Workload::default()],
            profile: Profile::default(),
            arrivals: Arrivals::default(),
            leaving: Leaving::default(),
            policy: Policy::default(),
            host: Host::default(),
            faults: Vec::new(),
        }
    }
}

/// How bytes are carried.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Flows that share links max-min fairly.
    Fluid,
    /// Packets through queues: slow, for small swarms.
    Packet,
}

/// The network between hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// The model.
    pub model: Model,
    /// Round trip within a rack.
    pub rack_rtt: Span,
    /// Round trip between racks of a zone.
    pub zone_rtt: Span,
    /// Round trip between zones.
    pub world_rtt: Span,
    /// What a rack can send, and receive; none: no limit.
    pub rack_uplink: Option<Rate>,
    /// The same of a zone.
    pub zone_uplink: Option<Rate>,
    /// Packets lost at random.
    pub loss: Share,
    /// How much of a link's rate is TCP payload: the rest are headers and acknowledgements.
    pub payload_share: Share,
    /// Whether connections begin slowly.
    pub slow_start: bool,
    /// Largest window of a connection.
    pub window: Size,
    /// What a socket takes beyond what is on the wire; nothing where hosts count what has been acknowledged, as ours do.
    pub socket: Size,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            model: Model::Fluid,
            rack_rtt: Span::micros(200),
            zone_rtt: Span::micros(500),
            world_rtt: Span::millis(40),
            rack_uplink: None,
            zone_uplink: None,
            loss: Share(0),
            // 1,448 of 1,514 bytes, less one acknowledgement of 66 bytes for two packets the other way.
            payload_share: Share(935_000),
            slow_start: true,
            window: Size(4 << 20),
            socket: Size(0),
        }
    }
}

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// Its name, for groups.
    pub name: String,
    /// Its size.
    pub size: Size,
    /// Size of a chunk: a power of two from 16K to 1M.
    pub chunk: Size,
    /// A packed image, whose sizes are taken instead; relative to the scenario.
    pub swarm: Option<PathBuf>,
    /// Payloads are spread evenly between these.
    pub payload_min: Size,
    /// See `payload_min`.
    pub payload_max: Size,
    /// Chunks that are all zero, at random.
    pub zero: Share,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            name: "image".into(),
            size: Size(3 << 30),
            chunk: Size(64 << 10),
            swarm: None,
            payload_min: Size(12 << 10),
            payload_max: Size(36 << 10),
            zero: Share(0),
        }
    }
}

/// Nodes that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Its name, in reports.
    pub name: String,
    /// How many nodes.
    pub count: u32,
    /// Racks over which they are spread, of their own.
    pub racks: u32,
    /// The zone of these racks.
    pub zone: u32,
    /// What each node can send.
    pub up: Rate,
    /// What each node can receive.
    pub down: Rate,
    /// The image, by name; none: the first.
    pub image: Option<String>,
    /// The workload, by name; none: drawn by weight.
    pub workload: Option<String>,
    /// Share of the working set that their caches hold at the start, as after an update that changed the rest.
    pub held: Share,
    /// They start later by this.
    pub delay: Span,
    /// Their policy, if not the scenario's; keys that are left out are as hosts have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            name: "nodes".into(),
            count: 8,
            racks: 1,
            zone: 0,
            up: Rate(12_500_000),
            down: Rate(12_500_000),
            image: None,
            workload: None,
            held: Share(0),
            delay: Span(0),
            policy: None,
        }
    }
}

/// Seeds: hosts that have all of each image. They stand in the first group's first rack unless `apart`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Seeds {
    /// How many.
    pub count: u32,
    /// What each can send.
    pub up: Rate,
    /// What each can receive.
    pub down: Rate,
    /// Whether they stand in a rack and zone of their own: far from all nodes.
    pub apart: bool,
    /// Links that each takes at a time.
    pub links: u16,
    /// Bytes that each hands over before it waits for them to leave; small when its rate is limited.
    pub unsent: Size,
    /// Nodes that each serves at a time beside one more, as BitTorrent's seeds do; none: all that ask.
    pub unchoked: Option<u16>,
    /// For how long each of these is served while others wait; the one more for three times as long.
    pub unchoked_for: Span,
}

impl Default for Seeds {
    fn default() -> Self {
        let rate = Rate(12_500_000);
        Self {
            count: 1,
            up: rate,
            down: rate,
            apart: false,
            links: 1000,
            unsent: Size(4 << 20),
            unchoked: None,
            unchoked_for: Span::secs(10),
        }
    }
}

/// What a guest does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Recorded runs, relative to the scenario; each node plays one of them. None: a made-up boot.
    pub traces: Vec<PathBuf>,
    /// How often it is drawn, against the others.
    pub weight: u32,
    /// What think times are divided by.
    pub speed: Factor,
    /// By how much each think time is longer or shorter, at random.
    pub jitter: Share,
    /// Reads that a boot leaves out, at random.
    pub skip: Share,
    /// Chunks of the made-up boot.
    pub chunks: u32,
    /// Mean think time before each of them.
    pub think: Span,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            name: "boot".into(),
            traces: Vec::new(),
            weight: 1,
            speed: Factor::ONE,
            jitter: Share(0),
            skip: Share(0),
            chunks: 1500,
            think: Span::micros(3500),
        }
    }
}

/// The profile that seeds offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Whether there is one.
    pub offered: bool,
    /// Recorded runs that it is made of; none: those that the guests play.
    pub traces: Vec<PathBuf>,
    /// Chunks that are left out of it, at random.
    pub missing: Share,
}

impl Default for Profile {
    fn default() -> Self {
        Self { offered: true, traces: Vec::new(), missing: Share(0) }
    }
}

/// How nodes come.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrivalKind {
    /// All within `within`.
    AtOnce,
    /// One `every` so often.
    Staggered,
    /// At random, one `every` so often on average.
    Poisson,
    /// `size` at once, `every` so often.
    Waves,
}

/// When nodes start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Arrivals {
    /// How.
    pub kind: ArrivalKind,
    /// Of `at-once`: spread evenly over this.
    pub within: Span,
    /// Of the others: between two nodes or waves.
    pub every: Span,
    /// Of `waves`: nodes at a time.
    pub size: u32,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { kind: ArrivalKind::AtOnce, within: Span::millis(50), every: Span::millis(200), size: 10 }
    }
}

/// When nodes end.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeavingKind {
    /// They stay until all have booted.
    Never,
    /// As soon as their guest has booted.
    AfterBoot,
    /// At random: `percent-per-minute` of the nodes, each of which comes back after `pause` with its cache.
    Churn,
}

/// See [`LeavingKind`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Leaving {
    /// How.
    pub kind: LeavingKind,
    /// Of `churn`: nodes that crash in a minute, in percent.
    pub percent_per_minute: Factor,
    /// Of `churn`: how long a node is away.
    pub pause: Span,
}

impl Default for Leaving {
    fn default() -> Self {
        Self { kind: LeavingKind::Never, percent_per_minute: Factor(10_000_000), pause: Span::secs(2) }
    }
}

/// What a node's own work takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// From the process's start until it dials the seed.
    pub start: Span,
    /// To answer a guest's read of chunks that are there.
    pub read: Span,
    /// To read a payload for an upload.
    pub load: Span,
    /// To hash a payload.
    pub verify: Span,
    /// To write a payload.
    pub store: Span,
    /// Pieces that a node's cache holds; the oldest is evicted. None: no bound.
    pub capacity: Option<u32>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            start: Span::millis(5),
            read: Span::micros(100),
            load: Span::micros(100),
            verify: Span::micros(60),
            store: Span::micros(100),
            capacity: None,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// All seeds cannot be reached.
    SeedOutage,
    /// A node's machine loses its power: it says nothing, unsynced writes may be torn; after `for` it is back.
    Crash,
    /// A node's process is killed: its links are reset, nothing is torn; after `for` it is back.
    Kill,
    /// A part of the nodes cannot reach the others.
    Partition,
    /// A node's links are slower, by `factor`.
    Slow,
    /// A node sends wrong bodies.
    Liar,
    /// Bodies of everybody are corrupted on their way, `share` of them.
    Corrupt,
    /// Connections of a node break.
    Disconnect,
    /// A node learns second addresses of those that it is linked with, and links with them twice.
    Rename,
    /// A node's clock jumps ahead by `by`.
    ClockStep,
    /// A node's disk takes no more.
    DiskFull,
    /// A node does nothing for a while.
    Pause,
    /// A seed's process is killed: it has forgotten whom it served when it is back after `for`.
    SeedKill,
    /// What is on its way to anybody is held up, `share` of it, for up to `by`, and new connections as well.
    Jitter,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// What.
    pub what: FaultKind,
    /// When, since the start of the run.
    pub at: Span,
    /// For how long; of `crash`: until it comes back. By default for good.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Which node, counted from 0, or which seed; none: drawn at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// Of `partition`: the part that is cut off; of `corrupt` and `jitter`: what is hit.
    #[serde(default = "half")]
    pub share: Share,
    /// Of `slow`: by how much.
    #[serde(default = "tenfold")]
    pub factor: Factor,
    /// Of `clock-step`: by how much; of `jitter`: for how long at most.
    #[serde(default = "ten_seconds")]
    pub by: Span,
}

fn half() -> Share {
    Share(500_000)
}

fn tenfold() -> Factor {
    Factor(10_000_000)
}

fn ten_seconds() -> Span {
    Span::secs(10)
}

impl Scenario {
    /// Number of nodes, seeds not counted.
    pub fn node_count(&self) -> u32 {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// The policy of a group's nodes.
    pub fn policy_of(&self, group: Option<usize>) -> &Policy {
        group.and_then(|group| self.groups[group].policy.as_ref()).unwrap_or(&self.policy)
    }

    /// All policies: the scenario's first.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        [&self.policy].into_iter().chain(self.groups.iter().filter_map(|group| group.policy.as_ref()))
    }
}
