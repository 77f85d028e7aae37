//! Defines the catalogues of ids, whose texts are the first sentences of their source files.

/// The ids of all invariants that the interface names, built or not: adapters may claim or disclaim them ahead of time.
pub const INVARIANT_IDS: &[&str] = &[
    "valid-data",
    "no-torn-read",
    "no-lost-update",
    "no-phantom-record",
    "linearizable",
    "mutual-exclusion",
    "no-spurious-failure",
    "no-deadlock",
    "no-self-deadlock",
    "crash-atomic",
    "acked-survives-crash",
    "recovers-after-crash",
    "no-leaked-lock",
    "no-residue",
    "honest-failure",
    "failed-write-keeps-old",
    "power-loss-atomic",
    "acked-survives-power-loss",
    "guard-holds",
    "memory-matches-file",
    "derived-heals",
];

/// The ids of all scenarios that the interface names, built or not.
pub const SCENARIO_IDS: &[&str] = &[
    "control",
    "stress",
    "crash",
    "torn-write",
    "fault",
    "power-loss",
    "interleave",
    "interleave-crash",
    "reentry",
    "inheritance",
    "session",
];

/// The ids of all diagnoses that the interface names, built or not.
pub const DIAGNOSIS_IDS: &[&str] = &[
    "truncate-before-lock",
    "write-without-lock",
    "write-after-unlock",
    "read-before-lock",
    "lock-on-replaced-file",
    "lock-file-unlinked",
    "lock-dropped-by-close",
    "lock-inherited",
    "second-descriptor-same-lock",
    "lock-order-cycle",
    "lock-error-ignored",
    "write-error-ignored",
    "short-write-ignored",
    "in-place-overwrite",
    "shared-temp-name",
    "rename-without-sync",
    "directory-not-synced",
    "stale-lock-broken",
    "lock-file-survives-kill",
    "poll-lock",
];

/// Returns the first line of a source file, without `//!` and the final period.
///
/// Evaluated at compile time: a file that does not open with one whole sentence does not compile.
pub const fn headline(source: &'static str) -> &'static str {
    let bytes = source.as_bytes();
    let mut end = 0;
    while bytes[end] != b'\n' {
        end += 1;
    }
    assert!(
        bytes[0] == b'/'
            && bytes[1] == b'/'
            && bytes[2] == b'!'
            && bytes[3] == b' '
            && bytes[end - 1] == b'.',
        "a catalogue file opens with one sentence on one line"
    );
    source.split_at(end - 1).0.split_at(4).1
}

/// Returns the header of a source file after its first line, as plain paragraphs.
pub fn explanation(source: &str) -> String {
    let lines: Vec<&str> =
        source.lines().skip(1).map_while(|line| line.strip_prefix("//!")).map(str::trim_start).collect();
    lines.join("\n").trim().to_owned()
}

/// Returns the word of `known` that `word` most likely stands for, if any is close.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&folded, &candidate.replace('_', "-")), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_its_sentence_and_the_rest() {
        const SOURCE: &str = "//! One thing, once.\n//!\n//! Why it\n//! matters.\n\nuse x;\n";
        assert_eq!(headline(SOURCE), "One thing, once");
        assert_eq!(explanation(SOURCE), "Why it\nmatters.");
    }

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["no-lost-update", "valid-data", "list"];
        assert_eq!(nearest("no_lost_updates", known), Some("no-lost-update"));
        assert_eq!(nearest("lsit", known), Some("list"));
        assert_eq!(nearest("frobnicate", known), None);
    }
}
