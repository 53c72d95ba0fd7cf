//! `JsonLogic` as a tree that is checked and prepared once.
//!
//! What a rule is, and how one comes from JSON; [`super::eval`] computes with it. The operators are
//! those that flagd's schema has, and `?:` and `log`, which every implementation has.
//!
//! Invariant: a compiled rule has only operators that are known, no reference, and at most
//! [`RULE_NODES_MAX`] nodes of [`RULE_DEPTH_MAX`] levels, so that evaluating it ends.

use serde_json::{Map, Value};

use super::bucket::{Bucketing, First, Fractional, Share};
use super::value::Val;
use super::version::{Relation, version_of};

/// How many nodes a rule may have after its references were replaced: references to references grow
/// exponentially, and a hand-written rule has hundreds.
const RULE_NODES_MAX: usize = 100_000;
/// How deep a rule may be, as `serde_json` bounds what it reads: the depth of the stack on evaluation.
const RULE_DEPTH_MAX: usize = 128;
/// From how many texts on `in` looks them up instead of comparing each.
const TEXTS_SORTED_MIN: usize = 8;

/// A compiled rule.
#[derive(Debug)]
pub(super) enum Rule {
    Constant(Value),
    List(Box<[Rule]>),
    Var {
        path: Path,
        fallback: Option<Box<Rule>>,
    },
    /// A variable whose name is computed.
    VarOf {
        path: Box<Rule>,
        fallback: Option<Box<Rule>>,
    },
    Missing(Box<[Rule]>),
    MissingSome(Box<[Rule]>),
    If(Box<[Rule]>),
    And(Box<[Rule]>),
    Or(Box<[Rule]>),
    Not(Box<Rule>),
    IsTrue(Box<Rule>),
    Compare(Comparison, Box<[Rule]>),
    Calculate(Calculation, Box<[Rule]>),
    Cat(Box<[Rule]>),
    Substr(Box<[Rule]>),
    In(Box<[Rule]>),
    /// `in` with many texts that are known; they are sorted.
    InTexts(Box<Rule>, Box<[Box<str>]>),
    Merge(Box<[Rule]>),
    Each(Iteration, Box<Rule>, Box<Rule>),
    Reduce {
        list: Box<Rule>,
        step: Box<Rule>,
        start: Box<Rule>,
    },
    /// A text begins with another, or ends with it.
    Affix(Affix, Box<[Rule]>),
    Version(Box<(Operand, Rule, Operand)>),
    Fractional(Box<Fractional>),
}

/// Where a variable is.
#[derive(Debug)]
pub(super) enum Path {
    /// All of what can be asked for.
    Whole,
    /// The key of the flag; outside of a flag a name like others.
    FlagKey,
    /// The time of the evaluation; outside of a flag a name like others.
    Timestamp,
    TargetingKey,
    /// One name, which is that of an attribute if a flag is asked for.
    Name(Box<str>),
    /// Names from the outermost to the innermost; one only if it is `$flagd`.
    Names(Box<[Box<str>]>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Comparison {
    LooselyEqual,
    LooselyUnequal,
    StrictlyEqual,
    StrictlyUnequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Calculation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Min,
    Max,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Iteration {
    Map,
    Filter,
    All,
    Some,
    None,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Affix {
    Starts,
    Ends,
}

/// A version to compare.
#[derive(Debug)]
pub(super) enum Operand {
    /// Known when the rule was compiled; none if it is no version.
    Known(Option<semver::Version>),
    Asked(Rule),
}

/// Why a rule cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// An operator that flagd does not have.
    #[error("there is no operator {0:?}")]
    UnknownOperator(String),
    /// A `$ref` to an evaluator that is not among `$evaluators`.
    #[error("there is no evaluator {0:?}")]
    UnknownEvaluator(String),
    /// A `$ref` that leads back to itself.
    #[error("evaluator {0:?} refers to itself")]
    CircularEvaluator(String),
    /// A `targeting` that is no object.
    #[error("a rule is an object")]
    NotAnObject,
    /// More nodes than can be.
    #[error("the rule has more than {RULE_NODES_MAX} nodes")]
    TooLarge,
    /// More levels than can be.
    #[error("the rule has more than {RULE_DEPTH_MAX} levels")]
    TooDeep,
}

impl Path {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "" => Self::Whole,
            "$flagd.flagKey" => Self::FlagKey,
            "$flagd.timestamp" => Self::Timestamp,
            "targetingKey" => Self::TargetingKey,
            _ if text.contains('.') || text == "$flagd" => {
                Self::Names(text.split('.').map(Box::from).collect())
            }
            _ => Self::Name(text.into()),
        }
    }
}

impl Rule {
    /// Whether there is nothing to compute.
    fn is_plain(&self) -> bool {
        match self {
            Self::Constant(_) => true,
            Self::Var { fallback, .. } => fallback.as_deref().is_none_or(Self::is_plain),
            _ => false,
        }
    }

