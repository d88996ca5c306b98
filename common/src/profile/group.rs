//! Which runs are of one workload: those that touch nearly the same chunks.
//!
//! *Invariants*: each run is in one group; the same runs in the same order give the same groups. *Bounds*: [`GROUPS_MAX`]
//! groups; a run is compared with each of them once.

use super::Touches;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use swarmdisk_core::format::profile::GROUPS_MAX;
use swarmdisk_core::geometry::ChunkIndex;

/// Groups that have at least this share of their touches in common are one.
const ALIKE_PERCENT: u64 = 90;

/// Runs that are alike.
#[derive(Debug, Default, Clone)]
pub(super) struct Group {
    run_count: u64,
    /// Of each chunk in how many runs it is touched, and the sum of the times.
    touches: BTreeMap<ChunkIndex, (u64, u64)>,
}

impl Group {
    fn of(run: &Touches) -> Self {
        Self { run_count: 1, touches: run.iter().map(|(chunk, at)| (*chunk, (1, *at))).collect() }
    }

    pub(super) fn run_count(&self) -> u16 {
        u16::try_from(self.run_count).unwrap_or(u16::MAX)
    }

    /// Of each chunk in how many runs it is touched, and when in the mean.
    pub(super) fn touches(&self) -> impl Iterator<Item = (ChunkIndex, u64, u64)> {
        self.touches.iter().map(|(chunk, (runs, sum_millis))| (*chunk, *runs, sum_millis / runs))
    }

    fn absorb(&mut self, other: &Self) {
        self.run_count += other.run_count;
        for (chunk, (runs, sum_millis)) in &other.touches {
            let own = self.touches.entry(*chunk).or_default();
            *own = (own.0 + runs, own.1.saturating_add(*sum_millis));
        }
    }

    /// How much of what the two touch they have in common, in 2^-20: the weighted Jaccard index.
    fn likeness(&self, other: &Self) -> u64 {
        let (mut common, mut all) = (0u64, 0u64);
        for (chunk, (runs, _)) in &self.touches {
            let (own, its) = (runs * other.run_count, other.touches.get(chunk).map_or(0, |its| its.0 * self.run_count));
            common += own.min(its);
            all += own.max(its);
        }
        let alone = other.touches.iter().filter(|(chunk, _)| !self.touches.contains_key(chunk));
        all += alone.map(|(_, (runs, _))| runs * self.run_count).sum::<u64>();
        if all == 0 { 1 << 20 } else { (u128::from(common) << 20).div_euclid(u128::from(all)) as u64 }
    }
}

/// Groups of these runs, the largest first.
pub(super) fn grouped(runs: &[Touches]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for run in runs {
        let new = Group::of(run);
        let likest = groups.iter().enumerate().map(|(index, group)| (group.likeness(&new), Reverse(index))).max();
        match likest {
            Some((likeness, Reverse(index))) if likeness * 100 >= ALIKE_PERCENT << 20 => groups[index].absorb(&new),
            _ => groups.push(new),
        }
        if groups.len() > GROUPS_MAX {
            merge_likest(&mut groups);
        }
    }
    groups.sort_by_key(|group| Reverse(group.run_count));
    groups
}

fn merge_likest(groups: &mut Vec<Group>) {
    let pairs = (1..groups.len()).flat_map(|second| (0..second).map(move |first| (first, second)));
    let likest =
        pairs.max_by_key(|(first, second)| (groups[*first].likeness(&groups[*second]), Reverse((*first, *second))));
    if let Some((first, second)) = likest {
        let gone = groups.remove(second);
        groups[first].absorb(&gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmdisk_core::geometry::Geometry;

    fn run(chunks: impl IntoIterator<Item = u32>) -> Touches {
        let geometry = Geometry::new(10_000 << 16, 16).unwrap();
        chunks.into_iter().map(|chunk| (geometry.chunk(chunk).unwrap(), u64::from(chunk))).collect()
    }

    #[test]
    fn likeness_is_the_share_in_common() {
        let (ten, eight) = (Group::of(&run(0..10)), Group::of(&run(2..10)));
        assert_eq!(ten.likeness(&eight), (8 << 20) / 10);
        assert_eq!(eight.likeness(&ten), (8 << 20) / 10);
        let mut both = ten.clone();
        both.absorb(&eight);
        assert_eq!(both.likeness(&both.clone()), 1 << 20, "twice as many runs are no other workload");
    }

    #[test]
    fn of_too_many_the_likest_become_one() {
        // Thirty workloads; the last two of them have more in common than any others, but are not alike.
        let mut runs: Vec<Touches> = (0..16).map(|number| run(number * 100..number * 100 + 50)).collect();
        runs.push(run(1520..1590));
        let groups = grouped(&runs);
        assert_eq!(groups.len(), GROUPS_MAX);
        assert_eq!((groups[0].run_count(), groups[0].touches.len()), (2, 90));
        assert_eq!(groups.iter().map(Group::run_count).sum::<u16>(), 17);
    }
}
