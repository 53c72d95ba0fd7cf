//! A flag's definition: JSON that people and other programs write, checked.
//!
//! ```json
//! {"enabled": true, "rollout_percent": 20}
//! ```
//!
//! is a whole definition: a flag that is true for 20 % of all targeting keys. What may be added is
//! in the documentation of [`Definition`].
//!
//! What decides is read strictly: a rule with a field that is not known is refused, since it would
//! decide otherwise than its author meant. Beside that, a definition may have fields that are not
//! known here; they are kept, and [`Definition::unknown`] names them.

mod rule;
mod variants;

use serde_json::{Map, Value};

use crate::bucket::{ALGORITHM, Percent};
use crate::condition::Attribute;
use crate::fields::{DefinitionError, Fields};
use crate::rollout;
use crate::split::{NoRoom, Split};

pub(crate) use rule::{Rule, Serve};
pub use variants::Kind;
pub(crate) use variants::{ON, Variants, WHOLE_MAX};

/// How long a definition may be, in bytes. Every client has all of them in memory.
pub const DEFINITION_BYTES_MAX: usize = 512 * 1024;

/// A flag's definition.
///
/// | field | what |
/// |---|---|
/// | `enabled` | needed; `false` is the kill switch: nothing else counts |
/// | `rollout_percent` | who gets `variant`, in percent with at most three decimals |
/// | `rollout` | instead of that: `{"percent": 20}`, `{"steps": [{"at": TIME, "percent": 5}]}` or `{"ramp": {"from": 0, "to": 50, "start": TIME, "end": TIME}}`; steps and a ramp run backwards from `rollback_at` on |
/// | `variant` | what `rollout` gives; `on` unless it is here |
/// | `split` | instead of `variant`: `[{"variant": "a", "percent": 20, "from": 0}]`, ranges that stay where they are |
/// | `by` | the attribute that percentages are taken of; the targeting key unless it is here |
/// | `salt` | what makes percentages of two flags unrelated; the flag's name unless it is here |
/// | `algo` | the number of the bucketing algorithm, 1 |
/// | `type` | `boolean`, `string`, `integer`, `float` or `object`; follows from the values |
/// | `value` | the value of the one variant `on` |
/// | `variants` | `{"name": value}`, all of one type; `on` is true and `off` is false unless this or `value` is here |
/// | `default` | the variant for whom nothing else applies; `null` for the caller's fallback. Needed if there are `variants`, or `targets` or `rules` and no percentage below them |
/// | `off` | the variant while the flag is off; the one that is called `off`, else the caller's fallback |
/// | `targets` | `{"variant": ["id"]}`: whom rules do not concern |
/// | `rules` | `[{"if": CONDITION, "variant": ..}]`, each with `rollout_percent`, `rollout`, `split`, `by` and `salt` as above, and a `name`; the first that applies counts, and whom its percentage leaves out goes on to the next |
/// | `requires` | `["flag"]` or `[{"flag": "f", "variant": "v"}]`: what others must be, or this one is off |
/// | `archived` | off, and so marked in its metadata |
/// | `metadata` | `{"name": value}` of strings, numbers and booleans, for the details of an evaluation |
/// | `description`, `owner`, `tags`, `expires_at` | for people |
///
/// A TIME is RFC 3339 in UTC, as in `2026-12-24T18:00:00Z`. A CONDITION is a list of conditions that
/// must all hold, `{"all": [..]}`, `{"any": [..]}`, `{"not": CONDITION}`, or
/// `{"attribute": "plan", TEST: ..}` with one of the tests `is`, `in`, `exists`, `starts_with`,
/// `ends_with`, `contains`, `less`, `at_most`, `at_least`, `more`, `version_less`,
/// `version_at_most`, `version_at_least` and `version_more`. An attribute is a name, or a list of
/// names for nested ones; `targetingKey` is the targeting key.
///
/// Percentages without a `salt` of their own lie on one axis per flag: of two rules with the same
/// condition that let in 20 % each, the second lets in nobody.
///
/// ```
/// use gonfalon_flags::Definition;
///
/// let definition = Definition::parse(br#"{"enabled": true, "rollout_percent": 20}"#)?;
/// assert!(definition.is_enabled());
///
/// let error = Definition::parse(br#"{"enabled": true, "rollout_percent": "20"}"#).unwrap_err();
/// assert_eq!(error.pointer(), "/rollout_percent");
/// # Ok::<(), gonfalon_flags::DefinitionError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Definition {
    source: Map<String, Value>,
    unknown: Vec<String>,
    pub(crate) enabled: bool,
    pub(crate) archived: bool,
    pub(crate) variants: Variants,
    pub(crate) default: Option<u32>,
    pub(crate) off: Option<u32>,
    /// Ids and their variants, in the order of the ids.
    pub(crate) targets: Vec<(String, u32)>,
    /// The last of them may be the definition's own percentage.
    pub(crate) rules: Vec<Rule>,
    pub(crate) requires: Vec<Requirement>,
    pub(crate) by: Attribute,
    pub(crate) salt: Option<String>,
    pub(crate) metadata: Map<String, Value>,
}

