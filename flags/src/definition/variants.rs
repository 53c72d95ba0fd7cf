//! The values that a flag can have, and their names.

use serde_json::Value;

use crate::fields::{DefinitionError, Field, Fields};

/// What percentages and requirements are about, unless they say otherwise.
pub(crate) const ON: &str = "on";
/// What a flag is while it is off, unless it says otherwise.
pub(crate) const OFF: &str = "off";

/// Whole numbers beyond it cannot all be told apart as floating-point numbers.
pub(crate) const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

/// The type of a flag's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Float,
    /// A JSON object or list.
    Object,
}

impl Kind {
    const ALL: [(&'static str, Self); 5] = [
        ("boolean", Self::Boolean),
        ("string", Self::String),
        ("integer", Self::Integer),
        ("float", Self::Float),
        ("object", Self::Object),
    ];

    fn read(field: &Field<'_>) -> Result<Self, DefinitionError> {
        let name = field.text()?;
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        match found {
            Some((_, kind)) => Ok(*kind),
            None => field.refuse("this must be boolean, string, integer, float or object"),
        }
    }

    /// The narrowest type of a value; none if the value is null.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Boolean),
            Value::String(_) => Some(Self::String),
            Value::Array(_) | Value::Object(_) => Some(Self::Object),
            Value::Number(number) if number.is_f64() => {
                let number = number.as_f64()?;
                let is_whole = number.fract() == 0.0 && number.abs() <= WHOLE_MAX;
                Some(if is_whole { Self::Integer } else { Self::Float })
            }
            Value::Number(_) => Some(Self::Integer),
        }
    }

    /// The narrowest type that has both; none if there is none.
    fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Integer, Self::Float) | (Self::Float, Self::Integer) => Some(Self::Float),
            _ => (self == other).then_some(self),
        }
    }
}

/// The values that a flag can have, in the order of their names.
#[derive(Debug, Clone)]
pub(crate) struct Variants {
    kind: Kind,
    all: Vec<(String, Value)>,
    /// Whether the definition names them itself.
    are_named: bool,
}

impl Variants {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, DefinitionError> {
        let wanted = fields.get("type").map(|field| Kind::read(&field));
        let wanted = wanted.transpose()?;
        match (fields.get("variants"), fields.get("value")) {
            (Some(_), Some(field)) => field.refuse("value and variants exclude each other"),
            (Some(field), None) => Self::read_named(&field, wanted),
            (None, Some(field)) => {
                let kind = kind_of(&field, wanted, None)?;
                let all = vec![(ON.to_owned(), field.value.clone())];
                let are_named = false;
                Ok(Self {
                    kind,
                    all,
                    are_named,
                })
            }
            (None, None) if wanted.is_some_and(|kind| kind != Kind::Boolean) => fields.refuse(
                "type",
                "only a boolean flag can do without value and variants",
            ),
            (None, None) => Ok(Self {
                kind: Kind::Boolean,
                all: vec![(OFF.to_owned(), false.into()), (ON.to_owned(), true.into())],
                are_named: false,
            }),
        }
    }

    fn read_named(field: &Field<'_>, wanted: Option<Kind>) -> Result<Self, DefinitionError> {
        let mut kind = None;
        let mut all = Vec::new();
        for (name, field) in field.object()?.all() {
            kind = Some(kind_of(&field, wanted, kind)?);
            all.push((name.to_owned(), field.value.clone()));
        }
        let Some(kind) = kind else {
            return field.refuse("there must be at least one variant");
        };
        // The order of a JSON object is nobody's promise.
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Self {
            kind,
            all,
            are_named: true,
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn all(&self) -> &[(String, Value)] {
        &self.all
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        let at = self
            .all
            .binary_search_by(|(known, _)| known.as_str().cmp(name));
        at.ok()
            .map(|at| u32::try_from(at).expect("a definition has fewer bytes than that"))
    }

    /// The variant of this name; an error at `field` if there is none.
    pub(crate) fn named(&self, name: &str, field: &Field<'_>) -> Result<u32, DefinitionError> {
        let missing = || field.refuse(format_args!("there is no variant {name:?}"));
        self.find(name).map_or_else(missing, Ok)
    }

    /// Reads what those get to whom nothing else applies.
    ///
    /// A definition with rules that leaves it out is refused: whether the others have the flag
    /// is nothing to guess.
    pub(crate) fn read_default(
        &self,
        fields: &mut Fields<'_>,
        is_targeted: bool,
        has_percentage: bool,
    ) -> Result<Option<u32>, DefinitionError> {
        match fields.get("default") {
            Some(field) if field.value.is_null() => Ok(None),
            Some(field) => self.named(field.text()?, &field).map(Some),
            None if self.are_named => fields.refuse(
                "default",
                "this field is missing: the variant for whom nothing else applies, or null",
            ),
            None if has_percentage => Ok(self.find(OFF)),
            None if is_targeted => fields.refuse(
                "default",
                "this field is missing: the variant for whom no rule applies, or null",
            ),
            None => Ok(self.find(ON)),
        }
    }

    pub(crate) fn read_off(&self, fields: &mut Fields<'_>) -> Result<Option<u32>, DefinitionError> {
        match fields.get("off") {
            Some(field) if field.value.is_null() => Ok(None),
            Some(field) => self.named(field.text()?, &field).map(Some),
            None => Ok(self.find(OFF)),
        }
    }
}

/// The type of a value together with those before it, within the wanted one.
fn kind_of(
    field: &Field<'_>,
    wanted: Option<Kind>,
    before: Option<Kind>,
) -> Result<Kind, DefinitionError> {
    let Some(own) = Kind::of(field.value) else {
        return field.refuse("null is no value of a flag");
    };
    let together = match (wanted, before) {
        (Some(wanted), _) => own.with(wanted).filter(|kind| *kind == wanted),
        (None, Some(before)) => own.with(before),
        (None, None) => Some(own),
    };
    match (together, wanted) {
        (Some(kind), _) => Ok(kind),
        (None, Some(_)) => field.refuse("this is not of the flag's type"),
        (None, None) => field.refuse("this is of another type than the variants before it"),
    }
}
