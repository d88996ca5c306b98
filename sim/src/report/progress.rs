//! How far a run has come: a line that changes on a terminal, plain lines elsewhere, both on stderr.

use super::{counted, seconds};
use crate::world::World;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};
use swarmdisk_common::output::remark;

/// Plain lines come when so many more percent of the nodes have booted.
const PLAIN_STEP_PERCENT: u64 = 10;
/// And at least so often.
const PLAIN_SPAN: Duration = Duration::from_secs(30);

/// Shows the progress of one run. Dropped, the bar goes.
pub struct Progress {
    bar: Option<ProgressBar>,
    plain: Plain,
    started: Instant,
}

impl Progress {
    /// Begins to show a run of so many nodes.
    pub fn new(nodes: usize) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_bar} {msg}");
            ProgressBar::new(nodes as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, plain: Plain::default(), started: Instant::now() }
    }

    /// Shows how the run stands.
    pub fn update(&mut self, world: &World<'_>) {
        let all = world.setup().nodes.len() - world.setup().seed_count();
        let wall = self.started.elapsed();
        let now = Standing {
            booted: all - world.booting(),
            all,
            virtual_micros: world.now() / 1000,
            event_count: world.event_count(),
            wall,
        };
        match &self.bar {
            Some(bar) => {
                bar.set_position(now.booted as u64);
                bar.set_message(now.line());
            }
            None if self.plain.is_due(&now) => remark(now.line()),
            None => {}
        }
    }

    /// How long it has taken by the clock on the wall, and the pace.
    pub fn wall_line(&self, event_count: u64) -> String {
        let wall = self.started.elapsed();
        format!("wall time {}, {}", seconds(wall.as_micros() as u64), pace(event_count, wall))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

struct Standing {
    booted: usize,
    all: usize,
    virtual_micros: u64,
    event_count: u64,
    wall: Duration,
}

impl Standing {
    fn line(&self) -> String {
        format!(
            "{} of {} booted, {} virtual, {} wall, {}",
            self.booted,
            counted(self.all, "node"),
            seconds(self.virtual_micros),
            seconds(self.wall.as_micros() as u64),
            pace(self.event_count, self.wall)
        )
    }
}

fn pace(event_count: u64, wall: Duration) -> String {
    match event_count as f64 / wall.as_secs_f64().max(1e-3) {
        pace if pace < 1e6 => format!("{:.0}k events/s", pace / 1e3),
        pace => format!("{:.1}M events/s", pace / 1e6),
    }
}

/// When plain lines are due.
#[derive(Debug, Default)]
struct Plain {
    said_percent: u64,
    said_at: Duration,
}

impl Plain {
    fn is_due(&mut self, now: &Standing) -> bool {
        let percent = (now.booted * 100 / now.all.max(1)) as u64;
        let step = percent - percent % PLAIN_STEP_PERCENT;
        let is_due = step > self.said_percent || now.wall >= self.said_at + PLAIN_SPAN;
        if is_due {
            *self = Self { said_percent: step, said_at: now.wall };
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(booted: usize, seconds: u64) -> Standing {
        Standing {
            booted,
            all: 40,
            virtual_micros: 1_500_000,
            event_count: 3_000_000,
            wall: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn plain_lines_come_by_tenths_and_by_time() {
        let mut plain = Plain::default();
        let said: Vec<bool> =
            [(0, 0), (3, 1), (4, 2), (7, 3), (9, 3), (9, 32), (9, 33), (9, 62), (9, 63), (40, 64), (40, 65)]
                .map(|(booted, seconds)| plain.is_due(&at(booted, seconds)))
                .to_vec();
        assert_eq!(said, [false, false, true, false, true, false, true, false, true, true, false]);
        assert_eq!(at(9, 2).line(), "9 of 40 nodes booted, 1.50 s virtual, 2.00 s wall, 1.5M events/s");
    }
}
