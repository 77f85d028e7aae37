//! Writes the report as JUnit XML: one test case for the control and one for each invariant.

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use crate::invariants;
use crate::report::{InvariantSummary, Report};
use crate::verdict::Verdict;

/// Returns the report as JUnit XML. A violation is a failure, an invariant that could not be judged is an error, and
/// one that does not count is skipped.
pub fn junit(report: &Report) -> String {
    let mut suite = TestSuite::new(format!("picklock check {}", report.target.name));
    suite.add_property(("seed", report.seed.to_string().as_str()));
    let mut control = TestCase::new("control", passed());
    if !report.control.passed {
        let reason = report.control.reason.as_deref().unwrap_or("the store does not work without injections");
        control.status = unlike(NonSuccessKind::Error, "control failed", reason);
    }
    control.set_classname(report.target.name.clone());
    suite.add_test_case(control);
    for invariant in &report.invariants {
        let mut case = TestCase::new(invariant.id.clone(), status(invariant));
        case.set_classname(report.target.name.clone());
        suite.add_test_case(case);
    }
    let mut junit = Junit::new("picklock");
    junit.set_time(std::time::Duration::from_millis(report.elapsed_ms));
    junit.add_test_suite(suite);
    // Writing to memory cannot fail.
    junit.to_string().unwrap_or_default()
}

fn passed() -> TestCaseStatus {
    TestCaseStatus::success()
}

fn status(invariant: &InvariantSummary) -> TestCaseStatus {
    let told = told(invariant);
    let message = told.lines().next().unwrap_or_default().to_owned();
    match invariant.verdict {
        Verdict::Holds => passed(),
        Verdict::Violated if invariant.is_known() => skipped(&format!("known: {message}"), &told),
        Verdict::Violated if !invariant.claimed => skipped(&format!("not claimed: {message}"), &told),
        Verdict::Violated => unlike(NonSuccessKind::Failure, &message, &told),
        Verdict::Inconclusive if invariant.claimed => unlike(NonSuccessKind::Error, &message, &told),
        Verdict::Inconclusive | Verdict::NotApplicable => skipped(&message, &told),
    }
}

fn unlike(kind: NonSuccessKind, message: &str, told: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(message).set_type("picklock").set_description(told);
    status
}

fn skipped(message: &str, told: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(message).set_description(told);
    status
}

/// Describes the result of an invariant, with the most important line first.
pub(crate) fn told(invariant: &InvariantSummary) -> String {
    let mut lines = Vec::new();
    match (&invariant.reason, invariant.verdict) {
        (Some(reason), verdict) => lines.push(format!("{verdict}: {reason}")),
        (None, Verdict::Violated) => {
            lines.push(format!(
                "violated in {} of {} executions judged",
                invariant.violations, invariant.judged
            ));
        }
        (None, verdict) => lines.push(format!("{verdict} in all {} executions judged", invariant.judged)),
    }
    if let Some(known) = invariants::find(&invariant.id) {
        lines.push(format!("{}: {}", invariant.id, known.statement));
    }
    for one in &invariant.counterexamples {
        lines.push(format!("{}: {}", one.scenario, one.summary));
        lines.extend(one.explanation.iter().filter_map(|one| one.sentence.clone()));
        lines.extend(one.diagnosis.iter().map(|cause| format!("likely cause: {cause}")));
        lines.extend(one.replay.iter().map(|replay| format!("next: {replay}")));
    }
    lines.join("\n")
}
