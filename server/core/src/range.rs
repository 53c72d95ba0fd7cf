//! Sets of keys as the wire names them: one key, a half-open interval, or everything from a key on.

use bytes::Bytes;

/// A set of neighbouring keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first key that may be in the set.
    pub start: Bytes,
    /// Where the set ends.
    pub end: RangeEnd,
}

/// Where a [`KeyRange`] ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RangeEnd {
    /// Only `start` itself.
    Single,
    /// Every key below this one (exclusive). At or below `start`: the set is empty.
    Before(Bytes),
    /// Every key from `start` on.
    Unbounded,
}

impl KeyRange {
    /// Reads the wire's pair: an empty end is one key, `"\0"` is "everything from `key` on".
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let end = match range_end.as_ref() {
            b"" => RangeEnd::Single,
            b"\0" => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self { start: key, end }
    }

    /// The set that holds `key` alone.
    pub fn single(key: Bytes) -> Self {
        Self {
            start: key,
            end: RangeEnd::Single,
        }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: Bytes) -> Self {
        let end = prefix_end(&prefix).map_or(RangeEnd::Unbounded, RangeEnd::Before);
        Self { start: prefix, end }
    }

    /// Whether `key` is in the set.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Before(end) => key >= self.start.as_ref() && key < end.as_ref(),
            RangeEnd::Unbounded => key >= self.start.as_ref(),
        }
    }

    /// Whether no key can be in the set.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }

    /// Whether the set is one key.
    pub fn is_single(&self) -> bool {
        self.end == RangeEnd::Single
    }
}

/// The first key after all keys that begin with `prefix`; none if there is no such key.
///
/// The last byte below 0xff is raised by one and what follows it is dropped.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte < 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wires_pairs_hold_the_keys_they_name() {
        for (start, end, key, is_in) in [
            ("a", "", "a", true),
            ("a", "", "ab", false),
            ("a", "c", "a", true),
            ("a", "c", "bzz", true),
            ("a", "c", "c", false),
            ("b", "\0", "a", false),
            ("b", "\0", "zzz", true),
            ("\0", "\0", "\0", true),
            ("c", "a", "b", false),
        ] {
            let range = KeyRange::from_wire(start.into(), end.into());
            assert_eq!(
                range.contains(key.as_bytes()),
                is_in,
                "{key:?} in [{start:?}, {end:?})"
            );
        }
    }

    #[test]
    fn a_prefix_ends_before_its_first_successor() {
        assert_eq!(prefix_end(b"a/").as_deref(), Some(b"a0".as_ref()));
        assert_eq!(prefix_end(b"a\xff\xff").as_deref(), Some(b"b".as_ref()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
