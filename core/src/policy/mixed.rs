//! What a host runs by default: a profile where there is one, live learning for what it lacks, sequential prediction for
//! what neither knows.
//!
//! *Invariants*: what is known comes before what is only likely. *Bounds*: those of its parts.

use super::{Access, ChunkView, Forecast, Live, Predictor, Profile, Sequential};
use crate::geometry::ChunkIndex;
use crate::ids::PeerId;
use crate::time::{Duration, Instant};

/// With fewer guesses than this from live learning, sequential readers are followed as well.
const FEW: usize = 16;

/// Any of three predictors.
#[derive(Debug, Default)]
pub struct Mixed<'a> {
    /// Follows a profile.
    pub profile: Option<Profile<'a>>,
    /// Follows what other nodes' guests touch.
    pub live: Option<Live<'a>>,
    /// Follows sequential readers.
    pub sequential: Option<Sequential>,
}

impl Mixed<'_> {
    /// Adds what live learning knows and the profile does not, in turn with the profile's guesses: both are sorted.
    fn add_live(&mut self, now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        let Some(live) = &mut self.live else { return };
        if out.is_empty() {
            return live.forecast(now, view, out);
        }
        let mut own = Forecast::new();
        live.forecast(now, view, &mut own);
        // A profile that has not fitted for a while may list what was learnt meanwhile.
        own.retain(|guess| !out.iter().any(|listed| listed.chunk == guess.chunk));
        if own.is_empty() {
            return;
        }
        let listed = core::mem::take(out);
        let (mut first, mut second) = (listed.iter(), own.iter());
        while !out.is_full() {
            let pair = [first.next(), second.next()];
            if pair == [None, None] {
                return;
            }
            out.extend(pair.into_iter().flatten().copied().take(out.capacity() - out.len()));
        }
    }

    /// Adds what sequential readers will want, but for what others that are further on did without.
    fn add_sequential(&mut self, now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        let Some(sequential) = &mut self.sequential else { return };
        let known = out.len();
        sequential.forecast(now, view, out);
        let Some(live) = &self.live else { return };
        let (mut at, mut denied) = (0, None);
        out.retain(|guess| {
            at += 1;
            let before = guess.chunk.get().checked_sub(1).and_then(|index| view.geometry().chunk(index));
            let ends = before.is_some_and(|before| denied == Some(before) || live.went_on(before));
            if at <= known || live.knows(guess.chunk) || !ends {
                return true;
            }
            denied = Some(guess.chunk);
            false
        });
    }
}

impl Predictor for Mixed<'_> {
    fn observe(&mut self, now: Instant, access: Access) {
        if let Some(profile) = &mut self.profile {
            profile.observe(now, access);
        }
        if let Some(live) = &mut self.live {
            live.observe(now, access);
        }
        // What the profile has foreseen needs no second prophet: a reader that follows it would be fetched too far.
        let foreseen = self.profile.as_ref().is_some_and(Profile::fits) && access.hit;
        if let Some(sequential) = self.sequential.as_mut().filter(|_| !foreseen) {
            sequential.observe(now, access);
        }
    }

    fn forecast(&mut self, now: Instant, view: &ChunkView<'_>, out: &mut Forecast) {
        if let Some(profile) = &mut self.profile {
            profile.forecast(now, view, out);
        }
        self.add_live(now, view, out);
        // Guessing beyond what is known while there is still work would compete with what is known to be wanted.
        let few = if self.profile.as_ref().is_some_and(Profile::fits) { 1 } else { FEW };
        if out.len() < few {
            self.add_sequential(now, view, out);
        }
    }

    fn settle(&mut self, chunk: ChunkIndex, used: bool) {
        if let Some(profile) = &mut self.profile {
            profile.settle(chunk, used);
        }
        if let Some(live) = &mut self.live {
            live.settle(chunk, used);
        }
        if let Some(sequential) = &mut self.sequential {
            sequential.settle(chunk, used);
        }
    }

    fn believes(&self, chunk: ChunkIndex) -> bool {
        self.profile.as_ref().is_none_or(|profile| profile.believes(chunk))
    }

    fn beliefs(&self) -> u32 {
        self.profile.as_ref().map_or(0, Profile::beliefs)
    }

    fn learn(&mut self, now: Instant, peer: PeerId, chunk: ChunkIndex, ago: Duration) -> bool {
        let Some(live) = &mut self.live else { return false };
        let is_new = !live.knows(chunk);
        let may_guess = live.learn(now, peer, chunk, ago);
        if is_new && self.profile.as_ref().is_some_and(|profile| profile.lists(chunk)) {
            live.leave(chunk);
            return false;
        }
        may_guess
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(live) = &mut self.live {
            live.forget(peer);
        }
    }
}
