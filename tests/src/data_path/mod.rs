//! What the data path costs beside programs that do the same without a swarm: each figure as a ratio within one run.
//!
//! *What it is*: in every round each contender is measured once, one after the other, so that whatever else the machine
//! does meets all alike; the ratio of each round is taken, and their median with the least and the greatest is shown.
//! *What is real*: every program, the kernel's sockets, the page cache, in which all images lie. *What is not*: the
//! image's contents, and the network, which is this machine's loopback.
//! *Needs*: what `tests/setup/peers.sh` installs, and `tests/setup/rublk.sh` builds; what is missing is said in the figure's place.
//!
//! | module | figures |
//! |---|---|
//! | [`nbd`] | reads of held chunks, against `qemu-nbd` and `nbdkit file` |
//! | [`iscsi`] | the same over iSCSI, against `tgtd` |
//! | [`guest`] | the same within a guest: ublk, against `rublk`; vhost-user, against NBD |
//! | [`fetch`] | a whole image from one peer and from two, against iperf3, aria2 and libtorrent |
//! | [`latency`] | a demand miss, against a plain request and response |
//! | [`resources`] | memory, and what an idle node costs |

pub mod fetch;
pub mod figure;
pub mod guest;
pub mod iscsi;
pub mod latency;
pub mod nbd;
pub mod process_costs;
pub mod resources;
pub mod subject;
pub mod torrents;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::compare::session::{Failure, Span};
use crate::process::Swarmdisk;
use figure::{Figure, Report};
use subject::Subject;

/// How long one group of figures may take.
const GROUP_DEADLINE: Duration = Duration::from_secs(1200);

/// How much is measured.
#[derive(Debug, Copy, Clone)]
pub struct Setup {
    /// Each contender is measured so often.
    pub rounds: usize,
    /// Small and short: shows that the benchmark works, and nothing of the figures.
    pub is_quick: bool,
}

/// A group of figures.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Group {
    /// Reads of held chunks.
    Nbd,
    /// The same over iSCSI.
    Iscsi,
    /// The same of a ublk device within a guest.
    Ublk,
    /// The same over vhost-user within a guest.
    VhostUser,
    /// Whole images fetched.
    Fetch,
    /// Demand misses.
    Latency,
    /// Resident memory.
    Memory,
    /// An idle node.
    Idle,
}

impl Group {
    /// All, in the order of the table.
    pub const ALL: [Self; 8] =
        [Self::Nbd, Self::Iscsi, Self::Ublk, Self::VhostUser, Self::Fetch, Self::Latency, Self::Memory, Self::Idle];

    /// On the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nbd => "nbd",
            Self::Iscsi => "iscsi",
            Self::Ublk => "ublk",
            Self::VhostUser => "vhost-user",
            Self::Fetch => "fetch",
            Self::Latency => "latency",
            Self::Memory => "memory",
            Self::Idle => "idle",
        }
    }

    fn measure(self, bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
        match self {
            Self::Nbd => nbd::measure(bench),
            Self::Iscsi => iscsi::measure(bench),
            Self::Ublk => guest::ublk(bench),
            Self::VhostUser => guest::vhost_user(bench),
            Self::Fetch => fetch::measure(bench),
            Self::Latency => latency::measure(bench),
            Self::Memory => resources::memory(bench),
            Self::Idle => resources::idle(bench),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|group| group.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text} is no group of figures; there are {names}")
        })
    }
}

/// What all groups share.
pub struct Bench<'a> {
    /// How much is measured.
    pub setup: Setup,
    /// The command.
    pub swarmdisk: Swarmdisk,
    /// The images.
    pub subject: Subject,
    /// Until when.
    pub span: Span<'a>,
    /// Hears of progress.
    pub told: &'a dyn Fn(&str),
}

impl Bench<'_> {
    /// So many in a full run, or else so many.
    pub fn full_or<T>(&self, full: T, quick: T) -> T {
        if self.setup.is_quick { quick } else { full }
    }
}

/// Measures these groups.
///
/// # Errors
/// When someone asked to end, or an image cannot be made. What goes wrong in a group is said in its place.
pub fn measure(groups: &[Group], setup: Setup, cancel: &AtomicBool, told: &dyn Fn(&str)) -> Result<Report, Failure> {
    let span = Span::new(GROUP_DEADLINE, cancel);
    told("making an image");
    let swarmdisk = Swarmdisk::find();
    let subject = Subject::make(&swarmdisk, setup.is_quick, &span)?;
    let mut bench = Bench { setup, swarmdisk, subject, span, told };
    let mut report = Report::default();
    for group in groups {
        told(&format!("measuring: {group}"));
        bench.span = span.within(GROUP_DEADLINE);
        match group.measure(&bench) {
            Ok(figures) => report.figures.extend(figures),
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => report.failures.push((*group, failure)),
        }
    }
    Ok(report)
}
