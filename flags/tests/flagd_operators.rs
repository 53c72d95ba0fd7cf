//! What operators give where flagd's programs, or JavaScript, leave room for mistakes.

use gonfalon_flags::flagd::{Bucketing, FlagSet};
use gonfalon_flags::{Context, Moment};
use serde_json::{Value, json};

/// Whether a condition holds for a context.
fn holds(condition: &Value, attributes: &Value) -> bool {
    let definition = json!({"flags": {"f": {
        "state": "ENABLED",
        "variants": {"yes": true, "no": false},
        "targeting": {"if": [condition, "yes", "no"]},
    }}});
    let set = FlagSet::compile(&definition, Bucketing::V3).expect("it is a definition");
    let mut context = Context::of("user-1");
    for (name, value) in attributes.as_object().expect("attributes are an object") {
        context.set(name.as_str(), value.clone());
    }
    let details = set.evaluate("f", &context, Moment::from_unix_ms(0));
    assert_eq!(details.error, None, "{condition}");
    details.value == Some(&json!(true))
}

/// That two values are the same.
fn same(a: Value, b: Value) -> Value {
    json!({"===": [a, b]})
}

#[test]
fn equality_converts_as_javascript_does() {
    for (a, b, loosely, strictly) in [
        (json!(1), json!("1"), true, false),
        (json!(1), json!(1.0), true, true),
        (json!(0), json!(""), true, false),
        (json!(0), json!(false), true, false),
        (json!(1), json!(true), true, false),
        (json!("1"), json!(true), true, false),
        (json!("true"), json!(true), false, false),
        (json!(null), json!(0), false, false),
        (json!(null), json!(false), false, false),
        (json!(null), json!(""), false, false),
        (json!(null), json!(null), true, true),
        (json!("a"), json!("a"), true, true),
        (json!("a"), json!("A"), false, false),
        (json!([1]), json!(1), true, false),
        (json!([1, 2]), json!("1,2"), true, false),
        (json!([1]), json!([1]), false, false),
        (json!("0x10"), json!(16), true, false),
        (json!(" 7 "), json!(7), true, false),
        (json!("inf"), json!(f64::MAX), false, false),
        // Whole numbers keep all their digits.
        (
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_740_992_u64),
            false,
            false,
        ),
    ] {
        for (a, b) in [(&a, &b), (&b, &a)] {
            let got = |operator: &str| holds(&json!({operator: [a, b]}), &json!({}));
            assert_eq!(got("=="), loosely, "{a} == {b}");
            assert_eq!(got("!="), !loosely, "{a} != {b}");
            assert_eq!(got("==="), strictly, "{a} === {b}");
            assert_eq!(got("!=="), !strictly, "{a} !== {b}");
        }
    }
    // The same list is the same.
    assert!(holds(
        &json!({"==": [{"var": "l"}, {"var": "l"}]}),
        &json!({"l": [1]})
    ));
}

#[test]
fn order_is_that_of_texts_only_if_both_are_texts() {
    for (arguments, less) in [
        (json!(["10", "9"]), true),
        (json!(["10", 9]), false),
        (json!([9, "10"]), true),
        (json!(["a", 1]), false),
        (json!([1, "a"]), false),
        (json!([null, 1]), true),
        (json!([false, true]), true),
        (json!([1, 2, 3]), true),
        (json!([1, 3, 2]), false),
        (json!([1, 2, "x"]), false),
        (json!([[1], 2]), true),
        (json!([-1, 18_446_744_073_709_551_615_u64]), true),
    ] {
        assert_eq!(
            holds(&json!({"<": arguments}), &json!({})),
            less,
            "{arguments}"
        );
    }
    assert!(holds(&json!({">=": [3, 2, 2]}), &json!({})));
    assert!(!holds(&json!({">": [3, 2, 2]}), &json!({})));
}

