//! A whole image fetched over loopback from one peer, verified and stored: from the start of the process until all is
//! there; against iperf3's single stream, aria2 and libtorrent, each from a seed of its own kind.
//!
//! *The file*: the image packed without compression, for all of them. *Raw speed by core*: bytes divided by the processor time
//! of both ends, since on few processors both ends share them; iperf3 neither hashes nor stores. *Units*: MiB, seconds.
//! *Others' settings*: their defaults, but pieces of 1 MiB, no search for peers, and no space allocated ahead.

use std::fs;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::Bench;
use super::figure::{Figure, Side, Target};
use super::process_costs::cpu_seconds;
use super::subject::{Codec, Packed};
use super::torrents::{Client, Torrent, status};
use crate::compare::session::{Failure, Session, Span};
use crate::fixture::text;
use crate::process::Process;
use crate::skip::find_peer;

const MIB: f64 = 1048576.0;
const GIB: f64 = 1024.0 * MIB;
/// Faster than any loopback.
const FILL: &str = "100GB";
const CLIENTS: [Client; 2] = [Client::Aria2, Client::Libtorrent];

/// What a transfer took.
#[derive(Debug, Copy, Clone)]
struct Took {
    bytes: f64,
    seconds: f64,
    /// Processor time of both ends.
    cpu: f64,
}

impl Took {
    fn mib_per_sec(self) -> f64 {
        self.bytes / MIB / self.seconds
    }

    fn mib_per_cpu_sec(self) -> f64 {
        self.bytes / MIB / self.cpu
    }

    fn cpu_per_gib(self) -> f64 {
        self.cpu / (self.bytes / GIB)
    }
}

/// Measures all of it.
///
/// # Errors
/// When a program is missing or fails, or a byte is wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let packed = bench.subject.packed(Codec::None);
    let session = Session::default();
    let seed = Process::start(bench.swarmdisk.command(["seed", &text(&packed.path), "--listen", "127.0.0.1:0"]));
    let reference = bench.span.line(&seed, "swarm://")?;
    let mut torrents = Vec::new();
    for client in CLIENTS {
        let torrent = Torrent::of(&packed.path, client, bench)?;
        let process = Process::start(torrent.seed(bench)?);
        reachable(&bench.span, torrent.seed_address())?;
        torrents.push((torrent, process.pid()));
        session.keep(process);
    }
    let mut figures = figures();
    // The first round brings the images into the page cache, and does not count.
    for round in 0..=bench.setup.rounds {
        (bench.told)(&format!("round {round} of {}", bench.setup.rounds));
        let plain = iperf3(bench, packed.bytes)?;
        let [one, two] = [1, 2].map(|nodes| swarm(bench, packed, &reference, seed.pid(), nodes));
        let (one, two) = (one?, two?);
        let others = torrents.iter().map(|(torrent, seed)| download(bench, packed, torrent, *seed));
        let others: Vec<Took> = others.collect::<Result<_, _>>()?;
        if round > 0 {
            add(&mut figures, plain, one, two, &others);
        }
    }
    Ok(figures)
}

fn figures() -> Vec<Figure> {
    let figure = |what: &str, unit, names: &[&'static str], target| Figure {
        what: format!("fetch, raw: {what}"),
        unit,
        ours: Vec::new(),
        others: names.iter().map(|name| Side { name, values: Vec::new() }).collect(),
        target,
    };
    let clients = CLIENTS.map(Client::name);
    vec![
        figure("one peer, by processor time of both ends", "MiB/CPU s", &["iperf3"], Target::AtLeast(0.6)),
        figure("one peer", "MiB/s", &clients, Target::AtLeast(2.0)),
        figure("processor time of both ends", "CPU s/GiB", &clients, Target::AtMost(0.5)),
        figure("two nodes from each other and a seed, in sum", "MiB/s", &["one node"], Target::AtLeast(1.0)),
    ]
}

fn add(figures: &mut [Figure], plain: Took, one: Took, two: Took, others: &[Took]) {
    let others = |of: fn(Took) -> f64| others.iter().copied().map(of).collect();
    let rows: [(f64, Vec<f64>); 4] = [
        (one.mib_per_cpu_sec(), vec![plain.mib_per_cpu_sec()]),
        (one.mib_per_sec(), others(Took::mib_per_sec)),
        (one.cpu_per_gib(), others(Took::cpu_per_gib)),
        (two.mib_per_sec(), vec![one.mib_per_sec()]),
    ];
    for (figure, (ours, values)) in figures.iter_mut().zip(rows) {
        figure.ours.push(ours);
        figure.others.iter_mut().zip(values).for_each(|(side, value)| side.values.push(value));
    }
}

