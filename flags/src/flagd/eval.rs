//! What a compiled rule computes for a context.
//!
//! Operators are functions that are not inlined: `eval` calls itself for every level of a rule, and with
//! the temporaries of all operators in its frame it took twice as long.
//!
//! Invariant: an evaluation cannot fail. What makes no sense is null, NaN or an empty list, as the
//! operator has it; flagd's own operators say null.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::rule::{Affix, Calculation, Comparison, Iteration, Operand, Path, Rule, relation_of};
use super::value::{List, Number, Object, Val, slice};
use super::version::version_of;
use crate::{Context, Moment};

/// What a flag is evaluated for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) key: &'a str,
    pub(super) context: &'a Context<'a>,
    pub(super) now: Moment,
}

/// What variables are looked for in.
#[derive(Debug)]
pub(super) enum Scope<'a> {
    /// The context, the flag's key and the time.
    Flag(Asked<'a>),
    /// A value of the list that is being gone through.
    Item(Asked<'a>, Val<'a>),
    /// A step of `reduce`.
    Step {
        asked: Asked<'a>,
        current: Val<'a>,
        accumulator: Val<'a>,
    },
}

impl<'a> Scope<'a> {
    /// What the flag is evaluated for, however deep in its rule.
    pub(super) fn asked(&self) -> &Asked<'a> {
        match self {
            Self::Flag(asked) | Self::Item(asked, _) | Self::Step { asked, .. } => asked,
        }
    }

    fn get(&self, path: &Path) -> Option<Val<'a>> {
        match (path, self) {
            (Path::Name(name), Self::Flag(asked)) => asked.context.get(name).map(Val::of),
            (Path::Name(name), _) => self.outermost(name),
            (Path::Whole, _) => Some(self.whole()),
            (Path::FlagKey, Self::Flag(asked)) => Some(Val::text_of(asked.key)),
            (Path::Timestamp, Self::Flag(asked)) => Some(asked.timestamp()),
            (Path::TargetingKey, Self::Flag(asked)) => asked.targeting_key(),
            (Path::FlagKey, _) => self.walk(["$flagd", "flagKey"]),
            (Path::Timestamp, _) => self.walk(["$flagd", "timestamp"]),
            (Path::TargetingKey, _) => self.walk(["targetingKey"]),
            (Path::Names(names), _) => self.walk(names.iter().map(AsRef::as_ref)),
        }
    }

    fn walk<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Option<Val<'a>> {
        let mut names = names.into_iter();
        let mut value = self.outermost(names.next()?)?;
        for name in names {
            value = value.member(name)?;
        }
        Some(value)
    }

    fn outermost(&self, name: &str) -> Option<Val<'a>> {
        match (self, name) {
            (Self::Flag(asked), "$flagd") => Some(asked.flagd()),
            (Self::Flag(asked), "targetingKey") => asked.targeting_key(),
            (Self::Flag(asked), _) => asked.context.get(name).map(Val::of),
            (Self::Item(_, value), _) => value.member(name),
            (Self::Step { current, .. }, "current") => Some(current.clone()),
            (Self::Step { accumulator, .. }, "accumulator") => Some(accumulator.clone()),
            (Self::Step { .. }, _) => None,
        }
    }

    fn whole(&self) -> Val<'a> {
        let pairs: Vec<(&'a str, Val<'a>)> = match self {
            Self::Item(_, value) => return value.clone(),
            Self::Step {
                current,
                accumulator,
                ..
            } => vec![
                ("current", current.clone()),
                ("accumulator", accumulator.clone()),
            ],
            Self::Flag(asked) => {
                let attributes = asked.context.attributes();
                let mut pairs: Vec<_> = attributes
                    .filter(|(name, _)| !["$flagd", "targetingKey"].contains(name))
                    .map(|(name, value)| (name, Val::of(value)))
                    .collect();
                pairs.push(("$flagd", asked.flagd()));
                let key = asked.targeting_key().unwrap_or(Val::Null);
                pairs.push(("targetingKey", key));
                pairs
            }
        };
        Val::Object(Object::Made(pairs.into()))
    }
}

impl<'a> Asked<'a> {
    /// Whole seconds since 1970.
    fn timestamp(&self) -> Val<'a> {
        let seconds = self.now.unix_ms().div_euclid(1000);
        Val::Number(Number::whole(seconds))
    }

    /// The targeting key; an attribute of that name only if there is none.
    fn targeting_key(&self) -> Option<Val<'a>> {
        match self.context.targeting_key() {
            Some(key) => Some(Val::text_of(key)),
            None => self.context.get("targetingKey").map(Val::of),
        }
    }

    fn flagd(&self) -> Val<'a> {
        let pairs = [
            ("flagKey", Val::text_of(self.key)),
            ("timestamp", self.timestamp()),
        ];
        Val::Object(Object::Made(pairs.into()))
    }
}

