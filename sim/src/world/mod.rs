//! The simulation: real engines on one virtual clock, joined by a network model.
//!
//! *Purpose*: does for thousands of engines what a host does for one: carries bytes, hashes, stores, lets guests read.
//! *Invariants*: one thread, one order of events (by time, then by number), integers only: the same setup gives the same
//! [`digest`](World::digest) everywhere. The engines see what they would see at a real host, in frames of the real wire.
//! *Units*: nanoseconds of virtual time. *Bounds*: memory is that of the engines and stores, plus what is under way.
//!
//! | module | holds |
//! |---|---|
//! | `queue` | what happens when |
//! | `node` | an engine, its cache, its guest |
//! | `connections` | dialling, frames, bodies, closing |
//! | `actions` | what engines ask for, carried out |
//! | `guests` | what guests read |
//! | `faults` | what goes wrong |
//! | `choker` | a seed that serves few at a time |
//! | `watch` | what checkers see |

mod actions;
mod bootstrap;
mod choker;
mod connections;
mod faults;
mod guests;
mod node;
mod queue;

mod tally;
mod watch;

pub use node::Phase;
pub use tally::{Counts, STALL_BINS, Tally, Timeline};
pub use watch::{Observation, Quiet, Watch};

use crate::model::Setup;
use crate::network::{Fluid, NEVER, Nanos, Network, Packet, Topology};
use crate::scenario::{FaultKind, LeavingKind, Model};
use bumpalo::Bump;
use connections::{Connection, Parcel};
use node::Node;
use queue::{Queue, What};
use swarmdisk_core::rng::{Rng, mix};
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::HEAD_BYTES_MAX;

/// A simulation under way. `W` sees what happens.
pub struct World<'a, W: Watch = Quiet> {
    setup: &'a Setup,
    bump: &'a Bump,
    now: Nanos,
    queue: Queue,
    network: Network,
    nodes: Vec<Node<'a>>,
    connections: Vec<Connection>,
    free_connections: Vec<u32>,
    parcels: Vec<Option<Parcel>>,
    free_parcels: Vec<u32>,
    head: Box<[u8; HEAD_BYTES_MAX]>,
    digest: u64,
    event_count: u64,
    timeline: Timeline,
    draws: Rng,
    /// Nodes whose guests have not read all.
    booting: usize,
    /// Share of bodies that are corrupted on their way, in millionths.
    corrupt_ppm: u32,
    /// What is held up on its way: which share, in millionths, and for how long at most.
    jitter: Option<(u32, Nanos)>,
    faults: Vec<faults::Fault>,
    watch: W,
}

impl<'a, W: Watch> World<'a, W> {
    /// Everything in its place at time 0. `bump` owns the engines' memory.
    pub fn new(setup: &'a Setup, bump: &'a Bump, watch: W) -> Self {
        let topology = Topology::new(setup.topology.clone());
        let network = match setup.scenario.network.model {
            Model::Fluid => Network::Fluid(Box::new(Fluid::new(topology, setup.tcp))),
            Model::Packet => Network::Packet(Box::new(Packet::new(topology, setup.tcp))),
        };
        let tears = W::ENABLED || setup.scenario.faults.iter().any(|fault| fault.what == FaultKind::Crash);
        let mut world = Self {
            setup,
            bump,
            now: 0,
            queue: Queue::default(),
            network,
            nodes: (0..setup.nodes.len()).map(|number| Node::new(setup, number, tears)).collect(),
            connections: Vec::new(),
            free_connections: Vec::new(),
            parcels: Vec::new(),
            free_parcels: Vec::new(),
            head: Box::new([0; HEAD_BYTES_MAX]),
            digest: 0,
            event_count: 0,
            timeline: Timeline::default(),
            draws: crate::model::stream(setup.seed, crate::model::Purpose::Fault, 0),
            booting: setup.nodes.len() - setup.seed_count(),
            corrupt_ppm: 0,
            jitter: None,
            faults: Vec::new(),
            watch,
        };
        for (number, node) in setup.nodes.iter().enumerate() {
            world.queue.push(node.start, What::Start { node: number as u32 });
        }
        world.plan_faults();
        if setup.scenario.leaving.kind == LeavingKind::Churn {
            world.plan_churn();
        }
        world
    }

    /// Lets the next thing happen; false if nothing does before `until`.
    pub fn step(&mut self, until: Nanos) -> bool {
        let (by_network, by_queue) = (self.network.next(self.now), self.queue.next());
        let next = by_network.min(by_queue);
        if next == NEVER || next > until {
            return false;
        }
        self.now = next;
        self.event_count += 1;
        if by_network <= by_queue {
            if let Some(occurrence) = self.network.advance(next) {
                self.on_network(occurrence);
            }
        } else if let Some(what) = self.queue.pop() {
            self.happen(what);
        }
        true
    }

