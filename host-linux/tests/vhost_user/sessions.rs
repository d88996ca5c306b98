//! Frontends that come and go, with requests under way, and the end of the device.

use super::disk::MemoryDisk;
use super::driver::{Driver, MEMORY_BYTES, Part, SOON};
use super::{FAILED, IMAGE_BYTES, OK, Served};
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

const FEW: Duration = Duration::from_millis(100);

/// A disk whose requests wait until there are permits.
fn gated() -> (Served, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    (Served::new(MemoryDisk::new(IMAGE_BYTES, true).gated(&gate)), gate)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn requests_in_flight_are_answered_out_of_turn() {
    let (served, gate) = gated();
    let mut driver = Driver::connect(&served.socket, 3, 0);
    for slot in 0..40 {
        driver.submit(usize::from(slot) % 3, slot, VIRTIO_BLK_T_IN, u64::from(slot) * 8, &[], 4096);
    }
    (0..3).for_each(|queue| driver.kick(queue));
    assert_eq!(driver.try_answer(0, FEW), None, "nothing was let through");
    gate.add_permits(1000);
    let mut heads = Vec::new();
    for answer in 0..40 {
        let (head, bytes) = driver.answer(answer % 3);
        assert_eq!(bytes, 4097);
        assert_eq!(driver.status_of(head as u16 / 3), 0);
        heads.push(head);
    }
    heads.sort_unstable();
    assert_eq!(heads, (0..40).map(|slot| slot * 3).collect::<Vec<_>>(), "each once");
}

#[test]
fn what_is_too_much_waits_its_turn() {
    let (served, gate) = gated();
    let begun = || served.disk.begun.load(Ordering::SeqCst);
    // By number: more than the thousand that are let in, from many queues.
    let mut driver = Driver::connect(&served.socket, 30, 0);
    for (queue, slot) in (0..30).flat_map(|queue| (0..42).map(move |slot| (queue, slot))) {
        driver.submit(queue, slot, VIRTIO_BLK_T_IN, 0, &[], 512);
    }
    (0..30).for_each(|queue| driver.kick(queue));
    wait_until("as many as are let in have begun", || begun() == 1024);
    thread::sleep(FEW);
    assert_eq!(begun(), 1024);
    gate.add_permits(30 * 42);
    for queue in (0..30).flat_map(|queue| [queue; 42]) {
        assert_eq!(driver.answer(queue).1, 513);
    }
    drop(driver);
    // By bytes: 64 MiB in pieces of 4 MiB.
    served.disk.begun.store(0, Ordering::SeqCst);
    let mut driver = served.driver();
    for slot in 0..30 {
        let parts = [
            driver.put_head(slot, VIRTIO_BLK_T_IN, 0),
            Part::wanted(MEMORY_BYTES - (8 << 20), 8 << 20),
            driver.put_status(slot),
        ];
        driver.describe(0, 3 * slot, &parts);
        driver.offer(0, 3 * slot);
    }
    driver.kick(0);
    wait_until("as many as are let in have begun", || begun() == 16);
    thread::sleep(FEW);
    assert_eq!(begun(), 16);
    gate.add_permits(60);
    for _ in 0..30 {
        assert_eq!(driver.answer(0).1, (8 << 20) + 1);
    }
    assert_eq!(begun(), 60, "each in two pieces");
}

#[test]
fn guests_without_the_newer_features_are_served() {
    for without in [1 << VIRTIO_RING_F_EVENT_IDX, 1 << VIRTIO_RING_F_INDIRECT_DESC] {
        let served = Served::writable();
        let mut driver = Driver::connect(&served.socket, 2, without);
        for _ in 0..300 {
            assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 8, &[1; 4096], 0).0, OK);
            assert!(driver.request(VIRTIO_BLK_T_IN, 8, &[], 4096) == (OK, vec![1; 4096]));
        }
    }
}

#[test]
fn frontends_come_and_go() {
    let served = Served::writable();
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for turn in 0..12 {
        let mut driver = served.driver();
        assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 0, &[turn; 512], 0).0, OK);
        assert_eq!(driver.request(VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, OK);
        drop(driver);
        assert!(served.driver().request(VIRTIO_BLK_T_IN, 0, &[], 512) == (OK, vec![turn; 512]));
        // One that says nothing, and one that says nonsense.
        drop(UnixStream::connect(&served.socket).unwrap());
        std::io::Write::write_all(&mut UnixStream::connect(&served.socket).unwrap(), &[0xff; 100]).unwrap();
        if turn == 1 {
            before = open_files();
        }
    }
    // Other tests of this process open files too, yet none leaves ten sessions' behind.
    wait_until("no session leaves a file open", || open_files() < before + 40);
}