/// What another flag must be.
#[derive(Debug, Clone)]
pub(crate) struct Requirement {
    pub(crate) flag: String,
    pub(crate) variant: String,
}

impl Definition {
    /// Reads a definition as it is in the store.
    ///
    /// # Errors
    /// It is longer than [`DEFINITION_BYTES_MAX`], it is not JSON, or a field makes no sense.
    pub fn parse(json: &[u8]) -> Result<Self, DefinitionError> {
        if json.len() > DEFINITION_BYTES_MAX {
            let (length, most) = (json.len(), DEFINITION_BYTES_MAX);
            let message =
                format_args!("{length} bytes are more than a definition may have, {most}");
            return Err(DefinitionError::new("", message));
        }
        match serde_json::from_slice(json) {
            Ok(Value::Object(source)) => Self::from_object(source),
            Ok(_) => Err(DefinitionError::new("", "a definition is a JSON object")),
            Err(error) => Err(DefinitionError::new("", format_args!("no JSON: {error}"))),
        }
    }

    /// Reads a definition that is parsed already.
    ///
    /// # Errors
    /// A field makes no sense.
    pub fn from_object(source: Map<String, Value>) -> Result<Self, DefinitionError> {
        let mut fields = Fields::root(&source);
        let enabled = fields.need("enabled")?.bool()?;
        let archived = fields.get("archived").map(|field| field.bool());
        let archived = archived.transpose()?.unwrap_or(false);
        check_algorithm(&mut fields)?;
        check_words(&mut fields)?;
        let metadata = read_metadata(&mut fields)?;
        let salt = fields.get("salt").map(|field| field.text()).transpose()?;
        let salt = salt.map(str::to_owned);
        let by = fields.get("by").map(|field| Attribute::read(&field));
        let by = by.transpose()?.unwrap_or_else(Attribute::targeting_key);

        let variants = Variants::read(&mut fields)?;
        let targets = read_targets(&mut fields, &variants)?;
        let mut rules = Rule::read_all(&mut fields, &variants)?;
        let is_targeted = !targets.is_empty() || !rules.is_empty();
        let own = Rule::read_own(&mut fields, &variants)?;
        let default = variants.read_default(&mut fields, is_targeted, own.is_some())?;
        let off = variants.read_off(&mut fields)?;
        rules.extend(own);
        let requires = read_requires(&mut fields)?;

        let unknown = fields.unknown();
        Ok(Self {
            source,
            unknown,
            enabled,
            archived,
            variants,
            default,
            off,
            targets,
            rules,
            requires,
            by,
            salt,
            metadata,
        })
    }

    /// All of it as it was read, with what is not known here.
    pub fn source(&self) -> &Map<String, Value> {
        &self.source
    }

    /// JSON pointers to the fields that are not known here: kept, and without effect.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Whether the flag is switched on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the flag is kept only for its history.
    pub fn is_archived(&self) -> bool {
        self.archived
    }

    /// The type of its values.
    pub fn kind(&self) -> Kind {
        self.variants.kind()
    }

