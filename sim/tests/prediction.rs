//! What profiles of recorded boots foresee of other boots: recall and precision. No network and no engine: a link that brings
//! in a few guesses between two touches stands for both.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use swarmdisk_common::profile::{MergeError, Merged, merge};
use swarmdisk_common::trace::{Op, Trace};
use swarmdisk_core::bitmap::{Bits, assign};
use swarmdisk_core::format::profile::{encode, encoded_bytes_max};
use swarmdisk_core::geometry::{ChunkIndex, Geometry};
use swarmdisk_core::ids::{Digest, GuestId};
use swarmdisk_core::policy::{Access, ChunkView, Forecast, Predictor, Profile};
use swarmdisk_core::time::Instant;

/// A chunk as it is sent, in the mean of recorded images.
const CHUNK_WIRE_BYTES: usize = 24_000;

fn geometry() -> Geometry {
    Geometry::new(8 << 30, 16).unwrap()
}

fn boot(number: u32) -> Trace {
    let path = format!("{}/data/server-boot-{number}.trace", env!("CARGO_MANIFEST_DIR"));
    Trace::parse(BufReader::new(File::open(path).unwrap())).unwrap()
}

/// What the first boot has read when about half of its chunks are there, as places of the disk.
fn start() -> BTreeSet<u64> {
    boot(1).requests.iter().filter(|request| request.micros <= 40_000_000).map(|request| request.offset >> 16).collect()
}

/// The boot with all it reads beyond `start` moved to elsewhere on the disk: another workload after the same start.
fn other_workload(trace: &Trace, start: &BTreeSet<u64>) -> Trace {
    let mut other = trace.clone();
    for request in other.requests.iter_mut().filter(|request| !start.contains(&(request.offset >> 16))) {
        request.offset += 4 << 30;
    }
    other
}

/// The boot without all that.
fn start_alone(trace: &Trace, start: &BTreeSet<u64>) -> Trace {
    let mut part = trace.clone();
    part.requests.retain(|request| start.contains(&(request.offset >> 16)));
    part
}

fn profile(traces: &[Trace]) -> Merged {
    let named: Vec<(String, Trace)> = traces.iter().map(|trace| ("a boot".to_owned(), trace.clone())).collect();
    let merged = merge(geometry(), &named, |_: ChunkIndex| Ok::<_, MergeError>(false)).unwrap();
    let mut bytes = vec![0; encoded_bytes_max(merged.groups.len(), merged.entries.len())];
    let length = encode(Digest([0; 32]), &merged.groups, &merged.entries, &mut bytes).unwrap();
    let share = length as f64 / (merged.entries.len() * CHUNK_WIRE_BYTES) as f64;
    println!("{length} bytes, {:.3} % of the working set; groups {:?}", share * 100.0, merged.groups);
    assert!(share <= 0.01);
    merged
}

/// What was held before it was touched, and what of all that was fetched as a guess was touched at last, in percent.
fn follow(merged: &Merged, trace: &Trace) -> (f64, f64) {
    const PER_REQUEST: usize = 4;
    let (geometry, words) = (geometry(), geometry().bitmap_words());
    let mut profile = Profile::new(&merged.entries, 0);
    let (mut held, mut touched, flight) = (vec![0; words], vec![0; words], vec![0; words]);
    let (mut fetched, mut all, mut foreseen) = (BTreeSet::new(), BTreeSet::new(), 0);
    for request in trace.requests.iter().filter(|request| request.op == Op::Read && request.bytes > 0) {
        let now = Instant::from_micros(request.micros);
        let mut out = Forecast::new();
        let of = |words| Bits::new(words, geometry.piece_count());
        profile.forecast(now, &ChunkView::new(geometry, of(&held), of(&flight), of(&touched)), &mut out);
        for guess in out.iter().take(PER_REQUEST) {
            assign(&mut held, guess.chunk.get(), true);
            fetched.insert(guess.chunk);
        }
        let last = request.offset + u64::from(request.bytes) - 1;
        for index in (request.offset >> 16) as u32..=(last >> 16) as u32 {
            let chunk = geometry.chunk(index).unwrap();
            let (hit, first) = (!assign(&mut held, index, true), assign(&mut touched, index, true));
            foreseen += u32::from(first && hit);
            all.insert(chunk);
            profile.observe(now, Access { guest: GuestId(0), chunk, hit, first });
        }
    }
    let recall = f64::from(foreseen) * 100.0 / all.len() as f64;
    let precision = fetched.intersection(&all).count() as f64 * 100.0 / fetched.len().max(1) as f64;
    println!("recall {recall:.1} %, precision {precision:.1} %");
    (recall, precision)
}

#[test]
fn one_boot_foresees_the_next() {
    for (known, played) in [(1, 2), (2, 1)] {
        let (recall, precision) = follow(&profile(&[boot(known)]), &boot(played));
        assert!(recall >= 99.0 && precision >= 97.0);
    }
}

#[test]
fn workloads_in_one_profile_do_not_disturb_each_other() {
    let start = start();
    let known = [boot(1), other_workload(&boot(1), &start), start_alone(&boot(1), &start)];
    let merged = profile(&known);
    assert_eq!(merged.groups.len(), 3);
    for played in [boot(2), other_workload(&boot(2), &start), start_alone(&boot(2), &start)] {
        let (recall, precision) = follow(&merged, &played);
        assert!(recall >= 97.0 && precision >= 90.0);
    }
}

#[test]
fn a_profile_of_another_workload_is_given_up() {
    let elsewhere = other_workload(&boot(1), &BTreeSet::new());
    let merged = profile(&[boot(1)]);
    let (recall, _) = follow(&merged, &elsewhere);
    let fetched_at_most = 100.0 * 17.0 * 4.0 / merged.entries.len() as f64;
    assert!(recall <= fetched_at_most);
}
