//! One contract for every implementation of a policy, and what each does beyond it.

use proptest::prelude::*;
use std::collections::BTreeSet;
use swarmdisk_core::bitmap::{Bits, assign};
use swarmdisk_core::format::profile::ProfileEntry;
use swarmdisk_core::geometry::{ChunkIndex, Geometry};
use swarmdisk_core::ids::{GuestId, PeerId};
use swarmdisk_core::locality::Nearness;
use swarmdisk_core::policy::{
    Access, Candidate, ChunkView, ExpectedCompletion, FORECAST_MAX, Forecast, Lesson, Live, Mixed, Outcome, Predictor,
    Profile, Selector, Sequential, TELLERS_MAX, Want,
};
use swarmdisk_core::rng::Rng;
use swarmdisk_core::time::{Duration, Instant};
use swarmdisk_core::wire::{Class, Role};

const CHUNKS: u32 = 2000;

fn geometry() -> Geometry {
    Geometry::new(u64::from(CHUNKS) << 16, 16).unwrap()
}

fn chunk(index: u32) -> ChunkIndex {
    geometry().chunk(index).unwrap()
}

fn entries(chunks: impl IntoIterator<Item = u32>) -> &'static [ProfileEntry] {
    let entry = |index| ProfileEntry::single(chunk(index), 0, 199);
    chunks.into_iter().map(entry).collect::<Vec<_>>().leak()
}

/// Storage of live learning.
fn lessons(count: usize) -> &'static mut [Lesson] {
    vec![Lesson::EMPTY; count].leak()
}

/// What is held and what is in flight.
struct Maps {
    held: Vec<u64>,
    flight: Vec<u64>,
    touched: Vec<u64>,
}

impl Maps {
    fn new() -> Self {
        let words = geometry().bitmap_words();
        Self { held: vec![0; words], flight: vec![0; words], touched: vec![0; words] }
    }

    fn view(&self) -> ChunkView<'_> {
        let bits = geometry().piece_count();
        let of = |words| Bits::new(words, bits);
        ChunkView::new(geometry(), of(&self.held), of(&self.flight), of(&self.touched))
    }
}

fn access(guest: u16, index: u32) -> Access {
    Access { guest: GuestId(guest), chunk: chunk(index), hit: index.is_multiple_of(3), first: true }
}

fn forecast(predictor: &mut impl Predictor, maps: &Maps) -> Vec<u32> {
    let mut out = Forecast::new();
    predictor.forecast(Instant::ZERO, &maps.view(), &mut out);
    out.iter().map(|guess| guess.chunk.get()).collect()
}

/// A call of a predictor, drawn: which, of which guest, about which chunk.
type Call = (u8, u16, u32);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    // Near each other, and at both ends.
    let index = prop_oneof![0..60u32, CHUNKS - 10..CHUNKS, 0..CHUNKS];
    prop::collection::vec((any::<u8>(), 0..3u16, index), 0..300)
}

/// Makes the calls; all forecasts, each checked.
fn predict(mut predictor: impl Predictor, calls: &[Call]) -> Vec<Vec<u32>> {
    let mut maps = Maps::new();
    let mut forecasts = vec![];
    for (kind, guest, index) in calls {
        match kind % 11 {
            0..=2 => {
                let first = assign(&mut maps.touched, *index, true);
                let access = Access { first, ..access(*guest, *index) };
                predictor.observe(Instant::from_micros(u64::from(*index)), access);
            }
            3 => drop(assign(&mut maps.held, *index, kind & 8 == 0)),
            4 => drop(assign(&mut maps.flight, *index, kind & 8 == 0)),
            5 => predictor.settle(chunk(*index), kind & 8 == 0),
            6..=8 => {
                let (now, ago) = (Instant::from_micros(u64::from(*kind)), Duration::from_millis(u64::from(*index)));
                predictor.learn(now, peer(guest + u16::from(kind / 64 % 2) * 32), chunk(*index), ago);
            }
            9 => predictor.forget(peer(*guest)),
            _ => {
                let guesses = forecast(&mut predictor, &maps);
                assert!(guesses.len() <= FORECAST_MAX);
                assert!(
                    guesses.iter().all(|index| maps.view().misses(chunk(*index))),
                    "held or in flight: {guesses:?}"
                );
                assert_eq!(guesses.iter().collect::<BTreeSet<_>>().len(), guesses.len(), "twice: {guesses:?}");
                forecasts.push(guesses);
            }
        }
    }
    forecasts
}

