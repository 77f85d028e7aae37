//! Writes the report for the terminal: coverage, violations, records, and what to do next.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::evidence::about;
use crate::report::{Coverage, InvariantSummary, Report, ScenarioSummary, exit};
use crate::target::Target;
use crate::verdict::Verdict;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBT: Style = AnsiColor::Yellow.on_default();
/// Column where the text of a row begins.
const INDENT: usize = 43;

/// Level of detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Violations, what could not be judged, and the verdict.
    Quiet,
    /// A summary for a quick look.
    Normal,
    /// Everything.
    Verbose,
}

/// Returns the header, which is known before anything runs: which store is judged.
pub fn header(target: &Target) -> String {
    let mut text = String::new();
    let version = env!("CARGO_PKG_VERSION");
    // Writing to a string cannot fail.
    let _ok = writeln!(
        text,
        "{BOLD}picklock {version}{BOLD:#} judges {BOLD}{}{BOLD:#} ({})",
        target.name, target.origin
    );
    for (name, command) in target.commands() {
        let name = name.trim_start_matches("ops.");
        let _ok = writeln!(text, "  {DIM}{name:<8}{DIM:#} {command}");
    }
    text
}

/// Returns the report itself, for a terminal of `width` columns.
pub fn body(report: &Report, detail: Detail, width: usize) -> String {
    let mut page = Page { text: String::new(), width: width.max(INDENT + 30) };
    if detail != Detail::Quiet {
        page.what_was_tried(report);
    } else if !report.control.passed {
        page.control(report);
    }
    let has_open = report.invariants.iter().any(|one| one.claimed && one.is_open());
    for invariant in &report.invariants {
        // If no claimed invariant is open, nothing was judged.
        let is_why = match report.exit {
            exit::INCONCLUSIVE if !has_open => invariant.verdict != Verdict::Holds,
            _ => invariant.is_open(),
        };
        let is_told = invariant.verdict == Verdict::Violated || (invariant.claimed && is_why);
        if detail != Detail::Quiet || is_told {
            page.invariant(invariant, detail);
        }
    }
    if detail != Detail::Quiet {
        page.remarks(report, detail);
    }
    page.conclusion(report);
    page.text
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Writes text after a head that is `taken` columns wide, and wraps it under its own beginning.
    fn row(&mut self, head: &str, taken: usize, text: &str) {
        let indent = " ".repeat(INDENT);
        let options = textwrap::Options::new(self.width.saturating_sub(INDENT)).break_words(false);
        let gap = " ".repeat(INDENT.saturating_sub(taken).max(1));
        for (index, line) in textwrap::wrap(text, options).iter().enumerate() {
            let begin = if index == 0 { format!("{head}{gap}") } else { indent.clone() };
            self.line(format!("{begin}{line}").trim_end());
        }
        if text.is_empty() {
            self.line(head.trim_end());
        }
    }

    fn control(&mut self, report: &Report) {
        let control = if report.control.passed { "passed" } else { "FAILED" };
        let style = if report.control.passed { GOOD } else { BAD };
        let head = format!("  {BOLD}{:<16}{BOLD:#} {style}{control}{style:#}", "control");
        let works = match report.estimate_ms {
            Some(time) => format!(
                "the store works without injections; the minimum evidence takes {}",
                about(Duration::from_millis(time))
            ),
            None => "the store works without injections".to_owned(),
        };
        self.row(&head, 25, report.control.reason.as_deref().unwrap_or(&works));
    }

    fn what_was_tried(&mut self, report: &Report) {
        self.control(report);
        for scenario in &report.scenarios {
            self.scenario(scenario);
        }
        self.line("");
    }

    fn scenario(&mut self, scenario: &ScenarioSummary) {
        let counts = &scenario.operations;
        let mut ended = Vec::new();
        for (count, how) in [
            (counts.acknowledged, "acknowledged"),
            (counts.refused, "refused"),
            (counts.busy, "busy"),
            (counts.failed, "failed"),
            (counts.killed, "killed"),
        ] {
            if count > 0 {
                ended.push(format!("{count} {how}"));
            }
        }
        let (coverage, style) = match scenario.coverage {
            Coverage::Complete => ("complete", GOOD),
            Coverage::Bounded => ("bounded", GOOD),
            Coverage::Truncated => ("truncated", DOUBT),
        };
        let seconds = scenario.elapsed_ms as f64 / 1000.0;
        let head = format!("  {BOLD}{:<16}{BOLD:#} {style}{coverage}{style:#}", scenario.id);
        let states = match scenario.states {
            0 => String::new(),
            states => format!("{states} states, "),
        };
        let ended = if ended.is_empty() { String::new() } else { format!(": {}", ended.join(", ")) };
        let text = format!(
            "{states}{} executions, {} operations in {seconds:.1} s{ended}; {}",
            scenario.executions,
            counts.total(),
            scenario.bound
        );
        self.row(&head, 19 + coverage.len(), &text);
    }

    fn invariant(&mut self, invariant: &InvariantSummary, detail: Detail) {
        let (word, style) = match invariant.verdict {
            Verdict::Holds => ("holds", GOOD),
            Verdict::Violated if invariant.is_known() => ("known", DOUBT),
            Verdict::Violated => ("VIOLATED", BAD),
            Verdict::Inconclusive => ("inconclusive", DOUBT),
            Verdict::NotApplicable => ("not-applicable", DIM),
        };
        let head = format!("  {style}{word:<14}{style:#} {BOLD}{}{BOLD:#}", invariant.id);
        let taken = 17 + invariant.id.len();
        let mut text = match (&invariant.reason, invariant.verdict) {
            (Some(reason), _) => reason.clone(),
            (None, Verdict::Violated) => {
                let known = if invariant.is_known() { "violated as the baseline knows, " } else { "" };
                format!("{known}in {} of {} executions judged", invariant.violations, invariant.judged)
            }
            (None, _) => format!("in all {} executions judged", invariant.judged),
        };
        if !invariant.claimed {
            text.push_str(" (not claimed)");
        }
        self.row(&head, taken, &text);
        let shown = if detail == Detail::Verbose { usize::MAX } else { 1 };
        for counterexample in invariant.counterexamples.iter().take(shown) {
            self.row("", 0, &format!("{}: {}", counterexample.scenario, counterexample.summary));
            let explanation = counterexample.explanation.as_ref();
            if let Some(sentence) = explanation.and_then(|explanation| explanation.sentence.as_ref()) {
                self.row("", 0, sentence);
            }
            if let Some(diagnosis) = &counterexample.diagnosis {
                self.row("", 0, &format!("likely cause: {diagnosis}"));
            }
            if !counterexample.confirmed.is_empty() {
                self.row("", 0, &format!("seen on {}", counterexample.confirmed.join(", ")));
            }
            if let Some(sandbox) = &counterexample.sandbox {
                self.row("", 0, &format!("left in {sandbox}"));
            }
        }
    }

    fn remarks(&mut self, report: &Report, detail: Detail) {
        if !report.remarks.is_empty() || !report.diagnoses.is_empty() {
            self.line("");
        }
        for diagnosis in &report.diagnoses {
            let head = format!("  {DIM}diagnosis{DIM:#}      {}", diagnosis.id);
            let text = format!("{} ({}: {})", diagnosis.summary, diagnosis.op, diagnosis.call);
            self.row(&head, 17 + diagnosis.id.len(), &text);
        }
        for remark in &report.remarks {
            let head = format!("  {DIM}remark{DIM:#}         {}", remark.id);
            self.row(&head, 17 + remark.id.len(), &remark.text);
        }
        if detail == Detail::Verbose {
            for scenario in &report.scenarios {
                if let Some(plan) = &scenario.plan {
                    self.row(
                        &format!("  {DIM}plan{DIM:#}           {}", scenario.id),
                        17 + scenario.id.len(),
                        plan,
                    );
                }
            }
        }
        if detail == Detail::Verbose || report.exit == exit::HOLDS {
            for (index, text) in report.not_covered.iter().enumerate() {
                let head = if index == 0 { format!("  {DIM}not covered{DIM:#}") } else { String::new() };
                self.row(&head, if index == 0 { 13 } else { 0 }, text);
            }
        }
    }

    fn conclusion(&mut self, report: &Report) {
        let claimed = || report.invariants.iter().filter(|invariant| invariant.claimed);
        let of = |verdict: Verdict| {
            claimed()
                .filter(|invariant| invariant.verdict == verdict)
                .map(|invariant| invariant.id.as_str())
                .collect::<Vec<_>>()
        };
        let seconds = report.elapsed_ms as f64 / 1000.0;
        let tail = format!("{DIM}seed {}, {seconds:.1} s, exit {}{DIM:#}", report.seed, report.exit);
        let broken: Vec<&str> =
            claimed().filter(|one| one.is_newly_violated()).map(|one| one.id.as_str()).collect();
        let known = claimed().filter(|one| one.is_known()).count();
        let doubtful: Vec<&str> = claimed().filter(|one| one.is_open()).map(|one| one.id.as_str()).collect();
        let scope = if report.scope.is_empty() { String::new() } else { format!(", {}", report.scope) };
        self.line("");
        let interrupted =
            if report.interrupted { format!("{DOUBT}interrupted{DOUBT:#}; so far: ") } else { String::new() };
        match report.exit {
            exit::CONTROL_FAILED => {
                self.line(&format!("{BAD}control failed{BAD:#}: nothing was judged  {tail}"));
                self.line(
                    "  next: make the store work without injections, or correct its commands; see the reason above",
                );
            }
            _ if !broken.is_empty() => {
                self.line(&format!("{interrupted}{BAD}violated{BAD:#}: {}  {tail}", broken.join(", ")));
                let violated = claimed().find(|invariant| invariant.id == broken[0]);
                let mut replays = violated.into_iter().flat_map(|invariant| &invariant.counterexamples);
                let next = match replays.find_map(|counterexample| counterexample.replay.clone()) {
                    Some(replay) => replay,
                    None => format!("picklock explain {}", broken[0]),
                };
                self.line(&format!("  next: {next}"));
                self.line(&format!("  tried {}", report.scope));
            }
            _ if !doubtful.is_empty() || report.verdict == Verdict::Inconclusive => {
                let names = if doubtful.is_empty() {
                    "nothing claimed was judged".to_owned()
                } else {
                    doubtful.join(", ")
                };
                self.line(&format!("{interrupted}{DOUBT}inconclusive{DOUBT:#}: {names}  {tail}"));
                if report.exit == exit::HOLDS {
                    let count = doubtful.len();
                    self.line(&format!(
                        "  --allow-partial: nothing is violated{scope}; {count} claimed invariants are inconclusive for want \
                         of time alone"
                    ));
                    return;
                }
                self.line(
                    "  next: see the reasons above; a larger --budget, more --clients or --disclaim ID may help",
                );
                self.line(&format!("  tried {}", report.scope));
            }
            _ => {
                let holding = of(Verdict::Holds).len();
                let cut = report.scenarios.iter().filter(|one| one.coverage == Coverage::Truncated);
                let cut: Vec<&str> = cut.map(|one| one.id.as_str()).collect();
                let but = if known > 0 {
                    format!(" but {known} that are known to be violated")
                } else {
                    String::new()
                };
                let as_far = match cut.is_empty() {
                    true => String::new(),
                    false => format!("; the budget ended early in {}", cut.join(", ")),
                };
                self.line(&format!(
                    "{interrupted}{GOOD}holds{GOOD:#}{scope}: all {holding} claimed invariants that apply{but}{as_far}  {tail}"
                ));
            }
        }
    }
}
