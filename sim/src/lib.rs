//! Deterministic simulator of swarms.
pub mod network;
pub mod scenario;
