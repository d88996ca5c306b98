//! Makes a Windows-like volume and its boots, shows pack, profile, swarm and update on it, and prints what they cost.
//!
//! `cargo run --release -p swarmdisk-tests --example windows_like -- --out DIR`; needs ntfs-3g's tools, 6 GB of disk and two
//! minutes. **Nothing of it is Windows**: the file system is real, the files, what they hold and when a boot reads them are
//! made up; see `swarmdisk_tests::windows_like` for what the shape was taken from. `DIR` keeps the volume, its boots as traces
//! (those of `sim/data` are the last two), the profile, and all figures in `figures.json`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use swarmdisk_tests::images::folder;
use swarmdisk_tests::process::Swarmdisk;
use swarmdisk_tests::recall::Fit;
use swarmdisk_tests::windows_like::files::Scale;
use swarmdisk_tests::windows_like::show::{Asked, Booted, Packed, Setup, Subject, Swarm, Updated};
use swarmdisk_tests::windows_like::volume::Tools;

/// Makes a Windows-like volume (made up), boots it from a swarm, updates it, and prints what that costs.
#[derive(Parser)]
struct Args {
    /// Keep all that is made in this folder, which must not be there yet [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What the volume and its boots are made of
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many boots; the last is replayed, the profile is of the others
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=100))]
    boots: u64,
    /// How many nodes boot at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,
    /// Divide the guest's think time by this
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    speed: f64,
    /// What the seed and each node send and receive, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    link: u32,
}

/// What `figures.json` has.
#[derive(Serialize)]
struct Figures {
    what: &'static str,
    files: usize,
    packed: Packed,
    boots: Vec<Asked>,
    recall_percent: f64,
    precision_percent: f64,
    swarm: Swarm,
    update: Updated,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let tools = Tools::find().map_err(|missing| missing.to_string())?;
    let temporary = folder();
    let folder = match &args.out {
        Some(out) => {
            let fail = |error| format!("cannot make {}: {error}; choose another --out", out.display());
            std::fs::create_dir(out).map_err(fail)?;
            out
        }
        None => temporary.path(),
    };
    let setup = Setup {
        scale: Scale::FULL,
        seed: args.seed,
        boots: args.boots,
        nodes: args.nodes.into(),
        speed: args.speed,
        link_mbit: args.link,
    };
    eprintln!("making the volume, its update and both packed images");
    let subject = Subject::make(setup, &tools, Swarmdisk::up_to_date(), folder);
    let fit = subject.profile();
    eprintln!("booting {} nodes", args.nodes);
    let swarm = subject.swarm();
    eprintln!("booting the updated volume");
    let figures = Figures {
        what: "Windows-like (made up)",
        files: subject.before.files().len(),
        packed: subject.before.packed(),
        boots: subject.before.boots.iter().map(|boot| subject.before.asked(boot)).collect(),
        recall_percent: fit.recall(),
        precision_percent: fit.precision(),
        swarm,
        update: subject.update(),
    };
    println!("{}", table(&figures, &fit, args));
    let path = folder.join("figures.json");
    let text = serde_json::to_string_pretty(&figures).expect("it is plain data");
    std::fs::write(&path, text + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// All of it in one table.
fn table(figures: &Figures, fit: &Fit, args: &Args) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["Windows-like (made up)", "figure"]);
    let mut row = |what: String, figure: String| {
        table.add_row([what, figure]);
    };
    let (packed, boot) = (&figures.packed, figures.boots.last().expect("there is a boot"));
    let volume = format!("NTFS volume: {} files; of its bytes not zero", figures.files);
    row(volume, format!("{} of {}", mb(packed.data_bytes), mb(packed.image_bytes)));
    let ratio = packed.data_bytes as f64 / packed.payload_bytes as f64;
    row("packed".into(), format!("{}, {ratio:.2} : 1", mb(packed.payload_bytes)));
    row("a boot reads".into(), format!("{} in {} reads", mb(boot.read_bytes), boot.reads));
    row("a boot writes".into(), format!("{} in {} writes", mb(boot.written_bytes), boot.writes));
    row("its working set, packed".into(), mb(boot.working_set_bytes));
    let others = figures.boots.len() - 1;
    row(format!("profile of {others} other boots: recall, precision"), {
        format!("{:.2} %, {:.2} %", fit.recall(), fit.precision())
    });
    let local = &figures.swarm.local;
    row("boot from a complete file, no network".into(), took(local, local));
    for (number, node) in (1..).zip(&figures.swarm.nodes) {
        row(format!("node {number} of {}, links of {} Mbit/s", args.nodes, args.link), took(node, local));
        let fetched = node.report.fetched_bytes;
        row("   from the seed, from nodes".into(), format!("{}, {}", mb(fetched.origin), mb(fetched.peers)));
    }
    let mismatches: u64 = figures.swarm.nodes.iter().map(|node| node.replay.mismatches).sum();
    row("bytes read that were wrong (image and own writes)".into(), format!("in {mismatches} reads"));
    row("sent by the seed, in working sets".into(), {
        format!("{:.2}", figures.swarm.seed_sent_bytes as f64 / boot.working_set_bytes as f64)
    });
    let update = &figures.update;
    row("update: new in the whole volume, packed".into(), mb(update.new_bytes));
    row("its boot's working set".into(), mb(update.working_set_bytes));
    row("   of which node 1 had not".into(), mb(update.missing_bytes));
    row("   sent by the seed, leaf pages included".into(), mb(update.seed_sent_bytes));
    row("   taken from the version before".into(), mb(update.booted.report.other_images_bytes));
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn took(booted: &Booted, local: &Booted) -> String {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let (wall, stall) = (seconds(booted.replay.wall_micros), seconds(booted.report.stall_micros));
    format!("{wall:.1} s, {:.2} x, {stall:.1} s waited", wall / seconds(local.replay.wall_micros))
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
