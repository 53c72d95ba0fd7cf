//! When a database is at rest.
//!
//! What waits in memtables is then brought to its files: the memory is given back, and the next start
//! has less to read and to apply again. Once for each rest, so an idle disk stays idle.

use std::time::Instant;

use crate::limits::REST_AFTER;

/// Notices when writing has stopped for [`REST_AFTER`].
#[derive(Debug)]
pub(crate) struct Rest {
    /// The last write seen, and when.
    written: u64,
    since: Instant,
    has_begun: bool,
}

impl Rest {
    /// Nothing has been written so far.
    pub(crate) fn new() -> Self {
        Self {
            written: 0,
            since: Instant::now(),
            has_begun: true,
        }
    }

    /// Whether this is the first look, `now`, since nothing was written for that long; `written` is
    /// the number of the last write.
    pub(crate) fn begins(&mut self, written: u64, now: Instant) -> bool {
        if written != self.written {
            *self = Self {
                written,
                since: now,
                has_begun: false,
            };
        }
        let begins = !self.has_begun && now.duration_since(self.since) >= REST_AFTER;
        self.has_begun |= begins;
        begins
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rest_begins_once_and_only_after_a_write() {
        let mut rest = Rest::new();
        let start = rest.since;
        let after = |intervals: u32| start + REST_AFTER * intervals;
        assert!(!rest.begins(0, after(2)), "nothing was ever written");
        assert!(!rest.begins(1, after(3)), "just written");
        let almost = after(4).checked_sub(Duration::from_millis(1)).unwrap();
        assert!(!rest.begins(1, almost), "not long enough");
        assert!(rest.begins(1, after(4)));
        assert!(!rest.begins(1, after(9)), "it has begun");
        assert!(!rest.begins(2, after(10)), "written again");
        assert!(rest.begins(2, after(11)));
    }
}
