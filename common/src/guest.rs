//! A guest, modelled from its trace: which reads it makes together, and how long it thinks in between.
//!
//! *The model*: requests that began less than [`TOGETHER_MICROS`] after the one before are in flight together, at most
//! [`GROUP_MAX`]; when all of a group have been answered, the guest thinks: the gap from the group's last recorded start
//! to the next one's first, divided by the speed. Writes are left out, also in these times, unless they are asked for; then
//! none is in flight together with what it overlaps, as what is read would be undefined.
//! *Invariants*: every request is in one group, in the trace's order; whole numbers only, so that a plan says the same
//! everywhere. *Units*: microseconds, bytes.

use crate::trace::{Op, Request, Trace};
use std::ops::Range;

/// Requests that began less than this after the one before are in flight together, in microseconds.
pub const TOGETHER_MICROS: u64 = 200;
/// Most requests in flight together.
pub const GROUP_MAX: usize = 32;

/// What a guest reads, or reads and writes, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    requests: Vec<Request>,
    groups: Vec<Range<usize>>,
}

/// The trace is not of this disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A request goes beyond the disk.
    #[error(
        "request {number} of the trace is for {bytes} bytes at {offset}, but the disk ends at {image_bytes}; use the disk that was recorded"
    )]
    BeyondEnd {
        /// Which, counted from 1, writes left out if they are not replayed.
        number: usize,
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u32,
        /// Size of the disk.
        image_bytes: u64,
    },
}

impl Plan {
    /// The reads of `trace`, grouped, on a disk of `image_bytes`.
    ///
    /// # Errors
    /// [`PlanError`] for the first read that goes beyond the disk.
    pub fn new(trace: &Trace, image_bytes: u64) -> Result<Self, PlanError> {
        let reads = trace.requests.iter().filter(|request| request.op == Op::Read);
        Self::of(reads.copied().collect(), image_bytes)
    }

    /// All requests of `trace`, writes too, grouped, on a disk of `image_bytes`.
    ///
    /// # Errors
    /// [`PlanError`] for the first request that goes beyond the disk.
    pub fn with_writes(trace: &Trace, image_bytes: u64) -> Result<Self, PlanError> {
        Self::of(trace.requests.clone(), image_bytes)
    }

    fn of(requests: Vec<Request>, image_bytes: u64) -> Result<Self, PlanError> {
        if let Some(index) = requests.iter().position(|request| end_of(request) > u128::from(image_bytes)) {
            let Request { offset, bytes, .. } = requests[index];
            return Err(PlanError::BeyondEnd { number: index + 1, offset, bytes, image_bytes });
        }
        Ok(Self { groups: grouped(&requests), requests })
    }

    /// All requests, in order of time.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The number of groups.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// The requests of the group with this index; none beyond the last group.
    pub fn group(&self, index: usize) -> &[Request] {
        self.groups.get(index).map_or(&[], |range| &self.requests[range.clone()])
    }

    /// The groups in order.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &[Request]> {
        self.groups.iter().map(|range| &self.requests[range.clone()])
    }

    /// How long the guest thinks before the group with this index starts, after all of the group before it have been
    /// answered; nothing before the first. In microseconds, rounded to the nearest.
    pub fn think_micros(&self, group: usize, speed: Speed) -> u64 {
        let before = group.checked_sub(1).and_then(|before| self.group(before).last());
        let (Some(last), Some(first)) = (before, self.group(group).first()) else { return 0 };
        speed.divide(first.micros.saturating_sub(last.micros))
    }
}

/// What think times are divided by: 2 is half of them. Kept in millionths, so that dividing is exact.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed {
    millionths: u64,
}

impl Speed {
    /// As recorded.
    pub const REAL: Self = Self { millionths: 1_000_000 };

    /// To the nearest millionth; none unless `speed` is finite and at least a millionth.
    pub fn new(speed: f64) -> Option<Self> {
        // From a float, `as` saturates.
        Some((speed * 1e6).round()).filter(|_| speed.is_finite()).and_then(|millionths| Self::of(millionths as u64))
    }

    fn of(millionths: u64) -> Option<Self> {
        (millionths > 0).then_some(Self { millionths })
    }

    fn divide(self, micros: u64) -> u64 {
        let divisor = u128::from(self.millionths);
        u64::try_from((u128::from(micros) * 1_000_000 + divisor / 2) / divisor).unwrap_or(u64::MAX)
    }
}