#[test]
fn numbers_are_written_as_javascript_writes_them() {
    for (number, text) in [
        (json!(1.0), "1"),
        (json!(-0.0), "0"),
        (json!(0.1), "0.1"),
        (json!(1e20), "100000000000000000000"),
        (json!(1e21), "1e+21"),
        (json!(-1.5e300), "-1.5e+300"),
        (json!(0.000_001), "0.000001"),
        (json!(0.000_000_1), "1e-7"),
        (json!(123_456.789), "123456.789"),
        (
            json!(18_446_744_073_709_551_615_u64),
            "18446744073709551615",
        ),
        (
            json!(-9_223_372_036_854_775_808_i64),
            "-9223372036854775808",
        ),
    ] {
        let cat = json!({"cat": [number, ""]});
        assert!(
            holds(&same(cat, json!(text)), &json!({})),
            "{number} is {text}"
        );
    }
    for (calculation, text) in [
        (json!({"/": [1, 0]}), "Infinity"),
        (json!({"/": [-1, 0]}), "-Infinity"),
        (json!({"+": ["x"]}), "NaN"),
        (json!({"max": []}), "-Infinity"),
        (json!({"min": [1, "x"]}), "NaN"),
        (json!({"%": [-7, 3]}), "-1"),
        (json!({"-": [5]}), "-5"),
        (json!({"+": [0.1, 0.2]}), "0.30000000000000004"),
    ] {
        let cat = json!({"cat": [calculation, ""]});
        assert!(holds(&same(cat, json!(text)), &json!({})), "{calculation}");
    }
}

#[test]
fn cat_puts_texts_together() {
    for (parts, text) in [
        (json!([]), ""),
        (json!([null, "a"]), "a"),
        (json!([true, false]), "truefalse"),
        (json!([[1, [2, null], "x"]]), "1,2,,x"),
        (json!([{"var": "o"}]), "[object Object]"),
        (json!([" a "]), " a "),
    ] {
        let same = same(json!({"cat": parts}), json!(text));
        assert!(holds(&same, &json!({"o": {"a": 1}})), "{parts}");
    }
}

#[test]
fn substr_counts_characters_from_either_end() {
    for (arguments, text) in [
        (json!(["grüße", 2, 2]), "üß"),
        (json!(["grüße", -2]), "ße"),
        (json!(["grüße", 0, -1]), "grüß"),
        (json!(["grüße", -9, 2]), "gr"),
        (json!(["grüße", 9]), ""),
        (json!(["grüße", 1, -9]), ""),
        (json!(["grüße", 0, 0]), ""),
        (json!(["😀x", 1]), "x"),
        (json!([12345, 1, 2]), "23"),
        (json!(["abc", "x"]), "abc"),
        (json!(["abc", 1e300]), ""),
    ] {
        let same = same(json!({"substr": arguments}), json!(text));
        assert!(holds(&same, &json!({})), "{arguments}");
    }
}

#[test]
fn a_variable_is_found_by_its_path() {
    let attributes = json!({
        "a": {"b": [10, {"c": "x"}], "null": null},
        "a.b": "not a path",
        "text": "grüße",
    });
    for (arguments, want) in [
        (json!("a.b.0"), json!(10)),
        (json!("a.b.1.c"), json!("x")),
        (json!("a.b.length"), json!(2)),
        (json!("a.b.01"), json!(null)),
        (json!("a.b.2"), json!(null)),
        (json!("text.length"), json!(5)),
        (json!("text.2"), json!("ü")),
        (json!("text.5"), json!(null)),
        (json!(["a.x", "fallback"]), json!("fallback")),
        // Null is as good as not there.
        (json!(["a.null", "fallback"]), json!("fallback")),
        (json!(["a.b.0", "fallback"]), json!(10)),
        (json!([{"cat": ["a.", "b.0"]}]), json!(10)),
        (json!(["a.x", {"var": "a.b.0"}]), json!(10)),
    ] {
        let same = same(json!({"var": arguments}), want.clone());
        assert!(holds(&same, &attributes), "{arguments} is {want}");
    }
}

