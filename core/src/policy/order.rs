//! Orders of prefetching.
//!
//! *Purpose*: nodes in lockstep that ask for the same chunk cannot trade; a diverse order makes each fetch something else
//! from the seed and the rest from each other. *Bounds*: O(window) questions to the supply.

use super::{Guess, Order, Supply};
use crate::geometry::ChunkIndex;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// VMTorrent's order: a random one of the window (CoNEXT 2012, section 4); the head of the window in order, since it is
/// about to be wanted.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct WindowedRandom {
    /// Every n-th pick takes the guess that is wanted soonest; 0: none does.
    pub soonest_every: u32,
}

impl Default for WindowedRandom {
    fn default() -> Self {
        Self { soonest_every: 2 }
    }
}

impl Order for WindowedRandom {
    fn pick(&mut self, _now: Instant, window: &[Guess], supply: &dyn Supply, rng: &mut Rng) -> Option<usize> {
        if window.is_empty() || !supply.has_room() {
            return None;
        }
        if self.soonest_every > 0 && rng.below(self.soonest_every) == 0 {
            return Some(0);
        }
        Some(rng.below(window.len() as u32) as usize)
    }
}

/// The soonest first. Right for a single node; in a swarm every node asks the seed for the same.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct InOrder;

impl Order for InOrder {
    fn pick(&mut self, _now: Instant, window: &[Guess], supply: &dyn Supply, _rng: &mut Rng) -> Option<usize> {
        (!window.is_empty() && supply.has_room()).then_some(0)
    }
}

/// The rarest of the window first, as BitTorrent does it: what fewest nodes hold, first of all what only seeds have; of those
/// that are alike a random one. If no seed can be asked, the rarest of what nodes hold.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Rarest;

impl Order for Rarest {
    fn pick(&mut self, _now: Instant, window: &[Guess], supply: &dyn Supply, rng: &mut Rng) -> Option<usize> {
        if window.is_empty() || !supply.has_room() {
            return None;
        }
        let least = u16::from(!supply.seed_has_room());
        // The first of the rarest from a random place on is a random one of them, nearly.
        let start = rng.below(window.len() as u32) as usize;
        let places = (start..window.len()).chain(0..start);
        let held = places.map(|index| (supply.holders(window[index].chunk), index));
        held.filter(|(holders, _)| *holders >= least).min_by_key(|(holders, _)| *holders).map(|(_, index)| index)
    }
}

/// Each chunk has an owner among the nodes, drawn by rendezvous hashing, who alone fetches it from a seed, the soonest first;
/// all others wait until a node that they are linked with holds it. So it goes on from far to near: a chunk that is held in
/// other racks alone is fetched from there by its owner among the rack's nodes, soon, since all the others wait for that (what
/// [`Supply`] says of holders and of who brings is so). What is wanted at a time unknown, as by a sequential reader, is likely
/// to be wanted before its owner would have brought it: it waits for no owner. What few hold is for the first few of a row that
/// all draw alike, so that it goes on as through a tree. Of what nodes hold, half of the picks take the soonest,
/// the others the rarest of what is near, so that nodes in lockstep have something to trade.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Owners {
    /// The soonest guess at the last pick, and since when it has been that.
    head: Option<(ChunkIndex, Instant)>,
}

/// An owner that has not fetched what is wanted next for so long is not waited for.
const OWNER_PATIENCE: Duration = Duration::from_millis(300);
/// So many nodes for each holder of a chunk may ask for it: of 100 simulated nodes, with 2 it spreads too slowly, with 6 it
/// is as if all might.
const FAN_OUT: u16 = 4;
/// What is wanted so soon may be asked for by all.
const SOON: Duration = Duration::from_millis(50);
/// So far ahead the soonest is looked for.
const URGENT: usize = 64;
/// Among so many chunks that nobody holds one of its own is looked for: what is later may still come from others.
const OWN: usize = 128;
/// One pick in so many does not prefer what nearer nodes wait for: those it is to be had from may all be busy.
const NOT_BROUGHT_ONE_IN: u32 = 4;
/// So far ahead the rarest is looked for first.
const NEAR: usize = 160;

impl Owners {
    /// Whether the owner of what is wanted next has been waited for long enough.
    fn is_impatient(&mut self, now: Instant, soonest: ChunkIndex) -> bool {
        match self.head {
            Some((chunk, since)) if chunk == soonest => now - since >= OWNER_PATIENCE,
            _ => {
                self.head = Some((soonest, now));
                false
            }
        }
    }
}

/// Whether few enough nodes come before this one for a chunk that few hold. Else all would ask its first holder at once, who
/// would send it to each, while the links of all others idle.
fn is_turn(guess: &Guess, supply: &dyn Supply) -> bool {
    let may_ask = supply.holders(guess.chunk).saturating_mul(FAN_OUT);
    // The sequential reader's guesses have no time: they are for soon.
    guess.due <= SOON || guess.due == Duration::MAX || supply.rank(guess.chunk) < may_ask
}

impl Order for Owners {
    fn pick(&mut self, now: Instant, window: &[Guess], supply: &dyn Supply, rng: &mut Rng) -> Option<usize> {
        let is_impatient = self.is_impatient(now, window.first()?.chunk);
        if is_impatient && supply.has_room() {
            return Some(0);
        }
        if supply.seed_has_room() {
            let is_mine = |guess: &Guess| guess.due == Duration::MAX || supply.owns(guess.chunk);
            // Who started later is held back by nothing that others have, so that those ahead need not wait for it.
            let unheld = window.iter().enumerate().filter(|(_, guess)| supply.holders(guess.chunk) == 0);
            if let Some((mine, _)) = unheld.take(OWN).find(|(_, guess)| is_mine(guess)) {
                return Some(mine);
            }
        }
        if !supply.has_room() {
            return None;
        }
        if supply.is_divided()
            && let Some(brought) = window.iter().take(OWN).position(|guess| supply.brings(guess.chunk))
            && rng.below(NOT_BROUGHT_ONE_IN) != 0
        {
            return Some(brought);
        }
        let is_open = |guess: &Guess| supply.can_ask(guess.chunk) && is_turn(guess, supply);
        if rng.below(2) == 0
            && let Some(urgent) = window.iter().take(URGENT).position(is_open)
        {
            return Some(urgent);
        }
        let near = window.len().min(NEAR);
        let start = rng.below(near as u32) as usize;
        let rarest = |places: &mut dyn Iterator<Item = usize>| {
            let held = places.filter(|index| is_open(&window[*index]));
            held.min_by_key(|index| supply.holders(window[*index].chunk))
        };
        rarest(&mut (start..near).chain(0..start)).or_else(|| rarest(&mut (near..window.len())))
    }

    fn next_pick(&self) -> Instant {
        self.head.map_or(Instant::NEVER, |(_, since)| since + OWNER_PATIENCE)
    }
}
