//! Why a command ends early: one line for a person, and an exit status.

use crate::iscsi::IscsiServerError;
use crate::nbd::{AddressError, ServerError};
use crate::node::NodeError;
use crate::reference::ReferenceError;
use crate::status::StatusError;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    message: String,
    exit: u8,
}

impl Failure {
    /// Something went wrong: exit 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: 1 }
    }

    /// The arguments cannot be right: exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: 2 }
    }

    /// Nothing that a person would want to be told: exit 1.
    pub(super) fn silent() -> Self {
        Self::new("")
    }

    /// The message; none if nobody wants to be told.
    pub(super) fn message(&self) -> Option<String> {
        Some(self.to_string()).filter(|message| !message.is_empty())
    }

    /// Whether other arguments are all it takes: then to try again is no use.
    pub fn is_usage(&self) -> bool {
        self.exit == 2
    }

    /// The status that the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let exit = if is_usage(&error) { 2 } else { 1 };
        Self { message: error.to_string(), exit }
    }
}

/// Whether other arguments are all it takes.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    error.is::<ReferenceError>()
        || error.is::<AddressError>()
        || matches!(error.downcast_ref(), Some(NodeError::Exposed { .. }))
        || matches!(error.downcast_ref(), Some(StatusError::Exposed { .. }))
        || matches!(error.downcast_ref(), Some(ServerError::NotLoopback(_) | ServerError::NoUnixSockets))
        || matches!(error.downcast_ref(), Some(IscsiServerError::NotLoopback(_)))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever a library put into its message.
        f.write_str(&self.message.replace('\n', " "))
    }
}
