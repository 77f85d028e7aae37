//! Runs the store as a program: one operation of any form a run, or many in a session.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command::form::{Added, Form, Forms, Other, open};
use crate::context::Context;
use crate::ledger::{Action, Ledger};
use crate::trades::{Plan, Reconciler, Rules, Side, TradeStore};
use crate::{Amount, Error, ErrorKind};

mod form;
mod session;

/// State kept in a file: atomic, locked, crash-safe.
///
/// DATA is the data file. Its lock is NAME.lock beside it. What is acknowledged is on the disk.
#[derive(Debug, Parser)]
#[command(name = "picklock-store", version, max_term_width = 100, after_help = AFTER)]
struct Line {
    #[command(subcommand)]
    what: What,
}

const AFTER: &str = "\
exit: 0 done, 1 failed, 2 usage, 3 refused and nothing changed, 75 lock not to be had and nothing changed";

#[derive(Debug, Subcommand)]
enum What {
    /// Put the record ID into DATA; one that is there already is refused where the form knows it.
    Add {
        data: PathBuf,
        #[arg(value_parser = one_line)]
        id: String,
        #[command(flatten)]
        form: As,
        /// Give up after so many seconds without the lock (a document only); else wait as long as it takes.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<Duration>,
        /// Who writes it (shards only).
        #[arg(long, default_value = "1")]
        writer: String,
        /// Merge it at once (shards only).
        #[arg(long)]
        merge: bool,
    },
    /// Print the records in DATA, one a line.
    List {
        data: PathBuf,
        #[command(flatten)]
        form: As,
    },
    /// Make DATA with nothing in it, where it is missing (shards only).
    Create { data: PathBuf },
    /// Move what the shards have into DATA (shards only).
    Merge { data: PathBuf },
    /// Continue DATA in a new file (journal, ledger, context).
    Rotate {
        data: PathBuf,
        #[command(flatten)]
        form: As,
    },
    /// Write DATA anew, in one file (journal only).
    Compact { data: PathBuf },
    /// Put cash into the ledger DATA.
    Deposit { data: PathBuf, cash: Amount },
    /// Buy shares for the ledger DATA.
    Buy {
        data: PathBuf,
        symbol: String,
        quantity: Amount,
        #[arg(long, default_value = "1")]
        price: Amount,
    },
    /// Sell shares of the ledger DATA.
    Sell {
        data: PathBuf,
        symbol: String,
        quantity: Amount,
        #[arg(long, default_value = "1")]
        price: Amount,
    },
    /// Print what the ledger DATA holds.
    Position { data: PathBuf },
    /// Open a trade in the log DATA.
    OpenTrade {
        data: PathBuf,
        #[arg(value_parser = one_line)]
        id: String,
        /// What is traded; the id unless given.
        #[arg(long)]
        symbol: Option<String>,
        #[arg(long, value_parser = side, default_value = "long")]
        side: Side,
        #[arg(long, default_value = "100")]
        entry: Amount,
        #[arg(long, default_value = "99")]
        stop: Amount,
        #[arg(long, default_value = "102")]
        target: Amount,
        #[arg(long, default_value = "1")]
        size: Amount,
        #[arg(long, default_value = "none")]
        setup: String,
        #[arg(long, default_value = "b")]
        grade: String,
        /// The rules of risk, a JSON file; none unless given.
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        /// So many trades may be open at once, whatever the rules say.
        #[arg(long, value_name = "N")]
        open_max: Option<usize>,
    },
    /// Close a trade in the log DATA.
    CloseTrade { data: PathBuf, id: String, exit: Amount },
    /// Rebuild what is derived from the trade log DATA, once or again and again until SIGINT or SIGTERM.
    Reconcile {
        data: PathBuf,
        /// So many seconds between two cycles.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        every: Option<Duration>,
    },
    /// Mark a place in the context DATA to go back to, and print its number.
    Checkpoint { data: PathBuf },
    /// Go back to a checkpoint of the context DATA.
    Revert { data: PathBuf, checkpoint: u64 },
    /// Tell how many tokens the context DATA takes.
    Usage { data: PathBuf, tokens: u64 },
    /// Begin the context DATA anew, with its prompts alone.
    Clear { data: PathBuf },
    /// Answer requests for DATA, one JSON object a line, until the input ends.
    Session {
        data: PathBuf,
        #[command(flatten)]
        form: As,
    },
}

