//! A definition made ready: names are numbers, salts are hashed, nothing is left to look up.

use serde_json::{Map, Value};

use crate::bucket::{Bucket, Percent, Seed};
use crate::condition::{Attribute, Condition};
use crate::definition::{Definition, Requirement, Serve};
use crate::rollout::Rollout;

/// What the metadata of an archived flag say.
const ARCHIVED: &str = "archived";

/// A flag, ready to be evaluated. Variants are numbers: places in `variants`.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Neither switched off nor archived.
    pub(crate) is_on: bool,
    pub(crate) shortcut: Shortcut,
    pub(crate) default: Option<u32>,
    pub(crate) off: Option<u32>,
    pub(crate) rules: Box<[Rule]>,
    /// Ids and their variants, in the order of the ids.
    pub(crate) targets: Box<[(Box<str>, u32)]>,
    pub(crate) requires: Box<[Requirement]>,
    pub(crate) variants: Box<[(Box<str>, Value)]>,
    pub(crate) metadata: Option<Map<String, Value>>,
}

/// What most flags are, decided without looking at rules.
#[derive(Debug)]
pub(crate) enum Shortcut {
    None,
    /// Everybody gets the same.
    Static,
    /// A fixed percentage of all targeting keys gets a variant, and that is all there is.
    Percentage(Percent, Seed, u32),
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) condition: Option<Condition>,
    /// None if the rule is for all for whom the condition holds.
    pub(crate) share: Option<Share>,
    pub(crate) serve: Given,
}

/// How many, and of what.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) rollout: Rollout,
    pub(crate) by: Attribute,
    pub(crate) seed: Seed,
}

#[derive(Debug)]
pub(crate) enum Given {
    Variant(u32),
    /// In order and not overlapping; what lies between them is given nothing.
    Split(Seed, Box<[Range]>),
}

#[derive(Debug)]
pub(crate) struct Range {
    start: u32,
    end: u32,
    variant: u32,
}

impl Flag {
    /// Makes a definition ready; the flag's name is its salt unless it has another.
    pub(crate) fn compile(name: &str, definition: Definition) -> Self {
        let salt = definition.salt.as_deref().unwrap_or(name);
        let variants = &definition.variants;
        let rules = definition.rules.into_iter().map(|rule| {
            let salt = rule.salt.as_deref().unwrap_or(salt);
            let serve = match rule.serve {
                Serve::Variant(variant) => Given::Variant(variant),
                Serve::Split(split) => {
                    let ranges = split.ranges().map(|(start, end, name)| Range {
                        start,
                        end,
                        variant: variants.find(name).expect("the definition was checked"),
                    });
                    Given::Split(Seed::for_split(salt), ranges.collect())
                }
            };
            let is_shared = rule.rollout.is_some() || matches!(serve, Given::Split(..));
            let share = is_shared.then(|| Share {
                rollout: rule.rollout.unwrap_or(Rollout::ALL),
                by: rule.by.unwrap_or_else(|| definition.by.clone()),
                seed: Seed::new(salt),
            });
            Rule {
                condition: rule.condition,
                share,
                serve,
            }
        });
        let rules: Box<[Rule]> = rules.collect();
        let mut metadata = definition.metadata;
        if definition.archived {
            metadata.insert(ARCHIVED.to_owned(), true.into());
        }
        let targets = definition.targets.into_iter();
        let targets: Box<[_]> = targets.map(|(id, variant)| (id.into(), variant)).collect();
        let all = variants.all().iter();
        Self {
            is_on: definition.enabled && !definition.archived,
            shortcut: Shortcut::of(&rules, &targets, &definition.requires),
            default: definition.default,
            off: definition.off,
            rules,
            targets,
            requires: definition.requires.into(),
            variants: all
                .map(|(name, value)| (name.as_str().into(), value.clone()))
                .collect(),
            metadata: (!metadata.is_empty()).then_some(metadata),
        }
    }
}

impl Shortcut {
    fn of(rules: &[Rule], targets: &[(Box<str>, u32)], requires: &[Requirement]) -> Self {
        if !targets.is_empty() {
            return Self::None;
        }
        match rules {
            [] if requires.is_empty() => Self::Static,
            [
                Rule {
                    condition: None,
                    share: Some(share),
                    serve: Given::Variant(variant),
                },
            ] if share.by.is_targeting_key() => match share.rollout.fixed_percent() {
                Some(percent) => Self::Percentage(percent, share.seed, *variant),
                None => Self::None,
            },
            _ => Self::None,
        }
    }
}

impl Given {
    /// The variant that everybody gets; none if that depends on who it is.
    pub(crate) fn for_all(&self) -> Option<u32> {
        match self {
            Self::Variant(variant) => Some(*variant),
            Self::Split(_, ranges) => match &ranges[..] {
                [range] if range.start == 0 && range.end == Percent::ALL.thousandths() => {
                    Some(range.variant)
                }
                _ => None,
            },
        }
    }

    /// The variant that an id gets; none if it is given nothing.
    #[inline]
    pub(crate) fn for_id(&self, id: &[u8]) -> Option<u32> {
        match self {
            Self::Variant(variant) => Some(*variant),
            Self::Split(seed, ranges) => in_ranges(ranges, seed.bucket(id)),
        }
    }
}

fn in_ranges(ranges: &[Range], bucket: Bucket) -> Option<u32> {
    let bucket = bucket.thousandths();
    let after = ranges.partition_point(|range| range.start <= bucket);
    let range = &ranges[after.checked_sub(1)?];
    (bucket < range.end).then_some(range.variant)
}
