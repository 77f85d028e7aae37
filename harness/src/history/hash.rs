//! A fast hash of small values that nobody chooses to collide.
//!
//! Mixes in each word by a multiplication and folds the two halves of the product, as wyhash does. Values found by hash
//! are compared in full, so a collision costs time but changes no verdict.

use std::hash::{Hash, Hasher};

/// 2⁶⁴ divided by the golden ratio: odd, with about as many ones as zeros.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Default)]
struct Fast(u64);

impl Fast {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ FACTOR) * u128::from(FACTOR);
        // Both halves, truncated on purpose.
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(word.rotate_left(32));
    }
}

impl Hasher for Fast {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Hashes `value`.
pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = Fast::default();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn small_numbers_and_words_do_not_collide() {
        let numbers: BTreeSet<u64> = (0..10_000u32).map(|number| hash(&number)).collect();
        let words: BTreeSet<u64> = (0..10_000u32).map(|number| hash(&format!("value-{number}"))).collect();
        assert_eq!((numbers.len(), words.len()), (10_000, 10_000));
    }
}
