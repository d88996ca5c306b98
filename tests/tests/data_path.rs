//! The benchmark of the data path: each of its figures comes out, and every byte that was read or fetched was right.
//!
//! Never what the figures are: those are for `--example data_path`.

use std::sync::atomic::AtomicBool;

use swarmdisk_tests::compare::session::Failure;
use swarmdisk_tests::data_path::{Group, Setup, measure};
use swarmdisk_tests::skip::skip_or_fail;

/// So many rows each group has.
const ROWS: [(Group, usize); 8] = [
    (Group::Nbd, 12),
    (Group::Iscsi, 4),
    (Group::Ublk, 4),
    (Group::VhostUser, 4),
    (Group::Fetch, 4),
    (Group::Latency, 4),
    (Group::Memory, 3),
    (Group::Idle, 2),
];

#[test]
fn each_figure_comes_out() {
    let setup = Setup { rounds: 1, is_quick: true };
    for (group, rows) in ROWS {
        let report = measure(&[group], setup, &AtomicBool::new(false), &|line| println!("{line}")).unwrap();
        let text = report.text();
        println!("{text}");
        match report.failures.as_slice() {
            [] => {}
            [(_, Failure::Missing(missing))] => {
                skip_or_fail(&format!("{group}: {missing}"));
                continue;
            }
            failures => panic!("{failures:?}"),
        }
        assert_eq!(report.figures.len(), rows, "{text}");
        for figure in &report.figures {
            let ratio = figure.ratio().unwrap_or_else(|| panic!("{} has no ratio", figure.what));
            assert!(ratio.median.is_finite() && ratio.least <= ratio.greatest, "{}: {ratio:?}", figure.what);
            assert_eq!(figure.ours.len(), 1, "{}", figure.what);
            assert!(text.contains(&figure.what), "{} is left out in silence", figure.what);
        }
    }
}
