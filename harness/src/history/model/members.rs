//! The records of a set, as a row of bits by their numbers.

/// A set of records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Members {
    /// Never ends with a zero word, so that equal sets have equal rows.
    words: Vec<u64>,
}

impl Members {
    /// Returns whether the record is in.
    pub fn contains(&self, record: u32) -> bool {
        self.words.get(record as usize / 64).is_some_and(|word| word >> (record % 64) & 1 == 1)
    }

    /// Returns a copy with the record added.
    #[must_use]
    pub fn with(&self, record: u32) -> Self {
        let at = record as usize / 64;
        let mut words = self.words.clone();
        words.resize(words.len().max(at + 1), 0);
        words[at] |= 1 << (record % 64);
        Self { words }
    }

    /// Returns the number of records.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns whether these are exactly the records, each listed once.
    pub fn are(&self, sorted: &[u32]) -> bool {
        is_strictly_sorted(sorted)
            && self.count() == sorted.len()
            && sorted.iter().all(|record| self.contains(*record))
    }

    /// Returns all records, sorted.
    pub fn all(&self) -> Vec<u32> {
        let bits = self.words.iter().enumerate().flat_map(|(at, word)| {
            let set = (0..64).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| u32::try_from(at * 64 + bit).unwrap_or(u32::MAX))
        });
        bits.collect()
    }
}

/// Returns whether the list is sorted and has no duplicates.
pub fn is_strictly_sorted(list: &[u32]) -> bool {
    list.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_what_was_put_in() {
        let members = Members::default().with(70).with(3).with(70);
        assert_eq!((members.count(), members.all()), (2, vec![3, 70]));
        assert!(members.contains(3) && !members.contains(4) && !members.contains(700));
        assert!(members.are(&[3, 70]));
        assert!(!members.are(&[3, 3]) && !members.are(&[3]) && !members.are(&[3, 71]));
    }
}
