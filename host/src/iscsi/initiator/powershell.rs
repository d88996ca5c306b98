//! Windows' initiator, by the cmdlets of its module `iSCSI` (Windows 8, Server 2012 and later).
//!
//! What a script has to know is in its environment, where nothing has to be quoted and other users cannot read it. What it says is
//! in UTF-8, whatever the system's language: where there is no console it may not be, and is read as far as it goes.

use super::{DISK_TIME, Initiator, InitiatorError, refused, run};
use std::process::Output;
use tokio::process::Command;

pub(super) const TAKES_SECRETS: bool = true;
pub(super) const HOW_TO_GET_IT: &str = "there is no powershell.exe on the path";

const PROGRAM: &str = "powershell.exe";
/// A script's status when there is no service to attach disks.
const NO_SERVICE: i32 = 3;
/// Its status when no disk has come.
const NO_DISK: i32 = 4;

/// Prints the disk's number. What is not persistent is forgotten when the machine starts again.
const ATTACH: &str = r"
try { [Console]::OutputEncoding = [Text.UTF8Encoding]::new($false) } catch { }
$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue'
try {
  $service = Get-Service -Name MSiSCSI -ErrorAction SilentlyContinue
  if (-not $service) { exit 3 }
  if ($service.Status -ne 'Running') { Start-Service -Name MSiSCSI }
  $portal = @{ TargetPortalAddress = $env:SWARMDISK_HOST; TargetPortalPortNumber = [uint16]$env:SWARMDISK_PORT }
  $login = @{}
  if ($env:SWARMDISK_CHAP_NAME) {
    $login = @{
      AuthenticationType = 'ONEWAYCHAP'; ChapUsername = $env:SWARMDISK_CHAP_NAME; ChapSecret = $env:SWARMDISK_CHAP_SECRET
    }
  }
  New-IscsiTargetPortal @portal @login | Out-Null
  $session = Connect-IscsiTarget -NodeAddress $env:SWARMDISK_IQN -IsPersistent $false @portal @login
  $until = (Get-Date).AddSeconds([int]$env:SWARMDISK_SECONDS)
  while ((Get-Date) -lt $until) {
    $disk = Get-Disk -iSCSISession $session -ErrorAction SilentlyContinue | Select-Object -First 1
    if ($disk) { [Console]::Out.WriteLine($disk.Number); exit 0 }
    Start-Sleep -Milliseconds 200
  }
  exit 4
} catch { [Console]::Error.WriteLine($_.Exception.Message); exit 1 }
";

/// Both are tried, whatever becomes of the first.
const DETACH: &str = r"
try { [Console]::OutputEncoding = [Text.UTF8Encoding]::new($false) } catch { }
$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue'; $failed = $null
try { Disconnect-IscsiTarget -NodeAddress $env:SWARMDISK_IQN -Confirm:$false } catch { $failed = $_ }
try {
  $portal = @{ TargetPortalAddress = $env:SWARMDISK_HOST; TargetPortalPortNumber = [uint16]$env:SWARMDISK_PORT }
  Remove-IscsiTargetPortal @portal -Confirm:$false
} catch { if (-not $failed) { $failed = $_ } }
if ($failed) { [Console]::Error.WriteLine($failed.Exception.Message); exit 1 }
";

pub(super) async fn attach(initiator: &Initiator) -> Result<String, InitiatorError> {
    let output = script(initiator, ATTACH).await?;
    match output.status.code() {
        Some(0) => {
            let number = String::from_utf8_lossy(&output.stdout).trim().parse::<u32>();
            number.map(|number| format!("disk {number}")).map_err(|_| InitiatorError::NoDisk)
        }
        Some(NO_SERVICE) => Err(InitiatorError::Absent {
            what: "Windows' iSCSI initiator is not there (Get-Service MSiSCSI): this edition may lack it; choose --nbd or --wnbd",
        }),
        Some(NO_DISK) => Err(InitiatorError::NoDisk),
        _ => Err(refused(PROGRAM, &output)),
    }
}

pub(super) async fn detach(initiator: &Initiator) -> Result<(), InitiatorError> {
    let output = script(initiator, DETACH).await?;
    if output.status.success() { Ok(()) } else { Err(refused(PROGRAM, &output)) }
}

async fn script(initiator: &Initiator, script: &str) -> Result<Output, InitiatorError> {
    let mut command = Command::new(PROGRAM);
    command.args(["-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-Command", script]);
    command.env("SWARMDISK_HOST", &initiator.portal.host).env("SWARMDISK_PORT", initiator.portal.port.to_string());
    command.env("SWARMDISK_IQN", &initiator.iqn).env("SWARMDISK_SECONDS", DISK_TIME.as_secs().to_string());
    let (name, secret) = initiator.login.as_ref().map_or(("", ""), |login| (&login.name, &login.secret));
    command.env("SWARMDISK_CHAP_NAME", name).env("SWARMDISK_CHAP_SECRET", secret);
    run(PROGRAM, &mut command).await
}
