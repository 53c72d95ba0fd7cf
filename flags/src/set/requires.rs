//! What flags require of each other.
//!
//! A flag whose requirements lead back to itself, or on and on, is *unsound*: it is never on. That
//! is found out when a definition changes, so that an evaluation needs no guard against cycles.

use std::collections::BTreeMap;

use crate::compile::Flag;
use crate::context::Context;
use crate::eval::Decision;
use crate::moment::Moment;
use crate::outcome::{ErrorCode, Reason};

use super::{FlagId, FlagSet, Slot, State};

/// How many flags may stand one behind the other. An evaluation recurses as deep.
pub(super) const DEPTH_MAX: usize = 16;

/// How many flags an evaluation of one flag may look at, counted as often as it looks.
pub(super) const LOOKS_MAX: usize = 256;

impl FlagSet {
    /// What a flag gives whose requirements are not met; none if they are.
    pub(super) fn unmet(
        &self,
        id: FlagId,
        slot: &Slot,
        flag: &Flag,
        context: &Context<'_>,
        now: Moment,
    ) -> Option<Decision> {
        if self.unsound.contains(&id) {
            return Some(Decision::error(flag.off, ErrorCode::ParseError));
        }
        for (need, requirement) in slot.needs.iter().zip(&flag.requires) {
            let needed = self.slot(*need).expect("a number is given out with a slot");
            let State::Live { flag: other, .. } = &needed.state else {
                return Some(Decision::error(flag.off, ErrorCode::ParseError));
            };
            let variant = self.decide(*need, needed, other, context, now).variant;
            let name = variant.map(|variant| other.variants[variant as usize].0.as_ref());
            if name != Some(requirement.variant.as_str()) {
                return Some(Decision::new(flag.off, Reason::Disabled));
            }
        }
        None
    }

    /// Finds the unsound flags anew: in each round, those are sound that require only what was
    /// sound before. Whatever is left over after the last round is in a cycle, behind one, or too
    /// deep.
    pub(super) fn relink(&mut self) {
        let mut looks: BTreeMap<FlagId, usize> = BTreeMap::new();
        for _ in 0..DEPTH_MAX {
            let sound: Vec<_> = self
                .linked
                .iter()
                .filter(|id| !looks.contains_key(id))
                .filter_map(|id| Some((*id, self.looks(*id, &looks)?)))
                .collect();
            if sound.is_empty() {
                break;
            }
            looks.extend(sound);
        }
        let unsound = self.linked.iter().filter(|id| !looks.contains_key(id));
        self.unsound = unsound.copied().collect();
    }

    /// How many flags an evaluation of this one looks at; none if that is not known yet, or too
    /// many.
    fn looks(&self, id: FlagId, known: &BTreeMap<FlagId, usize>) -> Option<usize> {
        let needs = &self.slot(id)?.needs;
        needs.iter().try_fold(1, |sum: usize, need| {
            let is_linked = self.linked.contains(need);
            let looks = if is_linked { *known.get(need)? } else { 1 };
            Some(sum + looks).filter(|sum| *sum <= LOOKS_MAX)
        })
    }
}
