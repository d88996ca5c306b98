//! The four ways to give a boot its disk, each with all nodes at once.
//!
//! *Purpose*: measure the same recorded boot on each. *Invariants*: time counts from when the first node is told to start
//! until its boot's last read is answered, and takes in all that has to happen before its first read; every byte read is
//! compared with the raw image. *Units*: microseconds, bytes on the wire without those of TCP.

use super::family::Family;
use super::image::DemoImage;
use super::links::{Link, Route};
use crate::cli::Failure;
use crate::disk::FileDisk;
use crate::nbd::{NbdListen, NbdServer, ServerConfig};
use crate::replay::{ReplayOptions, ReplayReport, replay_target};
use crate::report::AttachReport;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use swarmdisk_common::trace::Trace;
use swarmdisk_core::ids::Digest;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is measured, and with what.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub nodes: u16,
    pub link_bytes_per_sec: u64,
    pub speed: f64,
    pub trace: Arc<Trace>,
    pub image: DemoImage,
    pub folder: PathBuf,
}

/// What one way cost.
#[derive(Debug, Clone)]
pub(super) struct WayReport {
    /// Each node, from the start until its boot was over.
    pub node_micros: Vec<u64>,
    /// The replays.
    pub replays: Vec<ReplayReport>,
    /// What the server or seed has sent; none if it could not be learnt.
    pub server_sent_bytes: Option<u64>,
    /// What the nodes have sent each other.
    pub peer_sent_bytes: u64,
}

/// When its boot was over, and its replay.
type Booted = (u64, ReplayReport);

impl Setting {
    /// Replays the boot against a disk.
    async fn boot(&self, target: &str, began: Instant) -> Result<Booted, Failure> {
        let options = ReplayOptions { speed: self.speed, writes: false, verify: Some(self.image.raw.clone()) };
        let report = replay_target(&self.trace, target, &options).await?;
        Ok((began.elapsed().as_micros() as u64, report))
    }

    fn raw(&self) -> String {
        self.image.raw.display().to_string()
    }
}

/// Each node has the whole image on its own disk.
pub(super) async fn local(setting: &Setting) -> Result<WayReport, Failure> {
    let began = Instant::now();
    let boots = (0..setting.nodes).map(|_| {
        let setting = setting.clone();
        async move { setting.boot(&setting.raw(), began).await }
    });
    Ok(WayReport::new(all(boots).await?, Some(0), 0))
}

/// Each node reads on demand from one server.
pub(super) async fn one_server(setting: &Setting) -> Result<WayReport, Failure> {
    let disk = Arc::new(FileDisk::open(&setting.image.raw)?);
    let listen = NbdListen::Tcp { host: "127.0.0.1".into(), port: 0 };
    let server = NbdServer::bind(&listen, disk, ServerConfig::default()).await?;
    let NbdListen::Tcp { host, port } = server.uri().server.clone() else {
        return Err(Failure::new("the server listens elsewhere than asked"));
    };
    let address: SocketAddr = format!("{host}:{port}").parse()?;
    // Aborted when this is over, it ends its connections.
    let mut serving = JoinSet::new();
    serving.spawn(server.run(std::future::pending()));
    let link = Link::new(setting.link_bytes_per_sec);
    let routes = routes(setting, address, &link).await?;
    let began = Instant::now();
    let boots = routes.into_iter().map(|route| {
        let setting = setting.clone();
        async move { setting.boot(&format!("nbd://{}", route.address()), began).await }
    });
    Ok(WayReport::new(all(boots).await?, Some(link.sent_bytes()), 0))
}

/// Each node downloads the packed image from one server, and boots from its copy.
pub(super) async fn download_first(setting: &Setting) -> Result<WayReport, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut serving = JoinSet::new();
    serving.spawn(serve_file(listener, setting.image.swarm.clone()));
    let link = Link::new(setting.link_bytes_per_sec);
    let routes = routes(setting, address, &link).await?;
    let began = Instant::now();
    let boots = routes.into_iter().map(|route| {
        let setting = setting.clone();
        async move {
            if download(route.address()).await? != setting.image.swarm_digest {
                return Err(Failure::new("a download differs from what the server has; report this as a bug"));
            }
            // Writing and unpacking the copy would cost more time: that is left out, to this way's favour.
            setting.boot(&setting.raw(), began).await
        }
    });
    Ok(WayReport::new(all(boots).await?, Some(link.sent_bytes()), 0))
}

