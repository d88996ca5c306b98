//! Packs a Windows-like volume, boots it from a swarm, updates it, and counts the bytes.
//!
//! *What is real*: every process, the NBD sockets, each byte that a guest reads, which is compared with the image or with what
//! it has written itself. *What is made up*: the volume's files and the boots (see [the module above](super)). The nodes are
//! on one machine; their links are the rates that they hold themselves to. *Units*: bytes, microseconds.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use serde::{Deserialize, Serialize};
use swarmdisk_common::trace::{Op, Trace};
use swarmdisk_core::format::leaf::LeafEntry;
use swarmdisk_core::ids::Digest;
use swarmdisk_host::profile;
use swarmdisk_host::replay::ReplayReport;
use swarmdisk_host::report::AttachReport;
use swarmdisk_host::status::Status;
use swarmdisk_host::store::Store;

use super::boot;
use super::files::{self, MadeUp, Scale};
use super::volume::{Layout, Tools};
use crate::fixture::{read_report, text};
use crate::process::{Process, RUN_DEADLINE, Swarmdisk};
use crate::recall::Fit;

/// What guests may write.
const OVERLAY: &str = "memory:128M";

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// How large the volume is.
    pub scale: Scale,
    /// What it and the boots are made of.
    pub seed: u64,
    /// Boots; the last is replayed, the profile is of the others.
    pub boots: u64,
    /// Nodes that boot at once.
    pub nodes: usize,
    /// Think times are divided by this.
    pub speed: f64,
    /// What each node and the seed send at most, and nodes receive, in Mbit/s; 0: no limit.
    pub link_mbit: u32,
}

/// A version of the volume, raw and packed, and its boots.
#[derive(Debug)]
pub struct Version {
    /// The volume.
    pub raw: PathBuf,
    /// It, packed.
    pub swarm: PathBuf,
    /// Where its files lie.
    pub layout: Layout,
    /// The boots, in order.
    pub traces: Vec<PathBuf>,
    /// The same, read.
    pub boots: Vec<Trace>,
    files: Vec<MadeUp>,
    chunks: Vec<LeafEntry>,
}

/// Two versions of a volume, the second after an update.
#[derive(Debug)]
pub struct Subject {
    setup: Setup,
    folder: PathBuf,
    swarmdisk: Swarmdisk,
    /// The first.
    pub before: Version,
    /// The second.
    pub after: Version,
}

/// What packing made of a volume.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Packed {
    /// Size of the volume.
    pub image_bytes: u64,
    /// Chunks that are not all zero.
    pub data_bytes: u64,
    /// The same, compressed.
    pub payload_bytes: u64,
}

/// What a boot asks for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Asked {
    /// Reads.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Payloads of the chunks that are read: what a node cannot do without.
    pub working_set_bytes: u64,
}

/// What a boot cost one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Booted {
    /// What its guest saw.
    pub replay: ReplayReport,
    /// What the node did.
    pub report: AttachReport,
}

/// What a swarm cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Swarm {
    /// From a complete file, without a network.
    pub local: Booted,
    /// Each node.
    pub nodes: Vec<Booted>,
    /// Bodies that the seed has sent, leaf pages included.
    pub seed_sent_bytes: u64,
}

/// What an update cost a node that has booted the version before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Updated {
    /// Payloads of the new version that the old one has not, of all the volume.
    pub new_bytes: u64,
    /// Payloads that the new version's boot reads.
    pub working_set_bytes: u64,
    /// Those of them that the node's cache had not.
    pub missing_bytes: u64,
    /// What it cost.
    pub booted: Booted,
    /// Bodies that the seed has sent, leaf pages included.
    pub seed_sent_bytes: u64,
}

impl Subject {
    /// Makes both versions and their boots in a folder, which should be empty.
    ///
    /// # Panics
    /// When anything fails.
    #[track_caller]
    pub fn make(setup: Setup, tools: &Tools, swarmdisk: Swarmdisk, folder: &Path) -> Self {
        let before = files::all(&setup.scale, setup.seed);
        let (after, copied) = files::updated(&before, setup.seed);
        let raw = folder.join("windows-like.raw");
        tools.make(&raw, setup.scale.image_bytes);
        copy_all(tools, &raw, &before, folder);
        let updated = folder.join("windows-like-updated.raw");
        copy_sparse(&raw, &updated);
        copy_all(tools, &updated, &copied, folder);
        let version = |raw, files, boots| Version::new(&swarmdisk, &setup, raw, files, boots);
        let (before, after) =
            (version(raw, before, 1..=setup.boots), version(updated, after, setup.boots..=setup.boots));
        Self { setup, folder: folder.to_owned(), swarmdisk, before, after }
    }

