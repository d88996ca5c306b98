//! What every order of prefetching promises: an index within the window, the same for the same seed, and that in the end
//! something is fetched though nobody has it; and what owners leave to others.

use proptest::prelude::*;
use std::collections::BTreeSet;
use swarmdisk_core::geometry::{ChunkIndex, Geometry};
use swarmdisk_core::policy::{FORECAST_MAX, Guess, InOrder, Order, Owners, Rarest, Supply, WindowedRandom};
use swarmdisk_core::rng::Rng;
use swarmdisk_core::time::{Duration, Instant};

const CHUNKS: u32 = 2000;

fn chunk(index: u32) -> ChunkIndex {
    Geometry::new(u64::from(CHUNKS) << 16, 16).unwrap().chunk(index).unwrap()
}

/// Everybody has what is divisible by `held`; what is divisible by `owned` is this node's to fetch.
struct Multiples {
    held: u32,
    owned: u32,
    seed_has_room: bool,
    /// What is divisible by this is this node's to bring.
    brought: u32,
}

impl Supply for Multiples {
    fn holders(&self, chunk: ChunkIndex) -> u16 {
        if chunk.get().is_multiple_of(self.held) { u16::MAX } else { 0 }
    }

    fn has_room(&self) -> bool {
        true
    }

    fn seed_has_room(&self) -> bool {
        self.seed_has_room
    }

    fn owns(&self, chunk: ChunkIndex) -> bool {
        chunk.get().is_multiple_of(self.owned)
    }

    fn is_divided(&self) -> bool {
        true
    }

    fn brings(&self, chunk: ChunkIndex) -> bool {
        chunk.get().is_multiple_of(self.brought)
    }
}

const THIRDS: Multiples = Multiples { held: 3, owned: CHUNKS, seed_has_room: true, brought: CHUNKS };

fn window(length: u32) -> Vec<Guess> {
    (0..length).map(|index| Guess { chunk: chunk(index), probability: 128, due: Duration::from_millis(900) }).collect()
}

fn picks(mut order: impl Order, lengths: &[u32], seed: u64) -> Vec<Option<usize>> {
    let mut rng = Rng::new(seed);
    let pick = |length: &u32| {
        let picked = order.pick(Instant::ZERO, &window(*length), &THIRDS, &mut rng);
        assert!(picked.is_none_or(|index| index < *length as usize));
        picked
    };
    lengths.iter().map(pick).collect()
}

/// Whether something is picked, at once or when the order has said that it will, though nobody is to fetch anything.
fn picks_at_last(mut order: impl Order, length: u32, seed: u64) -> bool {
    let (nobody, mut rng) =
        (Multiples { held: CHUNKS, owned: CHUNKS, seed_has_room: true, brought: CHUNKS }, Rng::new(seed));
    let window = &window(length + 1)[1..];
    let at_once = order.pick(Instant::ZERO, window, &nobody, &mut rng);
    let later = order.next_pick();
    at_once.is_some() || (later != Instant::NEVER && order.pick(later, window, &nobody, &mut rng).is_some())
}

macro_rules! order_contract {
    ($name:ident, $make:expr) => {
        proptest! {
            #[test]
            fn $name(lengths in prop::collection::vec(0..=FORECAST_MAX as u32, 1..50), seed: u64) {
                prop_assert_eq!(picks($make, &lengths, seed), picks($make, &lengths, seed));
                let length = lengths[0];
                prop_assert_eq!(picks_at_last($make, length.min(FORECAST_MAX as u32 - 1), seed), length > 0);
            }
        }
    };
}

order_contract!(in_order_keeps_the_contract, InOrder);
order_contract!(windowed_random_keeps_the_contract, WindowedRandom::default());
order_contract!(windowed_random_without_soonest_keeps_the_contract, WindowedRandom { soonest_every: 0 });
order_contract!(windowed_random_of_soonest_alone_keeps_the_contract, WindowedRandom { soonest_every: 1 });
order_contract!(rarest_keeps_the_contract, Rarest);
order_contract!(owners_keeps_the_contract, Owners::default());

