//! An engine's tables, which whoever runs it owns.
//!
//! *Bounds*: what [`Footprint::of`] says, taken once.

use swarmdisk_core::engine::{Change, Contact, Demand, Footprint, PeerRow, Served, Storage, Transfer, Upload};

/// The engine's tables.
#[derive(Debug)]
pub struct Memory {
    words: Vec<u64>,
    peers: Vec<PeerRow>,
    transfers: Vec<Transfer>,
    uploads: Vec<Upload>,
    demands: Vec<Demand>,
    contacts: Vec<Contact>,
    changes: Vec<Change>,
    served: Vec<Served>,
}

impl Memory {
    /// As much as the engine needs.
    pub fn new(need: Footprint) -> Self {
        Self {
            words: vec![0; need.words],
            peers: vec![PeerRow::EMPTY; need.peers],
            transfers: vec![Transfer::EMPTY; need.transfers],
            uploads: vec![Upload::EMPTY; need.uploads],
            demands: vec![Demand::EMPTY; need.demands],
            contacts: vec![Contact::EMPTY; need.contacts],
            changes: vec![Change::EMPTY; need.changes],
            served: vec![Served::EMPTY; need.served],
        }
    }

    /// Lent to the engine.
    pub fn storage(&mut self) -> Storage<'_> {
        Storage {
            words: &mut self.words,
            peers: &mut self.peers,
            transfers: &mut self.transfers,
            uploads: &mut self.uploads,
            demands: &mut self.demands,
            contacts: &mut self.contacts,
            changes: &mut self.changes,
            served: &mut self.served,
        }
    }
}
