//! `fractional`: who gets which of several variants, by hash.
//!
//! Three ways are in use that disagree on nearly everybody; the two that are exact are here, and
//! whoever reads a definition says which ([`Bucketing`]).
//!
//! Invariant: a bucket is `(hash * sum of weights) >> 32` in whole numbers; no real number decides.
//! Invariant: a rule in here is evaluated once at most, however deep `fractional` is in `fractional`.
//! Invariant: nothing is allocated if the key is a text, a number, or a `cat` of such variables, and
//! the variants are texts.

use super::cbor;
use super::eval::{Asked, Scope};
use super::murmur::Murmur3;
use super::rule::Rule;
use super::value::{List, Number, Val};

/// The sum of all weights that is allowed: the greatest 32-bit number with a sign, as flagd has it.
const WEIGHTS_SUM_MAX: u32 = 2_147_483_647;

/// How flagd's `fractional` makes a hash of a key.
///
/// With one definition, the two give nearly every user another variant: what a fleet uses must not
/// be guessed, so there is no default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bucketing {
    /// The bytes of a text are hashed; without a key of its own, those of the flag's key followed by
    /// the targeting key. flagd's daemon since core 0.15 and JavaScript's provider do this.
    V2,
    /// Any value is hashed as deterministic CBOR; without a key of its own, the list of the flag's
    /// key and the targeting key. flagd's providers of autumn 2026 for Python and Rust do this.
    V3,
}

/// A compiled `fractional`.
#[derive(Debug)]
pub(super) struct Fractional {
    how: Bucketing,
    first: First,
    shares: Box<[Share]>,
    /// Where each share ends, if all weights are constants and they make sense.
    ends: Option<Box<[u64]>>,
    /// Whether no variant can be a list or an object.
    scalar: bool,
    /// The hash of what comes before a targeting key, which is the same for everybody.
    before_targeting_key: Murmur3,
}

/// The first argument of `fractional`.
#[derive(Debug)]
pub(super) enum First {
    /// There is none or it is a share: flag and targeting key make the key.
    Share,
    /// Constants and variables whose texts are hashed one after the other.
    Cat(Box<[Rule]>),
    /// The key, unless it turns out to be a list, which is a share.
    Key(Rule),
}

/// A variant and its weight.
#[derive(Debug)]
pub(super) enum Share {
    Pair {
        variant: Rule,
        weight: Option<Rule>,
    },
    /// A list that is known only when a context is.
    Computed(Rule),
}

impl Fractional {
    /// Of a rule of the flag that has this key.
    pub(super) fn new(how: Bucketing, flag: &str, first: First, shares: Box<[Share]>) -> Self {
        let mut before_targeting_key = Murmur3::default();
        match how {
            Bucketing::V2 => before_targeting_key.write(flag.as_bytes()),
            Bucketing::V3 => {
                cbor::write_list_head(2, &mut before_targeting_key);
                cbor::write_text(flag, &mut before_targeting_key);
            }
        }
        let scalar = |share: &Share| match share {
            Share::Pair { variant, .. } => variant.is_scalar(),
            Share::Computed(_) => false,
        };
        Self {
            scalar: shares.iter().all(scalar),
            ends: constant_ends(&shares),
            before_targeting_key,
            how,
            first,
            shares,
        }
    }

    /// The variant; null if nobody can be bucketed or the weights make no sense.
    pub(super) fn eval<'a>(&'a self, scope: &Scope<'a>) -> Val<'a> {
        self.pick(scope).unwrap_or(Val::Null)
    }

    fn pick<'a>(&'a self, scope: &Scope<'a>) -> Option<Val<'a>> {
        let (hash, list) = self.hash(scope)?;
        match (&self.ends, list) {
            (Some(ends), None) if self.is_lazy() => {
                Some(self.shares[place(hash, ends)?].variant(scope))
            }
            (_, list) => self.pick_of_all(hash, list, scope),
        }
    }

