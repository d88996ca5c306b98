//! What goes wrong, and how it is mended.

use super::node::Phase;
use super::queue::What;
use super::{Observation, Watch, World};
use crate::model::exponential;
use crate::network::Nanos;
use crate::scenario::{self, FaultKind};
use swarmdisk_core::engine::Event;

/// A fault of the plan, with its draws made.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    spec: scenario::Fault,
    node: usize,
    /// The nodes that a partition cuts off.
    members: Vec<usize>,
}

impl<W: Watch> World<'_, W> {
    pub(super) fn plan_faults(&mut self) {
        let (first, count) = (self.setup.seed_count(), self.nodes.len() - self.setup.seed_count());
        for (number, spec) in self.setup.scenario.faults.iter().enumerate() {
            let (first_target, targets) = if spec.what == FaultKind::SeedKill { (0, first) } else { (first, count) };
            let drawn = self.draws.below(targets as u32) as usize;
            let node = first_target + spec.node.map_or(drawn, |node| (node as usize).min(targets - 1));
            let members = match spec.what {
                FaultKind::SeedOutage => (0..first).collect(),
                FaultKind::Partition => {
                    let share = spec.share.0;
                    (first..first + count).filter(|_| self.draws.below(1_000_000) < share).collect()
                }
                _ => vec![node],
            };
            self.queue.push(spec.at.0, What::Fault { number: number as u32 });
            self.faults.push(Fault { spec: spec.clone(), node, members });
        }
    }

    pub(super) fn on_fault(&mut self, number: usize) {
        let Fault { spec, node, members } = self.faults[number].clone();
        self.note(12, node, number as u64);
        self.watch.observe(self.now, node, Observation::Fault { what: spec.what });
        let lasts = spec.span.map(|span| span.0);
        match spec.what {
            FaultKind::SeedOutage | FaultKind::Partition => self.cut(&members, number, true),
            FaultKind::Crash | FaultKind::Kill | FaultKind::SeedKill => {
                let phase = if spec.what == FaultKind::Crash { Phase::Dark } else { Phase::Down };
                return self.bring_down(node, phase, lasts);
            }
            FaultKind::Slow => self.set_rates(node, spec.factor.0),
            FaultKind::Liar => self.nodes[node].lies = true,
            FaultKind::Corrupt => self.corrupt_ppm = spec.share.0,
            FaultKind::Jitter => self.jitter = Some((spec.share.0, spec.by.0)),
            FaultKind::Disconnect => self.disconnect(node),
            FaultKind::Rename => self.rename(node),
            FaultKind::ClockStep => {
                self.nodes[node].clock_ahead_micros += spec.by.0 / 1000;
                self.drain(node);
            }
            FaultKind::DiskFull => self.nodes[node].disk_full = true,
            FaultKind::Pause => {
                let until = self.now + lasts.unwrap_or(PAUSE);
                self.nodes[node].paused_until = self.nodes[node].paused_until.max(until);
            }
        }
        // What has happened to the node meanwhile comes before what has been sent to it.
        let heals = if spec.what == FaultKind::Pause { Some(lasts.unwrap_or(PAUSE) + 1) } else { lasts };
        if let Some(lasts) = heals {
            self.queue.push(self.now + lasts, What::Heal { number: number as u32 });
        }
    }

    pub(super) fn on_heal(&mut self, number: usize) {
        let Fault { spec, node, members } = self.faults[number].clone();
        self.note(13, node, number as u64);
        match spec.what {
            FaultKind::SeedOutage | FaultKind::Partition => {
                self.cut(&members, number, false);
                self.release_stuck();
            }
            FaultKind::Slow => self.set_rates(node, 1_000_000),
            FaultKind::Liar => self.nodes[node].lies = false,
            FaultKind::Corrupt => self.corrupt_ppm = 0,
            FaultKind::Jitter => self.jitter = None,
            FaultKind::DiskFull => self.nodes[node].disk_full = false,
            FaultKind::Pause => self.release_stuck(),
            _ => {}
        }
    }

    /// Cuts nodes off from the rest, or joins them again. Faults share bits beyond the sixty-fourth.
    fn cut(&mut self, members: &[usize], number: usize, is_cut: bool) {
        let bit = 1u64 << (number % 64);
        for member in members {
            let row = &mut self.nodes[*member];
            row.cut = if is_cut { row.cut | bit } else { row.cut & !bit };
        }
    }

    /// A process ends; with a time, it is started again after that.
    fn bring_down(&mut self, node: usize, phase: Phase, lasts: Option<Nanos>) {
        if !matches!(self.nodes[node].phase, Phase::Up | Phase::Starting) {
            return;
        }
        if phase == Phase::Dark {
            let mut draws = self.draws.clone();
            self.draws.draw();
            self.nodes[node].store.crash(&mut draws);
        }
        self.nodes[node].tally.crashes += 1;
        self.end(node, phase);
        match lasts {
            Some(lasts) => self.queue.push(self.now + lasts, What::Return { node: node as u32 }),
            None => self.give_up_guest(node),
        }
    }

    /// A node that does not come back boots nothing any more.
    fn give_up_guest(&mut self, node: usize) {
        if self.nodes[node].guest.take().is_some() {
            self.booting -= 1;
        }
    }

    pub(super) fn leave(&mut self, node: usize) {
        self.end(node, Phase::Down);
    }

    /// The process starts again, with the manifest in its cache if it had one.
    pub(super) fn come_back(&mut self, node: usize) {
        if !matches!(self.nodes[node].phase, Phase::Down | Phase::Dark) {
            return;
        }
        self.note(14, node, 0);
        if self.nodes[node].phase == Phase::Dark {
            self.reset_peers_of(node);
        }
        if self.nodes[node].tally.ready.is_some() {
            return self.begin(node);
        }
        self.nodes[node].phase = Phase::Starting;
        let life = self.nodes[node].life;
        self.queue.push(self.now, What::Bootstrap { node: node as u32, life });
    }

    /// For how long something that is on its way is held up, if it is.
    pub(super) fn held_up(&mut self) -> Option<Nanos> {
        let (share_ppm, most) = self.jitter?;
        let hit = self.draws.below(1_000_000) < share_ppm;
        hit.then(|| ((u128::from(self.draws.draw()) * u128::from(most)) >> 64) as Nanos)
    }

    fn set_rates(&mut self, node: usize, factor_millionths: u64) {
        let host = self.setup.nodes[node].host;
        let spec = self.setup.topology.hosts[host as usize];
        let slower = |rate: u64| (u128::from(rate) * 1_000_000 / u128::from(factor_millionths.max(1))) as u64;
        self.network.set_host_rates(self.now, host, slower(spec.up), slower(spec.down));
    }

    /// Everybody whom the node knows is told to it under a second address: links to one node come to be twice.
    fn rename(&mut self, node: usize) {
        let Some(engine) = &self.nodes[node].engine else { return };
        let addresses: Vec<_> = engine.peers().map(|peer| peer.address).collect();
        for mut address in addresses {
            address.ip[8] = address.ip[8].wrapping_add(1);
            self.tell(node, Event::ContactFound { address, seed: false });
        }
        self.drain(node);
    }

    pub(super) fn plan_churn(&mut self) {
        let leaving = &self.setup.scenario.leaving;
        let nodes = (self.nodes.len() - self.setup.seed_count()) as u64;
        // Nanoseconds between two that leave, of all nodes: 60 s × 100 % / (nodes × percent).
        let mean =
            60_000_000_000u128 * 100 * 1_000_000 / (u128::from(nodes) * u128::from(leaving.percent_per_minute.0));
        let wait = exponential(mean.min(1 << 58) as u64, self.draws.draw());
        self.queue.push(self.now + wait, What::Churn);
    }

    pub(super) fn on_churn(&mut self) {
        let first = self.setup.seed_count();
        let node = first + self.draws.below((self.nodes.len() - first) as u32) as usize;
        let pause = self.setup.scenario.leaving.pause.0;
        self.bring_down(node, Phase::Down, Some(pause));
        self.plan_churn();
    }
}

/// How long a node does nothing that is to pause for a while.
const PAUSE: Nanos = 1_000_000_000;
