//! Rebuilds the files derived from the trade log, which it only reads.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::disk::{self, Disk, How, read_range};
use crate::error::{Error, ErrorKind};
use crate::lock::FileLock;
use crate::replace::{folder_of, replace_resolved, resolve};
use crate::trades::{Outcome, Trade, TradeLog};

/// Names of the files that are derived from the log, beside it.
pub const DERIVED: [&str; 4] = ["portfolio.json", "equity.json", "risk_state.json", "setup_performance.json"];

/// Rebuilds the derived files of one trade log.
///
/// The log is opened read-only. If the number of trades has fallen by more than half since the last cycle, the log is
/// taken for damaged: nothing is changed, and the alarm is raised. A derived file that is missing, corrupt or wrong is
/// repaired by one cycle.
#[derive(Debug)]
pub struct Reconciler {
    log: PathBuf,
    lock: FileLock,
}

/// Result of one cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// Number of trades in the log.
    pub trades: usize,
    /// The derived files that this cycle changed.
    pub rebuilt: Vec<&'static str>,
}

/// Reason why a cycle changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Number of trades in the last cycle.
    pub before: usize,
    /// Current number of trades.
    pub now: usize,
}

/// Content of every derived file.
#[derive(Serialize)]
struct Derived<D> {
    /// Number of trades it was built from, for the check of the next cycle; in each file, because any may be lost.
    trades: usize,
    #[serde(flatten)]
    what: D,
}

#[derive(Deserialize)]
struct Remembered {
    trades: usize,
}

#[derive(Serialize)]
struct Portfolio<'a> {
    open: Vec<&'a Trade>,
}

#[derive(Default, Serialize)]
struct Equity {
    gained: Amount,
    lost: Amount,
}

#[derive(Serialize)]
struct RiskState {
    open: usize,
    risk: BTreeMap<String, Amount>,
    losses_in_a_row: usize,
}

#[derive(Serialize)]
struct SetupPerformance {
    setups: BTreeMap<String, Setup>,
}

#[derive(Default, Serialize)]
struct Setup {
    closed: usize,
    won: usize,
    gained: Amount,
    lost: Amount,
}

impl Reconciler {
    /// Opens the reconciler of the log in the file `log`.
    ///
    /// # Errors
    /// As for [`Document::open`](crate::Document::open).
    pub fn open(log: impl AsRef<Path>) -> Result<Self, Error> {
        let log = resolve(log.as_ref())?;
        // A separate lock: a cycle and the trades must not wait for each other. The log is replaced as a whole, so a
        // reader needs no lock.
        let lock = FileLock::new(log.with_file_name("reconciler.lock"));
        Ok(Self { log, lock })
    }

    /// Runs one cycle.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the log is corrupt; those of [`FileLock::lock`] and [`replace`](crate::replace).
    pub fn cycle(&self) -> Result<Result<Cycle, Alarm>, Error> {
        let disk = disk::real();
        let guard = self.lock.lock()?;
        let log = self.read_log(&*disk)?;
        let now = log.trades.len();
        let before = DERIVED.iter().filter_map(|name| self.remembered(&*disk, name)).max().unwrap_or(0);
        if now * 2 < before {
            return Ok(Err(Alarm { before, now }));
        }
        let mut rebuilt = Vec::new();
        for (name, content) in derive(&log)
            .map_err(|source| Error::new("serialise", &self.log, ErrorKind::Unserialisable(source)))?
        {
            let path = self.log.with_file_name(name);
            // A correct file is left alone, so that no change is reported if there is none.
            if read_file(&*disk, &path).is_some_and(|there| there == content) {
                continue;
            }
            replace_resolved(&*disk, &path, &content)?;
            rebuilt.push(name);
        }
        drop(guard);
        Ok(Ok(Cycle { trades: now, rebuilt }))
    }

