//! One run of one way: a fresh network, a server, nodes that boot, and what they cost.
//!
//! *Invariants*: all that was started has ended, and the network and the files are gone, when [`run`] returns, in whatever way.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use swarmdisk_host::replay::ReplayReport;

use super::Setup;
use super::clients::{Disk, open};
use super::outcome::{NodeOutcome, RunOutcome};
use super::servers::{self, Served};
use super::session::{Failure, Session, Span};
use super::subject::Subject;
use super::torrents::Torrent;
use super::ways::{Tools, Way};
use crate::fixture::text;
use crate::images::folder;
use crate::netlab::Netlab;
use crate::process::Process;
use crate::reality::Busy;

/// The server's place in the network.
pub const SERVER: usize = 0;
/// What making torrents and starting servers may take.
const SETUP_BOUND: Duration = Duration::from_secs(600);
/// What a seed may take until the tracker knows it.
const ANNOUNCE_BOUND: Duration = Duration::from_secs(60);
/// What nodes may take to notice that their time is over.
const GRACE: Duration = Duration::from_secs(10);

/// Where a way is run.
pub struct Stage<'a> {
    /// What is run.
    pub way: Way,
    /// Size of its torrent's pieces.
    pub piece_bytes: Option<u32>,
    /// What is booted.
    pub subject: &'a Subject,
    /// How.
    pub setup: &'a Setup,
    /// Programs of others.
    pub tools: &'a Tools,
    /// The network.
    pub net: &'a Netlab,
    /// A folder that goes with the run.
    pub work: &'a Path,
    /// What runs.
    pub session: &'a Session,
    /// How long it may take.
    pub span: Span<'a>,
}

impl Stage<'_> {
    /// Starts a command in a node's namespace, and notes how, of the server and the first node.
    pub fn start(&self, node: usize, command: Command) -> Process {
        if node <= 1 {
            self.note(if node == SERVER { "server" } else { "node" }, &command);
        }
        Process::start(self.net.command(node, &command))
    }

    /// Waits until the tracker knows the seed.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn until_announced(&self, torrent: &Torrent) -> Result<(), Failure> {
        let hash: String =
            torrent.hash.as_bytes().chunks(2).flat_map(|pair| [b'%', pair[0], pair[1]]).map(char::from).collect();
        let scrape =
            format!("http://{}:{}/scrape?info_hash={hash}", self.net.address(SERVER), super::torrents::TRACKER_PORT);
        let mut ask = Command::new("curl");
        ask.args(["-s", "--max-time", "5", &scrape]);
        let ask = self.net.command(SERVER, &ask);
        let span = self.span.within(ANNOUNCE_BOUND);
        let known = span.wait_for(|| {
            let said = span.succeed(again(&ask)).unwrap_or_default();
            Ok(said.contains("8:completei1e").then_some(()))
        });
        known.map_err(|failure| match failure {
            Failure::Late(_) => Failure::Program {
                program: "opentracker".into(),
                said: format!("no seed has announced itself within {} s", ANNOUNCE_BOUND.as_secs()),
            },
            other => other,
        })
    }

    fn note(&self, at: &str, command: &Command) {
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let words = [program].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy().into_owned());
        let line = words.collect::<Vec<_>>().join(" ");
        let own = [&self.subject.raw, &self.subject.trace].map(|file| file.parent().unwrap_or(self.work));
        let folders = [self.work, &self.subject.folder, own[0], own[1]];
        let line = folders.iter().fold(line, |line, folder| line.replace(&format!("{}/", folder.display()), ""));
        self.session.note(format!("{at}: {line}"));
    }
}