#[derive(Args, Debug)]
struct As {
    /// What DATA is.
    #[arg(long = "as", value_enum, default_value_t, value_name = "FORM")]
    form: Forms,
}

/// How a command ended; the discriminant is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum End {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Busy = 75,
}

/// A command that did not succeed: how it ended, and why.
#[derive(Debug)]
struct Unsuccessful(End, String);

impl From<Error> for Unsuccessful {
    fn from(error: Error) -> Self {
        Self(if error.is_busy() { End::Busy } else { End::Failed }, error.to_string())
    }
}

impl From<io::Error> for Unsuccessful {
    fn from(error: io::Error) -> Self {
        Self(End::Failed, format!("cannot print: {error}"))
    }
}

/// Runs the command that `arguments` (without the program's name) ask for and returns the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let program = OsString::from("picklock-store");
    let line = match Line::try_parse_from(std::iter::once(program).chain(arguments)) {
        Ok(line) => line,
        Err(usage) => {
            // If standard error is closed, the error cannot be reported.
            let _written = usage.print();
            return if usage.use_stderr() { End::Usage as u8 } else { End::Done as u8 };
        }
    };
    match line.what.run() {
        Ok(()) => End::Done as u8,
        Err(Unsuccessful(end, message)) => {
            let _written = writeln!(io::stderr(), "picklock-store: {message}");
            end as u8
        }
    }
}

impl What {
    fn run(self) -> Result<(), Unsuccessful> {
        match self {
            Self::Add { data, id, form, wait, writer, merge } => {
                let kind = form.form;
                let is_misplaced =
                    (merge && kind != Forms::Shards) || (wait.is_some() && kind != Forms::Document);
                if is_misplaced {
                    let why = "--merge is for shards, and --wait for a document; nothing was done";
                    return Err(Unsuccessful(End::Usage, why.to_owned()));
                }
                let form = open(kind, &data, &writer, wait)?;
                added(form.add(&id, &|| true)?, &id, &data)?;
                if merge { other(&*form, "merge") } else { Ok(()) }
            }
            Self::List { data, form } => print(&open(form.form, &data, "1", None)?.list()?),
            Self::Create { data } => Ok(crate::Shards::<String>::open(data)?.create()?),
            Self::Merge { data } => Ok(crate::Shards::<String>::open(data)?.merge().map(drop)?),
            Self::Rotate { data, form } => other(&*open(form.form, &data, "1", None)?, "rotate"),
            Self::Compact { data } => other(&*open(Forms::Journal, &data, "1", None)?, "compact"),
            Self::Deposit { data, cash } => act(&data, Action::Deposit { cash }),
            Self::Buy { data, symbol, quantity, price } => {
                act(&data, Action::Buy { symbol, quantity, price })
            }
            Self::Sell { data, symbol, quantity, price } => {
                act(&data, Action::Sell { symbol, quantity, price })
            }
            Self::Position { data } => {
                let position = Ledger::open_file(data)?.position()?;
                let mut lines = vec![format!("cash {}", position.cash)];
                lines.extend(position.shares.iter().map(|(symbol, held)| format!("{symbol} {held}")));
                print(&lines)
            }
            Self::OpenTrade {
                data,
                id,
                symbol,
                side,
                entry,
                stop,
                target,
                size,
                setup,
                grade,
                rules,
                open_max,
            } => {
                let symbol = symbol.unwrap_or_else(|| id.clone());
                let plan = Plan { symbol, side, entry, stop, target, size, setup, grade };
                let rules = rules_of(rules.as_deref())?;
                let rules = Rules { open_max: open_max.or(rules.open_max), ..rules };
                let store = TradeStore::open(data, rules)?;
                store.open_trade(&id, plan)?.map(drop).map_err(|refused| refusal(&refused))
            }
            Self::CloseTrade { data, id, exit } => {
                let outcome = TradeStore::open(data, Rules::default())?.close_trade(&id, exit)?;
                let outcome = outcome.map_err(|refused| refusal(&refused))?;
                let sign = if outcome.is_loss { "-" } else { "" };
                print(&[format!("{sign}{}", outcome.amount)])
            }
            Self::Reconcile { data, every } => reconcile(&data, every),
            Self::Checkpoint { data } => match Context::unread(data)?.checkpoint()? {
                Ok(number) => print(&[number.to_string()]),
                Err(refused) => Err(refusal(&refused)),
            },
            Self::Revert { data, checkpoint } => {
                Context::unread(data)?.revert_to(checkpoint)?.map_err(|refused| refusal(&refused))
            }
            Self::Usage { data, tokens } => Ok(Context::unread(data)?.usage(tokens)?),
            Self::Clear { data } => Ok(Context::unread(data)?.clear()?),
            Self::Session { data, form } => Ok(session::run(form.form, &data)?),
        }
    }
}

