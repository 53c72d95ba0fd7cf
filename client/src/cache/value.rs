//! One key as a value: how its bytes are read.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::CacheBuilder;
use super::typed::{Cached, Check, Fallback, Stored, ValueError, caught, typed_settings};
use crate::client::Client;
use crate::error::Error;
use crate::types::{KeyRange, KeyValue};

type Format<T> = dyn Fn(&Bytes) -> Result<T, String> + Send + Sync;

/// A value to be: settings first, then await it.
#[must_use = "nothing happens until it is awaited"]
pub struct CachedBuilder<T> {
    cache: CacheBuilder,
    key: Bytes,
    format: Arc<Format<T>>,
    checks: Vec<Arc<Check<T>>>,
    fallback: Fallback<T>,
}

impl<T> Clone for CachedBuilder<T> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            key: self.key.clone(),
            format: self.format.clone(),
            checks: self.checks.clone(),
            fallback: self.fallback.clone(),
        }
    }
}

typed_settings! {
    CachedBuilder where T: [Send + Sync + 'static], of key;

    /// What it is while nothing is stored, and as long as nothing good ever was. Default: then there
    /// is no [`Cached`], but an error; and what was good once stays when it is deleted.
    or;

    /// When what is stored is deleted, the last good value stays also if there is a fallback.
    /// Default: the value is the fallback again, as for an application that starts then.
    keep_deleted;
}

fn json<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn text<T>(bytes: &Bytes) -> Result<T, String>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

impl<T: DeserializeOwned + Send + Sync + 'static> CachedBuilder<T> {
    /// What is stored is JSON.
    pub(crate) fn json(client: Client, key: Bytes) -> Self {
        Self::new(client, key, json)
    }
}

impl CachedBuilder<Bytes> {
    /// What is stored is what it is.
    pub(crate) fn bytes(client: Client, key: Bytes) -> Self {
        Self::new(client, key, |bytes| Ok(bytes.clone()))
    }
}

impl<T: Send + Sync + 'static> CachedBuilder<T> {
    fn new(
        client: Client,
        key: Bytes,
        format: impl Fn(&Bytes) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            cache: CacheBuilder::new(client, KeyRange::key(&key)),
            key,
            format: Arc::new(format),
            checks: Vec::new(),
            fallback: Fallback::default(),
        }
    }

    /// What is stored is read by `read`.
    pub(crate) fn read(
        client: Client,
        key: Bytes,
        read: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        Self::new(client, key, move |bytes: &Bytes| read(bytes))
    }

    /// What is stored is text, as [`FromStr`] reads it, rather than JSON.
    pub fn text(mut self) -> Self
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.format = Arc::new(text);
        self
    }

    /// What is stored is read by `read`, rather than as JSON.
    pub fn read_by(
        mut self,
        read: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        self.format = Arc::new(move |bytes: &Bytes| read(bytes));
        self
    }

    async fn send(self) -> Result<Cached<T>, Error> {
        let what = String::from_utf8_lossy(&self.key).into_owned();
        let (key, format, checks) = (self.key, self.format, self.checks);
        let read = move |kv: &KeyValue| {
            let value = format(&kv.value)?;
            checks.iter().try_for_each(|check| check(&value))?;
            Ok(value)
        };
        let read = Box::new(move |snapshot: &super::Snapshot| {
            let kv = snapshot.get(&key)?;
            let value = caught(|| read(kv), |why| why).map_err(|why| ValueError {
                key: String::from_utf8_lossy(&key).into_owned(),
                revision: kv.mod_revision,
                why,
            });
            let revision = kv.mod_revision;
            Some(Stored { revision, value })
        });
        Cached::start(self.cache, what, read, self.fallback).await
    }
}
