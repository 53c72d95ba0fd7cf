//! What a rule asks of a context.
//!
//! A test of an attribute that is not there, or of another type than the test is about, does not
//! hold; `not` makes that hold. Nothing is converted: `"5"` is not `5`. Numbers are compared as
//! numbers, so `5` is `5.0`.

use std::cmp::Ordering;

use semver::Version;
use serde_json::Value;

use crate::context::Context;
use crate::fields::{DefinitionError, Field};

/// The name under which conditions find the targeting key.
const TARGETING_KEY: &str = "targetingKey";

/// How deep conditions may lie within each other. Evaluation recurses as deep.
const DEPTH_MAX: usize = 16;

/// What a rule asks of a context.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    All(Box<[Condition]>),
    Any(Box<[Condition]>),
    Not(Box<Condition>),
    Attribute(Attribute, Test),
}

/// A name, and the names below it if it is nested.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    first: Box<str>,
    rest: Box<[Box<str>]>,
    is_targeting_key: bool,
}

/// What an attribute is compared with.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Exists(bool),
    /// One of these strings, which are in order.
    InTexts(Box<[Box<str>]>),
    /// One of these values, at least one of which is no string.
    In(Box<[Value]>),
    StartsWith(Box<[Box<str>]>),
    EndsWith(Box<[Box<str>]>),
    Contains(Box<[Box<str>]>),
    Number(Comparison, Value),
    Version(Comparison, Version),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Comparison {
    Less,
    AtMost,
    AtLeast,
    More,
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::AtLeast => ordering.is_ge(),
            Self::More => ordering.is_gt(),
        }
    }
}

impl Condition {
    /// Reads a condition: an object, or a list of them that must all hold.
    pub(crate) fn read(field: &Field<'_>) -> Result<Self, DefinitionError> {
        Self::read_below(field, DEPTH_MAX)
    }

    fn read_below(field: &Field<'_>, depth: usize) -> Result<Self, DefinitionError> {
        let Some(depth) = depth.checked_sub(1) else {
            return field.refuse(format_args!("conditions are deeper than {DEPTH_MAX} here"));
        };
        let list = |field: &Field<'_>| -> Result<Box<[Self]>, DefinitionError> {
            let list = field.list()?;
            list.iter()
                .map(|field| Self::read_below(field, depth))
                .collect()
        };
        if field.value.is_array() {
            return Ok(Self::All(list(field)?));
        }
        let mut fields = field.object()?;
        let (name, field) = fields.one_of(&["attribute", "all", "any", "not"])?;
        let condition = match name {
            "all" => Self::All(list(&field)?),
            "any" => Self::Any(list(&field)?),
            "not" => Self::Not(Box::new(Self::read_below(&field, depth)?)),
            _ => {
                let attribute = Attribute::read(&field)?;
                let (name, field) = fields.one_of(&TESTS)?;
                Self::Attribute(attribute, Test::read(name, &field)?)
            }
        };
        fields.end()?;
        Ok(condition)
    }

    pub(crate) fn holds(&self, context: &Context<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(context)),
            Self::Any(any) => any.iter().any(|one| one.holds(context)),
            Self::Not(not) => !not.holds(context),
            Self::Attribute(attribute, test) => match attribute.find(context) {
                Some(Found::Value(value)) => test.holds(value),
                Some(Found::Key(key)) => test.holds_for(key),
                None => matches!(test, Test::Exists(false)),
            },
        }
    }
}

