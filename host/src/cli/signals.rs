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
struct Signals {
    console: Option<ConsoleSignals>,
    /// None if it cannot be watched.
    asked: Option<tokio::sync::mpsc::Receiver<()>>,
}

#[cfg(windows)]
struct ConsoleSignals {
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
        let console = || {
            let (interrupt, pause) = (ctrl_c()?, ctrl_break()?);
            std::io::Result::Ok(ConsoleSignals { interrupt, pause, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
        };
        Self { console: console().ok(), asked: watch_event() }
    }

    /// When the console closes or the machine shuts down, Windows gives the process some five seconds from then on.
    async fn next(&mut self) -> &'static str {
        let Self { console, asked } = self;
        let of_console = async {
            let Some(all) = console else { return std::future::pending().await };
            tokio::select! {
                _ = all.interrupt.recv() => "Ctrl-C",
                _ = all.pause.recv() => "Ctrl-Break",
                _ = all.close.recv() => "the console's end",
                _ = all.shutdown.recv() => "the machine's shutdown",
            }
        };
        let by_event = async {
            let Some(asked) = asked else { return std::future::pending().await };
            match asked.recv().await {
                Some(()) => "a request",
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            signal = of_console => signal,
            signal = by_event => signal,
        }
    }
}

/// The event by which a process is asked to end, as SIGTERM does elsewhere: it needs no console.
#[cfg(windows)]
fn event_of(process: u32) -> String {
    format!(r"Local\swarmdisk-end-{process}")
}

#[cfg(windows)]
fn watch_event() -> Option<tokio::sync::mpsc::Receiver<()>> {
    let event = crate::sys::windows::Event::create(&event_of(std::process::id())).ok()?;
    let (tell, told) = tokio::sync::mpsc::channel(1);
    // It ends with the process.
    std::thread::spawn(move || while event.wait().is_ok() && tell.blocking_send(()).is_ok() {});
    Some(told)
}

/// Asks a child process to end: on Windows one of this program's.
pub(crate) fn ask_to_end(child: &tokio::process::Child) {
    // It may have ended just now.
    #[cfg(unix)]
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    #[cfg(windows)]
    if let Some(id) = child.id() {
        let _ = crate::sys::windows::Event::set(&event_of(id));
    }
}
