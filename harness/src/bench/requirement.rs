//! Parses and checks a required figure: `--require 'p99<50ms'`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Row;

/// A figure and its required bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    text: String,
    figure: Which,
    is_less: bool,
    /// In nanoseconds if it is a time.
    value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    P50,
    P99,
    P999,
    Max,
    Rate,
    Jain,
}

impl Requirement {
    /// Describes how a line fails the requirement; `None` if it meets it.
    pub fn unmet(&self, row: &Row) -> Option<String> {
        let figure = match self.figure {
            Which::P50 => row.wait.p50 as f64,
            Which::P99 => row.wait.p99 as f64,
            Which::P999 => row.wait.p999 as f64,
            Which::Max => row.wait.max as f64,
            Which::Rate => row.rate.median,
            Which::Jain => row.jain,
        };
        let is_met = if self.is_less { figure < self.value } else { figure > self.value };
        let told = match self.figure {
            Which::Rate => format!("{figure:.0} a second"),
            Which::Jain => format!("{figure:.2}"),
            _ => super::table::time(figure as u64),
        };
        let clients =
            if row.clients == 1 { "1 client".to_owned() } else { format!("{} clients", row.clients) };
        (!is_met).then(|| format!("{} with {clients}: {} is {told}", row.name, self))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} {why}; write it as p99<50ms, jain>0.8 or rate>1000: of p50, p99, p999, max, rate and jain"
            )
        };
        let at = text.find(['<', '>']).ok_or_else(|| wrong("compares nothing by < or >"))?;
        let (name, rest) = text.split_at(at);
        let value = rest[1..].trim();
        let figure = match name.trim() {
            "p50" => Which::P50,
            "p99" => Which::P99,
            "p999" | "p99.9" => Which::P999,
            "max" => Which::Max,
            "rate" => Which::Rate,
            "jain" => Which::Jain,
            _ => return Err(wrong("names no figure")),
        };
        let value = match figure {
            Which::Rate | Which::Jain => value.parse().map_err(|_| wrong("ends in no number"))?,
            _ => {
                let time: Duration =
                    humantime::parse_duration(value).map_err(|_| wrong("ends in no time"))?;
                time.as_nanos() as f64
            }
        };
        Ok(Self { text: text.to_owned(), figure, is_less: rest.starts_with('<'), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Figure, Latency};

    fn row() -> Row {
        Row {
            name: "flock".into(),
            clients: 4,
            hold_ns: 0,
            rate: Figure { median: 1000.0, least: 900.0, most: 1100.0 },
            wait: Latency { p50: 1_000, p99: 60_000_000, p999: 70_000_000, max: 80_000_000 },
            handover_ns: None,
            jain: 0.7,
            shares: (0.1, 0.4),
            violations: 0,
            failed: 0,
            of_flushes: 0.0,
        }
    }

    #[test]
    fn what_is_not_as_asked_is_told_with_the_figure() {
        let told = |text: &str| text.parse::<Requirement>().unwrap().unmet(&row());
        assert_eq!(told("p99<50ms").as_deref(), Some("flock with 4 clients: p99<50ms is 60.0 ms"));
        assert_eq!(told("jain>0.8").as_deref(), Some("flock with 4 clients: jain>0.8 is 0.70"));
        assert_eq!((told("p50 < 1ms"), told("rate>999"), told("max<1s")), (None, None, None));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_what_would() {
        for wrong in ["p99", "p98<1ms", "p99<50", "jain>high", "p99=50ms"] {
            assert!(wrong.parse::<Requirement>().unwrap_err().contains("write it as"), "{wrong}");
        }
    }
}