/// Where the value of an attribute is.
pub(crate) enum Found<'a> {
    /// It is the targeting key.
    Key(&'a str),
    Value(&'a Value),
}

impl Attribute {
    /// Reads a name, or a list of names for a path into nested attributes.
    pub(crate) fn read(field: &Field<'_>) -> Result<Self, DefinitionError> {
        if !field.value.is_array() {
            return Ok(Self::new(field.text()?.into(), Box::default()));
        }
        let names = field.some()?;
        let names: Result<Vec<Box<str>>, _> = names
            .iter()
            .map(|name| name.text().map(Box::from))
            .collect();
        let mut names = names?;
        Ok(Self::new(names.remove(0), names.into()))
    }

    /// The targeting key.
    pub(crate) fn targeting_key() -> Self {
        Self::new(TARGETING_KEY.into(), Box::default())
    }

    pub(crate) fn is_targeting_key(&self) -> bool {
        self.is_targeting_key
    }

    fn new(first: Box<str>, rest: Box<[Box<str>]>) -> Self {
        Self {
            is_targeting_key: rest.is_empty() && first.as_ref() == TARGETING_KEY,
            first,
            rest,
        }
    }

    #[inline]
    pub(crate) fn find<'a>(&self, context: &'a Context<'_>) -> Option<Found<'a>> {
        if self.is_targeting_key {
            return context.targeting_key().map(Found::Key);
        }
        let first = context.get(&self.first)?;
        let mut names = self.rest.iter();
        let value = names.try_fold(first, |value, name| value.as_object()?.get(name.as_ref()))?;
        Some(Found::Value(value))
    }
}

const TESTS: [&str; 14] = [
    "exists",
    "is",
    "in",
    "starts_with",
    "ends_with",
    "contains",
    "less",
    "at_most",
    "at_least",
    "more",
    "version_less",
    "version_at_most",
    "version_at_least",
    "version_more",
];

impl Test {
    fn read(name: &str, field: &Field<'_>) -> Result<Self, DefinitionError> {
        use Comparison::{AtLeast, AtMost, Less, More};
        Ok(match name {
            "exists" => Self::Exists(field.bool()?),
            "is" => Self::one_of(std::slice::from_ref(field))?,
            "in" => Self::one_of(&field.list()?)?,
            "starts_with" => Self::StartsWith(texts(field)?),
            "ends_with" => Self::EndsWith(texts(field)?),
            "contains" => Self::Contains(texts(field)?),
            "less" => Self::Number(Less, number(field)?),
            "at_most" => Self::Number(AtMost, number(field)?),
            "at_least" => Self::Number(AtLeast, number(field)?),
            "more" => Self::Number(More, number(field)?),
            "version_less" => Self::Version(Less, version(field)?),
            "version_at_most" => Self::Version(AtMost, version(field)?),
            "version_at_least" => Self::Version(AtLeast, version(field)?),
            "version_more" => Self::Version(More, version(field)?),
            other => unreachable!("{other} is none of TESTS"),
        })
    }

    fn one_of(fields: &[Field<'_>]) -> Result<Self, DefinitionError> {
        for field in fields {
            if field.value.is_object() || field.value.is_array() {
                return field
                    .refuse("an attribute is compared with a string, a number or a boolean");
            }
        }
        let texts: Option<Vec<Box<str>>> = fields
            .iter()
            .map(|field| field.value.as_str().map(Box::from))
            .collect();
        Ok(match texts {
            Some(mut texts) => {
                texts.sort_unstable();
                Self::InTexts(texts.into())
            }
            None => Self::In(fields.iter().map(|field| field.value.clone()).collect()),
        })
    }

    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Exists(wanted) => *wanted,
            Self::In(values) => values.iter().any(|one| equal(one, value)),
            Self::Number(comparison, than) => {
                compare(value, than).is_some_and(|ordering| comparison.holds(ordering))
            }
            _ => value.as_str().is_some_and(|text| self.holds_for(text)),
        }
    }

    fn holds_for(&self, text: &str) -> bool {
        match self {
            Self::Exists(wanted) => *wanted,
            Self::InTexts(texts) => match texts.len() {
                1 => texts[0].as_ref() == text,
                _ => texts.binary_search_by(|one| one.as_ref().cmp(text)).is_ok(),
            },
            Self::In(values) => values.iter().any(|one| one.as_str() == Some(text)),
            Self::StartsWith(texts) => texts.iter().any(|one| text.starts_with(one.as_ref())),
            Self::EndsWith(texts) => texts.iter().any(|one| text.ends_with(one.as_ref())),
            Self::Contains(texts) => texts.iter().any(|one| text.contains(one.as_ref())),
            Self::Number(..) => false,
            Self::Version(comparison, than) => Version::parse(text)
                .is_ok_and(|version| comparison.holds(version.cmp_precedence(than))),
        }
    }
}

