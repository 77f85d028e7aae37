//! Runs `picklock bench`: arguments, measurements, output.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use picklock::bench::locks::{self, Primitive};
use picklock::bench::page::page;
use picklock::bench::place::place;
use picklock::bench::table::table;
use picklock::bench::updates::{self, Updates};
use picklock::bench::{LOCKS, Measure, Measured, SCHEMA};
use picklock::report::{Tool, exit};
use picklock::runner::Stop;
use picklock::sandbox::Sandbox;
use picklock::selection::unknown_id;
use picklock::target::flags::Flags;
use picklock::target::{DataFile, Target, UsageError};

use crate::cli::arguments::{BenchArguments, ERROR, Format, Named};
use crate::cli::check::target_named;
use crate::cli::output::{Output, empty, open};

/// Maximum number of concurrent clients; more is a typing error.
const CLIENTS_MAX: u32 = 1000;

/// Runs the command. Reports to `made` each folder that another process must remove if this one is killed.
pub(crate) fn run(
    arguments: &BenchArguments,
    stop: &Stop,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<u8> {
    if let Some(wrong) = arguments.clients.iter().find(|clients| !(1..=CLIENTS_MAX).contains(*clients)) {
        return Err(
            UsageError::new("--clients", format!("must be from 1 to {CLIENTS_MAX}, not {wrong}")).into()
        );
    }
    let what = what(arguments)?;
    let dir = arguments.dir.as_deref();
    Sandbox::try_dir(dir, &data()?, made, |_| Ok(()))?;
    let mut out = Output::open(arguments.output.as_deref(), arguments.color)?;
    let web =
        arguments.html.as_ref().map(|path| open("--html", path).map(|file| (path, file))).transpose()?;
    out.empty()?;
    web.iter().try_for_each(|(path, file)| empty(file, path))?;
    let measure = Measure {
        clients: arguments.clients.clone(),
        holds: arguments.hold.clone().unwrap_or_else(|| Measure::default().holds),
        runs: arguments.runs.max(1),
        time: arguments.time,
    };
    let mut measured = match what {
        What::Locks(primitives) => of_locks(&primitives, &measure, dir, stop, made)?,
        What::Stores(targets) => {
            let targets: Vec<&Target> = targets.iter().collect();
            let bar =
                bar(targets.len() as u64 * 2 * measure.clients.len() as u64 * u64::from(measure.runs + 1));
            let program = env::current_exe()?;
            let done = updates::measure(&targets, &measure, dir, &program, stop, made, &|| bar.inc(1));
            bar.finish_and_clear();
            match done {
                Ok(updates) => measured(&targets[0].name, updates, dir, made)?,
                Err(updates::BenchError::Usage(error)) => return Err(error.into()),
                Err(error) => {
                    writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {error}")?;
                    return Ok(error.exit());
                }
            }
        }
    };
    measured.interrupted = stop.is_requested();
    // If nothing succeeded, waiting times are zero and fairness is perfect: these are no figures.
    let (served, unserved): (Vec<_>, Vec<_>) = measured.rows.iter().partition(|row| row.rate.most > 0.0);
    let nothing =
        unserved.iter().map(|row| format!("{} with {} clients: nothing succeeded", row.name, row.clients));
    let all = arguments.require.iter().flat_map(|one| served.iter().filter_map(|row| one.unmet(row)));
    measured.unmet = nothing.chain(all).collect();
    let is_broken = measured.rows.iter().any(|row| row.violations > 0);
    measured.exit = match measured.interrupted {
        true => exit::INTERRUPTED,
        false if is_broken || !measured.unmet.is_empty() => exit::VIOLATED,
        false => exit::HOLDS,
    };
    if let Some((path, mut file)) = web {
        file.write_all(page(&measured).as_bytes())
            .with_context(|| format!("cannot write the page {path:?}"))?;
    }
    let text = match arguments.format {
        Format::Human => table(&measured),
        Format::Json => measured.to_json(),
    };
    match out.write(&text) {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(why).context("cannot write the figures"))
        }
        _ => Ok(measured.exit),
    }
}

/// Subject of the measurement.
enum What {
    Locks(Vec<Primitive>),
    /// A store, and one to compare it with.
    Stores(Vec<Target>),
}

