//! Keeps a trade log as the single source of truth: every rule is checked under the lock, on the log that it protects.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::document::Document;
use crate::error::Error;

mod reconcile;
mod rules;

pub use reconcile::{Alarm, Cycle, DERIVED, Reconciler};
pub use rules::{Group, Refusal, Rules};

/// The trades of a portfolio in one JSON document.
///
/// Opening and closing are decided under the lock on the log as it then stands, and each write is read back. What is
/// derived from the log is made by a [`Reconciler`], which only reads it.
#[derive(Debug)]
pub struct TradeStore {
    log: Document<TradeLog>,
    rules: Rules,
}

/// What the data file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TradeLog {
    /// In the order in which they were opened.
    pub trades: Vec<Trade>,
}

/// A trade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trade {
    /// Its name; no other trade has it.
    pub id: String,
    /// What was to be.
    #[serde(flatten)]
    pub plan: Plan,
    /// For how much it was closed; nothing while it is open.
    pub exit: Option<Amount>,
}

/// A trade to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is traded.
    pub symbol: String,
    /// Which way.
    pub side: Side,
    /// The price it is opened at.
    pub entry: Amount,
    /// The price at which it is given up.
    pub stop: Amount,
    /// The price that is hoped for.
    pub target: Amount,
    /// How many.
    pub size: Amount,
    /// The pattern that it follows.
    pub setup: String,
    /// How good a chance it was thought to be.
    pub grade: String,
}

/// Which way a trade goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// It gains when the price rises.
    Long,
    /// It gains when the price falls.
    Short,
}

/// What a closed trade came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How much was gained or lost.
    pub amount: Amount,
    /// Whether it was lost.
    pub is_loss: bool,
}

impl TradeStore {
    /// The store in the file `path`, with these rules. Nothing is created before the first trade.
    ///
    /// # Errors
    /// As for [`Document::open`].
    pub fn open(path: impl AsRef<Path>, rules: Rules) -> Result<Self, Error> {
        Ok(Self { log: Document::open(path)?, rules })
    }

    /// Opens a trade under the name `id`, where every rule allows it.
    ///
    /// # Errors
    /// As for [`Document::update`].
    pub fn open_trade(&self, id: &str, plan: Plan) -> Result<Result<Trade, Refusal>, Error> {
        self.log.update_unless(|log| {
            let trade = Trade { id: id.to_owned(), plan, exit: None };
            self.rules.check(log, &trade)?;
            log.trades.push(trade.clone());
            Ok(trade)
        })
    }

    /// Closes the trade `id` at this price.
    ///
    /// # Errors
    /// As for [`Document::update`].
    pub fn close_trade(&self, id: &str, exit: Amount) -> Result<Result<Outcome, Refusal>, Error> {
        self.log.update_unless(|log| {
            let found = log.trades.iter_mut().find(|trade| trade.id == id && trade.exit.is_none());
            let trade = found.ok_or(Refusal::NotOpen)?;
            trade.exit = Some(exit);
            trade.outcome().ok_or(Refusal::TooLarge)
        })
    }

    /// All trades.
    ///
    /// # Errors
    /// As for [`Document::read`].
    pub fn trades(&self) -> Result<Vec<Trade>, Error> {
        Ok(self.log.read()?.trades.clone())
    }
}

impl Trade {
    /// What it came to; nothing where it is open.
    pub fn outcome(&self) -> Option<Outcome> {
        let (per_share, is_higher) = {
            let (apart, is_lower) = self.exit?.apart(self.plan.entry);
            (apart, !is_lower)
        };
        let amount = per_share.times(self.plan.size)?;
        let is_gain = match self.plan.side {
            Side::Long => is_higher,
            Side::Short => !is_higher,
        };
        Some(Outcome { amount, is_loss: !is_gain && amount != Amount::ZERO })
    }

    /// What is lost where it ends at its stop; nothing where that is more than fits.
    pub fn risk(&self) -> Option<Amount> {
        self.plan.entry.apart(self.plan.stop).0.times(self.plan.size)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Long => "long",
            Self::Short => "short",
        })
    }
}
