//! Reading a definition's JSON so that every refusal names its field.

use std::fmt;

use serde_json::{Map, Value};

use crate::bucket::Percent;
use crate::moment::Moment;

/// Why a definition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DefinitionError {
    pointer: String,
    text: String,
}

impl DefinitionError {
    pub(crate) fn new(pointer: impl Into<String>, message: impl fmt::Display) -> Self {
        let pointer = pointer.into();
        let text = if pointer.is_empty() {
            message.to_string()
        } else {
            format!("{pointer}: {message}")
        };
        Self { pointer, text }
    }

    /// The field, as a JSON pointer (RFC 6901); empty if it is the whole definition.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The field and what is wrong with it, for people.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A value of a definition, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) value: &'a Value,
    pointer: String,
}

impl<'a> Field<'a> {
    pub(crate) fn refuse<T>(&self, message: impl fmt::Display) -> Result<T, DefinitionError> {
        Err(DefinitionError::new(self.pointer.clone(), message))
    }

    fn wanted<T>(&self, found: Option<T>, what: &str) -> Result<T, DefinitionError> {
        found.map_or_else(|| self.refuse(format_args!("this must be {what}")), Ok)
    }

    pub(crate) fn object(&self) -> Result<Fields<'a>, DefinitionError> {
        let map = self.wanted(self.value.as_object(), "an object")?;
        Ok(Fields {
            map,
            pointer: self.pointer.clone(),
            asked: Vec::new(),
        })
    }

    pub(crate) fn map(&self) -> Result<&'a Map<String, Value>, DefinitionError> {
        self.wanted(self.value.as_object(), "an object")
    }

    pub(crate) fn bool(&self) -> Result<bool, DefinitionError> {
        self.wanted(self.value.as_bool(), "true or false")
    }

    pub(crate) fn text(&self) -> Result<&'a str, DefinitionError> {
        self.wanted(self.value.as_str(), "a string")
    }

    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>, DefinitionError> {
        let list = self.wanted(self.value.as_array(), "a list")?;
        let fields = list.iter().enumerate().map(|(at, value)| Field {
            value,
            pointer: format!("{}/{at}", self.pointer),
        });
        Ok(fields.collect())
    }

    /// A list of at least one.
    pub(crate) fn some(&self) -> Result<Vec<Field<'a>>, DefinitionError> {
        let list = self.list()?;
        if list.is_empty() {
            return self.refuse("this list must not be empty");
        }
        Ok(list)
    }

    pub(crate) fn percent(&self) -> Result<Percent, DefinitionError> {
        let percent = self.value.as_f64().and_then(Percent::from_percent);
        self.wanted(
            percent,
            "a number from 0 to 100 with at most three decimals",
        )
    }

    pub(crate) fn moment(&self) -> Result<Moment, DefinitionError> {
        let moment = self.value.as_str().and_then(Moment::parse);
        self.wanted(moment, "a time in UTC such as \"2026-12-24T18:00:00Z\"")
    }
}

/// The fields of an object, and which of them were asked for.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    pointer: String,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of a whole definition.
    pub(crate) fn root(map: &'a Map<String, Value>) -> Self {
        Self {
            map,
            pointer: String::new(),
            asked: Vec::new(),
        }
    }

    pub(crate) fn get(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.asked.push(name);
        let value = self.map.get(name)?;
        Some(Field {
            value,
            pointer: self.pointer_to(name),
        })
    }

    pub(crate) fn need(&mut self, name: &'static str) -> Result<Field<'a>, DefinitionError> {
        let pointer = self.pointer_to(name);
        let missing = || DefinitionError::new(pointer, "this field is missing");
        self.get(name).ok_or_else(missing)
    }

    /// Every field, whatever its name.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        let map = self.map;
        map.iter().map(|(name, value)| {
            let pointer = self.pointer_to(name);
            (name.as_str(), Field { value, pointer })
        })
    }

    /// Pointers to the fields that nobody asked for.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let names = self.map.keys();
        let unknown = names.filter(|name| !self.asked.contains(&name.as_str()));
        unknown.map(|name| self.pointer_to(name)).collect()
    }

    /// Refuses fields that nobody asked for: what is not understood must not decide as if it were
    /// not there.
    pub(crate) fn end(self) -> Result<(), DefinitionError> {
        match self.unknown().into_iter().next() {
            Some(pointer) => Err(DefinitionError::new(
                pointer,
                format_args!("there is no such field here, but {}", self.asked.join(", ")),
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn refuse<T>(
        &self,
        name: &str,
        message: impl fmt::Display,
    ) -> Result<T, DefinitionError> {
        Err(DefinitionError::new(self.pointer_to(name), message))
    }

    /// Exactly one of the fields `names`, which are alternatives.
    pub(crate) fn one_of(
        &mut self,
        names: &[&'static str],
    ) -> Result<(&'static str, Field<'a>), DefinitionError> {
        let found: Vec<_> = names
            .iter()
            .filter_map(|name| Some((*name, self.get(name)?)))
            .collect();
        match <[_; 1]>::try_from(found) {
            Ok([one]) => Ok(one),
            Err(found) => Err(DefinitionError::new(
                self.pointer.clone(),
                format_args!(
                    "exactly one of {} must be here, and there are {}",
                    names.join(", "),
                    found.len()
                ),
            )),
        }
    }

    fn pointer_to(&self, name: &str) -> String {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        format!("{}/{escaped}", self.pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_field_as_a_json_pointer() {
        let value = serde_json::json!({"a/b": {"c~d": [true, 1]}});
        let mut root = Fields::root(value.as_object().unwrap());
        let mut inner = root.all().next().unwrap().1.object().unwrap();
        let list = inner.all().next().unwrap().1.list().unwrap();
        let error = list[1].bool().unwrap_err();
        assert_eq!(error.pointer(), "/a~1b/c~0d/1");
        assert_eq!(
            error.to_string(),
            "/a~1b/c~0d/1: this must be true or false"
        );
        assert_eq!(value.pointer(error.pointer()), Some(&Value::from(1)));
    }
}
