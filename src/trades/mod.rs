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
/// Opening and closing are checked under the lock on the current log, and each write is read back. Derived files are
/// built by a [`Reconciler`], which only reads the log.
#[derive(Debug)]
pub struct TradeStore {
    log: Document<TradeLog>,
    rules: Rules,
}

/// Content of the data file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TradeLog {
    /// Trades in the order in which they were opened.
    pub trades: Vec<Trade>,
}

/// A trade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trade {
    /// Unique name.
    pub id: String,
    /// The plan of the trade.
    #[serde(flatten)]
    pub plan: Plan,
    /// Price at which it was closed; `None` while it is open.
    pub exit: Option<Amount>,
}

/// Plan of a trade to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Traded symbol.
    pub symbol: String,
    /// Direction of the trade.
    pub side: Side,
    /// Price at which it is opened.
    pub entry: Amount,
    /// Stop price, at which it is given up.
    pub stop: Amount,
    /// Target price.
    pub target: Amount,
    /// Number of shares.
    pub size: Amount,
    /// Pattern that it follows.
    pub setup: String,
    /// Estimated quality of the chance.
    pub grade: String,
}

/// Direction of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// It gains when the price rises.
    Long,
    /// It gains when the price falls.
    Short,
}

/// Result of a closed trade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Amount gained or lost.
    pub amount: Amount,
    /// Whether the amount is a loss.
    pub is_loss: bool,
}

impl TradeStore {
    /// Opens the store in the file `path`, with these rules. Creates nothing before the first trade.
    ///
    /// # Errors
    /// As for [`Document::open`].
    pub fn open(path: impl AsRef<Path>, rules: Rules) -> Result<Self, Error> {
        Ok(Self { log: Document::open(path)?, rules })
    }

    /// Opens a trade under the name `id`, if every rule allows it.
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

    /// Returns all trades.
    ///
    /// # Errors
    /// As for [`Document::read`].
    pub fn trades(&self) -> Result<Vec<Trade>, Error> {
        Ok(self.log.read()?.trades.clone())
    }
}

impl Trade {
    /// Returns the result; `None` while the trade is open.
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

    /// Returns the loss if the trade ends at its stop; `None` if it does not fit.
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
