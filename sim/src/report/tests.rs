//! What reports hold, of an outcome whose figures are known.

use super::{check_folder, page, shortfall, table, write};
use crate::outcome::{Bounds, LinkOutcome, NodeOutcome, Outcome, Ratios, Spread, Totals, Traffic};
use crate::scenario::Scenario;
use std::fs;

/// Two nodes, of which the second waited longer.
fn outcome() -> Outcome {
    let node = |start_micros, run_micros, origin_bytes| NodeOutcome {
        group: "nodes".into(),
        start_micros,
        ready_micros: 20_000,
        run_micros: Some(run_micros),
        local_micros: 1_000_000,
        bound_micros: 1_100_000,
        stall_micros: run_micros - 1_000_000,
        origin_bytes,
        uploaded_bytes: origin_bytes / 2,
        ..NodeOutcome::default()
    };
    let mut scenario = Scenario::default();
    scenario.groups[0].count = 2;
    scenario.groups[0].racks = 2;
    Outcome {
        name: "two".into(),
        about: "Two nodes & a <seed>.".into(),
        seed: 7,
        digest: "00000000000000ab".into(),
        event_count: 1_234_567,
        virtual_micros: 2_000_000,
        booted_count: 2,
        gone_count: 0,
        cut_off: false,
        working_set_bytes: 10_000_000,
        totals: Totals {
            origin_bytes: 12_000_000,
            peer_bytes: 8_000_000,
            far_bytes: 500_000,
            cross_rack_working_sets_per_rack: 0.025,
            cross_rack_working_sets_worst_rack: 0.05,
            metadata_bytes: 1_000_000,
            origin_amplification: 1.2,
            upload_max_over_mean: 1.333,
            run_micros: Spread { min: 1_250_000, p50: 1_500_000, p95: 1_750_000, max: 1_750_000 },
            run_over_local: Ratios { min: 1.25, p50: 1.5, p95: 1.75, max: 1.75 },
            run_over_bound: Ratios { min: 1.14, p50: 1.36, p95: 1.59, max: 1.59 },
            stall_micros: Spread { min: 250_000, p50: 500_000, p95: 750_000, max: 750_000 },
            ..Totals::default()
        },
        bounds: Bounds { distribution_micros: 800_000, run_micros: 1_100_000, one_server_micros: 1_600_000 },
        nodes: vec![node(0, 1_250_000, 8_000_000), node(50_000, 1_750_000, 4_000_000)],
        links: vec![
            LinkOutcome { name: "seed 0 up".into(), rate: 12_500_000, carried_bytes: 12_500_000, use_share: 0.5 },
            LinkOutcome { name: "rack 0 up".into(), rate: 125_000_000, carried_bytes: 187_500_000, use_share: 0.75 },
        ],
        traffic: Traffic {
            step_micros: 500_000,
            origin_bytes: vec![6_000_000, 6_000_000],
            peer_bytes: vec![0, 8_000_000],
            booting: vec![2, 2],
        },
        stall_micros_by_progress: (0..100).map(|bin| if bin < 5 { 100_000 } else { 0 }).collect(),
        scenario,
    }
}

/// None of the two has booted.
fn unfinished() -> Outcome {
    let mut outcome = outcome();
    outcome.booted_count = 0;
    outcome.nodes.iter_mut().for_each(|node| node.run_micros = None);
    outcome.totals.run_micros = Spread::default();
    outcome
}

const TABLE: &str = "\
┌──────────────────────────────────────────────────────────────┐
│ 2 of 2 nodes booted       median   95th percentile   slowest │
╞══════════════════════════════════════════════════════════════╡
│ boot time                 1.50 s            1.75 s    1.75 s │
│ against a local disk      1.50 x            1.75 x    1.75 x │
│ against the lower bound   1.36 x            1.59 x    1.59 x │
│ waited for the network    0.50 s            0.75 s    0.75 s │
└──────────────────────────────────────────────────────────────┘
┌───────────────────────────────────────────────────────────────────────────────────────────────┐
│ bytes                         amount                                                  that is │
╞═══════════════════════════════════════════════════════════════════════════════════════════════╡
│ from seeds                   12.0 MB                       1.200 x the working set of 10.0 MB │
│ from nodes                    8.0 MB                                     40.0 % of all bodies │
│ of both from other racks    500.0 kB   0.025 working sets a rack, of 2 racks; 0.050 the worst │
│ metadata                      1.0 MB                                       4.8 % of all bytes │
│ most that a node uploaded     4.0 MB                                          1.33 x the mean │
│ rack 0 up                   187.5 MB                                    75.0 % of 1.00 Gbit/s │
│ seed 0 up                    12.5 MB                                   50.0 % of 100.0 Mbit/s │
└───────────────────────────────────────────────────────────────────────────────────────────────┘
two: seed 7, digest 00000000000000ab, 2.00 s of virtual time, 1,234,567 events";

#[test]
fn the_tables_are_as_people_know_them() {
    let shown = table(&outcome());
    assert_eq!(shown, TABLE, "\n{shown}");
}

#[test]
fn nothing_booted_is_no_time_of_zero() {
    let shown = table(&unfinished());
    assert!(shown.contains("0 of 2 nodes booted"), "{shown}");
    let row = shown.lines().find(|line| line.contains("boot time")).unwrap();
    assert!(row.contains(" - ") && !row.contains('0'), "{row}");
    let cut = table(&Outcome { cut_off: true, ..unfinished() });
    assert!(cut.contains("0 of 2 nodes booted, cut off"), "{cut}");
}