#[test]
fn what_another_owns_is_left_until_a_node_holds_it() {
    let window = &window(100)[1..];
    let picked = |seed_has_room| -> BTreeSet<u32> {
        let supply = Multiples { held: 7, owned: 5, seed_has_room, brought: CHUNKS };
        let (mut order, mut rng) = (Owners::default(), Rng::new(1));
        let picks = (0..2000).filter_map(|_| order.pick(Instant::ZERO, window, &supply, &mut rng));
        picks.map(|index| window[index].chunk.get()).collect()
    };
    assert_eq!(picked(true), BTreeSet::from([5]), "the soonest that is its own, from a seed");
    let held = picked(false);
    assert!(held.contains(&7) && held.len() > 3 && held.iter().all(|chunk| chunk.is_multiple_of(7)), "{held:?}");
}

#[test]
fn what_is_wanted_at_a_time_unknown_is_fetched_by_whoever_wants_it() {
    let supply = Multiples { held: CHUNKS, owned: CHUNKS, seed_has_room: true, brought: CHUNKS };
    let (mut window, mut rng) = (window(100)[1..].to_vec(), Rng::new(1));
    assert_eq!(Owners::default().pick(Instant::ZERO, &window, &supply, &mut rng), None, "their owners fetch them");
    window[30].due = Duration::MAX;
    assert_eq!(Owners::default().pick(Instant::ZERO, &window, &supply, &mut rng), Some(30));
    let by_others = Multiples { held: 1, seed_has_room: true, ..supply };
    let picks = (0..100).filter_map(|_| Owners::default().pick(Instant::ZERO, &window, &by_others, &mut rng));
    assert!(picks.filter(|index| *index == 30).count() < 50, "what nodes hold is not asked of seeds");
}

/// Others are ahead: they have all that comes before this chunk. What is divisible by five is this node's to fetch.
struct Ahead(u32);

impl Supply for Ahead {
    fn holders(&self, chunk: ChunkIndex) -> u16 {
        if chunk.get() < self.0 { 9 } else { 0 }
    }

    fn has_room(&self) -> bool {
        true
    }

    fn seed_has_room(&self) -> bool {
        true
    }

    fn owns(&self, chunk: ChunkIndex) -> bool {
        chunk.get().is_multiple_of(5)
    }
}

#[test]
fn who_started_later_fetches_its_own_where_those_ahead_are() {
    let (window, mut rng) = (window(400), Rng::new(1));
    let mut pick = |ahead| Owners::default().pick(Instant::ZERO, &window, &Ahead(ahead), &mut rng);
    assert_eq!([pick(0), pick(201), pick(391)], [Some(0), Some(205), Some(395)]);
}

/// Everybody has everything, but only of what is divisible by seven somebody takes a request.
struct Sevenths;

impl Supply for Sevenths {
    fn holders(&self, _chunk: ChunkIndex) -> u16 {
        5
    }

    fn can_ask(&self, chunk: ChunkIndex) -> bool {
        chunk.get().is_multiple_of(7)
    }

    fn has_room(&self) -> bool {
        true
    }

    fn seed_has_room(&self) -> bool {
        true
    }

    fn owns(&self, _chunk: ChunkIndex) -> bool {
        true
    }
}

#[test]
fn owners_pick_only_what_can_be_had_now() {
    let (mut order, mut rng) = (Owners::default(), Rng::new(1));
    let window = &window(300)[1..];
    let picks: BTreeSet<u32> = (0..500)
        .map(|_| order.pick(Instant::ZERO, window, &Sevenths, &mut rng).unwrap())
        .map(|index| window[index].chunk.get())
        .collect();
    assert!(picks.len() > 10 && picks.iter().all(|chunk| chunk.is_multiple_of(7)), "{picks:?}");
}

/// One node holds each chunk, and as many come before this one as its last digit says.
struct Rows;

impl Supply for Rows {
    fn holders(&self, _chunk: ChunkIndex) -> u16 {
        1
    }

    fn rank(&self, chunk: ChunkIndex) -> u16 {
        (chunk.get() % 10) as u16
    }

    fn has_room(&self) -> bool {
        true
    }

    fn seed_has_room(&self) -> bool {
        false
    }

    fn owns(&self, _chunk: ChunkIndex) -> bool {
        false
    }
}

