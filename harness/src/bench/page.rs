//! Writes benchmark results as an HTML page with plots.

use std::collections::BTreeMap;

use askama::Template;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::table::{rate, time};
use super::{Comparison, Figure, Measured, Row};

/// Size of a plot, in pixels.
const SIZE: (u32, u32) = (760, 400);
/// Width of the legend in it.
const LEGEND: u32 = 130;
/// Colours that also differ in brightness, after Okabe and Ito, "Color Universal Design", 2008; with one of our own.
const COLORS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 120, 90),
    RGBColor(160, 70, 130),
    RGBColor(70, 140, 200),
    RGBColor(150, 110, 0),
    RGBColor(90, 90, 90),
    RGBColor(190, 30, 45),
    RGBColor(20, 20, 20),
];

/// Renders the page as one HTML file.
pub fn page(measured: &Measured) -> String {
    let mut plots = Vec::new();
    let mut holds: Vec<u64> = measured.rows.iter().map(|row| row.hold_ns).collect();
    holds.dedup();
    let is_of_locks = measured.subject == super::LOCKS;
    let what = if is_of_locks { "Acquisitions" } else { "Updates" };
    for hold in holds {
        let held = match (is_of_locks, hold) {
            (true, 0) => ", let go at once".to_owned(),
            (true, hold) => format!(", held for {}", time(hold)),
            (false, _) => String::new(),
        };
        let rows: Vec<&Row> = measured.rows.iter().filter(|row| row.hold_ns == hold).collect();
        plots.push(Plot::new(&format!("{what} a second by clients{held}"), &rows, Axis::Magnitude, |row| {
            row.rate.median
        }));
        plots.push(Plot::new(
            &format!("99 of 100 waited at most, in milliseconds, by clients{held}"),
            &rows,
            Axis::Magnitude,
            |row| row.wait.p99 as f64 / 1e6,
        ));
        plots.push(Plot::new(
            &format!("Jain's index of fairness by clients{held}"),
            &rows,
            Axis::Share,
            |row| row.jain,
        ));
    }
    let flush = format!(
        "{}: at most {} flushed updates a second",
        time(measured.place.flush_ns),
        rate(1e9 / measured.place.flush_ns.max(1) as f64)
    );
    let growth = measured.growth.iter();
    let growth = growth
        .map(|one| format!("{}: {} at {} records", one.name, time(one.update_ns), one.records))
        .collect();
    let comparison = measured.comparison.iter().map(|one| {
        let Comparison { other, clients, ratio: Figure { median, least, most } } = one;
        format!("With {clients} clients: {median:.2} times as fast as {other} ({least:.2} to {most:.2})")
    });
    let comparison = comparison.collect();
    let rows = measured.rows.iter().map(Line::new).collect();
    let page = Page { measured, plots, flush, growth, comparison, rows, is_of_locks };
    // Formatting the values cannot fail, nor can writing to a string.
    page.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "bench.html")]
struct Page<'a> {
    measured: &'a Measured,
    plots: Vec<Plot>,
    flush: String,
    growth: Vec<String>,
    comparison: Vec<String>,
    rows: Vec<Line<'a>>,
    is_of_locks: bool,
}

/// Points of each line, by its name.
type Series<'a> = BTreeMap<&'a str, Vec<(f64, f64)>>;

/// A plot as SVG.
struct Plot {
    title: String,
    svg: String,
}

impl Plot {
    fn new(title: &str, rows: &[&Row], axis: Axis, figure: impl Fn(&Row) -> f64) -> Self {
        let mut series = Series::new();
        let mut names: Vec<&str> = Vec::new();
        for row in rows {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
            // A logarithmic axis has no zero.
            let value = figure(row).max(1e-6);
            series.entry(&row.name).or_default().push((f64::from(row.clients), value));
        }
        let mut svg = String::new();
        let drawn = draw(&mut svg, &names, &series, axis);
        // A plot that cannot be drawn is skipped; the table has its figures.
        if drawn.is_err() {
            svg.clear();
        }
        // Screen readers read its title, not each line.
        let label = format!("<svg role=\"img\" aria-label=\"{}\" ", title.replace('"', "'"));
        Self { title: title.to_owned(), svg: svg.replacen("<svg ", &label, 1) }
    }
}

/// Scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// Linear, from zero to one.
    Share,
    /// Logarithmic.
    Magnitude,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failed = Box<dyn std::error::Error>;

fn draw(svg: &mut String, names: &[&str], series: &Series<'_>, axis: Axis) -> Result<(), Failed> {
    let points = || series.values().flatten();
    let most = points().fold(1e-6_f64, |most, (_, value)| most.max(*value));
    let least = points().fold(f64::MAX, |least, (_, value)| least.min(*value)).min(most);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 - LEGEND);
    match axis {
        Axis::Share => draw_lines(&left, names, series, 0.0..1.05)?,
        Axis::Magnitude => draw_lines(&left, names, series, (least * 0.8..most * 1.25).log_scale())?,
    }
    for (place, name) in names.iter().enumerate() {
        let y = 24 + 22 * i32::try_from(place)?;
        let color = COLORS[place % COLORS.len()];
        right.draw(&PathElement::new([(0, y), (22, y)], color.stroke_width(2)))?;
        right.draw(&Text::new((*name).to_owned(), (30, y - 8), ("sans-serif", 15)))?;
        draw_mark(&right, (11, y), place)?;
    }
    Ok(root.present()?)
}

fn draw_lines<Y>(area: &Area<'_>, names: &[&str], series: &Series<'_>, y: Y) -> Result<(), Failed>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let clients = series.values().flatten().fold(1.0_f64, |clients, (x, _)| clients.max(*x));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d((0.9..clients * 1.1).log_scale(), y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 15))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| short(*y))
        .x_desc("clients")
        .draw()?;
    for (place, name) in names.iter().enumerate() {
        let Some(points) = series.get(name) else { continue };
        chart.draw_series(LineSeries::new(
            points.iter().copied(),
            COLORS[place % COLORS.len()].stroke_width(2),
        ))?;
        for point in points {
            draw_mark(chart.plotting_area(), *point, place)?;
        }
    }
    Ok(())
}

/// Draws circles, triangles and crosses in turn, so that lines differ without their colours.
fn draw_mark<C: CoordTranslate>(
    area: &DrawingArea<SVGBackend<'_>, C>,
    at: C::From,
    place: usize,
) -> Result<(), Failed>
where
    C::From: Clone,
{
    let color = COLORS[place % COLORS.len()];
    match place % 3 {
        0 => area.draw(&Circle::new(at, 4, color.filled()))?,
        1 => area.draw(&TriangleMarker::new(at, 6, color.filled()))?,
        _ => area.draw(&Cross::new(at, 4, color.stroke_width(2)))?,
    }
    Ok(())
}

/// Formats a number on an axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value if value >= 0.01 => format!("{}", (value * 1000.0).round() / 1000.0),
        value => format!("{value:e}"),
    }
}

/// A line of the table, as text.
struct Line<'a> {
    row: &'a Row,
    hold: String,
    rate: String,
    spread: String,
    waits: [String; 4],
    handover: String,
    jain: String,
    shares: String,
}

impl<'a> Line<'a> {
    fn new(row: &'a Row) -> Self {
        let wait = row.wait;
        Self {
            row,
            hold: if row.hold_ns == 0 { "–".to_owned() } else { time(row.hold_ns) },
            rate: format!("{}{}", if row.rate.is_noisy() { "~" } else { "" }, rate(row.rate.median)),
            spread: format!("{}–{}", rate(row.rate.least), rate(row.rate.most)),
            waits: [wait.p50, wait.p99, wait.p999, wait.max].map(time),
            handover: row.handover_ns.map_or("–".to_owned(), time),
            jain: format!("{:.2}", row.jain),
            shares: format!("{:.0}–{:.0} %", row.shares.0 * 100.0, row.shares.1 * 100.0),
        }
    }
}
