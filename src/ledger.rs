//! Keeps a position ledger: one journal for each signature, so that none waits for another.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::disk::{self, Disk};
use crate::error::{Error, ErrorKind};
use crate::journal::Journal;
use crate::replace::create_folder;

/// The ledger of one signature: `FOLDER/SIGNATURE/position.jsonl`.
///
/// Each line holds one action and the position after it, so the current position is on the last line. An action is
/// checked under the lock, on the position that it changes: a refused one leaves no trace.
#[derive(Debug)]
pub struct Ledger {
    journal: Journal<Entry>,
}

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Number in the ledger, from 1.
    pub number: u64,
    /// The action.
    pub action: Action,
    /// Position after the action.
    pub position: Position,
}

/// A change of a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
pub enum Action {
    /// Adds cash.
    Deposit {
        /// Amount of cash.
        cash: Amount,
    },
    /// Converts cash to shares.
    Buy {
        /// Symbol that is bought.
        symbol: String,
        /// Number of shares.
        quantity: Amount,
        /// Price of each share.
        price: Amount,
    },
    /// Converts shares to cash.
    Sell {
        /// Symbol that is sold.
        symbol: String,
        /// Number of shares.
        quantity: Amount,
        /// Price of each share.
        price: Amount,
    },
}

/// Holdings of a signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Amount of cash.
    pub cash: Amount,
    /// Shares by symbol, without zero quantities.
    pub shares: BTreeMap<String, Amount>,
}

/// Reason why an action was refused; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cash does not cover the cost.
    Cash {
        /// Available cash.
        there: Amount,
        /// Cost of the purchase.
        wanted: Amount,
    },
    /// There are fewer shares than the sale asks for.
    Shares {
        /// Available shares.
        there: Amount,
        /// Number of shares to sell.
        wanted: Amount,
    },
    /// The quantity is zero.
    Nothing,
    /// The result does not fit.
    TooLarge,
}

impl Ledger {
    /// Opens the ledger of `signature` in `folder`. Creates the folder of the signature.
    ///
    /// # Errors
    /// [`ErrorKind::NotAFile`] if `signature` is not a plain name; [`ErrorKind::Io`].
    pub fn open(folder: impl AsRef<Path>, signature: &str) -> Result<Self, Error> {
        let folder = folder.as_ref().join(signature);
        if signature.is_empty() || signature.starts_with('.') || signature.contains(['/', '\0']) {
            return Err(Error::new("open the ledger", &folder, ErrorKind::NotAFile));
        }
        create_folder(&folder)?;
        Self::open_on(disk::real(), &folder.join("position.jsonl"))
    }

    /// Opens the ledger in the file `path`, in an existing folder.
    ///
    /// # Errors
    /// As for [`Journal::open`].
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(disk::real(), path.as_ref())
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        Ok(Self { journal: Journal::open_on(disk, path)? })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> PathBuf {
        self.journal.path().to_owned()
    }

    /// Applies the action, durably, if the position allows it.
    ///
    /// # Errors
    /// As for [`Journal::append_after`].
    pub fn act(&self, action: Action) -> Result<Result<Entry, Refusal>, Error> {
        self.journal.append_after(|latest| {
            let (number, position) =
                latest.map_or((0, Position::default()), |latest| (latest.number, latest.position.clone()));
            let number = number.checked_add(1).ok_or(Refusal::TooLarge)?;
            let position = position.after(&action)?;
            Ok(Entry { number, action, position })
        })
    }

    /// Returns the current position. Takes no lock; the cost does not depend on the length of the ledger.
    ///
    /// # Errors
    /// As for [`Journal::latest`].
    pub fn position(&self) -> Result<Position, Error> {
        Ok(self.journal.latest()?.map(|latest| latest.position).unwrap_or_default())
    }

    /// Returns all entries.
    ///
    /// # Errors
    /// As for [`Journal::read`].
    pub fn history(&self) -> Result<Vec<Entry>, Error> {
        self.journal.read()
    }

    /// Rotates the ledger's journal; see [`Journal::rotate`].
    ///
    /// # Errors
    /// As for [`Journal::rotate`].
    pub fn rotate(&self) -> Result<bool, Error> {
        self.journal.rotate()
    }
}

