//! The plots of a page: which figures, and how they are read.

use super::svg::{Area, Axes, Bar, Drawn, Line, QUIET, Scale, bars, bars_end, bars_height, lines, svg};
use super::table::by_use;
use super::{seconds, share};
use crate::outcome::{LinkOutcome, NodeOutcome, Outcome};
use plotters::style::RGBColor;
use std::io;

/// Steps of the time axis.
const STEPS: usize = 80;
/// Points of a distribution.
const QUANTILES: usize = 200;
/// Said of a bar that does not fit.
const CUT: &str = " The longest bar is cut.";
/// Bars of links.
const LINKS_MAX: usize = 16;

// Each is told from white and from near black, and from the others by those who see fewer colours.
pub(super) const BLUE: RGBColor = RGBColor(46, 125, 221);
pub(super) const ORANGE: RGBColor = RGBColor(222, 98, 32);
const GREEN: RGBColor = RGBColor(24, 150, 106);

/// A plot with what stands above and below it.
pub(super) struct Plot {
    pub title: &'static str,
    pub legend: Vec<(&'static str, RGBColor)>,
    pub note: String,
    pub svg: String,
}

/// All plots, in the order of the page.
pub(super) fn plots(outcome: &Outcome) -> io::Result<Vec<Plot>> {
    Ok(vec![
        boot_times(outcome)?,
        against_bounds(outcome)?,
        over_time(outcome)?,
        stall(outcome)?,
        links(outcome)?,
        amplification(outcome)?,
    ])
}

fn boot_times(outcome: &Outcome) -> io::Result<Plot> {
    let title = "Distribution of boot times";
    let all = outcome.nodes.len();
    let run = outcome.nodes.iter().filter_map(|node| node.run_micros);
    let of = |value: fn(&NodeOutcome) -> u64| cumulative(outcome.nodes.iter().map(value).collect(), all);
    let curves = [
        Line { color: GREEN, is_dashed: false, points: of(|node| node.local_micros) },
        Line { color: ORANGE, is_dashed: true, points: of(|node| node.bound_micros) },
        Line { color: BLUE, is_dashed: false, points: cumulative(run.collect(), all) },
    ];
    let x_max = curves.iter().filter_map(|curve| curve.points.last()).map(|(x, _)| *x).fold(0.0, f64::max) * 1.05;
    let axes = Axes {
        x_max,
        y_max: 100.0,
        x_title: "time from the node's start, s",
        y_title: "nodes, %",
        scale: Scale::Plain,
    };
    let note = match outcome.booted_count {
        0 => "No node had booted: there is no curve of boot times.".into(),
        _ => String::new(),
    };
    Ok(Plot {
        title,
        legend: vec![("this run", BLUE), ("the same guest on a local disk", GREEN), ("lower bound (dashed)", ORANGE)],
        note,
        svg: svg(title, 300, |area| lines(area, &axes, &curves, false))?,
    })
}

/// Steps up from 0 to the share of `all` that these values are, in percent.
fn cumulative(mut micros: Vec<u64>, all: usize) -> Vec<(f64, f64)> {
    micros.sort_unstable();
    let mut points = Vec::new();
    let mut height = 0.0;
    let stride = micros.len().div_ceil(QUANTILES).max(1);
    for (at, value) in micros.iter().enumerate() {
        // The last of each stride, so that the highest point is there.
        if (at + 1) % stride == 0 || at + 1 == micros.len() {
            let x = *value as f64 / 1e6;
            points.push((x, height));
            height = 100.0 * (at + 1) as f64 / all.max(1) as f64;
            points.push((x, height));
        }
    }
    points
}

fn against_bounds(outcome: &Outcome) -> io::Result<Plot> {
    let title = "Boot times beside the lower bounds";
    let (bounds, run) = (&outcome.bounds, &outcome.totals.run_micros);
    let bar = |name: &str, micros: u64, color| Bar {
        name: name.to_owned(),
        value: micros as f64 / 1e6,
        text: if micros == 0 { "none".into() } else { seconds(micros) },
        color,
    };
    let shown = [
        bar("one server", bounds.one_server_micros, QUIET),
        bar("distribution", bounds.distribution_micros, ORANGE),
        bar("run", bounds.run_micros, ORANGE),
        bar("median", run.p50, BLUE),
        bar("95th percentile", run.p95, BLUE),
        bar("slowest", run.max, BLUE),
    ];
    let x_max = bars_end(shown[1..].iter().map(|bar| bar.value), shown[0].value);
    let mut note = String::from(
        "One server: all nodes' working sets through the seeds' uplinks alone. Distribution: to bring the working set to \
         all nodes. Run: a guest behind its own link, the median of all.",
    );
    if shown[0].value > x_max {
        note += CUT;
    }
    if bounds.distribution_micros == 0 {
        note += " There is no distribution bound for nodes that do not start at once.";
    }
    Ok(Plot {
        title,
        legend: vec![("this run", BLUE), ("no swarm can be faster", ORANGE), ("without a swarm", QUIET)],
        note,
        svg: svg(title, bars_height(shown.len()), |area| bars(area, &shown, x_max, "time, s"))?,
    })
}

fn over_time(outcome: &Outcome) -> io::Result<Plot> {
    let title = "Traffic over time";
    let end = outcome.virtual_micros.max(1);
    let traffic = &outcome.traffic;
    // Whole steps of the recording to a step of the plot, so that no byte is cut in two.
    let per_step = (end.div_ceil(traffic.step_micros.max(1)) as usize).div_ceil(STEPS).max(1);
    let step_micros = traffic.step_micros.max(1) * per_step as u64;
    let rates = |bytes: &[u64]| -> Vec<(f64, f64)> {
        let rate = |(step, bytes): (usize, &[u64])| {
            let begin = step as u64 * step_micros;
            let span = step_micros.min(end.saturating_sub(begin)).max(1);
            let rate = bytes.iter().sum::<u64>() as f64 / span as f64;
            [(begin as f64 / 1e6, rate), ((begin + span) as f64 / 1e6, rate)]
        };
        let mut points: Vec<_> = bytes.chunks(per_step).enumerate().flat_map(rate).collect();
        let last = points.last().map_or(0.0, |(x, _)| *x);
        points.extend([(last, 0.0), (end as f64 / 1e6, 0.0)]);
        points
    };
    let panels = [
        (rates(&traffic.origin_bytes), ORANGE, "seeds, MB/s"),
        (rates(&traffic.peer_bytes), BLUE, "nodes, MB/s"),
        (booting(outcome), GREEN, "booting"),
    ];
    let draw = |area: &Area<'_>| -> Drawn {
        let (upper, last) = area.split_vertically(290);
        let (first, second) = upper.split_vertically(145);
        for (number, (area, (points, color, y_title))) in [first, second, last].iter().zip(&panels).enumerate() {
            let y_max = points.iter().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1;
            let x_title = if number == 2 { "virtual time, s" } else { "" };
            let axes = Axes { x_max: end as f64 / 1e6, y_max, x_title, y_title, scale: Scale::Plain };
            lines(area, &axes, &[Line { color: *color, is_dashed: false, points: points.clone() }], true)?;
        }
        Ok(())
    };
    Ok(Plot {
        title,
        legend: vec![("bodies from seeds", ORANGE), ("bodies from nodes", BLUE), ("nodes booting", GREEN)],
        note: "Each panel has its own scale; the time axis is the same. A body counts when all of it has arrived, so that short \
             peaks may be above a link's rate.".into(),
        svg: svg(title, 470, draw)?,
    })
}

