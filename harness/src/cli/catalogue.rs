//! Runs `list` and `explain`, which print the catalogues.

use std::io::Write as _;

use anstyle::Style;
use picklock::catalogue::{DIAGNOSIS_IDS, INVARIANT_IDS, SCENARIO_IDS, explanation};
use picklock::report::exit;
use picklock::selection::unknown_id;
use picklock::target::builtin;
use picklock::{diagnoses, fault, invariants, scenario};
use serde::Serialize;

use crate::cli::arguments::{ExplainArguments, Format, ListArguments, Listed};

const BOLD: Style = Style::new().bold();

#[derive(Serialize)]
struct Entry {
    kind: &'static str,
    id: &'static str,
    statement: &'static str,
}

pub(crate) fn list(arguments: &ListArguments) -> anyhow::Result<u8> {
    let wanted = |listed| arguments.what.is_none_or(|what| what == listed);
    let mut entries = Vec::new();
    if wanted(Listed::Invariants) {
        entries.extend(invariants::ALL.iter().map(|one| Entry {
            kind: "invariant",
            id: one.id,
            statement: one.statement,
        }));
    }
    if wanted(Listed::Scenarios) {
        entries.extend(scenario::ALL.iter().map(|one| Entry {
            kind: "scenario",
            id: one.id,
            statement: one.statement,
        }));
    }
    if wanted(Listed::Faults) {
        entries.extend(fault::ALL.iter().map(|one| Entry {
            kind: "fault",
            id: one.id,
            statement: one.statement,
        }));
    }
    if wanted(Listed::Diagnoses) {
        entries.extend(diagnoses::ALL.iter().map(|one| Entry {
            kind: "diagnosis",
            id: one.id,
            statement: one.statement,
        }));
    }
    if wanted(Listed::Adapters) {
        entries.extend(builtin::ALL.iter().map(|one| Entry {
            kind: "adapter",
            id: one.name,
            statement: one.statement(),
        }));
    }
    let mut out = anstream::stdout();
    if arguments.format == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&entries)?)?;
        return Ok(exit::HOLDS);
    }
    let mut kind = "";
    for entry in &entries {
        if entry.kind != kind {
            let gap = if kind.is_empty() { "" } else { "\n" };
            kind = entry.kind;
            let plural = if kind == "diagnosis" { "diagnoses".to_owned() } else { format!("{kind}s") };
            writeln!(out, "{gap}{BOLD}{plural}{BOLD:#}")?;
        }
        writeln!(out, "  {:<28}{}", entry.id, entry.statement)?;
    }
    Ok(exit::HOLDS)
}

pub(crate) fn explain(arguments: &ExplainArguments) -> anyhow::Result<u8> {
    let id = arguments.id.as_str();
    let (kind, statement, source) = if let Some(invariant) = invariants::find(id) {
        ("invariant", invariant.statement, invariant.source)
    } else if let Some(scenario) = scenario::find(id) {
        ("scenario", scenario.statement, scenario.source)
    } else if let Some(diagnosis) = diagnoses::find(id) {
        ("diagnosis", diagnosis.statement, diagnosis.source)
    } else if let Some(fault) = fault::find(id) {
        writeln!(
            anstream::stdout(),
            "{BOLD}{id}{BOLD:#} (fault)\n{}.\n\n{}",
            fault.statement,
            fault.explanation()
        )?;
        return Ok(exit::HOLDS);
    } else if let Some(adapter) = builtin::ALL.iter().find(|adapter| adapter.name == id) {
        writeln!(
            anstream::stdout(),
            "{BOLD}{id}{BOLD:#} (adapter)\n{}.\n\nIts file, to copy from:\n\n{}\nExample: `picklock check --adapter {id}`.",
            adapter.statement(),
            adapter.text
        )?;
        return Ok(exit::HOLDS);
    } else {
        let faults = fault::ALL.iter().map(|fault| fault.id);
        let others: Vec<&str> = faults.chain(builtin::ALL.iter().map(|adapter| adapter.name)).collect();
        let known = INVARIANT_IDS.iter().chain(SCENARIO_IDS).chain(DIAGNOSIS_IDS).chain(&others);
        return Err(unknown_id("explain", id, known).into());
    };
    let mut out = anstream::stdout();
    writeln!(out, "{BOLD}{id}{BOLD:#} ({kind})\n{statement}.\n\n{}", explanation(source))?;
    if let Some(invariant) = invariants::find(id) {
        writeln!(out, "\nMinimum evidence, without which it never holds:")?;
        for kind in invariant.evidence {
            writeln!(out, "  - {} ({})", kind.statement(), kind.scenario())?;
        }
    }
    Ok(exit::HOLDS)
}
