//! What is counted of each node, and of all over time.

use crate::network::Nanos;

/// Parts into which a guest's run is cut to see where it waited.
pub const STALL_BINS: usize = 100;

/// What a node has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// When it could serve its guest first.
    pub ready: Option<Nanos>,
    /// When its guest had read all.
    pub end: Option<Nanos>,
    /// Groups of reads that waited for the network.
    pub demand_misses: u64,
    /// Time during which the guest waited for the network.
    pub stall: Nanos,
    /// The same by how far the guest had come, in parts of [`STALL_BINS`].
    pub stall_bins: Vec<Nanos>,
    /// Time that the guest thought.
    pub think: Nanos,
    /// Time that reads of what was there took.
    pub reading: Nanos,
    /// Groups of reads.
    pub reads: u64,
    /// Chunks' bodies from seeds, in bytes.
    pub origin_bytes: u64,
    /// The same from nodes.
    pub peer_bytes: u64,
    /// The same from nodes of other racks, and from other zones.
    pub far_bytes: u64,
    /// Leaf pages, manifest, profile, all heads, in bytes.
    pub metadata_bytes: u64,
    /// Frames received.
    pub frames: u64,
    /// Chunks' bodies sent, in bytes.
    pub uploaded_bytes: u64,
    /// Times that its process has ended unasked.
    pub crashes: u32,
}

/// Traffic over time, in steps that grow with the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Length of a step.
    step: Nanos,
    origin_bytes: Vec<u64>,
    peer_bytes: Vec<u64>,
}

const STEPS_MAX: usize = 512;
const FIRST_STEP: Nanos = 1_000_000;

impl Timeline {
    /// Bodies have come from a seed, or from a node.
    pub(super) fn add(&mut self, now: Nanos, bytes: u64, is_origin: bool) {
        self.step = self.step.max(FIRST_STEP);
        while now / self.step >= STEPS_MAX as u64 {
            self.step *= 2;
            for series in [&mut self.origin_bytes, &mut self.peer_bytes] {
                *series = series.chunks(2).map(|pair| pair.iter().sum()).collect();
            }
        }
        let at = (now / self.step) as usize;
        for series in [&mut self.origin_bytes, &mut self.peer_bytes] {
            series.resize(series.len().max(at + 1), 0);
        }
        let series = if is_origin { &mut self.origin_bytes } else { &mut self.peer_bytes };
        series[at] += bytes;
    }

    /// Length of a step in nanoseconds; 0 if nothing came.
    pub fn step(&self) -> Nanos {
        self.step
    }

    /// Bytes from seeds in each step.
    pub fn origin_bytes(&self) -> &[u64] {
        &self.origin_bytes
    }

    /// Bytes from nodes in each step.
    pub fn peer_bytes(&self) -> &[u64] {
        &self.peer_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_and_nothing_is_lost() {
        let mut timeline = Timeline::default();
        for at in 0..2000 {
            timeline.add(at * FIRST_STEP, 1, at % 2 == 0);
        }
        assert_eq!(timeline.step(), 4 * FIRST_STEP);
        assert_eq!(timeline.origin_bytes().len(), 500);
        assert!(timeline.origin_bytes().iter().chain(timeline.peer_bytes()).all(|bytes| *bytes == 2));
    }
}
