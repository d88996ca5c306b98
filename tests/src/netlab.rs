//! A network of a test's own: network namespaces on one bridge, each behind a link of a given rate, both ways.
//!
//! *What it is*: the links are HTB classes, one at each end of a virtual cable: what leaves the namespace is the node's
//! upload, what leaves the bridge towards it the download. A class counts Ethernet frames without preamble and checksum
//! (66 bytes a segment of 1,448), a full queue drops, and there is no delay but that of the queues. *Invariants*: dropping it removes
//! all, also while a test panics; what a killed process left is removed by the next one; names hold the process's id,
//! and addresses exist in the namespaces alone, so that runs do not collide. *Needs*: root and iproute2.
//! *Bounds*: [`NODES_MAX`] nodes; some 1 Gbit/s in all on two processors.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::skip::{Missing, find_tool};

/// Most nodes of a network.
pub const NODES_MAX: usize = 250;
/// What a class may send at once, in bytes: what a timer that is late by 1.3 ms costs at 50 Mbit/s.
const BURST_BYTES: u32 = 8192;
/// Segments that a sender hands over in one: with one the processors are soon the limit, with the usual 44 a small answer
/// waits for 64 KiB of others.
const SEGMENTS: &str = "4";
/// What every kernel allows in any namespace. On links without delay the usual CUBIC does about the same; BBR, which
/// machines may have as default, paces by itself and rests now and then.
const CONGESTION_CONTROL: &str = "reno";
/// How much a link queues before it drops, in milliseconds of its rate: what switches have, and at 50 Mbit/s 500 frames.
const QUEUE_MILLIS: u64 = 120;
/// At least so much is queued, in bytes.
const QUEUE_BYTES_MIN: u64 = 64 << 10;
/// Where iproute2 keeps the names.
const NAMES: &str = "/run/netns";
const PREFIX: &str = "swarmdisk-";

/// Namespaces 0 to N-1, a link each.
#[derive(Debug)]
pub struct Netlab {
    ip: PathBuf,
    tc: PathBuf,
    name: String,
    nodes: usize,
    mbit: u32,
}

/// What a node's link has carried, in bytes of Ethernet frames.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Carried {
    /// From the node.
    pub up_bytes: u64,
    /// To the node.
    pub down_bytes: u64,
    /// Frames dropped because a queue was full, both ways.
    pub drops: u64,
}

