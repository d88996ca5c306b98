//! What nodes decide by: the policies by name, and the engine's settings.

use super::{Rate, Size, Span};
use serde::{Deserialize, Serialize};

/// What guesses are made from, as `attach --prefetch` names it.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefetch {
    /// Nothing.
    Off,
    /// Sequential reads.
    Sequential,
    /// The profile.
    Profile,
    /// What other nodes' guests touch, and sequential reads.
    Live,
    /// All of these.
    Auto,
}

/// The order of prefetching.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// At random in a window, now and then the soonest.
    WindowedRandom,
    /// The soonest first.
    InOrder,
    /// What fewest nodes hold first, in a window.
    Rarest,
    /// Each chunk from a seed by its owner alone, from others otherwise.
    Owners,
}

/// What a seed does with a request for what it has sent before.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redirect {
    /// Names a node to ask instead.
    On,
    /// Sends it again.
    Off,
}

/// The choice of peers.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// Who is expected to deliver first.
    ExpectedCompletion,
    /// Anybody.
    Random,
}

/// Background fill.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// None.
    Off,
    /// Once much has been read, or a guest has been reading for `fill-after`.
    Auto,
}

/// All of a node's policies. Keys that are left out are as hosts have them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    /// What guesses are made from.
    pub prefetch: Prefetch,
    /// Their order.
    pub order: Order,
    /// Whether seeds redirect.
    pub redirect: Redirect,
    /// Whom to ask.
    pub selector: Selector,
    /// Entries of the profile, or chunks that other nodes' guests have touched, that are looked ahead; 0: as hosts do.
    pub window: u32,
    /// Of `windowed-random`: every n-th pick takes the soonest; 0: none does.
    pub soonest_every: u32,
    /// Chunks that a sequential reader is fetched ahead.
    pub ahead: u32,
    /// First touches that a node tells others of, at most.
    pub touches: u16,
    /// Background fill.
    pub fill: Fill,
    /// Background fill at this rate, from the start.
    pub fill_rate: Option<Rate>,
    /// Of `fill = "auto"`: how long after a guest's first read it begins at the latest.
    pub fill_after: Span,
    /// Whether nodes say where they stand, if there is more than one rack of them.
    pub locality: bool,
    /// Links that a node tries to have.
    pub links: u16,
    /// Links that it takes.
    pub links_max: u16,
    /// Requests that one peer may have waiting at it.
    pub requests_per_peer: u16,
    /// Fetches in flight, of all kinds.
    pub transfers: u16,
    /// Prefetches in flight.
    pub prefetches: u16,
    /// Prefetches asked of one node at a time.
    pub prefetches_per_peer: u16,
    /// Prefetches asked of one seed at a time.
    pub prefetches_per_seed: u16,
    /// Requests waiting at a node above which prefetches are answered Busy.
    pub queue: u16,
    /// How long changes of what is held are gathered.
    pub batch: Span,
    /// Least age at which a demand is asked of a second peer.
    pub hedge: Span,
    /// Age at which a fetch is given up.
    pub timeout: Span,
    /// How long a seed is left alone after it has redirected.
    pub patience: Span,
    /// Bytes that a node hands over before it waits for them to leave.
    pub unsent: Size,
}

impl Default for Policy {
    fn default() -> Self {
        let (tuning, limits) = (swarmdisk_core::engine::Tuning::DEFAULT, swarmdisk_core::engine::Limits::NODE);
        let span = |span: swarmdisk_core::time::Duration| Span::micros(span.as_micros());
        Self {
            prefetch: Prefetch::Auto,
            order: Order::Owners,
            redirect: Redirect::On,
            selector: Selector::ExpectedCompletion,
            window: 0,
            soonest_every: 2,
            ahead: 16,
            touches: limits.touches,
            fill: Fill::Off,
            fill_rate: None,
            fill_after: span(tuning.fill_after),
            locality: true,
            links: tuning.links,
            links_max: limits.peers,
            requests_per_peer: limits.requests_per_peer,
            transfers: limits.transfers,
            prefetches: tuning.prefetches,
            prefetches_per_peer: tuning.prefetches_per_peer,
            prefetches_per_seed: tuning.prefetches_per_seed,
            queue: tuning.queue,
            batch: span(tuning.batch),
            hedge: span(tuning.hedge),
            timeout: span(tuning.timeout),
            patience: span(tuning.patience),
            unsent: Size(4 << 20),
        }
    }
}
