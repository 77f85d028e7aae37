//! Defines the forms that DATA can have and their operations.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Line};
use crate::ledger::{Action, Ledger};
use crate::trades::{Plan, Reconciler, Rules, Side, TradeStore};
use crate::{Amount, Document, Error, Journal, SavedSession, Shards, TornWhileWritten};

/// What DATA is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Forms {
    /// A JSON document that every update replaces.
    #[default]
    Document,
    /// JSON Lines that are only added to.
    Journal,
    /// The ledger of one signature: a record is a symbol of which one share is bought for 1.
    Ledger,
    /// A trade log: a record is an open trade.
    Trades,
    /// A saved session.
    Saved,
    /// A saved session that is written in place.
    InPlace,
    /// A conversation: a record is a message.
    Context,
    /// Sharded writers and the file they are merged into.
    Shards,
}

/// Result of adding a record.
#[derive(Debug)]
pub(super) enum Added {
    Yes,
    /// Nothing was changed, for this reason.
    Refused(String),
    /// It was no longer wanted: it is in memory and in the file, or in neither.
    Cancelled,
}

/// Result of an operation that not every form has.
#[derive(Debug)]
pub(super) enum Other {
    Done,
    Refused(String),
    Unknown,
}

/// One file of any form.
pub(super) trait Form: Send + Sync {
    /// Adds a record, unless `is_wanted` returns false once the lock is taken.
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error>;
    /// Returns the records in the file.
    fn list(&self) -> Result<Vec<String>, Error>;
    /// Returns the records that this process believes exist, without reading; `None` if it believes nothing.
    fn memory(&self) -> Option<Vec<String>> {
        None
    }
    /// Runs an operation that not every form has.
    fn other(&self, _: &str) -> Result<Other, Error> {
        Ok(Other::Unknown)
    }
}

/// Opens DATA.
pub(super) fn open(
    form: Forms,
    data: &Path,
    writer: &str,
    wait: Option<Duration>,
) -> Result<Box<dyn Form>, Error> {
    Ok(match form {
        Forms::Document => Box::new(Records { document: Document::open(data)?, wait }),
        Forms::Journal => Box::new(Journal::<Record>::open(data)?),
        Forms::Ledger => Box::new(Ledger::open_file(data)?),
        Forms::Trades => Box::new(Trades {
            store: TradeStore::open(data, Rules::default())?,
            reconciler: Reconciler::open(data)?,
        }),
        Forms::Saved => Box::new(SavedSession::<Names>::open(data)?),
        Forms::InPlace => Box::new(TornWhileWritten::<Names>::open(data)?),
        Forms::Context => Box::new(Context::unread(data)?),
        Forms::Shards => Box::new(Sharded { shards: Shards::open(data)?, writer: writer.to_owned() }),
    })
}

/// Wraps a form; if the form itself believes nothing, this believes what it listed after its last operation.
pub(super) struct Believing {
    pub(super) form: Box<dyn Form>,
    listed: Mutex<Vec<String>>,
}

impl Believing {
    pub(super) fn new(form: Box<dyn Form>) -> Result<Self, Error> {
        let listed = Mutex::new(form.list()?);
        Ok(Self { form, listed })
    }

    /// Lists the records, and believes them from now on.
    pub(super) fn look(&self) -> Result<Vec<String>, Error> {
        // One at a time, so that no thread goes back to what an earlier look found.
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.clone_from(&self.form.list()?);
        Ok(listed.clone())
    }

    pub(super) fn memory(&self) -> Vec<String> {
        let listed = || self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.form.memory().unwrap_or_else(listed)
    }
}

/// Content of a document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    records: Vec<String>,
}

impl Names {
    /// Adds a record if it is wanted and new.
    fn add(&mut self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<(), Added> {
        if !is_wanted() {
            return Err(Added::Cancelled);
        }
        if self.records.iter().any(|there| there == record) {
            return Err(Added::Refused("it is there already".to_owned()));
        }
        self.records.push(record.to_owned());
        Ok(())
    }
}

fn added(done: Result<(), Added>) -> Added {
    done.err().unwrap_or(Added::Yes)
}

struct Records {
    document: Document<Names>,
    wait: Option<Duration>,
}

impl Form for Records {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        let change = |names: &mut Names| names.add(record, is_wanted);
        let done = match self.wait {
            None => self.document.update_unless(change)?,
            Some(limit) => self.document.update_within(limit, change)?,
        };
        Ok(added(done))
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.document.read()?.records.clone())
    }

    fn memory(&self) -> Option<Vec<String>> {
        Some(self.document.known_value().map(|names| names.records.clone()).unwrap_or_default())
    }
}

/// One line of a journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    id: String,
}