impl Rule {
    /// Its value for what is asked.
    pub(super) fn eval<'a>(&'a self, scope: &Scope<'a>) -> Val<'a> {
        match self {
            Self::Constant(value) => Val::of(value),
            Self::List(rules) => Val::list(values(rules, scope).collect()),
            Self::Var { path, fallback } => or_else(scope.get(path), fallback.as_deref(), scope),
            Self::VarOf { path, fallback } => {
                let path = Path::parse(&path.eval(scope).text());
                or_else(scope.get(&path), fallback.as_deref(), scope)
            }
            Self::Missing(keys) => missing(&keys_in(keys, scope), scope),
            Self::MissingSome(arguments) => missing_some(arguments, scope),
            Self::If(arguments) => choose(arguments, scope),
            Self::And(rules) => last_or(rules, scope, |value| !value.is_true()),
            Self::Or(rules) => last_or(rules, scope, Val::is_true),
            Self::Not(_)
            | Self::IsTrue(_)
            | Self::Compare(..)
            | Self::In(_)
            | Self::InTexts(..) => Val::Bool(self.holds(scope)),
            Self::Calculate(how, arguments) => Val::real(calculate(*how, arguments, scope)),
            Self::Cat(parts) => cat(parts, scope),
            Self::Substr(arguments) => substr(arguments, scope),
            Self::Merge(parts) => merge(parts, scope),
            Self::Each(how, list, step) => each(*how, list.eval(scope), step, scope),
            Self::Reduce { list, step, start } => reduce(list, step, start, scope),
            Self::Affix(how, arguments) => {
                affix(*how, arguments, scope).map_or(Val::Null, Val::Bool)
            }
            Self::Version(compared) => {
                let (a, relation, b) = compared.as_ref();
                compare_versions(a, relation, b, scope).map_or(Val::Null, Val::Bool)
            }
            Self::Fractional(fractional) => fractional.eval(scope),
        }
    }

    /// Whether its value is true as a condition; what most conditions are needs no value for that.
    fn holds<'a>(&'a self, scope: &Scope<'a>) -> bool {
        match self {
            Self::And(rules) if !rules.is_empty() => rules.iter().all(|rule| rule.holds(scope)),
            Self::Or(rules) => rules.iter().any(|rule| rule.holds(scope)),
            Self::Not(rule) => !rule.holds(scope),
            Self::IsTrue(rule) => rule.holds(scope),
            Self::Compare(how, arguments) => compare(*how, arguments, scope),
            Self::In(arguments) => contains(arguments, scope),
            Self::InTexts(needle, texts) => match needle.eval(scope) {
                Val::Text(needle) => {
                    let found = texts.binary_search_by(|text| text.as_ref().cmp(&needle));
                    found.is_ok()
                }
                _ => false,
            },
            Self::Affix(how, arguments) => affix(*how, arguments, scope) == Some(true),
            Self::Version(compared) => {
                let (a, relation, b) = compared.as_ref();
                compare_versions(a, relation, b, scope) == Some(true)
            }
            _ => self.eval(scope).is_true(),
        }
    }
}

fn values<'a>(rules: &'a [Rule], scope: &Scope<'a>) -> impl Iterator<Item = Val<'a>> {
    rules.iter().map(|rule| rule.eval(scope))
}

/// An argument; null if it is missing.
fn at<'a>(arguments: &'a [Rule], at: usize, scope: &Scope<'a>) -> Val<'a> {
    arguments.get(at).map_or(Val::Null, |rule| rule.eval(scope))
}

/// A variable that is null is not there, as all of flagd's implementations have it.
fn or_else<'a>(found: Option<Val<'a>>, rule: Option<&'a Rule>, scope: &Scope<'a>) -> Val<'a> {
    match (found, rule) {
        (Some(value), _) if !value.is_null() => value,
        (_, Some(fallback)) => fallback.eval(scope),
        (_, None) => Val::Null,
    }
}

/// The keys that `missing` is asked for: its arguments, or the list that is the first of them.
fn keys_in<'a>(keys: &'a [Rule], scope: &Scope<'a>) -> Vec<Val<'a>> {
    let mut keys: Vec<_> = values(keys, scope).collect();
    if let Some(Val::List(list)) = keys.first() {
        keys = list.iter().collect();
    }
    keys
}

