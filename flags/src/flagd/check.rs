//! What flagd's schemas have against a definition.
//!
//! The schemas are `flags.json` (of providers), `flagd.json` (of the daemon) and `targeting.json` (of
//! one rule) at `https://flagd.dev/schema/v0/`, version 0.2; here they are code that says where and
//! what in words. flagd only warns of what is found, so this is for whoever writes a definition.

use serde_json::{Map, Value};

/// A schema of flagd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Schema {
    /// Flags for providers: `flags` is an object.
    Flags,
    /// Flags for the daemon: `flags` may be a list of flags that have a `key`.
    Daemon,
    /// One rule, as in `targeting` and `$evaluators`.
    Targeting,
}

/// One thing that the schema has against a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a JSON pointer (RFC 6901); the empty text is the whole definition.
    pub pointer: String,
    /// What must be there.
    pub message: &'static str,
}

/// All that a schema has against a definition, in the order of the definition; empty if nothing.
pub fn check(definition: &Value, schema: Schema) -> Vec<Problem> {
    let mut checker = Checker::default();
    match schema {
        Schema::Flags => checker.definition(definition, false),
        Schema::Daemon => checker.definition(definition, true),
        Schema::Targeting => checker.targeting(definition),
    }
    checker.problems
}

/// Where it is, and what it found.
#[derive(Debug, Default)]
struct Checker {
    pointer: String,
    problems: Vec<Problem>,
}

impl Checker {
    fn problem(&mut self, message: &'static str) {
        self.problems.push(Problem {
            pointer: self.pointer.clone(),
            message,
        });
    }

    fn expect(&mut self, is_so: bool, message: &'static str) {
        if !is_so {
            self.problem(message);
        }
    }

    /// Checks something inside.
    fn at(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        let len = self.pointer.len();
        self.pointer.push('/');
        let name = name.replace('~', "~0").replace('/', "~1");
        self.pointer.push_str(&name);
        check(self);
        self.pointer.truncate(len);
    }

    /// Checks each value of a list.
    fn each(&mut self, list: &[Value], mut check: impl FnMut(&mut Self, &Value)) {
        for (at, value) in list.iter().enumerate() {
            self.at(&at.to_string(), |checker| check(checker, value));
        }
    }

    /// Checks each value of an object, whose names must not be empty.
    fn all(&mut self, object: &Map<String, Value>, mut check: impl FnMut(&mut Self, &Value)) {
        for (name, value) in object {
            self.at(name, |checker| {
                checker.expect(!name.is_empty(), "a name is not empty");
                check(checker, value);
            });
        }
    }

    fn definition(&mut self, definition: &Value, lists: bool) {
        let Some(definition) = definition.as_object() else {
            return self.problem("a definition is an object");
        };
        if let Some(evaluators) = definition.get("$evaluators") {
            self.at("$evaluators", |checker| match evaluators.as_object() {
                Some(all) => checker.all(all, Self::targeting),
                None => checker.problem("$evaluators is an object"),
            });
        }
        self.metadata(definition);
        self.at("flags", |checker| match definition.get("flags") {
            Some(Value::Object(flags)) => checker.all(flags, Self::flag),
            Some(Value::Array(flags)) if lists => checker.each(flags, |checker, flag| {
                checker.flag(flag);
                let key = flag.get("key").and_then(Value::as_str);
                checker.expect(
                    key.is_some_and(|key| !key.is_empty()),
                    "a flag in a list has a key",
                );
            }),
            Some(_) => checker.problem("flags is an object"),
            None => checker.problem("there are flags"),
        });
    }

    fn metadata(&mut self, of: &Map<String, Value>) {
        let Some(metadata) = of.get("metadata") else {
            return;
        };
        self.at("metadata", |checker| match metadata.as_object() {
            Some(all) => all.iter().for_each(|(name, value)| {
                checker.at(name, |checker| {
                    let is_scalar = value.is_string() || value.is_number() || value.is_boolean();
                    checker.expect(is_scalar, "metadata is a string, a number or a boolean");
                });
            }),
            None => checker.problem("metadata is an object"),
        });
    }

