//! What a command has to say, on stdout, and its remarks, on stderr. Unlike with `println!`, a reader who has gone, as in
//! `| head`, is no panic.

use super::Failure;
use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};

/// Writes one line, or several, at once.
///
/// # Errors
/// If it cannot be written; without a message if nobody reads any longer, since there it is no error.
pub(super) fn say(text: impl Display) -> Result<(), Failure> {
    let text = format!("{text}\n");
    let mut out = stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::silent(),
        _ => Failure::new(format!("cannot write to the standard output: {error}; make room, or redirect it elsewhere")),
    })
}

/// Writes one line to stderr, whether or not anybody reads it.
pub(super) fn remark(text: impl Display) {
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}