#[inline(never)]
fn missing<'a>(keys: &[Val<'a>], scope: &Scope<'a>) -> Val<'a> {
    let is_missing = |key: &&Val<'a>| match scope.get(&Path::parse(&key.text())) {
        None | Some(Val::Null) => true,
        Some(Val::Text(text)) => text.is_empty(),
        Some(_) => false,
    };
    Val::list(keys.iter().filter(is_missing).cloned().collect())
}

#[inline(never)]
fn missing_some<'a>(arguments: &'a [Rule], scope: &Scope<'a>) -> Val<'a> {
    let Val::List(keys) = at(arguments, 1, scope) else {
        return Val::list(Vec::new());
    };
    let needed = at(arguments, 0, scope).number();
    let keys: Vec<_> = keys.iter().collect();
    let missing = missing(&keys, scope);
    let Val::List(list) = &missing else {
        unreachable!("missing gives a list");
    };
    let found = Val::Number(Number::Natural((keys.len() - list.len()) as u64));
    if found.number() >= needed {
        return Val::list(Vec::new());
    }
    missing
}

/// Conditions and what follows from them by turns; what is left over is for all others.
#[inline(never)]
fn choose<'a>(arguments: &'a [Rule], scope: &Scope<'a>) -> Val<'a> {
    let mut pairs = arguments.chunks_exact(2);
    for pair in &mut pairs {
        if pair[0].holds(scope) {
            return pair[1].eval(scope);
        }
    }
    at(pairs.remainder(), 0, scope)
}

/// The first value that ends it, or the last of all.
#[inline(never)]
fn last_or<'a>(rules: &'a [Rule], scope: &Scope<'a>, ends: impl Fn(&Val<'a>) -> bool) -> Val<'a> {
    let mut last = Val::Null;
    for value in values(rules, scope) {
        last = value;
        if ends(&last) {
            break;
        }
    }
    last
}

#[inline(never)]
fn compare<'a>(how: Comparison, arguments: &'a [Rule], scope: &Scope<'a>) -> bool {
    let (a, b) = (at(arguments, 0, scope), at(arguments, 1, scope));
    let accepts: fn(Ordering) -> bool = match how {
        Comparison::LooselyEqual => return a.loosely_equals(&b),
        Comparison::LooselyUnequal => return !a.loosely_equals(&b),
        Comparison::StrictlyEqual => return a.strictly_equals(&b),
        Comparison::StrictlyUnequal => return !a.strictly_equals(&b),
        Comparison::Less => Ordering::is_lt,
        Comparison::LessOrEqual => Ordering::is_le,
        Comparison::Greater => Ordering::is_gt,
        Comparison::GreaterOrEqual => Ordering::is_ge,
    };
    let in_order = a.order(&b).is_some_and(accepts);
    match arguments.get(2) {
        Some(c) if in_order => b.order(&c.eval(scope)).is_some_and(accepts),
        _ => in_order,
    }
}

#[inline(never)]
fn calculate<'a>(how: Calculation, arguments: &'a [Rule], scope: &Scope<'a>) -> f64 {
    let number = |place| at(arguments, place, scope).number();
    let mut numbers = values(arguments, scope).map(|value| value.number());
    match how {
        Calculation::Add => numbers.fold(0.0, |sum, it| sum + it),
        Calculation::Multiply => numbers.product(),
        Calculation::Subtract if arguments.len() < 2 => -number(0),
        Calculation::Subtract => number(0) - number(1),
        Calculation::Divide => number(0) / number(1),
        Calculation::Remainder => number(0) % number(1),
        // Unlike Rust's, they do not pass over what is no number.
        Calculation::Min => numbers
            .try_fold(f64::INFINITY, |min, it| (!it.is_nan()).then(|| min.min(it)))
            .unwrap_or(f64::NAN),
        Calculation::Max => numbers
            .try_fold(f64::NEG_INFINITY, |max, it| {
                (!it.is_nan()).then(|| max.max(it))
            })
            .unwrap_or(f64::NAN),
    }
}

#[inline(never)]
fn cat<'a>(parts: &'a [Rule], scope: &Scope<'a>) -> Val<'a> {
    if let [only] = parts
        && let Val::Text(text) = only.eval(scope)
    {
        return Val::Text(text);
    }
    let mut text = String::new();
    for value in values(parts, scope) {
        value.write_text(&mut text).expect("a string takes all");
    }
    Val::Text(Cow::Owned(text))
}

