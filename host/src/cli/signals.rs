//! Ctrl-C and the polite request to end.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The status of a process that a second signal ended: a shell's for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// From now on a request to end this process is what the answer waits for; one more ends the process at once.
/// To be called on a runtime.
pub(crate) fn asked_to_end() -> impl Future<Output = &'static str> {
    let mut signals = Signals::watch();
    async move {
        let first = signals.next().await;
        tokio::spawn(async move {
            signals.next().await;
            exit(INTERRUPTED)
        });
        first
    }
}

/// Sets a flag when the process is interrupted, for work that polls it; a second Ctrl-C ends the process.
pub(crate) fn flag_on_interrupt() -> &'static AtomicBool {
    static FLAG: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let mut signals = Signals::watch();
            signals.next().await;
            FLAG.store(true, Relaxed);
            signals.next().await;
            exit(INTERRUPTED);
        });
    });
    &FLAG
}

#[cfg(unix)]
struct Signals(Option<[tokio::signal::unix::Signal; 2]>);

#[cfg(unix)]
impl Signals {
    /// Where they cannot be watched, the system does as it always does.
    fn watch() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let both = signal(SignalKind::interrupt()).and_then(|int| Ok([int, signal(SignalKind::terminate())?]));
        Self(both.ok())
    }

    async fn next(&mut self) -> &'static str {
        let Some([interrupt, terminate]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn watch() -> Self {
        Self
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

/// Asks a child process to end, where the system knows such requests.
pub(crate) fn ask_to_end(child: &tokio::process::Child) {
    #[cfg(unix)]
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    #[cfg(not(unix))]
    let _ = child;
}
