//! *Budget*: nobody uses more than its limits allow, and all that was taken is given back.
//!
//! - A slot that `Land` has named comes to its end once: by Store, by Abandon, or with its link; there are never more of them
//!   than fetches may be in flight, and the engine counts as many as the host does.
//! - Nobody is accused of breaking the protocol: not even a liar does, its frames are right.
//! - Between two events an engine does no more than its tables give reason for.
//! - Its tables are consistent ([`check_invariants`](swarmdisk_core::engine::Engine::check_invariants), which panics).

use super::Judgement;
use crate::model::Setup;
use crate::network::Nanos;
use crate::world::Observation;
use swarmdisk_core::engine::Limits;
use swarmdisk_core::ids::SlotId;
use swarmdisk_core::wire::Role;

/// Requests, taking them back, Verify, Deliver, Store of one fetch, and as many again of the one that takes its place.
const ACTIONS_A_FETCH: u32 = 10;
/// Load and the answer.
const ACTIONS_AN_UPLOAD: u32 = 2;
/// Hello, offer, ping, pong, contacts, farewell, hang-up and the next dial.
const ACTIONS_A_LINK: u32 = 10;
/// Pieces of a map's frame, at the least.
const PIECES_A_FRAME: u32 = 128;

/// See the module's docs.
#[derive(Debug)]
pub struct Budget {
    /// By node.
    nodes: Vec<Used>,
    polls_until_due: u32,
    invariants_every: u32,
    /// Slots that were named.
    pub slot_count: u64,
    /// Polls of engines.
    pub poll_count: u64,
    /// Times that an engine's tables were looked through.
    pub invariants_count: u64,
}

#[derive(Debug, Clone)]
struct Used {
    /// Since when each slot is in use.
    slots: Vec<Option<(SlotId, Nanos)>>,
    slot_count: usize,
    actions_max: u32,
}

impl Budget {
    /// For a run of `setup`; the engines' tables are looked through once in `invariants_every` polls.
    pub fn new(setup: &Setup, invariants_every: u32) -> Self {
        let seeds = &setup.scenario.seeds;
        let used = |node: &crate::model::NodeSetup| {
            let policy = setup.scenario.policy_of(node.group);
            let pieces = setup.images[node.image].geometry.piece_count();
            let (transfers, links, requests) = match node.role {
                // A seed's engine fetches nothing.
                Role::Seed => (0, u32::from(seeds.links), u32::from(setup.scenario.seed_requests())),
                Role::Node => {
                    (policy.transfers.into(), u32::from(policy.links_max), u32::from(policy.requests_per_peer))
                }
            };
            // A full cache gains a piece and loses one in turn, and each of these changes is a frame.
            let told =
                if node.role == Role::Seed { 0 } else { pieces / PIECES_A_FRAME + u32::from(Limits::NODE.changes) };
            let of_links = links * (ACTIONS_A_LINK + told + requests * ACTIONS_AN_UPLOAD);
            Used::new(transfers as usize, transfers * ACTIONS_A_FETCH + of_links)
        };
        Self::of(setup.nodes.iter().map(used).collect(), invariants_every)
    }

    fn of(nodes: Vec<Used>, invariants_every: u32) -> Self {
        let every = invariants_every.max(1);
        let (slot_count, poll_count, invariants_count) = (0, 0, 0);
        Self { nodes, polls_until_due: every, invariants_every: every, slot_count, poll_count, invariants_count }
    }

    /// Something has happened at a node.
    ///
    /// # Errors
    /// A slot that is used twice, too many of them, or a peer that breaks the protocol.
    pub fn observe(&mut self, now: Nanos, node: usize, what: Observation) -> Judgement {
        let used = &mut self.nodes[node];
        match what {
            Observation::Landing { slot } => {
                self.slot_count += 1;
                used.land(now, slot)
            }
            Observation::Released { slot } => used.release(slot),
            Observation::Ended => {
                used.slots.fill(None);
                used.slot_count = 0;
                Ok(())
            }
            Observation::Accused { whom } => Err(format!("node {whom} has broken the protocol, as it sees it")),
            _ => Ok(()),
        }
    }

    /// A node's engine has nothing more to do: it counts `slots_in_use`, and has done so much since it was asked.
    ///
    /// # Errors
    /// The host counts other slots, or it has done too much.
    pub fn polled(&mut self, node: usize, slots_in_use: usize, action_count: u32) -> Judgement {
        self.poll_count += 1;
        let used = &self.nodes[node];
        if used.slot_count != slots_in_use {
            return Err(format!("its engine counts {slots_in_use} slots in use, its host {}", used.slot_count));
        }
        if action_count > used.actions_max {
            return Err(format!("{action_count} actions at a time; {} are all that there can be", used.actions_max));
        }
        Ok(())
    }