/// Characters of a text; a place or a length below zero counts from its end.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "numbers beyond the length of a text mean its ends"
)]
#[inline(never)]
fn substr<'a>(arguments: &'a [Rule], scope: &Scope<'a>) -> Val<'a> {
    let text = at(arguments, 0, scope).text();
    let len = text.chars().count();
    let whole = |value: &Val<'a>| {
        let number = value.number();
        if number.is_nan() { 0.0 } else { number.trunc() }
    };
    let start = whole(&at(arguments, 1, scope));
    let from = if start < 0.0 {
        (len as f64 + start).max(0.0) as usize
    } else {
        (start as usize).min(len)
    };
    let rest = len - from;
    let count = match at(arguments, 2, scope) {
        Val::Null => rest,
        count if whole(&count) < 0.0 => (rest as f64 + whole(&count)).max(0.0) as usize,
        count => (whole(&count) as usize).min(rest),
    };
    Val::Text(slice(&text, from, count).unwrap_or_default())
}

#[inline(never)]
fn contains<'a>(arguments: &'a [Rule], scope: &Scope<'a>) -> bool {
    let needle = at(arguments, 0, scope);
    match at(arguments, 1, scope) {
        Val::List(List::Given(values)) => {
            let mut values = values.iter();
            values.any(|value| Val::of(value).strictly_equals(&needle))
        }
        Val::List(list) => list.iter().any(|value| value.strictly_equals(&needle)),
        // The text of null is "null" here, though nothing in `cat`.
        Val::Text(text) if needle.is_null() => text.contains("null"),
        Val::Text(text) => text.contains(needle.text().as_ref()),
        _ => false,
    }
}

#[inline(never)]
fn merge<'a>(parts: &'a [Rule], scope: &Scope<'a>) -> Val<'a> {
    let mut all = Vec::new();
    for value in values(parts, scope) {
        match value {
            Val::List(list) => all.extend(list.iter()),
            one => all.push(one),
        }
    }
    Val::list(all)
}

/// What is no list is gone through as an empty one.
#[inline(never)]
fn each<'a>(how: Iteration, list: Val<'a>, step: &'a Rule, scope: &Scope<'a>) -> Val<'a> {
    let list = match list {
        Val::List(list) => list,
        _ => List::Given(&[]),
    };
    let asked = *scope.asked();
    let result = |value: &Val<'a>| step.eval(&Scope::Item(asked, value.clone()));
    let holds = |value: &Val<'a>| step.holds(&Scope::Item(asked, value.clone()));
    match how {
        Iteration::Map => Val::list(list.iter().map(|value| result(&value)).collect()),
        Iteration::Filter => Val::list(list.iter().filter(holds).collect()),
        // All of nothing is false: JsonLogic wants it so.
        Iteration::All => Val::Bool(!list.is_empty() && list.iter().all(|value| holds(&value))),
        Iteration::Some => Val::Bool(list.iter().any(|value| holds(&value))),
        Iteration::None => Val::Bool(!list.iter().any(|value| holds(&value))),
    }
}

#[inline(never)]
fn reduce<'a>(list: &'a Rule, step: &'a Rule, start: &'a Rule, scope: &Scope<'a>) -> Val<'a> {
    let start = start.eval(scope);
    let Val::List(list) = list.eval(scope) else {
        return start;
    };
    list.iter().fold(start, |accumulator, current| {
        step.eval(&Scope::Step {
            asked: *scope.asked(),
            current,
            accumulator,
        })
    })
}

#[inline(never)]
fn affix<'a>(how: Affix, arguments: &'a [Rule], scope: &Scope<'a>) -> Option<bool> {
    let [text, affix] = arguments else {
        return None;
    };
    match (text.eval(scope), affix.eval(scope)) {
        (Val::Text(text), Val::Text(affix)) => Some(match how {
            Affix::Starts => text.starts_with(affix.as_ref()),
            Affix::Ends => text.ends_with(affix.as_ref()),
        }),
        _ => None,
    }
}

#[inline(never)]
fn compare_versions<'a>(
    a: &'a Operand,
    relation: &'a Rule,
    b: &'a Operand,
    scope: &Scope<'a>,
) -> Option<bool> {
    let relation = relation_of(&relation.eval(scope))?;
    let version = |operand: &'a Operand| match operand {
        Operand::Known(version) => version.as_ref().map(Cow::Borrowed),
        Operand::Asked(rule) => version_of(&rule.eval(scope)).map(Cow::Owned),
    };
    Some(relation.holds(version(a)?.as_ref(), version(b)?.as_ref()))
}
