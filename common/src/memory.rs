//! An engine's tables, and its policies', which whoever runs it owns.
//!
//! *Bounds*: what [`Footprint::of`] and [`Policies`] say, taken once.

use swarmdisk_core::engine::{Change, Contact, Demand, Footprint, PeerRow, Served, Storage, Touch, Transfer, Upload};
use swarmdisk_core::format::recording::Policies;
use swarmdisk_core::policy::Lesson;

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
    touches: Vec<Touch>,
    lessons: Vec<Lesson>,
}

impl Memory {
    /// As much as an engine with these policies needs.
    pub fn new(need: Footprint, policies: &Policies) -> Self {
        Self {
            words: vec![0; need.words],
            peers: vec![PeerRow::EMPTY; need.peers],
            transfers: vec![Transfer::EMPTY; need.transfers],
            uploads: vec![Upload::EMPTY; need.uploads],
            demands: vec![Demand::EMPTY; need.demands],
            contacts: vec![Contact::EMPTY; need.contacts],
            changes: vec![Change::EMPTY; need.changes],
            served: vec![Served::EMPTY; need.served],
            touches: vec![Touch::EMPTY; need.touches],
            lessons: vec![Lesson::EMPTY; policies.live.map_or(0, |live| live.lessons.into())],
        }
    }

    /// Lent to the engine, and to its policies.
    pub fn storage(&mut self) -> (Storage<'_>, &mut [Lesson]) {
        let storage = Storage {
            words: &mut self.words,
            peers: &mut self.peers,
            transfers: &mut self.transfers,
            uploads: &mut self.uploads,
            demands: &mut self.demands,
            contacts: &mut self.contacts,
            changes: &mut self.changes,
            served: &mut self.served,
            touches: &mut self.touches,
        };
        (storage, &mut self.lessons)
    }
}
