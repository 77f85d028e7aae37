//! `picklock check`: from the arguments to a target and options, and from the report to where it is wanted.

use std::collections::BTreeMap;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use picklock::catalogue::INVARIANT_IDS;
use picklock::check::{Cases, CheckError, Options, Watcher, check, check_and_tell};
use picklock::report::Report;
use picklock::report::human::{self, Detail};
use picklock::report::page::page;
use picklock::runner::Stop;
use picklock::selection::{Selection, unknown_id};
use picklock::target::{Target, UsageError, adapter, builtin};

use crate::cli::arguments::{CheckArguments, Color, Format, Named, TargetArguments};

/// Columns of a report that no terminal shows.
const WIDTH: usize = 120;

/// Runs the command. `made` is told of folders that somebody else must remove if this process is killed.
pub(crate) fn run(
    arguments: CheckArguments,
    stop: &Stop,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<u8> {
    let (output, html, color) = (arguments.output.clone(), arguments.html.clone(), arguments.color);
    let detail = match (arguments.quiet, arguments.verbose) {
        (true, _) => Detail::Quiet,
        (_, true) => Detail::Verbose,
        _ => Detail::Normal,
    };
    let format = arguments.format;
    let (target, options) = prepare(arguments)?;
    // Only now: a slip in the arguments must not cost the report of the last run.
    let mut out = Output::open(output.as_deref(), color)?;
    let web = html.map(|path| open("--html", &path).map(|file| (path, file))).transpose()?;
    let is_human = format == Format::Human;
    if is_human && detail != Detail::Quiet {
        match out.write(&human::header(&target)) {
            // Nobody reads, and somebody may still want the exit status.
            Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.context("cannot write the report")?,
        }
    }
    let progress = Progress::new(made, detail != Detail::Quiet);
    let checked = match web {
        Some(_) => check_and_tell(&target, &options, stop, &progress),
        None => check(&target, &options, stop, &progress).map(|report| (report, Vec::new())),
    };
    progress.finish();
    let (report, tellings) = match checked {
        Ok(checked) => checked,
        Err(CheckError::Usage(error)) => return Err(error.into()),
        Err(other) => return Err(other.into()),
    };
    let written = if is_human {
        out.write(&human::body(&report, detail, out.width()))
    } else {
        out.write(&report.to_json())
    };
    if let Some((path, mut file)) = web {
        file.write_all(page(&report, &tellings).as_bytes())
            .with_context(|| format!("cannot write the page {path:?}"))?;
    }
    finish(&report, written)
}

fn finish(report: &Report, written: io::Result<()>) -> anyhow::Result<u8> {
    match written {
        Ok(()) => Ok(report.exit),
        // Whoever read the output has seen enough, and still wants the exit status.
        Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => Ok(report.exit),
        Err(other) => Err(anyhow::Error::new(other).context("cannot write the report")),
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
            // Ids of what is not built yet are welcome: a claim on them counts from then on.
            if !INVARIANT_IDS.contains(&id.as_str()) {
                return Err(unknown_id(flag, id, INVARIANT_IDS.iter()).into());
            }
            claims.insert(id.clone(), claimed);
        }
    }
    let options = Options {
        selection: Selection::new(&arguments.only, &arguments.skip)?,
        clients: arguments.clients,
        operations: arguments.ops,
        preemptions: arguments.preemptions,
        seed: arguments.seed,
        budget: (!arguments.exhaustive).then_some(arguments.budget),
        dir: arguments.dir,
        fail_fast: arguments.fail_fast,
        claims,
        keep: arguments.keep.then(|| arguments.cases.clone()),
        copies: !arguments.no_copies,
        cases: Some(Cases { folder: arguments.cases, target_flags: again }),
        confirm: arguments.confirm,
        multi_call: Some(env::current_exe()?),
    };
    Ok((target, options))
}

pub(crate) fn target(arguments: TargetArguments) -> anyhow::Result<Target> {
    let folder = env::current_dir()?;
    let default = Path::new("picklock.toml");
    let target = match arguments.named() {
        Named::Nothing if default.is_file() => adapter::read(default)?,
        Named::Nothing => Target::embedded(&folder),
        Named::Adapter(name) if Path::new(&name).is_file() || name.contains(['/', '.']) => {
            adapter::read(Path::new(&name))?
        }
        Named::Adapter(name) => builtin::load(&name, &folder)?,
        Named::Plain(program, flags) => flags.into_plain_target(&program, &folder)?,
        Named::Commands(flags) => flags.into_target(&folder)?,
    };
    Ok(target)
}

fn open(flag: &'static str, path: &Path) -> Result<File, UsageError> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(|why| {
        UsageError::new(flag, format!("{path:?} cannot be written: {why}"))
            .help("name a file in a folder that exists and is writable")
    })
}

/// Where the report goes.
enum Output {
    Terminal(AutoStream<io::Stdout>),
    File(PathBuf, Box<AutoStream<File>>),
}

impl Output {
    /// Opens it before anything runs: a report that cannot be written must not be found out at the end.
    fn open(path: Option<&Path>, color: Color) -> anyhow::Result<Self> {
        let choice = match color {
            Color::Auto => None,
            Color::Always => Some(ColorChoice::Always),
            Color::Never => Some(ColorChoice::Never),
        };
        let Some(path) = path else {
            let stream = match choice {
                Some(choice) => AutoStream::new(io::stdout(), choice),
                None => AutoStream::auto(io::stdout()),
            };
            return Ok(Self::Terminal(stream));
        };
        let file = open("--output", path)?;
        let stream = AutoStream::new(file, choice.unwrap_or(ColorChoice::Never));
        Ok(Self::File(path.to_owned(), Box::new(stream)))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Terminal(stream) => stream.write_all(text.as_bytes()).and_then(|()| stream.flush()),
            Self::File(path, stream) => stream
                .write_all(text.as_bytes())
                .map_err(|why| io::Error::new(why.kind(), format!("{path:?}: {why}"))),
        }
    }

    fn width(&self) -> usize {
        let stdout = io::stdout();
        match self {
            Self::Terminal(_) if stdout.is_terminal() => match rustix::termios::tcgetwinsize(&stdout) {
                Ok(size) if size.ws_col > 0 => usize::from(size.ws_col).max(40),
                _ => WIDTH,
            },
            _ => WIDTH,
        }
    }
}

/// Progress on standard error, where that is a terminal.
struct Progress<'a> {
    made: &'a (dyn Fn(&Path) + Sync),
    is_shown: bool,
    bar: Mutex<ProgressBar>,
}

impl<'a> Progress<'a> {
    fn new(made: &'a (dyn Fn(&Path) + Sync), is_wanted: bool) -> Self {
        let is_shown = is_wanted && io::stderr().is_terminal();
        Self { made, is_shown, bar: Mutex::new(ProgressBar::hidden()) }
    }

    fn finish(&self) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
    }
}

impl Watcher for Progress<'_> {
    fn made(&self, folder: &Path) {
        (self.made)(folder);
    }

    fn begins(&self, scenario: &str, operations: u64) {
        if !self.is_shown {
            return;
        }
        self.finish();
        let bar = ProgressBar::with_draw_target(Some(operations), ProgressDrawTarget::stderr_with_hz(10));
        // Where the template were wrong the default would do as well.
        if let Ok(style) =
            ProgressStyle::with_template("  {msg:<12} [{bar:30}] about {pos} of {len} operations, {elapsed}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(scenario.to_owned());
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn operation(&self) {
        if self.is_shown {
            self.bar.lock().unwrap_or_else(PoisonError::into_inner).inc(1);
        }
    }
}
