//! Linux' initiator, by `iscsiadm` of open-iscsi. It takes secrets as arguments alone, where all users can read them.

use super::{DISK_TIME, Initiator, InitiatorError, refused, run};
use std::process::Output;
use tokio::process::Command;
use tokio::time::{Duration, Instant, sleep};

pub(super) const TAKES_SECRETS: bool = false;
pub(super) const HOW_TO_GET_IT: &str = "there is no iscsiadm on the path: install open-iscsi";

const PROGRAM: &str = "iscsiadm";
const DISK_AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn attach(initiator: &Initiator) -> Result<String, InitiatorError> {
    of_node(initiator, &["-o", "new"]).await?;
    of_node(initiator, &["--login"]).await?;
    let until = Instant::now() + DISK_TIME;
    loop {
        let output = iscsiadm(&["-m", "session", "-P", "3"]).await?;
        if let Some(disk) = disk_of(&String::from_utf8_lossy(&output.stdout), &initiator.iqn) {
            return Ok(format!("/dev/{disk}"));
        }
        if Instant::now() >= until {
            return Err(InitiatorError::NoDisk);
        }
        sleep(DISK_AGAIN).await;
    }
}

pub(super) async fn detach(initiator: &Initiator) -> Result<(), InitiatorError> {
    let left = of_node(initiator, &["--logout"]).await;
    let forgotten = of_node(initiator, &["-o", "delete"]).await;
    left.and(forgotten)
}

/// Does something with what the initiator knows of the target.
async fn of_node(initiator: &Initiator, what: &[&str]) -> Result<(), InitiatorError> {
    let portal = initiator.portal.to_string();
    let output = iscsiadm(&[&["-m", "node", "-T", &initiator.iqn, "-p", &portal], what].concat()).await?;
    if output.status.success() { Ok(()) } else { Err(refused(PROGRAM, &output)) }
}

async fn iscsiadm(arguments: &[&str]) -> Result<Output, InitiatorError> {
    run(PROGRAM, Command::new(PROGRAM).args(arguments)).await
}

/// The disk of a target, in a list of sessions with what hangs on each.
fn disk_of<'a>(sessions: &'a str, iqn: &str) -> Option<&'a str> {
    let mut is_ours = false;
    for line in sessions.lines().map(str::trim) {
        if let Some(target) = line.strip_prefix("Target:") {
            is_ours = target.split_whitespace().next() == Some(iqn);
        } else if is_ours && let Some(disk) = line.strip_prefix("Attached scsi disk ") {
            return disk.split_whitespace().next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_that_of_the_target() {
        let sessions = "Target: iqn.a:1 (non-flash)\n\tCurrent Portal: 127.0.0.1:3260,1\n\t\tAttached SCSI devices:\n\
            \t\tHost Number: 2\tState: running\n\t\t\tAttached scsi disk sdb\t\tState: running\n\
            Target: iqn.a:10 (non-flash)\n\t\t\tAttached scsi disk sdc\t\tState: running\n\
            Target: iqn.a:2 (non-flash)\n\t\tHost Number: 3\tState: running\n";
        assert_eq!(disk_of(sessions, "iqn.a:1"), Some("sdb"));
        assert_eq!(disk_of(sessions, "iqn.a:10"), Some("sdc"));
        assert_eq!(disk_of(sessions, "iqn.a:2"), None);
        assert_eq!(disk_of(sessions, "iqn.a:3"), None);
    }
}
