//! Names the experiments that an invariant needs before it may hold, and counts those that ran.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Kind of experiments that can violate an invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// A kill of the whole operation at one crash point.
    KillPoints,
    /// A second client while an operation is held at one point.
    HeldPoints,
    /// All schedules of two operations with at most one preemption.
    Pairs,
    /// One fault of one call.
    Faults,
    /// One state that a power loss may leave.
    PowerLosses,
    /// One operation repeated in one process.
    Reentries,
    /// One operation whose children are watched after its end.
    Inheritances,
    /// A request of a session, cancelled or concurrent with another one, at one call.
    Sessions,
    /// A damaged derived file, or a killed rebuild of it.
    Damages,
    /// A round of many clients at full speed; evidence only if no chosen scenario has more.
    Rounds,
}

impl Evidence {
    /// Describes the required experiments in a few words.
    pub fn statement(self) -> &'static str {
        match self {
            Self::KillPoints => "a kill at every crash point of each operation",
            Self::HeldPoints => {
                "a second client at every point of each operation at which it reads, changes or locks something"
            }
            Self::Pairs => {
                "every schedule of two clients with at most one preemption, for each pair of operations"
            }
            Self::Faults => "every fault that a local file system may cause, of each call of each operation",
            Self::PowerLosses => "every state that a power loss in an operation may leave",
            Self::Reentries => "each operation run again, and a session with two handles on one path",
            Self::Inheritances => "each operation run with its children watched beyond its end",
            Self::Sessions => {
                "a request cancelled, and another one sent, at every call of an add in a session"
            }
            Self::Damages => "every damage of a derived file, and a kill at every crash point of its rebuild",
            Self::Rounds => "every round of many clients at full speed",
        }
    }

    /// Returns the noun for what is counted.
    pub fn noun(self) -> &'static str {
        match self {
            Self::KillPoints => "kill points",
            Self::HeldPoints => "points with a second client",
            Self::Pairs => "pairs of operations under all schedules with at most one preemption",
            Self::Faults => "faults",
            Self::PowerLosses => "power-loss states",
            Self::Reentries => "repeated runs",
            Self::Inheritances => "runs with children watched",
            Self::Sessions => "requests disturbed in a session",
            Self::Damages => "damages of derived files",
            Self::Rounds => "rounds of many clients",
        }
    }

    /// Explains why experiments that ran are not evidence.
    pub fn in_vain(self) -> &'static str {
        match self {
            Self::Pairs => "the others have schedules of more steps than are followed",
            _ => "the others were made, and the store did not reach their points",
        }
    }

    /// Returns the scenario that runs these experiments.
    pub fn scenario(self) -> &'static str {
        match self {
            Self::KillPoints | Self::HeldPoints | Self::Damages => "crash",
            Self::Pairs => "interleave",
            Self::Faults => "fault",
            Self::PowerLosses => "power-loss",
            Self::Reentries => "reentry",
            Self::Inheritances => "inheritance",
            Self::Sessions => "session",
            Self::Rounds => "stress",
        }
    }
}

/// Number of experiments of one kind, and of those that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of experiments that are needed.
    pub needed: u64,
    /// Number of these that ran.
    pub run: u64,
}

impl Count {
    /// Returns the number that did not run.
    pub fn missing(self) -> u64 {
        self.needed.saturating_sub(self.run)
    }
}

/// Counts of one run, with the time that one experiment of each kind takes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    counts: BTreeMap<Evidence, Count>,
    /// Measured time, and the number of experiments it covers.
    spent: BTreeMap<Evidence, (Duration, u64)>,
    /// Number of experiments that ran and are not evidence.
    in_vain: BTreeMap<Evidence, u64>,
    /// Estimated time of one experiment, before any ran.
    guesses: BTreeMap<Evidence, Duration>,
}

impl Ledger {
    /// Records the number of experiments of a kind, and the estimated time of one.
    pub fn expect(&mut self, kind: Evidence, needed: u64, guess: Duration) {
        self.counts.entry(kind).or_default().needed = needed;
        self.guesses.insert(kind, guess);
    }

    /// Records experiments of a kind that ran.
    pub fn ran(&mut self, kind: Evidence, count: u64) {
        self.counts.entry(kind).or_default().run += count;
    }

    /// Records experiments of a kind that ran and are not evidence, because their intended event did not occur.
    pub fn ran_in_vain(&mut self, kind: Evidence, count: u64) {
        *self.in_vain.entry(kind).or_default() += count;
    }

