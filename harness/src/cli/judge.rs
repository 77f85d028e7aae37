//! Runs `picklock judge`: searches for an order of a recorded history that explains every answer.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anstyle::Style;
use picklock::history::Verdict as Found;
use picklock::history::format::{Bad, Choice, Judged, read};
use picklock::history::model::Kind;
use picklock::report::exit;
use picklock::target::UsageError;
use picklock::verdict::Verdict;
use serde::Serialize;

use crate::cli::arguments::{Format, JudgeArguments, Model};

const BOLD: Style = Style::new().bold();

/// Verdict as written in JSON.
#[derive(Serialize)]
struct Judgement {
    schema: u32,
    verdict: Verdict,
    model: Option<&'static str>,
    operations: usize,
    indeterminate: usize,
    reason: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &JudgeArguments) -> anyhow::Result<u8> {
    let path = arguments.history.as_path();
    let text =
        content(path).map_err(|why| UsageError::new("HISTORY", format!("{path:?} cannot be read: {why}")))?;
    let choice = Choice { kind: arguments.model.map(Model::kind), limit: arguments.limit };
    let judged = read(&text, choice).map_err(|bad| usage(path, bad))?;
    let judgement = judgement(judged.as_ref(), arguments.steps);
    match written(&judgement, arguments.format) {
        // The reader closed the output early, and still needs the exit status.
        Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(match judgement.verdict {
        Verdict::Holds => exit::HOLDS,
        Verdict::Violated => exit::VIOLATED,
        Verdict::Inconclusive | Verdict::NotApplicable => exit::INCONCLUSIVE,
    })
}

fn content(path: &Path) -> io::Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// Reports an error in the history as a usage error.
fn usage(path: &Path, bad: Bad) -> UsageError {
    let mut error = match bad.line {
        Some(_) => UsageError::new(&bad.key, bad.message),
        None => UsageError::new(&format!("--{}", bad.key), bad.message),
    };
    error.place = bad.line.map(|line| format!("{}:{line}", path.display()));
    error.help = bad.help;
    error
}

fn judgement(judged: Option<&Judged>, steps: u64) -> Judgement {
    let (verdict, reason) = match judged.map(|judged| judged.verdict(steps)) {
        Some(Found::Linearizable) => (Verdict::Holds, None),
        Some(Found::Violated(explanation)) => (Verdict::Violated, Some(explanation.to_string())),
        Some(Found::Unknown(why)) => (Verdict::Inconclusive, Some(why)),
        None => (Verdict::Inconclusive, Some("it contains no operation".into())),
    };
    let (operations, indeterminate) = judged.map_or((0, 0), Judged::counts);
    let model = judged.map(|judged| judged.kind().name());
    Judgement { schema: 1, verdict, model, operations, indeterminate, reason }
}

fn written(judgement: &Judgement, format: Format) -> io::Result<()> {
    let mut out = anstream::stdout();
    if format == Format::Json {
        return writeln!(out, "{}", serde_json::to_string(judgement)?);
    }
    let Judgement { verdict, model, operations, indeterminate, reason, .. } = judgement;
    let what = match verdict {
        Verdict::Holds => "linearizable",
        Verdict::Violated => "not linearizable",
        Verdict::Inconclusive | Verdict::NotApplicable => "not decided",
    };
    let of = model.map_or_else(String::new, |model| format!(" of a {model}"));
    writeln!(
        out,
        "{BOLD}{verdict}{BOLD:#}: {what}, {operations} operations{of}, {indeterminate} of them indeterminate"
    )?;
    reason.as_ref().map_or(Ok(()), |reason| writeln!(out, "  {reason}"))
}

impl Model {
    fn kind(self) -> Kind {
        match self {
            Self::Set => Kind::Set,
            Self::Counter => Kind::Counter,
            Self::Register => Kind::Register,
            Self::Kv => Kind::Kv,
            Self::GuardedSet => Kind::GuardedSet,
        }
    }
}
