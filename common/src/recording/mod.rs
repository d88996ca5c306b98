//! Recordings of an engine: made while it runs, read, and run again with every answer compared.
//!
//! *Purpose*: what went wrong at a host can be had again anywhere, action for action. The bytes are those of
//! [`swarmdisk_core::format::recording`].
//!
//! | module | holds |
//! |---|---|
//! | `recorded` | an engine that is recorded, if wished |
//! | `read` | records from a file |
//! | `replay` | the same calls again |

mod read;
mod recorded;
mod replay;

pub use read::{ReadError, Records};
pub use recorded::{Recorded, Sink};
pub use replay::{Divergence, ReplayError, Replayed, replay};

#[cfg(test)]
mod tests;
