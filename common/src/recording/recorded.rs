//! An engine that may be recorded: the engine's own calls, and beside them what is to be remembered of each.
//!
//! *Invariants*: the engine does the same whether it is recorded or not; without a sink nothing is done but to look
//! whether there is one. *Bounds*: a record a call, of at most [`RECORD_BYTES_MAX`] bytes.

use crate::policies::{NodeEngine, Pupil, make};
use std::fmt;
use std::ops::Deref;
use swarmdisk_core::engine::{Action, Engine, Event, PeerError, Received, SetupError, Storage};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::format::recording::{Heard, RECORD_BYTES_MAX, Record, Setup, encode, heard_part, start};
use swarmdisk_core::ids::{Address, PeerId};
use swarmdisk_core::policy::Lesson;
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::HEAD_BYTES_MAX;

/// Takes a recording's bytes, some at a time; false ends the recording. It must not wait.
pub type Sink = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// An engine. What only looks at it is reached through [`Deref`].
pub struct Recorded<'a> {
    engine: NodeEngine<'a>,
    recorder: Option<Recorder>,
}

struct Recorder {
    sink: Sink,
    scratch: Box<[u8; RECORD_BYTES_MAX]>,
}

impl<'a> Recorded<'a> {
    /// Makes an engine as `setup` says, which follows `profile` if its policies do; recorded if there is a `sink`. What it is told
    /// of others' guests the `pupil` hears, too.
    ///
    /// # Errors
    /// As [`Engine::new`]; nothing was recorded.
    pub fn new(
        setup: &Setup,
        profile: &'a [ProfileEntry],
        (storage, lessons): (Storage<'a>, &'a mut [Lesson]),
        sink: Option<Sink>,
        pupil: Option<Pupil>,
    ) -> Result<Self, SetupError> {
        let policies = make(setup.policies, profile, lessons, pupil);
        let engine = Engine::new(setup.now, setup.geometry, setup.config.clone(), storage, policies)?;
        let mut recorded = Self { engine, recorder: None };
        if let Some(mut sink) = sink
            && sink(&start())
        {
            recorded.recorder = Some(Recorder { sink, scratch: Box::new([0; RECORD_BYTES_MAX]) });
            recorded.record(|| Record::Made(setup.clone()));
            for entry in profile.iter().filter(|_| setup.policies.profile_window.is_some()) {
                recorded.record(|| Record::Foreseen(*entry));
            }
        }
        Ok(recorded)
    }

    /// As [`Engine::handle`].
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.engine.handle(now, event);
        self.record(|| Record::Handled { now, event });
    }

    /// As [`Engine::admit`].
    pub fn admit(&mut self, now: Instant, address: Address, credit_bytes: u32) -> Option<PeerId> {
        let peer = self.engine.admit(now, address, credit_bytes);
        self.record(|| Record::Admitted { now, address, credit_bytes, peer });
        peer
    }

    /// As [`Engine::receive`].
    ///
    /// # Errors
    /// Those of the engine.
    pub fn receive(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) -> Result<Received, PeerError> {
        let answer = self.engine.receive(now, peer, bytes);
        self.record(|| Record::Received { now, peer, answer: Heard::of(answer), bytes: heard_part(bytes, answer) });
        answer
    }

    /// As [`Engine::poll`].
    pub fn poll(&mut self, now: Instant, head: &mut [u8; HEAD_BYTES_MAX]) -> Option<Action> {
        let action = self.engine.poll(now, head);
        self.record(|| match action {
            Some(action) => Record::Polled { now, action, head: sent_part(action, head) },
            None => Record::Idle { now },
        });
        action
    }

    fn record<'r>(&mut self, record: impl FnOnce() -> Record<'r>) {
        let Some(recorder) = &mut self.recorder else { return };
        // A record that is too long would be a bug: better no recording than one that is wrong.
        let goes_on = match encode(&record(), &mut recorder.scratch[..]) {
            Ok(length) => (recorder.sink)(&recorder.scratch[..length]),
            Err(_) => false,
        };
        if !goes_on {
            self.recorder = None;
        }
    }
}

impl<'a> Deref for Recorded<'a> {
    type Target = NodeEngine<'a>;

    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

impl fmt::Debug for Recorded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_recorded = self.recorder.is_some();
        f.debug_struct("Recorded").field("engine", &self.engine).field("is_recorded", &is_recorded).finish()
    }
}

/// The part of `poll`'s buffer that it has filled in.
pub(super) fn sent_part(action: Action, head: &[u8; HEAD_BYTES_MAX]) -> &[u8] {
    match action {
        Action::Transmit { head_bytes, .. } => &head[..usize::from(head_bytes).min(HEAD_BYTES_MAX)],
        _ => &[],
    }
}