/// The predictor's contract, as a module of tests.
macro_rules! predictor_contract {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;

            proptest! {
                #[test]
                fn guesses_are_few_valid_missing_and_the_same_each_time(calls in calls()) {
                    prop_assert_eq!(predict($make, &calls), predict($make, &calls));
                }
            }

            #[test]
            fn nothing_is_guessed_once_everything_is_there() {
                let mut predictor = $make;
                (0..100).for_each(|index| predictor.observe(Instant::NEVER, access(0, index)));
                let mut maps = Maps::new();
                maps.held.fill(u64::MAX);
                assert_eq!(forecast(&mut predictor, &maps), []);
                maps.held.fill(0);
                maps.flight.fill(u64::MAX);
                assert_eq!(forecast(&mut predictor, &maps), []);
            }

            #[test]
            fn the_end_of_the_image_is_the_end() {
                let mut predictor = $make;
                (CHUNKS - 100..CHUNKS).for_each(|index| predictor.observe(Instant::ZERO, access(0, index)));
                forecast(&mut predictor, &Maps::new());
            }
        }
    };
}

predictor_contract!(profile, Profile::new(entries((0..700).map(|number| number * 2)), 300));
predictor_contract!(profile_with_a_window_beyond_all_bounds, Profile::new(entries(0..CHUNKS), usize::MAX));
predictor_contract!(profile_without_entries, Profile::new(&[], 300));
predictor_contract!(profile_by_time, Profile::new(entries(0..50), 0));
predictor_contract!(profile_that_names_chunks_twice, Profile::new(entries((0..700).map(|number| number % 300)), 0));
predictor_contract!(sequential, Sequential::new(16));
predictor_contract!(sequential_without_bounds, Sequential::new(u32::MAX));
predictor_contract!(sequential_that_looks_nowhere, Sequential::new(0));
predictor_contract!(live, Live::new(lessons(3000), 300));
predictor_contract!(live_with_little_storage, Live::new(lessons(9), 300));
predictor_contract!(live_without_storage, Live::new(&mut [], 300));
predictor_contract!(live_without_bounds, Live::new(lessons(70_000), usize::MAX));
predictor_contract!(live_that_looks_nowhere, Live::new(lessons(100), 0));
predictor_contract!(mixed, {
    let profile = Some(Profile::new(entries((0..50).rev()), 20));
    Mixed { profile, live: Some(Live::new(lessons(500), 100)), sequential: Some(Sequential::new(16)) }
});
predictor_contract!(mixed_of_nothing, Mixed::default());

fn peer(index: u16) -> PeerId {
    let mut bytes = [0; 8];
    let written = postcard::to_slice(&(index, 0u16), &mut bytes).unwrap();
    postcard::from_bytes(written).unwrap()
}

fn node(index: u16) -> Candidate {
    Candidate {
        peer: peer(index),
        role: Role::Node,
        nearness: Nearness::Far,
        rtt: Duration::from_micros(500),
        bytes_per_sec: 10_000_000,
        in_flight: 0,
        failures: 0,
    }
}

fn seed(index: u16) -> Candidate {
    Candidate { role: Role::Seed, ..node(index) }
}

fn want(class: Class) -> Want {
    Want { piece: geometry().piece(7).unwrap(), class, bytes: 30_000 }
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let numbers = prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..1_000_000u64];
    let one = (any::<bool>(), 0..4usize, numbers.clone(), numbers, any::<u16>(), any::<u8>());
    let all = prop::collection::vec(one, 0..64);
    all.prop_map(|all| {
        let candidate = |(index, (is_seed, level, rtt, bytes_per_sec, in_flight, failures))| Candidate {
            peer: peer(index as u16),
            role: if is_seed { Role::Seed } else { Role::Node },
            nearness: Nearness::ALL[level],
            rtt: Duration::from_micros(rtt),
            bytes_per_sec,
            in_flight,
            failures,
        };
        all.into_iter().enumerate().map(candidate).collect()
    })
}

