//! What handles want of a task: left in a list, and the task is woken.
//!
//! Leaving an order never waits. The list is bounded by what orders are about: each handle leaves
//! one when it comes and one when it goes.

use std::sync::Mutex;

use tokio::sync::Notify;

/// Orders that the task has not taken yet.
#[derive(Debug)]
pub(crate) struct Orders<T> {
    list: Mutex<Vec<T>>,
    bell: Notify,
}

impl<T> Default for Orders<T> {
    fn default() -> Self {
        Self {
            list: Mutex::default(),
            bell: Notify::new(),
        }
    }
}

impl<T> Orders<T> {
    /// Leaves one.
    pub(crate) fn leave(&self, order: T) {
        self.lock().push(order);
        self.bell.notify_one();
    }

    /// Takes all there are, in the order in which they were left.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.lock())
    }

    /// Returns when one was left since the last time.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn left(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        self.list
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}
