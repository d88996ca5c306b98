//! Replay on a virtual clock, and once on the real one.

use super::*;
use crate::disk::{Extent, zero_segments};
use bytes::Bytes;
use std::sync::Mutex;

/// Answers with zeros after a time that depends on the offset, and notes when reads began, in microseconds.
struct SlowDisk {
    start: Instant,
    began: Mutex<Vec<(u64, u64)>>,
}

impl SlowDisk {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), began: Mutex::default() })
    }
}

impl Disk for SlowDisk {
    fn image_bytes(&self) -> u64 {
        1 << 20
    }

    fn preferred_bytes(&self) -> u32 {
        4096
    }

    async fn read(&self, _guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        self.began.lock().unwrap().push((self.start.elapsed().as_micros() as u64, offset));
        tokio::time::sleep(Duration::from_millis(offset)).await;
        Ok(zero_segments(bytes as usize).collect())
    }

    async fn extents(&self, _: GuestId, _: u64, _: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
        Ok(Vec::new())
    }
}

/// A disk of zeros in memory that loses each write for which `loses` holds.
struct WritableDisk {
    bytes: Mutex<Vec<u8>>,
    loses: fn(u64) -> bool,
    flushes: Mutex<u32>,
}

impl WritableDisk {
    fn new(loses: fn(u64) -> bool) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(vec![0; 1 << 16]), loses, flushes: Mutex::default() })
    }
}

impl Disk for WritableDisk {
    fn image_bytes(&self) -> u64 {
        1 << 16
    }

    fn preferred_bytes(&self) -> u32 {
        4096
    }

    async fn read(&self, _guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        Ok(vec![Bytes::copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..bytes as usize])])
    }

    async fn extents(&self, _: GuestId, _: u64, _: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
        Ok(Vec::new())
    }

    fn is_writable(&self) -> bool {
        true
    }

    async fn write(&self, _guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        if !(self.loses)(offset) {
            self.bytes.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(&data);
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), DiskError> {
        *self.flushes.lock().unwrap() += 1;
        Ok(())
    }
}

struct VirtualSleep;

impl Sleep for VirtualSleep {
    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

fn trace(text: &str) -> Trace {
    Trace::parse(text.as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn groups_wait_for_their_last_answer_and_then_think() {
    let disk = SlowDisk::new();
    // Two together, a write that counts for nothing, one after 20 ms, one after 50 ms more.
    let text = "0 R 10 1\n199 R 30 1\n10000 W 0 1\n20199 R 5 1\n70199 R 0 1\n";
    let plan = Plan::new(&trace(text), disk.image_bytes()).unwrap();
    let report = run(&plan, Speed::REAL, Arc::clone(&disk), VirtualSleep, None).await.unwrap();
    // Both at 0; done at 30 ms; next at 50 ms, done at 55 ms; next at 105 ms.
    assert_eq!(*disk.began.lock().unwrap(), [(0, 10), (0, 30), (50_000, 5), (105_000, 0)]);
    assert_eq!((report.wall_micros, report.ideal_micros, report.stall_micros), (105_000, 70_000, 35_000));
    assert_eq!((report.reads, report.bytes, report.read_latency_micros.max / 1000), (4, 4, 30));
}

#[tokio::test]
async fn what_was_written_is_expected_when_it_is_read() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 16).unwrap();
    // Read, written, read, written over in part, read across the edges; two writes beside a read in one group.
    let text = "0 R 0 4096\n10 W 4096 8192\n20 R 4000 9000\n30 W 8000 100\n31 W 4096 1\n32 R 512 512\n40 R 0 65536\n";
    let options = ReplayOptions { writes: true, verify: Some(image.path().into()), ..Default::default() };
    for (loses, mismatches) in [((|_| false) as fn(u64) -> bool, 0), (|offset| offset == 8000, 1), (|_| true, 2)] {
        let disk = WritableDisk::new(loses);
        let report = replay(&trace(text), Arc::clone(&disk), &options).await.unwrap();
        assert_eq!((report.reads, report.writes, report.written_bytes), (4, 3, 8293));
        assert_eq!((report.mismatches, *disk.flushes.lock().unwrap()), (mismatches, 1), "{report}");
    }
    // Without them nothing is written, and what is read is the image.
    let disk = WritableDisk::new(|_| false);
    let report = replay(&trace(text), Arc::clone(&disk), &ReplayOptions { writes: false, ..options }).await.unwrap();
    assert_eq!((report.writes, report.mismatches, *disk.flushes.lock().unwrap()), (0, 0, 0));
    assert!(disk.bytes.lock().unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test(start_paused = true)]
async fn speed_divides_think_times() {
    let disk = SlowDisk::new();
    let plan = Plan::new(&trace("0 R 0 1\n40000 R 0 1\n"), disk.image_bytes()).unwrap();
    let report = run(&plan, Speed::new(4.0).unwrap(), disk, VirtualSleep, None).await.unwrap();
    assert_eq!((report.wall_micros, report.ideal_micros), (10_000, 10_000));
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused() {
    let refused = async |text: &str, options: ReplayOptions| {
        replay(&trace(text), SlowDisk::new(), &options).await.unwrap_err().to_string()
    };
    let writes = refused("0 R 0 1", ReplayOptions { writes: true, ..Default::default() }).await;
    assert_eq!(writes, "this disk is read-only; attach it with --overlay and give its URI, or leave out --writes");
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused("0 R 0 1", ReplayOptions { speed, ..Default::default() }).await.contains("--speed"));
    }
    let beyond = refused("0 W 0 1\n0 R 0 1\n0 R 1048576 1", ReplayOptions::default()).await;
    assert!(beyond.starts_with("request 2 of the trace"), "{beyond}");
}

#[tokio::test]
async fn a_file_is_replayed_in_real_time_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut bytes = vec![5; 200_000];
    std::fs::write(&image, &bytes).unwrap();
    bytes[100_000] ^= 1;
    let other = folder.path().join("other");
    std::fs::write(&other, &bytes).unwrap();
    let trace = trace("0 R 0 65536\n10 R 65536 65536\n5000 R 100001 4096\n9000 R 100000 1\n");
    let target = image.to_str().unwrap();
    for (compared, mismatches) in [(&image, 0), (&other, 2)] {
        let options = ReplayOptions { verify: Some(compared.clone()), ..Default::default() };
        let report = replay_target(&trace, target, &options).await.unwrap();
        assert_eq!((report.reads, report.mismatches, report.ideal_micros), (4, mismatches, 8990));
        assert!(report.wall_micros >= 8990 - 2000, "{report}");
    }
    let options = ReplayOptions { verify: Some(folder.path().join("missing")), ..Default::default() };
    assert!(matches!(replay_target(&trace, target, &options).await, Err(ReplayError::Verify { .. })));
    assert!(matches!(replay_target(&trace, "http://x", &options).await, Err(ReplayError::Address(_))));
}
