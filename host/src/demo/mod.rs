//! `swarmdisk demo`: what the swarm gains, shown on one machine that needs nothing but this program.
//!
//! *Purpose*: a newcomer sees real figures within a minute or two: one recorded boot, four ways to give it its disk; or,
//! with `--vm`, a real machine that boots from the swarm. *Invariants*: nothing is shown that was not measured in this run;
//! a byte that differs from the image's fails it; however it ends, no process and no file of it is left. *Bounds*: some
//! 400 MB of temporary files and a minute and a half with the default arguments.

#[cfg(target_os = "linux")]
mod appliance;
mod family;
pub mod image;
mod links;
mod report;
#[cfg(target_os = "linux")]
mod vm;
mod ways;

use crate::cli::{DemoArgs, Failure, on_runtime, signals};
use family::Family;
use image::{DemoImage, MakeError};
use indicatif::ProgressBar;
use report::{DemoReport, Way};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use swarmdisk_common::units::Micros;
use tokio::task::spawn_blocking;
use ways::{Setting, WayReport};

/// Runs the demo that is asked for.
///
/// # Errors
/// [`Failure`]: the arguments make no sense, something is missing, or a way to boot failed.
pub fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(Failure::usage(format!("a speed of {} is none; pass a positive number", args.speed)));
    }
    if args.vm { boot_machine(args) } else { on_runtime(show(args)) }
}

#[cfg(target_os = "linux")]
fn boot_machine(args: &DemoArgs) -> Result<ExitCode, Failure> {
    on_runtime(vm::show(args))
}

#[cfg(not(target_os = "linux"))]
fn boot_machine(_args: &DemoArgs) -> Result<ExitCode, Failure> {
    Err(Failure::new("the demo with a virtual machine needs Linux; run `swarmdisk demo` without --vm"))
}

async fn show(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix("swarmdisk-demo-").tempdir()?;
    let family = Family::new();
    let outcome = measure_unless_interrupted(args, folder.path(), &family).await;
    family.end().await;
    if let Err(error) = folder.close() {
        crate::log::warn(format_args!("{error}; remove it by hand"));
    }
    let report = outcome?.finish(began.elapsed());
    if args.json {
        println!("{:#}", report.json());
    } else {
        println!("{report}");
    }
    match report.mismatches() {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Failure::new(format!("{count} reads were not what the image says; report this as a bug"))),
    }
}

async fn measure_unless_interrupted(
    args: &DemoArgs,
    folder: &Path,
    family: &Arc<Family>,
) -> Result<DemoReport, Failure> {
    let end = signals::asked_to_end();
    tokio::pin!(end);
    let cancel = Arc::new(AtomicBool::new(false));
    let (replayed, profiled) = image::recorded_boots()?;
    let replayed = Arc::new(replayed);
    let mut making = spawn_blocking({
        let (folder, replayed, cancel) = (folder.to_owned(), replayed.clone(), cancel.clone());
        move || make_image(&folder, &replayed, profiled, &cancel)
    });
    let image = tokio::select! {
        image = &mut making => image??,
        _ = &mut end => {
            cancel.store(true, Relaxed);
            // It writes into the folder, which can only be removed after that.
            let _ = making.await;
            return Err(interrupted());
        }
    };
    let setting = Setting {
        nodes: args.nodes,
        link_bytes_per_sec: args.link,
        speed: args.speed,
        trace: replayed,
        image,
        folder: folder.to_owned(),
    };
    tokio::select! {
        report = measure(setting, family) => report,
        _ = &mut end => Err(interrupted()),
    }
}

fn interrupted() -> Failure {
    Failure::new("interrupted; nothing is left of the demo")
}

fn make_image(
    folder: &Path,
    replayed: &swarmdisk_common::trace::Trace,
    profiled: swarmdisk_common::trace::Trace,
    cancel: &AtomicBool,
) -> Result<DemoImage, MakeError> {
    let step = Step::begin("making an image to boot");
    let image = image::make(folder, image::IMAGE_BYTES, replayed, profiled, cancel)?;
    step.end();
    Ok(image)
}

async fn measure(setting: Setting, family: &Arc<Family>) -> Result<DemoReport, Failure> {
    let mut ways = Vec::new();
    for (at, way) in Way::ALL.into_iter().enumerate() {
        let step = Step::begin(&format!("{}/{} {}", at + 1, Way::ALL.len(), way.title()));
        let cost: WayReport = match way {
            Way::Local => ways::local(&setting).await?,
            Way::OneServer => ways::one_server(&setting).await?,
            Way::DownloadFirst => ways::download_first(&setting).await?,
            Way::Swarm => ways::swarm(&setting, family).await?,
        };
        step.end();
        ways.push((way, cost));
    }
    Ok(DemoReport::new(setting, ways))
}

/// A step of the demo: on a terminal a line that lives, elsewhere one at the start and one at the end; on stderr.
struct Step {
    name: String,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    fn begin(name: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(format!("{name} …"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("{name} …");
        }
        Self { name: name.to_owned(), began: Instant::now(), bar }
    }

    fn end(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}: {}", self.name, Micros(self.began.elapsed().as_micros() as u64));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