    /// As [`Self::pick`] if every share must be looked at, each once: they may have `fractional` in
    /// them, and theirs too.
    // Not in the frame of those who need it not.
    #[inline(never)]
    fn pick_of_all<'a>(
        &'a self,
        hash: u32,
        list: Option<List<'a>>,
        scope: &Scope<'a>,
    ) -> Option<Val<'a>> {
        let computed = |share: &Share| matches!(share, Share::Computed(_));
        let lazy = self.is_lazy() && list.is_none() && !self.shares.iter().any(computed);
        let mut ends = Ends::default();
        let mut variants = Vec::new();
        if let Some(list) = &list {
            let (variant, weight) = share_in(list)?;
            ends.push(weight);
            variants.push(self.variant(variant)?);
        }
        for share in &self.shares {
            match share {
                Share::Computed(rule) => {
                    let Val::List(list) = rule.eval(scope) else {
                        return None;
                    };
                    let (variant, weight) = share_in(&list)?;
                    ends.push(weight);
                    variants.push(self.variant(variant)?);
                }
                Share::Pair { variant, weight } => {
                    ends.push(match weight {
                        Some(weight) => weight_of(&weight.eval(scope))?,
                        None => 1,
                    });
                    if !lazy {
                        variants.push(self.variant(variant.eval(scope))?);
                    }
                }
            }
        }
        let at = place(hash, ends.as_slice())?;
        if lazy {
            return Some(self.shares[at].variant(scope));
        }
        Some(variants.swap_remove(at))
    }

    /// Whether a variant that is not picked makes no difference.
    fn is_lazy(&self) -> bool {
        self.scalar || self.how == Bucketing::V3
    }

    /// The hash of the key, and the first argument if it is a share after all.
    fn hash<'a>(&'a self, scope: &Scope<'a>) -> Option<(u32, Option<List<'a>>)> {
        let mut murmur = Murmur3::default();
        match &self.first {
            First::Share => return Some((self.of_targeting_key(scope.asked())?, None)),
            First::Cat(parts) => self.write_cat(parts, scope, &mut murmur),
            First::Key(rule) => match (rule.eval(scope), self.how) {
                (Val::List(list), _) => {
                    return Some((self.of_targeting_key(scope.asked())?, Some(list)));
                }
                (Val::Text(key), Bucketing::V2) => murmur.write(key.as_bytes()),
                (Val::Null, _) | (_, Bucketing::V2) => return None,
                (key, Bucketing::V3) => cbor::write(&key, &mut murmur),
            },
        }
        Some((murmur.finish(), None))
    }

    /// The hash of flag and targeting key; none if there is no targeting key.
    fn of_targeting_key(&self, asked: &Asked<'_>) -> Option<u32> {
        let targeting_key = asked.context.targeting_key()?;
        if targeting_key.is_empty() {
            return None;
        }
        let mut murmur = self.before_targeting_key.clone();
        match self.how {
            Bucketing::V2 => murmur.write(targeting_key.as_bytes()),
            Bucketing::V3 => cbor::write_text(targeting_key, &mut murmur),
        }
        Some(murmur.finish())
    }

    /// What `cat` would make of the parts, without making it.
    fn write_cat<'a>(&'a self, parts: &'a [Rule], scope: &Scope<'a>, out: &mut Murmur3) {
        if self.how == Bucketing::V3 {
            let mut length = cbor::Length::default();
            for part in parts {
                let value = part.eval(scope);
                value.write_text(&mut length).expect("counting takes all");
            }
            cbor::write_text_head(length.0, out);
        }
        for part in parts {
            let value = part.eval(scope);
            value.write_text(out).expect("hashing takes all");
        }
    }

    /// The variant of a share, if it is one.
    fn variant<'a>(&self, variant: Val<'a>) -> Option<Val<'a>> {
        match (&variant, self.how) {
            (Val::List(_) | Val::Object(_), Bucketing::V2) => None,
            _ => Some(variant),
        }
    }
}

impl Share {
    fn variant<'a>(&'a self, scope: &Scope<'a>) -> Val<'a> {
        match self {
            Self::Pair { variant, .. } => variant.eval(scope),
            Self::Computed(_) => unreachable!("it was computed with its weight"),
        }
    }
}

/// Where the shares end that were looked at; on the stack if they are few.
#[derive(Debug, Default)]
struct Ends {
    few: [u64; Self::FEW],
    len: usize,
    /// All of them, if they are more.
    many: Vec<u64>,
}

impl Ends {
    /// More variants than nearly every flag has.
    const FEW: usize = 16;

    fn push(&mut self, weight: u64) {
        let end = self.as_slice().last().unwrap_or(&0) + weight;
        if let Some(place) = self.few.get_mut(self.len) {
            *place = end;
        } else {
            if self.many.is_empty() {
                self.many.extend(self.few);
            }
            self.many.push(end);
        }
        self.len += 1;
    }

    fn as_slice(&self) -> &[u64] {
        if self.many.is_empty() {
            &self.few[..self.len]
        } else {
            &self.many
        }
    }
}

/// The share that a hash falls into; none if the weights make no sense together.
fn place(hash: u32, ends: &[u64]) -> Option<usize> {
    let sum = *ends.last()?;
    if sum == 0 || sum > u64::from(WEIGHTS_SUM_MAX) {
        return None;
    }
    let bucket = (u64::from(hash) * sum) >> 32;
    ends.iter().position(|end| bucket < *end)
}

fn constant_ends(shares: &[Share]) -> Option<Box<[u64]>> {
    let mut end = 0;
    let mut add = |share: &Share| {
        end += match share {
            Share::Pair { weight: None, .. } => 1,
            Share::Pair {
                weight: Some(Rule::Constant(weight)),
                ..
            } => weight_of(&Val::of(weight))?,
            Share::Pair { .. } | Share::Computed(_) => return None,
        };
        Some(end)
    };
    shares.iter().map(&mut add).collect()
}

/// The variant and the weight in a list; none if it is no share.
fn share_in<'a>(list: &List<'a>) -> Option<(Val<'a>, u64)> {
    match list.len() {
        1 => Some((list.at(0), 1)),
        2 => Some((list.at(0), weight_of(&list.at(1))?)),
        _ => None,
    }
}

/// A whole number; below zero it is zero, which a ramp that has not begun computes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the bounds are checked before"
)]
fn weight_of(value: &Val<'_>) -> Option<u64> {
    match value {
        Val::Number(Number::Natural(it)) if *it <= WEIGHTS_SUM_MAX.into() => Some(*it),
        Val::Number(Number::Negative(_)) => Some(0),
        Val::Number(Number::Real(it)) if it.fract() == 0.0 && *it < 0.0 => Some(0),
        Val::Number(Number::Real(it)) if it.fract() == 0.0 && *it <= WEIGHTS_SUM_MAX.into() => {
            Some(*it as u64)
        }
        _ => None,
    }
}
