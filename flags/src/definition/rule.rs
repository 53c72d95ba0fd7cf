//! One rule of a definition: for whom, how many of them, and what they get.

use crate::condition::{Attribute, Condition};
use crate::fields::{DefinitionError, Field, Fields};
use crate::rollout::Rollout;
use crate::split::Split;

use super::variants::{ON, Variants};

/// One rule of a definition.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// None holds for everybody.
    pub(crate) condition: Option<Condition>,
    pub(crate) rollout: Option<Rollout>,
    pub(crate) serve: Serve,
    /// None is the definition's own.
    pub(crate) by: Option<Attribute>,
    /// None is the definition's own.
    pub(crate) salt: Option<String>,
}

/// What those get to whom a rule applies.
#[derive(Debug, Clone)]
pub(crate) enum Serve {
    Variant(u32),
    Split(Split),
}

impl Rule {
    pub(crate) fn read_all(
        fields: &mut Fields<'_>,
        variants: &Variants,
    ) -> Result<Vec<Self>, DefinitionError> {
        let Some(field) = fields.get("rules") else {
            return Ok(Vec::new());
        };
        let rules = field.list()?;
        rules
            .iter()
            .map(|rule| Self::read(rule, variants))
            .collect()
    }

    fn read(field: &Field<'_>, variants: &Variants) -> Result<Self, DefinitionError> {
        let mut fields = field.object()?;
        fields.get("name").map(|field| field.text()).transpose()?;
        let condition = fields.get("if").map(|field| Condition::read(&field));
        let rollout = Rollout::read(&mut fields)?;
        let serve = Serve::read(&mut fields, variants)?;
        let by = fields.get("by").map(|field| Attribute::read(&field));
        let salt = fields.get("salt").map(|field| field.text()).transpose()?;
        let rule = Self {
            condition: condition.transpose()?,
            rollout,
            serve,
            by: by.transpose()?,
            salt: salt.map(str::to_owned),
        };
        fields.end()?;
        Ok(rule)
    }

    /// Reads the definition's own percentage and split, which are a rule behind all others; none if
    /// it has neither.
    pub(crate) fn read_own(
        fields: &mut Fields<'_>,
        variants: &Variants,
    ) -> Result<Option<Self>, DefinitionError> {
        let rollout = Rollout::read(fields)?;
        if rollout.is_none() && fields.get("split").is_none() {
            return match fields.get("variant") {
                Some(field) => field.refuse("this needs a rollout; for everybody it is default"),
                None => Ok(None),
            };
        }
        Ok(Some(Self {
            condition: None,
            rollout,
            serve: Serve::read(fields, variants)?,
            by: None,
            salt: None,
        }))
    }
}

impl Serve {
    fn read(fields: &mut Fields<'_>, variants: &Variants) -> Result<Self, DefinitionError> {
        match (fields.get("split"), fields.get("variant")) {
            (Some(_), Some(field)) => field.refuse("variant and split exclude each other"),
            (None, Some(field)) => variants.named(field.text()?, &field).map(Self::Variant),
            (Some(field), None) => {
                let split = Split::read(&field)?;
                for (_, _, variant) in split.ranges() {
                    variants.named(variant, &field)?;
                }
                Ok(Self::Split(split))
            }
            (None, None) => match variants.find(ON) {
                Some(on) => Ok(Self::Variant(on)),
                None => fields.refuse("variant", "this field is missing: there is no variant on"),
            },
        }
    }
}
