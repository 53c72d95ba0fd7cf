//! The flags of one definition in flagd's format.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use serde_json::{Map, Value};

use super::bucket::Bucketing;
use super::flag::Flag;
use super::rule::Compiler;
use crate::{Context, Details, ErrorCode, FlagValue, Moment, Reason};

/// The flags of one definition.
///
/// It is a value that never changes: a new definition is a new set.
#[derive(Debug)]
pub struct FlagSet {
    /// Whoever writes definitions chooses the keys, so hashing need not withstand attacks.
    flags: HashMap<Box<str>, Flag, FixedState>,
    metadata: Map<String, Value>,
    revision: i64,
}

/// Why a definition is not one. What is wrong with one flag only is in [`Flag::broken`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It is no JSON, or more than 128 levels deep.
    #[error("no JSON: {0}")]
    NoJson(String),
    /// `flags` is missing, or neither an object nor a list of objects that have a `key`.
    #[error("flags is an object, or a list of objects that have a key")]
    Flags,
    /// `$evaluators` is no object.
    #[error("$evaluators is an object")]
    Evaluators,
    /// `metadata` is no object.
    #[error("metadata is an object")]
    Metadata,
}

impl FlagSet {
    /// Reads flagd's JSON. Of names that are there twice, the last counts.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if it is no definition as a whole.
    pub fn parse(json: &str, bucketing: Bucketing) -> Result<Self, Malformed> {
        let definition: Value =
            serde_json::from_str(json).map_err(|error| Malformed::NoJson(error.to_string()))?;
        Self::compile(&definition, bucketing)
    }

    /// Compiles a definition that was read before.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if it is no definition as a whole.
    pub fn compile(definition: &Value, bucketing: Bucketing) -> Result<Self, Malformed> {
        let object = |name, error| match definition.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(error),
        };
        let evaluators = object("$evaluators", Malformed::Evaluators)?;
        let metadata = object("metadata", Malformed::Metadata)?;
        let metadata = metadata.cloned().unwrap_or_default();
        let definitions: Vec<(&str, &Value)> = match definition.get("flags") {
            Some(Value::Object(flags)) => {
                let flags = flags.iter();
                flags.map(|(key, flag)| (key.as_str(), flag)).collect()
            }
            Some(Value::Array(flags)) => flags.iter().map(keyed).collect::<Result<_, _>>()?,
            _ => return Err(Malformed::Flags),
        };
        let flags = definitions.into_iter().map(|(key, flag)| {
            let mut compiler = Compiler::new(key, evaluators, bucketing);
            let flag = Flag::compile(key, flag, &metadata, &mut compiler);
            (key.into(), flag)
        });
        Ok(Self {
            flags: flags.collect(),
            metadata,
            revision: 0,
        })
    }

    /// The same, of a revision of the store: evaluations will say so.
    #[must_use]
    pub fn at_revision(mut self, revision: i64) -> Self {
        self.revision = revision;
        self
    }

    /// One flag.
    pub fn flag(&self, key: &str) -> Option<&Flag> {
        self.flags.get(key)
    }

    /// All flags, in no particular order.
    pub fn flags(&self) -> impl Iterator<Item = &Flag> {
        self.flags.values()
    }

    /// The metadata of the set.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// A flag's value for a context at a time, of whatever type it is.
    ///
    /// No value is no error: the flag is off, or has no default variant, and the caller's fallback
    /// is to be used.
    pub fn evaluate(
        &self,
        key: &str,
        context: &Context<'_>,
        now: Moment,
    ) -> Details<'_, Option<&Value>> {
        let details = match self.flag(key) {
            Some(flag) => flag.evaluate(context, now),
            None => Details {
                value: None,
                variant: None,
                reason: Reason::Error,
                error: Some(ErrorCode::FlagNotFound),
                message: Some("there is no flag of this key"),
                revision: 0,
                metadata: (!self.metadata.is_empty()).then_some(&self.metadata),
            },
        };
        Details {
            revision: self.revision,
            ..details
        }
    }

    /// A flag's value, or the fallback: if there is no such flag, if it gives no value or one of
    /// another type, or if it makes no sense. [`details`](Self::details) says which.
    pub fn get<'s, T: FlagValue<'s>>(
        &'s self,
        key: &str,
        context: &Context<'_>,
        now: Moment,
        fallback: T,
    ) -> T {
        self.details(key, context, now, fallback).value
    }

    /// A flag's value, or the fallback, and why it is that.
    pub fn details<'s, T: FlagValue<'s>>(
        &'s self,
        key: &str,
        context: &Context<'_>,
        now: Moment,
        fallback: T,
    ) -> Details<'s, T> {
        let details = self.evaluate(key, context, now);
        let Some(value) = details.value else {
            return details.map(|_| fallback);
        };
        match T::of(value) {
            Some(value) => details.map(|_| value),
            None => Details {
                value: fallback,
                variant: None,
                reason: Reason::Error,
                error: Some(ErrorCode::TypeMismatch),
                message: Some("the flag's value is of another type"),
                revision: details.revision,
                metadata: details.metadata,
            },
        }
    }
}

/// A flag in a list, which has its key inside.
fn keyed(flag: &Value) -> Result<(&str, &Value), Malformed> {
    let key = flag.get("key").and_then(Value::as_str);
    Ok((key.ok_or(Malformed::Flags)?, flag))
}
