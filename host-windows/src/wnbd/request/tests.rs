//! Requests against disks that do as they are told.

use super::*;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use swarmdisk_host::disk::{Extent, check_range};
use tokio::time::Instant;

/// What a disk in memory does.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Mood {
    Well,
    ReadOnly,
    Full,
    TimedOut,
    Failing,
    Silent,
}

struct MemoryDisk {
    bytes: Mutex<Vec<u8>>,
    calls: Mutex<Vec<&'static str>>,
    mood: Mood,
}

impl MemoryDisk {
    fn new(bytes: usize, mood: Mood) -> Arc<Self> {
        let bytes = (0..bytes).map(|at| (at % 251) as u8).collect();
        Arc::new(Self { bytes: Mutex::new(bytes), calls: Mutex::default(), mood })
    }

    async fn check(&self, call: &'static str, offset: u64, bytes: u64) -> Result<(), DiskError> {
        self.calls.lock().unwrap().push(call);
        match self.mood {
            Mood::Well => check_range(self.image_bytes(), offset, bytes),
            Mood::ReadOnly => Err(DiskError::ReadOnly),
            Mood::Full => Err(DiskError::Full),
            Mood::TimedOut => Err(DiskError::TimedOut(PATIENCE)),
            Mood::Failing => Err(DiskError::failed(io::Error::other("rot"))),
            Mood::Silent => pending().await,
        }
    }
}

impl Disk for MemoryDisk {
    fn image_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn preferred_bytes(&self) -> u32 {
        4096
    }

    async fn read(&self, _: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        self.check("read", offset, bytes.into()).await?;
        let all = self.bytes.lock().unwrap();
        Ok(all[offset as usize..][..bytes as usize].chunks(300).map(Bytes::copy_from_slice).collect())
    }

    async fn extents(&self, _: GuestId, _: u64, _: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
        Ok(Vec::new())
    }

    fn is_writable(&self) -> bool {
        self.mood != Mood::ReadOnly
    }

    async fn write(&self, _: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        self.check("write", offset, data.len() as u64).await?;
        self.bytes.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(&data);
        Ok(())
    }

    async fn trim(&self, _: GuestId, offset: u64, bytes: u64) -> Result<(), DiskError> {
        self.check("trim", offset, bytes).await?;
        self.bytes.lock().unwrap()[offset as usize..][..bytes as usize].fill(0);
        Ok(())
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.check("flush", 0, 0).await
    }
}

fn unmap(block_address: u64, block_count: u32) -> Request {
    Request::Unmap(vec![UnmapDescriptor { block_address, block_count, reserved: 0 }])
}

fn write(block: u64, blocks: usize, is_durable: bool) -> Request {
    Request::Write { block, data: vec![0xee; blocks * 512].into(), is_durable }
}

async fn status(disk: &Arc<MemoryDisk>, request: Request) -> Status {
    Target::new(disk.clone()).serve(request).await.status
}

#[tokio::test]
async fn the_last_block_is_padded() {
    let disk = MemoryDisk::new(1000, Mood::Well);
    let target = Target::new(disk.clone());
    assert_eq!(target.block_count(), 2);
    let answer = target.serve(Request::Read { block: 0, count: 2 }).await;
    assert_eq!(answer.status, Status::default());
    assert_eq!(answer.data[..1000], disk.bytes.lock().unwrap()[..]);
    assert_eq!(answer.data[1000..], [0; 24]);
    assert_eq!(target.serve(write(1, 1, false)).await.status, Status::default());
    assert_eq!(
        target.serve(Request::Read { block: 1, count: 1 }).await.data[486..],
        [&[0xee; 2][..], &[0; 24]].concat()
    );
    assert_eq!(disk.image_bytes(), 1000);
}

#[tokio::test]
async fn each_request_is_one_call_of_the_disk_s_and_durable_writes_are_two() {
    let disk = MemoryDisk::new(8192, Mood::Well);
    for request in [write(0, 1, false), write(1, 2, true), Request::Flush, unmap(4, 4)] {
        assert_eq!(status(&disk, request).await, Status::default());
    }
    assert_eq!(*disk.calls.lock().unwrap(), ["write", "write", "flush", "flush", "trim"]);
    assert!(disk.bytes.lock().unwrap()[..1536].iter().all(|byte| *byte == 0xee));
    assert!(disk.bytes.lock().unwrap()[2048..4096].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn what_is_beyond_the_end_or_too_large_is_refused() {
    let disk = MemoryDisk::new(8192, Mood::Well);
    for request in [
        Request::Read { block: 15, count: 2 },
        Request::Read { block: u64::MAX, count: 2 },
        write(16, 1, false),
        unmap(16, 1),
    ] {
        assert_eq!(status(&disk, request.clone()).await, sense::BEYOND_END, "{request:?}");
    }
    assert_eq!(status(&disk, Request::Malformed(request_type::WRITE)).await, sense::INVALID_FIELD);
    assert!(disk.calls.lock().unwrap().is_empty());
    let large = MemoryDisk::new(4 << 20, Mood::Well);
    assert_eq!(status(&large, Request::Read { block: 0, count: 4096 }).await, Status::default());
    assert_eq!(status(&large, Request::Read { block: 0, count: 4097 }).await, sense::INVALID_FIELD);
}

#[tokio::test]
async fn errors_are_told_in_scsi_s_words() {
    let read = Request::Read { block: 0, count: 1 };
    for (mood, request, expected) in [
        (Mood::ReadOnly, write(0, 1, false), sense::WRITE_PROTECTED),
        (Mood::ReadOnly, unmap(0, 1), sense::WRITE_PROTECTED),
        (Mood::Full, write(0, 1, false), sense::NO_SPACE),
        (Mood::Full, Request::Flush, sense::NO_SPACE),
        (Mood::TimedOut, read.clone(), sense::READ_ERROR),
        (Mood::Failing, read, sense::READ_ERROR),
        (Mood::Failing, write(0, 1, true), sense::WRITE_ERROR),
        (Mood::Failing, Request::Flush, sense::WRITE_ERROR),
    ] {
        let answer = Target::new(MemoryDisk::new(4096, mood)).serve(request.clone()).await;
        assert_eq!((answer.status, answer.data.len()), (expected, 0), "{mood:?} {request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_answered_so_that_windows_comes_again() {
    let disk = MemoryDisk::new(4096, Mood::Silent);
    for request in [Request::Read { block: 0, count: 1 }, write(0, 1, true), Request::Flush] {
        let began = Instant::now();
        assert_eq!(status(&disk, request).await, sense::BECOMING_READY);
        // By the paused clock: before the driver takes the disk for dead.
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn what_is_not_in_memory_is_not_ready() {
    let target = Target::new(MemoryDisk::new(4096, Mood::Well));
    assert_eq!(target.serve_ready(&Request::Read { block: 0, count: 1 }), None);
    assert_eq!(target.serve_ready(&Request::Flush), None);
}

#[test]
fn requests_that_move_data_hold_memory() {
    assert_eq!(Request::Read { block: 0, count: 8 }.held_bytes(), 4096);
    assert_eq!(write(0, 3, false).held_bytes(), 1536);
    assert_eq!(unmap(0, 100).held_bytes() + Request::Flush.held_bytes(), 0);
}
