//! Replay on a virtual clock, and once on the real one.

use super::*;
use crate::disk::{Extent, zero_segments};
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
    assert_eq!(writes, "this disk is read-only; leave out --writes");
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
