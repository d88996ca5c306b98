//! One-line messages for the operator, on stderr.
//!
//! *Invariants*: one message is one line, written at once, so that lines of threads do not mix; stdout is never touched
//! (it carries REFs, `ready` lines and JSON). *Bounds*: a line is cut after [`LINE_BYTES_MAX`] bytes, and its control
//! characters are replaced, since parts of it may come from a peer.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 1000;

/// How much a message matters. Ordered: the most important is the least.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed that the operator should look at.
    Warn = 1,
    /// Something that happens rarely: a link to a seed is up, a peer was dropped.
    Info = 2,
    /// Each link that comes and goes.
    Debug = 3,
}

/// Where messages go that no person reads on stderr: takes one line, without its end.
pub type Sink = fn(Level, &str);

static SINK: OnceLock<Sink> = OnceLock::new();
static LEVEL: AtomicU8 = AtomicU8::new(Level::Warn as u8);

/// Shows messages up to this level; [`Level::Warn`] at first.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// From now on messages go there instead of to stderr. Only the first call counts.
pub fn send_to(sink: Sink) {
    // It is as its docs say.
    let _ = SINK.set(sink);
}

/// Whether messages of this level are shown.
pub fn is_shown(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Says that something failed.
pub fn warn(message: fmt::Arguments<'_>) {
    say(Level::Warn, message);
}

/// Says what happened.
pub fn info(message: fmt::Arguments<'_>) {
    say(Level::Info, message);
}

/// Says what is only of interest to those who look for a fault.
pub fn debug(message: fmt::Arguments<'_>) {
    say(Level::Debug, message);
}

fn say(level: Level, message: fmt::Arguments<'_>) {
    if !is_shown(level) {
        return;
    }
    let line = line(message);
    if let Some(sink) = SINK.get() {
        return sink(level, line.trim_end());
    }
    // Nobody can be told that stderr is closed.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

fn line(message: fmt::Arguments<'_>) -> String {
    let mut text = String::new();
    let _ = write!(text, "swarmdisk: {message}");
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > LINE_BYTES_MAX {
        let cut = (0..=LINE_BYTES_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(cut);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line() {
        let text = line(format_args!("{}\n{}", "ä".repeat(1000), "b"));
        assert!(text.len() <= LINE_BYTES_MAX + 1 && text.ends_with('\n'));
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(line(format_args!("a\x1b[1m\nb")), "swarmdisk: a [1m b\n");
    }
}
