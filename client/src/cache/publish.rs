//! One value that is replaced as a whole: readers never wait, and who waits is woken.
//!
//! This is all that the writers and the readers of a cache share. The file is compiled twice: with
//! `primitives.rs` beside it, and in the tests with loom's primitives in that place, which try every
//! order of the steps (`model.rs`).
//!
//! Invariants
//! - the value is replaced before the bell rings: whoever is woken finds what he was woken for;
//! - whoever waits listens before he looks: what is published in between wakes him;
//! - [`Publish::advance`] replaces what it has seen and nothing else, and never by something older.

use std::sync::Arc;

use super::primitives::{Bell, Listener, Read, Swap};
use crate::types::Revision;

/// What is of one revision.
pub(super) trait Revised {
    fn revision(&self) -> Revision;
}

/// The newest value, and how to hear of the next.
#[derive(Debug)]
pub(super) struct Publish<T> {
    value: Swap<T>,
    bell: Bell,
}

impl<T> Publish<T> {
    pub(super) fn new(first: T) -> Self {
        Self {
            value: Swap::new(Arc::new(first)),
            bell: Bell::new(),
        }
    }

    pub(super) fn load(&self) -> Read<T> {
        self.value.load()
    }

    pub(super) fn load_full(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Replaces the value by anything, also by something older.
    pub(super) fn store(&self, next: T) {
        self.value.store(Arc::new(next));
        self.bell.ring();
    }

    /// Wakes everybody: there is something else than the value to look at.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    /// Hears of everything from now on.
    pub(super) fn listen(&self) -> Listener {
        self.bell.listen()
    }

    /// The first answer that `look` finds, now or after any later ring.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn until<R>(&self, mut look: impl FnMut(&Arc<T>) -> Option<R>) -> R {
        let mut listener = self.listen();
        loop {
            if let Some(found) = look(&self.load_full()) {
                return found;
            }
            listener.rung().await;
        }
    }
}

impl<T: Revised> Publish<T> {
    /// Replaces the value by what `step` makes of it, unless that is none or older; says whether it
    /// did. `step` is called again if another writer was faster.
    pub(super) fn advance(&self, mut step: impl FnMut(&Arc<T>) -> Option<T>) -> bool {
        loop {
            let held = self.load_full();
            let next = step(&held).filter(|next| next.revision() >= held.revision());
            let Some(next) = next else { return false };
            if self.value.replace(&held, Arc::new(next)) {
                self.bell.ring();
                return true;
            }
        }
    }
}
