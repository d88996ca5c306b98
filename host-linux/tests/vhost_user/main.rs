//! A vhost-user device against a frontend: what a guest may ask, and what it must not get away with.

mod disk;
mod driver;
mod hostile;
mod sessions;

use disk::MemoryDisk;
use driver::Driver;
use std::path::PathBuf;
use std::sync::Arc;
use swarmdisk_host::device::Device;
use swarmdisk_host::disk::Disk;
use swarmdisk_host_linux::vhost_user::VhostUserDevice;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

const MIB: usize = 1 << 20;
/// Its last sector is a short one.
const IMAGE_BYTES: usize = 8 * MIB + 100;
const SECTORS: u64 = 8 * 2048 + 1;
const OK: u32 = VIRTIO_BLK_S_OK;
const FAILED: u32 = VIRTIO_BLK_S_IOERR;
const UNSUPPORTED: u32 = VIRTIO_BLK_S_UNSUPP;

/// A device that is served.
struct Served {
    disk: Arc<MemoryDisk>,
    device: Option<VhostUserDevice<MemoryDisk>>,
    socket: PathBuf,
    runtime: Runtime,
    _folder: TempDir,
}

impl Served {
    fn new(disk: MemoryDisk) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let disk = Arc::new(disk);
        let _on = runtime.enter();
        let device = VhostUserDevice::start(disk.clone(), &socket, "0123456789abcdef0123").unwrap();
        drop(_on);
        assert_eq!(device.uri(), format!("vhost-user:{}", socket.display()));
        Self { disk, device: Some(device), socket, runtime, _folder: folder }
    }

    fn writable() -> Self {
        Self::new(MemoryDisk::new(IMAGE_BYTES, true))
    }

    fn read_only() -> Self {
        Self::new(MemoryDisk::new(IMAGE_BYTES, false))
    }

    fn driver(&self) -> Driver {
        Driver::connect(&self.socket, 1, 0)
    }

    /// Ends the device, as the command does.
    fn detach(&mut self) {
        if let Some(device) = self.device.take() {
            self.runtime.block_on(Box::new(device).detach());
        }
    }

    fn sectors(&self, sector: usize, bytes: usize) -> Vec<u8> {
        self.disk.bytes.lock().unwrap()[sector * 512..sector * 512 + bytes].to_vec()
    }
}

/// A range of a discard or a write of zeros.
fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn guests_see_what_the_disk_is() {
    for (served, is_writable) in [(Served::read_only(), false), (Served::writable(), true)] {
        let mut driver = served.driver();
        let has = |bit: u32| driver.features & (1 << bit) != 0;
        for bit in [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_MQ,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
        ] {
            assert!(has(bit), "feature {bit}");
        }
        assert_eq!(has(VIRTIO_BLK_F_RO), !is_writable);
        assert!(has(VIRTIO_BLK_F_DISCARD) == is_writable && has(VIRTIO_BLK_F_WRITE_ZEROES) == is_writable);
        // The offsets are those of VIRTIO 1.2, section 5.2.4.
        let config = driver.config(120);
        let word = |at: usize| u32::from_le_bytes(*config[at..].first_chunk().unwrap());
        let half = |at: usize| u16::from_le_bytes(*config[at..].first_chunk().unwrap());
        assert_eq!(u64::from(word(0)) | u64::from(word(4)) << 32, SECTORS);
        assert_eq!((word(8), word(12)), (1 << 20, 126), "sizes of segments, their number");
        assert_eq!((word(20), config[24], config[25], half(26), word(28)), (512, 3, 0, 8, 128), "blocks");
        assert_eq!(half(34), 64, "queues");
        let clear: Vec<u32> = (36..56).step_by(4).map(word).collect();
        assert_eq!(clear, if is_writable { [1 << 21, 16, 8, 1 << 21, 16] } else { [0; 5] });
        assert_eq!(config[56], u8::from(is_writable));
        assert!(config[60..].iter().all(|byte| *byte == 0));
        assert_eq!(driver.request(VIRTIO_BLK_T_GET_ID, 0, &[], 20), (OK, b"0123456789abcdef0123".to_vec()));
    }
}

