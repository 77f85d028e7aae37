//! Formats benchmark results as a table for the terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::{Measured, Row};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBT: Style = AnsiColor::Yellow.on_default();

/// Formats the tables and the remarks on them.
pub fn table(measured: &Measured) -> String {
    let mut text = String::new();
    let place = &measured.place;
    // Writing to a string cannot fail.
    let _ok = writeln!(
        text,
        "{BOLD}picklock bench{BOLD:#}: {}, on {}, {} processors; a write of 4 KiB and its flush take {} here: at most {} \
         flushed updates a second",
        measured.subject,
        place.file_system,
        place.processors,
        time(place.flush_ns),
        rate(1e9 / place.flush_ns.max(1) as f64)
    );
    let is_of_locks = measured.subject == super::LOCKS;
    let width = measured.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut group = None;
    for row in &measured.rows {
        if group != Some((row.clients, row.hold_ns)) {
            group = Some((row.clients, row.hold_ns));
            text.push_str(&head(row, width, is_of_locks));
        }
        text.push_str(&line(row, width, is_of_locks));
    }
    grown(&mut text, measured, width);
    for one in &measured.comparison {
        let _ok = writeln!(
            text,
            "  with {}: {:.2} times as fast as {} ({:.2} to {:.2})",
            clients(one.clients),
            one.ratio.median,
            one.other,
            one.ratio.least,
            one.ratio.most
        );
    }
    conclude(&mut text, measured);
    text
}

fn head(row: &Row, width: usize, is_of_locks: bool) -> String {
    let (what, wait, bad) = match is_of_locks {
        true => ("acquisitions/s", "wait p50", "both inside"),
        false => ("updates/s", "took p50", "lost"),
    };
    let held = match (is_of_locks, row.hold_ns) {
        (true, 0) => ", let go at once".to_owned(),
        (true, hold) => format!(", held for {}", time(hold)),
        (false, _) => String::new(),
    };
    format!(
        "\n{BOLD}{}{held}{BOLD:#}\n  {DIM}{:<width$} {what:>14} {:>13} {wait:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>13} {bad:>11}{DIM:#}\n",
        clients(row.clients),
        "",
        "least–most",
        "p99",
        "p99.9",
        "max",
        "handover",
        "Jain",
        "shares",
    )
}

fn line(row: &Row, width: usize, is_of_locks: bool) -> String {
    let noisy = if row.rate.is_noisy() { "~" } else { "" };
    let bad = match row.violations {
        0 => "0".to_owned(),
        violations => format!("{BAD}{violations}{BAD:#}"),
    };
    let failed =
        if row.failed > 0 { format!("  {DOUBT}{} failed{DOUBT:#}", row.failed) } else { String::new() };
    let flushes = if is_of_locks { String::new() } else { format!("  {:.2} of flushes", row.of_flushes) };
    format!(
        "  {:<width$} {:>14} {:>13} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6.2} {:>13} {:>11}{flushes}{failed}\n",
        row.name,
        format!("{noisy}{}", rate(row.rate.median)),
        format!("{}–{}", rate(row.rate.least), rate(row.rate.most)),
        time(row.wait.p50),
        time(row.wait.p99),
        time(row.wait.p999),
        time(row.wait.max),
        row.handover_ns.map_or("–".to_owned(), time),
        row.jain,
        format!("{:.0}–{:.0} %", row.shares.0 * 100.0, row.shares.1 * 100.0),
        bad
    )
}

fn grown(text: &mut String, measured: &Measured, width: usize) {
    let names: Vec<&str> = measured.growth.iter().map(|one| one.name.as_str()).collect();
    let mut told = Vec::new();
    for name in names {
        if told.contains(&name) {
            continue;
        }
        if told.is_empty() {
            let _ok = writeln!(text, "\n{BOLD}what an update costs as the store grows{BOLD:#}, one client");
        }
        told.push(name);
        let of = measured.growth.iter().filter(|one| one.name == name);
        let all: Vec<String> =
            of.map(|one| format!("{} at {} records", time(one.update_ns), one.records)).collect();
        let _ok = writeln!(text, "  {name:<width$} {}", all.join(", "));
    }
    if !measured.comparison.is_empty() {
        let _ok = writeln!(text, "\n{BOLD}{} beside another{BOLD:#}, run by run", measured.subject);
    }
}

fn conclude(text: &mut String, measured: &Measured) {
    text.push('\n');
    let mut say = |line: String| {
        let _ok = writeln!(text, "{line}");
    };
    let (noisy, all) = (measured.noisy(), measured.rows.len());
    if noisy > 0 {
        say(format!(
            "{DOUBT}{noisy} of {all} rates{DOUBT:#}, marked ~, lie more than 30 % apart from run to run: too far to tell them \
             from others; try more --runs or a longer --time"
        ));
    }
    if measured.place.load > measured.place.processors as f64 {
        say(format!(
            "{DOUBT}the machine was busy{DOUBT:#} before anything began: its load was {:.1} on {} processors",
            measured.place.load, measured.place.processors
        ));
    }
    let broken: u64 = measured.rows.iter().map(|row| row.violations).sum();
    if broken > 0 {
        let what = if measured.subject == super::LOCKS {
            "times two were inside at once"
        } else {
            "updates were lost"
        };
        say(format!("{BAD}{broken} {what}{BAD:#}: a figure that is not earned"));
    }
    for unmet in &measured.unmet {
        say(format!("{BAD}not as required{BAD:#}: {unmet}"));
    }
    if measured.interrupted {
        say(format!("{DOUBT}interrupted{DOUBT:#}: this is what was measured until then"));
    }
    let style = if measured.exit == 0 { GOOD } else { BAD };
    say(format!("{style}exit {}{style:#}", measured.exit));
}

fn clients(count: u32) -> String {
    if count == 1 { "1 client".to_owned() } else { format!("{count} clients") }
}

/// Formats a rate per second with three significant digits.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1} k", rate / 1e3),
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

/// Formats a time in nanoseconds with three significant digits.
pub fn time(nanos: u64) -> String {
    let nanos = nanos as f64;
    let (value, unit) = match nanos {
        nanos if nanos >= 1e9 => (nanos / 1e9, "s"),
        nanos if nanos >= 1e6 => (nanos / 1e6, "ms"),
        nanos if nanos >= 1e3 => (nanos / 1e3, "µs"),
        nanos => (nanos, "ns"),
    };
    match value {
        value if value >= 100.0 || unit == "ns" => format!("{value:.0} {unit}"),
        value if value >= 10.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.2} {unit}"),
    }
}
