//! Runs `picklock merge`: merges shard reports.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use picklock::report::merge::merge;
use picklock::report::{Report, SCHEMA};
use picklock::target::UsageError;
use serde::Deserialize;

use crate::cli::arguments::{ERROR, MergeArguments};
use crate::cli::output::Delivery;

/// Runs the command.
pub(crate) fn run(arguments: &MergeArguments) -> anyhow::Result<u8> {
    let mut reports = Vec::new();
    for path in &arguments.reports {
        // A killed shard leaves its output file empty.
        if fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == 0) {
            writeln!(
                anstream::stderr(),
                "warning: {} is empty: its shard did not come to its end",
                path.display()
            )?;
            continue;
        }
        reports.push((path.display().to_string(), read(path)?));
    }
    let merged = merge(reports).map_err(|why| {
        UsageError::new("REPORT", why.to_string()).help(
            "give the report of each part, made by `picklock check --shard I/N --format json --output FILE`",
        )
    })?;
    let delivery = Delivery::open(&arguments.report)?;
    delivery.empty()?;
    let status = delivery.deliver(&merged.report)?;
    if !merged.missing.is_empty() {
        let missing: Vec<String> = merged.missing.iter().map(ToString::to_string).collect();
        writeln!(
            anstream::stderr(),
            "{ERROR}error:{ERROR:#} the report of shard {} is missing: run `picklock check --shard {} …` again",
            missing.join(", "),
            missing[0]
        )?;
    }
    Ok(status)
}

fn read(path: &Path) -> Result<Report, UsageError> {
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
    }
    let wrong = |message: String| UsageError::new("REPORT", format!("{path:?} {message}"));
    let text = fs::read_to_string(path).map_err(|why| wrong(format!("cannot be read: {why}")))?;
    let head: Head = serde_json::from_str(&text).map_err(|why| wrong(format!("is no report: {why}")))?;
    if head.schema != SCHEMA {
        let schema = head.schema;
        return Err(wrong(format!(
            "has schema {schema}, and this version of picklock reads schema {SCHEMA}"
        )));
    }
    serde_json::from_str(&text).map_err(|why| wrong(format!("is no whole report: {why}")))
}