impl Form for Journal<Record> {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        let record = Record { id: record.to_owned() };
        let done = self.append_after(|_| if is_wanted() { Ok(record) } else { Err(Added::Cancelled) })?;
        Ok(added(done.map(drop)))
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.read()?.into_iter().map(|record| record.id).collect())
    }

    fn other(&self, verb: &str) -> Result<Other, Error> {
        match verb {
            "rotate" => self.rotate().map(drop)?,
            "compact" => {
                let all = |records| Ok::<_, std::convert::Infallible>(records);
                self.rewrite(all)?.unwrap_or_else(|never| match never {});
            }
            _ => return Ok(Other::Unknown),
        }
        Ok(Other::Done)
    }
}

impl Form for Ledger {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        let one = Amount::whole(1).unwrap_or_default();
        let buy = Action::Buy { symbol: record.to_owned(), quantity: one, price: one };
        // A purchase cannot be reverted: it is cancelled before, or not at all.
        if !is_wanted() {
            return Ok(Added::Cancelled);
        }
        Ok(match self.act(buy)? {
            Ok(_) => Added::Yes,
            Err(refused) => Added::Refused(refused.to_string()),
        })
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.position()?.shares.into_keys().collect())
    }

    fn other(&self, verb: &str) -> Result<Other, Error> {
        match verb {
            "rotate" => self.rotate().map(|_| Other::Done),
            _ => Ok(Other::Unknown),
        }
    }
}

struct Trades {
    store: TradeStore,
    reconciler: Reconciler,
}

impl Form for Trades {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        let whole = |number| Amount::whole(number).unwrap_or_default();
        let plan = Plan {
            symbol: record.to_owned(),
            side: Side::Long,
            entry: whole(100),
            stop: whole(99),
            target: whole(102),
            size: whole(1),
            setup: "none".to_owned(),
            grade: "b".to_owned(),
        };
        if !is_wanted() {
            return Ok(Added::Cancelled);
        }
        Ok(match self.store.open_trade(record, plan)? {
            Ok(_) => Added::Yes,
            Err(refused) => Added::Refused(refused.to_string()),
        })
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.store.trades()?.into_iter().map(|trade| trade.id).collect())
    }

    fn other(&self, verb: &str) -> Result<Other, Error> {
        match verb {
            "reconcile" => Ok(match self.reconciler.cycle()? {
                Ok(_) => Other::Done,
                Err(alarm) => Other::Refused(alarm.to_string()),
            }),
            _ => Ok(Other::Unknown),
        }
    }
}

impl Form for SavedSession<Names> {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        Ok(added(self.change(|names| names.add(record, is_wanted))?))
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.load()?.records.clone())
    }
}

impl Form for TornWhileWritten<Names> {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        Ok(added(self.change(|names| names.add(record, is_wanted))?))
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.load()?.records)
    }
}

/// Returns the messages of a history.
pub(super) fn messages(history: Vec<Line>) -> Vec<String> {
    let text = |line| match line {
        Line::Message { text, .. } => Some(text),
        _ => None,
    };
    history.into_iter().filter_map(text).collect()
}

/// Wraps a record in a message.
pub(super) fn message(record: &str) -> Line {
    Line::Message { role: "user".to_owned(), text: record.to_owned() }
}

impl Form for Context {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        Ok(match self.append_if(message(record), is_wanted)? {
            Ok(()) => Added::Yes,
            Err(_) => Added::Cancelled,
        })
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(messages(self.read()?.history))
    }

    fn memory(&self) -> Option<Vec<String>> {
        Some(messages(Self::memory(self).history))
    }

    fn other(&self, verb: &str) -> Result<Other, Error> {
        match verb {
            "checkpoint" => {
                if let Err(refused) = self.checkpoint()? {
                    return Ok(Other::Refused(refused.to_string()));
                }
            }
            "clear" => self.clear()?,
            "rotate" => self.rotate().map(drop)?,
            _ => return Ok(Other::Unknown),
        }
        Ok(Other::Done)
    }
}

struct Sharded {
    shards: Shards<String>,
    writer: String,
}

impl Form for Sharded {
    fn add(&self, record: &str, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Added, Error> {
        if !is_wanted() {
            return Ok(Added::Cancelled);
        }
        self.shards.writer(&self.writer)?.append(&record.to_owned())?;
        Ok(Added::Yes)
    }

    /// Merges first, so that the merged file contains what is listed.
    fn list(&self) -> Result<Vec<String>, Error> {
        self.shards.merge()?;
        Ok(self.shards.merged()?.records.clone())
    }

    fn other(&self, verb: &str) -> Result<Other, Error> {
        match verb {
            "merge" => self.shards.merge().map(|_| Other::Done),
            _ => Ok(Other::Unknown),
        }
    }
}
