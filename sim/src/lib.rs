//! The simulator: thousands of real engines on one virtual clock, the same answer each time.
//!
//! | module | holds |
//! |---|---|
//! | [`scenario`] | what is to be simulated, as TOML says it |
//! | [`model`] | the same made ready: images, guests, policies, places and times |
//! | [`network`] | the models of the network |
//! | [`world`] | engines, connections, guests and faults on the virtual clock |
//! | [`outcome`], [`bounds`], [`report`] | what came of it, what no swarm can beat, tables and pages |
//! | [`sweep`] | grids of scenarios |
//! | [`policies`] | the comparison of policies as a document |
//! | [`targets`] | what is aimed at and what is reached, as a document |
//! | [`priority`] | what bulk fetches cost a guest that has demand misses |
//! | [`swarm`] | swarms and faults drawn from seeds, and checkers of what must hold |
//! | [`cli`] | the command |

pub mod bounds;
pub mod cli;
pub mod model;
pub mod network;
pub mod outcome;
pub mod policies;
pub mod priority;
pub mod report;
pub mod scenario;
pub mod swarm;
pub mod sweep;
pub mod targets;
pub mod world;
