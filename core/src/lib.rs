//! The engine of swarmdisk: what to fetch, from whom, in which order, and whom to serve first.
//!
//! A pure state machine: events in ([`engine::Event`]), actions out ([`engine::Action`]), time passed in. It never does
//! I/O, never reads a clock, never allocates. Beside it stands what every host must read alike: the wire ([`wire`]) and
//! the file formats ([`format`]).
//!
//! | module | holds |
//! |---|---|
//! | [`time`], [`geometry`], [`ids`], [`bitmap`], [`rng`] | the vocabulary |
//! | [`engine`] | the state machine and its tables |
//! | [`policy`] | what may be replaced: prediction, prefetch order, choice of peer |
//! | [`wire`] | frames between nodes, `PROTOCOL.md` in code |
//! | [`mod@format`] | superblock, manifest, leaf pages, held log, profile |
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod bitmap;
pub mod engine;
pub mod format;
pub mod geometry;
pub mod ids;
pub mod locality;
pub mod policy;
pub mod rng;
pub mod time;
pub mod wire;
