//! Sessions as initiators hold them, and as they should not.

mod limits;

use super::*;
use crate::disk::{DiskError, Extent, FileDisk};
use crate::iscsi::chap::Chap;
use crate::iscsi::identity::Identity;
use crate::iscsi::pdu::{DIGEST_BYTES, HEADER_BYTES, NO_TAG, op, reject};
use crate::iscsi::text;
use crate::overlay::Overlay;
use bytes::Bytes;
use proptest::prelude::*;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use swarmdisk_core::ids::{Digest, GuestId};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const DISK_BYTES: usize = 3 * (1 << 20) + 100;
const FAST: &[(&str, &str)] = &[("InitialR2T", "No"), ("ImmediateData", "Yes"), ("MaxRecvDataSegmentLength", "4096")];

/// A disk whose reads can be held back.
struct Held {
    disk: Overlay<FileDisk>,
    is_held: AtomicBool,
    released: Notify,
    is_writable: bool,
    flushes: AtomicU32,
}

impl Disk for Held {
    fn image_bytes(&self) -> u64 {
        self.disk.image_bytes()
    }

    fn preferred_bytes(&self) -> u32 {
        self.disk.preferred_bytes()
    }

    async fn read(&self, guest: GuestId, offset: u64, bytes: u32) -> Result<Vec<Bytes>, DiskError> {
        if self.is_held.load(Ordering::SeqCst) {
            self.released.notified().await;
        }
        self.disk.read(guest, offset, bytes).await
    }

    async fn extents(&self, guest: GuestId, offset: u64, bytes: u64, max: usize) -> Result<Vec<Extent>, DiskError> {
        self.disk.extents(guest, offset, bytes, max).await
    }

    fn is_writable(&self) -> bool {
        self.is_writable
    }

    async fn write(&self, guest: GuestId, offset: u64, data: Bytes) -> Result<(), DiskError> {
        self.disk.write(guest, offset, data).await
    }

    async fn write_zeroes(&self, guest: GuestId, offset: u64, bytes: u64, may_trim: bool) -> Result<(), DiskError> {
        self.disk.write_zeroes(guest, offset, bytes, may_trim).await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.disk.flush().await
    }
}

struct Lab {
    target: Arc<Target<Held>>,
    content: Vec<u8>,
    down: watch::Sender<bool>,
    _file: tempfile::NamedTempFile,
}

impl Lab {
    fn new(is_writable: bool) -> Self {
        let content: Vec<u8> = (0..DISK_BYTES).map(|at| (at / 512) as u8 ^ at as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content).unwrap();
        let disk = Overlay::in_memory(FileDisk::open(file.path()).unwrap(), 1 << 30).unwrap();
        let (is_held, released, flushes) = (AtomicBool::new(false), Notify::new(), AtomicU32::new(0));
        let disk = Held { disk, is_held, released, is_writable, flushes };
        let target = Arc::new(Target::new(Arc::new(disk), Identity::of_image(Digest([7; 32])), None::<Chap>, 3));
        Self { target, content, down: watch::Sender::new(false), _file: file }
    }

    async fn log_in(&self, name: u8, keys: &[(&str, &str)]) -> Initiator {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(far);
        let target = Arc::clone(&self.target);
        let server = tokio::spawn(serve(read, write, target, "127.0.0.1:3260".into(), self.down.subscribe()));
        let mut initiator = Initiator::new(near, server);
        let who = format!("iqn.2026-01.test:{name}");
        let mut said = Vec::new();
        let iqn = &self.target.facts.iqn;
        let own = [("InitiatorName", who.as_str()), ("TargetName", iqn)];
        own.iter().chain(keys).for_each(|(key, value)| text::push(&mut said, key, value));
        let header = Header::reply(op::LOGIN, 1).with_byte(0, 0x40 | op::LOGIN).with_byte(1, 0x87).with_byte(13, name);
        initiator.send(header.with_u32(24, initiator.command), &said).await;
        let answer = initiator.receive().await;
        assert_eq!(answer.header.array::<2>(36), [0, 0], "logged in");
        let has = |key: &str| keys.contains(&(key, "CRC32C"));
        (initiator.framing.header_digest, initiator.framing.data_digest) = (has("HeaderDigest"), has("DataDigest"));
        initiator
    }
}