fn choices(mut selector: impl Selector, candidates: &[Candidate], want: Want, seed: u64) -> Vec<Option<usize>> {
    let mut rng = Rng::new(seed);
    let mut chosen = vec![];
    for round in 0..20 {
        let choice = selector.choose(Instant::from_micros(round), want, candidates, &mut rng);
        assert!(choice.is_none_or(|index| index < candidates.len()));
        let Some(index) = choice else { break };
        let outcomes = [
            Outcome::Delivered { bytes: u32::MAX, elapsed: Duration::ZERO },
            Outcome::Late,
            Outcome::Refused,
            Outcome::Corrupt,
        ];
        selector.observe(Instant::NEVER, candidates[index].peer, outcomes[round as usize % 4]);
        selector.forget(peer(round as u16));
        chosen.push(choice);
    }
    chosen
}

macro_rules! selector_contract {
    ($name:ident, $make:expr) => {
        proptest! {
            #[test]
            fn $name(candidates in candidates(), class in 0..3usize, bytes: u32, seed: u64) {
                let class = [Class::Demand, Class::Prefetch, Class::Fill][class];
                let want = Want { bytes, ..want(class) };
                let choices = || choices($make, &candidates, want, seed);
                prop_assert_eq!(choices(), choices());
                prop_assert!(candidates.is_empty() || class != Class::Demand || !choices().is_empty(), "a guest waits");
            }
        }
    };
}

selector_contract!(expected_completion_keeps_the_contract, ExpectedCompletion);

/// How often each candidate is chosen of a thousand times.
fn census(candidates: &[Candidate], class: Class) -> Vec<u32> {
    let mut rng = Rng::new(1);
    let mut counts = vec![0; candidates.len()];
    for _ in 0..1000 {
        counts[ExpectedCompletion.choose(Instant::ZERO, want(class), candidates, &mut rng).unwrap()] += 1;
    }
    counts
}

#[test]
fn bulk_comes_from_nodes_rather_than_from_seeds() {
    let slower = Candidate { bytes_per_sec: 2_000_000, ..node(1) };
    assert_eq!(census(&[seed(0), slower], Class::Prefetch), [0, 1000]);
    assert_eq!(census(&[seed(0), slower], Class::Demand), [1000, 0], "a guest waits: the faster one");
    assert_eq!(census(&[seed(0), node(1)], Class::Demand), [0, 1000], "of two alike the node");
}

#[test]
fn the_slow_and_the_failing_and_those_with_a_queue_are_avoided() {
    for worse in [
        Candidate { bytes_per_sec: 1_000_000, ..node(1) },
        Candidate { rtt: Duration::from_millis(50), ..node(1) },
        Candidate { failures: 1, ..node(1) },
        Candidate { failures: u8::MAX, ..node(1) },
        Candidate { in_flight: 3, ..node(1) },
    ] {
        assert_eq!(census(&[node(0), worse], Class::Demand), [1000, 0], "{worse:?}");
        let bulk = census(&[node(0), worse], Class::Prefetch);
        assert!(bulk[1] < 100, "{bulk:?} {worse:?}");
    }
}

#[test]
fn a_slow_peer_is_tried_now_and_then_for_bulk_but_not_for_demand() {
    let candidates = [node(0), Candidate { bytes_per_sec: 1000, ..node(1) }, seed(2)];
    let bulk = census(&candidates, Class::Prefetch);
    assert!(bulk[1] > 10, "one that has become fast would not be found: {bulk:?}");
    assert_eq!(bulk[2], 0, "a seed is not tried for the sake of trying");
    assert_eq!(census(&candidates, Class::Demand)[1], 0);
}

#[test]
fn the_nearer_of_two_alike_is_asked_unless_it_is_clearly_slower() {
    let at = |index, nearness, bytes_per_sec| Candidate { nearness, bytes_per_sec, rtt: Duration::ZERO, ..node(index) };
    for nearness in [Nearness::Host, Nearness::Rack, Nearness::Zone] {
        let levels = Nearness::Far.levels_beyond(nearness);
        let demand = |slower: u32| {
            let near = at(1, nearness, 10_000_000 / u64::from(slower));
            census(&[at(0, Nearness::Far, 10_000_000), near], Class::Demand)
        };
        assert_eq!(demand(1), [0, 1000]);
        assert_eq!(demand(levels), [0, 1000], "not more than half as slow again a level");
        assert_eq!(demand(levels + 1), [1000, 0], "clearly slower, {nearness:?}");
        let bulk = census(&[at(0, Nearness::Far, 10_000_000), at(1, nearness, 11_000_000 >> levels)], Class::Prefetch);
        assert!(bulk[1] > 900, "{bulk:?}");
    }
}