/// Runs of requests that are in flight together.
fn grouped(requests: &[Request]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for next in 1..=requests.len() {
        let together = next < requests.len()
            && next - start < GROUP_MAX
            && requests[next].micros.saturating_sub(requests[next - 1].micros) < TOGETHER_MICROS
            && !requests[start..next].iter().any(|other| is_in_conflict(other, &requests[next]));
        if !together {
            groups.push(start..next);
            start = next;
        }
    }
    groups
}

/// Whether the order of these two matters.
fn is_in_conflict(one: &Request, other: &Request) -> bool {
    let overlap = u128::from(one.offset) < end_of(other) && u128::from(other.offset) < end_of(one);
    overlap && (one.op == Op::Write || other.op == Op::Write)
}

fn end_of(request: &Request) -> u128 {
    u128::from(request.offset) + u128::from(request.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::new(&Trace::parse(text.as_bytes()).unwrap(), 1000).unwrap()
    }

    #[test]
    fn groups_by_distance_and_size() {
        let reads = |micros: &[u64]| -> Vec<Request> {
            micros.iter().map(|&micros| Request { micros, op: Op::Read, offset: 0, bytes: 1 }).collect()
        };
        assert_eq!(grouped(&reads(&[])), []);
        // A chain may be longer than 200 µs in all.
        assert_eq!(grouped(&reads(&[0, 199, 398, 598, 798])), [0..3, 3..4, 4..5]);
        assert_eq!(grouped(&reads(&[7; 70])), [0..32, 32..64, 64..70]);
    }

    #[test]
    fn think_times_go_from_the_last_start_to_the_next_first() {
        // Two together, a write that counts for nothing, one after 20 ms.
        let plan = plan("0 R 10 1\n199 R 30 1\n10000 W 5000 1\n20199 R 5 1\n");
        let offsets: Vec<Vec<u64>> =
            plan.groups().map(|group| group.iter().map(|read| read.offset).collect()).collect();
        assert_eq!(offsets, [vec![10, 30], vec![5]]);
        assert_eq!((plan.group_count(), plan.group(1).len(), plan.group(2).len(), plan.requests().len()), (2, 1, 0, 3));
        let at = |speed| [0, 1, 2].map(|group| plan.think_micros(group, speed));
        assert_eq!(at(Speed::REAL), [0, 20_000, 0]);
        assert_eq!(at(Speed::new(4.0).unwrap()), [0, 5000, 0]);
        assert_eq!(at(Speed::new(0.1).unwrap()), [0, 200_000, 0]);
    }

    #[test]
    fn dividing_rounds_to_the_nearest_and_saturates() {
        let divided = |micros, speed| Speed::new(speed).unwrap().divide(micros);
        assert_eq!([2, 3, 4].map(|micros| divided(micros, 10.0 / 3.0)), [1, 1, 1]);
        assert_eq!([4, 5, 14, 15].map(|micros| divided(micros, 10.0)), [0, 1, 1, 2]);
        assert_eq!(divided(u64::MAX, 1.0), u64::MAX);
        assert_eq!(divided(u64::MAX, 1e-6), u64::MAX);
        assert_eq!(divided(1_000_000, 1e30), 0);
    }

    #[test]
    fn speeds_are_positive_and_finite() {
        for speed in [0.0, -1.0, 1e-7, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Speed::new(speed), None, "{speed}");
        }
        assert_eq!(Speed::new(1.0), Some(Speed::REAL));
    }

    #[test]
    fn writes_wait_for_what_they_overlap() {
        let text = "0 R 0 8\n1 W 8 4\n2 W 20 4\n3 R 10 1\n4 R 10 2\n5 W 11 1\n6 R 12 5\n300 W 0 1\n";
        let plan = Plan::with_writes(&Trace::parse(text.as_bytes()).unwrap(), 24).unwrap();
        assert_eq!(plan.groups().map(<[Request]>::len).collect::<Vec<_>>(), [3, 2, 2, 1]);
        assert_eq!(plan.think_micros(1, Speed::REAL), 1);
        let error = Plan::with_writes(&Trace::parse(&b"0 R 0 1\n1 W 24 1"[..]).unwrap(), 24).unwrap_err();
        assert_eq!(error, PlanError::BeyondEnd { number: 2, offset: 24, bytes: 1, image_bytes: 24 });
    }

    #[test]
    fn reads_beyond_the_disk_are_refused_and_writes_are_not() {
        let trace = Trace::parse(&b"0 W 0 1\n0 R 0 1\n0 R 1000 1\n0 W 5000 1"[..]).unwrap();
        let error = Plan::new(&trace, 1000).unwrap_err();
        assert_eq!(error, PlanError::BeyondEnd { number: 2, offset: 1000, bytes: 1, image_bytes: 1000 });
        assert!(Plan::new(&trace, 1001).is_ok());
    }
}
