//! One key, or the keys below a prefix, as a value of the application's own type, kept current.
//!
//! A value that cannot be read, or that its own rules refuse, replaces nothing: the last good one
//! stays, and the error is there to be seen. `value.rs` reads one key, `tree.rs` a prefix; here is
//! what both become.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::time::timeout_at;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::primitives::{Listener, Read};
use super::publish::Publish;
use super::snapshot::Snapshot;
use super::{Cache, CacheBuilder, Changes};
use crate::error::{Error, ErrorKind};
use crate::observe;
use crate::types::Revision;

/// Why what is stored is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} at revision {revision}: {why}")]
#[non_exhaustive]
pub struct ValueError {
    /// The key, as far as it is text; of a struct the key that is wrong, or the prefix.
    pub key: String,
    /// When what is stored was written; of a struct the revision that was read.
    pub revision: Revision,
    /// What is wrong with it.
    pub why: String,
}

/// What is stored, read as a `T`.
pub(super) struct Stored<T> {
    /// When it was written.
    pub(super) revision: Revision,
    pub(super) value: Result<T, ValueError>,
}

/// Finds a `T` in a snapshot; none if nothing is stored.
pub(super) type Reader<T> = dyn Fn(&Snapshot) -> Option<Stored<T>> + Send + Sync;

/// A rule for values: what is wrong with one.
pub(super) type Check<T> = dyn Fn(&T) -> Result<(), String> + Send + Sync;

/// What `read` makes of what is stored; that it panicked, if it did: it is the application's, and the
/// next value may be good.
pub(super) fn caught<T, E>(
    read: impl FnOnce() -> Result<T, E>,
    wrong: impl FnOnce(String) -> E,
) -> Result<T, E> {
    // All that it could leave half done is its own.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("without a word");
        Err(wrong(format!("reading it panicked: {text}")))
    })
}

/// How a value stands in for what is not stored.
#[derive(Debug)]
pub(super) struct Fallback<T> {
    pub(super) value: Option<Arc<T>>,
    /// What nothing at all is read as; what is stored and wrong is not hidden by it.
    pub(super) nothing: Option<Arc<T>>,
    /// Whether the last good value stays when what was stored is deleted.
    pub(super) keeps_deleted: bool,
}

impl<T> Clone for Fallback<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            nothing: self.nothing.clone(),
            keeps_deleted: self.keeps_deleted,
        }
    }
}

impl<T> Default for Fallback<T> {
    fn default() -> Self {
        Self {
            value: None,
            nothing: None,
            keeps_deleted: false,
        }
    }
}

