//! From a flag, a context and a time to a variant: no allocation, no lock, no clock.
//!
//! The order: off, targets, rules, default. What a flag requires of others is looked at before, by
//! the set that has them all.

use serde_json::Value;

use crate::bucket::Percent;
use crate::compile::{Flag, Rule, Share, Shortcut};
use crate::condition::Found;
use crate::context::Context;
use crate::definition::WHOLE_MAX;
use crate::moment::Moment;
use crate::outcome::{ErrorCode, Reason};

/// Which variant, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    /// None is the caller's fallback.
    pub(crate) variant: Option<u32>,
    pub(crate) reason: Reason,
    pub(crate) error: Option<ErrorCode>,
}

impl Decision {
    pub(crate) const fn new(variant: Option<u32>, reason: Reason) -> Self {
        Self {
            variant,
            reason,
            error: None,
        }
    }

    pub(crate) const fn error(variant: Option<u32>, error: ErrorCode) -> Self {
        Self {
            variant,
            reason: Reason::Error,
            error: Some(error),
        }
    }
}

/// What went wrong in an evaluation, for people.
pub(crate) const fn text(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::FlagNotFound => "there is no such flag",
        ErrorCode::ParseError => {
            "a flag that this one requires does not exist, makes no sense, or requires this one"
        }
        ErrorCode::TypeMismatch => "the flag's value is of another type",
        ErrorCode::TargetingKeyMissing => {
            "a percentage is taken of the targeting key or an attribute that is not there, or empty"
        }
        ErrorCode::InvalidContext => {
            "a percentage is taken of an attribute that is no string and no whole number"
        }
        _ => error.name(),
    }
}

/// What one rule says.
enum Verdict {
    /// It is about others.
    Other,
    /// Its percentage leaves this one out.
    LeftOut,
    Given(u32, Reason),
    /// It cannot be told.
    Failed(ErrorCode),
}

impl Flag {
    /// What a flag that is on, and whose requirements are met, gives.
    #[inline]
    pub(crate) fn decide(&self, context: &Context<'_>, now: Moment) -> Decision {
        match self.shortcut {
            Shortcut::Static => Decision::new(self.default, Reason::Static),
            Shortcut::Percentage(percent, seed, variant)
                if let Some(id) = context.targeting_key()
                    && !id.is_empty() =>
            {
                let is_in = percent.contains(seed.bucket(id.as_bytes()));
                let variant = if is_in { Some(variant) } else { self.default };
                Decision::new(variant, Reason::Split)
            }
            Shortcut::Percentage(..) | Shortcut::None => self.decide_by_rules(context, now),
        }
    }

    fn decide_by_rules(&self, context: &Context<'_>, now: Moment) -> Decision {
        if let Some(variant) = self.target(context) {
            return Decision::new(Some(variant), Reason::TargetingMatch);
        }
        let mut reason = Reason::Default;
        let mut failed = None;
        for rule in &self.rules {
            match rule.apply(context, now) {
                Verdict::Given(variant, reason) => return Decision::new(Some(variant), reason),
                Verdict::LeftOut => reason = Reason::Split,
                Verdict::Failed(error) => failed = failed.or(Some(error)),
                Verdict::Other => {}
            }
        }
        match failed {
            Some(error) => Decision::error(self.default, error),
            None => Decision::new(self.default, reason),
        }
    }

    #[inline]
    fn target(&self, context: &Context<'_>) -> Option<u32> {
        if self.targets.is_empty() {
            return None;
        }
        let id = context.targeting_key()?;
        let targets = &self.targets;
        let at = targets.binary_search_by(|(known, _)| known.as_ref().cmp(id));
        Some(targets[at.ok()?].1)
    }
}

impl Rule {
    #[inline]
    fn apply(&self, context: &Context<'_>, now: Moment) -> Verdict {
        if let Some(condition) = &self.condition
            && !condition.holds(context)
        {
            return Verdict::Other;
        }
        let Some(share) = &self.share else {
            return match self.serve.for_all() {
                Some(variant) => Verdict::Given(variant, Reason::TargetingMatch),
                None => unreachable!("a split has a share"),
            };
        };
        let percent = share.rollout.at(now);
        if percent == Percent::NONE {
            return Verdict::LeftOut;
        }
        if percent == Percent::ALL
            && let Some(variant) = self.serve.for_all()
        {
            return Verdict::Given(variant, Reason::Split);
        }
        let decided = share.with_id(context, |id| {
            let is_in = percent.contains(share.seed.bucket(id));
            is_in.then(|| self.serve.for_id(id)).flatten()
        });
        match decided {
            Ok(Some(variant)) => Verdict::Given(variant, Reason::Split),
            Ok(None) => Verdict::LeftOut,
            Err(error) => Verdict::Failed(error),
        }
    }
}

