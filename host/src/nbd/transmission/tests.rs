//! The transmission phase by its bytes, its ends, and junk.

use super::*;
use crate::disk::Extent;
use proptest::prelude::*;
use std::sync::Mutex;
use swarmdisk_core::ids::GuestId;

/// 64 KiB of ones, then 64 KiB of zeros.
struct HalfDisk;

const HALF: u64 = 65536;

impl Disk for HalfDisk {
    fn image_bytes(&self) -> u64 {
        2 * HALF
    }

    fn preferred_bytes(&self) -> u32 {
        4096
    }

    async fn read(&self, _: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        let ones = HALF.saturating_sub(offset).min(bytes.into()) as usize;
        let mut segments = Vec::new();
        if ones > 0 {
            segments.push(vec![1; ones].into());
        }
        segments.extend(disk::zero_segments(bytes as usize - ones));
        Ok(segments)
    }

    async fn extents(&self, _: GuestId, offset: u64, bytes: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
        let ones = HALF.saturating_sub(offset).min(bytes);
        let mut extents = Vec::new();
        disk::push_extent(&mut extents, Extent { bytes: ones, kind: ExtentKind::Data });
        disk::push_extent(&mut extents, Extent { bytes: bytes - ones, kind: ExtentKind::Zero });
        Ok(extents)
    }
}

/// All that the server says to these bytes, and how it ends.
fn talk(input: &[u8], structured: bool) -> (Vec<u8>, io::Result<()>) {
    talk_of(Arc::new(HalfDisk), input, structured)
}

fn talk_of(disk: Arc<impl Disk>, input: &[u8], structured: bool) -> (Vec<u8>, io::Result<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (mut heard, write) = tokio::io::duplex(8 << 20);
        let (_down, going_down) = watch::channel(false);
        let session = Session { guest: GuestId(0), structured, allocation: structured };
        let ended = serve(input, write, disk, session, going_down, Handle::current()).await;
        let mut said = Vec::new();
        heard.read_to_end(&mut said).await.unwrap();
        (said, ended)
    })
}

fn request(command: u16, flags: u16, offset: u64, bytes: u32) -> Vec<u8> {
    Request { flags, command, cookie: 7, offset, bytes }.encode().to_vec()
}

