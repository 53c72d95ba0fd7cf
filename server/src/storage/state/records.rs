//! The bytes of the state's database.
//!
//! `kv`: key, escaped so that order is kept, then revision and sub-revision inverted: all versions
//! of a key are neighbours, newest first. `rev`: revision and sub-revision, big-endian, then what
//! changed: history in order, and for compaction the version that each change superseded.

use gonfalon_core::{Event, EventKind, LeaseId, LoadedVersion, Revision, Written};

/// Where a version stands in history.
pub(super) type At = (Revision, u32);

const PUT: u8 = 1;
const TOMBSTONE: u8 = 2;

/// Revision and sub-revision.
const AT_BYTES: usize = 12;

/// Ends an escaped key: below every escaped byte, so that a key sorts before its extensions.
const KEY_END: [u8; 2] = [0, 1];

/// The key of a version in `kv`.
pub(super) fn version_key(key: &[u8], at: At) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + KEY_END.len() + AT_BYTES);
    put_version_key(&mut bytes, key, at);
    bytes
}

/// Appends what [`version_key`] returns.
pub(super) fn put_version_key(bytes: &mut Vec<u8>, key: &[u8], at: At) {
    put_key_prefix(bytes, key);
    bytes.extend_from_slice(&(!at.0.get().cast_unsigned()).to_be_bytes());
    bytes.extend_from_slice(&(!at.1).to_be_bytes());
}

/// What the keys of all versions of `key` begin with.
pub(super) fn key_prefix(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + KEY_END.len());
    put_key_prefix(&mut bytes, key);
    bytes
}

fn put_key_prefix(bytes: &mut Vec<u8>, key: &[u8]) {
    for part in key.split_inclusive(|&byte| byte == 0) {
        bytes.extend_from_slice(part);
        if part.ends_with(&[0]) {
            bytes.push(0xff);
        }
    }
    bytes.extend_from_slice(&KEY_END);
}

/// The parts of a version's key: what stands for the key, and where in history it is.
pub(super) fn split_version_key(bytes: &[u8]) -> Option<(&[u8], At)> {
    let (prefix, at) = bytes.split_at_checked(bytes.len().checked_sub(AT_BYTES)?)?;
    let (revision, sub) = at.split_first_chunk::<8>()?;
    let revision = (!u64::from_be_bytes(*revision)).cast_signed();
    let sub = !u32::from_be_bytes(*sub.first_chunk::<4>()?);
    Some((prefix, (Revision::new(revision), sub)))
}

/// Undoes the escaping of [`key_prefix`] into `key`; false if the bytes are not ours.
pub(super) fn unescape(prefix: &[u8], key: &mut Vec<u8>) -> bool {
    key.clear();
    let Some(mut rest) = prefix.strip_suffix(&KEY_END) else {
        return false;
    };
    while let Some(zero) = rest.iter().position(|&byte| byte == 0) {
        if rest.get(zero + 1) != Some(&0xff) {
            return false;
        }
        key.extend_from_slice(&rest[..=zero]);
        rest = &rest[zero + 2..];
    }
    key.extend_from_slice(rest);
    true
}

/// Appends the record of a version.
pub(super) fn put_version(bytes: &mut Vec<u8>, event: &Event) {
    let kv = &event.kv;
    match event.kind {
        EventKind::Delete => bytes.push(TOMBSTONE),
        EventKind::Put => {
            bytes.push(PUT);
            bytes.extend_from_slice(&kv.create_revision.get().to_le_bytes());
            bytes.extend_from_slice(&kv.version.to_le_bytes());
            bytes.extend_from_slice(&kv.lease.get().to_le_bytes());
            bytes.extend_from_slice(&kv.value);
        }
    }
}

/// A version's record, read back.
pub(super) enum VersionRecord<'a> {
    Put(LoadedVersion<'a>),
    Tombstone,
}

