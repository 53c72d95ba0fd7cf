//! The keys below a prefix as one struct: each segment of a path is a field.
//!
//! Here is the builder and what a missing, unknown or wrong key means; `tree/node.rs` is the
//! deserializer.

mod node;

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;

use super::CacheBuilder;
use super::snapshot::Snapshot;
use super::typed::{Cached, Check, Fallback, Stored, ValueError, caught, typed_settings};
use crate::client::Client;
use crate::error::Error;
use crate::types::KeyRange;

/// What stands between the segments of a path.
const SEPARATOR: u8 = b'/';

/// A struct to be, of the keys below a prefix: settings first, then await it. See
/// [`Client::cached_struct`].
#[must_use = "nothing happens until it is awaited"]
pub struct CachedStructBuilder<T> {
    cache: CacheBuilder,
    prefix: Bytes,
    checks: Vec<Arc<Check<T>>>,
    fallback: Fallback<T>,
    refuses_unknown: bool,
}

impl<T> Clone for CachedStructBuilder<T> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            prefix: self.prefix.clone(),
            checks: self.checks.clone(),
            fallback: self.fallback.clone(),
            refuses_unknown: self.refuses_unknown,
        }
    }
}

typed_settings! {
    CachedStructBuilder where T: [DeserializeOwned + Send + Sync + 'static], of prefix;

    /// What it is while there is no key below the prefix, and as long as nothing good ever was.
    /// Default: without keys, what serde makes of no field at all. If that is nothing, an empty prefix
    /// is as wrong as any other that cannot be read: there is no [`Cached`], but an error, and later
    /// the last good value stays, with the error beside it.
    or;

    /// When every key below the prefix is deleted, the last good value stays. Default: the value is
    /// the fallback, as for an application that starts then.
    keep_deleted;
}

impl<T: DeserializeOwned + Send + Sync + 'static> CachedStructBuilder<T> {
    pub(crate) fn new(client: Client, prefix: &Bytes) -> Self {
        let prefix = folder(prefix);
        Self {
            cache: CacheBuilder::new(client, KeyRange::prefix(&prefix)),
            prefix,
            checks: Vec::new(),
            fallback: Fallback::default(),
            refuses_unknown: false,
        }
    }

    /// A key that no field takes makes the whole no good, so that a misspelt one is noticed.
    /// Default: such keys are passed over. Fields of JSON in one key are not meant: serde's
    /// `deny_unknown_fields` is for them.
    pub fn refuse_unknown_keys(mut self) -> Self {
        self.refuses_unknown = true;
        self
    }

    async fn send(self) -> Result<Cached<T>, Error> {
        let prefix = self.prefix;
        let what = String::from_utf8_lossy(&prefix).into_owned();
        let (checks, refuses_unknown) = (self.checks, self.refuses_unknown);
        let read = move |snapshot: &Snapshot| {
            let wrong = |why| node::Wrong::whole(&prefix, why);
            let read = || {
                let value: T = node::read(snapshot, &prefix, refuses_unknown)?;
                let checked = checks.iter().try_for_each(|check| check(&value));
                checked.map(|()| value).map_err(wrong)
            };
            caught(read, wrong)
        };
        let mut fallback = self.fallback;
        fallback.nothing = read(&Snapshot::default()).ok().map(Arc::new);
        let has_fallback = fallback.value.is_some() || fallback.nothing.is_some();
        let read = Box::new(move |snapshot: &Snapshot| {
            if snapshot.is_empty() && has_fallback {
                return None;
            }
            let revision = snapshot.revision();
            let value = read(snapshot).map_err(|wrong| ValueError {
                key: wrong.key,
                revision,
                why: wrong.why,
            });
            Some(Stored { revision, value })
        });
        Cached::start(self.cache, what, read, fallback).await
    }
}

/// `prefix` as a folder: keys that only begin alike are not in it.
fn folder(prefix: &Bytes) -> Bytes {
    if prefix.is_empty() || prefix.ends_with(&[SEPARATOR]) {
        return prefix.clone();
    }
    let mut whole = BytesMut::with_capacity(prefix.len() + 1);
    whole.put_slice(prefix);
    whole.put_u8(SEPARATOR);
    whole.freeze()
}