    /// How far a profile of all boots but the last tells the last; the profile is left in the folder.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn profile(&self) -> Fit {
        let store = self.before.store();
        let named = |boots: &[Trace]| boots.iter().map(|boot| ("a boot".to_owned(), boot.clone())).collect::<Vec<_>>();
        let (last, others) = self.before.boots.split_last().expect("there are boots");
        let build = |boots: &[Trace]| profile::build(&store, &named(boots)).expect("the boots read something");
        let (bytes, merged) = build(others);
        fs::write(self.profile_path(), bytes).expect("the profile can be written");
        let chunks =
            |merged: swarmdisk_common::profile::Merged| merged.entries.into_iter().map(|entry| entry.chunk.get());
        let boot: BTreeSet<u32> = chunks(build(std::slice::from_ref(last)).1).collect();
        Fit::new(&chunks(merged).collect::<Vec<_>>(), &boot)
    }

    /// Boots all nodes at once from a seed that offers the [profile](Self::profile), which is to be made before.
    ///
    /// # Panics
    /// When anything fails.
    #[track_caller]
    pub fn swarm(&self) -> Swarm {
        let file = text(&self.before.swarm);
        let local = self.boot(&self.before, &file, "local", &[]);
        let (profile, rate) = (text(&self.profile_path()), self.rate());
        let limits = ["--limit-up", &rate, "--limit-down", &rate];
        let limits = if self.setup.link_mbit > 0 { &limits[..] } else { &[] };
        let limit_up = &limits[..limits.len() / 2];
        let arguments = [&[file.as_str(), "--listen", "127.0.0.1:0", "--profile", &profile][..], limit_up].concat();
        let (seed, reference) = self.swarmdisk.seed(arguments);
        let names: Vec<String> = (1..=self.setup.nodes).map(|node| format!("node-{node}")).collect();
        let boot = |name| self.boot(&self.before, &reference, name, limits);
        let nodes = thread::scope(|scope| {
            let booting: Vec<_> = names.iter().map(|name| scope.spawn(move || boot(name))).collect();
            booting.into_iter().map(|node| node.join().expect("its panic has been shown")).collect()
        });
        let seed_sent_bytes = self.sent_by(&seed);
        seed.stop();
        Swarm { local, nodes, seed_sent_bytes }
    }

    /// Boots the second version on the first node, whose cache has what it read of the first, without prefetching.
    ///
    /// # Panics
    /// When anything fails.
    #[track_caller]
    pub fn update(&self) -> Updated {
        let held = self.held_by("node-1");
        let (seed, reference) = self.swarmdisk.seed([text(&self.after.swarm).as_str(), "--listen", "127.0.0.1:0"]);
        let boot = self.after.boots.last().expect("there is a boot");
        let booted = self.boot(&self.after, &reference, "node-1", &["--prefetch", "off"]);
        let seed_sent_bytes = self.sent_by(&seed);
        seed.stop();
        let old: HashSet<Digest> = self.before.chunks.iter().map(|entry| entry.digest).collect();
        Updated {
            new_bytes: payloads(self.after.chunks.iter().filter(|entry| !old.contains(&entry.digest))),
            working_set_bytes: payloads(self.after.touched(boot)),
            missing_bytes: payloads(self.after.touched(boot).filter(|entry| !held.contains(&entry.digest))),
            booted,
            seed_sent_bytes,
        }
    }

    /// Attaches `target`, with an overlay, and replays the version's last boot with its writes; each byte is compared.
    fn boot(&self, version: &Version, target: &str, name: &str, arguments: &[&str]) -> Booted {
        let work = self.folder.join(name);
        fs::create_dir_all(&work).expect("a folder can be made");
        let [cache, report, replayed] = ["cache", "report.json", "replay.json"].map(|name| text(&work.join(name)));
        let own = [target, "--nbd", "127.0.0.1:0", "--cache", &cache, "--overlay", OVERLAY, "--report", &report];
        let (node, uri) = self.swarmdisk.attach([&own[..], arguments].concat());
        let (trace, raw, speed) =
            (text(version.traces.last().expect("there is a boot")), text(&version.raw), self.setup.speed.to_string());
        let words = ["replay", &trace, "--disk", &uri, "--writes", "--verify", &raw, "--speed", &speed];
        let finished = self.swarmdisk.spawn([&words[..], &["--report", &replayed]].concat()).wait(RUN_DEADLINE);
        assert!(finished.status.success(), "{name}: {}{}", finished.stdout, finished.stderr);
        node.stop();
        let replay = fs::read(&replayed).expect("replay has written its report");
        Booted {
            replay: serde_json::from_slice(&replay).expect("it is what it was written from"),
            report: read_report(Path::new(&report)),
        }
    }

    /// The payloads that a node's cache of the first version has.
    fn held_by(&self, name: &str) -> HashSet<Digest> {
        let dir = self.folder.join(name).join("cache");
        let image = self.before.store().image();
        let manifest = Store::find_cached_manifest(&dir, image).expect("it can be read").expect("the node has booted");
        let cache = Store::open_cache(&dir, image, &manifest).expect("the node has ended");
        let geometry = cache.geometry();
        let chunks = (0..geometry.chunk_count()).filter_map(|number| geometry.chunk(number));
        let held = chunks.filter(|chunk| cache.holds(geometry.chunk_piece(*chunk)));
        held.map(|chunk| self.before.chunks[chunk.get() as usize].digest).collect()
    }

    /// Bodies that a seed has sent.
    fn sent_by(&self, seed: &Process) -> u64 {
        let told: Vec<Status> = serde_json::from_str(&self.swarmdisk.succeed(["status", "--json"])).unwrap();
        let own = told.into_iter().find(|status| status.pid == seed.pid()).expect("a seed that runs has a status");
        own.images[0].uploaded_bytes
    }

    fn profile_path(&self) -> PathBuf {
        self.folder.join("windows-like.profile")
    }

    fn rate(&self) -> String {
        format!("{}mbit", self.setup.link_mbit)
    }
}

