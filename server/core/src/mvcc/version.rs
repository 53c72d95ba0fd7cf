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

// The block: two 64-bit numbers, three 32-bit ones, the key, the value, and behind them what most
// versions do not have: their lease, and what of the number of puts is above 32 bits.
const CREATE: usize = 0;
const MOD: usize = 8;
const VERSION: usize = 16;
const SUB: usize = 20;
const KEY_LEN: usize = 24;
const HEADER: usize = 28;
const LEASE: usize = 8;
const TRAILER: usize = LEASE + 4;

/// Set in the key's length if there is a trailer.
const HAS_TRAILER: u32 = 1 << 31;

impl Version {
    pub(crate) fn new(key: &[u8], value: &[u8], meta: Meta) -> Self {
        let key_len = u32::try_from(key.len()).expect("a request is far smaller than 4 GiB");
        assert_eq!(key_len & HAS_TRAILER, 0, "nor is it 2 GiB");
        let [low, high] = halves(meta.version);
        let has_trailer = !meta.lease.is_none() || high != 0;
        let value_at = HEADER + key.len();
        let value_end = value_at + value.len();
        let end = value_end + if has_trailer { TRAILER } else { 0 };
        let mut block: Arc<[u8]> = std::iter::repeat_n(0, end).collect();
        let bytes = Arc::get_mut(&mut block).expect("just made");
        bytes[CREATE..MOD].copy_from_slice(&meta.create_revision.get().to_le_bytes());
        bytes[MOD..VERSION].copy_from_slice(&meta.mod_revision.get().to_le_bytes());
        bytes[VERSION..SUB].copy_from_slice(&low.to_le_bytes());
        bytes[SUB..KEY_LEN].copy_from_slice(&meta.sub.to_le_bytes());
        let flag = if has_trailer { HAS_TRAILER } else { 0 };
        bytes[KEY_LEN..HEADER].copy_from_slice(&(key_len | flag).to_le_bytes());
        bytes[HEADER..value_at].copy_from_slice(key);
        bytes[value_at..value_end].copy_from_slice(value);
        if has_trailer {
            let trailer = &mut bytes[value_end..];
            trailer[..LEASE].copy_from_slice(&meta.lease.get().to_le_bytes());
            trailer[LEASE..].copy_from_slice(&high.to_le_bytes());
        }
        Self(block)
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.0[HEADER..self.value_at()]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0[self.value_at()..self.value_end()]
    }

    pub(crate) fn create_revision(&self) -> Revision {
        Revision::new(self.number(CREATE))
    }

    pub(crate) fn mod_revision(&self) -> Revision {
        Revision::new(self.number(MOD))
    }

    /// 1 for the put that created the key, then 2, 3, …
    pub(crate) fn number_of_puts(&self) -> i64 {
        let high = if self.has_trailer() {
            self.small(self.value_end() + LEASE)
        } else {
            0
        };
        (i64::from(high) << 32) | i64::from(self.small(VERSION))
    }

    pub(crate) fn lease(&self) -> LeaseId {
        if self.has_trailer() {
            LeaseId::new(self.number(self.value_end()))
        } else {
            LeaseId::NONE
        }
    }

    /// The change that made it.
    pub(crate) fn change(&self) -> ChangeId {
        (self.mod_revision(), self.small(SUB))
    }

    /// Bytes of memory that it takes, about: the block and its two counts of owners.
    pub(crate) fn cost_bytes(&self) -> usize {
        self.0.len() + 2 * size_of::<usize>()
    }

    /// The version as readers see it, pointing into this block.
    pub(crate) fn to_kv(&self) -> KeyValue {
        let block = Bytes::from_owner(self.clone());
        let value_at = self.value_at();
        KeyValue {
            key: block.slice(HEADER..value_at),
            value: block.slice(value_at..self.value_end()),
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
        HEADER + (self.small(KEY_LEN) & !HAS_TRAILER) as usize
    }

    fn value_end(&self) -> usize {
        self.0.len() - if self.has_trailer() { TRAILER } else { 0 }
    }

    fn has_trailer(&self) -> bool {
        self.small(KEY_LEN) & HAS_TRAILER != 0
    }

    fn number(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn small(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

/// The lower and the upper 32 bits of a count.
fn halves(count: i64) -> [u32; 2] {
    let half = |bits: i64| u32::try_from(bits).expect("half of a count that is positive");
    [half(count & i64::from(u32::MAX)), half(count >> 32)]
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
        let puts = [1, i64::from(u32::MAX), i64::from(u32::MAX) + 1, i64::MAX];
        let leases = [LeaseId::NONE, META.lease, LeaseId::new(i64::MAX)];
        let metas = leases.iter().flat_map(|&lease| {
            puts.map(|version| Meta {
                version,
                lease,
                ..META
            })
        });
        let texts = [
            ("key", "value"),
            ("k", ""),
            ("k", "a longer value than its key"),
        ];
        for (meta, (key, value)) in metas.flat_map(|meta| texts.map(|text| (meta, text))) {
            let version = Version::new(key.as_bytes(), value.as_bytes(), meta);
            assert_eq!(version.key(), key.as_bytes(), "{meta:?}");
            assert_eq!(version.value(), value.as_bytes(), "{meta:?}");
            assert_eq!(
                version.change(),
                (meta.mod_revision, meta.sub),
                "{key} {value}"
            );
            let want = KeyValue {
                key: key.into(),
                value: value.into(),
                create_revision: meta.create_revision,
                mod_revision: meta.mod_revision,
                version: meta.version,
                lease: meta.lease,
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
    fn a_lease_takes_memory_only_where_there_is_one() {
        let without = Meta {
            lease: LeaseId::NONE,
            ..META
        };
        let bytes = |meta| Version::new(b"key", b"value", meta).as_ref().len();
        assert_eq!(bytes(without), HEADER + 8);
        assert_eq!(bytes(META), HEADER + 8 + TRAILER);
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
