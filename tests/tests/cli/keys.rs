//! `put`, `get`, `del`, `txn` and `compact`.

use serde_json::json;

use super::gonfalon::{Gonfalon, names, object, revision, table};

/// `a` is 1 at revision 2 and 2 at 3; `b` is 3 at 4, `c` two lines at 5.
async fn with_three_keys() -> Gonfalon {
    let gonfalon = Gonfalon::new().await;
    assert_eq!(gonfalon.ok(&["put", "a", "1"]), "OK, revision 2\n");
    let second = gonfalon.ok(&["put", "a", "2", "--prev-kv"]);
    assert_eq!(second, "OK, revision 3\nwas 1 (revision 2)\n");
    let third = gonfalon.json(&["put", "b", "3"]);
    assert_eq!(names(&third), ["header"]);
    assert_eq!(revision(&third["header"]), 4);
    let typed = gonfalon.run_with(&["put", "c"], "two\nlines");
    assert_eq!(typed.ok(), "OK, revision 5\n");
    gonfalon
}

#[tokio::test(flavor = "multi_thread")]
async fn get_reads_one_key_a_range_and_the_past() {
    let gonfalon = with_three_keys().await;
    let head = ["KEY", "REVISION", "VERSION", "LEASE", "VALUE"];
    let one = gonfalon.ok(&["get", "a"]);
    assert_eq!(table(&one), [&head[..], &["a", "3", "2", "-", "2"]]);
    assert_eq!(gonfalon.ok(&["-w", "simple", "get", "a"]), "a\n2\n");
    let then = gonfalon.ok(&["get", "a", "--rev", "2", "--print-value-only"]);
    assert_eq!(then, "1\n");
    let lines = gonfalon.ok(&["get", "c", "--print-value-only"]);
    assert_eq!(lines, "two\nlines\n");
    assert_eq!(
        gonfalon.ok(&["get", "", "--prefix", "--count-only"]),
        "3 keys\n"
    );

    let some = gonfalon.run(&["get", "", "--prefix", "--limit", "2", "--keys-only"]);
    let rows = [
        ["KEY", "REVISION", "VERSION"],
        ["a", "3", "2"],
        ["b", "4", "1"],
    ];
    assert_eq!(
        (some.code, table(&some.out)),
        (0, rows.map(Vec::from).to_vec())
    );
    assert_eq!(some.err, "There are more: 3 keys in all; --limit was 2.\n");
    let none = gonfalon.run(&["get", "nothing"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert_eq!(none.err, "There is no such key (revision 5).\n");

    let some = gonfalon.json(&["get", "", "--prefix", "--limit", "2"]);
    assert_eq!(names(&some), ["count", "header", "kvs", "more"]);
    assert_eq!(revision(&some["header"]), 5);
    assert_eq!((&some["count"], &some["more"]), (&json!(3), &json!(true)));
    let a = json!({"key": "YQ==", "create_revision": 2, "mod_revision": 3, "version": 2, "value": "Mg=="});
    assert_eq!(some["kvs"][0], a);
    let then = gonfalon.json(&["get", "a", "--rev", "2"]);
    assert_eq!(then["kvs"][0]["value"], "MQ==");
    assert_eq!(names(&gonfalon.json(&["get", "nothing"])), ["header"]);

    gonfalon.refused(&["get", "a", "--rev", "99"], 1, "is a future revision");
    gonfalon.refused(&["get"], 2, "Usage:");
    gonfalon.refused(&["get", "a", "--limit", "many"], 2, "--limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn del_says_what_is_gone_and_put_what_it_refuses() {
    let gonfalon = with_three_keys().await;
    let one = gonfalon.ok(&["del", "a", "--prev-kv"]);
    assert_eq!(one, "1 key deleted, revision 6\na was 2 (revision 3)\n");
    assert_eq!(gonfalon.ok(&["del", "a"]), "0 keys deleted, revision 6\n");
    let rest = gonfalon.json(&["del", "", "--prefix", "--prev-kv"]);
    assert_eq!(names(&rest), ["deleted", "header", "prev_kvs"]);
    assert_eq!(
        (revision(&rest["header"]), &rest["deleted"]),
        (7, &json!(2))
    );
    assert_eq!(rest["prev_kvs"][0]["key"], "Yg==");
    assert_eq!(rest["prev_kvs"][1]["value"], "dHdvCmxpbmVz");
    assert_eq!(names(&gonfalon.json(&["del", "a"])), ["header"]);
    assert_eq!(
        gonfalon.ok(&["get", "", "--prefix", "--count-only"]),
        "0 keys\n"
    );

    gonfalon.refused(&["del", ""], 1, "key is not provided");
    gonfalon.refused(&["put", "", "1"], 1, "key is not provided");
    gonfalon.refused(
        &["put", "a", "1", "--lease", "7b"],
        1,
        "requested lease not found",
    );
    gonfalon.refused(&["put", "a", "1", "--ignore-value"], 2, "--ignore-value");
    gonfalon.ok(&["put", "a", "1"]);
    let replaced = gonfalon.json(&["put", "a", "2", "--prev-kv"]);
    assert_eq!(names(&replaced), ["header", "prev_kv"]);
    assert_eq!(replaced["prev_kv"]["value"], "MQ==");
}

#[tokio::test(flavor = "multi_thread")]
async fn txn_does_one_of_two_things() {
    let gonfalon = with_three_keys().await;
    let script = "value(\"a\") = \"2\"\nmod(\"b\") < \"5\"\n\nput a \"two words\"\nget b\ndel c\n\nget a\n\n";
    let first = gonfalon.run_with(&["txn"], script).ok();
    assert!(first.starts_with("SUCCESS, revision 6\n"), "{first}");
    assert_eq!(
        gonfalon.ok(&["get", "a", "--print-value-only"]),
        "two words\n"
    );
    let second = gonfalon.run_with(&["txn"], script).ok();
    assert!(second.starts_with("FAILURE, revision 6\n"), "{second}");
    assert!(second.contains("two words"), "{second}");

    let script = "version(\"a\") = \"3\"\n\nput a 4\nget a\ndel b\n\nget b\n\n";
    let json = |gonfalon: &Gonfalon| {
        let said = gonfalon.run_with(&["-w", "json", "txn"], script).ok();
        object(&said)
    };
    let first = json(&gonfalon);
    assert_eq!(names(&first), ["header", "responses", "succeeded"]);
    assert_eq!(
        (revision(&first["header"]), &first["succeeded"]),
        (7, &json!(true))
    );
    let answers = ["response_put", "response_range", "response_delete_range"];
    for (at, name) in answers.into_iter().enumerate() {
        assert_eq!(
            names(&first["responses"][at]["Response"]),
            [name],
            "{first}"
        );
    }
    let read = &first["responses"][1]["Response"]["response_range"];
    assert_eq!(read["kvs"][0]["value"], "NA==");
    let second = json(&gonfalon);
    assert_eq!(
        names(&second),
        ["header", "responses"],
        "false is left out: {second}"
    );

    for (script, words) in [
        ("a is 1\n\n\n\n", "line 1: "),
        ("\nput a\n\n\n", "line 2: "),
        ("", "before its third part"),
        ("value(\"a\") = \"1\"\n\nput a 9\n", "before its third part"),
    ] {
        gonfalon.run_with(&["txn"], script).is_refused(2, words);
    }
    let twice = gonfalon.run_with(&["txn"], "\nput a 1\nput a 2\n\n\n");
    twice.is_refused(1, "duplicate key given in txn request");
}

#[tokio::test(flavor = "multi_thread")]
async fn compact_forgets_the_past_once() {
    let gonfalon = with_three_keys().await;
    let forgotten = gonfalon.ok(&["compact", "3"]);
    assert_eq!(forgotten, "History before revision 3 is forgotten\n");
    assert_eq!(
        gonfalon.ok(&["get", "a", "--rev", "3", "--print-value-only"]),
        "2\n"
    );
    gonfalon.refused(
        &["get", "a", "--rev", "2"],
        1,
        "revision has been compacted",
    );
    gonfalon.refused(&["compact", "3"], 1, "revision has been compacted");
    gonfalon.refused(&["compact", "99"], 1, "is a future revision");
    gonfalon.refused(&["compact", "all"], 2, "invalid value");
    let physical = gonfalon.json(&["compact", "4", "--physical"]);
    assert_eq!(names(&physical), ["header"]);
    assert_eq!(revision(&physical["header"]), 5);
}