#[test]
fn whoever_alone_has_it_is_asked_however_bad() {
    let bad = Candidate { failures: u8::MAX, rtt: Duration::from_secs(20), bytes_per_sec: 1, ..seed(0) };
    for class in [Class::Demand, Class::Prefetch, Class::Fill] {
        assert_eq!(census(&[bad], class), [1000]);
    }
}

#[test]
fn guesses_follow_the_profile_within_the_window() {
    let order = [9, 4, 100, 7, 30, 2];
    let mut profile = Profile::new(entries(order), 3);
    let mut maps = Maps::new();
    assert_eq!(forecast(&mut profile, &maps), [9, 4, 100]);
    assign(&mut maps.held, 4, true);
    assert_eq!(forecast(&mut profile, &maps), [9, 100], "the window begins at the first that is missing");
    assign(&mut maps.held, 9, true);
    assign(&mut maps.flight, 100, true);
    assert_eq!(forecast(&mut profile, &maps), [7, 30]);
    profile.settle(chunk(9), false);
    assign(&mut maps.held, 9, false);
    assert_eq!(forecast(&mut profile, &maps), [9], "what was lost unused is guessed again");
}

#[test]
fn a_sequential_reader_is_followed_half_as_far_as_it_has_read() {
    for read in [1, 2, 10, 31, 100] {
        let mut sequential = Sequential::new(16);
        (0..read).for_each(|index| sequential.observe(Instant::ZERO, access(0, 500 + index)));
        let expected: Vec<u32> = (500 + read..500 + read + (read / 2).min(16)).collect();
        assert_eq!(forecast(&mut sequential, &Maps::new()), expected, "after {read} chunks");
    }
}

#[test]
fn sequential_prediction_wastes_at_most_half_of_what_was_read() {
    let mut rng = Rng::new(3);
    let mut sequential = Sequential::new(16);
    let (mut maps, mut read, mut fetched) = (Maps::new(), BTreeSet::new(), BTreeSet::new());
    // Short runs all over, two guests in turn.
    for _ in 0..60 {
        let (start, length) = (rng.below(CHUNKS - 40), 1 + rng.below(12));
        for index in start..start + length {
            assign(&mut maps.held, index, true);
            sequential.observe(Instant::ZERO, access(rng.below(2) as u16, index));
            read.insert(index);
            for guess in forecast(&mut sequential, &maps) {
                assign(&mut maps.held, guess, true);
                fetched.insert(guess);
            }
        }
    }
    let wasted = fetched.difference(&read).count();
    assert!(wasted * 2 <= read.len(), "{wasted} in vain, {} read", read.len());
}

#[test]
fn a_random_reader_is_not_followed() {
    let mut sequential = Sequential::new(16);
    (0..200).for_each(|number| sequential.observe(Instant::ZERO, access(0, number * 1009 % CHUNKS)));
    assert_eq!(forecast(&mut sequential, &Maps::new()), []);
}

#[test]
fn readers_of_two_guests_are_followed_apart() {
    let mut sequential = Sequential::new(16);
    for step in 0..4 {
        sequential.observe(Instant::ZERO, access(0, 100 + step));
        sequential.observe(Instant::ZERO, access(1, 700 + step));
    }
    assert_eq!(forecast(&mut sequential, &Maps::new()), [704, 705, 104, 105]);
}

#[test]
fn a_wasted_guess_makes_its_reader_begin_anew() {
    let mut sequential = Sequential::new(16);
    (100..110).for_each(|index| sequential.observe(Instant::ZERO, access(0, index)));
    sequential.settle(chunk(111), true);
    assert_eq!(forecast(&mut sequential, &Maps::new()).len(), 5);
    sequential.settle(chunk(111), false);
    assert_eq!(forecast(&mut sequential, &Maps::new()), []);
}

/// What `teller` tells, all at once.
fn teach(live: &mut Live<'_>, teller: u16, chunks: impl IntoIterator<Item = u32>) {
    for (number, index) in chunks.into_iter().enumerate() {
        let now = Instant::ZERO + Duration::from_millis(number as u64 * 10);
        live.learn(now, peer(teller), chunk(index), Duration::ZERO);
    }
}

