//! What rules compute with: JSON's values, borrowed where they can be, converted as JavaScript does.
//!
//! `JsonLogic` is defined by a JavaScript program, so truth, equality, order and the text of a number
//! are JavaScript's. Two things are not: whole numbers of up to 64 bits keep all their digits, and
//! texts are in the order of their code points (JavaScript's is that of UTF-16 units).
//!
//! Invariant: nothing here allocates for values that are given and for scalars; lists, objects and
//! texts that a rule makes do.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::rc::Rc;

use serde_json::{Map, Value};

/// A value in the course of an evaluation.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    /// Nothing; also what JavaScript calls undefined.
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(List<'a>),
    Object(Object<'a>),
}

/// A number of JSON, or one that a rule computed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Natural(u64),
    /// Below zero.
    Negative(i64),
    Real(f64),
}

/// Values in a row: of the definition or the context, or made by a rule.
#[derive(Debug, Clone)]
pub(super) enum List<'a> {
    Given(&'a [Value]),
    Made(Rc<[Val<'a>]>),
}

/// Values by name: of the definition or the context, or made for a rule.
#[derive(Debug, Clone)]
pub(super) enum Object<'a> {
    Given(&'a Map<String, Value>),
    /// No name is there twice.
    Made(Rc<[(&'a str, Val<'a>)]>),
}

impl<'a> Val<'a> {
    /// Borrows a value of JSON.
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(it) => Self::Bool(*it),
            Value::Number(it) => Self::Number(Number::of(it)),
            Value::String(it) => Self::Text(Cow::Borrowed(it)),
            Value::Array(it) => Self::List(List::Given(it)),
            Value::Object(it) => Self::Object(Object::Given(it)),
        }
    }

    pub(super) fn real(number: f64) -> Self {
        Self::Number(Number::Real(number))
    }

    pub(super) fn text_of(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    pub(super) fn list(values: Vec<Self>) -> Self {
        Self::List(List::Made(values.into()))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether a condition takes it for true. An empty list is false, an empty object is not.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(it) => *it,
            Self::Number(it) => {
                let it = it.real();
                it != 0.0 && !it.is_nan()
            }
            Self::Text(it) => !it.is_empty(),
            Self::List(it) => !it.is_empty(),
            Self::Object(_) => true,
        }
    }

    /// The number that it is taken for in a calculation; NaN if for none.
    pub(super) fn number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(it) => f64::from(u8::from(*it)),
            Self::Number(it) => it.real(),
            Self::Text(it) => number_in(it),
            Self::List(_) => number_in(&self.text()),
            Self::Object(_) => f64::NAN,
        }
    }

    /// Its text, as `cat` puts it together: nothing for null.
    pub(super) fn write_text(&self, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Bool(it) => out.write_str(if *it { "true" } else { "false" }),
            Self::Number(it) => it.write_text(out),
            Self::Text(it) => out.write_str(it),
            Self::List(list) => {
                for at in 0..list.len() {
                    if at > 0 {
                        out.write_char(',')?;
                    }
                    // Boxed in a trait object: a list in a list in a list has one type of sink.
                    let sink: &mut dyn Write = out;
                    list.at(at).write_text_to(sink)?;
                }
                Ok(())
            }
            Self::Object(_) => out.write_str("[object Object]"),
        }
    }

    fn write_text_to(&self, mut out: &mut dyn Write) -> fmt::Result {
        self.write_text(&mut out)
    }

    /// Its text as a value of its own.
    pub(super) fn text(&self) -> Cow<'a, str> {
        if let Self::Text(it) = self {
            return it.clone();
        }
        let mut text = String::new();
        self.write_text(&mut text).expect("a string takes all");
        Cow::Owned(text)
    }

    /// The value of this name or at this place; none if there is none.
    pub(super) fn member(&self, name: &str) -> Option<Self> {
        match self {
            Self::Object(it) => it.get(name),
            Self::List(it) if name == "length" => Some(length(it.len())),
            Self::List(it) => {
                let at = index(name)?;
                (at < it.len()).then(|| it.at(at))
            }
            Self::Text(it) if name == "length" => Some(length(it.chars().count())),
            Self::Text(it) => slice(it, index(name)?, 1).map(Self::Text),
            Self::Null | Self::Bool(_) | Self::Number(_) => None,
        }
    }

    /// Equality after conversion: `==`.
    pub(super) fn loosely_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Null, _) | (_, Self::Null) => false,
            (Self::List(_) | Self::Object(_), Self::List(_) | Self::Object(_))
            | (Self::Text(_), Self::Text(_))
            | (Self::Number(_), Self::Number(_)) => self.strictly_equals(other),
            (Self::List(_) | Self::Object(_), _) => Self::Text(self.text()).loosely_equals(other),
            (_, Self::List(_) | Self::Object(_)) => Self::Text(other.text()).loosely_equals(self),
            _ => self.number().partial_cmp(&other.number()) == Some(Ordering::Equal),
        }
    }

    /// Equality without conversion: `===`. Lists and objects equal only themselves.
    pub(super) fn strictly_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a.order(*b) == Some(Ordering::Equal),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.is(b),
            (Self::Object(a), Self::Object(b)) => a.is(b),
            _ => false,
        }
    }

    /// Their order: that of texts if both are texts, that of numbers otherwise; none if there is none.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.as_ref().cmp(b.as_ref())),
            (Self::Number(a), Self::Number(b)) => a.order(*b),
            (Self::List(_) | Self::Object(_), _) => Self::Text(self.text()).order(other),
            (_, Self::List(_) | Self::Object(_)) => self.order(&Self::Text(other.text())),
            _ => self.number().partial_cmp(&other.number()),
        }
    }

    /// A copy as JSON; what is no number in JSON becomes null.
    #[cfg(all(test, feature = "data-of-others"))]
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(it) => Value::Bool(*it),
            Self::Number(Number::Natural(it)) => Value::from(*it),
            Self::Number(Number::Negative(it)) => Value::from(*it),
            Self::Number(Number::Real(it)) => Value::from(*it),
            Self::Text(it) => Value::from(it.as_ref()),
            Self::List(it) => (0..it.len()).map(|at| it.at(at).to_json()).collect(),
            Self::Object(Object::Given(it)) => Value::Object((*it).clone()),
            Self::Object(Object::Made(it)) => {
                let all = it.iter();
                all.map(|(name, value)| ((*name).to_owned(), value.to_json()))
                    .collect()
            }
        }
    }
}

