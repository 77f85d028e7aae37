//! Defines money and quantities: exact, never negative, within range.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Parts of a whole: four digits after the point.
const PARTS: u64 = 10_000;
const DIGITS: usize = 4;

/// A sum of money or a quantity, in ten-thousandths; stored as a string such as `"12.5"`, because most readers treat a
/// JSON number as a binary fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(u64);

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAmount {
    /// Anything but digits and one point, including a sign, `NaN`, `inf` and an exponent.
    NotANumber,
    /// More than four digits after the point.
    TooFine,
    /// More than the type can hold.
    TooLarge,
}

impl Amount {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Converts a whole number; `None` on overflow.
    pub fn whole(wholes: u64) -> Option<Self> {
        wholes.checked_mul(PARTS).map(Self)
    }

    /// Adds; `None` on overflow.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Subtracts; `None` if this is less than `other`.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Multiplies, as a price by a quantity; digits finer than an amount are rounded up, at the payer's expense. `None`
    /// on overflow.
    pub fn times(self, quantity: Self) -> Option<Self> {
        let product = u128::from(self.0) * u128::from(quantity.0);
        u64::try_from(product.div_ceil(u128::from(PARTS))).ok().map(Self)
    }

    /// The same, rounded down: at the payee's expense.
    pub fn times_at_most(self, quantity: Self) -> Option<Self> {
        let product = u128::from(self.0) * u128::from(quantity.0);
        u64::try_from(product / u128::from(PARTS)).ok().map(Self)
    }

    /// Returns the difference to `other`, and whether this one is less.
    pub fn apart(self, other: Self) -> (Self, bool) {
        (Self(self.0.abs_diff(other.0)), self < other)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wholes, parts) = (self.0 / PARTS, self.0 % PARTS);
        if parts == 0 {
            return write!(out, "{wholes}");
        }
        let parts = format!("{parts:0DIGITS$}");
        write!(out, "{wholes}.{}", parts.trim_end_matches('0'))
    }
}

impl FromStr for Amount {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        let (wholes, parts) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(wholes) || !is_digits(parts) {
            return Err(NoAmount::NotANumber);
        }
        if parts.len() > DIGITS {
            return Err(NoAmount::TooFine);
        }
        let parts: u64 = format!("{parts:0<DIGITS$}").parse().map_err(|_| NoAmount::TooLarge)?;
        let wholes: u64 = wholes.parse().map_err(|_| NoAmount::TooLarge)?;
        let all = wholes.checked_mul(PARTS).and_then(|all| all.checked_add(parts));
        all.map(Self).ok_or(NoAmount::TooLarge)
    }
}

impl fmt::Display for NoAmount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotANumber => "an amount is digits with at most one point in them, such as 12.5",
            Self::TooFine => "an amount has at most four digits after the point",
            Self::TooLarge => "the amount is more than fits",
        })
    }
}

impl std::error::Error for NoAmount {}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_amount_is_refused_with_a_reason() {
        for text in ["", "NaN", "inf", "-1", "+1", "1e3", "1.", ".5", "1.2.3", " 1", "١"] {
            assert_eq!(text.parse::<Amount>(), Err(NoAmount::NotANumber), "{text:?}");
        }
        assert_eq!("1.00001".parse::<Amount>(), Err(NoAmount::TooFine));
        for text in ["18446744073709551616", "1844674407370956", "99999999999999999999.9"] {
            assert_eq!(text.parse::<Amount>(), Err(NoAmount::TooLarge), "{text:?}");
        }
    }

    #[test]
    fn a_price_times_a_quantity_is_rounded_up_and_never_overflows() {
        let amount = |text: &str| text.parse::<Amount>().unwrap();
        assert_eq!(amount("2.5").times(amount("4")), Some(amount("10")));
        assert_eq!(amount("0.0001").times(amount("0.5")), Some(amount("0.0001")));
        assert_eq!(amount("0.0001").times_at_most(amount("0.5")), Some(Amount::ZERO));
        assert_eq!(amount("1844674407370955").times(amount("2")), None);
    }

    proptest! {
        #![proptest_config(crate::tests::cases())]
        #[test]
        fn every_amount_is_read_back_as_it_was_written(parts in any::<u64>()) {
            let amount = Amount(parts);
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
            prop_assert_eq!(serde_json::from_str::<Amount>(&serde_json::to_string(&amount).unwrap()).unwrap(), amount);
        }
    }
}
