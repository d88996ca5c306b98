//! `swarmdisk run`: attach, run a command, detach.

use super::args::Run;
use super::attach::Session;
use super::export::ExportWish;
use super::{Failure, signals};
use crate::device::Exports;
use std::io::{ErrorKind, IsTerminal};
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;
use swarmdisk_common::output::remark;
use tokio::process::Command;

/// What stands for the disk in the command.
const DISK: &str = "{disk}";
/// A shell's status for a command that it cannot find.
const NOT_FOUND: u8 = 127;
/// The same for one that is there and cannot be run.
const NOT_RUNNABLE: u8 = 126;

pub(super) async fn run(args: Run, exports: Exports, began: Instant) -> Result<ExitCode, Failure> {
    // Dropped at the end, with the socket in it.
    #[cfg(unix)]
    let folder = tempfile::Builder::new().prefix("swarmdisk-").tempdir()?;
    #[cfg(unix)]
    let own = format!("unix:{}", folder.path().join("nbd.sock").display());
    #[cfg(not(unix))]
    let own = "127.0.0.1:0".to_owned();
    let is_device = args.device.ublk.is_some() || args.device.vhost_user.is_some() || args.device.wnbd;
    let is_nbd = !is_device && args.iscsi.iscsi.is_none();
    let nbd = args.nbd.as_deref().or(is_nbd.then_some(&own));
    let wish = ExportWish::new(nbd, &args.iscsi, &args.device, exports)?;
    let end = signals::asked_to_end();
    tokio::pin!(end);
    let session = tokio::select! {
        session = Session::start(&args.target, wish, &args.options, began) => session?,
        _ = &mut end => return Err(Failure::new("interrupted before the disk was ready")),
    };
    let uri = session.uri().to_string();
    let words: Vec<String> = args.command.iter().map(|word| word.replace(DISK, &uri)).collect();
    let spawned = Command::new(&words[0]).args(&words[1..]).env("SWARMDISK_DISK", &uri).kill_on_drop(true).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            session.end().await?;
            remark(format_args!("swarmdisk: cannot run {}: {error}; check the command", words[0]));
            let is_missing = error.kind() == ErrorKind::NotFound;
            return Ok(ExitCode::from(if is_missing { NOT_FOUND } else { NOT_RUNNABLE }));
        }
    };
    let status = tokio::select! {
        status = child.wait() => status,
        signal = &mut end => {
            // Ctrl-C at a terminal reaches the command by itself, and so does all on Windows; all else has to be passed on.
            if cfg!(unix) && (signal != "SIGINT" || !std::io::stdin().is_terminal()) {
                signals::ask_to_end(&child);
            }
            child.wait().await
        }
    };
    session.end().await?;
    Ok(exit_code(status?))
}

/// The command's own status; as a shell does, 128 and the signal's number for one that a signal ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitCode::from(128 + signal as u8);
    }
    ExitCode::from(status.code().unwrap_or(1) as u8)
}
