//! Defines the risk rules that a trade must satisfy to be opened.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::trades::{Trade, TradeLog};

/// Rules for opening trades; a missing rule allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Maximum number of open trades.
    pub open_max: Option<usize>,
    /// Whether a symbol may be in more than one open trade.
    pub allows_duplicate_symbols: bool,
    /// Symbols that rise and fall together.
    pub groups: Vec<Group>,
    /// Number of losses in a row in one group after which no trade in it is opened.
    pub losses_max: Option<usize>,
}

/// Symbols that rise and fall together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name of the group.
    pub name: String,
    /// The symbols in it.
    pub symbols: Vec<String>,
    /// Maximum total loss of all open trades in the group.
    pub risk_max: Amount,
}

/// Rule by which a request was refused; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A trade of this name exists.
    DuplicateId(String),
    /// The maximum number of trades is open.
    OpenMax(usize),
    /// An open trade has this symbol.
    DuplicateSymbol(String),
    /// The open trades of a group would exceed its maximum risk.
    GroupRisk {
        /// Name of the group.
        name: String,
        /// Risk that they would have.
        risk: Amount,
        /// Maximum risk.
        risk_max: Amount,
    },
    /// A group has lost this often in a row.
    LossesInARow {
        /// Name of the group.
        name: String,
        /// Number of losses in a row.
        losses: usize,
    },
    /// No open trade has this name.
    NotOpen,
    /// The result does not fit.
    TooLarge,
    /// The size is zero.
    Nothing,
}

impl Rules {
    /// Checks whether this trade may be opened in addition to those of the log.
    pub(super) fn check(&self, log: &TradeLog, trade: &Trade) -> Result<(), Refusal> {
        let symbol = &trade.plan.symbol;
        if log.trades.iter().any(|other| other.id == trade.id) {
            return Err(Refusal::DuplicateId(trade.id.clone()));
        }
        if trade.plan.size == Amount::ZERO {
            return Err(Refusal::Nothing);
        }
        let open = || log.trades.iter().filter(|trade| trade.exit.is_none());
        if let Some(max) = self.open_max.filter(|max| open().count() >= *max) {
            return Err(Refusal::OpenMax(max));
        }
        if !self.allows_duplicate_symbols && open().any(|other| other.plan.symbol == *symbol) {
            return Err(Refusal::DuplicateSymbol(symbol.clone()));
        }
        for group in self.groups.iter().filter(|group| group.symbols.contains(symbol)) {
            let of_group = |trade: &&Trade| group.symbols.contains(&trade.plan.symbol);
            let risks = open().filter(of_group).chain([trade]).map(Trade::risk);
            let risk = risks.sum_or_too_large()?;
            if risk > group.risk_max {
                return Err(Refusal::GroupRisk { name: group.name.clone(), risk, risk_max: group.risk_max });
            }
            let outcomes = log.trades.iter().filter(of_group).filter_map(Trade::outcome);
            let losses = outcomes.rev().take_while(|outcome| outcome.is_loss).count();
            if self.losses_max.is_some_and(|max| losses >= max) {
                return Err(Refusal::LossesInARow { name: group.name.clone(), losses });
            }
        }
        trade.risk().ok_or(Refusal::TooLarge).map(drop)
    }
}

/// Adds amounts whose sum may not fit.
trait SumOrTooLarge {
    fn sum_or_too_large(self) -> Result<Amount, Refusal>;
}

