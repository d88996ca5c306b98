//! A node: an engine, its cache, its guest, and what a host keeps for them.

use super::bootstrap::Desk;
use super::choker::Choker;
use super::queue::What;
use super::tally::Counts;
use super::{Observation, Tally, Watch, World};
use crate::model::{Purpose, Setup, SimEngine, Store, chosen, learns, stream};
use crate::network::{NEVER, Nanos};
use crate::scenario::{Fill, Policy, Redirect};
use bumpalo::Bump;
use swarmdisk_core::engine::{
    Change, Config, Contact, Demand, Engine, Event, Footprint, Limits, PeerRow, Served, Storage, Touch, Transfer,
    Tuning, Upload,
};
use swarmdisk_core::ids::{Address, NodeId, PeerId};
use swarmdisk_core::policy::Lesson;
use swarmdisk_core::rng::mix;
use swarmdisk_core::time::Duration;
use swarmdisk_core::wire::Role;

/// What a link may be handed before its socket has taken anything, in bytes.
pub(super) const CREDIT_BYTES: u32 = 256 * 1024;
/// Where nodes listen.
const PORT: u16 = 7000;

/// How far a node has come.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It has not started.
    Absent,
    /// It waits for manifest and profile.
    Starting,
    /// Its engine runs.
    Up,
    /// Its process has ended, its host answers for it.
    Down,
    /// Its host is without power: nobody answers.
    Dark,
}

/// A link, by the engine's row.
#[derive(Debug, Copy, Clone)]
pub(super) struct Link {
    pub peer: PeerId,
    /// Connection and side, once it is up.
    pub up: Option<(u32, u8)>,
}

pub(super) struct Guest {
    pub script: usize,
    /// The group that is read, or is to be read next.
    pub group: usize,
    /// Chunks that it waits for.
    pub waits: Vec<u32>,
    pub waits_since: Nanos,
    /// When it has thought: not before then does it read on, whatever happens to its node.
    pub reads_at: Nanos,
}

pub(super) struct Node<'a> {
    pub phase: Phase,
    /// Counts processes.
    pub life: u32,
    pub engine: Option<SimEngine<'a>>,
    pub links: Vec<Option<Link>>,
    /// Whether the body in a slot is genuine.
    pub slots: Vec<bool>,
    pub store: Store,
    /// Of a seed that serves few at a time.
    pub choker: Option<Choker>,
    pub guest: Option<Guest>,
    pub touches: Vec<u32>,
    /// What sockets have taken and the engine does not know yet.
    pub taken: Vec<(PeerId, u32)>,
    /// Times that it could not get manifest and profile.
    pub bootstrap_failures: usize,
    /// Of a seed: bootstraps.
    pub desk: Desk,
    pub wake_at: Nanos,
    pub paused_until: Nanos,
    pub clock_ahead_micros: u64,
    /// A bit for each fault that cuts it off; nodes with the same bits reach each other.
    pub cut: u64,
    pub lies: bool,
    pub disk_full: bool,
    /// Of a cache with a bound: how many bytes it may hold.
    pub bound_bytes: Option<u64>,
    /// How many it holds, leaf pages not counted.
    pub held_bytes: u64,
    pub tally: Tally,
}

impl Node<'_> {
    /// A node that has not started.
    pub fn new(setup: &Setup, number: usize, tears: bool) -> Self {
        let spec = &setup.nodes[number];
        let image = &setup.images[spec.image];
        let (pieces, is_seed) = (image.geometry.piece_count(), spec.role == Role::Seed);
        let capacity = setup.scenario.host.capacity.filter(|_| !is_seed);
        let mut store = Store::new(pieces, (tears && !is_seed).then_some(image.digest));
        if is_seed {
            store.fill(0, pieces);
        }
        Self {
            phase: Phase::Absent,
            life: 0,
            engine: None,
            links: Vec::new(),
            slots: Vec::new(),
            store,
            choker: None,
            guest: spec.script.map(|script| Guest { script, group: 0, waits: Vec::new(), waits_since: 0, reads_at: 0 }),
            touches: Vec::new(),
            taken: Vec::new(),
            bootstrap_failures: 0,
            desk: Desk::default(),
            wake_at: NEVER,
            paused_until: 0,
            clock_ahead_micros: 0,
            cut: 0,
            lies: false,
            disk_full: false,
            bound_bytes: capacity.map(|chunks| u64::from(chunks) * image.mean_bytes()),
            held_bytes: 0,
            tally: Tally::default(),
        }
    }
}

/// Where a node is dialled; `alias` is another name for the same.
pub(super) fn address(node: usize, alias: u8) -> Address {
    let mut ip = [0; 16];
    ip[0] = 0xfd;
    ip[8] = alias;
    ip[12..].copy_from_slice(&(node as u32).to_be_bytes());
    Address { ip, port: PORT }
}

/// The node that is dialled there.
pub(super) fn node_at(address: Address) -> usize {
    u32::from_be_bytes([address.ip[12], address.ip[13], address.ip[14], address.ip[15]]) as usize
}

