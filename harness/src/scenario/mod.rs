//! The scenarios: ways of driving clients; what each client does and what is disturbed, as plain plans.

pub mod control;
pub mod crash;
pub mod damage;
pub mod fault;
pub mod inheritance;
pub mod interleave;
pub mod interleave_crash;
pub mod power_loss;
pub mod reentry;
pub mod script;
pub mod session;
pub mod stress;
pub mod torn_write;

/// One way of driving clients.
#[derive(Debug)]
pub struct Scenario {
    /// Its id; it never changes.
    pub id: &'static str,
    /// Description in one sentence.
    pub statement: &'static str,
    /// The source file of its plan; its header explains it.
    pub source: &'static str,
}

/// The catalogue, in the order in which it is shown.
pub const ALL: &[&Scenario] = &[
    &control::SCENARIO,
    &stress::SCENARIO,
    &crash::SCENARIO,
    &torn_write::SCENARIO,
    &fault::SCENARIO,
    &power_loss::SCENARIO,
    &interleave::SCENARIO,
    &interleave_crash::SCENARIO,
    &reentry::SCENARIO,
    &inheritance::SCENARIO,
    &session::SCENARIO,
];

/// Order in which the scenarios are listed, and in which their remaining experiments run after the most informative
/// ones: short ones first, so that their unused budget goes to the long ones; random ones last.
pub const ORDER: [&str; 10] = [
    "inheritance",
    "reentry",
    "session",
    "power-loss",
    "fault",
    "crash",
    "torn-write",
    "interleave",
    "interleave-crash",
    "stress",
];

/// Order in which the scenarios run their most informative experiments, before all others: kills before changes first.
pub const TELLING_ORDER: [&str; 7] =
    ["crash", "interleave", "fault", "power-loss", "torn-write", "inheritance", "reentry"];

/// Returns the scenario with this id, if it is built.
pub fn find(id: &str) -> Option<&'static Scenario> {
    ALL.iter().copied().find(|scenario| scenario.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn every_id_is_reserved_and_none_comes_twice() {
        for (index, scenario) in ALL.iter().enumerate() {
            assert!(
                catalogue::SCENARIO_IDS.contains(&scenario.id),
                "{} is no id of the interface",
                scenario.id
            );
            assert!(ALL[..index].iter().all(|other| other.id != scenario.id));
        }
    }
}
