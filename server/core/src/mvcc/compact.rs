//! Dropping history.

use super::Store;
use crate::{Error, Revision};

impl Store {
    /// Makes everything below `revision` unreadable, at once.
    ///
    /// Each key's newest version at `revision` stays, unless it is a deletion before `revision`: one
    /// at `revision` itself stays readable for a watch that starts there. Memory is given back step
    /// by step, in [`Store::evict`]; storage follows in its own time.
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted {
                oldest: self.compacted,
            });
        }
        if revision > self.revision {
            return Err(Error::FutureRevision {
                current: self.revision,
            });
        }
        self.compacted = revision;
        Ok(())
    }
}
