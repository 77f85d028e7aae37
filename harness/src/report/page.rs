//! Writes the report as one self-contained HTML page, with a narrative of each counterexample to step through.
//!
//! The rows are rendered here, so that the page can be read and printed without its script; the script adds selection,
//! search and the panel next to the story. The output of the store and its file names are untrusted data: the template
//! escapes all of it, the script adds only text to the page, and the page's own policy forbids requests.

use std::collections::BTreeSet;

use askama::Template;

use crate::call::Class;
use crate::invariants;
use crate::locks::{Kind, Mode};
use crate::report::narrative::{Aside, Data, Hold, Lane, Narrative, Step};
use crate::report::{Counterexample, Coverage, InvariantSummary, Report, ScenarioSummary, exit};
use crate::verdict::Verdict;

/// Returns the report as one HTML file. The narratives are those of its counterexamples, in any order.
pub fn page(report: &Report, narratives: &[Narrative]) -> String {
    let mut told: Vec<&Narrative> = narratives.iter().collect();
    let place =
        |narrative: &Narrative| report.invariants.iter().position(|one| one.id == narrative.about.invariant);
    told.sort_by_key(|narrative| place(narrative));
    let mut invariants: Vec<InvariantRow<'_>> =
        report.invariants.iter().map(|one| InvariantRow::new(one, &told)).collect();
    invariants.sort_by_key(|row| rank(row.summary.verdict));
    let page = Page {
        report,
        headline: headline(report),
        elapsed: seconds(report.elapsed_ms),
        invariants,
        scenarios: report.scenarios.iter().map(ScenarioRow::new).collect(),
        examples: (1..)
            .zip(&told)
            .map(|(number, narrative)| Example::new(number, narrative, report))
            .collect(),
        narratives: &told,
        style: include_str!("page.css"),
        script: include_str!("page.js"),
    };
    // Rendering these values and writing to a string cannot fail.
    page.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    report: &'a Report,
    headline: Headline,
    elapsed: String,
    invariants: Vec<InvariantRow<'a>>,
    scenarios: Vec<ScenarioRow<'a>>,
    examples: Vec<Example<'a>>,
    narratives: &'a [&'a Narrative],
    style: &'static str,
    script: &'static str,
}

/// The verdict in a few words.
struct Headline {
    /// CSS class of its colour.
    class: &'static str,
    word: &'static str,
    rest: String,
}

fn headline(report: &Report) -> Headline {
    let of = |verdict: Verdict| {
        let claimed = report.invariants.iter().filter(|one| one.claimed && one.verdict == verdict);
        claimed.map(|one| one.id.as_str()).collect::<Vec<_>>()
    };
    let open = report.invariants.iter().filter(|one| one.claimed && one.is_open());
    let doubtful: Vec<&str> = open.map(|one| one.id.as_str()).collect();
    let new = report.invariants.iter().filter(|one| one.claimed && one.is_newly_violated());
    let broken: Vec<&str> = new.map(|one| one.id.as_str()).collect();
    let (class, word, rest) = match report.exit {
        exit::CONTROL_FAILED => {
            ("violated", "Not judged", "the store does not work without injections".to_owned())
        }
        _ if !broken.is_empty() => ("violated", "Violated", broken.join(", ")),
        _ if report.verdict == Verdict::Holds => {
            ("holds", "Holds", format!("all {} claimed invariants that apply", of(Verdict::Holds).len()))
        }
        _ if doubtful.is_empty() => ("inconclusive", "Inconclusive", "nothing claimed was judged".to_owned()),
        _ => ("inconclusive", "Inconclusive", doubtful.join(", ")),
    };
    Headline { class, word, rest }
}

/// One row of the table of invariants.
struct InvariantRow<'a> {
    summary: &'a InvariantSummary,
    verdict: &'static str,
    statement: &'static str,
    /// How much was judged, or why nothing was judged.
    judged: String,
    /// The numbers of its counterexamples on this page.
    examples: Vec<usize>,
}

