//! Versions as `sem_ver` compares them: semver.org's, and what flagd takes besides.
//!
//! A `v` or `V` in front is dropped, `1` and `1.2` stand for `1.0.0` and `1.2.0`, a number is taken as
//! its text, and build metadata does not count.

use std::cmp::Ordering;

use super::value::{Short, Val};

/// How two versions must stand to each other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The first two numbers are the same.
    SameMinor,
    /// The first number is the same.
    SameMajor,
}

impl Relation {
    pub(super) fn of(sign: &str) -> Option<Self> {
        Some(match sign {
            "=" => Self::Equal,
            "!=" => Self::Unequal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "~" => Self::SameMinor,
            "^" => Self::SameMajor,
            _ => return None,
        })
    }

    pub(super) fn holds(self, a: &semver::Version, b: &semver::Version) -> bool {
        let order = a.cmp_precedence(b);
        match self {
            Self::Equal => order == Ordering::Equal,
            Self::Unequal => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
            Self::SameMinor => (a.major, a.minor) == (b.major, b.minor),
            Self::SameMajor => a.major == b.major,
        }
    }
}

/// The version that a value means; none if it means none.
///
/// Allocates only for a pre-release or build of more than eight bytes.
pub(super) fn version_of(value: &Val<'_>) -> Option<semver::Version> {
    match value {
        Val::Text(text) => parse(text),
        Val::Number(number) => parse(Short::of(*number).as_str()),
        _ => None,
    }
}

fn parse(text: &str) -> Option<semver::Version> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    if let Ok(version) = semver::Version::parse(text) {
        return Some(version);
    }
    let (major, minor) = match text.split_once('.') {
        Some((major, minor)) => (number(major)?, number(minor)?),
        None => (number(text)?, 0),
    };
    Some(semver::Version::new(major, minor, 0))
}

/// Digits, without a zero in front of others.
fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