/// A guest reads these chunks with all that is guessed fetched before each; gives what was fetched and which reads missed.
fn run_guest(
    predictor: &mut impl Predictor,
    maps: &mut Maps,
    reads: impl IntoIterator<Item = u32>,
) -> (Vec<u32>, Vec<u32>) {
    let (mut fetched, mut missed) = (vec![], vec![]);
    for index in reads {
        let guesses = forecast(predictor, maps);
        for guess in &guesses {
            assign(&mut maps.held, *guess, true);
        }
        fetched.extend(guesses);
        if assign(&mut maps.held, index, true) {
            missed.push(index);
        }
        predictor.observe(Instant::ZERO, access(0, index));
    }
    (fetched, missed)
}

#[test]
fn what_neighbours_touched_is_guessed_in_their_order_ahead_of_the_guest() {
    let mut live = Live::new(lessons(1000), 4);
    teach(&mut live, 1, [70, 10, 40, 20, 90, 30]);
    let mut maps = Maps::new();
    assert_eq!(forecast(&mut live, &maps), [70, 10, 40, 20]);
    for index in [70, 10] {
        assign(&mut maps.held, index, true);
        live.observe(Instant::ZERO, access(0, index));
    }
    assert_eq!(forecast(&mut live, &maps), [40, 20, 90, 30]);
    // Another one takes a way of its own, between 10 and 40.
    teach(&mut live, 2, [70, 10, 55, 40]);
    assert_eq!(forecast(&mut live, &maps), [55, 40, 20, 90]);
}

#[test]
fn a_guess_is_as_likely_as_it_was_among_those_that_got_so_far() {
    let mut live = Live::new(lessons(1000), 300);
    teach(&mut live, 1, [1, 2, 3, 4, 5]);
    teach(&mut live, 2, [1, 3, 4, 5]);
    let mut out = Forecast::new();
    live.forecast(Instant::ZERO, &Maps::new().view(), &mut out);
    let likely: Vec<(u32, u8)> = out.iter().map(|guess| (guess.chunk.get(), guess.probability)).collect();
    assert_eq!(likely, [(1, 255), (2, 127), (3, 255), (4, 255), (5, 255)]);
    // What one of many touched is not worth it.
    (3..20).for_each(|teller| teach(&mut live, teller, [1, 3, 4, 5]));
    assert_eq!(forecast(&mut live, &Maps::new()), [1, 3, 4, 5]);
}

#[test]
fn what_the_guest_has_passed_by_is_left() {
    let mut live = Live::new(lessons(1000), 300);
    teach(&mut live, 1, 0..100);
    let mut maps = Maps::new();
    for index in (20..60).step_by(2) {
        assign(&mut maps.held, index, true);
        live.observe(Instant::ZERO, access(0, index));
    }
    let guesses = forecast(&mut live, &maps);
    assert!(guesses[0] > 40 && guesses.contains(&99), "{guesses:?}");
    // A single touch far ahead does not take it along.
    live.observe(Instant::ZERO, access(0, 98));
    assert!(forecast(&mut live, &maps)[0] < 50);
}

#[test]
fn a_liar_costs_a_bounded_number_of_chunks() {
    let honest = || (0..400).map(|number| number * 3);
    let lies = || (0..600).map(|number| 1300 + number);
    for tellers in [1, 5] {
        let (mut live, mut maps) = (Live::new(lessons(8000), 300), Maps::new());
        (0..tellers).for_each(|teller| teach(&mut live, teller, lies()));
        let (fetched, missed) = run_guest(&mut live, &mut maps, honest());
        assert!((32..=64).contains(&fetched.len()), "{tellers} liars: {} chunks", fetched.len());
        assert_eq!(missed.len(), 400);
    }
    // Beside one who tells the truth.
    let (mut live, mut maps) = (Live::new(lessons(8000), 300), Maps::new());
    teach(&mut live, 1, lies());
    teach(&mut live, 2, honest());
    let (fetched, missed) = run_guest(&mut live, &mut maps, honest());
    let wasted = fetched.iter().filter(|index| **index >= 1300).count();
    assert!(wasted <= 64, "{wasted}");
    assert!(missed.len() <= 20, "{missed:?}");
}

