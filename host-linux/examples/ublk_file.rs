//! A raw file as a writable ublk device: `ublk_file FILE [--recover]`. Prints the device's path; a signal removes it.
//!
//! What the tests write to: the least disk that keeps its bytes when its process is killed.

use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::device::{Device, DeviceWish};
use swarmdisk_host::disk::{Disk, DiskError, Extent, ExtentKind, check_range};
use swarmdisk_host_linux::ublk::UblkDevice;

struct WritableFile {
    file: File,
    bytes: u64,
}

impl Disk for WritableFile {
    fn image_bytes(&self) -> u64 {
        self.bytes
    }

    fn preferred_bytes(&self) -> u32 {
        64 << 10
    }

    async fn read(&self, _guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        check_range(self.bytes, offset, bytes.into())?;
        let mut data = BytesMut::zeroed(bytes as usize);
        // Some other task first, so that requests are answered out of turn.
        tokio::task::yield_now().await;
        self.file.read_exact_at(&mut data, offset).map_err(DiskError::failed)?;
        Ok(vec![data.freeze()])
    }

    async fn extents(&self, _guest: GuestId, offset: u64, bytes: u64, _max: usize) -> Result<Vec<Extent>, DiskError> {
        check_range(self.bytes, offset, bytes)?;
        Ok(vec![Extent { bytes, kind: ExtentKind::Data }])
    }

    fn is_writable(&self) -> bool {
        true
    }

    async fn write(&self, _guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        check_range(self.bytes, offset, data.len() as u64)?;
        tokio::task::yield_now().await;
        self.file.write_all_at(&data, offset).map_err(DiskError::failed)
    }

    async fn write_zeroes(&self, guest: GuestId, offset: u64, bytes: u64, _may_trim: bool) -> Result<(), DiskError> {
        self.write(guest, offset, vec![0; bytes as usize].into()).await
    }

    async fn trim(&self, guest: GuestId, offset: u64, bytes: u64) -> Result<(), DiskError> {
        self.write_zeroes(guest, offset, bytes, true).await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(DiskError::failed)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: ublk_file FILE [--recover]")?;
    let recover = arguments.next().is_some();
    let file = File::options().read(true).write(true).open(Path::new(&path))?;
    let bytes = file.metadata()?.len();
    let wish = DeviceWish { number: None, recover, outlives_server: true, mark: 0x7562_6c6b_5f66_696c };
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let device = UblkDevice::start(Arc::new(WritableFile { file, bytes }), wish).await?;
    println!("ready {}", device.uri());
    end.recv().await;
    Box::new(device).detach().await;
    Ok(())
}