#[test]
fn data_and_holes_in_chunks() {
    let bye = request(cmd::DISC, 0, 0, 0);
    let (said, ended) = talk(&[request(cmd::READ, 0, HALF - 1, 3), bye.clone()].concat(), true);
    ended.unwrap();
    let data = b"\x66\x8e\x33\xef\0\0\0\x01\0\0\0\0\0\0\0\x07\0\0\0\x09\0\0\0\0\0\0\xff\xff\x01";
    let hole = b"\x66\x8e\x33\xef\0\x01\0\x02\0\0\0\0\0\0\0\x07\0\0\0\x0c\0\0\0\0\0\x01\0\0\0\0\0\x02";
    assert_eq!(said, [&data[..], &hole[..]].concat());
    let (said, _) = talk(&[request(cmd::READ, cmd::FLAG_DF, HALF - 1, 3), bye.clone()].concat(), true);
    assert_eq!(&said[4..8], b"\0\x01\0\x01");
    assert_eq!(&said[28..], [1, 0, 0]);
    let (said, _) = talk(&[request(cmd::READ, 0, HALF - 1, 3), bye].concat(), false);
    assert_eq!(said, b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x07\x01\0\0");
}

#[test]
fn status_of_one_extent_or_all() {
    let bye = request(cmd::DISC, 0, 0, 0);
    let body = |flags| {
        let (said, ended) = talk(&[request(cmd::BLOCK_STATUS, flags, 0, 131_072), bye.clone()].concat(), true);
        ended.unwrap();
        said[20..].to_vec()
    };
    assert_eq!(body(0), b"\0\0\0\x01\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\x03");
    assert_eq!(body(cmd::FLAG_REQ_ONE), b"\0\0\0\x01\0\x01\0\0\0\0\0\0");
}

#[test]
fn what_is_refused() {
    let mut input = [request(cmd::WRITE, 0, 0, 5), b"bytes".to_vec()].concat();
    for (command, flags, offset, bytes) in [
        (cmd::TRIM, 0, 0, 1),
        (cmd::FLUSH, 0, 0, 0),
        (cmd::FLUSH, 1, 0, 0),
        (99, 0, 0, 0),
        (cmd::READ, cmd::FLAG_DF, 0, 1),
        (cmd::READ, 0, u64::MAX, 1),
        (cmd::READ, 0, 2 * HALF, 1),
        (cmd::READ, 0, 0, READ_BYTES_MAX + 1),
        (cmd::BLOCK_STATUS, 0, 0, 1),
    ] {
        input.extend(request(command, flags, offset, bytes));
    }
    input.extend(request(cmd::DISC, 0, 0, 0));
    let (said, ended) = talk(&input, false);
    ended.unwrap();
    let errors: Vec<u8> = said.chunks(16).map(|reply| reply[7]).collect();
    assert_eq!(errors, [1, 1, 0, 22, 22, 22, 22, 22, 22, 22]);
    let (_, ended) = talk(&request(cmd::WRITE, 0, 0, READ_BYTES_MAX + 1), false);
    assert!(ended.is_err());
    let (_, ended) = talk(&[0; REQUEST_BYTES], false);
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

/// Notes what it is asked to do; full beyond its first half.
#[derive(Default)]
struct NotingDisk(Mutex<Vec<String>>);

impl NotingDisk {
    fn note(&self, what: String) -> Result<(), DiskError> {
        self.0.lock().unwrap().push(what);
        Ok(())
    }
}

impl Disk for NotingDisk {
    fn image_bytes(&self) -> u64 {
        2 * HALF
    }

    fn preferred_bytes(&self) -> u32 {
        4096
    }

    async fn read(&self, _: GuestId, _: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        Ok(vec![vec![1; bytes as usize].into()])
    }

    async fn extents(&self, _: GuestId, _: u64, _: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
        Ok(Vec::new())
    }

    fn is_writable(&self) -> bool {
        true
    }

    async fn write(&self, _: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        if offset >= HALF { Err(DiskError::Full) } else { self.note(format!("write {offset} {data:?}")) }
    }

    async fn write_zeroes(&self, _: GuestId, offset: u64, bytes: u64, may_trim: bool) -> Result<(), DiskError> {
        self.note(format!("zero {offset} {bytes} {may_trim}"))
    }

    async fn trim(&self, _: GuestId, offset: u64, bytes: u64) -> Result<(), DiskError> {
        self.note(format!("trim {offset} {bytes}"))
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.note("flush".into())
    }
}

#[test]
fn writes_of_all_kinds() {
    let write = |flags, offset, data: &[u8]| [&request(cmd::WRITE, flags, offset, data.len() as u32), data].concat();
    let input = [
        write(0, 3, b"abc"),
        write(cmd::FLAG_FUA, 9, b"d"),
        request(cmd::WRITE_ZEROES, 0, 1, 100_000),
        request(cmd::WRITE_ZEROES, cmd::FLAG_NO_HOLE | cmd::FLAG_FUA, 2, 5),
        request(cmd::TRIM, 0, 4096, 4096),
        request(cmd::FLUSH, 0, 0, 0),
        request(cmd::READ, cmd::FLAG_FUA, 0, 0),
        // No space, beyond the end (twice, and a trim), flags that are not offered (fast zeros).
        write(0, HALF, b"full"),
        write(0, 2 * HALF - 1, b"xy"),
        request(cmd::WRITE_ZEROES, 0, 2 * HALF, 1),
        request(cmd::TRIM, 0, u64::MAX, 1),
        request(cmd::WRITE_ZEROES, 1 << 4, 0, 1),
        write(2, 0, b"odd"),
        request(cmd::DISC, 0, 0, 0),
    ];
    let disk = Arc::new(NotingDisk::default());
    let (said, ended) = talk_of(Arc::clone(&disk), &input.concat(), false);
    ended.unwrap();
    let mut errors: Vec<u8> = said.chunks(16).map(|reply| reply[7]).collect();
    // Those that have to wait for nothing may all the same be answered by a task, in any order.
    errors.sort_unstable();
    assert_eq!(errors, [0, 0, 0, 0, 0, 0, 0, 22, 22, 22, 28, 28, 28]);
    let mut noted = disk.0.lock().unwrap().clone();
    noted.sort_unstable();
    let expected = [
        "flush",
        "flush",
        "flush",
        "trim 4096 4096",
        "write 3 b\"abc\"",
        "write 9 b\"d\"",
        "zero 1 100000 true",
        "zero 2 5 false",
    ];
    assert_eq!(noted, expected);
    let (_, ended) = talk_of(disk, &request(cmd::WRITE, 0, 0, READ_BYTES_MAX + 1), false);
    assert!(ended.is_err());
}

proptest! {
    #[test]
    fn junk_never_panics(
        structured: bool,
        requests in prop::collection::vec((0..10u16, 0..20u16, any::<u64>(), any::<u32>()), 0..20),
        near in prop::collection::vec((0..10u16, 0..20u16, 0..140_000u64, 0..140_000u32), 0..20),
        tail in prop::collection::vec(any::<u8>(), 0..60)
    ) {
        let mut input = Vec::new();
        for (command, flags, offset, bytes) in requests.into_iter().filter(|r| r.0 != cmd::WRITE).chain(near) {
            input.extend(request(command, flags, offset, bytes));
        }
        input.extend(tail);
        let _ = talk(&input, structured);
    }
}

/// Notes when a read begins and when it is given up; it never completes.
struct StuckDisk {
    begun: mpsc::UnboundedSender<()>,
    given_up: mpsc::UnboundedSender<()>,
}

impl Disk for StuckDisk {
    fn image_bytes(&self) -> u64 {
        4096
    }

    fn preferred_bytes(&self) -> u32 {
        4096
    }

    async fn read(&self, _: GuestId, _: u64, _: u32) -> Result<Vec<Bytes>, DiskError> {
        struct OnDrop(mpsc::UnboundedSender<()>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let _guard = OnDrop(self.given_up.clone());
        let _ = self.begun.send(());
        std::future::pending().await
    }

    async fn extents(&self, _: GuestId, _: u64, _: u64, _: usize) -> Result<Vec<Extent>, DiskError> {
        Ok(Vec::new())
    }
}

/// A connection with more reads than may be under way, all of which hang.
struct Stuck {
    client: tokio::io::DuplexStream,
    down: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    gave_up: mpsc::UnboundedReceiver<()>,
}

const STUCK_READS: usize = 100;

impl Stuck {
    async fn start() -> Self {
        let (mut client, server) = tokio::io::duplex(4096);
        let (read, write) = tokio::io::split(server);
        let ((begun, mut began), (given_up, gave_up)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let (down, going_down) = watch::channel(false);
        let session = Session { guest: GuestId(0), structured: true, allocation: false };
        let serving = tokio::spawn(serve(
            read,
            write,
            Arc::new(StuckDisk { begun, given_up }),
            session,
            going_down,
            Handle::current(),
        ));
        client.write_all(&request(cmd::READ, 0, 0, 4096).repeat(STUCK_READS + 50)).await.unwrap();
        for _ in 0..STUCK_READS {
            began.recv().await.unwrap();
        }
        Self { client, down, serving, gave_up }
    }

    async fn end(mut self) -> io::Error {
        let error = self.serving.await.unwrap().unwrap_err();
        for _ in 0..STUCK_READS {
            self.gave_up.recv().await.unwrap();
        }
        error
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_ever() {
    let stuck = Stuck::start().await;
    stuck.down.send(true).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(stuck.end().await.kind(), io::ErrorKind::TimedOut);
    assert!(start.elapsed() >= GRACE && start.elapsed() < GRACE * 2);
}

#[tokio::test(start_paused = true)]
async fn reads_of_a_client_that_is_gone_are_given_up() {
    let mut stuck = Stuck::start().await;
    stuck.client = tokio::io::duplex(1).0;
    assert_eq!(stuck.end().await.kind(), io::ErrorKind::UnexpectedEof);
}
