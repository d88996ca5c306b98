//! The comparison with other ways: each of them gives a guest the image's bytes, or says what it lacks.
//!
//! Only answers are judged, never times: those are for `--example compare`.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarmdisk_tests::compare::outcome::{Comparison, State};
use swarmdisk_tests::compare::session::Failure;
use swarmdisk_tests::compare::subject::Subject;
use swarmdisk_tests::compare::ways::Way;
use swarmdisk_tests::compare::{self, Setup};
use swarmdisk_tests::images::{Numbers, folder};
use swarmdisk_tests::skip::{need, skip_or_fail};

/// Four times what both boots touch must fit in.
const IMAGE_BYTES: u64 = 96 << 20;
const READS: u64 = 50;
/// No package of Debian brings these: the one is built from its registry, the other is an option of swarmdisk itself.
const UNPACKAGED: [Way; 2] = [Way::Rqbit, Way::Live];

/// A short boot of a small disk: a read each 20 ms.
fn write_trace(path: &Path, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut text = String::new();
    for read in 0..READS {
        let bytes = 4096 << numbers.below(5);
        let offset = numbers.below((IMAGE_BYTES - bytes) / 4096) * 4096;
        writeln!(text, "{} R {offset} {bytes}", read * 20_000).unwrap();
    }
    fs::write(path, text).unwrap();
}

fn subject(folder: &Path) -> Subject {
    let [one, two] = ["one.trace", "two.trace"].map(|name| folder.join(name));
    write_trace(&one, 1);
    write_trace(&two, 2);
    Subject::made_up(IMAGE_BYTES, &one, &two, &AtomicBool::new(false)).unwrap()
}

fn setup(ways: &[Way]) -> Setup {
    Setup {
        nodes: 2,
        link_mbit: 200,
        stagger: Duration::from_millis(50),
        bound: Duration::from_secs(30),
        piece_bytes: vec![256 << 10],
        ways: ways.to_vec(),
        ..Setup::default()
    }
}

fn is_torrent(way: Way) -> bool {
    way.is_torrent_download() || way.is_torrent_on_demand()
}

fn run(subject: &Subject, ways: &[Way]) -> Comparison {
    compare::compare(subject, &setup(ways), &AtomicBool::new(false), &|line| println!("{line}")).unwrap()
}

#[test]
fn each_way_gives_the_image_or_says_what_it_lacks() {
    if need(compare::check(&setup(&[]))).is_none() {
        return;
    }
    let folder = folder();
    let subject = subject(folder.path());
    let found = run(&subject, &Way::ALL);
    println!("{}", found.text());
    assert_eq!(found.rows.iter().map(|row| row.way).collect::<Vec<_>>(), Way::ALL);
    for row in &found.rows {
        match &row.state {
            State::Measured => {
                let nodes: Vec<_> = row.runs.iter().flat_map(|run| &run.nodes).map(|node| node.unwrap()).collect();
                assert_eq!(nodes.iter().map(|node| (node.reads, node.mismatches)).collect::<Vec<_>>(), [(READS, 0); 2]);
                let sent = row.server_sent_bytes().unwrap();
                let least = if row.way == Way::Local { 0 } else { subject.working_set_bytes };
                assert!(sent >= least, "{}: {sent} bytes", row.way);
            }
            // Its nodes may find their peers on a second try only, which libtorrent makes after a minute.
            State::Stopped if is_torrent(row.way) => println!("{}: not in time", row.way),
            State::Missing(what) if UNPACKAGED.contains(&row.way) => println!("{}: {what}", row.way),
            State::Missing(what) => skip_or_fail(&format!("{}: {what}", row.way)),
            other => panic!("{}: {other:?}", row.way),
        }
        assert!(found.text().contains(&row.title()), "{} is left out in silence", row.way);
    }
    assert!(found.svg().is_some_and(|svg| svg.contains("swarm, profile")));
}

#[test]
fn a_wrong_byte_fails_a_way() {
    if need(compare::check(&setup(&[]))).is_none() {
        return;
    }
    let folder = folder();
    let subject = subject(folder.path());
    // What is compared with changes after the image was packed.
    let mut image = fs::read(&subject.raw).unwrap();
    image.iter_mut().for_each(|byte| *byte = !*byte);
    fs::write(&subject.raw, image).unwrap();
    let found = run(&subject, &[Way::Profile]);
    assert!(matches!(&found.rows[0].state, State::Failed(why) if why.contains("not what the image says")), "{found:?}");
    assert_eq!(found.slowest_micros(Way::Profile), None);
}

#[test]
fn a_way_is_stopped_at_its_bound_and_whoever_asks_ends_all() {
    if need(compare::check(&setup(&[]))).is_none() {
        return;
    }
    let folder = folder();
    let subject = subject(folder.path());
    // The guest alone thinks for twenty minutes.
    let slow = Setup { think_divisor: 1e-3, bound: Duration::from_millis(300), ..setup(&[Way::Local]) };
    let quiet = |_: &str| {};
    let found = compare::compare(&subject, &slow, &AtomicBool::new(false), &quiet).unwrap();
    assert_eq!((&found.rows[0].state, found.rows[0].slowest_micros()), (&State::Stopped, None));
    let cancel = AtomicBool::new(true);
    let ended = compare::compare(&subject, &setup(&[Way::Profile]), &cancel, &quiet);
    assert!(matches!(ended, Err(Failure::Interrupted)) && cancel.load(Ordering::Relaxed));
}
