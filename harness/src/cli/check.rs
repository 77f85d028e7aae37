//! Runs `picklock check`: arguments to target and options, report to output.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use picklock::catalogue::INVARIANT_IDS;
use picklock::check::{Cases, CheckError, Options, check, check_and_tell, check_in_parts};
use picklock::report::baseline::Baseline;
use picklock::report::page::page;
use picklock::runner::Stop;
use picklock::selection::{Selection, unknown_id};
use picklock::target::{Target, UsageError, adapter, builtin};

use crate::cli::arguments::{CheckArguments, Named, TargetArguments};
use crate::cli::output::{Delivery, empty, open};
use crate::cli::progress::Progress;

/// Runs the command. Reports to `made` each folder that another process must remove if this one is killed.
pub(crate) fn run(
    arguments: CheckArguments,
    stop: &Stop,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<u8> {
    let (html, jobs) = (arguments.html.clone(), arguments.jobs);
    let update = arguments.baseline.clone().filter(|_| arguments.update_baseline);
    let report_arguments = arguments.report.clone();
    let (target, options) = prepare(arguments)?;
    // Only now: a mistake in the arguments must not cost the report of the last run.
    options.try_out(jobs, &target.data, made)?;
    let mut delivery = Delivery::open(&report_arguments)?;
    let web = html.map(|path| open("--html", &path).map(|file| (path, file))).transpose()?;
    delivery.empty()?;
    web.iter().try_for_each(|(path, file)| empty(file, path))?;
    delivery.announce(&target)?;
    let progress = Progress::new(made, delivery.shows_progress());
    let tells = web.is_some();
    let checked = match (jobs, tells) {
        (1, true) => check_and_tell(&target, &options, stop, &progress),
        (1, false) => check(&target, &options, stop, &progress).map(|report| (report, Vec::new())),
        (jobs, tells) => check_in_parts(&target, &options, jobs, stop, &progress, tells),
    };
    progress.finish();
    let (report, narratives) = match checked {
        Ok(checked) => checked,
        Err(CheckError::Usage(error)) => return Err(error.into()),
        Err(other) => return Err(other.into()),
    };
    if let Some((path, mut file)) = web {
        file.write_all(page(&report, &narratives).as_bytes())
            .with_context(|| format!("cannot write the page {path:?}"))?;
    }
    if let (Some(path), Some(baseline)) = (update, &options.baseline) {
        // An incomplete run does not know which violations are gone.
        if report.control.passed && !report.interrupted {
            fs::write(&path, baseline.updated(&report))
                .with_context(|| format!("cannot write the baseline {path:?}"))?;
        }
    }
    delivery.deliver(&report)
}

/// Reads the baseline from this file, which may be missing if it is to be written.
fn baseline(path: &Path, may_be_missing: bool) -> Result<Baseline, UsageError> {
    let today = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date();
    match fs::read_to_string(path) {
        Ok(text) => Baseline::parse(&text, &path.display().to_string(), today),
        Err(why) if why.kind() == io::ErrorKind::NotFound && may_be_missing => Ok(Baseline::empty(today)),
        Err(why) => Err(UsageError::new("--baseline", format!("{path:?} cannot be read: {why}"))
            .help("--update-baseline writes it")),
    }
}

fn prepare(arguments: CheckArguments) -> anyhow::Result<(Target, Options)> {
    let again = arguments.target.again();
    let target = target(arguments.target)?;
    let mut claims = BTreeMap::new();
    for (flag, ids, claimed) in
        [("--claim", &arguments.claim, true), ("--disclaim", &arguments.disclaim, false)]
    {
        for id in ids {
            // Ids of invariants that are not built yet are accepted: a claim on them counts once they are.
            if !INVARIANT_IDS.contains(&id.as_str()) {
                return Err(unknown_id(flag, id, INVARIANT_IDS.iter()).into());
            }
            claims.insert(id.clone(), claimed);
        }
    }
    let baseline = arguments.baseline.as_deref().map(|path| baseline(path, arguments.update_baseline));
    let options = Options {
        baseline: baseline.transpose()?,
        shard: arguments.shard.unwrap_or_default(),
        selection: Selection::new(&arguments.only, &arguments.skip)?,
        clients: arguments.clients,
        operations: arguments.ops,
        preemptions: arguments.preemptions,
        seed: arguments.seed,
        budget: (!arguments.exhaustive).then_some(arguments.budget),
        dir: arguments.dir,
        fail_fast: arguments.fail_fast,
        allow_partial: arguments.allow_partial,
        claims,
        keep: arguments.keep.then(|| arguments.cases.clone()),
        copies: !arguments.no_copies,
        cases: Some(Cases { folder: arguments.cases, target_flags: again }),
        confirm: arguments.confirm,
        multi_call: Some(env::current_exe()?),
    };
    Ok((target, options))
}

/// Returns the target that the command line or the nearest adapter file names; `None` if neither names one.
pub(crate) fn target_at_hand(arguments: TargetArguments) -> anyhow::Result<Option<Target>> {
    let names_none = matches!(arguments.clone().named(), Named::Nothing)
        && nearest_adapter(&env::current_dir()?).is_none();
    if names_none { Ok(None) } else { target(arguments).map(Some) }
}

pub(crate) fn target(arguments: TargetArguments) -> anyhow::Result<Target> {
    let (busy, refused) = arguments.exits();
    let mut target = target_named(arguments.named())?;
    if let Some(status) = busy.iter().find(|status| refused.contains(status)) {
        return Err(UsageError::new("--busy", format!("{status} is named by --refused too")).into());
    }
    if let Some(flag) = [("--busy", &busy), ("--refused", &refused)].iter().find(|(_, all)| all.contains(&0))
    {
        return Err(UsageError::new(flag.0, "0 means that the operation is acknowledged").into());
    }
    let meanings = &mut target.exit;
    meanings.busy.retain(|status| !refused.contains(status));
    meanings.refused.retain(|status| !busy.contains(status));
    meanings.busy.extend(busy);
    meanings.refused.extend(refused);
    Ok(target)
}

/// Name of the adapter file that is found without being named.
const ADAPTER: &str = "picklock.toml";

/// Returns the nearest adapter file, here or in a parent folder, as a path from here.
fn nearest_adapter(folder: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::from(ADAPTER);
    for parent in folder.ancestors() {
        if parent.join(ADAPTER).is_file() {
            return Some(path);
        }
        path = Path::new("..").join(path);
    }
    None
}

pub(crate) fn target_named(named: Named) -> anyhow::Result<Target> {
    let folder = env::current_dir()?;
    let target = match named {
        Named::Nothing => match nearest_adapter(&folder) {
            Some(path) => adapter::read(&path)?,
            None => return Err(nothing_named().into()),
        },
        Named::Demo => Target::embedded(&folder),
        Named::Adapter(name) if Path::new(&name).is_file() || name.contains(['/', '.']) => {
            adapter::read(Path::new(&name))?
        }
        Named::Adapter(name) => builtin::load(&name, &folder)?,
        Named::Plain(program, flags) => flags.into_plain_target(&program, &folder)?,
        Named::Commands(flags) => flags.into_target(&folder)?,
    };
    Ok(target)
}

/// Returns the error that no target was named and no adapter file is near.
fn nothing_named() -> UsageError {
    UsageError::new(
        "target",
        format!("no store is named, and there is no {ADAPTER} here or in a parent folder"),
    )
    .help(
        "name one in one of these ways:\n    \
         picklock check -- ./store                      a program: ./store add DATA ID, ./store list DATA\n    \
         picklock check --data db.json --add 'CMD' --list 'CMD'\n    \
         picklock check --adapter FILE|NAME             an adapter file, or a built-in adapter\n    \
         picklock check --demo                          the embedded reference store\n  \
         picklock init writes a picklock.toml",
    )
}
