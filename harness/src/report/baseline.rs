//! Reads a baseline: known violations, each with a reason and an expiry date.
//!
//! An entry identifies a way in which a store breaks an invariant: by scenario and likely cause. It does not identify a
//! case, because a case changes with every call that the store makes differently.

use std::collections::BTreeMap;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::catalogue::{INVARIANT_IDS, SCENARIO_IDS, nearest};
use crate::report::{Coverage, InvariantSummary, Remark, Report, ScenarioSummary};
use crate::target::UsageError;

/// Days until a new entry of a baseline expires, unless its date is edited.
const DAYS: i64 = 90;
/// Reason of an entry that has none yet.
const UNEXPLAINED: &str = "not explained yet: state why it may stay and who is working on it";
const HEAD: &str = "\
# Violations that are known, for `picklock check --baseline`: they do not fail a run until the day after `expires`.
# `--update-baseline` writes this file anew; reasons and days of what is still there are kept.
";

/// Known violations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    known: Vec<Known>,
    today: Date,
}

/// One known violation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Known {
    invariant: String,
    scenario: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnosis: Option<String>,
    reason: String,
    expires: Date,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    known: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    invariant: toml::Spanned<String>,
    scenario: toml::Spanned<String>,
    diagnosis: Option<String>,
    reason: toml::Spanned<String>,
    expires: toml::Spanned<String>,
}

impl Baseline {
    /// Parses the text of a baseline; `file` is the name of its file.
    ///
    /// # Errors
    /// If the text is invalid; the error gives line and key.
    pub fn parse(text: &str, file: &str, today: Date) -> Result<Self, UsageError> {
        let wrong = |at: usize, key: &str, message: String| UsageError {
            place: Some(format!("{file}:{}", text[..at.min(text.len())].matches('\n').count() + 1)),
            ..UsageError::new(key, message)
        };
        let read: File = toml::from_str(text).map_err(|why| {
            wrong(why.span().map_or(0, |span| span.start), "known", why.message().trim().to_owned())
        })?;
        let id = |key: &str, value: &toml::Spanned<String>, ids: &[&str]| {
            let is_known = ids.contains(&value.get_ref().as_str());
            is_known.then(|| value.get_ref().clone()).ok_or_else(|| {
                let error = wrong(value.span().start, key, format!("there is no {:?}", value.get_ref()));
                match nearest(value.get_ref(), ids.iter().copied()) {
                    Some(meant) => error.help(format!("did you mean {meant}?")),
                    None => error.help("`picklock list` names all ids"),
                }
            })
        };
        let known = read.known.iter().map(|entry| {
            let (reason, expires) = (&entry.reason, &entry.expires);
            if reason.get_ref().trim().is_empty() {
                return Err(wrong(
                    reason.span().start,
                    "reason",
                    "must say why the violation may stay".into(),
                ));
            }
            let day = expires.get_ref().parse().map_err(|_| {
                wrong(expires.span().start, "expires", format!("{:?} is no day", expires.get_ref()))
                    .help("write it as \"2027-01-31\"")
            })?;
            Ok(Known {
                invariant: id("invariant", &entry.invariant, INVARIANT_IDS)?,
                scenario: id("scenario", &entry.scenario, SCENARIO_IDS)?,
                diagnosis: entry.diagnosis.clone(),
                reason: reason.get_ref().clone(),
                expires: day,
            })
        });
        Ok(Self { known: known.collect::<Result<_, _>>()?, today })
    }

    /// Creates a baseline without entries.
    pub fn empty(today: Date) -> Self {
        Self { known: Vec::new(), today }
    }

    /// Whether this way of breaking an invariant is known and has not expired.
    pub fn knows(&self, invariant: &str, scenario: &str, diagnosis: Option<&str>) -> bool {
        self.find(invariant, scenario, diagnosis).is_some_and(|known| known.expires >= self.today)
    }

    fn find(&self, invariant: &str, scenario: &str, diagnosis: Option<&str>) -> Option<&Known> {
        self.known.iter().find(|known| {
            known.invariant == invariant
                && known.scenario == scenario
                && known.diagnosis.as_deref() == diagnosis
        })
    }

