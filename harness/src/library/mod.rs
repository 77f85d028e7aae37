//! Checks your own program in a test: [`check`](check()) in three lines.

mod cleanup;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::check::{self, Cases, Options};
use crate::report::human::{self, Detail};
use crate::report::{Report, exit};
use crate::runner::Stop;
use crate::selection::Selection;
use crate::target::flags::Flags;
use crate::target::{Target, UsageError, adapter};

use cleanup::CleanupGuard;

/// Width of a report in the output of a test, in columns.
const WIDTH: usize = 120;
/// Default directory for cases: beside the build output.
const CASES: &str = "target/picklock-cases";

/// A check of a program that adds records to a file and lists them, for a test.
///
/// The program is called as `PROGRAM add DATA ID` and `PROGRAM list DATA`, unless [`add_with`](Check::add_with),
/// [`list_with`](Check::list_with) or an [adapter](Check::from_adapter) say otherwise. It can run beside other tests:
/// it changes nothing process-wide, and works in its own directories, which are removed even if the test is killed.
///
/// ```no_run
/// #[test]
/// fn the_store_survives() {
///     picklock::check(env!("CARGO_BIN_EXE_store")).data("store.json").budget_seconds(30).assert_holds();
/// }
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is run before `run` or `assert_holds`"]
pub struct Check {
    source: Source,
    options: Options,
    cases: PathBuf,
    only: Vec<String>,
    skip: Vec<String>,
    timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Source {
    Program { program: PathBuf, flags: Flags },
    Adapter(PathBuf),
}

/// Makes a check of the program at this path, such as `env!("CARGO_BIN_EXE_store")`.
pub fn check(program: impl Into<PathBuf>) -> Check {
    Check::new(Source::Program { program: program.into(), flags: Flags::default() })
}

impl Check {
    fn new(source: Source) -> Self {
        Self {
            source,
            options: Options::default(),
            cases: CASES.into(),
            only: Vec::new(),
            skip: Vec::new(),
            timeout: None,
        }
    }

    /// Makes a check of the target in an adapter file. Its commands are resolved from the directory of the file.
    pub fn from_adapter(file: impl Into<PathBuf>) -> Self {
        Self::new(Source::Adapter(file.into()))
    }

    fn flag(mut self, set: impl FnOnce(&mut Flags)) -> Self {
        if let Source::Program { flags, .. } = &mut self.source {
            set(flags);
        }
        self
    }

    /// Sets the name of the data file. Default: `store.json`.
    pub fn data(self, name: impl Into<String>) -> Self {
        self.flag(|flags| flags.data = Some(name.into()))
    }

    /// Sets the arguments with which the program adds, split as a shell splits words. Default: `add {data} {id}`.
    pub fn add_with(self, arguments: &str) -> Self {
        let command = self.command(arguments);
        self.flag(|flags| flags.add = command)
    }

    /// Sets the arguments with which it lists. Default: `list {data}`.
    pub fn list_with(self, arguments: &str) -> Self {
        let command = self.command(arguments);
        self.flag(|flags| flags.list = command)
    }

    /// Sets the arguments with which it makes an empty store. Default: it needs none.
    pub fn init_with(self, arguments: &str) -> Self {
        let command = self.command(arguments);
        self.flag(|flags| flags.init = command)
    }

    /// Sets where the data file has the record names: `$.path[*]`, `keys:$.path`, `regex:PATTERN` or `lines`.
    pub fn records(self, expression: impl Into<String>) -> Self {
        self.flag(|flags| flags.records = Some(expression.into()))
    }

    fn command(&self, arguments: &str) -> Option<String> {
        match &self.source {
            Source::Program { program, .. } => Some(called(program, arguments)),
            Source::Adapter(_) => None,
        }
    }

    /// Runs only these scenarios, or judges only these invariants, by their ids.
    pub fn only(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.only.extend(ids.into_iter().map(Into::into));
        self
    }

    /// Skips these scenarios or invariants, by their ids.
    pub fn skip(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.skip.extend(ids.into_iter().map(Into::into));
        self
    }

    /// Judges this invariant, but does not count its verdict.
    pub fn disclaim(mut self, id: impl Into<String>) -> Self {
        self.options.claims.insert(id.into(), false);
        self
    }

    /// Sets the time limit of the whole run, in seconds. Default: 60.
    pub fn budget_seconds(mut self, seconds: u64) -> Self {
        self.options.budget = Some(Duration::from_secs(seconds));
        self
    }

