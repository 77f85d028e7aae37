//! Tests modules together, with random operations, crashes and power losses, against plain models in memory.

use proptest::prelude::ProptestConfig;

/// Configures the number of random cases for each structure: `PICKLOCK_CASES`, else 256.
pub(crate) fn cases() -> ProptestConfig {
    let cases = std::env::var("PICKLOCK_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases.unwrap_or(256)) }
}

mod crashes;
mod lessons;
mod queue;
