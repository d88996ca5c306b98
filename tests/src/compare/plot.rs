//! A comparison as a picture (SVG): a bar for each way, on a logarithmic scale.
//!
//! *Invariants*: of a way's several sizes of pieces the best is drawn; what was stopped is drawn open-ended; what is missing
//! or failed is not drawn.

use std::fmt::Write;

use super::outcome::{Comparison, Row};

const WIDTH: f64 = 860.0;
/// Where the bars begin, and how far they may go.
const LEFT: f64 = 290.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 64.0;
const STEP: f64 = 28.0;
const BAR: f64 = 18.0;

impl Comparison {
    /// Draws it; none if there is nothing to be drawn.
    pub fn svg(&self) -> Option<String> {
        let rows = self.drawn();
        let times: Vec<f64> = rows.iter().map(|(_, micros, _)| *micros as f64 / 1e6).collect();
        let least = times.iter().copied().reduce(f64::min)?.max(1e-3);
        let most = times.iter().copied().reduce(f64::max)?;
        let scale = Scale::new(least, most);
        let bottom = TOP + rows.len() as f64 * STEP;
        let height = bottom + 44.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        let mut line = |text: String| writeln!(svg, "{text}").expect("a string can be written to");
        line(format!("<text x=\"16\" y=\"24\" font-size=\"15\" fill=\"#222222\">{}</text>", self.caption()));
        line(
            "<text x=\"16\" y=\"44\" fill=\"#666666\">until the last has booted, in seconds (logarithmic); in \
              brackets: times the local boot</text>"
                .to_owned(),
        );
        for tick in scale.ticks() {
            let x = scale.x(tick);
            line(format!("<path d=\"M{x:.1} {:.1}V{bottom:.1}\" stroke=\"#dddddd\"/>", TOP - 4.0));
            line(format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666666\">{tick}</text>",
                bottom + 18.0
            ));
        }
        for (index, (row, micros, is_bound)) in rows.iter().enumerate() {
            let y = TOP + index as f64 * STEP;
            self.bar(&mut line, row, *micros, *is_bound, y, &scale);
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }

    fn bar(&self, line: &mut impl FnMut(String), row: &Row, micros: u64, is_bound: bool, y: f64, scale: &Scale) {
        let (middle, end) = (y + BAR - 4.5, scale.x(micros as f64 / 1e6));
        let fill = match row.way {
            way if way.is_swarm() => "#2f7d4f",
            super::ways::Way::Local => "#888888",
            _ => "#c0703a",
        };
        let title = row.title().replace('&', "&amp;");
        line(format!(
            "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\" fill=\"#222222\">{title}</text>",
            LEFT - 8.0
        ));
        line(format!("<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{fill}\"/>", end - LEFT));
        if is_bound {
            let half = y + BAR / 2.0;
            line(format!("<path d=\"M{end:.1} {y:.1}h-1v{BAR}h1L{:.1} {half:.1}z\" fill=\"{fill}\"/>", end + 9.0));
        }
        let ratio = self.ratio_to_local(micros).map_or_else(String::new, |ratio| match ratio {
            ratio if ratio < 9.95 => format!(" ({ratio:.2} x)"),
            ratio => format!(" ({ratio:.0} x)"),
        });
        let seconds = match micros as f64 / 1e6 {
            seconds if seconds < 9.95 => format!("{seconds:.2}"),
            seconds => format!("{seconds:.0}"),
        };
        let (sign, gap) = if is_bound { ("&gt; ", 14.0) } else { ("", 6.0) };
        line(format!(
            "<text x=\"{:.1}\" y=\"{middle:.1}\" fill=\"#222222\">{sign}{seconds} s{ratio}</text>",
            end + gap
        ));
    }

    fn caption(&self) -> String {
        let setup = &self.setup;
        let start = match setup.stagger.is_zero() {
            true => "at once".to_owned(),
            false => format!("{} s apart", setup.stagger.as_secs_f64()),
        };
        let contents = if self.image.is_made_up { "made-up contents" } else { "a Debian server" };
        format!("{} nodes start one image {start} ({contents}), links of {} Mbit/s", setup.nodes, setup.link_mbit)
    }

    /// Each way once, by its best row: its time, or what it exceeds.
    fn drawn(&self) -> Vec<(&Row, u64, bool)> {
        let mut drawn: Vec<(&Row, u64, bool)> = Vec::new();
        for row in &self.rows {
            let Some((micros, is_bound)) = row.time_or_bound() else { continue };
            match drawn.iter_mut().find(|(other, ..)| other.way == row.way) {
                Some(other) if (is_bound, micros) < (other.2, other.1) => *other = (row, micros, is_bound),
                Some(_) => {}
                None => drawn.push((row, micros, is_bound)),
            }
        }
        drawn
    }
}

/// Seconds to places, logarithmically, from a round number.
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn new(least: f64, most: f64) -> Self {
        let from = ticks().rfind(|&tick| tick < least * 0.9).unwrap_or(least * 0.5);
        Self { from, to: most.max(from * 2.0) }
    }

    fn x(&self, seconds: f64) -> f64 {
        let share = (seconds / self.from).ln() / (self.to / self.from).ln();
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        ticks().filter(|tick| (self.from..=self.to).contains(tick))
    }
}

/// 1, 2, 5 of each power of ten.
fn ticks() -> impl DoubleEndedIterator<Item = f64> {
    (0..21).map(|index| {
        let power = 10f64.powi(index / 3 - 3);
        // Rounded: a tenth is shown as one.
        ([1.0, 2.0, 5.0][index as usize % 3] * power * 1e6).round() / 1e6
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::outcome::tests::made_up;

    #[test]
    fn each_way_is_drawn_once_by_its_best() {
        let all = made_up();
        let svg = all.svg().unwrap();
        assert!(svg.contains("btfs, pieces of 256 KiB") && !svg.contains("btfs, pieces of 64 KiB"), "{svg}");
        assert!(svg.contains("&gt; 300 s (60 x)") && !svg.contains("rqbit"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 1 + 5);
    }

    #[test]
    fn the_scale_is_logarithmic() {
        let scale = Scale::new(5.0, 200.0);
        assert_eq!((scale.from, scale.x(200.0), scale.x(2.0)), (2.0, RIGHT, LEFT));
        assert!((scale.x(20.0) - f64::midpoint(LEFT, RIGHT)).abs() < 1e-9);
        assert_eq!(scale.ticks().collect::<Vec<_>>(), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
    }
}
