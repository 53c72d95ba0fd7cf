//! One version of a key as memory holds it: one allocation, shared by all who look at it.
//!
//! A million keys are in memory at once, so the layout is worth its trouble: the numbers, the key
//! and the value lie in one reference-counted block, and what readers are given ([`KeyValue`])
//! points into that block instead of copying it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::recent::ChangeId;
use crate::{KeyValue, LeaseId, Revision};

/// A version of a key that exists.
#[derive(Clone)]
pub(crate) struct Version(Arc<[u8]>);

/// The numbers of a [`Version`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) version: i64,
    pub(crate) lease: LeaseId,
    /// Which change of `mod_revision` wrote it.
    pub(crate) sub: u32,
}

// The block: four 64-bit numbers, two 32-bit ones, then the key and the value.
const CREATE: usize = 0;
const MOD: usize = 8;
const VERSION: usize = 16;
const LEASE: usize = 24;
const SUB: usize = 32;
const KEY_LEN: usize = 36;
const HEADER: usize = 40;

impl Version {
    pub(crate) fn new(key: &[u8], value: &[u8], meta: Meta) -> Self {
        let key_len = u32::try_from(key.len()).expect("a request is far smaller than 4 GiB");
        let mut block: Arc<[u8]> =
            std::iter::repeat_n(0, HEADER + key.len() + value.len()).collect();
        let bytes = Arc::get_mut(&mut block).expect("just made");
        bytes[CREATE..MOD].copy_from_slice(&meta.create_revision.get().to_le_bytes());
        bytes[MOD..VERSION].copy_from_slice(&meta.mod_revision.get().to_le_bytes());
        bytes[VERSION..LEASE].copy_from_slice(&meta.version.to_le_bytes());
        bytes[LEASE..SUB].copy_from_slice(&meta.lease.get().to_le_bytes());
        bytes[SUB..KEY_LEN].copy_from_slice(&meta.sub.to_le_bytes());
        bytes[KEY_LEN..HEADER].copy_from_slice(&key_len.to_le_bytes());
        bytes[HEADER..HEADER + key.len()].copy_from_slice(key);
        bytes[HEADER + key.len()..].copy_from_slice(value);
        Self(block)
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.0[HEADER..self.value_at()]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0[self.value_at()..]
    }

    pub(crate) fn create_revision(&self) -> Revision {
        Revision::new(self.number(CREATE))
    }

    pub(crate) fn mod_revision(&self) -> Revision {
        Revision::new(self.number(MOD))
    }

    /// 1 for the put that created the key, then 2, 3, …
    pub(crate) fn number_of_puts(&self) -> i64 {
        self.number(VERSION)
    }

    pub(crate) fn lease(&self) -> LeaseId {
        LeaseId::new(self.number(LEASE))
    }

    /// The change that made it.
    pub(crate) fn change(&self) -> ChangeId {
        (self.mod_revision(), self.small(SUB))
    }

    /// The version as readers see it, pointing into this block.
    pub(crate) fn to_kv(&self) -> KeyValue {
        let block = Bytes::from_owner(self.clone());
        let value_at = self.value_at();
        KeyValue {
            key: block.slice(HEADER..value_at),
            value: block.slice(value_at..),
            ..self.numbers()
        }
    }

    /// The version without its value.
    pub(crate) fn to_kv_without_value(&self) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key()),
            ..self.numbers()
        }
    }

    fn numbers(&self) -> KeyValue {
        KeyValue {
            create_revision: self.create_revision(),
            mod_revision: self.mod_revision(),
            version: self.number_of_puts(),
            lease: self.lease(),
            ..KeyValue::default()
        }
    }

    fn value_at(&self) -> usize {
        HEADER + self.small(KEY_LEN) as usize
    }

    fn number(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn small(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

impl AsRef<[u8]> for Version {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_kv().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta {
        create_revision: Revision::new(2),
        mod_revision: Revision::new(i64::MAX),
        version: 3,
        lease: LeaseId::new(-4),
        sub: 5,
    };

    #[test]
    fn a_version_holds_what_it_was_made_of() {
        for (key, value) in [
            ("key", "value"),
            ("k", ""),
            ("k", "a longer value than its key"),
        ] {
            let version = Version::new(key.as_bytes(), value.as_bytes(), META);
            assert_eq!(version.key(), key.as_bytes());
            assert_eq!(version.value(), value.as_bytes());
            assert_eq!(
                version.change(),
                (META.mod_revision, META.sub),
                "{key} {value}"
            );
            let want = KeyValue {
                key: key.into(),
                value: value.into(),
                create_revision: META.create_revision,
                mod_revision: META.mod_revision,
                version: META.version,
                lease: META.lease,
            };
            assert_eq!(version.to_kv(), want);
            assert_eq!(
                version.to_kv_without_value(),
                KeyValue {
                    value: Bytes::new(),
                    ..want
                }
            );
        }
    }

    #[test]
    fn readers_share_the_block() {
        let version = Version::new(b"key", b"value", META);
        let (kv, block) = (version.to_kv(), version.as_ref().as_ptr_range());
        assert!(block.contains(&kv.key.as_ptr()) && block.contains(&kv.value.as_ptr()));
        drop(version);
        assert_eq!(
            (kv.key.as_ref(), kv.value.as_ref()),
            (&b"key"[..], &b"value"[..])
        );
    }
}
