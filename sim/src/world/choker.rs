//! A seed that serves few nodes at a time, as BitTorrent's does: a comparator, which no host of ours runs.
//!
//! *Model*: BitTorrent's choking as far as a seed has it. So many nodes are unchoked for a term each, and one more, the
//! optimistic one, for three terms. Who asks while it is choked is told to come back ([`RETRY`]) and waits in line; the first
//! in line is unchoked when a term is over, or when an unchoked node has asked for nothing for [`IDLE`] (it is not interested).
//! With nobody in line whoever is unchoked stays so. Unlike BitTorrent's, a request that was taken before its node was choked
//! is still served, and a node hears that it is unchoked when it asks again, not at once.
//! *Bounds*: a row an unchoked node, a row a node in line.

use super::connections::Parcel;
use super::{Watch, World};
use crate::network::Nanos;
use std::collections::VecDeque;
use swarmdisk_core::ids::PeerId;
use swarmdisk_core::wire::{self, Busy, Decoded, Frame, HEAD_BYTES_MAX, Run};

/// When a choked node is to ask again.
const RETRY: Nanos = 1_000_000_000;
/// Who has not asked for so long wants nothing.
const IDLE: Nanos = 2 * RETRY;
/// Terms of the optimistic one.
const OPTIMISTIC_TERMS: u64 = 3;

/// A node that is served.
#[derive(Debug, Copy, Clone)]
struct Unchoked<P> {
    peer: P,
    since: Nanos,
    asked: Nanos,
}

/// Whom a seed serves.
#[derive(Debug)]
pub(super) struct Choker<P = PeerId> {
    /// The last is the optimistic one.
    unchoked: Vec<Option<Unchoked<P>>>,
    term: Nanos,
    /// Who waits, and when it asked last.
    line: VecDeque<(P, Nanos)>,
}

impl<P: Copy + PartialEq> Choker<P> {
    /// Serves so many and one more.
    pub(super) fn new(regular: u16, term: Nanos) -> Self {
        Self { unchoked: vec![None; usize::from(regular) + 1], term, line: VecDeque::new() }
    }

    /// Whether a node that asks for something is served.
    pub(super) fn asks(&mut self, now: Nanos, peer: P) -> bool {
        if let Some(row) = self.unchoked.iter_mut().flatten().find(|row| row.peer == peer) {
            row.asked = now;
        } else if let Some((_, asked)) = self.line.iter_mut().find(|(other, _)| *other == peer) {
            *asked = now;
        } else {
            self.line.push_back((peer, now));
        }
        self.turn(now);
        self.unchoked.iter().flatten().any(|row| row.peer == peer)
    }

    /// Unchokes those in line for whom there is room; those who are choked for them go to its end.
    fn turn(&mut self, now: Nanos) {
        self.line.retain(|(_, asked)| now - asked < IDLE);
        let optimistic = self.unchoked.len() - 1;
        for (number, place) in self.unchoked.iter_mut().enumerate() {
            let term = if number == optimistic { self.term.saturating_mul(OPTIMISTIC_TERMS) } else { self.term };
            *place = place.filter(|row| now - row.asked < IDLE);
            if place.is_none_or(|row| now - row.since >= term) {
                let Some((peer, asked)) = self.line.pop_front() else { continue };
                let choked = place.replace(Unchoked { peer, since: now, asked });
                self.line.extend(choked.map(|row| (row.peer, row.asked)));
            }
        }
    }
}

impl<W: Watch> World<'_, W> {
    /// Whether a request comes to a seed that its sender is choked at: then it is told to come back, and the seed's engine
    /// hears nothing of it.
    pub(super) fn is_put_off(&mut self, node: usize, peer: PeerId, head: &[u8]) -> bool {
        let Some(choker) = &mut self.nodes[node].choker else { return false };
        let Ok(Decoded::Frame { frame: Frame::Request(request), .. }) = wire::decode(head) else { return false };
        if choker.asks(self.now, peer) {
            return false;
        }
        if !request.raise {
            self.put_off(node, peer, request.run);
        }
        true
    }

    fn put_off(&mut self, node: usize, peer: PeerId, run: Run) {
        let link = self.nodes[node].links.get(peer.index()).copied().flatten().filter(|link| link.peer == peer);
        let Some((connection, side)) = link.and_then(|link| link.up) else { return };
        let row = &self.connections[connection as usize];
        let (Some(pipe), generation) = (row.pipes[usize::from(side)], row.generation) else { return };
        let busy = Frame::Busy(Busy { run, retry_millis: (RETRY / 1_000_000) as u16 });
        let mut head = [0; HEAD_BYTES_MAX];
        let bytes = match wire::encode(&busy, &mut head) {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("the longest head has room: {error:?}"),
        };
        let tag = self.add_parcel(Parcel::Own { connection, generation, from: side, head: head[..bytes].into() });
        self.network.send(self.now, pipe, bytes as u32, tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    /// Whom of nodes 0 to 3, who all ask each second, a seed serves that gives one of them terms of 10 s, by the second.
    fn served(seconds: std::ops::Range<u64>) -> Vec<Vec<u16>> {
        let mut choker = Choker::new(1, 10 * SECOND);
        let mut asks = |second, node: u16| choker.asks(second * SECOND + u64::from(node), node);
        seconds.map(|second| (0..4).filter(|node| asks(second, *node)).collect()).collect()
    }

    #[test]
    fn nodes_take_turns() {
        let served = served(0..62);
        assert!(served[..10].iter().all(|nodes| *nodes == [0, 1]), "{served:?}");
        assert!(served[11..20].iter().all(|nodes| *nodes == [1, 2]), "node 1 is the optimistic one: {served:?}");
        assert!(served[21..30].iter().all(|nodes| *nodes == [1, 3]), "{served:?}");
        let later: std::collections::BTreeSet<u16> = served[31..].iter().flatten().copied().collect();
        assert_eq!(later.len(), 4, "everybody has had another turn: {served:?}");
        assert!(served.iter().all(|nodes| nodes.len() <= 2), "{served:?}");
    }

    #[test]
    fn who_wants_nothing_more_makes_room_and_who_is_alone_stays() {
        let mut choker = Choker::new(1, 10 * SECOND);
        let mut asks = |second, node: u16| choker.asks(second * SECOND, node);
        assert!(asks(0, 0) && asks(0, 1) && !asks(0, 2));
        assert!(asks(1, 0) && !asks(1, 2));
        assert!(asks(2, 0) && asks(2, 2), "node 1 has been silent");
        assert!(asks(100, 0) && asks(101, 0), "nobody else asks");
    }
}
