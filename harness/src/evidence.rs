//! Names the experiments that an invariant needs before it may hold, and counts those that ran.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A kind of experiments that can violate an invariant.
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
    /// One operation again and again in one process.
    Reentries,
    /// One operation whose children are watched beyond its end.
    Inheritances,
    /// A request of a session, cancelled or beside another one, at one call.
    Sessions,
    /// A derived file that is damaged, or its rebuild that is killed.
    Damages,
    /// A round of many clients at full speed: evidence if no scenario was chosen that has more.
    Rounds,
}

impl Evidence {
    /// All of it that has to be run, in a few words.
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

    /// What is counted.
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

    /// Why experiments that were made are no evidence.
    pub fn in_vain(self) -> &'static str {
        match self {
            Self::Pairs => "the others have schedules of more steps than are followed",
            _ => "the others were made, and the store did not reach their points",
        }
    }

    /// The scenario that runs these experiments.
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

/// How many experiments of one kind there are, and how many of them ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many there are.
    pub needed: u64,
    /// How many of them ran.
    pub run: u64,
}

impl Count {
    /// How many did not run.
    pub fn missing(self) -> u64 {
        self.needed.saturating_sub(self.run)
    }
}

/// The counts of one run, with what one experiment of each kind takes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    counts: BTreeMap<Evidence, Count>,
    /// Time that was measured, in how many experiments.
    spent: BTreeMap<Evidence, (Duration, u64)>,
    /// Experiments that were made and are no evidence.
    in_vain: BTreeMap<Evidence, u64>,
    /// What one experiment takes for all that is known before any ran.
    guesses: BTreeMap<Evidence, Duration>,
}

impl Ledger {
    /// Takes note of how many experiments of a kind there are, and of what one of them may take.
    pub fn expect(&mut self, kind: Evidence, needed: u64, guess: Duration) {
        self.counts.entry(kind).or_default().needed = needed;
        self.guesses.insert(kind, guess);
    }

    /// Takes note of experiments of a kind that ran.
    pub fn ran(&mut self, kind: Evidence, count: u64) {
        self.counts.entry(kind).or_default().run += count;
    }

    /// Takes note of experiments of a kind that were made and are no evidence, because what they were to do did not come about.
    pub fn ran_in_vain(&mut self, kind: Evidence, count: u64) {
        *self.in_vain.entry(kind).or_default() += count;
    }

    /// How many experiments of a kind more time would bring.
    pub fn open(&self, kind: Evidence) -> u64 {
        let missing = self.count(kind).unwrap_or_default().missing();
        missing.saturating_sub(self.in_vain.get(&kind).copied().unwrap_or_default())
    }

    /// Takes note of the time that experiments of a kind took, whether they count or not.
    pub fn took(&mut self, kind: Evidence, time: Duration, experiments: u64) {
        let spent = self.spent.entry(kind).or_default();
        *spent = (spent.0 + time, spent.1 + experiments);
    }

    /// How many there are of a kind, and how many ran; nothing if nobody knows.
    pub fn count(&self, kind: Evidence) -> Option<Count> {
        self.counts.get(&kind).copied()
    }

    /// Whether anything was counted.
    pub fn has_counts(&self) -> bool {
        !self.counts.is_empty()
    }

    /// What one experiment of a kind takes.
    pub fn cost(&self, kind: Evidence) -> Duration {
        let guess = self.guesses.get(&kind).copied().unwrap_or_default();
        match self.spent.get(&kind) {
            Some((time, experiments)) if *experiments > 0 => *time / u32::try_from(*experiments).unwrap_or(1),
            _ => guess,
        }
    }

    /// What the experiments that did not run take, all of them.
    pub fn time_missing(&self) -> Duration {
        self.counts.keys().map(|kind| times(self.cost(*kind), self.open(*kind))).sum()
    }

    /// What the experiments of these kinds that did not run take.
    pub fn time_missing_of(&self, kinds: &[Evidence]) -> Duration {
        kinds.iter().map(|kind| times(self.cost(*kind), self.open(*kind))).sum()
    }
}

fn times(one: Duration, count: u64) -> Duration {
    one.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A duration as a person estimates it: `about 40 s`, `about 4 min`.
pub fn about(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 1.0 => "about 1 s".to_owned(),
        _ if seconds < 100.0 => format!("about {seconds:.0} s"),
        _ if seconds < 5_400.0 => format!("about {:.0} min", seconds / 60.0),
        _ => format!("about {:.0} h", seconds / 3_600.0),
    }
}

/// A budget that is enough for this time, as the command line has it: the next of a few round ones.
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

    /// A kill whose point a store did not come to counted as one that it had survived.
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
