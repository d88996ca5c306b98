//! What a command has to say, on stdout.

use super::Failure;
use std::fmt::Display;
use std::io::ErrorKind;
use swarmdisk_common::output;

/// Writes one line, or several, at once.
///
/// # Errors
/// If it cannot be written; without a message if nobody reads any longer, since there it is no error.
pub(super) fn say(text: impl Display) -> Result<(), Failure> {
    output::say(text).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::silent(),
        _ => Failure::new(format!("cannot write to the standard output: {error}; make room, or redirect it elsewhere")),
    })
}