#[test]
fn what_is_read_is_the_disks() {
    let served = Served::read_only();
    let mut driver = served.driver();
    for (sector, bytes) in [(0, 512), (1, 4096), (777, 65536), (16000, 192 << 10), (SECTORS as usize - 2, 512)] {
        let read = driver.request(VIRTIO_BLK_T_IN, sector as u64, &[], bytes as u32);
        assert!(read == (OK, served.sectors(sector, bytes)), "{bytes} bytes at sector {sector}");
    }
    // Beyond the end of the disk its last sector is zeros.
    let (status, last) = driver.request(VIRTIO_BLK_T_IN, SECTORS - 1, &[], 512);
    let expected = [served.sectors(SECTORS as usize - 1, 100), vec![0; 412]].concat();
    assert!((status, last) == (OK, expected));
    assert_eq!(driver.request(VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, OK);
}

#[test]
fn what_is_written_is_there() {
    let served = Served::writable();
    let mut driver = served.driver();
    let data: Vec<u8> = (0..65536_u32).map(|at| (at % 251) as u8).collect();
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 100, &data, 0).0, OK);
    assert!(served.sectors(100, 65536) == data);
    assert!(driver.request(VIRTIO_BLK_T_IN, 100, &[], 65536) == (OK, data));
    // What is beyond the end is dropped.
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, SECTORS - 1, &[7; 512], 0).0, OK);
    assert_eq!(served.sectors(SECTORS as usize - 1, 100), [7; 100]);
    assert_eq!(driver.request(VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, OK);
    let done = served.disk.done();
    assert_eq!(done, ["write 51200 65536", "read 51200 65536", "write 8388608 100", "flush"]);
}

#[test]
fn a_guest_that_cannot_flush_writes_through() {
    let served = Served::writable();
    let mut driver = Driver::connect(&served.socket, 1, 1 << VIRTIO_BLK_F_FLUSH);
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 0, &[7; 512], 0).0, OK);
    assert_eq!(driver.request(VIRTIO_BLK_T_WRITE_ZEROES, 0, &range(0, 1, 0), 0).0, OK);
    assert_eq!(served.disk.done(), ["write 0 512", "flush", "zero 0 512 false", "flush"]);
}

#[test]
fn ranges_are_discarded_and_made_zeros() {
    let served = Served::writable();
    let mut driver = served.driver();
    let two = [range(8, 8, 0), range(64, 16, 0)].concat();
    assert_eq!(driver.request(VIRTIO_BLK_T_DISCARD, 0, &two, 0).0, OK);
    assert_eq!(driver.request(VIRTIO_BLK_T_WRITE_ZEROES, 0, &range(1, 3, 0), 0).0, OK);
    let may_unmap = range(SECTORS - 2, 2, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
    assert_eq!(driver.request(VIRTIO_BLK_T_WRITE_ZEROES, 0, &may_unmap, 0).0, OK);
    let done = served.disk.done();
    assert_eq!(done, ["trim 4096 4096", "trim 32768 8192", "zero 512 1536 false", "zero 8388096 612 true"]);
    // None of these reaches the disk, not even by its first range.
    let second_is_beyond = [range(0, 1, 0), range(SECTORS, 1, 0)].concat();
    for (kind, list, status) in [
        (VIRTIO_BLK_T_DISCARD, second_is_beyond.clone(), FAILED),
        (VIRTIO_BLK_T_WRITE_ZEROES, second_is_beyond, FAILED),
        (VIRTIO_BLK_T_DISCARD, range(0, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), UNSUPPORTED),
        (VIRTIO_BLK_T_WRITE_ZEROES, range(0, 1, 2), UNSUPPORTED),
        (VIRTIO_BLK_T_DISCARD, range(0, (1 << 21) + 1, 0), FAILED),
        (VIRTIO_BLK_T_DISCARD, range(u64::MAX, 1, 0), FAILED),
        (VIRTIO_BLK_T_DISCARD, range(0, 1, 0)[..15].to_vec(), FAILED),
        (VIRTIO_BLK_T_DISCARD, vec![], FAILED),
        (VIRTIO_BLK_T_DISCARD, range(0, 1, 0).repeat(17), FAILED),
    ] {
        assert_eq!(driver.request(kind, 0, &list, 0).0, status, "{kind} {list:?}");
    }
    assert_eq!(served.disk.done(), [""; 0]);
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let served = Served::read_only();
    let mut driver = served.driver();
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 0, &[7; 512], 0).0, FAILED);
    assert_eq!(driver.request(VIRTIO_BLK_T_DISCARD, 0, &range(0, 1, 0), 0).0, UNSUPPORTED);
    assert_eq!(driver.request(VIRTIO_BLK_T_WRITE_ZEROES, 0, &range(0, 1, 0), 0).0, UNSUPPORTED);
    assert_eq!(served.disk.done(), [""; 0]);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, &[], 512).0, OK);
}

#[test]
fn an_empty_disk_is_refused() {
    let runtime = Runtime::new().unwrap();
    let _on = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(MemoryDisk::new(0, false));
    assert_eq!(disk.image_bytes(), 0);
    let error = VhostUserDevice::start(disk, &folder.path().join("socket"), "").err().unwrap();
    assert!(error.to_string().contains("is empty"), "{error}");
    assert!(!folder.path().join("socket").exists());
}
