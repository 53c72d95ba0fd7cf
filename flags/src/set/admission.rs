//! What a transaction must not write: definitions that would make no sense where they are put.

use crate::fields::DefinitionError;

use super::requires::{DEPTH_MAX, LOOKS_MAX};
use super::{FlagSet, State};

/// Why a transaction must not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("flag {name:?}: {error}")]
pub struct Refused {
    /// The flag.
    pub name: String,
    /// What is wrong with its definition.
    pub error: DefinitionError,
}

impl FlagSet {
    /// Whether a transaction may make these changes, together: names, and definitions or none for a
    /// deletion. The set itself stays as it is.
    ///
    /// # Errors
    /// A definition makes no sense by itself, requires a flag or a variant that does not exist, or
    /// would make a cycle of requirements. Which flags are deleted is not looked at: what requires
    /// them is off from then on.
    pub fn check<'c>(
        &self,
        changes: impl IntoIterator<Item = (&'c str, Option<&'c [u8]>)>,
    ) -> Result<(), Refused> {
        let mut next = self.clone();
        let mut put = Vec::new();
        for (name, json) in changes {
            let id = next.id(name);
            next.put(id, next.revision, json);
            put.extend(json.map(|_| id));
        }
        next.relink();
        for id in put {
            let slot = next.slot(id).expect("a number is given out with a slot");
            next.check_one(slot, next.unsound.contains(&id))
                .map_err(|error| Refused {
                    name: slot.name.to_string(),
                    error,
                })?;
        }
        Ok(())
    }

    fn check_one(&self, slot: &super::Slot, is_unsound: bool) -> Result<(), DefinitionError> {
        let flag = match &slot.state {
            // Deleted again by a later change.
            State::Absent => return Ok(()),
            State::Bad(error)
            | State::Live {
                bad: Some(error), ..
            } => return Err((**error).clone()),
            State::Live { flag, bad: None } => flag,
        };
        for (at, (need, wanted)) in slot.needs.iter().zip(&flag.requires).enumerate() {
            let pointer = format!("/requires/{at}");
            let needed = self.slot(*need).expect("a number is given out with a slot");
            let State::Live { flag: other, .. } = &needed.state else {
                let message = format_args!("there is no flag {:?}", wanted.flag);
                return Err(DefinitionError::new(pointer, message));
            };
            let has = |(name, _): &(Box<str>, _)| **name == *wanted.variant;
            if !other.variants.iter().any(has) {
                let message = format_args!("{:?} has no variant {:?}", wanted.flag, wanted.variant);
                return Err(DefinitionError::new(pointer, message));
            }
        }
        if is_unsound {
            let message = format_args!(
                "what this requires leads back to itself, or is more than {DEPTH_MAX} flags deep \
                 or {LOOKS_MAX} in all"
            );
            return Err(DefinitionError::new("/requires", message));
        }
        Ok(())
    }
}