/// How many nodes were booting, over time.
fn booting(outcome: &Outcome) -> Vec<(f64, f64)> {
    let end = outcome.virtual_micros;
    let mut changes: Vec<(u64, i64)> = Vec::new();
    for node in outcome.nodes.iter().filter(|node| node.start_micros <= end) {
        changes.push((node.start_micros, 1));
        changes.extend(node.run_micros.map(|run| (node.start_micros + run, -1)));
    }
    changes.sort_unstable();
    let (mut points, mut count) = (vec![(0.0, 0.0)], 0);
    let least_gap = end / (STEPS as u64 * 4);
    let mut drawn = 0;
    for (at, change) in changes {
        // Many at one place are one step.
        if at > drawn + least_gap {
            points.push((drawn as f64 / 1e6, count as f64));
            points.push((at as f64 / 1e6, count as f64));
            drawn = at;
        }
        count += change;
    }
    points.push((drawn as f64 / 1e6, count as f64));
    points.push((end as f64 / 1e6, count as f64));
    points
}

fn stall(outcome: &Outcome) -> io::Result<Plot> {
    let title = "Where in their boot guests waited";
    let bins = &outcome.stall_micros_by_progress;
    let width = 100.0 / bins.len().max(1) as f64;
    let step = |(at, micros): (usize, &u64)| {
        let (x, y) = (at as f64 * width, *micros as f64 / 1e3);
        [(x, y), (x + width, y)]
    };
    let points: Vec<_> = bins.iter().enumerate().flat_map(step).collect();
    let y_max = points.iter().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1;
    let axes = Axes {
        x_max: 100.0,
        y_max,
        x_title: "reads that the guest had done, %",
        y_title: "waited, ms",
        scale: Scale::Plain,
    };
    Ok(Plot {
        title,
        legend: Vec::new(),
        note: format!(
            "Mean over all nodes, for each hundredth of a guest's reads: {} in all.",
            seconds(bins.iter().sum::<u64>())
        ),
        svg: svg(title, 300, |area| lines(area, &axes, &[Line { color: BLUE, is_dashed: false, points }], true))?,
    })
}

