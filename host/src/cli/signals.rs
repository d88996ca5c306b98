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

#[cfg(windows)]
struct Signals(Option<WindowsSignals>);

#[cfg(windows)]
struct WindowsSignals {
    interrupt: tokio::signal::windows::CtrlC,
    pause: tokio::signal::windows::CtrlBreak,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    /// Where they cannot be watched, the system does as it always does.
    fn watch() -> Self {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
        let all = || {
            let (interrupt, pause) = (ctrl_c()?, ctrl_break()?);
            std::io::Result::Ok(WindowsSignals { interrupt, pause, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
        };
        Self(all().ok())
    }

    /// When the console closes or the machine shuts down, Windows gives the process some five seconds from then on.
    async fn next(&mut self) -> &'static str {
        let Some(all) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = all.interrupt.recv() => "Ctrl-C",
            _ = all.pause.recv() => "Ctrl-Break",
            _ = all.close.recv() => "the console's end",
            _ = all.shutdown.recv() => "the machine's shutdown",
        }
    }
}

/// Sees to it that the command's process can be [asked to end](ask_to_end) alone.
pub(crate) fn may_be_asked(command: &mut tokio::process::Command) -> &mut tokio::process::Command {
    // CREATE_NEW_PROCESS_GROUP: else the request would reach all processes of the console.
    #[cfg(windows)]
    command.creation_flags(0x200);
    command
}

/// Asks a child process to end; on Windows one that was [made for that](may_be_asked).
pub(crate) fn ask_to_end(child: &tokio::process::Child) {
    // It may have ended just now.
    #[cfg(unix)]
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    #[cfg(windows)]
    if let Some(id) = child.id() {
        let _ = crate::sys::windows::send_break(id);
    }
}
