//! The service's messages in Windows' event log.
//!
//! *Invariants*: a message is one event; what kind it is, its number says too, so that it can be filtered by it.

use crate::sys::{self, EventKind};
use swarmdisk_host::log::{self, Level};

/// From now on the log's messages, those of rare events included, go there.
pub(super) fn begin() {
    log::set_level(Level::Info);
    log::send_to(|level, line| {
        let kind = if level == Level::Warn { EventKind::Warning } else { EventKind::Information };
        write(kind, without_name(line));
    });
}

/// Says what the service ends of.
pub(super) fn error(message: &str) {
    write(EventKind::Error, message);
}

fn write(kind: EventKind, message: &str) {
    // Nobody is left to be told.
    let _ = sys::report_event(super::NAME, kind, message);
}

/// The log shows the source by itself.
fn without_name(line: &str) -> &str {
    line.strip_prefix("swarmdisk: ").unwrap_or(line)
}