impl<'a> InvariantRow<'a> {
    fn new(summary: &'a InvariantSummary, told: &[&Narrative]) -> Self {
        let judged = match (&summary.reason, summary.verdict) {
            (Some(reason), _) => reason.clone(),
            (None, Verdict::Violated) => {
                format!("in {} of {} executions judged", summary.violations, summary.judged)
            }
            (None, _) => format!("in all {} executions judged", summary.judged),
        };
        let examples = (1..).zip(told).filter(|(_, narrative)| narrative.about.invariant == summary.id);
        Self {
            summary,
            verdict: word(summary.verdict),
            statement: invariants::find(&summary.id).map_or("", |invariant| invariant.statement),
            judged,
            examples: examples.map(|(number, _)| number).collect(),
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Violated => "violated",
        Verdict::Inconclusive => "inconclusive",
        Verdict::NotApplicable => "not-applicable",
    }
}

/// Returns the sort rank of a verdict: what needs attention comes first.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Violated => 0,
        Verdict::Inconclusive => 1,
        Verdict::Holds => 2,
        Verdict::NotApplicable => 3,
    }
}

/// One row of the table of scenarios.
struct ScenarioRow<'a> {
    summary: &'a ScenarioSummary,
    coverage: &'static str,
    seconds: String,
}

impl<'a> ScenarioRow<'a> {
    fn new(summary: &'a ScenarioSummary) -> Self {
        let coverage = match summary.coverage {
            Coverage::Complete => "complete",
            Coverage::Bounded => "bounded",
            Coverage::Truncated => "truncated",
        };
        Self { summary, coverage, seconds: seconds(summary.elapsed_ms) }
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

/// One counterexample.
struct Example<'a> {
    number: usize,
    narrative: &'a Narrative,
    /// The corresponding counterexample of the report.
    reported: Option<&'a Counterexample>,
    /// The clients, each with the maximum number of parallel lock bars in its column.
    lanes: Vec<(&'a Lane, usize)>,
    rows: Vec<Row<'a>>,
    has_locks: bool,
}

impl<'a> Example<'a> {
    fn new(number: usize, narrative: &'a Narrative, report: &'a Report) -> Self {
        let of_report = report.invariants.iter().filter(|one| one.id == narrative.about.invariant);
        let lanes = Lanes::new(narrative);
        let mut reported = of_report.flat_map(|one| &one.counterexamples);
        Self {
            number,
            narrative,
            reported: reported.find(|one| one.replay.is_some() && one.replay == narrative.about.replay),
            lanes: narrative.lanes.iter().zip(0..).map(|(lane, place)| (lane, lanes.slots(place))).collect(),
            rows: rows(narrative, &lanes),
            has_locks: !narrative.holds.is_empty(),
        }
    }

    /// Returns the number of columns of its story, without the column of the numbers.
    fn columns(&self) -> usize {
        self.lanes.len().max(1)
    }

    /// Returns the indent of the first client's calls from the edge of their column, in bars.
    fn first_slots(&self) -> usize {
        self.lanes.first().map_or(0, |(_, slots)| *slots)
    }
}

/// One row of a story.
enum Row<'a> {
    /// An event outside the traces.
    Aside(&'a Aside),
    /// A switch to another client: the reason, in the column of the client that stops.
    Turn(&'a str, Vec<Cell>),
    /// The step from which on a violation was inevitable.
    NoReturn(Vec<Cell>),
    /// A call.
    Call(&'a Step, Vec<Cell>),
}

/// A table cell in the column of one client.
struct Cell {
    /// Whether the row's text belongs here.
    has_text: bool,
    /// Maximum number of parallel bars in this column.
    slots: usize,
    bars: Vec<Bar>,
}

/// The segment of a lock's bar in one row.
struct Bar {
    slot: usize,
    shape: &'static str,
    mode: &'static str,
    title: String,
}

fn rows<'a>(narrative: &'a Narrative, lanes: &Lanes<'_>) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    let mut asides = narrative.asides.iter().peekable();
    let mut lane = 0;
    for step in &narrative.steps {
        while let Some(aside) = asides.next_if(|aside| aside.after < step.number) {
            rows.push(Row::Aside(aside));
        }
        if let Some(why) = &step.why {
            rows.push(Row::Turn(why, lanes.cells(lane, step, false)));
        }
        if narrative.point_of_no_return == Some(step.number) {
            rows.push(Row::NoReturn(lanes.cells(step.lane, step, false)));
        }
        rows.push(Row::Call(step, lanes.cells(step.lane, step, true)));
        lane = step.lane;
    }
    rows.extend(asides.map(Row::Aside));
    rows
}

/// Layout of the lock bars in the columns of the clients.
struct Lanes<'a> {
    lanes: &'a [Lane],
    holds: Vec<Placed<'a>>,
}

/// A lock with its slot among the bars of its client.
struct Placed<'a> {
    hold: &'a Hold,
    /// The last step to which it is drawn.
    until: usize,
    slot: usize,
}

impl<'a> Lanes<'a> {
    fn new(narrative: &'a Narrative) -> Self {
        let mut holds: Vec<Placed<'a>> = Vec::new();
        for hold in &narrative.holds {
            let until = hold.to.unwrap_or_else(|| last_of_trace(narrative, hold.from));
            let is_beside = |other: &&Placed<'_>| other.hold.lane == hold.lane && other.until >= hold.from;
            let taken: BTreeSet<usize> = holds.iter().filter(is_beside).map(|other| other.slot).collect();
            let slot = (0..).find(|slot| !taken.contains(slot)).unwrap_or(0);
            holds.push(Placed { hold, until, slot });
        }
        Self { lanes: &narrative.lanes, holds }
    }