impl<I: Iterator<Item = Option<Amount>>> SumOrTooLarge for I {
    fn sum_or_too_large(mut self) -> Result<Amount, Refusal> {
        self.try_fold(Amount::ZERO, |sum, amount| sum.plus(amount?)).ok_or(Refusal::TooLarge)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateId(id) => write!(out, "id: there is a trade {id:?} already"),
            Self::OpenMax(max) => write!(out, "open_max: {max} trades are open, and no more may be"),
            Self::DuplicateSymbol(symbol) => {
                write!(out, "allows_duplicate_symbols: {symbol:?} is in an open trade")
            }
            Self::GroupRisk { name, risk, risk_max } => {
                write!(
                    out,
                    "risk_max: the open trades of group {name:?} would risk {risk}, and may {risk_max}"
                )
            }
            Self::LossesInARow { name, losses } => {
                write!(out, "losses_max: group {name:?} has lost {losses} times in a row")
            }
            Self::NotOpen => out.write_str("no open trade has this name"),
            Self::TooLarge => out.write_str("what comes of it is more than fits"),
            Self::Nothing => out.write_str("the size is zero"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trades::{Plan, Side, TradeStore};

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    fn plan(symbol: &str, size: &str) -> Plan {
        Plan {
            symbol: symbol.into(),
            side: Side::Long,
            entry: amount("10"),
            stop: amount("9"),
            target: amount("12"),
            size: amount(size),
            setup: "breakout".into(),
            grade: "a".into(),
        }
    }

    fn store(rules: Rules) -> (tempfile::TempDir, TradeStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = TradeStore::open(folder.path().join("trades.json"), rules).unwrap();
        (folder, store)
    }

    #[test]
    fn every_rule_refuses_by_its_name_and_writes_nothing() {
        let group =
            Group { name: "tech".into(), symbols: vec!["A".into(), "B".into()], risk_max: amount("5") };
        let rules = Rules { open_max: Some(3), groups: vec![group], losses_max: Some(1), ..Rules::default() };
        let (_folder, store) = store(rules);
        store.open_trade("1", plan("A", "3")).unwrap().unwrap();
        let refused = |id: &str, plan: Plan| store.open_trade(id, plan).unwrap().unwrap_err().to_string();
        assert!(refused("1", plan("C", "1")).starts_with("id: "));
        assert!(refused("2", plan("A", "1")).starts_with("allows_duplicate_symbols: "));
        assert!(refused("2", plan("B", "2.5")).starts_with("risk_max: "), "3 and 2.5 are more than 5");
        assert_eq!(refused("2", plan("C", "0")), "the size is zero");
        store.open_trade("2", plan("B", "2")).unwrap().unwrap();
        store.open_trade("3", plan("C", "100")).unwrap().unwrap();
        assert!(refused("4", plan("D", "1")).starts_with("open_max: "));
        assert_eq!(
            store.close_trade("1", amount("9")).unwrap().unwrap(),
            crate::trades::Outcome { amount: amount("3"), is_loss: true }
        );
        assert!(refused("4", plan("A", "1")).starts_with("losses_max: "));
        assert_eq!(store.close_trade("1", amount("9")).unwrap().unwrap_err(), Refusal::NotOpen);
        assert_eq!(store.trades().unwrap().len(), 3);
    }

    /// If a cap is checked outside the lock, two threads that both see room for one exceed it.
    #[test]
    fn a_cap_is_not_exceeded_by_many_at_once() {
        let (folder, _store) = store(Rules::default());
        let rules = Rules { open_max: Some(5), ..Rules::default() };
        let opened: usize = std::thread::scope(|scope| {
            let open = |thread: usize| {
                let (rules, path) = (rules.clone(), folder.path().join("trades.json"));
                move || {
                    let store = TradeStore::open(path, rules).unwrap();
                    (0..4)
                        .filter(|n| {
                            store
                                .open_trade(&format!("{thread}-{n}"), plan(&format!("{thread}{n}"), "1"))
                                .unwrap()
                                .is_ok()
                        })
                        .count()
                }
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(open(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(opened, 5);
    }

    #[test]
    fn a_short_trade_gains_when_the_price_falls() {
        let (_folder, store) = store(Rules::default());
        store.open_trade("1", Plan { side: Side::Short, ..plan("A", "2") }).unwrap().unwrap();
        let outcome = store.close_trade("1", amount("8")).unwrap().unwrap();
        assert_eq!((outcome.amount, outcome.is_loss), (amount("4"), false));
    }
}
