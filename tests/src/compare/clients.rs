//! What runs at a node of each way, from its start until the disk can be read.
//!
//! *Invariants*: a node's programs keep their files in its own folder; nothing of an earlier run is there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::run::Stage;
use super::servers::{SWARM_PORT, Served};
use super::session::Failure;
use super::torrents::Torrent;
use super::ways::Way;
use crate::fixture::text;
use crate::process::Process;

/// rqbit's HTTP interface, inside the node's namespace.
const RQBIT: &str = "127.0.0.1:3030";
/// How long a read may wait for it.
const RQBIT_SECONDS: u32 = 3600;
/// aria2 runs it when all is there, before it goes on as a seed.
const DONE_HOOK: &str = "#!/bin/sh\n: > \"$SWARMDISK_DONE\"\n";

/// A disk that can be read.
#[derive(Debug)]
pub struct Disk {
    /// As `swarmdisk replay --disk` wants it.
    pub target: String,
    /// Whether it is reached from within the node's namespace alone.
    pub is_inside: bool,
}

impl Disk {
    fn file(path: &Path) -> Self {
        Self { target: text(path), is_inside: false }
    }

    fn socket(path: &Path) -> Self {
        Self { target: format!("nbd+unix:///?socket={}", text(path)), is_inside: false }
    }
}

/// Starts what a node needs, and waits until its disk can be read.
///
/// # Errors
/// When that does not come to pass.
pub fn open(stage: &Stage<'_>, node: usize, work: &Path, served: &Served) -> Result<Disk, Failure> {
    match (stage.way, served) {
        (Way::Nbd, Served::Nbd(uri)) => Ok(Disk { target: uri.clone(), is_inside: true }),
        (Way::NbdCache, Served::Nbd(uri)) => {
            nbdkit(stage, node, work, &["--filter=cache", "nbd", uri, "cache-on-read=true"])
        }
        (Way::NbdReadahead, Served::Nbd(uri)) => {
            nbdkit(stage, node, work, &["--filter=readahead", "--filter=cache", "nbd", uri, "cache-on-read=true"])
        }
        (Way::Aria2Raw | Way::Aria2Qcow2, Served::Torrent(torrent)) => aria2(stage, node, work, torrent),
        (Way::LibtorrentQcow2, Served::Torrent(torrent)) => libtorrent(stage, node, work, torrent),
        (Way::Btfs, Served::Torrent(torrent)) => btfs(stage, node, work, torrent),
        (Way::NbdkitTorrent, Served::Torrent(torrent)) => {
            let disk = nbdkit(stage, node, work, &["torrent", &text(&torrent.path)])?;
            // It greets nobody before it has peers, which may be later than a replay waits; QEMU does wait.
            qemu_nbd(stage, node, work, &["--format=raw", &disk.target])
        }
        (Way::Rqbit, Served::Torrent(torrent)) => rqbit(stage, node, work, torrent),
        (_, Served::Swarm(reference)) => swarm(stage, node, work, reference),
        _ => Ok(Disk::file(&stage.subject.raw)),
    }
}

fn nbdkit(stage: &Stage<'_>, node: usize, work: &Path, arguments: &[&str]) -> Result<Disk, Failure> {
    let (socket, pid) = (work.join("nbd.sock"), work.join("nbdkit.pid"));
    let mut command = own(Command::new(stage.tools.find("nbdkit")?), work);
    command.args(["-f", "-r", "-U"]).arg(&socket).arg("-P").arg(&pid).args(arguments);
    let mut server = stage.start(node, command);
    stage.span.file(&mut server, &pid)?;
    stage.session.keep(server);
    Ok(Disk::socket(&socket))
}

fn aria2(stage: &Stage<'_>, node: usize, work: &Path, torrent: &Torrent) -> Result<Disk, Failure> {
    let (hook, done) = (work.join("done.sh"), work.join("done"));
    fs::write(&hook, DONE_HOOK).map_err(Failure::file(&hook))?;
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).map_err(Failure::file(&hook))?;
    let mut command = own(Command::new(stage.tools.find("aria2c")?), work);
    // Not `prealloc`, the default, which writes the whole file before it begins.
    command.args(["--quiet=true", "--file-allocation=none", "--seed-ratio=0.0", "--dir"]).arg(work);
    command.arg("--on-bt-download-complete").arg(&hook).arg(&torrent.path).env("SWARMDISK_DONE", &done);
    let mut client = stage.start(node, command);
    stage.span.file(&mut client, &done)?;
    downloaded(stage, node, work, torrent, client)
}

fn libtorrent(stage: &Stage<'_>, node: usize, work: &Path, torrent: &Torrent) -> Result<Disk, Failure> {
    let command = torrent.libtorrent("download", work, work, stage.tools)?;
    let client = stage.start(node, own(command, work));
    stage.span.line(&client, "complete")?;
    downloaded(stage, node, work, torrent, client)
}