    /// Returns the maximum number of parallel bars in the column of a lane.
    fn slots(&self, lane: usize) -> usize {
        let own = self.holds.iter().filter(|placed| placed.hold.lane == lane);
        own.map(|placed| placed.slot + 1).max().unwrap_or(0)
    }

    /// Returns the cells of the row of `step`, or of a row between it and the step before; the text is in the column of
    /// `lane`.
    fn cells(&self, lane: usize, step: &Step, is_step: bool) -> Vec<Cell> {
        let number = step.number;
        let cell = |place: usize| {
            let own = || self.holds.iter().filter(|placed| placed.hold.lane == place);
            let is_here = |placed: &&Placed<'_>| match is_step {
                true => placed.hold.from <= number && placed.until >= number,
                false => placed.hold.from < number && placed.until >= number,
            };
            let bar = |placed: &Placed<'_>| Bar {
                slot: placed.slot,
                shape: match is_step {
                    true if placed.hold.from == number => "from",
                    true if placed.hold.to == Some(number) => "to",
                    _ => "through",
                },
                mode: mode(placed.hold.mode),
                title: format!(
                    "{} {} on {}",
                    mode(placed.hold.mode),
                    kind(placed.hold.kind),
                    placed.hold.file
                ),
            };
            Cell {
                has_text: place == lane,
                slots: self.slots(place),
                bars: own().filter(is_here).map(bar).collect(),
            }
        };
        (0..self.lanes.len()).map(cell).collect()
    }
}

/// Returns the last step of the trace that contains this step.
fn last_of_trace(narrative: &Narrative, number: usize) -> usize {
    let trace = narrative.steps.iter().find(|step| step.number == number).map(|step| step.trace);
    narrative.steps.iter().rfind(|step| Some(step.trace) == trace).map_or(number, |step| step.number)
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Shared => "shared",
        Mode::Exclusive => "exclusive",
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Flock => "flock",
        Kind::Posix => "POSIX lock",
        Kind::Ofd => "OFD lock",
    }
}

impl Step {
    /// Splits the call into its name and its arguments.
    fn name_and_arguments(&self) -> (&str, &str) {
        self.call.split_at(self.call.find('(').unwrap_or(self.call.len()))
    }

    /// Whether it neither reads nor changes content, names or locks, and is of less interest.
    fn is_quiet(&self) -> bool {
        matches!(self.class, Class::Inspect | Class::Close | Class::Open)
            && !self.is_change
            && self.data.is_none()
            && self.locks.is_empty()
            && !self.is_failed
    }
}

#[cfg(test)]
mod tests;
