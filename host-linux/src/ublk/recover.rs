//! Devices whose process is dead, found again.
//!
//! *Invariants*: only a device that we made of the same disk (its mark says so, which the kernel keeps), of the same
//! size and kind, and that no living process serves, is taken. There is no file that could be out of date.

use super::abi::{DeviceInfo, Parameters, attribute, feature, state};
use super::control::Control;
use super::error::UblkError;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;
use swarmdisk_host::device::DeviceWish as Wish;
use tokio::time::{Instant, sleep};

/// How long the kernel may take to see the end of a process.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);
/// The devices that there are, as `ublkcN`.
const DEVICES: &str = "/sys/class/ublk-char";

/// The device that is wished for, which now waits for its queues to be served.
pub(super) async fn find(control: &mut Control, wish: &Wish, expected: &Parameters) -> Result<DeviceInfo, UblkError> {
    let numbers = wish.number.map_or_else(all, |number| vec![number]);
    for number in numbers {
        let Some(info) = control.info(number)? else { continue };
        let fault = fault(control, &info, wish, expected)?;
        match (fault, wish.number) {
            (None, _) => {
                begin(control, number).await?;
                return Ok(info);
            }
            (Some(fault), Some(_)) => return Err(fault),
            (Some(_), None) => {}
        }
    }
    Err(UblkError::NothingToRecover)
}

fn all() -> Vec<u32> {
    let names = fs::read_dir(DEVICES).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.to_str()?.strip_prefix("ublkc")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Why a device is not to be taken.
fn fault(
    control: &mut Control,
    info: &DeviceInfo,
    wish: &Wish,
    expected: &Parameters,
) -> Result<Option<UblkError>, UblkError> {
    if info.mark != wish.mark || info.features & feature::NEEDED != feature::NEEDED {
        return Ok(Some(UblkError::OtherDisk(info.number)));
    }
    if !is_orphan(info) {
        return Ok(Some(UblkError::Served(info.number)));
    }
    let found = control.parameters(info.number)?;
    let kind = |parameters: &Parameters| {
        (parameters.device_sectors, parameters.attributes & attribute::READ_ONLY, parameters.discard_sectors_max)
    };
    Ok((kind(&found) != kind(expected)).then_some(UblkError::OtherDisk(info.number)))
}

/// Whether nobody serves it. For a moment after a process's end the kernel takes it to be alive.
fn is_orphan(info: &DeviceInfo) -> bool {
    match info.state {
        state::QUIESCED => true,
        state::LIVE => !Path::new(&format!("/proc/{}", info.pid)).exists(),
        _ => false,
    }
}

async fn begin(control: &mut Control, number: u32) -> Result<(), UblkError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match control.start_recovery(number) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => sleep(STEP).await,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(UblkError::Served(number)),
            Err(source) => return Err(UblkError::Command { action: "take back", number: Some(number), source }),
        }
    }
}
