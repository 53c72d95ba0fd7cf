//! flagd's own cases and those of `JsonLogic`, which are data of other projects and not in this one.
//!
//! `make test-flags` runs them. They are looked for in the folder that `GONFALON_FLAGS_DATA` names, or in
//! `../shared/data/flags` beside the checkout; without them these tests fail. What is to be there:
//!
//! - `flagd-evaluator/`: `flags` and `gherkin` of the evaluator in open-feature/flagd-testbed 3.9.0;
//! - `flagd-schemas/test/`: the folders of the same name in `json/` of open-feature/flagd-schemas;
//! - `jsonlogic/compatible.json`: of json-logic/compat-tables.

#![cfg(feature = "data-of-others")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::bucket::Bucketing;
use super::eval::{Asked, Scope};
use super::rule::Compiler;
use super::value::Val;
use super::{Problem, Schema, check};
use crate::{Context, Moment};

mod evaluator;

/// The folder with the data of others.
fn data() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/flags");
    let folder = std::env::var_os("GONFALON_FLAGS_DATA").map_or_else(beside, PathBuf::from);
    assert!(
        folder.is_dir(),
        "{} is no folder: put the cases of flagd and JsonLogic there, or set GONFALON_FLAGS_DATA \
         (the head of flagd/tests.rs says what they are)",
        folder.display()
    );
    folder
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of a rule for data that need not be a context.
fn apply(logic: &Value, data: &Value) -> Value {
    let mut compiler = Compiler::new("", None, Bucketing::V2);
    let rule = compiler
        .compile(logic)
        .unwrap_or_else(|error| panic!("{logic}: {error}"));
    let context = Context::new();
    let asked = Asked {
        key: "",
        context: &context,
        now: Moment::from_unix_ms(0),
    };
    rule.eval(&Scope::Item(asked, Val::of(data))).to_json()
}

/// Whether two values are the same, but for how a whole number is written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b,
    }
}

#[test]
fn the_compatible_cases_of_json_logic_have_the_results_that_they_must_have() {
    let cases = read_json(&data().join("jsonlogic/compatible.json"));
    let mut count = 0;
    for case in cases.as_array().unwrap() {
        // Texts are titles.
        let Some(case) = case.as_object() else {
            continue;
        };
        let rule = &case["rule"];
        let input = case.get("data").unwrap_or(&Value::Null);
        let want = &case["result"];
        let got = apply(rule, input);
        assert!(same(&got, want), "{rule} of {input}: {got}, not {want}");
        count += 1;
    }
    assert_eq!(count, 278);
}

#[test]
fn a_schema_file_is_accepted_and_rejected_as_its_folder_says() {
    let root = data().join("flagd-schemas/test");
    let mut count = 0;
    for (folder, schema) in [
        ("flags", Schema::Flags),
        ("flagd", Schema::Daemon),
        ("targeting", Schema::Targeting),
    ] {
        for (verdict, accepted) in [("positive", true), ("negative", false)] {
            let files = root.join(folder).join(verdict);
            for file in std::fs::read_dir(&files).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_none_or(|end| end != "json") {
                    continue;
                }
                // A list of flags in the folder of providers: only the daemon takes one.
                let is_list = path.ends_with("example.flagdimport.array.json");
                let schema = if is_list { Schema::Daemon } else { schema };
                let problems = check(&read_json(&path), schema);
                assert_eq!(problems.is_empty(), accepted, "{path:?}: {problems:?}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 36);
}

#[test]
fn a_problem_says_where_it_is() {
    let definition = json!({"flags": {"a/b": {
        "state": "on",
        "variants": {"x": 1, "y": "2"},
        "targeting": {"if": [{"sem_ver": [{"var": "v"}, "*", "1.0.0"]}, "x"]},
    }}});
    let pointers: Vec<String> = check(&definition, Schema::Flags)
        .into_iter()
        .map(|Problem { pointer, .. }| pointer)
        .collect();
    assert_eq!(
        pointers,
        [
            "/flags/a~1b/state",
            "/flags/a~1b/variants/y",
            "/flags/a~1b/targeting/if/0/sem_ver/1",
        ]
    );
}
