//! Runs and touches against the naive way to keep them.

use proptest::prelude::*;
use swarmdisk_core::wire::*;

/// Pieces as a slice of truths, `base` first.
fn naive_runs(held: &[bool], base: u32) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (piece, _) in (base..).zip(held).filter(|(_, held)| **held) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == piece => *count += 1,
            _ => runs.push((piece, 1)),
        }
    }
    runs
}

fn decoded(bytes: &[u8], base: u32, limit: u32) -> Vec<(u32, u32)> {
    decode_runs(bytes, base, limit).map(|run| run.expect("a valid list")).collect()
}

/// Long runs and long gaps as well as noise.
fn piece_sets() -> impl Strategy<Value = Vec<bool>> {
    let stretch = (any::<bool>(), prop_oneof![1usize..4, 1usize..400]);
    prop::collection::vec(stretch, 0..40)
        .prop_map(|stretches| stretches.into_iter().flat_map(|(held, length)| vec![held; length]).collect())
}

proptest! {
    #[test]
    fn runs_are_what_was_pushed(
        held in piece_sets(),
        base in prop_oneof![Just(0), any::<u32>().prop_map(|base| base % (1 << 31))],
        step in 1u32..50,
    ) {
        let limit = base + held.len() as u32;
        let mut out = vec![0; 10 * held.len() + 10];
        let mut encoder = RunsEncoder::new(&mut out, base);
        // Cut up at will: adjacent pushes merge.
        for (first, count) in naive_runs(&held, base) {
            for at in (first..first + count).step_by(step as usize) {
                encoder.push(at, step.min(first + count - at)).unwrap();
            }
        }
        let used = encoder.finish();
        prop_assert_eq!(decoded(&out[..used], base, limit), naive_runs(&held, base));
    }

    #[test]
    fn what_is_full_is_still_valid_and_the_next_takes_the_rest(held in piece_sets(), room in 10usize..40) {
        let mut all = Vec::new();
        let mut out = vec![0; room];
        let mut encoder = RunsEncoder::new(&mut out, 0);
        let mut pushed = vec![false; held.len()];
        let mut frames = 0;
        for piece in (0..held.len()).filter(|piece| held[*piece]) {
            if encoder.push(piece as u32, 1) == Err(Full) {
                let used = encoder.finish();
                prop_assert_eq!(decoded(&out[..used], 0, held.len() as u32), naive_runs(&pushed, 0));
                all.append(&mut decoded(&out[..used], 0, held.len() as u32));
                pushed.fill(false);
                frames += 1;
                encoder = RunsEncoder::new(&mut out, 0);
                prop_assert_eq!(encoder.push(piece as u32, 1), Ok(()), "an empty list has room for a run");
            }
            pushed[piece] = true;
        }
        let used = encoder.finish();
        all.append(&mut decoded(&out[..used], 0, held.len() as u32));
        let mut union = vec![false; held.len()];
        for (first, count) in all {
            union[first as usize..(first + count) as usize].fill(true);
        }
        prop_assert_eq!(union, held, "after {} full lists", frames);
    }

    #[test]
    fn any_bytes_are_runs_in_range_or_an_error(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            prop::collection::vec(0u8..4, 0..60),
            prop::collection::vec(prop_oneof![Just(0xFFu8), Just(0x80), Just(0x0F), Just(0)], 0..60),
        ],
        base in any::<u32>(),
        limit in any::<u32>(),
    ) {
        let runs: Vec<_> = decode_runs(&bytes, base, limit).collect();
        prop_assert!(runs.len() <= bytes.len() / 2 + 1);
        let valid: Vec<_> = runs.iter().copied().map_while(Result::ok).collect();
        prop_assert!(valid.len() + 1 >= runs.len(), "an error ends the list");
        let mut out = [0; 60];
        let mut encoder = RunsEncoder::new(&mut out, base);
        let mut end = u64::from(base);
        for (at, (first, count)) in valid.iter().copied().enumerate() {
            prop_assert!(count >= 1 && u64::from(first) >= end + u64::from(at > 0));
            end = u64::from(first) + u64::from(count);
            prop_assert!(end <= u64::from(limit));
            encoder.push(first, count).unwrap();
        }
        let used = encoder.finish();
        prop_assert!(bytes.starts_with(&out[..used]), "a set has one form");
        prop_assert!(used == bytes.len() || valid.len() < runs.len());
    }

    #[test]
    fn touches_are_what_was_pushed(
        touches in prop::collection::vec((prop_oneof![0u32..1 << 31, 0u32..1000], any::<u32>()), 0..100),
        room in 0usize..LIST_BYTES_MAX,
    ) {
        let mut out = vec![0; room];
        let mut encoder = TouchesEncoder::new(&mut out);
        let fitting = touches.iter().take_while(|(chunk, millis)| encoder.push(*chunk, *millis).is_ok()).count();
        let used = encoder.finish();
        prop_assert!(fitting == touches.len() || used + 10 > room);
        let mut wanted = touches[..fitting].to_vec();
        if let Some(first) = wanted.first_mut() {
            first.1 = 0;
        }
        let got: Vec<_> = decode_touches(&out[..used], 1 << 31).map(Result::unwrap).collect();
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn any_bytes_are_touches_in_range_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        chunk_count in any::<u32>(),
    ) {
        let touches: Vec<_> = decode_touches(&bytes, chunk_count).collect();
        prop_assert!(touches.len() <= bytes.len() / 2 + 1);
        prop_assert!(touches.iter().flatten().all(|(chunk, _)| *chunk < chunk_count));
        prop_assert!(touches.iter().rev().skip(1).all(Result::is_ok), "an error ends the list");
    }
}