/// What happens soon; the bound is of a failure, and decides nothing else.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it does not happen")
}

struct Initiator {
    stream: DuplexStream,
    buffer: BytesMut,
    framing: Framing,
    command: u32,
    tag: u32,
    server: JoinHandle<io::Result<()>>,
}

impl Initiator {
    fn new(stream: DuplexStream, server: JoinHandle<io::Result<()>>) -> Self {
        let framing = Framing { header_digest: false, data_digest: false, data_bytes_max: 1 << 20 };
        Self { stream, buffer: BytesMut::new(), framing, command: 1000, tag: 10, server }
    }

    async fn send(&mut self, header: Header, data: &[u8]) {
        let header = header.with_data_bytes(data.len());
        let mut bytes = header.0.to_vec();
        if self.framing.header_digest {
            bytes.extend(crc32c::crc32c(&header.0).to_le_bytes());
        }
        let mut data = data.to_vec();
        data.resize(data.len().next_multiple_of(4), 0);
        if self.framing.data_digest && !data.is_empty() {
            data.extend(crc32c::crc32c(&data).to_le_bytes());
        }
        bytes.extend(data);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn receive(&mut self) -> Unit {
        soon(read_unit(&mut self.stream, &mut self.buffer, self.framing)).await.unwrap()
    }

    /// How the session ends.
    async fn ended(self) -> io::Result<()> {
        let Self { stream: _stream, server, .. } = self;
        soon(server).await.unwrap()
    }

    /// Sends a command; gives its tag.
    async fn command(&mut self, cdb: &[u8], flags: u8, expected: usize, data: &[u8]) -> u32 {
        self.tag += 1;
        let mut header = Header::reply(op::SCSI_COMMAND, self.tag).with_byte(1, flags).with_u32(20, expected as u32);
        header = header.with_u32(24, self.command);
        header.0[32..32 + cdb.len()].copy_from_slice(cdb);
        self.command += 1;
        self.send(header, data).await;
        self.tag
    }

    /// Reads, and gives what came and the status.
    async fn read(&mut self, lba: u32, blocks: u16) -> (Vec<u8>, u8) {
        self.command(&cdb_10(0x28, lba, blocks), 0xc0, usize::from(blocks) * 512, &[]).await;
        let mut data = Vec::new();
        loop {
            let unit = self.receive().await;
            if unit.header.opcode() == op::SCSI_RESPONSE {
                return (data, unit.header.0[3]);
            }
            assert_eq!(unit.header.opcode(), op::DATA_IN);
            assert_eq!(unit.header.u32_at(40) as usize, data.len());
            data.extend_from_slice(&unit.data);
            if unit.header.flags() & 1 != 0 {
                return (data, unit.header.0[3]);
            }
        }
    }

    /// The status of a command that gives no data, and its sense: key, code, qualifier.
    async fn status(&mut self) -> (u8, [u8; 3]) {
        let unit = self.receive().await;
        assert_eq!(unit.header.opcode(), op::SCSI_RESPONSE);
        let sense = unit.data.get(2..).filter(|sense| sense.len() >= 14);
        (unit.header.0[3], sense.map_or([0; 3], |sense| [sense[2], sense[12], sense[13]]))
    }

    async fn write(&mut self, lba: u32, data: &[u8]) -> (u8, [u8; 3]) {
        let tag = self.command(&cdb_10(0x2a, lba, (data.len() / 512) as u16), 0xa0, data.len(), &[]).await;
        loop {
            let unit = self.receive().await;
            if unit.header.opcode() != op::R2T {
                let sense = unit.data.get(2..).map_or([0; 3], |sense| [sense[2], sense[12], sense[13]]);
                return (unit.header.0[3], sense);
            }
            let (offset, bytes) = (unit.header.u32_at(40) as usize, unit.header.u32_at(44) as usize);
            let (mut at, mut number) = (offset, 0);
            while at < offset + bytes {
                let count = 10_000.min(offset + bytes - at);
                let flags = if at + count == offset + bytes { 0x80 } else { 0 };
                let header = data_out(tag, unit.header.transfer_tag(), number, at as u32).with_byte(1, flags);
                self.send(header, &data[at..at + count]).await;
                (at, number) = (at + count, number + 1);
            }
        }
    }
}

fn data_out(tag: u32, transfer_tag: u32, number: u32, offset: u32) -> Header {
    Header::reply(op::DATA_OUT, tag).with_u32(20, transfer_tag).with_u32(36, number).with_u32(40, offset)
}

fn cdb_10(code: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let (lba, blocks) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [code, 0, lba[0], lba[1], lba[2], lba[3], 0, blocks[0], blocks[1], 0]
}

#[tokio::test]
async fn reads_give_the_disk_with_digests_and_without() {
    let lab = Lab::new(false);
    for keys in [FAST, &[("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C"), ("MaxRecvDataSegmentLength", "1024")]] {
        let mut initiator = lab.log_in(1, keys).await;
        for (lba, blocks) in [(0, 1), (7, 20), (100, 4000), (6143, 2)] {
            let (data, status) = initiator.read(lba, blocks).await;
            let from = lba as usize * 512;
            let mut expected = lab.content[from..lab.content.len().min(from + usize::from(blocks) * 512)].to_vec();
            // The disk ends within its last block, which ends in zeros.
            expected.resize(usize::from(blocks) * 512, 0);
            assert!(status == 0 && data == expected, "{lba} {blocks}");
        }
        assert_eq!(initiator.read(6144, 2).await.1, 2, "beyond the end");
    }
}

#[tokio::test]
async fn writes_come_with_the_command_unasked_and_asked_for() {
    let lab = Lab::new(true);
    let mut initiator = lab.log_in(1, FAST).await;
    let data: Vec<u8> = (0..1 << 21).map(|at| (at % 251) as u8).collect();
    assert_eq!(initiator.write(8, &data).await, (0, [0; 3]));
    assert!(initiator.read(8, 4096).await.0 == data);
    // With the command, then unasked, the rest asked for.
    let (first, rest) = data[..70_000 / 512 * 512].split_at(1024);
    let tag = initiator.command(&cdb_10(0x2a, 0, 136), 0x20, 136 * 512, first).await;
    initiator.send(data_out(tag, NO_TAG, 0, 1024).with_byte(1, 0x80), &rest[..2048]).await;
    let asked = initiator.receive().await;
    assert_eq!(
        (asked.header.opcode(), asked.header.u32_at(40), asked.header.u32_at(44)),
        (op::R2T, 3072, 136 * 512 - 3072)
    );
    let header = data_out(tag, asked.header.transfer_tag(), 0, 3072);
    initiator.send(header, &data[3072..136 * 512]).await;
    assert_eq!(initiator.status().await, (0, [0; 3]));
    assert!(initiator.read(0, 136).await.0 == data[..136 * 512]);
    // The wrong place.
    let tag = initiator.command(&cdb_10(0x2a, 0, 8), 0xa0, 4096, &[]).await;
    let asked = initiator.receive().await;
    initiator.send(data_out(tag, asked.header.transfer_tag(), 1, 0), &data[..4096]).await;
    assert_eq!(initiator.status().await, (2, [0xb, 0x4b, 0]));
    // Zeros, the disk's last part of a block included.
    initiator.command(&cdb_10(0x41, 6144, 1), 0xa0, 512, &[0; 512]).await;
    assert_eq!(initiator.status().await.0, 0);
    assert_eq!(initiator.read(6144, 1).await, (vec![0; 512], 0));
}

fn cdb_16(code: u8, lba: u8, blocks: u8) -> [u8; 16] {
    [code, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0]
}

#[tokio::test]
async fn compare_and_write_is_one_step() {
    let lab = Lab::new(true);
    let (mut first, mut second) = (lab.log_in(1, FAST).await, lab.log_in(2, FAST).await);
    let old = &lab.content[3 * 512..4 * 512];
    let swap = |from: &[u8], to: u8| [from, &[to; 512]].concat();
    for at in [0, 511] {
        let mut other = old.to_vec();
        other[at] ^= 1;
        first.command(&cdb_16(0x89, 3, 1), 0xa0, 1024, &swap(&other, 2)).await;
        let sense = first.receive().await.data.slice(2..);
        assert_eq!((sense[0], sense[2], sense[12]), (0xf0, 0xe, 0x1d), "another content");
        assert_eq!(sense[3..7], (at as u32).to_be_bytes(), "where it differs");
    }
    assert_eq!(first.read(3, 1).await.0, old);
    first.command(&cdb_16(0x89, 3, 1), 0xa0, 512, &swap(old, 2)[..512]).await;
    assert_eq!(first.status().await, (2, [5, 0x24, 0]), "half of the data");
    // It looks at the block, and waits; the other's write comes after it.
    lab.target.disk.is_held.store(true, Ordering::SeqCst);
    first.command(&cdb_16(0x89, 3, 1), 0xa0, 1024, &swap(old, 2)).await;
    let ready = first.command(&[0; 6], 0x80, 0, &[]).await;
    assert_eq!(first.receive().await.header.tag(), ready);
    second.command(&cdb_10(0x2a, 3, 1), 0xa0, 512, &[3; 512]).await;
    let ready = second.command(&[0; 6], 0x80, 0, &[]).await;
    assert_eq!(second.receive().await.header.tag(), ready, "the write is not done yet");
    lab.target.disk.is_held.store(false, Ordering::SeqCst);
    lab.target.disk.released.notify_waiters();
    assert_eq!(first.status().await, (0, [0; 3]));
    assert_eq!(second.status().await, (0, [0; 3]));
    assert_eq!(first.read(3, 1).await.0, [3; 512]);
    second.command(&cdb_16(0x8b, 3, 1), 0xa0, 512, &[0x14; 512]).await;
    assert_eq!(second.status().await, (0, [0; 3]));
    assert_eq!(first.read(3, 1).await.0, [0x17; 512], "the bits of both");
}

#[tokio::test]
async fn a_verified_write_says_that_it_differs_and_a_block_that_all_are_compared_with() {
    let lab = Lab::new(true);
    let mut initiator = lab.log_in(1, FAST).await;
    let old = lab.content[5 * 512..7 * 512].to_vec();
    for (check, data, expected) in [
        (0x02, old.clone(), (0, [0; 3])),
        (0x02, [&old[..1023], &[!old[1023]]].concat(), (2, [0xe, 0x1d, 0])),
        (0x06, old[..512].to_vec(), (2, [0xe, 0x1d, 0])),
    ] {
        let mut cdb = cdb_10(0x2f, 5, 2);
        cdb[1] = check;
        initiator.command(&cdb, 0xa0, data.len(), &data).await;
        assert_eq!(initiator.status().await, expected);
    }
    initiator.command(&cdb_10(0x41, 5, 2), 0xa0, 512, &[7; 512]).await;
    assert_eq!(initiator.status().await, (0, [0; 3]));
    let mut cdb = cdb_10(0x2f, 5, 2);
    cdb[1] = 0x06;
    initiator.command(&cdb, 0xa0, 512, &[7; 512]).await;
    assert_eq!(initiator.status().await, (0, [0; 3]));
}

#[tokio::test]
async fn nothing_may_be_asked_for_at_the_very_end() {
    let lab = Lab::new(true);
    let mut initiator = lab.log_in(1, FAST).await;
    let blocks = DISK_BYTES.div_ceil(512) as u32;
    for code in [0x28, 0x2a] {
        initiator.command(&cdb_10(code, blocks, 0), 0x80, 0, &[]).await;
        assert_eq!(initiator.status().await, (0, [0; 3]), "{code:x}");
        initiator.command(&cdb_10(code, blocks + 1, 0), 0x80, 0, &[]).await;
        assert_eq!(initiator.status().await, (2, [5, 0x21, 0]), "{code:x}");
    }
}

#[tokio::test]
async fn an_initiator_may_protect_the_disk_until_it_is_reset() {
    let lab = Lab::new(true);
    let (mut one, mut other) = (lab.log_in(1, FAST).await, lab.log_in(2, FAST).await);
    let list = |swp: u8| [0, 0, 0, 0, 0x0a, 10, 0, 0x10, swp, 0, 0, 0, 0, 0, 0, 0];
    one.command(&[0x15, 0x10, 0, 0, 16, 0], 0xa0, 16, &list(0x09)).await;
    assert_eq!(one.status().await, (2, [5, 0x26, 0]), "another bit");
    one.command(&[0x15, 0, 0, 0, 16, 0], 0xa0, 16, &list(8)).await;
    assert_eq!(one.status().await, (2, [5, 0x24, 0]), "no pages");
    one.command(&[0x15, 0x10, 0, 0, 16, 0], 0xa0, 16, &list(8)).await;
    assert_eq!(one.status().await, (0, [0; 3]));
    other.command(&[0; 6], 0x80, 0, &[]).await;
    assert_eq!(other.status().await, (2, [6, 0x2a, 1]), "the others hear of it");
    for initiator in [&mut one, &mut other] {
        for (code, bytes) in [(0x2a, 512), (0x41, 512), (0x42, 1)] {
            initiator.command(&cdb_10(code, 0, 1), 0xa0, bytes, &vec![0; bytes]).await;
            assert_eq!(initiator.status().await, (2, [7, 0x27, 2]), "{code:x}");
        }
        initiator.command(&[0x1a, 8, 0x0a, 0, 255, 0], 0xc0, 255, &[]).await;
        let told = initiator.receive().await.data;
        assert_eq!((told[2], told[8]), (0x90, 8));
    }
    one.send(Header::reply(op::TASK_REQUEST, 5).with_byte(0, 0x42).with_byte(1, 0x85), &[]).await;
    assert_eq!(one.receive().await.header.array::<3>(0), [op::TASK_RESPONSE, 0x80, 0]);
    one.command(&[0; 6], 0x80, 0, &[]).await;
    assert_eq!(one.status().await, (2, [6, 0x29, 3]));
    assert_eq!(one.write(0, &[1; 512]).await, (0, [0; 3]));
}

#[tokio::test]
async fn a_list_of_another_length_is_refused_and_holds_nothing_up() {
    let lab = Lab::new(true);
    let mut initiator = lab.log_in(1, FAST).await;
    for bytes in [u32::MAX, 25, 23, 0] {
        let length = bytes.to_be_bytes();
        let cdb = [0x5f, 0, 0, 0, 0, length[0], length[1], length[2], length[3], 0];
        initiator.command(&cdb, 0xa0, bytes as usize, &[]).await;
        assert_eq!(initiator.status().await, (2, [5, 0x1a, 0]), "{bytes}");
    }
    assert_eq!(initiator.write(0, &[1; 512]).await, (0, [0; 3]));
}

#[tokio::test]
async fn a_disk_without_an_overlay_is_write_protected() {
    let lab = Lab::new(false);
    let mut initiator = lab.log_in(1, FAST).await;
    for code in [0x2a, 0x41, 0x42] {
        initiator.command(&cdb_10(code, 0, 1), 0xa0, 512, &[0; 512]).await;
        assert_eq!(initiator.status().await, (2, [7, 0x27, 0]), "{code:x}");
    }
    // What comes after the refusal is no harm.
    let tag = initiator.command(&cdb_10(0x2a, 0, 8), 0x20, 4096, &[]).await;
    initiator.send(data_out(tag, NO_TAG, 0, 0), &[0; 4096]).await;
    assert_eq!(initiator.status().await, (2, [7, 0x27, 0]));
    assert_eq!(initiator.read(0, 1).await, (lab.content[..512].to_vec(), 0));
}

#[tokio::test]
async fn tasks_can_be_aborted_and_are_never_answered() {
    let lab = Lab::new(false);
    let (mut one, mut other) = (lab.log_in(1, FAST).await, lab.log_in(2, FAST).await);
    lab.target.disk.is_held.store(true, Ordering::SeqCst);
    let tag = one.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
    let manage = |function: u8, of: u32, command: u32| {
        Header::reply(op::TASK_REQUEST, 5)
            .with_byte(0, 0x42)
            .with_byte(1, 0x80 | function)
            .with_u32(20, of)
            .with_u32(24, command)
    };
    one.send(manage(1, tag, one.command), &[]).await;
    assert_eq!(one.receive().await.header.array::<3>(0), [op::TASK_RESPONSE, 0x80, 0]);
    one.send(manage(1, tag, one.command), &[]).await;
    assert_eq!(one.receive().await.header.0[2], 1, "it is not there any more");
    // A reset ends those of all sessions, and all hear of it.
    other.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
    one.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
    one.send(manage(5, 0, one.command), &[]).await;
    assert_eq!(one.receive().await.header.0[2], 0);
    lab.target.disk.is_held.store(false, Ordering::SeqCst);
    lab.target.disk.released.notify_waiters();
    for initiator in [&mut one, &mut other] {
        initiator.command(&[0; 6], 0x80, 0, &[]).await;
        assert_eq!(initiator.status().await, (2, [6, 0x29, 3]));
        assert_eq!(initiator.read(0, 1).await, (lab.content[..512].to_vec(), 0));
    }
}

#[tokio::test]
async fn many_reads_wait_their_turn_and_the_window_holds() {
    let lab = Lab::new(false);
    let mut initiator = lab.log_in(1, FAST).await;
    lab.target.disk.is_held.store(true, Ordering::SeqCst);
    for _ in 0..WINDOW {
        initiator.command(&cdb_10(0x28, 0, 6000), 0xc0, 6000 * 512, &[]).await;
    }
    // One too many is not heard.
    initiator.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
    initiator.command -= 1;
    initiator.send(Header::reply(op::NOP_OUT, 4).with_byte(0, 0x40), b"ping").await;
    let pong = initiator.receive().await;
    assert_eq!((pong.header.opcode(), &pong.data[..]), (op::NOP_IN, &b"ping"[..]));
    assert_eq!(pong.header.u32_at(28), pong.header.u32_at(32).wrapping_add(1), "the window is closed");
    lab.target.disk.is_held.store(false, Ordering::SeqCst);
    let mut answered = 0;
    while answered < WINDOW {
        lab.target.disk.released.notify_waiters();
        if initiator.receive().await.header.flags() & 1 != 0 {
            answered += 1;
        }
    }
    assert_eq!(initiator.read(0, 1).await, (lab.content[..512].to_vec(), 0));
}

#[tokio::test]
async fn a_second_session_of_the_same_end_replaces_the_first() {
    let lab = Lab::new(false);
    let first = lab.log_in(1, FAST).await;
    let mut second = lab.log_in(1, FAST).await;
    first.ended().await.unwrap();
    assert_eq!(second.read(0, 1).await.1, 0);
    let other = lab.log_in(2, FAST).await;
    assert_eq!(second.read(0, 1).await.1, 0, "another end is another session");
    lab.down.send(true).unwrap();
    second.ended().await.unwrap();
    other.ended().await.unwrap();
}

#[tokio::test]
async fn reservations_hold_between_sessions() {
    let lab = Lab::new(true);
    let (mut one, mut other) = (lab.log_in(1, FAST).await, lab.log_in(2, FAST).await);
    let mut list = [0; 24];
    list[15] = 5;
    one.command(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], 0xa0, 24, &list).await;
    assert_eq!(one.status().await.0, 0);
    list[7] = 5;
    one.command(&[0x5f, 1, 3, 0, 0, 0, 0, 0, 24, 0], 0xa0, 24, &list).await;
    assert_eq!(one.status().await.0, 0);
    assert_eq!(other.read(0, 1).await.1, 0x18);
    assert_eq!(one.read(0, 1).await.1, 0);
    // They outlive the session.
    drop(one);
    assert_eq!(other.read(0, 1).await.1, 0x18);
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_session_or_is_sent_back() {
    let lab = Lab::new(true);
    let mut initiator = lab.log_in(1, FAST).await;
    for (opcode, reason) in [(op::SNACK, reject::SNACK), (0x1c, reject::NOT_SUPPORTED)] {
        initiator.send(Header::reply(opcode, 3), &[]).await;
        let unit = initiator.receive().await;
        assert_eq!((unit.header.opcode(), unit.header.0[2], unit.data.len()), (op::REJECT, reason, HEADER_BYTES));
    }
    type Break = fn(Header) -> (Header, usize);
    let breaks: [Break; 5] = [
        |header| (header.with_byte(0, op::LOGIN), 0),
        // A command that skips one.
        |header| (header.with_byte(0, op::SCSI_COMMAND).with_u32(24, 1001), 0),
        // More data than it says.
        |header| (header.with_byte(0, op::SCSI_COMMAND).with_byte(1, 0xa0).with_u32(24, 1000).with_u32(20, 4), 8),
        // More data than we take.
        |header| (header.with_byte(0, op::NOP_OUT | 0x40), (256 << 10) + 4),
        |header| (header.with_byte(0, op::SCSI_COMMAND).with_byte(1, 0xa0).with_u32(24, 1000), 4),
    ];
    for breaking in breaks {
        let mut initiator = lab.log_in(3, FAST).await;
        let (header, bytes) = breaking(Header::reply(0, 3));
        initiator.send(header, &vec![0; bytes]).await;
        initiator.ended().await.unwrap_err();
    }
    // One wrong bit, where there are digests.
    let mut initiator = lab.log_in(4, &[("HeaderDigest", "CRC32C")]).await;
    initiator.stream.write_all(&[0; HEADER_BYTES + DIGEST_BYTES]).await.unwrap();
    initiator.ended().await.unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Units of every kind with any content, in whatever order: none panics, and another session goes on.
    #[test]
    fn whatever_comes_nothing_panics(
        units in proptest::collection::vec(
            (0_u8..0x40, any::<[u8; 48]>(), any::<bool>(), 0_usize..600, 0_u8..40), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lab = Lab::new(true);
            let mut initiator = lab.log_in(1, FAST).await;
            for (opcode, random, is_apt, bytes, choice) in units {
                let opcode = if choice < 30 { [0, 1, 2, 4, 5][usize::from(choice % 5)] } else { opcode };
                let mut header = Header(random).with_byte(0, opcode | random[0] & 0x40).with_byte(4, 0);
                if is_apt {
                    // As one that is meant.
                    header = header.with_lun(0).with_u32(24, initiator.command).with_u32(20, bytes as u32);
                    header = header.with_u32(16, u32::from(random[19] % 4)).with_byte(36, random[36] % 2);
                    initiator.command += u32::from(opcode < 5 && header.0[0] & 0x40 == 0);
                }
                let mut all = header.with_data_bytes(bytes).0.to_vec();
                all.resize(HEADER_BYTES + bytes.next_multiple_of(4), random[0]);
                if initiator.stream.write_all(&all).await.is_err() {
                    break;
                }
            }
            drop(initiator.stream);
            // An end it has, and it is no panic.
            let _ = initiator.server.await.expect("no panic");
            assert_eq!(lab.log_in(2, FAST).await.read(0, 1).await.1, 0);
        });
    }
}
