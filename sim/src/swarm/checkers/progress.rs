//! *Progress*: once all faults are over, each chunk for which a guest waits comes within a bound, and every guest finishes.
//!
//! While something goes wrong nothing is demanded. The seeds are there in the end and have everything, so every chunk has
//! a holder that can be reached.
//!
//! The bound is what it takes to find out what has gone, one after the other, and then to carry what all wait for:
//! a dead link is given up after 30 s of silence, dialled again at most 32 s after it has failed, whoever does not answer
//! that dial is given up by TCP after 5 s; a fetch that nobody answers ends at the fetch timeout, twice if the second peer
//! does not answer either; Busy and a store that was full hold a node back for at most 5 and 10 s. Then each node waits for
//! at most a group of reads with its leaf pages. All of that over the slowest link, behind what was handed over before it,
//! and twice that, since a hedge may ask a second time, is an upper bound: a link to a seed is used for demand first.

use super::Judgement;
use crate::model::Setup;
use crate::network::Nanos;
use crate::world::Observation;

const SECOND: Nanos = 1_000_000_000;
/// Silence, the longest pause before a dial, a dial in vain, Busy, and the pause of a full store.
const RECOVERY: Nanos = (30 + 32 + 5 + 5 + 10) * SECOND;
/// Reads of a guest that are in flight together: see `swarmdisk_common::guest`.
const GROUP_MAX: u64 = 32;
/// Where packets are lost no connection is taken to carry more, in bytes a second.
const LOSSY_RATE: u64 = 100_000;

/// The bound for a run of `setup`; see the module's docs.
pub fn bound(setup: &Setup) -> Nanos {
    let scenario = &setup.scenario;
    let (network, policy) = (&scenario.network, &scenario.policy);
    let longest_rtt = network.world_rtt.0.max(network.zone_rtt.0).max(1);
    let mut slowest = network.window.0 * SECOND / longest_rtt;
    slowest = slowest.min(if network.loss.0 > 0 { LOSSY_RATE } else { u64::MAX });
    for host in &setup.topology.hosts {
        slowest = slowest.min(host.up).min(host.down);
    }
    for rate in setup.topology.rack_rate.iter().chain(&setup.topology.zone_rate) {
        slowest = slowest.min(*rate);
    }
    let piece = |image: &crate::model::ImageModel| {
        let geometry = image.geometry;
        let leaf = geometry.leaf(0).map_or(0, |leaf| geometry.leaf_bytes(leaf));
        u64::from(geometry.chunk_bytes()) + u64::from(leaf)
    };
    let piece_bytes = setup.images.iter().map(piece).max().unwrap_or(0);
    let nodes = (setup.nodes.len() - setup.seed_count()) as u64;
    let carried = nodes * GROUP_MAX * piece_bytes + scenario.seeds.unsent.0.max(policy.unsent.0);
    RECOVERY + 2 * policy.timeout.0 + 2 * (carried * 1000 / slowest.max(1)) * (SECOND / 1000)
}

/// See the module's docs.
#[derive(Debug)]
pub struct Progress {
    calm: Option<Nanos>,
    bound: Nanos,
    /// What each node's guest waits for, and since when.
    waits: Vec<Vec<(u32, Nanos)>>,
    /// Waits that began, or still were, after the faults.
    pub calm_wait_count: u64,
    /// The longest wait, counted from the end of the faults on.
    pub longest: Nanos,
}

impl Progress {
    /// For so many nodes. Nothing is demanded before `calm`, or at all if the faults never end.
    pub fn new(node_count: usize, calm: Option<Nanos>, bound: Nanos) -> Self {
        Self { calm, bound, waits: vec![Vec::new(); node_count], calm_wait_count: 0, longest: 0 }
    }

    /// How many nodes are watched.
    pub fn node_count(&self) -> usize {
        self.waits.len()
    }

    /// The longest that anything may take.
    pub fn bound(&self) -> Nanos {
        self.bound
    }

    /// What has begun before that has had all the time that it may take; none if nothing has.
    pub fn patience_since(&self, now: Nanos) -> Option<Nanos> {
        let since = now.checked_sub(self.bound)?;
        self.calm.filter(|calm| *calm <= since).map(|_| since)
    }

    /// Something has happened at a node.
    pub fn observe(&mut self, now: Nanos, node: usize, what: Observation) {
        match what {
            Observation::Wanted { chunk } => self.waits[node].push((chunk, now)),
            Observation::Got { chunk, .. } => {
                if let Some(at) = self.waits[node].iter().position(|(wait, _)| *wait == chunk) {
                    let (_, since) = self.waits[node].swap_remove(at);
                    if let Some(calm) = self.calm.filter(|calm| *calm <= now) {
                        self.calm_wait_count += 1;
                        self.longest = self.longest.max(now - since.max(calm));
                    }
                }
            }
            // It will be asked for again.
            Observation::Ended => self.waits[node].clear(),
            _ => {}
        }
    }

    /// It is `now`.
    ///
    /// # Errors
    /// A chunk that has not come in time.
    pub fn judge(&self, now: Nanos, node: usize) -> Judgement {
        let Some(last) = self.patience_since(now) else { return Ok(()) };
        match self.waits[node].iter().find(|(_, since)| *since < last) {
            None => Ok(()),
            Some((chunk, since)) => Err(format!(
                "its guest has waited for chunk {chunk} since {} ms, longer than {} ms without any fault",
                since / 1_000_000,
                self.bound / 1_000_000
            )),
        }
    }

    /// The run is at its limit, and so many guests have not finished.
    ///
    /// # Errors
    /// There are such, though the faults have ended long ago.
    pub fn judge_end(&self, now: Nanos, booting: usize) -> Judgement {
        match self.patience_since(now) {
            Some(_) if booting > 0 => Err(format!("{booting} guests have not finished though nothing goes wrong")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Observation = Observation::Wanted { chunk: 7 };

    #[test]
    fn who_waits_too_long_is_noticed_after_the_faults_only() {
        let mut progress = Progress::new(2, Some(100), 50);
        progress.observe(10, 1, WANTED);
        assert_eq!((progress.judge(149, 1), progress.judge(160, 0)), (Ok(()), Ok(())));
        assert!(progress.judge(150, 1).is_err());
        progress.observe(151, 1, Observation::Got { chunk: 7, is_genuine: true });
        assert_eq!(progress.judge(400, 1), Ok(()));
        assert_eq!((progress.calm_wait_count, progress.longest), (1, 51));
        progress.observe(400, 1, WANTED);
        assert_eq!(progress.judge(450, 1), Ok(()));
        assert!(progress.judge(451, 1).is_err());
        progress.observe(460, 1, Observation::Ended);
        assert_eq!(progress.judge(900, 1), Ok(()));
    }

    #[test]
    fn nothing_is_demanded_while_faults_have_no_end() {
        let mut progress = Progress::new(1, None, 50);
        progress.observe(0, 0, WANTED);
        assert_eq!((progress.judge(1000, 0), progress.judge_end(1000, 1)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_guest_that_does_not_finish_is_noticed() {
        let progress = Progress::new(1, Some(0), 50);
        assert_eq!((progress.judge_end(100, 0), progress.judge_end(40, 1)), (Ok(()), Ok(())));
        assert!(progress.judge_end(100, 1).is_err());
    }
}
