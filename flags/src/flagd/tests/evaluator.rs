//! The cases of flagd's testbed, which are written in Gherkin.
//!
//! This reads as much of Gherkin as they use: backgrounds, scenarios, outlines with examples, tags,
//! and tables under a step. A step that is not known fails the test.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{data, read, same};
use crate::flagd::{Bucketing, FlagSet};
use crate::{Context, Details, ErrorCode, FlagValue, Moment};

/// Any time: no case asks for it.
const NOW: Moment = Moment::from_unix_ms(1_790_000_000_000);

/// A scenario with its background, or one row of an outline.
#[derive(Debug, Clone, Default)]
struct Case {
    name: String,
    tags: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Default)]
struct Step {
    text: String,
    table: Vec<Vec<String>>,
}

/// The cases of a file.
fn cases(text: &str) -> Vec<Case> {
    let mut reader = Reader::default();
    for line in text.lines().map(str::trim) {
        reader.line(line);
    }
    reader.cases
}

#[derive(Debug, Default)]
struct Reader {
    cases: Vec<Case>,
    tags_of_feature: Vec<String>,
    background: Vec<Step>,
    /// Tags before what they are for.
    tags: Vec<String>,
    scenario: Case,
    /// Of the scenario: of its examples, the tags and the names of the columns.
    tags_of_examples: Vec<String>,
    columns: Vec<String>,
    place: Place,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Place {
    #[default]
    Nowhere,
    Background,
    Scenario,
    Outline,
    Examples,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        if line.starts_with('@') {
            let tags = line.split_whitespace().map(str::to_owned);
            self.tags.extend(tags);
        } else if let Some(cells) = line.strip_prefix('|') {
            let cells = cells.strip_suffix('|').expect("a row ends with a bar");
            self.row(
                cells
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect(),
            );
        } else if line.starts_with("Feature:") {
            self.tags_of_feature = std::mem::take(&mut self.tags);
        } else if line.starts_with("Background:") {
            self.place = Place::Background;
        } else if line.starts_with("Examples:") {
            self.place = Place::Examples;
            self.tags_of_examples = std::mem::take(&mut self.tags);
            self.columns.clear();
        } else if let Some(name) = line.strip_prefix("Scenario Outline:") {
            self.begin(name, Place::Outline);
        } else if let Some(name) = line.strip_prefix("Scenario:") {
            self.begin(name, Place::Scenario);
        } else {
            self.step(line);
        }
    }

    fn begin(&mut self, name: &str, place: Place) {
        self.place = place;
        let mut tags = self.tags_of_feature.clone();
        tags.append(&mut self.tags);
        self.scenario = Case {
            name: name.trim().to_owned(),
            tags,
            steps: self.background.clone(),
        };
        if place == Place::Scenario {
            self.cases.push(self.scenario.clone());
        }
    }

    fn step(&mut self, line: &str) {
        let (keyword, text) = line.split_once(' ').expect("a step has words");
        assert!(
            ["Given", "And", "When", "Then"].contains(&keyword),
            "no step: {line}"
        );
        let step = Step {
            text: text.to_owned(),
            table: Vec::new(),
        };
        match self.place {
            Place::Background => self.background.push(step),
            Place::Scenario => self.cases.last_mut().unwrap().steps.push(step),
            Place::Outline => self.scenario.steps.push(step),
            Place::Nowhere | Place::Examples => panic!("a step in no scenario: {line}"),
        }
    }

    fn row(&mut self, cells: Vec<String>) {
        match self.place {
            Place::Scenario => {
                let step = self.cases.last_mut().unwrap().steps.last_mut();
                step.expect("a table is under a step").table.push(cells);
            }
            Place::Examples if self.columns.is_empty() => self.columns = cells,
            Place::Examples => {
                assert_eq!(cells.len(), self.columns.len(), "{cells:?}");
                let mut case = self.scenario.clone();
                case.tags.extend(self.tags_of_examples.iter().cloned());
                for (column, cell) in self.columns.iter().zip(&cells) {
                    let hole = format!("<{column}>");
                    for step in &mut case.steps {
                        step.text = step.text.replace(&hole, cell);
                    }
                }
                case.name = format!("{} {cells:?}", case.name);
                self.cases.push(case);
            }
            _ => panic!("a row in no table: {cells:?}"),
        }
    }
}

/// A case in the course of its steps.
struct World<'s> {
    set: &'s FlagSet,
    context: Context<'static>,
    kind: String,
    key: String,
    fallback: String,
    outcome: Option<Outcome>,
}

/// What came of an evaluation, with the value as JSON.
struct Outcome {
    value: Value,
    reason: &'static str,
    error: Option<&'static str>,
    metadata: Map<String, Value>,
}

impl Outcome {
    fn of(details: &Details<'_, Value>) -> Self {
        Self {
            value: details.value.clone(),
            reason: details.reason.name(),
            error: details.error.map(ErrorCode::name),
            metadata: details.metadata.cloned().unwrap_or_default(),
        }
    }
}

/// A value as the cases write it, of a type as they name it.
fn literal(kind: &str, text: &str) -> Value {
    let parsed = || serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match kind {
        "String" => Value::from(text),
        "Boolean" | "Integer" => parsed(),
        // A row may say 1 where it means 1.0.
        "Float" => Value::from(text.parse::<f64>().unwrap()),
        "Object" => {
            let text = text.replace("\\\"", "\"");
            serde_json::from_str(&text).unwrap()
        }
        _ => panic!("no type: {kind}"),
    }
}

