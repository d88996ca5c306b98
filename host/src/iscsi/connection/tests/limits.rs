//! What an initiator may cost, and what it may ask for beside commands to the disk.

use super::*;
use crate::iscsi::connection::tasks::TASKS_MAX;
use tokio::time::Instant;

/// Another unit than the one there is.
const OTHER_UNIT: u64 = 1 << 48;

impl Initiator {
    /// A request that goes before all others.
    async fn immediate(&mut self, opcode: u8, flags: u8, more: fn(Header) -> Header) {
        let header = Header::reply(opcode, 5).with_byte(0, opcode | 0x40).with_byte(1, flags);
        self.send(more(header.with_u32(24, self.command)), &[]).await;
    }

    /// What task management answers.
    async fn manage(&mut self, function: u8, more: fn(Header) -> Header) -> u8 {
        self.immediate(op::TASK_REQUEST, 0x80 | function, more).await;
        let header = self.receive().await.header;
        assert_eq!(header.opcode(), op::TASK_RESPONSE);
        header.0[2]
    }

    /// What a text request is answered.
    async fn ask(&mut self, key: &str, value: &str) -> Vec<u8> {
        let mut text = Vec::new();
        text::push(&mut text, key, value);
        self.send(Header::reply(op::TEXT, 5).with_byte(0, op::TEXT | 0x40).with_u32(20, NO_TAG), &text).await;
        let unit = self.receive().await;
        assert_eq!(unit.header.opcode(), op::TEXT_RESPONSE);
        unit.data.to_vec()
    }

    /// Sends this unit until nobody takes it any more; gives how many bytes went.
    async fn flood(&mut self, header: Header, data: &[u8]) -> usize {
        let unit = [&header.with_data_bytes(data.len()).0[..], data].concat();
        let mut sent = 0;
        // By the paused clock: as soon as all others wait.
        while timeout(Duration::from_secs(1), self.stream.write_all(&unit)).await.is_ok() {
            sent += unit.len();
            assert!(sent < 1 << 30);
        }
        sent
    }
}