#[test]
fn many_links_are_summed_up() {
    let mut outcome = outcome();
    let link = |n: u64| LinkOutcome {
        name: format!("seed {n} up"),
        rate: 1,
        carried_bytes: 1_000_000,
        use_share: n as f64 / 100.0,
    };
    outcome.links = (0..30).map(link).collect();
    let shown = table(&outcome);
    assert!(shown.contains("seed 29 up") && shown.contains("seed 24 up") && !shown.contains("seed 23 up"), "{shown}");
    assert!(
        shown.contains("24 more links") && shown.contains("24.0 MB") && shown.contains("at most 23.0 % each"),
        "{shown}"
    );
    let page = page(&outcome).unwrap();
    assert!(page.contains("the 16 used most of 30"));
}

#[test]
fn a_page_has_each_plot_with_its_figures() {
    let page = page(&outcome()).unwrap();
    well_formed(&page);
    for title in [
        "Distribution of boot times",
        "Boot times beside the lower bounds",
        "Traffic over time",
        "Where in their boot guests waited",
        "Use of the seeds' uplinks and of shared links",
        "Origin amplification",
    ] {
        let (_, after) = page.split_once(&format!("<h2>{title}</h2>")).unwrap_or_else(|| panic!("no {title}"));
        let (figure, _) = after.split_once("</figure>").unwrap();
        assert!(figure.contains(&format!("<title>{title}</title>")) && figure.contains("</svg>"), "{title}");
        let expected: &[&str] = match title {
            "Distribution of boot times" => &["time from the node", "nodes, %"],
            "Boot times beside the lower bounds" => &["1.60 s", "0.80 s", "1.10 s", "1.50 s", "1.75 s", "time, s"],
            "Traffic over time" => &["seeds, MB/s", "nodes, MB/s", "booting", "virtual time, s"],
            "Where in their boot guests waited" => &["waited, ms", "reads that the guest had done, %", "0.50 s in all"],
            "Origin amplification" => &["1.00 x", "1.20 x", "2.00 x", "bytes, in working sets"],
            _ => &["50.0 %", "75.0 %", "seed 0 up", "rack 0 up"],
        };
        for text in expected {
            assert!(figure.contains(text), "no `{text}` in {title}:\n{figure}");
        }
    }
    for text in ["seed 7", "00000000000000ab", "Two nodes &amp; a &lt;seed&gt;.", "[[group]]", "count = 2", "1.36 x"] {
        assert!(page.contains(text), "no {text}");
    }
    assert!(!page.contains("class=\"warning\""));
}

#[test]
fn a_page_needs_nothing_else() {
    for outcome in [outcome(), unfinished()] {
        let page = page(&outcome).unwrap();
        for outside in ["http", "//", "src=", "href=", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
    }
}

#[test]
fn a_page_of_hardly_anything_is_whole() {
    let nothing = Outcome {
        virtual_micros: 0,
        links: Vec::new(),
        traffic: Traffic::default(),
        stall_micros_by_progress: Vec::new(),
        bounds: Bounds::default(),
        totals: Totals::default(),
        ..unfinished()
    };
    for outcome in [nothing, unfinished()] {
        let page = page(&outcome).unwrap();
        well_formed(&page);
        assert!(page.contains("No node had booted") && page.contains("class=\"warning\""));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}

#[test]
fn what_fell_short_says_what_to_do() {
    assert_eq!(shortfall(&outcome()), None);
    let limit = shortfall(&unfinished()).unwrap();
    assert!(limit.starts_with("not all booted: 0 of 2 nodes") && limit.contains("--set limit=2400s"), "{limit}");
    let gone = shortfall(&Outcome { gone_count: 2, ..unfinished() }).unwrap();
    assert!(gone.contains("2 nodes had gone for good"), "{gone}");
    let cut = shortfall(&Outcome { cut_off: true, ..unfinished() }).unwrap();
    assert!(cut.starts_with("cut off: 0 of 2 nodes"), "{cut}");
    // Long after the last byte, with nothing left to think about.
    let mut stuck = Outcome { virtual_micros: 60_000_000, ..unfinished() };
    let said = shortfall(&stuck).unwrap();
    assert!(said.starts_with("stuck: 0 of 2 nodes") && said.contains("59.00 s"), "{said}");
    // But a guest may also think for long.
    stuck.nodes.iter_mut().for_each(|node| node.local_micros = 59_000_000);
    assert!(shortfall(&stuck).unwrap().starts_with("not all booted: "));
}

#[test]
fn both_files_are_written_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b");
    check_folder(&deep).unwrap();
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
    write(&outcome(), &deep).unwrap();
    let read: Outcome = serde_json::from_slice(&fs::read(deep.join("result.json")).unwrap()).unwrap();
    assert_eq!(read, outcome());
    assert_eq!(fs::read_to_string(deep.join("report.html")).unwrap(), page(&read).unwrap());
    let error = check_folder(&deep.join("result.json")).unwrap_err().to_string();
    assert!(
        error.contains("result.json") && error.ends_with("choose another --out") && !error.contains('\n'),
        "{error}"
    );
}

/// Every element ends, in the order in which they began, and attributes are quoted.
fn well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>') || open.last() == Some(&"style"), "a lone > in {:?}", &rest[..at]);
        let end = at + rest[at..].find('>').expect("an end of the tag");
        let tag = &rest[at + 1..end];
        assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().expect("a name"));
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