/// The texts in quotes.
fn quoted(step: &str) -> Vec<&str> {
    step.split('"').skip(1).step_by(2).collect()
}

impl World<'_> {
    fn run(&mut self, step: &Step) {
        let text = step.text.as_str();
        // Values of objects have quotes inside.
        let value = text.split_once("should be \"").map(|(_, rest)| {
            let end = rest.len() - 1;
            &rest[..end]
        });
        let quotes = quoted(text);
        if text == "an evaluator" {
            // It is there.
        } else if let Some((kind, rest)) = text.split_once("-flag with key \"") {
            self.kind = kind.rsplit(' ').next().unwrap().to_owned();
            let (key, rest) = rest.split_once('"').unwrap();
            let (_, fallback) = rest.split_once('"').unwrap();
            self.key = key.to_owned();
            self.fallback = fallback.strip_suffix('"').unwrap().to_owned();
        } else if text.starts_with("a context containing a targeting key with value") {
            let [key] = quotes[..] else { panic!("{text}") };
            let attributes = std::mem::take(&mut self.context);
            self.context = attributes
                .attributes()
                .fold(Context::of(key.to_owned()), |context, (name, value)| {
                    context.with(name.to_owned(), value.clone())
                });
        } else if text.starts_with("a context containing a nested property") {
            let [outer, inner, value] = quotes[..] else {
                panic!("{text}")
            };
            let object = Map::from_iter([(inner.to_owned(), Value::from(value))]);
            self.context.set(outer.to_owned(), object);
        } else if text.starts_with("a context containing a key") {
            let [name, kind, value] = quotes[..] else {
                panic!("{text}")
            };
            self.context.set(name.to_owned(), literal(kind, value));
        } else if text == "the flag was evaluated with details" {
            self.outcome = Some(self.evaluate());
        } else if text.starts_with("the resolved details value should be") {
            let want = literal(&self.kind, value.unwrap());
            let got = &self.outcome().value;
            assert!(same(got, &want), "{got}, not {want}");
        } else if text.starts_with("the reason should be") {
            assert_eq!(Some(self.outcome().reason), value);
        } else if text.starts_with("the error-code should be") {
            assert_eq!(self.outcome().error, value);
        } else if text == "the resolved metadata is empty" {
            assert_eq!(self.outcome().metadata, Map::new());
        } else if text == "the resolved metadata should contain" {
            let rows: Vec<_> = step.table[1..].iter().collect();
            let want: Map<String, Value> = rows
                .iter()
                .map(|row| (row[0].clone(), literal(&row[1], &row[2])))
                .collect();
            assert_eq!(self.outcome().metadata, want);
        } else {
            panic!("an unknown step");
        }
    }

    fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().expect("it was evaluated before")
    }

    fn evaluate(&self) -> Outcome {
        let fallback = literal(&self.kind, &self.fallback);
        match self.kind.as_str() {
            "Boolean" => self.evaluate_as(fallback.as_bool().unwrap()),
            "String" => self.evaluate_as(fallback.as_str().unwrap()),
            "Integer" => self.evaluate_as(fallback.as_i64().unwrap()),
            "Float" => self.evaluate_as(fallback.as_f64().unwrap()),
            "Object" => {
                let details = self.set.details(&self.key, &self.context, NOW, &fallback);
                Outcome::of(&details.map(Value::clone))
            }
            kind => panic!("no type: {kind}"),
        }
    }

    fn evaluate_as<'a, T: FlagValue<'a> + Into<Value>>(&'a self, fallback: T) -> Outcome {
        let details = self.set.details(&self.key, &self.context, NOW, fallback);
        Outcome::of(&details.map(Into::into))
    }
}

/// Runs all cases that the way of bucketing is for; returns how many there were.
fn run_all(bucketing: Bucketing, is_for: impl Fn(&Case) -> bool) -> usize {
    let folder = data().join("flagd-evaluator");
    let flags = read(&folder.join("flags/testkit-flags.json"));
    let set = FlagSet::parse(&flags, bucketing).unwrap();
    let mut failures = BTreeMap::new();
    let mut count = 0;
    for file in std::fs::read_dir(folder.join("gherkin")).unwrap() {
        let path = file.unwrap().path();
        for case in cases(&read(&path)).iter().filter(|case| is_for(case)) {
            count += 1;
            let mut world = World {
                set: &set,
                context: Context::new(),
                kind: String::new(),
                key: String::new(),
                fallback: String::new(),
                outcome: None,
            };
            for step in &case.steps {
                let run = std::panic::AssertUnwindSafe(|| world.run(step));
                if let Err(panic) = std::panic::catch_unwind(run) {
                    let why = panic.downcast_ref::<String>().cloned();
                    let name = format!("{}: {}", path.display(), case.name);
                    failures.insert(name, (step.text.clone(), why));
                    break;
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {count}: {failures:#?}",
        failures.len()
    );
    count
}

#[test]
fn flagd_s_cases_pass_with_the_second_way_of_bucketing() {
    let is_for = |case: &Case| !case.tags.contains(&"@fractional-v1".to_owned());
    assert_eq!(run_all(Bucketing::V2, is_for), 125);
}

#[test]
fn flagd_s_cases_that_depend_on_no_way_of_bucketing_pass_with_the_third() {
    let is_for = |case: &Case| {
        let of = |tag: &&str| case.tags.iter().any(|known| known == tag);
        !["@fractional-v1", "@fractional-v2"].iter().any(of)
    };
    assert_eq!(run_all(Bucketing::V3, is_for), 104);
}
