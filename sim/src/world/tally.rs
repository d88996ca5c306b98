//! What is counted of each node, and of all over time.

use crate::model::{ImageModel, SimEngine};
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
    /// Of both, what came from other racks.
    pub far_bytes: u64,
    /// Of these, from seeds.
    pub far_origin_bytes: u64,
    /// Leaf pages, manifest, profile, all heads, in bytes.
    pub metadata_bytes: u64,
    /// Frames received.
    pub frames: u64,
    /// Chunks' bodies sent, in bytes.
    pub uploaded_bytes: u64,
    /// Times that its process has ended unasked.
    pub crashes: u32,
    /// What the engines of its ended processes had counted.
    pub counts: Counts,
}

/// What engines count, in bytes and pieces.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Chunks' bodies asked for before any guest wanted them.
    pub prefetched_bytes: u64,
    /// Of these, what no guest had read when the process ended, or has so far.
    pub prefetch_unused_bytes: u64,
    /// Bodies that were of no use.
    pub discarded_bytes: u64,
    /// Bodies whose hash was wrong.
    pub corrupt_pieces: u64,
}

impl Counts {
    /// What an engine has counted.
    pub(super) fn of(engine: &SimEngine<'_>, image: &ImageModel) -> Self {
        let stats = engine.stats();
        Self {
            prefetched_bytes: stats.prefetched_bytes,
            prefetch_unused_bytes: engine.unused_guesses().map(|chunk| u64::from(image.piece_bytes(chunk.get()))).sum(),
            discarded_bytes: stats.discarded_bytes,
            corrupt_pieces: stats.corrupt_pieces,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.prefetched_bytes += other.prefetched_bytes;
        self.prefetch_unused_bytes += other.prefetch_unused_bytes;
        self.discarded_bytes += other.discarded_bytes;
        self.corrupt_pieces += other.corrupt_pieces;
    }
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