/// Runs a way once.
///
/// # Errors
/// When a node's boot fails, or nobody waits for it any more; that it takes too long is a result.
pub fn run(
    way: Way,
    piece_bytes: Option<u32>,
    subject: &Subject,
    setup: &Setup,
    tools: &Tools,
    bound: Duration,
    cancel: &AtomicBool,
) -> Result<RunOutcome, Failure> {
    let work = folder();
    let net = Netlab::new(setup.nodes + 1, setup.link_mbit)?;
    let session = Session::default();
    let span = Span::new(SETUP_BOUND, cancel);
    let stage =
        Stage { way, piece_bytes, subject, setup, tools, net: &net, work: work.path(), session: &session, span };
    let served = servers::start(&stage)?;
    let last_start = setup.stagger * setup.nodes.saturating_sub(1) as u32;
    let stage = Stage { span: Span::new(bound + last_start, cancel), ..stage };
    let (before, busy) = (net.carried(SERVER), Busy::begin());
    let nodes = boot_all(&stage, &served);
    let (busy, server) = (busy.share(), net.carried(SERVER));
    let nodes = nodes.map_err(|failure| match failure {
        Failure::Program { program, said } => Failure::Program { program, said: said + &session.complaints() },
        other => other,
    });
    session.end();
    let nodes = nodes?;
    let drops = (0..=setup.nodes).map(|node| net.carried(node).drops).sum();
    Ok(RunOutcome {
        bound_micros: bound.as_micros() as u64,
        nodes,
        server_sent_bytes: server.up_bytes - before.up_bytes,
        busy,
        drops,
        started: session.started(),
    })
}

/// Boots all nodes, each in its time; none for one whose time was over.
fn boot_all(stage: &Stage<'_>, served: &Served) -> Result<Vec<Option<NodeOutcome>>, Failure> {
    let all = Barrier::new(stage.setup.nodes);
    thread::scope(|scope| {
        let boot = |node: usize| {
            let all = &all;
            scope.spawn(move || {
                let work = stage.work.join(format!("{node}"));
                let made = fs::create_dir(&work).map_err(Failure::file(&work));
                all.wait();
                made?;
                thread::sleep(stage.setup.stagger * (node - 1) as u32);
                boot_one(stage, node, &work, served).map_err(|failure| stage.span.why(failure))
            })
        };
        let booting: Vec<_> = (1..=stage.setup.nodes).map(boot).collect();
        while !booting.iter().all(thread::ScopedJoinHandle::is_finished) {
            // A node may hang in a filesystem that another process serves: it goes on when that is gone.
            if stage.span.is_over_by(GRACE) {
                stage.session.end();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let ended = booting.into_iter().map(|node| node.join().expect("its panic has been shown"));
        ended
            .map(|node| match node {
                Ok(outcome) => Ok(Some(outcome)),
                Err(Failure::Late(_)) => Ok(None),
                Err(failure) => Err(failure),
            })
            .collect()
    })
}

fn boot_one(stage: &Stage<'_>, node: usize, work: &Path, served: &Served) -> Result<NodeOutcome, Failure> {
    let began = Instant::now();
    let disk = open(stage, node, work, served)?;
    let ready = began.elapsed();
    let replay = replay(stage, node, &disk)?;
    let took = began.elapsed();
    Ok(NodeOutcome {
        ready_micros: ready.as_micros() as u64,
        start_to_last_micros: took.as_micros() as u64,
        ideal_micros: replay.ideal_micros,
        reads: replay.reads,
        mismatches: replay.mismatches,
    })
}

fn replay(stage: &Stage<'_>, node: usize, disk: &Disk) -> Result<ReplayReport, Failure> {
    let subject = stage.subject;
    let [trace, raw] = [&subject.trace, &subject.raw].map(|path| text(path));
    let speed = stage.setup.think_divisor.to_string();
    let words = ["replay", &trace, "--disk", &disk.target, "--speed", &speed, "--verify", &raw, "--json"];
    let command = subject.swarmdisk.command(words);
    let process = match disk.is_inside {
        true => stage.start(node, command),
        false => Process::start(command),
    };
    let program = process.name().to_owned();
    let ended = stage.span.end(process).map_err(|(failure, process)| {
        // It may hang in a read until the disk is gone.
        stage.session.keep(*process);
        failure
    })?;
    let report = serde_json::from_str::<ReplayReport>(&ended.stdout);
    match report {
        Ok(report) if report.mismatches > 0 => Err(Failure::Mismatches(report.mismatches)),
        Ok(report) => Ok(report),
        Err(_) => Err(Failure::Program { program, said: ended.stderr.trim().to_owned() }),
    }
}

/// The same command once more.
fn again(command: &Command) -> Command {
    let mut same = Command::new(command.get_program());
    same.args(command.get_args()).stdin(std::process::Stdio::null());
    same
}
