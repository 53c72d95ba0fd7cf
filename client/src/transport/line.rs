//! Whether a request can have been sent: not while there was no connection to send it over.
//!
//! tonic keeps requests until a connection comes about and says nothing of it. When one has run out of
//! time, this tells whether it waited in vain for a connection or for an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The connections that one channel makes, one after the other.
#[derive(Debug, Default)]
pub(super) struct Line {
    made: AtomicU64,
    ended: AtomicU64,
}

/// How many connections had been made when a request was handed over, if none of them was left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(Option<u64>);

/// A connection that exists.
#[derive(Debug)]
pub(super) struct Made(Arc<Line>);

impl Line {
    pub(super) fn made(self: &Arc<Self>) -> Made {
        self.made.fetch_add(1, Ordering::SeqCst);
        Made(self.clone())
    }

    /// A request is about to be handed over.
    pub(super) fn mark(&self) -> Mark {
        // In this order: a connection that is made in between is seen by the comparison.
        let ended = self.ended.load(Ordering::SeqCst);
        let made = self.made.load(Ordering::SeqCst);
        Mark((made == ended).then_some(made))
    }

    /// Whether no request that was handed over since `mark` can have been sent.
    pub(super) fn was_silent_since(&self, mark: Mark) -> bool {
        mark.0 == Some(self.made.load(Ordering::SeqCst))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_connection_nothing_was_sent() {
        let line = Arc::new(Line::default());
        let mark = line.mark();
        assert!(line.was_silent_since(mark));
        let made = line.made();
        assert!(!line.was_silent_since(mark), "it came about meanwhile");
        let mark = line.mark();
        assert!(!line.was_silent_since(mark), "it was there");
        drop(made);
        assert!(!line.was_silent_since(mark), "it was there and is gone");
        assert!(line.was_silent_since(line.mark()));
    }
}
