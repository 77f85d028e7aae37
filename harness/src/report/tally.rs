//! Counts how much of a scenario ran, in parts that add up over shards, and formats it.

use serde::{Deserialize, Serialize};

/// Coverage of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageTally {
    /// Kinds of executions, with the numbers planned and made.
    pub parts: Vec<Part>,
    /// What was explored, and how far.
    pub explored: Vec<Explored>,
    /// Schedules with a kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<Killed>,
    /// Bounds of the scenario that do not depend on the store.
    pub kept_to: Vec<String>,
    /// Number of states whose data file is not whole.
    pub torn_states: u64,
    /// What was left out on purpose.
    pub left_out: Vec<String>,
    /// The reason for an early end.
    pub ended: Option<String>,
}

/// Executions of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What the executions are.
    pub what: String,
    /// Number of executions that exist.
    pub planned: u64,
    /// Number of executions that were made.
    pub made: u64,
}

/// Schedules of one plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Explored {
    /// Its place in the scenario.
    pub place: u64,
    /// The plan, and how far it was explored.
    pub told: String,
}

/// Schedules of one plan with a kill at one of its points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// The plan.
    pub plan: String,
    /// Number of schedules that were run.
    pub schedules: u64,
    /// Number of points at which all inequivalent schedules were run.
    pub complete: u64,
    /// Total number of points.
    pub points: u64,
}

impl CoverageTally {
    /// Formats the coverage in words.
    pub fn told(&self) -> String {
        // A part that only another shard of a divided run has is not listed.
        let parts = self.parts.iter().filter(|part| part.planned > 0).map(Part::told);
        let killed = self.killed.iter().filter(|killed| killed.points > 0).map(Killed::told);
        let run: Vec<String> =
            parts.chain(self.explored.iter().map(|one| one.told.clone())).chain(killed).collect();
        let run = (!run.is_empty()).then(|| run.join(", "));
        let torn = (self.torn_states > 0).then(|| {
            format!("{} of the derived states have a data file that is not whole", self.torn_states)
        });
        let left_out = (!self.left_out.is_empty()).then(|| format!("left out: {}", self.left_out.join(", ")));
        let all = run.into_iter().chain(self.kept_to.iter().cloned()).chain(torn).chain(left_out);
        let all: Vec<String> = all.chain(self.ended.clone()).collect();
        if all.is_empty() { "nothing of it".to_owned() } else { all.join("; ") }
    }

    /// Adds the coverage of another shard of the same run.
    pub fn add(&mut self, other: &Self) {
        for part in &other.parts {
            match self.parts.iter_mut().find(|own| own.what == part.what) {
                Some(own) => {
                    own.planned += part.planned;
                    own.made += part.made;
                }
                None => self.parts.push(part.clone()),
            }
        }
        self.explored.extend(other.explored.iter().cloned());
        // All entries of one place come from one shard, and keep their order.
        self.explored.sort_by_key(|one| one.place);
        match (&mut self.killed, &other.killed) {
            (Some(own), Some(other)) => {
                own.schedules += other.schedules;
                own.complete += other.complete;
                own.points += other.points;
            }
            (own @ None, other) => own.clone_from(other),
            (Some(_), None) => {}
        }
        self.torn_states += other.torn_states;
        for (own, other) in [(&mut self.kept_to, &other.kept_to), (&mut self.left_out, &other.left_out)] {
            let new: Vec<String> = other.iter().filter(|one| !own.contains(one)).cloned().collect();
            own.extend(new);
        }
        if self.ended.is_none() {
            self.ended.clone_from(&other.ended);
        }
    }
}

impl Part {
    fn told(&self) -> String {
        match self.planned == self.made {
            true => format!("all {} {}", self.planned, self.what),
            false => format!("{} of {} {}", self.made, self.planned, self.what),
        }
    }
}

impl Killed {
    fn told(&self) -> String {
        let Self { plan, schedules, complete, points } = self;
        let ending = if *schedules == 1 { "" } else { "s" };
        format!(
            "{plan}, of which client 1 is killed before one of its calls: {schedules} schedule{ending}, all inequivalent schedules at \
             {complete} of {points} points"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(planned: u64, made: u64) -> Part {
        Part { what: "crash points of add".into(), planned, made }
    }

    #[test]
    fn parts_of_one_run_add_up_to_what_the_whole_tells() {
        let whole = CoverageTally {
            parts: vec![part(7, 6)],
            explored: vec![
                Explored { place: 0, told: "3 clients".into() },
                Explored { place: 1, told: "2 clients".into() },
            ],
            left_out: vec!["a".into(), "b".into()],
            torn_states: 3,
            ..CoverageTally::default()
        };
        let mut first = CoverageTally {
            parts: vec![part(4, 3)],
            explored: vec![Explored { place: 1, told: "2 clients".into() }],
            left_out: vec!["a".into()],
            torn_states: 1,
            ..CoverageTally::default()
        };
        first.add(&CoverageTally {
            parts: vec![part(3, 3)],
            explored: vec![Explored { place: 0, told: "3 clients".into() }],
            left_out: vec!["a".into(), "b".into()],
            torn_states: 2,
            ..CoverageTally::default()
        });
        assert_eq!(first, whole);
        assert_eq!(
            first.told(),
            "6 of 7 crash points of add, 3 clients, 2 clients; 3 of the derived states have a data file that is not whole; \
             left out: a, b"
        );
    }
}
