//! Writes the report for a GitHub workflow: annotations and a step summary in Markdown.

use std::fmt::Write as _;

use crate::report::junit::told;
use crate::report::{InvariantSummary, Report, exit};
use crate::verdict::Verdict;

/// Returns lines that the runner shows as annotations: errors for violations, warnings for what could not be judged.
pub fn annotations(report: &Report) -> String {
    let mut text = String::new();
    if !report.control.passed {
        let reason = report.control.reason.as_deref().unwrap_or("the store does not work without injections");
        annotate(&mut text, "error", &format!("control failed: {}", report.target.name), reason);
    }
    for invariant in &report.invariants {
        let title = format!("{} {}: {}", invariant.id, invariant.verdict, report.target.name);
        if let Some(level) = level(invariant) {
            annotate(&mut text, level, &title, &told(invariant));
        }
    }
    text
}

fn level(invariant: &InvariantSummary) -> Option<&'static str> {
    match invariant.verdict {
        Verdict::Violated if invariant.is_known() || !invariant.claimed => Some("notice"),
        Verdict::Violated => Some("error"),
        Verdict::Inconclusive if invariant.claimed => Some("warning"),
        _ => None,
    }
}

/// Writes one workflow command, see <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>;
/// special characters are escaped.
fn annotate(text: &mut String, level: &str, title: &str, message: &str) {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    // Writing to a string cannot fail.
    let _ok = writeln!(text, "::{level} title={}::{}", property(title), data(message));
}

/// Returns the step summary as Markdown.
pub fn summary(report: &Report) -> String {
    let name = code(&report.target.name);
    let mut text = format!(
        "### picklock: {name} – {}\n\nseed {}, {:.1} s, exit {}\n\n",
        if report.exit == exit::CONTROL_FAILED {
            "control failed".to_owned()
        } else {
            report.verdict.to_string()
        },
        report.seed,
        report.elapsed_ms as f64 / 1000.0,
        report.exit
    );
    if let Some(reason) = report.control.reason.as_ref().filter(|_| !report.control.passed) {
        let _ok = writeln!(text, "The store does not work without injections: {}\n", code(reason));
    }
    if report.invariants.is_empty() {
        return text;
    }
    text.push_str("| invariant | verdict | |\n| --- | --- | --- |\n");
    for one in &report.invariants {
        let known = match one {
            one if one.is_known() => " (known)",
            one if !one.claimed => " (not claimed)",
            _ => "",
        };
        let lines: Vec<String> =
            told(one).lines().filter(|line| !line.starts_with(&format!("{}: ", one.id))).map(code).collect();
        let _ok = writeln!(text, "| `{}` | {}{known} | {} |", one.id, one.verdict, lines.join("<br>"));
    }
    text
}

/// Formats any text as code in a table cell.
fn code(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('|', "&#124;")
        .replace('`', "&#96;")
        .replace(['\n', '\r'], " ");
    format!("<code>{escaped}</code>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_to_the_runner_is_escaped() {
        let mut text = String::new();
        annotate(&mut text, "error", "a: b, c", "50 %\n::error::no");
        assert_eq!(text, "::error title=a%3A b%2C c::50 %25%0A::error::no\n");
        assert_eq!(code("a|b`c<d>\n&"), "<code>a&#124;b&#96;c&lt;d&gt; &amp;</code>");
    }
}
