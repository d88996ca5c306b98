//! `/dev/ublkbN`: a disk as a block device of this machine.
//!
//! *Purpose*: [`UblkDevice`] makes one of any [`Disk`]; [`Ublk`] is what the command's `--ublk` is.
//! *Invariants*: a device that is dropped is removed, in whatever state it is. One whose process was killed stays if
//! [`Wish::outlives_server`]: its requests wait until [`Wish::recover`] takes it back, and those in flight are given anew
//! (reads, and writes of the same bytes to the same place, may be done twice). *Bounds*: those of `abi`; at the end requests get 5 s, then they
//! fail.
//!
//! It speaks with the kernel itself, through the crate `io-uring`. `libublk` 0.4, which does the same, needs libclang
//! to be built and brings a dependency under the MPL; it would save one thread's loop and a dozen commands.
//!
//! | module | holds |
//! |---|---|
//! | `abi` | the kernel's numbers and structures |
//! | `control` | devices made, started, removed |
//! | `recover` | devices found again |
//! | `queue`, `request` | a queue's thread; one request |

pub(crate) mod abi;
mod control;
mod error;
mod queue;
mod recover;
mod request;

pub use error::UblkError;

use abi::{
    DEPTH, DISCARD_SECTORS_MAX, DeviceInfo, IO_BYTES_MAX, Parameters, QUEUES_MAX, SECTOR_SHIFT, attribute, feature,
};
use control::Control;
use queue::{Queue, QueueHandle};
use request::Target;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::cli::Failure;
use swarmdisk_host::device::{Device, DeviceExport, DeviceWish as Wish, Later, SessionDisk};
use swarmdisk_host::disk::Disk;
use tokio::runtime::Handle;
use tokio::sync::{mpsc as channel, oneshot};

/// How long requests in flight have at the end, before they fail.
const GRACE: Duration = Duration::from_secs(5);
/// What is read before the kernel reads: it does so under locks that no signal gets through.
const FIRST_BYTES: u64 = 4096;

/// The command's `--ublk`.
#[derive(Debug)]
pub struct Ublk;

impl DeviceExport for Ublk {
    fn attach(&self, disk: Arc<SessionDisk>, wish: Wish) -> Later<'_, Result<Box<dyn Device>, Failure>> {
        Box::pin(async move { Ok(Box::new(UblkDevice::start(disk, wish).await?) as Box<dyn Device>) })
    }
}

/// A device that is there. Dropping it removes it, and blocks for as long as that takes.
pub struct UblkDevice {
    number: u32,
    path: PathBuf,
    life: Life,
    queues: Vec<Arc<QueueHandle>>,
    threads: Vec<JoinHandle<()>>,
    /// The thread that waits for the kernel to show the device.
    starter: Option<JoinHandle<()>>,
    ended: channel::Receiver<()>,
}

#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Life {
    Making,
    /// Not ours yet: should it come to nothing, the device goes on waiting for a node.
    Recovering,
    Live,
}

impl UblkDevice {
    /// Makes a device of a disk, or takes one back; it can be read when this is done. To be called on a runtime, which
    /// must outlive the device. Dropped before its end, it leaves things as they were.
    ///
    /// # Errors
    /// [`UblkError`].
    pub async fn start<D: Disk>(disk: Arc<D>, wish: Wish) -> Result<Self, UblkError> {
        let parameters = parameters(&*disk)?;
        let mut control = Control::open()?;
        let info = match wish.recover {
            true => recover::find(&mut control, &wish, &parameters).await?,
            false => {
                disk.read(GuestId(0), 0, disk.image_bytes().min(FIRST_BYTES) as u32).await?;
                control.add(wish.number, new_device(&wish))?
            }
        };
        let (end, ended) = channel::channel(1);
        let path = format!("/dev/ublkb{}", info.number).into();
        // From here on dropping it cleans up.
        let mut this = Self {
            number: info.number,
            path,
            life: if wish.recover { Life::Recovering } else { Life::Making },
            queues: Vec::new(),
            threads: Vec::new(),
            starter: None,
            ended,
        };
        if !wish.recover {
            control.set_parameters(info.number, &parameters)?;
        }
        this.serve(disk, &info, &end)?;
        this.show(control, wish.recover).await?;
        this.life = Life::Live;
        Ok(this)
    }

