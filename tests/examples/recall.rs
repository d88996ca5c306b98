//! Trains profiles on some recorded boots, tests them on others, and prints how far they carry over.
//!
//! `cargo run --release -p swarmdisk-tests --example recall [FOLDER]`; without a folder, the boots of this repository.
//! No boot is ever in the profile that it is tested with. See `swarmdisk_tests::recall` for what the figures are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use swarmdisk_tests::recall::{Boots, Fit, RecordedBoot};

/// Prints how far profiles of some recorded boots tell what others read.
#[derive(Parser)]
struct Args {
    /// The boots [default: those of this repository]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match Boots::read(&Args::parse().folder.unwrap_or_else(Boots::folder)) {
        Ok(boots) => {
            println!("What was read\n{}\n", boots_table(&boots));
            println!("Recall, %: a line's boots with a profile of a column's\n{}\n", matrix(&boots, Fit::recall));
            println!("Precision, %: the same\n{}\n", matrix(&boots, Fit::precision));
            println!(
                "Profiles of several shapes, %: recall / precision / precision of the head\n{}",
                mixed_table(&boots)
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A boot a line.
fn boots_table(boots: &Boots) -> Table {
    let mut table =
        table(["boot", "reads", "MB", "chunks", "MB", "not in base", "in no other shape", "order of base, %"]);
    let base: BTreeSet<u32> = union(boots.select(|boot| boot.shape == "base"));
    for boot in &boots.boots {
        let others = union(boots.select(|other| other.shape != boot.shape));
        let is_model = |other: &&RecordedBoot| other.shape == "base" && !std::ptr::eq(*other, boot);
        let model = boots.boots.iter().find(is_model);
        table.add_row([
            format!("{}-{}", boot.shape, boot.run),
            boot.read_count().to_string(),
            megabytes(boot.read_bytes()),
            boot.chunks.len().to_string(),
            megabytes((boot.chunks.len() as u64) << 16),
            boot.chunks.difference(&base).count().to_string(),
            boot.chunks.difference(&others).count().to_string(),
            model.map_or_else(String::new, |model| format!("{:.1}", boot.same_order(model))),
        ]);
    }
    aligned(table)
}

/// Shapes against shapes.
fn matrix(boots: &Boots, value: impl Fn(&Fit) -> f64) -> Table {
    let shapes = boots.shapes();
    let mut table = table(["tested"].into_iter().chain(shapes.iter().copied()));
    for tested in &shapes {
        let tested_boots = boots.select(|boot| boot.shape == *tested);
        let cells = shapes.iter().map(|trained| {
            let fit = boots.fit(&boots.select(|boot| boot.shape == *trained), &tested_boots, 0);
            fit.map_or_else(String::new, |fit| format!("{:.1}", value(&fit)))
        });
        table.add_row([(*tested).to_owned()].into_iter().chain(cells));
    }
    aligned(table)
}

/// What one profile for all would do.
fn mixed_table(boots: &Boots) -> Table {
    let head = ["tested", "its shape", "base", "all others", "in half of them", "other shapes", "in half of them"];
    let mut table = table(head);
    for tested in boots.shapes() {
        let tested_boots = boots.select(|boot| boot.shape == tested);
        let cell = |trained: Vec<&RecordedBoot>, percent| {
            let fit = boots.fit(&trained, &tested_boots, percent);
            let shares = |fit: Fit| [fit.recall(), fit.precision(), fit.head_precision()];
            fit.map_or_else(String::new, |fit| shares(fit).map(|share| format!("{share:.1}")).join(" / "))
        };
        table.add_row([
            tested.to_owned(),
            cell(tested_boots.clone(), 0),
            cell(boots.select(|boot| boot.shape == "base"), 0),
            cell(boots.select(|_| true), 0),
            cell(boots.select(|_| true), 50),
            cell(boots.select(|boot| boot.shape != tested), 0),
            cell(boots.select(|boot| boot.shape != tested), 50),
        ]);
    }
    aligned(table)
}

fn union(boots: Vec<&RecordedBoot>) -> BTreeSet<u32> {
    boots.iter().flat_map(|boot| &boot.chunks).copied().collect()
}

fn table<'a>(head: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head);
    table
}

fn aligned(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