#[test]
fn a_neighbour_cannot_fill_the_storage_alone() {
    let mut live = Live::new(lessons(100), 300);
    teach(&mut live, 1, 1000..1900);
    teach(&mut live, 2, 0..30);
    // One that comes again under another name has the same seat.
    teach(&mut live, 1 + TELLERS_MAX as u16, 500..600);
    let known = |live: &Live<'_>, range: std::ops::Range<u32>| range.filter(|index| live.knows(chunk(*index))).count();
    assert_eq!((known(&live, 1000..1900), known(&live, 0..30), known(&live, 500..600)), (50, 30, 0));
    live.forget(peer(1));
    teach(&mut live, 1 + TELLERS_MAX as u16, 500..600);
    assert_eq!(known(&live, 500..600), 0, "its share stays used up");
}

#[test]
fn live_learning_adds_what_the_profile_lacks_and_keeps_readers_from_running_on() {
    let live = Some(Live::new(lessons(1000), 300));
    let mut mixed = Mixed { profile: Some(Profile::new(entries([5, 6, 7]), 10)), live, sequential: None };
    for index in [6, 80, 81] {
        mixed.learn(Instant::ZERO, peer(1), chunk(index), Duration::ZERO);
    }
    assert_eq!(forecast(&mut mixed, &Maps::new()), [5, 80, 6, 81, 7]);
    let live = Some(Live::new(lessons(1000), 300));
    let mut mixed = Mixed { profile: None, live, sequential: Some(Sequential::new(16)) };
    let mut maps = Maps::new();
    // The neighbour has read 0 to 39, and 60 a second later; then it has gone on.
    for (number, index) in (0..40).chain([60, 61]).enumerate() {
        let now = Instant::ZERO + Duration::from_millis(if index < 40 { number as u64 } else { 1000 });
        mixed.learn(now, peer(1), chunk(index), Duration::ZERO);
    }
    let (fetched, _) = run_guest(&mut mixed, &mut maps, 0..40);
    assert!(fetched.iter().all(|index| *index < 40 || [60, 61].contains(index)), "{fetched:?}");
    // Without the neighbour the reader would have been followed.
    let mut alone = Mixed { sequential: Some(Sequential::new(16)), ..Mixed::default() };
    let (fetched, _) = run_guest(&mut alone, &mut Maps::new(), 0..40);
    assert!(fetched.contains(&40));
}

#[test]
fn the_profile_speaks_before_the_sequential_reader() {
    let mut mixed =
        Mixed { profile: Some(Profile::new(entries([5, 6]), 10)), live: None, sequential: Some(Sequential::new(16)) };
    for index in 800..804 {
        mixed.observe(Instant::ZERO, Access { hit: false, ..access(0, index) });
    }
    let mut maps = Maps::new();
    assert_eq!(forecast(&mut mixed, &maps), [5, 6]);
    for index in [5, 6] {
        assign(&mut maps.held, index, true);
    }
    assert_eq!(forecast(&mut mixed, &maps), [804, 805], "what the profile does not know");
}

#[test]
fn workloads_of_one_profile_are_told_apart() {
    let (entries, runs) = three_ways();
    for run in runs {
        let (hits, wasted, fetched) = follow(&mut Profile::new(entries, 0), &run, 4);
        println!("{hits} of {} foreseen, {wasted} of {fetched} in vain", run.len());
        // What is due at once where the ways part is fetched of all three, before it is known which is gone.
        assert!(hits * 100 >= run.len() * 98 && wasted * 100 <= fetched * 10);
    }
}

#[test]
fn the_way_that_was_not_gone_is_not_believed_in() {
    let (entries, runs) = three_ways();
    let mut profile = Profile::new(entries, 0);
    let beliefs = profile.beliefs();
    let (before, after) = (runs[1][450], runs[2][450]);
    assert!(profile.believes(chunk(before)) == profile.believes(chunk(after)));
    follow(&mut profile, &runs[1][..220], 4);
    assert!(profile.believes(chunk(before)) && !profile.believes(chunk(after)));
    assert!(profile.beliefs() != beliefs, "who asks only after a change would not learn of it");
    assert!(profile.believes(chunk(CHUNKS - 1)), "of what is not in it, it says nothing");
}