impl Share {
    /// Calls `decide` with what the percentage is taken of.
    ///
    /// Whole numbers are their decimal text, since who sends a number in one place sends its text in
    /// another. Nobody in particular is in no bucket, rather than all of them in the same one.
    #[inline]
    fn with_id<T>(
        &self,
        context: &Context<'_>,
        decide: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ErrorCode> {
        match self.by.find(context) {
            Some(Found::Key(id)) if !id.is_empty() => Ok(decide(id.as_bytes())),
            None | Some(Found::Key(_) | Found::Value(Value::Null)) => {
                Err(ErrorCode::TargetingKeyMissing)
            }
            Some(Found::Value(Value::String(id))) if id.is_empty() => {
                Err(ErrorCode::TargetingKeyMissing)
            }
            Some(Found::Value(Value::String(id))) => Ok(decide(id.as_bytes())),
            Some(Found::Value(value)) => {
                let signed = value.as_i64().map(i128::from);
                let whole = signed.or_else(|| value.as_u64().map(i128::from));
                let whole = whole.ok_or(ErrorCode::InvalidContext)?;
                Ok(decide(Decimal::new(whole).text()))
            }
        }
    }
}

/// The decimal text of a whole number of 64 bits, signed or not.
struct Decimal {
    bytes: [u8; Self::LENGTH_MAX],
    start: usize,
}

impl Decimal {
    /// The sign, and the digits of `u64::MAX`.
    const LENGTH_MAX: usize = 21;

    fn new(number: i128) -> Self {
        let mut bytes = [b'-'; Self::LENGTH_MAX];
        let mut start = Self::LENGTH_MAX;
        let mut rest = number.unsigned_abs();
        loop {
            start -= 1;
            bytes[start] = b"0123456789"[usize::try_from(rest % 10).expect("a digit")];
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        start -= usize::from(number < 0);
        if number < 0 {
            bytes[start] = b'-';
        }
        Self { bytes, start }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for bool {}
    impl Sealed for &str {}
    impl Sealed for i64 {}
    impl Sealed for f64 {}
    impl Sealed for &serde_json::Value {}
}

/// A type that a flag can be asked for: `bool`, `&str`, `i64`, `f64`, or any value.
///
/// Nothing is converted but numbers, and these only if nothing is lost: `10.0` is the whole number
/// 10, and a whole number up to 2^53 - 1 is a floating-point number.
pub trait FlagValue<'a>: sealed::Sealed + Sized {
    /// The value as this type; none if it is of another.
    fn of(value: &'a Value) -> Option<Self>;
}

impl<'a> FlagValue<'a> for bool {
    #[inline]
    fn of(value: &'a Value) -> Option<Self> {
        value.as_bool()
    }
}

impl<'a> FlagValue<'a> for &'a str {
    #[inline]
    fn of(value: &'a Value) -> Option<Self> {
        value.as_str()
    }
}

impl<'a> FlagValue<'a> for i64 {
    #[inline]
    fn of(value: &'a Value) -> Option<Self> {
        if let Some(whole) = value.as_i64() {
            return Some(whole);
        }
        let number = value.as_f64()?;
        let is_whole = number.fract() == 0.0 && number.abs() <= WHOLE_MAX;
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within 53 bits")]
        is_whole.then_some(number as i64)
    }
}

impl<'a> FlagValue<'a> for f64 {
    #[inline]
    fn of(value: &'a Value) -> Option<Self> {
        let number = value.as_f64()?;
        let is_exact = value.is_f64() || number.abs() <= WHOLE_MAX;
        is_exact.then_some(number)
    }
}

impl<'a> FlagValue<'a> for &'a Value {
    #[inline]
    fn of(value: &'a Value) -> Option<Self> {
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn a_whole_number_is_its_decimal_text(signed in any::<i64>(), unsigned in any::<u64>()) {
            for number in [signed.into(), unsigned.into(), i128::from(i64::MIN), i128::from(u64::MAX), 0, -1] {
                let text = std::str::from_utf8(Decimal::new(number).text()).unwrap().to_owned();
                prop_assert_eq!(text, number.to_string());
            }
        }
    }

    #[test]
    fn numbers_change_their_type_only_if_nothing_is_lost() {
        let beyond = 9_007_199_254_740_992_i64;
        for (value, whole, float) in [
            (json!(10), Some(10), Some(10.0)),
            (json!(10.0), Some(10), Some(10.0)),
            (json!(3.25), None, Some(3.25)),
            (json!(-0.0), Some(0), Some(0.0)),
            (
                json!(beyond - 1),
                Some(beyond - 1),
                Some(9_007_199_254_740_991.0),
            ),
            (json!(beyond), Some(beyond), None),
            (
                json!(9_007_199_254_740_992.0),
                None,
                Some(9_007_199_254_740_992.0),
            ),
            (json!(u64::MAX), None, None),
            (json!(1e300), None, Some(1e300)),
            (json!("10"), None, None),
            (json!(true), None, None),
        ] {
            assert_eq!(i64::of(&value), whole, "{value} as a whole number");
            assert_eq!(f64::of(&value), float, "{value} as a floating-point number");
        }
    }
}
