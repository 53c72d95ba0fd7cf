//! What handles want of a task: left in a list, and the task is woken.
//!
//! Leaving an order never waits. The list is bounded by what orders are about: each handle leaves
//! one when it comes and one when it goes, and each question that the task has asked is answered
//! once.

use std::sync::Mutex;

use tokio::sync::Notify;

/// Orders that the task has not taken yet.
#[derive(Debug)]
pub(crate) struct Orders<T> {
    list: Mutex<List<T>>,
    bell: Notify,
}

#[derive(Debug)]
struct List<T> {
    orders: Vec<T>,
    /// Nobody takes any more.
    is_over: bool,
}

impl<T> Default for Orders<T> {
    fn default() -> Self {
        let list = List {
            orders: Vec::new(),
            is_over: false,
        };
        Self {
            list: Mutex::new(list),
            bell: Notify::new(),
        }
    }
}

impl<T> Orders<T> {
    /// Leaves one. False: nobody will take it.
    pub(crate) fn leave(&self, order: T) -> bool {
        let mut list = self.lock();
        if list.is_over {
            // Whatever is dropped with an order is not dropped under the lock.
            drop(list);
            return false;
        }
        list.orders.push(order);
        drop(list);
        self.bell.notify_one();
        true
    }

    /// Takes all there are, in the order in which they were left.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.lock().orders)
    }

    /// Takes what is left, and nothing from now on: the task has ended.
    pub(crate) fn end(&self) -> Vec<T> {
        let mut list = self.lock();
        list.is_over = true;
        std::mem::take(&mut list.orders)
    }

    /// Whether nobody takes any more.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Returns when one was left since the last time.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn left(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, List<T>> {
        self.list
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}
