//! Guests that do what no guest should: the answer is a status, or none where there is no place for one, and the device
//! serves on.

use super::driver::{DATA, Driver, MEMORY_BYTES, Part, QUEUE_SIZE, SOON};
use super::{FAILED, OK, SECTORS, Served, UNSUPPORTED};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

/// Offers the chain at 0 and waits for its end: how many bytes were written, and the status of slot 0.
fn answer(driver: &mut Driver) -> (u32, u32) {
    driver.offer(0, 0);
    driver.kick(0);
    let (head, bytes) = driver.answer(0);
    assert_eq!(head, 0);
    (bytes, driver.status_of(0).into())
}

fn serves_on(driver: &mut Driver) {
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, &[], 512).0, OK);
}

#[test]
fn sectors_that_are_not_there() {
    let served = Served::writable();
    let mut driver = served.driver();
    for (sector, bytes) in [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)] {
        assert_eq!(driver.request(VIRTIO_BLK_T_IN, sector, &[], bytes).0, FAILED, "read {bytes} at {sector}");
        let data = vec![7; bytes as usize];
        assert_eq!(driver.request(VIRTIO_BLK_T_OUT, sector, &data, 0).0, FAILED, "write {bytes} at {sector}");
    }
    assert_eq!(served.disk.done(), [""; 0]);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, &[], 0).0, OK);
    assert_eq!(driver.request(4711, 0, &[], 512).0, UNSUPPORTED);
    // Less room than a serial number takes.
    assert_eq!(driver.request(VIRTIO_BLK_T_GET_ID, 0, &[], 7).0, OK);
    serves_on(&mut driver);
}

#[test]
fn chains_that_are_none() {
    let served = Served::writable();
    let mut driver = served.driver();
    let data = Driver::data(0);
    let head = |driver: &Driver| driver.put_head(0, VIRTIO_BLK_T_IN, 0);
    let (h, s) = (head(&driver), driver.put_status(0));
    let to = |next: u16, part: Part| Part { next: Some(next), ..part };
    // Each with the bytes written: 1 is the status.
    let chains: &[(&str, Vec<Part>, u32)] = &[
        ("no status", vec![h], 0),
        ("nothing but a status", vec![s], 1),
        ("half a head", vec![Part { bytes: 8, ..h }, s], 1),
        ("an empty descriptor alone", vec![Part::given(data, 0)], 0),
        ("read after written", vec![h, Part::wanted(data, 512), Part::given(data, 512), s], 1),
        ("a loop of one", vec![to(0, h)], 0),
        ("a loop at the end", vec![h, Part::wanted(data, 512), to(2, s)], 1),
        ("a successor beyond the table", vec![h, to(QUEUE_SIZE, s)], 1),
        ("a head that is nowhere", vec![Part::given(MEMORY_BYTES, 16), s], 1),
        ("data beyond the memory", vec![h, Part::wanted(MEMORY_BYTES - 512, 1024), s], 1),
        ("data where addresses end", vec![h, Part::wanted(u64::MAX - 511, 512), s], 1),
        ("data of 4 GiB", vec![h, Part::wanted(data, u32::MAX), s], 0),
        ("a status that is nowhere", vec![h, Part::wanted(data, 512), Part::wanted(MEMORY_BYTES, 1)], 512),
    ];
    for (what, parts, bytes) in chains {
        driver.put_status(0);
        driver.describe(0, 0, parts);
        let (written, status) = answer(&mut driver);
        assert_eq!(written, *bytes, "{what}");
        // Where the status's own descriptor was the last that was seen.
        if parts.last().is_some_and(|last| last.at == s.at) && written == 1 {
            assert_eq!(status, FAILED, "{what}");
        }
        serves_on(&mut driver);
    }
}

#[test]
fn lengths_that_no_disk_has() {
    let served = Served::writable();
    let mut driver = served.driver();
    // The guest's whole memory, time and again: more than there are sectors.
    let all = Part::wanted(0, MEMORY_BYTES as u32 - 512);
    let parts = [&[driver.put_head(0, VIRTIO_BLK_T_IN, 0)][..], &[all; 60], &[driver.put_status(0)]].concat();
    driver.describe(0, 0, &parts);
    assert_eq!(answer(&mut driver), (1, FAILED));
    assert_eq!(served.disk.done(), [""; 0]);
    serves_on(&mut driver);
}

