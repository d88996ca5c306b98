//! Swarmdisk beside what people would pick instead: one boot, one image, the same links, one table.
//!
//! *What is real*: every program, at its own defaults but for what is printed with the table; the kernel's TCP; the reads
//! of a recorded boot, each compared with the image. *What is not*: the links (see [`crate::netlab`]: no delay but that of
//! queues), and the guest (a replay, its think time divided). *Invariants*: a node's run counts from the start of its first
//! process to the guest's last answer; its cache is empty; whatever it started is ended by its id; what is missing is told
//! with what to install, never left out in silence. *Units*: microseconds; bytes of Ethernet frames on links, of chunks'
//! payloads in working sets. *Bounds*: [`Setup::bound`] for each way and run, [`NODES_MAX`] nodes.
//!
//! [`ways`] says what there is, [`subject`] what is booted, [`servers`] and [`clients`] start what a way needs, [`run`]
//! measures one, [`outcome`] and [`report`] say what came of it, [`plot`] draws it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::netlab::Netlab;
use crate::skip::Missing;

pub mod clients;
pub mod outcome;
pub mod plot;
pub mod report;
pub mod run;
pub mod servers;
pub mod session;
pub mod subject;
pub mod torrents;
pub mod ways;

use outcome::{Comparison, Row, State};
use session::Failure;
use subject::Subject;
use ways::{Tools, Way};

/// Most nodes of a comparison.
pub const NODES_MAX: usize = 64;

/// What is compared, and on which links.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// Nodes, without the server.
    pub nodes: usize,
    /// Rate of each link both ways, the server's too, in Mbit/s of Ethernet frames.
    pub link_mbit: u32,
    /// Each node starts so long after the one before.
    #[serde(rename = "stagger_micros", serialize_with = "micros")]
    pub stagger: Duration,
    /// The recorded think time is divided by this.
    pub think_divisor: f64,
    /// How often each way is run.
    pub runs: usize,
    /// A way that takes longer is stopped.
    #[serde(rename = "bound_micros", serialize_with = "micros")]
    pub bound: Duration,
    /// Sizes of pieces that on-demand BitTorrent is tried with, in bytes; powers of two.
    pub piece_bytes: Vec<u32>,
    /// What is run, in this order.
    pub ways: Vec<Way>,
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_micros() as u64)
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 8,
            link_mbit: 100,
            stagger: Duration::ZERO,
            think_divisor: 10.0,
            runs: 1,
            bound: Duration::from_secs(300),
            piece_bytes: vec![64 << 10, 256 << 10, 1 << 20],
            ways: Way::ALL.to_vec(),
        }
    }
}

/// Whether such networks can be made here.
///
/// # Errors
/// What is missing.
pub fn check(setup: &Setup) -> Result<(), Missing> {
    Netlab::new(1, setup.link_mbit).map(drop)
}

/// Runs all ways, one after the other; `told` hears of each step. Set `cancel`, and it ends soon.
///
/// # Errors
/// [`Failure::Interrupted`]; what else fails is in the way's row.
pub fn compare(
    subject: &Subject,
    setup: &Setup,
    cancel: &AtomicBool,
    told: &dyn Fn(&str),
) -> Result<Comparison, Failure> {
    let tools = Tools::new(&subject.swarmdisk);
    let mut rows: Vec<Row> = Vec::new();
    for &way in &setup.ways {
        for piece_bytes in pieces(way, setup) {
            let mut row = Row::new(way, piece_bytes);
            told(&row.title());
            measure(&mut row, &rows, subject, setup, &tools, cancel)?;
            told(&format!("{}: {}", row.title(), row.summary()));
            rows.push(row);
        }
    }
    Ok(Comparison::new(subject, setup, rows))
}

/// Which pieces a way is tried with; none where it has none.
fn pieces(way: Way, setup: &Setup) -> Vec<Option<u32>> {
    if way.is_torrent_on_demand() {
        setup.piece_bytes.iter().map(|&bytes| Some(bytes)).collect()
    } else if way.is_torrent_download() {
        vec![Some(ways::DOWNLOAD_PIECE_BYTES)]
    } else {
        vec![None]
    }
}

fn measure(
    row: &mut Row,
    before: &[Row],
    subject: &Subject,
    setup: &Setup,
    tools: &Tools,
    cancel: &AtomicBool,
) -> Result<(), Failure> {
    if let Err(missing) = tools.check(row.way).and_then(|()| subject.check_room(row.way, setup)) {
        row.state = State::Missing(missing.to_string());
        return Ok(());
    }
    for _ in 0..setup.runs {
        // Only the best size of pieces counts: the others need not take longer than it.
        let best = before.iter().filter(|other| other.way == row.way).filter_map(Row::slowest_micros).min();
        let bound = best.map_or(setup.bound, |micros| Duration::from_micros(micros).min(setup.bound));
        match run::run(row.way, row.piece_bytes, subject, setup, tools, bound, cancel) {
            Ok(run) => row.add(run),
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(Failure::Missing(missing)) => row.state = State::Missing(missing.to_string()),
            Err(failure) => row.state = State::Failed(failure.to_string()),
        }
        if !matches!(row.state, State::Measured) {
            break;
        }
    }
    Ok(())
}