/// Waits until somebody listens there.
fn reachable(span: &Span<'_>, address: SocketAddrV4) -> Result<(), Failure> {
    span.wait_for(|| Ok(TcpStream::connect(address).ok().map(drop)))
}

fn iperf3(bench: &Bench<'_>, bytes: u64) -> Result<Took, Failure> {
    let program = find_peer("iperf3", "iperf3")?;
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.map_err(Failure::file("127.0.0.1".as_ref()))?.port().to_string();
    let mut server = Command::new(&program);
    server.args(["--server", "--one-off", "--bind", "127.0.0.1", "--port", &port, "--forceflush"]);
    let server = Process::start(server);
    bench.span.line(&server, "listening")?;
    let mut client = Command::new(program);
    // Long enough for a tick of the processor's clock to be little.
    let bytes = (4 * bytes).to_string();
    client.args(["--client", "127.0.0.1", "--port", &port, "--bytes", &bytes, "--json"]);
    let said = bench.span.succeed(client)?;
    took_by_iperf3(&said).ok_or_else(|| Failure::Program { program: "iperf3".into(), said: "no figures".into() })
}

fn took_by_iperf3(said: &str) -> Option<Took> {
    let said: serde_json::Value = serde_json::from_str(said).ok()?;
    let (sum, busy) = (&said["end"]["sum_received"], &said["end"]["cpu_utilization_percent"]);
    let seconds = sum["seconds"].as_f64()?;
    let percent = busy["host_total"].as_f64()? + busy["remote_total"].as_f64()?;
    Some(Took { bytes: sum["bytes"].as_f64()?, seconds, cpu: percent / 100.0 * seconds })
}

/// So many nodes at once, each of which has nothing.
fn swarm(bench: &Bench<'_>, packed: &Packed, reference: &str, seed: u32, nodes: u64) -> Result<Took, Failure> {
    let cpu_before = cpu_seconds(seed)?;
    let start = Instant::now();
    let mut running = Vec::new();
    for node in 0..nodes {
        let [socket, cache] = ["sock", "cache"].map(|kind| text(&bench.subject.path(&format!("fetch-{node}.{kind}"))));
        let nbd = format!("unix:{socket}");
        let arguments = ["attach", reference, "--nbd", &nbd, "--cache", &cache, "--fill", FILL];
        let mut command = bench.swarmdisk.command(arguments);
        command.env("XDG_RUNTIME_DIR", bench.subject.path(""));
        running.push((Process::start(command), cache));
    }
    for (node, _) in &running {
        let complete = |image: &swarmdisk_host::status::ImageStatus| image.held_pieces == image.pieces;
        bench.span.wait_for(|| Ok(status(bench, node.pid()).filter(|all| all.images.iter().all(complete))))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut cpu = cpu_seconds(seed)? - cpu_before;
    for (node, cache) in running {
        cpu += cpu_seconds(node.pid())?;
        node.terminate();
        bench.span.end(node).map_err(|(failure, _)| failure)?;
        compare(&packed.path, &Path::new(&cache).join(format!("{}.swarm", packed.id)))?;
        fs::remove_dir_all(&cache).map_err(Failure::file(cache.as_ref()))?;
    }
    Ok(Took { bytes: (packed.bytes * nodes) as f64, seconds, cpu })
}

fn download(bench: &Bench<'_>, packed: &Packed, torrent: &Torrent, seed: u32) -> Result<Took, Failure> {
    let folder = bench.subject.path("download");
    fs::create_dir(&folder).map_err(Failure::file(&folder))?;
    let cpu_before = cpu_seconds(seed)?;
    let start = Instant::now();
    let client = Process::start(torrent.download(&folder, bench)?);
    bench.span.line(&client, "complete")?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds(seed)? - cpu_before + cpu_seconds(client.pid())?;
    drop(client);
    compare(&packed.path, &folder.join(packed.path.file_name().unwrap_or_default()))?;
    fs::remove_dir_all(&folder).map_err(Failure::file(&folder))?;
    Ok(Took { bytes: packed.bytes as f64, seconds, cpu })
}

/// Whether two files are equal; a complete cache is byte for byte the packed file.
fn compare(one: &Path, other: &Path) -> Result<(), Failure> {
    let read = |path: &Path| fs::read(path).map_err(Failure::file(path));
    if read(one)? == read(other)? { Ok(()) } else { Err(Failure::Mismatches(1)) }
}