fn links(outcome: &Outcome) -> io::Result<Plot> {
    let title = "Use of the seeds' uplinks and of shared links";
    let all = by_use(outcome);
    let is_seed = |link: &LinkOutcome| link.name.starts_with("seed");
    let bar = |link: &&LinkOutcome| Bar {
        name: link.name.clone(),
        value: 100.0 * link.use_share,
        text: format!("{:.1} %", 100.0 * link.use_share),
        color: if is_seed(link) { ORANGE } else { BLUE },
    };
    let shown: Vec<Bar> = all.iter().take(LINKS_MAX).map(bar).collect();
    let note = match all.len() > LINKS_MAX {
        true => format!("Mean over the run; the {LINKS_MAX} used most of {}.", all.len()),
        false => "Mean over the run.".into(),
    };
    Ok(Plot {
        title,
        legend: match outcome.links.iter().all(is_seed) {
            true => Vec::new(),
            false => vec![("seeds", ORANGE), ("racks and zones", BLUE)],
        },
        note,
        svg: svg(title, bars_height(shown.len()), |area| bars(area, &shown, 100.0, "use, % of the link's rate"))?,
    })
}

fn amplification(outcome: &Outcome) -> io::Result<Plot> {
    let title = "Origin amplification";
    let totals = &outcome.totals;
    let bar = |name: &str, value: f64, color| Bar { name: name.into(), value, text: format!("{value:.2} x"), color };
    let bodies = totals.origin_bytes + totals.peer_bytes;
    let received = share(bodies, outcome.working_set_bytes);
    let shown = [
        bar("ideal", 1.0, QUIET),
        bar("seeds sent", totals.origin_amplification, ORANGE),
        bar("nodes received", received, BLUE),
    ];
    let x_max = bars_end(shown[..2].iter().map(|bar| bar.value), received);
    let mut note = String::from(
        "In working sets, all images together. What nodes received is what seeds would have sent without a swarm.",
    );
    if received > x_max {
        note += CUT;
    }
    Ok(Plot {
        title,
        legend: Vec::new(),
        note,
        svg: svg(title, bars_height(shown.len()), |area| bars(area, &shown, x_max, "bytes, in working sets"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_ends_at_the_share_that_came_to_an_end() {
        assert_eq!(cumulative(vec![3_000_000, 1_000_000], 4), [(1.0, 0.0), (1.0, 25.0), (3.0, 25.0), (3.0, 50.0)]);
        assert!(cumulative(Vec::new(), 4).is_empty());
        let many = cumulative((0..10_001).collect(), 10_001);
        assert!(many.len() <= 2 * QUANTILES + 2);
        assert_eq!(many.last(), Some(&(0.01, 100.0)));
    }
}
