//! *Fairness*: among nodes that are alike, none sends far more than the median does.
//!
//! Judged only where nodes are alike: one group, all start within a moment with nothing in their caches, stay until the end,
//! run the same workload, nothing goes wrong, and the policies are such as hosts may run: a random choice of peers, and
//! prefetching in order, are there to be compared with and do make hubs. Then whoever gets a chunk from a seed sends it to some others, and so do
//! these; but a node that is a moment ahead has what all others want. The bound is what the policies of today keep to in
//! a thousand drawn swarms, with something to spare: at most [`MEDIANS`] times the median, and what [`ONE_IN`]th of the
//! nodes would take from it alone. (The worst of them sent 10 working sets among 38 nodes, most at most 3.)

use super::Judgement;
use crate::model::Setup;
use crate::scenario::{ArrivalKind, LeavingKind, Order, Scenario, Selector};

/// See the module's docs.
const MEDIANS: u64 = 4;
/// See the module's docs.
const ONE_IN: u64 = 2;
/// In a smaller swarm a node may well serve half of it: it takes no more than a head start.
const NODES_MIN: u32 = 16;

/// See the module's docs.
#[derive(Debug)]
pub struct Fairness {
    working_set_bytes: u64,
}

impl Fairness {
    /// For a run of `setup`, if it is one to be judged.
    pub fn new(setup: &Setup) -> Option<Self> {
        let working_set_bytes = setup.wire_bytes(0, &setup.working_set(0));
        is_symmetric(&setup.scenario).then_some(Self { working_set_bytes })
    }

    /// What each node has sent in the end, in bytes.
    ///
    /// # Errors
    /// One has sent far more than most.
    pub fn judge(&self, uploaded_bytes: &[u64]) -> Judgement {
        let mut sorted = uploaded_bytes.to_vec();
        sorted.sort_unstable();
        let (Some(most), Some(median)) = (sorted.last(), sorted.get(sorted.len() / 2)) else { return Ok(()) };
        let bound = MEDIANS * median + sorted.len() as u64 * self.working_set_bytes / ONE_IN;
        if *most <= bound {
            return Ok(());
        }
        Err(format!(
            "a node has sent {most} bytes, the median {median}; {bound} are the most, with a working set of {} bytes",
            self.working_set_bytes
        ))
    }
}

fn is_symmetric(scenario: &Scenario) -> bool {
    scenario.groups.len() == 1
        && scenario.node_count() >= NODES_MIN
        && scenario.workloads.len() == 1
        && scenario.groups[0].held.0 == 0
        && scenario.arrivals.kind == ArrivalKind::AtOnce
        && scenario.leaving.kind == LeavingKind::Never
        && scenario.host.capacity.is_none()
        && scenario.faults.is_empty()
        && scenario.policy.selector == Selector::ExpectedCompletion
        && scenario.policy.order != Order::InOrder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Fault;

    #[test]
    fn a_hub_is_noticed() {
        let fairness = Fairness { working_set_bytes: 100 };
        assert_eq!(fairness.judge(&[50; 20]), Ok(()));
        let hub = |bytes| [vec![50; 20], vec![bytes]].concat();
        assert_eq!(fairness.judge(&hub(1250)), Ok(()));
        assert!(fairness.judge(&hub(1251)).is_err());
        assert!(fairness.judge(&[0, 0, 0, 1000]).is_err());
    }

    #[test]
    fn only_those_that_are_alike_are_compared() {
        let mut scenario = Scenario::default();
        scenario.groups[0].count = 16;
        assert!(is_symmetric(&scenario));
        let fault: Fault = toml::from_str("what = \"kill\"\nat = \"1s\"\n").unwrap();
        assert!(!is_symmetric(&Scenario { faults: vec![fault], ..scenario.clone() }));
        scenario.groups.push(scenario.groups[0].clone());
        assert!(!is_symmetric(&scenario));
    }
}
