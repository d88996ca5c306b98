//! Drawing surfaces for plots: an SVG that has the page's own text colour, font and width.
//!
//! *Invariants*: no address, no script, no file of its own; text is never wider than the place left for it at the widths that
//! the page gives plots. *Units*: pixels of a plot that is [`WIDTH`] wide, whatever the page makes of it.

use super::page::escaped;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::io;

/// Width of every plot: small enough that its text can be read on a phone.
pub(super) const WIDTH: u32 = 480;
/// Height of a bar with the gap to the next.
const BAR_HEIGHT: u32 = 28;
/// Room of a bar's name.
const NAME_WIDTH: u32 = 142;
/// Height of the axis below.
const AXIS_HEIGHT: u32 = 44;
/// Axes, meshes, and what is only there to compare with.
pub(super) const QUIET: RGBColor = RGBColor(132, 132, 138);
/// Size of all text, as the library counts: 14.5 pixels.
const TEXT: i32 = 18;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// One curve, from left to right.
pub(super) struct Line {
    pub color: RGBColor,
    pub is_dashed: bool,
    pub points: Vec<(f64, f64)>,
}

/// A pair of axes and what stands on them; both begin at 0.
pub(super) struct Axes<'a> {
    pub x_max: f64,
    pub y_max: f64,
    pub x_title: &'a str,
    pub y_title: &'a str,
    pub scale: Scale,
}

/// What a place on both axes stands for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Scale {
    /// Itself.
    Plain,
    /// A power of two: each step is twice the one before.
    Doubling,
}

/// A bar of a chart.
pub(super) struct Bar {
    pub name: String,
    pub value: f64,
    pub text: String,
    pub color: RGBColor,
}

/// Draws something `height` high; `title` is for those who cannot see it.
pub(super) fn svg(title: &str, height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> io::Result<String> {
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, (WIDTH, height)).into_drawing_area();
        draw(&area).and_then(|()| area.present()).map_err(|error| io::Error::other(error.to_string()))?;
    }
    // The page's text colour instead of black: it is light on a dark page. The size is the page's business too.
    let body = drawn.split_once('>').map_or("", |(_, body)| body).replace("\"#000000\"", "\"currentColor\"");
    let title = escaped(title);
    Ok(format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>{body}"
    ))
}

/// Lines, the areas under them filled if `is_filled`.
pub(super) fn lines(area: &Area<'_>, axes: &Axes<'_>, lines: &[Line], is_filled: bool) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin_top(10)
        .margin_right(20)
        .x_label_area_size(if axes.x_title.is_empty() { 8 } else { AXIS_HEIGHT })
        .y_label_area_size(68)
        .build_cartesian_2d(0.0..positive(axes.x_max), 0.0..positive(axes.y_max))?;
    let has_x = !axes.x_title.is_empty();
    let shown = |at: f64| if axes.scale == Scale::Doubling { number(at.exp2()) } else { number(at) };
    let (x_label, y_label) = (|x: &f64| if has_x { shown(*x) } else { String::new() }, |y: &f64| shown(*y));
    let ticks = |end: f64| if axes.scale == Scale::Doubling { end as usize + 1 } else { 6 };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(QUIET.mix(0.25))
        .axis_style(QUIET)
        .set_all_tick_mark_size(5)
        .label_style(("sans-serif", TEXT))
        .axis_desc_style(("sans-serif", TEXT))
        .x_labels(ticks(axes.x_max))
        .y_labels(ticks(axes.y_max))
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .x_desc(axes.x_title)
        .y_desc(axes.y_title)
        .draw()?;
    for line in lines {
        let points = line.points.iter().copied();
        if is_filled {
            chart.draw_series(AreaSeries::new(points.clone(), 0.0, line.color.mix(0.25)))?;
        }
        let style = line.color.stroke_width(2);
        if line.is_dashed {
            chart.draw_series(DashedLineSeries::new(points, 6, 5, style))?;
        } else {
            chart.draw_series(LineSeries::new(points, style))?;
        }
    }
    Ok(())
}

/// Height of a chart of so many bars.
pub(super) fn bars_height(count: usize) -> u32 {
    count as u32 * BAR_HEIGHT + AXIS_HEIGHT + 10
}

