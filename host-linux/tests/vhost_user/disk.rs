//! A disk in memory that says what was done to it, and can be held up.

use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use swarmdisk_core::ids::GuestId;
use swarmdisk_host::disk::{Disk, DiskError, Extent, ExtentKind, check_range};
use tokio::sync::Semaphore;

/// The disk.
pub struct MemoryDisk {
    pub bytes: Mutex<Vec<u8>>,
    is_writable: bool,
    /// A request takes one on its way; with none left it waits.
    pub gate: Option<Arc<Semaphore>>,
    /// Requests that have come as far as the gate.
    pub begun: AtomicUsize,
    /// Words of what was done, in order.
    pub log: Mutex<Vec<String>>,
}

impl MemoryDisk {
    /// Bytes that say where they are.
    pub fn new(bytes: usize, is_writable: bool) -> Self {
        let bytes = (0..bytes).map(|at| (at / 512 * 7 + at % 512 * 3) as u8).collect();
        Self { bytes: Mutex::new(bytes), is_writable, gate: None, begun: AtomicUsize::new(0), log: Mutex::default() }
    }

    /// The same, whose requests wait until `gate` lets them through.
    pub fn gated(self, gate: &Arc<Semaphore>) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// What was done since this was last asked.
    pub fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    async fn pass(&self, what: String) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.log.lock().unwrap().push(what);
    }

    fn put(&self, offset: u64, data: &[u8]) {
        self.bytes.lock().unwrap()[offset as usize..offset as usize + data.len()].copy_from_slice(data);
    }
}

impl Disk for MemoryDisk {
    fn image_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn preferred_bytes(&self) -> u32 {
        64 << 10
    }

    async fn read(&self, _guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        check_range(self.image_bytes(), offset, bytes.into())?;
        self.pass(format!("read {offset} {bytes}")).await;
        let all = self.bytes.lock().unwrap();
        // In two segments, as exports must be ready for.
        let range = &all[offset as usize..offset as usize + bytes as usize];
        let (one, other) = range.split_at(range.len() / 3);
        Ok(vec![Bytes::copy_from_slice(one), Bytes::copy_from_slice(other)])
    }

    async fn extents(&self, _guest: GuestId, offset: u64, bytes: u64, _max: usize) -> Result<Vec<Extent>, DiskError> {
        check_range(self.image_bytes(), offset, bytes)?;
        Ok(vec![Extent { bytes, kind: ExtentKind::Data }])
    }

    fn is_writable(&self) -> bool {
        self.is_writable
    }

    async fn write(&self, _guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        check_range(self.image_bytes(), offset, data.len() as u64)?;
        self.pass(format!("write {offset} {}", data.len())).await;
        self.put(offset, &data);
        Ok(())
    }

    async fn write_zeroes(&self, _guest: GuestId, offset: u64, bytes: u64, may_trim: bool) -> Result<(), DiskError> {
        check_range(self.image_bytes(), offset, bytes)?;
        self.pass(format!("zero {offset} {bytes} {may_trim}")).await;
        self.put(offset, &vec![0; bytes as usize]);
        Ok(())
    }

    async fn trim(&self, _guest: GuestId, offset: u64, bytes: u64) -> Result<(), DiskError> {
        check_range(self.image_bytes(), offset, bytes)?;
        self.pass(format!("trim {offset} {bytes}")).await;
        self.put(offset, &vec![0; bytes as usize]);
        Ok(())
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.pass("flush".into()).await;
        Ok(())
    }
}
