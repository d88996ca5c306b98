//! Random sequences of calls: whatever the host and the peers do, the engine does not panic, its tables stay in order,
//! `poll` ends and a deadline is kept; and once all is well again, guests get what they wait for.

#[path = "../net/mod.rs"]
mod net;

mod careless;
mod lossy;

use net::{config, storage};
use swarmdisk_core::engine::{Action, Config, Engine, Fill, Footprint, Limits};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::geometry::Geometry;
use swarmdisk_core::policy::{ExpectedCompletion, Lesson, Live, Mixed, Owners, Profile, Sequential};
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::{HEAD_BYTES_MAX, Role};

type RandomEngine = Engine<'static, Mixed<'static>, Owners, ExpectedCompletion>;

const CHUNKS: u32 = 600;
/// Actions that can have piled up at one time, with tables as small as these.
const ACTIONS_MAX: usize = 2000;

fn geometry() -> Geometry {
    Geometry::new(u64::from(CHUNKS) << 16, 16).unwrap()
}

/// Small tables, so that they overflow.
fn small() -> Limits {
    Limits {
        peers: 5,
        transfers: 8,
        requests_per_peer: 4,
        demands: 6,
        contacts: 6,
        changes: 4,
        served: 4,
        touches: 6,
        maps: true,
        bounded: true,
    }
}

fn engine(index: usize, role: Role, limits: Limits, change: impl FnOnce(&mut Config)) -> RandomEngine {
    let geometry = geometry();
    let mut config = config(index, role, limits);
    config.fill = Fill::Rate(50_000_000);
    change(&mut config);
    let entry = |chunk| ProfileEntry::single(geometry.chunk(chunk).unwrap(), chunk, 200);
    let entries: Vec<_> = (0..60).map(|number| entry(number * 7 % 300)).collect();
    let profile = Some(Profile::new(entries.leak(), 20));
    let live = Some(Live::new(vec![Lesson::EMPTY; 40].leak(), 10));
    let policies =
        (Mixed { profile, live, sequential: Some(Sequential::new(8)) }, Owners::default(), ExpectedCompletion);
    let storage = storage(Footprint::of(geometry, limits));
    Engine::new(Instant::ZERO, geometry, config, storage, policies).unwrap()
}

/// Polls until there is nothing to do, checking all that is promised of it.
fn drain(engine: &mut RandomEngine, now: Instant, mut act: impl FnMut(Action, &[u8])) {
    let mut head = [0; HEAD_BYTES_MAX];
    let mut actions = 0;
    while let Some(action) = engine.poll(now, &mut head) {
        engine.check_invariants();
        act(action, &head);
        actions += 1;
        assert!(actions < ACTIONS_MAX, "poll goes on for ever: {action:?}");
    }
    engine.check_invariants();
    assert!(engine.deadline().is_none_or(|deadline| deadline > now), "a deadline that has passed is a busy loop");
}