    /// Starts the queues' threads, and waits until each waits for requests.
    fn serve<D: Disk>(&mut self, disk: Arc<D>, info: &DeviceInfo, end: &channel::Sender<()>) -> Result<(), UblkError> {
        let path = PathBuf::from(format!("/dev/ublkc{}", info.number));
        let device =
            Arc::new(File::options().read(true).write(true).open(&path).map_err(|source| match source.kind() {
                io::ErrorKind::ResourceBusy => UblkError::Served(info.number),
                _ => UblkError::Device { action: "open", path, source },
            })?);
        let target = Arc::new(Target::new(disk, device.clone()));
        let (ready, answers) = mpsc::channel();
        for number in 0..info.queues {
            let handle = Arc::new(QueueHandle::new().map_err(UblkError::Thread)?);
            self.queues.push(handle.clone());
            let (target, device, runtime) = (target.clone(), device.clone(), Handle::current());
            let queue = Queue { target, device, number, depth: info.depth, handle, runtime };
            let (ready, ending) = (ready.clone(), Ending(end.clone()));
            let run = move || {
                let _ending = ending;
                queue.run(&ready);
            };
            let thread = thread::Builder::new().name(format!("ublk-{number}")).spawn(run);
            self.threads.push(thread.map_err(UblkError::Thread)?);
        }
        for _ in 0..info.queues {
            let answer = answers.recv().map_err(|error| UblkError::Thread(io::Error::other(error)))?;
            answer.map_err(UblkError::from_ring)?;
        }
        Ok(())
    }

    /// Lets guests in. The kernel does not come back before it has read what it wants of the disk.
    async fn show(&mut self, mut control: Control, is_recovery: bool) -> Result<(), UblkError> {
        let (done, is_done) = oneshot::channel();
        let number = self.number;
        let start = move || {
            let shown = if is_recovery { control.end_recovery(number) } else { control.start(number) };
            // Where nobody waits any longer, the device is being removed.
            let _ = done.send(shown);
        };
        self.starter = Some(thread::Builder::new().name("ublk-start".into()).spawn(start).map_err(UblkError::Thread)?);
        is_done.await.map_err(|error| UblkError::Thread(io::Error::other(error)))?
    }

    fn give_up(&self) {
        self.queues.iter().for_each(|queue| queue.give_up());
    }

    /// Takes the device from guests; what is in flight is answered, or fails in the end.
    fn stop(&self) -> Result<(), UblkError> {
        let number = self.number;
        let (done, is_done) = mpsc::channel();
        let stop = move || {
            let _ = done.send(Control::open().and_then(|mut control| control.stop(number)));
        };
        thread::Builder::new().name("ublk-stop".into()).spawn(stop).map_err(UblkError::Thread)?;
        let stopped = is_done.recv_timeout(GRACE).or_else(|_| {
            self.give_up();
            is_done.recv()
        });
        stopped.map_err(|error| UblkError::Thread(io::Error::other(error)))?
    }
}

/// Tells the end of a queue's thread, whatever it ends of.
struct Ending(channel::Sender<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody needs to hear it twice.
        let _ = self.0.try_send(());
    }
}

impl Drop for UblkDevice {
    fn drop(&mut self) {
        match self.life {
            // Its threads end with the process.
            Life::Recovering => return,
            // The kernel may wait for its first reads.
            Life::Making => self.give_up(),
            Life::Live => {}
        }
        let _ = self.starter.take().map(JoinHandle::join);
        let is_stopped = self.stop().is_ok();
        for thread in self.threads.drain(..).filter(|thread| is_stopped || thread.is_finished()) {
            let _ = thread.join();
        }
        // An error means that somebody else has removed it.
        let _ = Control::open().and_then(|mut control| control.delete(self.number));
    }
}

impl Device for UblkDevice {
    fn uri(&self) -> String {
        self.path.display().to_string()
    }

    fn ended(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            self.ended.recv().await;
        })
    }
}

fn new_device(wish: &Wish) -> DeviceInfo {
    let processors = thread::available_parallelism().map_or(1, |count| count.get() as u16);
    DeviceInfo {
        queues: processors.min(QUEUES_MAX),
        depth: DEPTH,
        state: 0,
        io_bytes_max: IO_BYTES_MAX,
        number: 0,
        pid: 0,
        features: feature::ALWAYS | if wish.outlives_server { feature::RECOVERABLE } else { 0 },
        mark: wish.mark,
    }
}

/// What guests see of a disk.
fn parameters<D: Disk>(disk: &D) -> Result<Parameters, UblkError> {
    let device_sectors = disk.image_bytes().div_ceil(1 << SECTOR_SHIFT);
    if device_sectors == 0 {
        return Err(UblkError::Empty);
    }
    let (attributes, discard_sectors_max) = match disk.is_writable() {
        true => (attribute::VOLATILE_CACHE | attribute::FUA, DISCARD_SECTORS_MAX),
        false => (attribute::READ_ONLY, 0),
    };
    Ok(Parameters {
        attributes,
        io_opt_shift: disk.preferred_bytes().trailing_zeros() as u8,
        io_sectors_max: IO_BYTES_MAX >> SECTOR_SHIFT,
        device_sectors,
        discard_sectors_max,
    })
}