#[test]
fn odd_pushes_change_nothing_or_start_another_list() {
    let mut out = [0; 40];
    let mut encoder = RunsEncoder::new(&mut out, 100);
    assert_eq!(encoder.push(99, 1), Err(Full), "before the base");
    assert_eq!(encoder.push(50, 0), Ok(()), "nothing at all");
    assert!(encoder.is_empty());
    encoder.push(100, 5).unwrap();
    assert_eq!(encoder.push(104, 1), Err(Full), "held already");
    assert_eq!(encoder.push(u32::MAX, 9), Ok(()), "no such piece");
    encoder.push(u32::MAX - 1, 9).unwrap();
    let used = encoder.finish();
    assert_eq!(decoded(&out[..used], 100, u32::MAX), [(100, 5), (u32::MAX - 1, 1)]);
}

#[test]
fn a_run_that_cannot_grow_stays() {
    let mut out = [0; 2];
    let mut encoder = RunsEncoder::new(&mut out, 0);
    encoder.push(0, 127).unwrap();
    assert_eq!(encoder.push(127, 1), Err(Full), "128 takes two bytes");
    assert_eq!(encoder.finish(), 2);
    assert_eq!(out, [0, 127]);
}

#[test]
fn bad_lists_are_refused() {
    let runs = |bytes: &[u8], base, limit| decode_runs(bytes, base, limit).last();
    let malformed = Some(Err(WireError::Malformed));
    assert_eq!(runs(&[0, 1], 0, 1), Some(Ok((0, 1))));
    assert_eq!(runs(&[0, 1], 0, 0), malformed, "beyond the limit");
    assert_eq!(runs(&[0, 1], 5, 3), malformed, "a base beyond the limit");
    assert_eq!(runs(&[0, 0], 0, 9), malformed, "an empty run");
    assert_eq!(runs(&[0, 1, 0, 1], 0, 9), malformed, "two runs that are one");
    assert_eq!(runs(&[0, 1, 3], 0, 9), malformed, "cut off");
    assert_eq!(runs(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1], 9, u32::MAX), malformed, "overflow");
    assert_eq!(runs(&[0x80, 0, 1], 0, 9), malformed, "a padded number");
    let touches = |bytes: &[u8], count| decode_touches(bytes, count).last();
    assert_eq!(touches(&[2, 0], 2), Some(Ok((1, 0))));
    assert_eq!(touches(&[2, 0], 1), Some(Err(WireError::Malformed)), "beyond the last chunk");
    assert_eq!(touches(&[1, 0], 9), Some(Err(WireError::Malformed)), "before the first chunk");
    assert_eq!(touches(&[2, 1], 9), Some(Err(WireError::Malformed)), "a gap before the first touch");
    assert_eq!(touches(&[2, 0, 2], 9), Some(Err(WireError::Malformed)), "cut off");
}
