//! How far a long task has come: a bar on a terminal, plain lines elsewhere, both on stderr.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Plain lines come when so many more percent are done.
const PLAIN_STEP_PERCENT: u64 = 10;

/// Shows the progress of one task. Dropped, the bar goes.
pub struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
    said_percent: AtomicU64,
}

impl Progress {
    /// Begins to show a task; `verb` says what is done, as in `packing`.
    pub fn new(verb: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style).with_message(verb)
        });
        Self { verb, bar, said_percent: AtomicU64::new(0) }
    }

    /// `done` of `total` bytes are done. Any thread may say so.
    pub fn update(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let percent = (u128::from(done) * 100 / u128::from(total.max(1))) as u64;
        let step = percent - percent % PLAIN_STEP_PERCENT;
        if self.said_percent.fetch_max(step, Relaxed) < step {
            // Whoever does not read them does not want them.
            let _ = std::io::stderr().write_all(format!("{}: {step}%\n", self.verb).as_bytes());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