    fn flag(&mut self, flag: &Value) {
        let Some(flag) = flag.as_object() else {
            return self.problem("a flag is an object");
        };
        let state = flag.get("state").and_then(Value::as_str);
        self.at("state", |checker| {
            checker.expect(
                matches!(state, Some("ENABLED" | "DISABLED")),
                "state is \"ENABLED\" or \"DISABLED\"",
            );
        });
        self.at("variants", |checker| match flag.get("variants") {
            Some(Value::Object(variants)) => checker.variants(variants),
            _ => checker.problem("variants is an object"),
        });
        self.at("defaultVariant", |checker| {
            let default = flag.get("defaultVariant");
            checker.expect(
                default.is_none_or(|default| default.is_string() || default.is_null()),
                "defaultVariant is a string or null",
            );
        });
        if let Some(rule) = flag.get("targeting") {
            self.at("targeting", |checker| checker.targeting(rule));
        }
        self.metadata(flag);
    }

    fn variants(&mut self, variants: &Map<String, Value>) {
        let kind = |value: &Value| match value {
            Value::Bool(_) => Some("boolean"),
            Value::Number(_) => Some("number"),
            Value::String(_) => Some("string"),
            Value::Object(_) => Some("object"),
            Value::Null | Value::Array(_) => None,
        };
        let Some(first) = variants.values().next() else {
            return self.problem("there is at least one variant");
        };
        self.all(variants, |checker, value| match kind(value) {
            None => checker.problem("a variant is a boolean, a number, a string or an object"),
            it => checker.expect(it == kind(first), "all variants are of one type"),
        });
    }

    /// A rule where a rule must be, or the empty object, which is none.
    fn targeting(&mut self, rule: &Value) {
        match rule.as_object() {
            Some(operations) if operations.is_empty() => {}
            _ => self.rule(rule),
        }
    }

    /// A rule where nothing else may be. The empty object is one for the schema.
    fn rule(&mut self, rule: &Value) {
        let Some(operations) = rule.as_object() else {
            return self.problem("a rule is an object");
        };
        let mut names = operations.keys().map(|name| group(name));
        let first = names.next().flatten();
        if names.any(|group| group != first) {
            self.problem("a rule has one operator");
        }
        for (operator, arguments) in operations {
            self.at(operator, |checker| checker.operation(operator, arguments));
        }
    }

    /// A rule, a reference or a value.
    fn argument(&mut self, argument: &Value) {
        match argument.as_object() {
            Some(object) if object.is_empty() => self.problem("an argument is not empty"),
            Some(object) if object.keys().eq(["$ref"]) => self.at("$ref", |checker| {
                checker.expect(object["$ref"].is_string(), "$ref is a string");
            }),
            Some(_) => self.rule(argument),
            None => {}
        }
    }

    fn operation(&mut self, operator: &str, arguments: &Value) {
        match operator {
            "var" => self.var(arguments),
            "missing" => self.names(arguments),
            "missing_some" => self.missing_some(arguments),
            "starts_with" | "ends_with" => self.affix(arguments),
            "sem_ver" => self.version(arguments),
            "fractional" => self.fractional(arguments),
            // One argument may stand for a list of one; any list is a value, too.
            "!" | "!!" => match arguments {
                Value::Array(list) if list.len() == 1 => self.arguments(arguments, 1, 1, ""),
                _ => self.argument(arguments),
            },
            "==" | "===" | "!=" | "!==" | ">" | ">=" | "%" | "/" | "map" | "filter" | "all"
            | "none" | "some" | "in" => self.arguments(arguments, 2, 2, "a list of two"),
            "substr" | "<" | "<=" => self.arguments(arguments, 2, 3, "a list of two or three"),
            "reduce" => self.arguments(arguments, 3, 3, "a list of three"),
            "*" => self.arguments(arguments, 2, usize::MAX, "a list of at least two"),
            "if" | "or" | "and" | "+" | "-" | "max" | "min" | "merge" | "cat" => {
                self.arguments(arguments, 1, usize::MAX, "a list of at least one");
            }
            _ => self.problem("there is no such operator"),
        }
    }

    fn arguments(&mut self, arguments: &Value, min: usize, max: usize, message: &'static str) {
        match arguments.as_array() {
            Some(list) if (min..=max).contains(&list.len()) => self.each(list, Self::argument),
            _ => self.problem(message),
        }
    }