    /// Runs until all guests have read all; false if that is not so at the scenario's limit. `progress` is called now and
    /// then and ends the run early by giving false.
    pub fn run(&mut self, mut progress: impl FnMut(&Self) -> bool) -> bool {
        const STEPS: u64 = 1 << 16;
        while self.booting > 0 {
            if !self.step(self.setup.scenario.limit.0) {
                return false;
            }
            if self.event_count.is_multiple_of(STEPS) && !progress(self) {
                return false;
            }
        }
        true
    }

    /// Virtual time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// A hash of all that has happened.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// How many things have happened.
    pub fn event_count(&self) -> u64 {
        self.event_count
    }

    /// Nodes whose guests have not read all.
    pub fn booting(&self) -> usize {
        self.booting
    }

    /// The setup that is run.
    pub fn setup(&self) -> &'a Setup {
        self.setup
    }

    /// What a node has done so far.
    pub fn tally(&self, node: usize) -> &Tally {
        &self.nodes[node].tally
    }

    /// What the engines of a node have counted so far.
    pub fn counts(&self, node: usize) -> Counts {
        let (mut counts, image) = (self.nodes[node].tally.counts, &self.setup.images[self.setup.nodes[node].image]);
        if let Some(engine) = self.engine(node) {
            counts.add(&Counts::of(engine, image));
        }
        counts
    }

    /// How a node is.
    pub fn phase(&self, node: usize) -> Phase {
        self.nodes[node].phase
    }

    /// The engine of a node that runs.
    pub fn engine(&self, node: usize) -> Option<&crate::model::SimEngine<'a>> {
        self.nodes[node].engine.as_ref()
    }

    /// Whether a node's cache holds a piece.
    pub fn holds(&self, node: usize, piece: u32) -> bool {
        self.nodes[node].store.holds(piece)
    }

    /// Traffic over time.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What watches.
    pub fn watch(&self) -> &W {
        &self.watch
    }

    /// What watches, to be told something.
    pub fn watch_mut(&mut self) -> &mut W {
        &mut self.watch
    }

    /// Mixes a number into the digest.
    fn note(&mut self, kind: u8, node: usize, value: u64) {
        let place = (self.now ^ (u64::from(kind) << 56)) ^ (node as u64) << 36;
        self.digest = mix(self.digest ^ mix(place ^ value.rotate_left(17)));
    }

    fn happen(&mut self, what: What) {
        if let Some((node, life)) = what.target() {
            let row = &self.nodes[node];
            if row.life != life {
                if let What::Opened { connection, generation, .. } = what {
                    self.abort(connection, generation);
                }
                return;
            }
            if self.now < row.paused_until {
                let at = row.paused_until;
                return self.queue.push(at, what);
            }
        }
        match what {
            What::Start { node } => self.start(node as usize),
            What::Bootstrap { node, .. } => self.bootstrap(node as usize),
            What::Send { pipe, bytes, tag } => self.send_later(pipe, bytes, tag),
            // One that was put off, or that an earlier one has replaced, is none.
            What::Wake { node, .. } if self.now < self.nodes[node as usize].wake_at => {}
            What::Wake { node, .. } => {
                self.nodes[node as usize].wake_at = NEVER;
                self.drain(node as usize);
            }
            What::Dialled { node, peer, to, .. } => self.on_dialled(node as usize, peer, to as usize),
            What::Opened { node, peer, connection, generation, .. } => {
                self.on_opened(node as usize, peer, connection, generation);
            }
            What::NotOpened { node, peer, .. } => self.on_not_opened(node as usize, peer),
            What::Reset { connection, generation, side } => self.on_reset(connection, generation, side.into()),
            What::Release { connection, generation, side } => self.release(connection, generation, side.into()),
            What::Loaded { node, upload, piece, .. } => self.on_loaded(node as usize, upload, piece),
            What::Verified { node, slot, .. } => self.on_verified(node as usize, slot),
            What::Stored { node, slot, piece, .. } => self.on_stored(node as usize, slot, piece),
            What::Taken { node, .. } => self.flush_taken(node as usize),
            What::Read { node, .. } => self.on_read(node as usize),
            What::Touches { node, .. } => self.flush_touches(node as usize),
            What::Fault { number } => self.on_fault(number as usize),
            What::Heal { number } => self.on_heal(number as usize),
            What::Churn => self.on_churn(),
            What::Return { node } => self.come_back(node as usize),
        }
    }

    /// The time as the node's engine sees it.
    fn engine_now(&self, node: usize) -> Instant {
        Instant::from_micros(self.now / 1000 + self.nodes[node].clock_ahead_micros)
    }
}
