//! Defines a shard: one part of a run that is divided over machines or processors, `--shard I/N`.
//!
//! The experiments of a scenario are numbered in an order that depends only on the target and the selection, and dealt
//! out like cards. All that follows from one number is run by one shard, so all shards together do a whole run.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::catalogue::SCENARIO_IDS;

/// More parts than this are a typing error.
const SHARDS_MAX: u32 = 10_000;

/// One part of a divided run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    /// Number of parts.
    of: NonZeroU32,
    /// Index of this part, from 1.
    index: u32,
}

/// The whole run.
impl Default for Shard {
    fn default() -> Self {
        Self { of: NonZeroU32::MIN, index: 1 }
    }
}

impl Shard {
    /// Returns shard `index` of `of`, counted from 1, or nothing if there is no such shard.
    pub fn new(index: u32, of: u32) -> Option<Self> {
        let of = NonZeroU32::new(of).filter(|of| of.get() <= SHARDS_MAX)?;
        (1..=of.get()).contains(&index).then_some(Self { of, index })
    }

    /// Returns the index of this part, from 1.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Returns the number of parts.
    pub fn of(self) -> u32 {
        self.of.get()
    }

    /// Whether this is the only part.
    pub fn is_whole(self) -> bool {
        self.of.get() == 1
    }

    /// Whether this shard runs the experiment with this number in a scenario. The scenarios begin at different shards,
    /// because many of them have only a few experiments.
    pub fn has(self, scenario: &str, place: u64) -> bool {
        let start = SCENARIO_IDS.iter().position(|id| *id == scenario).unwrap_or(0) as u64;
        (place + start) % u64::from(self.of.get()) == u64::from(self.index - 1)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no shard such as 1/4: I/N with I from 1 to N, and N at most {SHARDS_MAX}")
        };
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Self::new(number(index)?, number(of)?).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_belongs_to_one_shard_alone() {
        for of in 1..=7 {
            let parts: Vec<Shard> = (1..=of).map(|index| Shard::new(index, of).unwrap()).collect();
            for scenario in SCENARIO_IDS {
                for place in 0..50 {
                    assert_eq!(parts.iter().filter(|part| part.has(scenario, place)).count(), 1);
                }
            }
        }
    }

    #[test]
    fn a_shard_is_written_as_it_is_read_and_nonsense_is_refused() {
        assert_eq!("3/4".parse::<Shard>().unwrap().to_string(), "3/4");
        for wrong in ["", "3", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/2", "1/10001"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