impl<'a, W: Watch> World<'a, W> {
    pub(super) fn start(&mut self, node: usize) {
        self.note(1, node, 0);
        let start = self.setup.scenario.host.start.0;
        let row = &mut self.nodes[node];
        if self.setup.nodes[node].role == Role::Seed {
            return self.begin(node);
        }
        row.phase = Phase::Starting;
        let life = row.life;
        self.queue.push(self.now + start, What::Bootstrap { node: node as u32, life });
        self.hold_from_start(node);
    }

    /// What a cache holds of the working set when its node starts for the first time.
    fn hold_from_start(&mut self, node: usize) {
        let spec = &self.setup.nodes[node];
        let (Some(group), Some(script)) = (spec.group, spec.script) else { return };
        let held = self.setup.scenario.groups[group].held.0;
        if held == 0 {
            return;
        }
        let geometry = self.setup.images[spec.image].geometry;
        for chunk in self.setup.scripts[script].chunks() {
            let leaf = geometry.chunk(chunk).map(|chunk| geometry.leaf_piece(geometry.leaf_of(chunk)).get());
            if chosen(self.setup.seed, Purpose::Cache, u64::from(chunk) << 20, held) {
                self.nodes[node].store.fill(chunk, 1);
                leaf.into_iter().for_each(|leaf| self.nodes[node].store.fill(leaf, 1));
            }
        }
    }

    /// The engine starts, with what the cache holds.
    pub(super) fn begin(&mut self, node: usize) {
        let spec = &self.setup.nodes[node];
        let image = &self.setup.images[spec.image];
        let config = self.config(node);
        let limits = config.limits;
        let storage = storage(self.bump, Footprint::of(image.geometry, limits));
        let profile: &'a [_] = if spec.role == Role::Seed { &[] } else { &self.setup.profiles[spec.image] };
        let policy = self.setup.scenario.policy_of(spec.group);
        let learns = spec.role == Role::Node && learns(policy);
        let lessons = if learns { lessons(self.setup.touches) } else { 0 };
        let lessons = self.bump.alloc_slice_fill_copy(lessons, Lesson::EMPTY);
        let policies = crate::model::make_policies(policy, profile, lessons);
        let now = self.engine_now(node);
        // The scenario's checks allow no limits that an engine refuses.
        let mut engine = match Engine::new(now, image.geometry, config, storage, policies) {
            Ok(engine) => engine,
            Err(error) => unreachable!("a checked scenario has legal limits: {error}"),
        };
        let row = &mut self.nodes[node];
        row.links.clear();
        row.links.resize(limits.peers.into(), None);
        row.slots.clear();
        row.slots.resize(limits.transfers.into(), false);
        let seeds = &self.setup.scenario.seeds;
        row.choker = seeds
            .unchoked
            .filter(|_| spec.role == Role::Seed)
            .map(|regular| Choker::new(regular, seeds.unchoked_for.0));
        for (first, count) in row.store.bits().runs(0) {
            if let Some(first) = image.geometry.piece(first) {
                engine.handle(now, Event::Held { first, count });
            }
        }
        if spec.role == Role::Node {
            for seed in self.setup.seeds_of(spec.image) {
                engine.handle(now, Event::ContactFound { address: address(seed, 0), seed: true });
            }
        }
        let row = &mut self.nodes[node];
        row.phase = Phase::Up;
        row.engine = Some(engine);
        row.wake_at = NEVER;
        row.tally.ready.get_or_insert(self.now);
        self.note(2, node, 0);
        self.tell_holdings(node);
        if let Some(guest) = &mut self.nodes[node].guest {
            guest.waits.clear();
            let at = self.now.max(guest.reads_at);
            let life = self.nodes[node].life;
            self.queue.push(at, What::Read { node: node as u32, life });
        }
        self.drain(node);
    }

    fn config(&self, node: usize) -> Config {
        let spec = &self.setup.nodes[node];
        let scenario = &self.setup.scenario;
        let policy = scenario.policy_of(spec.group);
        let image = &self.setup.images[spec.image];
        let seed =
            stream(self.setup.seed, Purpose::Engine, node as u64 ^ u64::from(self.nodes[node].life) << 32).draw();
        let mut name = [0; 16];
        name[..8].copy_from_slice(&mix(seed).to_le_bytes());
        name[8..].copy_from_slice(&(node as u64).to_le_bytes());
        let is_seed = spec.role == Role::Seed;
        Config {
            limits: if is_seed {
                seed_limits(self.setup)
            } else {
                let bounded = scenario.host.capacity.is_some();
                Limits { bounded, ..node_limits(policy, self.setup.touches) }
            },
            node: NodeId(name),
            image: image.digest,
            role: spec.role,
            listen: address(node, 0),
            locality: self.setup.locality(node),
            manifest_bytes: image.manifest_bytes,
            payload_bytes: image.payload_bytes(),
            profile: None,
            teach: !is_seed,
            leaves_first: false,
            fill: match (policy.fill_rate, policy.fill) {
                (_, _) if is_seed => swarmdisk_core::engine::Fill::Off,
                (Some(rate), _) => swarmdisk_core::engine::Fill::Rate(rate.0),
                (None, Fill::Auto) => swarmdisk_core::engine::Fill::Auto,
                (None, Fill::Off) => swarmdisk_core::engine::Fill::Off,
            },
            seed,
            unsent_bytes_max: {
                let unsent = if is_seed { scenario.seeds.unsent } else { policy.unsent };
                unsent.0.min(u64::from(u32::MAX)) as u32
            },
            tuning: tuning(policy),
        }
    }

