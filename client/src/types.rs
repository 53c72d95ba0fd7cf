//! Revisions, lease ids, keys and values, ranges of keys, events.

mod range;

use std::fmt;

use bytes::Bytes;
use gonfalon_proto::{etcdserverpb as pb, mvccpb};

pub use range::KeyRange;
pub(crate) use range::prefixed;

/// Position in the history of the whole store.
///
/// 1 is the empty store; every transaction that changes at least one key adds 1. A revision that
/// [`Error`](crate::Error) or a result names can be given back to [`Range::at`](crate::Range::at)
/// and to [`WatchBuilder::from`](crate::WatchBuilder::from).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(i64);

impl Revision {
    /// No revision: a key that never was has it as its `create_revision`, and an error that does
    /// not name one.
    pub const UNKNOWN: Self = Self(0);

    /// The number as the wire has it.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number as the wire has it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a lease. Shown in hexadecimal, as etcd's tools do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(i64);

impl LeaseId {
    /// The number as the wire has it; 0 is no lease.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number as the wire has it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// None for the wire's 0.
    pub(crate) fn from_wire(number: i64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What can be a key or a value. Text is its UTF-8.
pub trait IntoBytes {
    /// The bytes themselves.
    fn into_bytes(self) -> Bytes;
}

impl IntoBytes for Bytes {
    fn into_bytes(self) -> Bytes {
        self
    }
}

impl IntoBytes for &Bytes {
    fn into_bytes(self) -> Bytes {
        self.clone()
    }
}

impl IntoBytes for String {
    fn into_bytes(self) -> Bytes {
        self.into()
    }
}

impl IntoBytes for Vec<u8> {
    fn into_bytes(self) -> Bytes {
        self.into()
    }
}

macro_rules! copied {
    ($($type:ty),*) => {$(
        impl IntoBytes for $type {
            fn into_bytes(self) -> Bytes {
                Bytes::copy_from_slice(self.as_ref())
            }
        }
    )*};
}

copied!(&str, &[u8], &Vec<u8>);

impl IntoBytes for &String {
    fn into_bytes(self) -> Bytes {
        self.as_str().into_bytes()
    }
}

impl<const N: usize> IntoBytes for [u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}

impl<const N: usize> IntoBytes for &[u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

/// A key as it is, or was, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyValue {
    /// Its name.
    pub key: Bytes,
    /// What it holds; empty when only keys were asked for.
    pub value: Bytes,
    /// When it was created (again, if it had been deleted).
    pub create_revision: Revision,
    /// When it was last written.
    pub mod_revision: Revision,
    /// How often it was written since it was created; 1 for a new key.
    pub version: i64,
    /// The lease that it goes with.
    pub lease: Option<LeaseId>,
}

impl KeyValue {
    pub(crate) fn from_wire(kv: mvccpb::KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            create_revision: Revision::new(kv.create_revision),
            mod_revision: Revision::new(kv.mod_revision),
            version: kv.version,
            lease: LeaseId::from_wire(kv.lease),
        }
    }

    /// What an event has of a key that was deleted.
    pub(crate) fn deleted(key: Bytes, revision: Revision) -> Self {
        Self {
            key,
            value: Bytes::new(),
            create_revision: Revision::UNKNOWN,
            mod_revision: revision,
            version: 0,
            lease: None,
        }
    }

    /// The same in memory of its own. What came from the network is a piece of the message that it came
    /// in, and one key of ten thousand would keep all of that in memory.
    pub(crate) fn kept(&self) -> Self {
        let both = Bytes::from([&self.key[..], &self.value].concat());
        Self {
            key: both.slice(..self.key.len()),
            value: both.slice(self.key.len()..),
            ..self.clone()
        }
    }

    /// The key as text, if it is UTF-8.
    pub fn key_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.key).ok()
    }

    /// The value as text, if it is UTF-8.
    pub fn value_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted, or its lease ended.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change. After a deletion it has only `key` and `mod_revision`.
    pub kv: KeyValue,
    /// The key before the change; none if it was not there, if it was not asked for, or if that
    /// revision has been compacted.
    pub prev: Option<KeyValue>,
}

impl Event {
    pub(crate) fn from_wire(event: mvccpb::Event) -> Option<Self> {
        let kind = match event.r#type() {
            mvccpb::event::EventType::Put => EventKind::Put,
            mvccpb::event::EventType::Delete => EventKind::Delete,
        };
        Some(Self {
            kind,
            kv: KeyValue::from_wire(event.kv?),
            prev: event.prev_kv.map(KeyValue::from_wire),
        })
    }
}

/// The revision in a header; servers always send one.
pub(crate) fn revision_of(header: Option<&pb::ResponseHeader>) -> Revision {
    Revision::new(header.map_or(0, |header| header.revision))
}
