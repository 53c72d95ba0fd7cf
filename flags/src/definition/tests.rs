//! What is a definition, and where one that is none is refused.

use serde_json::{Value, json};

use super::*;

fn parse(definition: &Value) -> Result<Definition, DefinitionError> {
    Definition::parse(definition.to_string().as_bytes())
}

#[test]
fn what_makes_sense_is_a_definition_of_its_type() {
    for (definition, kind) in [
        (
            json!({"enabled": true, "rollout_percent": 20}),
            Kind::Boolean,
        ),
        (json!({"enabled": false}), Kind::Boolean),
        (json!({"enabled": true, "type": "boolean"}), Kind::Boolean),
        (json!({"enabled": true, "value": "blue"}), Kind::String),
        (json!({"enabled": true, "value": 5}), Kind::Integer),
        (json!({"enabled": true, "value": 5.0}), Kind::Integer),
        (
            json!({"enabled": true, "value": 5, "type": "float"}),
            Kind::Float,
        ),
        (json!({"enabled": true, "value": 0.5}), Kind::Float),
        (json!({"enabled": true, "value": [1]}), Kind::Object),
        (
            json!({"enabled": true, "variants": {"a": 1, "b": 0.5}, "default": "a"}),
            Kind::Float,
        ),
        (
            json!({"enabled": true, "variants": {"a": {}, "b": []}, "default": null}),
            Kind::Object,
        ),
        (
            json!({"enabled": true, "rules": [], "targets": {}}),
            Kind::Boolean,
        ),
        (
            json!({"enabled": true, "rules": [{}], "default": "off"}),
            Kind::Boolean,
        ),
        (
            json!({"enabled": true, "rules": [{}], "rollout_percent": 5}),
            Kind::Boolean,
        ),
        (
            json!({"enabled": true, "algo": 1, "salt": "s", "by": "tenant"}),
            Kind::Boolean,
        ),
        (
            json!({
                "enabled": true, "archived": true, "owner": "web", "tags": ["a"],
                "description": "d", "expires_at": "2027-01-01T00:00:00Z",
                "metadata": {"ticket": "X-1", "level": 3, "public": false},
                "requires": ["a", {"flag": "b"}, {"flag": "c", "variant": "v"}],
                "targets": {"on": ["u1", "u1"], "off": ["u2"]},
                "rules": [{
                    "name": "testers", "if": {"attribute": "plan", "is": "pro"},
                    "rollout": {"percent": 5}, "by": ["user", "id"], "salt": "x", "variant": "on",
                }],
                "rollout_percent": 0.125,
            }),
            Kind::Boolean,
        ),
    ] {
        let read = parse(&definition).unwrap_or_else(|error| panic!("{definition}: {error}"));
        assert_eq!(read.kind(), kind, "{definition}");
        assert!(
            read.unknown().is_empty(),
            "{definition}: {:?}",
            read.unknown()
        );
        assert_eq!(Value::Object(read.source().clone()), definition);
    }
}