/// Reads the record of `key` at `at`.
pub(super) fn read_version<'a>(
    key: &'a [u8],
    at: At,
    record: &'a [u8],
) -> Option<VersionRecord<'a>> {
    let (&kind, rest) = record.split_first()?;
    if kind == TOMBSTONE && rest.is_empty() {
        return Some(VersionRecord::Tombstone);
    }
    let (create, rest) = rest.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<8>()?;
    let (lease, value) = rest.split_first_chunk::<8>()?;
    (kind == PUT).then_some(VersionRecord::Put(LoadedVersion {
        key,
        value,
        create_revision: Revision::new(i64::from_le_bytes(*create)),
        mod_revision: at.0,
        sub: at.1,
        version: i64::from_le_bytes(*version),
        lease: LeaseId::new(i64::from_le_bytes(*lease)),
    }))
}

/// The key of a change in `rev`.
pub(super) fn change_key(at: At) -> [u8; AT_BYTES] {
    let mut bytes = [0; AT_BYTES];
    bytes[..8].copy_from_slice(&at.0.get().to_be_bytes());
    bytes[8..].copy_from_slice(&at.1.to_be_bytes());
    bytes
}

/// Undoes [`change_key`].
pub(super) fn read_change_key(bytes: &[u8]) -> Option<At> {
    let (revision, sub) = bytes.split_first_chunk::<8>()?;
    let sub: [u8; 4] = sub.try_into().ok()?;
    Some((
        Revision::new(i64::from_be_bytes(*revision)),
        u32::from_be_bytes(sub),
    ))
}

/// A change, read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change<'a> {
    pub(super) kind: EventKind,
    pub(super) previous: Option<At>,
    pub(super) key: &'a [u8],
}

/// Appends the record of a change. A revision is never 0, so 0 says "none before".
pub(super) fn put_change(bytes: &mut Vec<u8>, written: &Written) {
    let key = &written.event.kv.key;
    bytes.push(match written.event.kind {
        EventKind::Put => PUT,
        EventKind::Delete => TOMBSTONE,
    });
    bytes.extend_from_slice(&change_key(written.previous.unwrap_or_default()));
    bytes.extend_from_slice(key);
}

/// Undoes [`put_change`].
pub(super) fn read_change(record: &[u8]) -> Option<Change<'_>> {
    let (&kind, rest) = record.split_first()?;
    let (previous, key) = rest.split_first_chunk::<AT_BYTES>()?;
    let previous = read_change_key(previous)?;
    let kind = match kind {
        PUT => EventKind::Put,
        TOMBSTONE => EventKind::Delete,
        _ => return None,
    };
    Some(Change {
        kind,
        previous: (previous.0.get() != 0).then_some(previous),
        key,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Model: the pair itself, newest first within a key.
        #[test]
        fn version_keys_sort_by_key_and_then_newest_first(
            a in (prop::collection::vec(0u8..3, 0..5), 1i64..9, 0u32..3),
            b in (prop::collection::vec(0u8..3, 0..5), 1i64..9, 0u32..3),
        ) {
            let bytes = |(key, revision, sub): &(Vec<u8>, i64, u32)| {
                version_key(key, (Revision::new(*revision), *sub))
            };
            let model = |(key, revision, sub): &(Vec<u8>, i64, u32)| {
                (key.clone(), std::cmp::Reverse((*revision, *sub)))
            };
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), model(&a).cmp(&model(&b)));
            let encoded = bytes(&a);
            let (prefix, at) = split_version_key(&encoded).unwrap();
            let mut key = Vec::new();
            prop_assert!(unescape(prefix, &mut key));
            prop_assert_eq!((key, at), (a.0.clone(), (Revision::new(a.1), a.2)));
        }

        #[test]
        fn foreign_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut key = Vec::new();
            if let Some((prefix, at)) = split_version_key(&bytes)
                && unescape(prefix, &mut key)
            {
                prop_assert_eq!(version_key(&key, at), bytes.clone());
            }
            if let Some(change) = read_change(&bytes) {
                prop_assert!(bytes.ends_with(change.key));
            }
        }
    }
}