    /// Runs a cycle at once and then every `every`, until `stop` receives a message or all its senders are gone; a
    /// running cycle is finished. Passes each result to `told`.
    pub fn run(
        &self,
        every: Duration,
        stop: &Receiver<()>,
        mut told: impl FnMut(Result<Result<Cycle, Alarm>, Error>),
    ) {
        loop {
            told(self.cycle());
            match stop.recv_timeout(every) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn read_log(&self, disk: &dyn Disk) -> Result<TradeLog, Error> {
        let file = match disk.open(&self.log, How::Read) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(TradeLog::default()),
            file => file.map_err(Error::io("open", &self.log))?,
        };
        let status = file.status().map_err(Error::io("examine", &self.log))?;
        if !status.is_file {
            return Err(Error::new("read", &self.log, ErrorKind::NotAFile));
        }
        let content = read_range(&*file, 0, status.length).map_err(Error::io("read", &self.log))?;
        serde_json::from_slice(&content)
            .map_err(|place| Error::new("read", &self.log, ErrorKind::Corrupt(place.to_string())))
    }

    /// Returns the number of trades that a derived file stores of the last cycle; `None` if it is missing or damaged.
    fn remembered(&self, disk: &dyn Disk, name: &str) -> Option<usize> {
        let content = read_file(disk, &folder_of(&self.log).join(name))?;
        serde_json::from_slice::<Remembered>(&content).ok().map(|remembered| remembered.trades)
    }
}

/// Returns the content of a file; `None` if it does not exist, or is something else.
fn read_file(disk: &dyn Disk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, How::Read).ok()?;
    let status = file.status().ok().filter(|status| status.is_file)?;
    read_range(&*file, 0, status.length).ok()
}

