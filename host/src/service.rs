//! The seam to a system's services: what starts this process as one, and tells it to stop.

use crate::cli::Failure;
use std::path::Path;
use tokio::sync::oneshot;

/// What a service does: it is told when to stop, and tells when it has begun.
pub type Work = Box<dyn FnOnce(Duty) -> Result<(), Failure> + Send>;

/// What a service goes by.
pub struct Duty {
    /// Comes when the service is to stop; an error means the same.
    pub stop: oneshot::Receiver<()>,
    /// To be called when the service has begun.
    pub begun: Box<dyn FnOnce() + Send>,
}

/// Registers, starts and stops swarmdisk as a service of this system.
pub trait ServiceManager: Sync {
    /// Makes the service that runs what this file lists, and has it start with the machine.
    ///
    /// # Errors
    /// Whatever the system has against it, in one line that says what to do; so with all these.
    fn install(&self, config: &Path) -> Result<(), Failure>;

    /// Starts it; when this is done, it runs.
    ///
    /// # Errors
    /// As [`install`](Self::install); also if it has ended at once.
    fn start(&self) -> Result<(), Failure>;

    /// Stops it; when this is done, it has ended.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    fn stop(&self) -> Result<(), Failure>;

    /// Stops it if it runs, and takes it away.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    fn remove(&self) -> Result<(), Failure>;

    /// Does the work as the service that the system has started this process as.
    ///
    /// # Errors
    /// The work, untouched, if it was not.
    fn run(&self, work: Work) -> Result<Result<(), Failure>, Work>;
}
