//! `demo --vm`: a real machine boots from the swarm, its console before the user's eyes.
//!
//! *Purpose*: the proof that the figures of the plain demo stand for something: Debian under QEMU, its disk from a seed over
//! limited links. The first run records the boot; later ones follow the profile made of that. *Invariants*: what is
//! missing is named with the package that has it, and nothing is installed on this machine. *Bounds*: [`BOOT_TIME`] for
//! the boot; 250 MB stay in the cache (the packed appliance), the nodes' own caches are temporary.

use super::appliance::{self, Appliance};
use super::family::{Family, last_line};
use super::report::{bits, megabytes};
use super::ways::{rate, read_report};
use crate::cli::signals;
use crate::cli::{DemoArgs, Failure};
use crate::profile;
use crate::report::AttachReport;
use crate::store::Store;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmdisk_common::file::write_whole;
use swarmdisk_common::trace::Trace;
use swarmdisk_common::units::Micros;
use swarmdisk_core::format::profile::ProfileView;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Most that a boot may take; an emulated one on a busy machine takes a minute or two.
const BOOT_TIME: Duration = Duration::from_secs(600);
/// What the appliance says when all its services run.
const DONE: &str = "BOOT-DONE";
/// Nodes attached; the first one boots.
const NODES: u16 = 2;
/// How QEMU runs the guest, instead of by emulation: `kvm` where that works.
const ACCELERATOR: &str = "SWARMDISK_QEMU_ACCEL";

pub(super) async fn show(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let family = Family::new();
    let folder = tempfile::Builder::new().prefix("swarmdisk-demo-").tempdir()?;
    let outcome = tokio::select! {
        outcome = boot(args, folder.path(), &family) => outcome,
        _ = signals::asked_to_end() => Err(Failure::new("interrupted")),
    };
    family.end().await;
    if let Err(error) = folder.close() {
        crate::log::warn(format_args!("{error}; remove it by hand"));
    }
    outcome?;
    Ok(ExitCode::SUCCESS)
}

async fn boot(args: &DemoArgs, folder: &Path, family: &Arc<Family>) -> Result<(), Failure> {
    let qemu = appliance::find_program("qemu-system-x86_64").ok_or_else(|| {
        Failure::new("there is no qemu-system-x86_64 to boot a machine with; apt-get install qemu-system-x86")
    })?;
    let appliance = appliance::get(family).await?;
    let swarm = appliance.packed().await?;
    let profile = appliance.cache.join("boot.profile");
    let has_profile = is_of(&profile, &swarm);
    let uris = attach(args, folder, family, &swarm, has_profile.then_some(&profile)).await?;
    eprintln!("demo: {NODES} nodes are attached to a seed; starting QEMU on {}", uris[0]);
    let (took, line) = boot_qemu(&qemu, &appliance, &uris[0], folder, family).await?;
    // Asked to end, the nodes write their reports and the recorded boot.
    family.end().await;
    let report = read_report(&report_path(folder, 1)).ok_or_else(|| Failure::new("the node wrote no report"))?;
    let other = read_report(&report_path(folder, 2)).unwrap_or_default();
    let packed_bytes = std::fs::metadata(&swarm)?.len();
    let learnt = match has_profile {
        true => None,
        false => Some(learn(&folder.join("boot.trace"), &swarm, &profile).await?),
    };
    let said = Said { args, took, line: &line, report: &report, other: &other, packed_bytes, learnt };
    print(&said, args.json);
    Ok(())
}

fn report_path(folder: &Path, node: u16) -> PathBuf {
    folder.join(format!("node-{node}.json"))
}

/// Whether there is a profile, of this image.
fn is_of(profile: &Path, swarm: &Path) -> bool {
    let (Ok(bytes), Ok(store)) = (std::fs::read(profile), Store::open_complete(swarm)) else { return false };
    ProfileView::peek_image(&bytes) == Some(store.image())
}

/// Starts the seed and the nodes; gives the URI of each node's disk.
async fn attach(
    args: &DemoArgs,
    folder: &Path,
    family: &Family,
    swarm: &Path,
    profile: Option<&PathBuf>,
) -> Result<Vec<String>, Failure> {
    let text = |path: &Path| path.display().to_string();
    let rate = rate(args.link);
    let mut seed = vec!["seed".into(), text(swarm), "--limit-up".into(), rate.clone()];
    seed.extend(profile.iter().flat_map(|profile| ["--profile".into(), text(profile)]));
    let reference = family.first_line(&seed, &folder.join("seed.log")).await?;
    let mut uris = Vec::new();
    for node in 1..=NODES {
        let mut node_args: Vec<String> =
            ["attach", &reference, "--nbd", "127.0.0.1:0", "--limit-up", &rate, "--limit-down", &rate]
                .map(str::to_owned)
                .into();
        node_args.extend(["--cache".into(), text(&folder.join(format!("cache-{node}")))]);
        node_args.extend(["--report".into(), text(&report_path(folder, node))]);
        if node == 1 {
            node_args.extend(["--record".into(), text(&folder.join("boot.trace"))]);
        }
        let line = family.first_line(&node_args, &folder.join(format!("node-{node}.log"))).await?;
        uris.push(line.trim_start_matches("ready ").to_owned());
    }
    Ok(uris)
}

