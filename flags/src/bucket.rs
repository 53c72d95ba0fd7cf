//! Which of 100,000 buckets an id is in: algorithm 1, which never changes.
//!
//! `seed = murmur3(salt, 0)`, `bucket = murmur3(id, seed) * 100,000 >> 32`, both over UTF-8 bytes as
//! they are. A salt that is hashed first, rather than written before the id, needs no buffer, and
//! "ab" with "c" is not "a" with "bc". Bucket numbers are thousandths of a percent, so a percentage
//! contains every smaller one.
//!
//! `tests/golden/algo1.jsonl` has vectors from another implementation. A change that fails one of
//! them moves users between variants: it is a new algorithm with a new number.

use std::fmt;

/// The number of the only algorithm there is, as definitions have it in `algo`.
pub const ALGORITHM: u64 = 1;

/// How many buckets there are.
const BUCKETS: u32 = 100_000;

/// The salt of a split: users whom a percentage lets in must not all get its first variant.
const SPLIT_SUFFIX: &str = "\0variant";

/// A share of all ids, in thousandths of a percent: 0 to 100,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(BUCKETS);

    /// So many thousandths of a percent; none if they are more than 100,000.
    pub const fn from_thousandths(thousandths: u32) -> Option<Self> {
        if thousandths > BUCKETS {
            return None;
        }
        Some(Self(thousandths))
    }

    /// The share that this number of percent is: exactly, so none if it has more than three
    /// decimals, or is below 0 or above 100.
    pub fn from_percent(percent: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 100,000"
        )]
        let thousandths = (percent * 1000.0).round() as u32;
        // Both operands are exact, so the quotient is the very number that the decimal text with
        // three decimals is read as.
        #[expect(clippy::float_cmp, reason = "equal means the same decimal text")]
        let exact = f64::from(thousandths) / 1000.0 == percent;
        exact.then_some(Self(thousandths))
    }

    /// In thousandths of a percent.
    pub const fn thousandths(self) -> u32 {
        self.0
    }

    /// In percent; exact, as its text with three decimals would be read.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// Whether ids of this bucket are among them.
    pub const fn contains(self, bucket: Bucket) -> bool {
        bucket.0 < self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// Where an id is among all ids, in thousandths of a percent: 0 to 99,999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u32);

impl Bucket {
    /// In thousandths of a percent.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

/// A salt, hashed: flags with different salts sort the same ids into unrelated buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(u32);

impl Seed {
    /// The seed for percentages.
    pub fn new(salt: &str) -> Self {
        Self(murmur3(salt.as_bytes(), 0))
    }

    /// The seed for splits, which is unrelated to the one for percentages.
    pub fn for_split(salt: &str) -> Self {
        Self::new(&format!("{salt}{SPLIT_SUFFIX}"))
    }

    /// The bucket of an id.
    #[inline]
    pub fn bucket(self, id: &[u8]) -> Bucket {
        let wide = u64::from(murmur3(id, self.0)) * u64::from(BUCKETS);
        Bucket((wide >> 32) as u32)
    }

    /// The hashed salt.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// `MurmurHash3`, x86, 32 bits (Austin Appleby, public domain): the same on every machine.
#[inline]
pub(crate) fn murmur3(data: &[u8], seed: u32) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    fn mixed(word: u32) -> u32 {
        word.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2)
    }

    let mut hash = seed;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        hash ^= mixed(u32::from_le_bytes(*word));
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    let last = rest.iter().rev();
    hash ^= mixed(last.fold(0, |word, &byte| word << 8 | u32::from(byte)));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the algorithm takes the length modulo 2^32"
    )]
    let length = data.len() as u32;
    hash ^= length;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(percent: f64) -> Option<u32> {
        Percent::from_percent(percent).map(Percent::thousandths)
    }

    #[test]
    fn a_percentage_has_at_most_three_decimals_and_is_kept_exactly() {
        for thousandths in 0..=BUCKETS {
            let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            let number = text.parse().unwrap();
            assert_eq!(percent(number), Some(thousandths), "{text}");
            let text = format!("{text}1");
            if thousandths < BUCKETS {
                assert_eq!(percent(text.parse().unwrap()), None, "{text}");
            }
        }
        for none in [
            -0.001,
            100.001,
            101.0,
            0.0001,
            99.9999,
            f64::NAN,
            f64::INFINITY,
        ] {
            assert_eq!(percent(none), None, "{none}");
        }
        assert_eq!(percent(1e2), Some(BUCKETS));
        assert_eq!(percent(-0.0), Some(0));
    }

    #[test]
    fn zero_percent_is_nobody_and_a_hundred_is_everybody() {
        for bucket in [0, 1, BUCKETS - 1].map(Bucket) {
            assert!(!Percent::NONE.contains(bucket), "{bucket:?}");
            assert!(Percent::ALL.contains(bucket), "{bucket:?}");
        }
    }

    #[test]
    fn the_extremes_of_the_hash_are_in_the_first_and_in_the_last_bucket() {
        let hash = |number: &u32| murmur3(number.to_string().as_bytes(), 0);
        let first = (0..400_000).min_by_key(hash).unwrap().to_string();
        let last = (0..400_000).max_by_key(hash).unwrap().to_string();
        assert_eq!(Seed(0).bucket(first.as_bytes()), Bucket(0));
        assert_eq!(Seed(0).bucket(last.as_bytes()), Bucket(BUCKETS - 1));
    }
}
