//! What runs at the server of each way: in the first namespace, behind the server's link, ready before the nodes start.

use std::process::Command;

use super::run::{SERVER, Stage};
use super::session::Failure;
use super::torrents::Torrent;
use super::ways::Way;
use crate::fixture::text;

/// NBD's own port.
const NBD_PORT: u16 = 10809;
/// Where swarms listen.
pub const SWARM_PORT: u16 = 7000;

/// What the nodes are told of the server.
#[derive(Debug, Clone)]
pub enum Served {
    /// There is none.
    Nothing,
    /// An NBD URI.
    Nbd(String),
    /// A torrent, with a tracker and a seed.
    Torrent(Torrent),
    /// A reference.
    Swarm(String),
}

/// Makes what has to be made, starts what has to run, and waits until it serves.
///
/// # Errors
/// When it does not.
pub fn start(stage: &Stage<'_>) -> Result<Served, Failure> {
    match stage.way {
        Way::Local => Ok(Served::Nothing),
        Way::Nbd | Way::NbdCache | Way::NbdReadahead => nbd(stage),
        Way::Off | Way::Profile | Way::Live => seed(stage),
        _ => torrent(stage),
    }
}

fn nbd(stage: &Stage<'_>) -> Result<Served, Failure> {
    let (address, pid) = (stage.net.address(SERVER).to_string(), stage.work.join("nbdkit.pid"));
    let mut command = Command::new(stage.tools.find("nbdkit")?);
    command.args(["-f", "-r", "-i", &address, "-p", &NBD_PORT.to_string(), "-P"]).arg(&pid).arg("file");
    command.arg(&stage.subject.raw);
    let mut server = stage.start(SERVER, command);
    stage.span.file(&mut server, &pid)?;
    stage.session.keep(server);
    Ok(Served::Nbd(format!("nbd://{address}:{NBD_PORT}")))
}

fn seed(stage: &Stage<'_>) -> Result<Served, Failure> {
    let subject = stage.subject;
    let listen = format!("{}:{SWARM_PORT}", stage.net.address(SERVER));
    let mut command = subject.swarmdisk.command(["seed", &text(&subject.swarm), "--listen", &listen, "--open"]);
    if stage.way == Way::Profile {
        command.arg("--profile").arg(&subject.profile);
    }
    let seed = stage.start(SERVER, command);
    let reference = stage.span.line(&seed, "swarm://")?;
    stage.session.keep(seed);
    Ok(Served::Swarm(reference))
}

fn torrent(stage: &Stage<'_>) -> Result<Served, Failure> {
    let Stage { subject, tools, span, way, .. } = *stage;
    let file = match way.is_qcow2() {
        true => subject.qcow2(&tools.find("qemu-img")?, &span)?,
        false => subject.raw.clone(),
    };
    let (address, piece_bytes) =
        (stage.net.address(SERVER), stage.piece_bytes.unwrap_or(super::ways::DOWNLOAD_PIECE_BYTES));
    let torrent = Torrent::of(&file, piece_bytes, address, subject, tools, &span)?;
    stage.session.keep(stage.start(SERVER, torrent.tracker(address, stage.work, tools)?));
    let seed = if way.is_aria2() {
        stage.start(SERVER, torrent.aria2_seed(tools)?)
    } else {
        let seed = stage.start(SERVER, torrent.libtorrent("seed", &torrent.folder, stage.work, tools)?);
        span.line(&seed, "complete")?;
        seed
    };
    stage.session.keep(seed);
    stage.until_announced(&torrent)?;
    Ok(Served::Torrent(torrent))
}
