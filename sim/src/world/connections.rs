//! Connections between nodes: dialling, frames and bodies on their way, closing.
//!
//! *Invariants*: a side hears of everything that was sent before the other closed, then of the close; a connection's number
//! is used again only when both sides have let go of it. While two nodes cannot reach each other, what is sent waits, as
//! TCP repeats it, and comes once they can.

use super::node::{CREDIT_BYTES, Link, Phase, address};
use super::queue::What;

use super::{Observation, Watch, World};
use crate::network::{Nanos, Occurrence, PipeId};
use swarmdisk_core::engine::{Event, Landing, PeerError, Received};
use swarmdisk_core::geometry::Piece;
use swarmdisk_core::ids::{PeerId, SlotId};
use swarmdisk_core::wire::{Kind, Role};

/// How long a dialler waits for an answer from nowhere.
const CONNECT_TIMEOUT: Nanos = 5_000_000_000;
/// The pause after which the engine hears what sockets have taken.
const TAKEN_PAUSE: Nanos = 50_000;

/// A side of a connection.
#[derive(Debug, Copy, Clone)]
pub(super) struct End {
    pub node: u32,
    pub life: u32,
    pub peer: PeerId,
    /// Whether this side has let go.
    gone: bool,
    /// The slot into which the body that is on its way here lands.
    landing: Option<SlotId>,
}

/// A connection; side 0 has dialled. Pipe n carries what side n sends.
#[derive(Debug)]
pub(super) struct Connection {
    pub ends: [End; 2],
    /// None: closed, and perhaps another's by now.
    pub(super) pipes: [Option<PipeId>; 2],
    pub(super) generation: u32,
    /// What waits until the two can reach each other, by the side that sent it.
    stuck: [Vec<u32>; 2],
}

/// Something on its way.
#[derive(Debug)]
pub(super) enum Parcel {
    /// Manifest and profile.
    Bootstrap { node: u32, life: u32, from: u32, pipe: PipeId, bytes: u32 },
    /// A frame's head.
    Head { connection: u32, generation: u32, from: u8, head: Box<[u8]> },
    /// A frame of the host's own, of which its engine knows nothing.
    Own { connection: u32, generation: u32, from: u8, head: Box<[u8]> },
    /// A frame's body.
    Body { connection: u32, generation: u32, from: u8, piece: u32, bytes: u32, is_genuine: bool },
    /// The sender has closed.
    End { connection: u32, generation: u32, from: u8 },
}