#[tokio::test(start_paused = true)]
async fn from_an_initiator_that_does_not_read_no_more_is_read() {
    let lab = Lab::new(false);
    let ping = Header::reply(op::NOP_OUT, 4).with_byte(0, 0x40);
    // What waits to be sent is bounded in bytes and in units; beside it both directions hold a mebibyte.
    let mut initiator = lab.log_in(1, &[("MaxRecvDataSegmentLength", "65536")]).await;
    let sent = initiator.flood(ping, &[7; 1 << 16]).await;
    assert!((4 << 20..8 << 20).contains(&sent), "{sent}");
    let mut initiator = lab.log_in(2, FAST).await;
    let sent = initiator.flood(ping, &[]).await;
    assert!((1 << 20..4 << 20).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_log_in_is_not_waited_for() {
    let lab = Lab::new(false);
    let (near, far) = tokio::io::duplex(1 << 10);
    let (read, write) = tokio::io::split(far);
    let began = Instant::now();
    let served = serve(read, write, Arc::clone(&lab.target), String::new(), lab.down.subscribe()).await;
    assert_eq!(served.unwrap_err().kind(), io::ErrorKind::TimedOut);
    // By the paused clock.
    assert!(began.elapsed() <= Duration::from_secs(60));
    drop(near);
}

#[tokio::test]
async fn more_commands_than_can_be_kept_are_told_so() {
    let lab = Lab::new(false);
    let mut initiator = lab.log_in(1, FAST).await;
    lab.target.disk.is_held.store(true, Ordering::SeqCst);
    for tag in 0..=TASKS_MAX as u32 {
        let mut header = Header::reply(op::SCSI_COMMAND, 100 + tag).with_byte(0, 0x41).with_byte(1, 0xc0);
        header.0[32..42].copy_from_slice(&cdb_10(0x28, 0, 1));
        initiator.send(header.with_u32(20, 512).with_u32(24, initiator.command), &[]).await;
    }
    let full = initiator.receive().await.header;
    assert_eq!((full.tag(), full.0[3]), (100 + TASKS_MAX as u32, 0x28));
}

#[tokio::test]
async fn text_has_an_end() {
    let lab = Lab::new(false);
    let mut initiator = lab.log_in(1, FAST).await;
    let header = Header::reply(op::TEXT, 5).with_byte(0, op::TEXT | 0x40).with_byte(1, 0x40).with_u32(20, NO_TAG);
    initiator.send(header, &[b'a'; TEXT_BYTES_MAX]).await;
    assert_eq!(initiator.receive().await.header.opcode(), op::TEXT_RESPONSE);
    initiator.send(header, b"a").await;
    let unit = initiator.receive().await.header;
    assert_eq!((unit.opcode(), unit.0[2]), (op::REJECT, reject::PROTOCOL));
}

#[tokio::test]
async fn who_discovers_learns_names_and_reaches_no_disk() {
    let lab = Lab::new(false);
    let (mut finder, mut user) = (lab.log_in(1, &[("SessionType", "Discovery")]).await, lab.log_in(2, FAST).await);
    let iqn = lab.target.facts.iqn.clone();
    let told = format!("TargetName={iqn}\0TargetAddress=127.0.0.1:3260,1\0").into_bytes();
    assert_eq!(finder.ask("SendTargets", "All").await, told);
    assert_eq!((user.ask("SendTargets", "All").await, user.ask("SendTargets", &iqn).await), (Vec::new(), told));
    assert!(user.ask("SendTargets", "iqn.2026-01.swarmdisk:other").await.is_empty());
    finder.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
    let unit = finder.receive().await.header;
    assert_eq!((unit.opcode(), unit.0[2]), (op::REJECT, reject::PROTOCOL));
    finder.immediate(op::LOGOUT, 0x80, |header| header).await;
    assert_eq!(finder.receive().await.header.array::<3>(0), [op::LOGOUT_RESPONSE, 0x80, 0]);
    finder.ended().await.unwrap();
}

#[tokio::test]
async fn a_logout_that_would_go_on_elsewhere_is_refused() {
    let lab = Lab::new(false);
    let mut initiator = lab.log_in(1, FAST).await;
    initiator.immediate(op::LOGOUT, 0x82, |header| header).await;
    assert_eq!(initiator.receive().await.header.array::<3>(0), [op::LOGOUT_RESPONSE, 0x80, 2]);
    assert_eq!(initiator.read(0, 1).await.1, 0);
}

#[tokio::test]
async fn tasks_of_others_can_be_cleared_and_sessions_of_all_reset() {
    let lab = Lab::new(false);
    let (mut one, mut other) = (lab.log_in(1, FAST).await, lab.log_in(2, FAST).await);
    assert_eq!(one.manage(2, |header| header.with_lun(OTHER_UNIT)).await, 2, "no such unit");
    assert_eq!((one.manage(8, |header| header).await, one.manage(9, |header| header).await), (4, 5));
    lab.target.disk.is_held.store(true, Ordering::SeqCst);
    for (function, is_other_s_left) in [(2, true), (4, false)] {
        let held = other.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
        one.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
        // Each has arrived when what came after it is answered.
        for initiator in [&mut one, &mut other] {
            let ready = initiator.command(&[0; 6], 0x80, 0, &[]).await;
            assert_eq!(initiator.receive().await.header.tag(), ready);
        }
        assert_eq!(one.manage(function, |header| header).await, 0);
        lab.target.disk.released.notify_waiters();
        let ready = other.command(&[0; 6], 0x80, 0, &[]).await;
        let mut answered = vec![other.receive().await.header.tag()];
        if is_other_s_left {
            answered.push(other.receive().await.header.tag());
            answered.sort_unstable();
        }
        let expected = if is_other_s_left { vec![held, ready] } else { vec![ready] };
        assert_eq!(answered, expected, "function {function}");
    }
    one.immediate(op::TASK_REQUEST, 0x87, |header| header).await;
    other.ended().await.unwrap();
    one.ended().await.unwrap();
}

#[tokio::test]
async fn who_is_preempted_hears_no_more_of_its_tasks() {
    let lab = Lab::new(true);
    let (mut one, mut other) = (lab.log_in(1, FAST).await, lab.log_in(2, FAST).await);
    let list = |own: u8, new: u8| {
        let mut list = [0; 24];
        (list[7], list[15]) = (own, new);
        list
    };
    let reserve = |action: u8, kind: u8| [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
    for (initiator, key) in [(&mut one, 1), (&mut other, 2)] {
        initiator.command(&reserve(0, 0), 0xa0, 24, &list(0, key)).await;
        assert_eq!(initiator.status().await.0, 0);
    }
    other.command(&reserve(1, 3), 0xa0, 24, &list(2, 0)).await;
    assert_eq!(other.status().await.0, 0);
    // Whatever reads is kept off.
    for cdb in [cdb_10(0x28, 0, 1), cdb_10(0x2f, 0, 1), cdb_10(0x34, 0, 1)] {
        one.command(&cdb, 0x80, 0, &[]).await;
        assert_eq!(one.status().await.0, 0x18, "{cdb:x?}");
    }
    lab.target.disk.is_held.store(true, Ordering::SeqCst);
    other.command(&cdb_10(0x28, 0, 1), 0xc0, 512, &[]).await;
    let ready = other.command(&[0; 6], 0x80, 0, &[]).await;
    assert_eq!(other.receive().await.header.tag(), ready);
    one.command(&reserve(5, 3), 0xa0, 24, &list(1, 2)).await;
    assert_eq!(one.status().await.0, 0);
    lab.target.disk.released.notify_waiters();
    other.command(&[0; 6], 0x80, 0, &[]).await;
    assert_eq!(other.status().await, (2, [6, 0x2a, 5]), "it was preempted, and the read was not answered");
}

#[tokio::test]
async fn of_a_unit_that_is_not_there_little_is_said() {
    let lab = Lab::new(false);
    let mut initiator = lab.log_in(1, FAST).await;
    let mut ask = async |cdb: &[u8]| {
        initiator.tag += 1;
        let mut header = Header::reply(op::SCSI_COMMAND, initiator.tag).with_byte(1, 0xc0).with_lun(OTHER_UNIT);
        header.0[32..32 + cdb.len()].copy_from_slice(cdb);
        initiator.send(header.with_u32(20, 255).with_u32(24, initiator.command), &[]).await;
        initiator.command += 1;
        initiator.receive().await
    };
    assert_eq!(ask(&[0x12, 0, 0, 0, 96, 0]).await.data[0], 0x7f);
    assert_eq!(ask(&[0x03, 0, 0, 0, 18, 0]).await.data[12], 0x25);
    assert_eq!(ask(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]).await.data[3], 8);
    for cdb in [&cdb_10(0x28, 0, 0)[..], &[0; 6], &[0x12, 1, 0x80, 0, 96, 0]] {
        let refused = ask(cdb).await;
        assert_eq!((refused.header.0[3], refused.data[2 + 2], refused.data[2 + 12]), (2, 5, 0x25), "{cdb:x?}");
    }
}

#[tokio::test]
async fn what_is_to_be_durable_is_flushed() {
    let lab = Lab::new(true);
    let mut initiator = lab.log_in(1, FAST).await;
    let mut flushes = 0;
    for (cdb, bytes, is_durable) in [
        (cdb_10(0x2a, 0, 1), 512, false),
        (with_flags(cdb_10(0x2a, 0, 1), 0x08), 512, true),
        // WRITE AND VERIFY.
        (cdb_10(0x2e, 0, 1), 512, true),
        (cdb_10(0x35, 0, 0), 0, true),
    ] {
        initiator.command(&cdb, 0xa0, bytes, &vec![1; bytes]).await;
        assert_eq!(initiator.status().await, (0, [0; 3]));
        flushes += u32::from(is_durable);
        assert_eq!(lab.target.disk.flushes.load(Ordering::SeqCst), flushes, "{cdb:x?}");
    }
}

fn with_flags(mut cdb: [u8; 10], flags: u8) -> [u8; 10] {
    cdb[1] = flags;
    cdb
}

#[tokio::test]
async fn data_come_only_as_was_agreed_on() {
    let lab = Lab::new(true);
    let mut initiator = lab.log_in(1, &[("ImmediateData", "No"), ("InitialR2T", "No")]).await;
    initiator.command(&cdb_10(0x2a, 0, 1), 0xa0, 512, &[0; 512]).await;
    assert!(initiator.ended().await.unwrap_err().to_string().contains("not agreed on"));
    let mut initiator = lab.log_in(2, &[("ImmediateData", "Yes"), ("InitialR2T", "Yes")]).await;
    initiator.command(&cdb_10(0x2a, 0, 2), 0x20, 1024, &[0; 512]).await;
    assert!(initiator.ended().await.unwrap_err().to_string().contains("not agreed on"));
}
