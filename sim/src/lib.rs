//! Deterministic simulator of swarms.
pub mod model;
pub mod network;
pub mod scenario;
pub mod swarm;
pub mod world;
