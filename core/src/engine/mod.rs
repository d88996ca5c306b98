//! The state machine.

mod event;

pub use event::{Action, BlobKind, Body, Event, Reason, Verdict};
