//! How a session shows its disk to guests: an NBD server, an iSCSI target, or a device that only this operating system has.
//!
//! *Invariants*: one export a session; what is wished is checked before anything is fetched or made.

use super::Failure;
use super::args::{DeviceOptions, IscsiOptions, OverlayPlace};
use crate::device::{Device, DeviceExport, DeviceWish, DriveExport, Exports, Later, SessionDisk, SocketExport};
use crate::digest::to_hex;
use crate::disk::Disk;
use crate::iscsi::{Chap, Identity, Initiator, IscsiConfig, IscsiListen, IscsiServer, PhysicalBlocks};
use crate::log;
use crate::nbd::{NbdListen, NbdServer, ServerConfig, ServerError};
use crate::overlay::{Overlay, Survival};
use std::path::PathBuf;
use std::sync::Arc;
use swarmdisk_core::ids::Digest;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What the arguments ask for.
pub(super) enum ExportWish {
    Nbd(NbdListen),
    Iscsi { listen: IscsiListen, chap: Option<Chap>, physical: PhysicalBlocks, mount: bool },
    Device { by: &'static dyn DeviceExport, number: Option<u32>, recover: bool },
    Socket { by: &'static dyn SocketExport, path: PathBuf },
    Drive(&'static dyn DriveExport),
}

/// How much of an image's id guests are told as the disk's serial number, in hexadecimal digits: as much as virtio has room for.
const SERIAL_DIGITS: usize = 20;

impl ExportWish {
    /// # Errors
    /// Usage: none, or what this system has not; or a `--chap-file` that is none.
    pub(super) fn new(
        nbd: Option<&str>,
        iscsi: &IscsiOptions,
        device: &DeviceOptions,
        exports: Exports,
    ) -> Result<Self, Failure> {
        if let (None, Some(listen)) = (nbd, &iscsi.iscsi) {
            let chap = iscsi.chap_file.as_deref().map(Chap::read).transpose()?;
            let physical = iscsi.physical_block;
            return Ok(Self::Iscsi { listen: listen.clone(), chap, physical, mount: false });
        }
        match (nbd, device.ublk, &device.vhost_user, device.wnbd) {
            (Some(nbd), None, None, false) => match nbd.parse()? {
                NbdListen::Unix(_) if cfg!(not(unix)) => Err(ServerError::NoUnixSockets.into()),
                listen => Ok(Self::Nbd(listen)),
            },
            (None, Some(number), None, false) => match exports.ublk {
                Some(by) => Ok(Self::Device { by, number, recover: device.recover }),
                None => Err(Failure::usage("ublk is Linux's; choose --nbd here")),
            },
            (None, None, Some(path), false) => match exports.vhost_user {
                Some(by) => Ok(Self::Socket { by, path: path.clone() }),
                None => Err(Failure::usage("vhost-user is Linux's; choose --nbd here")),
            },
            (None, None, None, true) => match exports.wnbd {
                Some(by) => Ok(Self::Drive(by)),
                None => Err(Failure::usage("WNBD is Windows'; choose --nbd here")),
            },
            _ => Err(Failure::usage(
                "say how to attach: --nbd ADDR, --nbd unix:PATH, --iscsi ADDR, --ublk, --vhost-user PATH or --wnbd",
            )),
        }
    }

    /// The same, to be attached by this machine's initiator as well, if wished.
    ///
    /// # Errors
    /// Usage: it would have to be given a secret that others would see.
    pub(super) fn mounted(mut self, wished: bool) -> Result<Self, Failure> {
        if let Self::Iscsi { chap, mount, .. } = &mut self {
            if wished && chap.is_some() && !Initiator::TAKES_SECRETS {
                return Err(Failure::usage(
                    "--mount would show the secret of --chap-file to all users of this machine; log in yourself, with iscsiadm",
                ));
            }
            *mount = wished;
        }
        Ok(self)
    }

    /// Whether what an overlay has answered is to outlive this process, as the guest does.
    pub(super) fn survival(&self) -> Survival {
        match self {
            Self::Device { recover: true, .. } => Survival::Recovered,
            Self::Device { recover: false, .. } => Survival::Answered,
            _ => Survival::Flushed,
        }
    }

    /// Makes the export. A server lets guests connect, and serves once it is [opened](Export::open).
    pub(super) async fn export(
        self,
        disk: Arc<SessionDisk>,
        target: &str,
        overlay: Option<&OverlayPlace>,
        open: bool,
    ) -> Result<Export, Failure> {
        match self {
            Self::Nbd(listen) => {
                let first_on = Some(disk.inner().swarm().node().runtime().clone());
                let description = target.to_owned();
                let config = ServerConfig { open, description, first_on, ..ServerConfig::default() };
                let server = NbdServer::bind(&listen, disk, config).await?;
                Ok(Export { uri: server.uri().to_string(), way: Way::Bound(Box::new(server)), initiator: None })
            }
            Self::Iscsi { listen, chap, physical, mount } => {
                let image = disk.inner().swarm().node().store().image();
                let identity = match overlay {
                    None => Identity::of_image(image),
                    Some(OverlayPlace::File(path)) => Identity::of_overlay(image, path),
                    Some(OverlayPlace::Memory(_)) => Identity::of_memory(image)?,
                };
                let config = IscsiConfig { open, physical, ..IscsiConfig::new(identity, chap) };
                let secret = config.chap.clone();
                let server = IscsiServer::bind(&listen, disk, config).await?;
                let initiator = mount.then(|| Initiator::new(server.uri(), secret.as_ref()));
                Ok(Export { uri: server.uri().to_string(), way: Way::BoundIscsi(Box::new(server)), initiator })
            }
            Self::Device { by, number, recover } => {
                let image = mark(disk.inner().swarm().node().store().image());
                // A killed node's overlay must have what was answered: the guest would not write it again.
                let salt = disk.inner().overlay().and_then(Overlay::salt);
                let outlives_server = !disk.is_writable() || salt.is_some();
                let mark = salt.unwrap_or(image);
                let device = by.attach(disk, DeviceWish { number, recover, outlives_server, mark }).await?;
                Ok(Export { uri: device.uri(), way: Way::Device(device), initiator: None })
            }
            Self::Socket { by, path } => {
                let serial = serial(&disk);
                let device = by.attach(disk, path, serial).await?;
                Ok(Export { uri: device.uri(), way: Way::Device(device), initiator: None })
            }
            Self::Drive(by) => {
                let serial = serial(&disk);
                let device = by.attach(disk, serial).await?;
                Ok(Export { uri: device.uri(), way: Way::Device(device), initiator: None })
            }
        }
    }
}

fn serial(disk: &SessionDisk) -> String {
    let mut serial = to_hex(&disk.inner().swarm().node().store().image());
    serial.truncate(SERIAL_DIGITS);
    serial
}

/// By this a device of the image is known again.
fn mark(image: Digest) -> u64 {
    // The id is a hash: any eight bytes of it do.
    image.0.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// A disk that guests can reach.
pub(super) struct Export {
    uri: String,
    way: Way,
    initiator: Option<Initiator>,
}

enum Way {
    Bound(Box<NbdServer<SessionDisk>>),
    BoundIscsi(Box<IscsiServer<SessionDisk>>),
    Serving { stop: oneshot::Sender<()>, server: JoinHandle<()> },
    Device(Box<dyn Device>),
    Ended,
}

impl Export {
    /// Where guests find the disk.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// From now on requests are served.
    pub(super) fn open(&mut self) {
        self.way = match std::mem::replace(&mut self.way, Way::Ended) {
            Way::Bound(server) => serving(|stopped| tokio::spawn(server.run(stopped))),
            Way::BoundIscsi(server) => serving(|stopped| tokio::spawn(server.run(stopped))),
            other => other,
        };
    }

    /// Has this machine's initiator attach the disk, which must be open, and says what it is called here.
    pub(super) async fn mount(&mut self) -> Result<String, Failure> {
        match &mut self.initiator {
            Some(initiator) => Ok(initiator.attach().await?),
            None => Err(Failure::usage("--mount is for --iscsi")),
        }
    }

    /// Waits until the export ends by itself, and says so.
    pub(super) async fn ended(&mut self) -> Failure {
        match &mut self.way {
            Way::Device(device) => device.ended().await,
            _ => std::future::pending().await,
        }
        Failure::new(format!("{} was removed by somebody else, or has failed; attach the image again", self.uri))
    }

    /// Takes the disk from guests.
    pub(super) async fn end(mut self) {
        if let Some(initiator) = &mut self.initiator
            && let Err(error) = initiator.detach().await
        {
            log::warn(format_args!("the initiator has not let the disk go: {error}"));
        }
        match self.way {
            Way::Serving { stop, server } => {
                // An error means that the server has ended by itself.
                let _ = stop.send(());
                let _ = server.await;
            }
            Way::Device(device) => device.detach().await,
            Way::Bound(_) | Way::BoundIscsi(_) | Way::Ended => {}
        }
    }
}

/// A server that `start` starts, and that ends when it is told to.
fn serving(start: impl FnOnce(Later<'static, ()>) -> JoinHandle<()>) -> Way {
    let (stop, stopped) = oneshot::channel::<()>();
    let server = start(Box::pin(async {
        let _ = stopped.await;
    }));
    Way::Serving { stop, server }
}