impl<W: Watch> World<'_, W> {
    /// Whether packets get from one node to another.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        from.cut == to.cut && from.phase != Phase::Dark && to.phase != Phase::Dark
    }

    pub(super) fn rtt(&self, from: usize, to: usize) -> Nanos {
        let host = |node: usize| self.setup.nodes[node].host;
        2 * self.network.topology().latency(host(from), host(to))
    }

    pub(super) fn dial(&mut self, node: usize, peer: PeerId, to: usize) {
        self.nodes[node].links[peer.index()] = Some(Link { peer, up: None });
        let life = self.nodes[node].life;
        let rtt = if to < self.nodes.len() { self.rtt(node, to) } else { 0 } + self.held_up().unwrap_or(0);
        // TCP's handshake, and the dialler's preface.
        self.queue.push(self.now + rtt * 3 / 2, What::Dialled { node: node as u32, life, peer, to: to as u32 });
    }

    pub(super) fn on_dialled(&mut self, node: usize, peer: PeerId, to: usize) {
        let life = self.nodes[node].life;
        let not_opened = What::NotOpened { node: node as u32, life, peer };
        if to >= self.nodes.len() || !self.reaches(node, to) {
            return self.queue.push(self.now + CONNECT_TIMEOUT, not_opened);
        }
        if self.now < self.nodes[to].paused_until {
            // Its host answers, but it does not.
            let what = What::Dialled { node: node as u32, life, peer, to: to as u32 };
            return self.queue.push(self.nodes[to].paused_until, what);
        }
        let back = self.rtt(node, to) / 2;
        let now = self.engine_now(to);
        let from = address(node, 0);
        let admitted = self.nodes[to].engine.as_mut().and_then(|engine| engine.admit(now, from, CREDIT_BYTES));
        let Some(remote) = admitted else { return self.queue.push(self.now + back, not_opened) };
        self.note(4, to, node as u64);
        let connection = self.add_connection((node, peer), (to, remote));
        self.nodes[to].links[remote.index()] = Some(Link { peer: remote, up: Some((connection, 1)) });
        let generation = self.connections[connection as usize].generation;
        let opened = What::Opened { node: node as u32, life, peer, connection, generation };
        self.queue.push(self.now + back, opened);
        self.drain(to);
    }

    pub(super) fn on_opened(&mut self, node: usize, peer: PeerId, connection: u32, generation: u32) {
        let row = &mut self.nodes[node].links[peer.index()];
        match row.as_mut().filter(|link| link.peer == peer && link.up.is_none()) {
            Some(link) => {
                link.up = Some((connection, 0));
                self.note(5, node, connection.into());
                self.tell(node, Event::PeerOpened { peer, credit_bytes: CREDIT_BYTES });
                self.drain(node);
                let to = self.connections[connection as usize].ends[1].node as usize;
                if self.setup.nodes[to].role == Role::Seed {
                    self.can_be_named(to, node);
                }
            }
            // The engine has hung up in the meantime.
            None => self.abort(connection, generation),
        }
    }

    /// The dialler has ended before its connection was up; that may have broken in the meantime, and be another by now.
    pub(super) fn abort(&mut self, connection: u32, generation: u32) {
        if self.connections[connection as usize].generation == generation {
            self.let_go(connection, 0);
        }
    }

    pub(super) fn on_not_opened(&mut self, node: usize, peer: PeerId) {
        if self.forget_link(node, peer).is_some() {
            self.note(6, node, peer.index() as u64);
            self.tell(node, Event::PeerClosed { peer });
            self.drain(node);
        }
    }

    /// The node closes a link: what it has sent still arrives, and then the news.
    pub(super) fn hang_up(&mut self, node: usize, peer: PeerId) {
        if let Some(Link { up: Some((connection, side)), .. }) = self.forget_link(node, peer) {
            self.let_go(connection, side);
        }
    }

    fn forget_link(&mut self, node: usize, peer: PeerId) -> Option<Link> {
        let link = self.nodes[node].links.get_mut(peer.index())?.take_if(|link| link.peer == peer)?;
        if let Some((connection, side)) = link.up
            && let Some(slot) = self.connections[connection as usize].ends[usize::from(side)].landing.take()
        {
            self.watch.observe(self.now, node, Observation::Released { slot });
        }
        Some(link)
    }

    /// A side lets go of a connection.
    pub(super) fn let_go(&mut self, connection: u32, side: u8) {
        let row = &mut self.connections[connection as usize];
        if std::mem::replace(&mut row.ends[usize::from(side)].gone, true) {
            return;
        }
        if row.ends[usize::from(1 - side)].gone {
            return self.free_connection(connection);
        }
        let (Some(pipe), generation) = (row.pipes[usize::from(side)], row.generation) else { return };
        let tag = self.add_parcel(Parcel::End { connection, generation, from: side });
        self.network.send(self.now, pipe, 1, tag);
    }

    /// A process has ended: its host resets its links, or says nothing at all if it is dark.
    pub(super) fn break_links(&mut self, node: usize, silently: bool) {
        let links: Vec<Link> = std::mem::take(&mut self.nodes[node].links).into_iter().flatten().collect();
        for (connection, side) in links.into_iter().filter_map(|link| link.up) {
            let row = &mut self.connections[connection as usize];
            row.ends[usize::from(side)].gone = true;
            let (generation, other) = (row.generation, row.ends[1 - usize::from(side)]);
            if other.gone {
                self.free_connection(connection);
                continue;
            }
            self.close_pipe(connection, usize::from(side));
            if !silently {
                let at = self.now + self.rtt(node, other.node as usize) / 2;
                self.queue.push(at, What::Reset { connection, generation, side: 1 - side });
            }
        }
    }

    /// A host that was dark answers again, and knows nothing of the connections that it had.
    pub(super) fn reset_peers_of(&mut self, node: usize) {
        for connection in 0..self.connections.len() as u32 {
            let row = &self.connections[connection as usize];
            let side = row.ends.iter().position(|end| end.node as usize == node && end.gone);
            if let Some(side) = side.filter(|side| !row.ends[1 - *side].gone) {
                let generation = row.generation;
                self.queue.push(self.now + 1, What::Reset { connection, generation, side: 1 - side as u8 });
            }
        }
    }

    /// Connections of a node break, though both sides live.
    pub(super) fn disconnect(&mut self, node: usize) {
        let up = self.nodes[node].links.iter().flatten().filter_map(|link| link.up).collect::<Vec<_>>();
        for (connection, side) in up {
            let generation = self.connections[connection as usize].generation;
            for side in [side, 1 - side] {
                self.queue.push(self.now + 1, What::Reset { connection, generation, side });
            }
        }
    }

    /// A side learns that the other is gone, or that the connection has broken.
    pub(super) fn on_reset(&mut self, connection: u32, generation: u32, side: usize) {
        let row = &mut self.connections[connection as usize];
        let end = row.ends[side];
        if row.generation != generation || end.gone {
            return;
        }
        let paused_until = self.nodes[end.node as usize].paused_until;
        if self.now < paused_until {
            let what = What::Reset { connection, generation, side: side as u8 };
            return self.queue.push(paused_until, what);
        }
        row.ends[side].gone = true;
        let both = row.ends[1 - side].gone;
        self.close_pipe(connection, side);
        if both {
            self.free_connection(connection);
        }
        let node = end.node as usize;
        if self.nodes[node].life == end.life && self.forget_link(node, end.peer).is_some() {
            self.note(7, node, connection.into());
            self.tell(node, Event::PeerClosed { peer: end.peer });
            self.drain(node);
        }
    }

    /// Hands a head, and perhaps a body, to a link's connection.
    pub(super) fn transmit(&mut self, node: usize, peer: PeerId, head: Box<[u8]>, body: Option<(u32, u32)>) {
        let link = self.nodes[node].links.get(peer.index()).copied().flatten().filter(|link| link.peer == peer);
        let Some((connection, side)) = link.and_then(|link| link.up) else { return };
        let row = &self.connections[connection as usize];
        let (Some(pipe), generation) = (row.pipes[usize::from(side)], row.generation) else { return };
        let to = row.ends[1 - usize::from(side)].node as usize;
        let head_bytes = head.len() as u32;
        let sent_bytes = head_bytes + body.map_or(0, |(_, bytes)| bytes);
        self.watch.observe(self.now, node, Observation::Sent { to, bytes: sent_bytes });
        let tag = self.add_parcel(Parcel::Head { connection, generation, from: side, head });
        let mut taken = 0;
        if self.network.send(self.now, pipe, head_bytes, tag) {
            taken += head_bytes;
        }
        if let Some((piece, bytes)) = body.filter(|(_, bytes)| *bytes > 0) {
            let is_genuine = self.is_genuine(node, piece);
            let parcel = Parcel::Body { connection, generation, from: side, piece, bytes, is_genuine };
            let tag = self.add_parcel(parcel);
            if self.network.send(self.now, pipe, bytes, tag) {
                taken += bytes;
            }
        }
        self.note_taken(node, peer, taken);
    }

    /// Whether what a node sends as a piece will arrive as the image has it.
    fn is_genuine(&mut self, node: usize, piece: u32) -> bool {
        let corrupted = self.corrupt_ppm > 0 && self.draws.below(1_000_000) < self.corrupt_ppm;
        let stored = self.nodes[node].store.open(piece) == crate::model::Content::Genuine;
        stored && !corrupted && !self.nodes[node].lies
    }

    fn note_taken(&mut self, node: usize, peer: PeerId, bytes: u32) {
        if bytes == 0 {
            return;
        }
        let row = &mut self.nodes[node];
        if row.taken.is_empty() {
            let life = row.life;
            self.queue.push(self.now + TAKEN_PAUSE, What::Taken { node: node as u32, life });
        }
        match row.taken.iter_mut().find(|(other, _)| *other == peer) {
            Some((_, sum)) => *sum += bytes,
            None => row.taken.push((peer, bytes)),
        }
    }

    pub(super) fn flush_taken(&mut self, node: usize) {
        let mut taken = std::mem::take(&mut self.nodes[node].taken);
        for (peer, bytes) in taken.drain(..) {
            self.tell(node, Event::PeerWritable { peer, bytes });
        }
        self.nodes[node].taken = taken;
        self.drain(node);
    }

    pub(super) fn on_network(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Taken { tag } => self.on_taken(tag),
            Occurrence::Arrived { tag } => self.on_arrived(tag),
        }
    }

    fn on_taken(&mut self, tag: u32) {
        let (connection, generation, from, bytes) = match &self.parcels[tag as usize] {
            Some(Parcel::Head { connection, generation, from, head }) => {
                (*connection, *generation, *from, head.len() as u32)
            }
            Some(Parcel::Body { connection, generation, from, bytes, .. }) => (*connection, *generation, *from, *bytes),
            _ => return,
        };
        let row = &self.connections[connection as usize];
        let end = row.ends[usize::from(from)];
        if row.generation == generation && !end.gone && self.nodes[end.node as usize].life == end.life {
            self.note_taken(end.node as usize, end.peer, bytes);
        }
    }

    /// Something has come through the network; if its end cannot be reached now, it waits.
    fn on_arrived(&mut self, tag: u32) {
        let (connection, generation, from) = match &self.parcels[tag as usize] {
            Some(Parcel::Bootstrap { .. }) => return self.on_bootstrapped(tag),
            Some(
                Parcel::Head { connection, generation, from, .. }
                | Parcel::Own { connection, generation, from, .. }
                | Parcel::Body { connection, generation, from, .. }
                | Parcel::End { connection, generation, from },
            ) => (*connection, *generation, *from),
            None => return,
        };
        let row = &self.connections[connection as usize];
        if row.generation != generation {
            return self.drop_parcel(tag);
        }
        let (sender, receiver) = (row.ends[usize::from(from)], row.ends[usize::from(1 - from)]);
        let (sender, receiver) = (sender.node as usize, receiver.node as usize);
        let waits = !row.stuck[usize::from(from)].is_empty() || !self.comes_through(sender, receiver);
        let held_up = if waits { None } else { self.held_up() };
        if let Some(held_up) = held_up {
            self.queue.push(self.now + held_up, What::Release { connection, generation, side: from });
        }
        if waits || held_up.is_some() {
            return self.connections[connection as usize].stuck[usize::from(from)].push(tag);
        }
        self.deliver(tag);
    }

    /// Whether a node takes now what another has sent.
    fn comes_through(&self, sender: usize, receiver: usize) -> bool {
        self.now >= self.nodes[receiver].paused_until && self.nodes[sender].cut == self.nodes[receiver].cut
    }

    /// What has waited comes, now that it can.
    pub(super) fn release_stuck(&mut self) {
        for connection in 0..self.connections.len() as u32 {
            let generation = self.connections[connection as usize].generation;
            (0..2).for_each(|side| self.release(connection, generation, side));
        }
    }

    /// What a side has sent and what has waited comes, unless the other cannot be reached.
    pub(super) fn release(&mut self, connection: u32, generation: u32, side: usize) {
        let row = &mut self.connections[connection as usize];
        if row.generation != generation {
            return;
        }
        let (sender, receiver) = (row.ends[side].node as usize, row.ends[1 - side].node as usize);
        if !self.comes_through(sender, receiver) {
            return;
        }
        let stuck = std::mem::take(&mut self.connections[connection as usize].stuck[side]);
        for tag in stuck {
            let row = &self.connections[connection as usize];
            match row.generation == generation {
                true => self.deliver(tag),
                false => self.drop_parcel(tag),
            }
        }
    }

    fn deliver(&mut self, tag: u32) {
        let Some(parcel) = self.take_parcel(tag) else { return };
        match parcel {
            Parcel::Bootstrap { .. } => {}
            Parcel::Head { connection, generation, from, head }
            | Parcel::Own { connection, generation, from, head } => {
                if let Some((node, peer)) = self.receiver(connection, generation, from) {
                    self.on_head(node, peer, &head);
                    self.drain(node);
                }
            }
            Parcel::Body { connection, generation, from, piece, bytes, is_genuine } => {
                if let Some((node, peer)) = self.receiver(connection, generation, from) {
                    self.on_body(node, peer, piece, bytes, is_genuine);
                    self.drain(node);
                }
            }
            Parcel::End { connection, generation, from } => {
                self.on_reset(connection, generation, usize::from(1 - from))
            }
        }
    }

    /// Who gets what a side has sent, if it still listens.
    fn receiver(&self, connection: u32, generation: u32, from: u8) -> Option<(usize, PeerId)> {
        let row = &self.connections[connection as usize];
        let end = row.ends[usize::from(1 - from)];
        let listens = row.generation == generation && !end.gone && self.nodes[end.node as usize].life == end.life;
        listens.then_some((end.node as usize, end.peer))
    }

    fn on_head(&mut self, node: usize, peer: PeerId, head: &[u8]) {
        let kind = head.get(2).copied().unwrap_or_default();
        self.note(8, node, u64::from(kind) << 32 | peer.index() as u64);
        let tally = &mut self.nodes[node].tally;
        tally.metadata_bytes += head.len() as u64;
        tally.frames += 1;
        if self.is_put_off(node, peer, head) {
            return;
        }
        let now = self.engine_now(node);
        let Some(engine) = &mut self.nodes[node].engine else { return };
        let landing = match engine.receive(now, peer, head) {
            Ok(Received::Head { body, .. }) => body,
            Ok(Received::NeedMore { .. }) => return self.accuse(node, peer),
            Err(PeerError::Bye(_)) => return self.part(node, peer),
            Err(_) => return self.accuse(node, peer),
        };
        let slot = match landing {
            Landing::Land { slot, bytes: 0 } => {
                self.watch.observe(self.now, node, Observation::Landing { slot });
                self.nodes[node].slots[slot.index()] = true;
                return self.tell(node, Event::BodyLanded { slot });
            }
            Landing::Land { slot, .. } => {
                self.watch.observe(self.now, node, Observation::Landing { slot });
                Some(slot)
            }
            Landing::None | Landing::Discard { .. } => None,
        };
        if kind == Kind::Data as u8
            && let Some(end) = self.end_of(node, peer)
        {
            end.landing = slot;
        }
    }

    fn end_of(&mut self, node: usize, peer: PeerId) -> Option<&mut End> {
        let link = self.nodes[node].links.get(peer.index()).copied().flatten().filter(|link| link.peer == peer)?;
        let (connection, side) = link.up?;
        Some(&mut self.connections[connection as usize].ends[usize::from(side)])
    }

    fn on_body(&mut self, node: usize, peer: PeerId, piece: u32, bytes: u32, is_genuine: bool) {
        self.note(9, node, u64::from(piece) << 1 | u64::from(is_genuine));
        self.count_body(node, peer, piece, bytes);
        let Some(slot) = self.end_of(node, peer).and_then(|end| end.landing.take()) else { return };
        self.nodes[node].slots[slot.index()] = is_genuine;
        self.tell(node, Event::BodyLanded { slot });
    }

    fn count_body(&mut self, node: usize, peer: PeerId, piece: u32, bytes: u32) {
        let Some(link) = self.nodes[node].links[peer.index()].and_then(|link| link.up) else { return };
        let sender = self.connections[link.0 as usize].ends[usize::from(1 - link.1)].node as usize;
        let geometry = self.setup.images[self.setup.nodes[node].image].geometry;
        let is_leaf = geometry.piece(piece).is_none_or(|piece| matches!(geometry.kind(piece), Piece::Leaf(_)));
        let (from, to) = (self.setup.nodes[sender].host, self.setup.nodes[node].host);
        let is_far = self.network.topology().rack(from) != self.network.topology().rack(to);
        let bytes = u64::from(bytes);
        let is_origin = self.setup.nodes[sender].role == Role::Seed;
        let tally = &mut self.nodes[node].tally;
        if is_leaf {
            tally.metadata_bytes += bytes;
            return;
        }
        *if is_origin { &mut tally.origin_bytes } else { &mut tally.peer_bytes } += bytes;
        tally.far_bytes += if is_far { bytes } else { 0 };
        tally.far_origin_bytes += if is_far && is_origin { bytes } else { 0 };
        self.nodes[sender].tally.uploaded_bytes += bytes;
        self.timeline.add(self.now, bytes, is_origin);
    }

    /// The peer has broken the protocol: the link ends.
    fn accuse(&mut self, node: usize, peer: PeerId) {
        if let Some((connection, side)) = self.nodes[node].links[peer.index()].and_then(|link| link.up) {
            let whom = self.connections[connection as usize].ends[usize::from(1 - side)].node as usize;
            self.watch.observe(self.now, node, Observation::Accused { whom });
        }
        self.part(node, peer);
    }

    fn part(&mut self, node: usize, peer: PeerId) {
        self.hang_up(node, peer);
        self.tell(node, Event::PeerClosed { peer });
    }

    fn on_bootstrapped(&mut self, tag: u32) {
        let Some(Parcel::Bootstrap { node, life, from, pipe, bytes }) = self.take_parcel(tag) else { return };
        self.drop_unsent(pipe);
        self.bootstrap_ended(from as usize);
        let row = &mut self.nodes[node as usize];
        if row.life == life && row.phase == Phase::Starting {
            row.tally.metadata_bytes += u64::from(bytes);
            self.begin(node as usize);
        }
    }

    pub(super) fn add_parcel(&mut self, parcel: Parcel) -> u32 {
        match self.free_parcels.pop() {
            Some(tag) => {
                self.parcels[tag as usize] = Some(parcel);
                tag
            }
            None => {
                self.parcels.push(Some(parcel));
                self.parcels.len() as u32 - 1
            }
        }
    }

    fn take_parcel(&mut self, tag: u32) -> Option<Parcel> {
        let parcel = self.parcels[tag as usize].take()?;
        self.free_parcels.push(tag);
        Some(parcel)
    }

    fn drop_parcel(&mut self, tag: u32) {
        drop(self.take_parcel(tag));
    }

    /// Sends what was planned for a pipe.
    pub(super) fn send_later(&mut self, pipe: PipeId, bytes: u32, tag: u32) {
        self.network.send(self.now, pipe, bytes, tag);
    }

    /// Closes what a side sends through, if it has not been closed before.
    fn close_pipe(&mut self, connection: u32, side: usize) {
        if let Some(pipe) = self.connections[connection as usize].pipes[side].take() {
            self.drop_unsent(pipe);
        }
    }

    fn drop_unsent(&mut self, pipe: PipeId) {
        let mut dropped = Vec::new();
        self.network.close(self.now, pipe, &mut dropped);
        dropped.into_iter().for_each(|tag| self.drop_parcel(tag));
    }

    fn add_connection(&mut self, dialler: (usize, PeerId), listener: (usize, PeerId)) -> u32 {
        let hosts = [self.setup.nodes[dialler.0].host, self.setup.nodes[listener.0].host];
        let pipes = [self.network.open(hosts[0], hosts[1]), self.network.open(hosts[1], hosts[0])].map(Some);
        let end = |(node, peer): (usize, PeerId)| End {
            node: node as u32,
            life: self.nodes[node].life,
            peer,
            gone: false,
            landing: None,
        };
        let ends = [end(dialler), end(listener)];
        match self.free_connections.pop() {
            Some(index) => {
                let row = &mut self.connections[index as usize];
                *row = Connection { ends, pipes, generation: row.generation + 1, stuck: Default::default() };
                index
            }
            None => {
                self.connections.push(Connection { ends, pipes, generation: 0, stuck: Default::default() });
                self.connections.len() as u32 - 1
            }
        }
    }

    /// Both sides have let go.
    fn free_connection(&mut self, connection: u32) {
        let row = &mut self.connections[connection as usize];
        row.generation += 1;
        let stuck: Vec<u32> = row.stuck.iter_mut().flat_map(std::mem::take).collect();
        stuck.into_iter().for_each(|tag| self.drop_parcel(tag));
        (0..2).for_each(|side| self.close_pipe(connection, side));
        self.free_connections.push(connection);
    }
}
