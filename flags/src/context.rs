//! Whom a flag is evaluated for: a targeting key and attributes.
//!
//! Paths into nested attributes are walked by whoever has a path; here are only the names.
//!
//! Invariant: `attributes` is in the byte order of the names, and no name is there twice.

use std::borrow::Cow;

use serde_json::Value;

/// So many attributes are looked through faster than searched in order.
const SCANNED_MAX: usize = 8;

/// Whom a flag is evaluated for.
///
/// The targeting key is what percentages are taken of, a user's id for instance. Attributes are
/// what rules ask for.
///
/// A context without attributes that borrows its key costs no allocation.
///
/// ```
/// use gonfalon_flags::Context;
///
/// let context = Context::of("user-1").with("plan", "pro").with("age", 41);
/// assert_eq!(context.targeting_key(), Some("user-1"));
/// assert_eq!(context.get("age").and_then(|age| age.as_i64()), Some(41));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context<'a> {
    targeting_key: Option<Cow<'a, str>>,
    attributes: Vec<(Cow<'a, str>, Value)>,
}

impl<'a> Context<'a> {
    /// Nobody in particular: no targeting key and no attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whoever has this targeting key.
    pub fn of(targeting_key: impl Into<Cow<'a, str>>) -> Self {
        Self {
            targeting_key: Some(targeting_key.into()),
            attributes: Vec::new(),
        }
    }

    /// The same with one attribute more; a second value for a name replaces the first. An attribute
    /// that is called `targetingKey` is not the targeting key.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets one attribute; a second value for a name replaces the first.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        match self.find(&name) {
            Ok(at) => self.attributes[at].1 = value,
            Err(at) => self.attributes.insert(at, (name, value)),
        }
    }

    /// What percentages are taken of; none if it was not given.
    pub fn targeting_key(&self) -> Option<&str> {
        self.targeting_key.as_deref()
    }

    /// The attribute of this name, which is one of the outermost names and not a path.
    pub fn get(&self, name: &str) -> Option<&Value> {
        if self.attributes.len() <= SCANNED_MAX {
            // Names of different lengths are not even compared.
            let mut all = self.attributes.iter();
            return all
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value);
        }
        let at = self.find(name).ok()?;
        Some(&self.attributes[at].1)
    }

    /// All attributes, in the byte order of their names.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.attributes.iter();
        all.map(|(name, value)| (name.as_ref(), value))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.attributes
            .binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_an_attribute_counts_and_names_are_in_order() {
        let context = Context::of("u").with("b", 1).with("a", 2).with("b", 3);
        let all: Vec<_> = context.attributes().collect();
        assert_eq!(all, [("a", &Value::from(2)), ("b", &Value::from(3))]);
        assert_eq!(context.get("c"), None);
    }

    #[test]
    fn every_attribute_is_found_however_many_there_are() {
        for count in 0..3 * SCANNED_MAX {
            let names: Vec<String> = (0..count).map(|number| format!("a{number}")).collect();
            let mut context = Context::new();
            for name in &names {
                context.set(name, name.as_str());
            }
            for name in &names {
                assert_eq!(
                    context.get(name),
                    Some(&Value::from(name.as_str())),
                    "of {count}"
                );
            }
            assert_eq!(context.get("b"), None, "of {count}");
        }
    }

    #[test]
    fn an_empty_targeting_key_is_not_an_absent_one() {
        assert_eq!(Context::of("").targeting_key(), Some(""));
        assert_eq!(Context::new().targeting_key(), None);
    }
}
