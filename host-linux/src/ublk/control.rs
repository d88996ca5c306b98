//! Commands to `/dev/ublk-control`: devices made, started, taken back, removed.
//!
//! *Invariants*: a [`Control`] is for one command at a time; those that wait (start, stop, delete, the end of a
//! recovery) get one of their own. *Bounds*: start waits for the first reads of the disk (the kernel looks for
//! partitions), stop for the requests in flight: who calls sees to it that they are answered.

use super::abi::{ControlCommand, DeviceInfo, Parameters, command, feature};
use super::error::UblkError;
use crate::sys::ControlRing;
use std::fs::File;
use std::io::{self, ErrorKind};

const CONTROL: &str = "/dev/ublk-control";
/// The kernel chooses a number for the device.
const ANY: u32 = u32::MAX;

/// The driver.
pub(super) struct Control(ControlRing);

impl Control {
    /// # Errors
    /// [`UblkError`]: there is no driver, it is not for us, or too old.
    pub(super) fn open() -> Result<Self, UblkError> {
        let file = File::options().read(true).write(true).open(CONTROL).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => UblkError::no_driver(),
            ErrorKind::PermissionDenied => UblkError::NotRoot,
            _ => UblkError::Device { action: "open", path: CONTROL.into(), source: error },
        })?;
        let mut control = Self(ControlRing::new(file).map_err(UblkError::from_ring)?);
        match control.features() {
            Ok(features) if features & feature::NEEDED == feature::NEEDED => Ok(control),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(UblkError::NotRoot),
            _ => Err(UblkError::too_old()),
        }
    }

    fn features(&mut self) -> io::Result<u64> {
        let answer = self.send(command::GET_FEATURES, 0, 0, vec![0; size_of::<u64>()])?;
        answer.first_chunk().copied().map(u64::from_ne_bytes).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// Makes a device; its answer says which number it has.
    pub(super) fn add(&mut self, number: Option<u32>, wish: DeviceInfo) -> Result<DeviceInfo, UblkError> {
        let wish = DeviceInfo { number: number.unwrap_or(ANY), ..wish };
        let answer =
            self.send(command::ADD_DEV, wish.number, 0, wish.encode()).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => UblkError::NotRoot,
                ErrorKind::AlreadyExists => UblkError::NumberTaken(wish.number),
                _ => UblkError::Command { action: "make", number, source: error },
            })?;
        DeviceInfo::decode(&answer).ok_or_else(UblkError::too_old)
    }

    pub(super) fn set_parameters(&mut self, number: u32, parameters: &Parameters) -> Result<(), UblkError> {
        let done = self.send(command::SET_PARAMS, number, 0, parameters.encode());
        done.map(drop).map_err(failed("set up", number))
    }

    pub(super) fn parameters(&mut self, number: u32) -> Result<Parameters, UblkError> {
        let mut buffer = vec![0; Parameters::BYTES];
        buffer[..4].copy_from_slice(&(Parameters::BYTES as u32).to_ne_bytes());
        let answer = self.send(command::GET_PARAMS, number, 0, buffer).map_err(failed("look at", number))?;
        Parameters::decode(&answer).ok_or_else(UblkError::too_old)
    }

    /// What the kernel knows of a device; none if there is none.
    pub(super) fn info(&mut self, number: u32) -> Result<Option<DeviceInfo>, UblkError> {
        match self.send(command::GET_DEV_INFO, number, 0, vec![0; DeviceInfo::BYTES]) {
            Ok(answer) => Ok(DeviceInfo::decode(&answer)),
            // It says EINVAL where there is no such device.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(failed("look at", number)(error)),
        }
    }

    /// Shows the device to guests; waits until all its queues wait for requests, and for the kernel's first reads.
    pub(super) fn start(&mut self, number: u32) -> Result<(), UblkError> {
        self.send(command::START_DEV, number, own_pid(), Vec::new()).map(drop).map_err(failed("start", number))
    }

    /// Begins to take a device back whose server is dead.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`] while the kernel has not seen the end of the dead one.
    pub(super) fn start_recovery(&mut self, number: u32) -> io::Result<()> {
        self.send(command::START_USER_RECOVERY, number, 0, Vec::new()).map(drop)
    }

    /// Lets requests go on; waits until all queues wait for them.
    pub(super) fn end_recovery(&mut self, number: u32) -> Result<(), UblkError> {
        let done = self.send(command::END_USER_RECOVERY, number, own_pid(), Vec::new());
        done.map(drop).map_err(failed("take back", number))
    }

    /// Takes the device from guests; waits until what is in flight is answered.
    pub(super) fn stop(&mut self, number: u32) -> Result<(), UblkError> {
        self.send(command::STOP_DEV, number, 0, Vec::new()).map(drop).map_err(failed("stop", number))
    }

    /// Removes the device. Before Linux 6.9, the kernel makes us wait until nobody has it open.
    pub(super) fn delete(&mut self, number: u32) -> Result<(), UblkError> {
        let done = match self.send(command::DEL_DEV_ASYNC, number, 0, Vec::new()) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
                self.send(command::DEL_DEV, number, 0, Vec::new())
            }
            done => done,
        };
        done.map(drop).map_err(failed("remove", number))
    }

    fn send(&mut self, op: u32, device: u32, data: u64, buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        self.0.command(&ControlCommand { op, device, data }, buffer)
    }
}

fn failed(action: &'static str, number: u32) -> impl FnOnce(io::Error) -> UblkError {
    move |source| UblkError::Command { action, number: Some(number), source }
}

fn own_pid() -> u64 {
    std::process::id().into()
}
