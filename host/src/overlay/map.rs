//! The map in memory: each unit's state now, and which pages differ from what the file has.
//!
//! *Invariants*: a page that is not there is all the image's. A page is changed here only once the data that it speaks of
//! are in the file, so that a copy that is taken before a sync says nothing that the sync does not cover.
//! *Bounds*: 4 KiB for each 64 MiB of image in which something was written.

use super::error::{OverlayError, io_error};
use super::storage::Storage;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use swarmdisk_core::format::overlay::{
    Header, Layout, PAGE_BYTES, PAGE_UNITS, STATE_BYTES, Slot, States, Unit, are_states, encode_page, newest,
    parse_slot, run, set_units, unit,
};

/// Units whose states are in one byte.
const STATES_A_BYTE: u64 = PAGE_UNITS as u64 / STATE_BYTES as u64;

pub(super) struct Map {
    pages: Vec<Option<Box<Page>>>,
    dirty: BTreeSet<u32>,
    /// Number of the next attempt to write a page: begins at random, as nobody knows what a torn page's was.
    attempt: u32,
}

struct Page {
    states: States,
    /// Of the newest slot that is durable; 0 if none is.
    generation: u64,
    slot: u8,
}

/// A page that a flush is to write: as it was when the flush began.
pub(super) struct Changed {
    page: u32,
    generation: u64,
    slot: u8,
    attempt: u32,
    states: Box<States>,
}

/// How many units are in which state.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) data: u64,
    pub(super) zero: u64,
}

impl Map {
    /// All is the image's.
    pub(super) fn empty(layout: Layout, attempt: u32) -> Self {
        Self { pages: (0..layout.page_count()).map(|_| None).collect(), dirty: BTreeSet::new(), attempt }
    }

    /// What the file says.
    pub(super) fn load(
        storage: &dyn Storage,
        header: &Header,
        path: &Path,
        attempt: u32,
    ) -> Result<Self, OverlayError> {
        let layout = header.layout;
        let mut map = Self::empty(layout, attempt);
        let mut page = 0;
        while page < layout.page_count() {
            // Most of a large overlay's map was never written.
            let data = storage.next_data(layout.slot_offset(page, 0));
            if data >= layout.data_start() {
                break;
            }
            page = page.max(((data - layout.slot_offset(0, 0)) / (2 * PAGE_BYTES as u64)) as u32);
            let mut slots = [[0; PAGE_BYTES]; 2];
            for (slot, bytes) in (0..).zip(&mut slots) {
                storage.read(bytes, layout.slot_offset(page, slot)).map_err(io_error("read", path))?;
            }
            let slots = slots.each_ref().map(|bytes| parse_slot(header, page, bytes));
            let found = newest(slots).map_err(|_| OverlayError::MapDamaged { path: path.to_owned(), page })?;
            if let Some(slot) = found
                && let Slot::Good { generation, states } = slots[usize::from(slot)]
            {
                map.pages[page as usize] = Some(Box::new(Page { states: *states, generation, slot }));
            }
            page += 1;
        }
        Ok(map)
    }

    /// The state of a unit.
    pub(super) fn unit(&self, index: u64) -> Unit {
        let (page, within) = place(index);
        self.pages[page].as_ref().map_or(Unit::Base, |page| unit(&page.states, within))
    }

    /// The runs of units in one state within `units`, in order: (state, how many). Neighbours may be of one state.
    pub(super) fn runs(&self, units: Range<u64>) -> impl Iterator<Item = (Unit, u64)> {
        let mut at = units.start;
        std::iter::from_fn(move || {
            if at >= units.end {
                return None;
            }
            let (page, within) = place(at);
            let end = (u64::from(within) + (units.end - at)).min(PAGE_UNITS.into()) as u32;
            let found = match &self.pages[page] {
                None => (Unit::Base, u64::from(end - within)),
                Some(page) => (unit(&page.states, within), u64::from(run(&page.states, within, end))),
            };
            at += found.1;
            Some(found)
        })
    }

    /// Whether all of these units are the image's.
    pub(super) fn is_all_base(&self, units: Range<u64>) -> bool {
        self.runs(units).all(|(state, _)| state == Unit::Base)
    }

    /// The pages among those of `units` that have no place in the file yet.
    pub(super) fn unplaced(&self, units: Range<u64>) -> Vec<u32> {
        pages_of(units).filter(|page| self.pages[*page as usize].is_none()).collect()
    }

