//! One flag: from flagd's JSON to what can be evaluated.
//!
//! Invariant: `variants` is in the byte order of the names, and no name is there twice.

use serde_json::{Map, Value};

use super::eval::{Asked, Scope};
use super::rule::{Compiler, Rule, RuleError};
use super::value::{Short, Val};
use crate::{Context, Details, ErrorCode, Moment, Reason};

/// A flag as flagd defines it, ready to be evaluated.
#[derive(Debug)]
pub struct Flag {
    key: Box<str>,
    body: Body,
    /// The set's metadata, and over it the flag's own.
    metadata: Map<String, Value>,
}

#[derive(Debug)]
enum Body {
    /// It cannot be evaluated.
    Broken {
        why: Broken,
        message: Box<str>,
    },
    Disabled,
    Enabled {
        variants: Box<[(Box<str>, Value)]>,
        default: Default,
        /// None if everybody gets the default.
        rule: Option<Rule>,
    },
}

/// What is for everybody whom the rule says nothing about.
#[derive(Debug, Clone, Copy)]
enum Default {
    /// The caller's fallback.
    Fallback,
    /// The variant at this place.
    Variant(usize),
    /// A variant that is not there.
    Unknown,
}

/// Why a flag cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The flag is no object.
    #[error("a flag is an object")]
    NotAnObject,
    /// `state` is not as it must be.
    #[error("state is \"ENABLED\" or \"DISABLED\"")]
    State,
    /// `variants` is not as it must be.
    #[error("variants is an object with at least one variant")]
    Variants,
    /// `defaultVariant` is not as it must be.
    #[error("defaultVariant is a string or null")]
    DefaultVariant,
    /// `metadata` is not as it must be.
    #[error("metadata is an object")]
    Metadata,
    /// The rule in `targeting` makes no sense.
    #[error("targeting: {0}")]
    Targeting(#[from] RuleError),
}

impl Flag {
    /// Compiles a definition. One that makes no sense becomes a flag that says so when evaluated.
    pub(super) fn compile<'d>(
        key: &str,
        definition: &'d Value,
        metadata: &Map<String, Value>,
        compiler: &mut Compiler<'d>,
    ) -> Self {
        let mut metadata = metadata.clone();
        let own = definition.get("metadata").and_then(Value::as_object);
        let own = own.into_iter().flatten();
        metadata.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        let body = Body::compile(definition, compiler).unwrap_or_else(|why| {
            let message = why.to_string().into();
            Body::Broken { why, message }
        });
        let key = key.into();
        Self {
            key,
            body,
            metadata,
        }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Why it cannot be evaluated; none if it can.
    pub fn broken(&self) -> Option<&Broken> {
        match &self.body {
            Body::Broken { why, .. } => Some(why),
            Body::Disabled | Body::Enabled { .. } => None,
        }
    }

    /// The metadata of the flag and of its set; where both have a name, the flag's.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Its value for a context at a time.
    ///
    /// No value is no error: the flag is off, or has no default variant, and the caller's fallback
    /// is to be used. The revision is 0; see [`FlagSet::evaluate`](super::FlagSet::evaluate).
    pub fn evaluate(&self, context: &Context<'_>, now: Moment) -> Details<'_, Option<&Value>> {
        match &self.body {
            Body::Broken { message, .. } => self.fails(ErrorCode::ParseError, message),
            Body::Disabled => self.details(None, Reason::Disabled),
            Body::Enabled { rule: None, .. } => self.default(Reason::Static),
            Body::Enabled {
                rule: Some(rule),
                variants,
                ..
            } => {
                let asked = Asked {
                    key: &self.key,
                    context,
                    now,
                };
                let found = match rule.eval(&Scope::Flag(asked)) {
                    Val::Null => return self.default(Reason::Default),
                    Val::Bool(it) => place(variants, if it { "true" } else { "false" }),
                    Val::Text(name) => place(variants, &name),
                    Val::Number(number) => place(variants, Short::of(number).as_str()),
                    Val::List(_) | Val::Object(_) => None,
                };
                match found {
                    Some(at) => self.details(Some(&variants[at]), Reason::TargetingMatch),
                    None => self.fails(
                        ErrorCode::General,
                        "targeting gave the name of no variant of the flag",
                    ),
                }
            }
        }
    }

    fn default(&self, reason: Reason) -> Details<'_, Option<&Value>> {
        let Body::Enabled {
            variants, default, ..
        } = &self.body
        else {
            unreachable!("only enabled flags are evaluated");
        };
        match default {
            Default::Fallback => self.details(None, Reason::Default),
            Default::Variant(at) => self.details(Some(&variants[*at]), reason),
            Default::Unknown => self.fails(
                ErrorCode::General,
                "the default variant is no variant of the flag",
            ),
        }
    }

    fn details<'a>(
        &'a self,
        variant: Option<&'a (Box<str>, Value)>,
        reason: Reason,
    ) -> Details<'a, Option<&'a Value>> {
        Details {
            value: variant.map(|(_, value)| value),
            variant: variant.map(|(name, _)| name.as_ref()),
            reason,
            error: None,
            message: None,
            revision: 0,
            metadata: (!self.metadata.is_empty()).then_some(&self.metadata),
        }
    }

    fn fails<'a>(&'a self, error: ErrorCode, message: &'a str) -> Details<'a, Option<&'a Value>> {
        Details {
            error: Some(error),
            message: Some(message),
            ..self.details(None, Reason::Error)
        }
    }
}

impl Body {
    fn compile<'d>(definition: &'d Value, compiler: &mut Compiler<'d>) -> Result<Self, Broken> {
        let definition = definition.as_object().ok_or(Broken::NotAnObject)?;
        let is_enabled = match definition.get("state").and_then(Value::as_str) {
            Some("ENABLED") => true,
            Some("DISABLED") => false,
            _ => return Err(Broken::State),
        };
        let variants = definition.get("variants").and_then(Value::as_object);
        let variants = variants.ok_or(Broken::Variants)?;
        if variants.is_empty() {
            return Err(Broken::Variants);
        }
        let is_object = |metadata: &Value| metadata.is_object();
        if !definition.get("metadata").is_none_or(is_object) {
            return Err(Broken::Metadata);
        }
        let mut variants: Vec<(Box<str>, Value)> = variants
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.clone()))
            .collect();
        variants.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let default = match definition.get("defaultVariant") {
            None | Some(Value::Null) => Default::Fallback,
            // The same as none, in all of flagd's implementations.
            Some(Value::String(name)) if name.is_empty() => Default::Fallback,
            Some(Value::String(name)) => {
                place(&variants, name).map_or(Default::Unknown, Default::Variant)
            }
            Some(_) => return Err(Broken::DefaultVariant),
        };
        if !is_enabled {
            return Ok(Self::Disabled);
        }
        let rule = match definition.get("targeting") {
            None | Some(Value::Null) => None,
            Some(Value::Object(rule)) if rule.is_empty() => None,
            Some(rule @ Value::Object(_)) => Some(compiler.compile(rule)?),
            Some(_) => return Err(RuleError::NotAnObject.into()),
        };
        Ok(Self::Enabled {
            variants: variants.into(),
            default,
            rule,
        })
    }
}

/// Where a variant is.
fn place(variants: &[(Box<str>, Value)], name: &str) -> Option<usize> {
    variants
        .binary_search_by(|(known, _)| known.as_ref().cmp(name))
        .ok()
}