/// A string, or a list of at least one.
fn texts(field: &Field<'_>) -> Result<Box<[Box<str>]>, DefinitionError> {
    if field.value.is_array() {
        return field
            .some()?
            .iter()
            .map(|one| one.text().map(Box::from))
            .collect();
    }
    Ok([field.text()?.into()].into())
}

fn number(field: &Field<'_>) -> Result<Value, DefinitionError> {
    if !field.value.is_number() {
        return field.refuse("this must be a number");
    }
    Ok(field.value.clone())
}

fn version(field: &Field<'_>) -> Result<Version, DefinitionError> {
    match Version::parse(field.text()?) {
        Ok(version) => Ok(version),
        Err(error) => field.refuse(format_args!(
            "this must be a version such as 1.2.3: {error}"
        )),
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(_), Value::Number(_)) => compare(one, other) == Some(Ordering::Equal),
        _ => one == other,
    }
}

/// Which of two numbers is the greater; none if one of them is no number. Whole numbers are compared
/// exactly, others as the nearest floating-point numbers.
fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    let whole = |value: &Value| {
        let signed = value.as_i64().map(i128::from);
        signed.or_else(|| value.as_u64().map(i128::from))
    };
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fields::Fields;

    fn read(condition: &Value) -> Result<Condition, DefinitionError> {
        let root = json!({"if": condition});
        let field = Fields::root(root.as_object().unwrap()).need("if").unwrap();
        Condition::read(&field)
    }

    fn context() -> Context<'static> {
        Context::of("user-7")
            .with("plan", "pro")
            .with("age", 41)
            .with("ratio", 0.5)
            .with("ten", 10.0)
            .with("big", u64::MAX)
            .with("admin", true)
            .with("nothing", Value::Null)
            .with("app", "1.10.0-rc.1+build5")
            .with("a.b", "flat")
            .with("a", json!({"b": "nested", "list": [1]}))
    }

    fn check(table: &[(Value, bool)]) {
        for (condition, want) in table {
            let read = read(condition).expect("the condition makes sense");
            assert_eq!(read.holds(&context()), *want, "{condition}");
        }
    }

    #[test]
    fn an_attribute_is_equal_to_a_value_of_its_own_type_only() {
        check(&[
            (json!([]), true),
            (json!({"any": []}), false),
            (json!({"attribute": "plan", "exists": true}), true),
            (json!({"attribute": "nothing", "exists": true}), true),
            (json!({"attribute": "none", "exists": true}), false),
            (json!({"attribute": "none", "exists": false}), true),
            (json!({"attribute": "plan", "exists": false}), false),
            (json!({"attribute": "plan", "is": "pro"}), true),
            (json!({"attribute": "plan", "is": "Pro"}), false),
            (json!({"attribute": "plan", "in": ["z", "pro", "a"]}), true),
            (json!({"attribute": "plan", "in": ["pr", "prop"]}), false),
            (json!({"attribute": "plan", "in": []}), false),
            (json!({"attribute": "plan", "in": [1, "pro"]}), true),
            (json!({"attribute": "age", "in": ["41", 41]}), true),
            (json!({"attribute": "age", "is": "41"}), false),
            (json!({"attribute": "age", "is": 41.0}), true),
            (json!({"attribute": "ten", "is": 10}), true),
            (json!({"attribute": "admin", "is": true}), true),
            (json!({"attribute": "admin", "is": 1}), false),
            (json!({"attribute": "nothing", "is": null}), true),
            (json!({"attribute": "none", "is": null}), false),
        ]);
    }

    #[test]
    fn texts_numbers_and_versions_are_compared_as_what_they_are() {
        check(&[
            (
                json!({"attribute": "plan", "starts_with": ["x", "p"]}),
                true,
            ),
            (json!({"attribute": "plan", "ends_with": "ro"}), true),
            (json!({"attribute": "plan", "contains": "r"}), true),
            (json!({"attribute": "age", "starts_with": "4"}), false),
            (json!({"attribute": "age", "less": 41}), false),
            (json!({"attribute": "age", "at_most": 41}), true),
            (json!({"attribute": "age", "at_least": 41.5}), false),
            (json!({"attribute": "age", "more": -1}), true),
            (json!({"attribute": "big", "more": u64::MAX - 1}), true),
            (json!({"attribute": "big", "more": i64::MAX}), true),
            (json!({"attribute": "ratio", "less": 1}), true),
            (json!({"attribute": "plan", "less": 1}), false),
            (json!({"attribute": "app", "version_less": "1.10.0"}), true),
            (json!({"attribute": "app", "version_more": "1.9.9"}), true),
            (
                json!({"attribute": "app", "version_at_least": "1.10.0-rc.1"}),
                true,
            ),
            (
                json!({"attribute": "app", "version_at_most": "1.10.0-rc.1"}),
                true,
            ),
            (
                json!({"attribute": "plan", "version_at_least": "0.0.0"}),
                false,
            ),
        ]);
    }

    #[test]
    fn names_may_be_paths_and_conditions_may_lie_within_each_other() {
        check(&[
            (json!({"attribute": "a.b", "is": "flat"}), true),
            (json!({"attribute": ["a", "b"], "is": "nested"}), true),
            (json!({"attribute": ["a", "list", "0"], "is": 1}), false),
            (json!({"attribute": ["plan", "b"], "exists": false}), true),
            (json!({"attribute": "targetingKey", "is": "user-7"}), true),
            (
                json!({"attribute": "targetingKey", "ends_with": "8"}),
                false,
            ),
            (json!({"attribute": "targetingKey", "less": 8}), false),
            (json!({"not": {"attribute": "none", "is": 1}}), true),
            (json!({"not": [{"attribute": "plan", "is": "pro"}]}), false),
            (
                json!({"any": [{"attribute": "none", "is": 1}, {"all": []}]}),
                true,
            ),
            (
                json!([{"attribute": "plan", "is": "pro"}, {"any": []}]),
                false,
            ),
        ]);
    }

    #[test]
    fn a_condition_that_is_not_understood_is_refused_at_its_field() {
        for (condition, pointer) in [
            (json!(true), "/if"),
            (json!({}), "/if"),
            (json!({"attribute": "a"}), "/if"),
            (json!({"attribute": "a", "strats_with": "x"}), "/if"),
            (json!({"attribute": "a", "is": 1, "in": [1]}), "/if"),
            (
                json!({"attribute": "a", "is": 1, "unless": 2}),
                "/if/unless",
            ),
            (json!({"attribute": "a", "is": [1]}), "/if/is"),
            (json!({"attribute": "a", "in": [1, {}]}), "/if/in/1"),
            (json!({"attribute": "a", "in": "x"}), "/if/in"),
            (json!({"attribute": "a", "less": "5"}), "/if/less"),
            (
                json!({"attribute": "a", "starts_with": []}),
                "/if/starts_with",
            ),
            (json!({"attribute": "a", "contains": [1]}), "/if/contains/0"),
            (
                json!({"attribute": "a", "version_less": "1.2"}),
                "/if/version_less",
            ),
            (json!({"attribute": [], "is": 1}), "/if/attribute"),
            (json!({"attribute": 5, "is": 1}), "/if/attribute"),
            (json!({"all": [], "any": []}), "/if"),
            (json!([{"not": {"all": [5]}}]), "/if/0/not/all/0"),
        ] {
            let error = read(&condition).expect_err("the condition makes no sense");
            assert_eq!(error.pointer(), pointer, "{condition}: {error}");
        }
    }

    #[test]
    fn conditions_may_be_as_deep_as_the_limit_and_no_deeper() {
        let deep = |depth| (1..depth).fold(json!([]), |inner, _| json!({"not": inner}));
        assert!(read(&deep(DEPTH_MAX)).is_ok());
        let error = read(&deep(DEPTH_MAX + 1)).unwrap_err();
        assert!(error.text().contains("deeper than 16"), "{error}");
    }
}
