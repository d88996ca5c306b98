//! What a host runs by default: a profile where there is one, sequential prediction for what it does not know.
//!
//! *Invariants*: the profile's guesses come first. *Bounds*: those of its parts.

use super::{Access, ChunkView, Forecast, Predictor, Profile, Sequential};
use crate::geometry::ChunkIndex;
use crate::time::Instant;

/// Either, both or none of two predictors.
#[derive(Debug, Clone, Default)]
pub struct Mixed<'a> {
    /// Follows a profile.
    pub profile: Option<Profile<'a>>,
    /// Follows sequential readers.
    pub sequential: Option<Sequential>,
}

impl Predictor for Mixed<'_> {
    fn observe(&mut self, now: Instant, access: Access) {
        if let Some(profile) = &mut self.profile {
            profile.observe(now, access);
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
        // Guessing beyond the profile while it still has work would compete with what is known to be wanted.
        if out.is_empty()
            && let Some(sequential) = &mut self.sequential
        {
            sequential.forecast(now, view, out);
        }
    }

    fn settle(&mut self, chunk: ChunkIndex, used: bool) {
        if let Some(profile) = &mut self.profile {
            profile.settle(chunk, used);
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
}
