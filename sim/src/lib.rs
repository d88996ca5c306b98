//! Deterministic simulator of swarms.
pub mod network;