impl Version {
    fn new(
        swarmdisk: &Swarmdisk,
        setup: &Setup,
        raw: PathBuf,
        files: Vec<MadeUp>,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Self {
        let layout = Layout::read(&raw);
        let swarm = raw.with_extension("swarm");
        swarmdisk.succeed([Path::new("pack"), &raw, &swarm]);
        let (mut traces, mut boots) = (Vec::new(), Vec::new());
        for number in numbers {
            let boot = boot::trace(&layout, &files, setup.seed, number);
            let trace = raw.with_extension(format!("{number}.trace"));
            write_trace(&trace, &boot, setup, number).unwrap_or_else(|error| panic!("{}: {error}", trace.display()));
            traces.push(trace);
            boots.push(boot);
        }
        let chunks = chunks(&open(&swarm));
        Self { raw, swarm, layout, traces, boots, files, chunks }
    }

    /// What packing made of it.
    pub fn packed(&self) -> Packed {
        let geometry = self.store().geometry();
        let data = (0..).zip(&self.chunks).filter(|(_, entry)| entry.bytes > 0);
        let data_bytes = data.filter_map(|(number, _)| geometry.chunk(number)).map(|chunk| geometry.chunk_len(chunk));
        Packed {
            image_bytes: geometry.image_bytes(),
            data_bytes: data_bytes.map(u64::from).sum(),
            payload_bytes: payloads(self.chunks.iter()),
        }
    }

    /// What a boot of it asks for.
    pub fn asked(&self, boot: &Trace) -> Asked {
        let of = |op| boot.requests.iter().filter(move |request| request.op == op);
        let bytes = |op| of(op).map(|request| u64::from(request.bytes)).sum();
        Asked {
            reads: of(Op::Read).count() as u64,
            read_bytes: bytes(Op::Read),
            writes: of(Op::Write).count() as u64,
            written_bytes: bytes(Op::Write),
            working_set_bytes: payloads(self.touched(boot)),
        }
    }

    /// The files that are on it.
    pub fn files(&self) -> &[MadeUp] {
        &self.files
    }

    fn store(&self) -> Store {
        open(&self.swarm)
    }

    /// The chunks that a boot reads, once each.
    fn touched(&self, boot: &Trace) -> impl Iterator<Item = &LeafEntry> {
        let shift = self.store().geometry().chunk_shift();
        let reads = boot.requests.iter().filter(|request| request.op == Op::Read);
        let touched = reads.flat_map(|read| {
            let last = read.offset + u64::from(read.bytes) - 1;
            (read.offset >> shift) as usize..=(last >> shift) as usize
        });
        touched.collect::<BTreeSet<usize>>().into_iter().map(|chunk| &self.chunks[chunk])
    }
}

fn open(swarm: &Path) -> Store {
    Store::open_complete(swarm).unwrap_or_else(|error| panic!("{}: {error}", swarm.display()))
}

fn chunks(store: &Store) -> Vec<LeafEntry> {
    let geometry = store.geometry();
    let chunks = (0..geometry.chunk_count()).filter_map(|number| geometry.chunk(number));
    let entry = |chunk| {
        let leaf = store.leaf(geometry.leaf_of(chunk)).expect("a packed image has its leaf pages");
        *leaf.entry(chunk).expect("the page is the chunk's")
    };
    chunks.map(entry).collect()
}

fn payloads<'a>(entries: impl Iterator<Item = &'a LeafEntry>) -> u64 {
    entries.map(|entry| u64::from(entry.bytes)).sum()
}

fn copy_all(tools: &Tools, raw: &Path, files: &[MadeUp], folder: &Path) {
    let contents = folder.join("contents");
    for file in files {
        file.write(&contents).unwrap_or_else(|error| panic!("{}: {error}", contents.display()));
        tools.copy(raw, &contents, &file.name);
    }
    fs::remove_file(&contents).expect("it was just written");
}

/// The standard library's copy fills the holes.
fn copy_sparse(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    command.arg("--sparse=always").args([from, to]);
    let ended = Process::start(command).wait(RUN_DEADLINE);
    assert!(ended.status.success(), "{}", ended.stderr);
}

fn write_trace(path: &Path, boot: &Trace, setup: &Setup, number: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    writeln!(file, "# Windows-like (made up): boot {number} of seed {}, no recording of any Windows;", setup.seed)?;
    writeln!(
        file,
        "# of a disk of {} bytes, an NTFS volume that `--example windows_like` makes.",
        setup.scale.image_bytes
    )?;
    boot.write(&mut file)
}