    /// Returns the remarks on a run: known violations that were not seen any more, and those that have expired.
    pub fn remarks(&self, scenarios: &[ScenarioSummary], invariants: &[InvariantSummary]) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for known in &self.known {
            let Known { invariant, scenario, expires, .. } = known;
            let cause = known.diagnosis.as_ref().map_or(String::new(), |cause| format!(" by {cause}"));
            let told = format!("{invariant} in {scenario}{cause}");
            let judged = invariants.iter().find(|one| one.id == *invariant);
            let is_seen = judged.is_some_and(|one| one.counterexamples.iter().any(|found| known.is(found)));
            let was_run =
                scenarios.iter().any(|one| one.id == *scenario && one.coverage != Coverage::Truncated);
            if is_seen && *expires < self.today {
                remarks.push(Remark::new(
                    "baseline-expired",
                    format!(
                        "{told} was known until {expires}, and counts again: mend it, or give it another day"
                    ),
                ));
            } else if !is_seen && was_run && judged.is_some_and(|one| one.judged > 0) {
                remarks.push(Remark::new(
                    GONE,
                    format!("{told} is known and was not seen any more: --update-baseline takes it out"),
                ));
            }
        }
        remarks
    }

    /// Returns the text of a baseline with all violations of this report, and with the known ones that were not looked
    /// for. Known violations keep their reason and expiry date.
    pub fn updated(&self, report: &Report) -> String {
        let mut known: BTreeMap<(String, String, Option<String>), Known> = BTreeMap::new();
        for invariant in &report.invariants {
            for found in &invariant.counterexamples {
                let (scenario, diagnosis) = (found.scenario.clone(), found.diagnosis.clone());
                let old = self.find(&invariant.id, &scenario, diagnosis.as_deref());
                let new = || Known {
                    invariant: invariant.id.clone(),
                    scenario: scenario.clone(),
                    diagnosis: diagnosis.clone(),
                    reason: UNEXPLAINED.to_owned(),
                    expires: self.today.saturating_add(DAYS.days()),
                };
                let entry = old.cloned().unwrap_or_else(new);
                known.entry((invariant.id.clone(), scenario.clone(), diagnosis.clone())).or_insert(entry);
            }
        }
        // A violation that was not looked for, or only by another shard, is not gone.
        for old in &self.known {
            let was_run =
                |one: &ScenarioSummary| one.id == old.scenario && one.coverage != Coverage::Truncated;
            let was_judged = |one: &InvariantSummary| one.id == old.invariant && one.judged > 0;
            let was_looked_for = report.shard.is_none()
                && report.scenarios.iter().any(was_run)
                && report.invariants.iter().any(was_judged);
            if !was_looked_for {
                let key = (old.invariant.clone(), old.scenario.clone(), old.diagnosis.clone());
                known.entry(key).or_insert_with(|| old.clone());
            }
        }
        let entries: Vec<Known> = known.into_values().collect();
        // Text and dates always serialize to TOML.
        let text = toml::to_string(&BTreeMap::from([("known", entries)])).unwrap_or_default();
        format!("{HEAD}\n{text}")
    }
}

/// Id of the remark on a violation that was not seen any more; for a divided run it is true if every shard makes it.
pub(crate) const GONE: &str = "baseline-gone";

impl Known {
    fn is(&self, found: &crate::report::Counterexample) -> bool {
        found.scenario == self.scenario && found.diagnosis == self.diagnosis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Date = Date::constant(2026, 11, 26);
    const TEXT: &str = "\
[[known]]
invariant = \"no-lost-update\"
scenario = \"crash\"
diagnosis = \"write-without-lock\"
reason = \"#12\"
expires = \"2026-11-26\"
";

    fn parsed(text: &str) -> Result<Baseline, UsageError> {
        Baseline::parse(text, "known.toml", TODAY)
    }

    #[test]
    fn a_violation_is_known_by_invariant_scenario_and_cause_until_its_day_is_over() {
        let baseline = parsed(TEXT).unwrap();
        assert!(baseline.knows("no-lost-update", "crash", Some("write-without-lock")));
        assert!(!baseline.knows("no-lost-update", "crash", None));
        assert!(!baseline.knows("no-lost-update", "stress", Some("write-without-lock")));
        assert!(!baseline.knows("valid-data", "crash", Some("write-without-lock")));
        let over = Baseline::parse(TEXT, "known.toml", Date::constant(2026, 11, 27)).unwrap();
        assert!(!over.knows("no-lost-update", "crash", Some("write-without-lock")));
    }

    #[test]
    fn what_is_wrong_in_it_is_named_by_line_and_key() {
        let told = |from: &str, to: &str| parsed(&TEXT.replace(from, to)).unwrap_err().to_string();
        assert!(
            told("no-lost-update", "no-lost-updat")
                .contains("known.toml:2: invariant: there is no \"no-lost-updat\"")
        );
        assert!(told("\"crash\"", "\"crush\"").contains("known.toml:3: scenario: there is no \"crush\""));
        assert!(told("#12", " ").contains("known.toml:5: reason: must say why"));
        assert!(told("2026-11-26", "soon").contains("known.toml:6: expires: \"soon\" is no day"));
        assert!(told("reason", "because").contains("known.toml"));
        assert!(told("expires = \"2026-11-26\"\n", "").contains("expires"));
    }
}
