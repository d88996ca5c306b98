//! What a command has to say, on stdout, and its remarks, on stderr. Unlike with `println!`, a reader who has gone, as in
//! `| head`, is no panic.

use std::fmt::Display;
use std::io::{self, Write, stderr, stdout};

/// Writes one line, or several, at once.
///
/// # Errors
/// If it cannot be written; of kind `BrokenPipe` if nobody reads any longer, of which nobody wants to be told.
pub fn say(text: impl Display) -> io::Result<()> {
    let text = format!("{text}\n");
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes one line to stderr, whether or not anybody reads it.
pub fn remark(text: impl Display) {
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}
