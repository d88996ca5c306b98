//! Makes a scenario that fails smaller, as long as the same checker finds something wrong.
//!
//! *Purpose*: a person reads what is left. *Bounds*: so many runs as are allowed; what is found last is given then.

use super::checkers::Violation;
use super::run::{Options, run_scenario};
use crate::scenario::{Arrivals, Factor, Group, Host, Leaving, Network, Policy, Profile, Scenario, Share, Size};

/// A small scenario that fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// It.
    pub scenario: Scenario,
    /// What is wrong in it.
    pub violation: Violation,
    /// Runs that it took.
    pub tries: u32,
}

impl Shrunk {
    /// As a file.
    pub fn to_toml(&self) -> String {
        // What has been read or drawn can be written.
        let text = toml::to_string(&self.scenario).unwrap_or_default();
        format!("# {}\n{text}", self.violation)
    }
}

/// Makes `scenario` smaller with at most so many runs; none if it does not fail.
pub fn shrink(scenario: &Scenario, seed: u64, options: &Options, tries_max: u32) -> Option<Shrunk> {
    let fails = |scenario: &Scenario| {
        scenario.check().ok()?;
        run_scenario(scenario, seed, options).ok()?.result.err()
    };
    let violation = fails(scenario)?;
    Some(reduce(scenario, violation, tries_max, fails))
}

/// Takes whatever step `fails` lets pass with the same checker, again and again.
fn reduce(
    scenario: &Scenario,
    violation: Violation,
    tries_max: u32,
    mut fails: impl FnMut(&Scenario) -> Option<Violation>,
) -> Shrunk {
    let mut best = Shrunk { scenario: scenario.clone(), violation, tries: 1 };
    loop {
        let mut shorter = false;
        let mut number = 0;
        // A step that has been taken makes room for others at its place.
        while let Some(candidate) = step(&best.scenario, number) {
            if best.tries >= tries_max {
                return best;
            }
            if candidate == best.scenario {
                number += 1;
                continue;
            }
            best.tries += 1;
            match fails(&candidate).filter(|violation| violation.checker == best.violation.checker) {
                Some(violation) => {
                    best.scenario = candidate;
                    best.violation = violation;
                    shorter = true;
                }
                None => number += 1,
            }
        }
        if !shorter {
            return best;
        }
    }
}

/// The scenario after a step of that number; those that help most come first.
fn step(scenario: &Scenario, number: usize) -> Option<Scenario> {
    let mut smaller = scenario.clone();
    let faults = scenario.faults.len();
    if number < 2 {
        let half = faults / 2;
        smaller.faults = if number == 0 { scenario.faults[..half].to_vec() } else { scenario.faults[half..].to_vec() };
        return Some(smaller);
    }
    let number = number - 2;
    if number < faults {
        smaller.faults.remove(number);
        return Some(smaller);
    }
    let change = STEPS.get(number - faults)?;
    change(&mut smaller);
    Some(smaller)
}

