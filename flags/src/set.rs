//! All flags at one revision.
//!
//! A set is a value: a clone costs nothing, shares what has not changed, and stays what it is while
//! the original goes on. One bad definition never concerns another flag: the flag whose definition
//! it is stays what it was.
//!
//! Invariants
//! - a flag keeps its number as long as the set and its clones live, even while it does not exist;
//! - what is applied to a flag is newer than what was applied before, unless the store was restored.

mod admission;
mod requires;
mod slots;

use std::mem;
use std::sync::Arc;

use foldhash::fast::FixedState;
use imbl::shared_ptr::DefaultSharedPtr;

use crate::compile::Flag;
use crate::context::Context;
use crate::definition::Definition;
use crate::eval::{self, Decision, FlagValue};
use crate::fields::DefinitionError;
use crate::moment::Moment;
use crate::outcome::{Details, ErrorCode, Reason};

use slots::Slots;

pub use admission::Refused;

/// Flags are found by name in the same way on every machine.
type Names = imbl::GenericHashMap<Arc<str>, FlagId, FixedState, DefaultSharedPtr>;

/// A flag's number within a set and all its clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlagId(u32);

/// All flags at one revision.
///
/// ```
/// use gonfalon_flags::{Context, FlagSet, Moment};
///
/// let mut flags = FlagSet::new();
/// flags.apply(7, [("dark_mode", Some(br#"{"enabled": true, "rollout_percent": 20}"#.as_slice()))]);
/// let now = Moment::from_unix_ms(0);
/// assert!(!flags.get("dark_mode", &Context::of("user-1"), now, false));
///
/// flags.apply(8, [("dark_mode", Some(br#"{"enabled": true, "rollout_percent": 84}"#.as_slice()))]);
/// let details = flags.details("dark_mode", &Context::of("user-1"), now, false);
/// assert_eq!((details.value, details.variant, details.revision), (true, Some("on"), 8));
/// ```
#[derive(Debug, Clone, Default)]
pub struct FlagSet {
    revision: i64,
    names: Names,
    slots: Slots,
    /// The flags that require others.
    linked: imbl::OrdSet<FlagId>,
    /// Those of them that are never on, since what they require has no end.
    unsound: imbl::OrdSet<FlagId>,
}

#[derive(Debug, Clone)]
struct Slot {
    name: Arc<str>,
    /// Of the last change, which may be a deletion.
    revision: i64,
    state: State,
    /// The numbers of what the flag requires, in the flag's order.
    needs: Box<[FlagId]>,
}

#[derive(Debug, Clone)]
enum State {
    Absent,
    /// `bad` is newer than `flag`.
    Live {
        flag: Arc<Flag>,
        bad: Option<Box<DefinitionError>>,
    },
    /// It never made sense.
    Bad(Box<DefinitionError>),
}

/// A flag whose newest definition makes no sense.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The flag's name.
    pub name: &'a str,
    /// The revision of the definition that makes no sense.
    pub revision: i64,
    /// Why it makes none.
    pub error: &'a DefinitionError,
    /// Whether an earlier definition is still in force.
    pub has_last_good: bool,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for str {}
    impl Sealed for super::FlagId {}
}

/// What names a flag: its name, or its number.
pub trait Locate: sealed::Sealed {
    /// The flag's number; none if the set has never heard of it.
    fn locate(&self, set: &FlagSet) -> Option<FlagId>;
}

impl Locate for str {
    #[inline]
    fn locate(&self, set: &FlagSet) -> Option<FlagId> {
        set.names.get(self).copied()
    }
}

impl Locate for FlagId {
    #[inline]
    fn locate(&self, _: &FlagSet) -> Option<FlagId> {
        Some(*self)
    }
}