#[test]
fn a_profile_of_something_else_is_given_up_and_taken_up_again() {
    let entries = entries(0..600);
    let mut profile = Profile::new(entries, 0);
    let other: Vec<u32> = (1000..1700).collect();
    let (hits, wasted, _) = follow(&mut profile, &other, 4);
    assert_eq!(hits, 0);
    assert!(!profile.fits());
    // It is given up after as many touches as are allowed to be outside, and one.
    assert_eq!(wasted, 5 * 4);
    // The guest comes back to what it knows: the touches outside are outnumbered soon.
    let known: Vec<u32> = (0..600).collect();
    let (hits, ..) = follow(&mut profile, &known, 4);
    assert!(hits > 300 && profile.fits(), "{hits}");
}

#[test]
fn a_guest_that_leaves_out_most_of_the_profile_is_not_followed_for_ever() {
    let mut profile = Profile::new(entries(0..1900), 0);
    let sparse: Vec<u32> = (0..1900).step_by(10).collect();
    let (_, wasted, fetched) = follow(&mut profile, &sparse, 12);
    assert!(wasted * 2 < 1900, "{wasted} of {fetched}");
    assert!(!profile.fits());
}

#[test]
fn guesses_are_due_as_fast_as_this_guest_goes() {
    let entries: Vec<_> = (0..600).map(|index| ProfileEntry::single(chunk(index), index * 100, 255)).collect();
    let mut profile = Profile::new(entries.leak(), 0);
    // Ten times as fast as recorded: a chunk each 10 ms.
    let mut maps = Maps::new();
    let at = |index: u32| Instant::ZERO + Duration::from_millis(u64::from(index) * 10);
    for index in 0..50 {
        assign(&mut maps.held, index, true);
        assign(&mut maps.touched, index, true);
        profile.observe(at(index), Access { hit: true, ..access(0, index) });
    }
    let mut out = Forecast::new();
    profile.forecast(at(49), &maps.view(), &mut out);
    let due =
        |index: u32| out.iter().find(|guess| guess.chunk.get() == index).map(|guess| guess.due.as_micros() / 1000);
    // The middle one of the last eight touches is where it is taken to be: a few behind.
    assert!((90..=150).contains(&due(59).unwrap()), "{:?}", due(59));
    assert!((95..=110).contains(&(due(69).unwrap() - due(59).unwrap())));
}

/// A guest that touches these chunks one after the other, while the link brings in `per_touch` guesses for each; what was
/// fetched before it was touched, what was fetched in vain, and what was guessed in all.
fn follow(predictor: &mut impl Predictor, chunks: &[u32], per_touch: usize) -> (usize, usize, usize) {
    let mut maps = Maps::new();
    let (mut fetched, mut hits) = (BTreeSet::new(), 0);
    for (number, index) in chunks.iter().enumerate() {
        let now = Instant::ZERO + Duration::from_millis(number as u64);
        let mut out = Forecast::new();
        predictor.forecast(now, &maps.view(), &mut out);
        for guess in out.iter().take(per_touch) {
            assign(&mut maps.held, guess.chunk.get(), true);
            fetched.insert(guess.chunk.get());
        }
        let hit = !assign(&mut maps.held, *index, true);
        let first = assign(&mut maps.touched, *index, true);
        hits += usize::from(hit && first);
        predictor.observe(now, Access { hit, first, ..access(0, *index) });
    }
    let wasted = fetched.iter().filter(|index| !chunks.contains(index)).count();
    (hits, wasted, fetched.len())
}

/// Runs that begin alike and then go three ways, each a group.
fn three_ways() -> (&'static [ProfileEntry], [Vec<u32>; 3]) {
    let runs = [0, 1, 2].map(|way| (0..200).chain(500 + way * 400..800 + way * 400).collect::<Vec<u32>>());
    let mut entries = vec![];
    for number in 0..500 {
        for (way, run) in runs.iter().enumerate() {
            let mut entry = ProfileEntry::single(chunk(run[number]), number as u32 * 10, 0);
            entry.probabilities[way] = 255;
            if number < 200 {
                entry.probabilities[..3].fill(255);
            }
            if number >= 200 || way == 0 {
                entries.push(entry);
            }
        }
    }
    (entries.leak(), runs)
}
