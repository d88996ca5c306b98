//! What a scenario describes, made ready to run: images, guests, policies, places and times.
//!
//! *Invariants*: all random choices come from the run's seed, each purpose from a stream of its own, so that a change in one
//! part of a scenario leaves the draws of the others as they were. *Units*: nanoseconds of virtual time, bytes.

mod image;
mod policies;
mod script;
mod setup;
mod store;

pub use image::{ImageError, ImageModel};
pub use policies::{AnyOrder, AnySelector, SimEngine, learns, make as make_policies};
pub use script::{Group, Script, ScriptError};
pub(crate) use setup::exponential;
pub use setup::{NodeSetup, Setup, SetupError};
pub use store::{Content, Store};

use swarmdisk_core::rng::{Rng, mix};

/// What a random stream is for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Payload sizes and zero chunks.
    Image = 1,
    /// Made-up boots.
    Boot,
    /// Which workload a node runs.
    Workload,
    /// When nodes start.
    Arrival,
    /// Think times and what is left out.
    Guest,
    /// Chunks missing from the profile, chunks held at the start.
    Cache,
    /// Faults and churn.
    Fault,
    /// Engines' own seeds.
    Engine,
    /// A whole scenario.
    Scenario,
}

/// The stream of a run for a purpose and an object.
pub fn stream(seed: u64, purpose: Purpose, object: u64) -> Rng {
    Rng::new(mix(mix(seed ^ (purpose as u64) << 56) ^ object))
}

/// A hash of a number under a seed, as a choice of `share_ppm` millionths.
pub fn chosen(seed: u64, purpose: Purpose, object: u64, share_ppm: u32) -> bool {
    u64::from(stream(seed, purpose, object).below(1_000_000)) < u64::from(share_ppm)
}
