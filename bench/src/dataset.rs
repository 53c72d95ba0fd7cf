//! The keys and values that every case writes and reads.
//!
//! A value says which key and which write it belongs to and fills the rest from these two numbers,
//! so that whoever receives one can check every byte of it without remembering what was written.
//! The filler does not compress: neither server gains by compression.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;

/// Bytes in a value.
pub(crate) const VALUE_BYTES: usize = 256;

/// Keys that share a prefix.
pub(crate) const KEYS_PER_PREFIX: u64 = 1_000;

const WORD: usize = size_of::<u64>();

/// A small deterministic generator (splitmix64): fast enough to leave the client's CPU to gRPC.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0. The bias is below `bound` / 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        (wide >> 64) as u64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The name of key number `index`: 16 bytes, in the order of the numbers.
pub(crate) fn key(index: u64) -> Bytes {
    let (group, member) = (index / KEYS_PER_PREFIX, index % KEYS_PER_PREFIX);
    Bytes::from(format!("/bench/{group:05}/{member:03}"))
}

/// The first key and the end of a range that holds exactly the keys of prefix number `group`.
pub(crate) fn prefix(group: u64) -> (Bytes, Bytes) {
    // '0' follows '/'.
    let range = |end: char| Bytes::from(format!("/bench/{group:05}{end}"));
    (range('/'), range('0'))
}

/// The range that holds all keys.
pub(crate) fn everything() -> (Bytes, Bytes) {
    (
        Bytes::from_static(b"/bench/"),
        Bytes::from_static(b"/bench0"),
    )
}

/// The value that write number `sequence` gives to key number `index`.
pub(crate) fn value(index: u64, sequence: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    bytes.extend(index.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    let mut filler = filler(index, sequence);
    while bytes.len() < VALUE_BYTES {
        bytes.extend(filler.next().to_le_bytes());
    }
    Bytes::from(bytes)
}

/// The request of that write.
pub(crate) fn put(index: u64, sequence: u64) -> pb::PutRequest {
    pb::PutRequest {
        key: key(index),
        value: value(index, sequence),
        ..Default::default()
    }
}

/// The same as a part of a transaction.
pub(crate) fn put_in_txn(index: u64, sequence: u64) -> pb::RequestOp {
    let put = pb::request_op::Request::RequestPut(put(index, sequence));
    pb::RequestOp { request: Some(put) }
}

/// The write that `value` came from.
///
/// # Errors
///
/// The value is not one that [`value`] made for key number `index`.
pub(crate) fn sequence_of(index: u64, value: &[u8]) -> Result<u64> {
    ensure!(
        value.len() == VALUE_BYTES,
        "a value of {} bytes",
        value.len()
    );
    let mut words = value
        .as_chunks::<WORD>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word));
    let (owner, sequence) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    ensure!(owner == index, "key {index} has the value of key {owner}");
    let mut filler = filler(index, sequence);
    ensure!(
        words.all(|word| word == filler.next()),
        "the value of key {index} is damaged"
    );
    Ok(sequence)
}

/// The number of the key that `value` says it belongs to.
///
/// # Errors
///
/// It is too short to say so.
pub(crate) fn owner_of(value: &[u8]) -> Result<u64> {
    let word = value
        .first_chunk::<WORD>()
        .context("a value without its key's number")?;
    Ok(u64::from_le_bytes(*word))
}

fn filler(index: u64, sequence: u64) -> Random {
    Random::new(index.rotate_left(32) ^ sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_which_write_made_it() {
        for (index, sequence) in [(0, 0), (1, 7), (999_999, u64::MAX)] {
            assert_eq!(
                sequence_of(index, &value(index, sequence)).unwrap(),
                sequence
            );
        }
    }

    #[test]
    fn a_wrong_a_short_and_a_damaged_value_are_refused() {
        let good = value(5, 1);
        assert!(sequence_of(6, &good).is_err(), "another key's value");
        assert!(sequence_of(5, &good[1..]).is_err(), "a byte short");
        for at in [0, 200, VALUE_BYTES - 1] {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert!(sequence_of(5, &bad).is_err(), "byte {at} flipped");
        }
    }

    #[test]
    fn a_prefix_holds_exactly_its_thousand_keys() {
        let (from, to) = prefix(12);
        let inside = (0..20_000).filter(|index| {
            let key = key(*index);
            from <= key && key < to
        });
        assert!(inside.eq(12_000..13_000));
    }

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        assert!((0..3_000).map(key).is_sorted());
        assert!(key(99_999) < key(100_000) && key(999_999) < everything().1);
    }

    #[test]
    fn random_numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[usize::try_from(random.below(10)).unwrap()] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1_200).contains(count)),
            "{seen:?}"
        );
    }
}
