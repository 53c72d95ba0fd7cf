//! One key as a value of the application's own type, kept current.
//!
//! A value that cannot be read, or that its own rules refuse, replaces nothing: the last good one
//! stays, and the error is there to be seen.

use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Cache, Changes};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::types::{KeyRange, KeyValue, Revision};

/// Why what is stored is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} at revision {revision}: {why}")]
#[non_exhaustive]
pub struct ValueError {
    /// The key, as far as it is text.
    pub key: String,
    /// When what is stored was written.
    pub revision: Revision,
    /// What is wrong with it.
    pub why: String,
}

type Read<T> = dyn Fn(&[u8]) -> Result<T, String> + Send + Sync;

/// A value to be: settings first, then await it.
#[must_use = "nothing happens until it is awaited"]
pub struct CachedBuilder<T> {
    client: Client,
    key: Bytes,
    read: Arc<Read<T>>,
    fallback: Option<T>,
    deadline: Option<Duration>,
}

impl<T> std::fmt::Debug for CachedBuilder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedBuilder")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> CachedBuilder<T> {
    /// What is stored is JSON.
    pub(crate) fn json(client: Client, key: Bytes) -> Self {
        Self {
            client,
            key,
            read: Arc::new(|bytes| {
                serde_json::from_slice(bytes).map_err(|error| error.to_string())
            }),
            fallback: None,
            deadline: None,
        }
    }
}

impl<T: Send + Sync + 'static> CachedBuilder<T> {
    /// What is stored is text, as [`FromStr`] reads it, rather than JSON.
    pub fn text(mut self) -> Self
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.read = Arc::new(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            text.parse().map_err(|error: T::Err| error.to_string())
        });
        self
    }

    /// What is stored is read by `read`, rather than as JSON.
    pub fn read_by(
        mut self,
        read: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        self.read = Arc::new(read);
        self
    }

    /// A value is taken only if `check` finds nothing wrong with it.
    pub fn check(
        mut self,
        check: impl Fn(&T) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let read = self.read;
        self.read = Arc::new(move |bytes| {
            let value = read(bytes)?;
            check(&value)?;
            Ok(value)
        });
        self
    }

    /// What it is as long as the key was never there, or never good. Default: then there is no
    /// [`Cached`], but an error.
    pub fn or(mut self, fallback: T) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// How long the first read may take. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn send(self) -> Result<Cached<T>, Error> {
        let mut cache = self.client.cache(KeyRange::key(&self.key));
        if let Some(deadline) = self.deadline {
            cache = cache.deadline(deadline);
        }
        let cache = cache.await?;
        let refuse = |kind, message: String| Error::new(kind, "cached", message);
        let stored = cache.get(&self.key);
        let read = stored.as_deref().map(|kv| value(&*self.read, kv));
        let (first, error) = match (read, self.fallback) {
            (Some(Ok(value)), _) => (value, None),
            (Some(Err(error)), Some(fallback)) => (fallback, Some(error)),
            (None, Some(fallback)) => (fallback, None),
            (Some(Err(error)), None) => {
                return Err(refuse(ErrorKind::InvalidArgument, error.to_string()));
            }
            (None, None) => {
                let key = String::from_utf8_lossy(&self.key).into_owned();
                return Err(refuse(ErrorKind::NotFound, key));
            }
        };
        let changes = cache.subscribe();
        let state = State {
            revision: stored.map_or(Revision::UNKNOWN, |kv| kv.mod_revision),
            error,
        };
        let stop = CancellationToken::new();
        let cell = Arc::new(Cell {
            _stop: stop.clone().drop_guard(),
            value: ArcSwap::from_pointee(first),
            state: watch::Sender::new(state),
        });
        let following = follow(Arc::downgrade(&cell), changes, self.read);
        tokio::spawn(stop.run_until_cancelled_owned(following));
        Ok(Cached { cell, cache })
    }
}

impl<T: Send + Sync + 'static> IntoFuture for CachedBuilder<T> {
    type Output = Result<Cached<T>, Error>;
    type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// One key as a `T`, kept current. Clones share it.
#[derive(Debug)]
pub struct Cached<T> {
    cell: Arc<Cell<T>>,
    cache: Cache,
}

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self {
            cell: self.cell.clone(),
            cache: self.cache.clone(),
        }
    }
}

#[derive(Debug)]
struct Cell<T> {
    /// The task ends with the last handle.
    _stop: DropGuard,
    value: ArcSwap<T>,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    revision: Revision,
    error: Option<ValueError>,
}

/// A value that was read; it stays what it is. Not to be kept: [`Cached::load_full`] is for that.
#[derive(Debug)]
pub struct Loaded<T> {
    guard: Guard<Arc<T>>,
    _value: PhantomData<T>,
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Cached<T> {
    /// The value: nanoseconds, without waiting and without allocating.
    pub fn load(&self) -> Loaded<T> {
        Loaded {
            guard: self.cell.value.load(),
            _value: PhantomData,
        }
    }

    /// The value, to be kept.
    pub fn load_full(&self) -> Arc<T> {
        self.cell.value.load_full()
    }

    /// When what was last stored was written, good or not; [`Revision::UNKNOWN`] if it is not there.
    pub fn revision(&self) -> Revision {
        self.cell.state.borrow().revision
    }

    /// What is wrong with what is stored; then the value is the last that was good.
    pub fn error(&self) -> Option<ValueError> {
        self.cell.state.borrow().error.clone()
    }

    /// Its changes from now on.
    pub fn changes(&self) -> ValueChanges<T> {
        ValueChanges {
            state: self.cell.state.subscribe(),
            cached: self.clone(),
        }
    }

    /// The cache behind it: how current it is, reads of at least a revision.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

/// The changes of one value.
#[derive(Debug)]
pub struct ValueChanges<T> {
    state: watch::Receiver<State>,
    cached: Cached<T>,
}

impl<T> ValueChanges<T> {
    /// The value after the next change; the same as before if what was stored is no good. None once
    /// the client is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<Arc<T>> {
        self.state.changed().await.ok()?;
        Some(self.cached.load_full())
    }
}

fn value<T>(read: &Read<T>, kv: &KeyValue) -> Result<T, ValueError> {
    read(&kv.value).map_err(|why| ValueError {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        revision: kv.mod_revision,
        why,
    })
}

/// Reads what is stored whenever it changes, as long as somebody holds the value.
async fn follow<T>(cell: std::sync::Weak<Cell<T>>, mut changes: Changes, read: Arc<Read<T>>) {
    while let Some(all) = changes.next().await {
        let Some(cell) = cell.upgrade() else { return };
        let Some(change) = all.into_iter().next() else {
            continue;
        };
        let state = match change.new {
            // Deleted: the last good value stays.
            None => State {
                revision: Revision::UNKNOWN,
                error: None,
            },
            Some(kv) => {
                let error = match value(&*read, &kv) {
                    Ok(value) => {
                        cell.value.store(Arc::new(value));
                        None
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the last good value is kept");
                        Some(error)
                    }
                };
                State {
                    revision: kv.mod_revision,
                    error,
                }
            }
        };
        cell.state.send_replace(state);
    }
}