#[test]
fn tables_of_descriptors() {
    let served = Served::writable();
    let mut driver = served.driver();
    let table = DATA + 0x100_0000;
    let (next, write) = (VRING_DESC_F_NEXT as u16, VRING_DESC_F_WRITE as u16);
    let indirect = |bytes: u32| Part { flags: VRING_DESC_F_INDIRECT, ..Part::given(table, bytes) };
    let (head, status) = (driver.put_head(0, VIRTIO_BLK_T_IN, 3), driver.put_status(0));
    let fill = |driver: &Driver, parts: u16| {
        driver.put_descriptor(table, head.at, 16, next, 1);
        for index in 1..=parts {
            driver.put_descriptor(table + 16 * u64::from(index), Driver::data(0), 512, next | write, index + 1);
        }
        driver.put_descriptor(table + 16 * (u64::from(parts) + 1), status.at, 1, write, 0);
        (u32::from(parts) + 2) * 16
    };
    // As many as are offered: more than fit in the queue beside others, since they are in a table.
    let bytes = fill(&driver, 126);
    driver.describe(0, 0, &[indirect(bytes)]);
    assert_eq!(answer(&mut driver), (126 * 512 + 1, OK));
    // What was not seen cannot be written to.
    let unseen = 0xff;
    for (what, parts, table_bytes, expected) in [
        ("more than are offered", 127, None, (1, FAILED)),
        ("many more than are offered", 4000, None, (1, FAILED)),
        ("a table that ends within a descriptor", 1, Some(40), (0, unseen)),
        ("a table without a descriptor", 1, Some(0), (0, unseen)),
        ("a table that ends too early", 4, Some(64), (1, unseen)),
    ] {
        driver.put_status(0);
        let bytes = fill(&driver, parts);
        driver.describe(0, 0, &[indirect(table_bytes.unwrap_or(bytes))]);
        assert_eq!(answer(&mut driver), expected, "{what}");
        serves_on(&mut driver);
    }
    // A table in a table.
    driver.put_descriptor(table, table, 32, VRING_DESC_F_INDIRECT as u16, 0);
    driver.describe(0, 0, &[indirect(16)]);
    assert_eq!(answer(&mut driver).0, 0);
    // A table that is nowhere.
    driver.describe(0, 0, &[Part { at: MEMORY_BYTES, ..indirect(48) }]);
    assert_eq!(answer(&mut driver).0, 0);
    serves_on(&mut driver);
}

#[test]
fn rings_that_are_none() {
    let served = Served::writable();
    // More is offered than a queue has, for ever: nothing is taken, and nothing spins.
    let mut driver = served.driver();
    serves_on(&mut driver);
    driver.set_offered(0, 0x7fff);
    driver.kick(0);
    assert_eq!(driver.try_answer(0, Duration::from_millis(100)), None);
    assert!(workers_rest(), "it spins");
    drop(driver);
    // A head beyond the table.
    let mut driver = served.driver();
    driver.offer(0, QUEUE_SIZE + 7);
    driver.kick(0);
    driver.try_answer(0, Duration::from_millis(100));
    drop(driver);
    // One chain offered many times at once.
    let mut driver = served.driver();
    driver.submit(0, 0, VIRTIO_BLK_T_IN, 0, &[], 4096);
    for _ in 1..QUEUE_SIZE {
        driver.offer(0, 0);
    }
    driver.kick(0);
    for _ in 0..QUEUE_SIZE {
        assert_eq!(driver.try_answer(0, SOON), Some((0, 4097)));
    }
    drop(driver);
    serves_on(&mut served.driver());
}

/// Whether there is a while in which all threads that serve queues, those of tests beside this one included, have next to
/// nothing to do. One that spins has something to do in each.
fn workers_rest() -> bool {
    (0..100).any(|_| {
        let before = workers_ticks();
        std::thread::sleep(Duration::from_millis(300));
        workers_ticks().iter().map(|(task, ticks)| ticks - before.get(task).unwrap_or(&0)).sum::<u64>() < 3
    })
}

/// Processor time of each thread that serves queues, in ticks of 10 ms.
fn workers_ticks() -> BTreeMap<OsString, u64> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let ticks = tasks.filter_map(|task| {
        // A thread may have ended.
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let fields = stat.split_once(" (vring_worker) ")?.1;
        // From the third field on; user and system time are the 14th and the 15th (proc(5)).
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Some((task.file_name(), ticks))
    });
    let ticks: BTreeMap<_, _> = ticks.collect();
    assert!(!ticks.is_empty(), "no thread has the name that the daemon gives them");
    ticks
}