    /// Whether its value is never a list nor an object.
    pub(super) fn is_scalar(&self) -> bool {
        match self {
            Self::Constant(value) => !value.is_array() && !value.is_object(),
            Self::And(rules) | Self::Or(rules) => rules.iter().all(Self::is_scalar),
            // Its conditions are no values of it, but for a lone one.
            Self::If(rules) => {
                let mut pairs = rules.chunks_exact(2);
                pairs.all(|pair| pair[1].is_scalar())
                    && rules.chunks_exact(2).remainder().iter().all(Self::is_scalar)
            }
            Self::Not(_)
            | Self::IsTrue(_)
            | Self::Compare(..)
            | Self::Calculate(..)
            | Self::Cat(_)
            | Self::Substr(_)
            | Self::In(_)
            | Self::InTexts(..)
            | Self::Affix(..)
            | Self::Version(_)
            // With the second way of bucketing it is null rather than a list; with the third it
            // makes no difference.
            | Self::Fractional(_) => true,
            Self::Each(how, ..) => {
                matches!(how, Iteration::All | Iteration::Some | Iteration::None)
            }
            Self::List(_)
            | Self::Var { .. }
            | Self::VarOf { .. }
            | Self::Missing(_)
            | Self::MissingSome(_)
            | Self::Merge(_)
            | Self::Reduce { .. } => false,
        }
    }
}

/// Compiles the rule of one flag.
#[derive(Debug)]
pub(super) struct Compiler<'d> {
    flag: &'d str,
    evaluators: Option<&'d Map<String, Value>>,
    bucketing: Bucketing,
    nodes: usize,
    depth: usize,
    /// The evaluators that are being replaced, outermost first.
    open: Vec<&'d str>,
}

impl<'d> Compiler<'d> {
    /// For the rule of one flag.
    pub(super) fn new(
        flag: &'d str,
        evaluators: Option<&'d Map<String, Value>>,
        bucketing: Bucketing,
    ) -> Self {
        Self {
            flag,
            evaluators,
            bucketing,
            nodes: 0,
            depth: 0,
            open: Vec::new(),
        }
    }

    /// Compiles one rule, or a value that stands where a rule may.
    pub(super) fn compile(&mut self, logic: &'d Value) -> Result<Rule, RuleError> {
        self.nodes += 1;
        if self.nodes > RULE_NODES_MAX {
            return Err(RuleError::TooLarge);
        }
        if self.depth == RULE_DEPTH_MAX {
            return Err(RuleError::TooDeep);
        }
        self.depth += 1;
        let rule = match logic {
            Value::Array(items) if !is_constant(logic) => Rule::List(self.all(items)?),
            // With several names, or none, it is data.
            Value::Object(object) if object.len() == 1 => {
                let (operator, arguments) = object.iter().next().expect("there is one");
                self.operation(operator, arguments)?
            }
            _ => Rule::Constant(logic.clone()),
        };
        self.depth -= 1;
        Ok(rule)
    }

