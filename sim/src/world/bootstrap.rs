//! How a node gets manifest and profile before it has an engine: from a seed, or from a node that the seed names.
//!
//! *Purpose*: a model of the hosts' bootstrap and of the engine's answers to it; both blobs are one body here. *Invariants*:
//! a seed hands over as much at a time as its engine would; who waits is named a node once one is linked with the seed that
//! has not been named often lately, and that it reaches. *Bounds*: a row a node and seed.
//!
//! *Where it differs from the engine*: a seed's uplink is full once so many bootstraps are on their way; pieces that it sends
//! and what its links have not sent yet do not count. A node is named as long as its process lives, whether or not it is
//! still linked with the seed.

use super::connections::Parcel;
use super::node::Phase;
use super::queue::What;
use super::{Watch, World};
use crate::network::Nanos;
use std::collections::VecDeque;

/// How long a bootstrap waits before it tries again.
const PAUSE: Nanos = 500_000_000;
/// What a bootstrap receives beside manifest and profile, in bytes: prefaces and frames.
const FRAME_BYTES: u32 = 200;
/// Round trips before a bootstrap's first byte of the manifest: TCP, prefaces, Hello and the request.
const ROUND_TRIPS: u64 = 3;
/// As in the engine: so much is handed over ahead of what the uplink sends, in time and in bytes, whichever is more.
const UNSENT_SPAN: Nanos = 5_000_000;
const UNSENT_BYTES_MIN: u64 = 96 << 10;
/// As in the engine: how often a node is named before it is left alone for so long.
const NAMED_MAX: u8 = 4;
const NAMED_FOR: Nanos = 1_000_000_000;

/// What a seed knows of bootstraps.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Bootstraps that it serves.
    serving: u64,
    /// Nodes that wait, with the count of their processes.
    waiting: VecDeque<(u32, u32)>,
    /// Nodes that can be named, those at the front first.
    named: VecDeque<Named>,
}

#[derive(Debug)]
struct Named {
    node: u32,
    life: u32,
    count: u8,
    at: Nanos,
}

impl<W: Watch> World<'_, W> {
    /// A node asks a seed for manifest and profile.
    pub(super) fn bootstrap(&mut self, node: usize) {
        let seeds = self.setup.seeds_of(self.setup.nodes[node].image);
        let seed = seeds.start + (node + self.nodes[node].bootstrap_failures) % seeds.len();
        let life = self.nodes[node].life;
        if !self.reaches(node, seed) || self.nodes[seed].phase != Phase::Up {
            return self.bootstrap_again(node);
        }
        self.nodes[seed].desk.waiting.push_back((node as u32, life));
        self.serve_bootstraps(seed);
    }

    fn bootstrap_again(&mut self, node: usize) {
        self.nodes[node].bootstrap_failures += 1;
        let life = self.nodes[node].life;
        self.queue.push(self.now + PAUSE, What::Bootstrap { node: node as u32, life });
    }

    /// A node is linked with a seed: it can be named.
    pub(super) fn can_be_named(&mut self, seed: usize, node: usize) {
        let life = self.nodes[node].life;
        let named = &mut self.nodes[seed].desk.named;
        // It may have been linked before, in this life or in one that is over.
        named.retain(|row| row.node as usize != node);
        named.push_front(Named { node: node as u32, life, count: 0, at: 0 });
        self.serve_bootstraps(seed);
    }

    /// A bootstrap has all that it asked for.
    pub(super) fn bootstrap_ended(&mut self, from: usize) {
        let desk = &mut self.nodes[from].desk;
        desk.serving = desk.serving.saturating_sub(1);
        self.serve_bootstraps(from);
    }

    fn serve_bootstraps(&mut self, seed: usize) {
        let at_once = {
            let rate = self.setup.topology.hosts[self.setup.nodes[seed].host as usize].up;
            let unsent = (u128::from(rate) * u128::from(UNSENT_SPAN) / 1_000_000_000) as u64;
            (unsent.max(UNSENT_BYTES_MIN) / u64::from(self.bootstrap_bytes(seed)).max(1)).max(1)
        };
        while let Some((node, life)) = self.nodes[seed].desk.waiting.front().copied() {
            let is_there = self.nodes[node as usize].life == life && self.nodes[node as usize].phase == Phase::Starting;
            if !is_there {
                self.nodes[seed].desk.waiting.pop_front();
                continue;
            }
            if self.nodes[seed].phase != Phase::Up || !self.reaches(node as usize, seed) {
                self.nodes[seed].desk.waiting.pop_front();
                self.bootstrap_again(node as usize);
                continue;
            }
            let is_free = self.nodes[seed].desk.serving < at_once;
            let from = if is_free { Some(seed) } else { self.name(seed, node as usize) };
            let Some(from) = from else { return };
            self.nodes[seed].desk.waiting.pop_front();
            self.send_bootstrap(seed, from, node as usize);
        }
    }

    /// A node that has the blobs, that the asker reaches, and that has not been named too often.
    fn name(&mut self, seed: usize, asker: usize) -> Option<usize> {
        let mut at = 0;
        loop {
            let row = self.nodes[seed].desk.named.get(at)?;
            let (node, is_rested) = (row.node as usize, self.now >= row.at + NAMED_FOR);
            if self.nodes[node].life != row.life || self.nodes[node].phase != Phase::Up {
                self.nodes[seed].desk.named.remove(at);
                continue;
            }
            if row.count >= NAMED_MAX && !is_rested {
                // Those behind it need rest as well.
                return None;
            }
            if !self.reaches(asker, node) {
                at += 1;
                continue;
            }
            let mut row = self.nodes[seed].desk.named.remove(at)?;
            row.count = if is_rested { 1 } else { row.count + 1 };
            row.at = self.now;
            match row.count >= NAMED_MAX {
                // The others behind it have been named earlier.
                true => self.nodes[seed].desk.named.push_back(row),
                false => self.nodes[seed].desk.named.push_front(row),
            }
            return Some(node);
        }
    }

    fn send_bootstrap(&mut self, seed: usize, from: usize, node: usize) {
        let bytes = self.bootstrap_bytes(node);
        self.nodes[from].desk.serving += 1;
        let named = if from == seed { 0 } else { self.rtt(node, seed) };
        let pipe = self.network.open(self.setup.nodes[from].host, self.setup.nodes[node].host);
        let life = self.nodes[node].life;
        let parcel = Parcel::Bootstrap { node: node as u32, life, from: from as u32, pipe, bytes };
        let tag = self.add_parcel(parcel);
        let at = self.now + named + ROUND_TRIPS * self.rtt(node, from);
        self.queue.push(at, What::Send { pipe, bytes, tag });
    }

    fn bootstrap_bytes(&self, node: usize) -> u32 {
        let image = self.setup.nodes[node].image;
        self.setup.images[image].manifest_bytes + self.setup.profile_bytes[image] + FRAME_BYTES
    }
}
