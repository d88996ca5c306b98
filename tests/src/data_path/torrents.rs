//! What a fetch is measured with: BitTorrent seeds and clients that find each other through a tracker of this module, and a
//! node's status.
//!
//! *Real parts*: aria2 and libtorrent (by its Python module), both as seed and as client, `mktorrent`. *What is not*: the
//! tracker, which names the seed to whoever asks, so that nobody waits for an introduction.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use swarmdisk_host::status::Status;

use super::Bench;
use crate::compare::session::Failure;
use crate::skip::{Missing, find_peer};

/// Where the seed is: loopback has many addresses, and clients keep to one link for each.
pub const SEED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Where the client is.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Debian's own: `python3-libtorrent` is for no other.
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("../torrent.py");
/// Runs aria2, says when it is done, and stays so that what it cost can be asked for. Should the shell be killed, aria2 ends.
const THEN_STAY: &str = r#""$@" --stop-with-process=$$ >&2 && echo complete && exec sleep 600"#;

/// A BitTorrent program.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Client {
    /// `aria2c`.
    Aria2,
    /// libtorrent-rasterbar.
    Libtorrent,
}

impl Client {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aria2 => "aria2",
            Self::Libtorrent => "libtorrent",
        }
    }

    fn program(self) -> Result<PathBuf, Missing> {
        match self {
            Self::Aria2 => find_peer("aria2c", "aria2"),
            Self::Libtorrent => find_libtorrent(),
        }
    }
}

fn find_libtorrent() -> Result<PathBuf, Missing> {
    let found = Command::new(PYTHON).args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(PYTHON.into());
    }
    Err(Missing {
        what: "no libtorrent for Python".into(),
        remedy: "apt-get install python3-libtorrent, or run tests/setup/peers.sh".into(),
    })
}

/// A torrent of one file.
#[derive(Debug, Clone)]
pub struct Torrent {
    path: PathBuf,
    folder: PathBuf,
    client: Client,
    seed: SocketAddrV4,
}

impl Torrent {
    /// Makes it, and starts its tracker, which runs as long as this process.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn of(file: &Path, client: Client, bench: &Bench<'_>) -> Result<Self, Failure> {
        let seed = free_address(SEED)?;
        let tracker = start_tracker(seed).map_err(Failure::file(file))?;
        let path = bench.subject.path(&format!("{}.torrent", client.name()));
        let mut command = Command::new(find_peer("mktorrent", "mktorrent")?);
        // Pieces of 1 MiB: fewer and larger ones cost less.
        command.args(["-l", "20", "-a", &format!("http://{tracker}/announce"), "-o"]).args([&path, file]);
        bench.span.succeed(command)?;
        Ok(Self { path, folder: file.parent().unwrap_or(Path::new("/")).to_owned(), client, seed })
    }

    /// The seed, which takes the file for whole without looking.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn seed(&self, bench: &Bench<'_>) -> Result<Command, Failure> {
        let mut command = Command::new(self.client.program()?);
        match self.client {
            Client::Aria2 => {
                command.args(["--quiet=true", "--seed-ratio=0.0", "--bt-seed-unverified=true"]);
                self.aria2(&mut command, &self.folder, self.seed);
            }
            Client::Libtorrent => self.libtorrent(&mut command, "seed", &self.folder, self.seed, bench)?,
        }
        Ok(command)
    }

    /// Downloads the file into a folder; says `complete` then, and stays.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn download(&self, folder: &Path, bench: &Bench<'_>) -> Result<Command, Failure> {
        let program = self.client.program()?;
        // A new one each time: that of a client that has just ended cannot be had for a minute.
        let own = free_address(CLIENT)?;
        match self.client {
            Client::Aria2 => {
                let mut command = Command::new("sh");
                command.args(["-c", THEN_STAY, "sh"]).arg(program);
                command.args(["--quiet=true", "--seed-time=0", "--file-allocation=none"]);
                self.aria2(&mut command, folder, own);
                Ok(command)
            }
            Client::Libtorrent => {
                let mut command = Command::new(program);
                self.libtorrent(&mut command, "download", folder, own, bench)?;
                Ok(command)
            }
        }
    }

    /// Where the seed can be reached.
    pub fn seed_address(&self) -> SocketAddrV4 {
        self.seed
    }

    fn aria2(&self, command: &mut Command, folder: &Path, own: SocketAddrV4) {
        command.args(["--enable-dht=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false"]);
        command.args([format!("--listen-port={}", own.port()), format!("--interface={}", own.ip())]);
        command.arg("--dir").arg(folder).arg(&self.path).stdin(Stdio::null());
    }

    fn libtorrent(
        &self,
        command: &mut Command,
        job: &str,
        folder: &Path,
        own: SocketAddrV4,
        bench: &Bench<'_>,
    ) -> Result<(), Failure> {
        let script = bench.subject.path("torrent.py");
        fs::write(&script, SCRIPT).map_err(Failure::file(&script))?;
        command.arg(script).arg(job).arg(&self.path).arg(folder).args([own.to_string(), self.seed.to_string()]);
        command.stdin(Stdio::null());
        Ok(())
    }
}

/// One where nobody listens.
fn free_address(ip: Ipv4Addr) -> Result<SocketAddrV4, Failure> {
    let free = TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr());
    let port = free.map_err(Failure::file(ip.to_string().as_ref()))?.port();
    Ok(SocketAddrV4::new(ip, port))
}

/// A tracker that knows one peer (BEP 3, compact as in BEP 23).
fn start_tracker(peer: SocketAddrV4) -> std::io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut body = b"d8:intervali1800e5:peers6:".to_vec();
    body.extend(peer.ip().octets());
    body.extend(peer.port().to_be_bytes());
    body.push(b'e');
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who asks in any other way than a client does gets no answer.
            let _ = announce(stream, &answer);
        }
    });
    Ok(address)
}

fn announce(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let (mut asked, mut some) = (Vec::<u8>::new(), [0; 2048]);
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") && asked.len() < 1 << 16 {
        let count = stream.read(&mut some)?;
        if count == 0 {
            return Ok(());
        }
        asked.extend(&some[..count]);
    }
    stream.write_all(answer)
}

/// What a node whose runtime directory is the subject's folder says of itself; nothing if it does not answer.
pub fn status(bench: &Bench<'_>, pid: u32) -> Option<Status> {
    let mut stream = UnixStream::connect(bench.subject.path("swarmdisk").join(format!("{pid}.sock"))).ok()?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    serde_json::from_slice(&answer[body..]).ok()
}
