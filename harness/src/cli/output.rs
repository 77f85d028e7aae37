//! Writes a report in the chosen format to standard output or a file, and to GitHub's step summary.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;
use picklock::report::human::{self, Detail};
use picklock::report::{Report, github, junit};
use picklock::target::{Target, UsageError};

use crate::cli::arguments::{Color, ReportArguments, ReportFormat};

/// Width, in columns, of a report that does not go to a terminal.
const WIDTH: usize = 120;

/// Destination and format of a report.
pub(crate) struct Delivery {
    out: Output,
    format: ReportFormat,
    detail: Detail,
}

impl Delivery {
    /// Opens the output before anything runs, so that an unwritable report is not discovered at the end.
    pub(crate) fn open(arguments: &ReportArguments) -> anyhow::Result<Self> {
        let detail = match (arguments.quiet, arguments.verbose) {
            (true, _) => Detail::Quiet,
            (_, true) => Detail::Verbose,
            _ => Detail::Normal,
        };
        let out = Output::open(arguments.output.as_deref(), arguments.color)?;
        Ok(Self { out, format: arguments.format, detail })
    }

    /// Removes the previous run's report from the file.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        self.out.empty()
    }

    /// Whether to show progress on a terminal.
    pub(crate) fn shows_progress(&self) -> bool {
        self.detail != Detail::Quiet
    }

    /// Prints which store is judged, before the run.
    pub(crate) fn announce(&mut self, target: &Target) -> anyhow::Result<()> {
        if self.format != ReportFormat::Human || self.detail == Detail::Quiet {
            return Ok(());
        }
        match self.out.write(&human::header(target)) {
            // The reader closed the output, and may still need the exit status.
            Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write the report"),
        }
    }

    /// Writes the report and returns its exit status.
    pub(crate) fn deliver(mut self, report: &Report) -> anyhow::Result<u8> {
        let text = match self.format {
            ReportFormat::Human => human::body(report, self.detail, self.out.width()),
            ReportFormat::Json => report.to_json(),
            ReportFormat::Junit => junit::junit(report),
            ReportFormat::Github => github::annotations(report),
        };
        let written = self.out.write(&text);
        if env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
            self.tell_github(report)?;
        }
        match written {
            Ok(()) => Ok(report.exit),
            // The reader closed the output early, and still needs the exit status.
            Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => Ok(report.exit),
            Err(other) => Err(anyhow::Error::new(other).context("cannot write the report")),
        }
    }

    /// Writes annotations to standard output, unless another format is printed there, and the step's summary to a file
    /// that the runner names.
    fn tell_github(&mut self, report: &Report) -> anyhow::Result<()> {
        let is_printed = self.format == ReportFormat::Human || matches!(self.out, Output::File(..));
        if is_printed {
            io::stdout()
                .write_all(github::annotations(report).as_bytes())
                .context("cannot write annotations")?;
        }
        let Some(path) = env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
            return Ok(());
        };
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(github::summary(report).as_bytes()));
        // The verdict does not depend on the summary.
        if let Err(why) = written {
            writeln!(
                anstream::stderr(),
                "warning: the summary of the step cannot be written to {path:?}: {why}"
            )?;
        }
        Ok(())
    }
}

/// Opens a file given by a flag, to be overwritten. Its content stays until [`empty`]: the next flag may be a mistake.
pub(crate) fn open(flag: &'static str, path: &Path) -> Result<File, UsageError> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(|why| {
        UsageError::new(flag, format!("{path:?} cannot be written: {why}"))
            .help("name a file in a folder that exists and is writable")
    })
}

/// Empties a file before the run begins. Otherwise, if the run is killed, the old report would be mistaken for the new
/// one.
pub(crate) fn empty(file: &File, path: &Path) -> anyhow::Result<()> {
    // Anything but a regular file, such as /dev/stdout, has no content to remove.
    match file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        true => file.set_len(0).with_context(|| format!("cannot empty {path:?}")),
        false => Ok(()),
    }
}

/// Destination of text.
pub(crate) enum Output {
    Terminal(AutoStream<io::Stdout>),
    File(PathBuf, File, Box<AutoStream<File>>),
}

impl Output {
    pub(crate) fn open(path: Option<&Path>, color: Color) -> anyhow::Result<Self> {
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
        let same = file.try_clone().with_context(|| format!("cannot keep {path:?} open"))?;
        let stream = AutoStream::new(file, choice.unwrap_or(ColorChoice::Never));
        Ok(Self::File(path.to_owned(), same, Box::new(stream)))
    }

    /// Calls [`empty`] if the output is a file.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        match self {
            Self::Terminal(_) => Ok(()),
            Self::File(path, file, _) => empty(file, path),
        }
    }

    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Terminal(stream) => stream.write_all(text.as_bytes()).and_then(|()| stream.flush()),
            Self::File(path, _, stream) => stream
                .write_all(text.as_bytes())
                .map_err(|why| io::Error::new(why.kind(), format!("{path:?}: {why}"))),
        }
    }

    pub(crate) fn width(&self) -> usize {
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