/// What the builders of typed values have in common: fields `cache`, `checks` and `fallback`, and a
/// `send`. What `or` and `keep_deleted` mean is said by each.
macro_rules! typed_settings {
    (
        $builder:ident where T: [$($bound:tt)+], of $what:ident;
        $(#[$or:meta])+ or;
        $(#[$keep_deleted:meta])+ keep_deleted;
    ) => {
        impl<T: $($bound)+> $builder<T> {
            /// A value is taken only if `check` finds nothing wrong with it; of several checks, all.
            pub fn check(
                mut self,
                check: impl Fn(&T) -> Result<(), String> + Send + Sync + 'static,
            ) -> Self {
                self.checks.push(std::sync::Arc::new(check));
                self
            }

            $(#[$or])+
            pub fn or(mut self, fallback: T) -> Self {
                self.fallback.value = Some(std::sync::Arc::new(fallback));
                self
            }

            $(#[$keep_deleted])+
            pub fn keep_deleted(mut self) -> Self {
                self.fallback.keeps_deleted = true;
                self
            }

            /// How long the first read may take. Default: the client's.
            pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
                self.cache = self.cache.deadline(deadline);
                self
            }

            /// Other settings of the cache behind it, such as a copy on disk or protection against
            /// a loss of keys.
            pub fn cache(mut self, set: impl FnOnce(CacheBuilder) -> CacheBuilder) -> Self {
                self.cache = set(self.cache);
                self
            }
        }

        impl<T: $($bound)+> IntoFuture for $builder<T> {
            type Output = Result<Cached<T>, crate::Error>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }

        impl<T> std::fmt::Debug for $builder<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($builder))
                    .field(stringify!($what), &self.$what)
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(super) use typed_settings;

/// A value, and how it stands with what is stored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ValueState<T> {
    /// The last good value, or the fallback.
    pub value: Arc<T>,
    /// When what is stored was written, good or not; of a struct, the revision that was read.
    /// [`Revision::UNKNOWN`] if nothing is stored.
    pub revision: Revision,
    /// What is wrong with what is stored; then the value is another.
    pub error: Option<ValueError>,
    /// What it was read from.
    snapshot: Arc<Snapshot>,
}

/// One key, or the keys below a prefix, as a `T`, kept current. Clones share it.
///
/// | what is stored | [`load`](Self::load) | [`error`](Self::error) | [`revision`](Self::revision) |
/// |---|---|---|---|
/// | a good value | that | none | of its write |
/// | a bad one | the last good one, or the fallback | why | of its write |
/// | nothing any more | the fallback; without one, the last good one | none | `UNKNOWN` |
/// | the same, of a struct that needs a key and has no fallback | the last good one | why | that was read |
///
/// Of a struct, "its write" is the revision that was read: that of the last change of any of its keys,
/// or a later one.
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
    state: Publish<ValueState<T>>,
    is_closed: AtomicBool,
}

/// A value that was read; it stays what it is. Not to be kept: [`Cached::load_full`] is for that.
#[derive(Debug)]
pub struct Loaded<T> {
    state: Read<ValueState<T>>,
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.state.value
    }
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// Reads the first value of `cache`, which `what` names, and follows it.
    pub(super) async fn start(
        cache: CacheBuilder,
        what: String,
        read: Box<Reader<T>>,
        fallback: Fallback<T>,
    ) -> Result<Self, Error> {
        let cache = cache.await?;
        let changes = cache.subscribe();
        let first = next_state(&*read, changes.snapshot(), &fallback, None);
        let first = first.map_err(|error| match error {
            Some(error) => Error::new(ErrorKind::InvalidArgument, "cached", error.to_string()),
            None => Error::new(ErrorKind::NotFound, "cached", what),
        })?;
        let stop = CancellationToken::new();
        let cell = Arc::new(Cell {
            _stop: stop.clone().drop_guard(),
            state: Publish::new(first),
            is_closed: AtomicBool::new(false),
        });
        let following = follow(Arc::downgrade(&cell), changes, read, fallback);
        let until = stop.run_until_cancelled_owned(following);
        cache.inner.client.transport().spawn(until);
        Ok(Self { cell, cache })
    }
}

#[cfg(feature = "internals")]
impl<T> Cached<T> {
    /// A value that stays what it is.
    pub(super) fn still(cache: Cache, value: T) -> Self {
        let state = ValueState {
            value: Arc::new(value),
            revision: Revision::UNKNOWN,
            error: None,
            snapshot: cache.snapshot(),
        };
        let cell = Arc::new(Cell {
            _stop: CancellationToken::new().drop_guard(),
            state: Publish::new(state),
            is_closed: AtomicBool::new(false),
        });
        Self { cell, cache }
    }
}

impl<T> Cached<T> {
    /// The value: nanoseconds, without waiting and without allocating.
    pub fn load(&self) -> Loaded<T> {
        Loaded {
            state: self.cell.state.load(),
        }
    }

    /// The value, to be kept.
    pub fn load_full(&self) -> Arc<T> {
        self.cell.state.load().value.clone()
    }

    /// The value together with its revision and error: all of one moment.
    pub fn state(&self) -> Arc<ValueState<T>> {
        self.cell.state.load_full()
    }

    /// When what is stored was written, good or not; of a struct, the revision that was read.
    /// [`Revision::UNKNOWN`] if nothing is stored.
    pub fn revision(&self) -> Revision {
        self.cell.state.load().revision
    }

    /// What is wrong with what is stored; then the value is the last that was good.
    pub fn error(&self) -> Option<ValueError> {
        self.cell.state.load().error.clone()
    }

    /// Its changes from now on.
    pub fn changes(&self) -> ValueChanges<T> {
        // In this order: what is published in between is a change.
        let published = self.cell.state.listen();
        ValueChanges {
            seen: self.state(),
            published,
            cached: self.clone(),
        }
    }

    /// The value after the next change from now on, as [`ValueChanges::next`]. Who must not miss what
    /// changes between two calls keeps [`Cached::changes`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn changed(&self) -> Option<Arc<T>> {
        self.changes().next().await
    }

    /// The state that takes into account everything that was written up to `revision`.
    ///
    /// # Errors
    ///
    /// As [`Cache::at_least`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn at_least(&self, revision: Revision) -> Result<Arc<ValueState<T>>, Error> {
        let transport = self.cache.inner.client.transport();
        let snapshot = self.cache.at_least(revision).await?;
        let cell = &self.cell;
        let read = cell.state.until(|state| {
            let read = &state.snapshot;
            let is_later =
                read.store() == snapshot.store() && read.revision() >= snapshot.revision();
            let is_read = is_later || snapshot.changes_since(read).is_empty();
            // A client that was closed meanwhile reads nothing any more.
            (is_read || cell.is_closed.load(Ordering::Acquire)).then(|| state.clone())
        });
        let late = |_| {
            let message = format!("revision {revision} has arrived and was not read");
            Error::new(ErrorKind::Timeout, "cached", message)
        };
        timeout_at(transport.give_up(None), read)
            .await
            .map_err(late)
    }

    /// The cache behind it: how current it is, its copy on disk.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