fn added(added: Added, id: &str, data: &Path) -> Result<(), Unsuccessful> {
    match added {
        Added::Yes => Ok(()),
        Added::Refused(why) => {
            Err(Unsuccessful(End::Refused, format!("record {id:?} is not put into {data:?}: {why}")))
        }
        Added::Cancelled => Err(Unsuccessful(End::Failed, "it was given up".to_owned())),
    }
}

fn other(form: &dyn Form, verb: &str) -> Result<(), Unsuccessful> {
    match form.other(verb)? {
        Other::Done => Ok(()),
        Other::Refused(why) => Err(Unsuccessful(End::Refused, why)),
        Other::Unknown => Err(Unsuccessful(End::Usage, format!("this form has nothing to {verb}"))),
    }
}

fn act(data: &Path, action: Action) -> Result<(), Unsuccessful> {
    Ledger::open_file(data)?.act(action)?.map(drop).map_err(|refused| refusal(&refused))
}

fn refusal(why: &impl ToString) -> Unsuccessful {
    Unsuccessful(End::Refused, format!("refused: {}; nothing was changed", why.to_string()))
}

fn reconcile(data: &Path, every: Option<Duration>) -> Result<(), Unsuccessful> {
    let reconciler = Reconciler::open(data)?;
    let Some(every) = every else {
        return match reconciler.cycle()? {
            Ok(cycle) => print(&[format!("{} trades, rebuilt: {}", cycle.trades, cycle.rebuilt.join(", "))]),
            Err(alarm) => Err(Unsuccessful(End::Refused, alarm.to_string())),
        };
    };
    let (stop, stopped) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|why| Unsuccessful(End::Failed, format!("cannot handle signals: {why}")))?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // The receiver is there until the process ends.
            let _told = stop.send(());
        }
    });
    reconciler.run(every, &stopped, |cycle| {
        let told = match cycle {
            Ok(Ok(cycle)) => format!("{} trades, rebuilt: {}", cycle.trades, cycle.rebuilt.join(", ")),
            Ok(Err(alarm)) => alarm.to_string(),
            Err(failed) => failed.to_string(),
        };
        // It continues even if nothing reads its output.
        let _written = writeln!(io::stdout(), "{told}");
    });
    Ok(())
}

fn rules_of(path: Option<&Path>) -> Result<Rules, Unsuccessful> {
    let Some(path) = path else { return Ok(Rules::default()) };
    let content = std::fs::read(path).map_err(Error::io("read the rules", path))?;
    serde_json::from_slice(&content)
        .map_err(|place| Error::new("read the rules", path, ErrorKind::Corrupt(place.to_string())).into())
}

fn print(lines: &[String]) -> Result<(), Unsuccessful> {
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn one_line(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['\n', '\r']) {
        return Err("a record's name is one line that is not empty".to_owned());
    }
    Ok(text.to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|why| why.to_string())
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "long" => Ok(Side::Long),
        "short" => Ok(Side::Short),
        _ => Err("a side is long or short".to_owned()),
    }
}