impl Position {
    /// Returns the position after the action, if it is allowed.
    fn after(mut self, action: &Action) -> Result<Self, Refusal> {
        match action {
            Action::Deposit { cash } => {
                if *cash == Amount::ZERO {
                    return Err(Refusal::Nothing);
                }
                self.cash = self.cash.plus(*cash).ok_or(Refusal::TooLarge)?;
            }
            Action::Buy { symbol, quantity, price } => {
                if *quantity == Amount::ZERO {
                    return Err(Refusal::Nothing);
                }
                let cost = price.times(*quantity).ok_or(Refusal::TooLarge)?;
                let there = self.cash;
                self.cash = there.minus(cost).ok_or(Refusal::Cash { there, wanted: cost })?;
                let held = self.shares.entry(symbol.clone()).or_default();
                *held = held.plus(*quantity).ok_or(Refusal::TooLarge)?;
            }
            Action::Sell { symbol, quantity, price } => {
                if *quantity == Amount::ZERO {
                    return Err(Refusal::Nothing);
                }
                let there = self.shares.get(symbol).copied().unwrap_or_default();
                let left = there.minus(*quantity).ok_or(Refusal::Shares { there, wanted: *quantity })?;
                let gain = price.times_at_most(*quantity).ok_or(Refusal::TooLarge)?;
                self.cash = self.cash.plus(gain).ok_or(Refusal::TooLarge)?;
                if left == Amount::ZERO {
                    self.shares.remove(symbol);
                } else {
                    self.shares.insert(symbol.clone(), left);
                }
            }
        }
        Ok(self)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cash { there, wanted } => write!(out, "it costs {wanted}, and there is {there} in cash"),
            Self::Shares { there, wanted } => write!(out, "{wanted} are to be sold, and there are {there}"),
            Self::Nothing => out.write_str("the quantity is zero"),
            Self::TooLarge => out.write_str("the result is more than fits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    fn buy(symbol: &str, quantity: &str, price: &str) -> Action {
        Action::Buy { symbol: symbol.into(), quantity: amount(quantity), price: amount(price) }
    }

    fn sell(symbol: &str, quantity: &str, price: &str) -> Action {
        Action::Sell { symbol: symbol.into(), quantity: amount(quantity), price: amount(price) }
    }

    #[test]
    fn what_is_refused_names_the_rule_and_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), "alice").unwrap();
        ledger.act(Action::Deposit { cash: amount("10") }).unwrap().unwrap();
        ledger.act(buy("X", "2", "3")).unwrap().unwrap();
        let before = std::fs::read(ledger.path()).unwrap();
        let refused = |action| ledger.act(action).unwrap().unwrap_err();
        assert_eq!(refused(buy("X", "2", "3")), Refusal::Cash { there: amount("4"), wanted: amount("6") });
        assert_eq!(refused(sell("X", "3", "1")), Refusal::Shares { there: amount("2"), wanted: amount("3") });
        assert_eq!(refused(sell("Y", "0", "1")), Refusal::Nothing);
        assert_eq!(refused(buy("X", "1844674407370955", "2")), Refusal::TooLarge);
        assert_eq!(std::fs::read(ledger.path()).unwrap(), before);
        ledger.act(sell("X", "2", "5")).unwrap().unwrap();
        assert_eq!(ledger.position().unwrap(), Position { cash: amount("14"), shares: BTreeMap::new() });
        assert_eq!(ledger.history().unwrap().len(), 3);
    }

    /// Two threads that each see enough cash for one purchase must not both buy (the ledger as published read the
    /// position before it locked).
    #[test]
    fn the_cash_of_one_purchase_is_not_spent_twice() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), "alice").unwrap();
        ledger.act(Action::Deposit { cash: amount("5") }).unwrap().unwrap();
        let bought: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let ledger = Ledger::open(folder.path(), "alice").unwrap();
                        (0..4).filter(|_| ledger.act(buy("X", "1", "1")).unwrap().is_ok()).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(bought, 5);
        assert_eq!(ledger.position().unwrap().shares["X"], amount("5"));
    }

    #[test]
    fn the_position_outlives_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), "alice").unwrap();
        ledger.act(Action::Deposit { cash: amount("5") }).unwrap().unwrap();
        assert!(ledger.rotate().unwrap());
        assert!(!ledger.rotate().unwrap(), "there is nothing to rotate");
        assert_eq!(ledger.position().unwrap().cash, amount("5"));
        ledger.act(buy("X", "1", "1")).unwrap().unwrap();
        assert_eq!(ledger.history().unwrap().iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_signature_that_is_no_plain_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for signature in ["", ".", "..", "a/b", ".hidden", "a\0b"] {
            assert!(matches!(
                Ledger::open(folder.path(), signature).unwrap_err().kind(),
                ErrorKind::NotAFile
            ));
        }
    }
}
