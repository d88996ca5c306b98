//! A Windows-like volume (made up: see `swarmdisk_tests::windows_like`): packed, booted from a swarm with its writes, updated.
//!
//! Only bytes are judged. The figures of a larger one are printed by `--example windows_like`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use swarmdisk_common::guest::Plan;
use swarmdisk_common::trace::{Op, Trace};
use swarmdisk_tests::images::folder;
use swarmdisk_tests::process::Swarmdisk;
use swarmdisk_tests::skip::need;
use swarmdisk_tests::windows_like::files::{self, Scale};
use swarmdisk_tests::windows_like::show::{Setup, Subject, Version};
use swarmdisk_tests::windows_like::volume::{Layout, Tools};

const SETUP: Setup = Setup { scale: Scale::SMALL, seed: 3, boots: 3, nodes: 3, speed: 20.0, link_mbit: 0 };
/// A leaf page, on the wire.
const LEAF_BYTES: u64 = 8 + 256 * 36;

#[test]
fn a_windows_like_volume_is_packed_booted_and_updated() {
    let Some(tools) = need(Tools::find()) else { return };
    let folder = folder();
    let subject = Subject::make(SETUP, &tools, Swarmdisk::find(), folder.path());
    files_lie_where_the_layout_says(&subject.before, folder.path());
    files_lie_where_the_layout_says(&subject.after, folder.path());
    let (old, new) = (&subject.before.layout, &subject.after.layout);
    assert_eq!(old.of("SOFTWARE"), new.of("SOFTWARE"), "an update changes hives where they lie");
    assert_eq!(old.of("ntoskrnl.exe"), new.of("ntoskrnl.exe"), "and leaves the old programs");
    assert_ne!(old.of("ntoskrnl.exe").spans, new.of("ntoskrnl.exe.new").spans);
    subject.before.boots.iter().for_each(|boot| has_the_shape(boot, old));

    let packed = subject.before.packed();
    let ratio = packed.data_bytes as f64 / packed.payload_bytes as f64;
    assert!((1.8..3.2).contains(&ratio), "{ratio}: {packed:?}");
    let fit = subject.profile();
    println!("recall {:.2} %, precision {:.2} %", fit.recall(), fit.precision());
    assert!(fit.recall() > 95.0 && fit.precision() > 95.0, "{fit:?}");

    let asked = subject.before.asked(subject.before.boots.last().unwrap());
    let swarm = subject.swarm();
    for node in swarm.nodes.iter().chain([&swarm.local]) {
        assert_eq!((node.replay.reads, node.replay.writes), (asked.reads, asked.writes));
        assert_eq!((node.replay.mismatches, node.report.corrupt_pieces), (0, 0));
        assert_eq!(node.report.guest_write_bytes, asked.written_bytes);
    }
    for node in &swarm.nodes {
        let fetched = node.report.fetched_bytes.origin + node.report.fetched_bytes.peers;
        assert!(fetched >= asked.working_set_bytes, "a guest cannot read what was not fetched: {node:?}");
    }
    assert!(swarm.seed_sent_bytes < 2 * asked.working_set_bytes, "{} {asked:?}", swarm.seed_sent_bytes);

    let update = subject.update();
    println!("{update:?}");
    assert_eq!(update.booted.replay.mismatches, 0);
    let fetched = update.booted.report.fetched_bytes.origin + update.booted.report.fetched_bytes.peers;
    assert_eq!(fetched, update.missing_bytes, "what the cache had is not fetched");
    let leaves = (SETUP.scale.image_bytes >> 24) * LEAF_BYTES;
    assert!((fetched..=fetched + leaves).contains(&update.seed_sent_bytes), "{update:?}");
    assert!(update.missing_bytes * 2 < update.working_set_bytes && update.new_bytes * 3 < packed.payload_bytes);
}

#[test]
fn the_same_files_lie_in_the_same_places() {
    let Some(tools) = need(Tools::find()) else { return };
    let folder = folder();
    let few: Vec<_> = files::all(&Scale::SMALL, 5).into_iter().step_by(4).collect();
    let layouts = ["one", "two"].map(|name| {
        let (volume, contents) = (folder.path().join(name), folder.path().join("contents"));
        tools.make(&volume, Scale::SMALL.image_bytes);
        for file in &few {
            file.write(&contents).unwrap();
            tools.copy(&volume, &contents, &file.name);
        }
        Layout::read(&volume)
    });
    assert!(layouts[0].files.len() > few.len(), "the file system has files of its own");
    assert_eq!(layouts[0], layouts[1]);
}

/// The layout comes from another implementation of NTFS than the one that wrote the files.
fn files_lie_where_the_layout_says(version: &Version, folder: &Path) {
    let (raw, contents) = (File::open(&version.raw).unwrap(), folder.join("expected"));
    for file in version.files() {
        file.write(&contents).unwrap();
        let mut found = Vec::new();
        for span in &version.layout.of(&file.name).spans {
            let start = found.len();
            found.resize(start + span.bytes as usize, 0);
            raw.read_exact_at(&mut found[start..], span.offset).unwrap();
        }
        let expected = fs::read(&contents).unwrap();
        assert!(found.len() - expected.len() < 4096 && found[..expected.len()] == expected, "{}", file.name);
    }
}

fn has_the_shape(boot: &Trace, layout: &Layout) {
    let of = |op| boot.requests.iter().filter(move |request| request.op == op);
    let share = of(Op::Write).count() as f64 / boot.requests.len() as f64;
    assert!((0.1..0.35).contains(&share), "writes are {share} of the requests");
    for request in &boot.requests {
        let end = request.offset + u64::from(request.bytes);
        assert!(request.offset % 512 == 0 && end % 512 == 0 && end <= layout.image_bytes, "{request}");
    }
    let paged = layout.of("pagefile.sys").spans[0];
    let is_paged = |offset: u64| (paged.offset..paged.offset + paged.bytes).contains(&offset);
    assert!(of(Op::Write).any(|write| is_paged(write.offset)) && of(Op::Read).any(|read| is_paged(read.offset)));
    let plan = Plan::new(boot, layout.image_bytes).unwrap();
    assert!(plan.groups().any(|group| group.len() >= 12), "no burst");
}
