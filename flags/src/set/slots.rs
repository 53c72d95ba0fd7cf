//! The flags of a set by number, in chunks that sets share.
//!
//! A change copies one chunk and the list of chunks; reading one flag follows three pointers.

use std::sync::Arc;

use super::{FlagId, Slot};

/// How many flags a chunk has, which a change of one of them copies the pointers of: with 10,000
/// flags that is about as many as there are chunks.
const CHUNK: usize = 128;

/// The flags of a set by number. A clone shares all of them.
///
/// Invariant: every chunk but the last one is full, and none is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    chunks: Arc<Vec<Arc<Vec<Arc<Slot>>>>>,
}

impl Slots {
    #[inline]
    pub(super) fn get(&self, id: FlagId) -> Option<&Slot> {
        let chunk = self.chunks.get(id.at() / CHUNK)?;
        Some(&**chunk.get(id.at() % CHUNK)?)
    }

    /// The slot, if it is one: copied first if another set has it too.
    pub(super) fn get_mut(&mut self, id: FlagId) -> Option<&mut Slot> {
        let chunk = Arc::make_mut(&mut self.chunks).get_mut(id.at() / CHUNK)?;
        let slot = Arc::make_mut(chunk).get_mut(id.at() % CHUNK)?;
        Some(Arc::make_mut(slot))
    }

    /// Adds a slot and gives its number.
    pub(super) fn push(&mut self, slot: Slot) -> FlagId {
        let id = FlagId(u32::try_from(self.len()).expect("flags are in memory"));
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(Arc::new(slot)),
            _ => chunks.push(Arc::new(vec![Arc::new(slot)])),
        }
        id
    }

    pub(super) fn len(&self) -> usize {
        let last = self.chunks.last();
        last.map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// All slots, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (FlagId, &Slot)> {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..).map(FlagId).zip(all.map(|slot| &**slot))
    }
}
