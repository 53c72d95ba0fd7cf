//! Which keys: one, a range, a prefix, or all from a key on.

use bytes::Bytes;

use crate::failure::Failure;
use crate::parse;

/// The end that means "no end".
const OPEN: &[u8] = b"\0";

/// The keys that a command is about, as etcdctl's flags say it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Keys {
    /// The key, or the first key of a range
    #[arg(value_parser = parse::raw())]
    pub(crate) key: Bytes,
    /// The end of the range, which is not part of it
    #[arg(value_parser = parse::raw())]
    pub(crate) range_end: Option<Bytes>,
    /// All keys that begin with KEY; with an empty KEY, all keys
    #[arg(long)]
    pub(crate) prefix: bool,
    /// All keys from KEY on, in the order of their bytes
    #[arg(long)]
    pub(crate) from_key: bool,
}

/// Keys as the wire has them: empty end: one key; end `\0`: no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) key: Bytes,
    pub(crate) end: Bytes,
}

impl Keys {
    pub(crate) fn range(&self) -> Result<Range, Failure> {
        match (&self.range_end, self.prefix, self.from_key) {
            (_, true, true) => Err(Failure::usage("--prefix and --from-key exclude each other")),
            (Some(_), true, _) | (Some(_), _, true) => Err(Failure::usage(
                "RANGE_END does not go with --prefix or --from-key",
            )),
            (None, true, false) => Ok(Range::prefix(&self.key)),
            (None, false, true) => Ok(Range::from(&self.key)),
            (None, false, false) => Ok(Range {
                key: self.key.clone(),
                end: Bytes::new(),
            }),
            (Some(end), false, false) => Ok(Range {
                key: self.key.clone(),
                end: end.clone(),
            }),
        }
    }
}

impl Range {
    /// All keys that begin with `prefix`.
    pub(crate) fn prefix(prefix: &Bytes) -> Self {
        if prefix.is_empty() {
            return Self::from(prefix);
        }
        Self {
            key: prefix.clone(),
            end: prefix_end(prefix),
        }
    }

    /// All keys that are not smaller than `key`.
    fn from(key: &Bytes) -> Self {
        // The wire has no empty key; the smallest is one zero byte.
        let key = if key.is_empty() {
            Bytes::from_static(OPEN)
        } else {
            key.clone()
        };
        Self {
            key,
            end: Bytes::from_static(OPEN),
        }
    }

    /// Whether this is exactly one key.
    pub(crate) fn is_one_key(&self) -> bool {
        self.end.is_empty()
    }
}

/// The first key behind all that begin with `prefix`.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(OPEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(key: &str, end: Option<&str>, prefix: bool, from_key: bool) -> Keys {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Keys {
            key: bytes(key),
            range_end: end.map(bytes),
            prefix,
            from_key,
        }
    }

    #[test]
    fn flags_become_ranges() {
        let cases = [
            (keys("a", None, false, false), ("a", "")),
            (keys("a", Some("c"), false, false), ("a", "c")),
            (keys("ab", None, true, false), ("ab", "ac")),
            (keys("", None, true, false), ("\0", "\0")),
            (keys("b", None, false, true), ("b", "\0")),
            (keys("", None, false, true), ("\0", "\0")),
        ];
        for (keys, (key, end)) in cases {
            let range = keys.range().unwrap();
            assert_eq!(
                (&range.key[..], &range.end[..]),
                (key.as_bytes(), end.as_bytes()),
                "{keys:?}"
            );
        }
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for keys in [
            keys("a", None, true, true),
            keys("a", Some("b"), true, false),
            keys("a", Some("b"), false, true),
        ] {
            assert!(keys.range().is_err(), "{keys:?}");
        }
    }

    #[test]
    fn the_end_of_a_prefix_carries_over_full_bytes() {
        assert_eq!(&prefix_end(b"a\xff\xff")[..], b"b");
        assert_eq!(&prefix_end(b"\xff\xff")[..], b"\0");
        assert_eq!(&prefix_end(b"a\xfe")[..], b"a\xff");
    }
}