    fn var(&mut self, arguments: &Value) {
        // The schema lets everything else pass.
        if let Value::String(path) = arguments {
            let is_known = matches!(path.as_str(), "$flagd.timestamp" | "$flagd.flagKey");
            self.expect(
                is_known || !path.starts_with("$flagd."),
                "$flagd has only timestamp and flagKey",
            );
        }
    }

    fn names(&mut self, names: &Value) {
        match names.as_array() {
            Some(list) => self.each(list, |checker, name| {
                checker.expect(name.is_string(), "a name is a string");
            }),
            None => self.problem("a list of names"),
        }
    }

    fn missing_some(&mut self, arguments: &Value) {
        match arguments.as_array().map(Vec::as_slice) {
            Some([needed, names]) => {
                self.at("0", |checker| {
                    checker.expect(needed.is_number(), "a number");
                });
                self.at("1", |checker| checker.names(names));
            }
            _ => self.problem("a list of a number and a list of names"),
        }
    }

    fn affix(&mut self, arguments: &Value) {
        match arguments.as_array() {
            Some(list) if list.len() == 2 => self.each(list, |checker, argument| match argument {
                Value::String(_) => {}
                Value::Object(_) => checker.rule(argument),
                _ => checker.problem("a string or a rule"),
            }),
            _ => self.problem("a list of two"),
        }
    }

    fn version(&mut self, arguments: &Value) {
        let Some([a, relation, b]) = arguments.as_array().map(Vec::as_slice) else {
            return self.problem("a list of three");
        };
        for (place, version) in [("0", a), ("2", b)] {
            self.at(place, |checker| match version {
                Value::String(text) => checker.expect(
                    semver::Version::parse(text).is_ok(),
                    "a version as semver.org defines it",
                ),
                Value::Object(rule) if rule.keys().all(|name| name == "var") => {
                    checker.rule(version);
                }
                _ => checker.problem("a version or a var"),
            });
        }
        self.at("1", |checker| {
            let is_known = relation
                .as_str()
                .is_some_and(|sign| ["=", "!=", ">", "<", ">=", "<=", "~", "^"].contains(&sign));
            checker.expect(is_known, "one of = != > < >= <= ~ ^");
        });
    }

    fn fractional(&mut self, arguments: &Value) {
        let Some(list) = arguments.as_array().filter(|list| !list.is_empty()) else {
            return self.problem("a list of at least one");
        };
        for (at, argument) in list.iter().enumerate() {
            self.at(&at.to_string(), |checker| match argument {
                Value::Object(_) if at == 0 => checker.rule(argument),
                _ => checker.share(argument),
            });
        }
    }

    fn share(&mut self, share: &Value) {
        let Some(list @ [variant, weight @ ..]) = share.as_array().map(Vec::as_slice) else {
            return self.problem("a list of a variant and a weight");
        };
        self.expect(list.len() <= 2, "a list of a variant and a weight");
        self.at("0", |checker| checker.argument(variant));
        if let Some(weight) = weight.first() {
            self.at("1", |checker| match weight {
                Value::Object(_) => checker.rule(weight),
                _ => checker.expect(
                    weight
                        .as_f64()
                        .is_some_and(|it| it >= 0.0 && it.fract() == 0.0),
                    "a weight is a whole number that is not below zero, or a rule",
                ),
            });
        }
    }
}

/// Operators that the schema allows in one object. Only one of them is looked at, whoever evaluates.
fn group(operator: &str) -> Option<u8> {
    Some(match operator {
        "var" => 0,
        "missing" => 1,
        "missing_some" => 2,
        "if" | "==" | "===" | "!=" | "!==" | ">" | ">=" | "%" | "/" | "map" | "filter" | "all"
        | "none" | "some" | "in" => 3,
        "substr" | "<" | "<=" => 4,
        "*" => 5,
        "!" | "!!" => 6,
        "or" | "and" | "+" | "-" | "max" | "min" | "merge" | "cat" => 7,
        "reduce" => 8,
        "starts_with" | "ends_with" => 9,
        "sem_ver" => 10,
        "fractional" => 11,
        _ => return None,
    })
}