impl FlagSet {
    /// No flags, at revision 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over what one transaction changed: names, and definitions as they are in the store, or
    /// none for a deletion. Changes that are not newer than what the set knows are passed over.
    ///
    /// Gives the flags that changed, whether their new definitions make sense or not.
    pub fn apply<'c>(
        &mut self,
        revision: i64,
        changes: impl IntoIterator<Item = (&'c str, Option<&'c [u8]>)>,
    ) -> Vec<FlagId> {
        let mut changed = Vec::new();
        let mut relink = false;
        for (name, json) in changes {
            let id = self.id(name);
            if self.slot(id).is_some_and(|slot| slot.revision < revision) {
                relink |= self.put(id, revision, json);
                changed.push(id);
            }
        }
        if relink {
            self.relink();
        }
        self.revision = self.revision.max(revision);
        changed
    }

    /// Takes over a list of all flags at a revision: name, revision of the last change, definition.
    /// What is not in it does not exist any more.
    ///
    /// Gives the flags that changed; none at all, and nothing is done, if the list is not newer than
    /// the set. So an empty answer of a server that is behind deletes nothing.
    #[must_use = "an old list is not taken over"]
    pub fn relist<'c>(
        &mut self,
        revision: i64,
        all: impl IntoIterator<Item = (&'c str, i64, &'c [u8])>,
    ) -> Option<Vec<FlagId>> {
        (revision > self.revision).then(|| self.replace(revision, all))
    }

    /// The same after the store was restored or is another one: its revisions do not follow those
    /// of the set, so whatever they are, the list is taken over.
    pub fn restore<'c>(
        &mut self,
        revision: i64,
        all: impl IntoIterator<Item = (&'c str, i64, &'c [u8])>,
    ) -> Vec<FlagId> {
        let ids: Vec<FlagId> = self.slots.iter().map(|(id, _)| id).collect();
        for id in ids {
            // Before every revision that there is.
            self.slot_mut(id).revision = i64::MIN;
        }
        self.replace(revision, all)
    }

    fn replace<'c>(
        &mut self,
        revision: i64,
        all: impl IntoIterator<Item = (&'c str, i64, &'c [u8])>,
    ) -> Vec<FlagId> {
        let mut changed = Vec::new();
        let mut listed = vec![false; self.slots.len()];
        for (name, changed_at, json) in all {
            let id = self.id(name);
            if let Some(listed) = listed.get_mut(id.at()) {
                *listed = true;
            }
            if self.slot(id).is_some_and(|slot| slot.revision < changed_at) {
                self.put(id, changed_at, Some(json));
                changed.push(id);
            }
        }
        let gone = self
            .slots
            .iter()
            .zip(listed)
            .filter(|((_, slot), listed)| !listed && !matches!(slot.state, State::Absent));
        let gone: Vec<FlagId> = gone.map(|((id, _), _)| id).collect();
        for &id in &gone {
            self.put(id, revision, None);
        }
        changed.extend(gone);
        self.relink();
        self.revision = revision;
        changed
    }

    /// The number of a flag, which need not exist yet.
    pub fn id(&mut self, name: &str) -> FlagId {
        if let Some(id) = name.locate(self) {
            return id;
        }
        let name: Arc<str> = name.into();
        let id = self.slots.push(Slot {
            name: name.clone(),
            revision: i64::MIN,
            state: State::Absent,
            needs: Box::default(),
        });
        self.names.insert(name, id);
        id
    }

    /// The revision of the last change that the set has seen.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The names of all flags that exist, whether their definitions make sense or not, in the order
    /// in which the set heard of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let existing = self.slots.iter();
        let existing = existing.filter(|(_, slot)| !matches!(slot.state, State::Absent));
        existing.map(|(_, slot)| slot.name.as_ref())
    }

    /// The flags whose newest definitions make no sense.
    pub fn problems(&self) -> impl Iterator<Item = Problem<'_>> {
        self.slots.iter().filter_map(|(_, slot)| {
            let (error, has_last_good) = match &slot.state {
                State::Live { bad, .. } => (bad.as_deref()?, true),
                State::Bad(error) => (&**error, false),
                State::Absent => return None,
            };
            Some(Problem {
                name: &slot.name,
                revision: slot.revision,
                error,
                has_last_good,
            })
        })
    }

    /// The value of a flag, or the fallback: if there is no such flag, if it gives no value or one
    /// of another type, or if it never made sense. [`details`](Self::details) says which.
    #[inline]
    pub fn get<'s, T: FlagValue<'s>>(
        &'s self,
        flag: &(impl Locate + ?Sized),
        context: &Context<'_>,
        now: Moment,
        fallback: T,
    ) -> T {
        let Some((id, slot)) = self.find(flag) else {
            return fallback;
        };
        let State::Live { flag, .. } = &slot.state else {
            return fallback;
        };
        let variant = self.decide(id, slot, flag, context, now).variant;
        let value = variant.and_then(|variant| T::of(&flag.variants[variant as usize].1));
        value.unwrap_or(fallback)
    }

    /// The value of a flag, or the fallback, and why it is that.
    #[inline]
    pub fn details<'s, T: FlagValue<'s>>(
        &'s self,
        flag: &(impl Locate + ?Sized),
        context: &Context<'_>,
        now: Moment,
        fallback: T,
    ) -> Details<'s, T> {
        let mut details = Details {
            value: fallback,
            variant: None,
            reason: Reason::Error,
            error: Some(ErrorCode::FlagNotFound),
            message: Some(eval::text(ErrorCode::FlagNotFound)),
            revision: self.revision,
            metadata: None,
        };
        let Some((id, slot)) = self.find(flag) else {
            return details;
        };
        let (flag, bad) = match &slot.state {
            State::Absent => return details,
            State::Bad(error) => {
                details.error = Some(ErrorCode::ParseError);
                details.message = Some(error.text());
                return details;
            }
            State::Live { flag, bad } => (flag, bad),
        };
        let decision = self.decide(id, slot, flag, context, now);
        (details.reason, details.error) = (decision.reason, decision.error);
        details.message = decision.error.map(eval::text);
        details.metadata = flag.metadata.as_ref();
        if let Some(bad) = bad
            && decision.error.is_none()
        {
            details.reason = Reason::Stale;
            details.message = Some(bad.text());
        }
        if let Some(variant) = decision.variant {
            let (name, value) = &flag.variants[variant as usize];
            if let Some(value) = T::of(value) {
                details.value = value;
                details.variant = Some(name);
            } else {
                details.reason = Reason::Error;
                details.error = Some(ErrorCode::TypeMismatch);
                details.message = Some(eval::text(ErrorCode::TypeMismatch));
            }
        }
        details
    }

    #[inline]
    fn find(&self, flag: &(impl Locate + ?Sized)) -> Option<(FlagId, &Slot)> {
        let id = flag.locate(self)?;
        Some((id, self.slot(id)?))
    }

    #[inline]
    fn slot(&self, id: FlagId) -> Option<&Slot> {
        self.slots.get(id)
    }

    fn slot_mut(&mut self, id: FlagId) -> &mut Slot {
        let slot = self.slots.get_mut(id);
        slot.expect("a number is given out with a slot")
    }

    #[inline]
    fn decide(
        &self,
        id: FlagId,
        slot: &Slot,
        flag: &Flag,
        context: &Context<'_>,
        now: Moment,
    ) -> Decision {
        if !flag.is_on {
            return Decision::new(flag.off, Reason::Disabled);
        }
        if !slot.needs.is_empty()
            && let Some(decision) = self.unmet(id, slot, flag, context, now)
        {
            return decision;
        }
        flag.decide(context, now)
    }

    /// Changes one flag; says whether what it requires has changed.
    fn put(&mut self, id: FlagId, revision: i64, json: Option<&[u8]>) -> bool {
        let parsed = json.map(Definition::parse);
        let slot = self.slot_mut(id);
        slot.revision = revision;
        slot.state = match (parsed, mem::replace(&mut slot.state, State::Absent)) {
            (None, _) => State::Absent,
            (Some(Ok(definition)), _) => State::Live {
                flag: Arc::new(Flag::compile(&slot.name, definition)),
                bad: None,
            },
            (Some(Err(error)), State::Live { flag, .. }) => State::Live {
                flag,
                bad: Some(error.into()),
            },
            (Some(Err(error)), _) => State::Bad(error.into()),
        };
        let needs: Box<[FlagId]> = match &slot.state {
            State::Live { flag, .. } if !flag.requires.is_empty() => {
                let flag = flag.clone();
                let names = flag.requires.iter().map(|other| self.id(&other.flag));
                names.collect()
            }
            _ => Box::default(),
        };
        if needs.is_empty() {
            self.linked.remove(&id);
        } else {
            self.linked.insert(id);
        }
        let before = mem::replace(&mut self.slot_mut(id).needs, needs);
        before != self.slot_mut(id).needs
    }
}

impl FlagId {
    #[inline]
    fn at(self) -> usize {
        self.0 as usize
    }
}