#[test]
fn what_one_holds_is_for_the_first_few_unless_it_is_wanted_soon() {
    let (mut window, mut rng) = (window(100)[1..].to_vec(), Rng::new(1));
    window.iter_mut().for_each(|guess| guess.due = Duration::from_secs(1));
    window[5].due = Duration::from_millis(20);
    window[6].due = Duration::MAX;
    let picked: BTreeSet<u32> = (0..2000)
        .filter_map(|_| Owners::default().pick(Instant::ZERO, &window, &Rows, &mut rng))
        .map(|index| window[index].chunk.get())
        .collect();
    assert!(picked.iter().all(|chunk| chunk % 10 < 4 || [6, 7].contains(chunk)), "{picked:?}");
    assert!(picked.contains(&6) && picked.contains(&7) && picked.len() > 20, "{picked:?}");
}

#[test]
fn what_others_wait_for_is_brought_before_the_rest_as_a_rule() {
    let supply = Multiples { brought: 21, ..THIRDS };
    let (window, mut order, mut rng) = (&window(100)[1..], Owners::default(), Rng::new(1));
    let picks: Vec<_> = (0..1000).filter_map(|_| order.pick(Instant::ZERO, window, &supply, &mut rng)).collect();
    let brought = picks.iter().filter(|index| **index == 20).count();
    assert!((700..850).contains(&brought), "{brought}");
    assert!(picks.contains(&2), "the rest is not forgotten if that cannot be had");
}

#[test]
fn an_owner_that_does_not_fetch_what_is_wanted_next_is_not_waited_for() {
    let supply = Multiples { held: CHUNKS, owned: 50, seed_has_room: true, brought: CHUNKS };
    let window = &window(100)[1..];
    let (mut order, mut rng) = (Owners::default(), Rng::new(1));
    let mut picks_at = |millis| -> BTreeSet<usize> {
        let now = Instant::ZERO + Duration::from_millis(millis);
        (0..100).filter_map(|_| order.pick(now, window, &supply, &mut rng)).collect()
    };
    assert_eq!(picks_at(0), [49].into());
    assert_eq!(picks_at(299), [49].into());
    assert_eq!(picks_at(300), [0].into());
}

#[test]
fn the_soonest_is_picked_often_and_all_others_sometimes() {
    let picked = picks(WindowedRandom::default(), &[10; 2000], 7);
    let count = |index| picked.iter().filter(|pick| **pick == Some(index)).count();
    assert!((1000..1250).contains(&count(0)), "{}", count(0));
    assert!((1..10).all(|index| count(index) > 50));
    assert!(picks(InOrder, &[10; 20], 7).iter().all(|pick| *pick == Some(0)));
}

/// So many nodes hold a chunk as its number, from the window's end on: the later, the rarer; the last only seeds have.
struct Rarer {
    last: u32,
    seed_has_room: bool,
}

impl Supply for Rarer {
    fn holders(&self, chunk: ChunkIndex) -> u16 {
        ((self.last - chunk.get()) / 2) as u16
    }

    fn has_room(&self) -> bool {
        true
    }

    fn seed_has_room(&self) -> bool {
        self.seed_has_room
    }

    fn owns(&self, _chunk: ChunkIndex) -> bool {
        false
    }
}

#[test]
fn the_rarest_is_picked_and_those_alike_in_turn() {
    let picked = |seed_has_room| -> BTreeSet<Option<usize>> {
        let mut rng = Rng::new(3);
        let supply = Rarer { last: 99, seed_has_room };
        (0..1000).map(|_| Rarest.pick(Instant::ZERO, &window(100), &supply, &mut rng)).collect()
    };
    assert_eq!(picked(true), [Some(98), Some(99)].into(), "what only seeds have");
    assert_eq!(picked(false), [Some(96), Some(97)].into(), "of what nodes hold, as no seed can be asked");
    let nobody = Multiples { held: CHUNKS, owned: CHUNKS, seed_has_room: false, brought: CHUNKS };
    assert_eq!(Rarest.pick(Instant::ZERO, &window(100)[1..], &nobody, &mut Rng::new(3)), None);
}