/// Boots the appliance with its console on stderr; gives the time it took and its last word.
async fn boot_qemu(
    qemu: &Path,
    appliance: &Appliance,
    disk: &str,
    folder: &Path,
    family: &Family,
) -> Result<(Duration, String), Failure> {
    let accelerator = accelerator();
    let processor = if accelerator.starts_with("kvm") { "host" } else { "Nehalem" };
    let mut command = Command::new(qemu);
    command
        .args(["-accel", &accelerator, "-cpu", processor])
        .args("-M q35 -smp 2 -m 1024 -nodefaults -no-user-config -display none -no-reboot".split(' '))
        .args("-chardev stdio,id=console,signal=off -serial chardev:console".split(' '))
        .args("-device virtio-rng-pci -device virtio-blk-pci,drive=disk".split(' '))
        // What the guest writes goes to an unnamed file.
        .args(["-drive", &format!("if=none,id=disk,format=raw,snapshot=on,file={}", disk.replace(',', ",,"))])
        .arg("-kernel")
        .arg(&appliance.kernel)
        .arg("-initrd")
        .arg(&appliance.initrd)
        .args(["-append", "root=LABEL=root ro console=ttyS0 net.ifnames=0 panic=1"])
        .stdout(Stdio::piped());
    let log = folder.join("qemu.log");
    command.stderr(File::create(&log)?);
    let began = Instant::now();
    let console = family.adopt(&mut command)?.ok_or_else(|| Failure::new("QEMU has no output"))?;
    let line = timeout(BOOT_TIME, show_until_done(console)).await;
    match line.map_err(|_| Failure::new(format!("the machine did not say {DONE} in ten minutes")))?? {
        Some(line) => Ok((began.elapsed(), line)),
        None => {
            Err(Failure::new(format!("the machine ended before it said {DONE}; QEMU's last word: {}", last_line(&log))))
        }
    }
}

fn accelerator() -> String {
    std::env::var(ACCELERATOR).unwrap_or_else(|_| "tcg,thread=multi".into())
}

/// Copies the console to stderr until the appliance is up, and gives the line that says so; none if it ends before.
async fn show_until_done(mut console: ChildStdout) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    let mut part = [0; 4096];
    loop {
        let bytes = console.read(&mut part).await?;
        if bytes == 0 {
            return Ok(None);
        }
        std::io::stderr().write_all(&part[..bytes])?;
        for &byte in &part[..bytes] {
            match byte {
                b'\n' if String::from_utf8_lossy(&line).contains(DONE) => {
                    return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
                }
                b'\n' => line.clear(),
                _ => line.push(byte),
            }
        }
    }
}

/// Makes a profile of the recorded boot, for the next time; gives the number of its chunks.
async fn learn(trace: &Path, swarm: &Path, profile: &Path) -> Result<usize, Failure> {
    let (trace, swarm, profile) = (trace.to_owned(), swarm.to_owned(), profile.to_owned());
    let learning = spawn_blocking(move || {
        let recorded = Trace::parse(BufReader::new(File::open(trace)?))?;
        let (bytes, merged) = profile::build(&Store::open_complete(&swarm)?, &[("the boot".into(), recorded)])?;
        write_whole(&profile, |file| file.write_all(&bytes))?;
        Ok::<_, Failure>(merged.entries.len())
    });
    learning.await?
}

/// What there is to say in the end.
struct Said<'a> {
    args: &'a DemoArgs,
    took: Duration,
    line: &'a str,
    report: &'a AttachReport,
    other: &'a AttachReport,
    packed_bytes: u64,
    /// Chunks of a profile that was made just now.
    learnt: Option<usize>,
}

fn print(said: &Said<'_>, as_json: bool) {
    let Said { report, other, .. } = said;
    if as_json {
        let value = serde_json::json!({
            "boot_micros": said.took.as_micros() as u64,
            "console": said.line,
            "link_bytes_per_sec": said.args.link,
            "image_bytes": report.image_bytes,
            "packed_bytes": said.packed_bytes,
            "had_profile": said.learnt.is_none(),
            "booted": report,
            "beside": other,
        });
        println!("{value:#}");
        return;
    }
    let fetched = report.fetched_bytes.origin + report.fetched_bytes.peers;
    let how = match accelerator().starts_with("tcg") {
        true => {
            format!(", which emulates the processor and so sets the pace ({ACCELERATOR}=kvm is faster, where it works)")
        }
        false => String::new(),
    };
    let done = said.line.find(DONE).map_or(said.line, |at| &said.line[at..]);
    println!("\nconsole      {done}");
    println!("booted       in {} under QEMU{}", Micros(said.took.as_micros() as u64), how);
    println!("links        {} up and down for the seed and each node", bits(said.args.link));
    println!("disk         {}, packed {}", megabytes(report.image_bytes), megabytes(said.packed_bytes));
    println!(
        "crossed      {}, {:.1} % of the packed image: {} from the seed, {} from the other node",
        megabytes(fetched),
        fetched as f64 * 100.0 / said.packed_bytes as f64,
        megabytes(report.fetched_bytes.origin),
        megabytes(report.fetched_bytes.peers)
    );
    println!(
        "waited       {} for the network, in {} of {} reads",
        Micros(report.stall_micros),
        report.demand_misses,
        report.guest_reads
    );
    println!(
        "other node   booted nothing; it fetched {} and gave {}",
        megabytes(other.fetched_bytes.origin + other.fetched_bytes.peers),
        megabytes(other.uploaded_bytes)
    );
    match said.learnt {
        Some(chunks) => {
            println!("profile      of {chunks} chunks made from this boot: run it again to boot with it")
        }
        None => println!("profile      from the first boot: the nodes knew what to fetch"),
    }
}