/// The changes of one value. One who is slow is told the last of them.
#[derive(Debug)]
pub struct ValueChanges<T> {
    seen: Arc<ValueState<T>>,
    published: Listener,
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
        Some(self.next_state().await?.value.clone())
    }

    /// As [`ValueChanges::next`], with the revision, and the error if what was stored is no good.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next_state(&mut self) -> Option<Arc<ValueState<T>>> {
        loop {
            let is_closed = self.cached.cell.is_closed.load(Ordering::Acquire);
            let now = self.cached.state();
            if !Arc::ptr_eq(&now, &self.seen) {
                self.seen = now.clone();
                return Some(now);
            }
            if is_closed || !self.published.rung().await {
                return None;
            }
        }
    }
}

/// What `snapshot` makes of the value that was `last`. Without a value there is the error, if one is
/// to blame.
fn next_state<T>(
    read: &Reader<T>,
    snapshot: &Arc<Snapshot>,
    fallback: &Fallback<T>,
    last: Option<&Arc<T>>,
) -> Result<ValueState<T>, Option<ValueError>> {
    let stored = read(snapshot);
    let revision = stored
        .as_ref()
        .map_or(Revision::UNKNOWN, |stored| stored.revision);
    let fallen_back = || fallback.value.clone();
    let as_nothing = || fallen_back().or_else(|| fallback.nothing.clone());
    let (value, error) = match stored.map(|stored| stored.value) {
        Some(Ok(value)) => (Some(Arc::new(value)), None),
        Some(Err(error)) => (last.cloned().or_else(fallen_back), Some(error)),
        None if fallback.keeps_deleted => (last.cloned().or_else(as_nothing), None),
        None => (as_nothing().or_else(|| last.cloned()), None),
    };
    match value {
        Some(value) => Ok(ValueState {
            value,
            revision,
            error,
            snapshot: snapshot.clone(),
        }),
        None => Err(error),
    }
}

/// Reads what is stored whenever it changes, as long as somebody holds the value.
async fn follow<T>(
    cell: Weak<Cell<T>>,
    mut changes: Changes,
    read: Box<Reader<T>>,
    fallback: Fallback<T>,
) {
    while changes.next().await.is_some() {
        let Some(cell) = cell.upgrade() else { return };
        let last = cell.state.load_full();
        let next = next_state(&*read, changes.snapshot(), &fallback, Some(&last.value));
        // There is a last value, so there is a next one.
        let Ok(next) = next else { continue };
        if let Some(error) = &next.error {
            observe::decode_failed();
            tracing::warn!(%error, "the last good value is kept");
        }
        cell.state.store(next);
    }
    if let Some(cell) = cell.upgrade() {
        cell.is_closed.store(true, Ordering::Release);
        cell.state.ring();
    }
}