    /// Returns the number of experiments of a kind that more time would add.
    pub fn open(&self, kind: Evidence) -> u64 {
        let missing = self.count(kind).unwrap_or_default().missing();
        missing.saturating_sub(self.in_vain.get(&kind).copied().unwrap_or_default())
    }

    /// Records the time that experiments of a kind took, whether they count or not.
    pub fn took(&mut self, kind: Evidence, time: Duration, experiments: u64) {
        let spent = self.spent.entry(kind).or_default();
        *spent = (spent.0 + time, spent.1 + experiments);
    }

    /// Returns the counts of a kind; `None` if unknown.
    pub fn count(&self, kind: Evidence) -> Option<Count> {
        self.counts.get(&kind).copied()
    }

    /// Whether anything was counted.
    pub fn has_counts(&self) -> bool {
        !self.counts.is_empty()
    }

    /// Returns the time that one experiment of a kind takes.
    pub fn cost(&self, kind: Evidence) -> Duration {
        let guess = self.guesses.get(&kind).copied().unwrap_or_default();
        match self.spent.get(&kind) {
            Some((time, experiments)) if *experiments > 0 => *time / u32::try_from(*experiments).unwrap_or(1),
            _ => guess,
        }
    }

    /// Returns the total time of all experiments that did not run.
    pub fn time_missing(&self) -> Duration {
        self.counts.keys().map(|kind| times(self.cost(*kind), self.open(*kind))).sum()
    }

    /// Returns the total time of the experiments of these kinds that did not run.
    pub fn time_missing_of(&self, kinds: &[Evidence]) -> Duration {
        kinds.iter().map(|kind| times(self.cost(*kind), self.open(*kind))).sum()
    }
}

fn times(one: Duration, count: u64) -> Duration {
    one.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Formats a duration as a rough estimate: `about 40 s`, `about 4 min`.
pub fn about(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 1.0 => "about 1 s".to_owned(),
        _ if seconds < 100.0 => format!("about {seconds:.0} s"),
        _ if seconds < 5_400.0 => format!("about {:.0} min", seconds / 60.0),
        _ => format!("about {:.0} h", seconds / 3_600.0),
    }
}

/// Returns a budget sufficient for this time, in command-line syntax: the next of a few round values.
pub fn round_budget(time: Duration) -> String {
    const ROUND: [(u64, &str); 12] = [
        (30, "30s"),
        (60, "60s"),
        (120, "2m"),
        (180, "3m"),
        (300, "5m"),
        (600, "10m"),
        (1_200, "20m"),
        (1_800, "30m"),
        (3_600, "1h"),
        (7_200, "2h"),
        (14_400, "4h"),
        (43_200, "12h"),
    ];
    let found = ROUND.iter().find(|(seconds, _)| time <= Duration::from_secs(*seconds));
    found.map_or("24h", |(_, text)| text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_times_replace_guesses() {
        let mut ledger = Ledger::default();
        ledger.expect(Evidence::KillPoints, 22, Duration::from_secs(4));
        assert_eq!(ledger.time_missing(), Duration::from_secs(88));
        ledger.ran(Evidence::KillPoints, 2);
        ledger.took(Evidence::KillPoints, Duration::from_secs(2), 2);
        assert_eq!(ledger.count(Evidence::KillPoints), Some(Count { needed: 22, run: 2 }));
        assert_eq!(ledger.time_missing_of(&[Evidence::KillPoints]), Duration::from_secs(20));
        assert_eq!(ledger.count(Evidence::Faults), None);
    }

    /// A kill at a point that the store did not reach was counted as survived.
    #[test]
    fn what_was_made_in_vain_is_no_evidence_and_no_matter_of_time() {
        let mut ledger = Ledger::default();
        ledger.expect(Evidence::KillPoints, 5, Duration::from_secs(1));
        ledger.ran(Evidence::KillPoints, 2);
        ledger.ran_in_vain(Evidence::KillPoints, 2);
        assert_eq!(ledger.count(Evidence::KillPoints).map(Count::missing), Some(3));
        assert_eq!(ledger.open(Evidence::KillPoints), 1);
        assert_eq!(ledger.time_missing(), Duration::from_secs(1));
    }

    #[test]
    fn estimates_are_round() {
        assert_eq!(about(Duration::from_secs(42)), "about 42 s");
        assert_eq!(about(Duration::from_secs(240)), "about 4 min");
        assert_eq!(round_budget(Duration::from_secs(200)), "5m");
        assert_eq!(round_budget(Duration::from_secs(100_000)), "24h");
    }
}