    /// Sets the state of units. What they are said to be must be in the file.
    pub(super) fn set(&mut self, units: Range<u64>, state: Unit) {
        for number in pages_of(units.clone()) {
            let first = u64::from(number) * u64::from(PAGE_UNITS);
            let start = units.start.saturating_sub(first) as u32;
            let end = (units.end - first).min(PAGE_UNITS.into()) as u32;
            let page = self.pages[number as usize]
                .get_or_insert_with(|| Box::new(Page { states: [0; STATE_BYTES], generation: 0, slot: 0 }));
            if unit(&page.states, start) != state || run(&page.states, start, end) < end - start {
                set_units(&mut page.states, start, end - start, state);
                self.dirty.insert(number);
            }
        }
    }

    /// The pages that the file does not have as they are; they count as written from now on.
    pub(super) fn take_changed(&mut self) -> Vec<Changed> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|number| {
            let page = self.pages[number as usize].as_ref()?;
            self.attempt = self.attempt.wrapping_add(1);
            Some(Changed {
                page: number,
                generation: page.generation + 1,
                slot: if page.generation == 0 { 0 } else { 1 - page.slot },
                attempt: self.attempt,
                states: Box::new(page.states),
            })
        });
        changed.collect()
    }

    /// These were not made durable after all.
    pub(super) fn put_back(&mut self, changed: &[Changed]) {
        self.dirty.extend(changed.iter().map(|changed| changed.page));
    }

    /// These are durable.
    pub(super) fn are_durable(&mut self, changed: &[Changed]) {
        for Changed { page, generation, slot, .. } in changed {
            if let Some(page) = &mut self.pages[*page as usize] {
                (page.generation, page.slot) = (*generation, *slot);
            }
        }
    }

    pub(super) fn page_count(&self) -> u32 {
        self.pages.len() as u32
    }

    /// The pages that are there, with their states.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u32, &States)> {
        (0..).zip(&self.pages).filter_map(|(number, page)| Some((number, &page.as_ref()?.states)))
    }

    /// The bytes of the pages' states that have those of `units`: the page, where in it, and the bytes.
    pub(super) fn bytes_of(&self, units: Range<u64>) -> impl Iterator<Item = (u32, usize, &[u8])> {
        pages_of(units.clone()).filter_map(move |number| {
            let first = u64::from(number) * u64::from(PAGE_UNITS);
            let start = (units.start.saturating_sub(first) / STATES_A_BYTE) as usize;
            let end = (units.end - first).min(PAGE_UNITS.into()).div_ceil(STATES_A_BYTE) as usize;
            Some((number, start, &self.pages[number as usize].as_ref()?.states[start..end]))
        })
    }

    /// A page's states are these, whatever the file has; an error if they cannot be.
    pub(super) fn take_up(&mut self, number: u32, states: &States) -> Result<(), ()> {
        if !are_states(states) {
            return Err(());
        }
        let page = self.pages.get_mut(number as usize).ok_or(())?;
        let page = page.get_or_insert_with(|| Box::new(Page { states: [0; STATE_BYTES], generation: 0, slot: 0 }));
        if page.states != *states {
            page.states = *states;
            self.dirty.insert(number);
        }
        Ok(())
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (state, count) in self.runs(0..self.pages.len() as u64 * u64::from(PAGE_UNITS)) {
            match state {
                Unit::Base => {}
                Unit::Data => counts.data += count,
                Unit::Zero => counts.zero += count,
            }
        }
        counts
    }
}

impl Changed {
    /// Where it belongs, and its bytes.
    pub(super) fn encode(&self, header: &Header) -> (u64, [u8; PAGE_BYTES]) {
        let offset = header.layout.slot_offset(self.page, self.slot);
        (offset, encode_page(header, self.page, self.generation, self.attempt, &self.states))
    }
}

/// A unit's page, and its index in that.
fn place(unit: u64) -> (usize, u32) {
    ((unit / u64::from(PAGE_UNITS)) as usize, (unit % u64::from(PAGE_UNITS)) as u32)
}

fn pages_of(units: Range<u64>) -> Range<u32> {
    let pages = u64::from(PAGE_UNITS);
    if units.is_empty() { 0..0 } else { (units.start / pages) as u32..units.end.div_ceil(pages) as u32 }
}