/// Builds the derived files, by name.
fn derive(log: &TradeLog) -> Result<[(&'static str, Vec<u8>); 4], serde_json::Error> {
    let trades = log.trades.len();
    let open: Vec<&Trade> = log.trades.iter().filter(|trade| trade.exit.is_none()).collect();
    let closed: Vec<(&Trade, Outcome)> =
        log.trades.iter().filter_map(|trade| Some((trade, trade.outcome()?))).collect();
    let mut equity = Equity::default();
    let mut setups: BTreeMap<String, Setup> = BTreeMap::new();
    for (trade, outcome) in &closed {
        let setup = setups.entry(trade.plan.setup.clone()).or_default();
        setup.closed += 1;
        setup.won += usize::from(!outcome.is_loss);
        for sums in [(&mut equity.gained, &mut equity.lost), (&mut setup.gained, &mut setup.lost)] {
            let sum = if outcome.is_loss { sums.1 } else { sums.0 };
            // On overflow, the last sum that fits is kept: a derived file must never stop the reconciler.
            *sum = sum.plus(outcome.amount).unwrap_or(*sum);
        }
    }
    let mut risk: BTreeMap<String, Amount> = BTreeMap::new();
    for trade in &open {
        let sum = risk.entry(trade.plan.symbol.clone()).or_default();
        *sum = trade.risk().and_then(|risk| sum.plus(risk)).unwrap_or(*sum);
    }
    let losses_in_a_row = closed.iter().rev().take_while(|(_, outcome)| outcome.is_loss).count();
    let risk_state = RiskState { open: open.len(), risk, losses_in_a_row };
    let [portfolio_name, equity_name, risk_name, setup_name] = DERIVED;
    Ok([
        (portfolio_name, content(trades, Portfolio { open })?),
        (equity_name, content(trades, equity)?),
        (risk_name, content(trades, risk_state)?),
        (setup_name, content(trades, SetupPerformance { setups })?),
    ])
}

fn content<D: Serialize>(trades: usize, what: D) -> Result<Vec<u8>, serde_json::Error> {
    let mut content = serde_json::to_vec_pretty(&Derived { trades, what })?;
    content.push(b'\n');
    Ok(content)
}

impl fmt::Display for Alarm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, now } = self;
        write!(
            out,
            "ALARM: the trade log holds {now} trades, and held {before} in the last cycle; nothing was changed. \
             Look at the log; where it is right, remove the derived files"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;
    use crate::trades::{Plan, Rules, Side, TradeStore};

    fn with_trades(count: usize) -> (tempfile::TempDir, TradeStore, Reconciler) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("trades.json");
        let store = TradeStore::open(&log, Rules::default()).unwrap();
        for number in 0..count {
            let amount = |text: &str| text.parse::<Amount>().unwrap();
            let plan = Plan {
                symbol: format!("S{number}"),
                side: Side::Long,
                entry: amount("10"),
                stop: amount("9"),
                target: amount("12"),
                size: amount("2"),
                setup: if number % 2 == 0 { "even" } else { "odd" }.into(),
                grade: "a".into(),
            };
            store.open_trade(&number.to_string(), plan).unwrap().unwrap();
        }
        let reconciler = Reconciler::open(&log).unwrap();
        (folder, store, reconciler)
    }

    fn all(folder: &Path) -> Vec<Vec<u8>> {
        DERIVED.iter().map(|name| fs::read(folder.join(name)).unwrap_or_default()).collect()
    }

    #[test]
    fn a_damaged_derived_file_is_right_again_after_one_cycle_and_the_log_is_as_it_was() {
        let (folder, store, reconciler) = with_trades(3);
        store.close_trade("1", "8".parse().unwrap()).unwrap().unwrap();
        let log = fs::read(folder.path().join("trades.json")).unwrap();
        assert_eq!(reconciler.cycle().unwrap().unwrap().rebuilt, DERIVED);
        let right = all(folder.path());
        assert!(String::from_utf8_lossy(&right[1]).contains("\"lost\": \"4\""), "{right:?}");
        assert_eq!(reconciler.cycle().unwrap().unwrap().rebuilt, [""; 0]);
        for (name, right) in DERIVED.iter().zip(&right) {
            let path = folder.path().join(name);
            for damage in [
                None,
                Some(Vec::new()),
                Some(right[..right.len() / 2].to_vec()),
                Some(b"{\"trades\": 3}".to_vec()),
            ] {
                match damage {
                    None => fs::remove_file(&path).unwrap(),
                    Some(content) => fs::write(&path, content).unwrap(),
                }
                assert_eq!(reconciler.cycle().unwrap().unwrap().rebuilt, [*name]);
                assert_eq!(fs::read(&path).unwrap(), *right);
            }
        }
        assert_eq!(fs::read(folder.path().join("trades.json")).unwrap(), log);
    }

    #[test]
    fn a_log_that_lost_more_than_half_changes_nothing_and_raises_the_alarm() {
        let (folder, _store, reconciler) = with_trades(5);
        reconciler.cycle().unwrap().unwrap();
        let before = all(folder.path());
        let log = folder.path().join("trades.json");
        let mut trades: TradeLog = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
        trades.trades.truncate(2);
        fs::write(&log, serde_json::to_vec(&trades).unwrap()).unwrap();
        assert_eq!(reconciler.cycle().unwrap(), Err(Alarm { before: 5, now: 2 }));
        assert_eq!(all(folder.path()), before);
        // Half is not more than half.
        fs::write(folder.path().join("trades.json"), serde_json::to_vec(&trades).unwrap()).unwrap();
        for name in DERIVED {
            fs::write(folder.path().join(name), b"{\"trades\": 4}").unwrap();
        }
        assert!(reconciler.cycle().unwrap().is_ok());
    }

    #[test]
    fn an_interval_ends_cleanly_when_it_is_told_to() {
        let (_folder, _store, reconciler) = with_trades(1);
        let (stop, stopped) = mpsc::channel();
        let mut cycles = 0;
        reconciler.run(Duration::from_millis(1), &stopped, |cycle| {
            assert!(cycle.unwrap().is_ok());
            cycles += 1;
            if cycles == 3 {
                stop.send(()).unwrap();
            }
        });
        assert_eq!(cycles, 3);
    }
}