const STEPS: &[fn(&mut Scenario)] = &[
    |s| drop(s.groups.drain(1..)),
    |s| s.groups.iter_mut().for_each(|group| set_count(group, group.count / 2)),
    |s| s.groups.iter_mut().for_each(|group| set_count(group, group.count - 1)),
    |s| drop(s.workloads.drain(1..)),
    |s| s.workloads.iter_mut().for_each(|workload| workload.chunks = (workload.chunks / 2).max(1)),
    |s| s.seeds.count = 1,
    |s| s.images[0].size = Size((s.images[0].size.0 / 2).max(1 << 20)),
    |s| s.images[0].zero = Share(0),
    |s| s.network = Network::default(),
    |s| s.network.loss = Share(0),
    |s| s.host = Host::default(),
    |s| s.host.capacity = None,
    |s| s.arrivals = Arrivals::default(),
    |s| s.leaving = Leaving::default(),
    |s| s.profile = Profile::default(),
    |s| s.profile.offered = false,
    |s| s.workloads.iter_mut().for_each(|w| (w.jitter, w.skip, w.speed) = (Share(0), Share(0), Factor::ONE)),
    |s| {
        let plain = Group::default();
        for group in &mut s.groups {
            (group.racks, group.zone, group.held, group.delay) = (1, 0, plain.held, plain.delay);
        }
    },
    |s| s.groups.iter_mut().for_each(|group| (group.up, group.down) = (Group::default().up, Group::default().down)),
    |s| s.seeds.up = Group::default().up,
    |s| s.policy = Policy::default(),
    |s| s.policy.prefetch = Policy::default().prefetch,
    |s| s.policy.order = Policy::default().order,
    |s| s.policy.selector = Policy::default().selector,
    |s| s.policy.window = Policy::default().window,
    |s| s.policy.ahead = Policy::default().ahead,
    |s| (s.policy.fill, s.policy.fill_rate) = (Policy::default().fill, None),
    |s| (s.policy.links, s.policy.links_max) = (Policy::default().links, Policy::default().links_max),
    |s| s.policy.requests_per_peer = Policy::default().requests_per_peer,
    |s| s.policy.transfers = Policy::default().transfers,
    |s| s.policy.prefetches = Policy::default().prefetches,
    |s| s.policy.prefetches_per_peer = Policy::default().prefetches_per_peer,
    |s| s.policy.prefetches_per_seed = Policy::default().prefetches_per_seed,
    |s| s.policy.queue = Policy::default().queue,
    |s| s.policy.batch = Policy::default().batch,
    |s| s.policy.hedge = Policy::default().hedge,
    |s| s.policy.timeout = Policy::default().timeout,
    |s| s.policy.patience = Policy::default().patience,
    |s| s.policy.unsent = Policy::default().unsent,
];

fn set_count(group: &mut Group, count: u32) {
    group.count = count.max(1);
    group.racks = group.racks.min(group.count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Fault, FaultKind};
    use crate::swarm::checkers::Checker;
    use crate::swarm::draw;
    use std::path::Path;

    fn violation(checker: Checker) -> Violation {
        Violation { checker, at: 5, node: Some(1), what: "it is wrong".into() }
    }

    fn drawn() -> Scenario {
        let scenarios = (0..).map(|seed| draw::draw(seed, &Options::default()));
        let has = |scenario: &Scenario, what| scenario.faults.iter().any(|fault: &Fault| fault.what == what);
        scenarios
            .into_iter()
            .find(|s| has(s, FaultKind::Kill) && has(s, FaultKind::Slow) && s.node_count() > 20)
            .unwrap()
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        // It fails where somebody is killed among at least three, but says something else if nobody is slow.
        let fails = |scenario: &Scenario| {
            let has = |what| scenario.faults.iter().any(|fault| fault.what == what);
            let checker = if has(FaultKind::Slow) { Checker::Progress } else { Checker::Budget };
            (has(FaultKind::Kill) && scenario.node_count() >= 3).then(|| violation(checker))
        };
        let shrunk = reduce(&drawn(), violation(Checker::Progress), 1000, fails);
        assert_eq!((shrunk.scenario.faults.len(), shrunk.scenario.node_count()), (2, 3));
        assert_eq!(shrunk.scenario.policy, Policy::default());
        let text = shrunk.to_toml();
        assert!(text.starts_with("# progress at 0 ms, node 1: it is wrong\n"), "{text}");
        assert_eq!(Scenario::parse(&text, Path::new("shrunk")).unwrap(), shrunk.scenario);
        assert_eq!(reduce(&drawn(), violation(Checker::Progress), 7, fails).tries, 7);
    }

    #[test]
    fn what_does_not_fail_cannot_be_shrunk() {
        let scenario = Scenario { workloads: vec![Default::default()], ..Scenario::default() };
        let short = Scenario {
            workloads: vec![crate::scenario::Workload { chunks: 5, ..scenario.workloads[0].clone() }],
            ..scenario
        };
        assert_eq!(shrink(&short, 1, &Options::default(), 10), None);
    }
}
