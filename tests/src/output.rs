//! What a child process prints: collected as it comes, waited for line by line.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// All that a stream has carried so far.
#[derive(Debug, Clone, Default)]
pub struct Output {
    shared: Arc<Shared>,
}

/// Why a line did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLine {
    /// The stream ended first.
    Ended,
    /// The time was over first.
    Deadline,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    grew: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    /// Collects a stream on a thread of its own, until it ends.
    pub fn collect(stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let writer = output.clone();
        thread::spawn(move || writer.fill_from(stream));
        output
    }

    /// Waits until a whole line with `needle` in it is there, and gives that line.
    ///
    /// # Errors
    /// When the stream ends or `deadline` is over before that.
    pub fn wait_for_line(&self, needle: &str, deadline: Duration) -> Result<String, NoLine> {
        let until = Instant::now() + deadline;
        let mut seen = self.seen();
        loop {
            if let Some(line) = seen.line_with(needle) {
                return Ok(line);
            }
            if seen.ended {
                return Err(NoLine::Ended);
            }
            let left = until.checked_duration_since(Instant::now()).ok_or(NoLine::Deadline)?;
            (seen, _) = self.shared.grew.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the stream ends; whether it did.
    pub fn wait_for_end(&self, deadline: Duration) -> bool {
        let waiting = |seen: &mut Seen| !seen.ended;
        let waited = self.shared.grew.wait_timeout_while(self.seen(), deadline, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen().bytes).into_owned()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_from(&self, mut stream: impl Read) {
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).unwrap_or(0);
            let mut seen = self.seen();
            seen.bytes.extend_from_slice(&buffer[..read]);
            seen.ended = read == 0;
            self.shared.grew.notify_all();
            if read == 0 {
                return;
            }
        }
    }
}

impl Seen {
    fn line_with(&self, needle: &str) -> Option<String> {
        let is_wanted = |line: &&[u8]| line.windows(needle.len()).any(|window| window == needle.as_bytes());
        let line = self.bytes.split_inclusive(|&byte| byte == b'\n').find(is_wanted)?;
        line.ends_with(b"\n").then(|| String::from_utf8_lossy(line).trim_end().to_owned())
    }
}

/// The last lines, which tell most.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_when_it_is_whole() {
        let mut seen = Seen { bytes: b"noise\r\n[  OK  ] BOOT-DONE up=1".to_vec(), ended: false };
        assert_eq!(seen.line_with("BOOT-DONE"), None);
        seen.bytes.extend_from_slice(b"2.5 app=active\r\nmore");
        assert_eq!(seen.line_with("BOOT-DONE").as_deref(), Some("[  OK  ] BOOT-DONE up=12.5 app=active"));
    }

    #[test]
    fn a_stream_that_ends_brings_no_more_lines() {
        let output = Output::collect(&b"one\ntwo"[..]);
        assert_eq!(output.wait_for_line("one", Duration::from_secs(20)).as_deref(), Ok("one"));
        assert_eq!(output.wait_for_line("two", Duration::from_secs(20)), Err(NoLine::Ended));
        assert!(output.wait_for_end(Duration::ZERO));
        assert_eq!(output.text(), "one\ntwo");
    }
}
