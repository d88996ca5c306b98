//! The page: one file that needs nothing else, light or dark, wide or narrow.

use super::plots::{Plot, plots};
use super::table::{Rows, identity, times, traffic};
use super::{counted, shortfall};
use crate::outcome::Outcome;
use std::fmt::Write;
use std::io;

const STYLE: &str = include_str!("page.css");

/// The report of a run as HTML.
///
/// # Errors
/// If a plot cannot be drawn or the scenario not be written as TOML: neither comes of an outcome's figures.
pub fn page(outcome: &Outcome) -> io::Result<String> {
    let plots: String = plots(outcome)?.iter().map(figure).collect();
    let scenario = toml::to_string_pretty(&outcome.scenario).map_err(io::Error::other)?;
    let name = escaped(&outcome.name);
    let about = escaped(&outcome.about);
    let nodes = counted(outcome.nodes.len(), "node");
    let seeds = counted(outcome.scenario.seeds.count as usize, "seed");
    let warning = shortfall(outcome)
        .map_or_else(String::new, |text| format!("<p class=\"warning\" role=\"alert\">{}</p>\n", escaped(&text)));
    let tables = [html(&times(outcome)), html(&traffic(outcome))].concat();
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{name}: swarmdisk-sim</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{name}</h1>\n<p>{about}</p>\n<p class=\"quiet\">{nodes}, {seeds}. {}</p>\n</header>\n\
         {warning}<section class=\"tables\">\n{tables}</section>\n\
         <section class=\"plots\">\n{plots}</section>\n\
         <details>\n<summary>The scenario</summary>\n<pre>{}</pre>\n</details>\n</body>\n</html>\n",
        escaped(&identity(outcome)),
        escaped(&scenario),
    ))
}

fn figure(plot: &Plot) -> String {
    let mut text = format!("<figure>\n<h2>{}</h2>\n", plot.title);
    if !plot.legend.is_empty() {
        text += "<ul class=\"legend\">\n";
        for (name, color) in &plot.legend {
            let color = format!("rgb({},{},{})", color.0, color.1, color.2);
            // Writing to a string does not fail.
            let _ = writeln!(text, "<li><i style=\"background:{color}\"></i>{name}</li>");
        }
        text += "</ul>\n";
    }
    let _ = write!(text, "{}", plot.svg);
    if !plot.note.is_empty() {
        let _ = write!(text, "\n<figcaption>{}</figcaption>", escaped(&plot.note));
    }
    text + "\n</figure>\n"
}

fn html(rows: &Rows) -> String {
    let cells = |kind: &str, row: &[String]| -> String {
        row.iter().map(|cell| format!("<{kind}>{}</{kind}>", escaped(cell))).collect()
    };
    let head = cells("th", &rows.header);
    let body: String = rows.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
    format!(
        "<div class=\"table\">\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )
}

/// Text as HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}
