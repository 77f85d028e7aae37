//! Runs `picklock replay`: replays a case call by call.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use picklock::case::{Case, Difference};
use picklock::replay::{Options, Outcome, ReplayError, Replayed, replay};
use picklock::report::{chrome, exit, timeline};
use picklock::runner::Stop;
use picklock::target::{Target, UsageError, adapter};

use crate::cli::arguments::{ERROR, ReplayArguments};
use crate::cli::check;
use crate::cli::progress::Made;

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBT: Style = AnsiColor::Yellow.on_default();

/// Runs the command. Reports to `made` each folder that the supervisor must remove if this process is killed.
pub(crate) fn run(
    arguments: ReplayArguments,
    stop: &Stop,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<u8> {
    let path = &arguments.case;
    let named = |message: String| UsageError::new("CASE", message);
    let text = fs::read_to_string(path).map_err(|why| named(format!("{path:?} cannot be read: {why}")))?;
    let case = Case::from_json(&text).map_err(|why| named(format!("{path:?}: {why}")))?;
    let target = target_of(&case, path)?;
    if !arguments.trust {
        match check::target_at_hand(arguments.target)? {
            Some(at_hand) => expect_same(&target, &at_hand, path)?,
            None => return Err(no_target(&target, path).into()),
        }
    }
    let options = Options {
        repeat: 1,
        dir: arguments.dir,
        keep: arguments.keep.then(|| path.parent().unwrap_or(Path::new(".")).to_owned()),
        multi_call: Some(env::current_exe()?),
    };
    let replayed = match replay(&case, &target, &options, stop, &Made(made)) {
        Ok(replayed) => replayed,
        Err(ReplayError::Usage(error)) => return Err(error.into()),
        Err(error @ ReplayError::NotRunnable(_)) => {
            writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {error}")?;
            return Ok(exit::USAGE);
        }
        Err(ReplayError::Interrupted) => return Ok(exit::INTERRUPTED),
        Err(other) => return Err(other.into()),
    };
    if let Some(file) = &arguments.trace {
        fs::write(file, chrome::chrome_trace(&replayed.observation))
            .map_err(|why| UsageError::new("--trace", format!("{file:?} cannot be written: {why}")))?;
    }
    tell(&case, &target, &replayed)
}

/// Builds the target saved in the case.
fn target_of(case: &Case, path: &Path) -> anyhow::Result<Target> {
    let folder = env::current_dir()?.join(&case.target.folder);
    let mut target = adapter::parse(&case.target.adapter, &path.display().to_string(), &folder)?;
    target.name.clone_from(&case.target.name);
    target.origin = format!("the case {}", path.display());
    Ok(target)
}

/// Formats commands, one per line.
fn lines(commands: &[(String, &picklock::target::Command)]) -> String {
    let all: Vec<String> = commands.iter().map(|(name, command)| format!("  {name}: {command}")).collect();
    all.join("\n")
}

/// Reports that there is no target at hand to compare the case's commands with.
fn no_target(target: &Target, path: &Path) -> UsageError {
    UsageError::new(
        "CASE",
        format!(
            "{path:?} names commands that no target at hand has, so they were not run:\n{}",
            lines(&target.commands())
        ),
    )
    .help(SAME_TARGET)
}

const SAME_TARGET: &str =
    "name the same target as when the case was found, or run what the case names with --trust";

/// Checks that the case has the target at hand. A case may come from anybody: other commands must not run.
fn expect_same(target: &Target, at_hand: &Target, path: &Path) -> Result<(), UsageError> {
    let (of_case, here) = (target.commands(), at_hand.commands());
    // The working folder affects what the commands do, and so does every other setting but the name.
    let is_same_folder = target.folder.canonicalize().ok() == at_hand.folder.canonicalize().ok();
    let unnamed = |target: &Target| Target { name: String::new(), ..target.clone() }.to_adapter();
    let (ours, theirs) = (unnamed(target), unnamed(at_hand));
    if is_same_folder && ours == theirs {
        return Ok(());
    }
    if of_case == here {
        let differs =
            ours.lines().find(|line| !theirs.lines().any(|other| other == *line)).unwrap_or("its folder");
        return Err(UsageError::new(
            "CASE",
            format!("{path:?} is not about the adapter at hand, {}: it has {differs}", at_hand.origin),
        )
        .help(SAME_TARGET));
    }
    Err(UsageError::new(
        "CASE",
        format!(
            "{path:?} names commands that are not those of the adapter at hand, so they were not run:\n{}\n\
             the adapter at hand, {}, has\n{}",
            lines(&of_case),
            at_hand.origin,
            lines(&here)
        ),
    )
    .help(SAME_TARGET))
}

fn tell(case: &Case, target: &Target, replayed: &Replayed) -> anyhow::Result<u8> {
    let mut out = anstream::stdout();
    writeln!(out, "{BOLD}{}{BOLD:#} in {} ({})", case.invariant, target.name, case.scenario)?;
    writeln!(out, "found: {}", case.summary)?;
    if let Some(sentence) = case.explanation.as_ref().and_then(|explanation| explanation.sentence.as_ref()) {
        writeln!(out, "what happened: {sentence}")?;
    }
    if let Some(diagnosis) = &case.diagnosis {
        writeln!(out, "likely cause: {diagnosis}")?;
    }
    for (name, command) in target.commands() {
        writeln!(out, "  {:<8} {command}", name.trim_start_matches("ops."))?;
    }
    writeln!(out, "\n{}", timeline::timeline(&replayed.observation, case.explanation.as_ref()))?;
    let status = match &replayed.outcome {
        Outcome::Reproduced(seen) => {
            writeln!(out, "{BAD}reproduced{BAD:#}: {} is violated: {seen}", case.invariant)?;
            exit::VIOLATED
        }
        Outcome::Fixed => {
            writeln!(out, "{GOOD}fixed{GOOD:#}: {} clean runs in a row", replayed.runs)?;
            exit::HOLDS
        }
        Outcome::Flaky(violations, runs, seen) => {
            writeln!(
                out,
                "{BAD}flaky{BAD:#}: {violations} of {runs} runs violate {}: {seen}",
                case.invariant
            )?;
            exit::VIOLATED
        }
        Outcome::Diverged(difference) => {
            tell_difference(&mut out, difference)?;
            exit::INCONCLUSIVE
        }
    };
    Ok(status)
}

fn tell_difference(out: &mut impl std::io::Write, difference: &Difference) -> anyhow::Result<()> {
    let side = |step: &Option<String>| step.clone().unwrap_or_else(|| "nothing more".to_owned());
    writeln!(out, "{DOUBT}diverged{DOUBT:#} at step {}, before anything was disturbed:", difference.step)?;
    writeln!(out, "  the case has {}", side(&difference.expected))?;
    writeln!(out, "  this run did {}", side(&difference.actual))?;
    writeln!(out, "  next: the store no longer makes the calls of the case; run picklock check again")?;
    Ok(())
}