    /// Whether an engine's tables are to be looked through now.
    pub fn is_due(&mut self) -> bool {
        self.polls_until_due -= 1;
        let due = self.polls_until_due == 0;
        if due {
            self.polls_until_due = self.invariants_every;
            self.invariants_count += 1;
        }
        due
    }

    /// Whoever had a slot at `since` has had all the time that it may take.
    ///
    /// # Errors
    /// A slot does not come to its end.
    pub fn judge_slots(&self, since: Option<Nanos>, node: usize) -> Judgement {
        let Some(since) = since else { return Ok(()) };
        let old = self.nodes[node].slots.iter().flatten().find(|(_, at)| *at < since);
        match old {
            None => Ok(()),
            Some((slot, at)) => Err(format!("slot {} is in use since {} ms", slot.index(), at / 1_000_000)),
        }
    }
}

impl Used {
    fn new(slots: usize, actions_max: u32) -> Self {
        Self { slots: vec![None; slots], slot_count: 0, actions_max }
    }

    fn land(&mut self, now: Nanos, slot: SlotId) -> Judgement {
        let most = self.slots.len();
        let Some(row) = self.slots.get_mut(slot.index()) else {
            return Err(format!("slot {} of {most}", slot.index()));
        };
        if row.is_some() {
            return Err(format!("slot {} is given to a second body", slot.index()));
        }
        *row = Some((slot, now));
        self.slot_count += 1;
        Ok(())
    }

    fn release(&mut self, slot: SlotId) -> Judgement {
        match self.slots.get_mut(slot.index()).and_then(|row| row.take_if(|(known, _)| *known == slot)) {
            Some(_) => {
                self.slot_count -= 1;
                Ok(())
            }
            None => Err(format!("slot {} ends though it is not in use", slot.index())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::of(vec![Used::new(2, 10)], 3)
    }

    /// Engines alone make them, and recordings.
    fn slot(index: u16, generation: u16) -> SlotId {
        serde_json::from_value(serde_json::json!({ "index": index, "generation": generation })).unwrap()
    }

    fn landing(index: u16, generation: u16) -> Observation {
        Observation::Landing { slot: slot(index, generation) }
    }

    fn released(index: u16, generation: u16) -> Observation {
        Observation::Released { slot: slot(index, generation) }
    }

    #[test]
    fn slots_come_and_go_once() {
        let mut budget = budget();
        assert_eq!(budget.observe(0, 0, landing(0, 1)), Ok(()));
        assert!(budget.observe(0, 0, landing(0, 2)).is_err(), "it is in use");
        assert!(budget.observe(0, 0, landing(2, 1)).is_err(), "there are two");
        assert!(budget.observe(0, 0, released(0, 2)).is_err(), "another generation");
        assert_eq!(budget.observe(0, 0, released(0, 1)), Ok(()));
        assert!(budget.observe(0, 0, released(0, 1)).is_err(), "a second end");
        budget.observe(0, 0, landing(1, 1)).unwrap();
        budget.observe(0, 0, Observation::Ended).unwrap();
        assert_eq!(budget.polled(0, 0, 0), Ok(()));
    }

    #[test]
    fn a_slot_that_leaks_is_noticed() {
        let mut budget = budget();
        budget.observe(5, 0, landing(0, 1)).unwrap();
        assert_eq!(
            (budget.polled(0, 1, 0), budget.judge_slots(None, 0), budget.judge_slots(Some(5), 0)),
            (Ok(()), Ok(()), Ok(()))
        );
        assert!(budget.judge_slots(Some(6), 0).is_err());
        budget.observe(6, 0, released(0, 1)).unwrap();
        assert!(budget.polled(0, 1, 0).is_err(), "the engine has not freed it");
    }

    #[test]
    fn who_does_too_much_or_breaks_the_protocol_is_noticed() {
        let mut budget = budget();
        assert_eq!(budget.polled(0, 0, 10), Ok(()));
        assert!(budget.polled(0, 0, 11).is_err());
        assert!(budget.observe(0, 0, Observation::Accused { whom: 3 }).is_err());
    }

    #[test]
    fn tables_are_looked_through_once_in_so_many_polls() {
        let mut budget = budget();
        assert_eq!([(); 6].map(|()| budget.is_due()), [false, false, true, false, false, true]);
        assert_eq!(budget.invariants_count, 2);
    }
}