    fn operation(&mut self, operator: &'d str, given: &'d Value) -> Result<Rule, RuleError> {
        if operator == "$ref" {
            return self.evaluator(given);
        }
        // `{"!": true}` is short for `{"!": [true]}`.
        let arguments = match given {
            Value::Array(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        if let Some(comparison) = comparison(operator) {
            return Ok(Rule::Compare(comparison, self.all(arguments)?));
        }
        if let Some(calculation) = calculation(operator) {
            return Ok(Rule::Calculate(calculation, self.all(arguments)?));
        }
        if let Some(iteration) = iteration(operator) {
            let [list, step] = [self.at(arguments, 0)?, self.at(arguments, 1)?];
            return Ok(Rule::Each(iteration, list, step));
        }
        Ok(match operator {
            "var" => self.var(arguments)?,
            "missing" => Rule::Missing(self.all(arguments)?),
            "missing_some" => Rule::MissingSome(self.all(arguments)?),
            "if" | "?:" => Rule::If(self.all(arguments)?),
            "and" => Rule::And(self.all(arguments)?),
            "or" => Rule::Or(self.all(arguments)?),
            "!" => Rule::Not(self.at(arguments, 0)?),
            "!!" => Rule::IsTrue(self.at(arguments, 0)?),
            "cat" => Rule::Cat(self.all(arguments)?),
            "substr" => Rule::Substr(self.all(arguments)?),
            "in" => self.contained(arguments)?,
            "merge" => Rule::Merge(self.all(arguments)?),
            "reduce" => Rule::Reduce {
                list: self.at(arguments, 0)?,
                step: self.at(arguments, 1)?,
                start: self.at(arguments, 2)?,
            },
            // Its value is its argument; nothing is logged, for an evaluation has no effects.
            "log" => *self.at(arguments, 0)?,
            "starts_with" => Rule::Affix(Affix::Starts, self.all(arguments)?),
            "ends_with" => Rule::Affix(Affix::Ends, self.all(arguments)?),
            "sem_ver" => self.version(arguments)?,
            "fractional" => self.fractional(arguments)?,
            unknown => return Err(RuleError::UnknownOperator(unknown.to_owned())),
        })
    }

    fn all(&mut self, logic: &'d [Value]) -> Result<Box<[Rule]>, RuleError> {
        logic.iter().map(|one| self.compile(one)).collect()
    }

    /// An argument; null if it is missing.
    fn at(&mut self, arguments: &'d [Value], at: usize) -> Result<Box<Rule>, RuleError> {
        let rule = match arguments.get(at) {
            Some(argument) => self.compile(argument)?,
            None => Rule::Constant(Value::Null),
        };
        Ok(Box::new(rule))
    }

    /// What a `$ref` stands for. An evaluator may refer to others, which flagd leaves to chance.
    fn evaluator(&mut self, name: &'d Value) -> Result<Rule, RuleError> {
        let unknown = |name: String| Err(RuleError::UnknownEvaluator(name));
        let Some(name) = name.as_str() else {
            return unknown(name.to_string());
        };
        if self.open.contains(&name) {
            return Err(RuleError::CircularEvaluator(name.to_owned()));
        }
        let Some(logic) = self.evaluators.and_then(|all| all.get(name)) else {
            return unknown(name.to_owned());
        };
        self.open.push(name);
        let rule = self.compile(logic)?;
        self.open.pop();
        Ok(rule)
    }

    fn var(&mut self, arguments: &'d [Value]) -> Result<Rule, RuleError> {
        let fallback = match arguments.get(1) {
            Some(fallback) => Some(Box::new(self.compile(fallback)?)),
            None => None,
        };
        let path = self.at(arguments, 0)?;
        Ok(match *path {
            Rule::Constant(path) => Rule::Var {
                path: Path::parse(&Val::of(&path).text()),
                fallback,
            },
            computed => Rule::VarOf {
                path: Box::new(computed),
                fallback,
            },
        })
    }

    fn contained(&mut self, arguments: &'d [Value]) -> Result<Rule, RuleError> {
        let texts: Option<Vec<&str>> = match arguments.get(1) {
            Some(Value::Array(items)) if items.len() >= TEXTS_SORTED_MIN => {
                items.iter().map(Value::as_str).collect()
            }
            _ => None,
        };
        let Some(mut texts) = texts else {
            return Ok(Rule::In(self.all(arguments)?));
        };
        texts.sort_unstable();
        let texts = texts.into_iter().map(Box::from).collect();
        Ok(Rule::InTexts(self.at(arguments, 0)?, texts))
    }

    fn version(&mut self, arguments: &'d [Value]) -> Result<Rule, RuleError> {
        let [a, relation, b] = arguments else {
            // Still compiled, so that an unknown operator in it is seen.
            self.all(arguments)?;
            return Ok(Rule::Constant(Value::Null));
        };
        let [a, b] = [self.operand(a)?, self.operand(b)?];
        Ok(Rule::Version(Box::new((a, self.compile(relation)?, b))))
    }

    fn operand(&mut self, logic: &'d Value) -> Result<Operand, RuleError> {
        Ok(match self.compile(logic)? {
            Rule::Constant(value) => Operand::Known(version_of(&Val::of(&value))),
            asked => Operand::Asked(asked),
        })
    }

    fn fractional(&mut self, arguments: &'d [Value]) -> Result<Rule, RuleError> {
        let (first, shares) = match arguments {
            [] => return Ok(Rule::Constant(Value::Null)),
            [Value::Array(_), ..] => (First::Share, arguments),
            [first, shares @ ..] => {
                let first = match self.compile(first)? {
                    Rule::Cat(parts) if parts.iter().all(Rule::is_plain) => First::Cat(parts),
                    key => First::Key(key),
                };
                (first, shares)
            }
        };
        let shares: Result<Vec<_>, _> = shares.iter().map(|share| self.share(share)).collect();
        let shares = shares?.into();
        let fractional = Fractional::new(self.bucketing, self.flag, first, shares);
        Ok(Rule::Fractional(Box::new(fractional)))
    }

    fn share(&mut self, logic: &'d Value) -> Result<Share, RuleError> {
        Ok(match logic.as_array().map(Vec::as_slice) {
            Some([variant]) => Share::Pair {
                variant: self.compile(variant)?,
                weight: None,
            },
            Some([variant, weight]) => Share::Pair {
                variant: self.compile(variant)?,
                weight: Some(self.compile(weight)?),
            },
            _ => Share::Computed(self.compile(logic)?),
        })
    }
}

/// Whether there is no operation in it.
fn is_constant(logic: &Value) -> bool {
    match logic {
        Value::Array(items) => items.iter().all(is_constant),
        Value::Object(object) => object.len() != 1,
        _ => true,
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    Some(match operator {
        "==" => Comparison::LooselyEqual,
        "!=" => Comparison::LooselyUnequal,
        "===" => Comparison::StrictlyEqual,
        "!==" => Comparison::StrictlyUnequal,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn calculation(operator: &str) -> Option<Calculation> {
    Some(match operator {
        "+" => Calculation::Add,
        "-" => Calculation::Subtract,
        "*" => Calculation::Multiply,
        "/" => Calculation::Divide,
        "%" => Calculation::Remainder,
        "min" => Calculation::Min,
        "max" => Calculation::Max,
        _ => return None,
    })
}

fn iteration(operator: &str) -> Option<Iteration> {
    Some(match operator {
        "map" => Iteration::Map,
        "filter" => Iteration::Filter,
        "all" => Iteration::All,
        "some" => Iteration::Some,
        "none" => Iteration::None,
        _ => return None,
    })
}

/// The relation that a sign means in `sem_ver`.
pub(super) fn relation_of(value: &Val<'_>) -> Option<Relation> {
    match value {
        Val::Text(sign) => Relation::of(sign),
        _ => None,
    }
}