/// A seed and the nodes, as processes of their own, share the image.
pub(super) async fn swarm(setting: &Setting, family: &Arc<Family>) -> Result<WayReport, Failure> {
    let reference = start_seed(setting, family).await?;
    let began = Instant::now();
    let report_path = |node: u16| setting.folder.join(format!("node-{node}.json"));
    let starts = (1..=setting.nodes).map(|node| {
        let rate = rate(setting.link_bytes_per_sec);
        let text = |name: String| setting.folder.join(name).display().to_string();
        let args = ["attach", &reference, "--nbd", "127.0.0.1:0", "--limit-up", &rate, "--limit-down", &rate]
            .map(str::to_owned)
            .into_iter()
            .chain(["--cache".into(), text(format!("cache-{node}"))])
            .chain(["--report".into(), report_path(node).display().to_string()])
            .collect::<Vec<_>>();
        let log = setting.folder.join(format!("node-{node}.log"));
        let (setting, family) = (setting.clone(), family.clone());
        async move {
            let line = family.first_line(&args, &log).await?;
            let uri =
                line.strip_prefix("ready ").ok_or_else(|| Failure::new("a node did not say where its disk is"))?;
            setting.boot(uri, began).await
        }
    });
    let boots = all(starts).await?;
    // Asked to end, the nodes write their reports.
    family.end().await;
    let reports: Vec<Option<AttachReport>> = (1..=setting.nodes).map(|node| read_report(&report_path(node))).collect();
    // Too much rather than too little: of the nodes' other frames, some come from each other.
    let from_seed = |report: &AttachReport| report.fetched_bytes.origin + report.metadata_bytes;
    let sent = reports.iter().map(|report| report.as_ref().map(from_seed)).sum();
    let between_peers = reports.iter().flatten().map(|report| report.fetched_bytes.peers).sum();
    Ok(WayReport::new(boots, sent, between_peers))
}

impl WayReport {
    fn new(boots: Vec<Booted>, server_sent_bytes: Option<u64>, peer_sent_bytes: u64) -> Self {
        let (node_micros, replays) = boots.into_iter().unzip();
        Self { node_micros, replays, server_sent_bytes, peer_sent_bytes }
    }
}

async fn start_seed(setting: &Setting, family: &Family) -> Result<String, Failure> {
    let text = |path: &Path| path.display().to_string();
    let args = [
        "seed".into(),
        text(&setting.image.swarm),
        "--profile".into(),
        text(&setting.image.profile),
        "--limit-up".into(),
        rate(setting.link_bytes_per_sec),
    ];
    family.first_line(&args, &setting.folder.join("seed.log")).await
}

/// As `--limit-up` wants it.
pub(super) fn rate(bytes_per_sec: u64) -> String {
    format!("{bytes_per_sec}B")
}

/// A report that is not there was not written: the way in which this system ends processes leaves no time for it.
pub(super) fn read_report(path: &Path) -> Option<AttachReport> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

async fn routes(setting: &Setting, server: SocketAddr, link: &Arc<Link>) -> Result<Vec<Route>, Failure> {
    let mut routes = Vec::new();
    for _ in 0..setting.nodes {
        routes.push(Route::open(server, link.clone(), Link::new(setting.link_bytes_per_sec)).await?);
    }
    Ok(routes)
}

/// Serves a whole file to everyone who connects.
async fn serve_file(listener: TcpListener, path: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let path = path.clone();
        connections.spawn(async move {
            let file = tokio::fs::File::open(path).await?;
            tokio::io::copy_buf(&mut BufReader::with_capacity(1 << 18, file), &mut client).await
        });
    }
}

/// Downloads to the end; gives the hash of what came.
async fn download(from: SocketAddr) -> Result<Digest, Failure> {
    let mut stream = TcpStream::connect(from).await?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(Digest(*hasher.finalize().as_bytes())),
            bytes => hasher.update(&buffer[..bytes]),
        };
    }
}

/// Runs the nodes on all threads; the first failure ends the others.
async fn all<F>(boots: impl Iterator<Item = F>) -> Result<Vec<Booted>, Failure>
where
    F: Future<Output = Result<Booted, Failure>> + Send + 'static,
{
    let mut nodes: JoinSet<_> = boots.collect();
    let mut booted = Vec::new();
    while let Some(node) = nodes.join_next().await {
        booted.push(node??);
    }
    Ok(booted)
}