    /// Polls an engine until it has nothing more to do, then sets its alarm.
    pub(super) fn drain(&mut self, node: usize) {
        let now = self.engine_now(node);
        let mut action_count = 0;
        loop {
            let Some(engine) = &mut self.nodes[node].engine else { return };
            let Some(action) = engine.poll(now, &mut self.head[..]) else { break };
            action_count += 1;
            self.act(node, action);
        }
        let row = &mut self.nodes[node];
        let Some(engine) = &row.engine else { return };
        self.watch.polled(self.now, node, engine, action_count);
        if let Some(deadline) = engine.deadline() {
            let micros = deadline.as_micros().saturating_sub(row.clock_ahead_micros);
            let at = micros.saturating_mul(1000).max(self.now + 1);
            if at < row.wake_at {
                row.wake_at = at;
                let life = row.life;
                self.queue.push(at, What::Wake { node: node as u32, life });
            }
        }
    }

    /// Tells an engine something; it is polled by whoever calls.
    pub(super) fn tell(&mut self, node: usize, event: Event) {
        let now = self.engine_now(node);
        if let Some(engine) = &mut self.nodes[node].engine {
            engine.handle(now, event);
        }
    }

    /// A process ends, and with it all that it had under way.
    pub(super) fn end(&mut self, node: usize, phase: Phase) {
        self.note(3, node, phase as u64);
        let now = self.now;
        let row = &mut self.nodes[node];
        row.phase = phase;
        row.life += 1;
        if let Some(engine) = row.engine.take() {
            let image = &self.setup.images[self.setup.nodes[node].image];
            row.tally.counts.add(&Counts::of(&engine, image));
        }
        row.touches.clear();
        row.taken.clear();
        row.wake_at = NEVER;
        if let Some(guest) = row.guest.as_mut().filter(|guest| !guest.waits.is_empty()) {
            // Its read is lost with the process, and made again when that is back.
            row.tally.stall += now - guest.waits_since;
            guest.waits.clear();
        }
        self.watch.observe(now, node, Observation::Ended);
        self.break_links(node, phase == Phase::Dark);
    }
}

fn node_limits(policy: &Policy, touches: u16) -> Limits {
    let (peers, transfers) = (policy.links_max, policy.transfers);
    Limits { peers, transfers, requests_per_peer: policy.requests_per_peer, touches, ..Limits::NODE }
}

/// Chunks that live learning keeps in mind: two runs that have little in common, and some room.
fn lessons(touches: u16) -> usize {
    (usize::from(touches) * 5 / 2 + 64).min(usize::from(Limits::NODE.touches))
}

fn seed_limits(setup: &Setup) -> Limits {
    let scenario = &setup.scenario;
    // A seed that remembers nobody redirects nobody.
    let served = if scenario.policy.redirect == Redirect::On { Limits::SEED.served } else { 0 };
    Limits { peers: scenario.seeds.links, requests_per_peer: scenario.seed_requests(), served, ..Limits::SEED }
}

fn tuning(policy: &Policy) -> Tuning {
    let duration = |span: crate::scenario::Span| Duration::from_micros(span.0 / 1000);
    Tuning {
        prefetches: policy.prefetches,
        prefetches_per_peer: policy.prefetches_per_peer,
        prefetches_per_seed: policy.prefetches_per_seed,
        queue: policy.queue,
        fill_after: duration(policy.fill_after),
        batch: duration(policy.batch),
        hedge: duration(policy.hedge),
        timeout: duration(policy.timeout),
        patience: duration(policy.patience),
        links: policy.links,
        ..Tuning::DEFAULT
    }
}

fn storage(bump: &Bump, need: Footprint) -> Storage<'_> {
    Storage {
        words: bump.alloc_slice_fill_copy(need.words, 0),
        peers: bump.alloc_slice_fill_copy(need.peers, PeerRow::EMPTY),
        transfers: bump.alloc_slice_fill_copy(need.transfers, Transfer::EMPTY),
        uploads: bump.alloc_slice_fill_copy(need.uploads, Upload::EMPTY),
        demands: bump.alloc_slice_fill_copy(need.demands, Demand::EMPTY),
        contacts: bump.alloc_slice_fill_copy(need.contacts, Contact::EMPTY),
        changes: bump.alloc_slice_fill_copy(need.changes, Change::EMPTY),
        served: bump.alloc_slice_fill_copy(need.served, Served::EMPTY),
        touches: bump.alloc_slice_fill_copy(need.touches, Touch::EMPTY),
    }
}