/// The disk in what was downloaded; the client goes on as a seed.
fn downloaded(
    stage: &Stage<'_>,
    node: usize,
    work: &Path,
    torrent: &Torrent,
    client: Process,
) -> Result<Disk, Failure> {
    stage.session.keep(client);
    let file = work.join(&torrent.name);
    if !stage.way.is_qcow2() {
        return Ok(Disk::file(&file));
    }
    qemu_nbd(stage, node, work, &["--format=qcow2", &text(&file)])
}

fn qemu_nbd(stage: &Stage<'_>, node: usize, work: &Path, arguments: &[&str]) -> Result<Disk, Failure> {
    let (socket, pid) = (work.join("qemu-nbd.sock"), work.join("qemu-nbd.pid"));
    let mut command = own(Command::new(stage.tools.find("qemu-nbd")?), work);
    command.args(["--read-only", "--persistent", "--socket"]).arg(&socket).arg("--pid-file").arg(&pid).args(arguments);
    let mut server = stage.start(node, command);
    stage.span.file(&mut server, &pid)?;
    stage.session.keep(server);
    Ok(Disk::socket(&socket))
}

fn btfs(stage: &Stage<'_>, node: usize, work: &Path, torrent: &Torrent) -> Result<Disk, Failure> {
    let (mount, data) = (work.join("mount"), work.join("data"));
    for folder in [&mount, &data] {
        fs::create_dir(folder).map_err(Failure::file(folder))?;
    }
    let mut command = own(Command::new(stage.tools.find("btfs")?), work);
    command.args(["-f", &format!("--data-directory={}", text(&data))]).args([&torrent.path, &mount]);
    let client = stage.start(node, command);
    // It has a mount namespace of its own, which is seen through its process.
    let inside = Path::new("/proc").join(client.pid().to_string()).join("root");
    let file = inside.join(mount.strip_prefix("/").unwrap_or(&mount)).join(&torrent.name);
    // Kept first: should a call to the filesystem never return, the end of the session ends it.
    stage.session.keep(client);
    stage.span.wait_for(|| {
        let is_there = fs::metadata(&file).is_ok_and(|meta| meta.len() == torrent.bytes);
        Ok(is_there.then_some(()))
    })?;
    Ok(Disk::file(&file))
}

fn rqbit(stage: &Stage<'_>, node: usize, work: &Path, torrent: &Torrent) -> Result<Disk, Failure> {
    let mut command = own(Command::new(stage.tools.find("rqbit")?), work);
    command.args(["--http-api-listen-addr", RQBIT, "download", "-o"]).arg(work).arg(&torrent.path);
    stage.session.keep(stage.start(node, command));
    let url = format!("http://{RQBIT}/torrents/0/stream/0");
    let mut try_it = Command::new("sh");
    // It has a head of a torrent that it cannot read from yet.
    try_it.args(["-c", r#"until curl -sf -r 0-0 -o /dev/null "$0"; do sleep 0.02; done"#, &url]);
    stage.span.succeed(stage.net.command(node, &try_it))?;
    // Not nbdkit's curl plugin: it asks for a byte more than it wants, which rqbit refuses at the end of the file.
    // QEMU gives up after five seconds unless told otherwise.
    let options = format!("driver=raw,file.driver=http,file.url={url},file.timeout={RQBIT_SECONDS}");
    qemu_nbd(stage, node, work, &["--image-opts", &options])
}

fn swarm(stage: &Stage<'_>, node: usize, work: &Path, reference: &str) -> Result<Disk, Failure> {
    let (socket, cache, report) = (work.join("nbd.sock"), work.join("cache"), work.join("report.json"));
    let (nbd, listen) = (format!("unix:{}", text(&socket)), format!("{}:{SWARM_PORT}", stage.net.address(node)));
    let mut command = stage.subject.swarmdisk.command(["attach", reference, "--nbd", &nbd, "--listen", &listen]);
    command.arg("--open").arg("--cache").arg(&cache).arg("--report").arg(&report);
    match stage.way {
        Way::Off => command.args(["--prefetch", "off"]),
        Way::Live => command.args(["--prefetch", "live"]),
        _ => &mut command,
    };
    let client = stage.start(node, own(command, work));
    stage.span.line(&client, "ready ")?;
    stage.session.keep(client);
    Ok(Disk::socket(&socket))
}

/// Keeps what a program leaves behind in its node's folder.
fn own(mut command: Command, work: &Path) -> Command {
    command.env("HOME", work).env("TMPDIR", work).env_remove("XDG_CACHE_HOME").env_remove("XDG_DATA_HOME");
    command
}
