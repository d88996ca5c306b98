//! Swarms with faults, all drawn from a seed, and what must hold in every one of them.
//!
//! *Purpose*: as TigerBeetle's VOPR does, a seed draws a scenario ([`draw`](mod@draw)); it is run while [`checkers`] watch, first
//! with faults, when nothing wrong may happen, then without, when everything must come to its end. A seed that fails can
//! be replayed exactly, and made smaller ([`shrink`](mod@shrink)).
//! *Invariants*: a seed gives one verdict, on every machine and with any number of threads.

pub mod checkers;
mod coverage;
pub mod draw;
mod run;
pub mod shrink;

pub use coverage::{Coverage, Spread};
pub use run::{Failure, Options, Outcome, Subjects, Verdict, calm, run_scenario, run_seed, swarm};