/// Reads what to measure before any output file is opened.
fn what(arguments: &BenchArguments) -> anyhow::Result<What> {
    let named = arguments.target.clone().named();
    if matches!(named, Named::Nothing) {
        if arguments.compare.is_some() {
            return Err(UsageError::new("--compare", "needs a store to compare with")
                .help("name one as for check: -- ./store, --add …, or --adapter")
                .into());
        }
        return Ok(What::Locks(primitives(&arguments.locks)?));
    }
    let of_locks = [("--locks", !arguments.locks.is_empty()), ("--hold", arguments.hold.is_some())];
    if let Some((flag, _)) = of_locks.iter().find(|(_, is_given)| *is_given) {
        return Err(UsageError::new(flag, "is about locks, and a store takes its own")
            .help("leave it out, or name no store")
            .into());
    }
    let store = target_named(named)?;
    let other = arguments.compare.as_deref().map(other).transpose()?;
    Ok(What::Stores(std::iter::once(store).chain(other).collect()))
}

fn primitives(ids: &[String]) -> Result<Vec<Primitive>, UsageError> {
    if ids.is_empty() {
        return Ok(locks::ALL.to_vec());
    }
    let known: Vec<&str> = locks::ALL.iter().map(|one| one.id).collect();
    ids.iter().map(|id| locks::find(id).ok_or_else(|| unknown_id("--locks", id, known.iter()))).collect()
}

fn of_locks(
    primitives: &[Primitive],
    measure: &Measure,
    dir: Option<&Path>,
    stop: &Stop,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<Measured> {
    let sandbox = sandbox(dir, made)?;
    let cells = primitives.len() * measure.clients.len() * measure.holds.len();
    let bar = bar(cells as u64 * u64::from(measure.runs + 1));
    let program = env::current_exe()?;
    let rows = locks::measure(primitives, measure, &sandbox.dir(), &program, stop, &|| bar.inc(1));
    bar.finish_and_clear();
    let place = place(&sandbox.dir());
    sandbox.remove()?;
    Ok(Measured {
        schema: SCHEMA,
        tool: tool(),
        subject: LOCKS.to_owned(),
        place: place.context("cannot measure a flush")?,
        rows: rows.context("cannot measure the locks")?,
        growth: Vec::new(),
        comparison: Vec::new(),
        unmet: Vec::new(),
        interrupted: false,
        exit: exit::HOLDS,
    })
}

fn measured(
    subject: &str,
    updates: Updates,
    dir: Option<&Path>,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<Measured> {
    let sandbox = sandbox(dir, made)?;
    let place = place(&sandbox.dir());
    sandbox.remove()?;
    let place = place.context("cannot measure a flush")?;
    let Updates { mut rows, growth, comparison } = updates;
    for row in &mut rows {
        row.of_flushes = row.rate.median * place.flush_ns as f64 / 1e9;
    }
    Ok(Measured {
        schema: SCHEMA,
        tool: tool(),
        subject: subject.to_owned(),
        place,
        rows,
        growth,
        comparison,
        unmet: Vec::new(),
        interrupted: false,
        exit: exit::HOLDS,
    })
}

fn sandbox(dir: Option<&Path>, made: &(dyn Fn(&Path) + Sync)) -> anyhow::Result<Sandbox> {
    Ok(Sandbox::in_dir(dir, &data()?, None, made)?)
}

/// Returns a data file for the sandbox of lock measurements, which do not use it.
fn data() -> anyhow::Result<DataFile> {
    Ok(Target::embedded(&env::current_dir()?).data)
}

/// Returns the other store of a comparison: a program of the plain convention, or a command that adds.
fn other(command: &str) -> anyhow::Result<Target> {
    let folder = env::current_dir()?;
    let wrong = |why: &dyn std::fmt::Display| UsageError::new("--compare", why.to_string());
    let mut target = if command.contains('{') {
        let flags = Flags { add: Some(command.to_owned()), ..Flags::default() };
        flags.into_target(&folder)?
    } else if Path::new(command).extension().is_some_and(|ending| ending == "toml") {
        let text = fs::read_to_string(command)
            .map_err(|why| wrong(&format!("{command:?} cannot be read: {why}")))?;
        picklock::target::adapter::parse(&text, command, &folder)?
    } else {
        let words = shell_words::split(command).map_err(|why| wrong(&why))?;
        Flags::default().into_plain_target(&words, &folder)?
    };
    command.clone_into(&mut target.name);
    Ok(target)
}

fn tool() -> Tool {
    Tool { name: "picklock".into(), version: env!("CARGO_PKG_VERSION").into() }
}

fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(10));
    // If the template were invalid, the default would do as well.
    if let Ok(style) =
        ProgressStyle::with_template("  bench [{bar:30}] {pos} of {len} runs, {elapsed} of about {duration}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
