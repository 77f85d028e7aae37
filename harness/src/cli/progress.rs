//! Shows progress on standard error if it is a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use picklock::check::Watcher;
use picklock::evidence::{about, round_budget};

/// Shows no progress; only reports folders that the supervisor must remove if this process is killed.
pub(crate) struct Made<'a>(pub(crate) &'a (dyn Fn(&Path) + Sync));

impl Watcher for Made<'_> {
    fn made(&self, folder: &Path) {
        (self.0)(folder);
    }
}

/// Shows a progress bar if standard error is a terminal, and reports folders as `Made` does.
pub(crate) struct Progress<'a> {
    made: &'a (dyn Fn(&Path) + Sync),
    is_shown: bool,
    bar: Mutex<ProgressBar>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(made: &'a (dyn Fn(&Path) + Sync), is_wanted: bool) -> Self {
        let is_shown = is_wanted && io::stderr().is_terminal();
        Self { made, is_shown, bar: Mutex::new(ProgressBar::hidden()) }
    }

    pub(crate) fn finish(&self) {
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
        // If the template were invalid, the default style would do.
        if let Ok(style) =
            ProgressStyle::with_template("  {msg:<12} [{bar:30}] about {pos} of {len} operations, {elapsed}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(scenario.to_owned());
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn estimate(&self, time: Duration, budget: Option<Duration>) {
        if !self.is_shown {
            return;
        }
        let about = about(time);
        let beyond = match budget.filter(|budget| *budget < time) {
            Some(_) => format!("; --budget {} has room for all of it", round_budget(time)),
            None => String::new(),
        };
        self.finish();
        // Written for a person, who notices if it is missing.
        let _written = writeln!(
            anstream::stderr(),
            "  the store works without injections; the minimum evidence takes {about}{beyond}"
        );
    }

    fn operation(&self) {
        if self.is_shown {
            self.bar.lock().unwrap_or_else(PoisonError::into_inner).inc(1);
        }
    }
}