impl Netlab {
    /// Sets up so many nodes with links of `mbit` Mbit/s.
    ///
    /// # Errors
    /// When a tool or a right is missing; nothing is left then.
    ///
    /// # Panics
    /// When there are more than [`NODES_MAX`] nodes, or a link has no rate.
    pub fn new(nodes: usize, mbit: u32) -> Result<Self, Missing> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nodes <= NODES_MAX && mbit > 0, "{nodes} nodes of {mbit} Mbit/s");
        let (ip, tc) = (find_tool("ip", "iproute2")?, find_tool("tc", "iproute2")?);
        remove_left(&ip, Path::new(NAMES));
        let name = format!("{PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // From here on its drop removes what there is.
        let lab = Self { ip, tc, name, nodes, mbit };
        lab.set_up().map_err(|what| Missing {
            what: format!("no network namespaces with links of a rate ({what})"),
            remedy: "run it as root, with CAP_SYS_ADMIN and CAP_NET_ADMIN, on a kernel with veth, bridge and sch_htb"
                .to_owned(),
        })?;
        Ok(lab)
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// A node's address.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, node as u8 + 1)
    }

    /// The command, to be run in a node's namespace; its process keeps the id that it starts with.
    pub fn command(&self, node: usize, command: &Command) -> Command {
        let mut inside = Command::new(&self.ip);
        inside.args(["netns", "exec", &self.node(node)]).arg(command.get_program()).args(command.get_args());
        inside.stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// What a node's link has carried so far.
    ///
    /// # Panics
    /// When the link cannot be asked.
    #[track_caller]
    pub fn carried(&self, node: usize) -> Carried {
        let up = self.counters(&self.node(node), "eth0").expect("the link is there");
        let down = self.counters(&self.switch(), &port(node)).expect("the link is there");
        Carried { up_bytes: up.0, down_bytes: down.0, drops: up.1 + down.1 }
    }

    fn set_up(&self) -> Result<(), String> {
        let switch = self.switch();
        self.ip(&["netns", "add", &switch])?;
        self.ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        self.ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        (0..self.nodes).try_for_each(|node| self.plug_in(node))
    }

    fn plug_in(&self, node: usize) -> Result<(), String> {
        let (inside, switch, port) = (self.node(node), self.switch(), port(node));
        let address = format!("{}/16", self.address(node));
        self.ip(&["netns", "add", &inside])?;
        let choose = format!("echo {CONGESTION_CONTROL} > /proc/sys/net/ipv4/tcp_congestion_control");
        self.ip(&["netns", "exec", &inside, "sh", "-c", &choose])?;
        self.ip(&["-n", &inside, "link", "set", "lo", "up"])?;
        self.ip(&["-n", &inside, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch])?;
        self.ip(&["-n", &inside, "link", "set", "eth0", "gso_max_segs", SEGMENTS])?;
        self.ip(&["-n", &inside, "addr", "add", &address, "dev", "eth0"])?;
        self.ip(&["-n", &inside, "link", "set", "eth0", "up"])?;
        self.ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        self.shape(&inside, "eth0")?;
        self.shape(&switch, &port)
    }

    fn shape(&self, namespace: &str, device: &str) -> Result<(), String> {
        let rate = format!("{}mbit", self.mbit);
        let (burst, queue) = (BURST_BYTES.to_string(), self.queue_bytes().to_string());
        let on = ["-n", namespace];
        let class = ["class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb"];
        let limits = ["rate", &rate, "ceil", &rate, "burst", &burst, "cburst", &burst, "quantum", "1514"];
        let leaf = ["qdisc", "add", "dev", device, "parent", "1:1", "handle", "2:", "bfifo", "limit", &queue];
        let root = ["qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1"];
        self.tc(&[&on[..], &root].concat())?;
        self.tc(&[&on[..], &class, &limits].concat())?;
        self.tc(&[&on[..], &leaf].concat())
    }

    fn queue_bytes(&self) -> u64 {
        (u64::from(self.mbit) * 1_000_000 / 8 * QUEUE_MILLIS / 1000).max(QUEUE_BYTES_MIN)
    }

    /// Bytes sent and frames dropped by a device's root queue.
    fn counters(&self, namespace: &str, device: &str) -> Option<(u64, u64)> {
        let output =
            Command::new(&self.tc).args(["-n", namespace, "-s", "-j", "qdisc", "show", "dev", device]).output();
        let queues: serde_json::Value = serde_json::from_slice(&output.ok()?.stdout).ok()?;
        let root = queues.as_array()?.iter().find(|queue| queue["root"] == true)?;
        Some((root["bytes"].as_u64()?, root["drops"].as_u64()?))
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        run(&self.ip, arguments)
    }

    fn tc(&self, arguments: &[&str]) -> Result<(), String> {
        run(&self.tc, arguments)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn node(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }
}

impl Drop for Netlab {
    fn drop(&mut self) {
        let names = (0..self.nodes).map(|node| self.node(node)).chain([self.switch()]);
        for name in names.filter(|name| Path::new(NAMES).join(name).exists()) {
            self.ip(&["netns", "del", &name]).ok();
        }
    }
}

/// The bridge's end of a node's cable.
fn port(node: usize) -> String {
    format!("port{node}")
}

/// Removes the namespaces of processes that are gone.
fn remove_left(ip: &Path, names: &Path) {
    for entry in fs::read_dir(names).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let is_left =
            owner.is_some_and(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(pid).exists());
        if is_left {
            run(ip, &["netns", "del", &name]).ok();
        }
    }
}

/// Runs a tool; when it fails, what it says.
fn run(tool: &Path, arguments: &[&str]) -> Result<(), String> {
    let name = tool.file_name().unwrap_or(OsStr::new("tool")).to_string_lossy();
    let output = Command::new(tool).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} {}: {}", arguments.join(" "), said.lines().next().unwrap_or("failed")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;
    use crate::skip::need;
    use std::panic;
    use std::time::Duration;

    fn left(lab: &str) -> Vec<String> {
        let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.strip_prefix(lab).is_some_and(|rest| rest.starts_with('-'))).collect()
    }

    #[test]
    fn nodes_reach_each_other_and_nothing_is_left() {
        let Some(lab) = need(Netlab::new(3, 20)) else { return };
        let name = lab.name.clone();
        assert_eq!(left(&name).len(), 4);
        let listed = lab.command(2, Command::new("ip").args(["-o", "-4", "addr", "show", "dev", "eth0"]));
        let listed = Process::start(listed).wait(Duration::from_secs(10));
        assert!(listed.stdout.contains("10.77.0.3/16"), "{listed:?}");
        let failed = panic::catch_unwind(move || {
            assert_eq!(lab.nodes(), 2, "on purpose");
        });
        assert!(failed.is_err());
        assert_eq!(left(&name), [""; 0]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let Some(lab) = need(Netlab::new(0, 20)) else { return };
        // No process has this number: it is over the kernel's limit.
        let name = format!("{PREFIX}4999999-0");
        lab.ip(&["netns", "add", &format!("{name}-switch")]).unwrap();
        let next = Netlab::new(0, 20).unwrap();
        assert_eq!(left(&name), [""; 0]);
        assert_eq!((left(&lab.name).len(), left(&next.name).len()), (1, 1));
    }
}