/// Each of these fields, beside `enabled`, is refused at the pointer.
fn check_refused(table: &[(Value, &str)]) {
    for (fields, pointer) in table {
        let mut definition = json!({"enabled": true});
        let all = definition.as_object_mut().unwrap();
        all.extend(fields.as_object().unwrap().clone());
        let error = parse(&definition).expect_err(&format!("{definition} makes no sense"));
        assert_eq!(error.pointer(), *pointer, "{definition}: {error}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_at_its_field() {
    check_refused(&[
        (json!({"enabled": "yes"}), "/enabled"),
        (json!({"rollout_percent": "20"}), "/rollout_percent"),
        (json!({"rollout_percent": -1}), "/rollout_percent"),
        (json!({"rollout_percent": 101}), "/rollout_percent"),
        (json!({"rollout_percent": 0.0001}), "/rollout_percent"),
        (json!({"rollout_percent": null}), "/rollout_percent"),
        (
            json!({"rollout_percent": 5, "rollout": {"percent": 5}}),
            "/rollout_percent",
        ),
        (json!({"rollout_percent": 5, "variant": "blue"}), "/variant"),
        (json!({"variant": "on"}), "/variant"),
        (json!({"algo": 2}), "/algo"),
        (json!({"algo": "1"}), "/algo"),
        (json!({"salt": 1}), "/salt"),
        (json!({"by": {}}), "/by"),
        (json!({"type": "bool"}), "/type"),
        (json!({"type": "string"}), "/type"),
        (json!({"type": "string", "value": 1}), "/value"),
        (json!({"type": "integer", "value": 0.5}), "/value"),
        (json!({"value": null}), "/value"),
        (json!({"value": 1, "variants": {"a": 1}}), "/value"),
        (json!({"variants": {}}), "/variants"),
        (
            json!({"variants": {"a": 1, "b": "1"}, "default": "a"}),
            "/variants/b",
        ),
    ]);
}

#[test]
fn what_names_no_variant_and_decides_for_nobody_is_refused_at_its_field() {
    check_refused(&[
        (json!({"variants": {"a": 1}}), "/default"),
        (json!({"variants": {"a": 1}, "default": "b"}), "/default"),
        (
            json!({"variants": {"a": 1}, "default": "a", "off": "b"}),
            "/off",
        ),
        (
            json!({"variants": {"a": 1}, "default": "a", "rollout_percent": 5}),
            "/variant",
        ),
        (json!({"rules": [{}]}), "/default"),
        (json!({"targets": {"on": ["u"]}}), "/default"),
        (
            json!({"rules": [{"unless": []}], "default": "off"}),
            "/rules/0/unless",
        ),
        (
            json!({"rules": [{}, {"variant": "x"}], "default": "off"}),
            "/rules/1/variant",
        ),
        (
            json!({"rules": [{"if": {"attribute": 1}}], "default": "off"}),
            "/rules/0/if/attribute",
        ),
        (json!({"targets": {"blue": []}}), "/targets/blue"),
        (json!({"targets": {"on": [1]}}), "/targets/on/0"),
        (json!({"targets": {"on": ["u"], "off": ["u"]}}), "/targets"),
        (json!({"split": [{"variant": "x", "percent": 1}]}), "/split"),
        (
            json!({"split": [{"variant": "on", "percent": 1}], "variant": "on"}),
            "/variant",
        ),
        (json!({"requires": "a"}), "/requires"),
        (json!({"requires": [{"variant": "a"}]}), "/requires/0/flag"),
        (
            json!({"requires": [{"flag": "a", "is": "b"}]}),
            "/requires/0/is",
        ),
        (json!({"archived": 1}), "/archived"),
        (json!({"owner": ["me"]}), "/owner"),
        (json!({"tags": "a"}), "/tags"),
        (json!({"expires_at": "tomorrow"}), "/expires_at"),
        (json!({"metadata": {"a": []}}), "/metadata/a"),
    ]);
}

#[test]
fn what_is_no_json_object_is_refused_as_a_whole() {
    let long = format!(
        "{{\"enabled\": true, \"owner\": \"{}\"}}",
        "x".repeat(DEFINITION_BYTES_MAX)
    );
    for text in [
        "",
        "null",
        "[]",
        "{",
        "{\"enabled\": true,}",
        "\u{feff}{\"enabled\": true}",
        "{\"enabled\": true} // on",
        "{\"enabled\": NaN}",
        &long,
    ] {
        let error = Definition::parse(text.as_bytes()).expect_err("it is no JSON object");
        assert_eq!(error.pointer(), "", "{error}");
    }
    assert_eq!(parse(&json!({})).unwrap_err().pointer(), "/enabled");
}

#[test]
fn of_a_field_that_is_there_twice_the_last_one_counts() {
    let definition = Definition::parse(br#"{"enabled": true, "enabled": false}"#).unwrap();
    assert!(!definition.is_enabled());
}

#[test]
fn fields_that_are_not_known_survive_an_edit_and_are_named() {
    let definition = json!({"enabled": true, "rollout_percent": 20, "jira/link": {"a": [1, null]}});
    let definition = parse(&definition).unwrap();
    assert_eq!(definition.unknown(), ["/jira~1link"]);
    let half = Percent::from_percent(50.0).unwrap();
    let edited = definition
        .with_rollout(half)
        .unwrap()
        .with_enabled(false)
        .unwrap();
    let want = json!({"enabled": false, "rollout_percent": 50, "jira/link": {"a": [1, null]}});
    assert_eq!(Value::Object(edited.source().clone()), want);
    assert_eq!(edited.unknown(), ["/jira~1link"]);
}

#[test]
fn a_new_percentage_takes_the_place_of_a_schedule() {
    let rollout = json!({"steps": [{"at": "2026-01-01T00:00:00Z", "percent": 5}]});
    let definition = parse(&json!({"enabled": true, "rollout": rollout})).unwrap();
    let edited = definition
        .with_rollout(Percent::from_thousandths(125).unwrap())
        .unwrap();
    let want = json!({"enabled": true, "rollout_percent": 0.125});
    assert_eq!(Value::Object(edited.source().clone()), want);
}

#[test]
fn a_variants_share_grows_where_nobody_is_and_is_refused_where_somebody_is() {
    let split = json!([{"variant": "a", "percent": 20}, {"variant": "b", "percent": 30}]);
    let variants = json!({"a": "A", "b": "B"});
    let definition =
        json!({"enabled": true, "variants": variants, "default": null, "split": split});
    let definition = parse(&definition).unwrap();
    let share = |percent| Percent::from_percent(percent).unwrap();
    let grown = definition.with_share("a", share(30.5)).unwrap();
    let want = json!([
        {"variant": "a", "from": 0, "percent": 20},
        {"variant": "b", "from": 20, "percent": 30},
        {"variant": "a", "from": 50, "percent": 10.5},
    ]);
    assert_eq!(grown.source()["split"], want);
    for (variant, percent) in [("a", 70.5), ("c", 1.0)] {
        let error = definition.with_share(variant, share(percent)).unwrap_err();
        assert_eq!(error.pointer(), "/split", "{variant}: {error}");
    }
}
