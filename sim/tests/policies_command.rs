//! `swarmdisk-sim policies` as a command: a tiny comparison is a whole document, the same each time, that names its settings.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Few chunks on slow links, so that policies differ.
const SMALL: &str = "[[group]]\ncount = 3\nup = \"20mbit\"\ndown = \"20mbit\"\n[seeds]\nup = \"20mbit\"\n[[image]]\nsize = \"16M\"\n\
                     [[workload]]\nchunks = 60\nthink = \"2ms\"\n[arrivals]\nevery = \"1s\"\n";
/// The same with VMTorrent's pieces and order.
const OWN: &str = "[[image]]\nsize = \"16M\"\nchunk = \"16K\"\npayload-min = \"16K\"\npayload-max = \"16K\"\n[[group]]\nup = \"20mbit\"\n\
                   down = \"20mbit\"\n[seeds]\nup = \"20mbit\"\nunchoked = 1\n[[workload]]\nchunks = 60\nthink = \"2ms\"\n\
                   [arrivals]\nevery = \"1s\"\n[policy]\norder = \"windowed-random\"\nredirect = \"off\"\nprefetch = \"profile\"\n";
const ARGUMENTS: &[&str] = &["--scenarios", ".", "--nodes", "2,4", "--grid", "1,3", "--seeds", "1..3"];

fn policies(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmdisk-sim"));
    command.arg("policies").args(arguments).current_dir(folder).output().unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vmtorrent.toml"), SMALL).unwrap();
    fs::write(folder.path().join("vmtorrent-own.toml"), OWN).unwrap();
    folder
}

/// The cells of a section's last table, its header first.
fn table(text: &str, section: &str) -> Vec<Vec<String>> {
    let after = text.split_once(&format!("{section}\n")).unwrap_or_else(|| panic!("no {section} in {text}")).1;
    let section = after.split_once("\n##").map_or(after, |(section, _)| section);
    let rows = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|-"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn a_comparison_is_a_document_with_all_policies_and_a_plot() {
    let folder = folder();
    let output = policies(folder.path(), &[ARGUMENTS, &["--out", "p.md"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(folder.path().join("p.md")).unwrap();
    let command = "`cargo run --release -p swarmdisk-sim -- policies --out p.md --scenarios . --nodes 2,4 --grid 1,3`";
    assert!(text.contains(command) && text.contains("from the seeds 1, 2, 3"), "{text}");
    for nodes in ["### 2 nodes", "### 4 nodes"] {
        let table = table(&text, nodes);
        assert_eq!(
            table[0],
            ["order", "protection", "median", "95 %", "slowest", "waited", "from the origin", "wasted"]
        );
        // Four orders with each of three protections, one more order with two, and the defaults.
        assert_eq!(table.len() - 1, 4 * 3 + 2 + 1, "{table:?}");
        let number = |row: &[String], at: usize| row[at].parse::<f64>().unwrap_or_else(|_| panic!("{row:?}"));
        let medians: Vec<f64> = table[1..].iter().map(|row| number(row, 2)).collect();
        assert!(medians.is_sorted() && medians[0] >= 1.0, "{medians:?}");
        for row in &table[1..] {
            assert!(number(row, 2) <= number(row, 3) && number(row, 3) <= number(row, 4), "{row:?}");
            assert!(number(row, 6) > 0.99 && row[5].ends_with(" s") && row[7].ends_with(" %"), "{row:?}");
        }
        let amplification = |protection: &str| {
            let row = table.iter().find(|row| row[0] == "in order" && row[1] == protection);
            number(row.unwrap(), 6)
        };
        assert!(amplification("redirects") < amplification("none"), "{table:?}");
    }
    let grid = table(&text, "## VMTorrent's own policy");
    let starts: Vec<&str> = grid[1..].iter().map(|row| row[1].as_str()).collect();
    assert_eq!(starts, ["at once", "at once", "1 s apart", "1 s apart"]);
    let seconds = |cell: &str| cell.strip_suffix(" s").unwrap().parse::<f64>().unwrap();
    for row in &grid[1..] {
        let ratio = seconds(&row[3]) / seconds(&row[2]);
        assert!((row[4].parse::<f64>().unwrap() / ratio - 1.0).abs() < 0.03, "{row:?}");
    }
    let faster = grid[1..].iter().filter(|row| seconds(&row[3]) > seconds(&row[2])).count();
    assert!(text.contains(&format!("Ours is faster at {faster} of 4 points")), "{text}");
    let gaps = table(&text, "## Profiles with gaps, and wrong ones");
    assert_eq!(gaps.len() - 1, 2 * 6, "{gaps:?}");
    let plot = fs::read_to_string(folder.path().join("p.svg")).unwrap();
    assert!(
        text.contains("](p.svg)") && plot.contains("one server") && plot.contains("VMTorrent&apos;s policy"),
        "{plot}"
    );
    let again = policies(folder.path(), &[ARGUMENTS, &["--out", "p.md", "--threads", "1"]].concat());
    assert!(again.status.success());
    assert_eq!(fs::read_to_string(folder.path().join("p.md")).unwrap(), text);
}

#[test]
fn what_cannot_be_is_said_before_anything_runs() {
    let folder = folder();
    fs::create_dir(folder.path().join("f.md")).unwrap();
    for (arguments, exit, said) in [
        (&["--out", "p.svg"][..], 2, "--out docs/policies.md"),
        (&["--out", "f.md"], 1, "f.md is a folder"),
        (&["--out", "p.md", "--nodes", "8,2"], 2, "the smaller number first"),
        (&["--out", "p.md", "--scenarios", "nowhere"], 1, "nowhere/vmtorrent.toml"),
    ] {
        let output = policies(folder.path(), arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{error}");
        assert!(error.contains(said) && error.trim_end().lines().count() == 1, "{error}");
    }
    assert!(!folder.path().join("p.md").exists());
}