    /// Runs until nothing is left to try, without a time limit.
    pub fn exhaustive(mut self) -> Self {
        self.options.budget = None;
        self
    }

    /// Sets the random seed. Default: 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Sets the time limit of one operation. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Stops at the first violation.
    pub fn fail_fast(mut self) -> Self {
        self.options.fail_fast = true;
        self
    }

    /// Sets the directory for replayable cases. Default: `target/picklock-cases` in the directory that tests run in.
    pub fn cases(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cases = folder.into();
        self
    }

    /// Runs the check.
    ///
    /// # Errors
    /// If the check makes no sense, or if the harness failed; a violation is no error, see [`Report::exit`].
    pub fn run(&self) -> Result<Report, check::CheckError> {
        let (target, options) = self.prepare()?;
        let stop = Stop::new().map_err(crate::runner::RunError::system("prepare to stop"))?;
        let heir =
            CleanupGuard::new().map_err(crate::runner::RunError::system("start a shell that cleans up"))?;
        check::check(&target, &options, &stop, &heir)
    }

    /// Runs the check; if an invariant does not hold, fails the test with the whole report and the replay commands.
    ///
    /// # Panics
    /// If an invariant is violated or could not be judged, if the program does not work without injections, or if the
    /// harness failed.
    #[track_caller]
    pub fn assert_holds(&self) {
        let (target, report) = match (self.prepare(), self.run()) {
            (Ok((target, _)), Ok(report)) => (target, report),
            (Err(error), _) => panic!("picklock: {error}"),
            (_, Err(error)) => panic!("picklock: {error}"),
        };
        if report.exit != exit::HOLDS {
            let told = format!("{}{}", human::header(&target), human::body(&report, Detail::Normal, WIDTH));
            panic!("\n{}", anstream::adapter::strip_str(&told));
        }
    }

    fn prepare(&self) -> Result<(Target, Options), UsageError> {
        let here = std::env::current_dir().map_err(|why| UsageError::new("", why.to_string()))?;
        let mut target = match &self.source {
            Source::Adapter(file) => adapter::read(file)?,
            Source::Program { program, flags } if is_plain(flags) => {
                let program = program.to_string_lossy().into_owned();
                flags.clone().into_plain_target(&[program], &here)?
            }
            Source::Program { program, flags } => whole(program, flags).into_target(&here)?,
        };
        if let Some(timeout) = self.timeout {
            target.limits.timeout = timeout;
        }
        let again = match &self.source {
            Source::Adapter(file) => format!(" --adapter {}", shell_words::quote(&file.to_string_lossy())),
            Source::Program { program, flags } => again(program, flags),
        };
        let cases = Some(Cases { folder: self.cases.clone(), target_flags: again });
        let selection = Selection::new(&self.only, &self.skip)?;
        Ok((target, Options { selection, cases, ..self.options.clone() }))
    }
}

/// Returns whether the program is called with the default arguments.
fn is_plain(flags: &Flags) -> bool {
    flags.add.is_none() && flags.list.is_none() && flags.init.is_none()
}

/// Returns the flags, with the default arguments if none are given.
fn whole(program: &Path, flags: &Flags) -> Flags {
    let usual = |arguments: &str| Some(called(program, arguments));
    let mut flags = flags.clone();
    flags.add = flags.add.or_else(|| usual("add {data} {id}"));
    flags.list = flags.list.or_else(|| usual("list {data}"));
    flags
}

/// Returns the program with arguments, quoted for a shell; braces in its path are not taken for placeholders.
fn called(program: &Path, arguments: &str) -> String {
    let program = program.to_string_lossy().replace('{', "{{").replace('}', "}}");
    format!("{} {arguments}", shell_words::quote(&program))
}

/// Returns the same target as arguments of `picklock replay`.
fn again(program: &Path, flags: &Flags) -> String {
    let flags = &if is_plain(flags) { flags.clone() } else { whole(program, flags) };
    let named = [
        ("--data", &flags.data),
        ("--add", &flags.add),
        ("--list", &flags.list),
        ("--init", &flags.init),
        ("--records", &flags.records),
    ];
    let mut words: Vec<String> = named
        .iter()
        .filter_map(|(flag, value)| Some([(*flag).to_owned(), value.as_deref()?.to_owned()]))
        .flatten()
        .collect();
    if is_plain(flags) {
        words.extend(["--".to_owned(), program.to_string_lossy().into_owned()]);
    }
    format!(" {}", shell_words::join(words))
}
