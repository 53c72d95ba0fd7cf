//! What [`Publish`](super::publish::Publish) is made of: a pointer that is swapped, and a bell.
//!
//! `model.rs` has the same two of loom's making.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

/// A shared pointer that is replaced as a whole.
#[derive(Debug)]
pub(super) struct Swap<T>(ArcSwap<T>);

/// What was read; not to be kept for long, and never across an `await`.
pub(super) type Read<T> = Guard<Arc<T>>;

impl<T> Swap<T> {
    pub(super) fn new(first: Arc<T>) -> Self {
        Self(ArcSwap::new(first))
    }

    pub(super) fn load(&self) -> Read<T> {
        self.0.load()
    }

    pub(super) fn load_full(&self) -> Arc<T> {
        self.0.load_full()
    }

    pub(super) fn store(&self, next: Arc<T>) {
        self.0.store(next);
    }

    /// Puts `next` in the place of `held`; false if that is no longer there.
    pub(super) fn replace(&self, held: &Arc<T>, next: Arc<T>) -> bool {
        let before = self.0.compare_and_swap(held, next);
        Arc::ptr_eq(&before, held)
    }
}

/// Wakes everybody who listens.
#[derive(Debug)]
pub(super) struct Bell(watch::Sender<()>);

/// Hears every ring since it was made, or since it heard one last; many at once are one.
#[derive(Debug)]
pub(super) struct Listener(watch::Receiver<()>);

impl Bell {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(super) fn ring(&self) {
        self.0.send_replace(());
    }

    pub(super) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

impl Listener {
    /// Returns when it has rung; false if it never will again.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn rung(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