/// Bars that lie one below the other, each with its name before and its value behind it. A bar beyond `x_max` is cut, and has
/// a gap that says so.
pub(super) fn bars(area: &Area<'_>, bars: &[Bar], x_max: f64, x_title: &str) -> Drawn {
    let count = bars.len() as f64;
    // Room for the text behind the longest bar.
    let x_max = positive(x_max);
    let x_end = x_max * 1.35;
    let mut chart = ChartBuilder::on(area)
        .margin_top(10)
        .margin_right(8)
        .x_label_area_size(AXIS_HEIGHT)
        .y_label_area_size(NAME_WIDTH)
        .build_cartesian_2d(0.0..x_end, 0.0..count)?;
    let x_label = |x: &f64| if *x <= x_max * 1.001 { number(*x) } else { String::new() };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(QUIET.mix(0.25))
        .axis_style(QUIET)
        .set_all_tick_mark_size(5)
        .disable_mesh()
        .y_labels(0)
        .x_labels(6)
        .label_style(("sans-serif", TEXT))
        .axis_desc_style(("sans-serif", TEXT))
        .x_label_formatter(&x_label)
        .x_desc(x_title)
        .draw()?;
    let anchored = |h| TextStyle::from(("sans-serif", TEXT)).pos(Pos::new(h, VPos::Center));
    for (at, bar) in bars.iter().enumerate() {
        let middle = count - at as f64 - 0.5;
        let end = bar.value.min(x_max);
        let parts = match bar.value > x_max {
            true => vec![(0.0, end * 0.92), (end * 0.94, end * 0.96), (end * 0.98, end)],
            false => vec![(0.0, end)],
        };
        let part = |(from, to)| Rectangle::new([(from, middle - 0.32), (to, middle + 0.32)], bar.color.filled());
        chart.draw_series(parts.into_iter().map(part))?;
        let (x, y) = chart.backend_coord(&(end, middle));
        area.draw(&Text::new(bar.text.clone(), (x + 6, y), anchored(HPos::Left)))?;
        let name_end = NAME_WIDTH as i32 - 8;
        area.draw(&Text::new(shortened(&bar.name), (name_end, y), anchored(HPos::Right)))?;
    }
    Ok(())
}

/// Where an axis ends so that the bars in front can be told apart: `others` are bars that may be cut for that.
pub(super) fn bars_end(front: impl Iterator<Item = f64>, others: f64) -> f64 {
    let front = front.fold(0.0, f64::max);
    if front > 0.0 && others > 4.0 * front { 1.5 * front } else { front.max(others) }
}

/// A name that has room before its bar.
fn shortened(name: &str) -> String {
    const CHARS_MAX: usize = 18;
    match name.chars().count() {
        0..=CHARS_MAX => name.to_owned(),
        _ => name.chars().take(CHARS_MAX - 1).chain(['…']).collect(),
    }
}

/// An axis needs an end beyond its start.
fn positive(end: f64) -> f64 {
    if end.is_finite() && end > 0.0 { end } else { 1.0 }
}

/// A number at an axis: no more decimals than it has, thousands shortened.
fn number(value: f64) -> String {
    let trimmed = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        v if v >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        v if v >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_axes_are_short() {
        let shown: Vec<String> = [0.0, 0.25, 0.1 + 0.2, 7.0, 9_999.0, 25_000.0, 1.5e6].map(number).to_vec();
        assert_eq!(shown, ["0", "0.25", "0.3", "7", "9999", "25k", "1.5M"]);
        assert_eq!(shortened("a name that is longer than its place"), "a name that is lo…");
    }

    #[test]
    fn one_long_bar_does_not_flatten_the_others() {
        assert_eq!(bars_end([1.0, 2.0].into_iter(), 300.0), 3.0);
        assert_eq!(bars_end([1.0, 2.0].into_iter(), 8.0), 8.0);
        assert_eq!(bars_end([0.0].into_iter(), 8.0), 8.0);
        let drawn = |x_max| {
            let long = Bar { name: "long".into(), value: 300.0, text: "300 s".into(), color: RED };
            svg("t", bars_height(1), |area| bars(area, &[long], x_max, "time, s")).unwrap()
        };
        let parts = |svg: &str| svg.matches("fill=\"#FF0000\"").count();
        assert_eq!((parts(&drawn(300.0)), parts(&drawn(3.0))), (1, 3));
    }

    #[test]
    fn a_drawing_has_the_colour_and_width_of_its_page() {
        let axes = Axes { x_max: f64::NAN, y_max: 0.0, x_title: "time, s", y_title: "<y>", scale: Scale::Plain };
        let svg = svg("a < b", 200, |area| lines(area, &axes, &[], true)).unwrap();
        assert!(svg.starts_with("<svg viewBox=\"0 0 480 200\" role=\"img\" aria-label=\"a &lt; b\">"), "{svg}");
        assert!(svg.contains("currentColor") && !svg.contains("#000000") && !svg.contains("http"), "{svg}");
        assert!(svg.contains("&lt;y&gt;"));
    }
}