#[test]
fn who_leaves_in_the_middle_harms_nobody() {
    let (served, gate) = gated();
    let mut driver = served.driver();
    for slot in 0..32 {
        driver.submit(0, slot, VIRTIO_BLK_T_OUT, u64::from(slot) * 8, &[9; 4096], 0);
    }
    driver.kick(0);
    // One of them has got through: the others wait.
    gate.add_permits(1);
    driver.answer(0);
    let memory = driver.memory.clone();
    drop(driver);
    // The next frontend is let in only after all that was under way is over.
    let mut driver = served.driver();
    gate.add_permits(1000);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, &[], 4096).0, OK);
    assert_eq!(served.disk.done().len(), 2, "one write, and the read");
    let used: u16 = vm_memory::Bytes::read_obj(&memory, vm_memory::GuestAddress(0x2002)).unwrap();
    assert_eq!(used, 1, "nobody was answered who is gone");
}

#[test]
fn a_stopped_queue_is_at_rest_and_goes_on_where_it_was() {
    let (served, gate) = gated();
    let mut driver = served.driver();
    for slot in 0..8 {
        driver.submit(0, slot, VIRTIO_BLK_T_IN, 0, &[], 512);
    }
    driver.kick(0);
    wait_until("all were taken", || served.disk.begun.load(Ordering::SeqCst) == 8);
    let opened = thread::spawn({
        let gate = gate.clone();
        move || {
            thread::sleep(FEW);
            gate.add_permits(1000);
        }
    });
    let base = driver.frontend.get_vring_base(0).unwrap();
    assert_eq!(base, 8, "all that were offered were taken");
    for _ in 0..8 {
        driver.try_answer(0, Duration::ZERO).expect("what was taken was answered before the queue stood still");
    }
    opened.join().unwrap();
    driver.resume(0, base as u16);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, &[], 512).0, OK);
    driver.frontend.set_vring_enable(0, false).unwrap();
    driver.submit(0, 1, VIRTIO_BLK_T_IN, 0, &[], 512);
    driver.kick(0);
    assert_eq!(driver.try_answer(0, FEW), None, "the queue is disabled");
    driver.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(driver.answer(0), (3, 513));
}

#[test]
fn the_end_answers_what_it_can_and_fails_the_rest() {
    let (mut served, gate) = gated();
    let mut driver = served.driver();
    for slot in 0..4 {
        driver.submit(0, slot, VIRTIO_BLK_T_IN, 0, &[], 512);
    }
    driver.kick(0);
    gate.add_permits(1);
    let (answered, _) = driver.answer(0);
    assert_eq!(driver.status_of(answered as u16 / 3), 0);
    // What the device has not taken stays where it is.
    wait_until("all were taken", || served.disk.begun.load(Ordering::SeqCst) == 4);
    served.detach();
    for _ in 0..3 {
        let (head, _) = driver.answer(0);
        assert_eq!(u32::from(driver.status_of(head as u16 / 3)), FAILED);
    }
    assert!(!served.socket.exists());
    assert!(driver.frontend.get_queue_num().is_err(), "the connection is still there");
}

#[test]
fn sockets_of_the_dead_are_replaced_and_of_the_living_not() {
    let mut served = Served::writable();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _on = runtime.enter();
    let disk = Arc::new(MemoryDisk::new(512, false));
    let start =
        |socket: &std::path::Path| swarmdisk_host_linux::vhost_user::VhostUserDevice::start(disk.clone(), socket, "");
    let refused = start(&served.socket).err().unwrap().to_string();
    assert!(
        refused.contains("is in use by another process; end that one, or choose another --vhost-user"),
        "{refused}"
    );
    served.detach();
    assert!(!served.socket.exists());
    drop(UnixListener::bind(&served.socket).unwrap());
    drop(start(&served.socket).unwrap());
    assert!(!served.socket.exists());
    fs::write(&served.socket, "no socket").unwrap();
    assert!(start(&served.socket).err().unwrap().to_string().contains("is there and is no socket"));
    assert!(served.socket.exists());
}