    /// The same with some fields changed; the others stay, known or not.
    ///
    /// # Errors
    /// What comes of it is no definition.
    pub fn edited(
        &self,
        edit: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<Self, DefinitionError> {
        let mut source = self.source.clone();
        edit(&mut source);
        Self::from_object(source)
    }

    /// The same, switched on or off.
    ///
    /// # Errors
    /// None are known: what was a definition stays one.
    pub fn with_enabled(&self, enabled: bool) -> Result<Self, DefinitionError> {
        self.edited(|fields| {
            fields.insert("enabled".to_owned(), enabled.into());
        })
    }

    /// The same with another percentage of its own, in place of any schedule.
    ///
    /// # Errors
    /// The flag has neither a variant `on` nor one that its percentage gives.
    pub fn with_rollout(&self, percent: Percent) -> Result<Self, DefinitionError> {
        self.edited(|fields| {
            fields.remove("rollout");
            fields.insert("rollout_percent".to_owned(), rollout::to_json(percent));
        })
    }

    /// The same with another share of its own split for one variant: see [`Split::resized`].
    ///
    /// # Errors
    /// There is no such variant, or no room for it: the error is at `/split`.
    pub fn with_share(&self, variant: &str, share: Percent) -> Result<Self, DefinitionError> {
        let split = match Fields::root(&self.source).get("split") {
            Some(field) => Split::read(&field)?,
            None => Split::default(),
        };
        let no_room = |error: NoRoom| DefinitionError::new("/split", error);
        let split = split.resized(variant, share).map_err(no_room)?;
        self.edited(|fields| {
            fields.insert("split".to_owned(), split.to_json());
        })
    }
}

fn check_algorithm(fields: &mut Fields<'_>) -> Result<(), DefinitionError> {
    match fields.get("algo") {
        Some(field) if field.value.as_u64() != Some(ALGORITHM) => {
            field.refuse(format_args!("the only bucketing algorithm is {ALGORITHM}"))
        }
        _ => Ok(()),
    }
}

/// What is for people and has no effect.
fn check_words(fields: &mut Fields<'_>) -> Result<(), DefinitionError> {
    for name in ["description", "owner"] {
        fields.get(name).map(|field| field.text()).transpose()?;
    }
    if let Some(field) = fields.get("tags") {
        field
            .list()?
            .iter()
            .try_for_each(|tag| tag.text().map(drop))?;
    }
    let expiry = fields.get("expires_at").map(|field| field.moment());
    expiry.transpose().map(drop)
}

fn read_metadata(fields: &mut Fields<'_>) -> Result<Map<String, Value>, DefinitionError> {
    let Some(field) = fields.get("metadata") else {
        return Ok(Map::new());
    };
    for (_, field) in field.object()?.all() {
        if field.value.is_object() || field.value.is_array() || field.value.is_null() {
            return field.refuse("this must be a string, a number or a boolean");
        }
    }
    Ok(field.map()?.clone())
}

fn read_targets(
    fields: &mut Fields<'_>,
    variants: &Variants,
) -> Result<Vec<(String, u32)>, DefinitionError> {
    let mut targets = Vec::new();
    let Some(field) = fields.get("targets") else {
        return Ok(targets);
    };
    for (name, field) in field.object()?.all() {
        let variant = variants.named(name, &field)?;
        for field in field.list()? {
            targets.push((field.text()?.to_owned(), variant));
        }
    }
    targets.sort_unstable();
    targets.dedup();
    match targets.windows(2).find(|two| two[0].0 == two[1].0) {
        Some(two) => field.refuse(format_args!("{:?} is in two variants", two[0].0)),
        None => Ok(targets),
    }
}

fn read_requires(fields: &mut Fields<'_>) -> Result<Vec<Requirement>, DefinitionError> {
    let Some(field) = fields.get("requires") else {
        return Ok(Vec::new());
    };
    let mut requires = Vec::new();
    for field in field.list()? {
        if let Some(flag) = field.value.as_str() {
            let (flag, variant) = (flag.to_owned(), ON.to_owned());
            requires.push(Requirement { flag, variant });
            continue;
        }
        let mut fields = field.object()?;
        let flag = fields.need("flag")?.text()?.to_owned();
        let variant = fields.get("variant").map(|field| field.text());
        let variant = variant.transpose()?.unwrap_or(ON).to_owned();
        fields.end()?;
        requires.push(Requirement { flag, variant });
    }
    Ok(requires)
}

#[cfg(test)]
mod tests;
