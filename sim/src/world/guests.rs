//! What guests read: groups of chunks at a time, with think time between them.

use super::queue::What;
use super::tally::STALL_BINS;
use super::{Observation, Watch, World};
use crate::model::{Content, Purpose, stream};
use crate::network::Nanos;
use crate::scenario::{LeavingKind, Share};
use swarmdisk_core::engine::Event;
use swarmdisk_core::ids::GuestId;

/// How long news of reads of what was held is gathered, as hosts do.
const TOUCHES_PAUSE: Nanos = 5_000_000;
/// Each node has one guest.
const GUEST: GuestId = GuestId(0);

impl<W: Watch> World<'_, W> {
    /// The guest reads its next group.
    pub(super) fn on_read(&mut self, node: usize) {
        let Some(guest) = &self.nodes[node].guest else { return };
        let (script, group) = (guest.script, guest.group);
        let Some(reads) = self.setup.scripts[script].groups.get(group) else { return };
        self.note(10, node, group as u64);
        self.nodes[node].tally.reads += 1;
        let mut wanted = Vec::new();
        if !self.is_left_out(node, script, group) {
            for chunk in &reads.chunks {
                self.read_chunk(node, *chunk, &mut wanted);
            }
        }
        if wanted.is_empty() {
            return self.answered(node);
        }
        self.nodes[node].tally.demand_misses += 1;
        let now = self.now;
        if let Some(guest) = &mut self.nodes[node].guest {
            guest.waits.clone_from(&wanted);
            guest.waits_since = now;
        }
        let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
        for number in wanted {
            self.watch.observe(now, node, Observation::Wanted { chunk: number });
            if let Some(chunk) = geometry.chunk(number) {
                self.tell(node, Event::Wanted { guest: GUEST, chunk });
            }
        }
        self.drain(node);
    }

    /// Reads a chunk that is held; else notes that it is wanted.
    fn read_chunk(&mut self, node: usize, number: u32, wanted: &mut Vec<u32>) {
        let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
        let content = self.nodes[node].store.open(number);
        match content {
            Content::Genuine | Content::Undetected => {
                let is_genuine = content == Content::Genuine;
                self.watch.observe(self.now, node, Observation::Got { chunk: number, is_genuine });
                self.touched(node, number);
            }
            Content::Rotten => {
                self.lose(node, number);
                if let Some(piece) = geometry.piece(number) {
                    self.tell(node, Event::PieceLost { piece });
                }
                wanted.push(number);
            }
            Content::Missing => wanted.push(number),
        }
    }

    fn touched(&mut self, node: usize, chunk: u32) {
        let row = &mut self.nodes[node];
        if row.touches.is_empty() {
            let life = row.life;
            self.queue.push(self.now + TOUCHES_PAUSE, What::Touches { node: node as u32, life });
        }
        // A guest reads a chunk in many small reads.
        if row.touches.last() != Some(&chunk) {
            row.touches.push(chunk);
        }
    }

    pub(super) fn flush_touches(&mut self, node: usize) {
        let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
        let mut touches = std::mem::take(&mut self.nodes[node].touches);
        for chunk in touches.drain(..).filter_map(|chunk| geometry.chunk(chunk)) {
            self.tell(node, Event::Touched { guest: GUEST, chunk });
        }
        self.nodes[node].touches = touches;
        self.drain(node);
    }

    /// A chunk for which a guest may wait is there.
    pub(super) fn guest_gets(&mut self, node: usize, chunk: u32, is_genuine: bool) {
        let now = self.now;
        let Some(guest) = &mut self.nodes[node].guest else { return };
        let Some(at) = guest.waits.iter().position(|wait| *wait == chunk) else { return };
        guest.waits.swap_remove(at);
        let (done, since, group, script) = (guest.waits.is_empty(), guest.waits_since, guest.group, guest.script);
        self.watch.observe(now, node, Observation::Got { chunk, is_genuine });
        if done {
            let groups = self.setup.scripts[script].groups.len();
            let tally = &mut self.nodes[node].tally;
            tally.stall += now - since;
            tally.stall_bins.resize(STALL_BINS, 0);
            tally.stall_bins[group * STALL_BINS / groups.max(1)] += now - since;
            self.answered(node);
        }
    }

    /// A chunk that could not be kept, for a guest that has come after it was delivered.
    pub(super) fn guest_gets_after_all(&mut self, node: usize, number: u32) {
        let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
        let waits = self.nodes[node].guest.as_ref().is_some_and(|guest| guest.waits.contains(&number));
        if let Some(chunk) = geometry.chunk(number).filter(|_| waits) {
            self.tell(node, Event::Released { guest: GUEST, chunk });
            self.guest_gets(node, number, true);
        }
    }

    /// All of a group is there: the guest thinks, then reads on.
    fn answered(&mut self, node: usize) {
        let read = self.setup.scenario.host.read.0;
        let Some(guest) = &mut self.nodes[node].guest else { return };
        guest.group += 1;
        let (script, group) = (guest.script, guest.group);
        let life = self.nodes[node].life;
        self.nodes[node].tally.reading += read;
        match self.setup.scripts[script].groups.get(group) {
            Some(next) => {
                let think = self.think(node, script, group, next.think);
                let at = self.now + read + think;
                let row = &mut self.nodes[node];
                row.tally.think += think;
                if let Some(guest) = &mut row.guest {
                    guest.reads_at = at;
                }
                self.queue.push(at, What::Read { node: node as u32, life });
            }
            None => self.on_booted(node, read),
        }
    }

    fn on_booted(&mut self, node: usize, read: Nanos) {
        self.note(11, node, 0);
        let row = &mut self.nodes[node];
        row.tally.end = Some(self.now + read);
        row.guest = None;
        self.booting -= 1;
        if self.setup.scenario.leaving.kind == LeavingKind::AfterBoot {
            self.leave(node);
        }
    }

    /// How long a node's guest thinks before a group of its script.
    pub fn think_time(&self, node: usize, script: usize, group: usize) -> Nanos {
        self.setup.scripts[script].groups.get(group).map_or(0, |reads| self.think(node, script, group, reads.think))
    }

    /// The think time of this boot: a little longer or shorter than the recorded one.
    fn think(&self, node: usize, script: usize, group: usize, think: Nanos) -> Nanos {
        let Share(jitter) = self.workload_of(script).1;
        if jitter == 0 || think == 0 {
            return think;
        }
        let draw = stream(self.setup.seed, Purpose::Guest, (node as u64) << 32 | group as u64).below(2 * jitter + 1);
        let part = u128::from(1_000_000 + draw - jitter.min(1_000_000));
        (u128::from(think) * part / 1_000_000) as Nanos
    }

    fn is_left_out(&self, node: usize, script: usize, group: usize) -> bool {
        let Share(skip) = self.workload_of(script).0;
        skip > 0
            && crate::model::chosen(self.setup.seed, Purpose::Guest, (node as u64) << 32 | 1 << 31 | group as u64, skip)
    }

    /// What this script's workload leaves out, and how its think times vary.
    fn workload_of(&self, script: usize) -> (Share, Share) {
        let workload = &self.setup.scenario.workloads[self.setup.script_workloads[script]];
        (workload.skip, workload.jitter)
    }
}
