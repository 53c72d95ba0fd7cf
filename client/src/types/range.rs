//! Sets of keys that follow each other, and how they look behind a namespace.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::IntoBytes;

/// The wire's mark for "every key from here on".
const OPEN: &[u8] = &[0];

/// Keys that follow each other in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum End {
    /// Only the start.
    Single,
    /// Up to, and without, this key.
    Before(Bytes),
    /// To the last key there is.
    Open,
}

/// As people write it: `a`, `a/*` for what begins with `a/`, `a..b`, `a..`.
impl std::fmt::Display for KeyRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.start);
        match &self.end {
            End::Single => f.write_str(&start),
            End::Before(_) if *self == Self::prefix(&self.start) => write!(f, "{start}*"),
            End::Before(end) => write!(f, "{start}..{}", String::from_utf8_lossy(end)),
            End::Open if self.start.iter().all(|&byte| byte == 0) => f.write_str("*"),
            End::Open => write!(f, "{start}.."),
        }
    }
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl IntoBytes) -> Self {
        Self {
            start: key.into_bytes(),
            end: End::Single,
        }
    }

    /// Every key that begins with `prefix`; every key, if it is empty.
    pub fn prefix(prefix: impl IntoBytes) -> Self {
        let prefix = prefix.into_bytes();
        if prefix.is_empty() {
            return Self::all();
        }
        Self {
            end: after_prefix(&prefix),
            start: prefix,
        }
    }

    /// Every key from `first` on, up to and without `end`.
    pub fn between(first: impl IntoBytes, end: impl IntoBytes) -> Self {
        Self {
            start: first.into_bytes(),
            end: End::Before(end.into_bytes()),
        }
    }

    /// Every key from `first` on.
    pub fn from(first: impl IntoBytes) -> Self {
        Self {
            start: first.into_bytes(),
            end: End::Open,
        }
    }

    /// Every key.
    pub fn all() -> Self {
        Self::from(Bytes::new())
    }

    /// Whether `key` is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => self.start == key,
            End::Before(end) => self.start <= key && key < end.as_ref(),
            End::Open => self.start <= key,
        }
    }

    /// The first key that may be in it.
    pub(crate) fn start(&self) -> &Bytes {
        &self.start
    }

    /// The keys after `key` that are still in the range: where a page ended, the next begins.
    pub(crate) fn after(&self, key: &[u8]) -> Self {
        let mut start = BytesMut::with_capacity(key.len() + 1);
        start.put_slice(key);
        start.put_u8(0);
        Self {
            start: start.freeze(),
            end: self.end.clone(),
        }
    }

    /// From `key` and `range_end` as the wire has them, of the whole store.
    pub(crate) fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let start = if key == OPEN && !range_end.is_empty() {
            // The smallest key that there can be stands for the empty one.
            Bytes::new()
        } else {
            key
        };
        let end = match &range_end[..] {
            [] => End::Single,
            OPEN => End::Open,
            _ => End::Before(range_end),
        };
        Self { start, end }
    }

    /// `key` and `range_end` as the wire has them, behind `namespace`.
    pub(crate) fn to_wire(&self, namespace: &Bytes) -> (Bytes, Bytes) {
        let mut start = prefixed(namespace, &self.start);
        if self.end == End::Single {
            return (start, Bytes::new());
        }
        // There is no empty key: everything begins with the smallest that there can be.
        if start.is_empty() {
            start = Bytes::from_static(OPEN);
        }
        let mut end = match &self.end {
            End::Before(end) => prefixed(namespace, end),
            End::Open | End::Single => match after_prefix(namespace) {
                End::Before(end) => end,
                End::Open | End::Single => Bytes::from_static(OPEN),
            },
        };
        // Nothing is before the empty key; but an empty end would mean the one key `start`.
        if end.is_empty() {
            end = start.clone();
        }
        (start, end)
    }
}

impl<K: IntoBytes> From<K> for KeyRange {
    /// One key.
    fn from(key: K) -> Self {
        Self::key(key)
    }
}

/// `key` behind `namespace`.
pub(crate) fn prefixed(namespace: &Bytes, key: &Bytes) -> Bytes {
    if namespace.is_empty() {
        return key.clone();
    }
    let mut whole = BytesMut::with_capacity(namespace.len() + key.len());
    whole.put_slice(namespace);
    whole.put_slice(key);
    whole.freeze()
}

/// The first key after all those that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> End {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX);
    match kept {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            End::Before(end.into())
        }
        None => End::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(range: &KeyRange, namespace: &'static str) -> (Bytes, Bytes) {
        range.to_wire(&Bytes::from_static(namespace.as_bytes()))
    }

    #[test]
    fn ranges_are_shown_as_people_write_them() {
        for (range, want) in [
            (KeyRange::key("a"), "a"),
            (KeyRange::prefix("a/"), "a/*"),
            (KeyRange::between("a", "c"), "a..c"),
            (KeyRange::from("a"), "a.."),
            (KeyRange::all(), "*"),
        ] {
            assert_eq!(range.to_string(), want);
        }
    }

    #[test]
    fn ranges_look_on_the_wire_as_etcd_wants_them() {
        for (range, key, end) in [
            (KeyRange::key("a"), &b"a"[..], &b""[..]),
            (KeyRange::prefix("a/"), b"a/", b"a0"),
            (KeyRange::prefix([b'a', 255]), &[b'a', 255], b"b"),
            (KeyRange::prefix([255, 255]), &[255, 255], &[0]),
            (KeyRange::prefix(""), &[0], &[0]),
            (KeyRange::all(), &[0], &[0]),
            (KeyRange::from("m"), b"m", &[0]),
            (KeyRange::between("a", "c"), b"a", b"c"),
            (KeyRange::between("", "c"), &[0], b"c"),
            (KeyRange::between("a", ""), b"a", b"a"),
        ] {
            let (got_key, got_end) = wire(&range, "");
            assert_eq!((&got_key[..], &got_end[..]), (key, end), "{range:?}");
        }
    }

    #[test]
    fn a_range_comes_back_from_the_wire_as_it_was() {
        for range in [
            KeyRange::key("a"),
            KeyRange::prefix("a/"),
            KeyRange::prefix([255]),
            KeyRange::all(),
            KeyRange::from("m"),
            KeyRange::between("a", "c"),
            KeyRange::between("", "c"),
        ] {
            let (key, range_end) = wire(&range, "");
            assert_eq!(KeyRange::from_wire(key, range_end), range);
        }
    }

    #[test]
    fn a_namespace_never_lets_a_range_out() {
        for (range, key, end) in [
            (KeyRange::key("a"), &b"n/a"[..], &b""[..]),
            (KeyRange::all(), b"n/", b"n0"),
            (KeyRange::prefix("a"), b"n/a", b"n/b"),
            (KeyRange::prefix([255]), b"n/\xff", b"n0"),
            (KeyRange::from("m"), b"n/m", b"n0"),
            (KeyRange::between("", "c"), b"n/", b"n/c"),
        ] {
            let (got_key, got_end) = wire(&range, "n/");
            assert_eq!((&got_key[..], &got_end[..]), (key, end), "{range:?}");
        }
    }

    #[test]
    fn the_keys_after_one_are_those_that_the_range_still_has() {
        let range = KeyRange::prefix("a/");
        let rest = range.after(b"a/1");
        assert!(range.contains(b"a/1") && !rest.contains(b"a/1"));
        assert!(rest.contains(b"a/1\0") && rest.contains(b"a/2") && !rest.contains(b"a0"));
    }
}
