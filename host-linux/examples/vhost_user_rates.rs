//! Random reads of a packed image whose chunks are all held, over vhost-user and over NBD, in turns:
//! `cargo build --release && cargo run --release -p swarmdisk-host-linux --example vhost_user_rates -- FILE.swarm`.
//!
//! *What is real*: the command, its socket, a frontend that shares its memory; fio with libnbd as the NBD client (Debian:
//! `fio`). *What is not*: no machine is between, so that neither QEMU's block layer, which NBD needs, nor a guest's
//! interrupts count. The clients are two different ones. Each number is a median of [`ROUNDS`].

#[allow(dead_code)]
#[path = "../tests/vhost_user/driver.rs"]
mod driver;

use driver::Driver;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_IN;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Requests in flight, and the bytes of each.
const KINDS: [(u16, u32); 3] = [(1, 4 << 10), (32, 4 << 10), (8, 64 << 10)];

type Failed = Box<dyn Error>;

fn main() -> Result<(), Failed> {
    let image = std::env::args().nth(1).ok_or("pass FILE.swarm")?;
    let folder = tempfile::tempdir()?;
    let [vhost_user, nbd] = ["vhost-user", "nbd"].map(|name| folder.path().join(name).display().to_string());
    let _vhost_user = Attached::start(&[&image, "--vhost-user", &vhost_user])?;
    let _nbd = Attached::start(&[&image, "--nbd", &format!("unix:{nbd}")])?;
    println!("reads a second      vhost-user       NBD   ratio (least, most)");
    for (depth, bytes) in KINDS {
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            pairs.push((over_vhost_user(&vhost_user, depth, bytes)?, over_nbd(&nbd, depth, bytes)?));
        }
        let middle = |numbers: Vec<f64>| {
            let mut numbers = numbers;
            numbers.sort_by(f64::total_cmp);
            (numbers[0], numbers[ROUNDS / 2], numbers[ROUNDS - 1])
        };
        let (_, ours, _) = middle(pairs.iter().map(|pair| pair.0).collect());
        let (_, theirs, _) = middle(pairs.iter().map(|pair| pair.1).collect());
        let (least, ratio, most) = middle(pairs.iter().map(|pair| pair.0 / pair.1).collect());
        let kind = format!("{depth} of {} KiB", bytes >> 10);
        println!("{kind:18} {ours:11.0} {theirs:9.0} {ratio:7.2} ({least:.2}, {most:.2})");
    }
    Ok(())
}

/// A node that serves the image; ended when dropped.
struct Attached(Child);

impl Attached {
    fn start(arguments: &[&str]) -> Result<Self, Failed> {
        let program = std::env::current_exe()?.ancestors().nth(2).ok_or("no target folder")?.join("swarmdisk");
        let mut child = Command::new(program).arg("attach").args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        if line.starts_with("ready ") { Ok(Self(child)) } else { Err("the node is not ready".into()) }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn over_vhost_user(socket: &str, depth: u16, bytes: u32) -> Result<f64, Failed> {
    let mut driver = Driver::connect(Path::new(socket), 1, 0);
    let capacity: [u8; 8] = *driver.config(8).first_chunk().ok_or("no capacity")?;
    let places = u64::from_le_bytes(capacity) * 512 / u64::from(bytes);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut sector = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % places * u64::from(bytes / 512)
    };
    let (began, mut done, mut in_flight) = (Instant::now(), 0_u32, depth);
    for slot in 0..depth {
        driver.submit(0, slot, VIRTIO_BLK_T_IN, sector(), &[], bytes);
    }
    driver.kick(0);
    while in_flight > 0 {
        let slot = driver.answer(0).0 as u16 / 3;
        if driver.status_of(slot) != 0 {
            return Err("a read failed".into());
        }
        done += 1;
        if began.elapsed() < ROUND {
            driver.submit(0, slot, VIRTIO_BLK_T_IN, sector(), &[], bytes);
            driver.kick(0);
        } else {
            in_flight -= 1;
        }
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

fn over_nbd(socket: &str, depth: u16, bytes: u32) -> Result<f64, Failed> {
    let mut fio = Command::new("fio");
    fio.args(["--name=reads", "--ioengine=nbd", "--rw=randread", "--time_based", "--randrepeat=1"]);
    fio.args(["--output-format=json", &format!("--uri=nbd+unix:///?socket={socket}"), &format!("--bs={bytes}")]);
    let output = fio.args([format!("--iodepth={depth}"), format!("--runtime={}", ROUND.as_secs())]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // It may say something before.
    let report: serde_json::Value = serde_json::from_str(&text[text.find('{').ok_or("fio says nothing")?..])?;
    report["jobs"][0]["read"]["iops"].as_f64().ok_or_else(|| "fio has no answer".into())
}
