//! How something grows with the number of nodes, as a plot in a file of its own.
//!
//! *Invariants*: the file needs nothing else and has its own background, so that it can be read on a light and a dark page.

use super::plots::{BLUE, ORANGE};
use super::svg::{Area, Axes, Drawn, Line, QUIET, Scale, WIDTH, lines, svg};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::io;

/// Height of the plot.
const HEIGHT: u32 = 320;
/// Where the names of the curves stand, and how far apart.
const NAMES_AT: (i32, i32) = (84, 26);
const NAMES_APART: i32 = 21;
/// The text of a page that is white.
const INK: &str = "#222222";

/// A curve by the number of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Nodes and value, both 1 or more; the nodes grow.
    pub points: Vec<(u32, f64)>,
}

/// Draws up to three curves: ours, what it is compared with, and a bound. Both axes double at each step.
///
/// # Errors
/// If it cannot be drawn: that does not come of the figures.
pub fn growth(title: &str, y_title: &str, curves: &[Curve]) -> io::Result<String> {
    let colors = [BLUE, ORANGE, QUIET];
    let place = |(nodes, value): &(u32, f64)| (f64::from(*nodes).max(1.0).log2(), value.max(1.0).log2());
    let line = |(curve, color): (&Curve, RGBColor)| Line {
        color,
        is_dashed: color == QUIET,
        points: curve.points.iter().map(place).collect(),
    };
    let drawn: Vec<Line> = curves.iter().zip(colors).map(line).collect();
    let end =
        |axis: fn(&(f64, f64)) -> f64| drawn.iter().flat_map(|line| &line.points).map(axis).fold(1.0, f64::max).ceil();
    let (x_max, y_max) = (end(|(x, _)| *x), end(|(_, y)| *y));
    let axes = Axes { x_max, y_max, x_title: "nodes that start at once", y_title, scale: Scale::Doubling };
    let names: Vec<(&str, RGBColor)> = curves.iter().map(|curve| curve.name.as_str()).zip(colors).collect();
    let plot = svg(title, HEIGHT, |area| {
        lines(area, &axes, &drawn, false)?;
        legend(area, &names)
    })?;
    let (head, body) = plot.split_once('>').unwrap_or(("", &plot));
    let head = head.replacen("<svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"", 1);
    let body = body.replace("currentColor", INK);
    let ground = format!("</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>");
    Ok(format!("{head}>{}\n", body.trim().replacen("</title>", &ground, 1)))
}

fn legend(area: &Area<'_>, names: &[(&str, RGBColor)]) -> Drawn {
    let style = TextStyle::from(("sans-serif", 17)).pos(Pos::new(HPos::Left, VPos::Center));
    let mut at = NAMES_AT;
    for (name, color) in names {
        area.draw(&Rectangle::new([(at.0, at.1 - 2), (at.0 + 18, at.1 + 2)], color.filled()))?;
        area.draw(&Text::new((*name).to_owned(), (at.0 + 26, at.1), style.clone()))?;
        at.1 += NAMES_APART;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_stands_alone_and_its_axes_double() {
        let curve = |name: &str, points: &[(u32, f64)]| Curve { name: name.into(), points: points.to_vec() };
        let curves = [curve("ours", &[(1, 1.0), (8, 1.0)]), curve("a < b", &[(1, 1.5), (8, 4.0)])];
        let drawn = growth("growth", "times", &curves).unwrap();
        assert!(drawn.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 480 320\""), "{drawn}");
        assert!(drawn.trim_end().ends_with("</svg>") && !drawn.contains("currentColor"), "{drawn}");
        assert!(drawn.contains("ours") && drawn.contains("a &lt; b"), "{drawn}");
        let ticks: Vec<&str> = drawn.lines().map(str::trim).filter(|line| line.parse::<u32>().is_ok()).collect();
        assert_eq!(ticks, ["1", "2", "4", "1", "2", "4", "8"], "{drawn}");
        assert!(drawn.contains("#2E7DDD") && drawn.contains("#DE6220"), "{drawn}");
    }
}
