//! Tests the page, and that no text of a store becomes markup.

use super::*;
use crate::call::sketch;
use crate::invariants::timeline_for_tests as observe;
use crate::observation::Trace;
use crate::report::narrative::{About, Nearest};
use crate::report::{ControlSummary, EvidenceSummary, OperationCounts, SCOPE, TargetSummary, Tool};

/// Text that would break out of an element, an attribute, a script or a comment if it were not escaped.
const HOSTILE: &str =
    "</script></title></style>--><!--<img src=x onerror=alert(1)>\"'`&amp;\u{2028}\u{202e}${1}]]>";

fn report(text: &str) -> Report {
    let summary = InvariantSummary {
        id: "no-lost-update".into(),
        claimed: true,
        verdict: Verdict::Violated,
        judged: 2,
        reason: Some(text.into()),
        is_doubted: false,
        is_partial: false,
        evidence: EvidenceSummary::default(),
        counterexamples: Vec::new(),
        violations: 1,
    };
    let scenario = ScenarioSummary {
        id: text.into(),
        executions: 2,
        states: 0,
        coverage: Coverage::Bounded,
        bound: text.into(),
        extent: crate::report::tally::CoverageTally::default(),
        elapsed_ms: 1,
        operations: OperationCounts::default(),
        plan: None,
        crowd: None,
    };
    Report {
        schema: 1,
        tool: Tool { name: "picklock".into(), version: "1".into() },
        target: TargetSummary {
            name: text.into(),
            origin: text.into(),
            ops: [(text.to_owned(), vec![text.to_owned()])].into(),
        },
        verdict: Verdict::Violated,
        exit: exit::VIOLATED,
        interrupted: false,
        seed: 1,
        elapsed_ms: 1,
        shard: None,
        control: ControlSummary { passed: true, reason: Some(text.into()) },
        scenarios: vec![scenario],
        invariants: vec![summary],
        diagnoses: Vec::new(),
        remarks: vec![crate::report::Remark::new(text, text)],
        not_covered: vec![text.into()],
        scope: SCOPE.to_owned(),
        estimate_ms: None,
        allow_partial: false,
    }
}

/// Two clients, one of which waits for the other; all its texts are `text`.
fn narrative(text: &str) -> Narrative {
    let mut observation = observe("c1 add a 0..9 killed\n c2 add b 1..8 ok\n c1 list 10..11 ok = a");
    let requests = observation.operations[..2].iter().map(|one| one.request.clone()).collect();
    let mut calls = sketch("1 open db 1\n 1 lock ex 1\n 2 open db 1\n 1 write 1\n 1 unlock 1\n 2 lock sh 1");
    calls[3].name = text.into();
    calls[3].content = Some(text.into());
    observation.traces = vec![Trace { requests, calls, ..Trace::default() }];
    observation.injection = Some(text.into());
    for operation in &mut observation.operations {
        operation.stderr = text.into();
    }
    let about = About {
        invariant: "no-lost-update".into(),
        statement: text.into(),
        summary: text.into(),
        diagnosis: None,
        replay: Some(text.into()),
    };
    Narrative {
        sentence: Some(text.into()),
        point_of_no_return: Some(4),
        nearest: Some(Nearest { step: 2, told: text.into() }),
        ..Narrative::new(&observation, about)
    }
}

#[test]
fn the_rows_can_be_read_without_the_script() {
    let page = page(&report("a"), &[narrative("a")]);
    for part in [
        "<h1><span class=\"violated\">Violated:</span> no-lost-update</h1>",
        "client 1: add a<span class=\"ending kill\">killed",
        "id=\"c1-6\"",
        "takes exclusive flock on file1",
        "client 2 waits for file1, which client 1 has locked",
        "point of no return",
        "title=\"exclusive flock on file1\"",
        "the data file holds",
    ] {
        assert!(page.contains(part), "{part:?} is not in the page");
    }
}

#[test]
fn nothing_that_a_store_or_its_files_say_breaks_out() {
    let hostile = page(&report(HOSTILE), &[narrative(HOSTILE)]);
    // With harmless data the page has only the elements of the template.
    let plain = page(&report("a"), &[narrative("a")]);
    for element in ["<script", "</script", "<img", "<!--", "-->", "<style", "</style", "</title"] {
        assert_eq!(hostile.matches(element).count(), plain.matches(element).count(), "{element}");
    }
    assert!(hostile.contains("&#60;img") && hostile.contains("\\u003cimg"));
}

#[test]
fn what_is_embedded_is_the_tellings_as_they_were() {
    let narrative = narrative(HOSTILE);
    let page = page(&report("a"), std::slice::from_ref(&narrative));
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"narratives\">").unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    let embedded: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(embedded, serde_json::json!([narrative]));
}

#[test]
fn a_bar_begins_and_ends_where_its_lock_does_and_two_stand_side_by_side() {
    let mut observation = observe("c1 add a 0..9 ok");
    let requests = vec![observation.operations[0].request.clone()];
    let calls = sketch("1 lock ex 1\n 1 lock sh 2\n 1 unlock 1\n 1 unlock 2");
    observation.traces = vec![Trace { requests, calls, ..Trace::default() }];
    let narrative = Narrative::new(&observation, About::default());
    let shapes: Vec<Vec<(usize, &str)>> = rows(&narrative, &Lanes::new(&narrative))
        .iter()
        .filter_map(|row| match row {
            Row::Call(_, cells) => Some(cells[0].bars.iter().map(|bar| (bar.slot, bar.shape)).collect()),
            _ => None,
        })
        .collect();
    assert_eq!(shapes[0], [(0, "from")]);
    assert_eq!(shapes[1], [(0, "through"), (1, "from")]);
    assert_eq!(shapes[2], [(0, "to"), (1, "through")]);
}

/// A script or style that contains its own end tag would end early.
#[test]
fn the_page_asks_nobody_for_anything() {
    let page = page(&report("a"), &[narrative("a")]);
    assert!(page.contains("default-src 'none'"));
    for word in ["http:", "https:", "//cdn", "@import", "url(", "innerHTML", " src=", "<link"] {
        assert!(!page.contains(word), "{word}");
    }
}
