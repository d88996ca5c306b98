//! What the hosts and the simulator share beside the core: what people write and read.
//!
//! Units on the command line, traces and the guest they stand for, profiles from traces, files written whole, progress,
//! errors of the command line; an engine's policies, tables and recordings. No sockets, no threads of its own, no
//! asynchronous runtime.

pub mod file;
pub mod guest;
pub mod memory;
pub mod output;
pub mod policies;
pub mod profile;
pub mod progress;
pub mod recording;
pub mod trace;
pub mod units;
pub mod usage;