#[test]
fn in_looks_for_the_very_value() {
    let many: Vec<String> = (0..50).map(|it| format!("user-{it}")).collect();
    for (needle, list, found) in [
        (json!("user-7"), json!(many), true),
        (json!("user-50"), json!(many), false),
        (json!(7), json!(many), false),
        (json!("a"), json!(["b", "a"]), true),
        (json!("1"), json!([1, 2]), false),
        (json!(1.0), json!([1, 2]), true),
        (json!(null), json!([null]), true),
        (json!("ell"), json!("hello"), true),
        (json!(1), json!("a1b"), true),
        (json!("a"), json!(7), false),
        (json!("a"), json!({"a": 1, "b": 2}), false),
    ] {
        let condition = json!({"in": [needle, list]});
        assert_eq!(holds(&condition, &json!({})), found, "{condition}");
    }
}

#[test]
fn affixes_and_versions_that_make_no_sense_are_null() {
    for (condition, is_null) in [
        (json!({"starts_with": ["abc", "ab"]}), false),
        (json!({"starts_with": ["abc", "x"]}), false),
        (json!({"starts_with": ["abc", 1]}), true),
        (json!({"ends_with": [1, "1"]}), true),
        (json!({"ends_with": ["abc"]}), true),
        (json!({"ends_with": ["abc", "c", "c"]}), true),
        (json!({"sem_ver": ["1.0.0", "=", "1.0.1"]}), false),
        (json!({"sem_ver": ["1.0.0", "==", "1.0.0"]}), true),
        (json!({"sem_ver": ["1.0.0.0", "=", "1.0.0"]}), true),
        (json!({"sem_ver": ["01.0.0", "=", "1.0.0"]}), true),
        (json!({"sem_ver": ["1-rc", "=", "1.0.0"]}), true),
        (json!({"sem_ver": ["", "=", "1.0.0"]}), true),
        (json!({"sem_ver": [true, "=", "1.0.0"]}), true),
        (json!({"sem_ver": ["1.0.0", "="]}), true),
        (json!({"sem_ver": ["1.0.0", "=", "1.0.0", "x"]}), true),
    ] {
        let null = json!({"===": [condition, null]});
        assert_eq!(holds(&null, &json!({})), is_null, "{condition}");
    }
}

#[test]
fn versions_are_in_the_order_of_semver_org() {
    let ascending = [
        "0.9.9",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.2",
        "1.10.0",
        "2",
    ];
    for (a, low) in ascending.iter().enumerate() {
        for (b, high) in ascending.iter().enumerate() {
            for (sign, holding) in [
                ("<", a < b),
                ("<=", a <= b),
                (">", a > b),
                (">=", a >= b),
                ("=", a == b),
                ("!=", a != b),
            ] {
                for prefix in ["", "v", "V"] {
                    let condition =
                        json!({"sem_ver": [{"var": "v"}, sign, format!("{prefix}{high}")]});
                    let got = holds(&condition, &json!({ "v": low }));
                    assert_eq!(got, holding, "{low} {sign} {prefix}{high}");
                }
            }
        }
    }
    for (a, sign, b, holding) in [
        (json!("1.9.9"), "^", "1.0.0", true),
        (json!("2.0.0"), "^", "1.0.0", false),
        (json!("1.2.9"), "~", "1.2.0", true),
        (json!("1.3.0"), "~", "1.2.0", false),
        (json!("1.0.0+a"), "=", "1.0.0+b", true),
        (json!(1.2), "=", "1.2.0", true),
        (json!(2), "=", "2.0.0", true),
    ] {
        let condition = json!({"sem_ver": [{"var": "v"}, sign, b]});
        assert_eq!(
            holds(&condition, &json!({ "v": a })),
            holding,
            "{a} {sign} {b}"
        );
    }
}
