//! Which of a profile's groups of runs this run is like, told by what it has touched and what it has not.
//!
//! *Purpose*: several workloads live in one profile; the guest shows which it runs. *Invariants*: weights are those of Bayes'
//! rule with chunks taken for independent, every group as likely at first. No group is ever out of question: one that has
//! lagged catches up by a few chunks. *Units*: costs in 1/16 bit, weights and probabilities in 1/255.
//! *Bounds*: O(groups) a call.

use crate::format::profile::GROUPS_MAX;

/// 1/16 bits in a bit.
const BIT: u16 = 16;
/// No group is thought less likely than the likeliest by more than a thousand times.
const COST_MAX: u16 = 10 * BIT;
/// Probabilities nearer to never and always than this are taken for chance: few runs were recorded.
const CHANCE: u8 = 8;
/// From this weight on a group counts.
const COUNTS: u8 = 32;
/// 2^(-n/16), in 1/65536.
const POWERS: [u32; BIT as usize] =
    [65536, 62757, 60097, 57549, 55109, 52773, 50535, 48393, 46341, 44376, 42495, 40693, 38968, 37316, 35734, 34219];

/// What speaks for each group.
#[derive(Debug, Copy, Clone)]
pub(super) struct Evidence {
    group_count: usize,
    costs: [u16; GROUPS_MAX],
    weights: [u8; GROUPS_MAX],
    changes: u32,
}

impl Evidence {
    /// All of so many groups are as likely.
    pub(super) fn new(group_count: usize) -> Self {
        let mut this = Self { group_count, costs: [0; GROUPS_MAX], weights: [0; GROUPS_MAX], changes: 0 };
        this.reweigh();
        this.changes = 0;
        this
    }

    /// The run has touched a chunk that each group touches this likely.
    pub(super) fn touched(&mut self, probabilities: &[u8; GROUPS_MAX]) {
        self.weigh_in(probabilities, |probability| probability);
    }

    /// The run has not touched it, though it was to.
    pub(super) fn untouched(&mut self, probabilities: &[u8; GROUPS_MAX]) {
        self.weigh_in(probabilities, |probability| u8::MAX - probability);
    }

    /// How likely this run touches a chunk that each group touches this likely.
    pub(super) fn probability(&self, probabilities: &[u8; GROUPS_MAX]) -> u8 {
        let both = self.weights[..self.group_count].iter().zip(probabilities);
        let sum: u32 = both.map(|(weight, probability)| u32::from(*weight) * u32::from(*probability)).sum();
        ((sum + 127) / 255).min(255) as u8
    }

    /// How often a group has begun or ceased to count.
    pub(super) const fn changes(&self) -> u32 {
        self.changes
    }

    fn weigh_in(&mut self, probabilities: &[u8; GROUPS_MAX], of: impl Fn(u8) -> u8) {
        let groups = ..self.group_count;
        if probabilities[groups].windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        for (cost, probability) in self.costs[groups].iter_mut().zip(probabilities) {
            *cost += bits(of(*probability));
        }
        let least = self.costs[groups].iter().copied().min().unwrap_or(0);
        self.costs[groups].iter_mut().for_each(|cost| *cost = (*cost - least).min(COST_MAX));
        self.reweigh();
    }

    fn reweigh(&mut self) {
        let likelihood = |cost: u16| POWERS[usize::from(cost % BIT)] >> (cost / BIT);
        let sum: u32 = self.costs[..self.group_count].iter().map(|cost| likelihood(*cost)).sum();
        for (weight, cost) in self.weights[..self.group_count].iter_mut().zip(&self.costs) {
            let now = (likelihood(*cost) * 255 / sum.max(1)) as u8;
            self.changes = self.changes.wrapping_add(u32::from((*weight >= COUNTS) != (now >= COUNTS)));
            *weight = now;
        }
    }
}

/// The logarithm of one over a probability, between powers of two by a straight line.
fn bits(probability: u8) -> u16 {
    let probability = u16::from(probability.clamp(CHANCE, u8::MAX - CHANCE));
    let whole = probability.ilog2() as u16;
    let part = (probability << 4 >> whole) - BIT;
    8 * BIT - (whole * BIT + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[u8]) -> [u8; GROUPS_MAX] {
        core::array::from_fn(|at| pairs.get(at).copied().unwrap_or(0))
    }

    #[test]
    fn a_single_group_is_believed_as_it_is() {
        let mut evidence = Evidence::new(1);
        evidence.untouched(&of(&[255]));
        for probability in [0, 1, 100, 255] {
            assert_eq!(evidence.probability(&of(&[probability])), probability);
        }
    }

    #[test]
    fn what_is_touched_and_what_is_not_tells_groups_apart() {
        let (first, second, shared) = (of(&[255, 0, 0]), of(&[0, 255, 0]), of(&[255; 3]));
        let mut evidence = Evidence::new(3);
        assert_eq!(evidence.probability(&first), 85);
        evidence.touched(&shared);
        assert_eq!((evidence.probability(&first), evidence.changes()), (85, 0), "what all touch says nothing");
        evidence.touched(&first);
        assert!(evidence.probability(&first) > 230 && evidence.probability(&second) < 16);
        assert_eq!(evidence.changes(), 2);
        // However much has spoken for the first: soon it is the second.
        (0..1000).for_each(|_| evidence.touched(&first));
        (0..3).for_each(|_| evidence.untouched(&first));
        (0..2).for_each(|_| evidence.touched(&second));
        assert!(evidence.probability(&second) > 200, "{evidence:?}");
    }

    #[test]
    fn logarithms_are_right_to_a_fifth_of_a_bit() {
        for probability in CHANCE..=u8::MAX - CHANCE {
            let exact = -(f64::from(probability) / 256.0).log2() * f64::from(BIT);
            assert!((f64::from(bits(probability)) - exact).abs() <= 3.0, "{probability}: {exact}");
        }
        assert_eq!((bits(0), bits(255)), (bits(CHANCE), bits(u8::MAX - CHANCE)));
    }
}