impl Number {
    fn of(number: &serde_json::Number) -> Self {
        if let Some(it) = number.as_u64() {
            Self::Natural(it)
        } else if let Some(it) = number.as_i64() {
            Self::whole(it)
        } else {
            Self::Real(number.as_f64().unwrap_or(f64::NAN))
        }
    }

    pub(super) fn whole(number: i64) -> Self {
        match u64::try_from(number) {
            Ok(number) => Self::Natural(number),
            Err(_) => Self::Negative(number),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "as JavaScript does")]
    pub(super) fn real(self) -> f64 {
        match self {
            Self::Natural(it) => it as f64,
            Self::Negative(it) => it as f64,
            Self::Real(it) => it,
        }
    }

    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Natural(a), Self::Natural(b)) => Some(a.cmp(&b)),
            (Self::Negative(a), Self::Negative(b)) => Some(a.cmp(&b)),
            _ => self.real().partial_cmp(&other.real()),
        }
    }

    /// Its digits as JavaScript writes them, but all of them if it is whole and of JSON.
    pub(super) fn write_text(self, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::Natural(it) => write!(out, "{it}"),
            Self::Negative(it) => write!(out, "{it}"),
            Self::Real(it) if it.is_nan() => out.write_str("NaN"),
            Self::Real(it) if it.is_infinite() => {
                out.write_str(if it > 0.0 { "Infinity" } else { "-Infinity" })
            }
            // Also for -0.
            Self::Real(0.0) => out.write_char('0'),
            // Where JavaScript changes to exponents.
            Self::Real(it) if it.abs() >= 1e21 => write!(SignedExponent(out), "{it:e}"),
            Self::Real(it) if it.abs() < 1e-6 => write!(out, "{it:e}"),
            Self::Real(it) => write!(out, "{it}"),
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Given(it) => it.len(),
            Self::Made(it) => it.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a place.
    ///
    /// # Panics
    ///
    /// If there is no such place.
    pub(super) fn at(&self, at: usize) -> Val<'a> {
        match self {
            Self::Given(it) => Val::of(&it[at]),
            Self::Made(it) => it[at].clone(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).map(|at| self.at(at))
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Given(a), Self::Given(b)) => std::ptr::eq(*a, *b),
            (Self::Made(a), Self::Made(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl<'a> Object<'a> {
    pub(super) fn get(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Self::Given(it) => it.get(name).map(Val::of),
            Self::Made(it) => {
                let (_, value) = it.iter().find(|(known, _)| *known == name)?;
                Some(value.clone())
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Given(it) => it.len(),
            Self::Made(it) => it.len(),
        }
    }

    /// All names and values, in no particular order.
    pub(super) fn pairs(&self) -> Vec<(&str, Val<'a>)> {
        match self {
            Self::Given(it) => it.iter().map(|(k, v)| (k.as_str(), Val::of(v))).collect(),
            Self::Made(it) => it.iter().map(|(k, v)| (*k, v.clone())).collect(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Given(a), Self::Given(b)) => std::ptr::eq(*a, *b),
            (Self::Made(a), Self::Made(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// Writes `1e+21` where Rust writes `1e21`.
struct SignedExponent<'o, W>(&'o mut W);

impl<W: Write> Write for SignedExponent<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.split_once('e') {
            Some((before, after)) => {
                self.0.write_str(before)?;
                self.0.write_str("e+")?;
                self.0.write_str(after)
            }
            None => self.0.write_str(text),
        }
    }
}

/// A text of at most [`Short::MAX`] bytes on the stack: that of a number.
pub(super) struct Short {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Short {
    /// More than the longest number, `-0.0000012345678901234567`.
    const MAX: usize = 32;

    pub(super) fn of(number: Number) -> Self {
        let mut short = Self {
            bytes: [0; Self::MAX],
            len: 0,
        };
        number
            .write_text(&mut short)
            .expect("no number has so many digits");
        short
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("whole texts were written")
    }
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The characters of a text from `from` on, at most `count` of them; none if it ends before that.
pub(super) fn slice<'a>(text: &Cow<'a, str>, from: usize, count: usize) -> Option<Cow<'a, str>> {
    if count > 0 && text.chars().nth(from).is_none() {
        return None;
    }
    let at = |nth| {
        text.char_indices()
            .nth(nth)
            .map_or(text.len(), |(at, _)| at)
    };
    let (begin, end) = (at(from), at(from.saturating_add(count)));
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[begin..end]),
        Cow::Owned(text) => Cow::Owned(text[begin..end].to_owned()),
    })
}

fn length<'a>(of: usize) -> Val<'a> {
    Val::Number(Number::Natural(of as u64))
}

/// The place that a name means: digits without a leading zero.
fn index(name: &str) -> Option<usize> {
    let canonical = name == "0" || !name.starts_with('0');
    if !canonical || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

/// The number that JavaScript reads in a text; NaN if none.
fn number_in(text: &str) -> f64 {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if text.is_empty() {
        return 0.0;
    }
    match text {
        "Infinity" | "+Infinity" => return f64::INFINITY,
        "-Infinity" => return f64::NEG_INFINITY,
        _ => {}
    }
    for (prefixes, radix) in [(["0x", "0X"], 16), (["0o", "0O"], 8), (["0b", "0B"], 2)] {
        for prefix in prefixes {
            if let Some(digits) = text.strip_prefix(prefix) {
                return digits_in(digits, radix);
            }
        }
    }
    // Rust also reads "inf" and "nan".
    let of_decimals = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !text.bytes().all(of_decimals) {
        return f64::NAN;
    }
    text.parse().unwrap_or(f64::NAN)
}

fn digits_in(digits: &str, radix: u32) -> f64 {
    if digits.is_empty() {
        return f64::NAN;
    }
    digits.chars().fold(0.0, |sum, digit| {
        let digit = digit.to_digit(radix).map_or(f64::NAN, f64::from);
        sum * f64::from(radix) + digit
    })
}
