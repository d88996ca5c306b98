//! Deterministic simulator of swarms.
pub mod bounds;
pub mod cli;
pub mod model;
pub mod network;
pub mod outcome;
pub mod report;
pub mod scenario;
pub mod sweep;
pub mod world;
